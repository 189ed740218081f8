"""Elementwise operations: NumPy's ufuncs with their derivatives, and the few that NumPy lacks.

The derivative of an elementwise operation serves both modes. Broadcasting and promotion are the
trace's affair: a rule here may return anything that broadcasts against the answer.
"""

from __future__ import annotations

import cmath
import math
import operator
from typing import Any

import numpy as np

from fnflare import kernels
from fnflare.core import Primitive, ShapeDtypeStruct, bind, dtype_of, primitive
from fnflare.core.aval import resolvable
from fnflare.core.batch import in_place
from fnflare.core.tracer import UFUNCS, implements
from fnflare.errors import UnsupportedError

__all__ = ["convert", "select"]


def _ufunc(ufunc: Any, kernel: Any = None, *, differentiable: bool = True) -> Primitive:
    """The primitive of a NumPy ufunc, under NumPy's name."""
    prim = primitive(ufunc.__name__, kernel or ufunc, ufunc=ufunc, differentiable=differentiable)
    prim.cost(lambda ans, *avals: ans.size)
    UFUNCS[ufunc] = prim
    return prim


def primitive_of(ufunc: Any) -> Primitive:
    """The primitive that serves a NumPy ufunc."""
    return UFUNCS[ufunc]


# -- arithmetic ---------------------------------------------------------------------------------

add = _ufunc(np.add)
add.derivative(lambda ct, _ans, _x, _y: ct, lambda ct, _ans, _x, _y: ct)

subtract = _ufunc(np.subtract)
subtract.derivative(lambda ct, _ans, _x, _y: ct, lambda ct, _ans, _x, _y: -ct)

multiply = _ufunc(np.multiply)
multiply.derivative(lambda ct, _ans, _x, y: ct * y, lambda ct, _ans, x, _y: ct * x)

divide = _ufunc(np.divide)
divide.derivative(lambda ct, _ans, _x, y: ct / y, lambda ct, ans, _x, y: -ct * ans / y)

negative = _ufunc(np.negative)
negative.derivative(lambda ct, _ans, _x: -ct)

positive = _ufunc(np.positive)
positive.derivative(lambda ct, _ans, _x: ct)

square = _ufunc(np.square)
square.derivative(lambda ct, _ans, x: ct * (2 * x))

reciprocal = _ufunc(np.reciprocal)
reciprocal.derivative(lambda ct, ans, _x: -ct * ans * ans)


def _power_kernel(x: Any, y: Any) -> Any:
    # The operator has fast paths for exponents such as 2 that the ufunc has not.
    return x**y if type(x) is np.ndarray and (type(y) is int or type(y) is float) else np.power(x, y)


power = _ufunc(np.power, _power_kernel)


def _power_base(ct: Any, ans_like: Any, x: Any, y: Any) -> Any:
    if (
        type(y) is int or type(y) is float or type(y) is complex
    ):  # the usual case, x ** 2: no test for zero exponents needed
        return ct * (y * x ** (y - 1)) if y != 0 else ct * np.zeros_like(x)
    # One less, in the dtype of the answer; 0 ** 0 has derivative 0 there, not 0 * 0 ** -1.
    return ct * (y * np.power(x, y - convert((x != 0) | (y != 0), ans_like.dtype)))


def _power_exponent(ct: Any, ans: Any, x: Any, _y: Any) -> Any:
    number = type(x) is int or type(x) is float or type(x) is complex
    if ans.dtype.kind == "c":  # of a negative base there is a complex logarithm
        if number:
            return ct * ans * (cmath.log(x) if x != 0 else 0.0)
        x = convert(x, ans.dtype)
    if number:  # 2 ** y: the logarithm stays a Python number, whose dtype gives way
        return ct * ans * (math.log(x) if x > 0 else 0.0 if x == 0 else math.nan)
    # x ** y is 0 for x = 0 and y > 0, whose derivative in y is 0, not 0 * log(0).
    return ct * ans * np.log(convert(np.where(x == 0, 1, x), ans.dtype))


