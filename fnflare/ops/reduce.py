"""Reductions along axes: sums, products, extremes, tests and positions.

`axes` is a sorted tuple of numbers from 0 in every primitive here; NumPy's ways of naming axes are
worked out in the functions that NumPy calls. Elements that ``where=`` leaves out are replaced by what
changes nothing before the primitive sees them, and ``initial=`` joins its answer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import Primitive, ShapeDtypeStruct, bind, dtype_of, primitive
from fnflare.core.batch import shifted
from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError
from fnflare.ops.elementwise import convert
from fnflare.ops.shape import broadcast_scalar, expand_to

__all__ = [
    "axes_of",
    "is_given",
    "is_set",
    "left_out",
    "masked",
    "nan_where",
    "reduce_max",
    "reduce_sum",
    "refuse_out",
    "summed",
]

no_value = np._NoValue  # what NumPy passes for an argument left out

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


# -- NumPy's further arguments ------------------------------------------------------------------


def refuse_out(name: str, out: Any) -> None:
    """Refuse ``out=``, into which no tracer can be written."""
    if out is not None:
        raise UnsupportedError(f"{name}: out= cannot take a tracer; write out = {name}(...), which returns it")


def is_set(keepdims: Any) -> bool:
    """Whether ``keepdims=`` was given and is true."""
    return keepdims is not no_value and bool(keepdims)


def left_out(where: Any) -> bool:
    """Whether a ``where=`` was given that leaves out nothing, or none."""
    return where is no_value or where is True


def is_given(initial: Any) -> bool:
    """Whether ``initial=`` was given; None says to begin with the first element."""
    return initial is not no_value and initial is not None


def masked(a: Any, where: Any, fill: Any) -> Any:
    """`a` with `fill` in the place of the elements that ``where=`` leaves out."""
    if left_out(where):
        return a
    mask = where if hasattr(where, "dtype") else np.asarray(where, bool)
    return np.where(np.broadcast_to(mask, np.shape(a)), a, dtype_of(a).type(fill))


def nan_where(condition: Any, ans: Any) -> Any:
    """`ans` with nan where the condition holds."""
    # A sum, since np.where would make arrays of numbers.
    return ans + np.where(condition, ans.dtype.type(np.nan), ans.dtype.type(0))


def _joined(ufunc: Any, ans: Any, initial: Any) -> Any:
    """The answer of a reduction with its ``initial=``, in the answer's dtype."""
    return ufunc(convert(initial, ans.dtype), ans) if is_given(initial) else ans


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


def summed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which NumPy adds up or multiplies elements: integers in 64 bits."""
    return np.dtype(np.uint64) if dtype.kind == "u" else np.dtype(np.int64) if dtype.kind in "bi" else dtype


def _sum_shape(x: ShapeDtypeStruct, *, axes: tuple[int, ...], keepdims: bool) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(_reduced(x, axes, keepdims), summed(x.dtype))


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


@implements(np.sum)
def sum(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = no_value,
    where: Any = no_value,
) -> Any:
    """NumPy's ``sum``."""
    if dtype is not None:
        a = convert(a, dtype)
    if out is not None or initial is not no_value or where is not no_value:
        refuse_out("np.sum", out)
        return _joined(np.add, np.sum(masked(a, where, 0), axis, keepdims=is_set(keepdims)), initial)
    if axis is None and keepdims is False and len(a.shape) < len(_SUM_ALL):
        return a._trace.unary(reduce_sum, a, _SUM_ALL[len(a.shape)])
    keep = keepdims is not False and is_set(keepdims)
    return a._trace.unary(reduce_sum, a, {"axes": axes_of(axis, len(a.shape)), "keepdims": keep})


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


def _lowest(dtype: np.dtype[Any]) -> Any:
    return False if dtype.kind == "b" else np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf


def _highest(dtype: np.dtype[Any]) -> Any:
    return True if dtype.kind == "b" else np.iinfo(dtype).max if dtype.kind in "iu" else np.inf


def _extreme(name: str, prim: Primitive, a: Any, axis: Any, out: Any, keepdims: Any, initial: Any, where: Any) -> Any:
    """A maximum or minimum with some of the further arguments."""
    refuse_out(name, out)
    if not left_out(where) and not is_given(initial):
        raise ValueError(f"{name}: where= needs initial=, since there may be rows of which it leaves out all")
    a = a if hasattr(a, "dtype") else np.asarray(a)
    ufunc, neutral = (np.maximum, _lowest) if prim is reduce_max else (np.minimum, _highest)
    axes, keep = axes_of(axis, a.ndim), is_set(keepdims)
    if math.prod([a.shape[i] for i in axes]) == 0 and is_given(initial):
        return np.broadcast_to(convert(initial, a.dtype), _reduced(a, axes, keep))
    a = masked(a, where, neutral(a.dtype))
    return _joined(ufunc, bind(prim, (a,), {"axes": axes, "keepdims": keep}), initial)


