"""power: ``2**(y log2(|x|))`` with a logarithm to twice the digits, and C99's special cases.

Expressions go in, one of arithmetic alone comes out. An error of the logarithm is multiplied by up to 1024 on its way:
float32 is therefore done in float64, and float64 in sums of two numbers (Dekker, 1971), with
``log(1 + f) = 2 s + s**3 (2/3 + ...)`` for ``s = f / (2 + f)``.
"""

from __future__ import annotations

import math

from fnflare.compiler.elementary.exponential import exp2, exp2_in_two
from fnflare.compiler.elementary.formats import (
    absolute,
    copysign,
    equal,
    fma,
    polynomial,
    product,
    quick_sum,
)
from fnflare.compiler.elementary.logarithm import log2_of_parts, parts_of
from fnflare.nest import Scalar, apply, cast, constant, select

__all__ = ["power"]

#: ``(2 artanh(s) - 2 s - 2/3 s**3) / s**5`` in ``s**2``, by Remez; the largest error is 2**-69 of s.
_TAIL = (
    0.4,
    0.2857142857142938,
    0.2222222222164818,
    0.181818183370346,
    0.1538459479629481,
    0.13334813317048047,
    0.11706014884419476,
    0.11725409493632094,
)
_TWO_THIRDS = (0.6666666666666666, 3.700743415417188e-17)
_PER_LOG_2 = (1.4426950408889634, 2.0355273740931033e-17)


def power(x: Scalar, y: Scalar) -> Scalar:
    """``x**y``."""
    size = (_size_32 if x.dtype == "f32" else _size_64)(absolute(x), y)
    one = apply("or", equal(y, 0.0), equal(x, 1.0))
    one = apply("or", one, apply("and", equal(x, -1.0), equal(absolute(y), math.inf)))
    whole = equal(apply("floor", y), y)
    half = y * 0.5
    odd = apply("and", whole, apply("not_equal", apply("floor", half), half))
    undefined = apply("and", apply("and", x < 0.0, apply("greater", x, -math.inf)), y - apply("floor", y) > 0.0)
    answer = select(undefined, constant(math.nan, x.dtype), select(odd, copysign(size, x), size))
    return select(one, constant(1.0, x.dtype), answer)


def _at_ends(x: Scalar, answer: Scalar) -> Scalar:
    """The logarithm of a number that is not negative, at 0, at infinity and at NaN."""
    return select(equal(x, 0.0), constant(-math.inf, x.dtype), select(x < math.inf, answer, x))


def _size_32(x: Scalar, y: Scalar) -> Scalar:
    wide = cast(x, "f64")
    return cast(exp2(cast(y, "f64") * _at_ends(wide, log2_of_parts(parts_of(wide)))), "f32")


def _size_64(x: Scalar, y: Scalar) -> Scalar:
    high, low = _log2_in_two(x)
    high = _at_ends(x, high)
    exponent, rest = product(y, high)
    rest = fma(y, low, rest)
    # where the answer is 0 or infinite the rest is of no use, and not always a number
    return exp2_in_two(exponent, select(absolute(exponent) < 1100.0, rest, 0.0))


def _log2_in_two(x: Scalar) -> tuple[Scalar, Scalar]:
    """The logarithm to the base 2 of a positive number, to about 65 bits."""
    parts = parts_of(x)
    f = parts.f
    below, below_low = quick_sum(constant(2.0, "f64"), f)
    s = f / below
    s_low = (fma(-s, below, f) - s * below_low) / below
    square, square_low = product(s, s)
    square_low = fma(s * 2.0, s_low, square_low)
    # 2/3 + tail
    high, low = quick_sum(constant(_TWO_THIRDS[0], "f64"), square * polynomial(square, _TAIL))
    low = low + _TWO_THIRDS[1]
    # times s**2, and 2 more
    term, term_low = product(high, square)
    term_low = fma(high, square_low, fma(low, square, term_low))
    high, low = quick_sum(constant(2.0, "f64"), term)
    low = low + term_low
    # times s
    term, term_low = product(high, s)
    term, term_low = quick_sum(term, fma(high, s_low, fma(low, s, term_low)))
    # times 1 / log(2), and k more
    high, low = product(term, _PER_LOG_2[0])
    low = fma(term, _PER_LOG_2[1], fma(term_low, _PER_LOG_2[0], low))
    total, rest = quick_sum(parts.k, high)
    return quick_sum(total, rest + low)
