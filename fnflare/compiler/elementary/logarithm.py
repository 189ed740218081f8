"""log, log2, log10 and log1p as chains of multiplications and additions.

An expression goes in, one of arithmetic alone comes out. The argument is written as ``2**k (1 + f)`` with ``1 + f``
between the square roots of 1/2 and 2. In float32 ``log(1 + f)`` is a polynomial in f; in float64, where that would be
of degree 20 and more, it is an odd one in ``s = f / (2 + f)``, as ``log(1 + f) = 2 artanh(s)``.

The polynomials are Remez' (``tests/compiler/remez.py``) for ``(log(1 + f) - f + f**2 / 2) / f**3`` and
``(2 artanh(s) - 2 s) / s**3``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fnflare.compiler.elementary.formats import (
    as_bits,
    as_number,
    copysign,
    equal,
    fma,
    format_of,
    polynomial,
    product,
    quick_sum,
)
from fnflare.nest import Scalar, constant, select

__all__ = ["Parts", "log", "log1p", "log2", "log2_of_parts", "log10", "log_of_parts", "parts_of", "parts_of_1_plus"]

#: The largest error is 2**-30.3 of f.
_LOG_32 = (
    0.3333331055347343,
    -0.24999986364205726,
    0.20002221879382548,
    -0.16669261136658603,
    0.14218724359417967,
    -0.12384181122152828,
    0.1187250150056006,
    -0.11790809940710212,
    0.06917477219441291,
)
#: The largest error is 2**-63.8 of s.
_LOG_64 = (
    0.6666666666666666,
    0.4000000000000089,
    0.28571428570794766,
    0.22222222393603783,
    0.1818179544827098,
    0.15386249681084868,
    0.13268516288443394,
    0.13089219145858638,
)
#: log(2) and what its rounding left out.
_LOG_2 = {"f32": (0.6931471824645996, -1.9046542121259336e-09), "f64": (0.6931471805599453, 2.3190468138462996e-17)}
_PER_LOG_2 = {"f32": (1.4426950216293335, 1.925963033500011e-08), "f64": (1.4426950408889634, 2.0355273740931033e-17)}
_PER_LOG_10 = {
    "f32": (0.4342944920063019, -1.0103049952192578e-08),
    "f64": (0.4342944819032518, 1.098319650216765e-17),
}
_LOG10_2 = {"f32": (0.3010300099849701, -1.432098883924482e-08), "f64": (0.3010299956639812, -2.8037281277851704e-18)}
_SQRT_HALF = {"f32": 0x3F3504F3, "f64": 0x3FE6A09E667F3BCD}


@dataclass(frozen=True, slots=True)
class Parts:
    """A positive number as ``2**k (1 + f)``.

    Attributes:
        k: the exponent, as a number.
        f: between the square roots of 1/2 and 2, less 1.
    """

    k: Scalar
    f: Scalar


def parts_of(x: Scalar) -> Parts:
    """A positive number, denormal ones too, as ``2**k (1 + f)``."""
    form = format_of(x)
    small = x < form.smallest
    shift = form.digits + 1
    parts = _parts_of_normal(select(small, x * 2.0**shift, x))
    return Parts(parts.k - select(small, constant(shift, x.dtype), 0.0), parts.f)


def _parts_of_normal(x: Scalar) -> Parts:
    form = format_of(x)
    bits = as_bits(x) + (form.one - _SQRT_HALF[x.dtype])
    # the exponent goes into the lowest digits of a number between 2**digits and twice that
    k = as_number(bits >> form.digits | (form.bias + form.digits) << form.digits)
    mantissa = as_number((bits & ((1 << form.digits) - 1)) + _SQRT_HALF[x.dtype])
    return Parts(k - (2.0**form.digits + form.bias), mantissa - 1.0)


def parts_of_1_plus(x: Scalar) -> Parts:
    """``1 + x`` as ``2**k (1 + f)``, with f as exact as x is, for x up to 1."""
    form = format_of(x)
    k = _parts_of_normal(x + 1.0).k
    inverse = as_number(constant(form.one, form.word) - (as_bits(k + form.magic) << form.digits))
    return Parts(k, fma(x, inverse, inverse - 1.0))


def _parts_of_1_plus_any(x: Scalar) -> Parts:
    """``1 + x`` as ``2**k (1 + f)``, with f as exact as x is."""
    form = format_of(x)
    # beyond this 1 is less than a rounding error, and 2**-k would not be normal at the end
    large = x > 2.0 ** (form.digits + 3)
    whole = _parts_of_normal(x + 1.0)
    base = as_bits(select(large, 0.0, whole.k) + form.magic)
    inverse = as_number(constant(form.one, form.word) - (base << form.digits))
    return Parts(whole.k, select(large, whole.f, fma(x, inverse, inverse - 1.0)))


def log_of_parts(x: Parts, correction: Scalar | None = None) -> Scalar:
    """The natural logarithm of ``2**k (1 + f)``, and in float64 a small number more."""
    high, low = _LOG_2[x.f.dtype]
    f = x.f
    square = f * f
    if f.dtype == "f32":
        tail = fma(square * f, polynomial(f, _LOG_32), square * -0.5)
        return fma(x.k, high, f + tail)
    half = square * 0.5
    s = f / (f + 2.0)
    z = s * s
    tail = fma(s, fma(z, polynomial(z, _LOG_64), half), correction or constant(0.0, "f64"))
    return fma(x.k, high, f - (half - fma(x.k, low, tail)))


def _log_in_two(x: Parts) -> tuple[Scalar, Scalar]:
    """``log(1 + f)`` as a sum of two numbers, the second of which makes it exact to a few bits more."""
    f = x.f
    half, half_low = product(f, f * 0.5)
    high, low = quick_sum(f, -half)
    if f.dtype == "f32":
        tail = f * f * f * polynomial(f, _LOG_32)
    else:
        s = f / (f + 2.0)
        z = s * s
        tail = s * fma(z, polynomial(z, _LOG_64), half)
    return quick_sum(high, low - half_low + tail)


def _checked(x: Scalar, answer: Scalar, edge: float = 0.0) -> Scalar:
    """With the values at infinity, at the edge of where a logarithm is defined, and below it."""
    outside = select(equal(x, edge), constant(-math.inf, x.dtype), math.nan)
    return select(equal(x, math.inf), x, select(x > edge, answer, outside))


def log(x: Scalar) -> Scalar:
    """The natural logarithm."""
    return _checked(x, log_of_parts(parts_of(x)))


def log2_of_parts(parts: Parts) -> Scalar:
    """The logarithm to the base 2 of ``2**k (1 + f)``."""
    high, low = _scaled(parts, _PER_LOG_2)
    return _joined(parts.k, high, low)


def log2(x: Scalar) -> Scalar:
    """The logarithm to the base 2."""
    return _checked(x, log2_of_parts(parts_of(x)))


def log10(x: Scalar) -> Scalar:
    """The logarithm to the base 10."""
    parts = parts_of(x)
    high, low = _scaled(parts, _PER_LOG_10)
    log_2, log_2_low = _LOG10_2[x.dtype]
    whole, whole_low = product(parts.k, log_2)
    return _checked(x, _joined(whole, high, low + fma(parts.k, log_2_low, whole_low)))


def _scaled(parts: Parts, factor: dict[str, tuple[float, float]]) -> tuple[Scalar, Scalar]:
    """``factor * log(1 + f)`` as a sum of two numbers."""
    first, second = _log_in_two(parts)
    c, c_low = factor[first.dtype]
    high, low = product(first, c)
    return high, fma(first, c_low, fma(second, c, low))


def _joined(whole: Scalar, high: Scalar, low: Scalar) -> Scalar:
    """The sum of three numbers; the first is larger than the others, or 0."""
    total, rest = quick_sum(whole, high)
    return total + (rest + low)


def log1p(x: Scalar) -> Scalar:
    """``log(1 + x)`` without cancellation near 0."""
    return copysign(_checked(x, log_of_parts(_parts_of_1_plus_any(x)), -1.0), x)
