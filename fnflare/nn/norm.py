"""Normalisation: over the features of each position, over the positions of each example, and over the batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.layer import (
    Layer,
    Shape,
    check_channels,
    fraction,
    known_features,
    layer,
    mismatch,
    positive_int,
    units_of,
)
from fnflare.nn.state import running_state
from fnflare.padded import Padded

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "RMSNorm"]


def _epsilon(kind: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or not value > 0:
        raise ArgumentError(f"{kind}: epsilon must be a positive number, got {value!r}")
    return float(value)


def _affine_params(features: int) -> dict[str, Any]:
    return {"scale": np.ones(features, np.float32), "bias": np.zeros(features, np.float32)}


def _check_features(kind: str, x: Any, scale: Any) -> None:
    shape = np.shape(x)
    if shape[-1:] != scale.shape:
        raise mismatch(kind, f"(..., {scale.shape[0]})", x)


def LayerNorm(epsilon: float = 1e-5, *, affine: bool = True) -> Layer:
    """Normalise the features of each position to mean 0 and variance 1 (Ba et al. 2016).

    Inputs (..., features). A `Padded` batch passes with its lengths.
    Parameters ``{"scale": (features,), "bias": (features,)}``, ones and zeros at first; without `affine` ``()``.

    Args:
        epsilon: added to the variance.
        affine: whether there are parameters.

    >>> shape, params = ff.nn.LayerNorm().init(None, (-1, 4))
    >>> y = ff.nn.LayerNorm().apply(params, np.array([[1.0, 2.0, 3.0, 4.0]], np.float32))
    >>> y.round(2)
    array([[-1.34, -0.45,  0.45,  1.34]], dtype=float32)
    """
    eps = _epsilon("LayerNorm", epsilon)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        features = known_features("LayerNorm", input_shape)
        return input_shape, _affine_params(features) if affine else ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values), inputs.lengths)
        if affine:
            _check_features("LayerNorm", inputs, params["scale"])
        elif not getattr(inputs, "shape", ()):
            raise mismatch("LayerNorm", "(..., features)", inputs)
        centred = inputs - np.mean(inputs, axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        y = centred / np.sqrt(variance + eps)
        return y * params["scale"] + params["bias"] if affine else y

    return layer("LayerNorm", init, apply, lambda shape, out, params: 8 * units_of(out))


def RMSNorm(epsilon: float = 1e-6, *, affine: bool = True) -> Layer:
    """Divide the features of each position by their root mean square (Zhang & Sennrich 2019).

    Inputs (..., features). A `Padded` batch passes with its lengths. Parameters ``{"scale": (features,)}``, ones at
    first; without `affine` ``()``.

    Args:
        epsilon: added to the mean square.
        affine: whether there are parameters.

    >>> shape, params = ff.nn.RMSNorm().init(None, (-1, 2))
    >>> ff.nn.RMSNorm().apply(params, np.array([[3.0, 4.0]], np.float32)).round(3)
    array([[0.849, 1.131]], dtype=float32)
    """
    eps = _epsilon("RMSNorm", epsilon)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        features = known_features("RMSNorm", input_shape)
        return input_shape, {"scale": np.ones(features, np.float32)} if affine else ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values), inputs.lengths)
        if affine:
            _check_features("RMSNorm", inputs, params["scale"])
        elif not getattr(inputs, "shape", ()):
            raise mismatch("RMSNorm", "(..., features)", inputs)
        y = inputs / np.sqrt(np.mean(inputs * inputs, axis=-1, keepdims=True) + eps)
        return y * params["scale"] if affine else y

    return layer("RMSNorm", init, apply, lambda shape, out, params: 4 * units_of(out))


def GroupNorm(groups: int, epsilon: float = 1e-5, *, affine: bool = True) -> Layer:
    """Normalise groups of channels of each example, over all its positions, to mean 0 and variance 1 (Wu & He 2018).

    Inputs (N, ..., C); of a `Padded` batch over each sequence's own length. Parameters ``{"scale": (C,),
    "bias": (C,)}``, ones and zeros at first; without `affine` ``()``.

    Args:
        groups: how many; they have to divide the number of channels.
        epsilon: added to the variance.
        affine: whether there are parameters.

    Raises:
        ArgumentError: a setting is out of range.

    >>> shape, params = ff.nn.GroupNorm(2).init(None, (-1, 8, 8, 6))
    >>> shape, params["scale"].shape
    ((-1, 8, 8, 6), (6,))
    """
    groups = positive_int("GroupNorm", "groups", groups)
    return _grouped("GroupNorm", groups, epsilon, affine)


def InstanceNorm(epsilon: float = 1e-5, *, affine: bool = True) -> Layer:
    """Normalise each channel of each example, over all its positions, to mean 0 and variance 1 (Ulyanov et al. 2016).

    Inputs (N, *spatial, C); of a `Padded` batch over each sequence's own length. Parameters ``{"scale": (C,),
    "bias": (C,)}``, ones and zeros at first; without `affine` ``()``.

    Args:
        epsilon: added to the variance.
        affine: whether there are parameters.

    Raises:
        ArgumentError: a setting is out of range.

    >>> y = ff.nn.InstanceNorm(affine=False).apply((), np.array([[[1.0], [2.0], [3.0]]]))
    >>> y.ravel().round(2)
    array([-1.22,  0.  ,  1.22])
    """
    return _grouped("InstanceNorm", None, epsilon, affine)


def _grouped(kind: str, groups: int | None, epsilon: float, affine: bool) -> Layer:
    """Statistics of each example over its positions, in groups of channels; None for a group for each channel."""
    eps = _epsilon(kind, epsilon)
    # One channel of one position has nothing to be normalised by.
    least, wanted = (3, "(N, ..., C) with at least one axis of positions") if groups is None else (2, "(N, ..., C)")

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        channels = known_features(kind, input_shape)
        if len(input_shape) < least:
            raise ShapeError(f"{scoping.where()}{kind} expected inputs {wanted}, got input shape {input_shape}")
        _check_groups(kind, channels, groups)
        return input_shape, _affine_params(channels) if affine else ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x, mask = (inputs.values, inputs.mask()) if type(inputs) is Padded else (inputs, None)
        shape = np.shape(x)
        if len(shape) < least:
            raise mismatch(kind, wanted, x)
        if affine:
            _check_features(kind, x, params["scale"])
        count = _check_groups(kind, shape[-1], groups)
        y = np.reshape(_normalised(np.reshape(x, (*shape[:-1], count, shape[-1] // count)), mask, eps), shape)
        if affine:
            y = y * params["scale"] + params["bias"]
        return y if mask is None else Padded(y, inputs.lengths)

    return layer(kind, init, apply, lambda shape, out, params: 8 * units_of(out))


def _check_groups(kind: str, channels: int, groups: int | None) -> int:
    count = channels if groups is None else groups
    check_channels(kind, channels, count)
    return count


def _normalised(x: Any, mask: Any, eps: float) -> Any:
    """(N, ..., groups, channels), each group of an example to mean 0 and variance 1; over real positions where there
    is a mask (N, T)."""
    axes = (*range(1, x.ndim - 2), x.ndim - 1)
    if mask is None:
        centred = x - np.mean(x, axis=axes, keepdims=True)
        return centred / np.sqrt(np.mean(centred * centred, axis=axes, keepdims=True) + eps)
    real = np.reshape(mask, (*mask.shape, *[1] * (x.ndim - 2)))
    others = int(np.prod(x.shape[2:-2], dtype=int)) * x.shape[-1]
    count = np.maximum(np.sum(real, axis=1, keepdims=True), 1) * others
    share = (1.0 / count).astype(x.dtype)
    mean = np.sum(np.where(real, x, np.zeros((), x.dtype)), axis=axes, keepdims=True) * share
    centred = np.where(real, x - mean, np.zeros((), x.dtype))
    return centred / np.sqrt(np.sum(centred * centred, axis=axes, keepdims=True) * share + eps)


def BatchNorm(momentum: float = 0.9, epsilon: float = 1e-5, *, affine: bool = True) -> Layer:
    """Normalise each feature over the batch to mean 0 and variance 1 (Ioffe & Szegedy 2015).

    Inputs (N, ..., features); the statistics are taken over all axes but the last, of a `Padded` batch
    over the real positions. In training they are those of the batch; otherwise the running averages,
    which the model keeps in its state: wrap it in `with_state`.

    Parameters ``{"scale": (features,), "bias": (features,)}``, ones and zeros at first, without `affine` ``()``; state
    ``{"mean": (features,), "var": (features,)}``. As in the paper the inputs are divided by the biased
    standard deviation and the average is that of the unbiased variance.

    Args:
        momentum: what remains of the running averages at each step; the rest comes from the batch.
        epsilon: added to the variance.
        affine: whether there are parameters.

    Raises:
        ArgumentError: a setting is out of range, or the model is used without `with_state`.

    >>> from fnflare import nn, random
    >>> model = nn.with_state(nn.serial(dense=nn.Dense(3), norm=nn.BatchNorm()))
    >>> shape, params, state = model.init(random.key(0), (-1, 2))
    >>> y, state = model.apply(params, state, np.ones((5, 2), np.float32), train=True)
    >>> state["norm"]["var"].round(2)
    array([0.9, 0.9, 0.9], dtype=float32)
    """
    momentum = fraction("BatchNorm", "momentum", momentum)
    eps = _epsilon("BatchNorm", epsilon)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        features = known_features("BatchNorm", input_shape)
        running_state("BatchNorm").add(
            "BatchNorm", {"mean": np.zeros(features, np.float32), "var": np.ones(features, np.float32)}
        )
        return input_shape, _affine_params(features) if affine else ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        store = running_state("BatchNorm")
        x, mask = (inputs.values, inputs.mask()) if type(inputs) is Padded else (inputs, None)
        running = store.read("BatchNorm")
        _check_features("BatchNorm", x, running["mean"])
        if train:
            count, mean, var = _moments(x, mask)
            unbiased = var * (count / np.maximum(count - 1, 1)).astype(var.dtype)
            # A batch without a position, such as one of empty sequences, has nothing to say.
            kept, rest = [np.where(count > 0, *c).astype(mean.dtype) for c in ((momentum, 1.0), (1.0 - momentum, 0.0))]
            new = {"mean": kept * running["mean"] + rest * mean, "var": kept * running["var"] + rest * unbiased}
            store.write("BatchNorm", new)
        else:
            mean, var = running["mean"], running["var"]
        # One multiplication and one addition an element: what can be worked out a feature is.
        factor = (params["scale"] if affine else 1.0) / np.sqrt(var + eps)
        y = x * factor + ((params["bias"] if affine else 0.0) - mean * factor)
        return y if mask is None else Padded(y, inputs.lengths)

    return layer("BatchNorm", init, apply, lambda shape, out, params: 2 * units_of(out))


def _moments(x: Any, mask: Any) -> tuple[Any, Any, Any]:
    """The number of positions, and the mean and biased variance of each feature over them."""
    axes = tuple(range(x.ndim - 1))
    if mask is None:
        count = np.float64(math.prod(x.shape[:-1]))
        if not count:
            return count, np.sum(x, axis=axes), np.sum(x, axis=axes)
        mean = np.mean(x, axis=axes)
        centred = x - mean
        return count, mean, np.mean(centred * centred, axis=axes)
    others = int(np.prod(x.shape[2:-1], dtype=int))
    count = np.sum(mask) * others
    weight = np.reshape(mask, (*mask.shape, *(1,) * (x.ndim - 2))).astype(x.dtype)
    share = (1.0 / np.maximum(count, 1)).astype(x.dtype)
    mean = np.sum(np.where(weight > 0, x, 0.0), axis=axes) * share
    centred = np.where(weight > 0, x - mean, 0.0)
    return count, mean, np.sum(centred * centred, axis=axes) * share
