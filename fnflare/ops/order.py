"""Sorting, and places in sorted arrays.

Arrays and tracers go in. The derivative of a sort is a gather by the order, which itself has none, as the
places have none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import Primitive, ShapeDtypeStruct, Tracer, bind, move_axis, primitive
from fnflare.core.batch import shifted, spread
from fnflare.core.tracer import ValueTracer, implements
from fnflare.errors import ConcretizationError, UnsupportedError
from fnflare.ops.reduce import axes_of

__all__ = ["argsort", "concrete", "nonzero", "searchsorted", "sort"]


def _argsort_shape(x: ShapeDtypeStruct, *, axis: int, kind: Any) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, np.intp)


_argsort = primitive(
    "argsort", lambda x, axis, kind: np.argsort(x, axis=axis, kind=kind), _argsort_shape, differentiable=False
)


def _batches(prim: Primitive) -> None:
    """Give the batching rule of an operation along `axis`."""

    def rule(_size: int, args: Any, dims: Any, *, axis: int, kind: Any) -> tuple[Any, int]:
        (dim,) = dims
        return bind(prim, args, {"axis": shifted((axis,), dim)[0], "kind": kind}), dim

    prim.vmap(rule)


_batches(_argsort)


@implements(np.argsort)
def argsort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """NumPy's ``argsort``."""
    if axis is None:
        a, axis = np.reshape(a, -1), 0
    return bind(_argsort, (a,), {"axis": axes_of(axis, a.ndim)[0], "kind": "stable" if stable else kind})


@implements(np.sort)
def sort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """NumPy's ``sort``: a gather by ``argsort``, whose order has no derivative."""
    if axis is None:
        a, axis = np.reshape(a, -1), 0
    (axis,) = axes_of(axis, a.ndim)
    return bind(_sort, (a,), {"axis": axis, "kind": "stable" if stable else kind})


_sort = primitive(
    "sort",
    lambda x, axis, kind: np.sort(x, axis=axis, kind=kind),
    lambda x, axis, kind: ShapeDtypeStruct(x.shape, x.dtype),
)
_batches(_sort)


def _order(x: Any, axis: int) -> Any:
    return np.argsort(x, axis=axis, kind="stable")


@_sort.vjp
def _(ct: Any, _ans: Any, x: Any, *, axis: int, kind: Any) -> Any:
    back = np.argsort(_order(x, axis), axis=axis)
    return np.take_along_axis(ct, back, axis=axis)


@_sort.jvp
def _(t: Any, _ans: Any, x: Any, *, axis: int, kind: Any) -> Any:
    return np.take_along_axis(t, _order(x, axis), axis=axis)


def _places(a: Any, v: Any, *, side: Any) -> Any:
    """`searchsorted`, of each of the arrays along the first axes of `a` and of `v`."""
    if a.ndim == 1:
        return np.searchsorted(a, v, side)
    out = np.empty(v.shape, np.intp)
    for i in np.ndindex(*a.shape[:-1]):
        out[i] = np.searchsorted(a[i], v[i], side)
    return out


_searchsorted = primitive(
    "searchsorted", _places, lambda a, v, *, side: ShapeDtypeStruct(v.shape, np.intp), differentiable=False
)


@_searchsorted.vmap
def _(size: int, args: Any, axes: Any, *, side: Any) -> tuple[Any, int]:
    (a, v), (i, j) = args, axes
    if i is None:
        at = a.ndim - 1
        return bind(_searchsorted, (a, move_axis(v, j, at)), {"side": side}), at
    return bind(_searchsorted, (move_axis(a, i, 0), spread(v, j, size, 0)), {"side": side}), 0


@implements(np.searchsorted)
def searchsorted(a: Any, v: Any, side: Any = "left", sorter: Any = None) -> Any:
    """NumPy's ``searchsorted``: nothing to differentiate."""
    if sorter is not None:
        raise UnsupportedError("np.searchsorted: sorter= has no rule for tracers; write np.searchsorted(a[sorter], v)")
    if np.ndim(a) != 1:
        raise ValueError(f"searchsorted: the sorted array needs one axis, got shape {np.shape(a)}")
    return bind(_searchsorted, [x if hasattr(x, "dtype") else np.asarray(x) for x in (a, v)], {"side": side})


def concrete(name: str, a: Any) -> Any:
    """The value of a tracer, of which function `name` needs to know it."""
    value = a
    while isinstance(value, ValueTracer):
        value = value.value
    if isinstance(value, Tracer):
        raise ConcretizationError(
            f"{name} of {a!r} has an answer of unknown size; write np.where(condition, x, y) instead"
        )
    return value


@implements(np.nonzero)
def nonzero(a: Any) -> Any:
    """NumPy's ``nonzero``: of concrete tracers only, since its answer has no static size."""
    return np.nonzero(concrete("np.nonzero", a))
