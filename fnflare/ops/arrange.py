"""What NumPy's functions that arrange whole pieces of arrays come to: stacks, splits, copies and turns.

Arrays and tracers go in; each function cuts them by slices, or puts them together, by the linear primitives of
`fnflare.ops.shape` and `fnflare.ops.index`, which have the rules.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fnflare.core import is_tracer
from fnflare.core.tracer import implements
from fnflare.errors import ConcretizationError, UnsupportedError
from fnflare.ops.gather import take
from fnflare.ops.shape import as_arrays, axes_in_order, broadcast_to, concatenate, reshape, transpose

__all__ = ["along", "repeat"]


def along(axis: int, part: Any) -> tuple[Any, ...]:
    """The index that takes a part of one axis and all of the others."""
    return (*[slice(None)] * axis, part)


# -- stacks -------------------------------------------------------------------------------------


@implements(np.vstack)
def vstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    """NumPy's ``vstack``."""
    return concatenate([np.atleast_2d(x) for x in tup], 0, dtype=dtype, casting=casting)


@implements(np.hstack)
def hstack(tup: Any, *, dtype: Any = None, casting: Any = "same_kind") -> Any:
    """NumPy's ``hstack``."""
    xs = [np.atleast_1d(x) for x in tup]
    return concatenate(xs, 0 if xs[0].ndim == 1 else 1, dtype=dtype, casting=casting)


@implements(np.dstack)
def dstack(tup: Any) -> Any:
    """NumPy's ``dstack``."""
    return concatenate([np.atleast_3d(x) for x in tup], 2)


@implements(np.column_stack)
def column_stack(tup: Any) -> Any:
    """NumPy's ``column_stack``."""
    return concatenate([x if x.ndim > 1 else reshape(x, (-1, 1)) for x in as_arrays(tup)], 1)


@implements(np.block)
def block(arrays: Any) -> Any:
    """NumPy's ``block``: the innermost lists are put together along the last axis, those around them along the one
    before."""
    depth = _depth(arrays)
    rank = max(depth, *[np.ndim(x) for x in _leaves(arrays)])
    return _assembled(arrays, depth, rank)


def _depth(arrays: Any) -> int:
    """How deep the lists are nested: everywhere as deep."""
    if not isinstance(arrays, list):
        return 0
    depths = {_depth(x) for x in arrays}
    if len(depths) != 1:
        raise ValueError(f"np.block: lists must not be empty and must be nested equally deep, got depths {depths}")
    return 1 + depths.pop()


def _leaves(arrays: Any) -> list[Any]:
    return [leaf for x in arrays for leaf in _leaves(x)] if isinstance(arrays, list) else [arrays]


def _assembled(arrays: Any, depth: int, rank: int) -> Any:
    if isinstance(arrays, list):
        return concatenate([_assembled(x, depth - 1, rank) for x in arrays], rank - depth)
    (x,) = as_arrays([arrays])
    return reshape(x, (*[1] * (rank - x.ndim), *x.shape))


@implements(np.append)
def append(arr: Any, values: Any, axis: Any = None) -> Any:
    """NumPy's ``append``."""
    return concatenate([arr, values], axis)


# -- splits -------------------------------------------------------------------------------------


