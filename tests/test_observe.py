"""Observers see every kernel that runs, once, with its place; nothing is changed by it, and nothing is left of it."""

import threading

import numpy as np
import pytest
from drawing import Draws
from laws import close
from test_ops import CASES

import fnflare as ff
from fnflare import nn, tree
from fnflare.core import (
    Tape,
    current_source,
    new_linear_tape,
    new_tape,
    observed,
    observing,
    overhead,
    plain_kernel,
    primitives,
    run_observed,
    stamping,
)
from fnflare.core.eager import EagerTracer
from fnflare.core.sourced_tape import SourcedLinearTape, SourcedTape
from fnflare.errors import LeakedTracerError, UnsupportedError
from fnflare.program import trace_program
from fnflare.program.interpreter import compiled

RNG = Draws(3)
X = RNG.standard_normal((4, 3))
W = RNG.standard_normal((3, 2))


def seen_by(f, *args):
    """What `f` returns, and the calls that an observer saw: name, line, phase, layers."""
    calls = []

    def see(call):
        source = call.source
        calls.append((call.prim.name, source.line, source.phase, source.path))

    with observing(see):
        out = run_observed(f, *args)
    return out, calls


def line(f, offset):
    """The number of a line of a function, counted from its first."""
    return f.__code__.co_firstlineno + offset


class TestKernels:
    @pytest.mark.thread_unsafe(reason="kernels are the process's, and are exchanged while any thread observes")
    def test_are_exchanged_for_the_time_of_a_block_alone(self):
        before = {name: prim.kernel for name, prim in primitives().items()}
        with observing(lambda call: None):
            assert observed()
            assert all(plain_kernel(p) is before[n] for n, p in primitives().items())
            assert primitives()["tanh"].kernel is not before["tanh"]
        assert not observed()
        assert {name: prim.kernel for name, prim in primitives().items()} == before

    @pytest.mark.thread_unsafe(reason="kernels are the process's, and are exchanged while any thread observes")
    def test_are_put_back_after_an_error(self):
        before = primitives()["tanh"].kernel

        def fail(call):
            raise KeyError("seen")

        with pytest.raises(KeyError, match="seen"), observing(fail):
            ff.grad(np.tanh)(1.0)
        assert primitives()["tanh"].kernel is before

    def test_stay_observed_until_the_last_block_ends(self):
        calls = []
        with observing(calls.append):
            with observing(calls.append):
                pass
            assert primitives()["tanh"].kernel is not plain_kernel(primitives()["tanh"])
            ff.grad(np.tanh)(1.0)
        assert calls[0].prim.name == "tanh"

    def test_of_other_threads_are_not_seen(self):
        calls, answers, go, done = [], [], threading.Event(), threading.Event()

        def other():
            go.wait()
            answers.append(ff.grad(np.tanh)(0.5))
            done.set()

        thread = threading.Thread(target=other)
        thread.start()
        with observing(calls.append):
            go.set()
            done.wait()
        thread.join()
        assert calls == []
        assert answers == [ff.grad(np.tanh)(0.5)]

    def test_that_run_others_are_timed_apart(self, monkeypatch):
        clock = [0.0]
        monkeypatch.setattr("fnflare.core.observe.perf_counter", lambda: clock[0])
        exp, tanh = primitives()["exp"], primitives()["tanh"]

        def inner(x):
            clock[0] += 1
            return x

        def outer(x):
            clock[0] += 10
            exp(x)
            exp(x)
            clock[0] += 100
            return x

        monkeypatch.setattr(exp, "kernel", inner)
        monkeypatch.setattr(tanh, "kernel", outer)

        def see(call):
            clock[0] += 1000
            times.append((call.prim.name, call.seconds))

        times = []
        before = overhead()
        with observing(see):
            tanh(np.zeros(3))
        assert times == [("exp", 1), ("exp", 1), ("tanh", 110)]
        assert overhead() - before == 3000

    def test_what_an_observer_computes_is_not_seen(self):
        calls = []

        def look(call):
            calls.append(call.prim.name)
            primitives()["exp"](call.ans)

        with observing(look):
            primitives()["tanh"](np.zeros(3))
        assert calls == ["tanh"]


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_every_primitive_is_seen_once_and_unchanged(name, sample):
    prim = primitives()[name]
    expected = prim.kernel(*sample.args, **sample.params)
    calls = []
    with observing(calls.append):
        got = run_observed(lambda args: prim(*args, **sample.params), sample.args)
    assert [c.prim.name for c in calls] == [name]
    np.testing.assert_array_equal(got, expected)
    assert type(got) is type(expected)


