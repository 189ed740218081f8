"""Operations that move elements and compute nothing: all of them linear."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, move_axis, primitive
from fnflare.core.batch import shifted, spread
from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError

__all__ = ["broadcast_to", "concatenate", "reshape", "transpose"]


# -- reshape ------------------------------------------------------------------------------------


def _reshape_shape(x: ShapeDtypeStruct, *, shape: tuple[int, ...]) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(shape, x.dtype)


_reshape = primitive("reshape", lambda x, shape: np.reshape(x, shape), _reshape_shape, multilinear=True)
_reshape.vjp(lambda ct, _ans, x_like, *, shape: np.reshape(ct, x_like.shape))


@_reshape.vmap
def _(size: int, args: Any, axes: Any, *, shape: tuple[int, ...]) -> tuple[Any, int]:
    (x,), (axis,) = args, axes
    # The axis of the examples stays where it is between the same elements, so that nothing is copied; an example
    # whose elements it parts where the new shape does not, wants it in front.
    before = math.prod(x.shape[:axis])
    place = next((k for k in range(len(shape) + 1) if math.prod(shape[:k]) == before), None)
    if place is None:
        x, place = move_axis(x, axis, 0), 0
    return bind(_reshape, (x,), {"shape": (*shape[:place], size, *shape[place:])}), place


def _full_shape(old: tuple[int, ...], new: Any) -> tuple[int, ...]:
    """`new` with a -1 worked out."""
    shape = (new,) if isinstance(new, (int, np.integer)) else tuple(new)
    unknown = shape.count(-1)
    if unknown == 1:
        known = -math.prod(shape)
        shape = tuple([(math.prod(old) // known if known else 0) if n == -1 else n for n in shape])
    if unknown > 1 or math.prod(shape) != math.prod(old):
        raise ValueError(f"cannot reshape array of size {math.prod(old)} into shape {new}")
    return shape


def _is_fortran(shape: tuple[int, ...], order: Any, copy: Any) -> bool:
    """Whether elements are to be counted with the first axis fastest."""
    if copy is False:
        raise UnsupportedError("copy=False has no rule for tracers, which share no memory; leave it out")
    if order in ("C", "F", "c", "f"):
        return order in ("F", "f")
    if order not in ("A", "K", "a", "k"):
        raise ValueError(f"order must be one of 'C', 'F', 'A' and 'K', got {order!r}")
    if len([n for n in shape if n != 1]) > 1:
        raise UnsupportedError(
            f"order={order!r} has no rule for tracers: what it gives depends on how the array lies in memory, and a "
            "tracer does not; write order='C' or order='F'"
        )
    return False


@implements(np.reshape)
def reshape(x: Any, /, shape: Any, order: Any = "C", *, copy: Any = None) -> Any:
    """NumPy's ``reshape``."""
    new = _full_shape(np.shape(x), shape)
    if order == "C" and copy is None:
        return bind(_reshape, (x,), {"shape": new})
    if not _is_fortran(np.shape(x), order, copy):
        return bind(_reshape, (x,), {"shape": new})
    turned = bind(_reshape, (np.transpose(x),), {"shape": new[::-1]})
    return np.transpose(turned)


@implements(np.ravel)
def ravel(a: Any, order: Any = "C") -> Any:
    """NumPy's ``ravel``."""
    return reshape(a, (-1,), order)


@implements(np.squeeze)
def squeeze(a: Any, axis: Any = None) -> Any:
    """NumPy's ``squeeze``."""
    shape = a.shape
    if not shape and axis in (0, -1, (0,), (-1,)):  # NumPy lets a number have an axis here
        return a
    axes = axes_in_order(axis, len(shape)) if axis is not None else tuple([i for i, n in enumerate(shape) if n == 1])
    if any(shape[i] != 1 for i in axes):
        raise ValueError(f"cannot squeeze axes {axes} of shape {shape}: not all of them have length one")
    return reshape(a, tuple([n for i, n in enumerate(shape) if i not in axes]))


