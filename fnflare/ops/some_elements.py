"""Arrays with some elements left out or put in, at known places: delete, insert, compress, extract, trim_zeros.

The places must be plain, since the size of the answer depends on them. They are worked out on the numbers of the
elements, by NumPy's own function where it has one, and the elements are then gathered.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import is_tracer
from fnflare.core.tracer import implements
from fnflare.errors import ConcretizationError
from fnflare.ops.gather import take
from fnflare.ops.order import concrete, nonzero
from fnflare.ops.shape import as_arrays, axes_in_order, concatenate, no_out

__all__ = ["compress"]


def _places(name: str, obj: Any, n: int) -> Any:
    """The places that `obj` means among `n`: a number, or an array of numbers."""
    for leaf in tree.leaves((obj.start, obj.stop, obj.step) if isinstance(obj, slice) else obj):
        if is_tracer(leaf):
            raise ConcretizationError(
                f"{name}: the size of the answer depends on obj={leaf!r}, made {leaf.origin()}; let it be static "
                "(static_argnums), or keep the size and write np.where(mask, x, y)"
            )
    if isinstance(obj, slice):
        return np.arange(*obj.indices(n))
    places = np.asarray(obj)
    return places.astype(np.intp) if places.size == 0 and isinstance(obj, (list, tuple)) else places


def _along_axis(arr: Any, axis: Any) -> tuple[Any, int]:
    """An array and the number of an axis of it; of its elements in a row where the axis is None."""
    (arr,) = as_arrays([arr])
    return (np.reshape(arr, -1), 0) if axis is None else (arr, axes_in_order(axis, arr.ndim)[0])


@implements(np.delete)
def delete(arr: Any, obj: Any, axis: Any = None) -> Any:
    """NumPy's ``delete``."""
    arr, axis = _along_axis(arr, axis)
    n = arr.shape[axis]
    return take(arr, np.delete(np.arange(n), _places("np.delete", obj, n)), axis)


@implements(np.insert)
def insert(arr: Any, obj: Any, values: Any, axis: Any = None) -> Any:
    """NumPy's ``insert``; the values take the dtype of the array."""
    arr, axis = _along_axis(arr, axis)
    n = arr.shape[axis]
    places = _places("np.insert", obj, n)
    (values,) = as_arrays([values], arr.dtype, "unsafe")
    count = int(np.count_nonzero(places) if places.dtype == bool else places.size)
    if count == 1:  # any number of elements, for one place; for a number, along the first axis of the values
        values = np.reshape(values, (*[1] * (arr.ndim - values.ndim), *values.shape))
        values = values if places.ndim else np.moveaxis(values, 0, axis)
        count = values.shape[axis]
    new = np.broadcast_to(values, (*arr.shape[:axis], count, *arr.shape[axis + 1 :]))
    order = np.insert(np.arange(n), places, np.arange(n, n + count))
    return take(concatenate([arr, new], axis), order, axis)


@implements(np.compress)
def compress(condition: Any, a: Any, axis: Any = None, out: Any = None) -> Any:
    """NumPy's ``compress``; the condition must be plain."""
    no_out("np.compress", out)
    a, axis = _along_axis(a, axis)
    if np.ndim(condition) != 1:
        raise ValueError(f"np.compress: the condition must have one axis, got shape {np.shape(condition)}")
    return take(a, _true("np.compress", condition), axis)


@implements(np.extract)
def extract(condition: Any, arr: Any) -> Any:
    """NumPy's ``extract``; the condition must be plain."""
    return take(np.reshape(arr, -1), _true("np.extract", np.ravel(condition)))


def _true(name: str, condition: Any) -> Any:
    """The places where a condition holds."""
    return np.nonzero(concrete(name, condition))[0]


@implements(np.flatnonzero)
def flatnonzero(a: Any) -> Any:
    """NumPy's ``flatnonzero``: of concrete tracers only, since its answer has no static size."""
    return nonzero(np.reshape(a, -1))[0]


@implements(np.argwhere)
def argwhere(a: Any) -> Any:
    """NumPy's ``argwhere``: of concrete tracers only, since its answer has no static size."""
    return np.argwhere(concrete("np.argwhere", a))


@implements(np.trim_zeros)
def trim_zeros(filt: Any, trim: str = "fb", axis: Any = None) -> Any:
    """NumPy's ``trim_zeros``: of concrete tracers only, since its answer has no static size."""
    ends = trim.lower()
    if ends not in ("f", "b", "fb", "bf"):
        raise ValueError(f"np.trim_zeros: trim must be 'f', 'b' or 'fb', got {trim!r}")
    axes = (
        range(filt.ndim) if axis is None else axes_in_order(tuple(axis) if isinstance(axis, list) else axis, filt.ndim)
    )
    places = np.nonzero(concrete("np.trim_zeros", filt))
    index = [slice(None)] * filt.ndim
    for i in axes:
        if places[i].size == 0:
            index[i] = slice(0, 0)
        else:
            low = int(places[i].min()) if "f" in ends else None
            index[i] = slice(low, int(places[i].max()) + 1 if "b" in ends else None)
    return filt[tuple(index)]
