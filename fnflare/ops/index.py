"""Reading and writing parts of arrays: indexing, `at`, gathers, sorting, choosing by condition.

What an index is made of is a static parameter, but for index arrays that are tracers, which are
arguments. The cotangent of a read is a `Scatter`: the rows that were read and where they belong; the
sweep adds those up.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import Scatter, ShapeDtypeStruct, Tracer, bind, dtype_of, is_tracer, primitive
from fnflare.core.scatter import is_basic
from fnflare.core.tracer import implements
from fnflare.errors import ConcretizationError, DtypeError, UnsupportedError
from fnflare.ops.elementwise import convert, select
from fnflare.ops.reduce import axes_of
from fnflare.ops.shape import unbroadcast

__all__ = ["At", "at", "getitem", "index_add", "index_set"]

# -- the parts of an index ----------------------------------------------------------------------


class _Hole:
    """The place of an index array that is a tracer, and so an argument and not a parameter."""

    __slots__ = ("k",)

    def __init__(self, k: int) -> None:
        self.k = k

    def __repr__(self) -> str:
        return f"i{self.k}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hole) and other.k == self.k

    def __hash__(self) -> int:
        return hash((_Hole, self.k))


def _split(index: Any) -> tuple[Any, list[Any]]:
    """An index as its static part, with holes, and the tracers that belong into them."""
    if type(index) is int:
        return index, []
    holes: list[Any] = []
    parts = [_static(i, holes) for i in (index if type(index) is tuple else (index,))]
    return (tuple(parts) if type(index) is tuple else parts[0]), holes


def _static(i: Any, holes: list[Any]) -> Any:
    if is_tracer(i):
        if i.dtype.kind == "b":
            raise ConcretizationError(
                f"a mask that is a tracer, {i!r}, made {i.origin()}, selects an unknown number of elements; "
                "write np.where(mask, x, y)"
            )
        if i.dtype.kind == "f":
            raise ConcretizationError(
                f"an index must be of integers, got {i!r}, made {i.origin()}; see ff.stop_gradient"
            )
        holes.append(i)
        return _Hole(len(holes) - 1)
    if isinstance(i, (list, tuple)):
        if any(is_tracer(j) for j in i):
            raise ConcretizationError("an index list holds a tracer; write np.stack of its elements")
        return np.asarray(i, dtype=np.intp) if len(i) == 0 else np.asarray(i)
    return i


def _fill(index: Any, arrays: Any) -> Any:
    """The index with its holes filled."""
    if not arrays:
        return index
    if type(index) is tuple:
        return tuple([arrays[i.k] if type(i) is _Hole else i for i in index])
    return arrays[index.k]


def _part_shape(shape: tuple[int, ...], index: Any, arrays: Any) -> tuple[int, ...]:
    """The shape of an array of the given shape after indexing, found on an array without memory."""
    stand_ins = [np.broadcast_to(np.zeros((), np.intp), a.shape) for a in arrays]
    return np.broadcast_to(np.empty((), bool), shape)[_fill(index, stand_ins)].shape


# -- reading ------------------------------------------------------------------------------------


def _getitem_shape(x: ShapeDtypeStruct, *arrays: ShapeDtypeStruct, index: Any) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(_part_shape(x.shape, index, arrays), x.dtype)


_getitem = primitive("getitem", lambda x, *arrays, index: x[_fill(index, arrays)], _getitem_shape)
_getitem.vjp(lambda ct, _ans, x_like, *arrays, index: Scatter(x_like, _fill(index, arrays), ct, index_add))
_getitem.jvp(lambda t, _ans, _x, *arrays, index: getitem(t, _fill(index, arrays)))


def getitem(x: Any, index: Any) -> Any:
    """``x[index]``."""
    static, arrays = _split(index)
    return bind(_getitem, (x, *arrays), {"index": static})


# -- writing ------------------------------------------------------------------------------------


def _write_shape(x: ShapeDtypeStruct, v: ShapeDtypeStruct, *arrays: Any, index: Any) -> ShapeDtypeStruct:
    part = _part_shape(x.shape, index, arrays)
    if np.broadcast_shapes(v.shape, part) != part:
        raise ValueError(f"could not broadcast input array from shape {v.shape} into shape {part}")
    return ShapeDtypeStruct(x.shape, x.dtype)


def _set_kernel(x: Any, v: Any, *arrays: Any, index: Any) -> Any:
    out = np.array(x)
    out[_fill(index, arrays)] = v
    return out


def _add_kernel(x: Any, v: Any, *arrays: Any, index: Any) -> Any:
    out = np.array(x)
    index = _fill(index, arrays)
    if is_basic(index):
        out[index] += v
    else:
        np.add.at(out, index, v)
    return out


def _fit(ct: Any, aval: Any) -> Any:
    """The cotangent of a value that was broadcast and converted when it was written."""
    return convert(unbroadcast(ct, aval.shape), aval.dtype)


_index_add = primitive("index_add", _add_kernel, _write_shape)
_index_add.vjp(
    lambda ct, _ans, _x, _v, *_arrays, index: ct,
    lambda ct, _ans, _x, v_like, *arrays, index: _fit(getitem(ct, _fill(index, arrays)), v_like),
)
_index_add.jvp(
    lambda t, _ans, _x, _v, *_arrays, index: t,
    lambda t, _ans, x_like, _v, *arrays, index: index_add(
        np.zeros(x_like.shape, x_like.dtype), t, index=_fill(index, arrays)
    ),
)

_index_set = primitive("index_set", _set_kernel, _write_shape)


def _cleared(ct: Any, index: Any) -> Any:
    return index_set(ct, np.zeros((), dtype_of(ct)), index=index)


def _last_writes(shape: tuple[int, ...], index: Any) -> Any:
    """1 for each write that lasts, 0 for each that another write of the same element covers: found by
    writing the number of each write and reading it back."""
    part = _part_shape(shape, index, ())
    number = np.arange(math.prod(part)).reshape(part)
    last = np.full(shape, -1)
    last[index] = number
    return last[index] == number


def _set_value_vjp(ct: Any, _ans: Any, x_like: Any, v_like: Any, *arrays: Any, index: Any) -> Any:
    index = _fill(index, arrays)
    part = getitem(ct, index)
    if not is_basic(index) and not any(is_tracer(a) for a in arrays):
        part = part * _last_writes(x_like.shape, index).astype(dtype_of(ct))
    return _fit(part, v_like)


_index_set.vjp(lambda ct, _ans, _x, _v, *arrays, index: _cleared(ct, _fill(index, arrays)), _set_value_vjp)
_index_set.jvp(
    lambda t, _ans, _x, _v, *arrays, index: _cleared(t, _fill(index, arrays)),
    lambda t, _ans, x_like, _v, *arrays, index: index_set(
        np.zeros(x_like.shape, x_like.dtype), t, index=_fill(index, arrays)
    ),
)


def index_add(x: Any, v: Any, *, index: Any) -> Any:
    """`x` with `v` added at `index`; equal indices add up."""
    static, arrays = _split(index)
    return bind(_index_add, (x, v, *arrays), {"index": static})


def index_set(x: Any, v: Any, *, index: Any) -> Any:
    """`x` with `v` in the place of ``x[index]``."""
    if is_tracer(v) and v.dtype.kind in "fc" and dtype_of(x).kind not in "fc":
        raise DtypeError(
            f"ff.at: an array of dtype {dtype_of(x)} cannot take {v!r}, whose fraction and derivative would be lost; "
            f"convert the array, x.astype(np.{v.dtype})"
        )
    static, arrays = _split(index)
    return bind(_index_set, (x, v, *arrays), {"index": static})


class At:
    """Functional writes to one part of an array; made by ``at(x)[index]``."""

    __slots__ = ("_index", "_x")

    def __init__(self, x: Any, index: Any) -> None:
        self._x = x
        self._index = index

    def get(self) -> Any:
        """The part itself."""
        return self._x[self._index]

    def set(self, value: Any) -> Any:
        """The array with the part replaced."""
        return index_set(self._x, value, index=self._index)

    def add(self, value: Any) -> Any:
        """The array with `value` added to the part; an index named twice is added to twice."""
        return index_add(self._x, value, index=self._index)

    def multiply(self, value: Any) -> Any:
        """The array with the part multiplied; an index named twice is multiplied twice."""
        return self._update(np.multiply, np.multiply, value)

    def divide(self, value: Any) -> Any:
        """The array with the part divided; an index named twice is divided twice."""
        return self._update(np.divide, np.multiply, value)

    def power(self, value: Any) -> Any:
        """The array with the part raised to a power; an index named twice is raised twice."""
        return self._update(np.power, np.multiply, value)

    def min(self, value: Any) -> Any:
        """The array with the part no larger than `value`, or than each of the values for one index."""
        return self._update(np.minimum, np.minimum, value)

    def max(self, value: Any) -> Any:
        """The array with the part no smaller than `value`, or than each of the values for one index:
        with an index of segment numbers, the maximum of each segment."""
        return self._update(np.maximum, np.maximum, value)

    def _update(self, operation: Any, combine: Any, value: Any) -> Any:
        index, value = _one_each(np.shape(self._x), self._index, value, combine)
        return index_set(self._x, operation(self._x[index], value), index=index)

    def apply(self, function: Any) -> Any:
        """The array with an elementwise function applied to the part."""
        return self.set(function(self.get()))


def _one_each(shape: tuple[int, ...], index: Any, value: Any, combine: Any) -> tuple[Any, Any]:
    """An index that names no element twice, and its values: those for one element are combined, pair by pair."""
    static, arrays = _split(index)
    if is_basic(static) or arrays:
        return index, value
    part = np.arange(math.prod(shape)).reshape(shape)[static]
    if np.unique(part).size == part.size:
        return index, value
    places = part.reshape(-1)
    value = np.reshape(np.broadcast_to(value, part.shape), -1)
    while True:
        order = np.argsort(places, kind="stable")
        places, value = places[order], value[order]
        number = np.arange(places.size)
        begins = np.diff(places, prepend=-1) != 0
        even = (number - np.maximum.accumulate(np.where(begins, number, 0))) % 2 == 0
        paired = even & ~np.append(begins[1:], True)
        if not paired.any():
            return np.unravel_index(places, shape), value
        left, alone = np.flatnonzero(paired), np.flatnonzero(even & ~paired)
        value = np.concatenate([combine(value[left], value[left + 1]), value[alone]])
        places = np.concatenate([places[left], places[alone]])


class _Parts:
    __slots__ = ("_x",)

    def __init__(self, x: Any) -> None:
        self._x = x

    def __getitem__(self, index: Any) -> At:
        return At(self._x, index)


def at(x: Any) -> _Parts:
    """Functional writes: ``at(x)[index].set(v)`` is a copy of `x` in which the part has changed.

    Args:
        x: an array or a tracer.

    Returns:
        An object to index, with ``set``, ``add``, ``multiply``, ``divide``, ``power``, ``min``, ``max``,
        ``apply`` and ``get`` on the part.

    >>> at(np.zeros(3))[1].set(5.0)
    array([0., 5., 0.])
    >>> at(np.zeros(2))[[0, 0, 1]].add(1.0)
    array([2., 1.])
    """
    return _Parts(x if isinstance(x, (np.ndarray, Tracer)) else np.asarray(x))


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
    a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None, max: Any = None, **kwargs: Any
) -> Any:
    """NumPy's ``clip``; at a border the gradient is shared, as that of np.minimum and np.maximum is."""
    if out is not None or kwargs:
        raise UnsupportedError(f"np.clip: {['out', *kwargs][0]}= has no rule for tracers; leave it out")
    low = min if a_min is None or a_min is np._NoValue else a_min
    high = max if a_max is None or a_max is np._NoValue else a_max
    absent = (None, np._NoValue)
    if not any(low is n for n in absent):
        a = np.maximum(a, low)
    return a if any(high is n for n in absent) else np.minimum(a, high)


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


