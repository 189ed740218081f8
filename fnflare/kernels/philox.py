"""Philox4x64-10: random words as a pure function of a key and a counter.

Philox (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a
bijection of 256-bit counters for every 128-bit key. There is no state to carry: word ``i`` of a stream
is computed from the key and from ``i`` alone, so streams can be split at no cost.

The rounds themselves are NumPy's: the streams of its bit generators are fixed by NumPy's compatibility
policy (NEP 19), those of ``Generator``'s distributions are not, so raw words are all that is taken from it.

How the counter is used, least significant word first::

    word 0     number of the block of four outputs, from 1 (NumPy counts up before it draws)
    words 1-2  data: what is folded in, or the limb of a seed
    word 3     domain: what the words are for

Two uses of a key differ in the domain or in the data, hence in the counter, and never share a block.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

__all__ = ["BITS", "FOLD", "SEED", "SPLIT", "words"]

BITS = 0
SPLIT = 1
FOLD = 2
SEED = 3

_MASK = 2**64 - 1


class _Local(threading.local):
    """One generator a thread: setting its state costs a tenth of making a new one."""

    def __init__(self) -> None:
        self.generator = np.random.Philox(key=0)
        self.position: dict[str, Any] = {}
        # buffer_pos 4 says that the buffer of four words is used up, so the next draw computes a block.
        self.state: Any = {
            "bit_generator": "Philox",
            "state": self.position,
            "buffer": (0, 0, 0, 0),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }


_local = _Local()


def words(key: Any, domain: int, data: int, count: int) -> np.ndarray:
    """Draw the first words of the stream that a key has for a domain and data.

    Args:
        key: two unsigned 64-bit words, an array or a pair of ints.
        domain: one of ``BITS``, ``SPLIT``, ``FOLD``, ``SEED``.
        data: an int of at most 128 bits; negative ones count as two's complement.
        count: how many words.

    Returns:
        ``count`` words, uint64, a fresh array.

    >>> words((0, 0), BITS, 0, 2)
    array([ 213000021201967259, 4455796210202625458], dtype=uint64)
    """
    local = _local
    local.position["key"] = key
    local.position["counter"] = (0, data & _MASK, (data >> 64) & _MASK, domain)
    local.generator.state = local.state
    return local.generator.random_raw(count)
