"""The plan of a contraction in our own kernels: which loop lies in the lanes of vectors, what is in registers.

Simplified loops and a description of the machine go in, a `Plan` comes out: all ways that there are get a number of
cycles from a small model of the processor, and the cheapest is taken. Writing code from it is `microkernel`'s work.

The tiles and their order are those of Goto and van de Geijn, "Anatomy of high-performance matrix multiplication"
(ACM TOMS 34, 2008), without its copies of panels where the operand can be read as it lies.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from fnflare.compiler.llvm.contract_loops import estimate, kind, swapped, volume
from fnflare.nest import ContractLoop, Index

__all__ = ["SHARE_FLOPS", "Chunk", "Machine", "Plan", "plan"]

#: What a thread should have to do at least, so that handing work to it pays.
SHARE_FLOPS = 200_000
#: The memory, in bytes, of a panel of one operand: it stays in the first-level cache while all rows pass by.
PANEL_BYTES = 32 * 1024
#: The same where it is read as it lies, between other things, from the second-level cache.
BLOCK_BYTES = 64 * 1024
#: How many sums a processor must have under way so that none waits for another: latency times throughput of an FMA.
CHAINS = 8
#: Rows are shared out in pieces of about so many.
SHARED_ROWS = 24

#: What it costs in cycles to copy a vector, and to gather one from numbers that lie apart, for each number.
_COPY, _GATHER = 2, 0.6
#: How much dearer a tile is whose rows lie in different pages of memory.
_PAGE, _FAR_ROWS = 4096, 1.05
#: The bytes that a cache holds together.
_LINE = 64
#: The rows of an operand that stay in the first-level cache where they lie apart, those where they lie apart by so
#: many bytes that they compete for its places, and what it costs when there are more.
_NEAR_TURNS, _NEAR_TURNS_COMPETING, _COMPETING, _MISSES = 128, 32, 512, 3.0
#: The memory, in bytes, of rows of the first operand that stay in the second-level cache while all columns pass by.
ROWS_BYTES = 160 * 1024

_ONE = Index({(): 1})
_NONE = ContractLoop(_ONE, Index({}), Index({}), Index({}))


@dataclass(frozen=True, slots=True)
class Machine:
    """The vectors of a processor: how many bits each has, and how many there are."""

    bits: int
    registers: int

    @classmethod
    def of(cls, features: str) -> Machine:
        """The machine that has some features, in LLVM's notation."""
        names = set(features.split(","))
        if "+avx512f" in names:
            return cls(512, 32)
        if "+avx" in names:
            return cls(256, 16)
        return cls(128, 32 if "+neon" in names else 16)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A tile that lies in registers: so many rows by so many columns, or vectors of columns."""

    rows: int
    columns: int
    sets: int
    cycles: float


@dataclass(frozen=True, slots=True)
class Plan:
    """How a contraction is run.

    The loops stand in the order in which they are nested: `outer`, the part of the sum in `blocks`, chunks of `column`,
    then `inner`, tiles of `row`, and in a tile the rest of the sum in `sums`.

    Attributes:
        swapped: whether a and b changed places.
        width: the number of lanes; 1 for plain numbers.
        lanes: which loop lies in the lanes: "column" or "sum", the last of `sums`.
        outer: loops in which the second operand moves.
        blocks: loops of the sum around everything that is done with one block.
        strip: how many turns of the first of `sums` are done in one block; None for all.
        inner: loops in which the second operand stays.
        rows_together: how many turns of the first of `inner` and `row` see all columns before the next ones do; None
            for all of them.
        packed: whether the block of the second operand is copied first, so that its columns lie side by side.
        chunk: the tile for most columns, and `rest` that for what remains of a known number of columns.
        shared: the loop whose turns are shared out among threads.
    """

    swapped: bool
    width: int
    lanes: str
    column: ContractLoop
    row: ContractLoop
    outer: tuple[ContractLoop, ...]
    blocks: tuple[ContractLoop, ...]
    strip: int | None
    inner: tuple[ContractLoop, ...]
    rows_together: int | None
    sums: tuple[ContractLoop, ...]
    packed: bool
    chunk: Chunk
    rest: Chunk | None
    shared: ContractLoop | None
    cycles: float

    @property
    def step(self) -> int:
        """How many columns one column of a tile stands for."""
        return self.width if self.lanes == "column" else 1

    @property
    def shared_rows(self) -> int:
        """How many rows a thread takes at a time."""
        return self.chunk.rows * -(-SHARED_ROWS // self.chunk.rows)


def plan(loops: tuple[ContractLoop, ...], itemsize: int, floating: bool, machine: Machine) -> Plan:
    """The cheapest way to run simplified loops."""
    width = machine.bits // 8 // itemsize if floating else 1
    best = min(_ways(loops, width, itemsize, machine.registers), key=lambda p: p.cycles)
    return replace(best, shared=_shared(best))


def _ways(loops: tuple[ContractLoop, ...], width: int, itemsize: int, registers: int) -> Iterator[Plan]:
    for swap in (False, True):
        sides = swapped(loops) if swap else loops
        kinds = [kind(x) for x in sides]
        rows = [x for x, k in zip(sides, kinds, strict=True) if k == "row"]
        columns = [x for x, k in zip(sides, kinds, strict=True) if k == "column"]
        sums = [x for x, k in zip(sides, kinds, strict=True) if k == "sum"]
        found = functools.partial(_way, sides, sums, swap, itemsize, registers)
        if width > 1:
            for column in sides:
                if column.out == 1 and column.a in (0, 1) and (column.b == 1 or column.a == 0):
                    for row in [r for r in rows if r is not column] or [_NONE]:
                        if column.b == 1:
                            yield found(width, "column", column, row)
                        if column.a == 0:
                            yield found(width, "column", column, row, packed=True)
            for lane in sums:
                if lane.a in (0, 1) and lane.b in (0, 1) and not lane.a == lane.b == 0:
                    for column in columns or [_NONE]:
                        for row in rows or [_NONE]:
                            yield found(width, "sum", column, row, lane=lane)
        for column in columns[:2] or [_NONE]:
            for row in rows[:2] or [_NONE]:
                yield found(1, "column", column, row)


def _way(
    loops: tuple[ContractLoop, ...],
    sums: list[ContractLoop],
    swap: bool,
    itemsize: int,
    registers: int,
    width: int,
    lanes: str,
    column: ContractLoop,
    row: ContractLoop,
    *,
    packed: bool = False,
    lane: ContractLoop | None = None,
) -> Plan:
    others = [x for x in loops if x.out != 0 and x is not column and x is not row]
    outer = tuple([x for x in others if x.b != 0])
    inner = tuple([x for x in others if x.b == 0])
    if lane is not None:
        sums = [*[x for x in sums if x is not lane], lane]
    total, step = volume(sums), width if lanes == "column" else 1
    turns = total if lane is None else volume(sums[:-1]) * -(-estimate(lane.extent) // width)
    moves = (row.a != 0, column.a != 0, row.b != 0, packed or column.b != 0)
    known = column.extent.constant is not None
    m, n = estimate(row.extent), estimate(column.extent)
    reduction = 0 if lane is None else 4
    weight = 1.0 if packed or lanes == "sum" else _line_weight(sums, width, itemsize)
    chunk, rest, cycles = _tiling(m, -(-n // step), known, n % step != 0, turns, moves, registers, reduction, weight)
    blocks, strip, deep = _blocked(sums, chunk.columns * step * itemsize, packed, m * volume(inner) > chunk.rows, lane)
    cycles *= volume(inner) * (_FAR_ROWS if abs(estimate(row.a)) * itemsize >= _PAGE else 1)
    if packed:
        cycles += (_COPY if column.b == 1 else _GATHER * width) * turns * -(-n // step)
    depth = volume(deep) if strip is None else strip * volume(deep[1:])
    return Plan(
        swapped=swap,
        width=width,
        lanes=lanes,
        column=column,
        row=row,
        outer=outer,
        blocks=blocks,
        strip=strip,
        inner=inner,
        rows_together=_together([*inner, row], depth * itemsize, chunk) if n > chunk.columns * step else None,
        sums=deep,
        packed=packed,
        chunk=chunk,
        rest=rest,
        shared=None,
        cycles=cycles * volume(outer),
    )


def _line_weight(sums: list[ContractLoop], width: int, itemsize: int) -> float:
    """How much dearer a vector of the second operand is, read as it lies, than one from the first-level cache."""
    if width == 1:
        return 1.0
    competing = bool(sums) and estimate(sums[-1].b) * itemsize % _COMPETING == 0
    far = _MISSES if volume(sums) > (_NEAR_TURNS_COMPETING if competing else _NEAR_TURNS) else 1
    return far * (1 if all(estimate(x.b) % width == 0 for x in sums) else 1 + (width - 1) * itemsize / _LINE)


# -- the tile --------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4096)
def _tiling(
    m: int,
    n: int,
    known: bool,
    part: bool,
    turns: int,
    moves: tuple[bool, bool, bool, bool],
    registers: int,
    reduction: int,
    weight: float,
) -> tuple[Chunk, Chunk | None, float]:
    """The tiles for m rows by n columns, or vectors of columns, and what all of it costs."""
    best: tuple[Chunk, Chunk | None, float] | None = None
    for columns in range(1, min(n, registers - 3) + 1):
        chunk = _chunk(m, columns, turns, moves, registers, reduction, weight)
        full, left = divmod(n, columns)
        if full and not left and part and known:
            full, left = full - 1, columns  # the last of its vectors is not full
        rest = _chunk(m, left, turns, moves, registers, reduction, weight) if left and known else None
        cost = full * chunk.cycles + (rest.cycles if rest else left * chunk.cycles / columns)
        if best is None or cost < best[2]:
            best = chunk, rest, cost
    assert best is not None
    return best


@functools.lru_cache(maxsize=4096)
def _chunk(
    m: int,
    columns: int,
    turns: int,
    moves: tuple[bool, bool, bool, bool],
    registers: int,
    reduction: int,
    weight: float,
) -> Chunk:
    """The best number of rows for a tile of so many columns."""
    best: Chunk | None = None
    for rows in range(1, min(m, registers - 3) + 1):
        a, b = _loads(rows, columns, moves)
        tile = rows * columns
        if tile + min(a, b) + 1 > registers and rows > 1:
            break
        sets = max(1, min(-(-CHAINS // tile), (registers - min(a, b) - 1) // tile, turns))
        full, left = divmod(m, rows)
        cycles = full * _cycles(rows, columns, sets, turns, moves, reduction, weight)
        if left:
            cycles += _cycles(left, columns, sets, turns, moves, reduction, weight)
        if best is None or cycles < best.cycles:
            best = Chunk(rows, columns, sets, cycles)
    assert best is not None
    return best


def _loads(rows: int, columns: int, moves: tuple[bool, bool, bool, bool]) -> tuple[int, int]:
    """How many numbers or vectors of each operand a tile takes in each turn."""
    a_rows, a_columns, b_rows, b_columns = moves
    a = (rows if a_rows else 1) * (columns if a_columns else 1)
    b = (rows if b_rows else 1) * (columns if b_columns else 1)
    return a, b


def _cycles(
    rows: int,
    columns: int,
    sets: int,
    turns: int,
    moves: tuple[bool, bool, bool, bool],
    reduction: int,
    weight: float,
) -> float:
    """What a tile costs: two multiply-adds, two loads, six operations a cycle; four cycles from sum to sum."""
    a, b = _loads(rows, columns, moves)
    tile = rows * columns
    turn = max(tile / 2, (a + b * weight) / 2, 4 / sets, (tile + a + b + 3 / sets) / 6) + (weight - 1) * b / 4
    return turns * turn + 16 + tile * (1 + sets * 0.5 + reduction)


# -- blocks of the sum, and threads ----------------------------------------------------------------------


def _blocked(
    sums: list[ContractLoop], row_bytes: int, packed: bool, reused: bool, lane: ContractLoop | None
) -> tuple[tuple[ContractLoop, ...], int | None, tuple[ContractLoop, ...]]:
    """The loops of a sum around a block, how many turns of the first loop in it make one, and the loops in it."""
    if not packed and (not reused or lane is not None):
        return (), None, tuple(sums)
    limit = max(1, (PANEL_BYTES if packed else BLOCK_BYTES) // row_bytes)
    if sums and abs(estimate(sums[-1].a)) > 1:
        limit = min(limit, _NEAR_TURNS)
    depth = 1
    for n in reversed(range(len(sums))):
        extent = sums[n].extent.constant
        if extent is None:
            return tuple(sums[:n]), max(1, limit // depth), tuple(sums[n:])
        if depth * extent > limit:
            size = max(1, limit // depth)
            return tuple(sums[:n]), -(-extent // -(-extent // size)), tuple(sums[n:])
        depth *= extent
    return (), None, tuple(sums)


def _together(rows: list[ContractLoop], row_bytes: int, chunk: Chunk) -> int | None:
    """How many turns of the first loop over rows to do with all columns, so that what they read stays in a cache."""
    first, *others = rows
    turn_bytes = volume(others) * row_bytes
    if turn_bytes * estimate(first.extent) <= 2 * ROWS_BYTES:
        return None
    turns = max(1, ROWS_BYTES // max(1, turn_bytes))
    return turns if others else -(-turns // chunk.rows) * chunk.rows


def _shared(p: Plan) -> ContractLoop | None:
    """The loop to share out: the first that has turns enough, from the outermost in."""
    loops = [*p.outer, *p.inner, p.row]
    sizes = [x.extent.constant for x in (*loops, p.column, *p.blocks, *p.sums)]
    if None not in sizes and 2 * math.prod(n for n in sizes if n is not None) < 2 * SHARE_FLOPS:
        return None
    loops = [x for x in loops if x is not _NONE]
    for loop in loops:
        turns = estimate(loop.extent) // (p.shared_rows if loop is p.row else 1)
        if turns >= 8:
            return loop
    return max(loops, key=lambda x: estimate(x.extent), default=None)
