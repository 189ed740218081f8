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

Of many keys that give few words each, most of the time would go into handing them to NumPy's generator one by
one; their blocks are computed all at once, by the same rounds written in array operations.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

__all__ = ["BITS", "FOLD", "MULTIPLIERS", "ROUNDS", "SEED", "SPLIT", "WEYL", "words"]

BITS = 0
SPLIT = 1
FOLD = 2
SEED = 3

_MASK = 2**64 - 1

# Salmon et al.: the multipliers of the rounds, and what is added to the key after each.
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10

# The rounds as array operations take some 400 calls, and then 20 times as long a block as in C; handing a key to the
# generator takes as long as some 500 blocks in C. Hence from how many keys on, and up to how many blocks a key:
_MANY_KEYS, _FEW_BLOCKS = 128, 8

# Blocks that are computed at a time, so that the operands stay in the cache.
_AT_ONCE = 1 << 12


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


def words(key: Any, domain: int, data: Any, count: int) -> np.ndarray:
    """Draw the first words of the stream that a key has for a domain and data.

    Args:
        key: two unsigned 64-bit words, an array or a pair of ints; or an array of such keys, (..., 2).
        domain: one of ``BITS``, ``SPLIT``, ``FOLD``, ``SEED``.
        data: an int of at most 128 bits; negative ones count as two's complement. Or an array of integers that
            broadcasts against the leading axes of the keys.
        count: how many words.

    Returns:
        ``count`` words, uint64, a fresh array; (..., count) of many keys.

    >>> from fnflare.kernels.philox import BITS, words
    >>> words((0, 0), BITS, 0, 2)
    array([ 213000021201967259, 4455796210202625458], dtype=uint64)
    """
    if isinstance(data, (np.ndarray, np.generic)) or getattr(key, "ndim", 1) > 1:
        return _words_of_many(np.asarray(key), domain, data, count)
    local = _local
    local.position["key"] = key
    local.position["counter"] = (0, data & _MASK, (data >> 64) & _MASK, domain)
    local.generator.state = local.state
    return local.generator.random_raw(count)


def _words_of_many(keys: np.ndarray, domain: int, data: Any, count: int) -> np.ndarray:
    low, high = _halves(data)
    shape = np.broadcast_shapes(keys.shape[:-1], low.shape)
    keys = np.broadcast_to(keys, (*shape, 2)).reshape(-1, 2)
    low, high = np.broadcast_to(low, shape).reshape(-1), np.broadcast_to(high, shape).reshape(-1)
    blocks = -(-count // 4)
    out = np.empty((len(keys), count), np.uint64)
    if len(keys) < _MANY_KEYS or blocks > _FEW_BLOCKS:
        for i, key in enumerate(keys):
            out[i] = words(key, domain, int(low[i]) | int(high[i]) << 64, count)
    else:
        step = max(1, _AT_ONCE // max(1, blocks))
        for start in range(0, len(keys), step):
            part = slice(start, start + step)
            out[part] = _blocks(keys[part], low[part], high[part], domain, blocks)[:, :count]
    return out.reshape(*shape, count)


def _halves(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the upper 64 bits of integers, as two's complement of 128 bits."""
    if isinstance(data, int):
        return np.asarray(data & _MASK, np.uint64), np.asarray(data >> 64 & _MASK, np.uint64)
    data = np.asarray(data)
    return data.astype(np.uint64), np.where(data < 0, np.uint64(_MASK), np.uint64(0))


def _blocks(keys: np.ndarray, low: np.ndarray, high: np.ndarray, domain: int, blocks: int) -> np.ndarray:
    """The first blocks of many streams: (n, 4 * blocks)."""
    shape = (len(keys), blocks)
    a = np.broadcast_to(np.arange(1, blocks + 1, dtype=np.uint64), shape)
    b, c = np.broadcast_to(low[:, None], shape), np.broadcast_to(high[:, None], shape)
    d = np.full(shape, domain, np.uint64)
    k, m = keys[:, :1], keys[:, 1:]
    for _ in range(ROUNDS):
        first_high, first_low = _product(a, MULTIPLIERS[0])
        second_high, second_low = _product(c, MULTIPLIERS[1])
        a, b, c, d = second_high ^ b ^ k, second_low, first_high ^ d ^ m, first_low
        k, m = k + np.uint64(WEYL[0]), m + np.uint64(WEYL[1])
    return np.stack([a, b, c, d], axis=-1).reshape(len(keys), 4 * blocks)


def _product(a: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """The upper and the lower 64 bits of products, from products of halves of 32 bits."""
    half, low_bits = np.uint64(32), np.uint64(2**32 - 1)
    f, g = np.uint64(factor >> 32), np.uint64(factor & (2**32 - 1))
    b, c = a >> half, a & low_bits
    middle = b * g + (c * g >> half)
    upper = b * f + (middle >> half) + (c * f + (middle & low_bits) >> half)
    return upper, a * np.uint64(factor)
