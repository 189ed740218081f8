"""Random numbers as pure functions of a key.

A key is a plain uint64 array of shape (2,), a leaf like any other: it goes through pytrees, files and
transforms. Nothing is hidden: a function that draws takes a key, and equal keys give equal numbers, on every machine
and in every thread. Draw from a key once; `split` it, or `fold_in` a step number, for more.

The names, and the order of arguments, are those of ``jax.random``. Bits come from the counter-based generator
Philox4x64-10 (`fnflare.kernels.philox`), floats from bits by `fnflare.kernels.variates`: the same bits everywhere.

>>> import fnflare as ff
>>> a, b = ff.random.split(ff.random.key(0))
>>> ff.random.randint(a, (4,), 0, 10)
array([0, 8, 7, 9])
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fnflare._keys import Shape, check_shape, fold_in, key, random_bits, split
from fnflare.core import is_tracer
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.ops.gather import take
from fnflare.ops.random import normal_quantile, variate

__all__ = [
    "bernoulli",
    "categorical",
    "choice",
    "exponential",
    "fold_in",
    "gumbel",
    "key",
    "normal",
    "permutation",
    "randint",
    "random_bits",
    "split",
    "truncated_normal",
    "uniform",
]

_WORD_OF_FLOAT: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float32): np.dtype(np.uint32),
    np.dtype(np.float64): np.dtype(np.uint64),
}


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

    >>> ff.random.uniform(ff.random.key(0), (2,))
    array([0.4246881, 0.9808519], dtype=float32)
    """
    unit = variate(_float_words(key, shape, dtype), "uniform")
    if isinstance(minval, (int, float)) and isinstance(maxval, (int, float)):
        if minval == 0.0 and maxval == 1.0:
            return unit
        low, high = unit.dtype.type(minval), unit.dtype.type(maxval)
        unit *= high - low
        unit += low
    else:
        low, high = _as_float(minval, unit.dtype), _as_float(maxval, unit.dtype)
        unit = unit * (high - low) + low
    # low + (high - low) * u can round up to the bound that is excluded.
    return np.minimum(unit, np.nextafter(high, low))


def _as_float(x: Any, dtype: np.dtype) -> Any:
    """A number or array in this dtype; tracers stay tracers."""
    return x.astype(dtype) if hasattr(x, "astype") else np.asarray(x, dtype)


def normal(key: np.ndarray, shape: Shape = (), dtype: DTypeLike = np.float32) -> np.ndarray:
    """Draw from the standard normal distribution, by the inverse of its distribution function (Wichura, AS 241, 1988).

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float32 (from 32 random bits a number, up to 6.3 in size) or float64 (64 bits, 9.1).

    Returns:
        An array of this shape and dtype.

    Raises:
        DtypeError, ShapeError: ``key``, ``shape`` or ``dtype`` is not one.

    >>> ff.random.normal(ff.random.key(0), (2,))
    array([ 1.4373318 , -0.04801554], dtype=float32)
    """
    return variate(_float_words(key, shape, dtype), "normal")


