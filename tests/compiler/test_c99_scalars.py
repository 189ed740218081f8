"""Scalar expressions as C: every operation on every type, and random graphs of them, against NumPy."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_compiler import build, call, empty, needs_cc
from drawing import Draws
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fnflare.compiler.c99 import render
from fnflare.compiler.c99.literals import literal
from fnflare.nest import (
    ARITHMETIC,
    COMPARISONS,
    DTYPES,
    FUNCTIONS,
    Apply,
    Axis,
    Buffer,
    Element,
    Kernel,
    Module,
    Part,
    Run,
    Scalar,
    Size,
    Store,
    cast,
    constant,
    index,
    select,
)

Array = np.ndarray[Any, Any]
N = Size("n")
I = Axis("i", index(N))  # noqa: E741
FLOATS = ("f32", "f64")
INTEGERS = ("i8", "i16", "i32", "i64", "u8", "u16", "u32", "u64")
generator = Draws(0)


def samples(dtype: str, count: int = 3) -> tuple[Array, ...]:
    """Numbers of a type in every combination of special ones, for each of `count` arguments."""
    if dtype == "b1":
        special: Array = np.array([False, True])
    elif dtype in FLOATS:
        special = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 7.25, -40.0, 1e-3, np.inf, -np.inf, np.nan])
    else:
        info = np.iinfo(DTYPES[dtype])
        numbers = [0, 1, 2, 3, 7, 8, 31, 100, info.max, info.max - 1, info.min, info.min + 1]
        special = np.array(numbers + ([-1, -2, -3, -7] if info.min else []), dtype=DTYPES[dtype])
    grids = np.meshgrid(*[special.astype(DTYPES[dtype])] * count, indexing="ij")
    return tuple(g.ravel().copy() for g in grids)


def evaluated(roots: list[Scalar], buffers: list[tuple[Buffer, Array]], folder: Path, **build_args: Any) -> list[Array]:
    """Expressions of the loop's variable, for each of its turns."""
    size = len(buffers[0][1])
    outs = [Buffer(f"out{k}", x.dtype, index(N), "output") for k, x in enumerate(roots)]
    given_buffers = tuple([b for b, _ in buffers] + outs)
    body = tuple([Store(o, index(I), x) for o, x in zip(outs, roots, strict=True)])
    kernel = Kernel("kernel", given_buffers, (N,), I, body, vector=True)
    run = Run(kernel, tuple([Part(b, index(0)) for b in given_buffers]), (index(N),))
    text = render(Module("expressions", given_buffers, (N,), (kernel,), (run,)), "expressions")
    answers = [empty(size, DTYPES[x.dtype]) for x in roots]
    call(build(text, folder, **build_args), "expressions", *[a for _, a in buffers], *answers, size)
    return answers


def truncated(a: Array, b: Array) -> Array:
    quotient = np.abs(a.astype(object)) // np.where(b == 0, 1, np.abs(b.astype(object)))
    sign = np.where((a < 0) != (b < 0), -1, 1)
    whole = np.where(b == 0, 0, quotient * sign)
    return (
        np.array([int(v) % 2 ** (8 * a.itemsize) for v in whole], dtype=object).astype(f"u{a.itemsize}").view(a.dtype)
    )


