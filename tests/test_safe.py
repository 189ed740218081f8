"""Functions whose derivatives stay finite: values of the plain ones, zeros where those have none, every transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import agree, in_dtype
from nn_laws import normal

import fnflare as ff
from fnflare import config
from fnflare.errors import ArgumentError, DtypeError
from fnflare.testing import check_grads, check_vmap

# Each function, its plain form, and inputs at some of which that has no derivative.
EDGES = np.array([[0.0, 1.0, 4.0], [0.0, 0.0, 0.0], [-0.0, 1e-3, 2.5]])
CASES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sqrt": (ff.safe_sqrt, np.sqrt),
    "log": (lambda x: ff.safe_log(x, eps=1e-6), lambda x: np.log(np.maximum(x, 1e-6))),
    "norm": (ff.safe_norm, np.linalg.norm),
    "norm of rows": (lambda x: ff.safe_norm(x, axis=1), lambda x: np.linalg.norm(x, axis=1)),
    "norm kept": (
        lambda x: ff.safe_norm(x, axis=-2, keepdims=True),
        lambda x: np.linalg.norm(x, axis=-2, keepdims=True),
    ),
    "norm of matrices": (lambda x: ff.safe_norm(x, axis=(0, 1)), lambda x: np.linalg.norm(x, axis=(0, 1))),
    "norm 3": (lambda x: ff.safe_norm(x, 3, axis=1), lambda x: np.linalg.norm(x, 3, axis=1)),
    "norm 1": (lambda x: ff.safe_norm(x, 1, axis=1), lambda x: np.linalg.norm(x, 1, axis=1)),
    "norm inf": (lambda x: ff.safe_norm(x, np.inf, axis=0), lambda x: np.linalg.norm(x, np.inf, axis=0)),
    "where": (
        lambda x: ff.safe_where(x > 0, lambda x: np.log(x) / np.sqrt(x), x, otherwise=-1.0),
        lambda x: np.array([np.log(v) / np.sqrt(v) if v > 0 else -1.0 for v in x.ravel()]).reshape(x.shape),
    ),
}
every = pytest.mark.parametrize("name", CASES)


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_are_the_plain_functions_and_derivatives_of_both_modes_and_orders_finite(name: str, dtype: Any) -> None:
    f, plain = CASES[name]
    x = EDGES.astype(dtype)
    np.testing.assert_allclose(f(x), plain(x), rtol=1e-6)
    assert f(x).dtype == dtype

    def slope(x: Any) -> Any:
        return ff.grad(lambda x: np.sum(np.sin(f(x))))(x)

    ones = np.ones_like(x)
    for out in (slope(x), ff.grad(lambda x: np.sum(np.cos(slope(x))))(x), ff.jvp(slope, (x,), (ones,))[1]):
        assert out.dtype == dtype
        assert np.all(np.isfinite(out))
    assert np.all(np.isfinite(ff.jvp(f, (x,), (ones,))[1]))
    assert np.all(slope(np.zeros_like(x)) == 0.0)


@every
def test_derivatives_elsewhere_are_right_to_second_order(name: str) -> None:
    check_grads(CASES[name][0], (np.abs(normal(3, 4)) + 0.2,), order=2)


@every
def test_batches_also_of_choices(name: str) -> None:
    f = CASES[name][0]
    stack = np.stack([EDGES, EDGES[::-1] + 1, 0 * EDGES])
    check_vmap(f, (stack,))

    def chosen(x: Any) -> Any:
        return np.sum(ff.cond(np.sum(x) > 1, lambda x: np.sum(f(x)), lambda x: np.sum(x), x))

    np.testing.assert_allclose(
        ff.grad(lambda s: np.sum(ff.vmap(chosen)(s)))(stack), np.stack([ff.grad(chosen)(x) for x in stack]), atol=1e-14
    )
    for one in (ff.grad(chosen), ff.grad(lambda x: np.sum(np.sin(ff.grad(chosen)(x))))):
        got = ff.vmap(one)(stack)
        assert np.all(np.isfinite(got))
        np.testing.assert_allclose(got, np.stack([one(x) for x in stack]), rtol=1e-12, atol=1e-14)


@every
@pytest.mark.parametrize("native", [False, True])
def test_programs_give_the_same_on_both_executors(name: str, native: bool) -> None:
    f = CASES[name][0]

    def both(x: Any) -> Any:
        return f(x), ff.grad(lambda x: np.sum(np.sin(f(x))))(x)

    with config.override(use_native=native):
        for dtype in (np.float64, np.float32):
            agree(ff.jit(both)(in_dtype(EDGES, dtype)), both(in_dtype(EDGES, dtype)))


@given(st.floats(-300, 300), st.integers(1, 4))
def test_a_norm_scales_from_the_smallest_to_the_largest_numbers(exponent: float, p: int) -> None:
    x = np.array([3.0, -4.0, 1.0])
    scale = 10.0**exponent
    value, grads = ff.value_and_grad(lambda x: ff.safe_norm(x, p))(x * scale)
    np.testing.assert_allclose(value, np.linalg.norm(x, p) * scale, rtol=1e-12)
    np.testing.assert_allclose(grads, ff.grad(lambda x: ff.safe_norm(x, p))(x), rtol=1e-12)


def test_what_is_not_a_number_stays_so_and_infinity_too() -> None:
    x = np.array([np.nan, 1.0])
    for f in (ff.safe_sqrt, ff.safe_log, lambda x: ff.safe_norm(x, axis=0), lambda x: ff.safe_norm(x, 3.0)):
        assert np.isnan(np.ravel(f(x))[0])
    big = np.array([np.inf, 1.0])
    assert ff.safe_norm(big) == ff.safe_sqrt(big)[0] == ff.safe_log(big)[0] == np.inf


def test_kinds_of_arguments() -> None:
    assert ff.safe_sqrt([4, 0]).tolist() == [2.0, 0.0]
    assert ff.safe_norm(np.zeros((3, 0)), axis=1).tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(ff.safe_log(np.float32(0)), np.log(np.finfo(np.float32).tiny))
    several = ff.safe_where(
        np.array([True, False]), lambda x, y: x / y, np.array([1.0, 2.0]), np.array([[2.0], [0.0]])[:1, 0], otherwise=9
    )
    assert several.tolist() == [0.5, 9.0]


def test_the_other_branch_is_differentiated() -> None:
    x, y = np.array([0.0, 2.0]), np.array([3.0, 5.0])
    got = ff.grad(lambda y: np.sum(ff.safe_where(x > 0, np.log, x, otherwise=y * y)))(y)
    np.testing.assert_array_equal(got, [6.0, 0.0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ff.safe_where(np.array([True]), np.ones(1), np.ones(1)), ArgumentError, "np.where for arrays"),
        (lambda: ff.safe_log(1.0, eps=0.0), ArgumentError, "eps must be positive"),
        (lambda: ff.safe_norm(np.ones(3), 0.5), ArgumentError, "ord must be a number and at least 1"),
        (lambda: ff.safe_norm(np.ones(3), "fro"), ArgumentError, "ord must be a number and at least 1"),
        (lambda: ff.safe_sqrt(np.ones(3) + 1j), DtypeError, r"np\.abs\(x\)"),
    ],
)
def test_what_they_refuse(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_settings_that_are_numbers_of_numpy_leave_float32() -> None:
    x, eps = np.array([0.0, 2.0], np.float32), np.float64(1e-3)
    assert ff.safe_log(x, eps).dtype == ff.safe_norm(x, np.float64(3)).dtype == np.float32
    assert ff.safe_where(x > 0, np.log, x, fill=np.float64(1)).dtype == np.float32
