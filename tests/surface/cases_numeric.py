"""Calls of NumPy's functions of neighbours, products and choices: differences, convolutions, einsum, select and kin."""

import numpy as np
from surface_cases import Case, apart, between, known, normal, quietly

X, Y, CUBE, V, W, S = normal(3, 4), normal(3, 4, seed=1), normal(2, 3, 3), normal(5), normal(3), np.array(0.7)
SQUARE, COMPLEX = normal(3, 3), normal(3) + 1j * normal(3, seed=1)
POINTS, VALUES = np.array([-1.0, 0.3, 0.5, 2.0]), normal(4, seed=3)
MASK = np.array([True, False, True])
WIDE = np.array([-3.0, -0.7, 0.31, 0.4, 1.9, 5.0])

DIFFERENCES = [
    Case("diff", lambda x: np.diff(x), (X,)),
    Case("diff", lambda x: np.diff(x, n=2, axis=0), (X,)),
    Case("diff", lambda x: np.diff(x, 0), (X,)),
    Case("diff", lambda x: np.diff(x, 5), (X,)),
    Case("diff", lambda x, s: np.diff(x, prepend=s, append=2.0), (X, S)),
    Case("diff", lambda x, y: np.diff(x, axis=0, prepend=y[:2], append=[[1, 2, 3, 4]]), (X, Y)),
    Case("diff", lambda x: np.diff(x > 0) * x[:, 1:], (X,)),
    Case("ediff1d", np.ediff1d, (X,)),
    Case("ediff1d", lambda v, w: np.ediff1d(v, to_end=w, to_begin=v[0]), (V, W)),
    Case("ediff1d", lambda v: np.ediff1d(v, 7, [1, 2]), (V,)),
    Case("gradient", np.gradient, (V,)),
    Case("gradient", np.gradient, (X,)),
    Case("gradient", lambda x, s: np.gradient(x, s), (X, S)),
    Case("gradient", lambda x, s: np.gradient(x, s, 2.0, edge_order=2), (X, S)),
    Case("gradient", lambda x, p: np.gradient(x, p, axis=1), (X, POINTS)),
    Case("gradient", lambda x, p: np.gradient(x, p, axis=-1, edge_order=2), (X, POINTS)),
    Case("gradient", lambda x, p, w: np.gradient(x, w, p, edge_order=2), (X, POINTS, np.array([0.1, 0.5, 1.4]))),
    Case("gradient", lambda x: np.gradient(x, [0.0, 0.5, 2.0], np.array([0.0, 1, 2, 3]), axis=(0, 1)), (X,)),
    Case("trapezoid", np.trapezoid, (V,)),
    Case("trapezoid", lambda x, s: np.trapezoid(x, dx=s, axis=0), (X, S)),
    Case("trapezoid", lambda x, p: np.trapezoid(x, p), (X, POINTS)),
    Case("trapezoid", lambda x, y: np.trapezoid(x, y, axis=0), (X, Y)),
    Case("trapezoid", lambda p: np.trapezoid([1.0, 2.0, 4.0, 3.0], p), (POINTS,)),
    Case("unwrap", np.unwrap, (between(-9, 9, 6),)),
    Case("unwrap", lambda x: np.unwrap(x, discont=4.0, axis=0), (between(-9, 9, 4, 2),)),
    Case("unwrap", lambda x: np.unwrap(x, period=1.5, axis=-1), (between(-3, 3, 2, 4),)),
    Case("interp", lambda x, p, v: np.interp(x, p, v), (WIDE, POINTS, VALUES)),
    Case("interp", lambda x, p, v: np.interp(x, p, v, left=-2.0, right=3.0), (WIDE.reshape(2, 3), POINTS, VALUES)),
    Case("interp", lambda x, p, v, s: np.interp(x, p, v, s, 2 * s), (WIDE, POINTS, VALUES, S)),
    Case("interp", lambda x, p, v: np.interp(x, p, v, period=2.6), (WIDE, POINTS, VALUES)),
    Case("interp", lambda s: np.interp(s, [0.0, 1.0], [3.0, 5.0]), (S,)),
    Case("interp", lambda v: np.interp([0.0, 2.0, 2.5], [1.0, 2.0, 2.0, 3.0], v), (VALUES,)),
    Case("interp", lambda x, p, v: np.interp(x, p[:1], v[:1]), (WIDE, POINTS, VALUES)),
]

