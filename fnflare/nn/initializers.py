"""Initialisers: how a layer's parameters begin.

An initialiser is a function ``init(key, shape, dtype=np.float32) -> array``. As in ``jax.nn.initializers``,
`zeros` and `ones` are initialisers; all others are functions that return one: ``glorot_uniform()``.

Weights have the shape (*window, inputs, outputs), a matrix being one without a window. The fan in is the
number of inputs that one output sees, the window's size times inputs; the fan out likewise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike

from fnflare import random
from fnflare.errors import ArgumentError, ShapeError

__all__ = [
    "Initializer",
    "constant",
    "glorot_normal",
    "glorot_truncated_normal",
    "glorot_uniform",
    "he_normal",
    "he_truncated_normal",
    "he_uniform",
    "lecun_normal",
    "lecun_truncated_normal",
    "lecun_uniform",
    "normal",
    "ones",
    "orthogonal",
    "truncated_normal",
    "uniform",
    "variance_scaling",
    "zeros",
]

Mode = Literal["fan_in", "fan_out", "fan_avg"]
Distribution = Literal["uniform", "normal", "truncated_normal"]


class Initializer(Protocol):
    """``init(key, shape, dtype=np.float32) -> array`` of that shape and dtype, drawn from the key."""

    def __call__(self, key: np.ndarray, shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray: ...


def zeros(key: np.ndarray, shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
    """All zeros; the key is not used.

    >>> ff.nn.zeros(ff.random.key(0), (2,))
    array([0., 0.], dtype=float32)
    """
    return np.zeros(shape, dtype)


def ones(key: np.ndarray, shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
    """All ones; the key is not used.

    >>> ff.nn.ones(ff.random.key(0), (2,))
    array([1., 1.], dtype=float32)
    """
    return np.ones(shape, dtype)


def constant(value: float) -> Initializer:
    """All of one value; the key is not used.

    >>> ff.nn.constant(0.5)(ff.random.key(0), (2,))
    array([0.5, 0.5], dtype=float32)
    """

    def init(key: np.ndarray, shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
        return np.full(shape, value, dtype)

    return init


def uniform(scale: float = 1e-2) -> Initializer:
    """Evenly distributed in [0, scale), as jax has it; layers mostly want `glorot_uniform`.

    >>> w = ff.nn.uniform(0.1)(ff.random.key(0), (100,))
    >>> bool(np.all((0 <= w) & (w < 0.1)))
    True
    """

    def init(key: np.ndarray, shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
        return random.uniform(key, _dims(shape), dtype) * float(scale)

    return init


def normal(stddev: float = 1e-2) -> Initializer:
    """Normally distributed around 0.

    >>> ff.nn.normal(0.1)(ff.random.key(0), (3, 2)).shape
    (3, 2)
    """

    def init(key: np.ndarray, shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
        return random.normal(key, _dims(shape), dtype) * float(stddev)

    return init


def truncated_normal(stddev: float = 1e-2, lower: float = -2.0, upper: float = 2.0) -> Initializer:
    """Normally distributed around 0, without the tails.

    Args:
        stddev: the standard deviation before the tails are cut.
        lower: the least value, in standard deviations.
        upper: the greatest value, in standard deviations.

    >>> w = ff.nn.truncated_normal(0.1)(ff.random.key(0), (100,))
    >>> bool(np.all(np.abs(w) <= 0.2))
    True
    """

    def init(key: np.ndarray, shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
        return random.truncated_normal(key, lower, upper, _dims(shape), dtype) * float(stddev)

    return init


# The standard deviation of a standard normal variable cut at -2 and 2: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).
_STDDEV_WITHIN_2 = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))


def variance_scaling(
    scale: float, mode: Mode, distribution: Distribution, in_axis: int = -2, out_axis: int = -1
) -> Initializer:
    """Zero mean, and the variance ``scale / fan``: signals keep their size from layer to layer.

    Args:
        scale: a factor that makes up for the activation.
        mode: the fan: ``"fan_in"``, ``"fan_out"`` or the mean of both, ``"fan_avg"``.
        distribution: ``"uniform"``, ``"normal"``, or ``"truncated_normal"``, a normal one cut at two standard
            deviations and widened so that the variance is as said.
        in_axis: the axis of the inputs.
        out_axis: the axis of the outputs; all other axes are the window.

    Returns:
        An initialiser. It raises ShapeError for a shape with fewer than 2 dimensions, which has no fans, and
        DtypeError for a dtype other than float32 and float64.

    >>> w = ff.nn.variance_scaling(2.0, "fan_in", "normal")(ff.random.key(0), (200, 300))
    >>> round(float(np.var(w)) * 200, 1)
    2.0
    """
    if scale <= 0:
        raise ArgumentError(f"variance_scaling: scale must be positive, got {scale!r}")
    if mode not in ("fan_in", "fan_out", "fan_avg"):
        raise ArgumentError(f"variance_scaling: mode must be 'fan_in', 'fan_out' or 'fan_avg', got {mode!r}")
    if distribution not in ("uniform", "normal", "truncated_normal"):
        raise ArgumentError(
            f"variance_scaling: distribution must be 'uniform', 'normal' or 'truncated_normal', got {distribution!r}"
        )

    def init(key: np.ndarray, shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
        dims = _dims(shape)
        fan_in, fan_out = _fans(dims, in_axis, out_axis)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[mode]
        stddev = math.sqrt(scale / max(fan, 1))
        if distribution == "uniform":
            limit = math.sqrt(3) * stddev
            return random.uniform(key, dims, dtype, -limit, limit)
        if distribution == "normal":
            return random.normal(key, dims, dtype) * stddev
        return random.truncated_normal(key, -2.0, 2.0, dims, dtype) * (stddev / _STDDEV_WITHIN_2)

    return init


def _dims(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple([int(n) for n in shape])


def _fans(dims: tuple[int, ...], in_axis: int, out_axis: int) -> tuple[int, int]:
    if len(dims) < 2:
        raise ShapeError(
            f"variance_scaling: the shape {dims} has no inputs and outputs, it needs at least 2 dimensions; "
            "write normal(stddev), zeros or another initialiser without fans for vectors"
        )
    inputs, outputs = dims[in_axis], dims[out_axis]
    window = math.prod(dims) // max(inputs * outputs, 1)
    return inputs * window, outputs * window


def glorot_uniform(in_axis: int = -2, out_axis: int = -1) -> Initializer:
    """Variance 2 / (fan in + fan out), even, for layers that are about linear near 0.

    Glorot & Bengio, 2010, "Understanding the difficulty of training deep feedforward neural networks".

    >>> w = ff.nn.glorot_uniform()(ff.random.key(0), (4, 2))
    >>> bool(np.all(np.abs(w) <= 1)), w.dtype
    (True, dtype('float32'))
    """
    return variance_scaling(1.0, "fan_avg", "uniform", in_axis, out_axis)


def glorot_normal(in_axis: int = -2, out_axis: int = -1) -> Initializer:
    """Variance 2 / (fan in + fan out), normal; jax's function of this name is `glorot_truncated_normal`."""
    return variance_scaling(1.0, "fan_avg", "normal", in_axis, out_axis)


