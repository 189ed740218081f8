"""One or more of each public layer of `fnflare.nn`, with the shape of its inputs, for the laws that all layers keep."""

from typing import Any, NamedTuple

import numpy as np

from fnflare import nn

__all__ = ["LAYERS", "Sample", "public_layers"]


class Sample(NamedTuple):
    """A layer, the shape of its inputs, and what `check_layer` is told besides."""

    layer: Any
    input_shape: Any
    options: dict[str, Any] = {}  # noqa: RUF012 (nobody writes into it)


def words(rng, shape):
    return rng.integers(0, 5, shape)


def sentences(rng, shape):
    """A padded batch; what stands behind the ends is large, so that whoever looks at it is found out."""
    lengths = rng.integers(1, shape[1] + 1, shape[0])
    lengths[0] = shape[1]
    values = nn.Padded(rng.standard_normal(shape).astype(np.float32), lengths)
    return nn.Padded(np.where(values.mask()[:, :, None], values.values, np.float32(9)), lengths)


def pointwise(name):
    return [Sample(getattr(nn, name), (-1, 3))]


TABLE = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)
PADDED = {"inputs": sentences}

#: By the public name of what makes the layer.
LAYERS: dict[str, list[Sample]] = {
    **{
        name: pointwise(name)
        for name in (
            "Elu", "Gelu", "Identity", "LeakyRelu", "LogSigmoid", "LogSoftmax", "Relu", "Selu", "Sigmoid", "Silu",
            "Softmax", "Softplus", "Tanh",
        )
    },
    "AvgPool": [
        Sample(nn.AvgPool((2, 2)), (-1, 4, 5, 2)),
        Sample(nn.AvgPool(3, strides=1, padding="SAME"), (-1, -1, 2)),
    ],
    "BatchNorm": [Sample(nn.with_state(nn.BatchNorm()), (-1, 3))],
    "Conv": [
        Sample(nn.Conv(3, 3), (-1, 5, 2)),
        Sample(nn.Conv(2, 2, padding="CAUSAL", dilation=2), (-1, -1, 2)),
        Sample(nn.Conv(2, (3, 2), strides=(2, 1)), (-1, 6, 5, 2)),
    ],
    "Dense": [Sample(nn.Dense(4), (-1, 3)), Sample(nn.Dense(2, bias=False), (-1, -1, 3), {"order": 2})],
    "Dropout": [Sample(nn.Dropout(0.4), (-1, 3))],
    "Embedding": [Sample(nn.Embedding(5, 3), (-1, -1), {"inputs": words})],
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
    ],
    "RNN": [Sample(nn.RNN(3, reverse=True), (-1, -1, 2))],
    "Recurrent": [Sample(nn.Recurrent(nn.GRUCell(2), bidirectional=True), (-1, -1, 2))],
    "elementwise": [Sample(nn.elementwise(np.sin), (-1, 3))],
    "parallel": [Sample(nn.parallel(a=nn.Dense(2), b=nn.Tanh), ((-1, 3), (-1, 2)))],
    "residual": [Sample(nn.residual(nn.serial(nn.Dense(3), nn.Dropout(0.3))), (-1, 3))],
    "serial": [Sample(nn.serial(nn.serial(hidden=nn.Dense(3), act=nn.Relu), nn.Dropout(0.3), nn.Dense(2)), (-1, 3))],
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
