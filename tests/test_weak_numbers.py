"""Python numbers as arguments: under every transform they give way to arrays in dtype, as NumPy has it (NEP 50)."""

from __future__ import annotations

import numpy as np
import pytest

import fnflare as ff
from fnflare import config

X = np.array([0.7, 1.4], np.float32)


def _scaled(x, n):
    return x * n


@ff.custom_vjp
def _with_vjp(x, n):
    return x * n


_with_vjp.defvjp(lambda x, n: (x * n, n), lambda n, ct: (ct * n, None))


@ff.custom_jvp
def _with_jvp(x, n):
    return x * n


_with_jvp.defjvp(lambda primals, tangents: (primals[0] * primals[1], tangents[0] * primals[1]))


@pytest.mark.parametrize("n", [2, 2.5])
@pytest.mark.parametrize(
    "f",
    [
        _scaled,
        _with_jvp,
        ff.checkpoint(_scaled),
        ff.checkpoint(_scaled, policy=ff.checkpoint_policies.nothing_saveable),
    ],
)
def test_numbers_beside_float32(f, n):
    """The value stays in the array's dtype, whether the number is an argument or stands in the function."""
    value, tangent = ff.jvp(f, (X, n), (X, 0))
    assert value.dtype == tangent.dtype == np.float32
    assert ff.vjp(f, X, n)[0].dtype == np.float32
    assert ff.linearize(f, X, n)[0].dtype == np.float32
    assert ff.eval_shape(f, X, n).dtype == np.float32
    assert ff.jit(f)(X, n).dtype == np.float32
    assert ff.vmap(lambda x: f(x, n))(X).dtype == np.float32
    assert ff.vjp(lambda x: f(x, n), X)[0].dtype == np.float32


def test_numbers_of_custom_vjp():
    for n in (2, 2.5):
        assert ff.vjp(_with_vjp, X, n)[0].dtype == np.float32
        assert ff.vmap(lambda x: _with_vjp(x, n))(X).dtype == np.float32  # noqa: B023
        np.testing.assert_array_equal(ff.grad(lambda x: _with_vjp(x, n).sum())(X), np.full(2, n, np.float32))  # noqa: B023


