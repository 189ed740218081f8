"""Step sizes from the loss: how far it is above its least value, over the square of its slope.

Updates and the loss, ``value=``, go in; scaled updates come out. `scale_by_polyak` takes the loss and the gradient of
this step; `momo` and `momo_adam` average both over the steps.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare.errors import ArgumentError
from fnflare.optim.base import (
    EmptyState,
    GradientTransformationExtraArgs,
    ScalarOrSchedule,
    inner_product,
    need_params,
    safe_increment,
    state_of,
    sum_of_squares,
    zero_count,
)
from fnflare.optim.leaves import abs_sq, check_decay, filled, float_dtype, map_leaves, weak, weak_at

__all__ = ["MomoAdamState", "MomoState", "momo", "momo_adam", "scale_by_polyak"]


def _loss(who: str, value: Any, dtype: Any) -> Any:
    if value is None:
        raise ArgumentError(f"{who}: update needs the loss; write opt.update(grads, state, params, value=loss)")
    return value.astype(dtype) if hasattr(value, "astype") else np.asarray(value, dtype)


def _ratio(gap: Any, square: Any, eps: Any = 0.0) -> Any:
    """``gap / (square + eps)``, and 0 where that divides by next to nothing."""
    below = square + eps
    tiny = below <= np.finfo(np.float64).eps
    return np.where(tiny, 0.0, gap / np.where(tiny, 1.0, below))


def scale_by_polyak(
    f_min: float = 0.0, max_learning_rate: float = 1.0, eps: float = 0.0, variant: str = "sps"
) -> GradientTransformationExtraArgs:
    """Multiplies the updates by Polyak's step size, ``(loss - f_min) / |updates|**2``.

    Loizou et al., 2021, "Stochastic Polyak step-size for SGD: an adaptive learning rate for fast convergence". It takes
    the loss by keyword: ``opt.update(grads, state, params, value=loss)``.

    Args:
        f_min: the least value of the loss.
        max_learning_rate: the greatest step size.
        eps: added to the squared norm.
        variant: ``"sps"``; or ``"sps+"``, where a loss below `f_min` makes no step.

    Raises:
        ArgumentError: `variant` is neither; ``update`` was called without ``value=``.

    >>> opt = ff.optim.scale_by_polyak()
    >>> opt.update(np.array([3.0, 4.0]), opt.init(None), value=5.0)[0]
    array([0.6, 0.8])
    """
    if variant not in ("sps", "sps+"):
        raise ArgumentError(f"scale_by_polyak: variant must be 'sps' or 'sps+', got {variant!r}")

    def init(params: Any) -> EmptyState:
        return EmptyState()

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra_args: Any
    ) -> tuple[Any, EmptyState]:
        gap = _loss("scale_by_polyak", value, float_dtype(updates)) - weak(f_min)
        if variant == "sps+":
            gap = np.maximum(gap, 0.0)
        size = np.minimum(_ratio(gap, sum_of_squares(updates), eps), max_learning_rate)
        return map_leaves("scale_by_polyak", lambda g, c: (c * g,), {"updates": updates}, size, outputs=1)[0], state

    return GradientTransformationExtraArgs(init, update)


class MomoState(NamedTuple):
    """The state of `momo`.

    Attributes:
        exp_avg: the mean gradient.
        barf: the mean loss.
        gamma: the mean product of gradient and parameters.
        lb: the lower bound of the loss.
        count: updates made.
    """

    exp_avg: Any
    barf: Any
    gamma: Any
    lb: Any
    count: Any


class MomoAdamState(NamedTuple):
    """The state of `momo_adam`: that of `momo`, and ``exp_avg_sq``, the mean squared gradient."""

    exp_avg: Any
    exp_avg_sq: Any
    barf: Any
    gamma: Any
    lb: Any
    count: Any


def _bounded(lower: Any, cap: Any, decayed: Any, corrected: Any, least: float) -> Any:
    """The lower bound of the loss, brought down where the model of the loss lies below it."""
    scale = decayed * corrected
    return np.where(cap < scale * lower, np.maximum(cap / (2 * scale), least), lower)


def _rates(learning_rate: ScalarOrSchedule, weight_decay: float, count: Any) -> tuple[Any, Any]:
    """The greatest step size, and one plus its product with the weight decay."""
    alpha = weak_at(learning_rate, count)
    return alpha, 1 + alpha * weight_decay


def _start(params: Any, lower_bound: float) -> tuple[Any, Any, Any, Any]:
    dtype = float_dtype(params)
    return np.zeros((), dtype), np.zeros((), dtype), np.full((), lower_bound, dtype), zero_count()


def _step(ea: Any, p: Any, shrink: Any, tau: Any) -> tuple[Any]:
    return (-shrink * p - tau * ea,)


def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    beta: float = 0.9,
    lower_bound: float = 0.0,
    weight_decay: float = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformationExtraArgs:
    """Momentum whose step size comes from the loss (Schaipp et al., 2023, "MoMo: momentum models for adaptive rates").

    It takes the loss by keyword: ``opt.update(grads, state, params, value=loss)``; `fnflare.train.make_step` gives it.

    Args:
        learning_rate: the greatest step size, a number or a schedule.
        beta: the decay of the means.
        lower_bound: what the loss is never below.
        weight_decay: the factor of the decay.
        adapt_lower_bound: whether the bound is estimated on the way.

    Raises:
        ArgumentError: ``update`` was called without the parameters or ``value=``.

    >>> opt, params = ff.optim.momo(), np.array([3.0])  # of the loss x**2
    >>> opt.update(2 * params, opt.init(params), params, value=9.0)[0]
    array([-1.5])
    """
    check_decay("momo", beta=beta)

    def init(params: Any) -> MomoState:
        return MomoState(filled(params, 0.0), *_start(params, lower_bound))

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra_args: Any
    ) -> tuple[Any, MomoState]:
        need_params("momo", updates, params)
        old = state_of(MomoState, state, "momo")
        dtype = old.barf.dtype
        keep = np.where(old.count == 0, 0.0, beta)
        barf = (keep * old.barf + (1 - keep) * _loss("momo", value, dtype)).astype(dtype)
        gamma = (keep * old.gamma + (1 - keep) * inner_product(updates, params)).astype(dtype)
        trees = {"updates": updates, "state.exp_avg": old.exp_avg}
        (mean,) = map_leaves("momo", lambda g, ea, k: (k * ea + (1 - k) * g,), trees, keep, outputs=1)
        square, product = sum_of_squares(mean), inner_product(mean, params)
        alpha, decayed = _rates(learning_rate, weight_decay, old.count)
        lower = old.lb
        if adapt_lower_bound:
            lower = _bounded(lower, decayed * (barf - gamma) + product, decayed, 1.0, lower_bound)
        gap = np.maximum(decayed * (barf - lower - gamma) + product, 0.0)
        tau = np.minimum(alpha, _ratio(gap, square))
        new = map_leaves("momo", _step, {"m": mean, "params": params}, (decayed - 1) / decayed, tau, outputs=1)[0]
        if adapt_lower_bound:
            lower = np.maximum(barf + product - gamma - 0.5 * tau * square, lower_bound)
        return new, MomoState(mean, barf, gamma, lower.astype(dtype), safe_increment(old.count))

    return GradientTransformationExtraArgs(init, update)


def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    lower_bound: float = 0.0,
    weight_decay: float = 0.0,
    adapt_lower_bound: bool = False,
) -> GradientTransformationExtraArgs:
    """Adam whose step size comes from the loss (Schaipp et al., 2023, "MoMo: momentum models for adaptive rates").

    It takes the loss by keyword: ``opt.update(grads, state, params, value=loss)``; `fnflare.train.make_step` gives it.

    Args:
        learning_rate: the greatest step size, a number or a schedule.
        b1: the decay of the means.
        b2: the decay of the mean squared gradient.
        eps: added to its root.
        lower_bound: what the loss is never below.
        weight_decay: the factor of the decay.
        adapt_lower_bound: whether the bound is estimated on the way.

    Raises:
        ArgumentError: ``update`` was called without the parameters or ``value=``.

    >>> opt, params = ff.optim.momo_adam(10.0), np.array([3.0])  # of the loss x**2
    >>> opt.update(2 * params, opt.init(params), params, value=9.0)[0].round(4)
    array([-1.5])
    """
    check_decay("momo_adam", b1=b1, b2=b2)

    def kernel(g: Any, ea: Any, eas: Any, c2: Any, b1: Any, b2: Any, eps: Any) -> tuple[Any, Any, Any]:
        ea, eas = b1 * ea + (1 - b1) * g, b2 * eas + (1 - b2) * abs_sq(g)
        return ea / (np.sqrt(eas * c2) + eps), ea, eas

    def init(params: Any) -> MomoAdamState:
        return MomoAdamState(filled(params, 0.0), filled(params, 0.0), *_start(params, lower_bound))

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra_args: Any
    ) -> tuple[Any, MomoAdamState]:
        need_params("momo_adam", updates, params)
        old = state_of(MomoAdamState, state, "momo_adam")
        dtype, t = old.barf.dtype, weak(old.count) + 1
        barf = (b1 * old.barf + (1 - b1) * _loss("momo_adam", value, dtype)).astype(dtype)
        gamma = (b1 * old.gamma + (1 - b1) * inner_product(updates, params)).astype(dtype)
        trees = {"updates": updates, "state.exp_avg": old.exp_avg, "state.exp_avg_sq": old.exp_avg_sq}
        direction, mean, squares = map_leaves("momo_adam", kernel, trees, 1 / (1 - b2**t), b1, b2, eps, outputs=3)
        norm, product, corrected = inner_product(mean, direction), inner_product(mean, params), 1 - b1**t
        alpha, decayed = _rates(learning_rate, weight_decay, old.count)
        lower = old.lb
        if adapt_lower_bound:
            lower = _bounded(lower, decayed * (barf - gamma) + product, decayed, corrected, lower_bound)
        gap = np.maximum(decayed * (barf - corrected * lower - gamma) + product, 0.0)
        tau = np.minimum(alpha / corrected, _ratio(gap, norm))
        trees = {"direction": direction, "params": params}
        new = map_leaves("momo_adam", _step, trees, (decayed - 1) / decayed, tau, outputs=1)[0]
        if adapt_lower_bound:
            lower = np.maximum((barf + product - gamma - 0.5 * tau * norm) / corrected, lower_bound)
        return new, MomoAdamState(mean, squares, barf, gamma, lower.astype(dtype), safe_increment(old.count))

    return GradientTransformationExtraArgs(init, update)