RANGES = [
    Case("linspace", lambda s, w: np.linspace(s, w, 4), (S, W)),
    Case("linspace", lambda s: np.linspace(0, s, num=5, endpoint=False, retstep=True, axis=-1), (S,)),
    Case("linspace", lambda w: np.linspace(w, 2.0, 3, axis=1, dtype=np.float64), (W,)),
    Case("linspace", lambda s: np.linspace(s, 2.0, 1), (S,)),
    Case("linspace", lambda s: np.linspace(s, 2.0, 0) + s, (S,)),
    Case("logspace", lambda s, w: np.logspace(s, w, 3, base=2), (S, W)),
    Case("logspace", lambda w, v: np.logspace(0.0, w, 4, base=v), (W, between(1, 3, 3))),
    Case("geomspace", lambda s: np.geomspace(s, 9.0, num=4), (S,)),
    Case("geomspace", lambda w: np.geomspace(-w, -0.5, 4, endpoint=False, axis=1), (between(1, 3, 3),)),
]

WINDOWS = [
    Case(name, lambda a, v, f=f, mode=mode: f(a, v, mode), args)
    for name, f in (("convolve", np.convolve), ("correlate", np.correlate))
    for mode in ("full", "same", "valid")
    for args in ((V, W), (W, V), (normal(6), normal(4)), (normal(4), normal(6)))
] + [
    Case("convolve", np.convolve, (V, W)),
    Case("correlate", np.correlate, (V, W)),
    Case("correlate", lambda v, w: np.correlate(v, w, 1), (V, W)),
    Case("convolve", lambda v, s: np.convolve(v, s), (V, S)),
    Case("convolve", lambda v: np.convolve([1, 2, -1], v, mode="same"), (V,)),
]


IN_THE_PLANE = [
    Case("cross", quietly(np.cross), (normal(2), normal(4, 2))),
    Case("cross", quietly(np.cross), (normal(4, 2), normal(3))),
    Case("cross", lambda x, y: quietly(np.cross)(x, y, axis=0), (normal(3, 2), normal(2, 2))),
]

PRODUCTS = [
    Case("cross", np.cross, (SQUARE, normal(3, 3, seed=1))),
    Case("cross", np.cross, (W, CUBE)),
    Case("cross", lambda x, y: np.cross(x, y, axisa=0, axisb=1, axisc=0), (normal(3, 2), normal(2, 3))),
    Case("cross", lambda x, y: np.cross(x, y, axis=0), (normal(3, 2), normal(3, 2, seed=1))),
    Case("kron", np.kron, (normal(2, 2), normal(2, 3))),
    Case("kron", np.kron, (W, normal(2, 1, 2))),
    Case("kron", np.kron, (S, W)),
    Case("kron", lambda v: np.kron([[1, 2]], v), (W,)),
    Case("outer", np.outer, (normal(2, 2), W)),
    Case("outer", lambda v: np.outer(v, [1, 2]), (W,)),
    Case("inner", np.inner, (X, Y)),
    Case("inner", np.inner, (S, W)),
    Case("vdot", np.vdot, (X, Y)),
    Case("dot", np.dot, (X, normal(4))),
    Case("dot", np.dot, (CUBE, normal(2, 3, 2))),
    Case("dot", lambda v: np.dot(v, 2), (W,)),
    Case("ndarray.dot", lambda x, y: x.dot(y.T), (X, Y)),
    Case("tensordot", np.tensordot, (CUBE, normal(3, 3, 2))),
    Case("tensordot", lambda x, y: np.tensordot(x, y, axes=([0, -1], [1, 0])), (CUBE, normal(3, 2))),
    Case("tensordot", lambda x, y: np.tensordot(x, y, 0), (W, W)),
    Case("vecdot", np.vecdot, (X, Y)),
    Case("vecdot", np.vecdot, (CUBE, W)),
    Case("matmul", np.matmul, (CUBE, SQUARE)),
    Case("vander", np.vander, (W,)),
    Case("vander", lambda v: np.vander(v, 4, increasing=True), (np.array([0.0, 1.5, -2.0]),)),
    Case("vander", lambda v: np.vander(v, 0) + np.sum(v), (W,)),
    Case("polyval", np.polyval, (W, X)),
    Case("polyval", lambda s: np.polyval([1, -2, 3], s), (S,)),
    Case("polyadd", np.polyadd, (V, W)),
    Case("polysub", np.polysub, (W, V)),
    Case("polymul", np.polymul, (V, W)),
    Case("polyder", lambda p: np.polyder(p), (V,)),
    Case("polyder", lambda p: np.polyder(p, 2), (V,)),
    Case("polyint", lambda p: np.polyint(p), (V,)),
    Case("polyint", lambda p, w: np.polyint(p, 2, k=w[:2]), (V, W)),
    Case("polyint", lambda p, s: np.polyint(p, 2, k=s), (V, S)),
]

