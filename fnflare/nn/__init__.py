"""Layers as pairs of pure functions, what joins them, and what they are trained with.

A layer is ``Layer(init, apply)``: ``init(key, input_shape) -> (output_shape, params)`` and ``apply(params,
inputs, *, key=None, train=False) -> outputs``. Arrays are batch first, time second, channels last.

>>> from fnflare import nn, random
>>> model = nn.serial(words=nn.Embedding(1000, 25), lstm=nn.LSTM(25, bidirectional=True),
...                   pool=nn.GlobalMaxPool, out=nn.Dense(2))
>>> shape, params = model.init(random.key(0), (-1, -1))
>>> shape, params["lstm"]["forward"]["W"].shape
((-1, 2), (25, 100))
"""

from fnflare.nn.activations import (
    Elu,
    Gelu,
    Identity,
    LeakyRelu,
    LogSigmoid,
    LogSoftmax,
    Relu,
    Selu,
    Sigmoid,
    Silu,
    Softmax,
    Softplus,
    Tanh,
    elementwise,
)
from fnflare.nn.attention import MultiHeadAttention
from fnflare.nn.cells import Cell, GRUCell, LSTMCell, RNNCell
from fnflare.nn.combinators import FanInConcat, FanInSum, FanOut, parallel, residual, serial, shape_dependent
from fnflare.nn.conv import Conv
from fnflare.nn.dense import Dense, Flatten
from fnflare.nn.dropout import Dropout
from fnflare.nn.embedding import Embedding, FixedEmbedding
from fnflare.nn.functions import (
    elu,
    gelu,
    leaky_relu,
    linear,
    log_sigmoid,
    log_softmax,
    logsumexp,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from fnflare.nn.initializers import (
    Initializer,
    constant,
    glorot_normal,
    glorot_truncated_normal,
    glorot_uniform,
    he_normal,
    he_truncated_normal,
    he_uniform,
    lecun_normal,
    lecun_truncated_normal,
    lecun_uniform,
    normal,
    ones,
    orthogonal,
    truncated_normal,
    uniform,
    variance_scaling,
    zeros,
)
from fnflare.nn.layer import Layer
from fnflare.nn.losses import (
    absolute_error,
    hinge_loss,
    huber_loss,
    kl_divergence,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
    squared_error,
)
from fnflare.nn.metrics import accuracy, confusion_matrix, f1, precision, recall, top_k_accuracy
from fnflare.nn.norm import BatchNorm, LayerNorm
from fnflare.nn.pool import AvgPool, GlobalAvgPool, GlobalMaxPool, MaxPool
from fnflare.nn.recurrent import GRU, LSTM, RNN, Recurrent
from fnflare.nn.scoping import scope
from fnflare.nn.state import StatefulLayer, with_state
from fnflare.nn.summarize import Summary, summary
from fnflare.padded import Padded, pad

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "AvgPool",
    "BatchNorm",
    "Cell",
    "Conv",
    "Dense",
    "Dropout",
    "Elu",
    "Embedding",
    "FanInConcat",
    "FanInSum",
    "FanOut",
    "FixedEmbedding",
    "Flatten",
    "GRUCell",
    "Gelu",
    "GlobalAvgPool",
    "GlobalMaxPool",
    "Identity",
    "Initializer",
    "LSTMCell",
    "Layer",
    "LayerNorm",
    "LeakyRelu",
    "LogSigmoid",
    "LogSoftmax",
    "MaxPool",
    "MultiHeadAttention",
    "Padded",
    "RNNCell",
    "Recurrent",
    "Relu",
    "Selu",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Softplus",
    "StatefulLayer",
    "Summary",
    "Tanh",
    "absolute_error",
    "accuracy",
    "confusion_matrix",
    "constant",
    "elementwise",
    "elu",
    "f1",
    "gelu",
    "glorot_normal",
    "glorot_truncated_normal",
    "glorot_uniform",
    "he_normal",
    "he_truncated_normal",
    "he_uniform",
    "hinge_loss",
    "huber_loss",
    "kl_divergence",
    "leaky_relu",
    "lecun_normal",
    "lecun_truncated_normal",
    "lecun_uniform",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "normal",
    "ones",
    "orthogonal",
    "pad",
    "parallel",
    "precision",
    "recall",
    "relu",
    "residual",
    "scope",
    "selu",
    "serial",
    "shape_dependent",
    "sigmoid",
    "sigmoid_binary_cross_entropy",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softplus",
    "squared_error",
    "summary",
    "tanh",
    "top_k_accuracy",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "with_state",
    "zeros",
]
