"""Linear interpolation between points: of derivatives with respect to where, to the points, and to their values.

The places among the points are found by `searchsorted`, and have no derivative; the rest is arithmetic on the two
points around each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core.tracer import implements
from fnflare.ops.elementwise import convert
from fnflare.ops.gather import take
from fnflare.ops.shape import as_arrays, concatenate

__all__ = ["interp"]


@implements(np.interp)
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:
    """NumPy's ``interp``, which is float64 or complex128 whatever goes in; at a point itself the slope is that of the
    line to its right, at the last one of the line to its left."""
    x, xp, fp = as_arrays([x, xp, fp])
    if xp.ndim != 1 or fp.ndim != 1 or xp.shape != fp.shape or not xp.shape[0]:
        raise ValueError(f"np.interp: xp and fp must be vectors of one length, got shapes {xp.shape} and {fp.shape}")
    x, xp = convert(x, np.float64), convert(xp, np.float64)
    fp = convert(fp, np.complex128 if fp.dtype.kind == "c" else np.float64)
    if period is not None:
        if period == 0:
            raise ValueError("np.interp: period must not be zero")
        left = right = None
        x, xp, fp = _around(x, xp, fp, abs(period))
    n = xp.shape[0]
    y = fp[0] if n == 1 else _on_lines(x, xp, fp)
    y = np.where(x > xp[n - 1], fp[n - 1] if right is None else right, y)
    return np.where(x < xp[0], fp[0] if left is None else left, y)


def _around(x: Any, xp: Any, fp: Any, period: Any) -> tuple[Any, Any, Any]:
    """All within one period, with the points in order and the nearest ones of the periods around it."""
    x, xp = x % period, xp % period
    order = np.argsort(xp)
    xp, fp = take(xp, order), take(fp, order)
    return x, concatenate([xp[-1:] - period, xp, xp[:1] + period]), concatenate([fp[-1:], fp, fp[:1]])


def _on_lines(x: Any, xp: Any, fp: Any) -> Any:
    """The values on the line through the two points around each place, or through the last two on their side."""
    n = xp.shape[0]
    i = np.clip(np.searchsorted(xp, x, side="right"), 1, n - 1)
    x0, x1, f0, f1 = take(xp, i - 1), take(xp, i), take(fp, i - 1), take(fp, i)
    width = x1 - x0
    step = width == 0  # two points at one place: the later one's value
    slope = (f1 - f0) / np.where(step, 1.0, width)
    line = np.where(x == x1, f1 + slope * (x - x1), f0 + slope * (x - x0))  # at a point its own value to the last bit
    return np.where(step, f1, line)
