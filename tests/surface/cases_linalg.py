"""Calls of numpy.linalg, of real and of complex matrices, alone and stacked."""

from __future__ import annotations

from typing import Any

import numpy as np
from surface_cases import OLDEST, Case, apart, known, normal


def complex_normal(*shape: int, seed: int = 0) -> Any:
    """Complex numbers of standard normal parts."""
    return normal(*shape, seed=seed) + 1j * normal(*shape, seed=seed + 1)


def hermitian(x: Any) -> Any:
    """A Hermitian matrix made of any: functions that read one triangle have derivatives among these."""
    return x + np.swapaxes(np.conj(x), -1, -2)


def positive(x: Any) -> Any:
    """A positive definite matrix made of any."""
    return x @ np.swapaxes(np.conj(x), -1, -2) + np.eye(x.shape[-1], dtype=x.dtype)


def products(u: Any, s: Any, vh: Any) -> list[Any]:
    """What depends on no phases of singular vectors, but on the vectors themselves."""
    weights = np.arange(1, s.shape[-1] + 1).astype(s.dtype)
    uw = u * weights
    return [s, uw @ np.conj(np.swapaxes(u, -1, -2)), (uw * s[..., None, :]) @ vh]


def projectors(w: Any, v: Any) -> list[Any]:
    """The same of eigenvectors of Hermitian matrices."""
    return [w, (v * np.arange(1, w.shape[-1] + 1).astype(w.dtype)) @ np.conj(np.swapaxes(v, -1, -2))]


def projector(x: Any) -> Any:
    """What depends on the space that columns span, and not on them."""
    return x @ np.conj(np.swapaxes(x, -1, -2))


def with_complement(q: Any, r: Any) -> list[Any]:
    """A complete QR decomposition, of whose last columns the space alone counts."""
    n = r.shape[-1]
    return [q[..., :n], r, projector(q[..., n:])]


def of_full(u: Any, s: Any, vh: Any) -> list[Any]:
    """The same of a singular value decomposition with full matrices."""
    k = s.shape[-1]
    spaces = [projector(u[..., k:]), projector(np.swapaxes(np.conj(vh), -1, -2)[..., k:])]
    return [*products(u[..., :k], s, vh[..., :k, :]), *spaces]


A = normal(3, 3) + 2 * np.eye(3)
AS = normal(2, 2, 2, seed=3) + 2 * np.eye(2)
TALL = normal(4, 2)
WIDE = normal(2, 4)
C = complex_normal(2, 2) + 2 * np.eye(2)
C3 = complex_normal(3, 3, seed=4)
C_TALL = complex_normal(3, 2)
C_WIDE = complex_normal(2, 3)
B = normal(3)
BS = normal(3, 2)
SINGULAR = np.array([[1.0, 2.0, 0.5], [2.0, 4.0, 1.0], [0.3, -0.7, 1.1]])
ROTATIONS = np.array([[0.3, -1.1, 0.2], [0.9, 0.4, -0.5], [0.1, 0.6, 1.7]])  # two complex eigenvalues and a real one
V = apart(6)
X = apart(3, 4)
CUBE = apart(2, 3, 2)
CV = complex_normal(4, seed=7)

la = np.linalg

