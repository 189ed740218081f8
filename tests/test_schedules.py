"""Schedules: values at their borders, agreement with optax, Python floats out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fnflare import optim
from fnflare.errors import ArgumentError

CYCLES = [
    {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 3, "decay_steps": 12},
    {"init_value": 0.1, "peak_value": 0.5, "warmup_steps": 2, "decay_steps": 20, "end_value": 0.05},
]
SCHEDULES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "constant": ("constant_schedule", (0.3,), {}),
    "linear": ("linear_schedule", (1.0, 0.1, 10), {}),
    "linear_up_late": ("linear_schedule", (0.0, 1.0, 10, 5), {}),
    "polynomial": ("polynomial_schedule", (1.0, 0.1, 3, 20, 4), {}),
    "exponential": ("exponential_decay", (1.0, 10, 0.5), {}),
    "exponential_stairs": ("exponential_decay", (1.0, 10, 0.5, 3), {"staircase": True}),
    "exponential_end": ("exponential_decay", (1.0, 5, 0.5), {"end_value": 0.1}),
    "exponential_growth": ("exponential_decay", (1.0, 5, 2.0), {"end_value": 7.0}),
    "cosine": ("cosine_decay_schedule", (1.0, 30), {}),
    "cosine_alpha": ("cosine_decay_schedule", (1.0, 30, 0.2, 2.0), {}),
    "piecewise": ("piecewise_constant_schedule", (1.0, {10: 0.1, 20: 3.0}), {}),
    "piecewise_none": ("piecewise_constant_schedule", (1.0,), {}),
    "interpolate_linear": ("piecewise_interpolate_schedule", ("linear", 1.0, {10: 4.0, 30: 0.1}), {}),
    "interpolate_cosine": ("piecewise_interpolate_schedule", ("cosine", 1.0, {10: 4.0, 30: 0.1}), {}),
    "warmup_constant": ("warmup_constant_schedule", (0.0, 1.0, 10), {}),
    "warmup_cosine": ("warmup_cosine_decay_schedule", (0.1, 1.0, 10, 35), {"end_value": 0.2}),
    "warmup_exponential": ("warmup_exponential_decay_schedule", (0.0, 1.0, 10, 5, 0.5), {"end_value": 0.05}),
    "sgdr": ("sgdr_schedule", (CYCLES,), {}),
    "linear_onecycle": ("linear_onecycle_schedule", (40, 1.0), {}),
    "cosine_onecycle": ("cosine_onecycle_schedule", (40, 1.0), {"div_factor": 10.0}),
}


def schedule_of(name: str) -> Callable[[Any], Any]:
    function, args, kwargs = SCHEDULES[name]
    return getattr(optim, function)(*args, **kwargs)


@pytest.fixture(scope="module")
def optax() -> Any:
    """optax, imported before the guard of a test looks: its import draws from NumPy's global random state."""
    return pytest.importorskip("optax", reason="the oracle is optax")


@pytest.mark.parametrize("name", SCHEDULES)
def test_agrees_with_optax_at_every_step(name: str, optax: Any) -> None:
    function, args, kwargs = SCHEDULES[name]
    theirs = getattr(optax, function, None) or getattr(optax.schedules, function)
    expected = [float(theirs(*args, **kwargs)(n)) for n in range(50)]
    assert np.allclose([schedule_of(name)(n) for n in range(50)], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_gives_python_floats_for_counts_and_arrays_for_arrays(name: str) -> None:
    schedule = schedule_of(name)
    values = [schedule(n) for n in range(50)]
    assert {type(v) for v in values} == {float}
    assert type(schedule(np.int32(3))) is type(schedule(np.zeros((), np.int32))) is float
    assert np.allclose(schedule(np.arange(50)), values, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linear", {0: 1.0, 5: 0.55, 10: 0.1, 1000: 0.1}),
        ("linear_up_late", {0: 0.0, 5: 0.0, 10: 0.5, 15: 1.0, 16: 1.0}),
        ("exponential", {0: 1.0, 10: 0.5, 20: 0.25}),
        ("exponential_stairs", {12: 1.0, 13: 0.5, 22: 0.5, 23: 0.25}),
        ("exponential_end", {0: 1.0, 5: 0.5, 10**6: 0.1}),
        ("cosine", {0: 1.0, 15: 0.5, 30: 0.0, 31: 0.0}),
        ("piecewise", {9: 1.0, 10: 0.1, 19: 0.1, 20: 0.3}),
        ("warmup_constant", {0: 0.0, 9: 0.9, 10: 1.0, 99: 1.0}),
        ("warmup_cosine", {0: 0.1, 10: 1.0, 35: 0.2, 99: 0.2}),
        ("warmup_exponential", {0: 0.0, 10: 1.0, 15: 0.5, 99: 0.05}),
        ("linear_onecycle", {0: 0.04, 12: 1.0, 34: 0.04, 40: 4e-6, 99: 4e-6}),
        ("cosine_onecycle", {0: 0.1, 6: 0.55, 12: 1.0, 40: 1e-5, 99: 1e-5}),
    ],
)
def test_values_at_the_borders(name: str, expected: dict[int, float]) -> None:
    schedule = schedule_of(name)
    assert {n: schedule(n) for n in expected} == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_join_counts_each_from_its_own_beginning() -> None:
    joined = optim.join_schedules([lambda n: 100 + 1.0 * n, lambda n: 200 + 1.0 * n, lambda n: 300 + 1.0 * n], [3, 5])
    assert [joined(n) for n in range(7)] == [100, 101, 102, 200, 201, 300, 301]


def test_a_warm_up_of_no_steps_begins_at_the_peak() -> None:
    assert optim.warmup_cosine_decay_schedule(0.0, 1.0, 0, 10)(0) == 1.0
    assert optim.warmup_constant_schedule(0.0, 1.0, 0)(0) == 1.0


def test_a_schedule_leaves_float32_alone() -> None:
    params = np.ones(3, np.float32)
    for name in SCHEDULES:
        opt = optim.sgd(schedule_of(name))
        assert opt.update(params, opt.init(params))[0].dtype == np.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.linear_schedule(1.0, 0.0, 0), "transition_steps must be positive"),
        (lambda: optim.cosine_decay_schedule(1.0, 0), "decay_steps must be positive"),
        (lambda: optim.exponential_decay(1.0, 10, -0.5), "decay_rate must be positive"),
        (lambda: optim.warmup_cosine_decay_schedule(0.0, 1.0, 10, 10), "decay_steps counts the warm-up too"),
        (lambda: optim.piecewise_interpolate_schedule("cubic", 1.0), "must be 'linear' or 'cosine'"),
        (lambda: optim.linear_onecycle_schedule(0, 1.0), "transition_steps must be positive"),
        (lambda: optim.join_schedules([optim.constant_schedule(1.0)], [3]), "n - 1 boundaries"),
        (lambda: optim.join_schedules([abs, abs, abs], [5, 3]), "increasing order"),
    ],
)
def test_bad_arguments(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()
