"""The interpreter: memory that is written into again, and outputs that are the caller's own, change no answer."""

import numpy as np
import pytest
from drawing import Draws
from hypothesis import given
from hypothesis import strategies as st

import fnflare as ff
from fnflare.core import aval_of
from fnflare.program import trace_program
from fnflare.program.interpreter import run
from fnflare.program.python_code import function_code, loop_code
from fnflare.program.tracing import evaluate

RNG = Draws(0)

UNARY = [np.tanh, np.negative, np.square, lambda x: np.maximum(x, 0.5), lambda x: x * 2, ff.ops.relu, ff.ops.logistic]
BINARY = [np.add, np.multiply, np.subtract, np.minimum, lambda x, y: np.where(x > y, x, 2 * y), np.hypot]


def program_of(fun, *args):
    return trace_program(lambda *xs: fun(*xs), [aval_of(x) for x in args]).program


def runs_as_written(fun, *args):
    """The interpreter gives what the operations one by one give, bit by bit, and leaves its arguments alone."""
    before = [np.array(a) for a in args]
    program = program_of(fun, *args)
    for a, b in zip(run(program, args), evaluate(program, args), strict=True):
        assert np.shape(a) == np.shape(b)
        assert aval_of(a).dtype == aval_of(b).dtype
        np.testing.assert_array_equal(a, b)
    for a, b in zip(args, before, strict=True):
        np.testing.assert_array_equal(a, b)


@st.composite
def chains(draw):
    """A function of four arrays of shapes that broadcast, as a list of steps over all that was computed so far."""
    shapes = draw(
        st.sampled_from([((7,), (7,), (), (1,)), ((5, 4), (4,), (5, 1), (5, 4)), ((2, 3, 2), (3, 1), (2,), ())])
    )
    count = draw(st.integers(1, 12))
    steps = []
    for k in range(count):
        known = st.integers(0, 3 + k)
        kind = draw(st.sampled_from(["unary", "binary", "sum", "view"]))
        operation = {"unary": UNARY, "binary": BINARY}.get(kind, [None])
        steps.append((kind, draw(st.integers(0, len(operation) - 1)), draw(known), draw(known)))
    outputs = draw(st.lists(st.integers(0, 3 + count), min_size=1, max_size=4))
    return shapes, steps, outputs


def chain(steps, outputs):
    def fun(*args):
        values = list(args)
        for kind, which, i, j in steps:
            x, y = values[i], values[j]
            if kind == "unary":
                values.append(UNARY[which](x))
            elif kind == "binary":
                values.append(BINARY[which](x, y))
            elif kind == "sum":
                values.append(np.sum(x) * 0.1)
            else:
                values.append(np.reshape(np.reshape(x, -1), x.shape))
        return [values[i] for i in outputs]

    return fun


@given(chains())
def test_chains_of_elementwise_operations(case):
    shapes, steps, outputs = case
    args = [np.asarray(RNG.standard_normal(s)) for s in shapes]
    runs_as_written(chain(steps, outputs), *args)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.complex64])
def test_dtypes_stay(dtype):
    x = (RNG.standard_normal((5, 3)) * 4).astype(dtype)
    runs_as_written(lambda x: [(x * 2 + 1) * x, (x + x).astype(np.float64 if dtype != np.complex64 else dtype)], x)


def test_arrays_in_any_layout():
    x = RNG.standard_normal((4, 6))
    runs_as_written(lambda x, y, z: [np.tanh(x) * y + z], x.T[::2], x[::-1, :3].T[:, :4], np.float64(2.0))


def test_dead_arrays_are_written_into_again():
    x = RNG.standard_normal((40, 40))
    text = function_code(program_of(lambda x: [np.sin(np.cos(np.tanh(x)))], x)).text
    assert text.count("empty") == 0
    assert sum(line.count("r") > 0 and line.rstrip().endswith("r1)") for line in text.splitlines()) == 1
    runs_as_written(lambda x: [np.sin(np.cos(np.tanh(x)))], x)


def test_views_keep_their_array():
    x = RNG.standard_normal((4, 4))
    runs_as_written(lambda x: [(y := np.tanh(x)).T, y[1:], np.exp(y)], x)
    runs_as_written(lambda x: [np.reshape(np.tanh(x), -1)[:3] + 1, np.sin(np.tanh(x))], x)


def test_outputs_are_the_callers_own():
    f = ff.jit(lambda x: (x * 2, x * 2, np.ones(3) * 2.0))
    first = f(np.ones(3))
    for part in first:
        part[:] = 7
    for part in f(np.ones(3)):
        np.testing.assert_array_equal(part, 2)


def test_loops_write_outputs_into_their_stacks():
    def body(c, x):
        c = np.tanh(c + x)
        return c, (c * 2, c, x, np.ones(2))

    xs = RNG.standard_normal((5, 2))
    program = program_of(lambda c, x: [(r := body(c, x))[0], *r[1]], xs[0], xs[0])
    assert "s0[t])" in loop_code(program, 0, 1).text
    carry, ys = ff.scan(body, np.zeros(2), xs)
    with ff.disable_jit():
        wanted_carry, wanted = ff.scan(body, np.zeros(2), xs)
    np.testing.assert_array_equal(carry, wanted_carry)
    for y, w in zip(ys, wanted, strict=True):
        np.testing.assert_array_equal(y, w)
    ys[1][-1] = 9  # the last carry is not the stack's last row
    np.testing.assert_array_equal(carry, wanted_carry)