INVERSES = [
    Case("linalg.inv", la.inv, (A,)),
    Case("linalg.inv", la.inv, (AS,)),
    Case("linalg.inv", la.inv, (C,)),
    Case("linalg.inv", la.inv, (np.zeros((0, 2, 2)),)),
    Case("linalg.solve", la.solve, (A, B)),
    Case("linalg.solve", la.solve, (A, BS)),
    Case("linalg.solve", la.solve, (AS, normal(2, 2, 1))),
    Case("linalg.solve", la.solve, (AS, normal(2, 1))),
    Case("linalg.solve", la.solve, (AS, normal(2))),
    Case("linalg.solve", la.solve, (A[:2, :2], normal(2, 2, 3))),
    Case("linalg.solve", la.solve, (C, complex_normal(2))),
    Case("linalg.solve", la.solve, (C, normal(2, 1))),
    Case("linalg.solve", lambda b: la.solve([[2, 1], [1, 3]], b), (normal(2),)),
    Case("linalg.pinv", la.pinv, (TALL,)),
    Case("linalg.pinv", la.pinv, (WIDE,)),
    Case("linalg.pinv", la.pinv, (C_TALL,)),
    Case("linalg.pinv", la.pinv, (C_WIDE,)),
    Case("linalg.pinv", lambda a: la.pinv(a, rcond=1e-3), (normal(2, 3, 2),)),
    Case("linalg.pinv", lambda a: la.pinv(a, rtol=np.array([1e-3, 1e-4])), (normal(2, 2, 3),)),
    Case("linalg.pinv", lambda a: la.pinv(a, rtol=None), (TALL,)),
    Case("linalg.pinv", lambda u, v: la.pinv(np.outer(u, v), rcond=1e-4), (normal(3), normal(2))),
    Case("linalg.pinv", lambda a: la.pinv(hermitian(a), hermitian=True), (A,)),
    Case("linalg.pinv", lambda a: la.pinv(hermitian(a), hermitian=True), (C,)),
    Case("linalg.lstsq", lambda a, b: la.lstsq(a, b), (TALL, normal(4))),
    Case("linalg.lstsq", lambda a, b: la.lstsq(a, b, rcond=1e-6), (TALL, normal(4, 2, seed=1))),
    Case("linalg.lstsq", lambda a, b: la.lstsq(a, b), (WIDE, normal(2))),
    Case("linalg.lstsq", lambda a, b: la.lstsq(a, b), (C_TALL, complex_normal(3))),
    Case(
        "linalg.lstsq",
        lambda u, v, b: la.lstsq(np.outer(u, v), b, 1e-4)[:3],
        (normal(3), normal(2), B),
        order=1,
        jit=False,
        vmap=False,
    ),
    Case("linalg.tensorinv", lambda a: la.tensorinv(a, ind=1), (normal(4, 2, 2),)),
    Case("linalg.tensorinv", la.tensorinv, (normal(2, 2, 4),)),
    Case("linalg.tensorsolve", la.tensorsolve, (normal(2, 2, 4), normal(2, 2))),
    Case("linalg.tensorsolve", lambda a, b: la.tensorsolve(a, b, axes=(0, 2)), (normal(2, 4, 2), normal(4))),
    *[Case("linalg.matrix_power", lambda a, n=n: la.matrix_power(a, n), (A,)) for n in (1, 2, 3, 5, -1, -2)],
    Case("linalg.matrix_power", lambda a: la.matrix_power(a, 0) * a, (AS,)),
    Case("linalg.matrix_power", lambda a: la.matrix_power(a, -3), (C,)),
    Case("linalg.multi_dot", lambda a, b: la.multi_dot([a, b]), (WIDE, TALL)),
    Case("linalg.multi_dot", lambda a, b, c, d: la.multi_dot([a, b, c, d]), (B, BS, WIDE, normal(4))),
    Case("linalg.multi_dot", lambda a, b, c: la.multi_dot([a, b, c]), (C_WIDE, C_TALL, normal(2, 2))),
]

DETERMINANTS = [
    Case("linalg.det", la.det, (A,)),
    Case("linalg.det", la.det, (AS,)),
    Case("linalg.det", la.det, (C3,)),
    Case("linalg.det", la.det, (SINGULAR,)),
    Case("linalg.det", la.det, (np.outer(B, B),)),
    Case("linalg.det", la.det, (np.array([[0.7]]),)),
    Case("linalg.slogdet", la.slogdet, (A,)),
    Case("linalg.slogdet", lambda a: la.slogdet(a).logabsdet, (AS,)),
    Case("linalg.slogdet", la.slogdet, (C3,)),
]

