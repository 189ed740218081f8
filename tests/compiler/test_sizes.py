"""Symbolic sizes: which sizes follow a loop's length, that they are right at every other length, and which programs
share a key."""

import copy
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from size_laws import generalises, obeys, right_with_all_free, symbols_of

import fnflare as ff
from benchmarks.sizes import BILSTM
from fnflare import nn, optim
from fnflare.compiler import reuse
from fnflare.compiler.generic_key import generic_key
from fnflare.compiler.sizes import _Walk, symbolic_shapes
from fnflare.core import Primitive
from fnflare.program.ir import Equation, Program, Var
from fnflare.testing import programs


@pytest.fixture(autouse=True)
def rules_are_right(monkeypatch):
    """What would pin a size that a rule gets wrong, raises."""
    checked = _Walk._checked

    def strict(self, v, shape):
        assert self.dims.values(shape) == v.aval.shape
        return checked(self, v, shape)

    monkeypatch.setattr(_Walk, "_checked", strict)


LENGTHS = (23, 24, 100, 5, 2)


def f32(*shape):
    return ff.ShapeDtypeStruct(shape, np.float32)


def i64(*shape):
    return ff.ShapeDtypeStruct(shape, np.int64)


def program_of(f, *args):
    return ff.make_program(f, simplify=True)(*args)


def key_of(program):
    return generic_key(program, symbolic_shapes(program))


def running_sum(xs):
    return ff.scan(lambda c, x: (c + np.sin(x), 2 * c), np.zeros(xs.shape[1:], xs.dtype), xs)


# -- what is written by hand --------------------------------------------------------------------


def one(f, *shape):
    """A function of arrays whose first axis is time, as programs by length."""
    return lambda n: program_of(f, f32(n, *shape))


def split_off(xs):
    rows, row = np.split(np.concatenate([running_sum(xs)[1], xs[:1]]), [len(xs)])
    return rows * xs + row


HAND_WRITTEN = {
    "loop": (one(running_sum, 3), {"T0"}),
    "reverse": (one(lambda xs: ff.scan(lambda c, x: (c + x * x, c), np.float32(0), xs, reverse=True)), {"T0"}),
    "all but the first": (one(lambda xs: running_sum(xs[1:]), 3), {"T0", "T0 - 1"}),
    "all but the last": (one(lambda xs: running_sum(xs[:-1])[1] - xs[1:], 3), {"T0", "T0 - 1"}),
    "backwards": (one(lambda xs: xs[::-1] + running_sum(xs)[1], 3), {"T0"}),
    "last": (one(lambda xs: xs[-1] + running_sum(xs)[0], 3), {"T0"}),
    "last by number": (one(lambda xs: xs[len(xs) - 1 :] + running_sum(xs)[1][len(xs) - 1], 3), {"T0"}),
    "rows split off": (one(split_off, 3), {"T0", "T0 + 1"}),
    "merged": (one(lambda xs: np.reshape(running_sum(xs)[1], (-1, 5)) @ np.ones((5, 2), np.float32), 4, 5),
               {"T0", "T0 * 4"}),
    "merged and split": (one(lambda xs: np.reshape(np.tanh(np.reshape(running_sum(xs)[1], (-1,))), xs.shape), 4, 5),
                         {"T0", "T0 * 20"}),
    "padded": (one(lambda xs: np.concatenate([np.zeros((3, 2), np.float32), running_sum(xs)[1]]), 2), {"T0", "T0 + 3"}),
    "doubled": (one(lambda xs: running_sum(np.concatenate([xs, xs])), 2), {"T0", "T0 * 2"}),
    "cut again": (one(lambda xs: np.concatenate([xs, 2 * running_sum(xs)[1]])[xs.shape[0]:] * xs, 2), {"T0", "T0 * 2"}),
    "square": (one(lambda xs: running_sum(xs)[1] @ xs.T, 2), {"T0"}),
    "counted": (one(lambda xs: running_sum(xs)[1] * np.arange(len(xs))[:, None], 2), {"T0"}),
    "counted down": (one(lambda xs: running_sum(xs)[1] * np.arange(len(xs))[::-1, None], 2), {"T0"}),
    "softmax over time": (one(lambda xs: np.sum(ff.ops.softmax(running_sum(xs)[1], axis=0) * xs, axis=0), 2), {"T0"}),
    "best": (one(lambda xs: np.max(np.cumsum(running_sum(xs)[1], axis=0), axis=0), 2), {"T0"}),
}  # fmt: skip


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_sizes_of_programs_written_by_hand(name):
    make, expected = HAND_WRITTEN[name]
    assert symbols_of(generalises(make, (23, 24, 7, 4, 3))) == expected


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_sizes_of_their_gradients(name):
    make, _ = HAND_WRITTEN[name]

    def gradient(n):
        program = make(n)
        inputs = [f32(*v.aval.shape) for v in program.inputs]

        def loss(*args):
            from fnflare.program import evaluate

            return sum(np.sum(np.sin(y)) for y in evaluate(program, args))

        return program_of(ff.grad(loss), *inputs)

    generalises(gradient, (23, 24, 7, 4, 3))


