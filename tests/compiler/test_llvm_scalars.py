"""Every operation on every type, compiled to native code: single numbers and vectors, against NumPy."""

import functools
import math

import numpy as np
import pytest

pytest.importorskip("llvmlite")

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nests import compiled, element, guarded, kernel, of_kernel, parameter

from fnflare.nest import (
    ARITHMETIC,
    COMPARISONS,
    DTYPES,
    FUNCTIONS,
    Apply,
    Axis,
    Loop,
    Size,
    Store,
    apply,
    cast,
    index,
    select,
)

FLOATS, SIGNED, UNSIGNED = ("f32", "f64"), ("i8", "i16", "i32", "i64"), ("u8", "u16", "u32", "u64")
INTEGERS = SIGNED + UNSIGNED
OF_INTEGERS = ("and", "or", "xor", "not", "shift_left", "shift_right")
OF_FLOATS = ("divide", "fma", "floor", "ceil", "trunc", "rint", "sqrt", "copysign")
NAMES = {"not": "invert", "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"} | {
    "shift_left": "left_shift",
    "shift_right": "right_shift",
}
N = Size("n")


def native(expression, inputs, out):
    """A function of arrays, made of an expression of scalars: done one by one, and in lanes."""
    parameters = [parameter(f"x{k}", t) for k, t in enumerate(inputs)]
    single, lanes = parameter("single", out), parameter("lanes", out)
    body = []
    for y, vector in ((single, False), (lanes, True)):
        axis = Axis("i", index(N))
        value = expression(*[element(p, index(axis)) for p in parameters])
        body.append(Loop(axis, (Store(y, index(axis), value),), vector=vector))
    code = compiled(of_kernel(kernel([*parameters, single, lanes], body, [N])))

    def call(*args):
        n = len(args[0])
        results = [guarded(n, out), guarded(n, out)]
        code([*args, *results], [n])
        assert all((r[n:] == 1).all() for r in results)
        np.testing.assert_array_equal(results[0], results[1])
        return results[1][:n]

    return call


def extremes(dtype):
    """Numbers at which operations go wrong, each with each."""
    if dtype == "b1":
        values = np.array([False, True])
    elif dtype[0] == "f":
        values = np.array([0.0, -0.0, 1, -1, 0.5, -2.5, 3, 7, -7.25, 1e-3, 100, np.inf, -np.inf, np.nan], DTYPES[dtype])
    else:
        info = np.iinfo(DTYPES[dtype])
        some = [0, 1, 2, 3, 7, 8, 31, 63, 100, info.max, info.max - 1, info.min, info.min + 1]
        values = np.array([*some, *([-1, -2, -3, -7, -8, -100] if info.min else [])], DTYPES[dtype])
    a, b = np.meshgrid(values, values)
    return a.ravel().copy(), b.ravel().copy()


def oracle(op, *args):
    with np.errstate(all="ignore"):
        if op == "multiply_high":
            bits = args[0].itemsize * 8
            return np.array([int(a) * int(b) >> bits for a, b in zip(*args, strict=True)], args[0].dtype)
        if op == "fma":
            return args[0] * args[1] + args[2]
        return getattr(np, NAMES.get(op, op))(*args)


def taken(op, dtype):
    """Whether an operation is defined for a type."""
    if dtype == "b1":
        return op in ("and", "or", "xor", "not")
    if op == "multiply_high":
        return dtype in UNSIGNED
    return op not in (OF_INTEGERS if dtype in FLOATS else OF_FLOATS)


CASES = [(op, dtype) for op in ARITHMETIC for dtype in DTYPES if taken(op, dtype)]


@pytest.mark.parametrize(("op", "dtype"), CASES, ids=[f"{op}-{dtype}" for op, dtype in CASES])
def test_arithmetic_at_the_extremes(op, dtype):
    count = ARITHMETIC[op]
    args = [*extremes(dtype), extremes(dtype)[0]][:count]
    got = native(lambda *x: apply(op, *x), [dtype] * count, dtype)(*args)
    exact = oracle(op, *args)
    if op == "fma" or (dtype in FLOATS and op in ("floor_divide", "remainder")):
        np.testing.assert_allclose(got, exact, rtol=1e-5 if dtype == "f32" else 1e-13)
    else:
        np.testing.assert_array_equal(got, exact)
    if dtype in FLOATS and op not in ("maximum", "minimum", "fmax", "fmin", "fma", "sign"):
        known = ~np.isnan(exact)
        np.testing.assert_array_equal(np.signbit(got[known]), np.signbit(exact[known]))


