"""Layers that work on each position alone: activations, and any function made a layer.

An activation is its function (`fnflare.nn.functions`) with its default settings, a pair that is ready to use; with
other settings it is ``elementwise(lambda x: elu(x, 0.5))``. Only those that have parameters, draw random numbers or
have no default are constructors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import ops, random
from fnflare.core import number
from fnflare.errors import ArgumentError, MissingKeyError, ShapeError
from fnflare.nn import functions as F
from fnflare.nn import scoping
from fnflare.nn.initializers import Initializer, constant
from fnflare.nn.layer import Layer, function, known_features, layer, mismatch, units_of
from fnflare.padded import Padded

__all__ = [
    "Celu",
    "Elu",
    "Gelu",
    "GeluTanh",
    "Glu",
    "HardShrink",
    "HardSigmoid",
    "HardSwish",
    "HardTanh",
    "Identity",
    "LeakyRelu",
    "Lisht",
    "LogCosh",
    "LogSigmoid",
    "LogSoftmax",
    "Mish",
    "PRelu",
    "RRelu",
    "Relu",
    "Relu6",
    "Selu",
    "Sigmoid",
    "Silu",
    "SoftShrink",
    "SoftSign",
    "Softmax",
    "Softmin",
    "Softplus",
    "Sparsemax",
    "Swish",
    "Tanh",
    "TanhShrink",
    "Threshold",
    "elementwise",
]

_QUARTER = constant(0.25)


def elementwise(f: Callable[[Any], Any], name: str | None = None) -> Layer:
    """Make a layer of a function that keeps the shape.

    Args:
        f: works on each position alone; of a `Padded` batch it gets the values.
        name: what `summary` calls the layer; the function's own name by default.

    Returns:
        A layer without parameters.

    >>> apply = ff.nn.elementwise(np.sin).apply
    >>> apply((), np.zeros(3))
    array([0., 0., 0.])
    """
    if not callable(f):
        raise ArgumentError(f"elementwise: expected a function, got {f!r}")
    return _pointwise(name or str(getattr(f, "__name__", type(f).__name__)), f, 1)


def _pointwise(name: str, f: Callable[[Any], Any], flops_each: int) -> Layer:
    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        return input_shape, ()

    return layer(name, init, _on_values(name, f), lambda shape, out, params: flops_each * units_of(out))


def _on_values(name: str, f: Callable[[Any], Any]) -> Any:
    """The apply of a layer that is a function of arrays, and of a `Padded` batch's values."""

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(f(inputs.values), inputs.lengths)
        try:
            return f(inputs)
        except (AttributeError, TypeError) as error:
            if hasattr(inputs, "dtype"):
                raise
            raise mismatch(name, "an array", inputs) from error

    return apply


def _identity() -> Layer:
    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        return input_shape, ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        return inputs

    return layer("Identity", init, apply, lambda shape, out, params: 0, several=True)


