"""Bodies of modules compiled to native code: kernels on parts of buffers, loops over time, branches, threads."""

import contextlib
import re

import numpy as np
import pytest
from drawing import Draws

pytest.importorskip("llvmlite")

from nests import compiled, element, guarded, kernel, loaded, module_of, of_kernel, parameter

from fnflare import config
from fnflare.compiler.llvm import engine
from fnflare.compiler.llvm.render import render
from fnflare.kernels import mkl
from fnflare.nest import (
    Accumulator,
    Axis,
    Branch,
    Buffer,
    Contract,
    ContractLoop,
    Index,
    Integer,
    Local,
    Loop,
    Part,
    Repeat,
    Run,
    Sections,
    Size,
    Store,
    Update,
    apply,
    constant,
    index,
)

N, T = Size("n"), Size("t")
generator = Draws(0)


def buffer(name, dtype="f64", role="scratch"):
    return Buffer(name, dtype, index(0), role)


def combining(op, dtype="f64"):
    """A kernel z = op(x, y) over n numbers."""
    x, y, z, axis = parameter("x", dtype), parameter("y", dtype), parameter("z", dtype), Axis("i", index(N))
    at = index(axis)
    return kernel([x, y, z], [Store(z, at, apply(op, element(x, at), element(y, at)))], [N], axis, vector=True)


def run_of(made, parts, size):
    return Run(made, tuple([Part(b, index(k)) for b, k in parts]), (index(size),))


@pytest.fixture(params=[False, True], ids=["alone", "threads"])
def threads(request):
    if request.param:
        prepare()
    return request.param


def prepare():
    with config.override(use_mkl=True):
        symbols = mkl.native_symbols()
    if "__kmpc_fork_call" not in symbols:
        pytest.skip("OpenMP's runtime is not installed")
    for name, address in symbols.items():
        engine.add_symbol(name, address)


def test_a_loop_over_time_with_sizes_known_when_it_runs(threads):
    """h[t + 1] = h[t] + x[t] * x[t], rows of a buffer."""
    x, h, square = buffer("x"), buffer("h"), buffer("square")
    add, multiply, t = combining("add"), combining("multiply"), Axis("t", index(T))
    row = index(t) * index(N)
    body = [
        run_of(multiply, [(x, row), (x, row), (square, 0)], N),
        run_of(add, [(h, row), (square, 0), (h, row + index(N))], N),
    ]
    call = compiled(module_of([x, h, square], [Repeat(t, tuple(body))], [add, multiply], [N, T]), threads=threads)
    for n in (1, 5, 13):
        for steps in (1, 2, 9):
            a, b, c = generator.standard_normal((steps, n)), np.zeros((steps + 1, n)), np.zeros(n)
            call([a, b, c], [n, steps])
            np.testing.assert_allclose(b[1:], np.cumsum(a * a, axis=0))


def test_loops_in_loops_and_dynamic_starts():
    """A loop over pairs, and a part whose start is read from a buffer that the loop changes."""
    x, out, at = buffer("x"), buffer("out"), buffer("at", "i64")
    add = combining("add")
    p = parameter("p", "i64")
    step = kernel([p], [Store(p, index(0), element(p, 0) + 1)])
    i, j = Axis("i", index(T)), Axis("j", index(3))
    where = index(Integer(element(at, 0)))
    body = (run_of(add, [(x, index(i)), (x, index(j)), (out, where)], 1), Run(step, (Part(at, index(0)),), ()))
    inner = Repeat(j, body)
    call = compiled(module_of([x, out, at], [Repeat(i, (inner,))], [add, step], [T]))
    a, b, k = generator.standard_normal(4), np.zeros(12), np.array([0])
    call([a, b, k], [4])
    np.testing.assert_array_equal(b.reshape(4, 3), a[:, None] + a[:3])
    assert k[0] == 12


@pytest.mark.parametrize("start", [0, 1, 7, 200])
def test_a_loop_while_a_condition_holds(start):
    """Counting down; the turn's number says where that it was done is noted."""
    n, go = parameter("n", "i64"), parameter("go", "b1")
    look = kernel([n, go], [Store(go, index(0), element(n, 0) > 0)])
    down = kernel([n], [Store(n, index(0), element(n, 0) - 1)])
    number, more, turns = buffer("number", "i64"), buffer("more", "b1"), buffer("turns", "i64")
    t = parameter("t", "i64")
    note = kernel([t], [Store(t, index(0), element(t, 0) + 1)])
    looked = Run(look, (Part(number, index(0)), Part(more, index(0))), ())
    axis = Axis("k", index(0))
    body = (
        Run(down, (Part(number, index(0)),), ()),
        Run(note, (Part(turns, index(axis)),), ()),
        looked,
    )
    loop = Repeat(axis, body, Part(more, index(0)))
    call = compiled(module_of([number, more, turns], [looked, loop], [look, down, note]))
    a, b, c = np.array([start]), np.array([True]), np.zeros(300, np.int64)
    call([a, b, c])
    assert a[0] == 0 and not b[0]
    np.testing.assert_array_equal(c, np.arange(300) < start)


