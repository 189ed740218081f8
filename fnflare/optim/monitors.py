"""Measurements of the updates on their way through a chain, kept in the state.

Updates pass through unchanged; what a function makes of them, or an average of that, is left in the state, where a
training loop reads it. The state has the same structure from the first update on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.optim.averages import ema
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    state_of,
    stateless,
    with_extra_args_support,
)
from fnflare.optim.leaves import filled

__all__ = ["MonitorState", "SnapshotState", "measure_with_ema", "monitor", "snapshot"]

Measure = Callable[[Any], Any]


def _arrays(values: Any) -> Any:
    return tree.map(lambda x: x if hasattr(x, "dtype") else np.asarray(x), values)


class SnapshotState(NamedTuple):
    """``measurement``: what was measured last, by its name."""

    measurement: dict[str, Any]


def snapshot(measure_name: str, measure: Measure) -> GradientTransformation:
    """Keeps what a function makes of the updates that pass here.

    Args:
        measure_name: the name under which it is kept.
        measure: the function; before the first update it is given the parameters.

    >>> opt = ff.optim.chain(ff.optim.snapshot("norm", ff.optim.global_norm), ff.optim.sgd(0.1))
    >>> updates, state = opt.update(np.array([3.0, 4.0]), opt.init(np.zeros(2)))
    >>> float(state[0].measurement["norm"])
    5.0
    """

    def init(params: Any) -> SnapshotState:
        return SnapshotState({measure_name: _arrays(measure(params))})

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, SnapshotState]:
        state_of(SnapshotState, state, "snapshot")
        return updates, SnapshotState({measure_name: _arrays(measure(updates))})

    return GradientTransformation(init, update)


class MonitorState(NamedTuple):
    """``measurements``: what was measured last, by name; ``measure_states``: the states of what measures."""

    measurements: dict[str, Any]
    measure_states: tuple[Any, ...]


def monitor(measures: Mapping[str, GradientTransformation | Measure]) -> GradientTransformationExtraArgs:
    """Keeps several measurements of the updates that pass here.

    Unlike optax's, its state holds a measurement of each name from the beginning, of zeros, so that a loop in a program
    can carry it.

    Args:
        measures: functions of the updates by name, or transformations that return what is measured, such as
            `measure_with_ema`.

    >>> norm = ff.optim.global_norm
    >>> opt = ff.optim.monitor({"norm": norm, "mean norm": ff.optim.measure_with_ema(norm, 0.9)})
    >>> state = opt.init(np.zeros(2))
    >>> for gradient in (np.array([3.0, 4.0]), np.array([6.0, 8.0])):
    ...     updates, state = opt.update(gradient, state)
    >>> {name: round(float(value), 4) for name, value in state.measurements.items()}
    {'norm': 10.0, 'mean norm': 7.6316}
    """
    rules = {name: _measuring(measure) for name, measure in measures.items()}

    def measured(updates: Any, states: Any, params: Any, extra: dict[str, Any]) -> MonitorState:
        done = {
            name: rule.update(updates, old, params, **extra)
            for (name, rule), old in zip(rules.items(), states, strict=True)
        }
        values = {name: _arrays(value) for name, (value, _) in done.items()}
        return MonitorState(values, tuple([state for _, state in done.values()]))

    def init(params: Any) -> MonitorState:
        states = tuple([rule.init(params) for rule in rules.values()])
        return measured(filled(params, 0.0), states, params, {})._replace(measure_states=states)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, MonitorState]:
        states = state_of(MonitorState, state, "monitor").measure_states
        return updates, measured(updates, states, params, extra_args)

    return GradientTransformationExtraArgs(init, update)


def _measuring(measure: GradientTransformation | Measure) -> GradientTransformationExtraArgs:
    if isinstance(measure, GradientTransformation):
        return with_extra_args_support(measure)
    return with_extra_args_support(stateless(lambda updates, params: measure(updates)))


def measure_with_ema(
    measure: Measure, decay: float, debias: bool = True, accumulator_dtype: Any = None
) -> GradientTransformation:
    """For `monitor`: an exponential moving average of what a function makes of the updates.

    Args:
        measure: the function.
        decay: the share of the old average that is kept, in [0, 1).
        debias: correct the average for its start at zero.
        accumulator_dtype: the dtype in which the average is kept; the measurement's where it is None.

    >>> opt = ff.optim.measure_with_ema(ff.optim.global_norm, 0.9)
    >>> mean, state = opt.update(np.array([3.0, 4.0]), opt.init(np.zeros(2)))
    >>> round(float(mean), 4)
    5.0
    """
    average = ema(decay, debias, accumulator_dtype)

    def init(params: Any) -> Any:
        return average.init(_arrays(measure(params)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return average.update(_arrays(measure(updates)), state)

    return GradientTransformation(init, update)
