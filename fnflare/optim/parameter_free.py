"""Step sizes from the distance that the parameters have gone: optimisers without a learning rate to be tuned.

Gradients and parameters go in, updates come out; the state holds the parameters of the beginning and estimates how far
from them the solution is. A learning rate is a factor of that, and stays at 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    ScalarOrSchedule,
    global_norm,
    identity,
    inner_product,
    need_params,
    safe_increment,
    state_of,
    sum_of_squares,
    with_extra_args_support,
    zero_count,
)
from fnflare.optim.combine import Mask, chain
from fnflare.optim.leaves import (
    abs_sq,
    check_decay,
    copied,
    filled,
    float_dtype,
    map_leaves,
    reject_complex,
    weak,
    weak_at,
)
from fnflare.optim.transforms import add_decayed_weights, scale_by_learning_rate

__all__ = [
    "COCOBState",
    "DAdaptAdamWState",
    "DoGState",
    "DoWGState",
    "ProdigyState",
    "cocob",
    "dadapt_adamw",
    "dog",
    "dowg",
    "prodigy",
    "scale_by_cocob",
    "scale_by_dog",
    "scale_by_dowg",
]


def _gone(who: str, old: Any, params: Any) -> Any:
    """The squared distance of the parameters from those of the beginning."""
    trees = {"params": params, "state.init_params": old}
    return sum_of_squares(map_leaves(who, lambda p, q: (p - q,), trees, outputs=1)[0])


def _scaled(who: str, updates: Any, size: Any) -> Any:
    return map_leaves(who, lambda g, c: (c * g,), {"updates": updates}, size, outputs=1)[0]


def _root(square: Any) -> Any:
    """A root with a finite derivative at 0."""
    positive = square > 0
    return np.where(positive, np.sqrt(np.where(positive, square, 1.0)), 0.0)


class DoGState(NamedTuple):
    """The state of `scale_by_dog`.

    Attributes:
        is_init_step: whether there was no update yet.
        init_params: the first parameters.
        max_dist: the greatest distance from them.
        sum_sq_norm_grads: the sum of the squared norms of the gradients.
    """

    is_init_step: Any
    init_params: Any
    max_dist: Any
    sum_sq_norm_grads: Any


def scale_by_dog(init_step: tuple[str, float], eps: float = 1e-8) -> GradientTransformation:
    """Multiplies the updates by the greatest distance gone over the root of the sum of their squared norms.

    Ivgi et al., 2023, "DoG is SGD's best friend: a parameter-free dynamic step size schedule".

    Args:
        init_step: how it begins: ``("distance", r)``, as if r had been gone; ``("learning_rate", c)``, with a first
            step of that size; ``("heuristic", a)``, with a distance of a times one plus the norm of the parameters.
        eps: added under the root.

    Raises:
        ArgumentError: `init_step` is none of these; ``update`` was called without the parameters.

    >>> opt, params = ff.optim.scale_by_dog(("distance", 0.5)), np.zeros(2)
    >>> opt.update(np.array([3.0, 4.0]), opt.init(params), params)[0].round(4)  # 0.5 / 5 of it
    array([0.3, 0.4])
    """
    kind, value = init_step
    if kind not in ("distance", "learning_rate", "heuristic"):
        raise ArgumentError(
            "scale_by_dog: init_step must be ('distance', r), ('learning_rate', c) or ('heuristic', a), got "
            f"{init_step!r}"
        )

    def init(params: Any) -> DoGState:
        first = {"distance": value, "learning_rate": 0.0, "heuristic": value * (1 + global_norm(params))}[kind]
        dtype = float_dtype(params)
        return DoGState(np.ones((), np.bool_), copied(params), _scalar(first, dtype), np.zeros((), dtype))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, DoGState]:
        need_params("scale_by_dog", updates, params)
        old = state_of(DoGState, state, "scale_by_dog")
        dtype = old.max_dist.dtype
        far = np.maximum(old.max_dist, _root(_gone("scale_by_dog", old.init_params, params)))
        total = old.sum_sq_norm_grads + sum_of_squares(updates)
        size = far / np.sqrt(total + eps)
        if kind == "learning_rate":
            size = np.where(old.is_init_step, value, size)
        new = DoGState(np.zeros((), np.bool_), old.init_params, _scalar(far, dtype), _scalar(total, dtype))
        return _scaled("scale_by_dog", updates, size), new

    return GradientTransformation(init, update)


def _scalar(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if hasattr(x, "astype") else np.asarray(x, dtype)


def _penalty(weight_decay: float | None, mask: Mask | None) -> GradientTransformation:
    return identity() if weight_decay is None else add_decayed_weights(weight_decay, mask)


def dog(
    learning_rate: ScalarOrSchedule = 1.0,
    init_step: tuple[str, float] = ("heuristic", 1e-6),
    eps: float = 1e-8,
    weight_decay: float | None = None,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Distance over gradients (Ivgi et al., 2023, "DoG is SGD's best friend"); it wants an average of the parameters.

    Args:
        learning_rate: a factor, or a schedule of one.
        init_step: as in `scale_by_dog`.
        eps: added under the root.
        weight_decay: the factor of an L2 penalty; None for none.
        mask: which parameters it applies to, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.dog(init_step=("learning_rate", 0.1)), np.array([3.0, 4.0])
    >>> opt.update(np.array([0.5, -0.2]), opt.init(params), params)[0]
    array([-0.05,  0.02])
    """
    return chain(_penalty(weight_decay, mask), scale_by_dog(init_step, eps), scale_by_learning_rate(learning_rate))