#: What is computed of numbers alone and then meets an array.
OF_NUMBERS = {
    "product": lambda a, x: x * (a * 2),
    "reflected": lambda a, x: (1 - a**3) / x,
    "sign": lambda a, x: -a * x + abs(a - 3) * x,
    "whole": lambda a, x: (a // 2) * x + x % (a + 1),
    "power": lambda a, x: x ** (a + 1) * (a * a) ** a,
    "where": lambda a, x: np.where(x > a * 2, x, a * 3),
    "maximum": lambda a, x: np.maximum(a / 2, x),
    "complex": lambda a, x: (1j * a) * x,
    "small integers": lambda a, x: x.astype(np.int8) * (a * 3),
    "comparison": lambda a, x: x.astype(np.int8) < a * 300,
    "function": lambda a, x: x * np.sqrt(a * 2),  # NumPy's functions make arrays
    "array": lambda a, x: (a * 2) * np.float64(3) * x,
    "alone": lambda a, x: a * 2 + 1,
    "scan": lambda a, x: ff.scan(lambda c, r: (c + r * (a * 2), c), np.float32(0), x)[1],
    "while": lambda a, x: ff.while_loop(lambda c: np.sum(c) < 100, lambda c: c * (a + 2), x),
    "cond": lambda a, x: ff.cond(x[0] > 0, lambda: x * (a * 2), lambda: x * (a + 1)),
    "checkpoint": lambda a, x: ff.checkpoint(lambda y: y * (a * 2))(x),
    "vmap": lambda a, x: ff.vmap(lambda y: y * (a * 3))(x),
    "grad": lambda a, x: ff.grad(lambda y: np.sum(y * y * (a * 2)))(x),
    "jvp": lambda a, x: ff.jvp(lambda y: y * (2 / a), (x,), (x,))[1],
    "jit": lambda a, x: ff.jit(lambda y: y * (a * 2))(x),
}


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("a", [0.25, 3])
@pytest.mark.parametrize("name", OF_NUMBERS)
def test_numbers_made_of_numbers_give_way_in_programs(name, a, native):
    """Python's operators on arguments that are numbers make numbers, under jit as without it."""
    f, x = OF_NUMBERS[name], np.array([0.5, 1.5, 2.0], np.float32)
    expected = f(a, x)
    with config.override(use_native=native):
        got = ff.jit(f)(a, x)
    assert np.asarray(got).dtype == np.asarray(expected).dtype
    np.testing.assert_allclose(got, expected, rtol=1e-6)


#: What is differentiated with respect to a number: every transform, alone and on top of another.
DIFFERENTIATED = {
    "value_and_grad": lambda f, a, x: ff.value_and_grad(lambda a: np.sum(f(a, x)))(a)[0],
    "vjp": lambda f, a, x: ff.vjp(f, a, x)[0],
    "jvp": lambda f, a, x: ff.jvp(f, (a, x), (a, x))[0],
    "tangent": lambda f, a, x: ff.jvp(f, (a, x), (a, x))[1],
    "linearize": lambda f, a, x: ff.linearize(f, a, x)[0],
    "jvp of jvp": lambda f, a, x: ff.jvp(lambda a: ff.jvp(f, (a, x), (a, x))[0], (a,), (a,))[0],
    "jvp of vjp": lambda f, a, x: ff.jvp(lambda a: ff.vjp(f, a, x)[0], (a,), (a,))[0],
    "vjp of vjp": lambda f, a, x: ff.vjp(lambda a: ff.vjp(f, a, x)[0], a)[0],
    "eval_shape": lambda f, a, x: ff.eval_shape(f, a, x),
}


@pytest.mark.parametrize("a", [0.25, 0.5 + 0.25j])
@pytest.mark.parametrize("name", OF_NUMBERS)
def test_numbers_that_are_differentiated_give_way(name, a):
    """A function has the dtype under a transform that it has without, also where a number is what moves; its gradient
    is a number in double precision."""
    f, x = OF_NUMBERS[name], np.array([0.5, 1.5, 2.0], np.float32)
    if type(a) is complex and name in ("whole", "comparison", "small integers", "scan", "while", "grad", "array"):
        return  # complex numbers have no order, are no loss, and complex(a) * np.float64(3) is a complex of Python's
    expected = np.asarray(f(a, x))
    if expected.dtype.kind not in "fc":
        return
    for what, transformed in DIFFERENTIATED.items():
        if what != "value_and_grad" or expected.dtype.kind == "f":
            of = np.sum(expected) if what == "value_and_grad" else expected
            assert transformed(f, a, x).dtype == of.dtype, what
            if name != "while" and what != "eval_shape":  # a loop of unknown length has no reverse mode in a program
                assert ff.jit(lambda a, x: transformed(f, a, x))(a, x).dtype == of.dtype, what  # noqa: B023
    out, pullback = ff.vjp(lambda a: f(a, x), a)
    assert pullback(out)[0].dtype == (np.complex128 if type(a) is complex else np.float64)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@pytest.mark.parametrize("native", [False, True])
def test_the_index_of_a_loop_is_a_number(native):
    """As in a loop of Python's: float32 stays float32, and an index it is all the same."""
    x = np.array([0.5, 1.5, 2.0], np.float32)

    def loop(x, stop):
        return ff.fori_loop(0, stop, lambda i, c: c + x * (i + 1) ** 2 / 7 + x[i % 3] * (i == 1), x)

    expected = x.copy()
    for i in range(4):
        expected = expected + x * (i + 1) ** 2 / 7 + x[i % 3] * (i == 1)
    with config.override(use_native=native):
        for transform in (lambda f: f, ff.jit):
            assert transform(lambda x: loop(x, 4))(x).dtype == np.float32
            np.testing.assert_allclose(transform(loop)(x, 4), expected, rtol=1e-6)
            assert ff.vmap(transform(loop), in_axes=(None, 0))(x, np.array([4, 2])).dtype == np.float32
            assert transform(ff.grad(lambda x: np.sum(loop(x, 4))))(x).dtype == np.float32
    with ff.disable_jit():
        assert loop(x, 4).dtype == np.float32
    np.testing.assert_array_equal(ff.fori_loop(0, 3, lambda i, c: c + i, np.int8(1)), np.int8(4))


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("n", [3, 0, 2.5, True])
def test_gradients_of_powers(n, native):
    """Of a number that a program does not know, the gradient of a power has the dtype of its argument too."""
    with config.override(use_native=native):
        for f in (lambda x, n: np.sum(x**n), lambda x, n: np.sum(np.power(n, x))):
            expected = ff.grad(f)(X, n)
            got = ff.jit(ff.grad(f))(X, n)
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_mixed_derivative_of_a_power_at_exponent_zero():
    """d/dy d/dx x**y is x**(y - 1) at y = 0, whichever comes first."""

    def f(x, y):
        return x**y

    assert ff.grad(ff.grad(f, 0), 1)(2.0, 0.0) == 0.5
    assert ff.grad(ff.grad(f, 1), 0)(2.0, 0.0) == 0.5
    assert ff.jvp(lambda y: ff.jvp(lambda x: f(x, y), (2.0,), (1.0,))[1], (0.0,), (1.0,))[1] == 0.5
    base, exponent = np.array([0.0, 0.0, 0.0, -2.0]), np.array([0.0, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(ff.grad(lambda x: np.sum(x**exponent))(base), [0, 1, 0, 12])


def test_tangents_and_cotangents_in_either_byte_order():
    """Gradients are in the machine's byte order, and are taken as directions for an argument that is not."""
    x = X.astype(X.dtype.newbyteorder())
    gradient = ff.grad(lambda x: np.sum(np.sin(x)))(x)
    out, tangent = ff.jvp(np.sin, (x,), (gradient,))
    assert out.dtype.isnative and tangent.dtype.isnative
    np.testing.assert_allclose(tangent, np.cos(X) ** 2, rtol=1e-6)
    np.testing.assert_allclose(ff.jvp(np.sin, (X,), (np.cos(x),))[1], np.cos(X) ** 2, rtol=1e-6)
    np.testing.assert_allclose(ff.linearize(np.sin, x)[1](x), np.cos(X) * X, rtol=1e-6)
    np.testing.assert_allclose(ff.vjp(np.sin, X)[1](x)[0], np.cos(X) * X, rtol=1e-6)
    with pytest.raises(ff.errors.CotangentError, match=r"must have the dtype of its primal, float32, got float64"):
        ff.jvp(np.sin, (x,), (x.astype(np.float64),))


def test_a_percentile_that_is_a_python_number():
    """A program that is given it answers in the dtype of the elements, as NumPy does."""
    for f in (lambda x, q: np.percentile(x, q), lambda x, q: np.quantile(x, q)):
        for q in (0.5, 1):
            assert ff.jit(f)(X, q).dtype == f(X, q).dtype == np.float32