def test_two_loops_of_different_lengths_have_two_symbols():
    def f(xs, ys):
        return running_sum(xs)[0] + running_sum(ys)[0]

    sizes = symbolic_shapes(program_of(f, f32(23, 3), f32(9, 3)))
    assert [(str(s), k, axis) for s, k, axis in sizes.sizes] == [("T0", 0, 0), ("T1", 1, 0)]
    generalises(lambda n: program_of(f, f32(n, 3), f32(30 - n, 3)), (5, 7, 15))


def test_two_loops_of_one_length_by_chance_are_still_two():
    def f(xs, ys):
        return running_sum(xs)[0] + running_sum(ys)[0]

    assert len(symbolic_shapes(program_of(f, f32(23, 3), f32(23, 3))).sizes) == 2


def test_a_size_that_equals_the_length_by_chance_is_a_number():
    program = program_of(running_sum, f32(23, 23))
    sizes = symbolic_shapes(program)
    assert str(sizes.shape(program.inputs[0])) == "(T0, 23)"
    assert key_of(program_of(running_sum, f32(23, 23))) == key_of(program_of(running_sum, f32(9, 23)))
    assert key_of(program_of(running_sum, f32(23, 23))) != key_of(program_of(running_sum, f32(23, 9)))


def test_a_length_of_one_is_a_number():
    assert symbolic_shapes(program_of(running_sum, f32(1, 3))).sizes == ()
    # One step fewer than two is one.
    assert symbolic_shapes(program_of(lambda xs: running_sum(xs[1:]), f32(2, 3))).sizes == ()


def test_a_number_of_steps_that_no_input_has_is_a_number():
    def power(x):
        return ff.fori_loop(0, 10, lambda _, c: c * x, np.float32(1))

    assert symbolic_shapes(program_of(power, f32())).sizes == ()


def test_every_other_element_pins_the_size():
    sizes = symbolic_shapes(program_of(lambda xs: running_sum(xs)[1][::2], f32(23, 3)))
    assert sizes.sizes == ()


@pytest.mark.parametrize("table", [np.sin(np.arange(69)).reshape(23, 3), np.tri(23, 3, dtype=bool)])
def test_an_array_that_is_constant_pins_its_sizes(table):
    assert symbolic_shapes(program_of(lambda xs: running_sum(xs)[1] * table, f32(23, 3))).sizes == ()


def test_a_loop_in_a_loop():
    def f(xs):
        return ff.scan(lambda c, x: (c, running_sum(xs * x)[0]), np.float32(0), xs)

    # Up to 16 steps the products of all steps with all others are made ahead: that is another program.
    for lengths in ((23, 24, 31), (5, 7, 12)):
        assert symbols_of(generalises(one(f), lengths)) == {"T0"}


# -- layers -------------------------------------------------------------------------------------


def train_step(model, *batch, optimizer=optim.adadelta):
    """The program of a whole train step of a classifier."""
    rule = optimizer()
    shape = batch[0].values.shape if isinstance(batch[0], nn.Padded) else batch[0].shape
    _, params = model.init(ff.random.key(1), (-1, *[-1] * (len(shape) - 2), *shape[-1:]))

    def loss(params, key, x, y):
        logits = model.apply(params, x, key=key, train=True)
        return np.mean(nn.softmax_cross_entropy_with_integer_labels(logits, y))

    def step(params, state, key, count, x, y):
        grads = ff.grad(loss)(params, ff.random.fold_in(key, count), x, y)
        updates, state = rule.update(grads, state, params)
        return optim.apply_updates(params, updates), state

    return program_of(step, params, rule.init(params), ff.random.key(0), 0, *batch)


