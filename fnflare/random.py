"""Random numbers as pure functions of a key.

A key is a plain uint64 array of shape (2,), a leaf like any other: it goes through pytrees, files and
transforms. Nothing is hidden: a function that draws takes a key, and equal keys give equal numbers, on every machine
and in every thread. Draw from a key once; `split` it, or `fold_in` a step number, for more.

The names, and the order of arguments, are those of ``jax.random``. Bits come from the counter-based generator
Philox4x64-10 (`fnflare.kernels.philox`), floats from bits by `fnflare.kernels.variates`: the same bits everywhere.

>>> import fnflare as ff
>>> a, b = ff.random.split(ff.random.key(0))
>>> ff.random.randint(a, (4,), 0, 10)
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.kernels import philox, variates

__all__ = [
    "fold_in",
    "key",
    "permutation",
    "random_bits",
    "split",
    "uniform",
]

Shape = int | Sequence[int]

_UINT64 = np.dtype(np.uint64)
_UNSIGNED = tuple(np.dtype(t) for t in (np.uint8, np.uint16, np.uint32, np.uint64))
_WORD_OF_FLOAT = {np.dtype(np.float32): np.dtype(np.uint32), np.dtype(np.float64): _UINT64}


# --- keys -----------------------------------------------------------------------------------------------------


def key(seed: int) -> np.ndarray:
    """Make a key from a seed.

    Args:
        seed: any Python int, negative and large ones too.

    Returns:
        A key: uint64, shape (2,). The seed is mixed, so neighbouring seeds give unrelated keys.

    Raises:
        DtypeError: the seed is not an integer.

    >>> key(0)
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise DtypeError(f"seed: an int is needed, got {type(seed).__name__}; write ff.random.key(0)") from None
    sign, rest = int(number < 0), abs(number)
    state: Any = (0, 0)
    while True:
        # The limbs are absorbed one by one; the last one is marked, so no seed's limbs begin another's.
        last = rest < 2**64
        state = philox.words(state, philox.SEED, (rest % 2**64) | (sign << 64) | (last << 65), 2)
        if last:
            return state
        rest >>= 64


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

    >>> split(key(0)).shape
    (2, 2)
    """
    _check_key(key)
    if num < 0:
        raise ArgumentError(f"num: the number of keys cannot be negative, got {num}")
    return philox.words(key, philox.SPLIT, 0, 2 * num).reshape(num, 2)


def fold_in(key: np.ndarray, data: int) -> np.ndarray:
    """Make a new key from a key and a number, such as the number of a step.

    Args:
        key: a key.
        data: an int in [-2**127, 2**127).

    Returns:
        A key: uint64, shape (2,).

    Raises:
        DtypeError, ShapeError: ``key`` is not a key, or ``data`` not an integer.
        ArgumentError: ``data`` is out of range.

    >>> fold_in(key(0), 7).shape
    (2,)
    """
    _check_key(key)
    try:
        number = operator.index(data)
    except TypeError:
        raise DtypeError(f"data: an int is needed, got {type(data).__name__}; write fold_in(key, step)") from None
    if not -(2**127) <= number < 2**127:
        raise ArgumentError(f"data: an int in [-2**127, 2**127) is needed, got {number}; fold in its parts one by one")
    return philox.words(key, philox.FOLD, number, 2)


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

    >>> random_bits(key(0), (3,), np.uint8)
    """
    _check_key(key)
    target = np.dtype(dtype)
    if target not in _UNSIGNED:
        raise DtypeError(f"dtype: uint8, uint16, uint32 or uint64 is needed, got {target}")
    dims = _check_shape(shape)
    count = math.prod(dims)
    per_word = 8 // target.itemsize
    words = philox.words(key, philox.BITS, 0, -(-count // per_word))
    if per_word > 1:
        # Little-endian on every machine, so that the pieces come in the same order.
        words = words.astype("<u8", copy=False).view(target.newbyteorder("<"))[:count].astype(target, copy=False)
    return words.reshape(dims)


def _check_shape(shape: Shape) -> tuple[int, ...]:
    try:
        dims = (operator.index(shape),) if not isinstance(shape, Sequence) else tuple(map(operator.index, shape))
    except TypeError:
        raise ShapeError(f"shape: an int or a tuple of ints is needed, got {shape!r}") from None
    if dims and min(dims) < 0:
        raise ShapeError(f"shape: dimensions cannot be negative, got {dims}")
    return dims


def _float_words(key: np.ndarray, shape: Shape, dtype: DTypeLike) -> np.ndarray:
    target = np.dtype(dtype)
    if target not in _WORD_OF_FLOAT:
        raise DtypeError(f"dtype: float32 or float64 is needed, got {target}; draw float32 and cast it with astype")
    return random_bits(key, shape, _WORD_OF_FLOAT[target])


# --- distributions --------------------------------------------------------------------------------------------


def uniform(
    key: np.ndarray,
    shape: Shape = (),
    dtype: DTypeLike = np.float32,
    minval: ArrayLike = 0.0,
    maxval: ArrayLike = 1.0,
) -> np.ndarray:
    """Draw from the uniform distribution on [minval, maxval).

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float32 (24 random bits a number) or float64 (53).
        minval, maxval: the bounds, numbers or arrays that broadcast to ``shape``; derivatives flow through arrays.

    Returns:
        An array of this shape and dtype.

    Raises:
        DtypeError, ShapeError: ``key``, ``shape`` or ``dtype`` is not one.

    >>> uniform(key(0), (2,))
    """
    unit = variates.uniform(_float_words(key, shape, dtype))
    if isinstance(minval, (int, float)) and isinstance(maxval, (int, float)):
        if minval == 0.0 and maxval == 1.0:
            return unit
        low, high = unit.dtype.type(minval), unit.dtype.type(maxval)
        unit *= high - low
        unit += low
        # low + (high - low) * u can round up to the bound that is excluded.
        return np.minimum(unit, np.nextafter(high, low), out=unit)
    low, high = _as_float(minval, unit.dtype), _as_float(maxval, unit.dtype)
    return unit * (high - low) + low


def _as_float(x: Any, dtype: np.dtype) -> Any:
    """A number or array in this dtype; tracers stay tracers."""
    return x.astype(dtype) if hasattr(x, "astype") else np.asarray(x, dtype)


def permutation(key: np.ndarray, x: int | ArrayLike, axis: int = 0, independent: bool = False) -> np.ndarray:
    """Shuffle an array along an axis, or the numbers 0 .. x - 1.

    Args:
        key: a key.
        x: an int, or an array of any dtype.
        axis: the axis that is shuffled.
        independent: shuffle every slice along the axis in an order of its own, not whole slices.

    Returns:
        The int64 numbers below x in random order, or a shuffled copy of x.

    Raises:
        ArgumentError: x is negative.
        ShapeError: x has no such axis.

    The order is that of a stable sort by random 64-bit words.

    >>> permutation(key(0), 5)
    """
    if np.ndim(x) == 0:  # type: ignore[arg-type]
        count = operator.index(x)  # type: ignore[arg-type]
        if count < 0:
            raise ArgumentError(f"x: a number of items cannot be negative, got {count}")
        return _order(key, (count,), 0)
    array = x if hasattr(x, "shape") else np.asarray(x)
    place = _check_axis(axis, array.ndim)
    if independent:
        return np.take_along_axis(array, _order(key, array.shape, place), place)
    return np.take(array, _order(key, (array.shape[place],), 0), place)


def _order(key: np.ndarray, shape: Shape, axis: int) -> np.ndarray:
    return np.argsort(random_bits(key, shape, np.uint64), axis=axis, kind="stable")


def _check_axis(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis: {axis} is not an axis of an array with {ndim} dimensions")
    return axis % ndim