def _glu() -> Layer:
    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        features = known_features("Glu", input_shape)
        if features % 2:
            raise ShapeError(f"{scoping.where()}Glu halves the features, whose number is odd; got shape {input_shape}")
        return (*input_shape[:-1], features // 2), ()

    return layer("Glu", init, _on_values("Glu", F.glu), lambda shape, out, params: 5 * units_of(out))


#: The layer that returns its inputs, whatever they are.
Identity = _identity()
Relu = _pointwise("Relu", F.relu, 1)
Relu6 = _pointwise("Relu6", F.relu6, 2)
LeakyRelu = _pointwise("LeakyRelu", F.leaky_relu, 2)
Elu = _pointwise("Elu", F.elu, 3)
Celu = _pointwise("Celu", F.celu, 3)
Selu = _pointwise("Selu", F.selu, 4)
Gelu = _pointwise("Gelu", F.gelu, 5)
#: `Gelu` by its approximation with tanh.
GeluTanh = _pointwise("GeluTanh", lambda x: F.gelu(x, approximate=True), 8)
Silu = _pointwise("Silu", F.silu, 2)
#: The other name of `Silu`.
Swish = Silu
Mish = _pointwise("Mish", F.mish, 6)
Lisht = _pointwise("Lisht", F.lisht, 2)
LogCosh = _pointwise("LogCosh", F.logcosh, 6)
Sigmoid = _pointwise("Sigmoid", F.sigmoid, 1)
LogSigmoid = _pointwise("LogSigmoid", F.log_sigmoid, 3)
HardSigmoid = _pointwise("HardSigmoid", F.hardsigmoid, 4)
HardSwish = _pointwise("HardSwish", F.hardswish, 5)
HardTanh = _pointwise("HardTanh", F.hardtanh, 2)
Softplus = _pointwise("Softplus", F.softplus, 1)
SoftSign = _pointwise("SoftSign", F.softsign, 3)
SoftShrink = _pointwise("SoftShrink", F.softshrink, 3)
HardShrink = _pointwise("HardShrink", F.hardshrink, 2)
Tanh = _pointwise("Tanh", np.tanh, 1)
TanhShrink = _pointwise("TanhShrink", F.tanhshrink, 2)
#: Softmax over the last axis.
Softmax = _pointwise("Softmax", F.softmax, 5)
#: Softmax of the negative inputs over the last axis.
Softmin = _pointwise("Softmin", F.softmin, 6)
#: The logarithm of the softmax over the last axis.
LogSoftmax = _pointwise("LogSoftmax", F.log_softmax, 5)
#: Sparsemax over the last axis.
Sparsemax = _pointwise("Sparsemax", F.sparsemax, 10)
#: The gated linear unit: halves the last axis.
Glu = _glu()


def Threshold(threshold: float, value: float) -> Layer:
    """The layer of `fnflare.nn.threshold`: its inputs where they are larger than the threshold, `value` elsewhere.

    Args:
        threshold: what an element has to be larger than to pass.
        value: what stands for one that is not.

    >>> ff.nn.Threshold(0.1, 20.0).apply((), np.array([0.1, 0.2]))
    array([20. ,  0.2])
    """
    return _pointwise("Threshold", lambda x: F.threshold(x, threshold, value), 1)


def PRelu(*, shared: bool = False, slope_init: Initializer = _QUARTER) -> Layer:
    """The leaky rectifier whose slope is learned (He et al. 2015): `fnflare.nn.prelu`.

    Inputs (..., features). A `Padded` batch passes with its lengths. Parameters ``{"slope": (features,)}``.

    Args:
        shared: whether all features share one slope, of shape (); the number of features need not be known then.
        slope_init: draws the slopes, ``init(key, shape)``; 0.25 by default.

    Raises:
        ArgumentError: `slope_init` is not a function.

    >>> shape, params = ff.nn.PRelu().init(None, (-1, 2))
    >>> ff.nn.PRelu().apply(params, np.array([[-2.0, 2.0]], np.float32))
    array([[-0.5,  2. ]], dtype=float32)
    """
    function("PRelu", "slope_init", slope_init)

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        shape = () if shared else (known_features("PRelu", input_shape),)
        return input_shape, {"slope": slope_init(key, shape)}

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values), inputs.lengths)
        slope = params["slope"]
        if not hasattr(inputs, "dtype"):
            raise mismatch("PRelu", "an array", inputs)
        if slope.ndim and np.shape(inputs)[-1:] != slope.shape:
            raise mismatch("PRelu", f"(..., {slope.shape[0]})", inputs)
        return F.prelu(inputs, slope)

    return layer("PRelu", init, apply, lambda shape, out, params: 2 * units_of(out))


def RRelu(lower: float = 1 / 8, upper: float = 1 / 3) -> Layer:
    """The leaky rectifier whose slope is drawn for each element in training, and the mean slope else (Xu et al. 2015).

    Args:
        lower: the least slope.
        upper: the greatest.

    Raises:
        ArgumentError: `lower` is greater than `upper`.
        MissingKeyError: when applied with ``train=True`` and no key.

    >>> ff.nn.RRelu(0.2, 0.4).apply((), np.array([-1.0, 1.0])).round(3)
    array([-0.3,  1. ])
    """
    lower, upper = number(lower), number(upper)
    if not lower <= upper:
        raise ArgumentError(f"RRelu: lower must not be greater than upper, got {lower!r} and {upper!r}")

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        return input_shape, ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values, key=key, train=train), inputs.lengths)
        if not hasattr(inputs, "dtype"):
            raise mismatch("RRelu", "an array", inputs)
        if not train:
            return F.leaky_relu(inputs, (lower + upper) / 2)
        if key is None:
            raise MissingKeyError(
                f"{scoping.where()}RRelu draws its slopes in training: pass apply a key, "
                "as in model.apply(params, inputs, key=fnflare.random.key(seed), train=True)"
            )
        slopes = random.uniform(key, np.shape(inputs), minval=lower, maxval=upper)
        return F.prelu(inputs, ops.convert(slopes, inputs.dtype))

    return layer("RRelu", init, apply, lambda shape, out, params: 2 * units_of(out))
