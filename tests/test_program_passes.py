"""The passes over programs: what they leave, that nothing else changes, and that they come to an end."""

from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from programs import names, program_of, same_answers, same_gradients, simplified
from test_random_programs import SEEDS, normal, programs
from test_random_programs import run as random_program

import fnflare as ff
from fnflare.core import Primitive, ShapeDtypeStruct, primitives
from fnflare.program import Equation, Literal, Program, Var, run, simplify, trace_program
from fnflare.program.algebra import tidy
from fnflare.program.common import merge_common
from fnflare.program.dead_code import drop_dead_code
from fnflare.program.folding import fold_constants
from fnflare.program.rules import apply_rules

x = np.arange(6.0).reshape(2, 3) - 2.5
y = np.linspace(1.0, 2.0, 6).reshape(2, 3)


def after(pass_, f, *args):
    """What a pass alone makes of a function, after a check that it still computes the same."""
    program = program_of(f, *args)
    out = pass_(program)
    same_answers(program, out, args)
    return out


def constantly(name, *args, **params):
    """A function that adds a primitive of constants to its argument: NumPy would work it out before it is seen."""
    return lambda a: a + a._trace.emit(primitives()[name], args, params or None)


#: A primitive with two answers; it is in no registry.
PAIR = Primitive("pair", lambda a: (a, 2 * a), lambda a: (a, a))
PAIR.many = True


# -- dead code ----------------------------------------------------------------------------------


def test_dead_code_goes_and_inputs_stay():
    def f(a, b):
        np.exp(b)
        np.cos(np.sin(a))
        return a * 2

    program = program_of(f, x, y)
    alive = drop_dead_code(program)
    assert names(program) == ["exp", "sin", "cos", "multiply"]
    assert names(alive) == ["multiply"]
    assert alive.inputs == program.inputs
    assert drop_dead_code(alive) is alive


def test_an_equation_stays_if_one_of_its_answers_is_used():
    assert names(drop_dead_code(program_of(lambda a: PAIR(a)[1], x))) == ["pair"]
    assert names(drop_dead_code(program_of(lambda a: (PAIR(a), a + 1)[1], x))) == ["add"]


# -- common subexpressions ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "left"),
    [
        (lambda a: np.exp(a) + np.exp(a), ["exp", "add"]),
        (lambda a: np.exp(np.sin(a)) + np.exp(np.sin(a)), ["sin", "exp", "add"]),
        (lambda a: (a * 2.0) - (2.0 * a), ["multiply", "subtract"]),
        (lambda a: (a - 2.0) - (2.0 - a), ["subtract", "subtract", "subtract"]),
        (lambda a: np.sum(a, 0) * np.sum(a, 0), ["sum", "multiply"]),
        (lambda a: np.sum(a, 0) * np.sum(a, 0, keepdims=True), ["sum", "sum", "multiply"]),
        (lambda a: a[:, 1:] + a[:, 1:], ["getitem", "add"]),
        (lambda a: a[:, [0, 2]] + a[:, [0, 2]], ["getitem", "add"]),
        (lambda a: a[:, [0, 2]] + a[:, [0, 1]], ["getitem", "getitem", "add"]),
        (lambda a: (a + np.arange(3.0)) * (a + np.arange(3.0)), ["add", "multiply"]),
        (lambda a: (a + np.arange(3.0)) * (a + np.arange(3)), ["add", "add", "multiply"]),
        (lambda a: (a + 1) / (a + 1.0), ["add", "add", "divide"]),
        (lambda a: (a + 0.0) / (a + -0.0), ["add", "add", "divide"]),
        (lambda a: PAIR(a)[0] * PAIR(a)[1], ["pair", "multiply"]),
    ],
)
def test_common_subexpressions(f, left):
    once = after(merge_common, f, y)
    assert names(once) == left
    assert merge_common(once) is once


