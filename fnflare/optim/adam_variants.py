"""Newer relatives of Adam, each as a rule and as an optimiser by name.

The rules are kernels on one leaf, as in `fnflare.optim.adaptive`; the optimisers are chains of a rule, weight decay and
the learning rate, with optax's arguments and defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.optim.adaptive import ScaleByAdamState
from fnflare.optim.base import (
    GradientTransformation,
    ScalarOrSchedule,
    need_params,
    safe_increment,
    state_of,
    zero_count,
)
from fnflare.optim.combine import Mask, chain
from fnflare.optim.leaves import abs_sq, check_decay, dtype_of, filled, leaves_like, tiled, weak
from fnflare.optim.moments import counted_rule, kept_as, like
from fnflare.optim.transforms import add_decayed_weights, scale_by_learning_rate

__all__ = [
    "ScaleByAdanState",
    "ScaleByAdemamixState",
    "ScaleByNovogradState",
    "adan",
    "ademamix",
    "adopt",
    "novograd",
    "scale_by_adan",
    "scale_by_ademamix",
    "scale_by_adopt",
    "scale_by_novograd",
]


class ScaleByAdanState(NamedTuple):
    """``m``, ``v``, ``n``: the moments of the gradient, of its change, and of both squared; ``g``: the last gradient.

    ``count``: updates made.
    """

    m: Any
    v: Any
    n: Any
    g: Any
    count: Any


def scale_by_adan(
    b1: float = 0.98, b2: float = 0.92, b3: float = 0.99, eps: float = 1e-8, eps_root: float = 0.0
) -> GradientTransformation:
    """Adan's rule: Adam with a mean of the change of the gradient, by which it looks ahead.

    Xie et al., 2022, "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models".

    Args:
        b1: the decay of the mean gradient.
        b2: the decay of its mean change.
        b3: the decay of the mean square of both.
        eps: added to the root.
        eps_root: added under the root.

    >>> opt = ff.optim.scale_by_adan()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 1., -1.]), array([1.    , 0.0862]))
    """
    check_decay("scale_by_adan", b1=b1, b2=b2, b3=b3)

    @tiled
    def kernel(
        g: Any, m: Any, v: Any, n: Any, last: Any, c1: Any, c2: Any, c3: Any, known: Any, *rest: Any
    ) -> tuple[Any, Any, Any, Any, Any]:
        b1, b2, b3, eps, root = rest
        change = known * (g - last)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * change
        ahead = g + (1 - b2) * change
        n = b3 * n + (1 - b3) * abs_sq(ahead)
        return (c1 * m + (1 - b2) * c2 * v) / (np.sqrt(c3 * n + root) + eps), m, v, n, g + 0.0

    def hyper(count: Any) -> tuple[Any, ...]:
        t = weak(count) + 1
        return 1 / (1 - b1**t), 1 / (1 - b2**t), 1 / (1 - b3**t), np.where(t > 1, 1.0, 0.0), b1, b2, b3, eps, eps_root

    return counted_rule("scale_by_adan", kernel, ScaleByAdanState, hyper)


def adan(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    eps_root: float = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Adan (Xie et al., 2022, "Adan: adaptive Nesterov momentum algorithm for faster optimizing deep models").

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        b1: the decay of the mean gradient.
        b2: the decay of its mean change.
        b3: the decay of the mean square of both.
        eps: added to the root.
        eps_root: added under the root.
        weight_decay: the factor of the decay, or a schedule of it.
        mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.adan(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([0.6, -0.2]), state, params)[0].round(4)
    (array([-0.1,  0.1]), array([-0.0996,  0.1   ]))
    """
    rule, decay = scale_by_adan(b1, b2, b3, eps, eps_root), add_decayed_weights(weight_decay, mask)
    return chain(rule, decay, scale_by_learning_rate(learning_rate))


class ScaleByNovogradState(NamedTuple):
    """``count``: updates made; ``mu``: the sum of updates; ``nu``: the mean squared norm of each array's gradient."""

    count: Any
    mu: Any
    nu: Any


