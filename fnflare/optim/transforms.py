"""The small building blocks: scaling, clipping, weight decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare.core import is_tracer
from fnflare.errors import ArgumentError
from fnflare.optim.base import (
    GradientTransformation,
    ScalarOrSchedule,
    Schedule,
    identity,
    need_params,
    safe_increment,
    state_of,
    stateless,
    sum_of_squares,
    zero_count,
)
from fnflare.optim.combine import Mask, masked
from fnflare.optim.leaves import map_leaves, reject_complex

__all__ = [
    "ScaleByScheduleState",
    "WeightDecaySchedule",
    "add_decayed_weights",
    "clip",
    "clip_by_global_norm",
    "scale",
    "scale_by_learning_rate",
    "scale_by_schedule",
]


def _times(updates: Any, factor: Any) -> Any:
    return map_leaves("scale", lambda g, c: (c * g,), {"updates": updates}, factor, outputs=1)[0]


def scale(step_size: float) -> GradientTransformation:
    """Multiplies the updates by a constant.

    >>> opt = ff.optim.scale(-0.5)
    >>> opt.update({"w": np.float32([2.0])}, opt.init(None))[0]
    {'w': array([-1.], dtype=float32)}
    """
    return stateless(lambda updates, params: _times(updates, step_size))


class ScaleByScheduleState(NamedTuple):
    """``count``: how many updates were made, an int32 scalar."""

    count: Any


def scale_by_schedule(step_size_fn: Schedule) -> GradientTransformation:
    """Multiplies the updates by a function of the step count, which is 0 in the first update.

    >>> opt = ff.optim.scale_by_schedule(ff.optim.linear_schedule(1.0, 0.0, 4))
    >>> updates, state = opt.update(np.array([8.0]), opt.init(None))
    >>> updates, opt.update(np.array([8.0]), state)[0]
    (array([8.]), array([6.]))
    """

    def init(params: Any) -> ScaleByScheduleState:
        return ScaleByScheduleState(zero_count())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ScaleByScheduleState]:
        count = state_of(ScaleByScheduleState, state, "scale_by_schedule").count
        return _times(updates, step_size_fn(count)), ScaleByScheduleState(safe_increment(count))

    return GradientTransformation(init, update)


def descending(learning_rate: ScalarOrSchedule) -> ScalarOrSchedule:
    """Minus the learning rate: the step size that goes downhill."""
    if callable(learning_rate):
        return lambda count: -learning_rate(count)
    return -learning_rate


def scale_by_learning_rate(
    learning_rate: ScalarOrSchedule | None = None, *, flip_sign: bool = True
) -> GradientTransformation:
    """Multiplies the updates by minus the learning rate, so that adding them goes downhill.

    Args:
        learning_rate: a number or a schedule; None leaves the updates as they are, their sign too.
        flip_sign: False multiplies by plus the learning rate.

    >>> opt = ff.optim.scale_by_learning_rate(0.1)
    >>> opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))[0]
    array([-0.3,  0.4])
    """
    if learning_rate is None:
        return identity()
    step_size = descending(learning_rate) if flip_sign else learning_rate
    return scale_by_schedule(step_size) if callable(step_size) else scale(step_size)


def clip(max_delta: float) -> GradientTransformation:
    """Clips every element of the updates to ``[-max_delta, max_delta]``.

    >>> opt = ff.optim.clip(1.0)
    >>> opt.update(np.array([-3.0, 0.5]), opt.init(None))[0]
    array([-1. ,  0.5])
    """
    if not is_tracer(max_delta) and max_delta <= 0:
        raise ArgumentError(f"clip: max_delta must be positive, got {max_delta!r}")

    def clipped(updates: Any, params: Any) -> Any:
        reject_complex("clip", updates)
        return map_leaves("clip", lambda g, d: (np.clip(g, -d, d),), {"updates": updates}, max_delta, outputs=1)[0]

    return stateless(clipped)


def clip_by_global_norm(max_norm: float) -> GradientTransformation:
    """Scales all updates down together where their `global_norm` is greater than `max_norm`.

    Updates within the norm pass through unchanged, to the last bit (Pascanu et al., 2013, "On the difficulty
    of training recurrent neural networks").

    >>> opt = ff.optim.clip_by_global_norm(1.0)
    >>> opt.update({"w": np.array([3.0]), "b": np.array([4.0])}, opt.init(None))[0]
    {'b': array([0.8]), 'w': array([0.6])}
    """
    if not is_tracer(max_norm) and max_norm <= 0:
        raise ArgumentError(f"clip_by_global_norm: max_norm must be positive, got {max_norm!r}")

    def clipped(updates: Any, params: Any) -> Any:
        squares = sum_of_squares(updates)
        too_long = squares > max_norm * max_norm
        # The root is taken only of what is far from zero, where its derivative is finite.
        norm = np.sqrt(np.where(too_long, squares, 1.0))
        return _times(updates, np.where(too_long, max_norm / norm, 1.0))

    return stateless(clipped)


class WeightDecaySchedule(NamedTuple):
    """``count``: how many updates were made, an int32 scalar."""

    count: Any


def add_decayed_weights(weight_decay: ScalarOrSchedule = 0.0, mask: Mask | None = None) -> GradientTransformation:
    """Adds ``weight_decay`` times the parameters to the updates.

    Before the scaling by an adaptive method this is an L2 penalty; after it, the decoupled weight decay of
    AdamW (Loshchilov & Hutter, 2019, "Decoupled weight decay regularization").

    Args:
        weight_decay: the factor, or a schedule of it.
        mask: which parameters decay, as in `masked`; all by default.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt = ff.optim.add_decayed_weights(0.1)
    >>> params = np.array([1.0, -2.0])
    >>> opt.update(np.array([1.0, 1.0]), opt.init(params), params)[0]
    array([1.1, 0.8])
    """

    decay = _scheduled_decay(weight_decay) if callable(weight_decay) else stateless(_decaying(weight_decay))
    return decay if mask is None else masked(decay, mask)


def _decaying(weight_decay: float) -> Callable[[Any, Any], Any]:
    def decayed(updates: Any, params: Any) -> Any:
        need_params("add_decayed_weights", updates, params)
        trees = {"updates": updates, "params": params}
        return map_leaves("add_decayed_weights", lambda g, p, c: (g + c * p,), trees, weight_decay, outputs=1)[0]

    return decayed


def _scheduled_decay(schedule: Schedule) -> GradientTransformation:
    def init(params: Any) -> WeightDecaySchedule:
        return WeightDecaySchedule(zero_count())

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, WeightDecaySchedule]:
        count = state_of(WeightDecaySchedule, state, "add_decayed_weights").count
        return _decaying(schedule(count))(updates, params), WeightDecaySchedule(safe_increment(count))

    return GradientTransformation(init, update)
