"""Ufuncs and functions of elements that are written with others: of several answers, of angles, tests, conversions.

Arrays and tracers go in; each function computes in the dtype in which NumPy would, with operations that have the
rules. Two have primitives of their own, since their formulas lose digits when they are differentiated: `sinc` and the
Bessel functions behind ``np.i0``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, aval_of, bind, dtype_of, is_tracer, primitive
from fnflare.core.aval import resolvable
from fnflare.core.batch import in_place
from fnflare.core.tracer import UFUNC_FUNCTIONS, implements
from fnflare.ops.elementwise import absolute, convert
from fnflare.ops.shape import no_out

__all__ = ["composed"]

_FIX_IS_GOING = np.lib.NumpyVersion(np.__version__) >= "2.5.0"


def composed(ufunc: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: serve a ufunc by a function of traced operations, on arguments in the dtypes in which the ufunc
    computes."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        UFUNC_FUNCTIONS[ufunc] = lambda *args: function(*_in_dtypes_of(ufunc, args))
        return function

    return register


def _in_dtypes_of(ufunc: Any, args: Any) -> list[Any]:
    avals = [aval_of(a) for a in args]
    types = ufunc.resolve_dtypes((*[resolvable(a) for a in avals], *[None] * ufunc.nout))
    return [
        t.type(a) if isinstance(a, (int, float, complex)) else a if v.dtype == t and not v.weak else convert(a, t)
        for a, v, t in zip(args, avals, types, strict=False)
    ]


# -- one answer ---------------------------------------------------------------------------------

for _ufunc, _factor in (
    (np.deg2rad, math.pi / 180),
    (np.radians, math.pi / 180),
    (np.rad2deg, 180 / math.pi),
    (np.degrees, 180 / math.pi),
):
    composed(_ufunc)(lambda x, _factor=_factor: x * _factor)

composed(np.fabs)(lambda x: bind(absolute, (x,)))


def _float_power(x: Any, y: Any) -> Any:
    dtype = np.complex128 if "c" in (dtype_of(x).kind, dtype_of(y).kind) else np.float64
    x, y = [a if isinstance(a, (int, float, complex)) else convert(a, dtype) for a in (x, y)]
    return np.power(x, y)


UFUNC_FUNCTIONS[np.float_power] = _float_power

# -- two answers --------------------------------------------------------------------------------


@composed(np.divmod)
def divmod(x: Any, y: Any) -> tuple[Any, Any]:
    """NumPy's ``divmod``."""
    return np.floor_divide(x, y), np.remainder(x, y)


@composed(np.modf)
def modf(x: Any) -> tuple[Any, Any]:
    """NumPy's ``modf``."""
    # The remainder of a division by one has the sign of x even where it is zero; an infinity has none.
    finite = np.where(np.isinf(x), np.copysign(np.zeros_like(x), x), x)
    return np.fmod(finite, 1), np.trunc(x)


_frexp_exponent = primitive(
    "frexp_exponent",
    lambda x: np.frexp(x)[1],
    lambda x: ShapeDtypeStruct(x.shape, np.intc),
    differentiable=False,
)
in_place(_frexp_exponent)


@composed(np.frexp)
def frexp(x: Any) -> tuple[Any, Any]:
    """NumPy's ``frexp``: only the mantissa has a derivative."""
    exponent = bind(_frexp_exponent, (x,))
    return np.ldexp(x, -exponent), exponent


# -- rounding and tests -------------------------------------------------------------------------


@implements(np.fix)
def fix(x: Any, out: Any = None) -> Any:
    """NumPy's ``fix``, which says of itself since NumPy 2.5 that ``trunc`` is to be used instead."""
    no_out("np.fix", out)
    if _FIX_IS_GOING:
        warnings.warn("np.fix is deprecated since NumPy 2.5, write np.trunc", DeprecationWarning, stacklevel=3)
    return np.trunc(x)


@implements(np.isposinf)
def isposinf(x: Any, out: Any = None) -> Any:
    """NumPy's ``isposinf``."""
    no_out("np.isposinf", out)
    return np.isinf(x) & ~np.signbit(x)


@implements(np.isneginf)
def isneginf(x: Any, out: Any = None) -> Any:
    """NumPy's ``isneginf``."""
    no_out("np.isneginf", out)
    return np.isinf(x) & np.signbit(x)


@implements(np.isclose)
def isclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    """NumPy's ``isclose``."""
    a, b = (x if is_tracer(x) else np.asanyarray(x) for x in (a, b))
    with np.errstate(invalid="ignore"):
        same = (np.abs(a - b) <= atol + rtol * np.abs(b)) & np.isfinite(b) | (a == b)
    return same | (np.isnan(a) & np.isnan(b)) if equal_nan else same


@implements(np.allclose)
def allclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    """NumPy's ``allclose``: a truth value where values are known, a tracer in a program."""
    return _truth(np.all(isclose(a, b, rtol, atol, equal_nan)))