class TestTapes:
    def test_plain_ones_where_nobody_looks(self):
        assert type(new_tape(None)) is Tape
        with observing(lambda call: None):
            assert type(new_tape(None)) is SourcedTape
            assert type(new_linear_tape(None)) is SourcedLinearTape
        with stamping():
            assert type(new_tape(None)) is SourcedTape

    def test_the_backward_pass_has_the_lines_of_the_forward_pass(self):
        def loss(w, x):
            h = np.tanh(x @ w)
            return np.sum(h * h)

        gradient, calls = seen_by(ff.grad(loss), W, X)
        np.testing.assert_array_equal(gradient, ff.grad(loss)(W, X))
        forward = [c[:2] for c in calls if c[2] == "forward"]
        assert forward == [
            ("matmul", line(loss, 1)), ("tanh", line(loss, 1)), ("multiply", line(loss, 2)), ("sum", line(loss, 2))
        ]  # fmt: skip
        backward = [c[:2] for c in calls if c[2] == "backward"]
        assert ("matmul", line(loss, 1)) in backward
        assert {n for _, n in backward} == {line(loss, 1), line(loss, 2)}
        assert calls == sorted(calls, key=lambda c: c[2] == "backward")

    def test_operations_of_library_code_have_the_line_that_called_it(self):
        model = nn.serial(hidden=nn.Dense(4), act=nn.Tanh)
        _, params = model.init(ff.random.key(0), (-1, 3))

        def loss(p, x):
            y = model.apply(p, x)
            return np.mean(y)

        _, calls = seen_by(ff.grad(loss), params, X.astype(np.float32))
        assert {c[1] for c in calls} == {line(loss, 1), line(loss, 2)}
        assert {c[3] for c in calls if c[0] == "matmul"} == {("hidden",)}
        assert {c[2] for c in calls if c[3] == ("act",)} == {"forward", "backward"}
        assert {c[3] for c in calls if c[1] == line(loss, 2)} == {()}

    def test_a_pullback_is_seen_wherever_it_is_called(self):
        def f(w):
            return np.tanh(X @ w)

        out, pullback = ff.vjp(f, W)
        _, push = ff.linearize(f, W)
        expected = pullback(np.ones_like(out)), push(W)
        calls = []
        with observing(lambda c: calls.append((c.prim.name, c.source.phase))):
            out, pullback = ff.vjp(f, W)
            _, push = ff.linearize(f, W)
            assert calls.count(("matmul", "forward")) == 2
            calls.clear()
            got = pullback(np.ones_like(out)), push(W)
        assert tree.equal(got, expected)
        assert calls.count(("matmul", "backward")) == 1
        assert calls.count(("matmul", "forward")) == 1
        assert type(got[0][0]) is np.ndarray
        # What was recorded in sight can be swept out of it.
        assert tree.equal((pullback(np.ones_like(out)), push(W)), expected)

    def test_rows_of_a_table_are_added_up_once(self):
        ids = np.array([0, 2, 2, 1])

        def loss(table):
            total = np.sum(np.square(table[ids[:2]]))
            return total + np.sum(table[ids[2:]])

        gradient, calls = seen_by(ff.grad(loss), X)
        np.testing.assert_array_equal(gradient, ff.grad(loss)(X))
        assert [c for c in calls if c[0] == "scatter_add"] == [("scatter_add", line(loss, 1), "backward", ())]

    def test_rules_of_the_users_own_have_their_lines(self):
        @ff.custom_vjp
        def f(x):
            return np.exp(x)

        def forward(x):
            return np.exp(x), x

        def backward(x, ct):
            return (ct * np.sin(x),)

        f.defvjp(forward, backward)
        _, calls = seen_by(ff.grad(lambda x: np.sum(f(x))), X)
        assert ("exp", line(forward, 1), "forward", ()) in calls
        assert ("sin", line(backward, 1), "backward", ()) in calls

    def test_what_checkpoint_runs_again_is_backward(self):
        def segment(x):
            return np.tanh(np.sin(x))

        _, calls = seen_by(ff.grad(lambda x: np.sum(ff.checkpoint(segment)(x))), X)
        sines = [c for c in calls if c[0] == "sin"]
        assert sines == [("sin", line(segment, 1), phase, ()) for phase in ("forward", "backward")]

    def test_the_layers_around_a_record_are_those_of_its_forward_pass(self):
        def loss(x):
            with nn.scope("outer"):
                inner = ff.grad(lambda y: np.sum(np.tanh(y)))(x)
            return np.sum(inner)

        _, calls = seen_by(ff.grad(loss), X)
        assert {c[3] for c in calls if c[0] == "tanh"} == {("outer",)}
        assert {c[3] for c in calls if c[2] == "backward" and c[0] == "multiply"} == {("outer",)}