def truncated_normal(
    key: np.ndarray,
    lower: ArrayLike,
    upper: ArrayLike,
    shape: Shape | None = None,
    dtype: DTypeLike = np.float32,
) -> np.ndarray:
    """Draw from the standard normal distribution, given that it falls in [lower, upper].

    Args:
        key: a key.
        lower, upper: the bounds, numbers or arrays; infinite ones are taken.
        shape: the shape of the result; by default that of the bounds, broadcast.
        dtype: float32 or float64.

    Returns:
        An array of this shape and dtype, computed in float64 by the inverse of the distribution function.

    Raises:
        ArgumentError: a lower bound is not below its upper bound.
        DtypeError, ShapeError: ``key``, ``shape`` or ``dtype`` is not one, or the bounds do not broadcast to ``shape``.

    >>> ff.random.truncated_normal(ff.random.key(0), -2.0, 2.0, (2,))
    array([ 1.7388911, -1.8956677], dtype=float32)
    """
    low, high = np.asarray(lower, np.float64), np.asarray(upper, np.float64)
    if not np.all(low < high):
        raise ArgumentError("lower, upper: every lower bound must be below its upper bound")
    dims = np.broadcast_shapes(low.shape, high.shape) if shape is None else check_shape(shape)
    low, high = _broadcast("lower", low, dims), _broadcast("upper", high, dims)
    target = _check_float(dtype)
    # An interval above zero is mirrored: probabilities close to 1 have no digits left for the tail.
    sign = np.where(low > 0.0, -1.0, 1.0)
    below, above = _normal_cdf(np.where(low > 0.0, -high, low)), _normal_cdf(np.where(low > 0.0, -low, high))
    unit = uniform(key, dims, np.float64) + 2.0**-54
    p = np.clip(below + unit * (above - below), np.finfo(np.float64).tiny, 1.0 - 2.0**-53)
    z = np.clip(normal_quantile(p) * sign, low, high)
    return z.astype(target) if is_tracer(z) else np.asarray(z, target)


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    # The bounds are few and mostly repeated by broadcasting, so the loop in Python runs over distinct ones alone.
    distinct, place = np.unique(x, return_inverse=True)
    return (0.5 * _erfc(distinct * -math.sqrt(0.5)))[place].reshape(x.shape)


def exponential(key: np.ndarray, shape: Shape = (), dtype: DTypeLike = np.float32) -> np.ndarray:
    """Draw from the exponential distribution with rate 1.

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float32 or float64.

    Returns:
        An array of this shape and dtype; never 0.

    Raises:
        DtypeError, ShapeError: ``key``, ``shape`` or ``dtype`` is not one.

    >>> ff.random.exponential(ff.random.key(0), (2,))
    array([0.8564002 , 0.01933377], dtype=float32)
    """
    return variate(_float_words(key, shape, dtype), "exponential")


def gumbel(key: np.ndarray, shape: Shape = (), dtype: DTypeLike = np.float32) -> np.ndarray:
    """Draw from the standard Gumbel distribution.

    Args:
        key: a key.
        shape: the shape of the result.
        dtype: float32 or float64.

    Returns:
        An array of this shape and dtype.

    Raises:
        DtypeError, ShapeError: ``key``, ``shape`` or ``dtype`` is not one.

    >>> ff.random.gumbel(ff.random.key(0), (2,))
    array([0.1550175, 3.945902 ], dtype=float32)
    """
    return variate(_float_words(key, shape, dtype), "gumbel")


def bernoulli(key: np.ndarray, p: ArrayLike = 0.5, shape: Shape | None = None) -> np.ndarray:
    """Draw booleans that are true with probability p.

    Args:
        key: a key.
        p: a probability, or an array of them; it counts to 2**-32. In an array, what is below 0 counts as 0 and what is
            above 1 as 1.
        shape: the shape of the result; by default p's.

    Returns:
        A bool array.

    Raises:
        ArgumentError: the number p is not in [0, 1].
        DtypeError, ShapeError: ``key`` or ``shape`` is not one, or p does not broadcast to ``shape``.

    >>> ff.random.bernoulli(ff.random.key(0), 0.25, (4,))
    array([False, False, False,  True])
    """
    dims = np.shape(p) if shape is None else check_shape(shape)
    if isinstance(p, (int, float, np.number)):
        if not 0.0 <= p <= 1.0:
            raise ArgumentError(f"p: a probability in [0, 1] is needed, got {p}")
        # An integer is below x just when it is below ceil(x): the same answer as for an array of p, in one pass.
        threshold = math.ceil(p * 2.0**32)
        bits = random_bits(key, dims, np.uint32)
        return bits < np.uint32(threshold) if threshold < 2**32 else np.ones(dims, np.bool_)
    _check_broadcast("p", np.shape(p), dims)
    array: Any = p if hasattr(p, "shape") else np.asarray(p)
    return random_bits(key, dims, np.uint32) < array * 2.0**32