FACTORS = [
    Case("linalg.cholesky", lambda a: la.cholesky(positive(a)), (A,)),
    Case("linalg.cholesky", lambda a: la.cholesky(positive(a), upper=True), (AS,)),
    Case("linalg.cholesky", lambda a: la.cholesky(positive(a)), (C,)),
    Case("linalg.cholesky", lambda a: la.cholesky(positive(a), upper=True), (C3,)),
    Case("linalg.qr", la.qr, (A,)),
    Case("linalg.qr", la.qr, (TALL,)),
    Case("linalg.qr", la.qr, (WIDE,)),
    Case("linalg.qr", lambda a: la.qr(a, mode="r"), (normal(2, 3, 2),)),
    Case("linalg.qr", lambda a: la.qr(a, mode="complete"), (normal(2, 2, 3),)),
    Case("linalg.qr", lambda a: with_complement(*la.qr(a, mode="complete")), (TALL,)),
    Case("linalg.qr", lambda a: with_complement(*la.qr(a, mode="complete")), (C_TALL,)),
    Case("linalg.svd", lambda a: of_full(*la.svd(a)), (normal(2, 3, 2),)),
    Case("linalg.svd", lambda a: of_full(*la.svd(a)), (normal(2, 4),)),
    Case("linalg.svd", lambda a: of_full(*la.svd(a)), (C_TALL,)),
    Case("linalg.svd", lambda a: of_full(*la.svd(a)), (C_WIDE,)),
    Case("linalg.qr", la.qr, (C,)),
    Case("linalg.qr", la.qr, (C_TALL,)),
    Case("linalg.qr", la.qr, (C_WIDE,)),
]

EIGEN = [
    Case("linalg.eigh", lambda a: la.eigh(hermitian(a)), (A,)),
    Case("linalg.eigh", lambda a: la.eigh(hermitian(a), UPLO="U"), (AS,)),
    Case("linalg.eigh", lambda a: projectors(*la.eigh(hermitian(a))), (C3,)),
    Case("linalg.eigh", lambda a: projectors(*la.eigh(hermitian(a), "U")), (np.stack([C, C.T]),)),
    Case("linalg.eigvalsh", lambda a: la.eigvalsh(hermitian(a)), (A,)),
    Case("linalg.eigvalsh", lambda a: la.eigvalsh(hermitian(a), "U"), (AS,)),
    Case("linalg.eigvalsh", lambda a: la.eigvalsh(hermitian(a)), (C3,)),
    Case("linalg.eig", lambda a: [*la.eig(a)], (ROTATIONS,)),
    Case("linalg.eig", lambda a: [*la.eig(a)], (np.stack([ROTATIONS, ROTATIONS.T]),)),
    Case("linalg.eig", lambda a: [*la.eig(a)], (C3,)),
    Case("linalg.eigvals", la.eigvals, (ROTATIONS,)),
    Case("linalg.eigvals", la.eigvals, (np.stack([C, C.T + 1]),)),
    Case("linalg.svd", la.svd, (A,)),
    Case("linalg.svd", lambda a: la.svd(a, full_matrices=False), (TALL,)),
    Case("linalg.svd", lambda a: la.svd(a, full_matrices=False), (normal(2, 2, 3),)),
    Case("linalg.svd", lambda a: la.svd(a, compute_uv=False), (TALL,)),
    Case("linalg.svd", lambda a: products(*la.svd(a)), (C3,)),
    Case("linalg.svd", lambda a: products(*la.svd(a, full_matrices=False)), (C_TALL,)),
    Case("linalg.svd", lambda a: products(*la.svd(a, full_matrices=False)), (C_WIDE,)),
    Case("linalg.svd", lambda a: la.svd(hermitian(a), hermitian=True), (A - np.eye(3),)),
    Case("linalg.svd", lambda a: la.svd(hermitian(a), compute_uv=False, hermitian=True), (AS,)),
    Case("linalg.svd", lambda a: products(*la.svd(hermitian(a), hermitian=True)), (C,)),
    Case("linalg.svdvals", la.svdvals, (WIDE,)),
    Case("linalg.svdvals", la.svdvals, (C_TALL,)),
    Case("linalg.matrix_rank", la.matrix_rank, (SINGULAR,), order=0),
    Case("linalg.matrix_rank", lambda a: la.matrix_rank(a, rtol=0.3), (AS,), order=0),
    Case("linalg.matrix_rank", lambda a: la.matrix_rank(a, np.array([1.0, 2.0])), (AS,), order=0),
    Case("linalg.matrix_rank", lambda a: la.matrix_rank(a + a.T, hermitian=True), (A,), order=0),
    Case("linalg.matrix_rank", la.matrix_rank, (B,), order=0),
]  # fmt: skip

