"""Stacks of recurrent layers, residuals, projections and further cells: PyTorch or a loop in it beside each, padded
batches, states, dropout, and what stays in the loops."""

import numpy as np
import pytest
from nn_laws import (
    alone,
    check_against_torch,
    check_derivatives,
    check_layer,
    made,
    normal,
    ragged,
    to_torch,
)

import fnflare as ff
from fnflare import config, nn, random, tree
from fnflare.core import aval_of
from fnflare.errors import ArgumentError, MissingKeyError, ShapeError, TreeError
from fnflare.program.tracing import trace_program

MAKERS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}
CELLS = {
    "projected LSTM": lambda units: nn.LSTMCell(units, proj_size=2),
    "classic GRU": lambda units: nn.GRUCell(units, reset_after=False),
    "peephole LSTM": lambda units: nn.PeepholeLSTMCell(units, p_init=nn.normal(0.5)),
    "normalised LSTM": nn.LayerNormLSTMCell,
}
SETTINGS = [
    {"num_layers": 2},
    {"num_layers": 3, "bidirectional": True},
    {"num_layers": 2, "last": True, "reverse": True},
    {"num_layers": 2, "last": True, "bidirectional": True},
]


def unbiased(params):
    """Parameters whose biases are not zero, so that none of them hides."""
    return tree.map_with_path(lambda path, p: p + 0.2 * normal(*p.shape, seed=len(str(path))), params)


def each_pass(params):
    """The parameters of all passes of all layers, in PyTorch's order."""
    return [p for part in params for p in ([part["forward"], part["backward"]] if "forward" in part else [part])]


def torch_parameters(name, params):
    """Parameters of a pass as PyTorch names, shapes and pads them."""
    import torch

    units = params["W"].shape[1] // {"RNN": 1, "LSTM": 4, "GRU": 3}[name]
    b_hidden = torch.zeros_like(params["b"])
    if name == "GRU":
        b_hidden = torch.cat([b_hidden[: 2 * units], params["c"]])
    projection = [params["P"].T] if "P" in params else []
    return [params["W"].T, params["U"].T, params["b"], b_hidden, *projection]


