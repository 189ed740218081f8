"""What NumPy's functions that pick elements come to: choices by condition, and gathers.

Arrays and tracers go in; each function arranges its arguments for a read or a write of
`fnflare.ops.index` or for the elementwise choice, which have the rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import bind, is_tracer
from fnflare.core.tracer import UFUNC_FUNCTIONS, implements
from fnflare.errors import UnsupportedError
from fnflare.ops.elementwise import select
from fnflare.ops.index import getitem
from fnflare.ops.order import concrete
from fnflare.ops.reduce import axes_of

__all__ = ["clip", "take", "where"]

_absent: Any = np._NoValue

# -- where, clip --------------------------------------------------------------------------------


@implements(np.where)
def where(condition: Any, /, *xy: Any) -> Any:
    """NumPy's ``where``; with one argument the condition must be known."""
    if not xy:
        return np.nonzero(concrete("np.where(condition), with one argument,", condition))
    if len(xy) != 2:
        raise ValueError("np.where: give either both of x and y, or neither")
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


#: What the method of a plain array calls.
UFUNC_FUNCTIONS[np._core.umath.clip] = lambda a, low, high: clip(a, low, high)  # type: ignore[attr-defined]


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
    elif mode != "raise":
        raise ValueError(f"np.take: mode must be 'raise', 'wrap' or 'clip', got {mode!r}")
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
