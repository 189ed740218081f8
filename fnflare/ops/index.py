"""Reading and writing parts of arrays by an index, the primitives under indexing, `at` and gathers.

What an index is made of is a static parameter, but for index arrays that are tracers, which are
arguments. The cotangent of a read is a `Scatter`: the rows that were read and where they belong; the
sweep adds those up.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fnflare.core import Primitive, Scatter, ShapeDtypeStruct, bind, dtype_of, is_tracer, move_axis, primitive
from fnflare.core.batch import spread
from fnflare.core.scatter import is_basic
from fnflare.errors import ConcretizationError, DtypeError
from fnflare.kernels.rows import add_at
from fnflare.ops.elementwise import convert
from fnflare.ops.shape import unbroadcast

__all__ = ["Hole", "getitem", "in_front", "index_add", "index_set", "split_index", "without_leading_ones"]

# -- the parts of an index ----------------------------------------------------------------------


class Hole:
    """The place of an index array that is a tracer, and so an argument and not a parameter."""

    __slots__ = ("k",)

    def __init__(self, k: int) -> None:
        self.k = k

    def __repr__(self) -> str:
        return f"i{self.k}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hole) and other.k == self.k

    def __hash__(self) -> int:
        return hash((Hole, self.k))


def split_index(index: Any) -> tuple[Any, list[Any]]:
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
        if i.dtype.kind in "fc":
            raise IndexError(f"an index must be of integers, got {i!r}, made {i.origin()}; write its .astype(int)")
        holes.append(i)
        return Hole(len(holes) - 1)
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
        return tuple([arrays[i.k] if type(i) is Hole else i for i in index])
    return arrays[index.k]


def _part_shape(shape: tuple[int, ...], index: Any, arrays: Any) -> tuple[int, ...]:
    """The shape of an array of the given shape after indexing, found on an array without memory."""
    stand_ins = [np.broadcast_to(np.zeros((), np.intp), a.shape) for a in arrays]
    return np.broadcast_to(np.empty((), bool), shape)[_fill(index, stand_ins)].shape


# -- reading ------------------------------------------------------------------------------------


def _getitem_shape(x: ShapeDtypeStruct, *arrays: ShapeDtypeStruct, index: Any) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(_part_shape(x.shape, index, arrays), x.dtype)


_getitem = primitive("getitem", lambda x, *arrays, index: x[_fill(index, arrays) if arrays else index], _getitem_shape)
_getitem.vjp(lambda ct, _ans, x_like, *arrays, index: Scatter(x_like, _fill(index, arrays), ct, index_add))
_getitem.jvp(lambda t, _ans, _x, *arrays, index: getitem(t, _fill(index, arrays)))


def getitem(x: Any, index: Any) -> Any:
    """``x[index]``."""
    static, arrays = split_index(index)
    return bind(_getitem, (x, *arrays), {"index": static})


# -- writing ------------------------------------------------------------------------------------


def _write_shape(x: ShapeDtypeStruct, v: ShapeDtypeStruct, *arrays: Any, index: Any) -> ShapeDtypeStruct:
    part = _part_shape(x.shape, index, arrays)
    if np.broadcast_shapes(v.shape, part) != part:
        raise ValueError(f"could not broadcast input array from shape {v.shape} into shape {part}")
    return ShapeDtypeStruct(x.shape, x.dtype)


def _copy(x: Any) -> Any:
    # A copy of an array that repeats its examples must not have them side by side.
    return np.array(x, order="C" if 0 in np.asarray(x).strides else "K")


def _set_kernel(x: Any, v: Any, *arrays: Any, index: Any) -> Any:
    out = _copy(x)
    out[_fill(index, arrays)] = v
    return out


def _add_kernel(x: Any, v: Any, *arrays: Any, index: Any) -> Any:
    out = _copy(x)
    index = _fill(index, arrays)
    if is_basic(index):
        out[index] += v
    else:
        add_at(out, index, v)
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
    part = _part_shape(shape, *split_index(index))
    number = np.arange(math.prod(part)).reshape(part)
    last = index_set(np.full(shape, -1), number, index=index)
    return getitem(last, index) == number


def _set_value_vjp(ct: Any, _ans: Any, x_like: Any, v_like: Any, *arrays: Any, index: Any) -> Any:
    index = _fill(index, arrays)
    part = getitem(ct, index)
    if not is_basic(index):
        part = part * convert(_last_writes(x_like.shape, index), dtype_of(ct))
    return _fit(part, v_like)


_index_set.vjp(lambda ct, _ans, _x, _v, *arrays, index: _cleared(ct, _fill(index, arrays)), _set_value_vjp)
_index_set.jvp(
    lambda t, _ans, _x, _v, *arrays, index: _cleared(t, _fill(index, arrays)),
    lambda t, _ans, x_like, _v, *arrays, index: index_set(
        np.zeros(x_like.shape, x_like.dtype), t, index=_fill(index, arrays)
    ),
)


def without_leading_ones(v: Any, x: Any, static: Any, arrays: list[Any]) -> Any:
    """A value for a part of `x`, which is `static` with `arrays` in its holes, without the axes of length one in front
    that the part does not have: NumPy's assignment takes them."""
    shape = v.shape if hasattr(v, "shape") else np.shape(v)
    if not shape or shape[0] != 1:  # the usual case: nothing to drop, whatever the part is
        return v
    surplus = len(shape) - len(_part_shape(np.shape(x), static, arrays))
    return np.reshape(v, shape[surplus:]) if surplus > 0 and set(shape[:surplus]) == {1} else v


