"""NumPy's ``pad`` in all of its modes.

An array goes in, one with borders comes out. One axis is padded after the other, as NumPy does it, so that a corner is
what the last axis makes of the borders before it; each border is made of elements of the array, and put beside it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core import dtype_of
from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError
from fnflare.ops.arrange import along, flip
from fnflare.ops.elementwise import convert
from fnflare.ops.gather import take
from fnflare.ops.index import index_set
from fnflare.ops.shape import broadcast_to, concatenate

__all__ = ["pad"]

#: The keywords of each mode, with their defaults.
_KEYWORDS: dict[str, dict[str, Any]] = {
    "constant": {"constant_values": 0},
    "linear_ramp": {"end_values": 0},
    "maximum": {"stat_length": None},
    "mean": {"stat_length": None},
    "median": {"stat_length": None},
    "minimum": {"stat_length": None},
    "reflect": {"reflect_type": "even"},
    "symmetric": {"reflect_type": "even"},
    "edge": {},
    "wrap": {},
    "empty": {},
}


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    """NumPy's ``pad``; with ``mode="empty"`` the borders are zeros."""
    widths = _widths(pad_width, array.ndim)
    if callable(mode):
        raise UnsupportedError("np.pad: a function as mode writes into arrays; write np.concatenate with its borders")
    if mode not in _KEYWORDS:
        raise ValueError(f"np.pad: mode={mode!r} is not one of {', '.join(_KEYWORDS)}")
    unknown = set(kwargs) - set(_KEYWORDS[mode])
    if unknown:
        raise ValueError(f"np.pad: mode={mode!r} takes no keywords {sorted(unknown)}")
    options = {**_KEYWORDS[mode], **kwargs}
    if mode == "empty" or (mode == "constant" and _rank(options["constant_values"]) == 0):
        return _framed(array, widths, options.get("constant_values", 0))
    settings = next(iter(options.values()), None)
    each = [settings] * array.ndim if mode in ("reflect", "symmetric") else _pairs(settings, array.ndim)
    for axis, ((low, high), setting) in enumerate(zip(widths, each, strict=True)):
        if low or high:
            if array.shape[axis] == 0 and mode != "constant":
                raise ValueError(f"np.pad: axis {axis} has no elements to extend; use mode='constant' or 'empty'")
            array = _MODES[mode](array, axis, low, high, setting)
    return array


def _widths(pad_width: Any, ndim: int) -> list[list[int]]:
    """The widths before and after each axis."""
    if isinstance(pad_width, dict):
        widths = [[0, 0] for _ in range(ndim)]
        for axis, width in pad_width.items():
            before, after = width if isinstance(width, tuple) else (width, width)
            widths[axis] = [operator.index(before), operator.index(after)]
    else:
        given = np.asarray(pad_width)
        if given.dtype.kind not in "iu":
            raise TypeError(f"np.pad: pad_width must be of integers, got {pad_width!r}")
        widths = np.broadcast_to(given, (ndim, 2)).tolist()
    if any(n < 0 for pair in widths for n in pair):
        raise ValueError(f"np.pad: pad_width must not be negative, got {pad_width!r}")
    return widths


def _rank(values: Any) -> int:
    """The number of axes of an array, of a number, or of lists of either."""
    return 1 + max(map(_rank, values), default=0) if isinstance(values, (list, tuple)) else np.ndim(values)


def _pairs(values: Any, ndim: int) -> list[Any]:
    """A setting for the borders before and after each axis; its numbers may be tracers."""
    if values is None or _rank(values) == 0:
        return [(values, values)] * ndim
    if isinstance(values, (list, tuple)):
        values = np.stack([np.stack(v) if isinstance(v, (list, tuple)) else v for v in values])
    wide = np.broadcast_to(values, (ndim, 2))
    return [(wide[i, 0], wide[i, 1]) for i in range(ndim)]


def _framed(array: Any, widths: list[list[int]], fill: Any) -> Any:
    """The array within an array of one value."""
    shape = tuple([low + m + high for m, (low, high) in zip(array.shape, widths, strict=True)])
    inner = tuple([slice(low, low + m) for m, (low, _) in zip(array.shape, widths, strict=True)])
    return index_set(np.full_like(array, fill, shape=shape), array, index=inner)


def _between(before: Any, x: Any, after: Any, axis: int) -> Any:
    """Borders, None where there is none, around an array, all of its dtype."""
    return concatenate([p if p is x else convert(p, x.dtype) for p in (before, x, after) if p is not None], axis)


