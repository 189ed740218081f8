"""Keys and the bits that are drawn from them: what `fnflare.random` is built on, and exports."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import DTypeLike

from fnflare.core import is_tracer
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.kernels import philox
from fnflare.ops.random import folded, pieces_of, words_of

__all__ = ["Shape", "check_shape", "fold_in", "key", "random_bits", "split"]

Shape = int | Sequence[int]

_UINT64 = np.dtype(np.uint64)
_NO_KEY = np.zeros(2, np.uint64)
_UNSIGNED = tuple(np.dtype(t) for t in (np.uint8, np.uint16, np.uint32, np.uint64))


# --- keys -----------------------------------------------------------------------------------------------------


def key(seed: SupportsIndex) -> np.ndarray:
    """Make a key from a seed.

    Args:
        seed: any Python int, negative and large ones too.

    Returns:
        A key: uint64, shape (2,). The seed is mixed, so neighbouring seeds give unrelated keys.

    Raises:
        DtypeError: the seed is not an integer.

    >>> ff.random.key(0)
    array([7168695127807431096, 2261885601541050564], dtype=uint64)
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise DtypeError(f"seed: an int is needed, got {type(seed).__name__}; write ff.random.key(0)") from None
    sign, rest = int(number < 0), abs(number)
    # The limbs of 64 bits are absorbed one by one; the last one is marked, so no seed's limbs begin another's.
    state = _NO_KEY
    while rest >= 2**64:
        state = philox.words(state, philox.SEED, rest % 2**64 | sign << 64, 2)
        rest >>= 64
    return philox.words(state, philox.SEED, rest | sign << 64 | 1 << 65, 2)


def split(key: np.ndarray, num: int = 2) -> np.ndarray:
    """Make new keys from one, independent of each other and of what is drawn from it.

    Args:
        key: a key, which is not to be used again.
        num: how many keys.

    Returns:
        Keys: uint64, shape (num, 2); ``a, b = split(key)`` unpacks them.

    Raises:
        DtypeError, ShapeError: ``key`` is not a key.
        ArgumentError: ``num`` is negative.

    >>> ff.random.split(ff.random.key(0)).shape
    (2, 2)
    """
    _check_key(key)
    if num < 0:
        raise ArgumentError(f"num: the number of keys cannot be negative, got {num}")
    return words_of(key, philox.SPLIT, 0, 2 * num).reshape(num, 2)


def fold_in(key: np.ndarray, data: Any) -> np.ndarray:
    """Make a new key from a key and a number, such as the number of a step.

    Args:
        key: a key.
        data: an int in [-2**127, 2**127), or a tracer of an integer.

    Returns:
        A key: uint64, shape (2,).

    Raises:
        DtypeError, ShapeError: ``key`` is not a key, or ``data`` not an integer.
        ArgumentError: ``data`` is out of range.

    >>> ff.random.fold_in(ff.random.key(0), 7).shape
    (2,)
    """
    _check_key(key)
    if is_tracer(data):
        return folded(key, _integer(data))
    try:
        number = operator.index(data)
    except TypeError:
        raise DtypeError(f"data: an int is needed, got {type(data).__name__}; write fold_in(key, step)") from None
    if not -(2**127) <= number < 2**127:
        raise ArgumentError(f"data: an int in [-2**127, 2**127) is needed, got {number}; fold in its parts one by one")
    return words_of(key, philox.FOLD, number, 2)


def _integer(data: Any) -> Any:
    if data.dtype.kind not in "iu":
        raise DtypeError(f"data: an int is needed, got dtype {data.dtype}; write fold_in(key, step)")
    if data.shape != ():
        raise ShapeError(f"data: one int is needed, got shape {data.shape}; map over more, ff.vmap(fold_in, (None, 0))")
    return data


def _check_key(key: Any) -> None:
    if type(key) is np.ndarray and key.dtype == _UINT64 and key.shape == (2,):
        return
    dtype = getattr(key, "dtype", None)
    if dtype is None:
        raise DtypeError(
            f"key: a key is a uint64 array of shape (2,), got {type(key).__name__}; "
            "make one with ff.random.key(seed), and more with ff.random.split(key)"
        )
    if dtype != _UINT64:
        raise DtypeError(
            f"key: a key is a uint64 array of shape (2,), got dtype {dtype}; make one with ff.random.key(seed)"
        )
    shape = tuple(np.shape(key))
    if shape != (2,):
        raise ShapeError(
            f"key: a key has shape (2,), got {shape}; take one key of a batch, as in `for k in ff.random.split(key, n)`"
        )


# --- bits -----------------------------------------------------------------------------------------------------


def random_bits(key: np.ndarray, shape: Shape = (), dtype: DTypeLike = np.uint32) -> np.ndarray:
    """Draw random bits: unsigned integers, uniform over their whole range.

    Every function below draws through this one.

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: uint8, uint16, uint32 or uint64.

    Returns:
        An array of this shape and dtype, the caller's own. A narrow dtype cuts each 64-bit word of the stream into
        pieces, low bits first.

    Raises:
        DtypeError: the dtype is another one, or ``key`` is not a key.
        ShapeError: ``shape`` has a negative dimension, or ``key`` is not of shape (2,).

    >>> ff.random.random_bits(ff.random.key(0), (3,), np.uint8)
    array([186,  92, 184], dtype=uint8)
    """
    _check_key(key)
    target = np.dtype(dtype)
    if target not in _UNSIGNED:
        raise DtypeError(f"dtype: uint8, uint16, uint32 or uint64 is needed, got {target}")
    dims = check_shape(shape)
    count = math.prod(dims)
    per_word = 8 // target.itemsize
    words = words_of(key, philox.BITS, 0, -(-count // per_word))
    if per_word > 1:
        words = pieces_of(words, target, count)
    return words.reshape(dims)


def check_shape(shape: Shape) -> tuple[int, ...]:
    try:
        dims = (operator.index(shape),) if not isinstance(shape, Sequence) else tuple(map(operator.index, shape))
    except TypeError:
        raise ShapeError(f"shape: an int or a tuple of ints is needed, got {shape!r}") from None
    if dims and min(dims) < 0:
        raise ShapeError(f"shape: dimensions cannot be negative, got {dims}")
    return dims
