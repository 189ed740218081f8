"""Where buffers lie in one piece of memory, so that those never in use together share it.

Sizes and lifetimes go in, offsets and the size of the whole come out. The runtime's arena and the workspace of exported
C are laid out by it.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence

__all__ = ["ALIGNMENT", "plan"]

#: Buffers begin at multiples of it: a cache line, and the widest vector.
ALIGNMENT = 64


def plan(buffers: Sequence[tuple[int, int, int]]) -> tuple[list[int], int]:
    """Offsets for buffers such that two in use at the same time never overlap.

    Largest first, each goes into the smallest gap that holds it between those already placed that are in use while it
    is: "greedy by size" of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020).

    Args:
        buffers: for each its number of bytes, and the first and the last moment at which it is in use.

    Returns:
        For each buffer the offset in bytes at which it begins, a multiple of `ALIGNMENT`, and the number of bytes
        that all take together.

    >>> from fnflare.compiler.memory import plan
    >>> plan([(100, 0, 1), (64, 1, 2), (128, 2, 3)])
    ([0, 128, 0], 192)
    """
    offsets = [0] * len(buffers)
    placed: list[tuple[int, int, int, int]] = []  # begin, end, first, last; sorted by where they begin
    total = 0
    for number in sorted(range(len(buffers)), key=lambda n: -buffers[n][0]):
        size, first, last = buffers[number]
        size = -(-size // ALIGNMENT) * ALIGNMENT
        if not size:
            continue
        begin = _best_gap(size, [(b, e) for b, e, f, t in placed if f <= last and first <= t])
        offsets[number] = begin
        insort(placed, (begin, begin + size, first, last))
        total = max(total, begin + size)
    return offsets, total


def _best_gap(size: int, taken: list[tuple[int, int]]) -> int:
    """Where the smallest gap that holds `size` begins, the end of all where there is none; `taken` is sorted."""
    best, smallest, end = -1, 0, 0
    for begin, stop in taken:
        gap = begin - end
        if gap >= size and (best < 0 or gap < smallest):
            best, smallest = end, gap
        end = max(end, stop)
    return best if best >= 0 else end
