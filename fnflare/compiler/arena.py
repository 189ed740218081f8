"""Scratch memory of compiled programs, kept from call to call.

A number of bytes goes in, a block of at least that many comes out, and is given back after the call. Fresh memory costs
more than a small program takes, since the system has to clear each page of it. Blocks are shared by all programs of the
process; each call has one for itself, so any number of threads may call at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.compiler.memory import ALIGNMENT

__all__ = ["Block", "Pool", "pool"]

#: How many blocks are kept while nobody uses them.
_MOST_BLOCKS = 4

#: An array of bytes whose first lies at a multiple of `ALIGNMENT`.
Block = np.ndarray[Any, np.dtype[np.uint8]]


class Pool:
    """Blocks that nobody uses.

    There is no lock that a child of `os.fork` could find closed: the methods of a list are atomic under the GIL, and
    what other threads had taken when the child was made is merely not there in it.

    Attributes:
        free: the blocks, the one that was given back last at the end. Native code takes them from there too.
    """

    def __init__(self) -> None:
        self.free: list[Block] = []

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes, that was used lately if there is one."""
        small: list[Block] = []
        found = None
        while self.free:
            try:
                block = self.free.pop()
            except IndexError:  # another thread was quicker
                break
            if len(block) >= size:
                found = block
                break
            small.append(block)
        self.free[:0] = small[::-1]
        return _block(size) if found is None else found

    def give(self, block: Block) -> None:
        """Take a block back; of too many the one unused for longest goes."""
        self.free.append(block)
        if len(self.free) > _MOST_BLOCKS:
            del self.free[:-_MOST_BLOCKS]


def _block(size: int) -> Block:
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.__array_interface__["data"][0] % ALIGNMENT
    return memory[start : start + size]


pool = Pool()