def _border(x: Any, axis: int, width: int) -> tuple[int, ...]:
    return (*x.shape[:axis], width, *x.shape[axis + 1 :])


def _constant(x: Any, axis: int, low: int, high: int, values: Any) -> Any:
    def border(width: int, value: Any) -> Any:
        return broadcast_to(value, _border(x, axis, width)) if width else None

    return _between(border(low, values[0]), x, border(high, values[1]), axis)


def _rearranged(mode: str) -> Callable[..., Any]:
    """Borders of elements that are in the array: found on their numbers, by NumPy's own function."""

    def padded(x: Any, axis: int, low: int, high: int, _setting: Any) -> Any:
        return take(x, np.pad(np.arange(x.shape[axis]), (low, high), mode=mode), axis=axis)  # type: ignore[call-overload]

    return padded


def _linear_ramp(x: Any, axis: int, low: int, high: int, ends: Any) -> Any:
    def ramp(edge: Any, end: Any, width: int) -> Any:
        """From the end, outside, up to the edge, which does not belong to it."""
        dtype = x.dtype if x.dtype.kind in "fc" else np.dtype(np.float64)
        part = np.arange(width).reshape(-1, *[1] * (x.ndim - 1 - axis)) / max(1, width)
        end = convert(end, dtype)
        out = end + (convert(edge, dtype) - end) * part.astype(dtype)
        return np.floor(out) if x.dtype.kind in "iu" else out

    before = ramp(x[along(axis, slice(0, 1))], ends[0], low) if low else None
    after = flip(ramp(x[along(axis, slice(-1, None))], ends[1], high), axis) if high else None
    return _between(before, x, after, axis)


def _statistic(reduce: Callable[..., Any]) -> Callable[..., Any]:
    """Borders that repeat a statistic of the elements nearest to them."""

    def padded(x: Any, axis: int, low: int, high: int, lengths: Any) -> Any:
        n = x.shape[axis]

        def border(width: int, length: Any, last: bool) -> Any:
            if not width:
                return None
            count = n if length is None else min(int(length), n)
            if count < 1:
                raise ValueError(f"np.pad: stat_length must be at least one, got {length}")
            out = reduce(x[along(axis, slice(n - count, None) if last else slice(count))], axis)
            out = np.rint(out) if x.dtype.kind in "iu" and dtype_of(out).kind == "f" else out
            return broadcast_to(out, _border(x, axis, width))

        return _between(border(low, lengths[0], False), x, border(high, lengths[1], True), axis)

    return padded


def _mirrored(mode: str) -> Callable[..., Any]:
    """Borders that mirror the array, with its edge or without; odd ones are turned about the edge's value."""
    even = _rearranged(mode)
    skip = int(mode == "reflect")

    def padded(x: Any, axis: int, low: int, high: int, kind: Any) -> Any:
        if kind not in ("even", "odd"):
            raise ValueError(f"np.pad: reflect_type must be 'even' or 'odd', got {kind!r}")
        period = x.shape[axis] - skip
        if kind == "even" or period == 0:  # one element without its edge: NumPy repeats it
            return even(x, axis, low, high, None)
        while low or high:
            most = (x.shape[axis] - skip) // period * period  # an edge is one to mirror at after whole periods only
            before, after = min(low, most), min(high, most)
            x = _turned(x, axis, before, after, skip)
            low, high = low - before, high - after
        return x

    return padded


def _turned(x: Any, axis: int, low: int, high: int, skip: int) -> Any:
    """An array between its mirror images, each turned about the value at the edge."""
    n = x.shape[axis]
    first, last = x[along(axis, slice(0, 1))], x[along(axis, slice(n - 1, n))]
    before = 2 * first - flip(x[along(axis, slice(skip, skip + low))], axis) if low else None
    after = 2 * last - flip(x[along(axis, slice(n - skip - high, n - skip))], axis) if high else None
    return _between(before, x, after, axis)


_MODES: dict[str, Callable[..., Any]] = {
    "constant": _constant,
    "edge": _rearranged("edge"),
    "wrap": _rearranged("wrap"),
    "linear_ramp": _linear_ramp,
    "maximum": _statistic(lambda x, axis: np.max(x, axis=axis, keepdims=True)),
    "minimum": _statistic(lambda x, axis: np.min(x, axis=axis, keepdims=True)),
    "mean": _statistic(lambda x, axis: np.mean(x, axis=axis, keepdims=True)),
    "median": _statistic(lambda x, axis: np.median(x, axis=axis, keepdims=True)),
    "reflect": _mirrored("reflect"),
    "symmetric": _mirrored("symmetric"),
}
