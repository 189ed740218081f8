"""Recurrent layers as loops: a cell the library has never seen beside a loop in Python, padded batches under every
transform, and what stays in the loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nn_laws import alone, check_derivatives, made, normal, ragged

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.core import aval_of
from fnflare.core.abstract import AbstractTrace
from fnflare.errors import ShapeError, TreeError
from fnflare.program.tracing import trace_program


def close(a, b, tolerance=1e-10):
    assert tree.structure(a) == tree.structure(b)
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        assert (np.shape(x), np.asarray(x).dtype) == (np.shape(y), np.asarray(y).dtype)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


def standardised(x, scale):
    x = x - np.mean(x, axis=-1, keepdims=True)
    return scale * x / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + 1e-5)


def peephole_cell(units):
    """An LSTM with layer normalisation (Ba et al. 2016), peepholes (Gers & Schmidhuber 2000), and outputs that are no
    part of the carry."""

    def init(key, features):
        keys = random.split(key, 4)
        return 2 * units, {
            "W": 0.5 * random.normal(keys[0], (features, 4 * units)),
            "U": 0.5 * random.normal(keys[1], (units, 4 * units)),
            "V": random.normal(keys[2], (units, 2 * units)),
            "peephole": 0.3 * random.normal(keys[3], (3, units)),
            "b": np.full(4 * units, 0.1, np.float32),
            "scale": np.full((3, 1), 0.9, np.float32),
        }

    def apply(params, carry, x):
        h, c = carry["h"], carry["c"]
        gates = standardised(x @ params["W"], params["scale"][0]) + params["b"]
        gates = gates + standardised(h @ params["U"], params["scale"][1])
        i, f, g, o = np.split(gates, 4, axis=-1)
        w_i, w_f, w_o = params["peephole"]
        c = nn.sigmoid(f + w_f * c) * c + nn.sigmoid(i + w_i * c) * np.tanh(g)
        h = nn.sigmoid(o + w_o * c) * np.tanh(standardised(c, params["scale"][2]))
        return {"h": h, "c": c}, np.tanh(h @ params["V"])

    def initial(params, batch):
        zeros = np.zeros((batch, units), params["U"].dtype)
        return {"h": zeros, "c": zeros}

    return nn.Cell(init, apply, initial)


def by_python(cell, params, x, reverse=False):
    """Outputs at all steps, and the final carry, by a loop that knows nothing of scan."""
    carry, outputs = cell.initial(params, x.shape[0]), [None] * x.shape[1]
    for t in reversed(range(x.shape[1])) if reverse else range(x.shape[1]):
        carry, outputs[t] = cell.apply(params, carry, x[:, t])
    return np.stack(outputs, axis=1), carry


class Traced:
    """A function that notes the shapes of its last argument whenever it runs."""

    def __init__(self, f):
        self.f, self.shapes = f, []

    def __call__(self, *args):
        self.shapes.append(args[-1].shape)
        return self.f(*args)

    def __hash__(self):  # what has a hash of its own is taken to stay as it is
        return id(self)


CELLS = {"RNN": nn.RNNCell, "LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "peephole": peephole_cell}
LAYERS = {
    "RNN": nn.RNN,
    "relu": lambda units, **settings_: nn.RNN(units, activation=nn.relu, **settings_),
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "peephole": lambda units, **settings_: nn.Recurrent(peephole_cell(units), **settings_),
}


def total(outputs):
    return sum(np.sum(np.sin(y)) for y in tree.leaves(outputs) if y.dtype.kind == "f")


def derivatives(f, *args):
    """The gradient of the total of what `f` gives, and its Hessian times a direction, forward over reverse."""
    gradient = ff.grad(lambda *args: total(f(*args)), argnums=tuple(range(len(args))))
    return ff.jvp(gradient, args, tree.map(np.cos, args))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_a_layer_is_the_loop_in_python(name, reverse):
    cell, x = CELLS[name](3), normal(2, 4, 5)
    layer = nn.Recurrent(cell, reverse=reverse)
    params = made(layer, (-1, -1, 5))[1]

    def scanned(p, x):
        return layer.apply(p, x, return_state=True)

    def looped(p, x):
        return by_python(cell, p, x, reverse)

    close(scanned(params, x), looped(params, x))
    close(ff.jit(scanned)(params, x), looped(params, x))
    last = nn.Recurrent(cell, reverse=reverse, last=True)
    close(last.apply(params, x), looped(params, x)[0][:, 0 if reverse else -1])
    for run in (scanned, lambda p, x: last.apply(p, x, return_state=True)):
        with ff.disable_jit():
            wanted = derivatives(run, params, x)
        close(derivatives(run, params, x), wanted, 1e-9)


# -- padded batches -------------------------------------------------------------------------------

FORMS = [{}, {"reverse": True}, {"bidirectional": True}]
forms = st.builds(lambda form, last: {**form, "last": last}, st.sampled_from(FORMS), st.booleans())
lengths_of_batches = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def each_alone(layer, params, batch, settings_):
    """What the layer gives for each sequence of a batch, each as a batch of its own, and zeros or the first carry
    where there is no word; padded and stacked as the layer does it for all."""
    rows, states = [], []
    for i, n in enumerate(batch.lengths):
        one = alone(batch, i) if n else batch.values[i : i + 1, :1]
        y, state = layer.apply(params, one, return_state=True)
        if n == 0:
            y, state = np.zeros_like(y), tree.map(np.zeros_like, state)
        if not settings_["last"]:
            y = y[:, :n]
            y = np.concatenate([y, np.zeros((1, batch.values.shape[1] - n, y.shape[2]))], axis=1)
        rows.append(y)
        states.append(state)
    return np.concatenate(rows), tree.map(lambda *each: np.concatenate(each), *states)


@given(st.sampled_from(sorted(LAYERS)), forms, lengths_of_batches, st.sampled_from(["known", "arguments"]))
def test_a_padded_batch_gives_what_each_sequence_gives_alone(name, settings_, lengths, kind):
    layer = LAYERS[name](3, **settings_)
    params = made(layer, (-1, -1, 2))[1]
    batch = ragged(len(lengths), 5, 2, lengths)

    def together(p, values, lengths):
        y, state = layer.apply(p, nn.Padded(values, lengths), return_state=True)
        return (y if settings_["last"] else y.values), state

    def outputs_alone(p, values, lengths):
        y = layer.apply(p, nn.Padded(values, lengths))
        return y if settings_["last"] else y.values

    def separately(p, values):
        return each_alone(layer, p, nn.Padded(values, batch.lengths), settings_)

    compiled = ff.jit(together) if kind == "arguments" else together
    close(compiled(params, batch.values, batch.lengths), separately(params, batch.values), 1e-11)
    for f, wanted in ((together, separately), (outputs_alone, lambda p, v: separately(p, v)[0])):
        gradient = ff.grad(lambda p, v, n: total(f(p, v, n)), argnums=(0, 1))  # noqa: B023
        gradient = ff.jit(gradient) if kind == "arguments" else gradient
        close(
            gradient(params, batch.values, batch.lengths),
            ff.grad(lambda p, v: total(wanted(p, v)), argnums=(0, 1))(params, batch.values),  # noqa: B023
        )


@settings(max_examples=10)
@given(
    st.sampled_from(sorted(LAYERS)),
    forms,
    st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=2), min_size=2, max_size=3),
)
def test_padded_batches_go_through_vmap(name, settings_, lengths):
    layer = LAYERS[name](3, **settings_)
    params = made(layer, (-1, -1, 2))[1]
    lengths = np.array(lengths)
    values = normal(len(lengths), 2, 4, 2)

    def run(p, values, lengths):
        return layer.apply(p, nn.Padded(values, lengths), return_state=True)

    def gradient(p, values, lengths):
        return ff.grad(lambda p: total(run(p, values, lengths)))(p)

    for f in (run, gradient):
        one_by_one = [f(params, v, n) for v, n in zip(values, lengths, strict=True)]
        wanted = tree.map(lambda *each: np.stack(each), *one_by_one)
        close(ff.vmap(f, in_axes=(None, 0, 0))(params, values, lengths), wanted)
        close(ff.jit(ff.vmap(f, in_axes=(None, 0, 0)))(params, values, lengths), wanted)


@pytest.mark.parametrize("settings_", [*FORMS, {"last": True}])
@pytest.mark.parametrize("name", LAYERS)
def test_second_derivatives_of_padded_batches(name, settings_):
    layer, batch = LAYERS[name](3, **settings_), ragged(3, 4, 2, [2, 4, 1])
    params = made(layer, (-1, -1, 2))[1]

    def run(p, values):
        return layer.apply(p, nn.Padded(values, batch.lengths))

    with ff.disable_jit():
        wanted = derivatives(run, params, batch.values)
    close(derivatives(run, params, batch.values), wanted, 1e-9)


@pytest.mark.parametrize("name", ["LSTM", "peephole"])
def test_an_ensemble_of_parameters_reads_one_batch(name):
    layer, batch = LAYERS[name](3, bidirectional=True, last=True), ragged(3, 4, 2, [2, 4, 1])
    each = [made(layer, (-1, -1, 2), seed)[1] for seed in range(3)]
    together = tree.map(lambda *ps: np.stack(ps), *each)
    close(
        ff.vmap(layer.apply, in_axes=(0, None))(together, batch), np.stack([layer.apply(p, batch) for p in each]), 1e-12
    )


def test_the_padding_does_not_overflow():
    # The state of the short sequence would double for 2,000 steps.
    layer = nn.RNN(2, activation=nn.relu)
    params = {"W": np.ones((1, 2)), "U": 2.0 * np.eye(2), "b": np.zeros(2)}
    values = np.zeros((2, 2000, 1))
    values[0, 0] = 1.0
    loss = ff.value_and_grad(lambda p: np.sum(layer.apply(p, nn.Padded(values, np.array([3, 2000]))).values))
    value, gradient = loss(params)
    assert value == 2 * (1 + 2 + 4)
    assert all(np.all(np.isfinite(g)) for g in tree.leaves(gradient))


def test_lengths_of_zero_for_all():
    layer, batch = nn.LSTM(3, bidirectional=True), ragged(2, 4, 2, [0, 0])
    params = made(layer, (-1, -1, 2))[1]
    y, state = layer.apply(params, batch, return_state=True)
    assert y.values.shape == (2, 4, 6)
    assert not np.any(y.values) and not any(np.any(s) for s in tree.leaves(state))


# -- what is in the loop ----------------------------------------------------------------------------


def loops(f, *args):
    """The programs of the scans of a function, and the names of what stands around them."""
    leaves, structure = tree.flatten(args)
    traced = trace_program(lambda *xs: tree.leaves(f(*tree.unflatten(structure, xs))), [aval_of(x) for x in leaves])
    bodies = [e.params["program"] for e in traced.program.equations if e.prim.name == "scan"]
    return bodies, [e.prim.name for e in traced.program.equations]


def names(program):
    return [e.prim.name for e in program.equations]


@pytest.mark.parametrize("settings_", [{}, {"last": True}, {"bidirectional": True}])
@pytest.mark.parametrize("name", LAYERS)
def test_products_with_inputs_and_gradients_of_weights_are_not_in_the_loop(name, settings_):
    layer, x = LAYERS[name](3, **settings_), normal(2, 4, 5)
    params = made(layer, (-1, -1, 5))[1]
    passes = 2 if "bidirectional" in settings_ else 1
    forward, around = loops(layer.apply, params, x)
    assert [names(p).count("matmul") for p in forward] == [1] * passes
    assert around.count("matmul") == passes * (2 if name == "peephole" else 1)
    both, around = loops(ff.grad(lambda p, x: total(layer.apply(p, x)), argnums=(0, 1)), params, x)
    assert len(both) == 2 * passes
    # The state times U, and the cotangent of the gates times its transpose.
    assert [names(p).count("matmul") for p in both] == [1] * (2 * passes)
    weights = [v.aval.shape for p in both for v in p.outputs if v.aval.shape in {(3, 12), (5, 12), (3, 6), (12,)}]
    assert weights == []


def test_a_batch_without_padding_has_no_mask_in_its_loop():
    layer, values = nn.LSTM(3, bidirectional=True), normal(2, 4, 5)
    params = made(layer, (-1, -1, 5))[1]

    def run(lengths):
        bodies, around = loops(lambda v: layer.apply(params, nn.Padded(v, lengths)).values, values)
        return [names(p).count("select") for p in bodies], around.count("select")

    assert run(np.array([4, 4])) == ([0, 0], 0)
    assert run(np.array([3, 3])) == ([0, 0], 0)
    # The pass forwards runs on, its outputs behind a sequence are cleared after the loop.
    assert run(np.array([3, 4])) == ([0, 2], 1)


def test_the_last_outputs_stack_nothing():
    params = made(nn.LSTM(3), (-1, -1, 5))[1]
    (body,), _ = loops(nn.LSTM(3, last=True).apply, params, normal(2, 4, 5))
    assert len(body.outputs) == 2
    # What only the outputs need is done once.
    layer = nn.Recurrent(peephole_cell(3), last=True)
    (body,), around = loops(layer.apply, made(layer, (-1, -1, 5))[1], normal(2, 4, 5))
    assert len(body.outputs) == 2
    assert names(body).count("matmul") == 1
    assert around[-2:] == ["matmul", "tanh"]


def test_last_outputs_of_what_is_no_carry():
    # The outputs read the carry before the step, an input, a constant, and a value that the carry is made of.
    def apply(params, carry, x):
        new = np.tanh(x + carry * params)
        return new * new, np.sin(new) + carry + x + params

    cell = nn.Cell(lambda key, features: (features, np.float64(0.5)), apply, lambda p, batch: np.full((batch, 2), 0.1))
    x, params = normal(3, 4, 2), np.float64(0.5)
    layer = nn.Recurrent(cell, last=True)
    for reverse in (False, True):
        layer = nn.Recurrent(cell, last=True, reverse=reverse)
        close(layer.apply(params, x), by_python(cell, params, x, reverse)[0][:, 0 if reverse else -1])
        check_derivatives(layer.apply, params, x)


def test_a_cell_is_traced_once_for_all_lengths():
    cell = nn.GRUCell(3)
    traced = Traced(cell.apply)
    layer = nn.Recurrent(nn.Cell(cell.init, traced, cell.initial))
    params = made(layer, (-1, -1, 5))[1]
    gradient = ff.grad(lambda p, x: total(layer.apply(p, x)))
    for steps in (4, 7, 1, 4):
        layer.apply(tree.map(np.copy, params), normal(2, steps, 5))
        gradient(params, normal(2, steps, 5))
    assert traced.shapes == [(2, 5)]
    for lengths in ([4, 4, 3], [1, 2, 3], [2, 2, 1]):
        layer.apply(params, ragged(3, 4, 5, lengths))
    assert traced.shapes == [(2, 5), (3, 5)]


def test_the_operations_of_a_loop_are_those_of_the_summary():
    # The summary counts a sigmoid as one operation, so that of the layers only an RNN's count is the loop's.
    layer, x = nn.RNN(4, bidirectional=True), np.zeros((3, 7, 5), np.float32)
    params = layer.init(random.key(0), (-1, -1, 5))[1]
    counted = 0

    def observe(prim, avals, settings_, ans):
        nonlocal counted
        counted += prim.flops(ans, *avals, **settings_) if prim.flops else 0

    def run():
        with AbstractTrace(layer, observe) as trace:
            layer.apply(params, trace.tracer(aval_of(x)))

    run()
    assert counted == 3 * 7 * nn.summary(layer, (-1, -1, 5)).flops


# -- cells of the user's own --------------------------------------------------------------------------


def test_a_first_carry_takes_the_dtype_of_the_cells():
    def cell(first, of):
        return nn.Cell(
            lambda key, n: (n, ()), lambda p, c, x: (of(c, x), c * x), lambda p, batch: np.full((batch, 2), first)
        )

    x = np.float32(normal(3, 4, 2))
    for first, of in (
        (np.float32(0.5), np.add),
        (np.float64(0.5), np.add),
        (1, np.add),
        (np.float64(1), lambda c, x: x),
    ):
        for inputs in (x, np.float64(x)):
            y, state = nn.Recurrent(cell(first, of)).apply((), inputs, return_state=True)
            wanted, final = by_python(cell(first, of), (), inputs)
            np.testing.assert_allclose(y, wanted, rtol=1e-6)
            close(state, final, 1e-6)


def test_float32_stays_float32_with_every_setting():
    x = np.float32(normal(2, 4, 3))
    for name, make in LAYERS.items():
        for settings_ in (*FORMS, {"last": True}):
            layer = make(2, **settings_)
            params = layer.init(random.key(0), (-1, -1, 3))[1]
            for inputs in (x, nn.Padded(x, np.array([1, 4]))):
                out = layer.apply(params, inputs, return_state=True)
                dtypes = {a.dtype for a in tree.leaves(out) if a.dtype.kind == "f"}
                assert dtypes == {np.dtype(np.float32)}, (name, settings_)


def test_a_mask_drawn_anew_in_every_call_is_an_argument_of_the_loop():
    inner = nn.LSTMCell(3)
    traced = Traced(inner.apply)

    def dropped(apply, mask):
        def masked(params, carry, x):
            (h, c), _ = apply(params, carry, x)
            return (h * mask, c), h * mask

        return nn.Cell(inner.init, masked, inner.initial)

    params, x = made(nn.LSTM(3), (-1, -1, 4))[1], normal(2, 5, 4)
    for seed in range(3):
        mask = random.bernoulli(random.key(seed), 0.5, (2, 3)) / 0.5
        y = nn.Recurrent(dropped(traced, mask)).apply(params, x)
        close(y, by_python(dropped(inner.apply, mask), params, x)[0], 1e-12)
    assert traced.shapes == [(2, 4)]


def test_messages_of_cells_name_the_layer():
    def model(apply, initial=lambda params, batch: (np.zeros((batch, 2)),)):
        return nn.serial(encoder=nn.Recurrent(nn.Cell(lambda key, n: (n, ()), apply, initial)))

    x, params = normal(3, 4, 2), {"encoder": ()}
    with pytest.raises(
        ShapeError,
        match=r"Recurrent: the cell's apply must return a carry of the shapes.*\[3, 2\] comes in"
        r".*\[3, 4\] goes out",
    ) as error:
        model(lambda p, c, x: ((np.concatenate([c[0], x], 1),), x)).apply(params, x)
    assert error.value.__notes__ == ["in layer 'encoder'"]
    with pytest.raises(TreeError, match="Recurrent: the cell's apply must return a carry of the structure"):
        model(lambda p, c, x: ([c[0] + x], x)).apply(params, x)
    with pytest.raises(TreeError, match=r"Recurrent: the cell's apply must return a pair \(carry, y\)"):
        model(lambda p, c, x: (c, x, x)).apply(params, x)
    clock = model(lambda p, c, x: ((c[0] + 1,), x), lambda params, batch: (np.zeros(()),))
    assert clock.apply(params, x).shape == (3, 4, 2)
    with pytest.raises(ShapeError, match=r"^in layer 'encoder': the carry of a cell.*got \(\) for 3 of them"):
        clock.apply(params, nn.Padded(x, np.array([1, 2, 4])))
    lstm = nn.serial(encoder=nn.Recurrent(nn.LSTMCell(3)))
    params = lstm.init(random.key(0), (-1, -1, 4))[1]
    with pytest.raises(ShapeError, match=r"^in layer 'encoder': LSTMCell expected inputs \(N, 4\), got \(3, 2\)"):
        lstm.apply(params, x)


# -- models around loops ------------------------------------------------------------------------------


def test_a_model_with_state_is_trained_in_one_program():
    model = nn.with_state(nn.serial(norm=nn.BatchNorm(), lstm=nn.LSTM(3), drop=nn.Dropout(0.5), out=nn.Dense(1)))
    _, params, state = model.init(random.key(0), (-1, -1, 2))
    x = np.float32(normal(3, 4, 2))

    def step(params, state, key):
        def loss(params):
            y, new = model.apply(params, state, x, key=key, train=True)
            return np.mean(np.square(y)), new

        (value, new), grads = ff.value_and_grad(loss, has_aux=True)(params)
        return value, tree.map(lambda p, g: p - 0.1 * g, params, grads), new

    close(ff.jit(step)(params, state, random.key(1)), step(params, state, random.key(1)), 1e-5)


@pytest.mark.parametrize("name", ["LSTM", "peephole"])
def test_checkpointed_segments_of_a_loop_have_its_gradients(name):
    cell, x = CELLS[name](3), normal(12, 2, 5)
    params = tree.map(np.float64, cell.init(random.key(0), 5)[1])

    def steps(p, carry, xs):
        return ff.scan(lambda c, x: cell.apply(p, c, x), carry, xs)

    def whole(p, x):
        return steps(p, cell.initial(p, 2), x)

    def in_segments(p, x):
        segment = ff.checkpoint(lambda carry, xs: steps(p, carry, xs))
        carry, ys = ff.scan(segment, cell.initial(p, 2), x.reshape(3, 4, 2, 5))
        return carry, ys.reshape(12, 2, -1)

    def checkpointed_steps(p, x):
        inner = ff.checkpoint(cell.apply)
        return ff.scan(lambda c, x: inner(p, c, x), cell.initial(p, 2), x)

    def layer_in_segments(p, x):
        layer = nn.Recurrent(cell)

        @ff.checkpoint
        def segment(p, x, carry):
            return layer.apply(p, x, initial_state=carry, return_state=True)

        ys, carry = [], None
        for part in np.split(np.swapaxes(x, 0, 1), 3, axis=1):
            y, carry = segment(p, part, carry)
            ys.append(y)
        return carry, np.swapaxes(np.concatenate(ys, axis=1), 0, 1)

    wanted = derivatives(whole, params, x)
    for f in (in_segments, checkpointed_steps, layer_in_segments):
        close(f(params, x), whole(params, x))
        close(derivatives(f, params, x), wanted, 1e-9)
        close(ff.jit(derivatives, static_argnums=0)(f, params, x), wanted, 1e-9)