def test_large_constants_are_common_if_they_are_one_array_or_one_number():
    table = np.arange(600.0).reshape(200, 3)
    other = table.copy()
    ones = np.ones((200, 3))
    a = np.ones(3)
    assert names(after(merge_common, lambda a: (table * a) + (table * a), a)) == ["multiply", "add"]
    assert names(after(merge_common, lambda a: (table * a) + (other * a), a)) == ["multiply", "multiply", "add"]
    assert names(after(merge_common, lambda a: (ones * a) + (ones.copy() * a), a)) == ["multiply", "add"]


def test_random_numbers_of_one_key_are_common():
    key = ff.random.key(3)
    once = names(simplify(program_of(lambda k: ff.random.normal(k, (3,)), key)))
    twice = simplified(lambda k: ff.random.normal(k, (3,)) + ff.random.normal(k, (3,)), key)
    apart = simplified(lambda k: ff.random.normal(k, (3,)) + ff.random.normal(ff.random.fold_in(k, 1), (3,)), key)
    assert twice == [*once, "add"]
    assert len(apart) > 2 * len(once)


def test_what_is_to_be_done_again_is_not_merged(monkeypatch):
    assert not primitives()["checkpoint"].mergeable
    monkeypatch.setattr(PAIR, "mergeable", False)
    assert names(after(merge_common, lambda a: PAIR(a)[0] * PAIR(a)[1], x)) == ["pair", "pair", "multiply"]


class Opaque:
    """A parameter that nothing is known of, not even a hash."""

    __hash__ = None


@pytest.mark.parametrize("params", [{"what": Opaque()}, {"what": [Opaque()]}, {"what": Program((), (), ())}])
def test_equations_with_unknown_parameters_stay(params):
    prim = Primitive("opaque", lambda a, what: a, lambda a, what: a)
    a = Var(ShapeDtypeStruct((2,), np.float64))
    outs = [Var(a.aval), Var(a.aval)]
    twice = Program([a], [Equation(prim, (a,), {**params, "k": k}, (o,), None) for k, o in enumerate(outs)], outs)
    assert simplify(twice) is twice
    constant = Program([], [Equation(prim, (Literal(np.ones(2)),), params, (outs[0],), None)], outs[:1])
    assert simplify(constant) is constant


# -- constants ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        constantly("sin", np.arange(3.0)),
        constantly("matmul", np.ones((2, 4)), np.ones((4, 3))),
        constantly("sum", np.ones((3, 4)), axes=(1,), keepdims=False),
        constantly("log", np.zeros(3)),  # warns when it runs, but is silent here
        constantly("random_words", ff.random.key(0), domain=0, data=0, count=3),
        constantly("stop_gradient", 2.0),
        constantly("sin", np.arange(90_000.0).reshape(-1, 3)),  # large, but no larger than its argument
    ],
)
def test_constants_are_folded(f):
    assert names(after(fold_constants, f, x[0])) == ["add"]


def test_constants_of_constants_are_folded_in_one_walk():
    def f(a):
        constant = a._trace.emit(primitives()["exp"], (np.ones(3),), None)
        return a + np.sin(constant) * 2

    assert names(program_of(f, x[0])) == ["exp", "sin", "multiply", "add"]
    assert names(after(fold_constants, f, x[0])) == ["add"]


def test_large_answers_are_not_kept():
    f = constantly("multiply", np.arange(300.0).reshape(300, 1), np.arange(300.0))
    assert names(after(fold_constants, f, np.ones(()))) == ["multiply", "add"]


