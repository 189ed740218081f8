"""rsqrt and hypot.

Expressions go in, ones of arithmetic alone come out, of which the square root is a part: processors have it rounded
right.
"""

from __future__ import annotations

import math

from fnflare.compiler.elementary.formats import absolute, equal, fma
from fnflare.nest import Scalar, apply, cast, constant, select

__all__ = ["hypot", "rsqrt"]


def rsqrt(x: Scalar) -> Scalar:
    """``1 / sqrt(x)``."""
    return apply("divide", 1.0, apply("sqrt", x))


def hypot(x: Scalar, y: Scalar) -> Scalar:
    """``sqrt(x**2 + y**2)``, infinite where either is, even beside NaN."""
    infinite = apply("or", equal(absolute(x), math.inf), equal(absolute(y), math.inf))
    return select(infinite, constant(math.inf, x.dtype), (_hypot_32 if x.dtype == "f32" else _hypot_64)(x, y))


def _hypot_32(x: Scalar, y: Scalar) -> Scalar:
    a, b = cast(x, "f64"), cast(y, "f64")
    return cast(apply("sqrt", fma(a, a, b * b)), "f32")


def _hypot_64(x: Scalar, y: Scalar) -> Scalar:
    """With both moved to where squares neither overflow nor vanish."""
    most = apply("maximum", absolute(x), absolute(y))
    scale = select(
        most > 2.0**500, constant(2.0**-600, "f64"), select(most < 2.0**-400, 2.0**600, constant(1.0, "f64"))
    )
    back = select(most > 2.0**500, constant(2.0**600, "f64"), select(most < 2.0**-400, 2.0**-600, constant(1.0, "f64")))
    a, b = x * scale, y * scale
    return apply("sqrt", fma(a, a, b * b)) * back
