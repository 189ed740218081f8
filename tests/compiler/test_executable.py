"""Compiled programs as functions: arguments of all kinds go in, and what the interpreter would return comes out."""

import functools
import gc
import os
import sys
import threading
import time

import numpy as np
import pytest
from native import buffer, combine, entry, lowered, pointer, python, scale, scale_any_length

from fnflare.compiler import fastcall
from fnflare.compiler.arena import pool
from fnflare.compiler.executable import Executable
from fnflare.compiler.lowered import Output
from fnflare.nest import index

pytest.importorskip("llvmlite")

from fnflare.compiler.llvm import engine

F64 = np.dtype(np.float64)


pytestmark = pytest.mark.parametrize("fast", [True, False], indirect=True)


@pytest.fixture(autouse=True)
def fast(request, monkeypatch):
    """Whether calls go the short way."""
    if request.param and not fastcall.available():
        pytest.skip("not with this Python")
    if not request.param:
        monkeypatch.setattr(fastcall, "available", lambda: False)
    return request.param


@functools.cache
def code(text):
    return engine.load(engine.compile_text(text))


def executable(program, text):
    return Executable(program, code(text))


@pytest.fixture
def doubled(fast):
    return executable(*scale((3, 4)))


@pytest.fixture
def doubled_any(fast):
    return executable(*scale_any_length(4))


def example(shape=(3, 4)):
    return np.arange(np.prod(shape), dtype=np.float64).reshape(shape)


# -- arguments -------------------------------------------------------------------------------------


def _misaligned(x):
    out = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    out[...] = x
    assert not out.flags.aligned
    return out


def _read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def _strided(x):
    return np.repeat(x, 3, axis=1)[:, ::3]


class _Subclass(np.ndarray):
    pass


LAID_OUT = {
    "plain": lambda x: x,
    "transposed": np.asfortranarray,
    "strided": _strided,
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "byte-swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "misaligned": _misaligned,
    "read-only": _read_only,
    "subclass": lambda x: x.view(_Subclass),
    "other descriptor": lambda x: x.astype(np.dtype(np.float64, metadata={"a": 1})),
}


@pytest.mark.parametrize("how", LAID_OUT)
@pytest.mark.parametrize("which", ["doubled", "doubled_any"])
def test_arrays_may_lie_in_memory_in_any_way(how, which, request):
    x = LAID_OUT[how](example())
    before = np.array(x)
    (y,) = request.getfixturevalue(which)(x)
    np.testing.assert_array_equal(y, 2.0 * before)
    np.testing.assert_array_equal(x, before)
    assert type(y) is np.ndarray
    assert y.flags.c_contiguous and y.flags.writeable and y.flags.owndata
    assert y.dtype == F64


def test_numbers_are_arrays_of_one_element():
    add = executable(*combine(["f64", "i64", "b1", "f32"]))
    for arguments in [
        (0.5, 3, True, np.float32(0.25)),
        (np.float64(0.5), np.int64(3), np.True_, np.array(0.25, np.float32)),
        (np.array(0.5), np.array(3), np.array(True), np.array([[0.25, 9.0]], np.float32)[:, ::2][0, 0]),
        (np.array(0.5, ">f8"), np.array(3, ">i8"), np.bool_(True), np.float32(0.25)),
    ]:
        (total,) = add(*arguments)
        assert type(total) is np.float64
        assert total == 4.75
    assert add(-0.5, -3, False, np.float32(-1.0)) == [-4.5]
    assert add(0.0, 2**40, False, np.float32(0)) == [2.0**40]


def test_a_number_that_no_machine_integer_holds_is_an_error():
    add = executable(*combine(["i64"]))
    assert add(2**63 - 1) == [2.0**63]
    with pytest.raises(OverflowError):
        add(2**63)
    assert add(-1) == [-1.0]


def test_as_many_arguments_as_inputs(doubled):
    with pytest.raises(TypeError, match="1 arguments are needed, got 2"):
        doubled(example(), example())
    with pytest.raises(TypeError, match="1 arguments are needed, got 0"):
        doubled()
    with pytest.raises(TypeError):
        doubled(x=example())


def test_what_is_no_array_is_an_error(doubled):
    with pytest.raises((TypeError, ValueError)):
        doubled("text")


def test_an_input_that_nothing_reads():
    (x, y), out = (buffer(n, "f64", 1, "input") for n in "xy"), buffer("out", "f64", 1, "output")
    program = lowered([x, y], [Output(out, (), F64)], order=[y, out])
    copy = executable(
        program,
        entry(f"{pointer(0)}\n{pointer(1)}\n  %v = load double, ptr %p0\n  store double %v, ptr %p1\n  ret void"),
    )
    assert copy(object(), 7.0) == [7.0]


