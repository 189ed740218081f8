"""Sorting, and places in sorted arrays.

Arrays and tracers go in. The derivative of a sort is a gather by the order, which itself has none, as the
places have none; equal elements are taken in the order in which they stand.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import Primitive, ShapeDtypeStruct, Tracer, bind, dtype_of, is_tracer, move_axis, primitive
from fnflare.core.batch import shifted, spread
from fnflare.core.tracer import ValueTracer, implements
from fnflare.errors import ConcretizationError, UnsupportedError
from fnflare.ops.elementwise import convert
from fnflare.ops.index import getitem
from fnflare.ops.reduce import axes_of

__all__ = ["argpartition", "argsort", "concrete", "known", "nonzero", "searchsorted", "sort"]


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


def _no_fields(name: str, order: Any) -> None:
    if order is not None:
        raise ValueError(f"{name}: order= names fields, which an array of numbers has not")


@implements(np.argsort)
def argsort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """NumPy's ``argsort``."""
    _no_fields("np.argsort", order)
    if axis is None:
        a, axis = np.reshape(a, -1), 0
    return bind(_argsort, (a,), {"axis": axes_of(axis, a.ndim)[0], "kind": "stable" if stable else kind})


@implements(np.sort)
def sort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """NumPy's ``sort``."""
    _no_fields("np.sort", order)
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


# -- partitions ---------------------------------------------------------------------------------

_argpartition = primitive(
    "argpartition",
    lambda x, axis, kind: np.argpartition(x, kind, axis),
    _argsort_shape,
    differentiable=False,
)
_batches(_argpartition)


@implements(np.argpartition)
def argpartition(a: Any, kth: Any, axis: Any = -1, kind: Any = "introselect", order: Any = None) -> Any:
    """NumPy's ``argpartition``."""
    _no_fields("np.argpartition", order)
    if is_tracer(kth):
        raise UnsupportedError("np.argpartition: kth= must be known, not a tracer; write np.argsort(x)")
    if axis is None:
        a, axis = np.reshape(a, -1), 0
    (axis,) = axes_of(axis, a.ndim)
    places = tuple([int(k) for k in np.atleast_1d(kth)])
    if any(not -a.shape[axis] <= k < a.shape[axis] for k in places):
        raise ValueError(f"np.argpartition: kth={kth} is out of bounds for axis {axis} of shape {a.shape}")
    return bind(_argpartition, (a,), {"axis": axis, "kind": places})


@implements(np.partition)
def partition(a: Any, kth: Any, axis: Any = -1, kind: Any = "introselect", order: Any = None) -> Any:
    """NumPy's ``partition``: the elements in the order that ``argpartition`` says. In which order those before and
    after the `kth` come is not specified."""
    if axis is None:
        a, axis = np.reshape(a, -1), 0
    return np.take_along_axis(a, argpartition(a, kth, axis, kind, order), axis=axis)


@implements(np.lexsort)
def lexsort(keys: Any, axis: int = -1) -> Any:
    """NumPy's ``lexsort``: by the last key, of equal elements by the one before it, and so on."""
    first, *rest = list(keys)
    order = np.argsort(first, axis=axis, kind="stable")
    for key in rest:
        key = key if hasattr(key, "dtype") else np.asarray(key)
        order = np.take_along_axis(
            order, np.argsort(np.take_along_axis(key, order, axis=axis), axis=axis, kind="stable"), axis=axis
        )
    return order


@implements(np.sort_complex)
def sort_complex(a: Any) -> Any:
    """NumPy's ``sort_complex``."""
    return convert(sort(a), np.sort_complex(np.zeros(1, a.dtype)).dtype)


# -- places in sorted arrays --------------------------------------------------------------------


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
    if np.ndim(a) != 1:
        raise ValueError(f"searchsorted: the sorted array needs one axis, got shape {np.shape(a)}")
    a, v = [x if hasattr(x, "dtype") else np.asarray(x) for x in (a, v)]
    if sorter is not None:
        a = getitem(a, sorter)
    return bind(_searchsorted, (a, v), {"side": side})


@implements(np.digitize)
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """NumPy's ``digitize``: nothing to differentiate."""
    bins = bins if hasattr(bins, "dtype") else np.asarray(bins)
    if dtype_of(x).kind == "c":
        raise TypeError(f"np.digitize: complex numbers have no order, got dtype {dtype_of(x)}")
    plain = known(bins)
    if plain is not None and plain.size:
        steps = np.diff(plain)
        if not (np.all(steps >= 0) or np.all(steps <= 0)):
            raise ValueError("np.digitize: bins must increase or decrease monotonically")
    side = "left" if right else "right"
    rising = searchsorted(bins, x, side)
    if plain is not None and (not plain.size or plain[0] <= plain[-1]):
        return rising
    falling = bins.shape[0] - searchsorted(bins[::-1], x, side)
    return falling if plain is not None else np.where(bins[0] <= bins[-1], rising, falling)


# -- values that must be known ------------------------------------------------------------------


def known(x: Any) -> Any:
    """The plain value of `x`; None where a tracer has none."""
    while isinstance(x, ValueTracer):
        x = x.value
    return None if isinstance(x, Tracer) else x


def concrete(name: str, a: Any, advice: str = "write np.where(condition, x, y) instead") -> Any:
    """The value of a tracer, of which function `name` needs to know it."""
    value = known(a)
    if value is None:
        raise ConcretizationError(f"{name} of {a!r}, made {a.origin()}, has an answer of unknown size; {advice}")
    return value


@implements(np.nonzero)
def nonzero(a: Any) -> Any:
    """NumPy's ``nonzero``: of concrete tracers only, since its answer has no static size."""
    return np.nonzero(concrete("np.nonzero", a))
