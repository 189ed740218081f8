"""One or more of each public layer of `fnflare.nn`, with the shape of its inputs, for the laws that all layers keep."""

from typing import Any, NamedTuple

import numpy as np

from fnflare import nn
from fnflare.testing.layer_laws import APPLY_LAWS, INIT_LAWS

__all__ = ["LAYERS", "Sample", "public_layers"]


class Sample(NamedTuple):
    """A layer, the shape of its inputs, and what `check_layer` is told besides."""

    layer: Any
    input_shape: Any
    options: dict[str, Any] = {}  # noqa: RUF012 (nobody writes into it)


def words(rng, shape):
    return rng.integers(0, 5, shape)


def maxima(rng, shape):
    """Maxima of windows of two, and where they were."""
    n, t, c = shape[0]
    places = 2 * np.arange(t)[None, :, None] + rng.integers(0, 2, (n, t, c))
    return rng.standard_normal((n, t, c)).astype(np.float32), places


def sentences(rng, shape):
    """A padded batch; what stands behind the ends is large, so that whoever looks at it is found out."""
    lengths = rng.integers(1, shape[1] + 1, shape[0])
    lengths[0] = shape[1]
    values = nn.Padded(rng.standard_normal(shape).astype(np.float32), lengths)
    return nn.Padded(np.where(values.mask()[:, :, None], values.values, np.float32(9)), lengths)


def pointwise(name):
    return [Sample(getattr(nn, name), (-1, 3))]


TABLE = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)
BUT_GRADIENTS = [law for law in (*INIT_LAWS, *APPLY_LAWS) if law != "gradients"]
PADDED = {"inputs": sentences}