# -- answers ---------------------------------------------------------------------------------------

NOTHING = entry("  ret void")


def test_answers_that_are_arguments_are_those_themselves():
    x, n = buffer("x", "f64", 6, "input"), buffer("n", "i64", 1, "input")
    shape = (index(2), index(3))
    outputs = [
        Output(0, shape, F64),
        Output(0, shape, F64),
        Output(1, (), np.dtype(np.int64)),
        Output(1, (), np.dtype(np.int64)),
    ]
    same = executable(lowered([x, n], outputs), NOTHING)
    for array in (np.ones((2, 3)), np.asfortranarray(np.ones((2, 3)))):
        a, b, c, d = same(array, 5)
        assert a is array
        assert b is not array and not np.shares_memory(a, b)  # two answers are two arrays
        np.testing.assert_array_equal(b, array)
        assert (type(c), c, type(d), d) == (int, 5, int, 5)
    scalar = np.int64(3)
    assert same(array, scalar)[2] is scalar


def test_constants_are_copied_out():
    value = np.arange(3.0)
    x = buffer("x", "f64", 1, "input")
    outputs = [Output(value, (index(3),), F64), Output(np.array(2.5), (), F64)]
    constant = executable(lowered([x], outputs), NOTHING)
    a, b = constant(0.0)
    assert not np.shares_memory(a, value) and a.flags.writeable
    assert type(b) is np.ndarray and b.shape == ()  # as the interpreter has it
    a[...] = b[...] = 7
    np.testing.assert_array_equal(constant(0.0)[0], [0.0, 1.0, 2.0])
    assert constant(0.0)[1] == 2.5


def test_constants_that_are_python_numbers_are_those():
    x = buffer("x", "f64", 1, "input")
    values = (3, 2.5, True, 1j)
    outputs = [Output(np.asarray(v), (), np.asarray(v).dtype, weak=True) for v in values]
    got = executable(lowered([x], outputs), NOTHING)(0.0)
    assert [(type(g), g) for g in got] == [(type(v), v) for v in values]


def test_one_buffer_as_two_answers_is_two_arrays(doubled):
    program, text = scale((4,))
    out = program.outputs[0]
    twice = executable(lowered(program.inputs, [out, out], scratch=[(program.module.buffers[2], 0, 0)]), text)
    a, b = twice(np.ones(4))
    np.testing.assert_array_equal(a, b)
    assert not np.shares_memory(a, b)


def test_constants_are_handed_to_the_code():
    c = np.array([1.5])
    x, k, out = buffer("x", "f64", 1, "input"), buffer("k", "f64", 1, "constant"), buffer("out", "f64", 1, "output")
    program, text = lowered([x], [Output(out, (), F64)], constants=[(k, c)]), combine(["f64", "f64"])[1]
    assert executable(program, text)(2.0) == [3.5]


def test_answers_are_new_in_each_call(doubled):
    (a,), (b,) = doubled(example()), doubled(example() + 1)
    assert not np.shares_memory(a, b)
    np.testing.assert_array_equal(a, 2 * example())


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_dtypes_and_shapes_of_answers(dtype):
    for shape in [(1,), (2, 1, 3), (5, 1)]:
        program, text = scale(shape, dtype)
        x = example(shape).astype(program.outputs[0].dtype)
        (y,) = executable(program, text)(x)
        assert y.dtype == x.dtype and y.shape == shape
        np.testing.assert_array_equal(y, 2 * x)


@pytest.mark.thread_unsafe(reason="it counts the references and blocks of the process")
def test_nothing_is_leaked_or_freed_too_often(doubled):
    x, number = example(), 1234.5
    add = executable(*combine(["f64"]))
    keep = executable(lowered([buffer("x", "f64", 12, "input")], [Output(0, (index(3), index(4)), F64)] * 2), NOTHING)

    def run():
        for f, a in ((doubled, x), (doubled, x.T.copy().T), (add, number), (keep, x)):
            f(a)
            with pytest.raises(TypeError):
                f(a, a)

    for _ in range(2):  # the second call makes what the others use
        run()
    gc.collect()
    before = [sys.getrefcount(o) for o in (x, number, F64, None.__class__, np.ndarray)]
    blocks = sys.getallocatedblocks()
    for _ in range(200):
        run()
    gc.collect()
    assert [sys.getrefcount(o) for o in (x, number, F64, None.__class__, np.ndarray)] == before
    assert sys.getallocatedblocks() - blocks < 150