def test_one_number_repeated_stays_without_memory():
    def f(a):
        wide = a._trace.emit(primitives()["broadcast_to"], (np.float64(2.0),), {"shape": (2000, 1000)})
        return ff.at(np.exp(wide * 3.0).T.astype(np.float32))[0].add(a)

    folded = after(fold_constants, f, np.float32(1.0))
    assert names(folded) == ["index_add"]
    literal = folded.equations[0].inputs[0]
    assert literal.aval == ShapeDtypeStruct((1000, 2000), np.float32)
    assert literal.value.strides == (0, 0)
    assert literal.repeated == np.float32(np.exp(6.0))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3),
        (np.float32(2), 2),
        (np.full((4, 5), 7), 7),
        (np.array(3.0), 3.0),
        (np.zeros((3, 0)), None),
        (np.array([1.0, 1.0, 2.0, 1.0]), None),
        (np.concatenate([np.ones(100), [2.0], np.ones(100)]), None),
        (np.array([0.0, -0.0, 0.0]), None),
        (np.array([0.0, -0.0]) * 1j, None),
        (np.array([-0.0, -0.0]), -0.0),
        (np.full(3, np.nan), None),
        (np.broadcast_to(np.float64(np.inf), (10**9,)), np.inf),
        (np.array(["a", "a"]), None),
        (np.array([True, True]), True),
    ],
)
def test_one_number_repeated_is_recognised(value, number):
    literal = Literal(value)
    assert literal.repeated == number
    assert literal.repeated == number  # from memory
    if isinstance(number, float):
        assert np.signbit(literal.repeated) == np.signbit(number)


def test_a_kernel_that_fails_on_constants_fails_when_the_program_runs():
    program = program_of(constantly("power", np.array([2, 3]), np.array([-1, 2])), x[0, :2])
    assert fold_constants(program) is program
    with pytest.raises(ValueError, match="negative integer powers"):
        run(program, [x[0, :2]])


# -- algebra ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda a: a * 1,
        lambda a: 1.0 * a,
        lambda a: a + 0,
        lambda a: 0 + a,
        lambda a: a - 0.0,
        lambda a: a / 1,
        lambda a: np.power(a, 1),
        lambda a: np.negative(-a),
        lambda a: +a,
        lambda a: -(0 - a),
        lambda a: a * -1 * -1,
        lambda a: a / -1 / -1,
        lambda a: a * np.ones((2, 3)),
        lambda a: np.zeros(3) + a,
        lambda a: a.T.T,
        lambda a: np.transpose(a, (0, 1)),
        lambda a: np.transpose(np.transpose(a[None], (2, 0, 1)), (1, 2, 0)).reshape(2, 3),
        lambda a: a.reshape(3, 2).reshape(6).reshape(2, 3),
        lambda a: a.reshape(2, 3),
        lambda a: ff.ops.convert(a, np.float64),
        lambda a: np.broadcast_to(a, (2, 3)),
        lambda a: a[:],
        lambda a: a[...],
        lambda a: a[:, 0:3],
        lambda a: a[:, ..., None, :].reshape(2, 3),
        lambda a: np.sum(a, axis=()),
        lambda a: np.sum(a[None], axis=0),
        lambda a: np.max(a[:, None], axis=1),
        lambda a: np.concatenate([a]),
        lambda a: np.stack([a]).reshape(2, 3),
        lambda a: np.where(np.ones((2, 3), bool), a, a * 2),
        lambda a: np.where(np.False_, a * 2, a),
        lambda a: np.where(a > 0, a, a),
    ],
)
def test_nothing_is_left_of_what_does_nothing(f):
    program = program_of(f, x)
    simple = simplify(program)
    same_answers(program, simple, [x])
    assert simple.equations == ()
    assert simple.outputs == simple.inputs