class TestPrograms:
    def test_equations_have_lines_layers_and_phases(self):
        def loss(w):
            with nn.scope("cell"):
                h = np.tanh(w)
            return np.sum(h)

        aval = ff.ShapeDtypeStruct((3,), np.float64)
        with nn.scope("around"):
            program = trace_program(lambda w: [ff.grad(loss)(w)], [aval]).program
        places = {(e.prim.name, e.source.line, e.source.phase, e.source.path) for e in program.equations}
        assert ("tanh", line(loss, 2), "forward", ("cell",)) in places
        assert ("multiply", line(loss, 2), "backward", ("cell",)) in places

    def test_a_program_runs_in_the_layers_around_its_call(self):
        @ff.jit
        def f(x):
            with nn.scope("inner"):
                return np.tanh(x)

        f(X)
        with nn.scope("outer"):
            answer, calls = seen_by(f, X)
        assert calls == [("tanh", line(f.__wrapped__, 3), "forward", ("outer", "inner"))]
        np.testing.assert_array_equal(answer, np.tanh(X))

    def test_observing_leaves_nothing_in_programs(self):
        calls = []
        f = ff.jit(ff.grad(lambda w, x: np.sum(np.tanh(x @ w))))
        with observing(calls.append):
            first = f(W, X)
        assert calls
        calls.clear()
        with ff.config.override(use_native=False):  # the same operations, hence the same bits
            np.testing.assert_array_equal(f(W, X), first)
        close(f(W, X), first)
        assert calls == []
        (entry,) = f._entries.values()
        assert not any("Observed" in type(x).__name__ for x in compiled(entry.program).__globals__.values())

    def test_nothing_is_seen_while_a_program_is_made(self):
        constant = RNG.standard_normal(3)
        _, calls = seen_by(ff.jit(lambda x: x * ff.random.normal(ff.random.key(0), (3,)) + np.exp(constant)), X)
        assert {c[0] for c in calls} <= {"multiply", "add"}

    def test_a_backward_pass_runs_programs_backward(self):
        def body(h, x):
            h = np.tanh(x @ W[:, :1] + h)
            return h, None

        _, calls = seen_by(ff.grad(lambda x: np.sum(ff.scan(body, np.zeros(1), x)[0])), X)
        assert {c[2] for c in calls if c[0] == "tanh"} == {"forward"}
        phases = {c[2] for c in calls if c[1] == line(body, 1)}
        assert phases == {"forward", "backward"}


