"""Kernels compiled to native code, against NumPy: tails, strides, gathers, reductions, loops in loops."""

import numpy as np
import pytest
from drawing import Draws

pytest.importorskip("llvmlite")

from nests import compiled, element, guarded, kernel, of_kernel, parameter, run

import fnflare as ff
from fnflare import nn
from fnflare.nest import (
    DTYPES,
    Accumulator,
    Axis,
    Buffer,
    Integer,
    Let,
    Local,
    Loop,
    Position,
    Size,
    Store,
    Update,
    apply,
    cast,
    constant,
    index,
    select,
)

generator = Draws(0)
LENGTHS = range(1, 41)
N = Size("n")
WIDTHS = [None, 128, 256]


def numbers(size, dtype):
    if dtype == "b1":
        return generator.random(size) < 0.5
    if dtype[0] == "f":
        return generator.standard_normal(size).astype(DTYPES[dtype])
    return generator.integers(0, 100, size).astype(DTYPES[dtype])


def over(extent, body, name="i", **rest):
    """A loop, and what `body` writes of its variable."""
    axis = Axis(name, index(extent))
    return Loop(axis, tuple(body(index(axis))), **rest)


@pytest.mark.parametrize("dtype", [t for t in DTYPES if t != "b1"])
@pytest.mark.parametrize("width", WIDTHS)
def test_elementwise_with_every_tail(dtype, width):
    x, y, z = (parameter(n, dtype) for n in "xyz")
    body = over(N, lambda i: [Store(z, i, element(x, i) * 3 + element(y, i))], vector=True)
    call = compiled(of_kernel(kernel([x, y, z], [body], [N])), width_bits=width)
    for n in LENGTHS:
        a, b, c = numbers(n, dtype), numbers(n, dtype), guarded(n, dtype)
        call([a, b, c], [n])
        np.testing.assert_allclose(c[:n], a * DTYPES[dtype].type(3) + b, rtol=1e-6, atol=1e-6)
        assert (c[n:] == 1).all()


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 40])
@pytest.mark.parametrize("width", WIDTHS)
def test_extents_that_are_known(n, width):
    x, y, total = parameter("x", "f32"), parameter("y", "f32"), parameter("total", "f32")
    body = [
        Accumulator("s", "add", "f32"),
        over(n, lambda i: [Store(y, i, -element(x, i)), Update("s", element(x, i))], vector=True),
        Store(total, index(0), Local("f32", "s")),
    ]
    a, b, s = numbers(n, "f32"), guarded(n, "f32"), guarded(1, "f32")
    run(kernel([x, y, total], body), [a, b, s], width_bits=width)
    np.testing.assert_array_equal(b[:n], -a)
    assert (b[n:] == 1).all()
    np.testing.assert_allclose(s[0], a.sum(dtype=np.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [None, 5, 8, 37])
@pytest.mark.parametrize("width", WIDTHS)
def test_truth_values_in_memory(n, width):
    mask, x, y, positive = (parameter(n, t) for n, t in [("m", "b1"), ("x", "f32"), ("y", "f32"), ("p", "b1")])
    extent = N if n is None else n

    def body(i):
        yield Store(y, i, select(element(mask, i), element(x, i), 0.0))
        yield Store(positive, i, apply("and", element(x, i) > 0, element(mask, i)))

    call = compiled(of_kernel(kernel([mask, x, y, positive], [over(extent, body, vector=True)], [N])), width_bits=width)
    for length in LENGTHS if n is None else [n]:
        m, a, b, p = numbers(length, "b1"), numbers(length, "f32"), guarded(length, "f32"), guarded(length, "b1")
        call([m, a, b, p], [length])
        np.testing.assert_array_equal(b[:length], np.where(m, a, 0))
        np.testing.assert_array_equal(p[:length], (a > 0) & m)
        assert (b[length:] == 1).all() and p[length:].all()


@pytest.mark.parametrize("dtype", ["f32", "i8", "f64", "b1"])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("shape", [(3, 5), (5, 7), (7, 5), (2, 20), (6, 7)])
def test_strided_reversed_and_divided_indices(dtype, known, shape):
    """A transpose, a reversal and a reshape that cannot be told by strides, read and written."""
    (rows, columns), n = shape, shape[0] * shape[1]
    r, c, total = (index(k) for k in ((rows, columns, n) if known else (Size("r"), Size("c"), Size("n"))))
    sizes = [] if known else [Size("r"), Size("c"), Size("n")]
    x, across, back, spread = (parameter(name, dtype) for name in "xtbs")
    body = [
        over(r, lambda i: [over(c, lambda j: [Store(across, i * c + j, element(x, j * r + i))], vector=True)]),
        over(total, lambda k: [Store(back, total - 1 - k, element(x, k))], vector=True),
        over(total, lambda k: [Store(spread, (k % c) * r + k // c, element(x, total - 1 - k))], vector=True),
    ]
    a, t, b, s = numbers(n, dtype), guarded(n, dtype), guarded(n, dtype), guarded(n, dtype)
    run(kernel([x, across, back, spread], body, sizes), [a, t, b, s], [] if known else [rows, columns, n])
    np.testing.assert_array_equal(t[:n].reshape(rows, columns), a.reshape(columns, rows).T)
    np.testing.assert_array_equal(b[:n], a[::-1])
    np.testing.assert_array_equal(s[:n].reshape(columns, rows), a[::-1].reshape(rows, columns).T)
    assert (t[n:] == 1).all() and (b[n:] == 1).all() and (s[n:] == 1).all()


@pytest.mark.parametrize("dtype", ["i64", "i32", "u8"])
def test_gather_and_scatter(dtype):
    where, x, y, z = parameter("where", dtype), parameter("x", "f32"), parameter("y", "f32"), parameter("z", "f32")

    def body(i):
        at = index(Integer(element(where, i)))
        return [Store(y, i, element(x, at * 2 + 1)), Store(z, at, element(x, i))]

    call = compiled(of_kernel(kernel([where, x, y, z], [over(N, body, vector=True)], [N])))
    for n in LENGTHS:
        order = generator.permutation(n).astype(DTYPES[dtype])
        a, b, c = numbers(2 * n, "f32"), guarded(n, "f32"), guarded(n, "f32")
        call([order, a, b, c], [n])
        np.testing.assert_array_equal(b[:n], a[order.astype(int) * 2 + 1])
        np.testing.assert_array_equal(c[:n][order], a[:n])
        assert (b[n:] == 1).all() and (c[n:] == 1).all()


@pytest.mark.parametrize("dtype", ["i64", "i32", "u8", "f32", "f64"])
def test_positions(dtype):
    x = parameter("x", dtype)
    body = over(N, lambda i: [Store(x, i, Position(dtype, i * 3 + 1) + Position(dtype, i // 4))], vector=True)
    call = compiled(of_kernel(kernel([x], [body], [N])))
    for n in LENGTHS:
        a = guarded(n, dtype)
        call([a], [n])
        np.testing.assert_array_equal(a[:n], (np.arange(n) * 3 + 1 + np.arange(n) // 4).astype(DTYPES[dtype]))
        assert (a[n:] == 1).all()


NUMPY = {"add": np.sum, "maximum": np.max, "minimum": np.min, "multiply": np.prod}


@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "i64", "u8"])
@pytest.mark.parametrize("op", NUMPY)
def test_reductions_to_one_number(op, dtype):
    x, y = parameter("x", dtype), parameter("y", dtype)
    body = [
        Accumulator("s", op, dtype),
        over(N, lambda i: [Update("s", element(x, i))], vector=True),
        Store(y, index(0), Local(dtype, "s")),
    ]
    call = compiled(of_kernel(kernel([x, y], body, [N])))
    for n in [*LENGTHS, 63, 64, 65, 127, 1000]:
        a, b = numbers(n, dtype), guarded(1, dtype)
        call([a, b], [n])
        if dtype[0] == "f":
            close = 1e-5 if dtype == "f32" else 1e-13
            np.testing.assert_allclose(b[0], NUMPY[op](a.astype(np.float64)), rtol=close, atol=close)
        else:  # of wider numbers only the low bits are kept
            assert b[0] == NUMPY[op](a.astype(np.int64)).astype(a.dtype)
        again = guarded(1, dtype)
        call([a, again], [n])
        assert again.tobytes() == b.tobytes()


@pytest.mark.parametrize("op", ["maximum", "minimum"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_nan_wherever_it_is(op, dtype):
    x, y = parameter("x", dtype), parameter("y", dtype)
    body = [
        Accumulator("s", op, dtype),
        over(N, lambda i: [Update("s", element(x, i))], vector=True),
        Store(y, index(0), Local(dtype, "s")),
    ]
    call = compiled(of_kernel(kernel([x, y], body, [N])))
    for n in (1, 9, 37, 45):
        for k in range(n):
            a, b = numbers(n, dtype), guarded(1, dtype)
            a[k] = np.nan
            call([a, b], [n])
            assert np.isnan(b[0])


@pytest.mark.parametrize("op", ["and", "or"])
def test_whether_all_or_any(op):
    x, y = parameter("x", "b1"), parameter("y", "b1")
    body = [
        Accumulator("s", op, "b1"),
        over(N, lambda i: [Update("s", element(x, i))], vector=True),
        Store(y, index(0), Local("b1", "s")),
    ]
    call = compiled(of_kernel(kernel([x, y], body, [N])))
    for n in LENGTHS:
        for value in (True, False):
            a, b = np.full(n, value), guarded(1, "b1")
            a[generator.integers(n)] ^= generator.random() < 0.5
            call([a, b], [n])
            assert b[0] == (a.all() if op == "and" else a.any())


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("known", [True, False])
def test_softmax_of_rows(dtype, known):
    for columns in (1, 3, 8, 10, 33, 70):
        a, b = numbers(5 * columns, dtype), guarded(5 * columns, dtype)
        if known:
            run(softmax(dtype, index(columns), []), [a, b], [5])
        else:
            run(softmax(dtype, index(N), [N]), [a, b], [5, columns])
        e = np.exp(a.reshape(5, -1) - a.reshape(5, -1).max(1, keepdims=True))
        np.testing.assert_allclose(b[: a.size].reshape(5, -1), e / e.sum(1, keepdims=True), rtol=3e-6)
        assert (b[a.size :] == 1).all()


def softmax(dtype, n, sizes):
    """Three vector loops in a loop over rows."""
    x, y, rows = parameter("x", dtype), parameter("y", dtype), Axis("r", index(Size("rows")))
    first = index(rows) * n

    def terms(i):
        yield Let("e", apply("exp", element(x, first + i) - Local(dtype, "m")))
        yield Store(y, first + i, Local(dtype, "e"))
        yield Update("s", Local(dtype, "e"))

    body = [
        Accumulator("m", "maximum", dtype),
        over(n, lambda i: [Update("m", element(x, first + i))], vector=True),
        Accumulator("s", "add", dtype),
        over(n, terms, vector=True),
        Let("r", 1 / Local(dtype, "s")),
        over(n, lambda i: [Store(y, first + i, element(y, first + i) * Local(dtype, "r"))], vector=True),
    ]
    return kernel([x, y], body, [Size("rows"), *sizes], rows)


@pytest.mark.parametrize("op", ["add", "maximum"])
def test_reductions_of_columns(op):
    """Accumulators of each lane, in a plain loop that all lanes do together."""
    x, y, M = parameter("x", "f32"), parameter("y", "f32"), Size("m")

    def body(j):
        yield Accumulator("s", op, "f32")
        yield over(M, lambda i: [Update("s", element(x, i * index(N) + j))], "i")
        yield Store(y, j, Local("f32", "s"))

    call = compiled(of_kernel(kernel([x, y], [over(N, body, "j", vector=True)], [N, M])))
    for n in LENGTHS:
        a, b = numbers(6 * n, "f32"), guarded(n, "f32")
        call([a, b], [n, 6])
        np.testing.assert_allclose(b[:n], NUMPY[op](a.reshape(6, n), axis=0), rtol=1e-5, atol=1e-5)
        assert (b[n:] == 1).all()


def test_sum_over_a_plain_loop_around_and_in_a_vector_loop():
    """The accumulator stands before all three loops; the innermost one is written out."""
    x, y = parameter("x", "f64"), parameter("y", "f64")

    def rows(i):
        def columns(j):
            yield over(3, lambda k: [Update("s", element(x, (i * index(N) + j) * 3 + k))], "k", unroll=True)

        yield over(N, columns, "j", vector=True)

    body = [Accumulator("s", "add", "f64"), over(4, rows), Store(y, index(0), Local("f64", "s"))]
    call = compiled(of_kernel(kernel([x, y], body, [N])))
    for n in LENGTHS:
        a, b = numbers(12 * n, "f64"), guarded(1, "f64")
        call([a, b], [n])
        np.testing.assert_allclose(b[0], a.sum(), rtol=1e-12, atol=1e-12)


def test_what_is_read_is_read_again_after_a_write():
    """The same expression before and after a store to its buffer, in a loop and after it."""
    x, y = parameter("x", "f32"), parameter("y", "f32")
    first = element(x, 0)
    body = [
        over(3, lambda i: [Store(x, index(0), first + 1), Store(y, i, first)]),
        Store(y, index(3), first),
    ]
    a, b = np.array([5], np.float32), guarded(4, "f32")
    run(kernel([x, y], body), [a, b])
    np.testing.assert_array_equal(b[:4], [6, 7, 8, 8])


def test_local_memory():
    """Rows are turned round in memory of the kernel's own."""
    x, y, memory = parameter("x", "f32"), parameter("y", "f32"), Buffer("memory", "f32", index(20), "local")
    rows = Axis("r", index(Size("rows")))
    at = index(rows) * 20
    body = [
        over(20, lambda i: [Store(memory, 19 - i, element(x, at + i))], vector=True),
        over(20, lambda i: [Store(y, at + i, element(memory, i))], vector=True),
    ]
    a, b = numbers(60, "f32"), guarded(60, "f32")
    run(kernel([x, y], body, [Size("rows")], rows, locals=(memory,)), [a, b], [3])
    np.testing.assert_array_equal(b[:60].reshape(3, 20), a.reshape(3, 20)[:, ::-1])


def test_mixed_types_and_numbers_that_all_lanes_share():
    x, y, z, scale = parameter("x", "i64"), parameter("y", "f32"), parameter("z", "i8"), parameter("scale", "f32")

    def body(i):
        scaled = cast(element(x, i), "f32") * element(scale, 0)
        yield Store(y, i, select(element(scale, 0) > 0, scaled, constant(1, "f32")))
        yield Store(z, i, cast(scaled, "i8"))

    call = compiled(of_kernel(kernel([x, y, z, scale], [over(N, body, vector=True)], [N])))
    for n in LENGTHS:
        a, b, c, s = numbers(n, "i64"), guarded(n, "f32"), guarded(n, "i8"), np.float32([1.25])
        call([a, b, c, s], [n])
        np.testing.assert_array_equal(b[:n], a.astype(np.float32) * s)
        np.testing.assert_array_equal(c[:n], (a.astype(np.float32) * s).astype(np.int8))
        assert (b[n:] == 1).all() and (c[n:] == 1).all()


def test_an_outermost_loop_of_vectors():
    x, y, axis = parameter("x", "f32"), parameter("y", "f32"), Axis("i", index(N))
    made = kernel([x, y], [Store(y, index(axis), element(x, index(axis)) * 2)], [N], axis, vector=True)
    call = compiled(of_kernel(made))
    for n in LENGTHS:
        a, b = numbers(n, "f32"), guarded(n, "f32")
        call([a, b], [n])
        np.testing.assert_array_equal(b[:n], a * 2)
        assert (b[n:] == 1).all()


def test_a_row_that_is_written_is_computed_once():
    """The exponentials of a softmax go into a row and into a sum."""
    x = np.zeros((4, 128), np.float32)
    texts = [ff.jit(f).lower(x).as_text("llvm") for f in (np.exp, nn.softmax)]
    once, again = [text.count("call <8 x float> @llvm.fma") for text in texts]
    assert 0 < again <= once
