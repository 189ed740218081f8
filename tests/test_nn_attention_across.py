"""Attention of one sequence to another, as a layer and as a function, and dropout of its weights; PyTorch beside it."""

import numpy as np
import pytest
from nn_laws import alone, check_both_against_torch, check_jit, made, normal, pulled_back, ragged

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.errors import ArgumentError, DtypeError, MissingKeyError, ShapeError

SHAPES = ((2, 5, 6), (2, 4, 3), (2, 4, 5))


def torchs(p, queries, keys, values, heads, **keywords):
    import torch

    y, weights = torch.nn.functional.multi_head_attention_forward(
        *[x.transpose(0, 1) for x in (queries, keys, values)],
        p["query"]["W"].shape[0],
        heads,
        None,
        torch.cat([p[n]["b"] for n in ("query", "key", "value")]),
        None,
        None,
        False,
        0.0,
        p["output"]["W"].T,
        p["output"]["b"],
        use_separate_proj_weight=True,
        q_proj_weight=p["query"]["W"].T,
        k_proj_weight=p["key"]["W"].T,
        v_proj_weight=p["value"]["W"].T,
        average_attn_weights=False,
        **keywords,
    )
    return y.transpose(0, 1), weights


@pytest.mark.parametrize("lengths", [None, [4, 2]])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_to_another_sequence_is_torchs(lengths, masked):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = nn.MultiHeadAttention(3)
    shape, params = made(layer, SHAPES)
    assert shape == SHAPES[0]
    queries, keys, values = [normal(*s, seed=i) for i, s in enumerate(SHAPES)]
    mask = np.tri(5, 4, 1, dtype=bool) if masked else None
    real = None if lengths is None else np.arange(4) < np.array(lengths)[:, None]

    def ours(p, x):
        k, v = p["keys"], p["values"]
        if lengths is not None:
            k, v = nn.Padded(k, np.array(lengths)), nn.Padded(v, np.array(lengths))
        return layer.apply(p["params"], (x, k, v), mask=mask)

    def beside(p, x):
        told = {"attn_mask": None if mask is None else torch.tensor(~mask)}
        told["key_padding_mask"] = None if real is None else torch.tensor(~real)
        return torchs(p["params"], x, p["keys"], p["values"], 3, **told)[0]

    check_both_against_torch(ours, beside, {"params": params, "keys": keys, "values": values}, queries)
    check_jit(ours, {"params": params, "keys": keys, "values": values}, queries)


def test_queries_and_a_memory_are_queries_and_keys_that_are_values():
    layer = nn.MultiHeadAttention(2, causal=True, rotary=True)
    x, memory = normal(2, 3, 4), normal(2, 6, 5)
    params = made(layer, (x.shape, memory.shape))[1]
    y, weights = layer.apply(params, (x, memory), return_weights=True)
    np.testing.assert_array_equal(y, layer.apply(params, (x, memory, memory)))
    assert weights.shape == (2, 2, 3, 6)
    assert not np.any(np.triu(weights, 1))
    own = made(layer, x.shape)[1]
    np.testing.assert_array_equal(layer.apply(own, x), layer.apply(own, (x, x)))