@pytest.mark.parametrize(
    ("f", "left"),
    [
        (lambda a, b: a + -b, ["subtract"]),
        (lambda a, b: -a + b, ["subtract"]),
        (lambda a, b: -a + -b, ["negative", "subtract"]),
        (lambda a, b: a - -b, ["add"]),
        (lambda a, b: -(a - b), ["subtract"]),
        (lambda a, b: (-a) * (-b), ["multiply"]),
        (lambda a, b: (-a) / (-b), ["divide"]),
        (lambda a, b: (0 - a) + b, ["subtract"]),
        (lambda a, b: a * -1 + b, ["subtract"]),
        (lambda a, b: np.square(-a) + b, ["square", "add"]),
        (lambda a, b: np.abs(-a) + b, ["absolute", "add"]),
        (lambda a, b: np.power(a, 2) + b, ["square", "add"]),
        (lambda a, b: np.power(a, 3) + b, ["square", "multiply", "add"]),
        (lambda a, b: a**4 + b, ["power", "add"]),
        (lambda a, b: np.where(np.logical_not(a > 0), a, b), ["greater", "select"]),
        (lambda a, b: np.transpose(a[None].T, (1, 0, 2)) + b[..., None].T, ["reshape", "transpose"] * 2 + ["add"]),
        (lambda a, b: a.reshape(3, 2).reshape(6) + b.reshape(6), ["reshape", "reshape", "add"]),
        (lambda a, b: a * np.broadcast_to(b[:1], (4, 2, 3)), ["getitem", "multiply", "broadcast_to"]),
        (lambda a, b: a * np.broadcast_to(b[:1], (2, 3)), ["getitem", "multiply"]),
        (lambda a, b: np.exp(np.broadcast_to(b[0], (2, 3))), ["getitem", "exp", "broadcast_to"]),
        (lambda a, b: np.broadcast_to(b[None], (4, 2, 3)), ["broadcast_to"]),
        (lambda a, b: np.broadcast_to(np.broadcast_to(b, (1, 2, 3)), (4, 2, 3)), ["broadcast_to"]),
        (lambda a, b: a + 0 * b, ["multiply", "add"]),  # nan and infinity times zero are not zero
        (lambda a, b: (a - a) + b, ["subtract", "add"]),
        (lambda a, b: a[::-1] + b[:, 1:2], ["getitem", "getitem", "add"]),
        (lambda a, b: np.matmul(a.T, b), ["transpose", "matmul"]),
        (lambda a, b: ff.stop_gradient(ff.stop_gradient(a)) + b, ["stop_gradient", "add"]),
    ],
)
def test_what_is_left_of_arithmetic(f, left):
    assert simplified(f, x, y) == left
    program = program_of(f, x, y)
    if "stop_gradient" not in left:
        same_gradients(program, simplify(program), (x, y))


def test_a_large_constant_of_one_number_becomes_that_number():
    ones = np.full((2, 3), 0.5)
    program = program_of(lambda a: a * ones, x)
    simple = simplify(program)
    assert simple.equations[0].inputs[1].aval == ShapeDtypeStruct((), np.float64)
    same_answers(program, simple, [x])


BOOL, BYTE, INT, SINGLE, COMPLEX = x > 0, np.arange(6, dtype=np.int8), np.arange(6), np.float32([0.5, 2]), x + 1j * y


@pytest.mark.parametrize(
    ("f", "a", "left"),
    [
        (lambda a: a * 1, BOOL, ["convert_discrete"]),
        (lambda a: a * True, BOOL, []),
        (lambda a: a + 0, BOOL, ["convert_discrete"]),
        (lambda a: a / 1, INT, ["convert"]),
        (lambda a: a * 1.0, INT, ["convert"]),
        (lambda a: a * np.int64(1), BYTE, ["convert_discrete"]),
        (lambda a: a * 1, BYTE, []),
        (lambda a: np.sum(a, axis=()), BYTE, ["convert_discrete"]),
        (lambda a: np.arange(6) + -a, BYTE, ["negative", "add"]),  # -a wraps around before it is widened
        (lambda a: np.arange(6) + -a, INT, ["subtract"]),
        (lambda a: np.abs(-a), BYTE.astype(np.uint8), ["negative", "absolute"]),
        (lambda a: a * 1.0, SINGLE, []),
        (lambda a: a * np.float64(1.0), SINGLE, ["convert"]),
        (lambda a: a * np.ones((3, 2), np.float32), SINGLE, ["broadcast_to"]),
        (lambda a: a * np.ones((3, 2)), SINGLE, ["convert", "broadcast_to"]),
        (lambda a: np.power(a, np.float64(2)), SINGLE, ["convert", "square"]),
        (lambda a: a.astype(np.float64).astype(np.float32), SINGLE, []),
        (lambda a: a.astype(np.float16).astype(np.float32), SINGLE, ["convert", "convert"]),
        (lambda a: a.astype(np.float64).astype(np.int32), SINGLE, ["convert_discrete"]),
        (lambda a: a.astype(np.float64).astype(np.int64), INT, ["convert", "convert_discrete"]),
        (lambda a: a.astype(np.int64).astype(np.int8), BYTE, []),
        (lambda a: a.astype(np.float64).astype(np.int8), BYTE, []),
        (lambda a: a * 1 + 0, COMPLEX, []),
        (lambda a: a.T.T - 0, COMPLEX, []),
        (lambda a: np.log(np.exp(a)), COMPLEX, ["exp", "log"]),
        (lambda a: np.log(1 + a), COMPLEX, ["add", "log"]),
    ],
)
def test_dtypes_and_shapes_stay_what_they_were(f, a, left):
    assert simplified(f, a) == left


