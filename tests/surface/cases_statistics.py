"""Calls of functions of samples: covariances, membership, dtypes, polynomials fitted and made of roots."""

import numpy as np
from surface_cases import Case, apart, normal

X, Y, V = normal(3, 5), normal(5, seed=1), normal(4)
COUNTS, WEIGHTS = np.array([1, 2, 1, 3, 1]), np.array([0.5, 1.0, 2.0, 1.0, 0.3])
POINTS = np.array([-1.0, -0.4, 0.1, 0.7, 1.5])

CASES = [
    Case("cov", np.cov, (X,)),
    Case("cov", lambda x: np.cov(x, rowvar=False, bias=True), (X,)),
    Case("cov", lambda x, y: np.cov(x, y, ddof=2), (X, Y)),
    Case("cov", np.cov, (Y,)),
    Case("cov", lambda x: np.cov(x, fweights=COUNTS), (X,)),
    Case("cov", lambda x: np.cov(x, fweights=COUNTS, aweights=WEIGHTS), (X,)),
    Case("cov", lambda x: np.cov(x, aweights=WEIGHTS, ddof=0), (X,)),
    Case("cov", lambda x: np.cov(x, dtype=np.float32), (X,), 0),
    Case("corrcoef", np.corrcoef, (X,)),
    Case("corrcoef", np.corrcoef, (X * (1 + 0.5j) + normal(3, 5, seed=2) * 1j,)),
    Case("corrcoef", lambda x, y: np.corrcoef(x, y, rowvar=False), (X.T, Y)),
    Case("corrcoef", np.corrcoef, (Y,), 0),
    Case("can_cast", lambda x: x * np.can_cast(x, np.float64), (X,)),
    Case("common_type", lambda x: x.astype(np.common_type(x, X[0].astype(np.float16))), (X,)),
    Case("einsum_path", lambda x: x * len(np.einsum_path("ij,kj,kl", x, x, x)[0]), (X,)),
    Case("sort_complex", lambda x: np.real(np.sort_complex(x)), (apart(5),)),
    Case("isin", lambda x: np.isin(x, [X[0, 0], X[1, 1], 3.0]), (X,), 0),
    Case("isin", lambda x: np.isin(x, x[0], invert=True), (apart(2, 3),), 0),
    Case("isin", lambda x: np.isin([1.0, 2.0], x), (V,), 0),
    Case("isin", lambda x: np.isin(x, []), (V,), 0),
    Case("poly", np.poly, (V,)),
    Case("poly", lambda x: np.poly([x, 2.0, -x]), (np.array(0.3),)),
    Case("polydiv", np.polydiv, (np.array([2.0, -1.0, 0.5, 3.0]), np.array([0.5, 1.5])), jit=False, vmap=False),
    Case("polydiv", lambda v: np.polydiv([1.0, 2.0], v), (np.array([0.5, 1.5, 2.0]),), jit=False, vmap=False),
    Case("roots", lambda p: np.sort(np.real(np.roots(p))), (np.array([1.0, -1.2, -2.3]),), jit=False, vmap=False),
    Case("roots", lambda p: np.abs(np.roots(p)), (np.array([1.0, 0.3, 2.0]),), jit=False, vmap=False),
    Case("roots", lambda p: np.roots(p), (V[:1],), jit=False, vmap=False),
    Case("roots", lambda p: np.sort(np.real(np.roots(p))), (np.array([1.0, -1.2, -2.3, 0]),), jit=False, vmap=False),
    Case("polyfit", lambda x, y: np.polyfit(x, y, 2), (POINTS, Y)),
    Case("polyfit", lambda x, y: np.polyfit(x, y, 1, w=WEIGHTS), (POINTS, X.T)),
]
