"""Recurrent layers: PyTorch beside each, the law of padded batches, states that are handed on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nn_laws import (
    alone,
    check_against_torch,
    check_derivatives,
    check_layer,
    made,
    normal,
    pulled_back,
    ragged,
    to_torch,
)

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.errors import ArgumentError, MissingKeyError, ShapeError, TreeError

MAKERS = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}


def torch_parameters(name, params):
    """Parameters of a pass as PyTorch names, shapes and pads them."""
    import torch

    units = params["U"].shape[0]
    b_hidden = torch.zeros_like(params["b"])
    if name == "GRU":
        b_hidden = torch.cat([b_hidden[: 2 * units], params["c"]])
    return [params["W"].T, params["U"].T, params["b"], b_hidden]


def torch_layer(name, bidirectional, params, x):
    """PyTorch's outputs and final states with these parameters."""
    import torch

    passes = [params["forward"], params["backward"]] if bidirectional else [params]
    flat = [w for p in passes for w in torch_parameters(name, p)]
    directions, units = len(passes), passes[0]["U"].shape[0]
    zeros = x.new_zeros(directions, x.shape[0], units)
    run = {"RNN": torch.rnn_tanh, "LSTM": torch.lstm, "GRU": torch.gru}[name]
    start = (zeros, zeros) if name == "LSTM" else zeros
    return run(x, start, flat, True, 1, 0.0, False, bidirectional, True)


def unbiased(params):
    """Parameters whose biases are not zero, so that none of them hides."""
    return tree.map_with_path(lambda path, p: p + 0.2 * normal(*p.shape, seed=len(str(path))), params)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_recurrent_layers_are_torchs(name, bidirectional):
    pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = MAKERS[name](4, bidirectional=bidirectional)
    x = normal(3, 5, 2)
    shape, params = made(layer, (-1, -1, 2))
    assert shape == (-1, -1, 8 if bidirectional else 4)
    check_against_torch(layer.apply, lambda p, x: torch_layer(name, bidirectional, p, x)[0], unbiased(params), x)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", MAKERS)
