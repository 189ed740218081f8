"""Feed-forward layers: the laws of every layer, and PyTorch beside each."""

import numpy as np
import pytest
from nn_laws import (
    alone,
    check_against_torch,
    check_derivatives,
    check_layer,
    doubled,
    made,
    normal,
    pulled_back,
    ragged,
)

import fnflare as ff
from fnflare import nn, random, tree
from fnflare.errors import ArgumentError, DtypeError, MissingKeyError, ShapeError

POINTWISE = {
    "Elu": nn.Elu,
    "Gelu": nn.Gelu,
    "LeakyRelu": nn.LeakyRelu,
    "LogSigmoid": nn.LogSigmoid,
    "LogSoftmax": nn.LogSoftmax,
    "Relu": nn.Relu,
    "Selu": nn.Selu,
    "Sigmoid": nn.Sigmoid,
    "Silu": nn.Silu,
    "Softmax": nn.Softmax,
    "Softplus": nn.Softplus,
    "Tanh": nn.Tanh,
}
LAYERS = {
    "Dense": (nn.Dense(4), (5, 3)),
    "Dense over time": (nn.Dense(4, bias=False), (5, 2, 3)),
    "Conv 1-D": (nn.Conv(4, 3), (2, 6, 3)),
    "Conv 1-D causal": (nn.Conv(4, 2, padding="CAUSAL", dilation=2), (2, 6, 3)),
    "Conv 2-D": (nn.Conv(4, (3, 2), strides=(2, 1)), (2, 6, 5, 3)),
    "MaxPool": (nn.MaxPool((2, 2)), (2, 6, 4, 3)),
    "MaxPool that overlaps": (nn.MaxPool(3, strides=2, padding="SAME"), (2, 6, 3)),
    "AvgPool": (nn.AvgPool(2), (2, 6, 3)),
    "AvgPool that overlaps": (nn.AvgPool((3, 3), strides=1, padding="SAME"), (2, 6, 4, 3)),
    "GlobalMaxPool": (nn.GlobalMaxPool, (2, 6, 3)),
    "GlobalAvgPool": (nn.GlobalAvgPool, (2, 6, 4, 3)),
    "Flatten": (nn.Flatten, (2, 6, 4)),
    "LayerNorm": (nn.LayerNorm(), (2, 6, 4)),
    "MultiHeadAttention": (nn.MultiHeadAttention(2, causal=True), (2, 5, 4)),
    **{name: (layer, (3, 4)) for name, layer in POINTWISE.items()},
}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_keeps_the_laws(name):
    layer, shape = LAYERS[name]
    check_layer(layer, normal(*shape))


def test_free_dimensions_stay_free():
    shapes = {
        "Dense": nn.Dense(4).init(random.key(0), (-1, -1, 3))[0],
        "Conv": nn.Conv(4, 3, padding="VALID", strides=2).init(random.key(0), (-1, -1, 3))[0],
        "mixed": nn.MaxPool((2, 2)).init(None, (-1, -1, 8, 3))[0],
        "pooled": nn.GlobalMaxPool.init(None, (-1, -1, 3))[0],
        "words": nn.Embedding(9, 5).init(random.key(0), (-1, -1))[0],
    }
    assert shapes == {
        "Dense": (-1, -1, 4),
        "Conv": (-1, -1, 4),
        "mixed": (-1, -1, 4, 3),
        "pooled": (-1, 3),
        "words": (-1, -1, 5),
    }


# -- beside PyTorch -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 3), (5, 2, 3)])
def test_dense_is_torchs_linear(shape):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = nn.Dense(4)
    params = tree.map(lambda p: p + 0.5, made(layer, shape)[1])
    check_against_torch(
        layer.apply, lambda p, x: torch.nn.functional.linear(x, p["W"].T, p["b"]), params, normal(*shape)
    )


