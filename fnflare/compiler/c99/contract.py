"""Sums of products as kernels: the loops of a `Contract`, named and in an order that C compilers make fast.

A contraction goes in, a kernel comes out, and what it is run with. Where the answer has a row of neighbouring
elements, whole rows are added to it; where all is summed over, the sum is kept in as many parts as a vector has lanes.
"""

from __future__ import annotations

from dataclasses import dataclass

from fnflare.compiler.c99.indices import atoms
from fnflare.nest import (
    Accumulator,
    Atom,
    Axis,
    Buffer,
    Contract,
    ContractLoop,
    Element,
    Index,
    Integer,
    Kernel,
    Let,
    Local,
    Loop,
    Run,
    Scalar,
    Size,
    Statement,
    Store,
    Update,
    constant,
    index,
)

__all__ = ["Contractions"]

_LANES = 8
#: What an extent counts as that is known only when the code runs.
_LONG = 1 << 30


@dataclass(slots=True)
class _Turn:
    """A loop of a contraction, its variable, and what becomes of the operands' places in each of its turns."""

    axis: Axis
    out: Index
    a: Index
    b: Index


class Contractions:
    """The kernels of contractions, one for all that differ in nothing but their operands."""

    def __init__(self) -> None:
        self._kernels: dict[object, Kernel] = {}

    def run(self, s: Contract) -> Run:
        """A contraction as the run of a kernel."""
        loops = [loop for loop in s.loops if loop.extent != 1]
        given: dict[Atom, Index] = {}
        taken: set[str] = set()
        for loop in loops:
            for i in (loop.extent, loop.out, loop.a, loop.b):
                for a in atoms(i):
                    if a not in given:
                        name = f"size{len(given)}" if isinstance(a, Integer) or str(a) in taken else str(a)
                        taken.add(name)
                        given[a] = index(Size(name))
        loops = [ContractLoop(*[i.replace(given) for i in (x.extent, x.out, x.a, x.b)]) for x in loops]
        key = (s.out.buffer.dtype, s.accumulate, tuple([(x.extent, x.out, x.a, x.b) for x in loops]))
        if key not in self._kernels:
            sizes = tuple([n for i in given.values() for n in atoms(i) if isinstance(n, Size)])
            self._kernels[key] = _kernel(s.out.buffer.dtype, loops, sizes, s.accumulate)
        return Run(self._kernels[key], (s.out, s.a, s.b), tuple([index(a) for a in given]))


def _kernel(dtype: str, loops: list[ContractLoop], sizes: tuple[Size, ...], accumulate: bool) -> Kernel:
    turns = _named(loops)
    out, a, b = (Buffer(name, dtype, index(0), "parameter") for name in ("out", "a", "b"))
    free = [t for t in turns if t.out.terms]
    summed = [t for t in turns if not t.out.terms]
    row = _row(free)
    operands = (out, a, b)
    lanes: tuple[Buffer, ...] = ()
    outer = [t for t in free if t is not row]
    inner = _inner(summed) if dtype in ("f32", "f64") else None
    if row is not None:
        body = _rows(row, summed, outer, operands, accumulate)
    elif inner is not None:
        lanes = (Buffer("lanes", dtype, index(_LANES), "local"),)
        body = _in_lanes(inner, [t for t in summed if t is not inner], outer, operands, lanes[0], accumulate)
    else:
        body = _one_by_one(summed, outer, operands, accumulate)
    name = "matmul" if all(len([t for t in turns if t.axis.name == n]) <= 1 for n in "ijk") else "contract"
    comment = f"Sums of products over {', '.join(t.axis.name for t in summed)}." if summed else "Products."
    return Kernel(name, operands, sizes, None, _around(outer, body), False, lanes, (comment,))


def _named(loops: list[ContractLoop]) -> list[_Turn]:
    """Loops with variables: k is summed over, i is of the first factor, j of the second, and a batch is of both."""
    turns: list[_Turn] = []
    taken: dict[str, int] = {}
    for x in loops:
        letter = "k" if not x.out.terms else "j" if not x.a.terms else "i" if not x.b.terms else "batch"
        taken[letter] = taken.get(letter, 0) + 1
        name = letter if taken[letter] == 1 else f"{letter}{taken[letter]}"
        turns.append(_Turn(Axis(name, x.extent), x.out, x.a, x.b))
    return turns


def _row(free: list[_Turn]) -> _Turn | None:
    """The loop along which the answer's elements are neighbours, and those of the factors too or always the same."""
    fit = [t for t in free if t.out == 1 and t.a.constant in (0, 1) and t.b.constant in (0, 1)]
    return max(fit, key=lambda t: t.axis.extent.constant or _LONG) if fit else None