# -- sizes -----------------------------------------------------------------------------------------


def test_one_executable_serves_all_lengths(doubled_any):
    for n in [*range(1, 30), 3, 3, 2000, 1, 29]:
        x = example((n, 4))
        np.testing.assert_array_equal(doubled_any(x)[0], 2 * x)


def test_peak_memory_is_scratch_and_answers(doubled, doubled_any):
    assert doubled.peak_bytes([(3, 4)]) == 128 + 96
    assert doubled_any.peak_bytes([(1, 4)]) == 64 + 32
    assert doubled_any.peak_bytes([(100, 4)]) == 104 * 32 + 100 * 32  # scratch memory for a rounder length


def test_scratch_memory_is_aligned_and_shared_by_lifetimes():
    """Three buffers of 8 bytes, of which the first and the last never are in use together: their addresses come out."""
    x, s = buffer("x", "f64", 1, "input"), [buffer(f"s{i}", "f64", 1, "scratch") for i in range(3)]
    outs = [buffer(f"o{i}", "i64", 1, "output") for i in range(3)]
    program = lowered(
        [x], [Output(o, (), np.dtype(np.int64)) for o in outs], scratch=[(s[0], 0, 1), (s[1], 1, 2), (s[2], 2, 3)]
    )
    places = {b: i for i, b in enumerate(program.module.buffers)}
    lines = []
    for a, b in zip(s, outs, strict=True):
        i, j = places[a], places[b]
        lines += [pointer(i), pointer(j), f"  %n{i} = ptrtoint ptr %p{i} to i64\n  store i64 %n{i}, ptr %p{j}"]
    where = executable(program, entry("\n".join(lines) + "\n  ret void"))(1.0)
    assert all(w % 64 == 0 for w in where)
    assert where[0] == where[2] != where[1]


# -- threads and processes -------------------------------------------------------------------------


