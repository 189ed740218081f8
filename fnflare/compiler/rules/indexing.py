"""Reading and writing by an index: slices are index arithmetic, index arrays are read like any other array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.compiler.block import Block, NotLowered, broadcast_shape, lowering, machine_type
from fnflare.compiler.graph import Idx, Place, Stored, Value, fresh_axes, indices, strides_of
from fnflare.compiler.nests import sizes_in
from fnflare.nest import (
    Buffer,
    Constant,
    Element,
    Index,
    Integer,
    Kernel,
    Loop,
    Part,
    Position,
    Scalar,
    Store,
    apply,
    constant,
    index,
    select,
)
from fnflare.program.ir import Equation

__all__: list[str] = []

_HOLE = "_Hole"


class _Parts:
    """An index on an array, axis by axis.

    Attributes:
        shape: of what is read or written.
        at: from an index of that, and a function that reads index arrays, to the index of the array.
        arrays: the index arrays.
        static: whether there are none.
    """

    def __init__(self, block: Block, shape: Idx, given: Any, arrays: tuple[Value, ...]) -> None:
        parts = list(given) if isinstance(given, tuple) else [given]
        taken = sum(p is not None and p is not Ellipsis for p in parts)
        if any(_is_mask(p) for p in parts):
            raise NotLowered("an index that is a mask")
        if not any(p is Ellipsis for p in parts):
            parts.append(Ellipsis)
        k = next(i for i, p in enumerate(parts) if p is Ellipsis)
        parts[k : k + 1] = [slice(None)] * (len(shape) - taken)
        self.arrays: list[Value] = []
        #: For each axis of the array: ("slice", output axis, start, step), ("int", number), ("array", number).
        self.axes: list[tuple[Any, ...]] = []
        layout: list[Any] = []
        for p in parts:
            if p is None:
                layout.append(index(1))
                continue
            n = shape[len(self.axes)]
            if isinstance(p, slice):
                start, step, count = _slice(p, n)
                self.axes.append(("slice", len(layout), start, step))
                layout.append(count)
            elif isinstance(p, (int, np.integer)):
                self.axes.append(("int", index(int(p)) if p >= 0 else n + int(p)))
                layout.append(("number",))
            else:
                self.axes.append(("array", len(self.arrays), n))
                self.arrays.append(_index_array(block, p, arrays))
                layout.append(("array",))
        self._finish(layout)

    def _finish(self, layout: list[Any]) -> None:
        self.static = not self.arrays
        self.wide = broadcast_shape([a.shape for a in self.arrays]) if self.arrays else ()
        # Where index arrays are, a number counts as one of them: NumPy puts their axes first where they are apart.
        places = [k for k, part in enumerate(layout) if isinstance(part, tuple)]
        together = not places or places == list(range(places[0], places[-1] + 1))
        numbers = [k for k, part in enumerate(layout) if not isinstance(part, tuple)]
        first = 0 if self.static or not together else len([k for k in numbers if k < places[0]])
        shape: list[Index] = [layout[k] for k in numbers]
        self.shape: Idx = (*shape[:first], *self.wide, *shape[first:])
        self.first = first
        self.position = {k: n if n < first else n + len(self.wide) for n, k in enumerate(numbers)}

    def at(self, element: Callable[[int, Idx], Scalar], idx: Idx) -> Idx:
        """The index of the array that an index of the part means.

        Args:
            element: gives the element of an index array, by its number, at an index of `wide`.
            idx: an index of the part.
        """
        wide = idx[self.first : self.first + len(self.wide)]
        out: list[Index] = []
        for part in self.axes:
            if part[0] == "slice":
                out.append(part[2] + idx[self.position[part[1]]] * part[3])
            elif part[0] == "int":
                out.append(part[1])
            else:
                out.append(_wrapped(element(part[1], wide), part[2]))
        return tuple(out)


def _is_mask(part: Any) -> bool:
    return isinstance(part, (bool, np.bool_)) or (isinstance(part, np.ndarray) and part.dtype == bool)


def _index_array(block: Block, part: Any, arrays: tuple[Value, ...]) -> Value:
    if type(part).__name__ == _HOLE:
        found = arrays[part.k]
    else:
        array = np.asarray(part)
        shape = tuple([index(n) for n in array.shape])
        steps = _even_steps(array)
        if steps is not None:
            start, step = steps
            found = block.map(shape, "i64", (), lambda read, idx: Position("i64", idx[0] * step + start), 0)
        else:
            found = Value(
                Stored(
                    shape, machine_type(array.dtype), Place(block.module.constant(array), index(0), strides_of(shape))
                )
            )
    if found.dtype[0] not in "iu":
        raise NotLowered(f"an index array of {found.dtype}")
    return block.cast(found, "i64")


def _even_steps(array: np.ndarray[Any, Any]) -> tuple[int, int] | None:
    """First element and step of an array of one axis that counts, and nowhere below 0."""
    if array.ndim != 1 or array.dtype.kind not in "iu" or len(array) < 2:
        return None
    start, step = int(array[0]), int(array[1]) - int(array[0])
    counts = start >= 0 and step >= 0 and np.array_equal(array, start + step * np.arange(len(array)))
    return (start, step) if counts else None


def _wrapped(i: Scalar, n: Index) -> Index:
    """An element of an index array as an index: counted from the end where it is negative, kept within bounds."""
    if isinstance(i, Constant):
        return index(int(i.value)) if i.value >= 0 else n + int(i.value)
    if isinstance(i, Position):
        return i.index
    size = Position("i64", n)
    zero = constant(0, "i64")
    around = select(apply("less", i, zero), apply("add", i, size), i)
    inside = apply("minimum", apply("maximum", around, zero), Position("i64", n - 1))
    return index(Integer(inside))


def _slice(p: slice, n: Index) -> tuple[Index, int, Index]:
    """Start, step and number of elements of a slice of an axis with `n` elements."""
    step = 1 if p.step is None else int(p.step)
    count = n.constant
    if count is not None:
        start, stop, step = p.indices(count)
        return index(start), step, index(len(range(start, stop, step)))
    if p.start is None and p.stop is None and abs(step) == 1:
        return (index(0), 1, n) if step == 1 else (n - 1, -1, n)
    raise NotLowered("part of an axis whose size is given at run time")


@lowering("getitem")
def _(block: Block, e: Equation, x: Value, *arrays: Value, index: Any) -> Value:
    parts = _Parts(block, x.shape, index, arrays)
    if parts.static:
        return x.seen(parts.shape, lambda idx: parts.at(_none, idx))
    wide = [a.broadcast(parts.wide) for a in parts.arrays]

    def element(read: Any, idx: Idx) -> Scalar:
        return read(x, parts.at(lambda k, at: read(wide[k], at), idx))

    return block.map(parts.shape, x.dtype, (x, *wide), element, 2, e.source)


def _none(_k: int, _idx: Idx) -> Scalar:
    raise AssertionError("there are no index arrays")


@lowering("index_set", "index_add")
def _(block: Block, e: Equation, x: Value, v: Value, *arrays: Value, index: Any) -> Value:
    """A copy of the array, into which the elements are written one after the other."""
    parts = _Parts(block, x.shape, index, arrays)
    out = e.outputs[0]
    dtype = machine_type(out.aval.dtype)
    whole = block.stored(x.shape, dtype, block.target(out), e.source)
    before = Stored(x.shape, dtype, whole.place, e.source)
    before.after.append(block.copy(block.cast(x, dtype), whole.place, e.source))
    new = block.in_memory(block.cast(v, dtype).broadcast(parts.shape))
    numbers = [block.in_memory(a.broadcast(parts.wide)) for a in parts.arrays]

    def emit() -> list[Any]:
        return [_written(block, parts, whole, new, numbers, e)]

    block.action([Value(before), new, *numbers], [whole], emit, e.source)
    return Value(whole)


def _written(block: Block, parts: _Parts, whole: Stored, new: Value, numbers: list[Value], e: Equation) -> Any:
    """The loops that write elements one after the other: of two for one place the later one stays, or both add up."""
    values = [new, *numbers]
    places = [p for p in (v.place() for v in values) if p is not None]
    buffers = [Buffer(f"x{k}", v.dtype, index(0), "parameter") for k, v in enumerate(values)]
    target, out = whole.place, Buffer("y", whole.dtype, index(0), "parameter")
    assert target is not None and len(places) == len(values)

    def element(k: int, idx: Idx) -> Scalar:
        return Element(values[k].dtype, buffers[k], places[k].offset(idx))

    axes = fresh_axes(parts.shape)
    idx = indices(axes)
    position = target.offset(parts.at(lambda k, at: element(k + 1, at), idx))
    value = element(0, idx)
    if e.prim.name == "index_add":
        value = apply("add", Element(whole.dtype, out, position), value)
    body: tuple[Any, ...] = (Store(out, position, value),)
    for a in reversed([a for a in axes if a.extent != 1]):
        body = (Loop(a, body),)
    sizes = sizes_in([*parts.shape, *target.strides, *[s for p in places for s in p.strides]])
    kernel = Kernel("scatter", (out, *buffers), sizes, None, body, comment=() if e.source is None else (str(e.source),))
    bound = [Part(p.buffer, p.start) for p in (target, *places)]
    return block.module.kernels.run(kernel, bound, [index(s) for s in sizes])
