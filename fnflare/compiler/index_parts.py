"""What an index reads of an array, axis by axis, with sizes that may be symbols.

The static index of a read or a write and the sizes of the array go in; its parts come out, one for each axis of the
array in order, and new axes between them: bounds of slices counted from where they belong, so that ``x[1:]`` and
``x[:-1]`` have one fewer than whatever the size is. They give the shape of what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fnflare.compiler.dims import Dim, Dims, Shape, number_of
from fnflare.nest import Index
from fnflare.ops.index import Hole

__all__ = ["Cut", "NewAxis", "Part", "Picked", "Place", "as_indices", "index_parts", "read_shape"]


@dataclass(frozen=True, slots=True)
class Cut:
    """The elements ``start, start + step, ...`` of an axis, `size` of them."""

    start: Index
    step: int
    size: Index


@dataclass(frozen=True, slots=True)
class Place:
    """One element of an axis, which goes away; beside `Picked` it is an array of indices without axes."""

    at: Index


@dataclass(frozen=True, slots=True)
class NewAxis:
    """A new axis of length one; it takes no axis of the array."""


@dataclass(frozen=True, slots=True, eq=False)
class Picked:
    """The elements that an array of integers says, some of them negative, or a mask.

    Attributes:
        array: a constant array, whose shape is that of `Sizes.literals`; or the number of the argument of the equation
            that it is.
        axes: how many axes of the array it takes: those of a mask, else 1.
    """

    array: np.ndarray[Any, Any] | int
    axes: int = 1


Part = Cut | Place | NewAxis | Picked
#: A part whose sizes may be plain numbers: a slice's start, step and size, an element, or any other part.
_Raw = tuple[Dim, int, Dim] | Dim | NewAxis | Picked


def index_parts(dims: Dims, shape: Shape, static: Any, first: int) -> list[_Raw]:
    """The parts of an index.

    Args:
        dims: the sizes of the program.
        shape: that of the array.
        static: the index, with holes for arrays that are arguments.
        first: the number of the first of these arguments.
    """
    given = list(static) if type(static) is tuple else [static]
    taken = sum(_axes_taken(i) for i in given)
    dots = next((k for k, i in enumerate(given) if i is Ellipsis), None)
    rest = [slice(None)] * (len(shape) - taken)
    if dots is None:
        given += rest
    else:
        given[dots : dots + 1] = rest
    parts: list[_Raw] = []
    axis = 0
    for i in given:
        parts.append(_part(dims, shape, axis, i, first))
        axis += _axes_taken(i)
    return parts


def _axes_taken(i: Any) -> int:
    if i is None or i is Ellipsis:
        return 0
    mask = isinstance(i, (bool, np.bool_, np.ndarray, list)) and np.asarray(i).dtype.kind == "b"
    return int(np.ndim(i)) if mask else 1


def _part(dims: Dims, shape: Shape, axis: int, i: Any, first: int) -> _Raw:
    if i is None:
        return NewAxis()
    if isinstance(i, slice):
        return _cut(dims, dims.resolved(shape[axis]), i)
    if isinstance(i, Hole):
        return Picked(first + i.k)
    if isinstance(i, (int, np.integer)) and not isinstance(i, bool):
        size = dims.resolved(shape[axis])
        last = i == dims.value(size) - 1
        return size + int(i) if i < 0 else size - 1 if last else dims.border(size, int(i))
    array = i if isinstance(i, np.ndarray) else np.asarray(i)
    axes = _axes_taken(array)
    if array.dtype.kind == "b":
        dims.pin_all(shape[axis : axis + axes])
    return Picked(array, axes)


def _cut(dims: Dims, size: Dim, i: slice) -> tuple[Dim, int, Dim]:
    """The start, the step and the size of a slice."""
    n = dims.value(size)
    start, stop, step = i.indices(n)
    count = len(range(start, stop, step))
    if type(size) is int or count == 0:
        return start, step, count
    if step not in (1, -1):
        dims.pin(size)
        return start, step, count
    low = _bound(dims, size, n, i.start, start)
    high = _bound(dims, size, n, i.stop, stop)
    width = high - low if step == 1 else low - high
    if count == 1 and step == 1 and type(high) is not int:
        return number_of(high - 1), step, 1  # the last element, by whatever bounds
    if dims.value(width) <= 1:
        dims.pin(width)
        return dims.resolved(low), step, count
    return low, step, width


def _bound(dims: Dims, size: Dim, n: int, given: Any, bound: int) -> Dim:
    """A bound of a slice: counted from the end where it was, or where it is the end; or where something that was put
    together along the axis ends; else a number."""
    if bound >= n or (given is not None and given < 0 and n + given >= 0) or (given is None and bound == n - 1 > 0):
        return size + (bound - n)
    return dims.border(size, bound) if bound > 0 else bound


def read_shape(dims: Dims, parts: Sequence[_Raw], shape_of: Callable[[Picked], Shape]) -> Shape:
    """The shape of what is read.

    Args:
        dims: the sizes of the program.
        parts: of the index.
        shape_of: the shape that an array of indices picks.
    """
    picked = [p for p in parts if isinstance(p, Picked)]
    if not picked:
        return tuple([d for p in parts if (d := _own_axis(p)) is not None])
    arrays = [k for k, p in enumerate(parts) if isinstance(p, (Picked, int, Index))]
    many = dims.broadcast([shape_of(p) for p in picked])
    together = arrays[-1] - arrays[0] + 1 == len(arrays)
    front = parts[: arrays[0]] if together else []
    back = [p for k, p in enumerate(parts) if k not in arrays and k >= len(front)]
    own = [[d for p in group if (d := _own_axis(p)) is not None] for group in (front, back)]
    return (*own[0], *many, *own[1])


def _own_axis(part: _Raw) -> Dim | None:
    """The axis that a part gives to what is read, None where it gives none."""
    return part[2] if isinstance(part, tuple) else 1 if isinstance(part, NewAxis) else None


def as_indices(parts: Sequence[_Raw], final: Callable[[Dim], Index]) -> tuple[Part, ...]:
    """Parts with all sizes in their final form."""
    out: list[Part] = []
    for p in parts:
        if isinstance(p, tuple):
            out.append(Cut(final(p[0]), p[1], final(p[2])))
        else:
            out.append(p if isinstance(p, (NewAxis, Picked)) else Place(final(p)))
    return tuple(out)
