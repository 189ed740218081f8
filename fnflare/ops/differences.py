"""Differences of neighbours and sums over them: diff, ediff1d, gradient, trapezoid, unwrap.

Arrays and tracers go in, also as coordinates, with respect to which the answers are differentiated too. All is written
in slices and elementwise operations, which have the rules.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import is_tracer
from fnflare.core.tracer import implements
from fnflare.ops.arrange import along
from fnflare.ops.elementwise import convert, stop_gradient
from fnflare.ops.shape import as_arrays, axes_in_order, broadcast_to, concatenate

__all__ = ["diff"]

_no_value = np._NoValue  # what NumPy passes for an argument left out


@implements(np.diff)
def diff(a: Any, n: int = 1, axis: int = -1, prepend: Any = _no_value, append: Any = _no_value) -> Any:
    """NumPy's ``diff``."""
    if n == 0:
        return a
    if n < 0:
        raise ValueError(f"np.diff: order must be non-negative, got {n}")
    (a,) = as_arrays([a])
    if a.ndim == 0:
        raise ValueError("np.diff needs an array of one axis or more, got a number")
    (axis,) = axes_in_order(axis, a.ndim)
    parts = [_slab(prepend, a, axis), a, _slab(append, a, axis)]
    if len(parts := [p for p in parts if p is not None]) > 1:
        a = concatenate(parts, axis)
    for _ in range(n):
        high, low = a[along(axis, slice(1, None))], a[along(axis, slice(None, -1))]
        a = high != low if a.dtype.kind == "b" else high - low
    return a


def _slab(value: Any, a: Any, axis: int) -> Any:
    """What goes before or after `a`: an array; of a number, one slab of it; None where nothing was given."""
    if value is _no_value:
        return None
    (value,) = as_arrays([value])
    return value if value.ndim else broadcast_to(value, (*a.shape[:axis], 1, *a.shape[axis + 1 :]))


@implements(np.ediff1d)
def ediff1d(ary: Any, to_end: Any = None, to_begin: Any = None) -> Any:
    """NumPy's ``ediff1d``."""
    (x,) = as_arrays([ary])
    x = np.reshape(x, -1)
    parts = [x[1:] - x[:-1]]
    if to_begin is not None:
        parts.insert(0, np.reshape(_castable("to_begin", to_begin, x.dtype), -1))
    if to_end is not None:
        parts.append(np.reshape(_castable("to_end", to_end, x.dtype), -1))
    return concatenate(parts) if len(parts) > 1 else parts[0]


def _castable(name: str, x: Any, dtype: np.dtype[Any]) -> Any:
    (x,) = as_arrays([x])
    if not np.can_cast(x.dtype, dtype, "same_kind"):
        raise TypeError(f"np.ediff1d: {name} of dtype {x.dtype} does not fit an array of dtype {dtype}")
    return x.astype(dtype)


# -- gradient -----------------------------------------------------------------------------------