def test_threads_that_make_a_first_function_at_once_share_what_functions_point_into(fast, monkeypatch):
    if not fast:
        pytest.skip("the long way has nothing that functions point into")
    barrier, found = threading.Barrier(3), []

    class Slow(fastcall._Runtime):
        def __init__(self):
            super().__init__()
            time.sleep(0.05)  # so that the others come while the first is being made

    def first():
        barrier.wait(60)
        found.append(fastcall._runtime())

    monkeypatch.setattr(fastcall, "_only_runtime", functools.cache(Slow))
    threads = [threading.Thread(target=first) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 3 and len({id(runtime) for runtime in found}) == 1


@pytest.mark.parametrize("shape", [(4,), (300, 100)])
def test_threads_call_at_once(shape):
    program, text = scale(shape)
    double = executable(program, text)
    wrong = []
    barrier = threading.Barrier(4)

    def work(number):
        x = np.full(shape, float(number))
        barrier.wait()
        wrong.extend(number for _ in range(100) if not np.array_equal(double(x)[0], 2 * x))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


FORK = """
import os, threading, time, warnings
import numpy as np
from fnflare.compiler.executable import Executable
from fnflare.compiler.llvm import engine
from native import scale

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while there are threads
program, text = scale((200, 100))
double = Executable(program, engine.load(engine.compile_text(text)))
x = np.ones((200, 100))
stop = threading.Event()

def work():
    while not stop.is_set():
        double(x)
        engine.compile_text(text)
        time.sleep(0.001)

threads = [threading.Thread(target=work) for _ in range(2)]
for t in threads:
    t.start()
for n in range(8):
    child = os.fork()
    if not child:
        again = Executable(program, engine.load(engine.compile_text(text)))
        good = all(np.array_equal(f(x * i)[0], 2 * x * i) for i in range(3) for f in (double, again))
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0, n
stop.set()
for t in threads:
    t.join()
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_children_call_while_their_parent_calls_and_compiles():
    assert python(FORK) == "done"


def test_code_lives_as_long_as_what_calls_it():
    code.cache_clear()
    double = executable(*scale((4,)))
    gc.collect()
    np.testing.assert_array_equal(double(np.ones(4))[0], np.full(4, 2.0))
    for _ in range(20):
        code.cache_clear()
        executable(*scale((4,)))(np.ones(4))
        gc.collect()


# -- the short way ---------------------------------------------------------------------------------


def unless_plain(fast):
    if not fast:
        pytest.skip("of the short way alone")


def forbidden(*args):
    raise AssertionError("the long way was taken")


@pytest.fixture
def no_fallback(fast, monkeypatch):
    unless_plain(fast)
    pool.give(pool.take(1 << 20))  # the first call otherwise makes it
    first = executable(*scale((3, 4)))
    for _ in range(2):  # until there is a short way at all
        first(example())
    assert fastcall.is_ready()
    monkeypatch.setattr("fnflare.compiler.executable._Plain.__call__", forbidden)


def test_plain_arrays_and_numbers_go_the_short_way(no_fallback):
    double, any_length = executable(*scale((3, 4))), executable(*scale_any_length(4))
    for x in (example(), _read_only(example())):
        np.testing.assert_array_equal(double(x)[0], 2 * x)
        np.testing.assert_array_equal(any_length(x)[0], 2 * x)
    add = executable(*combine(["f64", "i64", "b1", "f32"]))
    assert add(0.5, 3, True, np.float32(0.25)) == [4.75]
    assert add(np.float64(0.5), np.int64(-1), np.False_, np.array(0.25, np.float32)) == [-0.25]
    assert add(0.0, -1, False, np.float32(0)) == [-1.0]


def test_lengths_of_all_kinds_go_the_short_way(no_fallback):
    any_length = executable(*scale_any_length(4))
    for n in (1, 50, 2, 400, 51, 1000, 3):
        x = example((n, 4))
        np.testing.assert_array_equal(any_length(x)[0], 2 * x)


def test_scratch_memory_is_taken_and_given_back(fast):
    kept = pool.free[:]
    try:
        pool.free.clear()
        double = executable(*scale((3, 4)))
        for _ in range(3):
            np.testing.assert_array_equal(double(example())[0], 2 * example())
            assert len(pool.free) == 1
        block = pool.free[0]
        before = sys.getrefcount(block)
        for _ in range(3):
            double(example())
        assert pool.free == [block]
        assert sys.getrefcount(block) == before
        large = executable(*scale((300, 4)))  # for which it is too small
        for _ in range(3):
            np.testing.assert_array_equal(large(example((300, 4)))[0], 2 * example((300, 4)))
            assert len(pool.free) == 2
            assert len(pool.free[-1]) >= 300 * 32
    finally:
        pool.free[:] = kept


def test_without_memory_for_the_answer_there_is_an_error_and_nothing_lost(fast):
    program, text = scale((3, 4))
    huge = Output(program.outputs[0].source, (index(1 << 44), index(1 << 10)), F64)
    outputs = [program.outputs[0], Output(0, (index(3), index(4)), F64)]
    passing = Output(0, (index(3), index(4)), F64)
    places = program.module.buffers
    other = buffer("huge", "f64", 1 << 54, "output")
    outputs = [passing, program.outputs[0], Output(other, huge.shape, F64)]
    double = executable(lowered(program.inputs, outputs, scratch=[(places[2], 0, 1)], order=[*places, other]), text)
    x = example()
    pool.give(pool.take(128))
    for _ in range(3):
        before = sys.getrefcount(x)
        blocks = len(pool.free)
        with pytest.raises((MemoryError, ValueError)):
            double(x)
        assert len(pool.free) == blocks
        gc.collect()
        assert sys.getrefcount(x) == before


def test_an_executable_is_freed_at_once(fast):
    import weakref

    program, text = scale((3, 4))
    double = executable(program, text)
    double(example())
    watched = weakref.ref(double)
    gc.disable()
    try:
        call = double.call
        del double
        assert watched() is None  # but what it calls lives on
        np.testing.assert_array_equal(call(example())[0], 2 * example())
    finally:
        gc.enable()


def test_other_pythons_do_without(monkeypatch):
    monkeypatch.undo()
    fastcall.available.cache_clear()
    monkeypatch.setattr(fastcall.sys.implementation, "name", "pypy")
    assert not fastcall.available()
    monkeypatch.undo()
    fastcall.available.cache_clear()
    monkeypatch.setattr(fastcall.sysconfig, "get_config_var", lambda name: name == "Py_GIL_DISABLED")
    assert not fastcall.available()
    monkeypatch.undo()
    fastcall.available.cache_clear()


def test_a_program_that_is_called_once_needs_no_compiler_for_its_call():
    python(
        """
import numpy as np
from fnflare.compiler import fastcall
from fnflare.compiler.executable import Executable
from fnflare.compiler.llvm import engine
from native import scale

program, text = scale((3, 4))
double = Executable(program, engine.load(engine.compile_text(text)))
x = np.ones((3, 4))
ready = []
for _ in range(2):
    assert np.array_equal(double(x)[0], 2 * x)
    ready.append(fastcall.is_ready())
assert ready == [False, fastcall.available()], ready
print("done")
"""
    )
