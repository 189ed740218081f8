"""The layer: a pair of pure functions, and what the layers of this package share in making theirs."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare.errors import ArgumentError, MissingKeyError, ShapeError
from fnflare.nn import scoping

__all__ = ["Layer", "Shape"]

#: The shape of an array, -1 standing for a free dimension.
Shape = tuple[int, ...]
Init = Callable[..., tuple[Any, Any]]
Apply = Callable[..., Any]
#: Counts the floating-point operations of one example from (input_shape, output_shape, params).
Flops = Callable[[Any, Any, Any], int]


class Layer(NamedTuple):
    """A layer: two pure functions. Any pair of such functions is one; this one's fields have names.

    Attributes:
        init: ``init(key, input_shape) -> (output_shape, params)`` draws the parameters, a pytree.
            Shapes include the batch; -1 stands for a free dimension, such as batch or time.
        apply: ``apply(params, inputs, *, key=None, train=False) -> outputs``.

    >>> scale = ff.nn.Layer(
    ...     init=lambda key, shape: (shape, {"scale": np.ones(shape[-1], np.float32)}),
    ...     apply=lambda params, inputs, *, key=None, train=False: inputs * params["scale"],
    ... )
    >>> init, apply = scale
    >>> shape, params = init(None, (-1, 3))
    >>> apply(params, np.ones((1, 3), np.float32))
    array([[1., 1., 1.]], dtype=float32)
    """

    init: Init
    apply: Apply


def layer(kind: str, init: Init, apply: Apply, flops: Flops | None = None, *, several: bool = False) -> Layer:
    """Make a layer that knows its kind: Python's own messages name it, and `summary` sees its `init` run.

    Args:
        kind: the name of what made it, such as ``"Dense"``.
        init: as in `Layer`; gets its input shape as a tuple of integers.
        apply: as in `Layer`.
        flops: counts its floating-point operations, free dimensions as 1; None where it cannot know.
        several: whether it takes or gives several arrays, whose shapes come as a tuple.
    """

    def recorded_init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        shape = input_shape if several else checked_shape(kind, input_shape)
        output_shape, params = init(key, shape)
        recorder = scoping.local.recorder
        if recorder is not None:
            count = None if flops is None else flops(shape, output_shape, params)
            recorder.add(kind, output_shape, params, count)
        return output_shape, params

    return named(kind, Layer(recorded_init, apply))


def named(kind: str, pair: Layer) -> Layer:
    """Give the functions of a layer names that say whose they are, for tracebacks and messages."""
    for function, name in zip(pair, ("init", "apply"), strict=True):
        function.__name__, function.__qualname__ = name, f"{kind}.{name}"
    return pair


# -- checks -----------------------------------------------------------------------------------------


def checked_shape(kind: str, shape: Any) -> Shape:
    """The shape of one array, as a tuple of integers."""
    try:
        sizes = tuple([operator.index(n) for n in shape])
    except TypeError:
        raise ShapeError(
            f"{scoping.where()}{kind} takes one input; expected its shape as a tuple of integers, got {shape!r}"
        ) from None
    if any(n < -1 for n in sizes):
        raise ShapeError(f"{scoping.where()}{kind} got input shape {shape!r}; a dimension is -1 (free) or not negative")
    return sizes


def known_features(kind: str, shape: Shape, rank: int | None = None, wanted: str = "(..., features)") -> int:
    """The size of the last axis of an input shape, on which the shapes of parameters depend."""
    if not shape or (rank is not None and len(shape) != rank):
        raise ShapeError(f"{scoping.where()}{kind} expected inputs {wanted}, got input shape {shape}")
    if shape[-1] < 0:
        raise ShapeError(
            f"{scoping.where()}{kind} has to know the number of features, the last axis, to make its parameters; "
            f"got input shape {shape}"
        )
    return shape[-1]


def check_channels(kind: str, channels: int, groups: int) -> None:
    """The channels of an input are as many in each group."""
    if channels % groups:
        raise ShapeError(
            f"{scoping.where()}{kind}: {channels} channels do not divide among {groups} groups; "
            f"choose groups= that divides {channels}"
        )


def mismatch(kind: str, wanted: str, inputs: Any) -> ShapeError:
    """The error for inputs whose shape does not fit the layer."""
    got = np.shape(inputs) if hasattr(inputs, "shape") else type(inputs).__name__
    return ShapeError(f"{scoping.where()}{kind} expected inputs {wanted}, got {got}")


def is_pair_of_shapes(shape: Any) -> bool:
    """Whether this is the shapes of two inputs, and not that of one."""
    return isinstance(shape, (tuple, list)) and len(shape) == 2 and all(isinstance(s, (tuple, list)) for s in shape)


def positive_int(kind: str, name: str, value: Any, least: int = 1) -> int:
    """A setting that is an integer, at least `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{kind}: {name} must be an integer, got {value!r}") from None
    if number < least or isinstance(value, bool):
        raise ArgumentError(f"{kind}: {name} must be an integer and at least {least}, got {value!r}")
    return number


def fraction(kind: str, name: str, value: Any) -> float:
    """A setting that is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 <= value < 1:
        raise ArgumentError(f"{kind}: {name} must be a number, at least 0 and below 1, got {value!r}")
    return float(value)


def function(kind: str, name: str, value: Any) -> Any:
    """A setting that is a function, such as an initialiser."""
    if not callable(value):
        raise ArgumentError(f"{kind}: {name} must be a function, got {value!r}")
    return value


def require_key(kind: str, key: Any) -> None:
    """Parameters are drawn: there has to be a key."""
    if key is None:
        raise MissingKeyError(
            f"{scoping.where()}{kind} draws its parameters: pass init a key, fnflare.random.key(seed)"
        )


def units_of(shape: Any) -> int:
    """The number of elements of one example of this shape, free dimensions counted as 1.

    The first axis is that of the batch and is left out.
    """
    return math.prod([1 if n < 0 else n for n in shape[1:]])