power.derivative(_power_base, _power_exponent)

remainder = _ufunc(np.remainder)
# Not the floor of x / y, which is rounded: 1 % 0.1 is 1 - 9 * 0.1, while 1 / 0.1 is 10.
remainder.derivative(lambda ct, _ans, _x, _y: ct, lambda ct, _ans, x, y: -ct * np.floor_divide(x, y))

fmod = _ufunc(np.fmod)
fmod.derivative(lambda ct, _ans, _x, _y: ct, lambda ct, ans, x, y: -ct * np.rint((x - ans) / y))

absolute = _ufunc(np.absolute)


def _absolute_vjp(ct: Any, _ans: Any, x: Any) -> Any:
    sign = np.sign(x)
    return ct * (sign if sign.dtype.kind != "c" else np.conjugate(sign))


def _absolute_jvp(t: Any, _ans: Any, x: Any) -> Any:
    sign = np.sign(x)
    return t * sign if sign.dtype.kind != "c" else np.real(t * np.conjugate(sign))


absolute.vjp(_absolute_vjp)
absolute.jvp(_absolute_jvp)

# -- exponentials and logarithms ----------------------------------------------------------------

exp = _ufunc(np.exp, kernels.exp)
exp.derivative(lambda ct, ans, _x: ct * ans)

exp2 = _ufunc(np.exp2)
exp2.derivative(lambda ct, ans, _x: ct * ans * math.log(2.0))

expm1 = _ufunc(np.expm1, kernels.expm1)
expm1.derivative(lambda ct, ans, _x: ct * (ans + 1))

log = _ufunc(np.log, kernels.log)
log.derivative(lambda ct, _ans, x: ct / x)

log2 = _ufunc(np.log2)
log2.derivative(lambda ct, _ans, x: ct / (x * math.log(2.0)))

log10 = _ufunc(np.log10)
log10.derivative(lambda ct, _ans, x: ct / (x * math.log(10.0)))

log1p = _ufunc(np.log1p, kernels.log1p)
log1p.derivative(lambda ct, _ans, x: ct / (1 + x))

sqrt = _ufunc(np.sqrt)
sqrt.derivative(lambda ct, ans, _x: ct * 0.5 / ans)

cbrt = _ufunc(np.cbrt)
cbrt.derivative(lambda ct, ans, _x: ct / (3 * ans * ans))


def _logaddexp_rule(ct: Any, ans: Any, x: Any) -> Any:
    # Where both arguments are the same infinity x - ans would be nan; both shares are then taken as whole.
    same = x == ans
    return ct * np.exp(np.where(same, 0, x) - np.where(same, 0, ans))


logaddexp = _ufunc(np.logaddexp)
logaddexp.derivative(
    lambda ct, ans, x, _y: _logaddexp_rule(ct, ans, x), lambda ct, ans, _x, y: _logaddexp_rule(ct, ans, y)
)


def _logaddexp2_rule(ct: Any, ans: Any, x: Any) -> Any:
    same = x == ans
    return ct * np.exp2(np.where(same, 0, x) - np.where(same, 0, ans))


logaddexp2 = _ufunc(np.logaddexp2)
logaddexp2.derivative(
    lambda ct, ans, x, _y: _logaddexp2_rule(ct, ans, x), lambda ct, ans, _x, y: _logaddexp2_rule(ct, ans, y)
)

hypot = _ufunc(np.hypot)
hypot.derivative(lambda ct, ans, x, _y: ct * (x / ans), lambda ct, ans, _x, y: ct * (y / ans))

# -- trigonometric and hyperbolic ---------------------------------------------------------------

sin = _ufunc(np.sin, kernels.sin)
sin.derivative(lambda ct, _ans, x: ct * np.cos(x))

cos = _ufunc(np.cos, kernels.cos)
cos.derivative(lambda ct, _ans, x: -ct * np.sin(x))