@implements(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """NumPy's ``gradient``; the spacings may be tracers."""
    (f,) = as_arrays([f])
    axes = tuple(range(f.ndim)) if axis is None else axes_in_order(axis, f.ndim)
    if edge_order not in (1, 2):
        raise ValueError(f"np.gradient: edge_order must be 1 or 2, got {edge_order}")
    steps = _steps(varargs, f.shape, axes)
    if f.dtype.kind not in "fc":
        f = f.astype(np.float64)
    for i in axes:
        if f.shape[i] < edge_order + 1:
            raise ValueError(f"np.gradient: axis {i} of shape {f.shape} needs {edge_order + 1} elements or more")
    out = [convert(_slope(f, i, h, edge_order), f.dtype) for i, h in zip(axes, steps, strict=True)]
    return out[0] if len(out) == 1 else tuple(out)


def _steps(given: tuple[Any, ...], shape: tuple[int, ...], axes: tuple[int, ...]) -> list[Any]:
    """The distance between neighbours along each axis, or the array of distances."""
    if not given:
        return [1.0] * len(axes)
    if len(given) == 1 and np.ndim(given[0]) == 0:
        return list(given) * len(axes)
    if len(given) != len(axes):
        raise TypeError(f"np.gradient: needs one spacing, or one for each of {len(axes)} axes, got {len(given)}")
    return [x if np.ndim(x) == 0 else _distances(x, shape[i]) for x, i in zip(given, axes, strict=True)]


def _distances(x: Any, n: int) -> Any:
    (x,) = as_arrays([x])
    if x.ndim != 1 or x.shape[0] != n:
        raise ValueError(f"np.gradient: spacings must be numbers or have shape ({n},), got shape {x.shape}")
    d = diff(x.astype(np.float64) if x.dtype.kind in "iu" else x)
    # As NumPy has it: equal distances are one.
    return d[0] if not is_tracer(d) and (d == d[0]).all() else d


def _slope(f: Any, axis: int, h: Any, edge_order: int) -> Any:
    """The derivative along one axis: central differences inside, one-sided ones at the edges."""
    tail = [1] * (f.ndim - 1 - axis)

    def part(low: int | None, high: int | None) -> Any:
        return f[along(axis, slice(low, high))]

    def step(low: int | None, high: int | None) -> Any:
        return np.reshape(h[low:high], (-1, *tail))

    if np.ndim(h) == 0:
        middle = (part(2, None) - part(None, -2)) / (2.0 * h)
    else:
        a, b = step(None, -1), step(1, None)
        middle = _weighted(part(None, -2), part(1, -1), part(2, None), _inside(a, b))
    if edge_order == 1:
        at = (lambda *_: h) if np.ndim(h) == 0 else step
        first = (part(1, 2) - part(0, 1)) / at(0, 1)
        last = (part(-1, None) - part(-2, -1)) / at(-1, None)
    else:
        begin, end = ((h, h), (h, h)) if np.ndim(h) == 0 else ((step(0, 1), step(1, 2)), (step(-1, None), step(-2, -1)))
        first = _weighted(part(0, 1), part(1, 2), part(2, 3), _at_edge(*begin))
        last = -_weighted(part(-1, None), part(-2, -1), part(-3, -2), _at_edge(*end))
    return concatenate([first, middle, last], axis)


def _weighted(x: Any, y: Any, z: Any, weights: tuple[Any, Any, Any]) -> Any:
    return weights[0] * x + weights[1] * y + weights[2] * z


def _inside(a: Any, b: Any) -> tuple[Any, Any, Any]:
    """The weights of a point's left neighbour, at distance `a`, itself, and its right one, at distance `b`."""
    return -b / (a * (a + b)), (b - a) / (a * b), a / (b * (a + b))


def _at_edge(a: Any, b: Any) -> tuple[Any, Any, Any]:
    """The weights of an edge, of its neighbour, at distance `a`, and of the one at distance `b` from that."""
    return -(2.0 * a + b) / (a * (a + b)), (a + b) / (a * b), -a / (b * (a + b))


# -- sums over neighbours -----------------------------------------------------------------------


@implements(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """NumPy's ``trapezoid``; the coordinates may be tracers."""
    (y,) = as_arrays([y])
    (axis,) = axes_in_order(axis, y.ndim)
    if x is not None:
        (x,) = as_arrays([x])
        dx = np.reshape(diff(x), (-1, *[1] * (y.ndim - 1 - axis))) if x.ndim == 1 else diff(x, axis=axis)
    pairs = y[along(axis, slice(1, None))] + y[along(axis, slice(None, -1))]
    return np.sum(dx * pairs / 2.0, axis=axis)


@implements(np.unwrap)
def unwrap(p: Any, discont: Any = None, axis: int = -1, *, period: Any = 2 * math.pi) -> Any:
    """NumPy's ``unwrap``: the whole periods that it adds have no derivative."""
    (axis,) = axes_in_order(axis, p.ndim)
    steps = stop_gradient(diff(p, axis=axis))
    dtype = np.result_type(steps, period)
    whole = dtype.kind in "iu"
    high = period // 2 if whole else period / 2
    wrapped = np.mod(steps + high, period) - high
    if not whole or period % 2 == 0:  # a step of half a period keeps its sign
        wrapped = np.where((wrapped == -high) & (steps > 0), high, wrapped)
    smooth = np.abs(steps) < (period / 2 if discont is None else discont)
    jumps = np.where(smooth, 0, wrapped - steps)
    p = p.astype(dtype)
    first = p[along(axis, slice(0, 1))]
    rest = p[along(axis, slice(1, None))] + np.cumsum(jumps, axis=axis)
    return concatenate([first, rest.astype(dtype)], axis)