def categorical(key: np.ndarray, logits: ArrayLike, axis: int = -1, shape: Shape | None = None) -> np.ndarray:
    """Draw categories with probabilities softmax(logits), by the largest of the logits plus Gumbel noise.

    Args:
        key: a key.
        logits: logarithms of probabilities, not normalised: an array with the categories along ``axis``; -inf never
            comes.
        axis: the axis of the categories.
        shape: the shape of the result; it ends in the shape of the logits without ``axis``, or in one that this shape
            broadcasts to. By default that shape.

    Returns:
        Indices of categories: int64.

    Raises:
        DtypeError, ShapeError: ``key`` or ``shape`` is not one, or logits have no such axis.

    >>> ff.random.categorical(ff.random.key(0), np.log([0.1, 0.0001, 0.9]), shape=(6,))
    array([0, 0, 2, 0, 2, 2])
    """
    array: Any = logits if hasattr(logits, "shape") else np.asarray(logits)
    place = _check_axis("logits", axis, array.ndim)
    batch = array.shape[:place] + array.shape[place + 1 :]
    dims = batch if shape is None else check_shape(shape)
    _check_broadcast("logits without the axis of categories", batch, dims)
    if array.shape[place] == 0:
        raise ShapeError(f"logits: there must be a category along axis {axis}, got shape {array.shape}")
    lead = len(dims) - len(batch)
    noise_shape = (*dims[: lead + place], array.shape[place], *dims[lead + place :])
    dtype = array.dtype if array.dtype in _WORD_OF_FLOAT else np.float32
    return np.argmax(gumbel(key, noise_shape, dtype) + array, axis=lead + place)


def randint(
    key: np.ndarray, shape: Shape, minval: ArrayLike, maxval: ArrayLike, dtype: DTypeLike = np.int64
) -> np.ndarray:
    """Draw integers from minval to maxval - 1.

    Args:
        key: a key.
        shape: the shape of the result.
        minval, maxval: the bounds, ints or integer arrays that broadcast to ``shape``; those that are tracers are
            taken as they are, unchecked.
        dtype: any integer dtype that holds ``minval`` and ``maxval - 1``.

    Returns:
        An array of this shape and dtype: the upper half of the product of a random word with the number of choices n
        (Lemire, "Fast random integer generation in an interval", 2019) without his rejection, so every draw takes
        equally many bits. The word has 64 bits for n <= 2**32 and 128 beyond: a probability is off by less than one
        part in 2**32 (2**64), and by nothing where n is a power of two.

    Raises:
        ArgumentError: a minval is not below its maxval, or does not fit the dtype.
        DtypeError, ShapeError: ``key``, ``shape``, a bound or ``dtype`` is not one.

    >>> ff.random.randint(ff.random.key(0), (5,), 0, 10)
    array([9, 0, 1, 9, 1])
    """
    dims = check_shape(shape)
    target = np.dtype(dtype)
    if target.kind not in "iu":
        raise DtypeError(f"dtype: an integer dtype is needed, got {target}; for floats write ff.random.uniform")
    low, span = _integer_bounds(minval, maxval, target, dims)
    # With an axis in front nothing is a scalar: NumPy warns of scalars that wrap around, which is meant here.
    if is_tracer(span):  # the first words are the same, so both can be computed and one chosen
        pairs = random_bits(key, (2, *dims), np.uint64)
        wide = _multiply_wide(pairs[:1], pairs[1:], span)
        offset = np.where(np.any(span > 2**32), wide, _multiply_high(pairs[:1], span))
    elif span.size and int(span.max()) > 2**32:
        pairs = random_bits(key, (2, *dims), np.uint64)
        offset = _multiply_wide(pairs[:1], pairs[1:], span)
    else:
        offset = _multiply_high(random_bits(key, (1, *dims), np.uint64), span)
    offset += low
    return offset[0].astype(target)


