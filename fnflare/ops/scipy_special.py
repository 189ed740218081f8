"""The ufuncs of ``scipy.special`` on tracers: imported when a tracer meets one of them, and then SciPy is there.

Where an operation of ours computes the same it serves, and compiles; elsewhere SciPy's ufunc is the kernel of a
primitive and its derivative is written with such primitives again, to any order. Arguments by which there is no
derivative in closed form (the order of a Bessel function) have none, and say so.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.special as sp
from scipy.special import _ufuncs

from fnflare.core import Primitive, bind, dtype_of, primitive
from fnflare.core.tracer import UFUNC_FUNCTIONS
from fnflare.ops.elementwise import convert, primitive_of
from fnflare.ops.special import erf, logistic, softplus
from fnflare.ops.ufuncs import composed

__all__: list[str] = []

_SQRT_PI = math.sqrt(math.pi)
_SQRT_2PI = math.sqrt(2 * math.pi)


def _special(ufunc: Any, name: str = "", *, differentiable: bool = True) -> Primitive:
    """The primitive of a ufunc of SciPy's, under SciPy's name."""
    name = f"scipy.special.{name or ufunc.__name__}"
    prim = primitive(name, ufunc, ufunc=ufunc, differentiable=differentiable)
    prim.cost(lambda ans, *avals: 30 * ans.size)
    if ufunc.nin == 1:
        # SciPy knows no half precision: it is converted before, so that its gradient is converted back.
        wide = ufunc.resolve_dtypes((np.dtype(np.float16), None))[0]
        UFUNC_FUNCTIONS[ufunc] = lambda x: bind(prim, (convert(x, wide) if dtype_of(x) == np.float16 else x,))
    else:  # SciPy's ufuncs may let a Python number decide that they compute in float64
        composed(ufunc)(prim)
    return prim


# -- those that are here already ----------------------------------------------------------------

composed(sp.erf)(erf)
composed(sp.expit)(logistic)
composed(sp.log_expit)(lambda x: -softplus(-x))
for _theirs, _ours in ((sp.expm1, np.expm1), (sp.log1p, np.log1p), (sp.exp2, np.exp2), (sp.cbrt, np.cbrt)):
    composed(_theirs)(primitive_of(_ours))
composed(sp.exp10)(lambda x: np.power(10.0, x))
composed(sp.cosm1)(lambda x: -2 * np.square(np.sin(0.5 * x)))
composed(sp.round)(np.rint)

# -- the error function and the normal distribution ---------------------------------------------

_special(sp.erfc).derivative(lambda ct, _ans, x: ct * (-2 / _SQRT_PI * np.exp(-x * x)))
_special(sp.erfi).derivative(lambda ct, _ans, x: ct * (2 / _SQRT_PI * np.exp(x * x)))
_special(sp.erfinv).derivative(lambda ct, ans, _x: ct * (_SQRT_PI / 2 * np.exp(ans * ans)))
_special(sp.erfcinv).derivative(lambda ct, ans, _x: ct * (-_SQRT_PI / 2 * np.exp(ans * ans)))
_special(sp.dawsn).derivative(lambda ct, ans, x: ct * (1 - 2 * x * ans))


def _erfcx_rule(ct: Any, ans: Any, x: Any) -> Any:
    # 2 x erfcx(x) - 2 / sqrt(pi) cancels for large x; there the asymptotic series of the difference takes over.
    large = x > 12
    inverse = 0.5 / np.square(np.where(large, x, 12.0))
    series = np.zeros_like(inverse)
    for k in range(12, 0, -1):
        series = -(2 * k - 1) * inverse * (1 + series)
    return ct * np.where(large, 2 / _SQRT_PI * series, 2 * np.where(large, 0.0, x * ans) - 2 / _SQRT_PI)


_special(sp.erfcx).derivative(_erfcx_rule)

_special(sp.ndtr).derivative(lambda ct, _ans, x: ct * (np.exp(-0.5 * x * x) / _SQRT_2PI))
_special(sp.ndtri).derivative(lambda ct, ans, _x: ct * (_SQRT_2PI * np.exp(0.5 * ans * ans)))
_special(sp.ndtri_exp).derivative(lambda ct, ans, y: ct * (_SQRT_2PI * np.exp(y + 0.5 * ans * ans)))


def _log_ndtr_rule(ct: Any, _ans: Any, x: Any) -> Any:
    # Density over distribution, both of which vanish far to the left: their scaled ratio does not.
    right = x > 0
    above, below = np.where(right, x, 0.0), np.where(right, 0.0, x)
    ratio = np.exp(-0.5 * above * above) / _SQRT_2PI / sp.ndtr(above)
    return ct * np.where(right, ratio, math.sqrt(2 / math.pi) / sp.erfcx(-math.sqrt(0.5) * below))


_special(sp.log_ndtr).derivative(_log_ndtr_rule)
_special(sp.logit).derivative(lambda ct, _ans, x: ct / (x * (1 - x)))

# -- the gamma function and its kin -------------------------------------------------------------

zeta = _special(_ufuncs._zeta, "zeta")
zeta.derivative(None, lambda ct, _ans, s, q: ct * (-s * _ufuncs._zeta(s + 1, q)))

_special(sp.psi).derivative(lambda ct, _ans, x: ct * _ufuncs._zeta(2.0, x))
_special(sp.gammaln).derivative(lambda ct, _ans, x: ct * sp.psi(x))
_special(sp.loggamma).derivative(lambda ct, _ans, x: ct * sp.psi(x))
_special(sp.gamma).derivative(lambda ct, ans, x: ct * (ans * sp.psi(x)))
_special(sp.rgamma).derivative(lambda ct, ans, x: -ct * (ans * sp.psi(x)))
_special(sp.gammasgn, differentiable=False)
_special(sp.beta).derivative(
    lambda ct, ans, a, b: ct * ans * (sp.psi(a) - sp.psi(a + b)),
    lambda ct, ans, a, b: ct * ans * (sp.psi(b) - sp.psi(a + b)),
)
_special(sp.betaln).derivative(
    lambda ct, _ans, a, b: ct * (sp.psi(a) - sp.psi(a + b)),
    lambda ct, _ans, a, b: ct * (sp.psi(b) - sp.psi(a + b)),
)
_special(sp.poch).derivative(
    lambda ct, ans, z, m: ct * ans * (sp.psi(z + m) - sp.psi(z)),
    lambda ct, ans, z, m: ct * ans * sp.psi(z + m),
)
_special(sp.binom).derivative(
    lambda ct, ans, n, k: ct * ans * (sp.psi(n + 1) - sp.psi(n - k + 1)),
    lambda ct, ans, n, k: ct * ans * (sp.psi(n - k + 1) - sp.psi(k + 1)),
)


def _gamma_density(a: Any, x: Any) -> Any:
    return np.exp(sp.xlogy(a - 1, x) - x - sp.gammaln(a))


def _beta_density(a: Any, b: Any, x: Any) -> Any:
    return np.exp(sp.xlogy(a - 1, x) + sp.xlog1py(b - 1, -x) - sp.betaln(a, b))


_special(sp.gammainc).derivative(None, lambda ct, _ans, a, x: ct * _gamma_density(a, x))
_special(sp.gammaincc).derivative(None, lambda ct, _ans, a, x: -ct * _gamma_density(a, x))
_special(sp.gammaincinv).derivative(None, lambda ct, ans, a, _y: ct / _gamma_density(a, ans))
_special(sp.betainc).derivative(None, None, lambda ct, _ans, a, b, x: ct * _beta_density(a, b, x))
_special(sp.betaincc).derivative(None, None, lambda ct, _ans, a, b, x: -ct * _beta_density(a, b, x))
_special(sp.betaincinv).derivative(None, None, lambda ct, ans, a, b, _y: ct / _beta_density(a, b, ans))

# -- entropies and losses -----------------------------------------------------------------------


@composed(sp.xlogy)
def xlogy(x: Any, y: Any) -> Any:
    """``x * log(y)``, 0 where x is; the derivative is 0 as well where x is 0 and y has no logarithm."""
    void = (x == 0) & ~((y > 0) & (y < np.inf)) & ~np.isnan(y)
    return np.where(void, 0.0, x) * np.log(np.where(void, 1.0, y))


@composed(sp.xlog1py)
def xlog1py(x: Any, y: Any) -> Any:
    """``x * log1p(y)``, 0 where x is; the derivative is 0 as well where x is 0 and 1 + y has no logarithm."""
    void = (x == 0) & ~((y > -1) & (y < np.inf)) & ~np.isnan(y)
    return np.where(void, 0.0, x) * np.log1p(np.where(void, 0.0, y))


_special(sp.entr).derivative(lambda ct, _ans, x: ct * (-np.log(x) - 1))
_special(sp.rel_entr).derivative(lambda ct, _ans, x, y: ct * (np.log(x / y) + 1), lambda ct, _ans, x, y: ct * (-x / y))
_special(sp.kl_div).derivative(lambda ct, _ans, x, y: ct * np.log(x / y), lambda ct, _ans, x, y: ct * (1 - x / y))


@composed(sp.huber)
def huber(delta: Any, r: Any) -> Any:
    """Half the square within `delta`, a line outside; infinite for a negative `delta`."""
    size = np.abs(r)
    loss = np.where(size <= delta, 0.5 * r * r, delta * (size - 0.5 * delta))
    return np.where(delta < 0, np.inf, loss)


@composed(sp.pseudo_huber)
def pseudo_huber(delta: Any, r: Any) -> Any:
    """``delta**2 * (sqrt(1 + (r / delta)**2) - 1)``; infinite for a negative `delta`."""
    none = (delta == 0) | (r == 0) & ~np.isfinite(delta)
    steep = np.where(none, 1.0, delta)
    loss = steep * steep * np.expm1(0.5 * np.log1p(np.square(r / steep)))
    return np.where(delta < 0, np.inf, np.where(none, 0.0, loss))


# -- exponential integrals and their kin --------------------------------------------------------

_special(sp.exp1).derivative(lambda ct, _ans, x: ct * (-np.exp(-x) / x))
_special(sp.expi).derivative(lambda ct, _ans, x: ct * (np.exp(x) / x))
_special(sp.powm1).derivative(
    lambda ct, _ans, x, y: ct * (y * np.power(x, y - 1)), lambda ct, ans, x, _y: ct * ((ans + 1) * np.log(x))
)


def _exprel_rule(ct: Any, ans: Any, x: Any) -> Any:
    # (exp(x) - exprel(x)) / x cancels near 0; its series there is that of exprel, term by term.
    near = np.abs(x) < 1
    z = np.where(near, x, 0.0)
    series = np.zeros_like(z)
    for k in range(24, 0, -1):
        series = series * z + k / math.factorial(k + 1)
    far = np.where(near, 1.0, x)
    return ct * np.where(near, series, (np.exp(far) - np.where(near, 0.0, ans)) / far)


_special(sp.exprel).derivative(_exprel_rule)

# -- Bessel functions, whose derivatives are those of the orders below and above --------------------

_special(sp.jv).derivative(None, lambda ct, _ans, v, x: ct * (0.5 * (sp.jv(v - 1, x) - sp.jv(v + 1, x))))
_special(sp.yv).derivative(None, lambda ct, _ans, v, x: ct * (0.5 * (sp.yv(v - 1, x) - sp.yv(v + 1, x))))
_special(sp.iv).derivative(None, lambda ct, _ans, v, x: ct * (0.5 * (sp.iv(v - 1, x) + sp.iv(v + 1, x))))
_special(sp.kv).derivative(None, lambda ct, _ans, v, x: ct * (-0.5 * (sp.kv(v - 1, x) + sp.kv(v + 1, x))))
_special(sp.ive).derivative(
    None, lambda ct, ans, v, x: ct * (0.5 * (sp.ive(v - 1, x) + sp.ive(v + 1, x)) - np.sign(x) * ans)
)
_special(sp.kve).derivative(None, lambda ct, ans, v, x: ct * (ans - 0.5 * (sp.kve(v - 1, x) + sp.kve(v + 1, x))))

# The same for orders that are integers, by SciPy's other names.
_special(sp.yn).derivative(None, lambda ct, _ans, n, x: ct * (0.5 * (sp.yn(n - 1, x) - sp.yn(n + 1, x))))
_special(sp.kn).derivative(None, lambda ct, _ans, n, x: ct * (-0.5 * (sp.kn(abs(n - 1), x) + sp.kn(n + 1, x))))

_special(sp.j0).derivative(lambda ct, _ans, x: -ct * sp.j1(x))
_special(sp.j1).derivative(lambda ct, _ans, x: ct * (0.5 * (sp.j0(x) - sp.jv(2.0, x))))
_special(sp.y0).derivative(lambda ct, _ans, x: -ct * sp.y1(x))
_special(sp.y1).derivative(lambda ct, _ans, x: ct * (0.5 * (sp.y0(x) - sp.yv(2.0, x))))
_special(sp.i0).derivative(lambda ct, _ans, x: ct * sp.i1(x))
_special(sp.i1).derivative(lambda ct, _ans, x: ct * (0.5 * (sp.i0(x) + sp.iv(2.0, x))))
_special(sp.i0e).derivative(lambda ct, ans, x: ct * (sp.i1e(x) - np.sign(x) * ans))
_special(sp.i1e).derivative(lambda ct, ans, x: ct * (0.5 * (sp.i0e(x) + sp.ive(2.0, x)) - np.sign(x) * ans))
_special(sp.k0).derivative(lambda ct, _ans, x: -ct * sp.k1(x))
_special(sp.k1).derivative(lambda ct, _ans, x: ct * (-0.5 * (sp.k0(x) + sp.kv(2.0, x))))
_special(sp.k0e).derivative(lambda ct, ans, x: ct * (ans - sp.k1e(x)))
_special(sp.k1e).derivative(lambda ct, ans, x: ct * (ans - 0.5 * (sp.k0e(x) + sp.kve(2.0, x))))