tan = _ufunc(np.tan)
tan.derivative(lambda ct, ans, _x: ct * (1 + ans * ans))

arcsin = _ufunc(np.arcsin)
arcsin.derivative(lambda ct, _ans, x: ct / np.sqrt(1 - x * x))

arccos = _ufunc(np.arccos)
arccos.derivative(lambda ct, _ans, x: -ct / np.sqrt(1 - x * x))

arctan = _ufunc(np.arctan)
arctan.derivative(lambda ct, _ans, x: ct / (1 + x * x))


def _arctan2_rule(ct: Any, x: Any, y: Any) -> Any:
    r = np.hypot(x, y)  # x * x + y * y may overflow or vanish
    return ct * (x / r / r)


arctan2 = _ufunc(np.arctan2)
arctan2.derivative(lambda ct, _ans, y, x: _arctan2_rule(ct, x, y), lambda ct, _ans, y, x: _arctan2_rule(-ct, y, x))

sinh = _ufunc(np.sinh)
sinh.derivative(lambda ct, _ans, x: ct * np.cosh(x))

cosh = _ufunc(np.cosh)
cosh.derivative(lambda ct, _ans, x: ct * np.sinh(x))

tanh = _ufunc(np.tanh, kernels.tanh)
# The factor does not depend on the cotangent: the gradient of a loop makes it for all steps at once.
tanh.derivative(lambda ct, ans, _x: ct * (1 - ans * ans))

arcsinh = _ufunc(np.arcsinh)
arcsinh.derivative(lambda ct, _ans, x: ct / np.sqrt(x * x + 1))

arccosh = _ufunc(np.arccosh)
# Not the root of x * x - 1, which left of the imaginary axis has the other sign.
arccosh.derivative(lambda ct, _ans, x: ct / (np.sqrt(x - 1) * np.sqrt(x + 1)))

arctanh = _ufunc(np.arctanh)
arctanh.derivative(lambda ct, _ans, x: ct / (1 - x * x))

# -- choosing -----------------------------------------------------------------------------------


def _share(x: Any, y: Any, wins: Any) -> Any:
    """The part of the cotangent that x gets of max(x, y) or min(x, y): all, none, or half of a tie."""
    return np.where(x == y, np.asarray(0.5, dtype_of(x)), convert(wins, dtype_of(x)))


maximum = _ufunc(np.maximum)
maximum.derivative(lambda ct, _ans, x, y: ct * _share(x, y, x > y), lambda ct, _ans, x, y: ct * _share(y, x, y > x))

minimum = _ufunc(np.minimum)
minimum.derivative(lambda ct, _ans, x, y: ct * _share(x, y, x < y), lambda ct, _ans, x, y: ct * _share(y, x, y < x))

fmax = _ufunc(np.fmax)
fmax.derivative(
    lambda ct, _ans, x, y: ct * np.where(np.isnan(y), 1, _share(x, y, x > y)),
    lambda ct, _ans, x, y: ct * np.where(np.isnan(x), 1, _share(y, x, y > x)),
)

fmin = _ufunc(np.fmin)
fmin.derivative(
    lambda ct, _ans, x, y: ct * np.where(np.isnan(y), 1, _share(x, y, x < y)),
    lambda ct, _ans, x, y: ct * np.where(np.isnan(x), 1, _share(y, x, y < x)),
)

copysign = _ufunc(np.copysign)
copysign.derivative(
    lambda ct, _ans, x, y: np.where(np.signbit(x) == np.signbit(y), ct, -ct), lambda ct, _ans, _x, _y: np.zeros_like(ct)
)

# The step itself is flat, but what it gives at 0 is the second argument.
heaviside = _ufunc(np.heaviside)
heaviside.derivative(
    lambda ct, _ans, _x, _y: np.zeros_like(ct), lambda ct, _ans, x, _y: np.where(x == 0, ct, np.zeros_like(ct))
)

