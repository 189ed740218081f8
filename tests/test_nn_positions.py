"""Positions in sequences, the weights of attention, and bags of words; PyTorch beside each where it has it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nn_laws import (
    alone,
    check_both_against_torch,
    check_derivatives,
    check_jit,
    check_layer_jitted,
    doubled,
    made,
    normal,
    pulled_back,
    ragged,
    to_torch,
)

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.testing import check_vmap

LAYERS = {
    "SinusoidalPositions": (nn.SinusoidalPositions(), (2, 5, 4)),
    "rotary attention": (nn.MultiHeadAttention(2, rotary=True), (2, 5, 8)),
    "causal rotary attention": (nn.MultiHeadAttention(1, causal=True, rotary=True, head_size=6), (2, 5, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_keeps_the_laws(name):
    layer, shape = LAYERS[name]
    check_layer_jitted(layer, normal(*shape))


# -- waves and turns ------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [1, 4, 7])
def test_sines_and_cosines_are_those_of_the_paper(features):
    waves = nn.sinusoidal_positions(9, features, dtype=np.float64)
    for p in range(9):
        for i in range(features):
            angle = p / 10000 ** ((i - i % 2) / features)
            assert abs(waves[p, i] - (np.cos(angle) if i % 2 else np.sin(angle))) < 1e-12
    assert nn.sinusoidal_positions(3, features).dtype == np.float32


def test_the_layer_adds_them():
    x = normal(2, 5, 4).astype(np.float32)
    y = nn.SinusoidalPositions().apply((), x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y - x, (x + nn.sinusoidal_positions(5, 4)) - x)
    batch = ragged(2, 5, 4, [5, 2])
    out = nn.SinusoidalPositions().apply((), batch)
    assert out.lengths is batch.lengths
    np.testing.assert_array_equal(out.values[1, :2], nn.SinusoidalPositions().apply((), alone(batch, 1))[0])


def torch_rotary(x, base):
    """Pairs of features as complex numbers, turned."""
    import torch

    half = x.shape[-1] // 2
    slowness = base ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * slowness
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles).to(
        torch.complex128 if x.dtype == torch.float64 else torch.complex64
    )
    return torch.cat([turned.real, turned.imag], -1)


@pytest.mark.parametrize("base", [10000.0, 100])
def test_turns_are_products_of_complex_numbers(base):
    pytest.importorskip("torch", reason="PyTorch is the oracle")
    check_both_against_torch(
        lambda _, x: nn.rotary(x, base=base), lambda _, x: torch_rotary(x, base), (), normal(2, 3, 5, 6)
    )


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 1000))
def test_products_of_turned_vectors_depend_on_their_distance(p, q, shift):
    x, y = normal(1, 8), normal(1, 8, seed=2)

    def product(p, q):
        return np.sum(nn.rotary(x, np.array([p])) * nn.rotary(y, np.array([q])))

    assert abs(product(p, q) - product(p + shift, q + shift)) < 1e-9
    assert abs(np.linalg.norm(nn.rotary(x, np.array([p]))) - np.linalg.norm(x)) < 1e-12


def test_positions_may_be_given_and_differ_among_examples():
    x = normal(3, 4, 6)
    np.testing.assert_array_equal(nn.rotary(x, np.arange(4)), nn.rotary(x))
    later = nn.rotary(x, np.arange(4) + np.array([[0], [5], [9]]))
    np.testing.assert_array_equal(later[0], nn.rotary(x[0]))
    np.testing.assert_array_equal(later[2], nn.rotary(x[2], np.arange(9, 13)))
    check_jit(lambda x: nn.rotary(x, np.arange(4) + 2), x)
    check_vmap(nn.rotary, (x, np.arange(12).reshape(3, 4)))
    check_derivatives(nn.rotary, x)


def test_rotary_attention_sees_distances_alone():
    """A sequence gives at its end what it gives when something that is not looked at stands before it."""
    layer = nn.MultiHeadAttention(2, rotary=True)
    x = normal(1, 6, 8)
    params = made(layer, x.shape)[1]
    mask = np.zeros((6, 6), bool)
    mask[:, 2:] = True
    late = layer.apply(params, x, mask=mask)[:, 2:]
    np.testing.assert_allclose(late, layer.apply(params, x[:, 2:]), rtol=1e-10, atol=1e-12)
    plain = nn.MultiHeadAttention(2)
    assert not np.allclose(plain.apply(params, x), layer.apply(params, x))
    batch = ragged(2, 6, 8, [6, 3])
    out = layer.apply(params, batch)
    np.testing.assert_allclose(out.values[1, :3], layer.apply(params, alone(batch, 1))[0], rtol=1e-10, atol=1e-12)


def test_the_summary_counts_turns():
    flops = [nn.summary(nn.MultiHeadAttention(2, rotary=r), (-1, 5, 8)).flops for r in (False, True)]
    assert flops[1] - flops[0] == 2 * 5 * 8 * 3


# -- the weights of attention ---------------------------------------------------------------------


def test_the_weights_of_attention_are_torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, x = nn.MultiHeadAttention(3), normal(2, 5, 6)
    params = made(layer, x.shape)[1]
    y, weights = layer.apply(params, x, return_weights=True)
    names, p = ("query", "key", "value"), to_torch(params)
    t_y, t_weights = torch.nn.functional.multi_head_attention_forward(
        *[torch.tensor(x).transpose(0, 1)] * 3,
        6,
        3,
        torch.cat([p[n]["W"].T for n in names]),
        torch.cat([p[n]["b"] for n in names]),
        None,
        None,
        False,
        0.0,
        p["output"]["W"].T,
        p["output"]["b"],
        average_attn_weights=False,
    )
    np.testing.assert_allclose(y, t_y.transpose(0, 1).detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(weights, t_weights.detach().numpy(), rtol=1e-10)
    np.testing.assert_array_equal(y, layer.apply(params, x))


def test_the_weights_of_attention_are_those_of_each_sequence_alone():
    layer, batch = nn.MultiHeadAttention(2, causal=True), ragged(3, 6, 4, [6, 2, 4])
    params = made(layer, (-1, -1, 4))[1]
    out, weights = layer.apply(params, batch, return_weights=True)
    assert type(out) is nn.Padded
    for i, n in enumerate(batch.lengths):
        expected = layer.apply(params, alone(batch, i), return_weights=True)[1][0]
        np.testing.assert_allclose(weights[i, :, :n, :n], expected, rtol=1e-10, atol=1e-12)
        assert not weights[i, :, n:].any()
        assert not weights[i, :, :, n:].any()


def test_rotary_attention_needs_an_even_size():
    with pytest.raises(ArgumentError, match=r"^in layer 'a': .*turns pairs of features, got queries of size 3; give"):
        nn.serial(a=nn.MultiHeadAttention(2, rotary=True)).init(random.key(0), (-1, -1, 6))
    with pytest.raises(ShapeError, match=r"rotary expected vectors \(\.\.\., T, size\) of an even size, got shape"):
        nn.rotary(normal(2, 3))
    with pytest.raises(ArgumentError, match="rotary: base must be a positive number"):
        nn.rotary(normal(2, 4), base=-1)
    with pytest.raises(ArgumentError, match="SinusoidalPositions: base must be a positive number"):
        nn.SinusoidalPositions(0)
    with pytest.raises(ShapeError, match=r"^in layer 'p': SinusoidalPositions expected inputs \(N, T, features\)"):
        nn.serial(p=nn.SinusoidalPositions()).apply({"p": ()}, normal(2, 4))


# -- bags of words --------------------------------------------------------------------------------

MODES = ["mean", "sum", "max"]
WORDS = np.array([3, 1, 0, 6, 6, 2, 5])


def bag(mode, padding_idx=None):
    layer = nn.EmbeddingBag(7, 3, mode=mode, padding_idx=padding_idx)
    return layer, doubled(layer.init(random.key(0), (-1, -1))[1])


def beside_torch(mode, inputs, *torch_inputs, padding_idx=None):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, params = bag(mode, padding_idx)
    params = tree.map(lambda p: p + 0.25, params)  # the row of the padding is not zero for good
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 1e-5)):
        cast = tree.map(lambda p, dtype=dtype: p.astype(dtype), params)
        y, ct, (grads,) = pulled_back(lambda p: layer.apply(p, inputs), cast)
        w = torch.tensor(cast["W"], requires_grad=True)
        t_y = torch.nn.functional.embedding_bag(*[torch.tensor(i) for i in torch_inputs[:1]], w,
                                                *[torch.tensor(i) for i in torch_inputs[1:]], mode=mode,
                                                padding_idx=padding_idx)  # fmt: skip
        t_y.backward(torch.tensor(ct))
        np.testing.assert_allclose(y, t_y.detach().numpy(), rtol=tolerance)
        np.testing.assert_allclose(grads["W"], w.grad.numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("padding_idx", [None, 6, 0])
@pytest.mark.parametrize("mode", MODES)
def test_bags_of_words_are_torchs(mode, padding_idx):
    matrix = np.array([[1, 0, 3], [6, 2, 5], [6, 6, 6]])
    beside_torch(mode, matrix, matrix, padding_idx=padding_idx)
    for offsets in ([0, 2, 2, 5], [0], [0, 1, 7], [0, 0, 0]):
        beside_torch(mode, (WORDS, np.array(offsets)), WORDS, np.array(offsets), padding_idx=padding_idx)


@pytest.mark.parametrize("padding_idx", [None, 6])
@pytest.mark.parametrize("mode", MODES)
def test_bags_of_a_padded_batch_are_those_by_offsets(mode, padding_idx):
    layer, params = bag(mode, padding_idx)
    batch = nn.pad([[3, 1], [], [0, 6, 6], [2, 5]], value=4, dtype=np.int64)
    offsets = np.array([0, 2, 2, 5])

    def loss(inputs):
        return lambda p: np.sum(np.sin(layer.apply(p, inputs)))

    padded, flat = layer.apply(params, batch), layer.apply(params, (WORDS, offsets))
    np.testing.assert_allclose(padded, flat, rtol=1e-12)
    assert not flat[1].any()
    got, expected = ff.grad(loss(batch))(params), ff.grad(loss((WORDS, offsets)))(params)
    np.testing.assert_allclose(got["W"], expected["W"], rtol=1e-12, atol=1e-12)
    assert not got["W"][[w for w in (4, padding_idx) if w is not None]].any()
    empty = layer.apply(params, np.zeros((2, 0), int))
    np.testing.assert_array_equal(empty, np.zeros((2, 3)))


@pytest.mark.parametrize("padding_idx", [None, 6])
@pytest.mark.parametrize("mode", MODES)
def test_bags_in_programs_and_batches(mode, padding_idx):
    layer, params = bag(mode, padding_idx)
    matrix, offsets = WORDS[:6].reshape(2, 3), np.array([0, 2, 5])
    check_jit(lambda p: layer.apply(p, matrix), params)
    check_jit(lambda p: layer.apply(p, (WORDS, offsets)), params)
    check_derivatives(lambda p: layer.apply(p, (WORDS, offsets)), params)
    check_vmap(lambda words, offsets: layer.apply(params, (words, offsets)),
               (np.stack([WORDS, WORDS[::-1]]), np.array([[0, 2, 5], [0, 0, 3]])))  # fmt: skip
    jitted = ff.jit(lambda words, offsets: layer.apply(params, (words, offsets)))
    np.testing.assert_allclose(jitted(WORDS, offsets), layer.apply(params, (WORDS, offsets)), rtol=1e-12)


def test_shapes_of_bags():
    layer = nn.EmbeddingBag(7, 3)
    assert layer.init(random.key(0), (-1, 5))[0] == (-1, 3)
    assert layer.init(random.key(0), ((-1,), (-1,)))[0] == (-1, 3)
    rows = nn.summary(nn.serial(bag=layer), (-1, 5)).rows
    assert [(r.kind, r.params, r.flops) for r in rows] == [("EmbeddingBag", 21, 15)]
    assert nn.summary(layer, ((-1,), (4,))).output_shape == (4, 3)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (np.array([1, 2]), ShapeError, r"expected words \(N, T\), or a pair \(words, offsets\) .* got shape \(2,\)"),
        ((WORDS, WORDS[None]), ShapeError, r"got shape \(\(7,\), \(1, 7\)\)"),
        (normal(2, 3), DtypeError, "expected an array of integers, got float64"),
        (np.array([[1, 7]]), ArgumentError, "words 0 to 6, got words from 1 to 7"),
        ((WORDS, np.array([1, 2])), ArgumentError, r"offsets start with 0, ascend, .* the 7 words, got \[1 2\]"),
        ((WORDS, np.array([0, 3, 2])), ArgumentError, "offsets start with 0"),
        ((WORDS, np.array([0, 8])), ArgumentError, "offsets start with 0"),
        ((WORDS, np.array([0.0])), DtypeError, "expected offsets that are integers"),
    ],
)
def test_bags_that_do_not_fit_are_named_with_the_layers_path(inputs, error, message):
    layer, params = bag("sum")
    with pytest.raises(error, match=f"^in layer 'bag': EmbeddingBag.*{message}"):
        nn.serial(bag=layer).apply({"bag": params}, inputs)


def test_settings_of_bags_are_checked():
    with pytest.raises(ArgumentError, match="EmbeddingBag: mode must be one of 'mean', 'sum', 'max', got 'min'"):
        nn.EmbeddingBag(7, 3, mode="min")
    with pytest.raises(ArgumentError, match="EmbeddingBag: vocab must be"):
        nn.EmbeddingBag(0, 3)
    with pytest.raises(ArgumentError, match="EmbeddingBag: padding_idx is one of the words 0 to 6, got 7"):
        nn.EmbeddingBag(7, 3, padding_idx=7)
    with pytest.raises(ArgumentError, match="Embedding: padding_idx must be an integer and at least 0, got -1"):
        nn.Embedding(7, 3, padding_idx=-1)
    with pytest.raises(ShapeError, match=r"^in layer 'bag': .* got shape \(-1, 2, 3\)"):
        nn.serial(bag=nn.EmbeddingBag(7, 3)).init(random.key(0), (-1, 2, 3))