def scale_by_novograd(
    b1: float = 0.9,
    b2: float = 0.25,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mu_dtype: Any = None,
) -> GradientTransformation:
    """NovoGrad's rule: momentum of gradients that are divided by the root mean square of their norms, array by array.

    Ginsburg et al., 2019, "Stochastic gradient methods with layer-wise adaptive moments for training of deep networks".

    Args:
        b1: the decay of the sum of updates.
        b2: the decay of the mean squared norm.
        eps: added to its root.
        eps_root: added under the root.
        weight_decay: the factor of the decay, added to the updates before they are summed, or a schedule of it.
        mu_dtype: the dtype in which the sum is kept; the parameters' where it is None.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.scale_by_novograd(), np.zeros(2)
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state, params)[0].round(4)
    (array([ 0.6, -0.8]), array([1.14, 0.08]))
    """
    check_decay("scale_by_novograd", b1=b1, b2=b2)

    def one(
        g: Any, p: Any, mu: Any, nu: Any, keep1: Any, keep2: Any, eps: Any, root: Any, decay: Any
    ) -> tuple[Any, Any]:
        nu = keep2 * nu + (1 - keep2) * np.sum(abs_sq(g))
        return keep1 * mu + g / (np.sqrt(nu + root) + eps) + decay * p, nu

    def init(params: Any) -> ScaleByNovogradState:
        nu = tree.map(lambda p: np.zeros((), dtype_of(p)), params)
        return ScaleByNovogradState(zero_count(), filled(params, 0.0, mu_dtype), nu)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ScaleByNovogradState]:
        who = "scale_by_novograd"
        need_params(who, updates, params)
        old = state_of(ScaleByNovogradState, state, who)
        flat, treedef = tree.flatten(updates)
        trees = {"params": params, "state.mu": like(old.mu, updates, mu_dtype), "state.nu": old.nu}
        columns = [leaves_like(treedef, values, who, "updates", name) for name, values in trees.items()]
        keep: list[Any] = [np.where(old.count > 0, b, 0.0) for b in (b1, b2)]
        keep += [eps, eps_root]
        keep.append(weight_decay(old.count) if callable(weight_decay) else weight_decay)
        rows = [one(g, *rest, *[weak(k, dtype_of(g)) for k in keep]) for g, *rest in zip(flat, *columns, strict=True)]
        mu, nu = (tree.unflatten(treedef, [row[i] for row in rows]) for i in range(2))
        return mu, ScaleByNovogradState(safe_increment(old.count), kept_as(mu, mu_dtype), nu)

    return GradientTransformation(init, update)


def novograd(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.25,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
) -> GradientTransformation:
    """NovoGrad (Ginsburg et al., 2019, "Stochastic gradient methods with layer-wise adaptive moments").

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the sum of updates.
        b2: the decay of the mean squared norm of each array's gradient.
        eps: added to its root.
        eps_root: added under the root.
        weight_decay: the factor of the decay, or a schedule of it.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.novograd(0.1), np.array([3.0, 4.0])
    >>> opt.update(np.array([0.3, -0.4]), opt.init(params), params)[0].round(4)
    array([-0.06,  0.08])
    """
    rule = scale_by_novograd(b1, b2, eps, eps_root, weight_decay)
    return chain(rule, scale_by_learning_rate(learning_rate))


def _fourth_root(count: Any) -> Any:
    return count**0.25


def scale_by_adopt(
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[..., Any] = _fourth_root,
) -> GradientTransformation:
    """ADOPT's rule: the mean of gradients, each over the root of the mean square of those before it.

    Taniguchi et al., 2024, "ADOPT: modified Adam can converge with any beta2 with the optimal rate". The first update
    is zero: it makes the first mean square. The state is Adam's.

    Args:
        b1: the decay of the mean.
        b2: the decay of the mean squared gradient.
        eps: the least root.
        mu_dtype: the dtype in which the mean is kept; the parameters' where it is None.
        nesterov: look one step ahead along the mean.
        use_clipping: whether the gradients are clipped after the division.
        clip_value_fn: to what size, as a function of the step.

    >>> opt = ff.optim.scale_by_adopt()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates, opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([0., 0.]), array([0.1, 0.1]))
    """
    check_decay("scale_by_adopt", b1=b1, b2=b2)

    @tiled
    def kernel(g: Any, mu: Any, nu: Any, b1: Any, b2: Any, eps: Any, most: Any) -> tuple[Any, Any, Any]:
        scaled = g / np.maximum(np.sqrt(nu), eps)
        if use_clipping:
            scaled = np.clip(scaled, -most, most)
        mu = b1 * mu + (1 - b1) * scaled
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        return (b1 * mu + (1 - b1) * scaled if nesterov else mu + 0.0), mu, nu

    def hyper(count: Any) -> tuple[Any, ...]:
        later = count > 0  # before there is a mean square, the gradient is divided by 1 and not used
        most = clip_value_fn(count) if use_clipping else 0.0
        return np.where(later, b1, 1.0), np.where(later, b2, 0.0), np.where(later, eps, 1.0), most

    return counted_rule("scale_by_adopt", kernel, ScaleByAdamState, hyper, dtypes={"mu": mu_dtype})


