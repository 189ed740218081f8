"""Pooling: the maximum or the mean of each window, or of everything."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import ops
from fnflare.errors import ShapeError
from fnflare.nn import scoping
from fnflare.nn.layer import Layer, Shape, layer, mismatch, units_of
from fnflare.nn.windows import Padding, Window, clear, rewrap
from fnflare.padded import Padded

__all__ = ["AvgPool", "GlobalAvgPool", "GlobalMaxPool", "MaxPool"]


def MaxPool(
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "VALID",
) -> Layer:
    """The maximum of each window, channel by channel.

    Inputs (N, *spatial, C), outputs (N, *out, C). Padding never wins. Of a `Padded` batch each sequence gives
    what it gives alone, and the lengths become those of the outputs. No parameters.

    Args:
        window: the size of the window along each spatial axis; an integer means one axis, time.
        strides: the distance between windows; by default the window's size, so that they do not overlap.
        padding: as in `Conv`.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> MaxPool(2).apply((), np.array([[[1.0], [3.0], [2.0], [0.0]]])).ravel()
    array([3., 2.])
    """
    win = Window("MaxPool", window, window if strides is None else strides, padding)

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x, lengths, pads = win.prepare(inputs, -np.inf)
        return rewrap(_reduce_windows(np.max, win, x, pads, -np.inf), lengths)

    return _pool(win, apply)


def AvgPool(
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "VALID",
) -> Layer:
    """The mean of each window, channel by channel.

    Inputs (N, *spatial, C), outputs (N, *out, C). Padding does not count: a window that sticks out has the
    mean of what lies within. Of a `Padded` batch each sequence gives what it gives alone, and the lengths
    become those of the outputs. No parameters.

    Args:
        window: the size of the window along each spatial axis; an integer means one axis, time.
        strides: the distance between windows; by default the window's size, so that they do not overlap.
        padding: as in `Conv`.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> AvgPool(2).apply((), np.array([[[1.0], [3.0], [2.0], [0.0]]])).ravel()
    array([2., 1.])
    """
    win = Window("AvgPool", window, window if strides is None else strides, padding)

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x, lengths, pads = win.prepare(inputs, 0)
        if lengths is None and not any(map(any, pads)):
            return _reduce_windows(np.mean, win, x, pads, 0)
        real = np.ones(x.shape[:-1], x.dtype) if lengths is None else _ones_within(inputs, x.dtype)
        count = _reduce_windows(np.sum, win, real[..., None], pads, 0)
        return rewrap(_reduce_windows(np.sum, win, x, pads, 0) / np.maximum(count, 1), lengths)

    return _pool(win, apply)


def _ones_within(batch: Padded, dtype: Any) -> Any:
    """1 at the real positions of a padded batch, 0 on the padding, without the channels."""
    return clear(np.ones(batch.values.shape[:-1], dtype), batch.mask(), 0)


def _pool(win: Window, apply: Callable[..., Any]) -> Layer:
    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        return win.output_shape(input_shape, input_shape[-1] if input_shape else 0), ()

    return layer(win.kind, init, apply, lambda shape, out, params: units_of(out) * math.prod(win.size))


def _reduce_windows(f: Any, win: Window, x: Any, pads: tuple[tuple[int, int], ...], fill: float) -> Any:
    """`f` of every window, after padding with `fill`."""
    if any(map(any, pads)):
        x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    spatial = x.shape[1:-1]
    if win.strides == win.size and all(n % k == 0 for n, k in zip(spatial, win.size, strict=True)):
        # Windows that tile the input are a reshape away.
        tiles = [part for n, k in zip(spatial, win.size, strict=True) for part in (n // k, k)]
        tiled = np.reshape(x, (x.shape[0], *tiles, x.shape[-1]))
        return f(tiled, axis=tuple(range(2, 2 * win.rank + 1, 2)))
    view = ops.windows(x, win.size, win.strides, win.dilation)
    return f(view, axis=tuple(range(-win.rank, 0)))


def _global(kind: str, of_array: Callable[[Any, Any], Any], of_padded: Callable[[Any, Any, Any], Any]) -> Layer:
    """A layer that reduces all axes between the batch and the channels."""

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        if len(input_shape) < 3:
            raise ShapeError(f"{scoping.where()}{kind} expected inputs (N, ..., C), got input shape {input_shape}")
        return (input_shape[0], input_shape[-1]), ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        values = inputs.values if type(inputs) is Padded else inputs
        shape = getattr(values, "shape", ())
        if len(shape) < 3 or 0 in shape[1:-1]:
            raise mismatch(kind, "(N, ..., C) with at least one position", values)
        axes = tuple(range(1, len(shape) - 1))
        return of_padded(inputs, values, axes) if type(inputs) is Padded else of_array(values, axes)

    return layer(kind, init, apply, lambda shape, out, params: units_of(shape))


def _max_of_padded(batch: Padded, values: Any, axes: Any) -> Any:
    top = np.max(clear(values, batch.mask(), -np.inf), axis=axes)
    # A sequence without words has no maximum; 0 lets the rest of the batch go on.
    return np.where(np.reshape(batch.lengths, (-1, 1)) > 0, top, np.zeros((), values.dtype))


def _mean_of_padded(batch: Padded, values: Any, axes: Any) -> Any:
    count = np.maximum(batch.lengths, 1) * math.prod(values.shape[2:-1])
    return np.sum(clear(values, batch.mask(), 0), axis=axes) / np.reshape(count, (-1, 1)).astype(values.dtype)


#: The maximum of each channel over all positions: (N, ..., C) to (N, C). Of a `Padded` batch over each
#: sequence's own length; 0 for a sequence of length 0.
GlobalMaxPool = _global("GlobalMaxPool", lambda x, axes: np.max(x, axis=axes), _max_of_padded)
#: The mean of each channel over all positions: (N, ..., C) to (N, C). Of a `Padded` batch over each
#: sequence's own length; 0 for a sequence of length 0.
GlobalAvgPool = _global("GlobalAvgPool", lambda x, axes: np.mean(x, axis=axes), _mean_of_padded)
