"""exp, exp2 and expm1 as chains of multiplications and additions.

An expression goes in, one of arithmetic alone comes out. The argument is written as ``2 h log(2) + r`` with a whole h
and ``|r| <= log(2)``: an even number of halvings is longer to approximate by one step of Horner's rule or two than the
nearest one, but the power of two is then the square of ``2**h``, which is always a normal number, so that overflow and
gradual underflow come out of two multiplications by themselves.

The polynomials are Remez' (``tests/compiler/remez.py``) for ``(exp(r) - 1 - r) / r**2`` and ``(2**r - 1) / r``.
"""

from __future__ import annotations

from dataclasses import dataclass

from fnflare.compiler.elementary.formats import (
    F32,
    F64,
    Format,
    as_bits,
    as_number,
    atleast,
    atmost,
    copysign,
    fma,
    format_of,
    polynomial,
    product,
    quick_sum,
)
from fnflare.nest import Scalar, constant

__all__ = [
    "Reduced",
    "exp",
    "exp2",
    "exp2_in_two",
    "expm1",
    "half_power",
    "half_power_inverse",
    "reduced",
    "series",
    "series_tail",
]

#: The largest error is 2**-28.2 and 2**-59.2 of the number.
_EXP = {
    "f32": (
        0.4999999997684924,
        0.1666667004238338,
        0.041666678708826586,
        0.008332772100230739,
        0.0013887847187368207,
        0.00020074358877851178,
        2.5101209745117015e-05,
    ),
    "f64": (
        0.5,
        0.16666666666666663,
        0.04166666666666666,
        0.008333333333335085,
        0.001388888888889251,
        0.0001984126983835347,
        2.480158729752241e-05,
        2.7557321303857697e-06,
        2.755732142343111e-07,
        2.505138749720436e-08,
        2.0876140139899386e-09,
        1.617890718114042e-10,
        1.155718188532114e-11,
    ),
}
#: The largest error is 2**-30.2 and 2**-61.2 of the number.
_EXP2 = {
    "f32": (
        0.6931471797554103,
        0.24022650651378205,
        0.05550413437677206,
        0.009618134003537369,
        0.0013332274486096136,
        0.0001540201869314146,
        1.5457619821733585e-05,
        1.3392958383616276e-06,
    ),
    "f64": (
        0.6931471805599453,
        0.24022650695910072,
        0.05550410866482154,
        0.00961812910762847,
        0.0013333558146434484,
        0.00015403530393389084,
        1.5252733800437071e-05,
        1.3215486786910323e-06,
        1.0178087043661964e-07,
        7.054912346191054e-09,
        4.4453866892997184e-10,
        2.5677557690582937e-11,
        1.3801565686129916e-12,
        6.8332225116428e-14,
    ),
}
#: ``2 log(2)`` in two numbers; the first has zeros at its end, so that its products with whole numbers are exact.
_TWO_LOG_2 = {"f32": (1.38629150390625, 2.857213530660374e-06), "f64": (1.386294361119326, 5.647058112606315e-13)}
#: ``1 / (2 log(2))``.
_HALVES = 0.7213475204444817
#: What log(2) is more than its float64.
_LOG_2_LOW = 2.3190468138462996e-17
#: Where ``2**h`` is 0 by its bits, and where exp is infinite. It is 0 from -104 and -746 on, but by two multiplications
#: that underflow, which take a processor longer than all the rest: what is masked with -inf is not to pay for that.
_BOUNDS = {"f32": (-176.0, 89.0), "f64": (-1418.0, 710.0)}
#: Where exp is 1 or less than half a unit below.
_SMALL = {"f32": -18.0, "f64": -39.0}


@dataclass(frozen=True, slots=True)
class Reduced:
    """An argument of exp as ``2 h log(2) + r``.

    Attributes:
        shifted: a number with h in the lowest bits.
        r: the rest.
        low: what rounding took from `r`.
    """

    shifted: Scalar
    r: Scalar
    low: Scalar


def reduced(x: Scalar, factor: float = 1.0) -> Reduced:
    """``factor * x``, where the factor is a power of two or its negative, as ``2 h log(2) + r``."""
    form = format_of(x)
    shifted = fma(x, _HALVES * factor, form.magic)
    h = shifted - form.magic
    high, low = _TWO_LOG_2[x.dtype]
    rest = fma(h, -high, x if factor == 1 else -x if factor == -1 else x * factor)
    r = fma(h, -low, rest)
    return Reduced(shifted, r, fma(h, -low, rest - r))


def half_power(shifted: Scalar) -> Scalar:
    """``2**h``."""
    form = format_of(shifted)
    return as_number((as_bits(shifted) << form.digits) + form.one)


def half_power_inverse(power: Scalar) -> Scalar:
    """``2**-h`` of ``2**h``."""
    return as_number(constant(2 * format_of(power).one, format_of(power).word) - as_bits(power))


def series(x: Reduced) -> Scalar:
    """``exp(r)``."""
    return polynomial(x.r, (1.0, 1.0, *_EXP[x.r.dtype]))


def series_tail(x: Reduced) -> Scalar:
    """``exp(r) - 1 - r``, and what rounding took from r."""
    return fma(x.r * x.r, polynomial(x.r, _EXP[x.r.dtype]), x.low)


def exp(x: Scalar) -> Scalar:
    """The exponential function."""
    low, high = _BOUNDS[x.dtype]
    parts = reduced(atmost(atleast(x, low), high))
    power = half_power(parts.shifted)
    return series(parts) * power * power


def exp2(x: Scalar) -> Scalar:
    """``2**x``."""
    form = format_of(x)
    low, high = _exp2_bounds(form)
    x = atmost(atleast(x, low), high)
    shifted = fma(x, 0.5, form.magic)
    r = fma(shifted - form.magic, -2.0, x)
    power = half_power(shifted)
    return polynomial(r, (1.0, *_EXP2[x.dtype])) * power * power


def exp2_in_two(high: Scalar, low: Scalar) -> Scalar:
    """``2**(high + low)`` in float64, where the second number is a rounding error of the first."""
    bounds = _exp2_bounds(F64)
    x = atmost(atleast(high, bounds[0]), bounds[1])
    shifted = fma(x, 0.5, F64.magic)
    r, r_low = quick_sum(fma(shifted - F64.magic, -2.0, x), low)
    linear, *others = _EXP2["f64"]
    first, first_low = product(r, linear)
    tail = fma(r * r, polynomial(r, others), fma(r_low, linear, fma(r, _LOG_2_LOW, first_low)))
    power = half_power(shifted)
    one, one_low = quick_sum(constant(1.0, "f64"), first)
    return (one + (one_low + tail)) * power * power


def _exp2_bounds(form: Format) -> tuple[float, float]:
    """Where ``2**h`` is 0 by its bits, and where exp2 is infinite."""
    return (-254.0, 129.0) if form is F32 else (-2046.0, 1025.0)


def expm1(x: Scalar) -> Scalar:
    """``exp(x) - 1`` without cancellation near 0."""
    parts = reduced(atmost(atleast(x, _SMALL[x.dtype]), _BOUNDS[x.dtype][1]))
    power = half_power(parts.shifted)
    inner = fma(power, parts.r + series_tail(parts), power - half_power_inverse(power))
    return copysign(inner * power, x)
