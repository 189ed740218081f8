"""The ufuncs of SciPy on tracers: their derivatives against mpmath, at hard points too, and what refuses tracers.

That they batch, compile around and keep float32 is held by the calls in `tests/surface/cases_scipy.py`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import mpmath
import numpy as np
import pytest

import fnflare as ff
from fnflare.core import primitives
from fnflare.errors import TracerArrayError, UnsupportedError

sp = pytest.importorskip("scipy.special")
mp = mpmath.mp
_alone = threading.Lock()  # the precision is that of the process

ORDINARY = (0.3, 0.8, 1.7, 4.2)
BOTH_SIDES = (-3.1, -0.6, 0.2, 1.7, 4.2)
UNIT = (0.03, 0.4, 0.55, 0.97)


def _ndtri(p: Any) -> Any:
    return -mpmath.sqrt(2) * _erfcinv(2 * p)


def _erfcinv(y: Any) -> Any:
    return mpmath.erfinv(1 - y)


def _xlogy(x: Any, y: Any) -> Any:
    return x * mpmath.log(y)


#: What mpmath computes, and where; the exact meaning of SciPy's functions.
UNARY: dict[str, tuple[Any, tuple[float, ...]]] = {
    "erf": (mpmath.erf, BOTH_SIDES),
    "erfc": (mpmath.erfc, (*BOTH_SIDES, 8.0)),
    "erfcx": (lambda x: mpmath.exp(x * x) * mpmath.erfc(x), (*BOTH_SIDES, 11.9, 12.1, 1e4)),
    "erfi": (mpmath.erfi, BOTH_SIDES),
    "erfinv": (mpmath.erfinv, (-0.9, -0.2, 0.1, 0.7)),
    "erfcinv": (_erfcinv, (0.1, 0.7, 1.3)),
    "dawsn": (lambda x: mpmath.sqrt(mpmath.pi) / 2 * mpmath.exp(-x * x) * mpmath.erfi(x), BOTH_SIDES),
    "ndtr": (mpmath.ncdf, (*BOTH_SIDES, -12.0)),
    "ndtri": (_ndtri, UNIT),
    "log_ndtr": (lambda x: mpmath.log(mpmath.ncdf(x)), (*BOTH_SIDES, -30.0, -1e3, 9.0)),
    "ndtri_exp": (lambda y: _ndtri(mpmath.exp(y)), (-5.0, -0.7, -0.05)),
    "expit": (lambda x: 1 / (1 + mpmath.exp(-x)), (*BOTH_SIDES, -40.0)),
    "logit": (lambda x: mpmath.log(x / (1 - x)), UNIT),
    "log_expit": (lambda x: -mpmath.log1p(mpmath.exp(-x)), (*BOTH_SIDES, 40.0)),
    "gammaln": (lambda x: mpmath.log(abs(mpmath.gamma(x))), (*ORDINARY, 30.0)),
    "loggamma": (mpmath.loggamma, (*ORDINARY, 30.0)),
    "gamma": (mpmath.gamma, (*ORDINARY, -0.6, -1.3)),
    "rgamma": (mpmath.rgamma, (*ORDINARY, -0.6, -1.3)),
    "psi": (mpmath.digamma, (*ORDINARY, -0.6, -1.3)),
    "entr": (lambda x: -x * mpmath.log(x), ORDINARY),
    "cosm1": (lambda x: mpmath.cos(x) - 1, (*BOTH_SIDES, 1e-9)),
    "exprel": (lambda x: mpmath.expm1(x) / x, (*BOTH_SIDES, 1e-9, -1e-5, 1.001, 50.0, -50.0)),
    "exp1": (mpmath.e1, ORDINARY),
    "expi": (mpmath.ei, (*ORDINARY, -2.0)),
    "exp10": (lambda x: mpmath.mpf(10) ** x, BOTH_SIDES),
    "i0": (lambda x: mpmath.besseli(0, x), (*BOTH_SIDES, 1e-4)),
    "i1": (lambda x: mpmath.besseli(1, x), (*BOTH_SIDES, 1e-4)),
    "i0e": (lambda x: mpmath.exp(-abs(x)) * mpmath.besseli(0, x), (*BOTH_SIDES, 50.0)),
    "i1e": (lambda x: mpmath.exp(-abs(x)) * mpmath.besseli(1, x), (*BOTH_SIDES, 50.0)),
    "j0": (lambda x: mpmath.besselj(0, x), BOTH_SIDES),
    "j1": (lambda x: mpmath.besselj(1, x), (*BOTH_SIDES, 1e-4)),
    "y0": (lambda x: mpmath.bessely(0, x), (0.8, 4.2)),
    "y1": (lambda x: mpmath.bessely(1, x), (0.8, 4.2)),
    "k0": (lambda x: mpmath.besselk(0, x), (0.8, 4.2)),
    "k1": (lambda x: mpmath.besselk(1, x), (0.8, 4.2)),
    "k0e": (lambda x: mpmath.exp(x) * mpmath.besselk(0, x), (0.8, 4.2)),
    "k1e": (lambda x: mpmath.exp(x) * mpmath.besselk(1, x), (0.8, 4.2)),
}
BINARY: dict[str, tuple[Any, float, float]] = {
    "beta": (mpmath.beta, 1.3, 2.2),
    "betaln": (lambda a, b: mpmath.log(mpmath.beta(a, b)), 1.3, 2.2),
    "xlogy": (_xlogy, 1.3, 0.4),
    "xlog1py": (lambda x, y: x * mpmath.log1p(y), 1.3, 0.4),
    "rel_entr": (lambda x, y: x * mpmath.log(x / y), 1.3, 0.4),
    "kl_div": (lambda x, y: x * mpmath.log(x / y) - x + y, 1.3, 0.4),
    "huber": (lambda d, r: r * r / 2 if abs(r) <= d else d * (abs(r) - d / 2), 1.3, 2.5),
    "pseudo_huber": (lambda d, r: d * d * (mpmath.sqrt(1 + (r / d) ** 2) - 1), 1.3, 2.5),
    "poch": (mpmath.rf, 1.3, 2.5),
    "binom": (mpmath.binomial, 4.3, 1.5),
    "powm1": (lambda x, y: mpmath.powm1(x, y), 1.3, 0.4),
}
#: By the last argument alone: what stands before it, and where.
LAST: dict[str, tuple[Any, tuple[float, ...], tuple[float, ...]]] = {
    "zeta": (mpmath.zeta, (2.5,), ORDINARY),
    "jv": (mpmath.besselj, (1.5,), ORDINARY),
    "yv": (mpmath.bessely, (1.5,), ORDINARY),
    "iv": (mpmath.besseli, (1.5,), ORDINARY),
    "kv": (mpmath.besselk, (1.5,), ORDINARY),
    "yn": (mpmath.bessely, (2,), (0.8, 4.2)),
    "kn": (mpmath.besselk, (2,), (0.8, 4.2)),
    "ive": (lambda v, x: mpmath.exp(-abs(x)) * mpmath.besseli(v, x), (1.5,), ORDINARY),
    "kve": (lambda v, x: mpmath.exp(x) * mpmath.besselk(v, x), (1.5,), ORDINARY),
    "gammainc": (lambda a, x: mpmath.gammainc(a, 0, x, regularized=True), (1.7,), ORDINARY),
    "gammaincc": (lambda a, x: mpmath.gammainc(a, x, regularized=True), (1.7,), ORDINARY),
    "betainc": (lambda a, b, x: mpmath.betainc(a, b, 0, x, regularized=True), (1.7, 2.2), UNIT),
    "betaincc": (lambda a, b, x: mpmath.betainc(a, b, x, 1, regularized=True), (1.7, 2.2), UNIT),
}


def _exact(g: Any, x: float, order: int) -> float:
    with _alone, mpmath.workdps(40):
        return float(mpmath.diff(g, mpmath.mpf(x), order))


@pytest.mark.parametrize("name", UNARY)
def test_values_and_derivatives(name: str) -> None:
    g, points = UNARY[name]
    f = getattr(sp, name)
    orders = (f, ff.grad(f), ff.grad(ff.grad(f)), lambda x: ff.jvp(f, (x,), (1.0,))[1])
    for x in points:
        for order, h in zip((0, 1, 2, 1), orders, strict=True):
            np.testing.assert_allclose(h(x), _exact(g, x, order), rtol=2e-11, atol=1e-300, err_msg=f"{name}({x})")


@pytest.mark.parametrize("name", BINARY)
def test_derivatives_by_both_arguments(name: str) -> None:
    g, x, y = BINARY[name]
    f = getattr(sp, name)
    gradient = ff.grad(f, argnums=(0, 1))
    np.testing.assert_allclose(f(x, y), float(g(x, y)), rtol=1e-12)
    np.testing.assert_allclose(ff.vjp(f, x, y)[0], f(x, y), rtol=1e-14)
    expected = _exact(lambda a: g(a, y), x, 1), _exact(lambda b: g(x, b), y, 1)
    np.testing.assert_allclose(gradient(x, y), expected, rtol=1e-11)
    np.testing.assert_allclose(ff.jvp(f, (x, y), (1.0, 2.0))[1], expected[0] + 2 * expected[1], rtol=1e-11)
    second = ff.hessian(f, argnums=1)(x, y)
    np.testing.assert_allclose(second, _exact(lambda b: g(x, b), y, 2), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", LAST)
def test_derivatives_by_the_last_argument(name: str) -> None:
    g, before, points = LAST[name]
    f = getattr(sp, name)
    for x in points:
        h = ff.grad(lambda x: f(*before, x))
        np.testing.assert_allclose(h(x), _exact(lambda x: g(*before, x), x, 1), rtol=1e-10)
        np.testing.assert_allclose(ff.grad(h)(x), _exact(lambda x: g(*before, x), x, 2), rtol=1e-9, atol=1e-12)
    with pytest.raises(UnsupportedError, match=rf"scipy\.special\.{name}: argument 0 has no vjp rule"):
        ff.grad(lambda v: f(v, *before[1:], points[1]))(float(before[0]))


def test_every_primitive_of_scipy_is_held_to_mpmath_or_to_its_inverse() -> None:
    held = {*UNARY, *BINARY, *LAST, "gammasgn", "gammaincinv", "betaincinv"}
    ff.grad(sp.gammaln)(2.0)
    assert {n.removeprefix("scipy.special.") for n in primitives() if n.startswith("scipy.")} <= held


def test_inverses_of_the_incomplete_functions() -> None:
    for y in UNIT:
        slope = 1 / ff.grad(lambda x: sp.gammainc(1.7, x))(sp.gammaincinv(1.7, y))
        np.testing.assert_allclose(ff.grad(lambda y: sp.gammaincinv(1.7, y))(y), slope, rtol=1e-12)
        slope = 1 / ff.grad(lambda x: sp.betainc(1.7, 2.2, x))(sp.betaincinv(1.7, 2.2, y))
        np.testing.assert_allclose(ff.grad(lambda y: sp.betaincinv(1.7, 2.2, y))(y), slope, rtol=1e-12)


@pytest.mark.parametrize("name", ["sinc", "i0"])
def test_functions_of_numpy_that_are_as_special(name: str) -> None:
    g = {"sinc": mpmath.sincpi, "i0": lambda x: mpmath.besseli(0, x)}[name]
    f = getattr(np, name)
    derivative = f
    for order in range(4):
        for x in (-2.5, 1e-9, 1e-3, 0.2, 0.32, 1.4, 12.0, 29.0, 31.0):
            np.testing.assert_allclose(derivative(x), _exact(g, x, order), rtol=1e-9, atol=1e-9, err_msg=f"{x}")
        derivative = ff.grad(derivative)


@pytest.mark.parametrize(
    ("f", "args", "gradient"),
    [
        (sp.xlogy, (0.0, 0.0), (0.0, 0.0)),
        (sp.xlogy, (0.0, 2.0), (np.log(2.0), 0.0)),
        (sp.xlog1py, (0.0, -1.0), (0.0, 0.0)),
        (sp.huber, (1.0, 1.0), (0.0, 1.0)),
        (sp.pseudo_huber, (0.0, 1.0), (0.0, 0.0)),
        (sp.rel_entr, (1.0, 1.0), (1.0, -1.0)),
    ],
)
def test_gradients_at_the_edges(f: Any, args: tuple[float, ...], gradient: tuple[float, ...]) -> None:
    np.testing.assert_array_equal(ff.vjp(f, *args)[0], f(*args))
    np.testing.assert_allclose(ff.grad(f, argnums=(0, 1))(*args), gradient, atol=1e-15)


EDGES = np.array([0.0, 1.0, -1.0, np.inf, np.nan])


@pytest.mark.parametrize("name", ["xlogy", "xlog1py", "huber", "pseudo_huber"])
def test_written_with_others_and_yet_with_scipys_values_at_the_edges(name: str) -> None:
    f = getattr(sp, name)
    x, y = np.meshgrid(EDGES, EDGES)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(ff.vjp(f, x, y)[0], f(x, y))


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: sp.softmax(x), TracerArrayError, r"scipy\.special\.softmax .*ff\.nn\.softmax"),
        (lambda x: sp.log_softmax(x), TracerArrayError, r"scipy\.special\.log_softmax .*ff\.nn\.log_softmax"),
        (lambda x: sp.logsumexp(x), (TracerArrayError, UnsupportedError), r"scipy\.special\.logsumexp .*ff\.nn\.logs"),
        (lambda x: sp.polygamma(1, x), TracerArrayError, r"scipy\.special\.polygamma .*scipy\.special\.zeta"),
        (lambda x: sp.multigammaln(x, 2), TracerArrayError, r"scipy\.special\.multigammaln .*gammaln"),
        (lambda x: sp.expn(1, x), UnsupportedError, r"scipy\.special\.expn has no rule"),
        (lambda x: sp.fresnel(x), UnsupportedError, r"scipy\.special\.fresnel has no rule"),
        (lambda x: sp.lambertw(x), UnsupportedError, r"scipy\.special\.lambertw has no rule"),
        (lambda x: sp.spherical_jn(1, x), (UnsupportedError, TracerArrayError), r"scipy\.special\.a function makes"),
        (lambda x: sp.factorial(x), TracerArrayError, r"scipy\.special\.factorial"),
    ],
)
def test_what_is_not_served_says_so(f: Any, error: Any, message: str) -> None:
    for run in (lambda x: ff.vjp(f, x), lambda x: ff.jit(f)(x), lambda x: ff.jvp(f, (x,), (x,))):
        with pytest.raises(error, match=message):
            run(np.array([0.5, 1.5]))


def test_what_it_is_written_with_instead() -> None:
    x = np.array([0.5, 1.5, -0.25])
    for ours, theirs in (
        (ff.nn.softmax, sp.softmax),
        (ff.nn.log_softmax, lambda x: sp.log_softmax(x)),
        (lambda x: ff.nn.logsumexp(x, axis=0), lambda x: sp.logsumexp(x, axis=0)),
        (lambda x: (-1) ** 3 * sp.gamma(3) * sp.zeta(3, x + 1), lambda x: sp.polygamma(2, x + 1)),
    ):
        np.testing.assert_allclose(ff.vjp(ours, x)[0], theirs(x), rtol=1e-12)


LAZY = """
import sys
import numpy as np
import fnflare as ff
assert "scipy" not in sys.modules
ff.grad(np.sinc)(1.0)
assert "scipy" not in sys.modules
import scipy.special as sp
assert "fnflare.ops.scipy_special" not in sys.modules
assert abs(ff.grad(sp.gammaln)(2.0) - 0.42278433509846713) < 1e-12
assert "fnflare.ops.scipy_special" in sys.modules
"""


def test_scipy_is_served_when_it_is_there_and_never_imported() -> None:
    subprocess.run([sys.executable, "-c", LAZY], check=True)


@pytest.mark.parametrize("f", [sp.erfc, sp.gammaln, sp.ndtr, sp.round, sp.i0e])
def test_half_precision_goes_in_and_comes_back_as_a_gradient(f) -> None:
    """SciPy answers half precision in a wider one; the gradient has the dtype of its argument."""
    x = np.array([0.5, 1.25], np.float16)
    out, pull = ff.vjp(f, x)
    assert out.dtype == f(x).dtype == ff.eval_shape(f, x).dtype
    assert pull(out)[0].dtype == ff.jit(lambda x: ff.vjp(f, x)[1](f(x))[0])(x).dtype == np.float16
