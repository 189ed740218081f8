"""NumPy's less common calls on tracers, in every mode: narrow dtypes, empty arrays, numbers in the place of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import described

import fnflare as ff
from fnflare import config

X = np.array([0.5, -1.0, 2.0])
EMPTY = np.zeros((1, 0))

#: A call and its arguments.
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "angle of integers": (np.angle, (np.array([1, 2], np.uint8),)),
    "poly of half precision": (np.poly, (X.astype(np.float16),)),
    "add.outer of a number": (lambda x: np.add.outer(x, 2.5), (X.astype(np.float32),)),
    "piecewise of nothing": (lambda x: np.piecewise(x, [x > 0], [np.sin, np.cos]), (EMPTY,)),
}


@pytest.mark.parametrize(("f", "args"), CALLS.values(), ids=list(CALLS))
def test_as_numpy(f: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Value, dtype and shape are NumPy's under both modes, in programs and in batches."""
    expected = f(*args)
    stacked = ff.vmap(f)(*[np.stack([a, a]) for a in args])
    answers = [
        ff.vjp(f, *args)[0],
        ff.jvp(f, args, tuple(np.zeros_like(a) for a in args))[0],
        ff.tree.map(lambda a: a[1], stacked),
    ]
    for native in (False, True):
        with config.override(use_native=native):
            answers.append(ff.jit(f)(*args))
    for got in answers:
        assert described(got) == described(expected)
        for a, b in zip(ff.tree.leaves(got), ff.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance(b), atol=tolerance(b))


def tolerance(a: Any) -> float:
    """What rounding may make of the dtype of an answer."""
    dtype = np.asarray(a).dtype
    return 8 * float(np.finfo(dtype).eps) if dtype.kind in "fc" else 0.0


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_quantiles_of_nothing() -> None:
    """They are not numbers where nan does not count, as NumPy has it."""
    for axis in (None, 0):
        got = ff.vjp(lambda x: np.nanquantile(x, 0.5, axis=axis), EMPTY)[0]  # noqa: B023
        np.testing.assert_array_equal(got, np.nanquantile(EMPTY, 0.5, axis=axis))


@pytest.mark.parametrize(
    ("f", "x", "message"),
    [
        (np.tril, np.float64(1.0), "a number has no triangle"),
        (np.triu, np.float64(1.0), "a number has no triangle"),
        (lambda z: np.digitize(z, [0.0, 1.0]), np.array([1j]), "complex numbers have no order"),
    ],
)
def test_numpy_refuses_these_too(f: Callable[..., Any], x: Any, message: str) -> None:
    with pytest.raises(TypeError):
        f(x)
    with pytest.raises(TypeError, match=message):
        ff.jit(f)(x)
