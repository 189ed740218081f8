"""Operations that move elements and compute nothing: all of them linear."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, aval_of, bind, move_axis, primitive
from fnflare.core.batch import shifted, spread
from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError

__all__ = ["broadcast_to", "concatenate", "reshape", "transpose"]


def _no_copy_flags(order: Any = "C", copy: Any = None) -> None:
    if order not in ("C", "A", "K"):
        raise UnsupportedError(f"order={order!r} has no rule for tracers; transpose before and after instead")
    if copy is False:
        raise UnsupportedError("copy=False has no rule for tracers; leave it out")


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
    if -1 in shape:
        known = -math.prod(shape)
        shape = tuple([(math.prod(old) // known if known else 0) if n == -1 else n for n in shape])
    if math.prod(shape) != math.prod(old):
        raise ValueError(f"cannot reshape array of size {math.prod(old)} into shape {new}")
    return shape


@implements(np.reshape)
def reshape(x: Any, /, shape: Any, order: Any = "C", *, copy: Any = None) -> Any:
    """NumPy's ``reshape``."""
    _no_copy_flags(order, copy)
    return bind(_reshape, (x,), {"shape": _full_shape(np.shape(x), shape)})


@implements(np.ravel)
def ravel(a: Any, order: Any = "C") -> Any:
    """NumPy's ``ravel``."""
    return reshape(a, (-1,), order)


@implements(np.squeeze)
def squeeze(a: Any, axis: Any = None) -> Any:
    """NumPy's ``squeeze``."""
    shape = a.shape
    axes = _axes(axis, len(shape)) if axis is not None else tuple([i for i, n in enumerate(shape) if n == 1])
    if any(shape[i] != 1 for i in axes):
        raise ValueError(f"cannot squeeze axes {axes} of shape {shape}: not all of them have length one")
    return reshape(a, tuple([n for i, n in enumerate(shape) if i not in axes]))