def test_a_weak_number_stays_weak_and_a_strong_one_strong():
    program = trace_program(
        lambda a, b: [np.multiply(a, 1.0) + b], [ShapeDtypeStruct((), np.float64, weak=True), b_aval]
    ).program
    simple = simplify(program)
    assert simple.out_avals == program.out_avals == [ShapeDtypeStruct((3,), np.float64)]
    assert names(simple) == ["convert", "add"]


b_aval = ShapeDtypeStruct((3,), np.float32)


def test_the_source_stays():
    program = program_of(lambda a, b: np.log(np.exp(-a) + 1) - -b, x, y)
    simple = simplify(program)
    lines = {e.source.line for e in program.equations}
    assert [e.prim.name for e in simple.equations] == ["negative", "softplus", "add"]
    assert {e.source.line for e in simple.equations} == lines
    assert simple.equations[1].source == program.equations[3].source


# -- all of them --------------------------------------------------------------------------------


def test_every_pass_returns_what_it_cannot_better():
    program = program_of(lambda a, b: np.sin(a) * b + 2.0, x, y)
    for one in (fold_constants, tidy, merge_common, apply_rules, drop_dead_code):
        assert one(program) is program
    assert simplify(program) is program
    simple = simplify(program_of(lambda a: a * 1, x))
    assert simplify(simple) is simple
    assert names(program) == ["sin", "multiply", "add"]


def test_gradients_are_tidied():
    def loss(a, b):
        return np.mean(np.square(a - b)) * 1.0

    program = program_of(ff.grad(loss), x, y)
    assert len(simplify(program).equations) < len(program.equations)
    same_answers(program, simplify(program), (x, y))


def test_a_long_program_comes_to_its_end():
    def f(a):
        for _ in range(100):
            e = np.exp(np.negative(-(a * 1.0)))
            a = np.sin(np.log(e / np.sum(e + 0, axis=0)))
        return a

    program = program_of(f, x)
    simple = simplify(program)
    same_answers(program, simple, [x])
    assert names(simple) == ["log_softmax", "sin"] * 100


def numbers_of(dtype):
    return np.array([[1, 0, 2], [3, 1, 5]]).astype(dtype) + np.asarray(
        0.25j if np.dtype(dtype).kind == "c" else 0, dtype
    )


# -- by Hypothesis ------------------------------------------------------------------------------

DTYPES = ["?", "i1", "u1", "i4", "i8", "f4", "f8", "c8", "c16"]
NUMBERS = [
    0, 1, -1, 2, 3, 0.0, -0.0, 1.0, -1.0, 0.5, True, 1j,
    np.float32(1), np.float64(1), np.int8(1), np.int64(0), np.int64(-1), np.uint8(1), np.True_,
    np.ones((2, 3)), np.zeros(3, np.float32), np.ones((2, 1), np.int8), -np.ones(()), np.full((2, 3), 2),
    np.arange(3), np.arange(3.0), np.array([[True, False, True]]),
]  # fmt: skip
UNARY = [
    np.negative, np.positive, np.square, np.abs, np.exp, np.log, np.log1p, np.sqrt, np.tanh, np.reciprocal,
    np.logical_not, ff.stop_gradient, ff.ops.logistic,
    lambda a: a.T.T, lambda a: a[:, None].reshape(a.shape), lambda a: a[...], lambda a: a.reshape(3, 2).reshape(2, 3),
    lambda a: np.sum(a, axis=()), lambda a: np.max(a, 1, keepdims=True), lambda a: np.sum(a, 0),
    lambda a: np.broadcast_to(a[:1], (2, 3)), lambda a: np.concatenate([a]), lambda a: a[::-1],
    lambda a: a.astype(np.float64), lambda a: a.astype(np.float32), lambda a: a.astype(np.int8),
    lambda a: a.astype(bool), lambda a: np.where(True, a, 0),
    lambda a: np.exp(a) / np.sum(np.exp(a), 1, keepdims=True),
]  # fmt: skip