#: What plain NumPy code does with arrays, beside operations.
ON_ARRAYS = {
    "control flow": lambda x: x * 2 if x.sum() > 0 else -x,
    "numbers": lambda x: (float(x[0, 0]), int(x[0, 0] * 10), complex(x[0, 0]), round(x[0, 0], 2)),
    "text": lambda x: (f"{x[0, 0]:.3f}", str(x)),
    "lists": lambda x: (x.tolist(), x[0, 0].item()),
    "hash": lambda x: {x[0, 0]: 1}[x[0, 0]],
    "array": lambda x: np.array([x[0, 0], x[1, 1]]) + np.asarray(x)[0, :2],
    "dtype": lambda x: np.asarray(x, np.float32),
    "out": lambda x: np.add(x, 1, out=np.empty((4, 3))),
    "where": lambda x: np.sqrt(x, out=np.zeros((4, 3)), where=np.asarray(x) > 0),
    "accumulate": lambda x: np.maximum.accumulate(x),
    "no rule": lambda x: (np.median(x), np.histogram(x, 3), np.linalg.matrix_rank(x)),
    "attributes": lambda x: (x.flags.c_contiguous, x.strides, x.nbytes),
    "masks": lambda x: x[x > 0],
    "integers": lambda x: np.argmax(x, 1) + np.arange(4),
    "loops": lambda x: sum(float(v) for v in x[0]),
    "unpacking": lambda x: [a + b for a, b, _ in x],
    "complex": lambda x: np.abs(x.astype(np.complex128)) + 1,
}


class TestEagerTracer:
    @pytest.mark.parametrize("name", ON_ARRAYS)
    def test_does_what_arrays_do(self, name):
        f = ON_ARRAYS[name]
        got, _ = seen_by(f, X)
        expected = f(X)
        assert tree.structure(got) == tree.structure(expected)
        for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
            assert type(a) is type(b)
            np.testing.assert_array_equal(a, b)

    def test_writes_into_its_own_array(self):
        def f(x):
            y = np.clip(x.copy().flatten().astype(np.float64) ** 1, -99, 99).reshape(4, 3)
            alias = y
            y += 1
            y[0] = 5.0
            y[1] = y[2]
            buffer = np.zeros(3)
            buffer[0] = y[3, 0]
            buffer += y[2]
            return alias, y, buffer

        before = X.copy()
        got, _ = seen_by(f, X)
        np.testing.assert_array_equal(X, before)
        assert tree.equal(got, f(X))

    def test_keeps_a_narrow_dtype_when_it_is_written_into(self):
        def f(x):
            y = x * 1
            y *= np.float64(1.5)
            y += np.arange(3.0)
            return y

        got, _ = seen_by(f, X.astype(np.float32))
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, f(X.astype(np.float32)))

    def test_is_a_leak_after_its_block(self):
        kept = []
        seen_by(kept.append, X)
        assert type(kept[0]) is EagerTracer
        np.testing.assert_array_equal(np.asarray(kept[0]), X)
        with pytest.raises(LeakedTracerError, match="outlived"):
            np.sin(kept[0])

    def test_refusals_of_other_transforms_stand(self):
        with pytest.raises(UnsupportedError, match="shares_memory"):
            seen_by(lambda x: ff.vmap(lambda row: np.shares_memory(x[0], row))(x), X)

    def test_no_gradient_shares_memory(self):
        (a, b), _ = seen_by(ff.grad(lambda a, b: np.sum(a + b), argnums=(0, 1)), X, X)
        assert a.flags.writeable and b.flags.writeable
        assert not np.shares_memory(a, b)


def test_a_thread_has_places_of_its_own():
    places = []
    thread = threading.Thread(target=lambda: places.append(current_source()))
    thread.start()
    thread.join()
    assert places[0].code.co_name == "<lambda>"
    assert places[0].text.startswith("thread = threading.Thread")