def bilstm(hidden, classes, dropout=0.5):
    return nn.serial(
        lstm=nn.LSTM(hidden, bidirectional=True, last=True), drop=nn.Dropout(dropout), head=nn.Dense(classes)
    )


def test_the_train_step_of_a_bidirectional_lstm_serves_every_sentence():
    model = bilstm(BILSTM.hidden, BILSTM.classes)
    sizes = generalises(lambda n: train_step(model, f32(1, n, BILSTM.features), i64(1)), (230, 17, 999, 100, 2))
    assert symbols_of(sizes) == {"T0"}
    assert len(sizes.sizes) == 1


def test_the_train_step_of_a_bidirectional_lstm_serves_every_padded_batch():
    model = bilstm(8, 2)

    def make(n):
        return train_step(model, nn.Padded(f32(6, n, 5), i64(6)), i64(6))

    assert symbols_of(generalises(make, LENGTHS)) == {"T0", "T0 * 6"}


CELLS = {
    "rnn": lambda: nn.RNN(4),
    "gru": lambda: nn.GRU(4),
    "lstm": lambda: nn.LSTM(4),
    "reversed": lambda: nn.LSTM(4, reverse=True),
    "stacked": lambda: nn.serial(nn.LSTM(4), nn.GRU(3, bidirectional=True), nn.LSTM(5)),
    "dropout between": lambda: nn.serial(nn.LSTM(4), nn.Dropout(0.5), nn.LSTM(3)),
    "normalised": lambda: nn.serial(nn.LSTM(4), nn.LayerNorm(), nn.GRU(3)),
    "projected": lambda: nn.serial(nn.Dense(6), nn.Relu, nn.GRU(3)),
}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_train_steps_of_recurrent_layers(name, padded):
    model = nn.serial(CELLS[name](), nn.GlobalMaxPool, nn.Dense(2))

    def make(n):
        x = f32(3, n, 5)
        return train_step(model, nn.Padded(x, i64(3)) if padded else x, i64(3), optimizer=lambda: optim.adam(1e-3))

    # Two masks of a padded batch are one up to 32 steps, where the passes compare constants element by element.
    sizes = generalises(make, (23, 24, 5, 32, 2) if padded else LENGTHS)
    assert len(sizes.sizes) == 1


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_of_all_steps_of_a_loop(groups):
    layer = nn.serial(nn.Conv(4, 3, groups=groups), nn.ConvTranspose(4, 2, strides=2, groups=groups))
    _, params = layer.init(ff.random.key(1), (-1, 5, 4))

    def loss(params, frames):
        features = np.reshape(layer.apply(params, frames), (len(frames), -1))
        return np.sum(ff.scan(lambda c, x: (c + x, c * x), np.zeros(40, np.float32), features)[1])

    def make(n):
        return program_of(ff.grad(loss, argnums=(0, 1)), params, f32(n, 5, 4))

    assert symbols_of(generalises(make, LENGTHS)) == {"T0"}


def test_a_batch_of_gradients_by_vmap():
    model = bilstm(4, 2, dropout=0.0)
    _, params = model.init(ff.random.key(1), (-1, -1, 5))

    def loss(params, x, y):
        return np.mean(nn.softmax_cross_entropy_with_integer_labels(model.apply(params, x), y))

    def make(n):
        return program_of(ff.vmap(ff.grad(loss), in_axes=(None, 0, 0)), params, f32(6, 1, n, 5), i64(6, 1))

    assert len(generalises(make, LENGTHS).sizes) == 1


def test_forward_mode():
    def make(n):
        return program_of(lambda x, t: ff.jvp(running_sum, (x,), (t,)), f32(n, 3), f32(n, 3))

    assert symbols_of(generalises(make, LENGTHS)) == {"T0"}


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.serial(nn.Dense(16), nn.Relu, nn.Dropout(0.5), nn.Dense(4)), (8, 23)),
        (nn.serial(nn.Conv(4, (3,), padding="VALID"), nn.Relu, nn.GlobalMaxPool, nn.Dense(2)), (8, 23, 5)),
        (nn.serial(nn.DepthwiseConv(3), nn.ConvTranspose(4, 2, groups=2), nn.GlobalMaxPool, nn.Dense(2)), (8, 23, 6)),
        (nn.serial(nn.LayerNorm(), nn.MultiHeadAttention(2), nn.GlobalMaxPool, nn.Dense(2)), (8, 23, 6)),
    ],
    ids=["mlp", "conv", "groups", "attention"],
)
def test_without_a_loop_all_sizes_are_numbers(model, shape):
    program = train_step(model, f32(*shape), i64(shape[0]))
    sizes = symbolic_shapes(program)
    assert sizes.sizes == ()
    assert symbols_of(sizes) == set()
    right_with_all_free(program)
    obeys([(program, sizes, None)])
    assert key_of(program) != key_of(train_step(model, f32(shape[0] + 1, *shape[1:]), i64(shape[0] + 1)))


