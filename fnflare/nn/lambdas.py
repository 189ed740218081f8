"""Any function as a layer: to reshape, pad, transpose or take apart what flows by.

A function of arrays goes in, a layer without parameters comes out; what shapes it makes is found out by running it on
arrays that have a shape and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.combinators import foretold
from fnflare.nn.layer import Layer, layer
from fnflare.padded import Padded

__all__ = ["Lambda"]

_ERRORS = (ValueError, TypeError, IndexError)


def Lambda(f: Callable[[Any], Any], name: str | None = None) -> Layer:
    """A layer without parameters that is a function of its inputs. One that keeps the shape is `elementwise`.

    Args:
        f: gets the inputs, an array or a tuple of such, and returns an array or a tuple. Of a `Padded` batch it gets
            the values, and has to keep the axes of the batch and of time; the lengths stay.
        name: what `summary` calls the layer; the function's own name by default.

    Raises:
        ArgumentError: `f` is not a function.
        ShapeError: when initialised, `f` does not take inputs of such a shape; when applied, it changes the time of a
            `Padded` batch.

    >>> from fnflare import nn
    >>> image = nn.Lambda(lambda x: np.reshape(x, (-1, 28, 28, 1)), name="Image")
    >>> image.init(None, (-1, 784))[0]
    (-1, 28, 28, 1)
    >>> halves = nn.Lambda(lambda x: tuple(np.split(x, 2, axis=-1)))
    >>> halves.init(None, (-1, 6))[0]
    ((-1, 3), (-1, 3))
    """
    if not callable(f):
        raise ArgumentError(f"Lambda: expected a function, got {f!r}")
    kind = name or str(getattr(f, "__name__", type(f).__name__))

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        try:
            return _foretold(f, input_shape), ()
        except _ERRORS as error:
            raise ShapeError(
                f"{scoping.where()}Lambda: {kind} does not take inputs of shape {input_shape}, with 2 and with 3 "
                f"elements along free dimensions: {error}"
            ) from None

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is not Padded:
            return f(inputs)
        values = f(inputs.values)
        if getattr(values, "shape", ())[:2] != inputs.values.shape[:2]:
            raise ShapeError(
                f"{scoping.where()}Lambda: {kind} changes the batch or the time of a Padded batch, of shape "
                f"{inputs.values.shape}, whose lengths it does not know"
            )
        return Padded(values, inputs.lengths)

    return layer(kind, init, apply, lambda shape, out, params: 0, several=True)


def _foretold(f: Callable[[Any], Any], shape: Any) -> Any:
    try:
        return foretold(f, shape)
    except _ERRORS as of_floats:
        try:
            return foretold(f, shape, dtype=np.int64)  # words, say, by which something is read
        except _ERRORS:
            raise of_floats from None