EINSUMS = [
    Case("einsum", lambda x, y: np.einsum("ij,kj->ik", x, y), (X, Y)),
    Case("einsum", lambda x, y: np.einsum("ij,kj", x, y), (X, Y)),
    Case("einsum", lambda x: np.einsum("ii", x), (SQUARE,)),
    Case("einsum", lambda x: np.einsum("ii->i", x), (SQUARE,)),
    Case("einsum", lambda x: np.einsum("...ii", x), (CUBE,)),
    Case("einsum", lambda x, w: np.einsum("...j,j", x, w), (CUBE, W)),
    Case("einsum", lambda x, w: np.einsum("i...,i->...i", x, w), (X, W)),
    Case("einsum", lambda x, y: np.einsum("i j, i j -> j", x, y), (X, Y)),
    Case("einsum", lambda x, y: np.einsum(x, [0, 1], y, [2, 1], [2, 0]), (X, Y)),
    Case("einsum", lambda x, y: np.einsum(x, [30, 1], y, [2, 1]), (X, Y)),
    Case("einsum", lambda x, w: np.einsum(x, [Ellipsis, 5], w, (5,)), (CUBE, W)),
    Case("einsum", lambda x, w: np.einsum(x, [1, ...], w, [1], [..., 1]), (X, W)),
    Case("einsum", lambda x, y: np.einsum("ij,jk,li->lk", x, y, x, optimize=True), (SQUARE, X)),
    Case("einsum", lambda x, w: np.einsum("ij,i,j,->", x, w, w, 2.0, optimize="greedy"), (SQUARE, W)),
    Case(
        "einsum",
        lambda x, w: np.einsum("ij,i,j", x, w, w, optimize=np.einsum_path("ij,i,j", x, w, w)[0]),
        (SQUARE, W),
    ),
    Case("einsum", lambda x: np.einsum("ij->j", x, dtype=np.float64, order="C", casting="safe"), (X,)),
    Case("einsum", lambda x: np.einsum("ij->ji", x, casting="no"), (X,)),
    Case("einsum", lambda x, y: np.einsum("ij,jk->ik", x[:, :1], y), (X, SQUARE)),
    Case("einsum", lambda x, y: np.einsum("ij,jk->ik", x, y[:1]), (X, SQUARE)),
]