def high(a: Array, b: Array) -> Array:
    return ((a.astype(object) * b.astype(object)) // 2 ** (8 * a.itemsize)).astype(a.dtype)


def erf(x: Array) -> Array:
    import math

    return np.array([math.erf(v) for v in x.astype(np.float64)]).astype(x.dtype)


REFERENCE: dict[str, Callable[..., Array]] = {
    "fma": lambda a, b, c: a * b + c,
    "multiply_high": high,
    "not": np.invert,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "shift_left": np.left_shift,
    "shift_right": np.right_shift,
    "erf": erf,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "softplus": lambda x: np.logaddexp(x, x.dtype.type(0)),
    "rsqrt": lambda x: 1 / np.sqrt(x),
}
ON_FLOATS = [
    op for op in ARITHMETIC if op not in ("and", "or", "xor", "not", "shift_left", "shift_right", "multiply_high")
]
ON_TRUTH = ("add", "multiply", "maximum", "minimum", "fmax", "fmin", "and", "or", "xor", "not")


def operations(dtype: str) -> list[str]:
    if dtype in FLOATS:
        return [*ON_FLOATS, *FUNCTIONS, *COMPARISONS]
    if dtype == "b1":
        return [*ON_TRUTH, *COMPARISONS]
    ops = [op for op in ARITHMETIC if op not in ("sqrt", "copysign", "multiply_high")]
    return [*ops, *COMPARISONS, *(["multiply_high"] if dtype[0] == "u" else [])]


def expected(op: str, dtype: str, args: list[Array]) -> Array:
    if op == "divide" and dtype in INTEGERS:
        return truncated(*args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return REFERENCE[op](*args) if op in REFERENCE else getattr(np, op)(*args)


@needs_cc
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_operation(dtype: str, tmp_path: Path) -> None:
    arrays = samples(dtype)
    buffers = [Buffer(n, dtype, index(N), "input") for n in "abc"]
    elements = [Element(dtype, b, index(I)) for b in buffers]
    counts = {**ARITHMETIC, **FUNCTIONS, **dict.fromkeys(COMPARISONS, 2)}
    ops = operations(dtype)
    roots: list[Scalar] = [Apply("b1" if op in COMPARISONS else dtype, op, tuple(elements[: counts[op]])) for op in ops]
    answers = evaluated(roots, list(zip(buffers, arrays, strict=True)), tmp_path)
    for op, answer in zip(ops, answers, strict=True):
        wanted = expected(op, dtype, list(arrays[: counts[op]]))
        # libm's functions of floats are off by a unit or two in the last place, as NumPy's are
        tolerance = (2e-6 if dtype == "f32" else 4e-15) if op in FUNCTIONS else 0
        if op == "fma" and dtype in FLOATS:
            tolerance = 1e-6
        np.testing.assert_allclose(
            answer.astype(wanted.dtype), wanted, rtol=tolerance, atol=tolerance / 10, err_msg=f"{op} {dtype}"
        )


@needs_cc
@pytest.mark.parametrize("source", DTYPES)
def test_casts_and_bits(source: str, tmp_path: Path) -> None:
    (array,) = samples(source, 1)
    if source in FLOATS:
        array = np.array([0.0, 0.25, 1.0, 2.5, 100.0, 127.0], dtype=DTYPES[source])
    x = Element(source, buffer := Buffer("x", source, index(N), "input"), index(I))
    roots: list[Scalar] = [cast(x, target) for target in DTYPES]
    same = [t for t in DTYPES if DTYPES[t].itemsize == array.itemsize and "b1" not in (t, source)]
    roots += [Apply(t, "bits", (x,)) for t in same]
    answers = evaluated(roots, [(buffer, array)], tmp_path)
    for target, answer in zip(DTYPES, answers, strict=False):
        np.testing.assert_array_equal(answer, array.astype(DTYPES[target]), err_msg=target)
    for target, answer in zip(same, answers[len(DTYPES) :], strict=True):
        np.testing.assert_array_equal(answer, array.view(DTYPES[target]), err_msg=target)


@needs_cc
def test_constants_read_back_exactly(tmp_path: Path) -> None:
    buffer, zero = Buffer("x", "i64", index(N), "input"), np.zeros(1, np.int64)
    roots: list[Scalar] = []
    values: list[Array] = []
    for dtype in DTYPES:
        values.append(np.concatenate([*samples(dtype, 1), _unusual(dtype)]))
        roots += [constant(v, dtype) for v in values[-1]]
    answers = iter(evaluated(roots, [(buffer, zero)], tmp_path))
    for array in values:
        for v in array:
            np.testing.assert_array_equal(next(answers).view(np.uint8), np.array([v]).view(np.uint8))


def _unusual(dtype: str) -> Array:
    if dtype not in FLOATS:
        return np.array([], dtype=DTYPES[dtype])
    info = np.finfo(DTYPES[dtype])
    return np.array([0.1, 1 / 3, np.pi, 1e30, 123456789.0, info.max, info.tiny, info.smallest_subnormal], info.dtype)


def test_literals_have_the_suffixes_of_their_types() -> None:
    assert [literal(2, t).text for t in DTYPES if t != "b1"] == [
        *["2"] * 6,
        "2u",
        "2ull",
        "2.0f",
        "2.0",
    ]
    assert literal(float("nan"), "f32").text == "NAN" and literal(-np.inf, "f64").text == "-INFINITY"


# -- random graphs ------------------------------------------------------------------------------------

BINARY = ("add", "subtract", "multiply", "maximum", "minimum", "floor_divide", "remainder")
SOME_TYPES = ("b1", "u8", "i32", "i64", "u32", "u64", "f64")


@st.composite
def graphs(draw: st.DrawFn, leaves: list[Scalar]) -> list[Scalar]:
    """Expressions over leaves, some of which share parts."""
    made: list[Scalar] = list(leaves)
    for _ in range(draw(st.integers(5, 60))):
        made.append(_grown(draw, made))
    return made[len(leaves) :]


def _grown(draw: st.DrawFn, made: list[Scalar]) -> Scalar:
    x = draw(st.sampled_from(made))
    same = st.sampled_from([y for y in made if y.dtype == x.dtype])
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return constant(draw(st.integers(0, 100)), x.dtype)
    if kind == 1:
        return cast(x, draw(st.sampled_from([t for t in SOME_TYPES if x.dtype != "f64" or t in ("f64", "b1")])))
    if kind == 2:
        return Apply("b1", draw(st.sampled_from(COMPARISONS)), (x, draw(same)))
    if kind == 3:
        return select(draw(st.sampled_from([y for y in made if y.dtype == "b1"])), x, draw(same))
    if x.dtype == "f64":
        op = draw(st.sampled_from(["add", "subtract", "multiply", "maximum", "minimum", "negative", "absolute"]))
    elif x.dtype == "b1":
        op = draw(st.sampled_from(["and", "or", "xor", "not"]))
    else:
        op = draw(st.sampled_from([*BINARY, "and", "or", "xor", "not", "shift_left", "shift_right"]))
    count = ARITHMETIC[op]
    return Apply(x.dtype, op, (x,) if count == 1 else (x, draw(same)))


def in_numpy(roots: list[Scalar], arrays: dict[Buffer, Array]) -> list[Array]:
    """The same expressions by NumPy; arguments stand before what is made of them."""
    size = len(next(iter(arrays.values())))
    known: dict[Scalar, Array] = {}

    def value(x: Scalar) -> Array:
        if x not in known:
            known[x] = compute(x)
        return known[x]

    def compute(x: Scalar) -> Array:
        if isinstance(x, Element):
            return arrays[x.buffer]
        if not isinstance(x, Apply):
            return np.full(size, x.value, DTYPES[x.dtype])  # type: ignore[attr-defined]
        args = [value(a) for a in x.args]
        if x.op == "select":
            return np.where(*args)
        if x.op == "cast":
            return args[0].astype(DTYPES[x.dtype])
        return expected(x.op, x.args[0].dtype, args)

    return [value(x) for x in roots]


BUFFERS = [Buffer(f"x_{t}", t, index(N), "input") for t in SOME_TYPES]
LEAVES: list[Scalar] = [Element(b.dtype, b, index(I)) for b in BUFFERS]


@needs_cc
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(graphs(LEAVES), st.sampled_from([["-O1"], ["-O3", "-march=native"]]))
def test_random_graphs(tmp_path_factory: pytest.TempPathFactory, roots: list[Scalar], flags: list[str]) -> None:
    arrays = {b: generator.permutation(np.resize(samples(b.dtype, 1)[0], 64)) for b in BUFFERS}
    arrays = {b: np.nan_to_num(a) if b.dtype == "f64" else a for b, a in arrays.items()}
    answers = evaluated(roots, list(arrays.items()), tmp_path_factory.mktemp("graph"), flags=flags)
    for x, answer, wanted in zip(roots, answers, in_numpy(roots, arrays), strict=True):
        np.testing.assert_array_equal(answer, wanted, err_msg=str(x))