@implements(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> Any:
    """NumPy's ``expand_dims``."""
    count = len(axis) if isinstance(axis, tuple) else 1
    axes = _axes(axis, a.ndim + count)
    rest = iter(a.shape)
    return reshape(a, tuple([1 if i in axes else next(rest) for i in range(a.ndim + count)]))


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """Axes as a tuple of numbers from 0; raises as NumPy does."""
    axes = axis if isinstance(axis, tuple) else (axis,)
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
    order = tuple(range(ndim))[::-1] if axes is None else _axes(tuple(axes), ndim)
    if len(order) != ndim or len(set(order)) != ndim:
        raise ValueError(f"axes {axes} don't match array of {ndim} axes")
    return bind(_transpose, (a,), {"axes": order})


@implements(np.swapaxes)
def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """NumPy's ``swapaxes``."""
    order = list(range(a.ndim))
    i, j = _axes((axis1, axis2), a.ndim)
    order[i], order[j] = order[j], order[i]
    return transpose(a, order)


@implements(np.matrix_transpose)
def matrix_transpose(x: Any, /) -> Any:
    """NumPy's ``matrix_transpose``."""
    if x.ndim < 2:
        raise ValueError(f"matrix_transpose needs two axes or more, got shape {x.shape}")
    return swapaxes(x, -1, -2)


@implements(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    """NumPy's ``moveaxis``."""
    src = _axes(tuple(source) if isinstance(source, (tuple, list)) else source, a.ndim)
    dst = _axes(tuple(destination) if isinstance(destination, (tuple, list)) else destination, a.ndim)
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
    shape = np.broadcast_shapes(*[np.shape(a) for a in args])
    return tuple([a if np.shape(a) == shape else broadcast_to(a, shape) for a in args])


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
    _no_out("np.concatenate", out)
    xs = list(arrays)
    if dtype is not None:
        xs = [x.astype(dtype) if hasattr(x, "dtype") else np.asarray(x, dtype) for x in xs]
    if axis is None:
        xs, axis = [np.reshape(x, -1) for x in xs], 0
    shapes = [np.shape(x) for x in xs]
    (axis,) = _axes(axis, len(shapes[0]))
    if any(
        len(s) != len(shapes[0]) or s[:axis] + s[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :] for s in shapes
    ):
        raise ValueError(f"np.concatenate along axis {axis}: all other axes must agree, got shapes {shapes}")
    return bind(_concatenate, [x if hasattr(x, "dtype") else np.asarray(x) for x in xs], {"axis": axis})


def _no_out(name: str, out: Any) -> None:
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
    _no_out("np.stack", out)
    xs = [x if hasattr(x, "dtype") else np.asarray(x) for x in arrays]
    if dtype is not None:
        xs = [x.astype(dtype) for x in xs]
    shapes = {x.shape for x in xs}
    if len(shapes) != 1:
        raise ValueError(f"np.stack: all arrays must have one shape, got {[x.shape for x in xs]}")
    (axis,) = _axes(axis, xs[0].ndim + 1)
    return bind(_stack, xs, {"axis": axis})


@implements(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    """NumPy's ``vstack``."""
    return concatenate([np.atleast_2d(x) for x in tup], 0, dtype=dtype)


@implements(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    """NumPy's ``hstack``."""
    xs = [np.atleast_1d(x) for x in tup]
    return concatenate(xs, 0 if xs[0].ndim == 1 else 1, dtype=dtype)


@implements(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """NumPy's ``array_split``."""
    (axis,) = _axes(axis, ary.ndim)
    n = ary.shape[axis]
    if isinstance(indices_or_sections, (int, np.integer)):
        sections = int(indices_or_sections)
        sizes = [n // sections + (i < n % sections) for i in range(sections)]
        borders = np.cumsum([0, *sizes]).tolist()
    else:
        borders = [0, *[int(i) for i in indices_or_sections], n]
    lead = (slice(None),) * axis
    return [ary[(*lead, slice(a, b))] for a, b in pairwise(borders)]


@implements(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """NumPy's ``split``."""
    if isinstance(indices_or_sections, (int, np.integer)) and ary.shape[axis] % indices_or_sections:
        raise ValueError(f"array split of {ary.shape[axis]} into {indices_or_sections} is not an equal division")
    return array_split(ary, indices_or_sections, axis)


# -- arrangements of the above ------------------------------------------------------------------


@implements(np.flip)
def flip(m: Any, axis: Any = None) -> Any:
    """NumPy's ``flip``."""
    axes = range(m.ndim) if axis is None else _axes(axis, m.ndim)
    return m[tuple([slice(None, None, -1) if i in axes else slice(None) for i in range(m.ndim)])]


@implements(np.tile)
def tile(A: Any, reps: Any) -> Any:
    """NumPy's ``tile``."""
    reps = (reps,) if isinstance(reps, (int, np.integer)) else tuple(reps)
    shape = (1,) * (len(reps) - A.ndim) + A.shape
    reps = (1,) * (len(shape) - len(reps)) + reps
    between = [n for pair in zip(reps, shape, strict=True) for n in pair]
    wide = broadcast_to(reshape(A, [m for n in shape for m in (1, n)]), between)
    return reshape(wide, [r * n for r, n in zip(reps, shape, strict=True)])


@implements(np.repeat)
def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    """NumPy's ``repeat``."""
    if axis is None:
        a, axis = reshape(a, (-1,)), 0
    (axis,) = _axes(axis, a.ndim)
    return np.take(a, np.repeat(np.arange(a.shape[axis]), repeats), axis=axis)


@implements(np.zeros_like)
def zeros_like(a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, **_: Any) -> Any:
    """NumPy's ``zeros_like``: a plain array."""
    return np.zeros(a.shape if shape is None else shape, dtype or a.dtype)


@implements(np.ones_like)
def ones_like(a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, **_: Any) -> Any:
    """NumPy's ``ones_like``: a plain array."""
    return np.ones(a.shape if shape is None else shape, dtype or a.dtype)


@implements(np.empty_like)
def empty_like(a: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, **_: Any) -> Any:
    """NumPy's ``empty_like``: a plain array, of zeros."""
    return np.zeros(a.shape if shape is None else shape, dtype or a.dtype)


@implements(np.full_like)
def full_like(
    a: Any, fill_value: Any, dtype: Any = None, order: Any = "K", subok: bool = True, shape: Any = None, **_: Any
) -> Any:
    """NumPy's ``full_like``; the filling may be a tracer."""
    aval = aval_of(a)
    shape = aval.shape if shape is None else shape
    dtype = np.dtype(dtype or aval.dtype)
    if hasattr(fill_value, "shape"):
        return broadcast_to(fill_value.astype(dtype), shape)
    return np.full(shape, fill_value, dtype)


@implements(np.shape)
def shape(a: Any) -> tuple[int, ...]:
    """NumPy's ``shape``."""
    return a.shape


@implements(np.ndim)
def ndim(a: Any) -> int:
    """NumPy's ``ndim``."""
    return a.ndim


@implements(np.size)
def size(a: Any, axis: Any = None) -> int:
    """NumPy's ``size``."""
    return a.size if axis is None else a.shape[axis]


@implements(np.copy)
def copy(a: Any, order: Any = "K", subok: bool = False) -> Any:
    """NumPy's ``copy``: tracers are immutable, so the tracer itself."""
    return a


@implements(np.result_type)
def result_type(*arrays_and_dtypes: Any) -> Any:
    """NumPy's ``result_type``."""
    return np.result_type(*[_resolvable(a) for a in arrays_and_dtypes])


def _resolvable(a: Any) -> Any:
    if getattr(a, "weak", False):
        return {"f": 1.0, "i": 1, "c": 1j}[a.dtype.kind]
    return a.dtype if hasattr(a, "dtype") else a