@pytest.mark.parametrize(
    ("window", "settings", "torch_settings"),
    [
        ((3,), {}, {"padding": "same"}),
        ((4,), {"dilation": 2}, {"padding": "same", "dilation": 2}),
        ((3,), {"padding": "VALID", "strides": 2}, {"stride": 2}),
        ((3, 2), {"padding": "VALID", "strides": (2, 1)}, {"stride": (2, 1)}),
        ((3, 3), {"padding": ((2, 2), (1, 1)), "dilation": (1, 2)}, {"padding": (2, 1), "dilation": (1, 2)}),
    ],
)
# PyTorch warns that an even window under "same" padding makes it copy the input.
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_conv_is_torchs(window, settings, torch_settings):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    rank = len(window)
    layer = nn.Conv(4, window, **settings)
    x = normal(2, 7, 6, 3) if rank == 2 else normal(2, 7, 3)
    conv = getattr(torch.nn.functional, f"conv{rank}d")

    def torch_conv(p, x):
        w = p["W"].permute(rank + 1, rank, *range(rank))
        return conv(x.movedim(-1, 1), w, p["b"], **torch_settings).movedim(1, -1)

    check_against_torch(layer.apply, torch_conv, made(layer, x.shape)[1], x)


def test_pools_are_torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    F = torch.nn.functional
    x = normal(2, 7, 6, 3)
    pairs = [
        (nn.MaxPool((2, 3)), lambda x: F.max_pool2d(x, (2, 3))),
        (nn.MaxPool((3, 2), strides=(1, 2)), lambda x: F.max_pool2d(x, (3, 2), (1, 2))),
        (nn.MaxPool((2, 2), padding=((1, 1), (0, 0))), lambda x: F.max_pool2d(x, 2, padding=(1, 0))),
        (nn.AvgPool((2, 3)), lambda x: F.avg_pool2d(x, (2, 3))),
        (
            nn.AvgPool((3, 2), strides=2, padding=((1, 1), (1, 1))),
            lambda x: F.avg_pool2d(x, (3, 2), 2, padding=1, count_include_pad=False),
        ),
    ]
    for layer, pool in pairs:
        check_against_torch(layer.apply, lambda _, x, pool=pool: pool(x.movedim(-1, 1)).movedim(1, -1), (), x)


def test_activations_are_torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = np.concatenate([normal(3, 5), np.zeros((1, 5)), 50 * normal(2, 5, seed=9)])
    F = torch.nn.functional
    torchs = {
        "LeakyRelu": F.leaky_relu,
        "LogSigmoid": F.logsigmoid,
        "LogSoftmax": lambda x: F.log_softmax(x, -1),
        "Softmax": lambda x: F.softmax(x, -1),
        **{name: getattr(F, name.lower()) for name in ("Elu", "Gelu", "Relu", "Selu", "Silu", "Softplus")},
        **{name: getattr(torch, name.lower()) for name in ("Sigmoid", "Tanh")},
    }
    assert set(torchs) == set(POINTWISE)
    for name, f in torchs.items():
        # PyTorch's derivatives of leaky_relu and its like at 0 are those from the left, as ours are; its
        # softplus becomes the identity above 20, hence the tolerance.
        check_against_torch(POINTWISE[name].apply, lambda _, x, f=f: f(x), (), x, rtol=1e-8, atol=1e-8)


def test_approximate_gelu_is_torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    gelu = torch.nn.functional.gelu
    x = normal(4, 5)
    check_against_torch(lambda _, x: nn.gelu(x, True), lambda _, x: gelu(x, approximate="tanh"), (), x)


def test_layer_norm_is_torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, x = nn.LayerNorm(), normal(2, 3, 4)
    params = {"scale": normal(4, seed=5), "bias": normal(4, seed=6)}
    norm = torch.nn.functional.layer_norm
    check_against_torch(layer.apply, lambda p, x: norm(x, (4,), p["scale"], p["bias"]), params, x)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_is_torchs(causal):
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, x = nn.MultiHeadAttention(3, causal=causal), normal(2, 5, 6)
    params = tree.map(lambda p: p + 0.1 * normal(*p.shape, seed=7), made(layer, x.shape)[1])

    def attend(p, x):
        names = ("query", "key", "value")
        return torch.nn.functional.multi_head_attention_forward(
            *[x.transpose(0, 1)] * 3,
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
            need_weights=False,
            attn_mask=torch.ones(5, 5).triu(1).bool() if causal else None,
        )[0].transpose(0, 1)

    check_against_torch(layer.apply, attend, params, x)


def test_embedding_is_torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer = nn.Embedding(7, 3)
    _, params = made(layer, (-1, -1))
    words = np.array([[1, 0, 1], [6, 1, 2]])
    y, ct, (grads,) = pulled_back(lambda p: layer.apply(p, words), params)
    w = torch.tensor(params["W"], requires_grad=True)
    ty = torch.nn.functional.embedding(torch.tensor(words), w)
    ty.backward(torch.tensor(ct))
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(grads["W"], w.grad.numpy(), rtol=1e-12, atol=1e-12)


