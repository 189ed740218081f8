"""Functions made of arithmetic against NumPy, float64 and 40 digits: errors, special values and bounds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("mpmath")

from elementary_errors import NUMPY, computed, errors, expression, largest_error, operations, samples

from fnflare.compiler.elementary import EXPANDED, expand
from fnflare.compiler.llvm import engine
from fnflare.nest import ARITHMETIC, COMPARISONS, FUNCTIONS, Apply, Axis, Kernel, Local, Size, Store, index, walk

PAIRS = [(op, dtype) for op in sorted(EXPANDED) for dtype in ("f32", "f64") if expression(op, dtype) is not None]
BOUND = {"f32": 4, "f64": 2}
TYPES = {"f32": np.float32, "f64": np.float64}


def special_numbers(dtype):
    limits = np.finfo(TYPES[dtype])
    sizes = [
        0,
        0.25,
        0.5,
        1,
        1.5,
        2,
        3,
        4,
        7,
        100,
        2**24 + 2,
        limits.max,
        limits.tiny,
        limits.smallest_subnormal,
        np.inf,
    ]
    return np.array([s * x for x in sizes for s in (1.0, -1.0)] + [np.nan], TYPES[dtype])


@pytest.mark.parametrize(("op", "dtype"), PAIRS)
def test_errors_are_within_the_bounds(op, dtype):
    assert largest_error(op, dtype, 60_000 if dtype == "f32" else 4_000) <= BOUND[dtype]


@pytest.mark.parametrize(("op", "dtype"), PAIRS)
def test_special_values_are_numpys(op, dtype):
    numbers = special_numbers(dtype)
    args = [np.array(x) for x in zip(*itertools.product(numbers, repeat=FUNCTIONS[op]), strict=True)]
    found = computed(op, args)
    with np.errstate(all="ignore"):
        wanted = np.asarray(NUMPY[op](*args)).astype(found.dtype)
    special = ~np.isfinite(wanted) | (wanted == 0)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    np.testing.assert_array_equal(found[special], wanted[special])
    number = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found[number]), np.signbit(wanted[number]))
    assert errors(op, args, found).max() <= BOUND[dtype]


@pytest.mark.parametrize(("op", "dtype"), PAIRS)
def test_only_arithmetic_is_left(op, dtype):
    ops = {x.op for x in walk([expression(op, dtype)]) if isinstance(x, Apply)}
    assert ops <= set(ARITHMETIC) | set(COMPARISONS) | {"select", "cast", "bits"}


@pytest.mark.parametrize("op", ["exp", "log", "tanh", "erf", "logistic"])
def test_float32_is_done_in_float32(op):
    assert {x.dtype for x in walk([expression(op, "f32")])} <= {"f32", "u32", "b1"}


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(
    ("op", "low", "high"), [("tanh", -1, 1), ("erf", -1, 1), ("logistic", 0, 1), ("exp", 0, np.inf)]
)
def test_values_stay_within_their_range(op, dtype, low, high):
    x = samples(op, dtype, 100_000)[0]
    found = computed(op, [x])
    assert found.min() >= low and found.max() <= high


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("op", ["tanh", "erf", "sinh", "expm1"])
def test_odd_functions_are_odd_and_small_numbers_are_themselves(op, dtype):
    x = np.abs(samples(op, dtype, 10_000)[0])
    if op != "expm1":
        np.testing.assert_array_equal(computed(op, [-x]), -computed(op, [x]))
    tiny = np.array([1, 2, 3], TYPES[dtype]) * np.finfo(TYPES[dtype]).smallest_subnormal
    if op != "erf":
        np.testing.assert_array_equal(computed(op, [tiny]), tiny)


@pytest.mark.parametrize(("op", "low", "high"), [("tanh", -10, 10), ("logistic", -105, 20), ("exp", -105, 88)])
def test_values_do_not_fall_by_more_than_the_bound_as_the_argument_grows(op, low, high):
    x = np.linspace(low, high, 200_001, dtype=np.float32)
    found = computed(op, [x])
    steps = np.diff(found.astype(np.float64)) / np.spacing(np.abs(found[1:])).astype(np.float64)
    assert steps.min() >= -BOUND["f32"]


@pytest.mark.parametrize("op", ["sin", "cos"])
def test_angles_near_multiples_of_a_quarter_turn_and_huge_ones(op):
    multiples = (np.arange(-200_000, 200_001, 7) * (np.pi / 2)).astype(np.float32)
    huge = np.geomspace(1e5, np.finfo(np.float32).max, 50_000).astype(np.float32)
    for x in (multiples, huge):
        assert errors(op, [x], computed(op, [x])).max() <= BOUND["f32"]


def test_what_is_not_expanded_is_none():
    assert expand("arccosh", (Local("f32", "x"),)) is None
    assert expand("exp", (Local("i32", "x"),)) is None


def test_recurrent_cells_cost_little():
    assert [operations(op, "f32") for op in ("exp", "tanh", "logistic")] == [22, 21, 26]


@pytest.mark.skipif(not engine.available(), reason="llvmlite is not installed")
@pytest.mark.parametrize(("op", "dtype"), PAIRS)
def test_compiled_code_is_within_the_bounds(op, dtype):
    from nests import element, parameter, run

    n = Size("n")
    i = Axis("i", index(n))
    inputs = [parameter(f"x{k}", dtype) for k in range(FUNCTIONS[op])]
    out = parameter("out", dtype)
    value = expand(op, tuple([element(b, index(i)) for b in inputs]))
    assert value is not None
    kernel = Kernel("kernel", (*inputs, out), (n,), i, (Store(out, index(i), value),), vector=True)
    args = [np.concatenate([x[:3000], special_numbers(dtype)]) for x in samples(op, dtype, 5_000)]
    found = np.empty_like(args[0])
    run(kernel, [*args, found], [found.size])
    # not the same bits: a product and a sum may be done together where they are compiled
    assert errors(op, args, found).max() <= BOUND[dtype]
