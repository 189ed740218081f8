"""Writes a planned contraction as LLVM functions: tiles of sums in vector registers, in loops over everything.

A `Plan` goes in, LLVM's language comes out. A tile holds rows by vectors of columns of the answer in registers while
the sum runs; what does not fill a vector is read under a mask, so that nothing outside the operands is touched.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fnflare.compiler.llvm.text import Text, Value
from fnflare.compiler.llvm.tiles import SHARE_FLOPS, Chunk, Plan
from fnflare.nest import ContractLoop, Index

__all__ = ["Kernel", "kernel"]

#: The types of elements in memory; truth values are bytes.
TYPES = {
    "b1": "i8",
    "i8": "i8",
    "i16": "i16",
    "i32": "i32",
    "i64": "i64",
    "u8": "i8",
    "u16": "i16",
    "u32": "i32",
    "u64": "i64",
    "f32": "float",
    "f64": "double",
}
#: The turns of the innermost loop are written out where that takes at most so many operations.
UNROLLED = 80


@dataclass(frozen=True, slots=True)
class Kernel:
    """The functions of a contraction, and what they call."""

    definition: str
    declarations: tuple[str, ...]


def kernel(name: str, plan: Plan, dtype: str, accumulate: bool, value: Callable[[Index], Value], sizes: int) -> Kernel:
    """Write a plan.

    Args:
        name: of the function.
        plan: what to write.
        dtype: of the operands.
        accumulate: whether to add to what the answer holds.
        value: an index as a number, or the name of the argument that holds it.
        sizes: how many such arguments there are.
    """
    arguments = [f"i64 %s{n}" for n in range(sizes)]
    head = f"define internal void @{name}(ptr noalias %out, ptr noalias readonly %a, ptr noalias readonly %b"
    opening = ", ".join([head, *arguments]) + ") nounwind {"
    writer = _Writer(plan, dtype, accumulate, value)
    if plan.shared is None:
        writer.contraction()
        return Kernel("\n".join([opening, *writer.text.lines, "}"]), writer.declarations())
    part = f"define internal void @{name}.part(ptr %context, i64 %begin, i64 %end) nounwind {{"
    writer.unpack(sizes)
    writer.share()
    writer.contraction()
    caller = _caller(name, plan, value, sizes)
    return Kernel("\n".join([part, *writer.text.lines, "}", "", opening, *caller.lines, "}"]), writer.declarations())


def _caller(name: str, plan: Plan, value: Callable[[Index], Value], sizes: int) -> Text:
    """The function that hands its arguments and the turns of the shared loop to threads."""
    text, loop = Text(), plan.shared
    assert loop is not None
    context = text.let(f"alloca [{3 + sizes} x i64]")
    for n, operand in enumerate(("%out", "%a", "%b")):
        text.line(f"store ptr {operand}, ptr {text.at(context, 'i64', n)}")
    for n in range(sizes):
        text.line(f"store i64 %s{n}, ptr {text.at(context, 'i64', n + 3)}")
    size = plan.shared_rows if loop is plan.row else 1
    turns = text.divide(text.add(value(loop.extent), size - 1), size)
    others = [x for x in (*plan.outer, *plan.blocks, plan.column, *plan.inner, plan.row, *plan.sums) if x is not loop]
    work = text.product([2 * size, *[value(x.extent) for x in others]])
    least = text.add(text.divide(SHARE_FLOPS, work) if work != 0 else 0, 1)
    text.line(f"call void @share(ptr @{name}.part, ptr {context}, i64 {turns}, i64 {least})")
    text.line("ret void")
    return text


class _Writer:
    """Writes the body of one function."""

    def __init__(self, plan: Plan, dtype: str, accumulate: bool, value: Callable[[Index], Value]) -> None:
        self.plan, self.dtype, self.accumulate, self.value = plan, dtype, accumulate, value
        self.text = Text()
        self.element = TYPES[dtype]
        self.vector = f"<{plan.width} x {self.element}>" if plan.width > 1 else self.element
        self.floating = dtype in ("f32", "f64")
        self.zero = "0.0" if self.floating else "0"
        self.pointers = ["%out", "%a", "%b"]
        self.extents: dict[int, Value] = {}
        self.intrinsics: set[str] = set()
        self.panel = ""

    def declarations(self) -> tuple[str, ...]:
        return tuple(sorted(self.intrinsics))

    # -- threads --------------------------------------------------------------------------------------

    def unpack(self, sizes: int) -> None:
        """Read the arguments that the caller left in memory."""
        for n, name in enumerate(["%out", "%a", "%b", *[f"%s{n}" for n in range(sizes)]]):
            place = self.text.at("%context", "i64", n)
            self.text.lines.append(f"  {name} = load {'ptr' if n < 3 else 'i64'}, ptr {place}")

    def share(self) -> None:
        """Take the turns from %begin to %end of the shared loop alone."""
        loop, text = self.plan.shared, self.text
        assert loop is not None
        size = self.plan.shared_rows if loop is self.plan.row else 1
        begin = text.multiply("%begin", size)
        end = text.smaller(text.multiply("%end", size), self.value(loop.extent))
        self.extents[id(loop)] = text.subtract(end, begin)
        strides = [self.value(s) for s in (loop.out, loop.a, loop.b)]
        strides = [strides[0], strides[2], strides[1]] if self.plan.swapped else strides
        self.pointers = [
            text.at(p, self.element, text.multiply(begin, s)) for p, s in zip(self.pointers, strides, strict=True)
        ]

    def extent(self, loop: ContractLoop) -> Value:
        found = self.extents.get(id(loop))
        return self.value(loop.extent) if found is None else found

    # -- the loops around a tile ----------------------------------------------------------------------

    def contraction(self) -> None:
        out, a, b = self.pointers
        if self.plan.swapped:
            a, b = b, a
        if self.plan.packed:
            size = self.plan.width * self.plan.chunk.columns * self._depth()
            self.panel = self.text.let(f"alloca [{size} x {self.element}], align 64")
        self._nest(self.plan.outer, (out, a, b), self._blocks)
        self.text.line("ret void")

    def _depth(self) -> int:
        """How many turns of the sum a block has at most; they are few and known where this is asked."""
        known = [loop.extent.constant or 0 for loop in self.plan.sums]
        if self.plan.strip is not None:
            known[0] = self.plan.strip
        return math.prod(known)

    def _nest(
        self,
        loops: Sequence[ContractLoop],
        pointers: tuple[str, str, str],
        body: Callable[[tuple[str, str, str]], None],
    ) -> None:
        """Loops that only move the operands on."""
        if not loops:
            body(pointers)
            return
        loop, *rest = loops

        def turn(i: Value, _: list[str]) -> list[str]:
            self._nest(rest, self._moved(pointers, loop, i), body)
            return []

        self.text.repeat(self.extent(loop), [], turn)

    def _moved(self, pointers: tuple[str, str, str], loop: ContractLoop, turns: Value) -> tuple[str, str, str]:
        strides = (loop.out, loop.a, loop.b)
        out, a, b = [
            self.text.at(p, self.element, self.text.multiply(turns, self.value(s)))
            for p, s in zip(pointers, strides, strict=True)
        ]
        return out, a, b

    def _blocks(self, pointers: tuple[str, str, str]) -> None:
        """The parts of the sum that one block after the other adds to the answer."""
        self._block_loops(self.plan.blocks, pointers, None)

    def _block_loops(self, loops: Sequence[ContractLoop], pointers: tuple[str, str, str], fresh: str | None) -> None:
        text = self.text
        if loops:
            loop, *rest = loops

            def turn(i: Value, _: list[str]) -> list[str]:
                self._block_loops(rest, self._moved(pointers, loop, i), self._also_first(fresh, i))
                return []

            text.repeat(self.extent(loop), [], turn)
            return
        strip = self.plan.strip
        if strip is None:
            self._row_blocks(pointers, fresh, None)
            return
        loop = self.plan.sums[0]
        extent = self.extent(loop)

        def block(i: Value, _: list[str]) -> list[str]:
            even = isinstance(extent, int) and extent % strip == 0
            turns = strip if even else text.smaller(strip, text.subtract(extent, i))
            self._row_blocks(self._moved(pointers, loop, i), self._also_first(fresh, i), turns)
            return []

        text.repeat(text.divide(text.add(extent, strip - 1), strip), [], block, strip)

    def _also_first(self, fresh: str | None, turn: Value) -> str | None:
        """Whether this is the first of all blocks."""
        if isinstance(turn, int):
            return fresh
        first = self.text.let(f"icmp eq i64 {turn}, 0")
        return first if fresh is None else self.text.let(f"and i1 {fresh}, {first}")

    def _row_blocks(self, pointers: tuple[str, str, str], fresh: str | None, turns: Value | None) -> None:
        """The rows, as many at a time as stay in a cache while all columns pass by."""
        text, size = self.text, self.plan.rows_together
        if size is None:
            self._chunks(pointers, fresh, turns)
            return
        loop = (*self.plan.inner, self.plan.row)[0]
        extent = self.extent(loop)

        def block(i: Value, _: list[str]) -> list[str]:
            even = isinstance(extent, int) and extent % size == 0
            self.extents[id(loop)] = size if even else text.smaller(size, text.subtract(extent, i))
            self._chunks(self._moved(pointers, loop, i), fresh, turns)
            self.extents[id(loop)] = extent
            return []

        text.repeat(text.divide(text.add(extent, size - 1), size), [], block, size)

    def _chunks(self, pointers: tuple[str, str, str], fresh: str | None, turns: Value | None) -> None:
        """The columns, as many at a time as a tile has."""
        text, plan, column = self.text, self.plan, self.plan.column
        extent, step = self.extent(column), plan.step
        size = plan.chunk.columns * step
        full = text.divide(extent, size)

        def chunk(tile: Chunk, left: Value, i: Value) -> None:
            moved = self._moved(pointers, column, i)
            if plan.packed:
                moved = moved[0], moved[1], self._pack(moved[2], tile.columns, left, turns)
            rows = functools.partial(self._rows, tile, left, fresh, turns)
            self._nest(plan.inner, moved, rows)

        def whole(i: Value, _: list[str]) -> list[str]:
            chunk(plan.chunk, step, i)
            return []

        text.repeat(full, [], whole, size)
        if isinstance(extent, int) and isinstance(full, int):
            left = extent - full * size
            if left:
                assert plan.rest is not None
                chunk(plan.rest, (left - 1) % step + 1, full * size)
            return
        done = text.multiply(full, size)
        remaining = text.subtract(extent, done)

        def single(i: Value, _: list[str]) -> list[str]:
            rest = text.smaller(step, text.subtract(remaining, i)) if step > 1 else step
            chunk(Chunk(plan.chunk.rows, 1, plan.chunk.sets, 0), rest, text.add(done, i))
            return []

        text.repeat(text.divide(text.add(remaining, step - 1), step), [], single, step)

    def _rows(
        self, tile: Chunk, left: Value, fresh: str | None, turns: Value | None, pointers: tuple[str, str, str]
    ) -> None:
        """The rows, as many at a time as a tile has."""
        text, row = self.text, self.plan.row
        extent = self.extent(row)
        full = text.divide(extent, tile.rows)

        def some(rows: int, i: Value) -> None:
            self._tile(Chunk(rows, tile.columns, tile.sets, 0), left, fresh, turns, self._moved(pointers, row, i))

        def whole(i: Value, _: list[str]) -> list[str]:
            some(tile.rows, i)
            return []

        text.repeat(full, [], whole, tile.rows)
        if isinstance(extent, int) and isinstance(full, int):
            if extent % tile.rows:
                some(extent % tile.rows, full * tile.rows)
        elif tile.rows > 1:
            done = text.multiply(full, tile.rows)

            def single(i: Value, _: list[str]) -> list[str]:
                some(1, text.add(done, i))
                return []

            text.repeat(text.subtract(extent, done), [], single)

    # -- vectors --------------------------------------------------------------------------------------

    def _mask(self, lanes: Value) -> str:
        """The first lanes of a vector."""
        width = self.plan.width
        if isinstance(lanes, int):
            return f"<{', '.join('i1 true' if n < lanes else 'i1 false' for n in range(width))}>"
        number = self.text.let(f"trunc i64 {lanes} to i32")
        numbers = f"<{width} x i32>"
        one = self.text.let(f"insertelement {numbers} poison, i32 {number}, i64 0")
        every = self.text.let(f"shufflevector {numbers} {one}, {numbers} poison, {numbers} zeroinitializer")
        counted = f"<{', '.join(f'i32 {n}' for n in range(width))}>"
        return self.text.let(f"icmp sgt {numbers} {every}, {counted}")

    def _load(self, place: str, lanes: Value) -> str:
        """A vector, of which so many lanes are there; the others are 0."""
        width, vector = self.plan.width, self.vector
        align = f"align {self._bytes()}"
        if lanes == width or width == 1:
            return self.text.let(f"load {vector}, ptr {place}, {align}")
        suffix = f"v{width}f{self._bytes() * 8}"
        mask = f"<{width} x i1>"
        self.intrinsics.add(f"declare {vector} @llvm.masked.load.{suffix}.p0(ptr, i32, {mask}, {vector})")
        return self.text.let(
            f"call {vector} @llvm.masked.load.{suffix}.p0(ptr {place}, i32 {self._bytes()}, "
            f"{mask} {self._mask(lanes)}, {vector} zeroinitializer)"
        )

    def _store(self, value: str, place: str, lanes: Value) -> None:
        width, vector = self.plan.width, self.vector
        align = f"align {self._bytes()}"
        if lanes == width or width == 1:
            self.text.line(f"store {vector} {value}, ptr {place}, {align}")
        elif isinstance(lanes, int):  # in pieces: stores under a mask are slow on some processors
            numbers = ", ".join(f"i32 {n}" for n in range(lanes))
            piece = self.text.let(f"shufflevector {vector} {value}, {vector} poison, <{lanes} x i32> <{numbers}>")
            self.text.line(f"store <{lanes} x {self.element}> {piece}, ptr {place}, {align}")
        else:
            suffix = f"v{width}f{self._bytes() * 8}"
            mask = f"<{width} x i1>"
            self.intrinsics.add(f"declare void @llvm.masked.store.{suffix}.p0({vector}, ptr, i32, {mask})")
            self.text.line(
                f"call void @llvm.masked.store.{suffix}.p0({vector} {value}, ptr {place}, i32 {self._bytes()}, "
                f"{mask} {self._mask(lanes)})"
            )

    def _splat(self, place: str) -> str:
        number = self.text.let(f"load {self.element}, ptr {place}, align {self._bytes()}")
        if self.plan.width == 1:
            return number
        one = self.text.let(f"insertelement {self.vector} poison, {self.element} {number}, i64 0")
        zeros = f"<{self.plan.width} x i32> zeroinitializer"
        return self.text.let(f"shufflevector {self.vector} {one}, {self.vector} poison, {zeros}")

    def _bytes(self) -> int:
        return {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "float": 4, "double": 8}[self.element]

    def _add(self, x: str, y: str, kind: str) -> str:
        if self.dtype == "b1":
            return self.text.let(f"or {kind} {x}, {y}")
        return self.text.let(f"{'fadd' if self.floating else 'add'} {kind} {x}, {y}")

    def _multiply_add(self, x: str, y: str, total: str) -> str:
        if not self.floating:
            operation = "and" if self.dtype == "b1" else "mul"
            return self._add(total, self.text.let(f"{operation} {self.vector} {x}, {y}"), self.vector)
        bits = self._bytes() * 8
        suffix = f"f{bits}" if self.plan.width == 1 else f"v{self.plan.width}f{bits}"
        kinds = ", ".join([self.vector] * 3)
        self.intrinsics.add(f"declare {self.vector} @llvm.fmuladd.{suffix}({kinds})")
        arguments = ", ".join(f"{self.vector} {v}" for v in (x, y, total))
        return self.text.let(f"call {self.vector} @llvm.fmuladd.{suffix}({arguments})")

    # -- a tile ---------------------------------------------------------------------------------------

    def _tile(
        self, tile: Chunk, left: Value, fresh: str | None, turns: Value | None, pointers: tuple[str, str, str]
    ) -> None:
        """Sum up a tile, and bring it to memory."""
        out, a, b = pointers
        zero = self.zero if self.plan.width == 1 else "zeroinitializer"
        sums = [zero] * (tile.rows * tile.columns * tile.sets)
        steps = _Steps(self, tile, left, turns)
        sums = steps.nest(0, a, b, sums)
        size = tile.rows * tile.columns
        while len(sums) > size:  # the sets, pairwise
            half = -(-len(sums) // size // 2) * size
            pairs = [self._add(x, y, self.vector) for x, y in zip(sums, sums[half:], strict=False)]
            sums = pairs + sums[len(pairs) : half]
        if self.plan.lanes == "sum":
            sums = [self._reduced(x) for x in sums]
        self._finish(tile, left, fresh, out, sums)

    def _reduced(self, vector: str) -> str:
        suffix = f"v{self.plan.width}f{self._bytes() * 8}"
        self.intrinsics.add(f"declare {self.element} @llvm.vector.reduce.fadd.{suffix}({self.element}, {self.vector})")
        arguments = f"{self.element} -0.0, {self.vector} {vector}"
        return self.text.let(f"call reassoc {self.element} @llvm.vector.reduce.fadd.{suffix}({arguments})")

    def _finish(self, tile: Chunk, left: Value, fresh: str | None, out: str, sums: list[str]) -> None:
        """Store a tile, or add it to what is there: unless this is the first block, or always."""
        text, plan = self.text, self.plan
        row, column = self.value(plan.row.out), self.value(plan.column.out)
        lanes = plan.lanes == "column" and plan.width > 1
        kind = self.vector if lanes else self.element
        places: list[tuple[str, Value]] = []
        for i in range(tile.rows):
            for j in range(tile.columns):
                offset = text.add(text.multiply(i, row), text.multiply(j * plan.step, column))
                last = j == tile.columns - 1
                places.append((text.at(out, self.element, offset), left if lanes and last else plan.width))

        def added() -> list[str]:
            held = [self._load(p, n) if lanes else self._number(p) for p, n in places]
            return [self._add(h, s, kind) for h, s in zip(held, sums, strict=True)]

        if self.accumulate:
            sums = added()
        elif fresh is not None:
            before, add, end = text.block, text.fresh(), text.fresh()
            text.line(f"br i1 {fresh}, label %{end}, label %{add}")
            text.begin(add)
            totals = added()
            text.line(f"br label %{end}")
            last_block = text.block
            text.begin(end)
            sums = [
                text.let(f"phi {kind} [ {s}, %{before} ], [ {t}, %{last_block} ]")
                for s, t in zip(sums, totals, strict=True)
            ]
        for value, (place, n) in zip(sums, places, strict=True):
            if lanes:
                self._store(value, place, n)
            else:
                text.line(f"store {self.element} {value}, ptr {place}, align {self._bytes()}")

    def _number(self, place: str) -> str:
        return self.text.let(f"load {self.element}, ptr {place}, align {self._bytes()}")

    # -- packing --------------------------------------------------------------------------------------

    def _pack(self, b: str, columns: int, left: Value, turns: Value | None) -> str:
        """Copy a block of the second operand: all columns of a turn of the sum side by side."""
        text, plan = self.text, self.plan
        across = self.value(plan.column.b)

        def vector(place: str, lanes: Value) -> str:
            if across == 1:
                return self._load(place, lanes)
            if isinstance(lanes, str):  # the last lanes read the last column again
                last = text.subtract(lanes, 1)
                numbers = [text.smaller(n, last) if n else 0 for n in range(plan.width)]
            else:
                numbers = list(range(lanes))
            out = "zeroinitializer"
            for n, number in enumerate(numbers):
                element = self._number(text.at(place, self.element, text.multiply(number, across)))
                out = text.let(f"insertelement {self.vector} {out}, {self.element} {element}, i64 {n}")
            return out

        def copy(level: int, source: str, target: str) -> None:
            if level == len(plan.sums):
                for j in range(columns):
                    lanes = left if j == columns - 1 else plan.width
                    place = text.at(source, self.element, text.multiply(j * plan.width, across))
                    goal = text.at(target, self.element, j * plan.width)
                    text.line(f"store {self.vector} {vector(place, lanes)}, ptr {goal}, align {self._bytes()}")
                return
            loop = plan.sums[level]
            count = turns if turns is not None and level == 0 else self.value(loop.extent)
            distance = self.panel_stride(level, columns)

            def turn(i: Value, _: list[str]) -> list[str]:
                further = text.at(source, self.element, text.multiply(i, self.value(loop.b)))
                copy(level + 1, further, text.at(target, self.element, text.multiply(i, distance)))
                return []

            text.repeat(count, [], turn)

        copy(0, b, self.panel)
        return self.panel

    def panel_stride(self, level: int, columns: int) -> int:
        """How far a turn of a loop of the sum goes in the copy."""
        distance = columns * self.plan.width
        for loop in self.plan.sums[level + 1 :]:
            assert loop.extent.constant is not None
            distance *= loop.extent.constant
        return distance


class _Steps:
    """Writes the sum of one tile."""

    def __init__(self, writer: _Writer, tile: Chunk, left: Value, turns: Value | None) -> None:
        self.writer, self.tile, self.left, self.turns = writer, tile, left, turns
        self.text, self.plan = writer.text, writer.plan
        plan = self.plan
        row, column = plan.row, plan.column
        b_row, b_column = (0, 1) if plan.packed else (writer.value(row.b), writer.value(column.b))
        self.a_places = self._places(writer.value(row.a), writer.value(column.a))
        self.b_places = self._places(b_row, b_column)
        by_column = plan.lanes == "column" and plan.width > 1
        lane = plan.column if by_column else plan.sums[-1] if plan.lanes == "sum" else None
        self.a_vector = lane is not None and lane.a == 1
        self.b_vector = lane is not None and (lane.b == 1 or plan.packed)

    def _places(self, row: Value, column: Value) -> list[Value]:
        """How far from the first element of an operand that of each row and column of the tile lies."""
        text, tile, step = self.text, self.tile, self.plan.step
        rows = [text.multiply(i, row) for i in range(tile.rows)]
        columns = [text.multiply(j * step, column) for j in range(tile.columns)]
        return [text.add(r, c) for r in rows for c in columns]

    def _strides(self, level: int) -> tuple[Value, Value]:
        loop = self.plan.sums[level]
        if self.plan.packed:
            return self.writer.value(loop.a), self.writer.panel_stride(level, self.tile.columns)
        return self.writer.value(loop.a), self.writer.value(loop.b)

    def nest(self, level: int, a: str, b: str, sums: list[str]) -> list[str]:
        """The loops of the sum from one on."""
        loops = self.plan.sums
        if not loops:
            return self._turn(a, b, sums, 0, None)
        count = self.turns if self.turns is not None and level == 0 else self.writer.value(loops[level].extent)
        strides = self._strides(level)
        if level == len(loops) - 1:
            return self._innermost(count, strides, a, b, sums)

        def turn(_: Value, carried: list[str]) -> list[str]:
            inside = self.nest(level + 1, carried[0], carried[1], carried[2:])
            return [*self._further(carried[0], carried[1], strides, 1), *inside]

        return self._repeat(count, a, b, sums, turn)[2:]

    def _repeat(
        self, count: Value, a: str, b: str, sums: list[str], turn: Callable[[Value, list[str]], Sequence[str]]
    ) -> list[str]:
        carried = [("ptr", a), ("ptr", b), *[(self.writer.vector, s) for s in sums]]
        return self.text.repeat(count, carried, turn)

    def _further(self, a: str, b: str, strides: tuple[Value, Value], turns: Value) -> tuple[str, str]:
        text, element = self.text, self.writer.element
        return (
            text.at(a, element, text.multiply(turns, strides[0])),
            text.at(b, element, text.multiply(turns, strides[1])),
        )

    def _innermost(self, count: Value, strides: tuple[Value, Value], a: str, b: str, sums: list[str]) -> list[str]:
        """Whole turns, as many at a time as there are sets of sums, and those that remain."""
        text, tile = self.text, self.tile
        width = self.plan.width if self.plan.lanes == "sum" else 1
        strides = text.multiply(width, strides[0]), text.multiply(width, strides[1])
        whole = text.divide(count, width)
        if isinstance(whole, int) and whole * (tile.rows * tile.columns + 2) <= UNROLLED:
            sums = self._turns(whole, strides, a, b, sums)
            a, b = self._further(a, b, strides, whole)
        else:

            def turn(_: Value, carried: list[str]) -> list[str]:
                new = self._turns(tile.sets, strides, carried[0], carried[1], carried[2:])
                return [*self._further(carried[0], carried[1], strides, tile.sets), *new]

            def single(_: Value, carried: list[str]) -> list[str]:
                new = self._turn(carried[0], carried[1], carried[2:], 0, None)
                return [*self._further(carried[0], carried[1], strides, 1), *new]

            rounds = text.divide(whole, tile.sets)
            a, b, *sums = self._repeat(rounds, a, b, sums, turn)
            rest = text.subtract(whole, text.multiply(rounds, tile.sets))
            if isinstance(rest, int):
                sums = self._turns(rest, strides, a, b, sums)
                a, b = self._further(a, b, strides, rest)
            elif tile.sets > 1:
                a, b, *sums = self._repeat(rest, a, b, sums, single)
        if width > 1:
            left = text.subtract(count, text.multiply(whole, width))
            if left != 0:
                sums = self._turn(a, b, sums, 0, left)
        return sums

    def _turns(self, count: int, strides: tuple[Value, Value], a: str, b: str, sums: list[str]) -> list[str]:
        """Turns one after the other, each with the next set of sums."""
        for n in range(count):
            sums = self._turn(*self._further(a, b, strides, n), sums, n % self.tile.sets, None)
        return sums

    def _turn(self, a: str, b: str, sums: list[str], which: int, lanes: Value | None) -> list[str]:
        """One turn of the sum: rows by columns products. With `lanes`, only so many lanes of the vectors are there."""
        rows, columns = self.tile.rows, self.tile.columns
        out = list(sums)
        held: dict[tuple[str, Value, Value], str] = {}
        # What there is less of stays in registers, the other passes by.
        pairs = [(i, j) for j in range(columns) for i in range(rows)]
        for i, j in pairs if rows < columns else sorted(pairs):
            n = i * columns + j
            x = self._operand("a", a, self.a_places[n], j, lanes, held)
            y = self._operand("b", b, self.b_places[n], j, lanes, held)
            at = which * rows * columns + n
            out[at] = self.writer._multiply_add(x, y, out[at])
        return out

    def _operand(
        self, name: str, base: str, place: Value, j: int, lanes: Value | None, held: dict[tuple[str, Value, Value], str]
    ) -> str:
        vector = self.a_vector if name == "a" else self.b_vector
        count: Value = self.plan.width
        if lanes is not None:
            count = lanes
        elif self.plan.lanes == "column" and j == self.tile.columns - 1 and not (name == "b" and self.plan.packed):
            count = self.left
        key = name, place, count if vector else 0
        if key not in held:
            address = self.text.at(base, self.writer.element, place)
            held[key] = self.writer._load(address, count) if vector else self.writer._splat(address)
        return held[key]
