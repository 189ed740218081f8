"""Normalisation: over the features of each position, and over the batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.errors import ArgumentError
from fnflare.nn import scoping
from fnflare.nn.layer import Layer, Shape, fraction, known_features, layer, mismatch, units_of
from fnflare.padded import Padded

__all__ = ["BatchNorm", "LayerNorm"]


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


def LayerNorm(epsilon: float = 1e-5) -> Layer:
    """Normalise the features of each position to mean 0 and variance 1 (Ba et al. 2016).

    Inputs (..., features). A `Padded` batch passes with its lengths.
    Parameters ``{"scale": (features,), "bias": (features,)}``, ones and zeros at first.

    Args:
        epsilon: added to the variance.

    >>> shape, params = LayerNorm().init(None, (-1, 4))
    >>> y = LayerNorm().apply(params, np.array([[1.0, 2.0, 3.0, 4.0]], np.float32))
    >>> y.round(2)
    array([[-1.34, -0.45,  0.45,  1.34]], dtype=float32)
    """
    eps = _epsilon("LayerNorm", epsilon)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        return input_shape, _affine_params(known_features("LayerNorm", input_shape))

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values), inputs.lengths)
        _check_features("LayerNorm", inputs, params["scale"])
        centred = inputs - np.mean(inputs, axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        return centred / np.sqrt(variance + eps) * params["scale"] + params["bias"]

    return layer("LayerNorm", init, apply, lambda shape, out, params: 8 * units_of(out))


def BatchNorm(momentum: float = 0.9, epsilon: float = 1e-5) -> Layer:
    """Normalise each feature over the batch to mean 0 and variance 1 (Ioffe & Szegedy 2015).

    Inputs (N, ..., features); the statistics are taken over all axes but the last, of a `Padded` batch
    over the real positions. In training they are those of the batch; otherwise the running averages,
    which the model keeps in its state: wrap it in `with_state`.

    Parameters ``{"scale": (features,), "bias": (features,)}``, ones and zeros at first; state
    ``{"mean": (features,), "var": (features,)}``. As in the paper the inputs are divided by the biased
    standard deviation and the average is that of the unbiased variance.

    Args:
        momentum: what remains of the running averages at each step; the rest comes from the batch.
        epsilon: added to the variance.

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

    def states() -> Any:
        store = scoping.local.states
        if store is None:
            raise ArgumentError(
                f"{scoping.where()}BatchNorm keeps running statistics, which need a place: wrap the whole model, "
                "as in model = nn.with_state(nn.serial(...)), whose apply takes and returns the state"
            )
        return store

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        features = known_features("BatchNorm", input_shape)
        states().add("BatchNorm", {"mean": np.zeros(features, np.float32), "var": np.ones(features, np.float32)})
        return input_shape, _affine_params(features)

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        store = states()
        x, mask = (inputs.values, inputs.mask()) if type(inputs) is Padded else (inputs, None)
        _check_features("BatchNorm", x, params["scale"])
        running = store.read("BatchNorm")
        if train:
            count, mean, var = _moments(x, mask)
            unbiased = var * (count / np.maximum(count - 1, 1)).astype(var.dtype)
            rest = 1.0 - momentum
            new = {"mean": momentum * running["mean"] + rest * mean, "var": momentum * running["var"] + rest * unbiased}
            store.write("BatchNorm", new)
        else:
            mean, var = running["mean"], running["var"]
        # One multiplication and one addition an element: what can be worked out a feature is.
        factor = params["scale"] / np.sqrt(var + eps)
        y = x * factor + (params["bias"] - mean * factor)
        return y if mask is None else Padded(y, inputs.lengths)

    return layer("BatchNorm", init, apply, lambda shape, out, params: 2 * units_of(out))


def _moments(x: Any, mask: Any) -> tuple[Any, Any, Any]:
    """The number of positions, and the mean and biased variance of each feature over them."""
    axes = tuple(range(x.ndim - 1))
    if mask is None:
        count = np.float64(x.size // x.shape[-1])
        mean = np.mean(x, axis=axes)
        centred = x - mean
        return count, mean, np.mean(centred * centred, axis=axes)
    others = int(np.prod(x.shape[2:-1], dtype=int))
    count = np.maximum(np.sum(mask) * others, 1)
    weight = np.reshape(mask, (*mask.shape, *(1,) * (x.ndim - 2))).astype(x.dtype)
    share = (1.0 / count).astype(x.dtype)
    mean = np.sum(np.where(weight > 0, x, 0.0), axis=axes) * share
    centred = np.where(weight > 0, x - mean, 0.0)
    return count, mean, np.sum(centred * centred, axis=axes) * share
