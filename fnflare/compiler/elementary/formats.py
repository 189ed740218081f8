"""What the functions of this package are built from: the two formats of numbers, powers of two, sums of two parts.

Expressions of the nest language go in and out. Everything here is exact or rounded once, and made of operations that
processors have for whole vectors: an integer is moved into and out of a number by adding 1.5 * 2**p, since vectors of
float64 can be converted to integers in no other way on many of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fnflare.nest import Apply, Scalar, apply, constant, select

__all__ = [
    "F32",
    "F64",
    "Format",
    "absolute",
    "as_bits",
    "as_number",
    "atleast",
    "atmost",
    "copysign",
    "equal",
    "fma",
    "format_of",
    "polynomial",
    "product",
    "quick_sum",
    "sum_of",
]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of binary numbers.

    Attributes:
        dtype: its name.
        word: the unsigned integers of its width.
        digits: the bits that are stored of a number's digits.
        bias: what the stored exponent of 1 is.
    """

    dtype: str
    word: str
    digits: int
    bias: int

    @property
    def magic(self) -> float:
        """Added to a small number it leaves its nearest integer in the lowest bits."""
        return 1.5 * 2.0**self.digits

    @property
    def one(self) -> int:
        """The bits of 1."""
        return self.bias << self.digits

    @property
    def smallest(self) -> float:
        """The smallest normal number."""
        return math.ldexp(1.0, 1 - self.bias)


F32 = Format("f32", "u32", 23, 127)
F64 = Format("f64", "u64", 52, 1023)


def format_of(x: Scalar) -> Format:
    """The format of an expression."""
    return F32 if x.dtype == "f32" else F64


def as_bits(x: Scalar) -> Scalar:
    """The bits of a number, as an unsigned integer."""
    return Apply(format_of(x).word, "bits", (x,))


def as_number(x: Scalar) -> Scalar:
    """The number whose bits an unsigned integer is."""
    return Apply("f32" if x.dtype == "u32" else "f64", "bits", (x,))


def fma(a: Scalar | float, b: Scalar | float, c: Scalar | float) -> Scalar:
    """``a * b + c``, rounded once."""
    return apply("fma", *_alike(a, b, c))


def _alike(*xs: Scalar | float) -> list[Scalar]:
    dtype = next(x.dtype for x in xs if isinstance(x, Scalar))
    return [x if isinstance(x, Scalar) else constant(x, dtype) for x in xs]


def absolute(x: Scalar) -> Scalar:
    """A number without its sign."""
    return apply("absolute", x)


def copysign(x: Scalar, sign: Scalar) -> Scalar:
    """A number with the sign of another."""
    return apply("copysign", x, sign)


def equal(x: Scalar, value: Scalar | float) -> Scalar:
    """Whether two numbers are equal; NaN is not."""
    return apply("equal", x, value)


def atleast(x: Scalar, bound: float) -> Scalar:
    """The larger of a number and a bound; NaN stays. One instruction, which ``maximum`` is not."""
    return select(x < bound, bound, x)


def atmost(x: Scalar, bound: float) -> Scalar:
    """The smaller of a number and a bound; NaN stays. One instruction, which ``minimum`` is not."""
    return select(x > bound, bound, x)


def polynomial(x: Scalar, coefficients: Sequence[float]) -> Scalar:
    """A polynomial, its constant term first, by Horner's rule."""
    total: Scalar = constant(coefficients[-1], x.dtype)
    for c in reversed(coefficients[:-1]):
        total = fma(total, x, c)
    return total


# -- numbers of two parts -------------------------------------------------------------------------------


def quick_sum(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """A sum and what rounding took from it, for ``|a| >= |b|`` (Dekker, 1971)."""
    total = a + b
    return total, b - (total - a)


def sum_of(a: Scalar, b: Scalar) -> tuple[Scalar, Scalar]:
    """A sum and what rounding took from it (Knuth, TAOCP 4.2.2)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def product(a: Scalar, b: Scalar | float) -> tuple[Scalar, Scalar]:
    """A product and what rounding took from it."""
    total = apply("multiply", a, b)
    return total, fma(a, b, -total)