@implements(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> Any:
    """NumPy's ``expand_dims``."""
    axis = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    count = len(axis)
    axes = axes_in_order(axis, a.ndim + count)
    if len(set(axes)) != count:
        raise ValueError(f"expand_dims: axis={axis} names an axis twice")
    rest = iter(a.shape)
    return reshape(a, tuple([1 if i in axes else next(rest) for i in range(a.ndim + count)]))


def axes_in_order(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes as a tuple of numbers from 0; raises as NumPy does."""
    axes = axis if isinstance(axis, tuple) else tuple(axis) if isinstance(axis, (list, range)) else (axis,)
    for a in axes:
        if not -ndim <= a < ndim:
            raise np.exceptions.AxisError(a, ndim)
    return tuple([int(a) % ndim for a in axes])


@implements(np.atleast_1d)
def atleast_1d(*arys: Any) -> Any:
    """NumPy's ``atleast_1d``."""
    out = tuple([reshape(a, (1,)) if np.ndim(a) == 0 else a for a in arys])
    return out[0] if len(out) == 1 else out


@implements(np.atleast_2d)
def atleast_2d(*arys: Any) -> Any:
    """NumPy's ``atleast_2d``."""
    out = tuple([reshape(a, (1, np.size(a))) if np.ndim(a) < 2 else a for a in arys])
    return out[0] if len(out) == 1 else out


@implements(np.atleast_3d)
def atleast_3d(*arys: Any) -> Any:
    """NumPy's ``atleast_3d``."""
    out = tuple([_three_axes(a) for a in arys])
    return out[0] if len(out) == 1 else out


def _three_axes(a: Any) -> Any:
    shape = np.shape(a)
    return a if len(shape) > 2 else reshape(a, (*shape, 1) if len(shape) == 2 else (1, math.prod(shape), 1))


# -- transpose ----------------------------------------------------------------------------------


def _transpose_shape(x: ShapeDtypeStruct, *, axes: tuple[int, ...]) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(tuple([x.shape[a] for a in axes]), x.dtype)


def _inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple([axes.index(i) for i in range(len(axes))])


_transpose = primitive("transpose", lambda x, axes: np.transpose(x, axes), _transpose_shape, multilinear=True)
_transpose.vjp(lambda ct, _ans, _x, *, axes: np.transpose(ct, _inverse(axes)))


@_transpose.vmap
def _(_size: int, args: Any, dims: Any, *, axes: tuple[int, ...]) -> tuple[Any, int]:
    (dim,) = dims
    order = list(shifted(axes, dim))
    order.insert(dim, dim)
    return bind(_transpose, args, {"axes": tuple(order)}), dim


@implements(np.transpose)
def transpose(a: Any, axes: Any = None) -> Any:
    """NumPy's ``transpose``."""
    ndim = a.ndim
    order = tuple(range(ndim))[::-1] if axes is None else axes_in_order(tuple(axes), ndim)
    if len(order) != ndim or len(set(order)) != ndim:
        raise ValueError(f"axes {axes} don't match array of {ndim} axes")
    return bind(_transpose, (a,), {"axes": order})


@implements(np.swapaxes)
def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """NumPy's ``swapaxes``."""
    order = list(range(a.ndim))
    i, j = axes_in_order((axis1, axis2), a.ndim)
    order[i], order[j] = order[j], order[i]
    return transpose(a, order)


@implements(np.rollaxis)
def rollaxis(a: Any, axis: int, start: int = 0) -> Any:
    """NumPy's ``rollaxis``."""
    (axis,) = axes_in_order(axis, a.ndim)
    if not -a.ndim <= start <= a.ndim:
        raise np.exceptions.AxisError(start, a.ndim + 1)
    start += a.ndim if start < 0 else 0
    return moveaxis(a, axis, start - (axis < start))


@implements(np.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    """NumPy's ``matrix_transpose``."""
    if x.ndim < 2:
        raise ValueError(f"matrix_transpose needs two axes or more, got shape {x.shape}")
    return swapaxes(x, -1, -2)


@implements(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    """NumPy's ``moveaxis``."""
    src, dst = axes_in_order(source, a.ndim), axes_in_order(destination, a.ndim)
    if len(src) != len(dst) or len(set(src)) != len(src) or len(set(dst)) != len(dst):
        raise ValueError(f"moveaxis: source={source} and destination={destination} must name as many axes, each once")
    order = [i for i in range(a.ndim) if i not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return transpose(a, order)


# -- broadcast ----------------------------------------------------------------------------------


def unbroadcast(ct: Any, shape: tuple[int, ...]) -> Any:
    """The cotangent of an array that was broadcast: the sum over what was repeated, in the array's shape."""
    if ct.shape == shape:
        return ct
    lead = ct.ndim - len(shape)
    stretched = [lead + i for i, n in enumerate(shape) if n == 1 and ct.shape[lead + i] != 1]
    return np.reshape(np.sum(ct, axis=(*range(lead), *stretched), keepdims=True), shape)


def broadcast_scalar(x: Any, shape: tuple[int, ...]) -> Any:
    """A NumPy scalar as an array of the given shape that repeats it: read-only, and without memory of its own.

    NumPy's broadcast_to takes several microseconds; the scalar's memory read with strides of zero is the same.
    """
    return np.ndarray(shape, x.dtype, x, 0, (0,) * len(shape))


def _broadcast_kernel(x: Any, *, shape: tuple[int, ...]) -> Any:
    return broadcast_scalar(np.asarray(x)[()], shape) if np.ndim(x) == 0 else np.broadcast_to(x, shape)


_broadcast_to = primitive("broadcast_to", _broadcast_kernel, _reshape_shape, multilinear=True)
_broadcast_to.vjp(lambda ct, _ans, x_like, *, shape: unbroadcast(ct, x_like.shape))


@_broadcast_to.vmap
def _(size: int, args: Any, axes: Any, *, shape: tuple[int, ...]) -> tuple[Any, int]:
    (x,), (axis,) = args, axes
    missing = len(shape) + 1 - x.ndim
    if axis == 0 and missing:  # the examples stay in front
        x, place = np.reshape(x, (size, *[1] * missing, *x.shape[1:])), 0
    else:
        place = axis + missing  # broadcasting counts from the last axis
    return bind(_broadcast_to, (x,), {"shape": (*shape[:place], size, *shape[place:])}), place


def expand_to(x: Any, shape: tuple[int, ...]) -> Any:
    """`x` broadcast to a shape that it is known to broadcast to."""
    return bind(_broadcast_to, (x,), {"shape": shape})


@implements(np.broadcast_to)
def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Any:
    """NumPy's ``broadcast_to``."""
    shape = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    if np.broadcast_shapes(np.shape(array), shape) != shape:
        raise ValueError(f"cannot broadcast shape {np.shape(array)} to {shape}")
    return bind(_broadcast_to, (array,), {"shape": shape})


@implements(np.broadcast_arrays)
def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Any, ...]:
    """NumPy's ``broadcast_arrays``."""
    arrays = as_arrays(args)
    shape = np.broadcast_shapes(*[a.shape for a in arrays])
    return tuple([a if a.shape == shape else broadcast_to(a, shape) for a in arrays])


# -- concatenate, stack, split ------------------------------------------------------------------


def _concatenate_shape(*xs: ShapeDtypeStruct, axis: int) -> ShapeDtypeStruct:
    shape = list(xs[0].shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    return ShapeDtypeStruct(tuple(shape), np.result_type(*[x.dtype for x in xs]))


_concatenate = primitive("concatenate", lambda *xs, axis: np.concatenate(xs, axis), _concatenate_shape)


@_concatenate.vjp_joint
def _(ct: Any, _ans: Any, *xs_like: Any, axis: int) -> list[Any]:
    borders = np.cumsum([0, *[x.shape[axis] for x in xs_like]]).tolist()
    lead = (slice(None),) * axis
    return [ct[(*lead, slice(a, b))] for a, b in pairwise(borders)]


@_concatenate.jvp_joint
def _(ts: Any, ans_like: Any, *xs_like: Any, axis: int) -> Any:
    return bind(_concatenate, _dense(ts, xs_like, ans_like.dtype), {"axis": axis})


@_concatenate.vmap
def _(size: int, xs: Any, dims: Any, *, axis: int) -> tuple[Any, int]:
    at = _common(dims)
    return bind(_concatenate, _all_at(xs, dims, size, at), {"axis": shifted((axis,), at)[0]}), at


def _common(dims: Any) -> int:
    """One place for the axis of the examples: where the first batched argument has it."""
    return next(d for d in dims if d is not None)


def _all_at(xs: Any, dims: Any, size: int, at: int) -> list[Any]:
    return [spread(x, d, size, at) for x, d in zip(xs, dims, strict=True)]


def _dense(ts: Any, avals: Any, dtype: Any) -> list[Any]:
    """Tangents with zeros for those that are None."""
    return [np.zeros(a.shape, dtype) if t is None else t for t, a in zip(ts, avals, strict=True)]


@implements(np.concatenate, np.concat)
def concatenate(
    arrays: Any, /, axis: Any = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind"
) -> Any:
    """NumPy's ``concatenate``."""
    no_out("np.concatenate", out)
    xs = as_arrays(arrays, dtype, casting)
    if axis is None:
        xs, axis = [np.reshape(x, -1) for x in xs], 0
    shapes = [np.shape(x) for x in xs]
    if not shapes[0]:
        raise ValueError("np.concatenate: numbers have no axis to be put together along; write np.stack")
    (axis,) = axes_in_order(axis, len(shapes[0]))
    if any(
        len(s) != len(shapes[0]) or s[:axis] + s[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :] for s in shapes
    ):
        raise ValueError(f"np.concatenate along axis {axis}: all other axes must agree, got shapes {shapes}")
    return bind(_concatenate, xs, {"axis": axis})


def as_arrays(xs: Any, dtype: Any = None, casting: Any = "same_kind") -> list[Any]:
    """Arrays and tracers as they are, anything else as an array; in `dtype` if it is given."""
    arrays = [x if hasattr(x, "dtype") else np.asarray(x) for x in xs]
    if dtype is None:
        return arrays
    for x in arrays:
        if not np.can_cast(x.dtype, dtype, casting):
            raise TypeError(f"cannot cast an array from {x.dtype} to {np.dtype(dtype)} by casting={casting!r}")
    return [x.astype(dtype) for x in arrays]


def no_out(name: str, out: Any) -> None:
    if out is not None:
        raise UnsupportedError(f"{name}: out= cannot take a tracer; use what the function returns")


def _stack_shape(*xs: ShapeDtypeStruct, axis: int) -> ShapeDtypeStruct:
    shape = xs[0].shape
    return ShapeDtypeStruct((*shape[:axis], len(xs), *shape[axis:]), np.result_type(*[x.dtype for x in xs]))


_stack = primitive("stack", lambda *xs, axis: np.stack(xs, axis), _stack_shape)


@_stack.vjp_joint
def _(ct: Any, _ans: Any, *_xs: Any, axis: int) -> list[Any]:
    lead = (slice(None),) * axis
    return [ct[(*lead, i)] for i in range(len(_xs))]


@_stack.jvp_joint
def _(ts: Any, ans_like: Any, *xs_like: Any, axis: int) -> Any:
    return bind(_stack, _dense(ts, xs_like, ans_like.dtype), {"axis": axis})


@_stack.vmap
def _(size: int, xs: Any, dims: Any, *, axis: int) -> tuple[Any, int]:
    at = _common(dims)
    after = axis > at
    return bind(_stack, _all_at(xs, dims, size, at), {"axis": axis + after}), at + (not after)


@implements(np.stack)
def stack(arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    """NumPy's ``stack``."""
    no_out("np.stack", out)
    xs = as_arrays(arrays, dtype, casting)
    shapes = {x.shape for x in xs}
    if len(shapes) != 1:
        raise ValueError(f"np.stack: all arrays must have one shape, got {[x.shape for x in xs]}")
    (axis,) = axes_in_order(axis, xs[0].ndim + 1)
    return bind(_stack, xs, {"axis": axis})