def test_final_states_are_torchs(name, bidirectional):
    pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = MAKERS[name](4, bidirectional=bidirectional)
    x = normal(3, 5, 2)
    params = unbiased(made(layer, (-1, -1, 2))[1])
    y, state = layer.apply(params, x, return_state=True)
    out, *finals = torch_layer(name, bidirectional, to_torch(params), to_torch(x))
    finals = np.stack([f.detach().numpy() for f in finals])  # (states, directions, N, units)
    passes = [state["forward"], state["backward"]] if bidirectional else [state]
    got = np.stack([np.stack(p) if isinstance(p, tuple) else p[None] for p in passes], axis=1)
    np.testing.assert_allclose(y, out.detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got, finals, rtol=1e-10, atol=1e-12)
    last = MAKERS[name](4, bidirectional=bidirectional, last=True).apply(params, x)
    np.testing.assert_allclose(last, np.concatenate(list(finals[0]), axis=-1), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("settings_", [{}, {"last": True}, {"reverse": True}, {"bidirectional": True}])
@pytest.mark.parametrize("name", MAKERS)
def test_every_recurrent_layer_keeps_the_laws(name, settings_):
    check_layer(MAKERS[name](3, **settings_), normal(2, 4, 3))


def test_a_reversed_layer_is_the_layer_on_reversed_inputs():
    x = normal(2, 5, 3)
    ahead, back = nn.LSTM(4), nn.LSTM(4, reverse=True)
    _, params = made(ahead, (-1, -1, 3))
    np.testing.assert_array_equal(back.apply(params, x), ahead.apply(params, x[:, ::-1])[:, ::-1])


# -- padded batches -------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(MAKERS)),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_a_padded_batch_gives_what_each_sequence_gives_alone(name, bidirectional, last, lengths):
    layer = MAKERS[name](3, bidirectional=bidirectional, last=last)
    params = unbiased(made(layer, (-1, -1, 2))[1])
    batch = ragged(len(lengths), 5, 2, lengths)

    def together(p, values):
        out = layer.apply(p, nn.Padded(values, batch.lengths))
        return [out[i] for i in range(len(lengths))] if last else [out.values[i, :n] for i, n in enumerate(lengths)]

    def each(p, values):
        return [layer.apply(p, alone(nn.Padded(values, batch.lengths), i))[0] for i in range(len(lengths))]

    for a, b in zip(together(params, batch.values), each(params, batch.values), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)

    def gradients(outputs):
        def loss(p, values):
            return sum(np.sum(np.sin(y)) for y in outputs(p, values))

        return tree.leaves(ff.grad(loss, argnums=(0, 1))(params, batch.values))

    for a, b in zip(gradients(together), gradients(each), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_final_state_of_a_padded_batch_is_that_of_each_sequence(reverse):
    layer, batch = nn.LSTM(3, reverse=reverse), ragged(3, 5, 2, [2, 5, 1])
    params = unbiased(made(layer, (-1, -1, 2))[1])
    y, (h, c) = layer.apply(params, batch, return_state=True)
    for i in range(3):
        _, (h_alone, c_alone) = layer.apply(params, alone(batch, i), return_state=True)
        np.testing.assert_allclose(h[i], h_alone[0], rtol=1e-12)
        np.testing.assert_allclose(c[i], c_alone[0], rtol=1e-12)
    assert np.all(y.values[0, 2:] == 0.0)


def test_a_sequence_without_words_leaves_the_initial_state():
    layer, batch = nn.LSTM(3, last=True), ragged(2, 4, 2, [0, 4])
    _, params = made(layer, (-1, -1, 2))
    start = (normal(2, 3, seed=8), normal(2, 3, seed=9))
    y, state = layer.apply(params, batch, initial_state=start, return_state=True)
    np.testing.assert_array_equal(y[0], 0.0)
    np.testing.assert_array_equal(np.stack(state)[:, 0], np.stack(start)[:, 0])


def test_padding_that_no_sequence_reaches_changes_nothing():
    layer, batch = nn.GRU(3, bidirectional=True), ragged(2, 6, 2, [3, 4])
    _, params = made(layer, (-1, -1, 2))
    short = nn.Padded(batch.values[:, :4], batch.lengths)
    np.testing.assert_allclose(
        layer.apply(params, batch).values[:, :4], layer.apply(params, short).values, rtol=1e-12, atol=1e-15
    )


def test_the_shape_of_a_padded_batch_is_known_without_its_lengths():
    model = nn.serial(lstm=nn.LSTM(3, bidirectional=True), norm=nn.LayerNorm(), pool=nn.GlobalAvgPool)
    _, params = model.init(random.key(0), (-1, -1, 2))
    batch = nn.Padded(np.float32(normal(2, 6, 2)), np.array([3, 6]))
    out = ff.eval_shape(model.apply, params, batch)
    assert (out.shape, out.dtype) == ((2, 6), np.float32)


# -- states ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MAKERS)
def test_a_sequence_can_be_read_in_two_parts(name):
    layer, x = MAKERS[name](3), normal(2, 6, 2)
    params = unbiased(made(layer, (-1, -1, 2))[1])
    whole = layer.apply(params, x)
    first, state = layer.apply(params, x[:, :4], return_state=True)
    second = layer.apply(params, x[:, 4:], initial_state=state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1), whole, rtol=1e-12)


def test_the_initial_state_is_differentiated():
    layer, x = nn.LSTM(3, bidirectional=True, last=True), normal(2, 4, 2)
    _, params = made(layer, (-1, -1, 2))
    starts = {
        "forward": (normal(2, 3, seed=5), normal(2, 3, seed=6)),
        "backward": (normal(2, 3, seed=7), normal(2, 3, seed=8)),
    }
    check_derivatives(lambda s: layer.apply(params, x, initial_state=s), starts)
    assert all(
        np.any(g != 0) for g in tree.leaves(pulled_back(lambda s: layer.apply(params, x, initial_state=s), starts)[2])
    )


def test_an_initial_state_that_does_not_fit():
    layer, x = nn.LSTM(3), normal(2, 4, 2)
    _, params = made(layer, (-1, -1, 2))
    with pytest.raises(
        ShapeError, match=r"LSTM expected an initial_state of shapes \(\(2, 3\), \(2, 3\)\), got \(2, 3\)"
    ):
        layer.apply(params, x, initial_state=normal(2, 3))
    both = nn.LSTM(3, bidirectional=True)
    with pytest.raises(TreeError, match="keys 'forward' and 'backward', got tuple"):
        both.apply(made(both, (-1, -1, 2))[1], x, initial_state=(normal(2, 3), normal(2, 3)))


# -- parameters and settings ----------------------------------------------------------------------


def test_parameters_have_readable_paths_and_shapes():
    model = nn.serial(lstm=nn.LSTM(4, bidirectional=True), out=nn.Dense(2))
    _, params = model.init(random.key(0), (-1, -1, 3))
    assert {tree.path_str(path): p.shape for path, p in tree.leaves_with_path(params)} == {
        "lstm/backward/U": (4, 16),
        "lstm/backward/W": (3, 16),
        "lstm/backward/b": (16,),
        "lstm/forward/U": (4, 16),
        "lstm/forward/W": (3, 16),
        "lstm/forward/b": (16,),
        "out/W": (4 * 2, 2),
        "out/b": (2,),
    }
    assert not tree.equal(params["lstm"]["forward"], params["lstm"]["backward"])


def test_the_forget_bias():
    _, params = nn.LSTM(2).init(random.key(0), (-1, -1, 3))
    np.testing.assert_array_equal(params["b"], np.float32([0, 0, 1, 1, 0, 0, 0, 0]))
    _, params = nn.LSTM(2, forget_bias=0.5, b_init=nn.ones).init(random.key(0), (-1, -1, 3))
    np.testing.assert_array_equal(params["b"], np.float32([1, 1, 1.5, 1.5, 1, 1, 1, 1]))


def test_each_gate_begins_orthogonal():
    _, params = nn.LSTM(5).init(random.key(0), (-1, -1, 3))
    for gate in np.split(params["U"], 4, axis=1):
        np.testing.assert_allclose(gate.T @ gate, np.eye(5), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LSTM(0), "LSTMCell: units must be an integer and at least 1, got 0"),
        (lambda: nn.GRU(3, U_init=1), "GRUCell: U_init must be a function, got 1"),
        (lambda: nn.RNN(3, activation="tanh"), "RNNCell: activation must be a function"),
        (lambda: nn.LSTM(3, bidirectional=True, reverse=True), "leave out reverse=True"),
        (lambda: nn.Recurrent(nn.Dense(3)), "Recurrent: expected a cell"),
    ],
)
def test_settings_are_checked_when_the_layer_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("inputs", "got"),
    [
        (np.zeros((2, 4, 7)), r"\(N, T, 3\), got \(2, 4, 7\)"),
        (np.zeros((2, 3)), r"\(N, T, features\) with T of at least 1, got \(2, 3\)"),
        (np.zeros((2, 0, 3)), r"\(N, T, features\) with T of at least 1, got \(2, 0, 3\)"),
        (nn.Padded(np.zeros((2, 3)), np.array([1, 2])), r"\(N, T, features\) with T of at least 1, got \(2, 3\)"),
    ],
)
@pytest.mark.parametrize("name", MAKERS)
def test_inputs_that_do_not_fit_are_named_with_the_layers_path(name, inputs, got):
    model = nn.serial(encoder=nn.serial(rnn=MAKERS[name](4, bidirectional=True)))
    _, params = model.init(random.key(0), (-1, -1, 3))
    with pytest.raises(ShapeError, match=f"^in layer 'encoder/rnn': {name} expected inputs {got}"):
        model.apply(params, inputs)
    with pytest.raises(ShapeError, match=rf"^in layer 'encoder/rnn': {name} expected inputs \(N, T, features\)"):
        model.init(random.key(0), (-1, 3))