@implements(np.array_equal)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    """NumPy's ``array_equal``: a truth value where values are known, a tracer in a program."""
    a1, a2 = (x if is_tracer(x) else np.asarray(x) for x in (a1, a2))
    if a1.shape != a2.shape:
        return False
    return _truth(np.all(_equal(a1, a2, equal_nan)))


@implements(np.array_equiv)
def array_equiv(a1: Any, a2: Any) -> Any:
    """NumPy's ``array_equiv``: a truth value where values are known, a tracer in a program."""
    a1, a2 = (x if is_tracer(x) else np.asarray(x) for x in (a1, a2))
    try:
        np.broadcast_shapes(a1.shape, a2.shape)
    except ValueError:
        return False
    return _truth(np.all(a1 == a2))


def _equal(a: Any, b: Any, equal_nan: bool) -> Any:
    same = a == b
    return same | ((a != a) & (b != b)) if equal_nan else same


def _truth(x: Any) -> Any:
    return x if is_tracer(x) else bool(x)


# -- sinc ---------------------------------------------------------------------------------------

#: The Taylor coefficients of sin(y) / y in y * y: enough of them that four derivatives are exact up to |y| = 1.
_SINC = [(-1) ** k / math.factorial(2 * k + 1) for k in range(14)]


def _sinc_shape(x: ShapeDtypeStruct) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, np.multiply.resolve_dtypes((x.dtype, float, None))[-1])


#: ``sin(pi x) / (pi x)``, 1 at 0.
sinc = primitive("sinc", lambda x: np.sinc(x)[()], _sinc_shape)
sinc.elementwise = True
sinc.cost(lambda ans, x: 20 * ans.size)


@sinc.derivative
def _(ct: Any, _ans: Any, x: Any) -> Any:
    # sin(y) / y differentiates to a difference of large numbers near 0; its series, there, to itself.
    y = x * math.pi
    near = np.abs(y) < 1
    z = np.where(near, y, 0)
    square = z * z
    series = np.zeros_like(z) + 2 * len(_SINC[1:]) * _SINC[-1]
    for k in range(len(_SINC) - 2, 0, -1):
        series = series * square + 2 * k * _SINC[k]
    far = np.where(near, 1, y)
    return ct * np.where(near, series * z, (np.cos(far) - np.sin(far) / far) / far) * math.pi


implements(np.sinc)(lambda x: bind(sinc, (x,)))

# -- Bessel functions -----------------------------------------------------------------------------

_FAR = 30.0  # where the asymptotic series takes over: 20 terms of it are exact in float64 from here on


def _bessel_i_kernel(x: Any, *, order: int) -> Any:
    if order == 0:
        return np.i0(x)[()]
    x = np.asarray(x)
    size = np.abs(x.astype(np.float64))
    out = np.where(size < _FAR, _bessel_series(np.minimum(size, _FAR), order), _bessel_far(size, order))
    return np.copysign(out, x if order % 2 else 1).astype(_bessel_dtype(x.dtype))[()]


def _bessel_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.kind == "f" else np.dtype(np.float64)


def _bessel_series(x: Any, order: int) -> Any:
    """The power series, all of whose terms are positive."""
    square = x * x / 4
    total = np.ones_like(x)
    for k in range(50, 0, -1):
        total = total * square / (k * (k + order)) + 1
    return (x / 2) ** order / math.factorial(order) * total


def _bessel_far(x: Any, order: int) -> Any:
    """The asymptotic series: exp(x) / sqrt(2 pi x) times a polynomial in 1 / x."""
    x = np.maximum(x, _FAR)
    total = np.ones_like(x)
    for k in range(20, 0, -1):
        total = 1 - total * (4 * order**2 - (2 * k - 1) ** 2) / (8 * k * x)
    half = np.exp(x / 2)  # exp(x) may overflow where the quotient does not
    return half / np.sqrt(2 * math.pi * x) * total * half


def _bessel_i_shape(x: ShapeDtypeStruct, *, order: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, _bessel_dtype(x.dtype))


#: The modified Bessel functions of the first kind, of an order that is a natural number.
bessel_i = primitive("bessel_i", _bessel_i_kernel, _bessel_i_shape)
in_place(bessel_i)
bessel_i.cost(lambda ans, x, **_: 60 * ans.size)


@bessel_i.derivative
def _(ct: Any, _ans: Any, x: Any, *, order: int) -> Any:
    below = bind(bessel_i, (x,), {"order": abs(order - 1)})
    return ct * ((below + bind(bessel_i, (x,), {"order": order + 1})) / 2 if order else below)


@implements(np.i0)
def i0(x: Any) -> Any:
    """NumPy's ``i0``."""
    return bind(bessel_i, (x,), {"order": 0})


if hasattr(np, "matvec"):  # NumPy 2.2
    UFUNC_FUNCTIONS[np.matvec] = lambda a, x: np.matmul(a, np.expand_dims(x, -1))[..., 0]
    UFUNC_FUNCTIONS[np.vecmat] = lambda x, a: np.matmul(np.expand_dims(np.conjugate(x), -2), a)[..., 0, :]
