"""Functions of floating-point numbers: what they are made of, or what libm calls them.

Renderers ask here for every name in `FUNCTIONS`. Most are expressions of arithmetic alone, so that they are done in
all lanes of a vector together; the rest are called in libm, one lane at a time.
"""

from __future__ import annotations

import functools
import math

from fnflare.nest import FUNCTIONS, Local, Scalar, apply, constant, select

__all__ = ["libm", "template"]

_LIBM = {
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "power": "pow",
    "arctan2": "atan2",
}


def libm(op: str, dtype: str) -> str:
    """The name of a function of libm."""
    return _LIBM.get(op, op) + ("f" if dtype == "f32" else "")


@functools.cache
def template(op: str, dtype: str) -> Scalar | None:
    """A function as an expression of its arguments, which are called "0" and "1"; None for one of libm's."""
    args = tuple([Local(dtype, str(i)) for i in range(FUNCTIONS[op])])
    x = args[0]
    if op == "rsqrt":
        return 1 / apply("sqrt", x)
    if op == "logistic":
        return 1 / (1 + apply("exp", -x))
    if op == "softplus":
        return apply("maximum", x, 0.0) + apply("log1p", apply("exp", -apply("absolute", x)))
    if op == "logaddexp":
        larger, y = apply("maximum", x, args[1]), args[1]
        rest = apply("log1p", apply("exp", -apply("absolute", x - y)))
        return larger + select(apply("equal", x, y), constant(math.log(2), dtype), rest)  # both may be infinite
    return None
