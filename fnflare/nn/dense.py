"""Fully connected layers and their kin, and flattening to feed them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare import random
from fnflare.errors import ShapeError
from fnflare.nn import scoping
from fnflare.nn.functions import linear
from fnflare.nn.initializers import Initializer, glorot_uniform, ones, zeros
from fnflare.nn.layer import (
    Layer,
    Shape,
    checked_shape,
    function,
    is_pair_of_shapes,
    known_features,
    layer,
    mismatch,
    positive_int,
    require_key,
    units_of,
)
from fnflare.padded import Padded

__all__ = ["Bilinear", "Dense", "Flatten", "Maxout", "Scale"]

_GLOROT = glorot_uniform()


def Dense(
    units: int,
    *,
    bias: bool = True,
    W_init: Initializer = _GLOROT,
    b_init: Initializer = zeros,
) -> Layer:
    """A fully connected layer: ``x @ W + b`` on the last axis.

    Inputs (..., in), outputs (..., units); a `Padded` batch passes with its lengths.
    Parameters ``{"W": (in, units), "b": (units,)}``.

    Args:
        units: the number of outputs.
        bias: whether there is a ``b``.
        W_init: draws W, ``init(key, shape)``.
        b_init: draws b.

    Raises:
        ArgumentError: a setting is out of range.

    >>> shape, params = ff.nn.Dense(10).init(ff.random.key(0), (-1, 784))
    >>> shape, params["W"].shape, params["b"].shape
    ((-1, 10), (784, 10), (10,))
    """
    units = positive_int("Dense", "units", units)
    function("Dense", "W_init", W_init)
    function("Dense", "b_init", b_init)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        features = known_features("Dense", input_shape)
        require_key("Dense", key)
        key_w, key_b = random.split(key)
        params = {"W": W_init(key_w, (features, units))}
        if bias:
            params["b"] = b_init(key_b, (units,))
        return (*input_shape[:-1], units), params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values), inputs.lengths)
        return affine("Dense", inputs, params["W"], params["b"] if bias else None)

    def flops(shape: Shape, out: Shape, params: Any) -> int:
        return units_of(out) * (2 * shape[-1] + bias)

    return layer("Dense", init, apply, flops)


def affine(kind: str, x: Any, w: Any, b: Any) -> Any:
    """``x @ w + b``, or an error that names the layer."""
    try:
        fits = x.shape[-1] == w.shape[0]
    except (AttributeError, IndexError):  # not an array, or one without axes
        fits = False
    if not fits:
        raise mismatch(kind, f"(..., {w.shape[0]})", x)
    return linear(x, w, b)


def Maxout(
    units: int,
    pieces: int = 2,
    *,
    bias: bool = True,
    W_init: Initializer = _GLOROT,
    b_init: Initializer = zeros,
) -> Layer:
    """The maximum of several affine maps: an activation that is learned (Goodfellow et al. 2013).

    Inputs (..., in), outputs (..., units); a `Padded` batch passes with its lengths. Parameters ``{"W": (in,
    units * pieces), "b": (units * pieces,)}``, the pieces of a unit side by side.

    Args:
        units: the number of outputs.
        pieces: the number of affine maps of each.
        bias: whether there is a ``b``.
        W_init: draws W, ``init(key, shape)``.
        b_init: draws b.

    Raises:
        ArgumentError: a setting is out of range.

    >>> shape, params = ff.nn.Maxout(10, pieces=3).init(ff.random.key(0), (-1, 784))
    >>> shape, params["W"].shape
    ((-1, 10), (784, 30))
    """
    units, pieces = positive_int("Maxout", "units", units), positive_int("Maxout", "pieces", pieces)
    function("Maxout", "W_init", W_init)
    function("Maxout", "b_init", b_init)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        features = known_features("Maxout", input_shape)
        require_key("Maxout", key)
        key_w, key_b = random.split(key)
        params = {"W": W_init(key_w, (features, units * pieces))}
        if bias:
            params["b"] = b_init(key_b, (units * pieces,))
        return (*input_shape[:-1], units), params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values), inputs.lengths)
        y = affine("Maxout", inputs, params["W"], params["b"] if bias else None)
        return np.max(np.reshape(y, (*y.shape[:-1], units, pieces)), axis=-1)

    def flops(shape: Shape, out: Shape, params: Any) -> int:
        return units_of(out) * pieces * (2 * shape[-1] + bias + 1)

    return layer("Maxout", init, apply, flops)


def Bilinear(
    units: int,
    *,
    bias: bool = True,
    W_init: Initializer = _GLOROT,
    b_init: Initializer = zeros,
) -> Layer:
    """A bilinear form of two inputs for each output: ``x @ W[:, :, k] @ y + b[k]``.

    Inputs a pair (x, y) of shapes (..., m) and (..., n), outputs (..., units); a pair of `Padded` batches passes with
    the lengths. Parameters ``{"W": (m, n, units), "b": (units,)}``.

    Args:
        units: the number of outputs.
        bias: whether there is a ``b``.
        W_init: draws W, ``init(key, shape)``.
        b_init: draws b.

    Raises:
        ArgumentError: a setting is out of range.

    >>> shape, params = ff.nn.Bilinear(10).init(ff.random.key(0), ((-1, 5), (-1, 7)))
    >>> shape, params["W"].shape
    ((-1, 10), (5, 7, 10))
    """
    kind = "Bilinear"
    units = positive_int(kind, "units", units)
    function(kind, "W_init", W_init)
    function(kind, "b_init", b_init)

    def init(key: Any, input_shape: Any) -> tuple[Shape, Any]:
        if not is_pair_of_shapes(input_shape):
            raise _not_a_pair(input_shape)
        first, second = [checked_shape(kind, s) for s in input_shape]
        m, n = known_features(kind, first), known_features(kind, second)
        if first[:-1] != second[:-1]:
            raise _not_a_pair((first, second))
        require_key(kind, key)
        key_w, key_b = random.split(key)
        params = {"W": W_init(key_w, (m, n, units))}
        if bias:
            params["b"] = b_init(key_b, (units,))
        return (*first[:-1], units), params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        w = params["W"]
        if not (isinstance(inputs, (tuple, list)) and len(inputs) == 2) or type(inputs) is Padded:
            raise _not_a_pair(type(inputs).__name__, w.shape)
        x, y = inputs
        if type(x) is Padded and type(y) is Padded:
            return Padded(apply(params, (x.values, y.values)), x.lengths)
        shapes = getattr(x, "shape", ()), getattr(y, "shape", ())
        if shapes[0][-1:] != w.shape[:1] or shapes[1][-1:] != w.shape[1:2] or shapes[0][:-1] != shapes[1][:-1]:
            raise _not_a_pair(shapes, w.shape)
        # For each row of x the map from y to the outputs, then that of y.
        maps = np.reshape(linear(x, np.reshape(w, (w.shape[0], -1))), (*shapes[0][:-1], w.shape[1], units))
        out = np.reshape(np.expand_dims(y, -2) @ maps, (*shapes[0][:-1], units))
        return out + params["b"] if bias else out

    def flops(shape: Any, out: Shape, params: Any) -> int:
        m, n, _ = params["W"].shape
        return units_of(out) * (2 * n * (m + 1) + bias)

    return layer(kind, init, apply, flops, several=True)


def _not_a_pair(got: Any, w: Any = ("m", "n")) -> ShapeError:
    return ShapeError(
        f"{scoping.where()}Bilinear expected a pair of inputs (..., {w[0]}) and (..., {w[1]}), equal before the last "
        f"axis, got {got}; nn.FanOut(2) makes a pair of one"
    )


def Scale(*, bias: bool = True, scale_init: Initializer = ones, b_init: Initializer = zeros) -> Layer:
    """Each feature times a factor of its own, plus a bias: ``x * scale + b``.

    Inputs and outputs (..., features); a `Padded` batch passes with its lengths. Parameters ``{"scale": (features,),
    "b": (features,)}``.

    Args:
        bias: whether there is a ``b``.
        scale_init: draws the factors, ``init(key, shape)``; by default ones.
        b_init: draws b.

    Raises:
        ArgumentError: an initialiser is not a function.

    >>> shape, params = ff.nn.Scale().init(ff.random.key(0), (-1, 3))
    >>> ff.nn.Scale().apply(params, np.ones((1, 3), np.float32))
    array([[1., 1., 1.]], dtype=float32)
    """
    function("Scale", "scale_init", scale_init)
    function("Scale", "b_init", b_init)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        features = known_features("Scale", input_shape)
        require_key("Scale", key)
        key_scale, key_b = random.split(key)
        params = {"scale": scale_init(key_scale, (features,))}
        if bias:
            params["b"] = b_init(key_b, (features,))
        return input_shape, params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values), inputs.lengths)
        scale = params["scale"]
        if getattr(inputs, "shape", ())[-1:] != scale.shape:
            raise mismatch("Scale", f"(..., {scale.shape[0]})", inputs)
        y = inputs * scale
        return y + params["b"] if bias else y

    return layer("Scale", init, apply, lambda shape, out, params: (1 + bias) * units_of(out))


def _flatten() -> Layer:
    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        if len(input_shape) < 2 or any(n < 0 for n in input_shape[1:]):
            raise ShapeError(
                f"{scoping.where()}Flatten expected inputs (N, ...) of known size past the batch, got input shape "
                f"{input_shape}; for sequences of any length use GlobalMaxPool or GlobalAvgPool"
            )
        return (input_shape[0], math.prod(input_shape[1:])), ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            raise mismatch(
                "Flatten", "(N, ...), not a Padded batch, whose lengths GlobalMaxPool and GlobalAvgPool honour", inputs
            )
        shape = np.shape(inputs)
        if len(shape) < 2:
            raise mismatch("Flatten", "(N, ...)", inputs)
        return np.reshape(inputs, (shape[0], math.prod(shape[1:])))

    return layer("Flatten", init, apply, lambda shape, out, params: 0)


#: The layer that lays each example out in one vector: (N, ...) to (N, size).
Flatten = _flatten()
