"""What NumPy tells of an array without reading it, and new arrays in the likeness of others.

A tracer has a shape and a dtype like any array, so all of this is known while a function is traced, and what comes out
are plain values; the one exception is a filling that is a tracer itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import aval_of, is_tracer
from fnflare.core.tracer import implements
from fnflare.ops.elementwise import convert
from fnflare.ops.shape import axes_in_order, broadcast_to

__all__ = ["astype", "copy"]

# -- arrays in the likeness of others -----------------------------------------------------------


def _shape_and_dtype(a: Any, dtype: Any, shape: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    aval = aval_of(a)
    if shape is None:
        shape = aval.shape
    elif isinstance(shape, (int, np.integer)):
        shape = (int(shape),)
    return tuple(shape), np.dtype(aval.dtype if dtype is None else dtype)


@implements(np.zeros_like)
def zeros_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    """NumPy's ``zeros_like``: a plain array."""
    return np.zeros(*_shape_and_dtype(a, dtype, shape))


@implements(np.ones_like)
def ones_like(
    a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    """NumPy's ``ones_like``: a plain array."""
    return np.ones(*_shape_and_dtype(a, dtype, shape))


@implements(np.empty_like)
def empty_like(
    prototype: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, *, device: Any = None
) -> Any:
    """NumPy's ``empty_like``: a plain array, of zeros."""
    return np.zeros(*_shape_and_dtype(prototype, dtype, shape))


@implements(np.full_like)
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: Any = "K",
    subok: bool = True,
    shape: Any = None,
    *,
    device: Any = None,
) -> Any:
    """NumPy's ``full_like``; the filling may be a tracer."""
    shape, dtype = _shape_and_dtype(a, dtype, shape)
    if hasattr(fill_value, "shape"):
        return broadcast_to(fill_value.astype(dtype), shape)
    return np.full(shape, fill_value, dtype)


# -- copies -------------------------------------------------------------------------------------


@implements(np.copy)
def copy(a: Any, order: Any = "K", subok: bool = False) -> Any:
    """NumPy's ``copy``: tracers are immutable, so the tracer itself."""
    return a


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """NumPy's ``astype``; tracers are immutable, so one of this dtype already is itself."""
    return x if np.dtype(dtype) == x.dtype and not getattr(x, "weak", False) else convert(x, dtype)


if hasattr(np, "astype"):  # NumPy 2.1
    implements(np.astype)(astype)

# -- what is known of an array ------------------------------------------------------------------


@implements(np.shape)
def shape(a: Any) -> tuple[int, ...]:
    """NumPy's ``shape``."""
    return tuple(a.shape)


@implements(np.ndim)
def ndim(a: Any) -> int:
    """NumPy's ``ndim``."""
    return int(a.ndim)


@implements(np.size)
def size(a: Any, axis: Any = None) -> int:
    """NumPy's ``size``."""
    return int(a.size) if axis is None else math.prod([a.shape[i] for i in axes_in_order(axis, a.ndim)])


@implements(np.result_type)
def result_type(*arrays_and_dtypes: Any) -> Any:
    """NumPy's ``result_type``."""
    return np.result_type(*[_resolvable(a) for a in arrays_and_dtypes])


def _resolvable(a: Any) -> Any:
    if getattr(a, "weak", False):
        return a.dtype.type(1).item()
    return a.dtype if is_tracer(a) else a


@implements(np.iscomplexobj)
def iscomplexobj(x: Any) -> bool:
    """NumPy's ``iscomplexobj``."""
    return bool(x.dtype.kind == "c")


@implements(np.isrealobj)
def isrealobj(x: Any) -> bool:
    """NumPy's ``isrealobj``."""
    return bool(x.dtype.kind != "c")


@implements(np.can_cast)
def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    """NumPy's ``can_cast``."""
    return np.can_cast(from_.dtype if hasattr(from_, "shape") else from_, to, casting)


@implements(np.common_type)
def common_type(*arrays: Any) -> Any:
    """NumPy's ``common_type``."""
    return np.common_type(*[np.zeros((), a.dtype) for a in arrays])