def test_each_pair_of_sequences_gives_what_it_gives_alone():
    layer, heads = nn.MultiHeadAttention(2), 2
    queries, memory = ragged(3, 5, 4, [5, 1, 3]), ragged(3, 6, 3, [2, 6, 4], seed=5)
    params = made(layer, ((-1, -1, 4), (-1, -1, 3)))[1]

    def together(p, x, m):
        pair = (nn.Padded(x, queries.lengths), nn.Padded(m, memory.lengths))
        y, weights = layer.apply(p, pair, return_weights=True)
        assert y.lengths is queries.lengths
        assert weights.shape == (3, heads, 5, 6)
        return [y.values[i : i + 1, :n] for i, n in enumerate(queries.lengths)]

    def each(p, x, m):
        cut = zip(queries.lengths, memory.lengths, strict=True)
        return [layer.apply(p, (x[i : i + 1, :n], m[i : i + 1, :k])) for i, (n, k) in enumerate(cut)]

    def grads(f):
        return ff.grad(lambda *args: sum(np.sum(np.sin(y)) for y in f(*args)), argnums=(0, 1, 2))

    args = (params, queries.values, memory.values)
    for f in (lambda g: g(*args), lambda g: grads(g)(*args)):
        for a, b in zip(tree.leaves(f(together)), tree.leaves(f(each)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    assert alone(queries, 1).shape == (1, 1, 4)


def test_an_empty_memory_gives_nothing():
    layer = nn.MultiHeadAttention(2)
    memory = nn.Padded(np.full((2, 3, 4), 1e3), np.array([0, 2]))
    params = made(layer, ((-1, -1, 4), (-1, -1, 4)))[1]
    params["output"]["b"] = normal(4)
    y, weights = layer.apply(params, (normal(2, 5, 4), memory), return_weights=True)
    assert not weights[0].any()
    np.testing.assert_allclose(y[0], np.tile(params["output"]["b"], (5, 1)))
    assert weights[1, :, :, :2].all()


def test_of_a_padded_batch_a_position_that_may_look_nowhere_sees_the_mean_of_what_is_there():
    layer, batch = nn.MultiHeadAttention(2), ragged(2, 5, 4, [5, 3])
    params = made(layer, (-1, -1, 4))[1]
    mask = np.ones((5, 5), bool)
    mask[1] = False
    out = layer.apply(params, batch, mask=mask)
    np.testing.assert_allclose(
        out.values[1:, :3], layer.apply(params, alone(batch, 1), mask=mask[:3, :3]), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("masked", [False, True])
def test_dot_product_attention_is_torchs(masked):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    q, k, v = normal(2, 5, 3, 4), normal(2, 6, 3, 4, seed=2), normal(2, 6, 3, 2, seed=3)
    mask, bias = (np.tri(5, 6, 2, dtype=bool), None) if masked else (None, normal(3, 5, 6, seed=4))

    def torch_f(p, q):
        q, k, v = [x.transpose(1, 2) for x in (q, p["k"], p["v"])]
        added = torch.tensor(mask if masked else bias.astype(str(q.dtype).split(".")[1]))
        f = torch.nn.functional.scaled_dot_product_attention
        return f(q, k, v, added, scale=0.3).transpose(1, 2)

    def f(p, q):
        b = None if bias is None else bias.astype(q.dtype)
        return nn.dot_product_attention(q, p["k"], p["v"], b, mask, scale=0.3)

    check_both_against_torch(f, torch_f, {"k": k, "v": v}, q)
    check_jit(f, {"k": k, "v": v}, q)
    causal = nn.dot_product_attention(q, k, v, is_causal=True)
    np.testing.assert_array_equal(causal, nn.dot_product_attention(q, k, v, mask=np.tri(5, 6, dtype=bool)))
    both = nn.dot_product_attention(q, k, v, mask=np.eye(5, 6, dtype=bool), is_causal=True)
    np.testing.assert_allclose(both, v[:, :5], rtol=1e-12)


def test_dot_product_attention_is_what_the_heads_of_a_layer_do():
    layer, x = nn.MultiHeadAttention(3, causal=True), normal(2, 5, 6)
    params = made(layer, x.shape)[1]
    heads = [(x @ params[n]["W"] + params[n]["b"]).reshape(2, 5, 3, 2) for n in ("query", "key", "value")]
    mixed = nn.dot_product_attention(*heads, is_causal=True).reshape(2, 5, 6)
    wanted = layer.apply(params, x)
    np.testing.assert_allclose(mixed @ params["output"]["W"] + params["output"]["b"], wanted, rtol=1e-10)


def test_dot_product_attention_says_what_it_wants():
    x = normal(2, 5, 3, 4)
    for bad in ((x, x[0], x), (x, x, x[:, :3]), (x, x[..., :2], x), (x[0], x[0], x[0])):
        with pytest.raises(ShapeError, match=r"dot_product_attention expected \(N, T, heads, size\) and twice"):
            nn.dot_product_attention(*bad)
    with pytest.raises(DtypeError, match="a mask of booleans, got float64; write mask == 0, or bias="):
        nn.dot_product_attention(x, x, x, mask=np.zeros((5, 5)))


# -- dropout --------------------------------------------------------------------------------------


def test_dropout_of_weights_drops_its_rate_and_keeps_the_mean():
    layer, plain, x = nn.MultiHeadAttention(2, dropout=0.25), nn.MultiHeadAttention(2), normal(4, 30, 6)
    params, key = made(layer, x.shape)[1], random.key(3)
    y, weights = layer.apply(params, x, return_weights=True)
    for a, b in zip((y, weights), plain.apply(params, x, return_weights=True), strict=True):
        np.testing.assert_array_equal(a, b)
    dropped_y, dropped = layer.apply(params, x, key=key, train=True, return_weights=True)
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], weights[kept] / 0.75, rtol=1e-12)
    assert abs(np.mean(kept) - 0.75) < 0.02
    # What comes out is what these weights mix.
    v = (x @ params["value"]["W"] + params["value"]["b"]).reshape(4, 30, 2, 3)
    mixed = np.einsum("nhts,nshc->nthc", dropped, v).reshape(4, 30, 6)
    np.testing.assert_allclose(dropped_y, mixed @ params["output"]["W"] + params["output"]["b"], rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(dropped_y, ff.jit(lambda: layer.apply(params, x, key=key, train=True))())
    _, ct, (got,) = pulled_back(lambda x: layer.apply(params, x, key=key, train=True), x)
    assert got.shape == ct.shape


def test_dropout_of_weights_needs_a_key_and_a_rate():
    with pytest.raises(ArgumentError, match="MultiHeadAttention: dropout must be a number, at least 0 and below 1"):
        nn.MultiHeadAttention(2, dropout=1.0)
    model = nn.serial(a=nn.MultiHeadAttention(2, dropout=0.1))
    params = model.init(random.key(0), (-1, -1, 4))[1]
    with pytest.raises(MissingKeyError, match=r"^in layer 'a': Dropout draws random numbers"):
        model.apply(params, np.ones((1, 2, 4), np.float32), train=True)


# -- shapes and errors ----------------------------------------------------------------------------


def test_the_summary_of_attention_to_another_sequence():
    layer = nn.MultiHeadAttention(2)
    apart, own = [nn.summary(layer, s) for s in (((-1, 3, 4), (-1, 5, 4)), (-1, 3, 4))]
    assert apart.output_shape == own.output_shape == (-1, 3, 4)
    assert apart.flops - own.flops == 2 * 2 * (2 * 4 * 4 + 4) + 3 * 2 * (4 * 4 + 6 * 2)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (((2, 5, 4),), r"expected one input, a pair \(queries, memory\) or \(queries, keys, values\), got 1"),
        (((2, 5, 4), (2, 3, 4)), r"expected inputs \(N, T, 3\), got \(2, 3, 4\)"),
        (((2, 5, 4), (3, 6, 3)), r"got shapes \(2, 5, 4\), \(3, 6, 3\), \(3, 6, 3\)"),
        (((2, 5, 4), (2, 6, 3), (2, 5, 3)), r"keys and values \(N, S, ...\), got shapes .*, \(2, 5, 3\)"),
    ],
)
def test_sequences_that_do_not_fit_are_named_with_the_layers_path(inputs, message):
    model = nn.serial(across=nn.MultiHeadAttention(2))
    params = model.init(random.key(0), ((-1, -1, 4), (-1, -1, 3)))[1]
    with pytest.raises(ShapeError, match=f"^in layer 'across': MultiHeadAttention .*{message}"):
        model.apply(params, tuple([np.ones(s, np.float32) for s in inputs]))