def _places(turns: list[_Turn]) -> tuple[Index, Index, Index]:
    """Where the operands' elements lie in a turn of all loops."""
    places = [index(0)] * 3
    for t in turns:
        places = [p + index(t.axis) * stride for p, stride in zip(places, (t.out, t.a, t.b), strict=True)]
    return places[0], places[1], places[2]


def _rows(
    row: _Turn, summed: list[_Turn], outer: list[_Turn], buffers: tuple[Buffer, Buffer, Buffer], accumulate: bool
) -> tuple[Statement, ...]:
    """A row of the answer: emptied, then rows are added to it."""
    out, a, b = buffers
    place, place_a, place_b = _places([*outer, *summed, row])
    left, right = Element(a.dtype, a, place_a), Element(b.dtype, b, place_b)
    before: list[Statement] = []
    factors: tuple[Scalar, Scalar] = left, right
    # What does not change along the row is read before it.
    if not row.a.terms:
        before, factors = [Let("x", left)], (Local(a.dtype, "x"), right)
    elif not row.b.terms:
        before, factors = [Let("x", right)], (left, Local(b.dtype, "x"))
    value = factors[0] * factors[1]
    if not summed and not accumulate:
        return (*before, Loop(row.axis, (Store(out, place, value),), vector=True))
    added = Store(out, place, Element(out.dtype, out, place) + value)
    body = _around(summed, (*before, Loop(row.axis, (added,), vector=True)))
    if accumulate:
        return body
    return (Loop(row.axis, (Store(out, place, constant(0, out.dtype)),), vector=True), *body)


def _one_by_one(
    summed: list[_Turn], outer: list[_Turn], operands: tuple[Buffer, Buffer, Buffer], accumulate: bool
) -> tuple[Statement, ...]:
    """An element of the answer: a sum over the loops that it does not change in."""
    out, a, b = operands
    place, place_a, place_b = _places([*outer, *summed])
    value = Element(a.dtype, a, place_a) * Element(b.dtype, b, place_b)
    if not summed:
        return (_given(out, place, value, accumulate),)
    body = _around(summed, (Update("sum", value),))
    total = Local(out.dtype, "sum")
    return (Accumulator("sum", "add", out.dtype), *body, _given(out, place, total, accumulate))


def _in_lanes(
    inner: _Turn,
    summed: list[_Turn],
    outer: list[_Turn],
    operands: tuple[Buffer, Buffer, Buffer],
    lanes: Buffer,
    accumulate: bool,
) -> tuple[Statement, ...]:
    """An element of the answer as several sums, which compilers may not make of one, and what is left over."""
    out, a, b = operands
    place, place_a, place_b = _places([*outer, *summed, inner])
    k = inner.axis
    lane, whole = Axis("lane", index(_LANES)), Axis(k.name, k.extent // _LANES)
    left = Axis(k.name, k.extent % _LANES)

    def value(at: Index) -> Scalar:
        return Element(a.dtype, a, place_a.replace({k: at})) * Element(b.dtype, b, place_b.replace({k: at}))

    in_lane = Element(lanes.dtype, lanes, index(lane))
    added = Store(lanes, index(lane), in_lane + value(index(whole) * _LANES + index(lane)))
    parts: list[Statement] = [Loop(whole, (Loop(lane, (added,), vector=True),))]
    if k.extent % _LANES != 0:
        parts.append(Loop(left, (Update("sum", value(k.extent // _LANES * _LANES + index(left))),)))
    empty = Loop(lane, (Store(lanes, index(lane), constant(0, lanes.dtype)),), vector=True)
    gather = Loop(lane, (Update("sum", in_lane),))
    total = _given(out, place, Local(out.dtype, "sum"), accumulate)
    return (empty, Accumulator("sum", "add", out.dtype), *_around(summed, tuple(parts)), gather, total)


def _inner(summed: list[_Turn]) -> _Turn | None:
    """The longest loop that is summed over along which both factors' elements are neighbours, if any is worth it."""
    fit = [t for t in summed if t.a == 1 and t.b == 1 and (t.axis.extent.constant or _LONG) >= 2 * _LANES]
    return max(fit, key=lambda t: t.axis.extent.constant or _LONG) if fit else None


def _given(out: Buffer, place: Index, value: Scalar, accumulate: bool) -> Store:
    """An element of the answer gets its value, or that is added to it."""
    return Store(out, place, Element(out.dtype, out, place) + value if accumulate else value)


def _around(turns: list[_Turn], body: tuple[Statement, ...]) -> tuple[Statement, ...]:
    """Loops around a body, the first outermost."""
    for t in reversed(turns):
        body = (Loop(t.axis, body),)
    return body
