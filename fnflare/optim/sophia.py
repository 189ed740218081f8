"""Sophia: the mean gradient over an estimate of the diagonal of the Hessian.

Gradients, parameters and a function of them go in; updates come out. Every so often the state's estimate of the
Hessian's diagonal is renewed, by a transformation of its own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare import random, transforms, tree
from fnflare.errors import ArgumentError
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    ScalarOrSchedule,
    need_params,
    safe_increment,
    state_of,
    with_extra_args_support,
    zero_count,
)
from fnflare.optim.combine import Mask, chain
from fnflare.optim.leaves import check_decay, dtype_of, filled, map_leaves, reject_complex, weak
from fnflare.optim.moments import kept_as, like
from fnflare.optim.transforms import add_decayed_weights, scale_by_learning_rate
from fnflare.optim.wrappers import choose

__all__ = ["HutchinsonState", "SophiaState", "hutchinson_estimator_diag_hessian", "scale_by_sophia", "sophia"]


class HutchinsonState(NamedTuple):
    """``key``: what the next signs are drawn with."""

    key: Any


def hutchinson_estimator_diag_hessian(random_seed: Any = None) -> GradientTransformationExtraArgs:
    """An estimate of the diagonal of the Hessian: random signs times the Hessian's product with them.

    Hutchinson, 1989, "A stochastic estimator of the trace of the influence matrix". It takes the function of the
    parameters by keyword: ``opt.update(grads, state, params, obj_fn=f)``; the ``value_fn=`` that
    `fnflare.train.make_step` gives will do.

    Args:
        random_seed: a key of `fnflare.random`, or a seed; None for 0.

    Raises:
        ArgumentError: ``update`` was called without the parameters or ``obj_fn=``.

    >>> opt, x = ff.optim.hutchinson_estimator_diag_hessian(), np.array([3.0, 4.0])
    >>> opt.update(x, opt.init(x), x, obj_fn=lambda x: np.sum(x**3))[0]  # exact where the Hessian is diagonal: 6 x
    array([18., 24.])
    """
    seed = 0 if random_seed is None else random_seed
    key = random.key(seed) if isinstance(seed, int) else seed

    def init(params: Any) -> HutchinsonState:
        return HutchinsonState(np.array(key))

    def update(
        updates: Any, state: Any, params: Any = None, *, obj_fn: Any = None, value_fn: Any = None, **extra_args: Any
    ) -> tuple[Any, HutchinsonState]:
        who = "hutchinson_estimator_diag_hessian"
        need_params(who, updates, params)
        function = value_fn if obj_fn is None else obj_fn
        if function is None:
            raise ArgumentError(f"{who}: update needs the loss; write opt.update(grads, state, params, obj_fn=f)")
        flat, treedef = tree.flatten(params)
        next_key, *keys = random.split(state_of(HutchinsonState, state, who).key, len(flat) + 1)
        drawn = [random.bernoulli(k, 0.5, np.shape(p)) for k, p in zip(keys, flat, strict=True)]
        signs = tree.unflatten(treedef, [(2.0 * s - 1.0).astype(dtype_of(p)) for s, p in zip(drawn, flat, strict=True)])
        _, product = transforms.jvp(transforms.grad(function), (params,), (signs,))
        return tree.map(np.multiply, product, signs), HutchinsonState(next_key)

    return GradientTransformationExtraArgs(init, update)


class SophiaState(NamedTuple):
    """The state of `scale_by_sophia`.

    Attributes:
        count: updates made.
        mu: the mean gradient.
        nu: the mean diagonal of the Hessian.
        hessian_fn_state: the state of what estimates it.
    """

    count: Any
    mu: Any
    nu: Any
    hessian_fn_state: Any


def scale_by_sophia(
    b1: float = 0.965,
    b2: float = 0.99,
    eps: float = 1e-8,
    gamma: float = 0.01,
    clip_threshold: float | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: GradientTransformation | None = None,
    mu_dtype: Any = None,
) -> GradientTransformationExtraArgs:
    """Sophia's rule: the mean gradient over the mean diagonal of the Hessian, clipped element by element.

    Liu et al., 2023, "Sophia: a scalable stochastic second-order optimizer for language model pre-training". It takes
    the function of the parameters by keyword, ``obj_fn=`` or ``value_fn=``.

    Args:
        b1: the decay of the mean gradient.
        b2: the decay of the mean diagonal.
        eps: the least divisor.
        gamma: a factor of the diagonal.
        clip_threshold: the greatest size of an element; None for none.
        update_interval: after how many steps the diagonal is estimated anew.
        hessian_diagonal_fn: a transformation that returns it; None for `hutchinson_estimator_diag_hessian`.
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.

    Raises:
        ArgumentError: ``update`` was called without what it needs.

    >>> opt, x = ff.optim.scale_by_sophia(clip_threshold=0.5), np.array([3.0, 4.0])
    >>> f = lambda x: np.sum(x**2)
    >>> updates, state = opt.update(ff.grad(f)(x), opt.init(x), x, obj_fn=f)
    >>> updates, state.nu
    (array([0.5, 0.5]), array([0.02, 0.02]))
    """
    check_decay("scale_by_sophia", b1=b1, b2=b2)
    most = 0.0 if clip_threshold is None else clip_threshold
    estimate = with_extra_args_support(hessian_diagonal_fn or hutchinson_estimator_diag_hessian())

    def kernel(g: Any, mu: Any, h: Any, c1: Any, eps: Any, b1: Any, gamma: Any, most: Any) -> tuple[Any, Any]:
        mu = b1 * mu + (1 - b1) * g
        direction = c1 * mu / np.maximum(gamma * h, eps)
        return direction if clip_threshold is None else np.clip(direction, -most, most), mu

    def init(params: Any) -> SophiaState:
        return SophiaState(zero_count(), filled(params, 0.0, mu_dtype), filled(params, 0.0), estimate.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, SophiaState]:
        who = "scale_by_sophia"
        need_params(who, updates, params)
        reject_complex(who, updates)
        old = state_of(SophiaState, state, who)
        trees = {"updates": updates, "state.mu": like(old.mu, updates, mu_dtype), "state.nu": old.nu}
        new, mu = map_leaves(who, kernel, trees, 1 / (1 - b1 ** (weak(old.count) + 1)), eps, b1, gamma, most, outputs=2)

        def renewed() -> tuple[Any, Any]:
            diagonal, inner = estimate.update(updates, old.hessian_fn_state, params, **extra_args)
            trees = {"updates": diagonal, "state.nu": old.nu}
            return map_leaves(who, lambda d, h, b2: (b2 * h + (1 - b2) * d,), trees, b2, outputs=1)[0], inner

        due = old.count % update_interval == 0
        nu, inner_state = choose(due, renewed, lambda: (old.nu, old.hessian_fn_state))
        return new, SophiaState(safe_increment(old.count), kept_as(mu, mu_dtype), nu, inner_state)

    return GradientTransformationExtraArgs(init, update)


def sophia(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.965,
    b2: float = 0.99,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    weight_decay_mask: Mask | None = None,
    gamma: float = 0.01,
    clip_threshold: float | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: GradientTransformation | None = None,
    mu_dtype: Any = None,
) -> GradientTransformationExtraArgs:
    """Sophia (Liu et al., 2023, "Sophia: a scalable stochastic second-order optimizer").

    It takes the function of the parameters by keyword, as `scale_by_sophia` does; `fnflare.train.make_step` gives it.

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        b1: the decay of the mean gradient.
        b2: the decay of the mean diagonal.
        eps: the least divisor.
        weight_decay: the factor of the decay, or a schedule of it.
        weight_decay_mask: which parameters decay, as in `masked`.
        gamma: a factor of the diagonal.
        clip_threshold: the greatest size of an element; None for none.
        update_interval: after how many steps the diagonal is estimated anew.
        hessian_diagonal_fn: a transformation that returns it; None for `hutchinson_estimator_diag_hessian`.
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.

    Raises:
        ArgumentError: ``update`` was called without what it needs.

    >>> opt, x = ff.optim.sophia(0.1, gamma=100.0, weight_decay=0.0), np.array([0.3, 4.0])
    >>> f = lambda x: np.sum(x**2)
    >>> updates, state = opt.update(ff.grad(f)(x), opt.init(x), x, obj_fn=f)  # no Hessian yet: clipped
    >>> updates, opt.update(ff.grad(f)(x), state, x, obj_fn=f)[0].round(4)
    (array([-0.1, -0.1]), array([-0.03, -0.1 ]))
    """
    rule = scale_by_sophia(b1, b2, eps, gamma, clip_threshold, update_interval, hessian_diagonal_fn, mu_dtype)
    return chain(rule, add_decayed_weights(weight_decay, weight_decay_mask), scale_by_learning_rate(learning_rate))
