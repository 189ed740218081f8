"""erf as a polynomial near 0, and as ``1 - exp(g(|x|))`` with a polynomial g beyond 1.

An expression goes in, one of arithmetic alone comes out. Both are computed for every number, and one is selected. The
polynomials are Remez' (``tests/compiler/remez.py``) for ``(erf(x) - x) / x`` in ``x**2`` and, weighted with
``erfc(x)``, for ``log(erfc(x))``.
"""

from __future__ import annotations

from fnflare.compiler.elementary.exponential import half_power, reduced, series
from fnflare.compiler.elementary.formats import absolute, atmost, copysign, fma, polynomial
from fnflare.nest import Scalar, select

__all__ = ["erf"]

#: The largest error is 2**-29.7 and 2**-62.8 of x.
_NEAR = {
    "f32": (
        0.12837916591465431,
        -0.37612627140440547,
        0.11283600211815889,
        -0.026854445581508075,
        0.005189536461939261,
        -0.0008020845698406905,
        7.889119157487838e-05,
    ),
    "f64": (
        0.1283791670955126,
        -0.3761263890318375,
        0.11283791670954885,
        -0.026866170645077875,
        0.005223977624828431,
        -0.0008548326981425542,
        0.0001205533113295582,
        -1.4925595772180906e-05,
        1.64610084778027e-06,
        -1.6350396222864617e-07,
        1.466032872274226e-08,
        -1.137495573607015e-09,
        5.960685338520971e-11,
    ),
}
#: The largest error of erf is 2**-29.8 and 2**-62.3.
_FAR = {
    "f32": (
        -0.0003336414096593682,
        -1.1271184419123534,
        -0.6381006438208543,
        -0.1031415027140575,
        0.02185305288351239,
        -0.0029510183407813148,
        0.00018668472684570616,
    ),
    "f64": (
        -2.8884787184121013e-08,
        -1.128378904574334,
        -0.6366207878317777,
        -0.10277065532139287,
        0.019127710780898324,
        0.00020281905434271416,
        -0.0016755726361923399,
        0.0005529232074062329,
        2.159361889275589e-05,
        -0.00011053840560099247,
        6.464398418277687e-05,
        -2.4235097133352676e-05,
        6.770151108106682e-06,
        -1.466248944087925e-06,
        2.4746888773147904e-07,
        -3.209504512303505e-08,
        3.097216261243717e-09,
        -2.0968688601101952e-10,
        8.888920518414217e-12,
        -1.7750214190796753e-13,
    ),
}
#: Where erf is 1 or less than half a unit below.
_IS_1 = {"f32": 3.95, "f64": 6.0}


def erf(x: Scalar) -> Scalar:
    """The error function."""
    size = atmost(absolute(x), _IS_1[x.dtype])
    square = size * size
    near = fma(x, polynomial(square, _NEAR[x.dtype]), x)
    parts = reduced(polynomial(size, _FAR[x.dtype]))
    power = half_power(parts.shifted)
    far = fma(series(parts) * power, -power, 1.0)
    return select(size < 1.0, near, copysign(far, x))
