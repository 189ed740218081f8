"""Singular values and vectors, and the rank that is counted from them.

Stacks of matrices go in. As for eigenvalues, the values alone are an operation of their own, whose derivative exists
where values coincide. Source of the rules: Z.-Q. Wan and S.-X. Zhang, Automatic differentiation for complex valued
SVD, arXiv:1909.02659, 2019. Vectors are known up to a phase that both of a pair share (a sign, where they are real);
the rules turn both of a pair half the way that the matrix forces on them, and the derivative of what does not depend
on phases is right. With ``full_matrices=True`` the vectors beyond the singular values may be any basis of what the
others leave: they turn with that space and not within it, and the derivative of what does not depend on the basis is
right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, Tracer, bind, primitive
from fnflare.core.tracer import implements
from fnflare.errors import ArgumentError
from fnflare.ops.eigen import divided, without_diagonal
from fnflare.ops.elementwise import stop_gradient
from fnflare.ops.matrices import adjoint, as_matrices, batch_stacks, on_diagonal, real_dtype, swap

__all__: list[str] = []

_Result: Any = type(np.linalg.svd(np.eye(1)))


def _svdvals_shape(a: ShapeDtypeStruct) -> ShapeDtypeStruct:
    return ShapeDtypeStruct((*a.shape[:-2], min(a.shape[-2:])), real_dtype(a.dtype))


def _svd_shape(a: ShapeDtypeStruct) -> tuple[ShapeDtypeStruct, ...]:
    (*lead, m, n), k = a.shape, min(a.shape[-2:])
    return ShapeDtypeStruct((*lead, m, k), a.dtype), _svdvals_shape(a), ShapeDtypeStruct((*lead, k, n), a.dtype)


def _full_shape(a: ShapeDtypeStruct) -> tuple[ShapeDtypeStruct, ...]:
    *lead, m, n = a.shape
    return ShapeDtypeStruct((*lead, m, m), a.dtype), _svdvals_shape(a), ShapeDtypeStruct((*lead, n, n), a.dtype)


# -- svd ----------------------------------------------------------------------------------------

_svd = primitive("svd", lambda a: tuple(np.linalg.svd(a, full_matrices=False)), _svd_shape, many=True)
_svd.cost(lambda ans, a: 14 * a.size * min(a.shape[-2:]))
batch_stacks(_svd)


def _square_gaps(s: Any) -> Any:
    """``s[j]**2 - s[i]**2``, infinite on the diagonal."""
    rows, columns = s[..., :, None], s[..., None, :]
    return without_diagonal((columns - rows) * (columns + rows))


def _diagonal(x: Any) -> Any:
    return np.diagonal(x, axis1=-2, axis2=-1)


@_svd.jvp_joint
def _pushed(ts: Any, ans: Any, a: Any) -> tuple[Any, Any, Any]:
    (t,), (u, s, vh) = ts, ans
    rows, columns = s[..., :, None], s[..., None, :]
    p = adjoint(u) @ t @ adjoint(vh)
    gap = _square_gaps(s)
    of_u = divided(p * columns + rows * adjoint(p), gap)
    of_vh = -divided(rows * p + adjoint(p) * columns, gap)
    if a.dtype.kind == "c":
        turn = on_diagonal(1j * divided(np.imag(_diagonal(p)), 2 * s))
        of_u, of_vh = of_u + turn, of_vh + turn
    du, dvh = u @ of_u, of_vh @ vh
    if a.shape[-2] > a.shape[-1]:
        outside = t @ adjoint(vh)
        du = du + divided(outside - u @ (adjoint(u) @ outside), columns)
    if a.shape[-1] > a.shape[-2]:
        outside = adjoint(u) @ t
        dvh = dvh + divided(outside - (outside @ adjoint(vh)) @ vh, rows)
    return du, np.real(_diagonal(p)), dvh


@_svd.vjp_joint
def _pulled(cts: Any, ans: Any, a: Any) -> list[Any]:
    (of_u, of_s, of_vh), (u, s, vh) = cts, ans
    rows, columns = s[..., :, None], s[..., None, :]
    left, right = swap(u) @ of_u, of_vh @ swap(vh)
    gap = _square_gaps(s)
    b, c = divided(left, gap), -divided(right, gap)
    of_p = (b + adjoint(b)) * columns + rows * (c + adjoint(c)) + on_diagonal(of_s)
    if a.dtype.kind == "c":
        of_p = of_p + on_diagonal(1j * divided(np.imag(_diagonal(left) + _diagonal(right)), 2 * s))
    g = np.conjugate(u) @ of_p @ np.conjugate(vh)
    if a.shape[-2] > a.shape[-1]:
        g = g + divided(of_u - np.conjugate(u) @ left, columns) @ np.conjugate(vh)
    if a.shape[-1] > a.shape[-2]:
        g = g + np.conjugate(u) @ divided(of_vh - right @ np.conjugate(vh), rows)
    return [g]


_svd_full = primitive("svd_full", lambda a: tuple(np.linalg.svd(a)), _full_shape, many=True)
batch_stacks(_svd_full)


@_svd_full.jvp_joint
def _(ts: Any, ans: Any, a: Any) -> tuple[Any, Any, Any]:
    (t,), (u, s, vh), k = ts, ans, min(a.shape[-2:])
    left, right = u[..., :k], vh[..., :k, :]
    du, ds, dvh = _pushed(ts, (left, s, right), a)
    if a.shape[-2] > k:
        outside = divided(t @ adjoint(right), s[..., None, :])
        du = np.concatenate([du, -left @ (adjoint(outside) @ u[..., k:])], axis=-1)
    else:
        outside = divided(adjoint(left) @ t, s[..., :, None])
        dvh = np.concatenate([dvh, -(vh[..., k:, :] @ adjoint(outside)) @ right], axis=-2)
    return du, ds, dvh


@_svd_full.vjp_joint
def _(cts: Any, ans: Any, a: Any) -> list[Any]:
    (of_u, of_s, of_vh), (u, s, vh), k = cts, ans, min(a.shape[-2:])
    left, right = u[..., :k], vh[..., :k, :]
    (g,) = _pulled((of_u[..., :k], of_s, of_vh[..., :k, :]), (left, s, right), a)
    if a.shape[-2] > k:
        of_outside = np.conjugate(u[..., k:]) @ adjoint(of_u[..., k:]) @ np.conjugate(left)
        return [g - divided(of_outside, s[..., None, :]) @ np.conjugate(right)]
    of_outside = np.conjugate(right) @ adjoint(of_vh[..., k:, :]) @ np.conjugate(vh[..., k:, :])
    return [g - np.conjugate(left) @ divided(of_outside, s[..., :, None])]


# -- values alone -------------------------------------------------------------------------------

_svdvals = primitive("svdvals", lambda a: np.linalg.svd(a, compute_uv=False), _svdvals_shape)
_svdvals.cost(lambda ans, a: 3 * a.size * min(a.shape[-2:]))
batch_stacks(_svdvals)


@_svdvals.residuals
def _(_traced: Any, a: Any) -> tuple[Any, Any]:
    u, s, vh = bind(_svd, (a,))
    return s, (u, vh)


@_svdvals.vjp_joint
def _(ct: Any, _ans: Any, u: Any, vh: Any) -> list[Any]:
    return [(np.conjugate(u) * ct[..., None, :]) @ np.conjugate(vh)]


@_svdvals.jvp_joint
def _(ts: Any, _ans: Any, a: Any) -> Any:
    u, _, vh = bind(_svd, (a,))
    return np.real(np.sum(np.conjugate(u) * (ts[0] @ adjoint(vh)), axis=-2))


# -- what NumPy calls ---------------------------------------------------------------------------


@implements(np.linalg.svd)
def svd(a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """NumPy's ``linalg.svd``."""
    (a,) = as_matrices("np.linalg.svd", a)
    if hermitian:
        return _hermitian_svd(a) if compute_uv else np.flip(np.sort(np.abs(np.linalg.eigvalsh(a)), axis=-1), axis=-1)
    if not compute_uv:
        return bind(_svdvals, (a,))
    return _Result(*bind(_svd_full if full_matrices and a.shape[-1] != a.shape[-2] else _svd, (a,)))