@pytest.mark.parametrize("which", [-5, 0, 1, 2, 3, 99])
def test_branches_are_clamped(which):
    w, x, out = buffer("w", "i64"), buffer("x"), buffer("out")
    kernels = [combining(op) for op in ("add", "multiply", "subtract")]
    bodies = tuple([(run_of(k, [(x, 0), (x, 3), (out, 0)], 3),) for k in kernels])
    call = compiled(module_of([w, x, out], [Branch(Part(w, index(0)), bodies)], kernels))
    a, b = generator.standard_normal(6), np.zeros(3)
    call([np.array([which]), a, b])
    exact = [a[:3] + a[3:], a[:3] * a[3:], a[:3] - a[3:]][min(max(which, 0), 2)]
    np.testing.assert_array_equal(b, exact)


def test_sections_in_a_loop(threads):
    """Each body uses the loop's variable and buffers of its own; what follows sees all of them."""
    x, left, right, out = (buffer(n) for n in ("x", "left", "right", "out"))
    add, multiply, t = combining("add"), combining("multiply"), Axis("t", index(T))
    row = index(t) * index(N)
    sections = Sections(
        (
            (run_of(add, [(x, row), (x, row), (left, 0)], N),),
            (run_of(multiply, [(x, row), (x, row), (right, 0)], N),),
            (run_of(add, [(x, row), (x, 0), (out, row)], N),),
        )
    )
    body = (sections, run_of(multiply, [(left, 0), (right, 0), (out, row + index(N) * index(T))], N))
    call = compiled(module_of([x, left, right, out], [Repeat(t, body)], [add, multiply], [N, T]), threads=threads)
    n, steps = 7, 5
    a, b, c, d = generator.standard_normal((steps, n)), np.zeros(n), np.zeros(n), np.zeros((2, steps, n))
    call([a, b, c, d], [n, steps])
    np.testing.assert_array_equal(d[0], a + a[0])
    np.testing.assert_array_equal(d[1], (a + a) * (a * a))


def test_sections_after_a_loop_in_a_branch(threads):
    """They are handed the variables of the loops around them, not of one that may not even have run."""
    which, x, left, right = buffer("which", "i64"), buffer("x"), buffer("left"), buffer("right")
    add, t, s = combining("add"), Axis("t", index(T)), Axis("s", index(2))
    row = index(t) * index(N)
    twice = [(run_of(add, [(x, row), (x, row), (b, row)], N),) for b in (left, right)]
    loop = Repeat(s, (run_of(add, [(x, index(s)), (x, index(s)), (left, 0)], 1),))
    branch = Branch(Part(which, index(0)), ((), (loop,)))
    body = (branch, Sections(tuple(twice)), run_of(add, [(x, row), (x, row), (left, row + row)], N))
    buffers = [which, x, left, right]
    call = compiled(module_of(buffers, [Repeat(t, body)], [add], [T, N]), threads=threads)
    for number in (0, 1):
        a, b, c = generator.standard_normal(6), np.zeros(12), np.zeros(6)
        call([np.array([number]), a, b, c], [3, 2])
        np.testing.assert_array_equal(c, a + a)
        np.testing.assert_array_equal(b[8:10], (a + a)[4:])


def test_parts_are_read_as_the_parameters_type():
    """The bits of a float buffer as integers; the start counts integers."""
    x, out, p, q = buffer("x", "f32"), buffer("out", "u32"), parameter("p", "u32"), parameter("q", "u32")
    axis = Axis("i", index(4))
    copy = kernel([p, q], [Store(q, index(axis), element(p, index(axis)))], axis=axis)
    call = compiled(module_of([x, out], [Run(copy, (Part(x, index(2)), Part(out, index(0))), ())], [copy]))
    a, b = np.arange(6, dtype=np.float32), np.zeros(4, np.uint32)
    call([a, b])
    np.testing.assert_array_equal(b, a[2:].view(np.uint32))


