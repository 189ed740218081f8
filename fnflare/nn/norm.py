"""Normalisation: over the features of each position, over the positions of each example, and over the batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import number
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

__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]


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


def InstanceNorm(
    epsilon: float = 1e-5, *, affine: bool = True, track_running_stats: bool = False, momentum: float = 0.9
) -> Layer:
    """Normalise each channel of each example, over all its positions, to mean 0 and variance 1 (Ulyanov et al. 2016).

    Inputs (N, *spatial, C); of a `Padded` batch over each sequence's own length. Parameters ``{"scale": (C,),
    "bias": (C,)}``, ones and zeros at first; without `affine` ``()``. With `track_running_stats` there is a state
    ``{"mean": (C,), "var": (C,)}``, as that of `BatchNorm`: wrap the model in `with_state`.

    Args:
        epsilon: added to the variance.
        affine: whether there are parameters.
        track_running_stats: whether the means and unbiased variances of the examples are averaged in training, and
            all examples are normalised by these averages otherwise.
        momentum: what remains of the running averages at each step; the rest comes from the batch.

    Raises:
        ArgumentError: a setting is out of range, or a model with running statistics is used without `with_state`.

    >>> y = ff.nn.InstanceNorm(affine=False).apply((), np.array([[[1.0], [2.0], [3.0]]]))
    >>> y.ravel().round(2)
    array([-1.22,  0.  ,  1.22])
    """
    momentum = fraction("InstanceNorm", "momentum", momentum)
    return _grouped("InstanceNorm", None, epsilon, affine, momentum if track_running_stats else None)


def _grouped(kind: str, groups: int | None, epsilon: float, affine: bool, momentum: float | None = None) -> Layer:
    """Statistics of each example over its positions, in groups of channels; None for a group for each channel. With a
    momentum they are averaged, each channel being a group."""
    eps = _epsilon(kind, epsilon)
    # One channel of one position has nothing to be normalised by.
    least, wanted = (3, "(N, ..., C) with at least one axis of positions") if groups is None else (2, "(N, ..., C)")

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        channels = known_features(kind, input_shape)
        if len(input_shape) < least:
            raise ShapeError(f"{scoping.where()}{kind} expected inputs {wanted}, got input shape {input_shape}")
        _check_groups(kind, channels, groups)
        if momentum is not None:
            running_state(kind).add(kind, _first_averages(channels))
        return input_shape, _affine_params(channels) if affine else ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x, mask = (inputs.values, inputs.mask()) if type(inputs) is Padded else (inputs, None)
        shape = np.shape(x)
        if len(shape) < least:
            raise mismatch(kind, wanted, x)
        if affine:
            _check_features(kind, x, params["scale"])
        count = _check_groups(kind, shape[-1], groups)
        store = None if momentum is None else running_state(kind)
        if store is not None and not train:
            running = store.read(kind)
            _check_features(kind, x, running["mean"])
            y = _by_feature(x, running["mean"], running["var"], params if affine else None, eps)
            return y if mask is None else Padded(y, inputs.lengths)
        parted = np.reshape(x, (*shape[:-1], count, shape[-1] // count))
        positions, mean, centred, variance = _moments_of_examples(parted, mask)
        y = np.reshape(centred / np.sqrt(variance + eps), shape)
        if store is not None and shape[0]:
            running = store.read(kind)
            _check_features(kind, x, running["mean"])
            store.write(kind, _averaged(running, momentum, *_means_over_examples(positions, mean, variance)))
        if affine:
            y = y * params["scale"] + params["bias"]
        return y if mask is None else Padded(y, inputs.lengths)

    return layer(kind, init, apply, lambda shape, out, params: 8 * units_of(out))


def _check_groups(kind: str, channels: int, groups: int | None) -> int:
    count = channels if groups is None else groups
    check_channels(kind, channels, count)
    return count


def _moments_of_examples(x: Any, mask: Any) -> tuple[Any, Any, Any, Any]:
    """The number of elements of each group of an example in (N, ..., groups, channels), their mean, what is left when
    it is taken away, and their biased variance; over real positions where there is a mask (N, T)."""
    axes = (*range(1, x.ndim - 2), x.ndim - 1)
    if mask is None:
        mean = np.mean(x, axis=axes, keepdims=True)
        centred = x - mean
        count = np.full((1,) * x.ndim, math.prod(x.shape[1:-2]) * x.shape[-1])
        return count, mean, centred, np.mean(centred * centred, axis=axes, keepdims=True)
    real = np.reshape(mask, (*mask.shape, *[1] * (x.ndim - 2)))
    others = int(np.prod(x.shape[2:-2], dtype=int)) * x.shape[-1]
    count = np.sum(real, axis=1, keepdims=True) * others
    share = (1.0 / np.maximum(count, 1)).astype(_floating(x.dtype))
    mean = np.sum(np.where(real, x, np.zeros((), x.dtype)), axis=axes, keepdims=True) * share
    centred = np.where(real, x - mean, np.zeros((), x.dtype))
    return count, mean, centred, np.sum(centred * centred, axis=axes, keepdims=True) * share


def _floating(dtype: Any) -> Any:
    """What means of numbers of a dtype are."""
    return dtype if dtype.kind in "fc" else np.dtype(np.float64)


def _means_over_examples(count: Any, mean: Any, variance: Any) -> tuple[Any, Any, Any]:
    """How many examples have a position, and the means over them of means and unbiased variances (N, ..., C, 1)."""
    some = np.broadcast_to(count > 0, (mean.shape[0], *count.shape[1:]))
    examples = np.sum(some)
    share = np.where(some, 1.0 / np.maximum(examples, 1), 0.0).astype(mean.dtype)
    unbiased = variance * (count / np.maximum(count - 1, 1)).astype(mean.dtype)
    return examples, *[np.reshape(np.sum(m * share, axis=0), (-1,)) for m in (mean, unbiased)]


def LocalResponseNorm(size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Layer:
    """Divide each channel of a position by a power of the squares of its neighbours among the channels (Krizhevsky et
    al. 2012): ``x / (k + alpha / size * sum of size squares) ** beta``.

    Inputs (..., C). A `Padded` batch passes with its lengths. No parameters.

    Args:
        size: how many channels are summed: the channel itself, ``size // 2`` before it, the rest after it.
        alpha: the factor of their mean, channels outside counting as zeros.
        beta: the exponent.
        k: what is added to it.

    Raises:
        ArgumentError: the size is not positive.

    >>> ff.nn.LocalResponseNorm(2, alpha=2.0, beta=1.0).apply((), np.array([[1.0, 2.0]])).round(3)
    array([[0.5  , 0.333]])
    """
    size = positive_int("LocalResponseNorm", "size", size)
    alpha, beta, k = number(alpha), number(beta), number(k)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        return input_shape, ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values), inputs.lengths)
        if not getattr(inputs, "shape", ()):
            raise mismatch("LocalResponseNorm", "(..., C)", inputs)
        channels = inputs.shape[-1]
        around = [*[(0, 0)] * (inputs.ndim - 1), (size // 2, (size - 1) // 2)]
        squares = np.pad(inputs * inputs, around)
        total = squares[..., :channels]
        for i in range(1, size):
            total = total + squares[..., i : i + channels]
        return inputs / (k + alpha / size * total) ** beta

    return layer("LocalResponseNorm", init, apply, lambda shape, out, params: (size + 4) * units_of(out))


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
        running_state("BatchNorm").add("BatchNorm", _first_averages(features))
        return input_shape, _affine_params(features) if affine else ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        store = running_state("BatchNorm")
        x, mask = (inputs.values, inputs.mask()) if type(inputs) is Padded else (inputs, None)
        running = store.read("BatchNorm")
        _check_features("BatchNorm", x, running["mean"])
        if train:
            count, mean, var = _moments(x, mask)
            unbiased = var * (count / np.maximum(count - 1, 1)).astype(var.dtype)
            store.write("BatchNorm", _averaged(running, momentum, count, mean, unbiased))
        else:
            mean, var = running["mean"], running["var"]
        y = _by_feature(x, mean, var, params if affine else None, eps)
        return y if mask is None else Padded(y, inputs.lengths)

    return layer("BatchNorm", init, apply, lambda shape, out, params: 2 * units_of(out))


def _first_averages(features: int) -> dict[str, Any]:
    return {"mean": np.zeros(features, np.float32), "var": np.ones(features, np.float32)}


def _averaged(running: Any, momentum: float | None, count: Any, mean: Any, var: Any) -> dict[str, Any]:
    """Running averages after a batch of `count` positions or examples."""
    # A batch without a position, such as one of empty sequences, has nothing to say.
    assert momentum is not None
    kept, rest = [np.where(count > 0, *c).astype(mean.dtype) for c in ((momentum, 1.0), (1.0 - momentum, 0.0))]
    return {"mean": kept * running["mean"] + rest * mean, "var": kept * running["var"] + rest * var}


def _by_feature(x: Any, mean: Any, var: Any, params: Any, eps: float) -> Any:
    """Features normalised by a mean and a variance each, with scale and bias where there are parameters."""
    # One multiplication and one addition an element: what can be worked out a feature is.
    factor = (1.0 if params is None else params["scale"]) / np.sqrt(var + eps)
    return x * factor + ((0.0 if params is None else params["bias"]) - mean * factor)


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
    share = (1.0 / np.maximum(count, 1)).astype(_floating(x.dtype))
    mean = np.sum(np.where(weight > 0, x, 0.0), axis=axes) * share
    centred = np.where(weight > 0, x - mean, 0.0)
    return count, mean, np.sum(centred * centred, axis=axes) * share
