"""Functions of the user's applied along axes, as NumPy applies them: one call for each row, or for each axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core.tracer import implements
from fnflare.ops.shape import as_arrays, axes_in_order

__all__ = ["apply_along_axis"]


@implements(np.apply_along_axis)
def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any) -> Any:
    """NumPy's ``apply_along_axis``: a call for each row; `vmap` makes one of them all."""
    (axis,) = axes_in_order(axis, arr.ndim)
    rows = np.moveaxis(arr, axis, -1)
    lead = rows.shape[:-1]
    if 0 in lead:
        raise ValueError(f"np.apply_along_axis: there is no row along axis {axis} of shape {arr.shape} to apply it to")
    flat = np.reshape(rows, (math.prod(lead), rows.shape[-1]))
    out = np.stack(as_arrays([func1d(flat[i], *args, **kwargs) for i in range(flat.shape[0])]))
    own = out.shape[1:]
    out = np.reshape(out, (*lead, *own))
    return np.moveaxis(out, range(len(lead), out.ndim), range(axis, axis + len(own)))


@implements(np.apply_over_axes)
def apply_over_axes(func: Callable[[Any, int], Any], a: Any, axes: Any) -> Any:
    """NumPy's ``apply_over_axes``."""
    for axis in axes_in_order(axes, a.ndim):
        out = func(a, axis)
        if np.ndim(out) != a.ndim:
            out = np.expand_dims(out, axis)
        if np.ndim(out) != a.ndim:
            raise ValueError(f"np.apply_over_axes: the function must keep all axes, or lose one, got {np.shape(out)}")
        a = out
    return a