# -- Padded batches -------------------------------------------------------------------------------

RAGGED = {
    "Conv": nn.Conv(4, 3),
    "Conv valid": nn.Conv(4, 3, padding="VALID", strides=2),
    "Conv causal": nn.Conv(4, 2, padding="CAUSAL", strides=2, dilation=2),
    "MaxPool": nn.MaxPool(2),
    "MaxPool padded": nn.MaxPool(3, strides=2, padding=((1, 1),)),
    "MaxPool with holes": nn.MaxPool(2, strides=1, dilation=2),
    "MaxPool with a rest": nn.MaxPool(2, padding=((0, 0),), ceil_mode=True),
    "AvgPool with a rest": nn.AvgPool(4, strides=3, padding=((1, 0),), ceil_mode=True),
    "AvgPool of the padding too": nn.AvgPool(3, strides=2, padding=((1, 1),), count_include_pad=True),
    "AvgPool of the padding and a rest": nn.AvgPool(
        4, strides=3, padding=((1, 2),), ceil_mode=True, count_include_pad=True
    ),
    "AdaptiveMaxPool": nn.AdaptiveMaxPool(4),
    "AdaptiveAvgPool": nn.AdaptiveAvgPool(4),
    "AdaptiveAvgPool of as many": nn.AdaptiveAvgPool((None,)),
    "AvgPool": nn.AvgPool(3, strides=1, padding="SAME"),
    "AvgPool valid": nn.AvgPool(2),
    "GlobalMaxPool": nn.GlobalMaxPool,
    "GlobalAvgPool": nn.GlobalAvgPool,
    "MultiHeadAttention": nn.MultiHeadAttention(1),
    "causal MultiHeadAttention": nn.MultiHeadAttention(3, causal=True),
    "LayerNorm": nn.LayerNorm(),
    "Dense": nn.Dense(2),
    "Relu": nn.Relu,
}