def torch_stack(name, params, x, bidirectional):
    """PyTorch's outputs and final states of a stack."""
    import torch

    passes = each_pass(params)
    flat = [w for p in passes for w in torch_parameters(name, p)]
    h = x.new_zeros(len(passes), x.shape[0], passes[0]["U"].shape[0])
    c = x.new_zeros(len(passes), x.shape[0], passes[0]["U"].shape[1] // 4)
    run = {"RNN": torch.rnn_tanh, "LSTM": torch.lstm, "GRU": torch.gru}[name]
    start = (h, c) if name == "LSTM" else h
    return run(x, start, flat, True, len(params), 0.0, False, bidirectional, True)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize(("name", "settings"), [("RNN", {}), ("LSTM", {}), ("GRU", {}), ("LSTM", {"proj_size": 2})])
def test_stacks_are_torchs(name, settings, bidirectional):
    pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, x = MAKERS[name](4, num_layers=3, bidirectional=bidirectional, **settings), normal(3, 5, 2)
    shape, params = made(layer, (-1, -1, 2))
    assert shape == (-1, -1, settings.get("proj_size", 4) * (2 if bidirectional else 1))
    params = unbiased(params)
    check_against_torch(layer.apply, lambda p, x: torch_stack(name, p, x, bidirectional)[0], params, x)
    single = tree.map(np.float32, (params, x))
    y, ct = layer.apply(*single), normal(3, 5, shape[2]).astype(np.float32)
    tensors = to_torch(single)
    torch_y = torch_stack(name, *tensors, bidirectional)[0]
    torch_y.backward(torch_y.new_tensor(ct))
    np.testing.assert_allclose(y, torch_y.detach().numpy(), rtol=1e-5, atol=1e-6)
    for got, t in zip(tree.leaves(ff.vjp(layer.apply, *single)[1](ct)), tree.leaves(tensors), strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, t.grad.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_final_states_of_a_stack_are_torchs(name, bidirectional):
    pytest.importorskip("torch", reason="PyTorch is the oracle")
    settings = {"proj_size": 2} if name == "LSTM" else {}
    layer, x = MAKERS[name](4, num_layers=2, bidirectional=bidirectional, **settings), normal(3, 5, 2)
    params = unbiased(made(layer, (-1, -1, 2))[1])
    y, state = layer.apply(params, x, return_state=True)
    out, *finals = torch_stack(name, to_torch(params), to_torch(x), bidirectional)
    np.testing.assert_allclose(y, out.detach().numpy(), rtol=1e-10, atol=1e-12)
    for i, final in enumerate(finals):
        got = [p[i] if name == "LSTM" else p for p in each_pass(state)] if bidirectional else state
        got = [p[i] for p in state] if name == "LSTM" and not bidirectional else got
        np.testing.assert_allclose(np.stack(got), final.detach().numpy(), rtol=1e-10, atol=1e-12)


def torch_step(name, params, carry, x):
    """A step of a cell that PyTorch does not have, as its paper writes it."""
    import torch

    def norm(x):
        return torch.nn.functional.layer_norm(x, x.shape[-1:])

    if name == "classic GRU":
        wr, wz, wn = (params["W"] @ torch.eye(12, dtype=x.dtype)).chunk(3, 1)
        ur, uz, un = params["U"].chunk(3, 1)
        br, bz, bn = params["b"].chunk(3)
        r, z = (x @ wr + carry @ ur + br).sigmoid(), (x @ wz + carry @ uz + bz).sigmoid()
        n = (x @ wn + (r * carry) @ un + bn).tanh()
        h = (1 - z) * n + z * carry
        return h, h
    h, c = carry
    if name == "normalised LSTM":
        gates = norm(x @ params["W"]) * params["s_x"] + norm(h @ params["U"]) * params["s_h"] + params["b"]
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * (norm(c) * params["s_c"] + params["b_c"]).tanh()
        return (h, c), h
    p_i, p_f, p_o = params["p"]
    i, f, g, o = (x @ params["W"] + h @ params["U"] + params["b"]).chunk(4, 1)
    c = (f + p_f * c).sigmoid() * c + (i + p_i * c).sigmoid() * g.tanh()
    h = (o + p_o * c).sigmoid() * c.tanh()
    return (h, c), h


@pytest.mark.parametrize("name", ["classic GRU", "peephole LSTM", "normalised LSTM"])
def test_further_cells_are_what_their_papers_write(name):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, x = nn.Recurrent(CELLS[name](4)), normal(3, 5, 2)
    params = unbiased(made(layer, (-1, -1, 2))[1])

    def by_torch(params, x):
        zeros = x.new_zeros(3, 4)
        carry, outputs = zeros if name == "classic GRU" else (zeros, zeros), []
        for t in range(5):
            carry, y = torch_step(name, params, carry, x[:, t])
            outputs.append(y)
        return torch.stack(outputs, 1)

    check_against_torch(layer.apply, by_torch, params, x)


@pytest.mark.parametrize("settings", [{}, SETTINGS[3]], ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_further_cells_keep_the_laws(name, settings):
    check_layer(nn.Recurrent(CELLS[name](3), **settings), normal(2, 4, 3))


@pytest.mark.parametrize("settings", SETTINGS[1:3], ids=str)
def test_stacks_keep_the_laws(settings):
    check_layer(nn.LSTM(2, **settings), normal(2, 4, 3))


def test_layers_that_are_made_of_other_cells():
    x = normal(2, 4, 3)
    for layer, cell in (
        (nn.GRU(4, reset_after=False), nn.GRUCell(4, reset_after=False)),
        (nn.LSTM(4, proj_size=2), nn.LSTMCell(4, proj_size=2)),
    ):
        _, params = made(layer, (-1, -1, 3))
        assert tree.equal(params, made(nn.Recurrent(cell), (-1, -1, 3))[1])
        np.testing.assert_array_equal(layer.apply(params, x), nn.Recurrent(cell).apply(params, x))


# -- padded batches and states --------------------------------------------------------------------


DEEP = {"num_layers": 2, "residual": True, "last": True, "bidirectional": True}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *[("LSTM", settings) for settings in SETTINGS[1:]],
        ("GRU", {"residual": True}),
        ("RNN", {"num_layers": 2, "residual": True, "last": True}),
        *[(name, DEEP) for name in ("LSTM", *CELLS)],
    ],
    ids=str,
)
def test_a_padded_batch_gives_what_each_sequence_gives_alone(name, settings):
    layer = MAKERS[name](2, **settings) if name in MAKERS else nn.Recurrent(CELLS[name](2), **settings)
    features = 4 if "bidirectional" in settings else 2
    batch = ragged(3, 5, features, [2, 5, 1])
    params = unbiased(made(layer, (-1, -1, features))[1])

    def each(p, values):
        return [layer.apply(p, alone(nn.Padded(values, batch.lengths), i))[0] for i in range(3)]

    def together(p, values, lengths=batch.lengths):
        out = layer.apply(p, nn.Padded(values, lengths))
        return (
            [out[i] for i in range(3)] if settings.get("last") else [out.values[i, :n] for i, n in enumerate((2, 5, 1))]
        )

    def gradients(outputs, *args):
        return ff.grad(lambda *a: sum(np.sum(np.sin(y)) for y in outputs(*a)), argnums=(0, 1))(*args)

    for got, wanted in (
        (together(params, batch.values), each(params, batch.values)),
        (ff.jit(together)(params, batch.values, batch.lengths), each(params, batch.values)),
        (gradients(together, params, batch.values), gradients(each, params, batch.values)),
    ):
        for a, b in zip(tree.leaves(got), tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", MAKERS)
def test_a_stack_reads_a_sequence_in_two_parts(name):
    layer, x = MAKERS[name](2, num_layers=2, residual=True), normal(2, 6, 2)
    params = unbiased(made(layer, (-1, -1, 2))[1])
    first, state = layer.apply(params, x[:, :4], return_state=True)
    assert isinstance(state, tuple) and len(state) == 2
    second = layer.apply(params, x[:, 4:], initial_state=state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), layer.apply(params, x), rtol=1e-12)
    check_derivatives(lambda s: layer.apply(params, x, initial_state=s), state)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("name", ["LSTM", *CELLS])
def test_programs_give_the_same_on_both_executors(name, native):
    settings = {"num_layers": 2, "bidirectional": True}
    layer = MAKERS[name](3, **settings) if name in MAKERS else nn.Recurrent(CELLS[name](3), **settings)
    params, x = made(layer, (-1, -1, 2))[1], normal(2, 4, 2)

    def both(params, x):
        y = layer.apply(params, x)
        return y, ff.grad(lambda p: np.sum(np.sin(layer.apply(p, x))))(params)

    with config.override(use_native=native):
        got, wanted = ff.jit(both)(params, x), both(params, x)
    for a, b in zip(tree.leaves(got), tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


# -- residuals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"reverse": True}, {"bidirectional": True}], ids=str)
def test_a_residual_layer_adds_its_inputs(settings):
    units = 2 if "bidirectional" in settings else 4
    x = normal(2, 5, 4)
    with_, plain = nn.LSTM(units, residual=True, **settings), nn.LSTM(units, **settings)
    params = made(plain, (-1, -1, 4))[1]
    wanted = x + plain.apply(params, x)
    np.testing.assert_allclose(with_.apply(params, x), wanted, rtol=1e-12)
    last = nn.LSTM(units, residual=True, last=True, **settings).apply(params, x)
    ends = {"reverse": wanted[:, 0], "bidirectional": np.concatenate([wanted[:, -1, :2], wanted[:, 0, 2:]], axis=-1)}
    np.testing.assert_allclose(last, ends.get(next(iter(settings), ""), wanted[:, -1]), rtol=1e-12)


def test_a_residual_layer_needs_as_many_inputs_as_outputs():
    with pytest.raises(ShapeError, match=r"in layer 'rnn/0': GRU: with residual=True the outputs, 8 .* nn\.Dense\(8\)"):
        nn.serial(rnn=nn.GRU(4, bidirectional=True, residual=True, num_layers=2)).init(random.key(0), (-1, -1, 4))


# -- dropout --------------------------------------------------------------------------------------


def test_dropout_is_between_the_layers():
    layer, x = nn.LSTM(6, num_layers=3, dropout=0.5, last=True), normal(4, 5, 2)
    params, key = made(layer, (-1, -1, 2))[1], random.key(7)
    np.testing.assert_array_equal(layer.apply(params, x), nn.LSTM(6, num_layers=3, last=True).apply(params, x))
    y = x
    for i, own in enumerate(params):
        y = nn.LSTM(6, last=i == 2).apply(own, y)
        if i < 2:
            y = nn.Dropout(0.5).apply((), y, key=random.fold_in(key, i), train=True)
    np.testing.assert_allclose(layer.apply(params, x, key=key, train=True), y, rtol=1e-12)
    with pytest.raises(MissingKeyError, match="in layer 'deep/0': Dropout"):
        nn.serial(deep=layer).apply({"deep": params}, x, train=True)
    padded = layer.apply(params, nn.Padded(x, np.array([5, 2, 1, 5])), key=key, train=True)
    np.testing.assert_allclose(padded[0], y[0], rtol=1e-12)


# -- what there is around -------------------------------------------------------------------------


def test_parameters_have_readable_paths_and_are_summed_up():
    model = nn.serial(lstm=nn.LSTM(4, num_layers=2, bidirectional=True, proj_size=3), out=nn.Dense(2))
    _, params = model.init(random.key(0), (-1, -1, 5))
    shapes = {tree.path_str(path): p.shape for path, p in tree.leaves_with_path(params)}
    assert shapes["lstm/0/forward/W"] == (5, 16)
    assert shapes["lstm/1/backward/W"] == (6, 16)
    assert shapes["lstm/1/backward/U"] == (3, 16)
    assert shapes["lstm/1/backward/P"] == (4, 3)
    rows = {row.path: row for row in nn.summary(model, (1, 7, 5)).rows}
    assert rows["lstm/1"].kind == "LSTM"
    assert rows["lstm/1"].output_shape == (1, 7, 6)
    assert rows["lstm/1"].flops == 2 * 7 * (2 * (6 + 3) * 16 + 2 * 4 * 3 + 17 * 4)
    assert not np.array_equal(params["lstm"][0]["forward"]["U"], params["lstm"][1]["forward"]["U"])
    again = model.init(random.key(0), (-1, -1, 5))[1]
    assert tree.equal(params, again)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.LSTM(3, num_layers=0), ArgumentError, "LSTM: num_layers must be an integer and at least 1"),
        (lambda: nn.LSTM(3, dropout=0.5), ArgumentError, "between layers, of which there is one"),
        (lambda: nn.GRU(3, num_layers=2, dropout=1.0), ArgumentError, "dropout must be a number"),
        (lambda: nn.LSTM(3, proj_size=0), ArgumentError, "LSTMCell: proj_size must be an integer and at least 1"),
        (lambda: nn.PeepholeLSTMCell(3, p_init=1.0), ArgumentError, "p_init must be a function"),
        (lambda: nn.RNN(3, num_layers=2, bidirectional=True, reverse=True), ArgumentError, "leave out reverse=True"),
    ],
)
def test_settings_are_checked_when_the_layer_is_made(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_what_does_not_fit_a_stack():
    layer, x = nn.LSTM(3, num_layers=2), normal(2, 4, 2)
    params = made(layer, (-1, -1, 2))[1]
    with pytest.raises(TreeError, match=r"LSTM expected an initial_state as a tuple of 2, .* got tuple of 3"):
        layer.apply(params, x, initial_state=(np.zeros((2, 3)),) * 3)
    with pytest.raises(TreeError, match="its parameters as a tuple of 2, one for each layer, got dict of 3"):
        layer.apply(params[0], x)
    with pytest.raises(ShapeError, match=r"in layer 'rnn/0': LSTM expected inputs \(N, T, 2\)"):
        nn.serial(rnn=layer).apply({"rnn": params}, normal(2, 4, 5))


@pytest.mark.parametrize(("name", "in_loop"), list(zip(CELLS, (2, 2, 1, 1), strict=True)))
def test_products_with_inputs_are_not_in_the_loops(name, in_loop):
    layer = nn.Recurrent(CELLS[name](3), num_layers=2)
    params, x = layer.init(random.key(0), (-1, -1, 5))[1], np.float32(normal(2, 4, 5))
    leaves, structure = tree.flatten((params, x))
    traced = trace_program(lambda *xs: layer.apply(*tree.unflatten(structure, xs)), [aval_of(a) for a in leaves])
    equations = traced.program.equations
    bodies = [e.params["program"] for e in equations if e.prim.name == "scan"]
    assert [sum(e.prim.name == "matmul" for e in body.equations) for body in bodies] == [in_loop] * 2
    assert sum(e.prim.name == "matmul" for e in equations) == 2