# -- order --------------------------------------------------------------------------------------


def _argsort_shape(x: ShapeDtypeStruct, *, axis: int, kind: Any) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, np.intp)


_argsort = primitive(
    "argsort", lambda x, axis, kind: np.argsort(x, axis=axis, kind=kind), _argsort_shape, differentiable=False
)


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


def _order(x: Any, axis: int) -> Any:
    return np.argsort(x, axis=axis, kind="stable")


@_sort.vjp
def _(ct: Any, _ans: Any, x: Any, *, axis: int, kind: Any) -> Any:
    back = np.argsort(_order(x, axis), axis=axis)
    return np.take_along_axis(ct, back, axis=axis)


@_sort.jvp
def _(t: Any, _ans: Any, x: Any, *, axis: int, kind: Any) -> Any:
    return np.take_along_axis(t, _order(x, axis), axis=axis)


@implements(np.nonzero)
def nonzero(a: Any) -> Any:
    """NumPy's ``nonzero``: of concrete tracers only, since its answer has no static size."""
    value = a
    while hasattr(value, "value"):
        value = value.value
    if isinstance(value, Tracer):
        raise ConcretizationError(
            f"np.nonzero of {a!r} has an answer of unknown size; write np.where(condition, x, y) instead"
        )
    return np.nonzero(value)
