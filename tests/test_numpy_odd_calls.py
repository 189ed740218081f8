"""NumPy's less common calls on tracers, in every mode: narrow dtypes, empty arrays, numbers in the place of arrays."""

from __future__ import annotations

import math
import operator
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from laws import described

import fnflare as ff
from fnflare import config
from fnflare.core import bind, primitives

X = np.array([0.5, -1.0, 2.0])
SMALL = np.array([100, 50], np.int8)
EMPTY = np.zeros((1, 0))

#: A call and its arguments.
CALLS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "angle of integers": (np.angle, (np.array([1, 2], np.uint8),)),
    "poly of half precision": (np.poly, (X.astype(np.float16),)),
    "add.outer of a number": (lambda x: np.add.outer(x, 2.5), (X.astype(np.float32),)),
    "squeeze of a number": (lambda x: np.squeeze(x, axis=0) * np.squeeze(x, -1), (X[0],)),
    "a range": (lambda x: x * range(3) + range(3), (X,)),
    "an integer beyond those of arrays": (lambda x: x * 10**30 + 2**70, (X,)),
    "the array's own namespace": (lambda x: x.__array_namespace__().sum(x), (X,)),
    "einsum of truth values": (lambda x: np.einsum("ii,j->j", np.ones((3, 3), bool), x), (X,)),
    "einsum of small integers": (lambda x: np.einsum("i,i,j->j", SMALL, SMALL, x), (X,)),
    "clip of a plain array by its method": (lambda x: np.arange(3.0).clip(-x * x, np.sum(x)), (X,)),
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


#: What a tracer cannot do, and what the message says of it.
REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "round": (lambda x: round(x[0]), r"np\.round"),
    "round to digits": (lambda x: round(x[0], 1), r"np\.round"),
    "math.trunc": (lambda x: math.trunc(x[0]), "trunc"),
    "pickle": (pickle.dumps, "pickled.*stop_gradient"),
    "dot of a plain array": (lambda x: np.ones(3).dot(x), r"write np\.dot\(array, t\)"),
    "take of a plain array": (lambda x: np.take(np.ones(3), x), r"numpy\.take.*ff\.at\(array\)\[indices\]\.get"),
    "full_like of a plain array": (lambda x: np.full_like(np.ones(3), x), r"numpy\.full_like.*np\.broadcast_to"),
    "nan_to_num of a plain array": (lambda x: np.nan_to_num(np.ones(3), nan=x[0]), r"np\.where\(np\.isnan\(array\)"),
    "pad of a plain array": (lambda x: np.pad(np.ones(3), 1, constant_values=x[0]), r"numpy\.pad.*np\.concatenate"),
    "initial of a plain array": (lambda x: np.sum(np.ones(3), initial=x[0]), r"numpy\.sum.*np\.sum\(x\) \+ t"),
    "initial of a method": (lambda x: np.ones(3).max(initial=x[0]), r"numpy\.amax.*np\.maximum"),
    "sum of a list": (lambda x: np.sum([x[0], x[1]]), r"np\.sum\(np\.stack\(\[t, u\]\)\)"),
    "mean of a list": (lambda x: np.mean([x[0], x[1]]), r"numpy\.mean.*np\.stack of a list"),
    "r_": (lambda x: np.r_[1.0, x], r"np\.r_ and np\.c_ have no rule; write np\.concatenate"),
    "emath": (lambda x: np.emath.sqrt(x), r"numpy\.emath\.sqrt.*depends on values"),
    "del": (lambda x: operator.delitem(x, 0), r"np\.delete"),
    "shape": (lambda x: setattr(x, "shape", (3, 1)), r"x = x\.reshape\(shape\)"),
    "dtype": (lambda x: setattr(x, "dtype", int), r"x = x\.astype\(dtype\)"),
    "real": (lambda x: setattr(x, "real", 1.0), r"1j \* x\.imag"),
    "flat": (lambda x: setattr(x, "flat", 1.0), r"np\.full_like"),
    "objects": (lambda x: x.astype(object) * x, "holds numbers.*stop_gradient"),
    "strings": (lambda x: x.astype(str), "holds numbers.*stop_gradient"),
    "strides": (lambda x: x.strides, "no memory of its own"),
    "tobytes": (lambda x: x.tobytes(), "no memory of its own"),
    "view": (lambda x: x.view(np.int64), r"x\.astype\(dtype\)"),
}


@pytest.mark.parametrize(("f", "message"), REFUSED.values(), ids=list(REFUSED))
def test_what_a_tracer_cannot_do_is_named(f: Callable[..., Any], message: str) -> None:
    for run in (
        lambda: ff.vjp(f, X),
        lambda: ff.jvp(f, (X,), (X,)),
        lambda: ff.jit(f)(X),
        lambda: ff.vmap(f)(X[None]),
    ):
        with pytest.raises(ff.errors.FnflareError, match=message):
            run()


def test_attributes_that_are_not_there() -> None:
    """They are missing in the way that ``hasattr`` and ``getattr`` expect."""

    def probed(x: Any) -> Any:
        assert not hasattr(x, "strides") and not hasattr(x, "nope")
        assert getattr(x, "flags", None) is None
        with pytest.raises(AttributeError, match="no attribute 'nope'"):
            _ = x.nope
        assert x.device == "cpu"
        return x

    ff.vjp(probed, X)
    ff.eval_shape(probed, X)


def test_a_profile_writes_numbers_as_they_are() -> None:
    """Under a profile a value is a plain one wherever it is asked to be."""

    def probed(x: Any) -> Any:
        y = x * 2
        assert (math.trunc(y[2]), round(y[2])) == (4, 4)
        assert pickle.dumps(y) == pickle.dumps(2 * X)
        return y

    ff.profile(probed)(X)


def test_roots_of_polynomials_that_begin_and_end_with_zeros():
    """The roots that are there move with every coefficient, also with those that are 0."""
    p = np.array([0.0, 0.0, 1.0, -1.2, -2.3, 0.0])

    def nearby(p):
        z = np.roots([0.0, 0.0, 1.0, -1.2, -2.3, 0.0])
        for _ in range(8):
            z = z - np.polyval(p, z) / np.polyval(np.polyder(p), z)
        return z

    steps = 1e-6 * np.eye(6)
    expected = np.stack([(nearby(p + step) - nearby(p - step)) / 2e-6 for step in steps], axis=1)
    for jacobian in (ff.jacrev, ff.jacfwd):
        np.testing.assert_allclose(jacobian(lambda p: np.real(np.roots(p)))(p), expected, rtol=1e-7, atol=1e-8)
    second = ff.hessian(lambda p: np.sum(np.real(np.roots(p)) ** 2))(p)
    np.testing.assert_allclose(second, second.T, atol=1e-12)
    assert ff.vjp(np.roots, np.zeros(3))[0].shape == (0,)
    one = partial(bind, primitives()["roots"], params={"zeros": 2})
    np.testing.assert_array_equal(ff.vmap(lambda p: one((p,)))(np.stack([p, 2 * p])), np.stack([one((p,))] * 2))