def adopt(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.9999,
    eps: float = 1e-6,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    use_clipping: bool = True,
    clip_value_fn: Callable[..., Any] = _fourth_root,
) -> GradientTransformation:
    """ADOPT (Taniguchi et al., 2024, "ADOPT: modified Adam can converge with any beta2 with the optimal rate").

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean.
        b2: the decay of the mean squared gradient.
        eps: the least root of it.
        mu_dtype: the dtype in which the mean is kept; the parameters' where it is None.
        nesterov: look one step ahead along the mean.
        use_clipping: whether the gradients are clipped after the division.
        clip_value_fn: to what size, as a function of the step.

    >>> opt, params = ff.optim.adopt(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> opt.update(np.array([0.5, 0.2]), state, params)[0].round(4)
    array([-0.01, -0.01])
    """
    rule = scale_by_adopt(
        b1, b2, eps, mu_dtype, nesterov=nesterov, use_clipping=use_clipping, clip_value_fn=clip_value_fn
    )
    return chain(rule, scale_by_learning_rate(learning_rate))


class ScaleByAdemamixState(NamedTuple):
    """``count``: updates made; ``m1``, ``m2``: the fast and the slow mean gradient; ``nu``: the mean square."""

    count: Any
    m1: Any
    m2: Any
    nu: Any


def scale_by_ademamix(
    b1: float = 0.9,
    b2: float = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 6.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
) -> GradientTransformation:
    """AdEMAMix's rule: Adam with a second, much slower mean gradient beside the first.

    Pagliardini et al., 2024, "The AdEMAMix optimizer: better, faster, older".

    Args:
        b1: the decay of the fast mean.
        b2: the decay of the mean squared gradient.
        b3: the decay of the slow mean, or a schedule of it.
        alpha: the factor of the slow mean, or a schedule of it.
        eps: added to the root.
        eps_root: added under the root.
        mu_dtype: the dtype in which the moments are kept; the parameters' where it is None.

    >>> opt = ff.optim.scale_by_ademamix(b3=0.99)
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 1.06, -1.06]), array([1.1194, 0.0532]))
    """
    check_decay("scale_by_ademamix", b1=b1, b2=b2)

    @tiled
    def kernel(
        g: Any, m1: Any, m2: Any, nu: Any, b3: Any, alpha: Any, c1: Any, c2: Any, *rest: Any
    ) -> tuple[Any, Any, Any, Any]:
        b1, b2, eps, root = rest
        m1 = b1 * m1 + (1 - b1) * g
        m2 = b3 * m2 + (1 - b3) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        return (c1 * m1 + alpha * m2) / (np.sqrt(c2 * nu + root) + eps), m1, m2, nu

    def hyper(count: Any) -> tuple[Any, ...]:
        t = weak(count) + 1
        now = [h(count) if callable(h) else h for h in (b3, alpha)]
        return *now, 1 / (1 - b1**t), 1 / (1 - b2**t), b1, b2, eps, eps_root

    kept = {"m1": mu_dtype, "m2": mu_dtype, "nu": mu_dtype}
    return counted_rule("scale_by_ademamix", kernel, ScaleByAdemamixState, hyper, dtypes=kept)


def ademamix(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    b3: ScalarOrSchedule = 0.9999,
    alpha: ScalarOrSchedule = 5.0,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    """AdEMAMix (Pagliardini et al., 2024, "The AdEMAMix optimizer: better, faster, older").

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        b1: the decay of the fast mean.
        b2: the decay of the mean squared gradient.
        b3: the decay of the slow mean, or a schedule of it.
        alpha: the factor of the slow mean, or a schedule of it.
        eps: added to the root.
        eps_root: added under the root.
        mu_dtype: the dtype in which the moments are kept; the parameters' where it is None.
        weight_decay: the factor of the decay, or a schedule of it.
        mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.ademamix(0.1, b3=0.99), np.array([3.0, 4.0])
    >>> opt.update(np.array([0.5, -0.2]), opt.init(params), params)[0].round(4)
    array([-0.105,  0.105])
    """
    rule = scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype)
    return chain(rule, add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))