NORMS = [
    *[Case("linalg.norm", lambda x, p=p: la.norm(x, p), (V,)) for p in (None, 1, -1, 2, -2, 3, 2.5, np.inf, -np.inf)],
    Case("linalg.norm", lambda x: la.norm(x, 0) + np.sum(x), (V,)),
    *[
        Case("linalg.norm", lambda x, p=p: la.norm(x, p), (X,))
        for p in (None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)
    ],
    *[
        Case("linalg.norm", lambda x, p=p: la.norm(x, p, axis=(2, 0), keepdims=True), (CUBE,))
        for p in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf)
    ],
    *[Case("linalg.norm", lambda x, p=p: la.norm(x, p, axis=1), (CUBE,)) for p in (None, 1, 3, np.inf)],
    Case("linalg.norm", lambda x: la.norm(x, axis=-1, keepdims=True), (X,)),
    Case("linalg.norm", lambda x: la.norm(x, keepdims=True), (CUBE,)),
    *[Case("linalg.norm", lambda x, p=p: la.norm(x, p), (CV,)) for p in (None, 1, 2, 3, -1, np.inf)],
    *[Case("linalg.norm", lambda x, p=p: la.norm(x, p), (C_TALL,)) for p in (None, "fro", "nuc", 1, 2, -2, np.inf)],
    Case("linalg.norm", la.norm, (np.zeros((0, 2)),)),
    *filter(known, [Case("linalg.norm", lambda x: la.norm(x, np.inf, axis=0), (np.zeros((0, 2)),))]),
    *[Case("linalg.vector_norm", lambda x, p=p: la.vector_norm(x, ord=p), (X,)) for p in (2, 1, 3.5, np.inf)],
    Case("linalg.vector_norm", lambda x: la.vector_norm(x, axis=(0, 2), keepdims=True), (CUBE,)),
    Case("linalg.vector_norm", lambda x: la.vector_norm(x, axis=1), (CUBE,)),
    Case("linalg.vector_norm", lambda x: la.vector_norm(x, axis=-1, keepdims=True, ord=3), (CV.reshape(2, 2),)),
    *[Case("linalg.matrix_norm", lambda x, p=p: la.matrix_norm(x, ord=p), (CUBE,)) for p in ("fro", "nuc", 1, -2)],
    Case("linalg.matrix_norm", lambda x: la.matrix_norm(x, keepdims=True), (X,)),
    *[Case("linalg.cond", lambda x, p=p: la.cond(x, p), (A,)) for p in (None, 2, -2, "fro", "nuc", 1, -1, np.inf)],
    Case("linalg.cond", la.cond, (normal(2, 2, 3),)),
    # NumPy 2.0 gives a real number as a complex one.
    *([] if OLDEST else [Case("linalg.cond", lambda x: la.cond(x, "fro"), (C,))]),
]

PRODUCTS = [
    Case("linalg.cross", la.cross, (B, BS.T)),
    Case("linalg.cross", lambda x, y: la.cross(x, y, axis=0), (BS, normal(3, 1))),
    Case("linalg.cross", la.cross, (B, complex_normal(3))),
    Case("linalg.outer", la.outer, (B, V)),
    Case("linalg.outer", la.outer, (CV, CV * 2)),
    Case("linalg.trace", la.trace, (CUBE,)),
    Case("linalg.trace", lambda x: la.trace(x, offset=1), (C3,)),
    Case("linalg.diagonal", lambda x: la.diagonal(x, offset=-1), (CUBE,)),
    Case("linalg.matmul", la.matmul, (TALL, WIDE)),
    Case("linalg.vecdot", lambda x, y: la.vecdot(x, y, axis=0), (X, X * X)),
    Case("linalg.vecdot", la.vecdot, (CV, CV.reshape(1, 4) * 1j)),
    Case("linalg.matrix_transpose", la.matrix_transpose, (CUBE,)),
    Case("linalg.tensordot", lambda x, y: la.tensordot(x, y, axes=((0,), (1,))), (X, A)),
    Case("linalg.tensordot", lambda x, y: la.tensordot(x, y, axes=1), (C3, BS)),
]

CASES = [*INVERSES, *DETERMINANTS, *FACTORS, *EIGEN, *NORMS, *PRODUCTS]