@implements(np.array_split)
def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """NumPy's ``array_split``."""
    (axis,) = axes_in_order(axis, ary.ndim)
    n = ary.shape[axis]
    sections = _number_of(indices_or_sections)
    if sections is None:
        borders = [0, *[int(i) for i in indices_or_sections], n]
    else:
        if sections <= 0:
            raise ValueError(f"array_split: the number of sections must be larger than 0, got {sections}")
        borders = [0]
        for i in range(sections):
            borders.append(borders[-1] + n // sections + (i < n % sections))
    return [ary[along(axis, slice(a, b))] for a, b in pairwise(borders)]


def _number_of(indices_or_sections: Any) -> int | None:
    try:
        return operator.index(indices_or_sections)
    except TypeError:
        return None


@implements(np.split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """NumPy's ``split``."""
    sections = _number_of(indices_or_sections)
    if sections and ary.shape[axis] % sections:
        raise ValueError(f"array split of {ary.shape[axis]} into {sections} is not an equal division")
    return array_split(ary, indices_or_sections, axis)


def _needs_axes(name: str, ary: Any, rank: int) -> None:
    if ary.ndim < rank:
        raise ValueError(f"{name} needs an array of {rank} axes or more, got shape {ary.shape}")


@implements(np.hsplit)
def hsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """NumPy's ``hsplit``."""
    _needs_axes("np.hsplit", ary, 1)
    return split(ary, indices_or_sections, 1 if ary.ndim > 1 else 0)


@implements(np.vsplit)
def vsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """NumPy's ``vsplit``."""
    _needs_axes("np.vsplit", ary, 2)
    return split(ary, indices_or_sections, 0)


@implements(np.dsplit)
def dsplit(ary: Any, indices_or_sections: Any) -> list[Any]:
    """NumPy's ``dsplit``."""
    _needs_axes("np.dsplit", ary, 3)
    return split(ary, indices_or_sections, 2)


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """NumPy's ``unstack``."""
    _needs_axes("np.unstack", x, 1)
    (axis,) = axes_in_order(axis, x.ndim)
    return tuple([x[along(axis, i)] for i in range(x.shape[axis])])


if hasattr(np, "unstack"):  # NumPy 2.1
    implements(np.unstack)(unstack)

# -- turns --------------------------------------------------------------------------------------


@implements(np.flip)
def flip(m: Any, axis: Any = None) -> Any:
    """NumPy's ``flip``."""
    axes = range(m.ndim) if axis is None else axes_in_order(axis, m.ndim)
    return m[tuple([slice(None, None, -1) if i in axes else slice(None) for i in range(m.ndim)])]


@implements(np.fliplr)
def fliplr(m: Any) -> Any:
    """NumPy's ``fliplr``."""
    _needs_axes("np.fliplr", m, 2)
    return flip(m, 1)


@implements(np.flipud)
def flipud(m: Any) -> Any:
    """NumPy's ``flipud``."""
    _needs_axes("np.flipud", m, 1)
    return flip(m, 0)


@implements(np.rot90)
def rot90(m: Any, k: int = 1, axes: Sequence[int] = (0, 1)) -> Any:
    """NumPy's ``rot90``."""
    if len(axes) != 2 or len(set(turn := axes_in_order(tuple(axes), m.ndim))) != 2:
        raise ValueError(f"np.rot90: needs two different axes, got axes={axes} for shape {m.shape}")
    first, second = turn
    k %= 4
    if k == 0:
        return m
    if k == 2:
        return flip(m, (first, second))
    order = list(range(m.ndim))
    order[first], order[second] = second, first
    return transpose(flip(m, second), order) if k == 1 else flip(transpose(m, order), second)


@implements(np.roll)
def roll(a: Any, shift: Any, axis: Any = None) -> Any:
    """NumPy's ``roll``; the shift may be a tracer."""
    if axis is None:
        return reshape(roll(reshape(a, -1), shift, 0), a.shape)
    if is_tracer(shift):
        if shift.ndim:
            raise UnsupportedError("np.roll: a shift that is a tracer must be one number; roll one axis at a time")
        (axis,) = axes_in_order(axis, a.ndim)
        return take(a, (np.arange(a.shape[axis]) - shift) % max(1, a.shape[axis]), axis)
    shifts, axes = np.broadcast_arrays(shift, axes_in_order(axis, a.ndim))
    if shifts.ndim > 1:
        raise ValueError("np.roll: shift and axis must be numbers or sequences of as many numbers")
    for s, i in zip(shifts.reshape(-1).tolist(), axes.reshape(-1).tolist(), strict=True):
        cut = -s % max(1, a.shape[i])
        if cut:
            a = concatenate([a[along(i, slice(cut, None))], a[along(i, slice(cut))]], i)
    return a


# -- copies -------------------------------------------------------------------------------------


@implements(np.tile)
def tile(A: Any, reps: Any) -> Any:
    """NumPy's ``tile``."""
    reps = tuple([operator.index(r) for r in ((reps,) if np.ndim(reps) == 0 else reps)])
    shape = (1,) * (len(reps) - A.ndim) + A.shape
    reps = (1,) * (len(shape) - len(reps)) + reps
    between = [n for pair in zip(reps, shape, strict=True) for n in pair]
    wide = broadcast_to(reshape(A, [m for n in shape for m in (1, n)]), between)
    return reshape(wide, [r * n for r, n in zip(reps, shape, strict=True)])


@implements(np.repeat)
def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    """NumPy's ``repeat``; an array of repeats must be plain, since the size of the answer depends on it."""
    if is_tracer(repeats):
        raise ConcretizationError(
            f"np.repeat: the size of the answer depends on repeats={repeats!r}, made {repeats.origin()}; let it be "
            "static (static_argnums), or write np.take with indices of a known shape"
        )
    if axis is None:
        a, axis = reshape(a, (-1,)), 0
    (axis,) = axes_in_order(axis, a.ndim)
    counts = np.asarray(repeats)
    if counts.size != 1:
        return take(a, np.repeat(np.arange(a.shape[axis]), counts), axis=axis)
    count = operator.index(counts.reshape(-1)[0])
    head, n, tail = a.shape[:axis], a.shape[axis], a.shape[axis + 1 :]
    wide = broadcast_to(reshape(a, (*head, n, 1, *tail)), (*head, n, count, *tail))
    return reshape(wide, (*head, n * count, *tail))


@implements(np.resize)
def resize(a: Any, new_shape: Any) -> Any:
    """NumPy's ``resize``: as many copies of the elements as the new shape takes."""
    shape = (operator.index(new_shape),) if np.ndim(new_shape) == 0 else tuple(new_shape)
    if any(n < 0 for n in shape):
        raise ValueError(f"np.resize: all elements of new_shape must be non-negative, got {new_shape}")
    size = math.prod(shape)
    if a.size == 0 or size == 0:
        return np.zeros(shape, a.dtype)
    return reshape(tile(reshape(a, -1), -(-size // a.size))[:size], shape)


@implements(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple[Any, ...]:
    """NumPy's ``meshgrid``."""
    if indexing not in ("xy", "ij"):
        raise ValueError(f"np.meshgrid: indexing must be 'xy' or 'ij', got {indexing!r}")
    count = len(xi)
    places = list(range(count))
    if indexing == "xy" and count > 1:
        places[:2] = 1, 0
    lines = as_arrays(xi)
    grids = [reshape(x, [-1 if i == at else 1 for i in range(count)]) for x, at in zip(lines, places, strict=True)]
    return tuple(grids) if sparse else np.broadcast_arrays(*grids)