# -- programs in programs -----------------------------------------------------------------------


def test_branches_and_loops_with_conditions():
    def f(xs, k):
        ys = ff.cond(k > 0, lambda v: running_sum(v)[1], lambda v: v * 2, xs)
        return ff.while_loop(lambda s: np.sum(s) < 100, lambda s: s + ys, xs)

    assert symbols_of(generalises(lambda n: program_of(f, f32(n, 3), i64()), LENGTHS)) == {"T0"}


def test_custom_rules_and_checkpoints():
    @ff.custom_vjp
    def clipped(x):
        return np.tanh(x)

    clipped.defvjp(lambda x: (np.tanh(x), x), lambda x, ct: (ct * x,))

    def f(xs):
        return np.sum(ff.checkpoint(lambda v: running_sum(clipped(v))[1])(xs))

    for g in (f, ff.grad(f)):
        assert symbols_of(generalises(lambda n, g=g: program_of(g, f32(n, 3)), LENGTHS)) == {"T0"}


def test_attention_in_the_body_of_a_loop():
    def f(memory, xs):
        def step(c, x):
            weights = ff.ops.softmax(memory @ (c + x))
            return weights @ memory, weights

        return ff.scan(step, np.zeros(3, np.float32), xs)

    # The memory's length is a loop's where an encoder makes it.
    def model(source, target):
        return f(running_sum(source)[1], target)

    sizes = generalises(lambda n: program_of(model, f32(n, 3), f32(n + 4, 3)), LENGTHS)
    assert symbols_of(sizes) == {"T0", "T1"}
    assert symbols_of(generalises(lambda n: program_of(f, f32(6, 3), f32(n, 3)), LENGTHS)) == {"T0"}


@pytest.mark.parametrize(
    ("constant", "expected"),
    [
        (np.arange(23), (0, "0", 1)),
        (np.arange(23)[:, None], (0, "0", 1)),
        (np.arange(23, dtype=np.uint8)[None] * 2 + 5, (1, "5", 2)),
        (np.arange(23)[::-1], (0, "T0 - 1", -1)),
        (3 * (np.arange(23) - 22), (0, "-T0 * 3 + 3", 3)),
        (np.arange(1, 24)[::-1], (0, "23", -1)),
        (np.broadcast_to(np.arange(23)[:, None], (23, 23)), (0, "0", 1)),
        (np.arange(23) ** 2, None),
        (np.arange(23.0), None),
        (np.array([*range(22), 20]), None),
        (np.add.outer(np.arange(23), np.arange(23)), None),
        (np.array([2**63 + 1, 5] * 11 + [7], np.uint64), None),
        (np.iinfo(np.uint64).max - np.arange(23, dtype=np.uint64), None),
    ],
)
def test_constants_that_count(constant, expected):
    shape = (23, 1, 1)[: constant.ndim] if constant.shape[0] == 23 else (1, 23)

    def f(xs):
        ys = running_sum(np.reshape(xs, -1))[1]
        return np.reshape(ys, shape) * constant

    program = program_of(f, f32(23))
    sizes = symbolic_shapes(program)
    found = [(i.axis, str(i.start), i.step) for i in sizes.iotas.values()]
    assert found == ([] if expected is None else [expected])
    obeys([(program, sizes, None)])


# -- keys ---------------------------------------------------------------------------------------


def test_keys_tell_programs_apart():
    def weighted(factor):
        return program_of(lambda xs: running_sum(factor * xs), f32(23, 3))

    keys = [
        key_of(weighted(0.5)),
        key_of(weighted(0.25)),
        key_of(weighted(np.float32(0.5))),
        key_of(weighted(np.float64(0.5))),
        key_of(weighted(np.arange(3))),
        key_of(weighted(np.array([0, 1, 4]))),
        key_of(program_of(lambda xs: running_sum(0.5 * xs)[0], f32(23, 3))),
        key_of(program_of(lambda xs: running_sum(0.5 * xs)[0], ff.ShapeDtypeStruct((23, 3), np.float64))),
        key_of(program_of(lambda xs: running_sum(xs * 0.5)[1][1:], f32(23, 3))),
        key_of(program_of(lambda xs: running_sum(xs * 0.5)[1][2:], f32(23, 3))),
    ]
    assert len(set(keys)) == len(keys)
    assert None not in keys