def index_add(x: Any, v: Any, *, index: Any) -> Any:
    """`x` with `v` added at `index`; equal indices add up."""
    static, arrays = split_index(index)
    v = without_leading_ones(v, x, static, arrays)
    return bind(_index_add, (x, v, *arrays), {"index": static})


def index_set(x: Any, v: Any, *, index: Any) -> Any:
    """`x` with `v` in the place of ``x[index]``."""
    if is_tracer(v) and v.dtype.kind in "fc" and dtype_of(x).kind not in "fc":
        raise DtypeError(
            f"ff.at: an array of dtype {dtype_of(x)} cannot take {v!r}, whose fraction and derivative would be lost; "
            f"convert the array, x.astype(np.{v.dtype})"
        )
    static, arrays = split_index(index)
    v = without_leading_ones(v, x, static, arrays)
    return bind(_index_set, (x, v, *arrays), {"index": static})


# -- batching -----------------------------------------------------------------------------------
#
# Index arrays give axes of their own to what is read. NumPy puts these where the first of the arrays stands,
# or in front of all others where a slice, an ellipsis or None stands between two of the arrays (an integer
# counts as an array then). Where they go is found by reading a tiny array at an index of the same kind.


def _parts(index: Any) -> tuple[Any, ...]:
    return index if type(index) is tuple else (index,)


def _kinds(index: Any) -> tuple[Any, ...]:
    """What each part of an index is: the number of axes of an array of integers (0 for an integer), -1 less that
    of a mask, or the part itself where it is neither."""
    kinds: list[Any] = []
    for i in _parts(index):
        if isinstance(i, slice):
            kinds.append(":")
        elif i is None or i is Ellipsis:
            kinds.append(i)
        else:
            ndim = getattr(i, "ndim", 0)
            kinds.append(-ndim if _is_mask(i) else ndim)
    return tuple(kinds)


def _is_mask(i: Any) -> bool:
    return type(i) is bool or np.dtype(getattr(i, "dtype", np.intp)).kind == "b"


def _is_flag(i: Any) -> bool:
    """Whether a part of an index is one truth value: it takes no axis, and gives one of length one or none."""
    return _is_mask(i) and not getattr(i, "ndim", 0)


def _axes_taken(i: Any) -> int:
    return 0 if i is None or i is Ellipsis else int(getattr(i, "ndim", 0)) if _is_mask(i) else 1


def _flags_as_arrays(x: Any, axis: int | None, index: Any) -> tuple[Any, int | None, Any]:
    """What reads the same without truth values: each an index array on a new axis of `x`, of length one. `axis` is
    that of the examples, which comes to the front then."""
    given = _parts(index)
    flags = [k for k, i in enumerate(given) if _is_flag(i)]
    if not flags:
        return x, axis, index
    parts = list(given)
    x, first = (x, 0) if axis is None else (move_axis(x, axis, 0), 1)
    dots = next((k for k, i in enumerate(given) if i is Ellipsis), len(given))
    new = []
    for count, k in enumerate(flags):
        before, after = sum(map(_axes_taken, given[:k])), sum(map(_axes_taken, given[k:]))
        new.append(count + (first + before if k < dots else x.ndim - after))
        parts[k] = np.zeros(int(bool(parts[k])), np.intp)
    return np.expand_dims(x, tuple(new)), None if axis is None else 0, tuple(parts)


@functools.lru_cache(maxsize=1024)
def _laid_out(kinds: tuple[Any, ...], ndim: int) -> tuple[int, ...]:
    """The shape of what an index of these kinds reads of an array with `ndim` axes, with 2 for the axes that index
    arrays give and 3 for the first axis of the array; all other axes have length one."""
    parts: list[Any] = []
    for kind in kinds:
        if kind == ":":
            parts.append(slice(None))
        elif kind is None or kind is Ellipsis or kind == 0:
            parts.append(kind)
        elif kind > 0:
            parts.append(np.zeros((2,) * kind, np.intp))
        else:  # a mask reads what the arrays of the places of its True do
            parts += [np.zeros(2, np.intp)] * -kind
    return np.empty((3, *[1] * (ndim - 1)) if ndim else (), bool)[tuple(parts)].shape


