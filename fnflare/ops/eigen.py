"""Eigenvalues and eigenvectors.

Stacks of square matrices go in. The values alone are operations of their own, whose derivatives exist where values
coincide and those of the vectors do not. Sources of the rules:

- M. B. Giles, An extended collection of matrix derivative results for forward and reverse mode algorithmic
  differentiation, Oxford University Computing Laboratory, report NA-08/01, 2008;
- C. Boeddeker, P. Hanebrink, L. Drude, J. Heymann and R. Haeb-Umbach, On the computation of complex-valued gradients
  with application to statistically optimum beamforming, arXiv:1701.00392, 2017.

Eigenvectors of a Hermitian matrix are known up to their signs, or phases where it is complex. The rules take each
phase to stay what it is; the derivative of what does not depend on phases is right, and nothing else has one. Vectors
of a general matrix are those of LAPACK, of length one and with the largest component real, and so are their
derivatives. Where two eigenvalues coincide the derivative of their vectors is infinite or nan, but for functions that
do not tell these apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, primitive
from fnflare.core.tracer import implements
from fnflare.errors import ArgumentError
from fnflare.ops.matrices import (
    adjoint,
    as_matrices,
    batch_stacks,
    hermitian_part,
    on_diagonal,
    real_dtype,
    square,
    swap,
)

__all__ = ["divided", "gaps", "without_diagonal"]


def gaps(w: Any) -> Any:
    """``w[j] - w[i]`` for all i and j, infinite on the diagonal, so that what is divided by it vanishes there."""
    return without_diagonal(w[..., None, :] - w[..., :, None])


def without_diagonal(difference: Any) -> Any:
    """Differences of values of all pairs, infinite on the diagonal."""
    return np.where(np.eye(difference.shape[-1], dtype=bool), np.inf, difference)


def divided(x: Any, gap: Any) -> Any:
    """``x / gap``; where both are zero, 0: a function that does not tell equal values apart."""
    return x / np.where((gap == 0) & (x == 0), np.inf, gap)


def _diagonal(x: Any) -> Any:
    return np.diagonal(x, axis1=-2, axis2=-1)


# -- Hermitian matrices -------------------------------------------------------------------------

_HermitianResult: Any = type(np.linalg.eigh(np.eye(1)))


def _eigvalsh_shape(a: ShapeDtypeStruct, *, uplo: str) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(a.shape[:-1], real_dtype(a.dtype))


def _eigh_shape(a: ShapeDtypeStruct, *, uplo: str) -> tuple[ShapeDtypeStruct, ShapeDtypeStruct]:
    return _eigvalsh_shape(a, uplo=uplo), ShapeDtypeStruct(a.shape, a.dtype)


_eigh = primitive("eigh", lambda a, uplo: tuple(np.linalg.eigh(a, uplo)), _eigh_shape, many=True)
_eigh.cost(lambda ans, a, **_: 9 * a.size * a.shape[-1])
batch_stacks(_eigh)


@_eigh.jvp_joint
def _(ts: Any, ans: Any, _a: Any, *, uplo: str) -> tuple[Any, Any]:
    w, v = ans
    inner = adjoint(v) @ hermitian_part(ts[0]) @ v
    return np.real(_diagonal(inner)), v @ divided(inner, gaps(w))


@_eigh.vjp_joint
def _(cts: Any, ans: Any, _a: Any, *, uplo: str) -> list[Any]:
    (of_w, of_v), (w, v) = cts, ans
    of_inner = divided(swap(v) @ of_v, gaps(w)) + on_diagonal(of_w)
    return [hermitian_part(np.conjugate(v) @ of_inner @ swap(v))]


_eigvalsh = primitive("eigvalsh", lambda a, uplo: np.linalg.eigvalsh(a, uplo), _eigvalsh_shape)
_eigvalsh.cost(lambda ans, a, **_: 4 * a.size * a.shape[-1] // 3)
batch_stacks(_eigvalsh)


@_eigvalsh.residuals
def _(_traced: Any, a: Any, *, uplo: str) -> tuple[Any, Any]:
    w, v = bind(_eigh, (a,), {"uplo": uplo})
    return w, (v,)


@_eigvalsh.vjp_joint
def _(ct: Any, _ans: Any, v: Any, *, uplo: str) -> list[Any]:
    return [hermitian_part((np.conjugate(v) * ct[..., None, :]) @ swap(v))]


@_eigvalsh.jvp_joint
def _(ts: Any, _ans: Any, a: Any, *, uplo: str) -> Any:
    _, v = bind(_eigh, (a,), {"uplo": uplo})
    return np.real(np.sum(np.conjugate(v) * (hermitian_part(ts[0]) @ v), axis=-2))


def _hermitian(name: str, a: Any, uplo: str) -> tuple[Any, dict[str, str]]:
    if uplo.upper() not in ("L", "U"):
        raise ArgumentError(f"{name}: UPLO is 'L' or 'U', got {uplo!r}")
    (a,) = as_matrices(name, a)
    square(name, a)
    return (a,), {"uplo": uplo.upper()}


@implements(np.linalg.eigh)
def eigh(a: Any, UPLO: str = "L") -> Any:
    """NumPy's ``linalg.eigh``. NumPy reads one triangle; the derivative is that among Hermitian matrices, and the
    gradient is Hermitian: both are those of JAX with ``symmetrize_input=True``."""
    return _HermitianResult(*bind(_eigh, *_hermitian("np.linalg.eigh", a, UPLO)))


@implements(np.linalg.eigvalsh)
def eigvalsh(a: Any, UPLO: str = "L") -> Any:
    """NumPy's ``linalg.eigvalsh``; derivatives as of ``eigh``."""
    return bind(_eigvalsh, *_hermitian("np.linalg.eigvalsh", a, UPLO))