def test_keys_do_not_depend_on_names_and_lines():
    def first(xs):
        return running_sum(xs)

    def second(others):
        unused = others + 1  # noqa: F841

        return running_sum(others)

    assert key_of(program_of(first, f32(23, 3))) == key_of(program_of(second, f32(23, 3)))


def test_the_elements_of_constants_can_be_left_out_of_keys():
    def program(seed):
        table = np.random.default_rng(seed).standard_normal((50, 3)).astype(np.float32)
        words = nn.FixedEmbedding(table)
        return program_of(lambda tokens: running_sum(words.apply(None, tokens)), i64(23))

    one, other = program(1), program(2)
    assert key_of(one) != key_of(other)
    without = [generic_key(p, symbolic_shapes(p), contents=False) for p in (one, other)]
    assert without[0] == without[1]


def program_with(what):
    """A program of one operation that has a parameter."""
    prim = Primitive("some", lambda a, what: a, lambda a, what: a)
    a, out = Var(f32(23)), Var(f32(23))
    return Program([a], [Equation(prim, (a,), {"what": what}, (out,), None)], [out])


def test_keys_tell_parameters_apart():
    values = [
        *(1, 1.0, True, 1j, "1", b"1", None, ..., 0.0, -0.0, float("nan")),
        *((1,), (1, 2), ((1,), 2), (1, (2,)), (), {}, {"a": 1}, {"a": 2}, {"b": 1}, {1, 2}, frozenset({3})),
        *(slice(1), slice(0, 1), slice(0, 1, 2), np.add, np.multiply, np.int32, np.dtype(">i4"), np.dtype("f4")),
        *(
            np.float32(1),
            np.float64(1),
            np.array([1.0]),
            np.array([2.0]),
            np.array([[1.0]]),
            np.arange(50),
            -np.arange(50),
        ),
        *(f32(1), f32(1, 2), i64(1), ff.ShapeDtypeStruct((), float), ff.ShapeDtypeStruct((), float, weak=True)),
    ]
    keys = [key_of(program_with(x)) for x in values]
    assert None not in keys
    assert len(set(keys)) == len(keys)
    assert keys == [key_of(program_with(copy.deepcopy(x))) for x in values]
    assert key_of(program_with({"a": 1, "b": 2})) == key_of(program_with({"b": 2, "a": 1}))


@pytest.mark.parametrize("what", [object(), {"a": object()}, np.array([object()]), len, int])
def test_what_no_other_process_can_tell_has_no_key(what):
    program = program_with(what)
    assert key_of(program) is None
    assert reuse.key(program, symbolic_shapes(program)) is None