CHOICES = [
    Case("select", lambda x, y: np.select([x > 0.5, y > 0], [x * y, y], default=x), (apart(2, 3), apart(2, 3, seed=1))),
    Case("select", lambda x: np.select([x > 0.5, x < -0.5], [x**2, 1], 0.5), (apart(2, 3),)),
    Case("select", lambda x, w: np.select([MASK[:, None]], [w]), (X, normal(4))),
    Case("piecewise", lambda x: np.piecewise(x, [x < 0, x >= 0], [np.exp, lambda t: t**2]), (apart(2, 3),)),
    Case("piecewise", lambda x: np.piecewise(x, [x > 0.1], [np.log, -1.0]), (apart(4),)),
    Case("piecewise", lambda x: np.piecewise(x, [x > 0.5, x < -0.5], [np.log, np.exp, np.square]), (apart(2, 3),)),
    Case(
        "piecewise",
        lambda x: np.piecewise(x, [x > 0, x > 0.5], [lambda t, a, b: b / t, lambda t, a, b: a * t + b], 2.0, b=1),
        (apart(5),),
    ),
    Case("piecewise", lambda x: np.piecewise(x, x > 0, [lambda t: 3 * t, lambda t: -t]), (apart(5),)),
    Case("piecewise", lambda s: np.piecewise(s, [s > 0, s <= 0], [np.sin, np.cos]), (S,)),
    Case("choose", lambda x, y: np.choose([[0, 1, 1, 0]], [x, y]), (X, Y)),
    Case("choose", lambda x: np.choose(np.array([2, 0, 1, 2]), x), (X,)),
    Case("choose", lambda x, s: np.choose([3, -1, 0, 1], (x, s, 2.0), mode="wrap"), (X, S)),
    Case("choose", lambda x, s: np.choose([3, -1, 0, 1], (x, s), mode="clip"), (X, S)),
    Case("choose", lambda x, y: np.choose(np.argmax(np.stack([x, y]), 0), [x, y]), (X, Y)),
    Case("where", lambda x, y: np.where(MASK[:, None], x, y), (X, Y)),
    Case("take", lambda x: np.take(x, [0, -1, 0], axis=1), (X,)),
    Case("take", lambda x: np.take(x, [[3, 11]]), (X,)),
    Case("take", lambda x: np.take(x, [7, -9], axis=0, mode="wrap"), (X,)),
    Case("take", lambda x: np.take(x, [7, -9], axis=0, mode="clip"), (X,)),
    Case("take", lambda x: np.take(x, np.array([], int), 1), (X,)),
    Case("ndarray.take", lambda x: x.take(2, axis=1), (X,)),
    Case("take_along_axis", lambda x: np.take_along_axis(x, np.array([[0, 2], [1, 1], [3, 3]]), axis=1), (X,)),
    Case("take_along_axis", lambda x: np.take_along_axis(x, np.argsort(x, 0), axis=0), (apart(3, 4),)),
    Case("take_along_axis", lambda x: np.take_along_axis(x, np.array([5, 5, 0]), axis=None), (X,)),
    Case("nan_to_num", lambda x: np.nan_to_num(x), (X,)),
    Case("nan_to_num", lambda x: np.nan_to_num(np.where(MASK[:, None], x, np.nan), nan=2.0), (X,)),
    Case("nan_to_num", lambda x: np.nan_to_num(np.where(MASK[:, None], x, np.inf), posinf=1, neginf=-1), (X,)),
    Case("nan_to_num", lambda x: np.nan_to_num(np.where(MASK[:, None], x, -np.inf)) / 1e30, (X,), 0),
    Case("apply_along_axis", lambda x: np.apply_along_axis(np.cumsum, 0, x), (X,)),
    Case("apply_along_axis", lambda x: np.apply_along_axis(np.outer, 1, x, [1.0, 2.0]), (CUBE,)),
    Case("apply_along_axis", lambda x: np.apply_along_axis(lambda r, p: (r**p).sum(), -1, x, p=2), (X,)),
    Case("apply_along_axis", lambda x: np.apply_along_axis(np.sum, 1, x) + np.sum(x), (np.zeros((2, 0)),)),
    Case("apply_over_axes", lambda x: np.apply_over_axes(np.sum, x, [0, -1]), (CUBE,)),
    Case("apply_over_axes", lambda x: np.apply_over_axes(lambda a, i: np.cumsum(a, i), x, 1), (CUBE,)),
]

CASES = [*DIFFERENCES, *RANGES, *WINDOWS, *PRODUCTS, *filter(known, IN_THE_PLANE), *EINSUMS, *CHOICES]