def test_a_cell_without_a_key():
    with pytest.raises(MissingKeyError, match="LSTMCell draws its parameters"):
        nn.LSTM(3, bidirectional=True).init(None, (-1, -1, 2))


# -- cells of the user's own ----------------------------------------------------------------------


def counting_cell():
    """Sums its inputs, and counts the steps in a state of another rank."""

    def apply(params, carry, x):
        total, count = carry["total"] + x, carry["count"] + 1.0
        return {"total": total, "count": count}, total * params["scale"] / count[:, None]

    return nn.Cell(
        init=lambda key, features: (features, {"scale": np.ones(features, np.float32)}),
        apply=apply,
        initial=lambda params, batch: {
            "total": np.zeros((batch, params["scale"].shape[0]), np.float32),
            "count": np.zeros(batch, np.float32),
        },
    )


def test_a_cell_of_the_users_own_runs_over_padded_batches():
    layer = nn.Recurrent(counting_cell(), bidirectional=True)
    shape, params = layer.init(random.key(0), (-1, -1, 2))
    assert shape == (-1, -1, 4)
    batch = ragged(3, 5, 2, [2, 5, 1])
    out, state = layer.apply(params, batch, return_state=True)
    np.testing.assert_array_equal(state["forward"]["count"], [2, 5, 1])
    for i, n in enumerate(batch.lengths):
        x = batch.values[i, :n]
        steps = np.arange(1, n + 1)[:, None]
        wanted = np.concatenate([np.cumsum(x, 0) / steps, (np.cumsum(x[::-1], 0) / steps)[::-1]], axis=1)
        np.testing.assert_allclose(out.values[i, :n], wanted, rtol=1e-12)
    check_derivatives(
        lambda p, x: layer.apply(p, nn.Padded(x, batch.lengths)).values, tree.map(np.float64, params), batch.values
    )
