"""Functions of floating-point numbers: what they are made of, or what libm calls them.

Most are expressions of arithmetic alone (`fnflare.compiler.elementary`), so that they are done in all lanes of a
vector together; the rest are called in libm, one lane at a time. Each expression is made once and rendered with other
arguments each time.
"""

from __future__ import annotations

import functools

from fnflare.compiler.elementary import expand
from fnflare.nest import FUNCTIONS, Local, Scalar, apply

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
    if op == "rsqrt":  # libm has none
        return 1 / apply("sqrt", *args)
    return expand(op, args)
