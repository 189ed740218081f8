"""Reductions and scans along axes: sum, max and min, mean and its kin, cumulative sums.

`axes` is a sorted tuple of numbers from 0 in every primitive here; NumPy's ways of naming axes are
worked out in the functions that NumPy calls.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import Primitive, ShapeDtypeStruct, bind, primitive
from fnflare.core.batch import shifted
from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError
from fnflare.ops.elementwise import convert
from fnflare.ops.shape import broadcast_scalar, expand_to

__all__ = ["reduce_max", "reduce_sum"]

_no_value = np._NoValue  # what NumPy passes for an argument left out

_ALL_AXES = tuple([tuple(range(n)) for n in range(8)])


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """NumPy's `axis` as a sorted tuple of axes from 0."""
    if axis is None:
        return _ALL_AXES[ndim] if ndim < 8 else tuple(range(ndim))
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    axes = axis if isinstance(axis, tuple) else (axis,)
    for a in axes:
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(a, ndim)
    return tuple(sorted({int(a) % ndim for a in axes}))


def _reduced(x: ShapeDtypeStruct, axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    if keepdims:
        return tuple([1 if i in axes else n for i, n in enumerate(x.shape)])
    return tuple([n for i, n in enumerate(x.shape) if i not in axes])


def kept(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with the given axes of length one."""
    return tuple([1 if i in axes else n for i, n in enumerate(shape)])


def _expanded(ct: Any, shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> Any:
    """A reduced array with the reduced axes back, at length one."""
    return ct if keepdims else np.reshape(ct, kept(shape, axes))


def _extras(name: str, out: Any = None, where: Any = _no_value, initial: Any = _no_value) -> None:
    """Refuse the arguments of NumPy's reductions that have no rule."""
    if out is not None:
        raise UnsupportedError(f"{name}: out= cannot take a tracer; use what the function returns")
    if where is not _no_value and where is not True:
        raise UnsupportedError(f"{name}: where= has no rule for tracers; write {name}(np.where(mask, x, neutral))")
    if initial is not _no_value and initial is not None:
        raise UnsupportedError(f"{name}: initial= has no rule for tracers; combine it with the result")


def _batches(prim: Primitive) -> None:
    """Give the batching rule of a reduction over `axes`: over the same axes of all examples at once."""

    def rule(_size: int, args: Any, dims: Any, *, axes: tuple[int, ...], keepdims: bool) -> tuple[Any, int]:
        (x,), (dim,) = args, dims
        axes = shifted(axes, dim)
        place = dim if keepdims else dim - _count_below(axes, dim)
        return bind(prim, (x,), {"axes": axes, "keepdims": keepdims}), place

    prim.vmap(rule)


def _count_below(axes: tuple[int, ...], axis: int) -> int:
    return len([a for a in axes if a < axis])


# -- sum ----------------------------------------------------------------------------------------


def _summed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which NumPy adds up or multiplies elements: integers in 64 bits."""
    return np.dtype(np.uint64) if dtype.kind == "u" else np.dtype(np.int64) if dtype.kind in "bi" else dtype


def _sum_shape(x: ShapeDtypeStruct, *, axes: tuple[int, ...], keepdims: bool) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(_reduced(x, axes, keepdims), _summed(x.dtype))


_add_reduce: Any = np.add.reduce  # what np.sum comes to, without its checks of the arguments


def _sum_kernel(x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    every = type(x) is not np.ndarray or len(axes) == x.ndim
    return _add_reduce(x, None if every else axes, None, None, keepdims)


reduce_sum = primitive("sum", _sum_kernel, _sum_shape, multilinear=True)
_batches(reduce_sum)
reduce_sum.cost(lambda ans, x, **_: x.size)


@reduce_sum.vjp
def _(ct: Any, _ans: Any, x_like: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    if isinstance(ct, np.generic):
        return broadcast_scalar(ct, x_like.shape)
    if len(axes) < len(x_like.shape):
        ct = _expanded(ct, x_like.shape, axes, keepdims)
    return expand_to(ct, x_like.shape)


# The parameters of the sum over all axes, by their number: the loss at the end of nearly every function.
_SUM_ALL = [{"axes": axes, "keepdims": False} for axes in _ALL_AXES]


def _is_set(keepdims: Any) -> bool:
    return keepdims is not _no_value and bool(keepdims)


@implements(np.sum)
def sum(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = _no_value,
    where: Any = _no_value,
) -> Any:
    """NumPy's ``sum``."""
    if out is not None or initial is not _no_value or where is not _no_value:
        _extras("np.sum", out, where, initial)
    if dtype is not None:
        a = convert(a, dtype)
    if axis is None and keepdims is False and len(a.shape) < len(_SUM_ALL):
        return a._trace.unary(reduce_sum, a, _SUM_ALL[len(a.shape)])
    keep = keepdims is not False and _is_set(keepdims)
    return a._trace.unary(reduce_sum, a, {"axes": axes_of(axis, len(a.shape)), "keepdims": keep})


@implements(np.mean)
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = _no_value
) -> Any:
    """NumPy's ``mean``."""
    _extras("np.mean", out, where)
    if a.dtype.kind not in "fc" and dtype is None:
        dtype = np.float64
    count = math.prod([a.shape[i] for i in axes_of(axis, a.ndim)])
    return sum(a, axis, dtype, keepdims=keepdims) / count


@implements(np.var)
def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = _no_value,
    mean: Any = _no_value,
    correction: Any = _no_value,
) -> Any:
    """NumPy's ``var``."""
    _extras("np.var", out, where)
    if dtype is not None:
        a = convert(a, dtype)
    ddof = ddof if correction is _no_value else correction
    count = math.prod([a.shape[i] for i in axes_of(axis, a.ndim)])
    centre = np.mean(a, axis=axis, keepdims=True) if mean is _no_value else mean
    return sum(np.square(a - centre), axis, keepdims=keepdims) / (count - ddof)


