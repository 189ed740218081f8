"""Fully connected layers, and flattening to feed them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare import random
from fnflare.errors import ShapeError
from fnflare.nn import scoping
from fnflare.nn.functions import linear
from fnflare.nn.initializers import Initializer, glorot_uniform, zeros
from fnflare.nn.layer import (
    Layer,
    Shape,
    function,
    known_features,
    layer,
    mismatch,
    positive_int,
    require_key,
    units_of,
)
from fnflare.padded import Padded

__all__ = ["Dense", "Flatten"]

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

    >>> shape, params = Dense(10).init(random.key(0), (-1, 784))
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
