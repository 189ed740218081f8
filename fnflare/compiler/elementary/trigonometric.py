"""sin and cos in float32.

An expression goes in, one of arithmetic alone comes out, within the bound for every finite number. The argument in
quarter turns is its product with 2 / pi, of which all that matters is what is left of whole turns: 2 / pi is held as
seven numbers of 29 bits, whose products with 24 bits are exact in float64, and each product drops its whole turns by
itself, exactly (after Payne and Hanek, 1983). That reaches to 2**128. The polynomials on the eighth of a turn that is
left are Remez' (``tests/compiler/remez.py``) for ``(sin(r) - r) / r**3`` and ``(cos(r) - 1 + r**2 / 2) / r**4``.

float64 would need 22 such numbers: it is left to the mathematics library.
"""

from __future__ import annotations

import math

from fnflare.compiler.elementary.formats import absolute, equal, fma, polynomial
from fnflare.nest import Scalar, apply, cast, select

__all__ = ["cos", "sin"]

#: The bits of 2 / pi, 29 at a time.
_TWO_PER_PI = tuple(
    float.fromhex(x)
    for x in (
        "0x1.45f306d000000p-1",
        "0x1.9391054000000p-30",
        "0x1.4fe13ab000000p-59",
        "0x1.d1f534d000000p-88",
        "0x1.b81b6c5000000p-117",
        "0x1.5993c40000000p-148",
        "0x1.c820ff3000000p-175",
    )
)
#: The largest errors are 2**-35.7 of r and 2**-30.3.
_SIN = (-0.16666666663849636, 0.008333331871968839, -0.00019840085079146118, 2.724969594238739e-06)
_COS = (0.041666664658194484, -0.0013888302476851152, 2.4547788427026862e-05)


def _quarters(x: Scalar) -> tuple[Scalar, Scalar]:
    """The number of quarter turns nearest to an angle, between -2 and 2, and the angle that is left."""
    wide = cast(x, "f64")
    rests = []
    for c in _TWO_PER_PI:
        quarters = wide * c
        rests.append(fma(apply("rint", quarters * 0.25), -4.0, quarters))
    total = rests[0]
    for rest in rests[1:]:
        total = total + rest
    nearest = apply("rint", total)
    # from the largest on, so that what cancels does so exactly
    left = rests[0] - nearest
    for rest in rests[1:]:
        left = left + rest
    turned = fma(apply("rint", nearest * 0.25), -4.0, nearest)
    return cast(turned, "f32"), cast(left * (math.pi / 2), "f32")


def _both(r: Scalar) -> tuple[Scalar, Scalar]:
    """The sine and the cosine of an angle up to an eighth of a turn."""
    square = r * r
    sine = fma(square * r, polynomial(square, _SIN), r)
    return sine, fma(square * square, polynomial(square, _COS), fma(square, -0.5, 1.0))


def sin(x: Scalar) -> Scalar | None:
    """The sine; None in float64."""
    if x.dtype != "f32":
        return None
    quarters, r = _quarters(x)
    sine, cosine = _both(r)
    size = select(equal(absolute(quarters), 1.0), cosine, sine)
    negative = apply("or", quarters < 0.0, quarters > 1.5)
    return select(equal(x, 0.0), x, select(negative, -size, size))


def cos(x: Scalar) -> Scalar | None:
    """The cosine; None in float64."""
    if x.dtype != "f32":
        return None
    quarters, r = _quarters(x)
    sine, cosine = _both(r)
    size = select(equal(absolute(quarters), 1.0), sine, cosine)
    negative = apply("or", quarters > 0.5, quarters < -1.5)
    return select(negative, -size, size)