def power(a, b):
    return np.power(np.multiply(a, 1), b)  # NumPy's own operator squares booleans in another dtype than its ufunc


BINARY = [np.add, np.subtract, np.multiply, np.divide, power, np.maximum, np.logaddexp, np.where]


@st.composite
def soups(draw):
    """Steps on arrays and constants of any dtype, made to meet every neutral element there is."""
    steps = []
    for k in range(draw(st.integers(1, 8))):
        earlier = st.integers(0, k + 1)
        if draw(st.booleans()):
            steps.append((draw(st.sampled_from(UNARY)), (draw(earlier),)))
        else:
            other = draw(st.one_of(earlier, st.sampled_from(NUMBERS).map(lambda v: (v,))))
            pair = [draw(earlier), other]
            steps.append((draw(st.sampled_from(BINARY)), tuple(draw(st.permutations(pair)))))
    return steps


def stirred(steps, *arrays):
    values = list(arrays)
    for operation, operands in steps:
        args = [k[0] if isinstance(k, tuple) else values[k] for k in operands]
        out = operation(args[0] != 0, *args) if operation is np.where else operation(*args)
        values.append(np.broadcast_to(out, (2, 3)))
    return values[-1] if len(values) < 4 else np.where(np.array([True, False, True]), values[-1], values[-2])


@given(soups(), st.sampled_from(DTYPES), st.sampled_from(DTYPES))
def test_any_program_of_any_dtypes_stays_the_same(steps, first, second):
    args = [numbers_of(first), numbers_of(second)]
    try:
        with np.errstate(all="ignore"):
            program = program_of(lambda *xs: stirred(steps, *xs), *args)
            expected = run(program, args)
    except (TypeError, ValueError, OverflowError, np.exceptions.ComplexWarning):  # NumPy has no such loop or number
        assume(False)
    assume(all(np.all(np.abs(np.asarray(v, complex)) < 1e6) for v in expected if np.asarray(v).dtype.kind in "fc"))
    simple = simplify(program)
    same_answers(program, simple, args, rtol=1e-6 if {"f4", "c8"} & {first, second} else 1e-9)
    again = Program(simple.inputs, simple.equations, simple.outputs)
    assert names(simplify(again)) == names(simple)


def test_what_a_loop_subtracts_leaves_it():
    def loss(b, xs):
        return np.sum(ff.scan(lambda h, a: (np.tanh(a + h - b), None), np.zeros(3), xs)[0])

    program = simplify(program_of(ff.grad(loss), x[0], y))
    forward, backward = [e for e in program.equations if e.prim.name == "scan"]
    assert forward.params["carry"] == backward.params["carry"] == 1  # the cotangent of h alone
    with ff.disable_jit():
        expected = ff.grad(loss)(x[0], y)
    np.testing.assert_allclose(run(program, (x[0], y))[0], expected)


@given(programs(), SEEDS)
def test_derivatives_of_any_program_stay_the_same(steps, seed):
    a, b = normal(seed, (3, 3)), normal(seed + 1, (3, 3))
    f = partial(random_program, steps)
    program = program_of(f, a, b)
    simple = simplify(program)
    same_answers(program, simple, (a, b), rtol=1e-11)
    same_gradients(program, simple, (a, b), rtol=1e-9)
    expected = ff.grad(f, argnums=(0, 1))(a, b)
    for jitted in (ff.jit(ff.grad(f, argnums=(0, 1))), ff.grad(ff.jit(f), argnums=(0, 1))):
        np.testing.assert_allclose(jitted(a, b), expected, rtol=1e-9, atol=1e-10)