@pytest.mark.parametrize("name", RAGGED)
def test_a_padded_batch_gives_what_each_sequence_gives_alone(name):
    layer, batch = RAGGED[name], ragged(4, 7, 3, [7, 3, 6, 4])
    _, params = made(layer, (-1, -1, 3))
    params = tree.map(lambda p: p + 0.3, params)

    def together(p, values):
        out = layer.apply(p, nn.Padded(values, batch.lengths))
        return [out.values[i, : out.lengths[i]] if type(out) is nn.Padded else out[i] for i in range(4)]

    def each(p, values):
        return [layer.apply(p, values[i : i + 1, : batch.lengths[i]])[0] for i in range(4)]

    for a, b in zip(together(params, batch.values), each(params, batch.values), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)

    def loss(outputs):
        return sum(np.sum(np.sin(y)) for y in outputs)

    got = ff.grad(lambda p, x: loss(together(p, x)), argnums=(0, 1))(params, batch.values)
    wanted = ff.grad(lambda p, x: loss(each(p, x)), argnums=(0, 1))(params, batch.values)
    for a, b in zip(tree.leaves(got), tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_sequences_without_words_pool_to_zero():
    batch = nn.Padded(np.ones((2, 3, 4), np.float32), np.array([0, 2]))
    for pool in (nn.GlobalMaxPool, nn.GlobalAvgPool, nn.AdaptiveMaxPool(1), nn.AdaptiveAvgPool(1)):
        y = pool.apply((), batch)
        assert y.dtype == np.float32
        np.testing.assert_array_equal(np.reshape(y, (2, 4)), [[0.0] * 4, [1.0] * 4])


def test_same_padding_with_strides_is_refused_for_padded_batches():
    layer, batch = nn.Conv(4, 3, strides=2), ragged(2, 7, 3, [7, 3])
    _, params = made(layer, (-1, -1, 3))
    with pytest.raises(ArgumentError, match="use 'CAUSAL', 'VALID' or pairs"):
        layer.apply(params, batch)


def test_alone_cuts_a_sequence_out():
    batch = ragged(2, 7, 3, [7, 3])
    assert alone(batch, 1).shape == (1, 3, 3)
    assert np.max(alone(batch, 1)) < 1e3


def test_flatten_refuses_a_padded_batch():
    with pytest.raises(ShapeError, match="GlobalMaxPool"):
        nn.Flatten.apply((), ragged(2, 7, 3, [7, 3]))


# -- attention ------------------------------------------------------------------------------------


def test_attention_with_a_mask_sees_only_what_the_mask_shows():
    layer, x = nn.MultiHeadAttention(2), normal(3, 4, 6)
    _, params = made(layer, x.shape)
    causal = nn.MultiHeadAttention(2, causal=True).apply(params, x)
    lower = np.tri(4, dtype=bool)
    for mask in (lower, np.broadcast_to(lower, (3, 4, 4)), np.broadcast_to(lower, (3, 2, 4, 4))):
        np.testing.assert_allclose(layer.apply(params, x, mask=mask), causal, rtol=1e-12)
    nowhere = layer.apply(params, x, mask=np.zeros((4, 4), bool))
    assert np.all(np.isfinite(nowhere))
    with pytest.raises(ShapeError, match=r"expected a mask of shape \(4, 4\)"):
        layer.apply(params, x, mask=np.ones((3, 5), bool))
    with pytest.raises(ShapeError, match=r"or \(3, 2, 4, 4\), got \(2, 4, 4\)"):
        layer.apply(params, x, mask=np.ones((2, 4, 4), bool))
    # A mask that is added to the scores elsewhere says the opposite.
    with pytest.raises(DtypeError, match=r"a mask of booleans, .* got float64; .* write mask == 0"):
        layer.apply(params, x, mask=np.where(lower, 0.0, -np.inf))


def test_attention_with_a_head_size_of_its_own():
    layer = nn.MultiHeadAttention(3, head_size=5, bias=False)
    shape, params = layer.init(random.key(0), (-1, -1, 4))
    assert shape == (-1, -1, 4)
    assert tree.map(np.shape, params) == {
        **{name: {"W": (4, 15)} for name in ("query", "key", "value")},
        "output": {"W": (15, 4)},
    }
    check_layer(layer, normal(2, 5, 4))


def test_heads_that_do_not_divide_the_features():
    with pytest.raises(ArgumentError, match="10 features do not divide among 4 heads; give head_size="):
        nn.MultiHeadAttention(4).init(random.key(0), (-1, -1, 10))


# -- dropout and embeddings -----------------------------------------------------------------------


def test_dropout_drops_its_rate_and_keeps_the_mean():
    layer = nn.Dropout(0.3)
    x = np.ones((200, 500), np.float32)
    y = layer.apply((), x, key=random.key(1), train=True)
    assert y.dtype == np.float32
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(np.mean(y == 0) - 0.3) < 0.01
    np.testing.assert_array_equal(y, layer.apply((), x, key=random.key(1), train=True))
    assert not np.array_equal(y, layer.apply((), x, key=random.key(2), train=True))


def test_dropout_passes_its_inputs_when_not_training():
    x = np.ones(3)
    assert nn.Dropout(0.5).apply((), x) is x
    assert nn.Dropout(0.0).apply((), x, train=True) is x


def test_the_gradient_of_dropout_is_its_mask():
    layer, x, key = nn.Dropout(0.5), normal(4, 5), random.key(3)
    grad = ff.grad(lambda x: np.sum(layer.apply((), x, key=key, train=True)))(x)
    np.testing.assert_allclose(grad * x, layer.apply((), x, key=key, train=True))
    batch = ragged(2, 5, 3, [5, 2])
    assert nn.Dropout(0.5).apply((), batch, key=key, train=True).lengths is batch.lengths


def test_dropout_without_a_key_says_where():
    model = nn.serial(hidden=nn.serial(nn.Dense(3), nn.Dropout(0.5)), out=nn.Dense(1))
    _, params = model.init(random.key(0), (-1, 2))
    with pytest.raises(MissingKeyError, match=r"^in layer 'hidden/1': Dropout .*key=fnflare.random.key\(seed\)"):
        model.apply(params, np.ones((5, 2), np.float32), train=True)


def test_a_fixed_embedding_has_no_parameters_and_keeps_its_dtype():
    matrix = normal(5, 3).astype(np.float32)
    layer = nn.FixedEmbedding(matrix)
    shape, params = layer.init(None, (-1, -1))
    assert (shape, params) == ((-1, -1, 3), ())
    y = layer.apply((), nn.pad([[4, 0], [1]]))
    assert y.values.dtype == np.float32
    np.testing.assert_array_equal(y.values[0], matrix[[4, 0]])
    np.testing.assert_array_equal(y.lengths, [2, 1])


def test_the_row_of_the_padding_starts_at_zero_and_is_not_trained():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    layer, words = nn.Embedding(5, 3, padding_idx=2), np.array([[2, 0, 2], [4, 1, 4]])
    table = layer.init(random.key(0), (-1, -1))[1]["W"]
    assert np.all(np.any(table != 0, axis=1) == [True, True, False, True, True])
    for dtype, apply in ((np.float64, layer.apply), (np.float32, ff.jit(layer.apply))):
        w = (table + 0.25).astype(dtype)
        y, ct, (grads,) = pulled_back(lambda p, f=apply: f(p, words), {"W": w})
        t_w = torch.tensor(w, requires_grad=True)
        t_y = torch.nn.functional.embedding(torch.tensor(words), t_w, padding_idx=2)
        t_y.backward(torch.tensor(ct))
        np.testing.assert_array_equal(y, t_y.detach().numpy())
        np.testing.assert_allclose(grads["W"], t_w.grad.numpy(), rtol=1e-6)
    batch = nn.Padded(words, np.array([3, 1]))
    out = layer.apply({"W": w}, batch)
    assert out.lengths is batch.lengths
    grads = ff.grad(lambda p: np.sum(layer.apply(p, batch).values))({"W": w})
    np.testing.assert_array_equal(grads["W"][:, 0], [1, 1, 0, 0, 2])


def test_words_that_an_embedding_does_not_have():
    layer = nn.Embedding(7, 3)
    _, params = layer.init(random.key(0), (-1, -1))
    with pytest.raises(ArgumentError, match="words 0 to 6, got words from 2 to 7"):
        layer.apply(params, np.array([[2, 7]]))
    with pytest.raises(DtypeError, match="expected an array of integers, got float64"):
        layer.apply(params, np.array([[2.0]]))
    with pytest.raises(DtypeError, match="got list"):
        layer.apply(params, [[2, 3]])


def test_negative_words_are_not_counted_from_the_end():
    layer = nn.Embedding(7, 3)
    _, params = layer.init(random.key(0), (-1, -1))
    for layer in (nn.Embedding(7, 3), nn.FixedEmbedding(params["W"]), nn.EmbeddingBag(7, 3)):
        with pytest.raises(ArgumentError, match="words 0 to 6, got words from -1 to 2"):
            layer.apply(params, np.array([[2, -1]]))
        with pytest.raises(ArgumentError, match="words 0 to 6, got words from -1 to 2"):
            layer.apply(params, nn.Padded(np.array([[2, -1]]), np.array([2])))
    with pytest.raises(ArgumentError, match="words 0 to 6, got words from -1 to -1"):
        nn.Embedding(7, 3).apply(params, np.int64(-1))
    # Past the end of a sequence -1 may stand for nothing.
    y = nn.Embedding(7, 3).apply(params, nn.pad([[2, 3], [4]], value=-1))
    np.testing.assert_array_equal(y.values[1, 0], params["W"][4])


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.MaxPool(3, strides=1, padding="SAME"), (2, 5, 1)),
        (nn.MaxPool(3, strides=1, padding="SAME", return_indices=True), (2, 5, 1)),
        (nn.AdaptiveMaxPool(3), (2, 5, 1)),
        (nn.AdaptiveAvgPool(3), (2, 5, 1)),
        (nn.AvgPool(3, strides=1, padding="SAME"), (2, 5, 1)),
        (nn.Upsample(2, mode="linear"), (2, 5, 1)),
        (nn.Upsample(size=7, mode="linear", align_corners=True), (2, 5, 1)),
        (nn.SinusoidalPositions(), (2, 5, 4)),
        (nn.Softmax, (2, 5)),
        (nn.LogSoftmax, (2, 5)),
        (nn.Sparsemax, (2, 5)),
    ],
)
def test_integers_give_what_the_same_numbers_as_floats_give(layer, shape):
    x = np.random.default_rng(0).integers(-9, 9, shape)
    for apply in (layer.apply, ff.jit(layer.apply)):
        tree.map(np.testing.assert_array_equal, apply((), x), apply((), x.astype(np.float64)))


