"""Layers without parameters that work on each position alone: activations, and any function made a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError
from fnflare.nn import functions as F
from fnflare.nn.layer import Layer, layer, units_of
from fnflare.padded import Padded

__all__ = [
    "Elu",
    "Gelu",
    "Identity",
    "LeakyRelu",
    "LogSigmoid",
    "LogSoftmax",
    "Relu",
    "Selu",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Softplus",
    "Tanh",
    "elementwise",
]


def elementwise(f: Callable[[Any], Any], name: str | None = None) -> Layer:
    """Make a layer of a function that keeps the shape.

    Args:
        f: works on each position alone; of a `Padded` batch it gets the values.
        name: what `summary` calls the layer; the function's own name by default.

    Returns:
        A layer without parameters.

    >>> apply = elementwise(np.sin).apply
    >>> apply((), np.zeros(3))
    array([0., 0., 0.])
    """
    if not callable(f):
        raise ArgumentError(f"elementwise: expected a function, got {f!r}")
    return _pointwise(name or str(getattr(f, "__name__", type(f).__name__)), f, 1)


def _pointwise(name: str, f: Callable[[Any], Any], flops_each: int) -> Layer:
    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        return input_shape, ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(f(inputs.values), inputs.lengths)
        return f(inputs)

    return layer(name, init, apply, lambda shape, out, params: flops_each * units_of(out))


def _identity() -> Layer:
    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        return input_shape, ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        return inputs

    return layer("Identity", init, apply, lambda shape, out, params: 0, several=True)


#: The layer that returns its inputs, whatever they are.
Identity = _identity()
Relu = _pointwise("Relu", F.relu, 1)
LeakyRelu = _pointwise("LeakyRelu", F.leaky_relu, 2)
Elu = _pointwise("Elu", F.elu, 3)
Selu = _pointwise("Selu", F.selu, 4)
Gelu = _pointwise("Gelu", F.gelu, 5)
Silu = _pointwise("Silu", F.silu, 2)
Sigmoid = _pointwise("Sigmoid", F.sigmoid, 1)
LogSigmoid = _pointwise("LogSigmoid", F.log_sigmoid, 3)
Softplus = _pointwise("Softplus", F.softplus, 1)
Tanh = _pointwise("Tanh", np.tanh, 1)
#: Softmax over the last axis.
Softmax = _pointwise("Softmax", F.softmax, 5)
#: The logarithm of the softmax over the last axis.
LogSoftmax = _pointwise("LogSoftmax", F.log_softmax, 5)