#: By the public name of what makes the layer.
LAYERS: dict[str, list[Sample]] = {
    **{
        name: pointwise(name)
        for name in (
            "Celu", "Elu", "Gelu", "GeluTanh", "HardShrink", "HardSigmoid", "HardSwish", "HardTanh", "Identity",
            "LeakyRelu", "Lisht", "LogCosh", "LogSigmoid", "LogSoftmax", "Mish", "Relu", "Relu6", "Selu", "Sigmoid",
            "Silu", "SoftShrink", "SoftSign", "Softmax", "Softmin", "Softplus", "Sparsemax", "Swish", "Tanh",
            "TanhShrink",
        )
    },
    "AdaptiveAvgPool": [Sample(nn.AdaptiveAvgPool((2, 3)), (-1, 4, 5, 2))],
    "AdaptiveMaxPool": [
        Sample(nn.AdaptiveMaxPool((2, 3)), (-1, 4, 5, 2)),
        Sample(nn.AdaptiveMaxPool(2), (-1, -1, 3), PADDED),
    ],
    "AlphaDropout": [Sample(nn.AlphaDropout(0.4), (-1, 3))],
    "AvgPool": [
        Sample(nn.AvgPool((2, 2)), (-1, 4, 5, 2)),
        Sample(nn.AvgPool(3, strides=1, padding="SAME"), (-1, -1, 2)),
    ],
    "BatchNorm": [Sample(nn.with_state(nn.BatchNorm()), (-1, 3))],
    "Bilinear": [Sample(nn.Bilinear(2), ((-1, 3), (-1, 2)))],
    "ConvTranspose": [
        Sample(nn.ConvTranspose(2, 3, strides=2), (-1, 4, 2)),
        Sample(nn.ConvTranspose(4, (2, 3), groups=2), (-1, 3, 4, 2)),
    ],
    "DepthwiseConv": [Sample(nn.DepthwiseConv(3, 2), (-1, 5, 2))],
    "EmbeddingBag": [
        Sample(nn.EmbeddingBag(5, 3), (-1, -1), {"inputs": words}),
        Sample(nn.EmbeddingBag(5, 3, padding_idx=1), (-1, -1), {"inputs": words}),
    ],
    "GaussianDropout": [Sample(nn.GaussianDropout(0.4), (-1, 3))],
    "Glu": [Sample(nn.Glu, (-1, 4))],
    "GroupNorm": [Sample(nn.GroupNorm(2), (-1, 3, 4))],
    "InstanceNorm": [
        Sample(nn.InstanceNorm(), (-1, 5, 2)),
        Sample(nn.with_state(nn.InstanceNorm(track_running_stats=True)), (-1, 5, 2)),
    ],
    "Lambda": [
        Sample(nn.Lambda(lambda x: np.reshape(x, (-1, x.shape[1] // 2, 2, x.shape[2]))), (-1, 4, 3)),
        Sample(nn.Lambda(lambda pair: pair[0] * pair[1]), ((-1, 3), (-1, 3))),
    ],
    "LocalResponseNorm": [Sample(nn.LocalResponseNorm(2, alpha=0.5), (-1, 2, 5))],
    "LpPool": [Sample(nn.LpPool(3, 2), (-1, 6, 2))],
    "MaxUnpool": [Sample(nn.MaxUnpool(2, size=6), ((-1, 3, 2), (-1, 3, 2)), {"inputs": maxima})],
    "Maxout": [Sample(nn.Maxout(2), (-1, 3))],
    "PRelu": [Sample(nn.PRelu(), (-1, 3)), Sample(nn.PRelu(shared=True), (-1, 3))],
    "PixelShuffle": [Sample(nn.PixelShuffle(2), (-1, 2, 3, 4))],
    "PixelUnshuffle": [Sample(nn.PixelUnshuffle(2), (-1, 2, 4, 1))],
    "RMSNorm": [Sample(nn.RMSNorm(), (-1, -1, 3))],
    "RRelu": [Sample(nn.RRelu(), (-1, 3))],
    "Scale": [Sample(nn.Scale(), (-1, 3))],
    "SinusoidalPositions": [Sample(nn.SinusoidalPositions(), (-1, -1, 4))],
    "SpatialDropout": [Sample(nn.SpatialDropout(0.4), (-1, 3, 4))],
    "SpectralNorm": [
        Sample(nn.with_state(nn.SpectralNorm(nn.Dense(3))), (-1, 2), {"train": False}),
        # In training its singular vectors move on, and are not differentiated.
        Sample(nn.with_state(nn.SpectralNorm(nn.Dense(3))), (-1, 2), {"train": True, "laws": BUT_GRADIENTS}),
    ],
    "SumPool": [Sample(nn.SumPool(3, strides=2, padding="SAME"), (-1, 5, 2))],
    "Threshold": [Sample(nn.Threshold(0.1, 0.5), (-1, 3))],
    "Upsample": [Sample(nn.Upsample(2, mode="linear"), (-1, 3, 2, 2)), Sample(nn.Upsample(2), (-1, 3, 2))],
    "VariationalDropout": [Sample(nn.VariationalDropout(0.4), (-1, 3, 4))],
    "WeightNorm": [Sample(nn.WeightNorm(nn.Dense(3)), (-1, 2))],
    "skip": [Sample(nn.skip(nn.Dense(3), np.multiply), (-1, 3))],
    "Conv": [
        Sample(nn.Conv(3, 3), (-1, 5, 2)),
        Sample(nn.Conv(2, 2, padding="CAUSAL", dilation=2), (-1, -1, 2)),
        Sample(nn.Conv(2, (3, 2), strides=(2, 1)), (-1, 6, 5, 2)),
    ],
    "Dense": [Sample(nn.Dense(4), (-1, 3)), Sample(nn.Dense(2, bias=False), (-1, -1, 3), {"order": 2})],
    "Dropout": [Sample(nn.Dropout(0.4), (-1, 3))],
    "Embedding": [
        Sample(nn.Embedding(5, 3), (-1, -1), {"inputs": words}),
        # The vector of the padding is not differentiated.
        Sample(nn.Embedding(5, 3, padding_idx=1), (-1, -1), {"inputs": words, "laws": BUT_GRADIENTS}),
    ],
    "FanInConcat": [Sample(nn.FanInConcat(), ((-1, 3), (-1, 2)))],
    "FanInSum": [Sample(nn.FanInSum, ((-1, 3), (-1, 3)))],
    "FanOut": [Sample(nn.FanOut(2), (-1, 3))],
    "FixedEmbedding": [Sample(nn.FixedEmbedding(TABLE), (-1, -1), {"inputs": words})],
    "Flatten": [Sample(nn.Flatten, (-1, 3, 2))],
    "GRU": [Sample(nn.GRU(3), (-1, -1, 2)), Sample(nn.GRU(2, bidirectional=True), (-1, -1, 2), PADDED)],
    "GlobalAvgPool": [Sample(nn.GlobalAvgPool, (-1, -1, 3)), Sample(nn.GlobalAvgPool, (-1, -1, 3), PADDED)],
    "GlobalMaxPool": [Sample(nn.GlobalMaxPool, (-1, -1, 3)), Sample(nn.GlobalMaxPool, (-1, -1, 3), PADDED)],
    "LSTM": [Sample(nn.LSTM(3), (-1, -1, 2)), Sample(nn.LSTM(2, last=True), (-1, -1, 2), PADDED)],
    "LayerNorm": [Sample(nn.LayerNorm(), (-1, -1, 3))],
    "MaxPool": [
        Sample(nn.MaxPool(2), (-1, 6, 2)),
        Sample(nn.MaxPool((3, 3), strides=2, padding="SAME"), (-1, 4, 5, 2)),
    ],
    "MultiHeadAttention": [
        Sample(nn.MultiHeadAttention(2, causal=True), (-1, -1, 4)),
        Sample(nn.MultiHeadAttention(2), (-1, -1, 4), PADDED),
        Sample(nn.MultiHeadAttention(2, dropout=0.4), (-1, -1, 4)),
        Sample(nn.MultiHeadAttention(2), ((-1, -1, 4), (-1, 3, 2))),
    ],
    "RNN": [Sample(nn.RNN(3, reverse=True), (-1, -1, 2))],
    "Recurrent": [Sample(nn.Recurrent(nn.GRUCell(2), bidirectional=True), (-1, -1, 2))],
    "elementwise": [Sample(nn.elementwise(np.sin), (-1, 3))],
    "parallel": [Sample(nn.parallel(a=nn.Dense(2), b=nn.Tanh), ((-1, 3), (-1, 2)))],
    "residual": [Sample(nn.residual(nn.serial(nn.Dense(3), nn.Dropout(0.3))), (-1, 3))],
    "serial": [Sample(nn.serial(nn.serial(hidden=nn.Dense(3), act=nn.Relu), nn.Dropout(0.3), nn.Dense(2)), (-1, 3))],
    "tied": [
        Sample(
            nn.tied(nn.serial(up=nn.Dense(4), act=nn.Tanh, down=nn.Dense(3)), {"down/W": ("up/W", np.transpose)}),
            (-1, 3),
        )
    ],
    "shape_dependent": [Sample(nn.shape_dependent(lambda shape: nn.Dense(shape[-1])), (-1, 3))],
}  # fmt: skip


def public_layers():
    """The public names of `fnflare.nn` that are layers or make them."""
    found = []
    for name in nn.__all__:
        value = getattr(nn, name)
        returned = getattr(value, "__annotations__", {}).get("return")
        if isinstance(value, nn.Layer) or returned in ("Layer", nn.Layer):
            found.append(name)
    return found
