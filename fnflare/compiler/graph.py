"""Arrays that are being lowered: what computes them, and how they are looked at.

A program's equations become nodes, each the formula of one array's elements, and values, which are nodes seen through
layout operations: a value's index arithmetic says which element of its node an index means, so transposing, slicing,
reshaping and broadcasting compute nothing. `fnflare.compiler.fusion` decides which nodes get memory and share loops.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from fnflare.core import Source
from fnflare.nest import Axis, Buffer, Index, Quotient, Remainder, Scalar, index, product

__all__ = [
    "Action",
    "Idx",
    "Map",
    "Node",
    "Place",
    "Read",
    "Reduce",
    "Stored",
    "Value",
    "fresh_axes",
    "indices",
    "reshaper",
    "strides_of",
]

Idx = tuple[Index, ...]


class Place:
    """Where an array lies: a buffer, the element it begins at, and its strides, in elements."""

    __slots__ = ("buffer", "start", "strides")

    def __init__(self, buffer: Buffer, start: Index, strides: Idx) -> None:
        self.buffer = buffer
        self.start = start
        self.strides = strides

    def offset(self, idx: Idx) -> Index:
        """How far behind its beginning an element lies."""
        total = index(0)
        for i, stride in zip(idx, self.strides, strict=True):
            total = total + i * stride
        return _recombined(total)

    def part(self, start: Index, strides: Idx) -> Place:
        """A part of it."""
        return Place(self.buffer, self.start + start, strides)


def _recombined(total: Index) -> Index:
    """With ``x // d * (d * s) + x % d * s`` written as ``x * s``."""
    for monomial in total.terms:
        if len(monomial) and any(type(a) is Remainder for a in monomial):
            break
    else:
        return total
    for monomial, factor in list(total.terms.items()):
        for a in monomial:
            if type(a) is not Remainder:
                continue
            rest = list(monomial)
            rest.remove(a)
            stride = Index({tuple(rest): factor})
            whole = index(Quotient(a.value, a.divisor)) * a.divisor * stride
            if all(total.terms.get(m) == c for m, c in whole.terms.items()):
                return _recombined(total - whole - index(a) * stride + a.value * stride)
    return total


def strides_of(shape: Sequence[Index]) -> Idx:
    """The strides of an array whose elements lie one after the other."""
    out: list[Index] = []
    step = index(1)
    for n in reversed(shape):
        out.append(step)
        step = step * n
    return tuple(reversed(out))


class Node:
    """The computation of one array.

    Attributes:
        shape, dtype: of the array.
        args: the values that it reads.
        source: the user's line.
        place: where the array lies, once that is known.
        after: nodes that must have been computed before anybody reads this one, beside those it reads itself.
        what: the primitive that it is for, which it is named after.
    """

    __slots__ = ("after", "args", "dtype", "place", "shape", "source", "what")

    def __init__(self, shape: Idx, dtype: str, args: Sequence[Value], source: Source | None = None) -> None:
        self.shape = shape
        self.dtype = dtype
        self.args = tuple(args)
        self.source = source
        self.place: Place | None = None
        self.after: list[Node] = []
        self.what = "copy"


Read = Callable[["Value", Idx], Scalar]


class Map(Node):
    """An array whose elements are computed each for itself.

    Attributes:
        element: ``element(read, idx)`` is the element at an index, with ``read(value, idx)`` for those of `args`.
        cost: about how many additions one element takes, apart from its arguments.
    """

    __slots__ = ("cost", "element")

    def __init__(
        self,
        shape: Idx,
        dtype: str,
        args: Sequence[Value],
        element: Callable[[Read, Idx], Scalar],
        cost: int = 1,
        source: Source | None = None,
    ) -> None:
        super().__init__(shape, dtype, args, source)
        self.element = element
        self.cost = cost


class Reduce(Node):
    """The elements of an array along some axes combined by an operation of `fnflare.nest.Accumulator`.

    Attributes:
        op: the operation.
        axes: those axes of the operand, ``args[0]``, that are combined; `shape` has the others.
    """

    __slots__ = ("axes", "op")

    def __init__(self, op: str, operand: Value, axes: tuple[int, ...], source: Source | None = None) -> None:
        kept = tuple([n for k, n in enumerate(operand.shape) if k not in axes])
        super().__init__(kept, operand.dtype, (operand,), source)
        self.op = op
        self.axes = axes


class Stored(Node):
    """An array in memory that is written by something else: an argument, or the answer of an `Action`.

    Attributes:
        movable: whether its axes may still be laid out in another order, because nobody has counted on this one.
    """

    __slots__ = ("movable",)

    def __init__(self, shape: Idx, dtype: str, place: Place | None, source: Source | None = None) -> None:
        super().__init__(shape, dtype, (), source)
        self.place = place
        self.movable = False


class Action:
    """Statements that read values from memory and write arrays into memory.

    Attributes:
        reads: the values that must lie in memory.
        writes: the nodes that it fills, of which the block allocates those that have no place.
        emit: makes the statements, once all places are known.
    """

    __slots__ = ("emit", "reads", "source", "writes")

    def __init__(
        self,
        reads: Sequence[Value],
        writes: Sequence[Stored],
        emit: Callable[[], list[Any]],
        source: Source | None = None,
    ) -> None:
        self.reads = tuple(reads)
        self.writes = tuple(writes)
        self.emit = emit
        self.source = source