@pytest.mark.parametrize("accumulate", [False, True])
def test_products_of_matrices(accumulate, threads):
    """A product in a loop, with a size known when it runs, at the place where the loop is."""
    a, b, out, t = buffer("a", "f32"), buffer("b", "f32"), buffer("out", "f32"), Axis("t", index(2))
    zero = Index({})
    loops = (
        ContractLoop(index(N), index(5), index(3), zero),
        ContractLoop(index(5), index(1), zero, index(1)),
        ContractLoop(index(3), zero, index(1), index(5)),
    )
    product = Contract(
        Part(out, index(t) * index(N) * 5), Part(a, index(t) * index(N) * 3), Part(b, index(0)), loops, accumulate
    )
    call = compiled(module_of([a, b, out], [Repeat(t, (product,))], sizes=[N]), threads=threads)
    for n in (1, 4, 9):
        x, y = generator.standard_normal((2, n, 3)).astype("f4"), generator.standard_normal((3, 5)).astype("f4")
        z = np.ones((2, n, 5), np.float32)
        call([x, y, z], [n])
        np.testing.assert_allclose(z, x @ y + accumulate, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_threads_give_the_same_bits(known, count, monkeypatch):
    """Elementwise work and sums of rows, shared out and not, again and again."""
    prepare()
    rows, columns = 1000, 131
    x, y, s = parameter("x", "f32"), parameter("y", "f32"), parameter("s", "f32")
    M = Size("m")
    r, i = Axis("r", index(rows) if known else index(M)), Axis("i", index(columns))
    at = index(r) * columns + index(i)
    value = apply("exp", element(x, at)) * 3
    body = [
        Accumulator("sum", "add", "f32"),
        Loop(i, (Store(y, at, value), Update("sum", value)), vector=True),
        Store(s, index(r), Local("f32", "sum")),
    ]
    made = kernel([x, y, s], body, [] if known else [M], r, work=index(columns * 20))
    a = generator.standard_normal(rows * columns).astype("f4")
    answers = []
    for threads in (False, True, True):
        call = compiled(of_kernel(made), threads=threads)
        b, c = guarded(rows * columns, "f32"), guarded(rows, "f32")
        with with_threads(count):
            call([a, b, c], [] if known else [rows])
        answers.append(b.tobytes() + c.tobytes())
    assert answers[0] == answers[1] == answers[2]
    np.testing.assert_allclose(c[:rows], (np.exp(a) * 3).reshape(rows, columns).sum(1), rtol=1e-5)


@contextlib.contextmanager
def with_threads(count):
    with config.override(num_threads=count, use_mkl=True):
        yield


# Three pieces, the last one first, one after the other.
SERIAL_PIECES = """
define internal void @share(ptr %body, ptr %context, i64 %extent, i64 %least) {
  %a = udiv i64 %extent, 3
  %b = sub i64 %extent, %a
  call void %body(ptr %context, i64 %b, i64 %extent)
  call void %body(ptr %context, i64 %a, i64 %b)
  call void %body(ptr %context, i64 0, i64 %a)
  ret void
}
"""


def test_every_piece_of_an_outermost_loop_of_vectors():
    """Pieces that begin and end anywhere, as threads do them, make up the whole."""
    x, y, axis = parameter("x", "f32"), parameter("y", "f32"), Axis("i", index(N))
    made = kernel([x, y], [Store(y, index(axis), element(x, index(axis)) + 1)], [N], axis, vector=True)
    text = render(of_kernel(made), threads=True)
    text = re.sub(r"@source = .*?(?=define internal void @kernel)", SERIAL_PIECES, text, flags=re.DOTALL)
    call = loaded(text)
    for n in range(1, 120):
        a, b = generator.standard_normal(n).astype("f4"), guarded(n, "f32")
        call([a, b], [n])
        np.testing.assert_array_equal(b[:n], a + 1)
        assert (b[n:] == 1).all()


def test_nothing_of_openmp_is_asked_for_without_threads():
    text = render(of_kernel(combining("add")))
    assert "omp" not in text and "kmpc" not in text


def test_statements_in_the_wrong_place():
    with pytest.raises(TypeError, match="Store stands in a module's body"):
        render(module_of([buffer("x")], [Store(buffer("x"), index(0), constant(1, "f64"))]))
    with pytest.raises(TypeError, match="Sections stands in kernel"):
        render(of_kernel(kernel([], [Sections(())])))