def _integer_bounds(minval: Any, maxval: Any, dtype: np.dtype, dims: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The lower bounds, and how many choices there are, as unsigned words; checked, if they are not tracers."""
    low, high = [x if is_tracer(x) else np.asarray(x) for x in (minval, maxval)]
    if low.dtype == object or high.dtype == object:
        raise ArgumentError(f"minval, maxval: bounds within 64 bits are needed, got {minval} and {maxval}")
    if low.dtype.kind not in "iu" or high.dtype.kind not in "iu":
        raise DtypeError(f"minval, maxval: ints are needed, got dtypes {low.dtype} and {high.dtype}")
    low, high = _broadcast("minval", low, dims), _broadcast("maxval", high, dims)
    if not (is_tracer(low) or is_tracer(high)):
        _check_bounds(low, high, dtype, f"[{minval}, {maxval})")
    start, stop = low.astype(np.uint64), high.astype(np.uint64)
    return start, np.subtract(stop, start)


def _check_bounds(low: np.ndarray, high: np.ndarray, dtype: np.dtype, given: str) -> None:
    if not np.all(low < high):
        raise ArgumentError(f"minval, maxval: minval must be below maxval, got {given}")
    limits = np.iinfo(dtype)
    if low.size and not (limits.min <= int(low.min()) and int(high.max()) <= limits.max + 1):
        raise ArgumentError(f"minval, maxval: {given} does not fit dtype {dtype}; give a wider dtype")


def _multiply_high(words: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """The upper 64 bits of the 128-bit product, from products of 32-bit halves."""
    half, low_bits = np.uint64(32), np.uint64(2**32 - 1)
    a, b, c, d = words >> half, words & low_bits, factor >> half, factor & low_bits
    middle = a * d + ((b * d) >> half)
    out: np.ndarray = a * c + (middle >> half) + ((b * c + (middle & low_bits)) >> half)
    return out


def _multiply_wide(upper: np.ndarray, lower: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """The upper 64 bits of the 192-bit product of a 128-bit word with a 64-bit factor."""
    carried = _multiply_high(lower, factor)
    overflow = upper * factor + carried < carried
    out = _multiply_high(upper, factor)
    out += overflow
    return out


def permutation(key: np.ndarray, x: int | ArrayLike, axis: int = 0, independent: bool = False) -> np.ndarray:
    """Shuffle an array along an axis, or the numbers 0 .. x - 1, by a stable sort of random 64-bit words.

    Args:
        key: a key.
        x: an int, or an array of any dtype.
        axis: the axis that is shuffled.
        independent: shuffle every slice along the axis in an order of its own, not whole slices.

    Returns:
        The int64 numbers below x in random order, or a shuffled copy of x.

    Raises:
        ArgumentError: the int x is negative.
        DtypeError: x is a number, and not an integer.
        ShapeError: x has no such axis.

    >>> ff.random.permutation(ff.random.key(0), 5)
    array([1, 4, 2, 3, 0])
    """
    array, count = _items("x", x, axis)
    if array is None:
        return _order(key, (count,), 0)
    place = axis % array.ndim
    if independent:
        return np.take_along_axis(array, _order(key, array.shape, place), place)
    return take(array, _order(key, (count,), 0), place)


def choice(
    key: np.ndarray,
    a: int | ArrayLike,
    shape: Shape = (),
    replace: bool = True,
    p: ArrayLike | None = None,
    axis: int = 0,
) -> np.ndarray:
    """Draw items of an array, or of the numbers 0 .. a - 1.

    Args:
        key: a key.
        a: an int, or an array whose items lie along ``axis``.
        shape: how many items, as a shape.
        replace: an item may be drawn again.
        p: the weights of the items, in any scale; equal by default. A tracer is taken as it is, unchecked. Without
            replacement, items are drawn one after the other by their weights (Efraimidis and Spirakis, 2006).
        axis: the axis of the items.

    Returns:
        int64 of ``shape``, or a's items: ``a.shape`` with ``shape`` in the place of ``axis``.

    Raises:
        ArgumentError: there are fewer items (with a weight above 0) than are drawn without replacement, or none at all;
            or a weight is negative or not finite.
        DtypeError: a is a number, and not an integer.
        ShapeError: p does not have one weight an item, or a has no such axis.

    >>> from fnflare import random
    >>> random.choice(random.key(0), 5, (3,), replace=False)
    array([1, 4, 2])
    >>> random.choice(random.key(0), np.array(["a", "b", "c"]), (4,), p=[0.5, 0.5, 0.0])
    array(['b', 'a', 'a', 'b'], dtype='<U1')
    """
    array, count = _items("a", a, axis)
    dims = check_shape(shape)
    drawn = math.prod(dims)
    weights = None if p is None else _check_weights(p, count)
    available = count if weights is None or is_tracer(weights) else int(np.count_nonzero(weights))
    if available < (min(drawn, 1) if replace else drawn):
        raise ArgumentError(
            f"a: {drawn} items cannot be drawn {'' if replace else 'without replacement '}from {available}"
            f"{'' if p is None else ' with a weight above 0'}; draw fewer{'' if replace else ', or set replace=True'}"
        )
    if replace:
        index = _choose_with_replacement(key, dims, count, weights)
    elif weights is None:
        index = _order(key, (count,), 0)[:drawn].reshape(dims)
    else:
        # Of independent exponential clocks with these rates, the first ones to ring.
        with np.errstate(divide="ignore"):
            clocks = exponential(key, (count,), np.float64) / weights
        index = np.argsort(clocks, kind="stable")[:drawn].reshape(dims)
    return index if array is None else take(array, index, axis)


def _choose_with_replacement(
    key: np.ndarray, dims: tuple[int, ...], count: int, weights: np.ndarray | None
) -> np.ndarray:
    if weights is None:
        return randint(key, dims, 0, count) if math.prod(dims) else np.zeros(dims, np.int64)
    bounds = np.cumsum(weights)
    total = bounds[-1]
    # Rounding must not lift a number to the total, which is past the last item.
    points = np.minimum(uniform(key, dims, np.float64) * total, np.nextafter(total, 0.0))
    return np.searchsorted(bounds, points, side="right")


def _check_weights(p: Any, count: int) -> np.ndarray:
    weights = p.astype(np.float64) if is_tracer(p) else np.asarray(p, np.float64)
    if weights.shape != (count,):
        raise ShapeError(f"p: one weight for each of the {count} items is needed, got shape {weights.shape}")
    if not is_tracer(weights) and not (np.all(weights >= 0.0) and np.isfinite(weights.sum())):
        raise ArgumentError("p: weights must be finite and not negative; for logits write ff.random.categorical")
    return weights


def _items(name: str, x: Any, axis: int) -> tuple[Any, int]:
    """The array of items (None for the numbers below x) and their number."""
    if np.ndim(x) == 0:
        try:
            count = operator.index(x)
        except TypeError:
            raise DtypeError(f"{name}: an int or an array is needed, got {x!r}") from None
        if count < 0:
            raise ArgumentError(f"{name}: a number of items cannot be negative, got {count}")
        return None, count
    array = x if hasattr(x, "shape") else np.asarray(x)
    return array, array.shape[_check_axis(name, axis, array.ndim)]


def _order(key: np.ndarray, shape: Shape, axis: int) -> np.ndarray:
    return np.argsort(random_bits(key, shape, np.uint64), axis=axis, kind="stable")


# --- checks ---------------------------------------------------------------------------------------------------


def _check_float(dtype: DTypeLike) -> np.dtype:
    target = np.dtype(dtype)
    if target not in _WORD_OF_FLOAT:
        raise DtypeError(f"dtype: float32 or float64 is needed, got {target}; draw float32 and cast it with astype")
    return target


def _float_words(key: np.ndarray, shape: Shape, dtype: DTypeLike) -> np.ndarray:
    """Words of the size of the floats that are to be made of them."""
    return random_bits(key, shape, _WORD_OF_FLOAT[_check_float(dtype)])


def _check_axis(name: str, axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise ShapeError(f"axis: {name} has {ndim} dimensions and no axis {axis}")
    return axis % ndim


def _check_broadcast(name: str, shape: tuple[int, ...], dims: tuple[int, ...]) -> None:
    try:
        fits = np.broadcast_shapes(shape, dims) == dims
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"{name}: shape {shape} does not broadcast to shape {dims}; leave `shape` out or widen it")


def _broadcast(name: str, x: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    _check_broadcast(name, x.shape, dims)
    return np.broadcast_to(x, dims)
