"""Reading and writing by an index: slices are index arithmetic, index arrays are read like any other array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fnflare.compiler.block import Block, NotLowered, broadcast_shape, lowering, machine_type
from fnflare.compiler.bodies import sizes_of
from fnflare.compiler.graph import Idx, Stored, Value, fresh_axes, indices
from fnflare.compiler.index_parts import Cut, NewAxis, Part, Picked
from fnflare.compiler.index_parts import Place as At
from fnflare.compiler.naming import Places, named
from fnflare.nest import (
    Buffer,
    Constant,
    Element,
    Index,
    Integer,
    Kernel,
    Loop,
    Position,
    Scalar,
    Store,
    apply,
    constant,
    index,
    nonnegative,
    select,
)
from fnflare.nest import Part as Memory
from fnflare.program.ir import Equation

__all__: list[str] = []


class _Parts:
    """An index on an array, axis by axis.

    Attributes:
        shape: of what is read or written.
        arrays: the index arrays.
        wide: the shape that they broadcast to.
        first: how many axes of `shape` stand in front of theirs.
    """

    def __init__(self, block: Block, e: Equation, arguments: tuple[Value, ...]) -> None:
        self.parts = block.module.index_parts(e)
        self.arrays: list[Value] = []
        numbers: dict[int, int] = {}  # the index array of each part that is one
        for k, p in enumerate(self.parts):
            if isinstance(p, Picked):
                numbers[k] = len(self.arrays)
                self.arrays.append(_index_array(block, p, arguments))
        self.numbers = numbers
        self.wide = broadcast_shape([a.shape for a in self.arrays]) if self.arrays else ()
        own = {k: n for k, p in enumerate(self.parts) if (n := _own_axis(p)) is not None}
        # Beside index arrays a single place counts as one; their axes come first where they do not stand together.
        apart = [k for k in range(len(self.parts)) if k not in own]
        together = not numbers or apart[-1] - apart[0] + 1 == len(apart)
        self.first = len([k for k in own if k < apart[0]]) if numbers and together else 0
        sizes = list(own.values())
        self.shape: Idx = (*sizes[: self.first], *self.wide, *sizes[self.first :])
        self.position = {k: place if place < self.first else place + len(self.wide) for place, k in enumerate(own)}

    def at(self, element: Callable[[int, Idx], Scalar], idx: Idx, shape: Idx) -> Idx:
        """The index of the array that an index of the part means.

        Args:
            element: gives the element of an index array, by its number, at an index of `wide`.
            idx: an index of the part.
            shape: of the array.
        """
        wide = idx[self.first : self.first + len(self.wide)]
        out: list[Index] = []
        for k, p in enumerate(self.parts):
            if isinstance(p, Cut):
                out.append(p.start + idx[self.position[k]] * p.step)
            elif isinstance(p, At):
                out.append(p.at)
            elif isinstance(p, Picked):
                out.append(_wrapped(element(self.numbers[k], wide), shape[len(out)]))
        return tuple(out)


def _own_axis(part: Part) -> Index | None:
    """The axis that a part gives to what is read."""
    return part.size if isinstance(part, Cut) else index(1) if isinstance(part, NewAxis) else None


def _index_array(block: Block, part: Picked, arguments: tuple[Value, ...]) -> Value:
    if isinstance(part.array, int):
        found = arguments[part.array]
    elif part.array.dtype.kind == "b":
        raise NotLowered("an index that is a mask")
    else:
        found = block.constant(part.array)
    if found.dtype[0] not in "iu":
        raise NotLowered(f"an index array of {found.dtype}")
    return block.cast(found, "i64")


def _wrapped(i: Scalar, n: Index) -> Index:
    """An element of an index array as an index: counted from the end where it is negative, kept within bounds."""
    if isinstance(i, Constant):
        return index(int(i.value)) if i.value >= 0 else n + int(i.value)
    if isinstance(i, Position) and nonnegative(i.index):
        return i.index
    size = Position("i64", n)
    zero = constant(0, "i64")
    around = select(apply("less", i, zero), apply("add", i, size), i)
    inside = apply("minimum", apply("maximum", around, zero), Position("i64", n - 1))
    return index(Integer(inside))


@lowering("getitem")
def _(block: Block, e: Equation, x: Value, *arrays: Value, index: Any) -> Value:
    parts = _Parts(block, e, (x, *arrays))
    if not parts.arrays:
        return x.seen(parts.shape, lambda idx: parts.at(_none, idx, x.shape))
    wide = [a.broadcast(parts.wide) for a in parts.arrays]

    def element(read: Any, idx: Idx) -> Scalar:
        return read(x, parts.at(lambda k, at: read(wide[k], at), idx, x.shape))

    return block.map(parts.shape, x.dtype, (x, *wide), element, 2, e.source)


def _none(_k: int, _idx: Idx) -> Scalar:
    raise AssertionError("there are no index arrays")


@lowering("index_set", "index_add")
def _(block: Block, e: Equation, x: Value, v: Value, *arrays: Value, index: Any) -> Value:
    """A copy of the array, into which the elements are written one after the other."""
    parts = _Parts(block, e, (x, v, *arrays))
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
    position = target.offset(parts.at(lambda k, at: element(k + 1, at), idx, whole.shape))
    value = element(0, idx)
    if e.prim.name == "index_add":
        value = apply("add", Element(whole.dtype, out, position), value)
    body: tuple[Any, ...] = (Store(out, position, value),)
    for a in reversed([a for a in axes if a.extent != 1]):
        body = (Loop(a, body),)
    sizes = sizes_of(body)
    kernel = Kernel(named(e.source, "scatter"), (out, *buffers), sizes, None, body, comment=Places([e.source]))
    bound = [Memory(p.buffer, p.start) for p in (target, *places)]
    return block.module.kernels.run(kernel, bound, [index(s) for s in sizes])
