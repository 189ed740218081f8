"""Functions of floating-point numbers as arithmetic, without tables and branches, so that loops over them vectorise.

`expand` takes the name of one of the nest language's functions and its arguments, and gives an expression of additions,
multiplications, comparisons and selections that is within 4 units in the last place of the function in float32 and
within 2 in float64, with NumPy's answers at infinities, NaN, denormal numbers and -0.0. Lowering calls it where it
writes functions. ``docs/elementary.md`` has the errors that were measured.

Bounds hold where ``fma`` rounds once.
"""

from __future__ import annotations

from collections.abc import Callable

from fnflare.compiler.elementary.error import erf
from fnflare.compiler.elementary.exponential import exp, exp2, expm1
from fnflare.compiler.elementary.hyperbolic import cosh, logaddexp, logistic, sinh, softplus, tanh
from fnflare.compiler.elementary.logarithm import log, log1p, log2, log10
from fnflare.compiler.elementary.power import power
from fnflare.compiler.elementary.roots import hypot, rsqrt
from fnflare.compiler.elementary.trigonometric import cos, sin
from fnflare.nest import Scalar

__all__ = ["EXPANDED", "expand"]

_FUNCTIONS: dict[str, Callable[..., Scalar | None]] = {
    "cos": cos,
    "cosh": cosh,
    "erf": erf,
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "hypot": hypot,
    "log": log,
    "log2": log2,
    "log10": log10,
    "log1p": log1p,
    "logaddexp": logaddexp,
    "logistic": logistic,
    "power": power,
    "rsqrt": rsqrt,
    "sin": sin,
    "sinh": sinh,
    "softplus": softplus,
    "tanh": tanh,
}
#: The names of the functions that are expanded.
EXPANDED = frozenset(_FUNCTIONS)


def expand(op: str, args: tuple[Scalar, ...]) -> Scalar | None:
    """A function as an expression of arithmetic alone.

    Args:
        op: a name in `fnflare.nest.FUNCTIONS`.
        args: its arguments, all of type f32 or all of type f64.

    Returns:
        The expression, or None for a function that is left to the mathematics library.

    Examples:
        >>> from fnflare.compiler.elementary import expand
        >>> from fnflare.nest import Local
        >>> expand("logistic", (Local("f32", "x"),)).op
        'divide'
        >>> expand("arccosh", (Local("f32", "x"),)) is None
        True
    """
    function = _FUNCTIONS.get(op)
    if function is None or args[0].dtype not in ("f32", "f64"):
        return None
    return function(*args)
