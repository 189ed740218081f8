"""The loops of a contraction: what is there is brought into the simplest form, and said to be of one of four kinds.

A `Contract` goes in; loops of one turn vanish, loops that walk through memory as one become one, and the rest are
sorted. Both ways of running a contraction, BLAS and kernels of our own, begin here. Nothing of machines is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from fnflare.nest import ContractLoop, Index

__all__ = ["TYPICAL", "estimate", "kind", "simplified", "swapped", "volume"]

#: What a size that is not known is taken for when costs are compared.
TYPICAL = 256


def kind(loop: ContractLoop) -> str:
    """Which of the operands a loop moves in.

    "sum" where `out` stays; else "row" where b stays, "column" where a stays, and "batch" where all move.
    """
    if loop.out == 0:
        return "sum"
    if loop.b == 0:
        return "row"
    return "column" if loop.a == 0 else "batch"


def simplified(loops: Iterable[ContractLoop]) -> tuple[ContractLoop, ...]:
    """The same turns in as few loops as possible; those over `out` first, each kind by falling strides.

    Two loops become one where a turn of the outer goes, in all operands, just as far as all turns of the inner.
    """
    left = [x for x in loops if x.extent != 1]
    empty = [x for x in left if x.extent == 0]
    if empty:  # nothing to sum, or no answer: the other loops of that kind say nothing
        sums = [x for x in empty if x.out == 0]
        left = [x for x in left if x.out != 0] + sums[:1] if sums else empty[:1]
    else:
        while pair := _composing(left):
            outer, inner = pair
            merged = ContractLoop(outer.extent * inner.extent, inner.out, inner.a, inner.b)
            left = [merged if x is inner else x for x in left if x is not outer]
    return tuple(sorted(left, key=_order))


def _composing(loops: list[ContractLoop]) -> tuple[ContractLoop, ContractLoop] | None:
    for inner in loops:
        ends = inner.out * inner.extent, inner.a * inner.extent, inner.b * inner.extent
        for outer in loops:
            if outer is not inner and (outer.out, outer.a, outer.b) == ends:
                return outer, inner
    return None


def _order(loop: ContractLoop) -> tuple[bool, int]:
    if loop.out == 0:
        return True, -(abs(estimate(loop.a)) + abs(estimate(loop.b)))
    return False, -abs(estimate(loop.out))


def swapped(loops: Iterable[ContractLoop]) -> tuple[ContractLoop, ...]:
    """With the operands a and b in each other's place; the products are the same."""
    return tuple([ContractLoop(x.extent, x.out, x.b, x.a) for x in loops])


def estimate(value: Index) -> int:
    """An index with a typical number for all that is not known."""
    known = value.constant
    if known is not None:
        return known
    return sum(c * TYPICAL ** len(monomial) for monomial, c in value.terms.items())


def volume(loops: Iterable[ContractLoop]) -> int:
    """About how many turns some loops have together."""
    return math.prod(estimate(x.extent) for x in loops)