def test_maxima_of_a_padded_batch_of_integers():
    batch = nn.Padded(np.array([[[-3], [9]], [[-5], [-4]]]), np.array([1, 2]))
    np.testing.assert_array_equal(nn.GlobalMaxPool.apply((), batch), [[-3], [-4]])
    pooled = nn.MaxPool(2, strides=1, padding=[(0, 1)]).apply((), batch)
    np.testing.assert_array_equal(pooled.values[:, 0], [[-3], [-4]])


# -- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "input_shape", "inputs", "message"),
    [
        (nn.Dense(4), (-1, 784), np.zeros((32, 100)), r"Dense expected inputs \(\.\.\., 784\), got \(32, 100\)"),
        (nn.Dense(4), (-1, 784), np.zeros(()), r"Dense expected inputs \(\.\.\., 784\), got \(\)"),
        (nn.Dense(4), (-1, 784), [1.0], r"Dense expected inputs \(\.\.\., 784\), got list"),
        (
            nn.Conv(4, 3),
            (-1, -1, 5),
            np.zeros((2, 9, 6)),
            r"Conv expected inputs \(N, T, C\) with C = 5, got \(2, 9, 6\)",
        ),
        (nn.Conv(4, 3), (-1, -1, 5), np.zeros((2, 5)), r"Conv expected inputs \(N, T, C\), got \(2, 5\)"),
        (nn.Conv(4, (3, 3), padding="VALID"), (-1, -1, -1, 5), np.zeros((1, 2, 9, 5)), r"window \(3, 3\) does not fit"),
        (nn.MaxPool((2, 2)), (-1, 8, 8, 5), np.zeros((2, 5)), r"MaxPool expected inputs \(N, H, W, C\), got \(2, 5\)"),
        (nn.LayerNorm(), (-1, 5), np.zeros((2, 6)), r"LayerNorm expected inputs \(\.\.\., 5\), got \(2, 6\)"),
        (nn.GlobalMaxPool, (-1, -1, 5), np.zeros((2, 5)), r"GlobalMaxPool expected inputs \(N, \.\.\., C\)"),
        (nn.GlobalAvgPool, (-1, -1, 5), np.zeros((2, 0, 5)), "at least one position"),
        (nn.Flatten, (-1, 5), np.zeros(5), r"Flatten expected inputs \(N, \.\.\.\), got \(5,\)"),
        (nn.MultiHeadAttention(1), (-1, -1, 5), np.zeros((2, 5)), r"expected inputs \(N, T, 5\), got \(2, 5\)"),
        (nn.Glu, (-1, 4), [1.0, 2.0], "Glu expected inputs an array, got list"),
        (nn.Sparsemax, (-1, 4), [1.0, 2.0], "Sparsemax expected inputs an array, got list"),
        (nn.Relu, (-1, 4), None, "Relu expected inputs an array, got NoneType"),
        (nn.PRelu(), (-1, 4), [1.0, 2.0], "PRelu expected inputs an array, got list"),
        (nn.RRelu(), (-1, 4), [1.0, 2.0], "RRelu expected inputs an array, got list"),
        (nn.FanInSum, ((-1, 3),) * 2, (np.ones((2, 3)), np.ones((3, 3))), r"\(2, 3\) and \(3, 3\) do not add"),
        (nn.FanInConcat(), ((-1, 3),) * 2, (np.ones((2, 3)), np.ones((3, 3))), "FanInConcat: .* do not fit together"),
        (nn.residual(nn.elementwise(lambda x: x[1:])), (-1, 3), np.ones((3, 3)), "do not add"),
    ],
)
def test_inputs_that_do_not_fit_are_named_with_the_layers_path(layer, input_shape, inputs, message):
    model = nn.serial(first=nn.Identity, hidden=nn.serial(layer))
    _, params = model.init(random.key(0), input_shape)
    with pytest.raises(ShapeError, match=f"^in layer 'hidden/0': .*{message}"):
        model.apply(params, inputs)


