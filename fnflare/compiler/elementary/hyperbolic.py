"""tanh, logistic, sinh and cosh, and the soft maximum: softplus and logaddexp.

An expression goes in, one of arithmetic alone comes out. tanh and logistic are what recurrent cells spend their time
in, hence short in float32: tanh is a quotient of ``exp(2 |x|) - 1``, one formula from 0 to where it is 1; a quotient of
polynomials in x**2 would be shorter by four operations, but rounding takes it to 5 units and above 1. logistic needs
neither an infinity nor a denormal number on its way, as ``2**h`` and ``2**-h`` are both at hand in exp.
"""

from __future__ import annotations

import math

from fnflare.compiler.elementary.exponential import (
    Reduced,
    half_power,
    half_power_inverse,
    reduced,
    series,
    series_tail,
)
from fnflare.compiler.elementary.formats import (
    F32,
    absolute,
    atleast,
    atmost,
    copysign,
    equal,
    fma,
    polynomial,
    quick_sum,
    sum_of,
)
from fnflare.compiler.elementary.logarithm import log_of_parts, parts_of_1_plus
from fnflare.nest import Scalar, apply, constant, select

__all__ = ["cosh", "logaddexp", "logistic", "sinh", "softplus", "tanh"]

#: ``((exp(2 r) - 1) / 2 - r) / r**2``, by Remez; the largest error of exp is 2**-28.
_HALF_EXP_2 = (1.0000000054173026, 0.666663064838975, 0.3333309929731366, 0.13381180616917954, 0.04461188992341029)
#: Where tanh is 1 or less than half a unit below.
_TANH_IS_1 = {"f32": 9.02, "f64": 19.1}
#: ``(sinh(x) - x) / x**3`` in ``x**2``, by Remez; the largest error is 2**-32.2 and 2**-61.3.
_SINH = {
    "f32": (0.16666666646778577, 0.008333339687364962, 0.00019838098914901875, 2.806300620808922e-06),
    "f64": (
        0.16666666666666666,
        0.008333333333333299,
        0.0001984126984132424,
        2.7557319191363643e-06,
        2.505211769941287e-08,
        1.6057679312223042e-10,
        7.746188979486805e-13,
    ),
}
#: Where sinh and cosh are infinite.
_LARGE = {"f32": 91.0, "f64": 712.0}
#: Where logistic is 0 and where it is 1.
_LOGISTIC = {"f32": (-104.0, 60.0), "f64": (-746.0, 60.0)}


def tanh(x: Scalar) -> Scalar:
    """The hyperbolic tangent."""
    return (_tanh_32 if x.dtype == "f32" else _tanh_64)(x, _TANH_IS_1[x.dtype])


def _tanh_32(x: Scalar, bound: float) -> Scalar:
    """``e / (e + 1)`` for ``e = (exp(2 |x|) - 1) / 2``.

    Of ``|x| = n log(2) / 2 + r`` one rounding of log(2) is enough, since n is small, and the larger it is the less an
    error of e matters.
    """
    clamped = atmost(absolute(x), bound)
    shifted = fma(clamped, 2 / math.log(2), F32.magic)
    r = fma(shifted - F32.magic, -math.log(2) / 2, clamped)
    power = half_power(shifted)
    e = fma(power, fma(r * r, polynomial(r, _HALF_EXP_2), r), fma(power, 0.5, -0.5))
    return copysign(e / (e + 1.0), x)


def _tanh_64(x: Scalar, bound: float) -> Scalar:
    """``e / (e + 2)`` for ``e = exp(2 |x|) - 1``, with what rounding took from both."""
    parts = reduced(atmost(absolute(x), bound), 2.0)
    power = half_power(parts.shifted)
    square = power * power
    r, tail = parts.r, series_tail(parts)
    high, low = quick_sum(square - 1.0, square * r)
    e, e_low = quick_sum(high, fma(square, tail, low))
    below, below_low = sum_of(e, constant(2.0, x.dtype))
    inverse = 1.0 / below
    quotient = e * inverse
    error = fma(-quotient, below, e) + (e_low - quotient * (below_low + e_low))
    return copysign(fma(error, inverse, quotient), x)


def logistic(x: Scalar) -> Scalar:
    """``1 / (1 + exp(-x))``, which is ``2**-h / (2**-h + 2**h exp(r))``."""
    bounds = _LOGISTIC[x.dtype]
    parts = reduced(atmost(atleast(x, bounds[0]), bounds[1]), -1.0)
    power = half_power(parts.shifted)
    inverse = half_power_inverse(power)
    if x.dtype == "f32":
        return inverse / fma(series(parts), power, inverse)
    high, low = _exp_in_two(parts)
    below, below_low = sum_of(high * power, inverse)
    per = 1.0 / below
    quotient = inverse * per
    error = fma(-quotient, below, inverse) - quotient * fma(low, power, below_low)
    return fma(error, per, quotient)


def _exp_in_two(x: Reduced) -> tuple[Scalar, Scalar]:
    """``exp(r)`` as a sum of two numbers."""
    high, low = quick_sum(constant(1.0, x.r.dtype), x.r)
    return quick_sum(high, low + series_tail(x))


def _half_exp(x: Scalar) -> tuple[Scalar, Scalar]:
    """``exp(|x|) / 2``, which overflows later than exp, as a sum of two numbers."""
    parts = reduced(atmost(absolute(x), _LARGE[x.dtype]))
    power = half_power(parts.shifted)
    high, low = _exp_in_two(parts)
    return high * (power * 0.5) * power, low * (power * 0.5) * power


def cosh(x: Scalar) -> Scalar:
    """The hyperbolic cosine."""
    half, low = _half_exp(x)
    return half + (low + 0.25 / half)


def sinh(x: Scalar) -> Scalar:
    """The hyperbolic sine."""
    half, low = _half_exp(x)
    square = x * x
    near = fma(square * x, polynomial(square, _SINH[x.dtype]), x)
    return select(absolute(x) < 1.0, near, copysign(half + (low - 0.25 / half), x))


def _log_1_plus_exp(x: Scalar, error: Scalar | None = None) -> Scalar:
    """``log(1 + exp(x))`` for x up to 0, or of what rounding took from x added to it."""
    least = _LOGISTIC[x.dtype][0]
    parts = reduced(atleast(x, least))
    if error is not None:
        r, low = quick_sum(parts.r, select(x > least, error, 0.0))
        parts = Reduced(parts.shifted, r, parts.low + low)
    power = half_power(parts.shifted)
    if x.dtype == "f32":
        return log_of_parts(parts_of_1_plus(series(parts) * power * power))
    high, low = _exp_in_two(parts)
    e, low = high * power * power, low * power * power
    # what the second number adds is low / (1 + e), which need not be known well
    return log_of_parts(parts_of_1_plus(e), fma(e * -0.5, low, low))


def softplus(x: Scalar) -> Scalar:
    """``log(1 + exp(x))``."""
    return atleast(x, 0.0) + _log_1_plus_exp(-absolute(x))


def logaddexp(x: Scalar, y: Scalar) -> Scalar:
    """``log(exp(x) + exp(y))``."""
    apart, error = sum_of(x, -y)
    apart = apply("maximum", x, y) + _log_1_plus_exp(-absolute(apart), select(apart < 0.0, error, -error))
    # two that are equal may be infinite, and have no difference
    return select(equal(x, y), x + math.log(2), apart)
