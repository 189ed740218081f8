"""Schedules: functions from the step count to a step size, for every ``learning_rate`` argument.

A schedule takes the number of updates made before this one and returns a Python float, which leaves float32
parameters in float32. It also takes an array of counts, to be plotted. Names and arguments are optax's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError
from fnflare.optim.base import Schedule
from fnflare.optim.leaves import weak

__all__ = [
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "join_schedules",
    "linear_onecycle_schedule",
    "linear_schedule",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "sgdr_schedule",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]


def _value(x: Any) -> Any:
    return x if np.ndim(x) else weak(x)


def _check_steps(who: str, **steps: int) -> None:
    for name, n in steps.items():
        if n <= 0:
            raise ArgumentError(f"{who}: {name} must be positive, got {n!r}")


def constant_schedule(value: float) -> Schedule:
    """The same value at every step.

    >>> ff.optim.constant_schedule(0.1)(1000)
    0.1
    """
    return lambda count: _value(value + 0.0 * count)


def polynomial_schedule(
    init_value: float, end_value: float, power: float, transition_steps: int, transition_begin: int = 0
) -> Schedule:
    """Goes from one value to another along a power of the remaining time, and stays there.

    Args:
        init_value: the value until step `transition_begin`.
        end_value: the value from step ``transition_begin + transition_steps`` on.
        power: the exponent of the remaining fraction; 1 is a straight line.
        transition_steps: how many steps the way takes.
        transition_begin: the step at which it begins.

    >>> ff.optim.polynomial_schedule(1.0, 0.0, power=2, transition_steps=10)(5)
    0.25
    """
    _check_steps("polynomial_schedule", transition_steps=transition_steps)

    def schedule(count: Any) -> Any:
        remaining = 1 - np.clip(count - transition_begin, 0, transition_steps) / transition_steps
        return _value((init_value - end_value) * remaining**power + end_value)

    return schedule


def linear_schedule(init_value: float, end_value: float, transition_steps: int, transition_begin: int = 0) -> Schedule:
    """Goes from one value to another in a straight line, and stays there; see `polynomial_schedule`.

    >>> ff.optim.linear_schedule(0.0, 1.0, transition_steps=4)(np.arange(6))
    array([0.  , 0.25, 0.5 , 0.75, 1.  , 1.  ])
    """
    return polynomial_schedule(init_value, end_value, 1, transition_steps, transition_begin)


def exponential_decay(
    init_value: float,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """Multiplies the value by `decay_rate` every `transition_steps` steps.

    Args:
        init_value: the value until step `transition_begin`.
        transition_steps: the steps in which the value changes by a factor of `decay_rate`.
        decay_rate: the factor.
        transition_begin: the step at which the decay begins.
        staircase: change in jumps, each after `transition_steps` steps, instead of at every step.
        end_value: the value at which to stop: the least one where the rate is below 1, the greatest above.

    >>> ff.optim.exponential_decay(1.0, transition_steps=10, decay_rate=0.5, staircase=True)(np.array([9, 10, 20]))
    array([1.  , 0.5 , 0.25])
    """
    _check_steps("exponential_decay", transition_steps=transition_steps)
    if decay_rate <= 0:
        raise ArgumentError(f"exponential_decay: decay_rate must be positive, got {decay_rate!r}")

    def schedule(count: Any) -> Any:
        elapsed = np.maximum(count - transition_begin, 0) / transition_steps
        value = init_value * decay_rate ** (np.floor(elapsed) if staircase else elapsed)
        if end_value is not None:
            value = np.maximum(value, end_value) if decay_rate < 1 else np.minimum(value, end_value)
        return _value(value)

    return schedule


def cosine_decay_schedule(init_value: float, decay_steps: int, alpha: float = 0.0, exponent: float = 1.0) -> Schedule:
    """Falls along half a wave of the cosine (Loshchilov & Hutter, 2017, "SGDR").

    Args:
        init_value: the value at step 0.
        decay_steps: the steps until the lowest value, which stays.
        alpha: the lowest value as a fraction of the first.
        exponent: a power to which the cosine is raised.

    >>> ff.optim.cosine_decay_schedule(1.0, decay_steps=10, alpha=0.1)(np.array([0, 5, 10, 11]))
    array([1.  , 0.55, 0.1 , 0.1 ])
    """
    _check_steps("cosine_decay_schedule", decay_steps=decay_steps)

    def schedule(count: Any) -> Any:
        wave = 0.5 * (1 + np.cos(math.pi * (np.minimum(count, decay_steps) / decay_steps)))
        return _value(init_value * ((1 - alpha) * wave**exponent + alpha))

    return schedule


def piecewise_constant_schedule(
    init_value: float, boundaries_and_scales: Mapping[int, float] | None = None
) -> Schedule:
    """Multiplies the value by a factor at each of some steps.

    Args:
        init_value: the value at step 0.
        boundaries_and_scales: factors by the step from which they hold.

    >>> ff.optim.piecewise_constant_schedule(1.0, {10: 0.1, 20: 0.5})(np.array([9, 10, 20]))
    array([1.  , 0.1 , 0.05])
    """
    steps = sorted((boundaries_and_scales or {}).items())

    def schedule(count: Any) -> Any:
        value = init_value + 0.0 * count
        for boundary, factor in steps:
            value = value * np.where(count >= boundary, factor, 1.0)
        return _value(value)

    return schedule


def join_schedules(schedules: Sequence[Schedule], boundaries: Sequence[int]) -> Schedule:
    """Follows one schedule after another.

    Args:
        schedules: each counts from 0 where it begins.
        boundaries: the steps at which the second, the third, ... begin.

    >>> first, then = ff.optim.constant_schedule(1.0), ff.optim.linear_schedule(0.5, 0.0, 10)
    >>> ff.optim.join_schedules([first, then], [5])(np.array([4, 5, 10]))
    array([1.  , 0.5 , 0.25])
    """
    if len(schedules) != len(boundaries) + 1 or list(boundaries) != sorted(boundaries):
        raise ArgumentError(
            "join_schedules: n schedules need n - 1 boundaries in increasing order, "
            f"got {len(schedules)} schedules and the boundaries {list(boundaries)}"
        )

    def schedule(count: Any) -> Any:
        value = schedules[0](count)
        for boundary, then in zip(boundaries, schedules[1:], strict=True):
            # Where it is not used yet, the later schedule sees its first step, which every schedule can take.
            value = np.where(count < boundary, value, then(np.maximum(count - boundary, 0)))
        return _value(value)

    return schedule


def _warm_up(init_value: float, peak_value: float, warmup_steps: int, then: Schedule) -> Schedule:
    if warmup_steps == 0:
        return then
    return join_schedules([linear_schedule(init_value, peak_value, warmup_steps), then], [warmup_steps])


def warmup_constant_schedule(init_value: float, peak_value: float, warmup_steps: int) -> Schedule:
    """Rises in a straight line for `warmup_steps` steps, and stays at the peak.

    >>> ff.optim.warmup_constant_schedule(0.0, 1.0, 10)(np.array([0, 5, 10, 99]))
    array([0. , 0.5, 1. , 1. ])
    """
    return _warm_up(init_value, peak_value, warmup_steps, constant_schedule(peak_value))


def warmup_cosine_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    decay_steps: int,
    end_value: float = 0.0,
    exponent: float = 1.0,
) -> Schedule:
    """Rises in a straight line to the peak, then falls along half a wave of the cosine.

    Args:
        init_value: the value at step 0.
        peak_value: the value at step `warmup_steps`.
        warmup_steps: the steps of the rise; may be 0.
        decay_steps: the steps of the whole way, the rise included.
        end_value: the value from step `decay_steps` on.
        exponent: a power to which the cosine is raised.

    >>> ff.optim.warmup_cosine_decay_schedule(0.0, 1.0, 10, 110)(np.array([0, 5, 10, 60, 110]))
    array([0. , 0.5, 1. , 0.5, 0. ])
    """
    if decay_steps <= warmup_steps:
        raise ArgumentError(
            "warmup_cosine_decay_schedule: decay_steps counts the warm-up too and must be greater than warmup_steps, "
            f"got decay_steps={decay_steps!r} and warmup_steps={warmup_steps!r}"
        )
    alpha = end_value / peak_value if peak_value else 0.0
    cosine = cosine_decay_schedule(peak_value, decay_steps - warmup_steps, alpha, exponent)
    return _warm_up(init_value, peak_value, warmup_steps, cosine)


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> Schedule:
    """Cosine decays with warm-ups one after another: descent with warm restarts.

    Loshchilov & Hutter, 2017, "SGDR: stochastic gradient descent with warm restarts".

    Args:
        cosine_kwargs: the arguments of a `warmup_cosine_decay_schedule` for each cycle; ``decay_steps`` is the length
            of the cycle.

    >>> cycles = [dict(init_value=0.0, peak_value=peak, warmup_steps=2, decay_steps=6) for peak in (1.0, 0.5)]
    >>> ff.optim.sgdr_schedule(cycles)(np.array([0, 2, 4, 6, 8, 12]))
    array([0. , 1. , 0.5, 0. , 0.5, 0. ])
    """
    cycles = list(cosine_kwargs)
    if not cycles:
        raise ArgumentError("sgdr_schedule: cosine_kwargs is empty; give the arguments of at least one cycle")
    borders = list(itertools.accumulate(cycle["decay_steps"] for cycle in cycles))
    return join_schedules([warmup_cosine_decay_schedule(**cycle) for cycle in cycles], borders[:-1])


def warmup_exponential_decay_schedule(
    init_value: float,
    peak_value: float,
    warmup_steps: int,
    transition_steps: int,
    decay_rate: float,
    transition_begin: int = 0,
    staircase: bool = False,
    end_value: float | None = None,
) -> Schedule:
    """Rises in a straight line for `warmup_steps` steps, then falls as `exponential_decay` does.

    >>> ff.optim.warmup_exponential_decay_schedule(0.0, 1.0, 10, 10, 0.5)(np.array([5, 10, 20, 30]))
    array([0.5 , 1.  , 0.5 , 0.25])
    """
    decay = exponential_decay(peak_value, transition_steps, decay_rate, transition_begin, staircase, end_value)
    return _warm_up(init_value, peak_value, warmup_steps, decay)


def _linear(start: float, end: float, fraction: Any) -> Any:
    return start + (end - start) * fraction


def _cosine(start: float, end: float, fraction: Any) -> Any:
    return end + (start - end) * 0.5 * (1 + np.cos(math.pi * fraction))


_INTERPOLATIONS: dict[str, Callable[[float, float, Any], Any]] = {"linear": _linear, "cosine": _cosine}


def piecewise_interpolate_schedule(
    interpolate_type: str, init_value: float, boundaries_and_scales: Mapping[int, float] | None = None
) -> Schedule:
    """Like `piecewise_constant_schedule`, but on the way to each boundary instead of in a jump.

    Args:
        interpolate_type: ``"linear"`` or ``"cosine"``.
        init_value: the value at step 0.
        boundaries_and_scales: factors by the step at which they are reached.

    >>> ff.optim.piecewise_interpolate_schedule("linear", 1.0, {10: 2.0, 20: 0.5})(np.array([0, 5, 10, 15, 20, 99]))
    array([1. , 1.5, 2. , 1.5, 1. , 1. ])
    """
    interpolate = _INTERPOLATIONS.get(interpolate_type)
    if interpolate is None:
        raise ArgumentError(
            f"piecewise_interpolate_schedule: interpolate_type must be 'linear' or 'cosine', got {interpolate_type!r}"
        )
    segments = []
    begin, start = 0, init_value
    for boundary, factor in sorted((boundaries_and_scales or {}).items()):
        segments.append((begin, boundary, start, start * factor))
        begin, start = boundary, start * factor

    def schedule(count: Any) -> Any:
        value = start + 0.0 * count
        for begin_, end, first, last in reversed(segments):
            on_the_way = interpolate(first, last, (count - begin_) / max(end - begin_, 1))
            value = np.where(count < end, on_the_way, value)
        return _value(value)

    return schedule


def linear_onecycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    pct_final: float = 0.85,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """One cycle in straight lines: up to the peak, down again, then to nearly nothing.

    Smith & Topin, 2018, "Super-convergence: very fast training of neural networks using large learning rates".

    Args:
        transition_steps: the steps of the whole cycle.
        peak_value: the highest value.
        pct_start: the fraction of the steps in which the value rises.
        pct_final: the fraction of the steps after which it has come down to the first value again.
        div_factor: the peak over the first value.
        final_div_factor: the first value over the last.

    >>> ff.optim.linear_onecycle_schedule(100, 1.0, div_factor=10.0)(np.array([0, 30, 85]))
    array([0.1, 1. , 0.1])
    """
    _check_steps("linear_onecycle_schedule", transition_steps=transition_steps)
    corners = {
        int(pct_start * transition_steps): div_factor,
        int(pct_final * transition_steps): 1 / div_factor,
        transition_steps: 1 / final_div_factor,
    }
    return piecewise_interpolate_schedule("linear", peak_value / div_factor, corners)


def cosine_onecycle_schedule(
    transition_steps: int,
    peak_value: float,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """One cycle in two half waves of the cosine: up to the peak, then down to nearly nothing.

    Args:
        transition_steps: the steps of the whole cycle.
        peak_value: the highest value.
        pct_start: the fraction of the steps in which the value rises.
        div_factor: the peak over the first value.
        final_div_factor: the first value over the last.

    >>> ff.optim.cosine_onecycle_schedule(100, 1.0, div_factor=10.0)(np.array([0, 15, 30]))
    array([0.1 , 0.55, 1.  ])
    """
    _check_steps("cosine_onecycle_schedule", transition_steps=transition_steps)
    corners = {int(pct_start * transition_steps): div_factor, transition_steps: 1 / (div_factor * final_div_factor)}
    return piecewise_interpolate_schedule("cosine", peak_value / div_factor, corners)
