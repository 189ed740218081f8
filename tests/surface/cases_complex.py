"""Calls on complex numbers: parts and phases, arithmetic, and elementwise functions, which are holomorphic."""

from __future__ import annotations

from typing import Any

import numpy as np
from surface_cases import Case, between, normal

#: In the upper right quadrant, where no function has a branch cut, and away from zero.
Z = between(0.3, 1.2, 2, 2) + 1j * between(0.3, 1.2, 2, 2, seed=1)
#: On all sides of zero.
W = np.array([0.4 + 0.7j, -1.1 + 0.3j, -0.5 - 0.9j, 0.8 - 0.2j])
X = between(0.5, 1.5, 2)
I64 = np.complex64(1j)  # a complex scalar of single precision promotes float32 to complex64 and float64 to complex128

HOLOMORPHIC = [
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "square", "reciprocal", "negative", "positive",
    "sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh",
]  # fmt: skip


def _unary(name: str) -> list[Case]:
    return [Case(name, lambda z: getattr(np, name)(z), (Z,)), Case(name, lambda z: getattr(np, name)(z), (Z[0, 0],))]


def _mixed(name: str) -> list[Case]:
    """Complex and complex, complex and real, and with Python's numbers, which promote nothing."""
    f: Any = getattr(np, name)
    return [
        Case(name, lambda x, y: f(x, y), (Z, W[:2])),
        Case(name, lambda x, y: f(x, y), (X, Z)),
        Case(name, lambda x, y: f(x, y), (Z, X)),
        Case(name, lambda z: f(z, 0.5 + 2j), (Z,)),
        Case(name, lambda x: f(0.5 + 2j, x), (X,)),
    ]


CASES = [
    *[case for name in HOLOMORPHIC for case in _unary(name)],
    *[case for name in ("add", "subtract", "multiply", "divide", "power") for case in _mixed(name)],
    Case("power", lambda z: np.power(z, 2), (W,)),
    Case("power", lambda z: np.power(z, np.array([0, 1, 3, -2])), (W,)),
    Case("power", lambda x: np.power(-2.0, x * (1 + 1j)), (X,)),
    Case("arccosh", np.arccosh, (W,)),
    Case("ndarray.__pow__", lambda z: z**2 + z**0.5 * z**-1.5, (Z,)),
    Case("ndarray.__mul__", lambda x: x * 1j + 2j * x - (1 + 1j), (X,)),
    Case("absolute", np.absolute, (W,)),
    Case("absolute", lambda z: abs(z) * z, (W.reshape(2, 2),)),
    Case("sign", np.sign, (W,)),
    Case("sign", np.sign, (normal(3),), order=1),
    Case("real", np.real, (W,)),
    Case("real", np.real, (X,)),
    Case("imag", np.imag, (W,)),
    Case("imag", lambda x: np.imag(x) + x, (X,)),
    Case("ndarray.real", lambda z: z.real * z, (W,)),
    Case("ndarray.imag", lambda z: z.imag * z + z.real.imag, (W,)),
    Case("conjugate", np.conjugate, (W,)),
    Case("conj", lambda z: np.conj(z) * z * z, (W,)),
    Case("conj", lambda x: np.conj(x) * x, (X,)),
    Case("ndarray.conj", lambda z: z.conj() * np.exp(z), (W,)),
    Case("ndarray.conjugate", lambda z: z.conjugate() / z, (W,)),
    Case("angle", np.angle, (W,)),
    Case("angle", lambda z: np.angle(z, deg=True), (W[:, None],)),
    Case("angle", lambda x: np.angle(x) * x + np.angle(-x, True), (X,)),
    Case("iscomplex", np.iscomplex, (np.array([1j, 2, 0]),), order=0),
    Case("iscomplex", np.iscomplex, (X,), order=0),
    Case("isreal", np.isreal, (np.array([1j, 2, 0]),), order=0),
    Case("isreal", np.isreal, (X,), order=0),
    Case("iscomplexobj", lambda z, x: (z if np.iscomplexobj(z) else 1) * (1 if np.iscomplexobj(x) else x[0]), (W, X)),
    Case("isrealobj", lambda z, x: (1 if np.isrealobj(z) else z) * (x[0] if np.isrealobj(x) else 1), (W, X)),
    Case("real_if_close", lambda z: np.real_if_close(z) * 2, (W,), jit=False, vmap=False),
    Case("real_if_close", lambda x: np.real_if_close(x) * x, (X,)),
    Case("real_if_close", lambda z: np.real_if_close(z, 0.5) * 2, (W * 0.4,), jit=False, vmap=False),
    Case("ndarray.astype", lambda x: x.astype(np.complex64) * I64, (X,), order=0),
    Case("where", lambda z, x: np.where(np.array([True, False]), z, x), (Z, X)),
    Case("sum", lambda z: np.sum(z * z, axis=0), (Z,)),
    Case("mean", lambda z: np.mean(np.sin(z), axis=1, keepdims=True), (Z,)),
    Case("prod", lambda z: np.prod(z, axis=0), (Z,)),
    Case("cumsum", lambda z: np.cumsum(z * z), (W,)),
    Case("concatenate", lambda z, x: np.concatenate([z, x, np.ones(1, np.float32)]), (W, X)),
    Case("stack", lambda z, x: np.stack([z[:2], x]), (W, X)),
    Case("matmul", lambda z, x: np.matmul(z, x) + x @ z, (Z, X)),
    Case("dot", lambda z, x: np.dot(z, x), (Z, X)),
    Case("inner", lambda z, w: np.inner(z, w), (W, W * 2j)),
    Case("outer", lambda z, x: np.outer(z, x), (W[:2], X)),
    Case("vdot", lambda z, w: np.vdot(z, w), (Z, W)),
    Case("vdot", lambda x, w: np.vdot(x, w), (X, W[:2])),
    Case("vecdot", lambda z, w: np.vecdot(z, w), (Z, W[:2])),
    Case("tensordot", lambda z, w: np.tensordot(z, w, axes=1), (Z, Z * 2j)),
    Case("einsum", lambda z, x: np.einsum("ij,j->i", z, x), (Z, X)),
    Case("einsum", lambda z, x: np.einsum("ii,j->j", z, x), (Z, X)),
]  # fmt: skip