def _hermitian_svd(a: Any) -> Any:
    """By the eigenvalues, whose signs go to the vectors on the right."""
    w, v = np.linalg.eigh(a)
    order = np.flip(np.argsort(np.abs(w), axis=-1), axis=-1)
    w = np.take_along_axis(w, order, axis=-1)
    u = np.take_along_axis(v, order[..., None, :], axis=-1)
    sign = stop_gradient(np.copysign(1.0, w).astype(w.dtype))
    return _Result(u, np.abs(w), adjoint(u * sign[..., None, :]))


@implements(np.linalg.svdvals)
def svdvals(x: Any, /) -> Any:
    """NumPy's ``linalg.svdvals``."""
    return np.linalg.svd(x, compute_uv=False)


@implements(np.linalg.matrix_rank)
def matrix_rank(A: Any, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Any:
    """NumPy's ``linalg.matrix_rank``: a count, nothing to differentiate."""
    if tol is not None and rtol is not None:
        raise ArgumentError("np.linalg.matrix_rank: give tol= or rtol=, not both")
    values: list[Any] = [stop_gradient(x) if isinstance(x, Tracer) else x for x in (A, tol, rtol)]
    A, tol, rtol = values  # plain ones, but for jit and vmap
    if not any(isinstance(x, Tracer) for x in (A, tol, rtol)):
        return np.linalg.matrix_rank(A, tol, hermitian, rtol=rtol)
    if np.ndim(A) < 2:
        return np.any(A != 0).astype(np.intp)
    s = np.linalg.svd(*as_matrices("np.linalg.matrix_rank", A), compute_uv=False, hermitian=hermitian)
    if tol is None:
        rtol = max(A.shape[-2:]) * np.finfo(s.dtype).eps if rtol is None else np.expand_dims(rtol, -1)
        tol = s[..., :1] * rtol
    else:
        tol = np.expand_dims(tol, -1)
    return np.sum(s > tol, axis=-1)
