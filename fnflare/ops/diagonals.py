"""Diagonals and triangles of matrices: reads and writes along them, and masks beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core.tracer import implements
from fnflare.ops.index import getitem, index_set
from fnflare.ops.shape import axes_in_order, no_out

__all__ = ["diagonal", "trace"]


@implements(np.diagonal)
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """NumPy's ``diagonal``."""
    if a.ndim < 2:
        raise ValueError(f"np.diagonal needs an array of two axes or more, got shape {a.shape}")
    if len(set(axes_in_order((axis1, axis2), a.ndim))) != 2:
        raise ValueError(f"np.diagonal: axis1={axis1} and axis2={axis2} must be different axes")
    x = np.moveaxis(a, (axis1, axis2), (-2, -1))
    rows = max(0, -offset)
    columns = max(0, offset)
    n = max(0, min(x.shape[-2] - rows, x.shape[-1] - columns))
    return getitem(x, (Ellipsis, np.arange(n) + rows, np.arange(n) + columns))


@implements(np.trace)
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: Any = None) -> Any:
    """NumPy's ``trace``."""
    no_out("np.trace", out)
    return np.sum(diagonal(a, offset, axis1, axis2), axis=-1, dtype=dtype)


@implements(np.diag)
def diag(v: Any, k: int = 0) -> Any:
    """NumPy's ``diag``."""
    if v.ndim == 2:
        return diagonal(v, k)
    if v.ndim != 1:
        raise ValueError(f"np.diag needs an array of one or two axes, got shape {v.shape}")
    n = v.shape[0] + abs(k)
    i = np.arange(v.shape[0])
    return index_set(np.zeros((n, n), v.dtype), v, index=(i + max(0, -k), i + max(0, k)))


@implements(np.diagflat)
def diagflat(v: Any, k: int = 0) -> Any:
    """NumPy's ``diagflat``."""
    return diag(np.reshape(v, -1), k)


def _triangle(shape: tuple[int, ...], k: int) -> Any:
    """True on and below a diagonal of the last two axes; of a vector, those of the matrix of its copies."""
    if not shape:
        raise TypeError("np.tril and np.triu: a number has no triangle; they need an array of one axis or more")
    return np.tri(shape[-2] if len(shape) > 1 else shape[0], shape[-1], k=k, dtype=bool)


@implements(np.tril)
def tril(m: Any, k: int = 0) -> Any:
    """NumPy's ``tril``."""
    return np.where(_triangle(m.shape, k), m, np.zeros((), m.dtype))


@implements(np.triu)
def triu(m: Any, k: int = 0) -> Any:
    """NumPy's ``triu``."""
    return np.where(_triangle(m.shape, k - 1), np.zeros((), m.dtype), m)
