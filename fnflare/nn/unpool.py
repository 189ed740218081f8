"""The way back from a pool: maxima to where they were found."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.layer import Layer, Shape, checked_shape, is_pair_of_shapes, layer, positive_int
from fnflare.nn.windows import Padding, Window
from fnflare.ops.at import at

__all__ = ["MaxUnpool"]

_KIND = "MaxUnpool"


def MaxUnpool(
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "VALID",
    size: int | tuple[int, ...] | None = None,
) -> Layer:
    """Maxima put back to where `MaxPool` found them, zeros everywhere else (Zeiler & Fergus 2014).

    Inputs a pair (values, indices), both (N, *in, C), as ``MaxPool(..., return_indices=True)`` gives them;
    outputs (N, *spatial, C). Of several values for one place the last stays. No parameters.

    Args:
        window: as that of the pool.
        strides: as those of the pool.
        padding: as that of the pool; pairs (low, high) or ``"VALID"``, others do not say how large its input was.
        size: of the output along each spatial axis, that of the pool's input; by default the least that gives
            as many windows.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> from fnflare import nn
    >>> pair = nn.MaxPool(2, return_indices=True).apply((), np.array([[[1.0], [3.0], [2.0], [0.0]]]))
    >>> nn.MaxUnpool(2).apply((), pair).ravel()
    array([0., 3., 2., 0.])
    """
    win = Window(_KIND, window, window if strides is None else strides, padding)
    given = None
    if size is not None:
        sizes = size if isinstance(size, (tuple, list)) else (size,)
        given = tuple([positive_int(_KIND, "size", n) for n in sizes])
        if len(given) != win.rank:
            raise ArgumentError(f"{_KIND}: size needs an integer for each of the {win.rank} axes, got {size!r}")
    elif isinstance(win.padding, str) and win.padding != "VALID":
        raise ArgumentError(
            f"{_KIND}: with {win.padding!r} padding pools of several sizes give the same number of windows; give size="
        )

    def spatial(sizes: Any) -> tuple[int, ...]:
        """The size of the output; -1 stays."""
        if given is not None:
            return given
        pads = win.pads(sizes)
        axes = zip(sizes, win.strides, win.size, pads, strict=True)
        return tuple([-1 if n < 0 else (n - 1) * s + k - low - high for n, s, k, (low, high) in axes])

    def init(key: Any, input_shape: Any) -> tuple[Shape, Any]:
        shapes = [checked_shape(_KIND, s) for s in input_shape] if is_pair_of_shapes(input_shape) else []
        if not shapes or len(shapes[0]) != win.rank + 2:
            raise _not_a_pair(win, input_shape)
        shape = shapes[0]
        return (shape[0], *spatial(shape[1:-1]), shape[-1]), ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if not _is_pair(inputs):
            raise _not_a_pair(win, type(inputs).__name__)
        values, indices = inputs
        shape = np.shape(values)
        if len(shape) != win.rank + 2 or np.shape(indices) != shape:
            raise _not_a_pair(win, (shape, np.shape(indices)))
        if indices.dtype.kind not in "iu":
            raise DtypeError(f"{scoping.where()}{_KIND} expected indices that are integers, got {indices.dtype}")
        batch, channels = shape[0], shape[-1]
        out = spatial(shape[1:-1])
        rows = np.arange(batch).reshape(-1, 1, 1)
        flat = np.zeros((batch, math.prod(out), channels), values.dtype)
        try:
            places = np.reshape(indices, (batch, math.prod(shape[1:-1]), channels))
            filled = at(flat)[rows, places, np.arange(channels)].set(np.reshape(values, places.shape))
        except IndexError:
            raise ArgumentError(
                f"{scoping.where()}{_KIND}: the indices do not lie within an output of size {out}; give size=, that of "
                "the pool's input"
            ) from None
        return np.reshape(filled, (batch, *out, channels))

    return layer(_KIND, init, apply, lambda shape, out, params: 0, several=True)


def _is_pair(inputs: Any) -> bool:
    return isinstance(inputs, (tuple, list)) and len(inputs) == 2


def _not_a_pair(win: Window, got: Any) -> ShapeError:
    return ShapeError(
        f"{scoping.where()}{_KIND} expected a pair (values, indices), both {win.wanted}, got {got}; "
        "MaxPool(..., return_indices=True) gives one"
    )