# -- general matrices ---------------------------------------------------------------------------

_GeneralResult: Any = type(np.linalg.eig(np.eye(1)))


def _eigvals_shape(a: ShapeDtypeStruct) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(a.shape[:-1], np.result_type(a.dtype, np.complex64))


def _eig_shape(a: ShapeDtypeStruct) -> tuple[ShapeDtypeStruct, ShapeDtypeStruct]:
    values = _eigvals_shape(a)
    return values, ShapeDtypeStruct(a.shape, values.dtype)


def _eig_kernel(a: Any) -> tuple[Any, Any]:
    w, v = np.linalg.eig(a)
    dtype = np.result_type(a.dtype, np.complex64)
    return w.astype(dtype, copy=False), v.astype(dtype, copy=False)


def _eigvals_kernel(a: Any) -> Any:
    return np.linalg.eigvals(a).astype(np.result_type(a.dtype, np.complex64), copy=False)


_eig = primitive("eig", _eig_kernel, _eig_shape, many=True)
_eig.cost(lambda ans, a: 25 * a.size * a.shape[-1])
batch_stacks(_eig)


def _pivots(v: Any) -> Any:
    """True at the component of each vector that LAPACK has made real, the largest."""
    if not v.shape[-1]:
        return np.zeros(v.shape, bool)
    size = np.abs(v) * np.where(np.imag(v) == 0, 2.0, 1.0)  # of equally large ones the real one
    return np.arange(v.shape[-2])[:, None] == np.argmax(size, axis=-2, keepdims=True)


@_eig.jvp_joint
def _(ts: Any, ans: Any, _a: Any) -> tuple[Any, Any]:
    w, v = ans
    inner = np.linalg.solve(v, ts[0] @ v)
    t = v @ divided(inner, gaps(w))
    # A multiple of each vector is added, so that its length stays one and its largest component real.
    length = np.real(np.sum(np.conjugate(v) * t, axis=-2, keepdims=True))
    turn = np.imag(np.sum(np.where(_pivots(v), t / _safe(v), 0), axis=-2, keepdims=True))
    return _diagonal(inner), t - v * (length + 1j * turn)


@_eig.vjp_joint
def _(cts: Any, ans: Any, _a: Any) -> list[Any]:
    (of_w, of_v), (w, v) = cts, ans
    scale = np.sum(of_v * v, axis=-2, keepdims=True)
    of_t = of_v - np.conjugate(v) * np.real(scale) + np.where(_pivots(v), -1j * np.imag(scale) / _safe(v), 0)
    of_inner = divided(swap(v) @ of_t, gaps(w)) + on_diagonal(of_w)
    return [np.linalg.solve(swap(v), of_inner @ swap(v))]


def _safe(v: Any) -> Any:
    """The components of eigenvectors to divide by, with ones for those that nobody asks for."""
    return np.where(_pivots(v), v, 1)


_eigvals = primitive("eigvals", _eigvals_kernel, _eigvals_shape)
_eigvals.cost(lambda ans, a: 10 * a.size * a.shape[-1])
batch_stacks(_eigvals)


@_eigvals.residuals
def _(_traced: Any, a: Any) -> tuple[Any, Any]:
    w, v = bind(_eig, (a,))
    return w, (v,)


@_eigvals.vjp_joint
def _(ct: Any, _ans: Any, v: Any) -> list[Any]:
    return [np.linalg.solve(swap(v), ct[..., :, None] * swap(v))]


@_eigvals.jvp_joint
def _(ts: Any, _ans: Any, a: Any) -> Any:
    _, v = bind(_eig, (a,))
    return _diagonal(np.linalg.solve(v, ts[0] @ v))


@implements(np.linalg.eig)
def eig(a: Any) -> Any:
    """NumPy's ``linalg.eig``. The answers are always complex, where NumPy's are real if all values happen to be."""
    (a,) = as_matrices("np.linalg.eig", a)
    square("np.linalg.eig", a)
    return _GeneralResult(*bind(_eig, (a,)))


@implements(np.linalg.eigvals)
def eigvals(a: Any) -> Any:
    """NumPy's ``linalg.eigvals``. The answer is always complex, where NumPy's is real if all values happen to be."""
    (a,) = as_matrices("np.linalg.eigvals", a)
    square("np.linalg.eigvals", a)
    return bind(_eigvals, (a,))