@implements(np.std)
def std(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, **kwargs: Any) -> Any:
    """NumPy's ``std``."""
    return np.sqrt(var(a, axis, dtype, out, ddof, **kwargs))


# -- max and min --------------------------------------------------------------------------------


def _extreme_shape(x: ShapeDtypeStruct, *, axes: tuple[int, ...], keepdims: bool) -> ShapeDtypeStruct:
    if math.prod([x.shape[i] for i in axes]) == 0 and x.ndim:
        raise ValueError("the maximum or minimum of no elements does not exist")
    return ShapeDtypeStruct(_reduced(x, axes, keepdims), x.dtype)


def _winners(x: Any, ans: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    """The share of each element in the extreme: ties share equally."""
    hit = convert(x == _expanded(ans, x.shape, axes, keepdims), x.dtype)
    return hit / np.sum(hit, axis=axes, keepdims=True)


def _extreme_vjp(ct: Any, ans: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    return _winners(x, ans, axes, keepdims) * _expanded(ct, x.shape, axes, keepdims)


def _extreme_jvp(t: Any, ans: Any, x: Any, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.sum(t * _winners(x, ans, axes, keepdims), axis=axes, keepdims=keepdims)


reduce_max = primitive("max", lambda x, axes, keepdims: np.max(x, axis=axes, keepdims=keepdims), _extreme_shape)
reduce_max.vjp(_extreme_vjp)
reduce_max.jvp(_extreme_jvp)
_batches(reduce_max)
reduce_max.cost(lambda ans, x, **_: x.size)

reduce_min = primitive("min", lambda x, axes, keepdims: np.min(x, axis=axes, keepdims=keepdims), _extreme_shape)
reduce_min.vjp(_extreme_vjp)
reduce_min.jvp(_extreme_jvp)
_batches(reduce_min)
reduce_min.cost(lambda ans, x, **_: x.size)


@implements(np.max, np.amax)
def max(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = _no_value, where: Any = _no_value
) -> Any:
    """NumPy's ``max``; the gradient of a tie is shared equally."""
    _extras("np.max", out, where, initial)
    return bind(reduce_max, (a,), {"axes": axes_of(axis, a.ndim), "keepdims": _is_set(keepdims)})


@implements(np.min, np.amin)
def min(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = _no_value, where: Any = _no_value
) -> Any:
    """NumPy's ``min``; the gradient of a tie is shared equally."""
    _extras("np.min", out, where, initial)
    return bind(reduce_min, (a,), {"axes": axes_of(axis, a.ndim), "keepdims": _is_set(keepdims)})


# -- products -----------------------------------------------------------------------------------


@implements(np.prod)
def prod(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = _no_value,
    where: Any = _no_value,
) -> Any:
    """NumPy's ``prod``, by halving: differentiates to any order, also at zeros."""
    _extras("np.prod", out, where, initial)
    if dtype is not None or _summed(a.dtype) != a.dtype:
        a = convert(a, dtype or _summed(a.dtype))
    axes = axes_of(axis, a.ndim)
    rest = [i for i in range(a.ndim) if i not in axes]
    count = math.prod([a.shape[i] for i in axes])
    x = np.reshape(np.transpose(a, (*axes, *rest)), (count, *[a.shape[i] for i in rest]))
    if count == 0:
        x = np.ones((1, *x.shape[1:]), a.dtype)
    while x.shape[0] > 1:
        half = x.shape[0] // 2
        odd = x[2 * half :]
        x = x[:half] * x[half : 2 * half]
        if odd.shape[0]:
            x = np.concatenate([x, odd])
    return np.reshape(x[0], kept(a.shape, axes) if _is_set(keepdims) else x.shape[1:])


# -- cumulative sums ----------------------------------------------------------------------------


def _same(x: ShapeDtypeStruct, *, axis: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, _summed(x.dtype))


_cumsum = primitive("cumsum", lambda x, axis: np.cumsum(x, axis=axis), _same, multilinear=True)
_cumsum.vjp(lambda ct, _ans, _x, *, axis: np.flip(np.cumsum(np.flip(ct, axis), axis=axis), axis))
_cumsum.vmap(lambda _size, args, dims, *, axis: (bind(_cumsum, args, {"axis": shifted((axis,), dims[0])[0]}), dims[0]))
_cumsum.cost(lambda ans, x, **_: x.size)


@implements(np.cumsum)
def cumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """NumPy's ``cumsum``."""
    _extras("np.cumsum", out)
    if dtype is not None:
        a = convert(a, dtype)
    if axis is None:
        a, axis = np.reshape(a, -1), 0
    return bind(_cumsum, (a,), {"axis": axes_of(axis, a.ndim)[0]})


# -- tests and positions: nothing to differentiate ----------------------------------------------


def _test_shape(x: ShapeDtypeStruct, *, axes: tuple[int, ...], keepdims: bool) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(_reduced(x, axes, keepdims), bool)


_any = primitive(
    "any", lambda x, axes, keepdims: np.any(x, axis=axes, keepdims=keepdims), _test_shape, differentiable=False
)
_all = primitive(
    "all", lambda x, axes, keepdims: np.all(x, axis=axes, keepdims=keepdims), _test_shape, differentiable=False
)
_batches(_any)
_batches(_all)


@implements(np.any)
def any(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = _no_value) -> Any:
    """NumPy's ``any``."""
    _extras("np.any", out, where)
    return bind(_any, (a,), {"axes": axes_of(axis, a.ndim), "keepdims": _is_set(keepdims)})


@implements(np.all)
def all(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = _no_value) -> Any:
    """NumPy's ``all``."""
    _extras("np.all", out, where)
    return bind(_all, (a,), {"axes": axes_of(axis, a.ndim), "keepdims": _is_set(keepdims)})


def _arg_shape(x: ShapeDtypeStruct, *, axis: int, keepdims: bool) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(_reduced(x, (axis,), keepdims), np.intp)


_argmax = primitive(
    "argmax", lambda x, axis, keepdims: np.argmax(x, axis=axis, keepdims=keepdims), _arg_shape, differentiable=False
)
_argmin = primitive(
    "argmin", lambda x, axis, keepdims: np.argmin(x, axis=axis, keepdims=keepdims), _arg_shape, differentiable=False
)


def _batches_position(prim: Primitive) -> None:
    """Give the batching rule of a position along `axis`."""

    def rule(_size: int, args: Any, dims: Any, *, axis: int, keepdims: bool) -> tuple[Any, int]:
        (x,), (dim,) = args, dims
        (axis,) = shifted((axis,), dim)
        return bind(prim, (x,), {"axis": axis, "keepdims": keepdims}), dim - (not keepdims and axis < dim)

    prim.vmap(rule)


_batches_position(_argmax)
_batches_position(_argmin)


def _position(prim: Any, a: Any, axis: Any, keepdims: Any) -> Any:
    if axis is None:
        flat = bind(prim, (np.reshape(a, -1),), {"axis": 0, "keepdims": False})
        return np.reshape(flat, (1,) * a.ndim) if _is_set(keepdims) else flat
    return bind(prim, (a,), {"axis": axes_of(axis, a.ndim)[0], "keepdims": _is_set(keepdims)})


@implements(np.argmax)
def argmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    """NumPy's ``argmax``."""
    _extras("np.argmax", out)
    return _position(_argmax, a, axis, keepdims)


@implements(np.argmin)
def argmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    """NumPy's ``argmin``."""
    _extras("np.argmin", out)
    return _position(_argmin, a, axis, keepdims)