class DoWGState(NamedTuple):
    """The state of `scale_by_dowg`.

    Attributes:
        init_params: the first parameters.
        weighted_sq_norm_grads: the sum of the squared norms of the gradients, each times the estimate of its step.
        estim_sq_dist: the greatest squared distance from the first parameters.
    """

    init_params: Any
    weighted_sq_norm_grads: Any
    estim_sq_dist: Any


def scale_by_dowg(init_estim_sq_dist: float | None = None, eps: float = 1e-4) -> GradientTransformation:
    """Multiplies the updates by a squared distance over the root of the sum of their squared norms, weighted by it.

    Khaled et al., 2023, "DoWG unleashed: an efficient universal parameter-free gradient descent method".

    Args:
        init_estim_sq_dist: the squared distance to begin with; None for `eps`.
        eps: added to the root.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.scale_by_dowg(1.0, eps=0.0), np.zeros(2)
    >>> opt.update(np.array([3.0, 4.0]), opt.init(params), params)[0]
    array([0.6, 0.8])
    """

    def init(params: Any) -> DoWGState:
        dtype = float_dtype(params)
        first = eps if init_estim_sq_dist is None else init_estim_sq_dist
        return DoWGState(copied(params), np.zeros((), dtype), _scalar(first, dtype))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, DoWGState]:
        need_params("scale_by_dowg", updates, params)
        old = state_of(DoWGState, state, "scale_by_dowg")
        dtype = old.estim_sq_dist.dtype
        far = np.maximum(old.estim_sq_dist, _gone("scale_by_dowg", old.init_params, params))
        total = old.weighted_sq_norm_grads + far * sum_of_squares(updates)
        new = DoWGState(old.init_params, _scalar(total, dtype), _scalar(far, dtype))
        return _scaled("scale_by_dowg", updates, far / (np.sqrt(total) + eps)), new

    return GradientTransformation(init, update)