def glorot_truncated_normal(in_axis: int = -2, out_axis: int = -1) -> Initializer:
    """Variance 2 / (fan in + fan out), normal without the tails."""
    return variance_scaling(1.0, "fan_avg", "truncated_normal", in_axis, out_axis)


def he_uniform(in_axis: int = -2, out_axis: int = -1) -> Initializer:
    """Variance 2 / fan in, even, for layers before a relu.

    He et al., 2015, "Delving deep into rectifiers".
    """
    return variance_scaling(2.0, "fan_in", "uniform", in_axis, out_axis)


def he_normal(in_axis: int = -2, out_axis: int = -1) -> Initializer:
    """Variance 2 / fan in, normal; jax's function of this name is `he_truncated_normal`."""
    return variance_scaling(2.0, "fan_in", "normal", in_axis, out_axis)


def he_truncated_normal(in_axis: int = -2, out_axis: int = -1) -> Initializer:
    """Variance 2 / fan in, normal without the tails."""
    return variance_scaling(2.0, "fan_in", "truncated_normal", in_axis, out_axis)


def lecun_uniform(in_axis: int = -2, out_axis: int = -1) -> Initializer:
    """Variance 1 / fan in, even.

    LeCun et al., 1998, "Efficient backprop".
    """
    return variance_scaling(1.0, "fan_in", "uniform", in_axis, out_axis)


def lecun_normal(in_axis: int = -2, out_axis: int = -1) -> Initializer:
    """Variance 1 / fan in, normal; jax's function of this name is `lecun_truncated_normal`."""
    return variance_scaling(1.0, "fan_in", "normal", in_axis, out_axis)


def lecun_truncated_normal(in_axis: int = -2, out_axis: int = -1) -> Initializer:
    """Variance 1 / fan in, normal without the tails."""
    return variance_scaling(1.0, "fan_in", "truncated_normal", in_axis, out_axis)


def orthogonal(scale: float = 1.0, column_axis: int = -1) -> Initializer:
    """A matrix with orthonormal rows or columns, whichever are fewer, evenly distributed over all such.

    Saxe et al., 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear neural networks";
    the even distribution is that of Mezzadri, 2007, "How to generate random matrices from the classical
    compact groups".

    Args:
        scale: a factor.
        column_axis: the axis of the columns; all other axes together are the rows.

    Returns:
        An initialiser. It raises ShapeError for a shape with fewer than 2 dimensions.

    >>> w = ff.nn.orthogonal()(ff.random.key(0), (4, 3), np.float64)
    >>> bool(np.allclose(w.T @ w, np.eye(3)))
    True
    """

    def init(key: np.ndarray, shape: Sequence[int], dtype: DTypeLike = np.float32) -> np.ndarray:
        dims = _dims(shape)
        if len(dims) < 2:
            raise ShapeError(f"orthogonal: the shape needs at least 2 dimensions, got {dims}")
        columns = dims[column_axis]
        rows = math.prod(dims) // max(columns, 1)
        tall = random.normal(key, (max(rows, columns), min(rows, columns)), dtype)
        q, r = np.linalg.qr(tall)
        # QR leaves the signs of the columns to chance of the algorithm; these make q evenly distributed.
        q = q * np.where(np.diag(r) < 0, -1, 1).astype(dtype)
        matrix = q if rows >= columns else q.T
        others = np.delete(dims, column_axis)
        return np.ascontiguousarray(np.moveaxis((float(scale) * matrix).reshape(*others, columns), -1, column_axis))

    return init
