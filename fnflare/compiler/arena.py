"""Scratch memory of compiled programs, kept from call to call.

A number of bytes goes in, a block of at least that many comes out, and is given back after the call. Fresh memory costs
more than a small program takes, since the system has to clear each page of it. Blocks are shared by all programs of the
process; each call has one for itself, so any number of threads may call at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.compiler.memory import ALIGNMENT

__all__ = ["Block", "Pool", "Slot", "pool"]

#: How many blocks are kept while nobody uses them.
_MOST_BLOCKS = 4


class Block:
    """Memory that begins at a multiple of `ALIGNMENT`.

    Attributes:
        size: how many bytes there are.
        address: where it begins.
    """

    __slots__ = ("_memory", "_start", "address", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._memory: np.ndarray[Any, Any] = np.empty(size + ALIGNMENT, np.uint8)
        start = self._memory.__array_interface__["data"][0]
        self.address = -(-start // ALIGNMENT) * ALIGNMENT
        self._start = self.address - start

    def write(self, number: int) -> None:
        """Write a number at its beginning."""
        self._memory[self._start : self._start + 8].view(np.uint64)[0] = number


class Pool:
    """Blocks that nobody uses.

    There is no lock that a child of `os.fork` could find closed: the list's own methods are atomic, and what other
    threads had taken when the child was made is merely not there in it.
    """

    def __init__(self) -> None:
        self._free: list[Block] = []

    def take(self, size: int) -> Block:
        """A block of at least `size` bytes, that was used lately if there is one."""
        small: list[Block] = []
        found = None
        while self._free:
            try:
                block = self._free.pop()
            except IndexError:  # another thread was quicker
                break
            if block.size >= size:
                found = block
                break
            small.append(block)
        self._free[:0] = small
        return Block(size) if found is None else found

    def give(self, block: Block) -> None:
        """Take a block back; of too many the one unused for longest goes."""
        self._free.append(block)
        if len(self._free) > _MOST_BLOCKS:
            del self._free[:-_MOST_BLOCKS]


class Slot:
    """A place for one block, which native code takes and puts back under the GIL, with its size in the 64 bytes before.

    While a call has it, others find the place empty. Blocks that were too small are kept, since a call may be in the
    middle of one; as each is half as large again as the one before, all of them together are at most twice the last.

    Attributes:
        address: where the address of the block is found, or 0 while it is in use.
    """

    def __init__(self) -> None:
        self._word = np.zeros(1, np.uintp)
        self._blocks: list[Block] = []
        self.address: int = self._word.__array_interface__["data"][0]

    def reserve(self, size: int) -> None:
        """See to it that the block has at least `size` bytes."""
        there = self._blocks[-1].size - ALIGNMENT if self._blocks else 0
        if there >= size:
            return
        block = Block(max(size, there + there // 2) + ALIGNMENT)
        block.write(block.size - ALIGNMENT)
        self._blocks.append(block)
        self._word[0] = block.address + ALIGNMENT


pool = Pool()