# One step beside x, wherever x goes; how large the step is does not change but at powers of two.
nextafter = _ufunc(np.nextafter)
nextafter.derivative(lambda ct, _ans, _x, _y: ct, lambda ct, _ans, _x, _y: np.zeros_like(ct))

# The second argument is of integers.
ldexp = _ufunc(np.ldexp)
ldexp.derivative(lambda ct, _ans, _x, n: np.ldexp(ct, n), None)


def _select_dtype(condition: ShapeDtypeStruct, x: ShapeDtypeStruct, y: ShapeDtypeStruct) -> ShapeDtypeStruct:
    shape = np.broadcast_shapes(condition.shape, x.shape, y.shape)
    dtype = np.add.resolve_dtypes((resolvable(x), resolvable(y), None))[-1] if x.dtype != y.dtype else x.dtype
    return ShapeDtypeStruct(shape, dtype)


#: np.where with three arguments.
select = primitive("select", np.where, _select_dtype)
select.elementwise = True
select.derivative(
    None,
    lambda ct, _ans, condition, _x, _y: np.where(condition, ct, np.zeros_like(ct)),
    lambda ct, _ans, condition, _x, _y: np.where(condition, np.zeros_like(ct), ct),
)
select.cost(lambda ans, *avals: ans.size)

# -- dtypes -------------------------------------------------------------------------------------


def _convert(x: Any, *, dtype: Any) -> Any:
    return np.asarray(x).astype(dtype, copy=False)[()]


def _convert_shape(x: ShapeDtypeStruct, *, dtype: Any) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, dtype)


_convert_inexact = primitive("convert", _convert, _convert_shape)
_convert_inexact.vjp(lambda ct, _ans, x_like, *, dtype: _part(ct, x_like.dtype))
_convert_inexact.jvp(lambda t, _ans, _x, *, dtype: _part(t, dtype))
in_place(_convert_inexact)

# To integers and booleans: nothing to differentiate.
_convert_discrete = primitive("convert_discrete", _convert, _convert_shape, differentiable=False)
in_place(_convert_discrete)


def _part(x: Any, dtype: Any) -> Any:
    """`x` in another dtype; of complex numbers, where that is real, the real parts."""
    return convert(np.real(x) if x.dtype.kind == "c" and dtype.kind != "c" else x, dtype)


def convert(x: Any, dtype: Any) -> Any:
    """`x` in another dtype: NumPy's ``astype``."""
    dtype = np.dtype(dtype)
    if dtype.kind in "fc":
        return bind(_convert_inexact, (x,), {"dtype": dtype})
    if dtype.kind not in "biu":
        raise UnsupportedError(
            f"a tracer holds numbers, and cannot be converted to dtype {dtype}, in which its derivative would be lost; "
            "convert ff.stop_gradient(x), the value alone"
        )
    return bind(_convert_discrete, (x,), {"dtype": dtype})


_round = primitive("round", lambda x, decimals: np.round(x, decimals), lambda x, *, decimals: x, differentiable=False)
in_place(_round)


@implements(np.round, np.around)
def round(a: Any, decimals: int = 0, out: Any = None) -> Any:
    """NumPy's ``round``; its derivative is zero."""
    if out is not None:
        raise UnsupportedError("np.round: out= cannot take a tracer; use what the function returns")
    return bind(_round, (a,), {"decimals": operator.index(decimals)})


stop_gradient = primitive("stop_gradient", lambda x: x, lambda x: x, differentiable=False)
in_place(stop_gradient)

# -- operations with derivative zero: comparisons, rounding, tests ------------------------------

for _constant in (
    np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal,
    np.logical_and, np.logical_or, np.logical_not, np.logical_xor,
    np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert, np.left_shift, np.right_shift,
    np.isnan, np.isinf, np.isfinite, np.signbit,
    np.sign, np.floor, np.ceil, np.trunc, np.rint, np.floor_divide, np.spacing, np.gcd, np.lcm, np.bitwise_count,
):  # fmt: skip
    _ufunc(_constant, differentiable=False)