def dowg(
    learning_rate: ScalarOrSchedule = 1.0,
    init_estim_sq_dist: float | None = None,
    eps: float = 1e-4,
    weight_decay: float | None = None,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Distance over weighted gradients (Khaled et al., 2023, "DoWG unleashed").

    Args:
        learning_rate: a factor, or a schedule of one.
        init_estim_sq_dist: the squared distance to begin with; None for `eps`.
        eps: added to the root.
        weight_decay: the factor of an L2 penalty; None for none.
        mask: which parameters it applies to, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.dowg(init_estim_sq_dist=0.01), np.array([3.0, 4.0])
    >>> opt.update(np.array([0.5, -0.2]), opt.init(params), params)[0].round(4)
    array([-0.0927,  0.0371])
    """
    rule = scale_by_dowg(init_estim_sq_dist, eps)
    return chain(_penalty(weight_decay, mask), rule, scale_by_learning_rate(learning_rate))


class ProdigyState(NamedTuple):
    """The state of `prodigy`.

    Attributes:
        exp_avg: the mean gradient, times the estimate.
        exp_avg_sq: the mean squared gradient, times its square.
        grad_sum: the weighted sum of gradients.
        params0: the first parameters.
        estim_lr: the estimate of the distance to the solution.
        numerator_weighted: the weighted sum of the products of gradients and distances gone.
        count: updates made.
    """

    exp_avg: Any
    exp_avg_sq: Any
    grad_sum: Any
    params0: Any
    estim_lr: Any
    numerator_weighted: Any
    count: Any


def _size_of(values: Any) -> Any:
    return sum((np.sum(np.abs(leaf)) for leaf in tree.leaves(values)), 0.0)


def _greater(estimate: Any, numerator: Any, denominator: Any) -> Any:
    """The greater of an estimate and a new one; the old one where there were no gradients yet."""
    known = denominator > 0
    return np.where(known, np.maximum(estimate, numerator / np.where(known, denominator, 1.0)), estimate)


def prodigy(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    beta3: float | None = None,
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    estim_lr_coef: float = 1.0,
    weight_decay: float = 0.0,
    safeguard_warmup: bool = False,
) -> GradientTransformationExtraArgs:
    """Prodigy (Mishchenko & Defazio, 2023, "Prodigy: an expeditiously adaptive parameter-free learner"): Adam that
    estimates its learning rate.

    Args:
        learning_rate: a factor of the estimate, or a schedule of one.
        betas: the decays of the mean and of the mean squared gradient.
        beta3: the decay of the sums of the estimate; None for the root of the second.
        eps: added to the root of the mean square.
        estim_lr0: the estimate to begin with.
        estim_lr_coef: a factor of new estimates.
        weight_decay: the factor of the decoupled weight decay.
        safeguard_warmup: whether the estimate leaves the learning rate out of its sums, for schedules that warm up.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, x = ff.optim.prodigy(), np.array([3.0, 4.0])
    >>> state = opt.init(x)
    >>> for _ in range(100):
    ...     updates, state = opt.update(x, state, x)  # the gradient of |x|**2 / 2
    ...     x = ff.optim.apply_updates(x, updates)
    >>> bool(ff.optim.global_norm(x) < 0.1), bool(state.estim_lr > 1e-6)
    (True, True)
    """
    b1, b2 = betas
    check_decay("prodigy", beta1=b1, beta2=b2)
    b3 = b2**0.5 if beta3 is None else beta3

    def gather(g: Any, ea: Any, eas: Any, s: Any, d: Any, pace: Any, b1: Any, b2: Any, b3: Any) -> tuple[Any, Any, Any]:
        g = d * g
        return b1 * ea + (1 - b1) * g, b2 * eas + (1 - b2) * abs_sq(g), b3 * s + pace * g

    def step(ea: Any, eas: Any, p: Any, rate: Any, least: Any, weight_decay: Any) -> tuple[Any]:
        return (-rate * (weight_decay * p + ea / (np.sqrt(eas) + least)),)

    def init(params: Any) -> ProdigyState:
        dtype = float_dtype(params)
        zeros = filled(params, 0.0), filled(params, 0.0), filled(params, 0.0)
        return ProdigyState(*zeros, copied(params), np.full((), estim_lr0, dtype), np.zeros((), dtype), zero_count())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ProdigyState]:
        need_params("prodigy", updates, params)
        old = state_of(ProdigyState, state, "prodigy")
        d, dtype, t = old.estim_lr, old.estim_lr.dtype, weak(old.count) + 1
        rate = d * weak_at(learning_rate, old.count)
        rate = rate * ((1 - b2**t) ** 0.5 / (1 - b1**t))
        trees = {"params": params, "state.params0": old.params0}
        (gone,) = map_leaves("prodigy", lambda p, q: (q - p,), trees, outputs=1)
        numerator = b3 * old.numerator_weighted + d / estim_lr0 * rate * inner_product(updates, gone)
        trees = {"u": updates, "exp_avg": old.exp_avg, "exp_avg_sq": old.exp_avg_sq, "grad_sum": old.grad_sum}
        pace = (d if safeguard_warmup else rate) / estim_lr0
        mean, square, total = map_leaves("prodigy", gather, trees, d, pace, b1, b2, b3, outputs=3)
        new = _greater(d, estim_lr_coef * numerator, _size_of(total))
        trees = {"exp_avg": mean, "exp_avg_sq": square, "params": params}
        (steps,) = map_leaves("prodigy", step, trees, rate, new * eps, weight_decay, outputs=1)
        numbers = _scalar(new, dtype), _scalar(numerator, dtype), safe_increment(old.count)
        return steps, ProdigyState(mean, square, total, old.params0, *numbers)

    return with_extra_args_support(GradientTransformation(init, update))


class DAdaptAdamWState(NamedTuple):
    """The state of `dadapt_adamw`.

    Attributes:
        exp_avg: the mean gradient, times the learning rate.
        exp_avg_sq: the mean squared gradient.
        grad_sum: the weighted sum of gradients.
        estim_lr: the estimate of the learning rate.
        numerator_weighted: the weighted sum of the products of gradients and directions gone.
        count: updates made.
    """

    exp_avg: Any
    exp_avg_sq: Any
    grad_sum: Any
    estim_lr: Any
    numerator_weighted: Any
    count: Any


def dadapt_adamw(
    learning_rate: ScalarOrSchedule = 1.0,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    estim_lr0: float = 1e-6,
    weight_decay: float = 0.0,
) -> GradientTransformationExtraArgs:
    """AdamW by D-adaptation (Defazio & Mishchenko, 2023, "Learning-rate-free learning by D-adaptation").

    Args:
        learning_rate: a factor of the estimate, or a schedule of one.
        betas: the decays of the mean and of the mean squared gradient.
        eps: added to the root of the mean square.
        estim_lr0: the estimate to begin with.
        weight_decay: the factor of the decoupled weight decay.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, x = ff.optim.dadapt_adamw(), np.array([3.0, 4.0])
    >>> state = opt.init(x)
    >>> for _ in range(100):
    ...     updates, state = opt.update(x, state, x)  # the gradient of |x|**2 / 2
    ...     x = ff.optim.apply_updates(x, updates)
    >>> bool(ff.optim.global_norm(x) < 0.5), bool(state.estim_lr > 1e-6)
    (True, True)
    """
    b1, b2 = betas
    check_decay("dadapt_adamw", beta1=b1, beta2=b2)
    b3 = b2**0.5

    def gather(g: Any, ea: Any, eas: Any, s: Any, p: Any, rate: Any, *rest: Any) -> tuple[Any, ...]:
        b1, b2, b3, eps, weight_decay = rest
        gone = s / (np.sqrt(eas) + eps)
        ea, eas, s = b1 * ea + (1 - b1) * rate * g, b2 * eas + (1 - b2) * abs_sq(g), b3 * s + (1 - b3) * rate * g
        return -weight_decay * rate * p - ea / (np.sqrt(eas) + eps), gone, ea, eas, s

    def init(params: Any) -> DAdaptAdamWState:
        dtype = float_dtype(params)
        zeros = filled(params, 0.0), filled(params, 0.0), filled(params, 0.0)
        return DAdaptAdamWState(*zeros, np.full((), estim_lr0, dtype), np.zeros((), dtype), zero_count())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, DAdaptAdamWState]:
        need_params("dadapt_adamw", updates, params)
        old = state_of(DAdaptAdamWState, state, "dadapt_adamw")
        dtype, t = old.estim_lr.dtype, weak(old.count) + 1
        rate = old.estim_lr * weak_at(learning_rate, old.count)
        rate = rate * ((1 - b2**t) ** 0.5 / (1 - b1**t))
        moments = {"exp_avg": old.exp_avg, "exp_avg_sq": old.exp_avg_sq, "grad_sum": old.grad_sum}
        trees = {"updates": updates, **moments, "params": params}
        steps, gone, mean, square, total = map_leaves(
            "dadapt_adamw", gather, trees, rate, b1, b2, b3, eps, weight_decay, outputs=5
        )
        numerator = b3 * old.numerator_weighted + (1 - b3) * rate * inner_product(updates, gone)
        new = _greater(old.estim_lr, numerator, (1 - b3) * _size_of(total))
        numbers = _scalar(new, dtype), _scalar(numerator, dtype), safe_increment(old.count)
        return steps, DAdaptAdamWState(mean, square, total, *numbers)

    return with_extra_args_support(GradientTransformation(init, update))


class COCOBState(NamedTuple):
    """The state of `scale_by_cocob`, of each element.

    Attributes:
        init_particles: the first parameters.
        cumulative_gradients: minus the sum of gradients.
        scale: the greatest size of a gradient.
        subgradients: the sum of their sizes.
        reward: what was won by the bets so far.
    """

    init_particles: Any
    cumulative_gradients: Any
    scale: Any
    subgradients: Any
    reward: Any


def scale_by_cocob(alpha: float = 100.0, eps: float = 1e-8) -> GradientTransformation:
    """Coin betting: a step is a fraction of what was won so far (COCOB-Backprop).

    Orabona & Tommasi, 2017, "Training deep networks without learning rates through coin betting". What comes out is the
    update itself, downhill.

    Args:
        alpha: how slowly the first bets grow.
        eps: the size of a gradient to begin with.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.scale_by_cocob(), np.array([3.0, 4.0])
    >>> opt.update(np.array([0.5, -0.2]), opt.init(params), params)[0]
    array([-0.01,  0.01])
    """

    def kernel(
        g: Any, p: Any, p0: Any, sum_g: Any, most: Any, sizes: Any, won: Any, alpha: Any
    ) -> tuple[Any, Any, Any, Any, Any]:
        most = np.maximum(most, np.abs(g))
        sizes = sizes + np.abs(g)
        won = np.maximum(won - g * (p - p0), 0.0)
        sum_g = sum_g - g
        bet = sum_g / (most * np.maximum(sizes + most, alpha * most)) * (most + won)
        return p0 + bet - p, sum_g, most, sizes, won

    def init(params: Any) -> COCOBState:
        zeros = [filled(params, 0.0) for _ in range(3)]
        return COCOBState(copied(params), zeros[0], filled(params, eps), zeros[1], zeros[2])

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, COCOBState]:
        need_params("scale_by_cocob", updates, params)
        reject_complex("scale_by_cocob", updates)
        old = state_of(COCOBState, state, "scale_by_cocob")
        trees = {"updates": updates, "params": params, **{f"state.{n}": v for n, v in old._asdict().items()}}
        new, *rest = map_leaves("scale_by_cocob", kernel, trees, alpha, outputs=5)
        return new, COCOBState(old.init_particles, *rest)

    return GradientTransformation(init, update)


def cocob(
    learning_rate: ScalarOrSchedule = 1.0,
    alpha: float = 100.0,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Coin betting (Orabona & Tommasi, 2017, "Training deep networks without learning rates through coin betting").

    Args:
        learning_rate: a factor of the gradients, or a schedule of one.
        alpha: how slowly the first bets grow.
        eps: the size of a gradient to begin with.
        weight_decay: the factor of an L2 penalty.
        mask: which parameters it applies to, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.cocob(), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates, opt.update(np.array([0.5, -0.2]), state, params + updates)[0].round(4)
    (array([-0.01,  0.01]), array([-0.0102,  0.0102]))
    """
    factor = scale_by_learning_rate(learning_rate, flip_sign=False)
    return chain(add_decayed_weights(weight_decay, mask), factor, scale_by_cocob(alpha, eps))
