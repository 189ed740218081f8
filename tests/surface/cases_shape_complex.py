"""Calls of functions of shapes and neighbours on complex numbers."""

import numpy as np
from surface_cases import Case, known, normal

X, V = normal(2, 3) + 1j * normal(2, 3, seed=1), normal(4) - 1j * normal(4, seed=1)
W = normal(3) + 1j * normal(3, seed=2)
POINTS = np.array([-1.0, 0.3, 0.5, 2.0])

ALWAYS = [
    Case("tile", lambda x: np.tile(x, (2, 1)), (X,)),
    Case("roll", lambda x: np.roll(x, (1, 1), (0, 1)), (X,)),
    Case("rot90", np.rot90, (X,)),
    Case("pad", lambda x: np.pad(x, 2, "reflect", reflect_type="odd"), (X,)),
    Case("pad", lambda x: np.pad(x, 2, "mean"), (X,)),
    Case("pad", lambda x: np.pad(x, 2, "linear_ramp", end_values=1j), (X,)),
    Case("pad", lambda x: np.pad(x, 1, constant_values=(1j, 2.0)), (X,)),
    Case("diff", lambda x: np.diff(x, prepend=1j), (X,)),
    Case("ediff1d", np.ediff1d, (X,)),
    Case("gradient", lambda x: np.gradient(x, 0.5, edge_order=2, axis=1), (X,)),
    Case("gradient", lambda v, p: np.gradient(v, p), (V, POINTS)),
    Case("trapezoid", lambda v, p: np.trapezoid(v, p), (V, POINTS)),
    Case("interp", lambda x, p, v: np.interp(x, p, v), (np.array([-2.0, 0.4, 1.0]), POINTS, V)),
    Case("convolve", np.convolve, (V, W)),
    Case("convolve", lambda v: np.convolve(v, [1.0, 2.0]), (V,)),
    Case("correlate", lambda v, w: np.correlate(v, w, "full"), (V, W)),
    Case("correlate", lambda v, w: np.correlate(w, v, "same"), (V, W)),
    Case("cross", np.cross, (X, W)),
    Case("kron", np.kron, (X, W)),
    Case("outer", np.outer, (V, W)),
    Case("inner", np.inner, (X, W)),
    Case("vdot", np.vdot, (W, W[::-1].copy())),
    Case("vecdot", np.vecdot, (X, W)),
    Case("einsum", lambda x, w: np.einsum("ij,j->i", x, w), (X, W)),
    Case("einsum", lambda x: np.einsum("ij,kj", x, np.conj(x)), (X,)),
    Case("select", lambda x: np.select([np.real(x) > 0], [x * x], 1j), (X,)),
    Case("nan_to_num", lambda x: np.nan_to_num(x), (X,)),
    Case("vander", np.vander, (W,)),
    Case("polyval", np.polyval, (W, X)),
    Case("trace", np.trace, (X,)),
    Case("tril", np.tril, (X,)),
    Case("take_along_axis", lambda x: np.take_along_axis(x, np.array([[0], [2]]), 1), (X,)),
    Case("insert", lambda x, w: np.insert(x, 1, w, axis=0), (X, W)),
    Case("linspace", lambda w: np.linspace(w, 1.0, 4), (W,)),
]

#: Calls that the oldest releases of NumPy do not know.
LATER = [
    Case("matvec", lambda x, w: np.matvec(x, w), (X, W)),
    Case("vecmat", lambda w, x: np.vecmat(w, x), (W, X.T.copy())),
    Case("unstack", lambda x: np.unstack(x), (X,)),
]

CASES = [*ALWAYS, *filter(known, LATER)]
