"""Groups of nodes as kernels: which loop is a vector's, which loops are one, and what is done in which order.

A group of `fnflare.compiler.fusion` comes in, kernels and the statements that run them go out. Loops over neighbouring
axes become one where every index allows it, the axis along which memory is read in order goes into the lanes of
vectors, and what does not depend on the order of the rows is shared out among threads. Equal kernels are one.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fnflare.compiler.bodies import Rewriter, parameters_in, sizes_in, sizes_of
from fnflare.compiler.fusion import COLUMN, FULL, REDUCE, ROW, Group, Member
from fnflare.compiler.graph import Idx, Node, Place, strides_of
from fnflare.compiler.naming import Places, named
from fnflare.compiler.sameness import kernel_key
from fnflare.nest import (
    FUNCTIONS,
    Accumulator,
    Apply,
    Axis,
    Buffer,
    Constant,
    Element,
    Index,
    Kernel,
    Let,
    Local,
    Loop,
    Part,
    Position,
    Quotient,
    Remainder,
    Run,
    Scalar,
    Size,
    Statement,
    Store,
    Update,
    apply,
    constant,
    index,
    product,
    walk,
)

__all__ = ["Kernels", "neutral"]

#: Rows of up to this many elements that are read twice stay in memory of the kernel's own.
_LOCAL = 8192
#: Loops over rows of up to this many elements are written out.
_UNROLLED = 8
#: Into how many pieces a sum of columns is cut, each of which a thread can do.
_PIECES = 16
#: A single loop of more turns than this gets its length when it runs, so that one kernel serves arrays of all lengths.
_LONG = 256

_COSTS = {"divide": 4, "sqrt": 4, "select": 1, "cast": 1, "power": 40, "floor_divide": 8, "remainder": 8, "fmod": 8}
_FUNCTION_COST = 15


def neutral(op: str, dtype: str) -> Constant:
    """What an accumulator of an operation begins with."""
    if op == "multiply":
        return constant(1, dtype)
    if op in ("maximum", "minimum"):
        if dtype == "b1":
            return constant(op == "minimum", dtype)
        if dtype.startswith("f"):
            return constant(float("-inf") if op == "maximum" else float("inf"), dtype)
        bits, signed = int(dtype[1:]), dtype[0] == "i"
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return constant(low if op == "maximum" else high, dtype)
    if op == "and":
        return constant(True, dtype) if dtype == "b1" else constant(-1, dtype)
    return constant(0, dtype)


class Kernels:
    """The kernels of a module, each once."""

    def __init__(self, allocate: Callable[[Idx, str, str], Place]) -> None:
        self.all: list[Kernel] = []
        self._names: Counter[str] = Counter()
        self._known: dict[Any, Kernel] = {}
        self._allocate = allocate

    def run(self, kernel: Kernel, parts: Sequence[Part], sizes: Sequence[Index]) -> Run:
        """A run of a kernel, or of one that is equal to it and was there before."""
        key = kernel_key(kernel)
        known = self._known.get(key)
        if known is None:
            self._names[kernel.name] += 1
            number = self._names[kernel.name]
            known = kernel if number == 1 else _named(kernel, f"{kernel.name}_{number}")
            self._known[key] = known
            self.all.append(known)
        return Run(known, tuple(parts), tuple(sizes))

    def of_group(self, group: Group, stored: set[Node]) -> list[Statement]:
        """The statements that compute a group.

        Args:
            group: the group.
            stored: the nodes that somebody outside of it reads.
        """
        return _Nest(self, group, stored).statements()

    def allocate(self, shape: Idx, dtype: str, name: str) -> Place:
        """Scratch memory for an array."""
        return self._allocate(shape, dtype, name)


class _Nest:
    """Makes the kernel of one group."""

    def __init__(self, kernels: Kernels, group: Group, stored: set[Node]) -> None:
        self.kernels = kernels
        self.group = group
        self.stored = stored
        self.locals: dict[Node, Buffer] = {}
        self.axes = [a for a in group.axes if a.extent != 1]
        inner = group.inner or frozenset()
        self.outer = [a for a in self.axes if a not in inner]
        self.inner = [a for a in self.axes if a in inner]
        self.values: dict[Member, Scalar] = {m: m.value for m in group.members}
        self.stores: list[tuple[Member, Buffer, Index]] = []
        self.columns: list[tuple[Member, Place, Place, Idx]] = []
        self.offsets: dict[Member, Index] = {}

    def statements(self) -> list[Statement]:
        self._place_members()
        self._rewrite_locals()
        self._split_axes()
        pieces = self._cut_columns()
        self._collapse(pieces)
        vector = self._vector_axis(pieces)
        body, axis, is_vector = self._loops(vector, pieces)
        return [self._run(body, axis, is_vector), *self._column_sums()]

    # -- where answers go ---------------------------------------------------------------------------

    def _place_members(self) -> None:
        group = self.group
        for m in group.members:
            place = m.node.place
            if m.level == COLUMN:
                assert place is not None
                self.columns.append((m, place, place, m.idx))
            elif m.node in self.stored or m.node in group.again:
                assert place is not None
                self.offsets[m] = place.offset(m.idx)
                self.stores.append((m, group.parameter(place, m.node.dtype, "y"), self.offsets[m]))

    def _rewrite_locals(self) -> None:
        """Rows that only this nest reads again lie in memory of its own, not in an array."""
        own = [m for m in self.group.members if m.node in self.group.again and m.node not in self.stored]
        if not own or not self._rows_fit():
            return
        steps = dict(zip(self.inner, strides_of([a.extent for a in self.inner]), strict=True))
        position = sum((index(a) * s for a, s in steps.items()), index(0))
        size = product([a.extent for a in self.inner])
        swapped: dict[Buffer, Buffer] = {}
        for m in own:
            assert m.node.place is not None
            local = Buffer(f"row{len(self.locals)}", m.node.dtype, size, "local")
            self.locals[m.node] = local
            old = self.group.parameter(m.node.place, m.node.dtype)
            swapped[old] = local
            del self.group.parameters[m.node.place.buffer, m.node.place.start, m.node.dtype]
        self.stores = [(m, swapped.get(b, b), position if b in swapped else o) for m, b, o in self.stores]

        def element(x: Element) -> Element:
            local = swapped.get(x.buffer)
            return x if local is None else Element(x.dtype, local, position)

        self._rewrite({}, element)

    def _rows_fit(self) -> bool:
        count = product([a.extent for a in self.inner]).constant
        trailing = self.axes[len(self.axes) - len(self.inner) :]
        return bool(self.inner) and count is not None and count <= _LOCAL and trailing == self.inner

    # -- rewriting ------------------------------------------------------------------------------------

    def _rewrite(self, values: dict[Any, Index], element: Callable[[Element], Element] | None = None) -> None:
        rewriter = Rewriter(values, element)
        self.values = {m: rewriter.scalar(s) for m, s in self.values.items()}
        if values:
            self.stores = [(m, b, o.replace(values)) for m, b, o in self.stores]
            self.columns = [(m, p, q, tuple([i.replace(values) for i in idx])) for m, p, q, idx in self.columns]

    def _split_axes(self) -> None:
        """Make two loops of one whose quotient and remainder by a number are used: strides are even along each."""
        while True:
            found = self._divided()
            if found is None:
                return
            axis, divisor = found
            high = Axis(f"{axis.name}h", axis.extent // divisor)
            low = Axis(f"{axis.name}l", index(divisor))
            self._rewrite({axis: index(high) * divisor + index(low)})
            for axes in (self.axes, self.outer, self.inner):
                if axis in axes:
                    k = axes.index(axis)
                    axes[k : k + 1] = [high, low]
            columns = self.group.columns
            if columns is not None and axis in columns:
                self.group.columns = (columns - {axis}) | {high, low}

    def _divided(self) -> tuple[Axis, int] | None:
        """A loop whose variable is divided by a number that divides its extent."""
        for i in self._indices():
            for a in i.atoms():
                if not isinstance(a, (Quotient, Remainder)):
                    continue
                divisor = a.divisor.constant
                axis = next((x for x in self.axes if a.value == index(x)), None)
                extent = None if axis is None else axis.extent.constant
                if axis is not None and divisor and extent and extent % divisor == 0:
                    return axis, divisor
        return None

    def _cut_columns(self) -> Axis | None:
        """The axis over pieces of columns, if columns are combined: each piece has a partial result of its own."""
        if not self.columns:
            return None
        first = self.outer[0]
        count = first.extent.constant
        if count is None:
            return None
        pieces = count if 4 <= count <= 2 * _PIECES else _divisor(count)
        if pieces < 2:
            return None
        piece = Axis("piece", index(pieces))
        if pieces == count:
            self._rewrite({first: index(piece)})
            self._replace_axis(first, [piece])
        else:
            rest = Axis(first.name, index(count // pieces))
            self._rewrite({first: index(piece) * (count // pieces) + index(rest)})
            self._replace_axis(first, [piece, rest])
        cut = []
        for m, place, _, idx in self.columns:
            name = f"{named(m.node.source, m.node.what)}_pieces"
            partial = self.kernels.allocate((index(pieces), *m.node.shape), m.node.dtype, name)
            cut.append((m, place, partial, (index(piece), *idx)))
        self.columns = cut
        return piece

    def _replace_axis(self, old: Axis, new: list[Axis]) -> None:
        for axes in (self.axes, self.outer):
            k = axes.index(old)
            axes[k : k + 1] = new

    def _indices(self) -> set[Index]:
        """Every index in the nest."""
        out = {o for _, _, o in self.stores}
        for _, _, partial, idx in self.columns:
            out.add(partial.offset(idx))
        for x in walk(list(self.values.values())):
            if isinstance(x, (Element, Position)):
                out.add(x.index)
        return out

    def _collapse(self, piece: Axis | None) -> None:
        """Make one loop of two neighbouring ones wherever every index moves through both as through one."""
        changed = True
        while changed:
            changed = False
            found = self._indices()
            for axes in (self.outer, self.inner):
                for first, second in itertools.pairwise(axes):
                    if first is piece or not self._neighbours(first, second) or not _as_one(first, second, found):
                        continue
                    if self.columns and not self._same_side(first, second):
                        continue
                    one = Axis(second.name, first.extent * second.extent)
                    self._rewrite({first: index(0), second: index(one)})
                    for each in (self.axes, axes):
                        k = each.index(first)
                        each[k : k + 2] = [one]
                    if self.group.columns and second in self.group.columns:
                        self.group.columns = (self.group.columns - {first, second}) | {one}
                    changed = True
                    break
                if changed:
                    break

    def _neighbours(self, first: Axis, second: Axis) -> bool:
        k = self.axes.index(first)
        return k + 1 < len(self.axes) and self.axes[k + 1] is second

    def _same_side(self, first: Axis, second: Axis) -> bool:
        columns = self.group.columns or frozenset()
        return (first in columns) == (second in columns)

    # -- loops ------------------------------------------------------------------------------------------

    def _vector_axis(self, piece: Axis | None) -> Axis | None:
        """The axis that goes into the lanes: the last, or where no rows are combined one that more reads follow."""
        candidates = [a for a in self.axes if a is not piece]
        if not candidates:
            return None
        if self.group.inner is not None or self.columns or len(candidates) == 1:
            return candidates[-1]
        found = self._indices()
        best, chosen = None, candidates[-1]
        for a in reversed(candidates):
            score = _evenness(a, [o for _, _, o in self.stores], found)
            if best is None or score > best:
                best, chosen = score, a
        for axes in (self.axes, self.outer):
            axes.remove(chosen)
            axes.append(chosen)
        return chosen

    def _loops(self, vector: Axis | None, piece: Axis | None) -> tuple[tuple[Statement, ...], Axis | None, bool]:
        body = self._rows(vector)
        for a in reversed(self.outer[1:]):
            body = [Loop(a, tuple(body), vector=a is vector)]
        if not self.outer:
            return (*self._begin_columns(), *body), None, False
        first = self.outer[0]
        if self.columns:
            start = self._begin_columns()
            if piece is not None:
                return (*start, *body), piece, False
            return (*start, Loop(first, tuple(body), vector=first is vector)), None, False
        return tuple(body), first, first is vector

    def _rows(self, vector: Axis | None) -> list[Statement]:
        """What is done for one row: run after run over it, with what is made of each in between."""
        out: list[Statement] = []
        last = max(m.phase for m in self.group.members)
        if any(m.level == REDUCE and m.phase == last for m in self.group.members):
            last += 1
        for phase in range(last + 1):
            for m in self.group.members:
                if m.phase == phase and m.level == ROW:
                    out.append(Let(m.name, self.values[m]))
                    out += self._stored(m, Local(m.node.dtype, m.name))
            run: list[Statement] = []
            combined = []
            for m in self.group.members:
                if m.phase != phase:
                    continue
                if m.level == FULL:
                    run += self._stored(m, self.values[m])
                elif m.level == REDUCE:
                    combined.append(m)
                    out.append(Accumulator(m.name, _op(m), m.node.dtype))
                    run.append(Update(m.name, self.values[m]))
                elif m.level == COLUMN:
                    run.append(self._column(m))
            if run:
                out += self._around(run, vector)
            for m in combined:
                out += self._stored(m, Local(m.node.dtype, m.name))
        return out

    def _around(self, run: list[Statement], vector: Axis | None) -> list[Statement]:
        """The loops along a row."""
        for a in reversed(self.inner):
            count = a.extent.constant
            small = vector not in self.inner and count is not None and count <= _UNROLLED
            run = [Loop(a, tuple(run), vector=a is vector, unroll=small)]
        return run

    def _stored(self, m: Member, value: Scalar) -> list[Statement]:
        return [Store(buffer, offset, value) for n, buffer, offset in self.stores if n is m]

    # -- columns ----------------------------------------------------------------------------------------

    def _column(self, m: Member) -> Store:
        for n, _, partial, idx in self.columns:
            if n is m:
                buffer = self.group.parameter(partial, m.node.dtype)
                offset = partial.offset(idx)
                return Store(buffer, offset, apply(_op(m), Element(m.node.dtype, buffer, offset), self.values[m]))
        raise AssertionError("a column without a place")

    def _begin_columns(self) -> list[Statement]:
        out: list[Statement] = []
        along = self.group.columns or frozenset()
        for m, _, partial, idx in self.columns:
            buffer = self.group.parameter(partial, m.node.dtype)
            statement: Statement = Store(buffer, partial.offset(idx), neutral(_op(m), m.node.dtype))
            stay = [a for a in self.axes if a.name != "piece" and a not in along and _in(a, idx)]
            for k, a in enumerate(reversed(stay)):
                statement = Loop(a, (statement,), vector=k == 0)
            out.append(statement)
        return out

    def _column_sums(self) -> list[Statement]:
        """Combine the pieces' partial results."""
        out: list[Statement] = []
        for m, place, partial, _ in self.columns:
            if partial is place:
                continue
            dtype, op = m.node.dtype, _op(m)
            size = product(m.node.shape)
            pieces = self._count(partial)
            column, piece = Axis("i", size), Axis("piece", index(pieces))
            source = Buffer("x0", dtype, index(0), "parameter")
            target = Buffer("y1", dtype, index(0), "parameter")
            body = (
                Accumulator("r0", op, dtype),
                Loop(piece, (Update("r0", Element(dtype, source, index(piece) * size + index(column))),)),
                Store(target, index(column), Local(dtype, "r0")),
            )
            sizes = sizes_in([size])
            kernel = Kernel(
                f"{named(m.node.source, m.node.what)}_combine",
                (source, target),
                sizes,
                column,
                body,
                vector=True,
                work=index(pieces),
                comment=_lines([m]),
            )
            parts = (Part(partial.buffer, partial.start), Part(place.buffer, place.start))
            out.append(self.kernels.run(kernel, parts, tuple([index(s) for s in sizes])))
        return out

    def _count(self, partial: Place) -> int:
        total = (partial.buffer.size // partial.strides[0]).constant
        assert total is not None
        return total

    # -- the kernel ---------------------------------------------------------------------------------------

    def _run(self, body: tuple[Statement, ...], axis: Axis | None, vector: bool) -> Run:
        body, axis, sizes, lengths = _lengthened(body, axis, vector)
        used = parameters_in(body)
        bound = [(p, key) for key, p in self.group.parameters.items() if p in used]
        kernel = Kernel(
            named(self.group.members[-1].node.source, self.group.members[-1].node.what),
            tuple([p for p, _ in bound]),
            sizes,
            axis,
            body,
            vector,
            tuple(self.locals.values()),
            _lines(self.group.members),
            self._work(axis),
        )
        parts = [Part(buffer, start) for _, (buffer, start, _) in bound]
        return self.kernels.run(kernel, parts, lengths)

    def _work(self, axis: Axis | None) -> Index:
        operations = sum(
            _COSTS.get(x.op, _FUNCTION_COST if x.op in FUNCTIONS else 1)
            for x in walk(list(self.values.values()))
            if isinstance(x, Apply)
        )
        turns = product([a.extent for a in self.axes if axis is None or a.name != axis.name])
        return turns * (operations + len(self.group.parameters))


def _op(m: Member) -> str:
    return m.node.op  # type: ignore[attr-defined]


def _in(a: Axis, idx: Idx) -> bool:
    return any(i.depends_on(a) for i in idx)


def _divisor(count: int) -> int:
    """The largest number of equal pieces, up to a bound."""
    return max(k for k in range(1, _PIECES + 1) if count % k == 0)


def _as_one(first: Axis, second: Axis, found: Iterable[Index]) -> bool:
    for i in found:
        a, b = i.coefficient(first), i.coefficient(second)
        if a is None or b is None or a != b * second.extent:
            return False
    return True


def _evenness(axis: Axis, stores: Iterable[Index], found: Iterable[Index]) -> int:
    """How well memory is followed along an axis."""
    count = axis.extent.constant
    score = -8 if count is not None and count < 4 else 0
    for i in found:
        stride = i.coefficient(axis)
        score += 2 if stride is not None and stride == 1 else 1 if stride is not None and stride == 0 else -3
    for i in stores:
        score += 4 if i.coefficient(axis) == 1 else 0
    return score


def _lengthened(
    body: tuple[Statement, ...], axis: Axis | None, vector: bool
) -> tuple[tuple[Statement, ...], Axis | None, tuple[Size, ...], tuple[Index, ...]]:
    """With the length of a single long loop as something that is given when it runs; and the sizes that are used."""
    if vector and axis is not None and (axis.extent.constant is None or axis.extent.constant > _LONG):
        size = Size("n")
        longer = Axis(axis.name, index(size))
        body = Rewriter({axis: index(longer)}, None).statements(body)
        others = tuple([s for s in sizes_of(body) if s != size])
        return body, longer, (size, *others), (axis.extent, *map(index, others))
    sizes = tuple(dict.fromkeys([*sizes_of(body), *sizes_in([] if axis is None else [axis.extent])]))
    return body, axis, sizes, tuple([index(s) for s in sizes])


def _named(kernel: Kernel, name: str) -> Kernel:
    return Kernel(
        name,
        kernel.parameters,
        kernel.sizes,
        kernel.axis,
        kernel.body,
        kernel.vector,
        kernel.locals,
        kernel.comment,
        kernel.work,
    )


def _lines(members: Iterable[Member]) -> Places:
    """The user's lines that a kernel computes."""
    return Places([m.node.source for m in members])
