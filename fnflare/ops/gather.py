"""What NumPy's functions that pick elements come to: choices by condition, gathers, diagonals, shifts and borders.

Arrays and tracers go in; each function arranges its arguments for a read or a write of
`fnflare.ops.index` or for the elementwise choice, which have the rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import bind, is_tracer
from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError
from fnflare.ops.elementwise import select
from fnflare.ops.index import getitem, index_set
from fnflare.ops.reduce import axes_of

__all__ = ["clip", "diagonal", "take", "trace", "where"]

_absent: Any = np._NoValue

# -- where, clip --------------------------------------------------------------------------------


@implements(np.where)
def where(condition: Any, /, *xy: Any) -> Any:
    """NumPy's ``where``; with one argument the condition must be plain."""
    if len(xy) != 2:
        raise UnsupportedError(
            "np.where(condition) with one argument has an answer of unknown size for tracers; "
            "write np.where(condition, x, y), or np.nonzero(ff.stop_gradient(condition))"
        )
    if is_tracer(condition) and condition.dtype.kind != "b":
        condition = condition != 0
    return bind(select, (condition, *xy))


@implements(np.clip)
def clip(
    a: Any, a_min: Any = _absent, a_max: Any = _absent, out: Any = None, *, min: Any = _absent, max: Any = _absent,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """NumPy's ``clip``; at a border the gradient is shared, as that of np.minimum and np.maximum is."""
    if (a_min is not _absent or a_max is not _absent) and (min is not _absent or max is not _absent):
        raise ValueError("np.clip: the bounds are either a_min and a_max or min= and max=, not both")
    low, high = [None if b is _absent else b for b in ((min, max) if a_min is a_max is _absent else (a_min, a_max))]
    if out is not None:
        raise UnsupportedError("np.clip: out= cannot take a tracer; use what the function returns")
    a = a if is_tracer(a) else np.asarray(a)  # a number is an array here, whose dtype does not give way
    if low is not None:
        a = np.maximum(a, low, **kwargs)
    if high is not None:
        a = np.minimum(a, high, **kwargs)
    return a


# -- gathers ------------------------------------------------------------------------------------


@implements(np.take)
def take(a: Any, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Any:
    """NumPy's ``take``."""
    if out is not None:
        raise UnsupportedError("np.take: out= cannot take a tracer; use what the function returns")
    if axis is None:
        a, axis = np.reshape(a, -1), 0
    (axis,) = axes_of(axis, np.ndim(a))
    index = indices if is_tracer(indices) else np.asarray(indices)
    n = a.shape[axis]
    if mode == "wrap":
        index = index % n
    elif mode == "clip":
        index = np.clip(index, 0, n - 1)
    return getitem(a, (*[slice(None)] * axis, index))


@implements(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    """NumPy's ``take_along_axis``."""
    index = indices if is_tracer(indices) else np.asarray(indices)
    if axis is None:
        return getitem(np.reshape(arr, -1), np.reshape(index, -1))
    (axis,) = axes_of(axis, arr.ndim)
    if index.ndim != arr.ndim:
        raise ValueError(f"take_along_axis: indices need {arr.ndim} axes, as many as the array, got {index.ndim}")
    return getitem(arr, tuple([index if i == axis else _along(n, i, arr.ndim) for i, n in enumerate(arr.shape)]))


def _along(n: int, axis: int, ndim: int) -> Any:
    """The numbers below `n` along one axis of `ndim`."""
    return np.arange(n).reshape((1,) * axis + (n,) + (1,) * (ndim - axis - 1))


@implements(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """NumPy's ``diagonal``."""
    x = np.moveaxis(a, (axis1, axis2), (-2, -1))
    rows = max(0, -offset)
    columns = max(0, offset)
    n = max(0, min(x.shape[-2] - rows, x.shape[-1] - columns))
    return getitem(x, (Ellipsis, np.arange(n) + rows, np.arange(n) + columns))


@implements(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
    """NumPy's ``trace``."""
    return np.sum(diagonal(a, offset, axis1, axis2), axis=-1, dtype=dtype)


@implements(np.diag)
def diag(v: Any, k: int = 0) -> Any:
    """NumPy's ``diag``."""
    if v.ndim == 2:
        return diagonal(v, k)
    n = v.shape[0] + abs(k)
    i = np.arange(v.shape[0])
    return index_set(np.zeros((n, n), v.dtype), v, index=(i + max(0, -k), i + max(0, k)))


def _triangle(shape: tuple[int, ...], k: int) -> Any:
    """True on and below a diagonal of the last two axes; of a vector, those of the matrix of its copies."""
    return np.tri(shape[-2] if len(shape) > 1 else shape[0], shape[-1], k=k, dtype=bool)


@implements(np.tril)
def tril(m: Any, k: int = 0) -> Any:
    """NumPy's ``tril``."""
    return np.where(_triangle(m.shape, k), m, np.zeros((), m.dtype))


@implements(np.triu)
def triu(m: Any, k: int = 0) -> Any:
    """NumPy's ``triu``."""
    return np.where(_triangle(m.shape, k - 1), np.zeros((), m.dtype), m)


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """NumPy's ``roll``."""
    if axis is None:
        return np.reshape(roll(np.reshape(a, -1), shift, 0), a.shape)
    shifts, axes = np.broadcast_arrays(shift, axis)
    for s, i in zip(shifts.reshape(-1).tolist(), axes.reshape(-1).tolist(), strict=True):
        a = take(a, (np.arange(a.shape[i]) - s) % max(1, a.shape[i]), axis=i)
    return a


@implements(np.pad)
def pad(array: Any, pad_width: Any, mode: Any = "constant", **kwargs: Any) -> Any:
    """NumPy's ``pad`` with ``mode="constant"``, or any mode that repeats elements of the array."""
    n = array.ndim
    widths = np.broadcast_to(np.asarray(pad_width), (n, 2)).tolist()
    if mode != "constant":
        if mode not in ("edge", "reflect", "symmetric", "wrap"):
            raise UnsupportedError(f"np.pad: mode={mode!r} has no rule for tracers; use constant, edge, reflect, ...")
        for axis, width in enumerate(widths):
            array = take(array, np.pad(np.arange(array.shape[axis]), width, mode=mode, **kwargs), axis=axis)
        return array
    fill = kwargs.get("constant_values", 0)
    if np.ndim(fill) != 0:
        raise UnsupportedError("np.pad: only one constant for all sides has a rule for tracers; pad side by side")
    shape = tuple([low + m + high for m, (low, high) in zip(array.shape, widths, strict=True)])
    inner = tuple([slice(low, low + m) for m, (low, _) in zip(array.shape, widths, strict=True)])
    return index_set(np.full(shape, fill, array.dtype), array, index=inner)