@pytest.mark.parametrize(
    ("layer", "input_shape", "message"),
    [
        (nn.Dense(4), (-1, -1), "has to know the number of features"),
        (nn.Dense(4), (), r"Dense expected inputs \(\.\.\., features\)"),
        (nn.Dense(4), ((-1, 3), (-1, 3)), "takes one input"),
        (nn.Dense(4), (-2, 3), r"a dimension is -1 \(free\) or not negative"),
        (nn.Conv(4, 3), (-1, 3), r"Conv expected inputs \(N, T, C\), got input shape \(-1, 3\)"),
        (nn.Conv(4, 3, padding="VALID"), (-1, 2, 3), "does not fit"),
        (nn.Flatten, (-1, -1, 3), "GlobalMaxPool or GlobalAvgPool"),
        (nn.GlobalMaxPool, (-1, 3), r"GlobalMaxPool expected inputs \(N, \.\.\., C\)"),
        (nn.MultiHeadAttention(1), (-1, 3), r"MultiHeadAttention expected inputs \(N, T, features\)"),
    ],
)
def test_input_shapes_that_do_not_fit_are_named_with_the_layers_path(layer, input_shape, message):
    model = nn.serial(first=nn.Identity, hidden=nn.serial(layer))
    with pytest.raises(ShapeError, match=f"^in layer 'hidden/0': .*{message}"):
        model.init(random.key(0), input_shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Dense(0), "Dense: units must be an integer and at least 1, got 0"),
        (lambda: nn.Dense(2.5), "Dense: units must be an integer, got 2.5"),
        (lambda: nn.Dense(True), "at least 1, got True"),
        (lambda: nn.Dense(3, W_init="glorot"), "Dense: W_init must be a function, got 'glorot'"),
        (lambda: nn.Conv(3, ()), "Conv: window needs an integer for at least one axis"),
        (lambda: nn.Conv(3, (3, 3), strides=(1, 1, 1)), "strides needs an integer for each of the 2 axes"),
        (lambda: nn.Conv(3, 3, padding="FULL"), "padding must be 'SAME', 'VALID', 'CAUSAL' or a pair"),
        (lambda: nn.Conv(3, (3, 3), padding="CAUSAL"), "'CAUSAL' padding is for windows over one axis"),
        (lambda: nn.Conv(3, 3, padding=(1, 1)), "explicit padding is a pair"),
        (lambda: nn.Conv(3, 3, padding=((-1, 1),)), "numbers from 0"),
        (lambda: nn.Conv(3, 3, dilation=0), "dilation must be an integer and at least 1"),
        (lambda: nn.MaxPool("2"), "MaxPool: window must be an integer"),
        (lambda: nn.Dropout(1.0), "Dropout: rate must be a number, at least 0 and below 1, got 1.0"),
        (lambda: nn.Dropout("0.5"), "Dropout: rate must be a number"),
        (lambda: nn.Embedding(0, 3), "Embedding: vocab must be"),
        (lambda: nn.FixedEmbedding(np.zeros(3)), r"matrix of shape \(vocab, dim\), got float64 of shape \(3,\)"),
        (lambda: nn.FixedEmbedding(np.zeros((3, 2), int)), "floating-point matrix"),
        (lambda: nn.LayerNorm(epsilon=0), "LayerNorm: epsilon must be a positive number"),
        (lambda: nn.BatchNorm(momentum=1), "BatchNorm: momentum must be a number"),
        (lambda: nn.MultiHeadAttention(0), "MultiHeadAttention: heads must be"),
        (lambda: nn.elementwise(3), "elementwise: expected a function, got 3"),
    ],
)
def test_settings_are_checked_when_the_layer_is_made(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_an_unknown_keyword_is_an_error_that_names_the_layer():
    with pytest.raises(TypeError, match=r"Dense\(\) got an unexpected keyword argument 'unit'"):
        nn.Dense(3, unit=4)
    with pytest.raises(TypeError, match=r"Dense\.apply\(\) got an unexpected keyword argument 'rng'"):
        nn.Dense(3).apply({}, np.zeros((1, 2)), rng=random.key(0))


def test_parameters_without_a_key():
    for layer, shape in ((nn.Dense(3), (-1, 2)), (nn.Conv(3, 3), (-1, -1, 2)), (nn.Embedding(3, 2), (-1,))):
        with pytest.raises(MissingKeyError, match="draws its parameters: pass init a key"):
            layer.init(None, shape)


def test_initialisers_of_the_users_choice():
    _, params = nn.Dense(3, W_init=nn.zeros, b_init=nn.constant(2.0)).init(random.key(0), (-1, 4))
    assert tree.equal(params, {"W": np.zeros((4, 3), np.float32), "b": np.full(3, 2.0, np.float32)})


def test_elementwise_makes_a_layer_of_a_function():
    layer = nn.elementwise(lambda x: x * x, name="Square")
    batch = nn.pad([[1.0, 2.0], [3.0]])
    np.testing.assert_array_equal(layer.apply((), batch).values, [[1.0, 4.0], [9.0, 0.0]])
    check_derivatives(lambda x: layer.apply((), x), normal(3, 4))
    assert doubled(layer.init(None, (-1, 2))[1]) == ()
