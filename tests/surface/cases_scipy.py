"""Calls of the ufuncs of SciPy, where it is installed."""

import importlib.util

import numpy as np
from surface_cases import Case, between, normal

X = np.array([[-2.1, -0.6, 0.3], [0.9, 1.7, 3.2]])
POSITIVE = np.array([[0.2, 0.7, 1.3], [2.4, 5.1, 9.7]])
UNIT = np.array([[0.02, 0.2, 0.41], [0.55, 0.8, 0.97]])
A, B = between(0.5, 3.0, 2, 3, seed=1), between(0.5, 3.0, 3, seed=2)
CASES: list[Case] = []

UNARY = {
    "erf": X, "erfc": X, "erfi": X / 2, "erfinv": 2 * UNIT - 1, "erfcinv": 2 * UNIT, "erfcx": X, "dawsn": X,
    "ndtr": X, "ndtri": UNIT, "log_ndtr": X * 2, "ndtri_exp": np.log(UNIT), "expit": X, "logit": UNIT, "log_expit": X,
    "gammaln": POSITIVE, "loggamma": POSITIVE, "gamma": X, "rgamma": X, "psi": POSITIVE, "digamma": X,
    "gammasgn": X, "entr": POSITIVE, "expm1": X, "log1p": POSITIVE, "exp2": X, "exp10": X, "cbrt": POSITIVE,
    "cosm1": X, "exprel": X, "exp1": POSITIVE, "expi": POSITIVE, "round": X,
    "i0": X, "i0e": X, "i1": X, "i1e": X, "j0": X, "j1": X, "y0": POSITIVE, "y1": POSITIVE, "k0": POSITIVE,
    "k1": POSITIVE, "k0e": POSITIVE, "k1e": POSITIVE,
}  # fmt: skip
BINARY = {
    "beta": (A, B), "betaln": (A, B), "xlogy": (A, B), "xlog1py": (A, B), "rel_entr": (A, B), "kl_div": (A, B),
    "huber": (A, 3 * normal(3)), "pseudo_huber": (A, 3 * normal(3)), "poch": (A, B), "binom": (A + 4, B),
    "powm1": (A, B),
}  # fmt: skip
FLAT = {"gammasgn", "round"}
#: Functions whose first argument has no derivative, and a value for it.
ORDERED = {
    "jv": 2,
    "yv": 1,
    "iv": 1.5,
    "kv": 2,
    "yn": 1,
    "kn": 0,
    "ive": 1,
    "kve": 2,
    "zeta": 2.5,
    "gammainc": 1.7,
    "gammaincc": 1.7,
}

if importlib.util.find_spec("scipy"):
    import scipy.special as sp

    for name, x in UNARY.items():
        f, order = getattr(sp, name), 0 if name in FLAT else 2
        CASES += [Case(f"scipy.special.{name}", f, (x,), order), Case(f"scipy.special.{name}", f, (x[0, 2],), order)]
    for name, (x, y) in BINARY.items():
        f = getattr(sp, name)
        CASES += [
            Case(f"scipy.special.{name}", f, (x, y)),
            Case(f"scipy.special.{name}", lambda x, f=f: f(x, 1.3), (x,)),
        ]
    CASES += [
        Case(f"scipy.special.{name}", lambda x, name=name, v=number: getattr(sp, name)(v, x), (POSITIVE / 2,))
        for name, number in ORDERED.items()
    ]
    CASES += [
        Case("scipy.special.betainc", lambda x: sp.betainc(1.5, 2.5, x), (UNIT,)),
        Case("scipy.special.betaincc", lambda x: sp.betaincc(1.5, 2.5, x), (UNIT,)),
        Case("scipy.special.betaincinv", lambda y: sp.betaincinv(1.5, 2.5, y), (UNIT,)),
        Case("scipy.special.gammaincinv", lambda y: sp.gammaincinv(1.5, y), (UNIT,)),
        Case("scipy.special.sinc", sp.sinc, (X,)),
    ]
    if hasattr(sp, "softplus"):
        CASES.append(Case("scipy.special.softplus", sp.softplus, (X,)))