@implements(np.max, np.amax)
def max(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = no_value, where: Any = no_value
) -> Any:
    """NumPy's ``max``.

    The gradient of a tie is shared equally by all elements that are the largest, which is a subgradient; an
    ``initial=`` that ties with the largest element takes half.
    """
    if out is not None or initial is not no_value or where is not no_value:
        return _extreme("np.max", reduce_max, a, axis, out, keepdims, initial, where)
    return bind(reduce_max, (a,), {"axes": axes_of(axis, a.ndim), "keepdims": is_set(keepdims)})


@implements(np.min, np.amin)
def min(
    a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, initial: Any = no_value, where: Any = no_value
) -> Any:
    """NumPy's ``min``; the gradient of a tie is shared as that of ``max``."""
    if out is not None or initial is not no_value or where is not no_value:
        return _extreme("np.min", reduce_min, a, axis, out, keepdims, initial, where)
    return bind(reduce_min, (a,), {"axes": axes_of(axis, a.ndim), "keepdims": is_set(keepdims)})


@implements(np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = no_value) -> Any:
    """NumPy's ``ptp``, the largest element less the smallest."""
    refuse_out("np.ptp", out)
    return max(a, axis, keepdims=keepdims) - min(a, axis, keepdims=keepdims)


# -- products -----------------------------------------------------------------------------------


def _others(x: Any, axes: tuple[int, ...]) -> Any:
    """For each element the product of all others along the axes: of those before it and those after it, so that
    nothing is divided by an element that may be zero."""
    if x.size == 0:
        return x
    rest = [i for i in range(x.ndim) if i not in axes]
    order = (*rest, *axes)
    moved = np.transpose(x, order)
    rows = np.reshape(moved, (*moved.shape[: len(rest)], -1))
    ones = np.ones((*rows.shape[:-1], 1), rows.dtype)
    before = np.concatenate([ones, np.cumprod(rows[..., :-1], axis=-1)], axis=-1)
    after = np.concatenate([np.cumprod(rows[..., :0:-1], axis=-1)[..., ::-1], ones], axis=-1)
    return np.transpose(np.reshape(before * after, moved.shape), np.argsort(order).tolist())


reduce_prod = primitive("prod", lambda x, axes, keepdims: np.prod(x, axis=axes, keepdims=keepdims), _sum_shape)
reduce_prod.vjp(
    lambda ct, _ans, x, *, axes, keepdims: _others(x, axes) * _expanded(ct, x.shape, axes, keepdims),
)
reduce_prod.jvp(lambda t, _ans, x, *, axes, keepdims: np.sum(t * _others(x, axes), axis=axes, keepdims=keepdims))
_batches(reduce_prod)
reduce_prod.cost(lambda ans, x, **_: x.size)


@implements(np.prod)
def prod(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = False,
    initial: Any = no_value,
    where: Any = no_value,
) -> Any:
    """NumPy's ``prod``; differentiates to any order, also where elements are zero."""
    refuse_out("np.prod", out)
    if dtype is not None:
        a = convert(a, dtype)
    a = masked(a if hasattr(a, "dtype") else np.asarray(a), where, 1)
    ans = bind(reduce_prod, (a,), {"axes": axes_of(axis, a.ndim), "keepdims": is_set(keepdims)})
    return _joined(np.multiply, ans, initial)


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
def any(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = no_value) -> Any:
    """NumPy's ``any``."""
    refuse_out("np.any", out)
    a = a if left_out(where) else masked(a != 0, where, False)
    return bind(_any, (a,), {"axes": axes_of(axis, a.ndim), "keepdims": is_set(keepdims)})


@implements(np.all)
def all(a: Any, axis: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = no_value) -> Any:
    """NumPy's ``all``."""
    refuse_out("np.all", out)
    a = a if left_out(where) else masked(a != 0, where, True)
    return bind(_all, (a,), {"axes": axes_of(axis, a.ndim), "keepdims": is_set(keepdims)})


@implements(np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    """NumPy's ``count_nonzero``."""
    return np.sum(a != 0, axis, keepdims=keepdims)


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
        return np.reshape(flat, (1,) * a.ndim) if is_set(keepdims) else flat
    return bind(prim, (a,), {"axis": axes_of(axis, a.ndim)[0], "keepdims": is_set(keepdims)})


@implements(np.argmax)
def argmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    """NumPy's ``argmax``."""
    refuse_out("np.argmax", out)
    return _position(_argmax, a, axis, keepdims)


@implements(np.argmin)
def argmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
    """NumPy's ``argmin``."""
    refuse_out("np.argmin", out)
    return _position(_argmin, a, axis, keepdims)
