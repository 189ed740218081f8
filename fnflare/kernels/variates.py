"""From random words to standard variates: uniform, normal, exponential, Gumbel.

Every kernel maps unsigned words to floats one by one: uint32 words give float32 variates, uint64 words
give float64 ones. They are made of integer operations and of additions, multiplications, divisions and
square roots only. IEEE 754 says how each of those rounds, and NumPy runs each as a pass of its own (nothing is
contracted to a fused multiply-add), so equal words give equal bits on every machine. ``np.log`` does not: its last
bit depends on the vector instructions of the processor.

The passes run block by block, in place, so that the temporaries stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["exponential", "gumbel", "log", "normal", "normal_quantile", "uniform"]

Floats = np.ndarray
Words = np.ndarray

BLOCK_BYTES = 1 << 16  # of input; a kernel has some six blocks in flight, which fit an L2 cache

_FLOATS: dict[int, np.dtype[Any]] = {4: np.dtype(np.float32), 8: np.dtype(np.float64)}
_SIGNED: dict[int, np.dtype[Any]] = {4: np.dtype(np.int32), 8: np.dtype(np.int64)}


def _blockwise(kernel: Callable[[Words], Floats]) -> Callable[[Words], Floats]:
    def run(words: Words) -> Floats:
        flat = words.reshape(-1)
        out = np.empty(flat.size, _FLOATS[flat.itemsize])
        step = BLOCK_BYTES // flat.itemsize
        for start in range(0, flat.size, step):
            out[start : start + step] = kernel(flat[start : start + step])
        return out.reshape(words.shape)

    run.__name__, run.__doc__ = kernel.__name__, kernel.__doc__
    return run


def _horner(x: Floats, coefficients: tuple[float, ...]) -> Floats:
    """The polynomial with these coefficients, highest power first, at x."""
    total = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        total += coefficient
        total *= x
    total += coefficients[-1]
    return total


@_blockwise
def uniform(words: Words) -> Floats:
    """Uniform on [0, 1): the top 24 (53) bits of a word times 2**-24 (2**-53), which is exact, so never 1.0."""
    digits = 24 if words.itemsize == 4 else 53
    # The shifted words fit the signed type too, which processors convert to floats faster.
    whole = (words >> (8 * words.itemsize - digits)).view(_SIGNED[words.itemsize])
    out = whole.astype(_FLOATS[words.itemsize])
    out *= 2.0**-digits
    return out


# The bits of sqrt(1/2), the bits of a significand and the number of terms of the series, by size of the float.
_LOG = {4: (0x3F3504F3, 23, 5), 8: (0x3FE6A09E667F3BCD, 52, 10)}
_LN2 = 0.6931471805599453


def _exponent_and_excess(x: Floats) -> tuple[Floats, Floats]:
    """Write x as 2**e * (1 + d) with 1 + d in [sqrt(1/2), sqrt(2)); x is positive and normal."""
    sqrt_half, digits, _ = _LOG[x.itemsize]
    bits = x.view(_SIGNED[x.itemsize]) - sqrt_half
    exponent = (bits >> digits).astype(x.dtype)
    bits &= (1 << digits) - 1
    bits += sqrt_half
    excess = bits.view(x.dtype)
    excess -= 1.0
    return exponent, excess


def _log_of_parts(exponent: Floats, excess: Floats) -> Floats:
    """log(2**e * (1 + d)) = e log 2 + 2 artanh(s) with s = d / (2 + d), |s| < 0.172, by the series of artanh."""
    terms = _LOG[excess.itemsize][2]
    s = excess / (excess + 2.0)
    total = _horner(s * s, tuple(2.0 / (2 * k + 1) for k in range(terms - 1, -1, -1)))
    total *= s
    exponent *= _LN2
    total += exponent
    return total


def log(x: Floats) -> Floats:
    """The natural logarithm of positive normal floats, the same bits on every machine."""
    return _log_of_parts(*_exponent_and_excess(x))


def _fold(words: Words) -> tuple[Words, Words]:
    """Take a word as a signed number s; return s if it is not negative, else -1 - s, and the sign as 0 or -1.

    By shifts, since a choice between two arrays by a random mask takes ten times as long.
    """
    signed = words.view(_SIGNED[words.itemsize])
    sign = signed >> (8 * words.itemsize - 1)
    return signed ^ sign, sign


def _tail_probability(distance: Words) -> Floats:
    """(distance + 1/2) / 2**32 (2**64): in (0, 1/2], with full relative precision at the small end."""
    out = distance.astype(_FLOATS[distance.itemsize])
    out += 0.5
    out *= 2.0 ** (-8 * distance.itemsize)
    return out


def _exponential(words: Words) -> Floats:
    # A word stands for the probability p = t, or p = 1 - t in the upper half of its range, t <= 1/2.
    distance, sign = _fold(words)
    t = _tail_probability(distance)
    p = np.abs(np.negative(sign).astype(t.dtype) - t)
    exponent, excess = _exponent_and_excess(p)
    # Near 1 the rounded difference has lost the last bits of t; there the excess is -t itself.
    near_one = exponent == 0.0
    excess *= ~near_one
    t *= near_one
    excess -= t
    return np.negative(_log_of_parts(exponent, excess))


@_blockwise
def exponential(words: Words) -> Floats:
    """Exponential with rate 1, as -log(p); never 0, at most 23 (46)."""
    return _exponential(words)


@_blockwise
def gumbel(words: Words) -> Floats:
    """Standard Gumbel, as -log(-log(p))."""
    return np.negative(log(_exponential(words)))


# Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37 (1988).
# Rational approximations of three ranges (numerator, denominator; highest power first): PPND7 with a relative
# error of 4e-7 for float32, PPND16 with one of 1e-16 for float64.
_CENTRAL = {
    4: (
        (59.109374720, 159.29113202, 50.434271938, 3.3871327179),
        (67.187563600, 78.757757664, 17.895169469, 1.0),
    ),
    8: (
        (
            2.5090809287301226727e3,
            3.3430575583588128105e4,
            6.7265770927008700853e4,
            4.5921953931549871457e4,
            1.3731693765509461125e4,
            1.9715909503065514427e3,
            1.3314166789178437745e2,
            3.3871328727963666080e0,
        ),
        (
            5.2264952788528545610e3,
            2.8729085735721942674e4,
            3.9307895800092710610e4,
            2.1213794301586595867e4,
            5.3941960214247511077e3,
            6.8718700749205790830e2,
            4.2313330701600911252e1,
            1.0,
        ),
    ),
}
_TAIL = {
    4: (
        (0.17023821103, 1.3067284816, 2.7568153900, 1.4234372777),
        (0.12021132975, 0.73700164250, 1.0),
    ),
    8: (
        (
            7.74545014278341407640e-4,
            2.27238449892691845833e-2,
            2.41780725177450611770e-1,
            1.27045825245236838258e0,
            3.64784832476320460504e0,
            5.76949722146069140550e0,
            4.63033784615654529590e0,
            1.42343711074968357734e0,
        ),
        (
            1.05075007164441684324e-9,
            5.47593808499534494600e-4,
            1.51986665636164571966e-2,
            1.48103976427480074590e-1,
            6.89767334985100004550e-1,
            1.67638483018380384940e0,
            2.05319162663775882187e0,
            1.0,
        ),
    ),
}
# Only float64 comes here: the smallest probability of a 32-bit word, 2**-33, is still in the range above.
_FAR_TAIL = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        1.24266094738807843860e-3,
        2.65321895265761230930e-2,
        2.96560571828504891230e-1,
        1.78482653991729133580e0,
        5.46378491116411436990e0,
        6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15,
        1.42151175831644588870e-7,
        1.84631831751005468180e-5,
        7.86869131145613259100e-4,
        1.48753612908506148525e-2,
        1.36929880922735805310e-1,
        5.99832206555887937690e-1,
        1.0,
    ),
)


def _ratio(x: Floats, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> Floats:
    top = _horner(x, coefficients[0])
    top /= _horner(x, coefficients[1])
    return top


def _central_quantile(q: Floats) -> Floats:
    """The normal quantile of 1/2 + q, |q| <= 0.425 (beyond it, something finite)."""
    r = q * q
    np.subtract(0.180625, r, out=r)
    out = _ratio(r, _CENTRAL[q.itemsize])
    out *= q
    return out


def _tail_quantile(p: Floats) -> Floats:
    """Minus the normal quantile of p, for p <= 0.075."""
    r = np.sqrt(np.negative(log(p)))
    near = _ratio(r - 1.6, _TAIL[p.itemsize])
    if p.itemsize == 4:
        return near
    far = np.flatnonzero(r > 5.0)
    near[far] = _ratio(r[far] - 5.0, _FAR_TAIL)
    return near


@_blockwise
def normal(words: Words) -> Floats:
    """Standard normal by the inverse of the distribution function (AS 241), one word a variate.

    The words are signed numbers around the median, so small variates have full relative precision, and
    those in the tails are computed from their distance to the end of the range: |z| reaches 6.3 (9.1).
    """
    signed = words.view(_SIGNED[words.itemsize])
    q = signed.astype(_FLOATS[words.itemsize])
    q += 0.5
    q *= 2.0 ** (-8 * words.itemsize)
    out = _central_quantile(q)
    tail = np.flatnonzero(np.abs(q) > 0.425)
    distance = np.iinfo(signed.dtype).max - _fold(words[tail])[0]
    out[tail] = np.copysign(_tail_quantile(_tail_probability(distance)), q[tail])
    return out


def normal_quantile(p: Floats) -> Floats:
    """The z with P(Z <= z) = p of a standard normal Z.

    Args:
        p: probabilities in (0, 1), float32 or float64, one axis; at least the smallest normal float.

    Returns:
        Quantiles of p's shape and dtype, with a relative error of 4e-7 or 1e-15.
    """
    q = p - 0.5
    out = _central_quantile(q)
    tail = np.flatnonzero(np.abs(q) > 0.425)
    ends = p[tail]
    out[tail] = np.copysign(_tail_quantile(np.minimum(ends, 1.0 - ends)), q[tail])
    return out
