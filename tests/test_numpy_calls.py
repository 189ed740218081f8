"""NumPy's shape of calls on tracers: ufuncs' keywords and methods, arrays of every kind and layout, in every mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import close, same_as_numpy
from surface_cases import quietly

import fnflare as ff
from fnflare import config
from fnflare.errors import TracerArrayError, UnsupportedError

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
ROW = np.array([1.0, -0.5, 0.25])
MASK = np.array([True, False, True])


def under_vjp(f: Callable[..., Any], *args: Any) -> Any:
    return ff.vjp(f, *args)[0]


def under_jvp(f: Callable[..., Any], *args: Any) -> Any:
    return ff.jvp(f, args, tuple(np.ones_like(a) for a in args))[0]


def under_vmap(f: Callable[..., Any], *args: Any) -> Any:
    return ff.tree.map(lambda y: y[0], ff.vmap(f)(*[np.stack([a, a]) for a in args]))


def under_jit(f: Callable[..., Any], *args: Any, native: bool = False) -> Any:
    with config.override(use_native=native):
        return ff.jit(f)(*args)


def under_native(f: Callable[..., Any], *args: Any) -> Any:
    return under_jit(f, *args, native=True)


MODES = [under_vjp, under_jvp, under_vmap, under_jit, under_native]
in_every_mode = pytest.mark.parametrize("run", MODES, ids=lambda run: run.__name__)


# -- keywords of ufuncs -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.add(x, 1, out=None, where=True, order="C", subok=False, casting="same_kind"),
        lambda x: np.tanh(x, dtype=np.float64),
        lambda x: np.multiply(x, ROW, dtype="f8"),
        lambda x: np.exp(x, signature="d->d"),
        lambda x: np.add(x, 1, signature=(None, None, np.float64)),
        lambda x: np.subtract([1.0, 2.0, 3.0], x, dtype=np.float64),
        lambda x: np.divmod(x, 0.7, dtype=np.float64),
        lambda x: x * np.less(x, 0.1, dtype=bool),
        lambda x: np.hypot(x, 2, casting="safe"),
    ],
)
def test_keywords_that_say_how_to_compute(f: Callable[..., Any]) -> None:
    same_as_numpy(f, X)


def test_a_dtype_is_that_of_the_loop_and_gradients_keep_that_of_their_argument() -> None:
    wide, pull = ff.vjp(lambda x: np.add(x, 1e-9, dtype=np.float64), np.ones(2, np.float32))
    assert wide.dtype == np.float64
    assert wide[0] == 1 + 1e-9  # added in float64
    assert pull(wide)[0].dtype == np.float32
    narrow, pull = ff.vjp(lambda x: np.add(x, 1.0, dtype=np.float32), np.ones(2))
    assert narrow.dtype == np.float32
    assert pull(narrow)[0].dtype == np.float64


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.add(x, 1, dtype=np.float32, casting="safe"),
        lambda x: np.add(x, 1, dtype=int),
        lambda x: np.add(x, 1, casting="no") if x.dtype == np.float32 else np.add(x, 1j, dtype=float),
        lambda x: np.add(x, 1, nonsense=True),
        lambda x: np.add(x, 1, axis=0),
    ],
)
def test_numpy_and_tracers_refuse_the_same_casts_and_keywords(f: Callable[..., Any]) -> None:
    with pytest.raises(TypeError):
        f(X)
    with pytest.raises(TypeError):
        ff.vjp(f, X)


@in_every_mode
@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: np.add(x, 1, where=MASK), r"np\.where\(mask, np\.add\(\.\.\.\), otherwise\)"),
        (lambda x: np.add(x, 1, dtype=object), "np.add: dtype=object"),
        (lambda x: np.isnat(x), r"np\.isnat .* dates.*np\.isnan"),
        (lambda x: np.frompyfunc(lambda a: a, 1, 1)(x), "has no rule for tracers"),
    ],
)
def test_what_has_no_rule_says_what_to_write(run: Callable[..., Any], f: Callable[..., Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        run(f, X)


def _add_in_place(x: Any) -> Any:
    buffer = np.zeros(X.shape)
    buffer += x
    return buffer


def _set_an_element(x: Any) -> Any:
    buffer = np.zeros(3)
    buffer[0] = x[0, 0]
    return buffer


def _set_a_row(x: Any) -> Any:
    buffer = np.zeros(X.shape)
    buffer[1] = x[1]
    return buffer


@in_every_mode
@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.add(x, 1, out=np.zeros(X.shape)),
        lambda x: np.add(x, 1, np.zeros(X.shape)),
        lambda x: np.add(X, 1, out=x),
        lambda x: np.add(x, 1, out=np.zeros(X.shape), where=MASK),
        lambda x: np.modf(x, out=(np.zeros(X.shape), None)),
        _add_in_place,
    ],
)
def test_out_takes_no_tracer(run: Callable[..., Any], f: Callable[..., Any]) -> None:
    with pytest.raises(TracerArrayError, match=r"cannot write a tracer into out=.*Write x = x \+ t"):
        run(f, X)


@in_every_mode
@pytest.mark.parametrize("f", [_set_an_element, _set_a_row])
def test_buffers_take_no_tracer(run: Callable[..., Any], f: Callable[..., Any]) -> None:
    with pytest.raises(
        (TracerArrayError, ff.errors.ConcretizationError), match=r"at\(buffer\)\[i\]\.set\(t\)|one value"
    ):
        run(f, X)


def test_a_truth_value_is_plain_where_it_is_stored_as_where_it_is_tested() -> None:
    """`flags[i] = t` asks for the truth of t, as `if t:` does; a truth value has no derivative to lose."""

    def f(x: Any) -> Any:
        flags = np.zeros(2, bool)
        flags[0] = x[0, 0] - 0.5
        flags[1] = x[0, 1]
        return np.sum(x * flags[1]) + flags[0]

    np.testing.assert_array_equal(ff.grad(f)(X), np.ones(X.shape))
    with pytest.raises(ff.errors.ConcretizationError):
        ff.jit(f)(X)


# -- methods of ufuncs --------------------------------------------------------------------------


@pytest.mark.parametrize("ufunc", [np.add, np.multiply, np.subtract, np.maximum, np.arctan2, np.less, np.divmod])
def test_outer(ufunc: Any) -> None:
    same_as_numpy(lambda x, y: ufunc.outer(x, y), X + 0.03, ROW + 0.1)
    same_as_numpy(lambda y: ufunc.outer([[1.1], [2.2]], y), ROW)
    same_as_numpy(lambda y: ufunc.outer(y[0] + 0.03, y), ROW)


def test_outer_with_a_keyword() -> None:
    assert under_vjp(lambda y: np.add.outer(y, y, dtype=np.float64), ROW.astype(np.float32)).dtype == np.float64


@in_every_mode
@pytest.mark.parametrize("f", [lambda x: np.add.at(x, [0], 1), lambda x: np.add.at(X.copy(), [0], x[0])])
def test_at_names_what_to_write(run: Callable[..., Any], f: Callable[..., Any]) -> None:
    with pytest.raises(UnsupportedError, match=r"np\.add\.at .*ff\.at\(x\)\[i\]\.add\(v\)"):
        run(f, X)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.vecdot(x, x, axis=0),
        lambda x: np.vecdot(x, ROW, axis=-1, keepdims=True),
        lambda x: np.vecdot(x, x, axes=[0, 0, ()]),
        lambda x: np.matmul(x, x, axes=[(1, 0), (0, 1), (1, 0)]),
        lambda x: np.matmul(x, x, axes=[(1, 0), (0, 1), (0, 1)], dtype=np.float64),
    ],
)
def test_generalised_ufuncs_along_other_axes(f: Callable[..., Any]) -> None:
    same_as_numpy(f, X)


# -- arrays of every kind -----------------------------------------------------------------------


def f(x: Any) -> Any:
    return np.tanh(x) * 2.0 + x**2 / 3 - np.maximum(x, 0.1)


def analytic(x: Any) -> Any:
    return np.exp(x) * 2.0 + x * x


def total(x: Any) -> Any:
    return np.sum(np.real(f(x)) if np.iscomplexobj(x) else f(x))


@in_every_mode
@pytest.mark.parametrize(
    "x",
    [
        np.array(0.7),
        np.float64(0.7),
        np.zeros((0, 3)),
        np.zeros((2, 0)),
        X.T,
        X[::-1, ::2],
        np.broadcast_to(ROW, (2, 3)),
        np.asfortranarray(X),
        np.frombuffer(X.tobytes()),  # read only
        np.frombuffer(b"x" + X.tobytes(), np.uint8)[1:].view(np.float64),  # not aligned
    ],
    ids=["0-d", "scalar", "empty", "empty rows", "transposed", "strided", "broadcast", "Fortran", "read only", "odd"],
)
def test_arrays_of_every_layout(run: Callable[..., Any], x: Any) -> None:
    before = np.copy(x)
    for dtype in (np.float64, np.float32):
        xs = x if dtype is np.float64 else x.astype(np.float32)
        tolerance = {"rtol": 1e-12} if dtype is np.float64 else {"rtol": 1e-5, "atol": 1e-6}
        close(run(f, xs), f(xs), **tolerance)
        slope = ff.grad(total)(np.ascontiguousarray(xs).reshape(np.shape(xs))[()])
        close(run(ff.grad(total), xs), slope, **tolerance)
    np.testing.assert_array_equal(x, before)


@in_every_mode
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("order", [">", "<"])
def test_floats_of_every_width_and_byte_order(run: Callable[..., Any], dtype: str, order: str) -> None:
    """A result has NumPy's dtype; a gradient that of its parameter, in the machine's byte order."""
    native = np.dtype(dtype)
    x = X.astype(native.newbyteorder(order))
    tolerance = {"rtol": 20 * float(np.finfo(native).eps), "atol": 4 * float(np.finfo(native).eps)}
    close(run(f, x), f(x), **tolerance)
    slope = run(ff.grad(total), x)
    assert slope.dtype == native
    assert slope.dtype.isnative
    for g in (
        np.sum,
        lambda x: np.sum(x[::2]),
        lambda x: x.T[0, 0],
        lambda x: np.sum(x[np.array([0, 1], ">i4")] * ROW),
    ):
        assert run(ff.grad(g), x).dtype.isnative
        assert run(lambda x, g=g: ff.jvp(g, (x,), (x,)), x)[1].dtype.isnative
    expected = ff.grad(total)(X)
    np.testing.assert_allclose(slope, expected, rtol=5 * tolerance["rtol"], atol=5 * tolerance["atol"])


@in_every_mode
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, ">c8"])
def test_complex_numbers_pass_through(run: Callable[..., Any], dtype: Any) -> None:
    z = (X + 0.5j * X[::-1]).astype(dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if z.dtype.itemsize == 8 else {"rtol": 1e-12}
    close(run(analytic, z), analytic(z), **tolerance)


@in_every_mode
def test_numbers_of_python_give_way(run: Callable[..., Any]) -> None:
    x = X.astype(np.float32)
    for g, dtype in (
        (lambda x: x * 2, np.float32),
        (lambda x: 2.5 - x, np.float32),
        (lambda x: np.power(2, x), np.float32),
        (lambda x: np.arctan2(x, 1.5), np.float32),
        (lambda x: x * True, np.float32),
        (lambda x: x * 1j, np.complex64),
        (lambda x: 1j + x, np.complex64),
        (lambda x: np.multiply(1j, x), np.complex64),
        (lambda x: x * np.float64(2), np.float64),
        (lambda x: x * np.array(2.0), np.float64),
        (lambda x: x * np.float16(2), np.float32),
        (lambda x: x * np.int64(2), np.float64),
        (lambda x: x * np.int8(2), np.float32),
    ):
        assert g(x).dtype == dtype
        close(run(g, x), g(x), rtol=1e-5, atol=1e-6)


@in_every_mode
@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint16, bool])
def test_integers_and_truth_values_take_part(run: Callable[..., Any], dtype: Any) -> None:
    other = np.array([0, 1, 3]).astype(dtype)
    for g in (lambda x: x * other, lambda x: np.where(other, x, -x), lambda x: np.maximum(other, x) / (other + 2)):
        close(run(g, X), g(X), rtol=1e-12)


# -- values at the edges ------------------------------------------------------------------------

EDGES = np.array([np.inf, -np.inf, np.nan, -0.0, 0.0, -2.0, 5e-324, 1e308])


@pytest.mark.parametrize("name", ["modf", "frexp", "fabs", "sinc", "rint", "signbit", "isposinf", "isneginf", "fix"])
def test_functions_of_elements_at_the_edges(name: str) -> None:
    g = quietly(getattr(np, name))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(under_vjp(g, EDGES), g(EDGES))
        for a, b in zip(np.atleast_2d(under_vjp(g, EDGES)), np.atleast_2d(g(EDGES)), strict=True):
            if np.asarray(a).dtype.kind == "f":
                np.testing.assert_array_equal(np.signbit(a), np.signbit(b))


@pytest.mark.parametrize(
    ("g", "args", "expected"),
    [
        (np.remainder, (1.0, 0.1), (1.0, -9.0)),  # 1 / 0.1 rounds to 10
        (np.fmod, (-1.0, 0.1), (1.0, 9.0)),
        (np.heaviside, (0.0, 0.3), (0.0, 1.0)),
        (np.heaviside, (1.0, 0.3), (0.0, 0.0)),
        (np.nextafter, (1.0, 2.0), (1.0, 0.0)),
        (np.hypot, (3e200, 4e200), (0.6, 0.8)),
        (np.arctan2, (3e-200, 4e-200), (1.6e199, -1.2e199)),
        (np.logaddexp2, (-np.inf, 0.0), (0.0, 1.0)),
        (np.logaddexp2, (-np.inf, -np.inf), (1.0, 1.0)),
        (lambda x, y: np.clip(x, y, 2.0), (1.0, 1.0), (0.5, 0.5)),
        (lambda x, y: np.modf(x)[0] + y, (-2.0, 0.0), (1.0, 1.0)),
        (lambda x, y: np.ldexp(x, 3) + y, (1.5, 0.0), (8.0, 1.0)),
    ],
)
def test_gradients_at_the_edges(g: Any, args: tuple[float, ...], expected: tuple[float, ...]) -> None:
    np.testing.assert_allclose(ff.grad(g, argnums=(0, 1))(*args), expected, rtol=1e-14)


def test_closeness_and_equality_are_plain_where_values_are_known_and_traced_where_they_are_not() -> None:
    def compare(x: Any) -> Any:
        return (
            np.allclose(x, x + 1e-12),
            np.allclose(x, ROW),
            np.array_equal(x, x * 1.0),
            np.array_equal(x, ROW),
            np.array_equal(x / 0 * 0, x / 0 * 0, equal_nan=True),
            np.array_equiv(x, x[:1]),
            np.array_equiv(x, np.ones(4)),
        )

    with np.errstate(all="ignore"):
        expected = compare(X)
        seen: list[Any] = []
        ff.grad(lambda x: seen.append(compare(x)) or np.sum(x))(X)
        assert seen[0] == expected
        assert all(type(value) is bool for value in seen[0])
        assert tuple(map(bool, ff.jit(compare)(X))) == expected
        assert tuple(a.tolist() for a in map(np.asarray, ff.vmap(compare, 0)(np.stack([X, X])))) == tuple(
            [e, e] if np.ndim(a) else e for e, a in zip(expected, ff.vmap(compare, 0)(np.stack([X, X])), strict=True)
        )


def test_both_ways_of_naming_bounds_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="not both"):
        ff.grad(lambda x: np.sum(np.clip(x, 0, 1, min=0)))(X)
    with pytest.raises(UnsupportedError, match="out="):
        ff.grad(lambda x: np.sum(np.clip(x, 0, 1, out=np.zeros(X.shape))))(X)


@pytest.mark.parametrize("zeros", [[0, 1, 1], [1, 1, 0]])
def test_roots_do_not_lose_the_derivative_of_a_coefficient_that_is_zero(zeros: list[int]) -> None:
    with pytest.raises(UnsupportedError, match=r"np\.roots.*np\.linalg\.eigvals"):
        ff.vjp(lambda p: np.roots(p * zeros), ROW)