class _Layout:
    """Where the axes of the index arrays are in what an example reads: `wide` of them from axis `at` on, of `ndim`."""

    __slots__ = ("at", "ndim", "wide")

    def __init__(self, index: Any, ndim: int) -> None:
        shape = _laid_out(_kinds(index), ndim)
        self.ndim = len(shape)
        self.wide = shape.count(2)
        self.at = shape.index(2) if self.wide else 0

    def to_example(self, x: Any) -> Any:
        """An array that has these axes after the first, where each example has them at `at`."""
        end = 1 + self.wide
        middle = end + self.at
        return self._transposed(x, (0, *range(end, middle), *range(1, end), *range(middle, x.ndim)))

    def from_example(self, x: Any) -> Any:
        """The other way round."""
        start = 1 + self.at
        end = start + self.wide
        return self._transposed(x, (0, *range(start, end), *range(1, start), *range(end, x.ndim)))

    def _transposed(self, x: Any, axes: tuple[int, ...]) -> Any:
        return np.transpose(x, axes) if self.at else x


def _example(x: Any, axis: int | None) -> ShapeDtypeStruct:
    """One example of an array of all."""
    shape = x.shape if axis is None else (*x.shape[:axis], *x.shape[axis + 1 :])
    return ShapeDtypeStruct(shape, x.dtype)


def in_front(x: Any, axis: int | None, rank: int) -> Any:
    """`x` with the examples in front of `rank` axes, new ones of length one among them; as it is where all share it."""
    if axis is None:
        return x
    x = move_axis(x, axis, 0)
    return x if x.ndim > rank else np.reshape(x, (x.shape[0], *[1] * (rank + 1 - x.ndim), *x.shape[1:]))


def _counted(size: int, rank: int) -> Any:
    """The numbers of the examples, to stand beside index arrays with `rank` axes."""
    return np.arange(size).reshape(size, *[1] * rank)


@_getitem.vmap
def _(size: int, args: Any, axes: Any, *, index: Any) -> tuple[Any, int]:
    (x, *arrays), (i, *places) = args, axes
    x, i, index = _flags_as_arrays(x, i, index)
    if i is not None and all(place is None for place in places):
        every = (slice(None), *_parts(_fill(index, arrays)))
        at = 0 if is_basic(every) else _laid_out(_kinds(every), x.ndim).index(3)
        return getitem(move_axis(x, i, 0), every), at
    layout = _Layout(_fill(index, list(map(_example, arrays, places))), x.ndim - (i is not None))
    own = _parts(_fill(index, [in_front(a, place, layout.wide) for a, place in zip(arrays, places, strict=True)]))
    if i is None:
        return getitem(x, own), _Layout(own, x.ndim).at
    return layout.to_example(getitem(move_axis(x, i, 0), (_counted(size, layout.wide), *own))), 0


def _batches(prim: Primitive) -> None:
    """Give the batching rule of a write."""

    def rule(size: int, args: Any, axes: Any, *, index: Any) -> tuple[Any, int]:
        (x, v, *arrays), (i, j, *places) = args, axes
        x = spread(x, i, size, 0)
        shape = x.shape
        x, _, index = _flags_as_arrays(x, 0, index)
        if all(place is None for place in places):
            every: tuple[Any, ...] = (slice(None), *_parts(_fill(index, arrays)))
            part = _laid_out(_kinds(every), x.ndim)
            v = _value_at(v, j, part.index(3), len(part) - 1)
        else:
            layout = _Layout(_fill(index, list(map(_example, arrays, places))), x.ndim - 1)
            own = [in_front(a, place, layout.wide) for a, place in zip(arrays, places, strict=True)]
            every = (_counted(size, layout.wide), *_parts(_fill(index, own)))
            if j is not None:
                v = layout.from_example(in_front(v, j, layout.ndim))
            elif layout.at and np.ndim(v):
                v = layout.from_example(np.reshape(v, (*[1] * (layout.ndim + 1 - np.ndim(v)), *np.shape(v))))
        static, arrays = split_index(every)
        out = bind(prim, (x, v, *arrays), {"index": static})
        return out if x.shape == shape else np.reshape(out, shape), 0

    prim.vmap(rule)


_batches(_index_add)
_batches(_index_set)


def _value_at(v: Any, axis: int | None, at: int, ndim: int) -> Any:
    """A value for the part of an example, which has `ndim` axes, with the examples along axis `at`."""
    if axis is not None:
        return move_axis(in_front(v, axis, ndim), 0, at)
    own = np.ndim(v)
    return v if own <= ndim - at else np.expand_dims(v, own - (ndim - at))
