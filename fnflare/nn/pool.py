"""Pooling: the maximum, the mean or the norm of each window, or of everything."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import ops
from fnflare.core import number
from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.layer import Layer, Shape, layer, mismatch, units_of
from fnflare.nn.windows import Padding, Window, clear, least, rewrap
from fnflare.padded import Padded

__all__ = ["AvgPool", "GlobalAvgPool", "GlobalMaxPool", "LpPool", "MaxPool", "SumPool"]


def MaxPool(
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "VALID",
    dilation: int | tuple[int, ...] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Layer:
    """The maximum of each window, channel by channel.

    Inputs (N, *spatial, C), outputs (N, *out, C). Padding never wins. Of a `Padded` batch each sequence gives
    what it gives alone, and the lengths become those of the outputs. No parameters.

    Args:
        window: the size of the window along each spatial axis; an integer means one axis, time.
        strides: the distance between windows; by default the window's size, so that they do not overlap.
        padding: as in `Conv`.
        dilation: the distance between the elements of a window along each axis, or one for all.
        ceil_mode: whether what the last whole window along an axis leaves over has one too, which sticks out; it has
            to start within the input or the padding before it.
        return_indices: whether the outputs are a pair: the maxima, and where each was found, an integer that
            counts the positions of its channel in the order of memory, as `MaxUnpool` takes them. Of
            equal elements the first is found then, and gets all of the gradient.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> ff.nn.MaxPool(2).apply((), np.array([[[1.0], [3.0], [2.0], [0.0]]])).ravel()
    array([3., 2.])
    """
    win = Window("MaxPool", window, window if strides is None else strides, padding, dilation, ceil_mode)

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x, lengths, pads = win.prepare(inputs, least)
        if not return_indices:
            return rewrap(_reduce_windows(np.max, win, x, pads, least(x.dtype)), lengths)
        if lengths is not None:
            raise ArgumentError(
                f"{scoping.where()}MaxPool: return_indices=True is for arrays; positions in a Padded batch would not "
                "be those that each sequence gives alone"
            )
        return _max_with_indices(win, x, pads)

    return _pool(win, apply, 2 if return_indices else 1)


def _max_with_indices(win: Window, x: Any, pads: Any) -> tuple[Any, Any]:
    """The maximum of every window, and its position in the input."""
    spatial = x.shape[1:-1]
    if any(map(any, pads)):
        x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=least(x.dtype))
    view = ops.windows(x, win.size, win.strides, win.dilation)
    flat = np.reshape(view, (*view.shape[: -win.rank], math.prod(win.size)))
    best = np.argmax(ops.stop_gradient(flat), axis=-1)
    index: Any = 0
    for k, n in enumerate(spatial):
        within = best // math.prod(win.size[k + 1 :]) % win.size[k] * win.dilation[k]
        starts = np.arange(view.shape[1 + k]).reshape((-1, *[1] * (win.rank - k))) * win.strides[k] - pads[k][0]
        # A window of -inf alone has its first element, which may be padding, and then means the one next to that.
        index = index * n + np.clip(starts + within, 0, n - 1)
    return np.take_along_axis(flat, best[..., None], -1)[..., 0], index


def LpPool(
    p: float,
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "VALID",
    ceil_mode: bool = False,
) -> Layer:
    """The p-norm of each window, channel by channel: ``sum(abs(x) ** p) ** (1 / p)`` (Gulcehre et al. 2014).

    Inputs (N, *spatial, C), outputs (N, *out, C). A window of zeros has a gradient of zeros. Of a `Padded` batch each
    sequence gives what it gives alone, and the lengths become those of the outputs. No parameters.

    Args:
        p: the order of the norm, at least 1.
        window: the size of the window along each spatial axis; an integer means one axis, time.
        strides: the distance between windows; by default the window's size, so that they do not overlap.
        padding: as in `Conv`.
        ceil_mode: whether what the last whole window along an axis leaves over has one too, which sticks out; it has
            to start within the input or the padding before it.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> ff.nn.LpPool(2, 2).apply((), np.array([[[3.0], [-4.0], [0.0], [0.0]]])).ravel()
    array([5., 0.])
    """
    p = order = number(p)
    if isinstance(order, bool) or not isinstance(order, (int, float)) or not 1 <= order < math.inf:
        raise ArgumentError(f"LpPool: p must be a number and at least 1, got {p!r}; for the maximum use MaxPool")
    win = Window("LpPool", window, window if strides is None else strides, padding, ceil_mode=ceil_mode)

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x, lengths, pads = win.prepare(inputs, 0)
        powers = x * x if p == 2 else np.abs(x) ** p
        total = _reduce_windows(np.sum, win, powers, pads, 0)
        some = total != 0
        # The root of the branch that is not taken has to have a finite derivative.
        root = np.where(some, total, np.ones((), x.dtype)) ** (1 / p)
        return rewrap(np.where(some, root, np.zeros((), x.dtype)), lengths)

    return _pool(win, apply)


def SumPool(
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "VALID",
    ceil_mode: bool = False,
) -> Layer:
    """The sum of each window, channel by channel.

    Inputs (N, *spatial, C), outputs (N, *out, C). Of a `Padded` batch each sequence gives what it gives alone, and the
    lengths become those of the outputs. No parameters.

    Args:
        window: the size of the window along each spatial axis; an integer means one axis, time.
        strides: the distance between windows; by default the window's size, so that they do not overlap.
        padding: as in `Conv`.
        ceil_mode: as in `MaxPool`.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> ff.nn.SumPool(2).apply((), np.array([[[1.0], [3.0], [2.0], [0.0]]])).ravel()
    array([4., 2.])
    """
    win = Window("SumPool", window, window if strides is None else strides, padding, ceil_mode=ceil_mode)

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x, lengths, pads = win.prepare(inputs, 0)
        return rewrap(_reduce_windows(np.sum, win, x, pads, 0), lengths)

    return _pool(win, apply)


def AvgPool(
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] | None = None,
    padding: Padding = "VALID",
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Layer:
    """The mean of each window, channel by channel.

    Inputs (N, *spatial, C), outputs (N, *out, C). Padding does not count: a window that sticks out has the
    mean of what lies within. Of a `Padded` batch each sequence gives what it gives alone, and the lengths
    become those of the outputs. No parameters.

    Args:
        window: the size of the window along each spatial axis; an integer means one axis, time.
        strides: the distance between windows; by default the window's size, so that they do not overlap.
        padding: as in `Conv`.
        ceil_mode: whether what the last whole window along an axis leaves over has one too, which sticks out; it has
            to start within the input or the padding before it.
        count_include_pad: whether padding counts, as zeros; what sticks out of it under `ceil_mode` does not.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> ff.nn.AvgPool(2).apply((), np.array([[[1.0], [3.0], [2.0], [0.0]]])).ravel()
    array([2., 1.])
    """
    win = Window("AvgPool", window, window if strides is None else strides, padding, ceil_mode=ceil_mode)

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x, lengths, pads = win.prepare(inputs, 0)
        if (lengths is None and not any(map(any, pads))) or (count_include_pad and not ceil_mode):
            return rewrap(_reduce_windows(np.mean, win, x, pads, 0), lengths)
        if count_include_pad:
            count = _reduce_windows(np.sum, win, _ones_with_padding(win, inputs, x, pads), ((0, 0),) * win.rank, 0)
        else:
            real = np.ones(x.shape[:-1], x.dtype) if lengths is None else _ones_within(inputs, x.dtype)
            count = _reduce_windows(np.sum, win, real[..., None], pads, 0)
        return rewrap(_reduce_windows(np.sum, win, x, pads, 0) / np.maximum(count, 1), lengths)

    return _pool(win, apply)


def _ones_within(batch: Padded, dtype: Any) -> Any:
    """1 at the real positions of a padded batch, 0 on the padding, without the channels."""
    return clear(np.ones(batch.values.shape[:-1], dtype), batch.mask(), 0)


def _ones_with_padding(win: Window, inputs: Any, x: Any, covering: Any) -> Any:
    """1 at the real positions of an input (1, *spatial, 1) and at those of its padding, 0 at those that windows need
    besides."""
    own = win.pads(x.shape[1:-1])
    within: Any = np.ones((1,) * (win.rank + 2), x.dtype)
    for axis, (n, (low, high), (_, wide)) in enumerate(zip(x.shape[1:-1], own, covering, strict=True), 1):
        end = low + n + high
        if axis == 1 and type(inputs) is Padded:
            end = np.reshape(inputs.lengths, (-1, *[1] * (win.rank + 1))) + (low + high)
        positions = np.arange(low + n + wide).reshape((-1, *[1] * (win.rank + 1 - axis)))
        within = within * (positions < end).astype(x.dtype)
    return within


def _pool(win: Window, apply: Callable[..., Any], outputs: int = 1) -> Layer:
    def init(key: Any, input_shape: Shape) -> tuple[Any, Any]:
        shape = win.output_shape(input_shape, input_shape[-1] if input_shape else 0)
        return shape if outputs == 1 else (shape,) * outputs, ()

    def flops(shape: Shape, out: Any, params: Any) -> int:
        return units_of(out if outputs == 1 else out[0]) * math.prod(win.size)

    return layer(win.kind, init, apply, flops)


def _reduce_windows(f: Any, win: Window, x: Any, pads: tuple[tuple[int, int], ...], fill: float) -> Any:
    """`f` of every window, after padding with `fill`."""
    if any(map(any, pads)):
        x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    spatial = x.shape[1:-1]
    whole = win.strides == win.size and set(win.dilation) == {1}
    if whole and all(n % k == 0 for n, k in zip(spatial, win.size, strict=True)):
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
    top = np.max(clear(values, batch.mask(), least(values.dtype)), axis=axes)
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