def test_keys_are_the_same_in_another_process():
    text = """
import numpy as np
import fnflare as ff
from fnflare.compiler.generic_key import generic_key
from fnflare.compiler.sizes import _Walk, symbolic_shapes

def f(xs, w):
    c, ys = ff.scan(lambda c, x: (np.tanh(x @ w + c), c), np.zeros(4, np.float32), xs)
    return np.sum(ys[1:] * np.arange(ys.shape[1])) + ff.random.normal(ff.random.key(0), (3,))[0]

program = ff.make_program(ff.grad(f, (0, 1)), simplify=True)(np.ones((9, 3), np.float32), np.ones((3, 4), np.float32))
key = generic_key(program, symbolic_shapes(program))
"""
    space = {}
    exec(text, space)
    done = subprocess.run(
        [sys.executable, "-c", f"{text}\nprint(key)"],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == space["key"]


# -- random programs ----------------------------------------------------------------------------


def key_from(v):
    """A key that is not known when the program is made."""
    return ff.random.fold_in(ff.random.key(0), np.argmax(v[:, 0]))


STEPS = {
    "tanh": np.tanh,
    "scan": lambda v: running_sum(v)[1],
    "reverse": lambda v: ff.scan(lambda c, x: (c * 0.5 + x, c), np.zeros(v.shape[1:], v.dtype), v, reverse=True)[1],
    "flip": lambda v: v[::-1],
    "tail": lambda v: v[1:],
    "head": lambda v: v[:-1],
    "middle": lambda v: v[1:-1],
    "pad": lambda v: np.concatenate([v, np.zeros((2, *v.shape[1:]), v.dtype)]),
    "double": lambda v: np.concatenate([v, v * 2]),
    "stack": lambda v: np.max(np.stack([v, -v], axis=1), axis=1),
    "flat": lambda v: np.reshape(np.sin(np.reshape(v, -1)), v.shape),
    "mean": lambda v: v - np.max(v, axis=0, keepdims=True),
    "gram": lambda v: (v @ v.T) @ v,
    "count": lambda v: v * np.arange(v.shape[0])[:, None],
    "mask": lambda v: np.where(v[:, :1] < 0.3, v, np.zeros_like(v)),
    "roll": lambda v: np.concatenate([v[1:], v[:1]]),
    "set": lambda v: ff.at(v)[0].set(np.zeros(v.shape[1:], v.dtype)),
    "gather": lambda v: v[np.argsort(v[:, 0])],
    "softmax": lambda v: ff.ops.softmax(v, axis=0),
    "tile": lambda v: np.tile(v, (2, 1)),
    "einsum": lambda v: np.einsum("ti,tj->tj", v, v),
    "outer": lambda v: np.max(v[:, None, :] * v[None, :, :], axis=1),
    "transpose": lambda v: np.cumsum(v.T, axis=1).T,
    "vmap": lambda v: ff.vmap(lambda row: row / (1 + row @ row))(v),
    "choose": lambda v: ff.cond(v[0, 0] > 0, np.sin, lambda u: running_sum(u)[1], v),
    "again": lambda v: ff.fori_loop(0, 3, lambda _, u: np.tanh(u), v),
    "dropout": lambda v: nn.Dropout(0.5).apply(None, v, key=key_from(v), train=True),
    "noise": lambda v: v + ff.random.normal(key_from(v), v.shape, np.float64),
    "half": lambda v: np.split(np.concatenate([v, -v]), 2)[1],
}


@given(
    st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=6), st.booleans(), st.booleans(), st.integers(2, 4)
)
def test_random_recurrent_programs(names, derive, batch, width):
    def f(xs):
        for name in names:
            xs = STEPS[name](xs)
        return running_sum(xs)[1]

    def run(xs):
        g = f
        if derive:
            g = ff.grad(lambda v: np.sum(np.sin(f(v))))
        return ff.vmap(g)(xs) if batch else g(xs)

    # Long enough for what is cut off; as many examples as there are steps once, by chance.
    make = (lambda n: program_of(run, f32(17, n, width))) if batch else (lambda n: program_of(run, f32(n, width)))
    sizes = generalises(make, (17, 20, 23, 31))
    assert len(sizes.sizes) == 1


@given(programs(reverse=False), st.sampled_from(["value", "derivative", "batch"]))
def test_any_program_has_sizes_and_a_key(program, kind):
    f, args = program.f, program.args
    if kind == "derivative":
        f, args = partial(ff.jvp, f), (args, tuple([np.zeros_like(x) for x in args]))
    if kind == "batch":
        f, args = ff.vmap(f), tuple([np.stack([x, x]) for x in args])
    made = program_of(f, *args)
    sizes = symbolic_shapes(made)
    assert generic_key(made, sizes) is not None
    obeys([(made, sizes, None)])
    right_with_all_free(made)


ARRAYS = hnp.array_shapes(min_dims=1, max_dims=4, min_side=2, max_side=5)


@given(st.data(), ARRAYS)
def test_indices_of_symbolic_sizes(data, shape):
    several = hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(min_dims=0, max_dims=2, max_side=5))
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True) | several)
    right_with_all_free(program_of(lambda x: x[index] * 1, f32(*shape)))


@given(st.data(), ARRAYS)
def test_reshapes_of_symbolic_sizes(data, shape):
    factors = [p for n in shape for p in ((2, 2) if n == 4 else (n,))]
    others = data.draw(st.permutations(factors))
    while len(others) > 1 and data.draw(st.booleans()):
        k = data.draw(st.integers(0, len(others) - 2))
        others[k : k + 2] = [others[k] * others[k + 1]]
    program = program_of(lambda x: np.reshape(np.reshape(np.reshape(x, others), -1), shape) * 1, f32(*shape))
    right_with_all_free(program)