@settings(max_examples=20, deadline=None)
@given(st.data(), st.sampled_from(INTEGERS))
def test_integers_wrap_and_divide_as_numpys(data, dtype):
    a, b = (data.draw(arrays(DTYPES[dtype], 24)) for _ in range(2))
    for op in ("add", "subtract", "multiply", "floor_divide", "remainder", "fmod", "shift_left", "shift_right"):
        np.testing.assert_array_equal(of_two(op, dtype)(a, b), oracle(op, a, b))


@functools.cache
def of_two(op, dtype):
    return native(lambda x, y: apply(op, x, y), [dtype, dtype], dtype)


@pytest.mark.parametrize("divisor", [1, 2, 3, 7, -1, -3, 10, 16])
@pytest.mark.parametrize("dtype", ["i32", "i64"])
def test_division_by_a_number_that_is_known(divisor, dtype):
    a, _ = extremes(dtype)
    for op in ("floor_divide", "remainder", "fmod"):
        got = native(lambda x, op=op: apply(op, x, divisor), [dtype], dtype)(a)
        np.testing.assert_array_equal(got, oracle(op, a, a.dtype.type(divisor)))


@pytest.mark.parametrize("op", COMPARISONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_comparisons(op, dtype):
    a, b = extremes(dtype)
    np.testing.assert_array_equal(
        native(lambda x, y: apply(op, x, y), [dtype, dtype], "b1")(a, b), getattr(np, op)(a, b)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_select(dtype):
    a, b = extremes(dtype)
    c = np.arange(len(a)) % 3 == 0
    got = native(lambda x, y, z: select(x, y, z), ["b1", dtype, dtype], dtype)(c, a, b)
    np.testing.assert_array_equal(got, np.where(c, a, b))


@pytest.mark.parametrize("source", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_casts(source, dtype):
    """Of numbers that the type holds; NumPy says nothing of others, but for those of integers."""
    a, _ = extremes(source)
    if source in FLOATS and dtype in INTEGERS:
        info = np.iinfo(DTYPES[dtype])
        a = np.append(a, [120.75, 77.5, -3.5]).astype(a.dtype)
        a = a[(a >= max(info.min, -(2**40))) & (a <= min(info.max, 2**40))]
    with np.errstate(all="ignore"):
        exact = a.astype(DTYPES[dtype])
    np.testing.assert_array_equal(native(lambda x: cast(x, dtype), [source], dtype)(a), exact)


@pytest.mark.parametrize(("source", "dtype"), [("f32", "u32"), ("u32", "f32"), ("f64", "i64"), ("i64", "f64")])
def test_bits(source, dtype):
    a, _ = extremes(source)
    got = native(lambda x: Apply(dtype, "bits", (x,)), [source], dtype)(a)
    assert got.tobytes() == a.view(DTYPES[dtype]).tobytes()


MATHS = {
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "rsqrt": lambda x: 1 / np.sqrt(x),
}


@pytest.mark.parametrize("op", FUNCTIONS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_functions(op, dtype):
    a, b = (np.random.default_rng(k).uniform(0.05, 0.95, 37).astype(DTYPES[dtype]) for k in (0, 1))
    if op == "arccosh":
        a += 1
    args = (a, b)[: FUNCTIONS[op]]
    got = native(lambda *x: apply(op, *x), [dtype] * FUNCTIONS[op], dtype)(*args)
    exact = (MATHS.get(op) or getattr(np, op))(*[x.astype(np.float64) for x in args])
    np.testing.assert_allclose(got, exact, rtol=1e-6 if dtype == "f32" else 4e-15)


def test_what_is_used_twice_is_computed_once():
    """A chain of sums of a number with itself: 2**60 operations if sharing were lost."""

    def doubled(x):
        for _ in range(60):
            x = x + x
        return x

    a = np.arange(9.0)
    np.testing.assert_array_equal(native(doubled, ["f64"], "f64")(a), a * 2.0**60)


def test_an_operation_that_a_type_does_not_have():
    with pytest.raises(TypeError, match="divide: not defined for i32; cast"):
        native(lambda x: apply("divide", x, x), ["i32"], "i32")