class Value:
    """A node seen through layout operations.

    Attributes:
        node: the node.
        shape: the shape that is seen.
        at: from an index of what is seen to that of the node.
        plain: whether nothing was done: the node as it is.
    """

    __slots__ = ("at", "node", "plain", "shape")

    def __init__(self, node: Node, shape: Idx | None = None, at: Callable[[Idx], Idx] | None = None) -> None:
        self.node = node
        self.shape = node.shape if shape is None else shape
        self.plain = at is None
        self.at: Callable[[Idx], Idx] = (lambda idx: idx) if at is None else at

    @property
    def dtype(self) -> str:
        """The type of its elements."""
        return self.node.dtype

    def seen(self, shape: Idx, at: Callable[[Idx], Idx]) -> Value:
        """This value seen through one more layout operation."""
        if self.plain:
            return Value(self.node, shape, at)
        inner = self.at
        return Value(self.node, shape, lambda idx: inner(at(idx)))

    def reshaped(self, shape: Idx) -> Value:
        """The same elements in another shape."""
        return self if shape == self.shape else self.seen(shape, reshaper(shape, self.shape))

    def transposed(self, axes: Sequence[int]) -> Value:
        """With its axes in another order."""
        axes = tuple(axes)
        if axes == tuple(range(len(axes))):
            return self
        places = [axes.index(k) for k in range(len(axes))]
        return self.seen(tuple([self.shape[k] for k in axes]), lambda idx: tuple([idx[p] for p in places]))

    def broadcast(self, shape: Idx) -> Value:
        """Repeated to a shape, as NumPy broadcasts."""
        if shape == self.shape:
            return self
        skip = len(shape) - len(self.shape)
        single = [n == 1 and m != 1 for n, m in zip(self.shape, shape[skip:], strict=True)]
        zero = index(0)
        return self.seen(shape, lambda idx: tuple([zero if s else i for s, i in zip(single, idx[skip:], strict=True)]))

    def place(self) -> Place | None:
        """Where it lies, with its own strides; None where its node has no place or it is not laid out evenly."""
        where = self.node.place
        if where is None:
            return None
        if self.plain:
            return where
        axes = fresh_axes(self.shape)
        offset = where.offset(self.at(indices(axes)))
        strides = []
        rest = offset
        for a in axes:
            stride = offset.coefficient(a)
            if stride is None:
                return None
            strides.append(stride)
            rest = rest - index(a) * stride
        return Place(where.buffer, where.start + rest, tuple(strides))


_numbers = itertools.count()


def fresh_axes(shape: Sequence[Index]) -> list[Axis]:
    """A loop variable for each axis of a shape."""
    return [Axis(f"i{next(_numbers)}", n) for n in shape]


def indices(axes: Sequence[Axis]) -> Idx:
    """The index that loop variables make; 0 along an axis of one element."""
    return tuple([index(0) if a.extent == 1 else index(a) for a in axes])


def reshaper(new: Idx, old: Idx) -> Callable[[Idx], Idx]:
    """From an index of an array in the shape `new` to that of the same element in the shape `old`.

    The shapes are cut into the shortest runs of axes with equal products, and each run is mapped for itself.
    """
    runs = _runs(new, old)

    def at(idx: Idx) -> Idx:
        out: list[Index] = []
        for first, last, begin, end in runs:
            if last - first == 1 and end - begin == 1:
                out.append(idx[first])
                continue
            position = index(0)
            for i, n in zip(idx[first:last], new[first:last], strict=True):
                position = position * n + i
            found: list[Index] = []
            for k in range(end - 1, begin, -1):
                n = old[k]
                found.append(index(0) if n == 1 else position % n)
                position = position if n == 1 else position // n
            if end > begin:
                found.append(index(0) if old[begin] == 1 else position)
            out += reversed(found)
        return tuple(out)

    return at


def _runs(new: Idx, old: Idx) -> list[tuple[int, int, int, int]]:
    """Pairs of runs of axes, of one shape and the other, with equal products."""
    if product(new) != product(old):
        raise ValueError(f"cannot reshape {old} to {new}")
    runs = []
    i = j = 0
    while i < len(new) or j < len(old):
        first, begin = i, j
        if i < len(new) and j < len(old):
            left, right = index(1) * new[i], index(1) * old[j]
            i, j = i + 1, j + 1
        else:
            left = right = index(1)
            i, j = (i + 1, j) if i < len(new) else (i, j + 1)
            runs.append((first, i, begin, j))
            continue
        while left != right:
            if _less(left, right, i < len(new)):
                left, i = left * new[i], i + 1
            else:
                right, j = right * old[j], j + 1
        runs.append((first, i, begin, j))
    return runs


def _less(left: Index, right: Index, more: bool) -> bool:
    """Whether the left run is the one to take another axis: it divides the right one, or is smaller."""
    if not more:
        return False
    a, b = left.constant, right.constant
    if a is not None and b is not None:
        return a < b
    return not (left // right * right == left and left != right)
