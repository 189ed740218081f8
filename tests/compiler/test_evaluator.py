"""The reference interpreter of the nest language against NumPy and exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from evaluator import Environment, evaluate, evaluate_index, evaluate_scalar
from hypothesis import given
from hypothesis import strategies as st

from fnflare.nest import (
    Accumulator,
    Axis,
    Branch,
    Buffer,
    Constant,
    Contract,
    ContractLoop,
    Element,
    Integer,
    Kernel,
    Let,
    Local,
    Loop,
    Module,
    Part,
    Position,
    Repeat,
    Run,
    Scalar,
    Sections,
    Size,
    Store,
    Update,
    apply,
    cast,
    index,
    select,
)

doubles = st.floats(allow_nan=False, allow_infinity=False)


def fma_of(dtype: str) -> Scalar:
    return apply("fma", Local(dtype, "a"), Local(dtype, "b"), Local(dtype, "c"))


def exact(a: float, b: float, c: float) -> float:
    total = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(total)
    except OverflowError:
        return float("inf") if total > 0 else float("-inf")


@given(doubles, doubles, doubles, st.booleans())
def test_fma_in_float64_is_rounded_once(a, b, c, cancel):
    if cancel and np.isfinite(a * b):
        c = -a * b
    found = evaluate_scalar(
        fma_of("f64"), Environment(locals={k: np.float64(v) for k, v in zip("abc", (a, b, c), strict=True)})
    )
    assert found == exact(a, b, c)


def test_fma_in_float32_is_rounded_once_where_float64_would_round_twice():
    # 1 + 2**-24 + 2**-60: float64 drops the last term, and float32 then rounds a tie to even
    a, b, c = np.float32(2**-30), np.float32(2**-30), np.float32(1)
    half = np.float32(2**-12) * np.float32(2**-12)
    one = evaluate_scalar(fma_of("f32"), Environment(locals={"a": a, "b": b, "c": c}))
    assert one == 1
    x = np.float32(1 + 2**-12)
    found = evaluate_scalar(fma_of("f32"), Environment(locals={"a": x, "b": x, "c": np.float32(-1)}))
    assert found == np.float32(2**-11 + float(half))


@pytest.mark.parametrize("c", [np.inf, -np.inf, np.nan, 0.0, -0.0])
@pytest.mark.parametrize("a", [np.inf, np.nan, 0.0, -0.0, 3.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fma_of_special_numbers(a, c, dtype):
    a, b, c = dtype(a), dtype(2), dtype(c)
    found = evaluate_scalar(
        fma_of("f32" if dtype is np.float32 else "f64"), Environment(locals={"a": a, "b": b, "c": c})
    )
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, a * b + c)
        assert np.isnan(found) or np.signbit(found) == np.signbit(a * b + c)


def test_integers_wrap_divide_by_zero_and_shift_with_their_sign():
    x = Constant("i32", -7)
    values = {
        op: int(evaluate_scalar(apply(op, x, y), Environment()))
        for op, y in {"floor_divide": 2, "remainder": 2, "shift_right": 1, "multiply": 2**30}.items()
    }
    assert values == {"floor_divide": -4, "remainder": 1, "shift_right": -4, "multiply": 2**30}
    assert evaluate_scalar(apply("floor_divide", x, 0), Environment()) == 0
    assert evaluate_scalar(apply("remainder", x, 0), Environment()) == 0
    high = apply("multiply_high", Constant("u64", 2**63), Constant("u64", 6))
    assert evaluate_scalar(high, Environment()) == 3


def row_sums() -> tuple[Kernel, Size, Size]:
    """``out[i] = max over j of (2 x[i, j])``, by way of a local buffer."""
    rows, columns = Size("rows"), Size("columns")
    i, j, k = Axis("i", index(rows)), Axis("j", index(columns)), Axis("k", index(columns))
    x = Buffer("x", "f64", index(rows) * index(columns), "parameter")
    out = Buffer("out", "f64", index(rows), "parameter")
    row = Buffer("row", "f64", index(columns), "local")
    body = (
        Loop(j, (Store(row, index(j), Element("f64", x, index(i) * index(columns) + index(j)) * 2.0),), vector=True),
        Accumulator("most", "maximum", "f64"),
        Loop(k, (Let("v", Element("f64", row, index(k))), Update("most", Local("f64", "v")))),
        Store(out, index(i), Local("f64", "most")),
    )
    return Kernel("rows", (x, out), (rows, columns), i, body, locals=(row,)), rows, columns


def test_a_kernel_with_loops_locals_and_accumulators():
    kernel, _, _ = row_sums()
    n = Size("n")
    x, out = Buffer("x", "f64", index(n) * 3, "input"), Buffer("out", "f64", index(n), "output")
    run = Run(kernel, (Part(x, index(0)), Part(out, index(0))), (index(n), index(3)))
    data, found = np.arange(12.0) - 5, np.empty(4)
    evaluate(Module("m", (x, out), (n,), (kernel,), (run,)), {x: data, out: found}, {n: 4})
    np.testing.assert_array_equal(found, 2 * data.reshape(4, 3).max(1))


def test_python_numbers_stand_on_either_side_of_an_operator():
    x = Constant("i64", 5)
    environment = Environment()
    assert [evaluate_scalar(e, environment) for e in (2 + x, 2 - x, 2 * x, x + 2, x - 2, x * 2)] == [
        7,
        -3,
        10,
        7,
        3,
        10,
    ]
    assert [bool(evaluate_scalar(e, environment)) for e in (x <= 5, x <= 4, x < 5, x >= 5)] == [
        True,
        False,
        False,
        True,
    ]


def test_what_an_index_reads_from_memory_is_replaced_in_it_too():
    i, j, table = Axis("i", index(4)), Axis("j", index(4)), Buffer("table", "i64", index(8), "input")
    read = Element("i64", table, index(i) + 1) * 2 + Position("i64", index(i)) + 1
    at = index(Integer(read)) * 3 + index(i)
    moved = at.replace({i: index(j) * 2})
    assert not moved.depends_on(i)
    buffers = {table: np.arange(8) * 10}
    for turn in range(3):
        found = evaluate_index(moved, Environment(buffers, {j: turn}))
        assert found == evaluate_index(at, Environment(buffers, {i: 2 * turn}))
        assert found == ((2 * turn + 1) * 20 + 2 * turn + 1) * 3 + 2 * turn


def test_arguments_of_two_types_are_refused():
    whole, real = Constant("i64", 5), Constant("f64", 5.0)
    with pytest.raises(TypeError, match="add: arguments of one type expected, got i64, f64"):
        whole + real
    with pytest.raises(TypeError, match="select: got b1, i64, f64"):
        select(whole < 6, whole, real)
    with pytest.raises(TypeError, match="select: got i64, f64, f64"):
        select(whole, real, real)


def test_reading_outside_a_buffer_is_an_error():
    kernel, _, _ = row_sums()
    x, out = Buffer("x", "f64", index(11), "input"), Buffer("out", "f64", index(4), "output")
    run = Run(kernel, (Part(x, index(0)), Part(out, index(0))), (index(4), index(3)))
    with pytest.raises(IndexError, match="x from 0: 12 elements wanted, 11 are there"):
        evaluate(Module("m", (x, out), (), (kernel,), (run,)), {x: np.zeros(11), out: np.zeros(4)}, {})


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_contraction_is_a_product_of_matrices(accumulate):
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(2, 3)), rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    A, B, C = (Buffer(k, "f64", index(v.size), "scratch") for k, v in (("a", a), ("b", b), ("c", c)))
    zero = index(0)
    loops = (
        ContractLoop(index(2), index(4), index(3), zero),
        ContractLoop(index(4), index(1), zero, index(1)),
        ContractLoop(index(3), zero, index(1), index(4)),
    )
    found = c.copy()
    contract = Contract(Part(C, zero), Part(A, zero), Part(B, zero), loops, accumulate)
    evaluate(Module("m", (A, B, C), (), (), (contract,)), {A: a.ravel(), B: b.ravel(), C: found.ravel()}, {})
    np.testing.assert_allclose(found, a @ b + (c if accumulate else 0))


def counting(name: str, amount: int, memory: Buffer) -> tuple[Kernel, Run]:
    """A kernel that adds a number to the first element of a buffer, and a statement that runs it."""
    x = Buffer("x", "i64", index(1), "parameter")
    kernel = Kernel(name, (x,), (), None, (Store(x, index(0), Element("i64", x, index(0)) + amount),))
    return kernel, Run(kernel, (Part(memory, index(0)),), ())


def test_loops_over_time_conditions_branches_and_sections():
    count, going = Buffer("count", "i64", index(1), "output"), Buffer("going", "b1", index(1), "scratch")
    one, add_one = counting("one", 1, count)
    ten, add_ten = counting("ten", 10, count)
    n, g = Buffer("n", "i64", index(1), "parameter"), Buffer("g", "b1", index(1), "parameter")
    test = Kernel("test", (n, g), (), None, (Store(g, index(0), Element("i64", n, index(0)) < 37),))
    look = Run(test, (Part(count, index(0)), Part(going, index(0))), ())
    steps = Size("steps")
    t, forever = Axis("t", index(steps)), Axis("forever", index(1))
    body = (
        Repeat(t, (Branch(Part(count, index(0)), ((add_one,), (add_ten,))),)),
        Sections(((add_one,), ())),
        look,
        Repeat(forever, (add_ten, look), Part(going, index(0))),
    )
    found = np.zeros(1, np.int64)
    evaluate(Module("m", (count, going), (steps,), (one, ten, test), body), {count: found}, {steps: 3})
    assert found == 42  # 0, 1, 11, 21; then 22; then in tens until it is not below 37


def test_a_parameter_reads_the_bits_of_another_type():
    # a parameter of size 0 is as large as what it is bound to
    words, numbers = Buffer("words", "u32", index(0), "parameter"), Buffer("numbers", "f32", index(3), "input")
    out = Buffer("out", "u32", index(2), "output")
    target = Buffer("target", "u32", index(2), "parameter")
    i = Axis("i", index(2))
    value = Element("u32", words, index(i)) + cast(Position("i64", index(i)), "u32")
    kernel = Kernel("k", (words, target), (), i, (Store(target, index(i), value),), vector=True)
    run = Run(kernel, (Part(numbers, index(1)), Part(out, index(0))), ())
    found = np.zeros(2, np.uint32)
    evaluate(Module("m", (numbers, out), (), (kernel,), (run,)), {numbers: np.ones(3, np.float32), out: found}, {})
    assert found.tolist() == [0x3F800000, 0x3F800001]
