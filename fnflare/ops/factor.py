"""Triangular factors: Cholesky and QR decompositions.

Stacks of matrices go in, factors come out. The rules are those of

- I. Murray, Differentiation of the Cholesky decomposition, arXiv:1602.07527, 2016;
- S. F. Walter and L. Lehmann, Algorithmic differentiation of linear algebra functions with application in optimum
  experimental design, arXiv:1001.1654, 2012 (QR of tall matrices; of a wide one the first square block is factored
  and the rest multiplied);

for complex matrices with the diagonal of R real, as LAPACK makes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, primitive
from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError
from fnflare.ops.matrices import (
    adjoint,
    as_matrices,
    batch_stacks,
    hermitian_part,
    on_diagonal,
    same_shape,
    square,
    swap,
)

__all__: list[str] = []

# -- cholesky -----------------------------------------------------------------------------------

_cholesky = primitive("cholesky", np.linalg.cholesky, same_shape)
_cholesky.cost(lambda ans, a: a.size * a.shape[-1] // 3)
batch_stacks(_cholesky)


def _lower_half(x: Any) -> Any:
    """The lower triangle, with half of the diagonal."""
    n = x.shape[-1]
    return x * (np.tri(n, dtype=x.real.dtype) - np.eye(n, dtype=x.real.dtype) * 0.5)


@_cholesky.vjp
def _(ct: Any, ans: Any, _a: Any) -> Any:
    inner = np.linalg.solve(swap(ans), _lower_half(swap(ans) @ ct))
    return hermitian_part(swap(np.linalg.solve(adjoint(ans), swap(inner))))


@_cholesky.jvp
def _(t: Any, ans: Any, _a: Any) -> Any:
    inner = np.linalg.solve(ans, hermitian_part(t))
    return ans @ _lower_half(adjoint(np.linalg.solve(ans, adjoint(inner))))


@implements(np.linalg.cholesky)
def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """NumPy's ``linalg.cholesky``. NumPy reads one triangle; the derivative is that among Hermitian matrices, and the
    gradient is Hermitian: both are those of JAX with ``symmetrize_input=True``."""
    (a,) = as_matrices("np.linalg.cholesky", a)
    square("np.linalg.cholesky", a)
    return adjoint(bind(_cholesky, (adjoint(a),))) if upper else bind(_cholesky, (a,))


# -- qr -----------------------------------------------------------------------------------------

_Result: Any = type(np.linalg.qr(np.eye(1)))


def _qr_shape(a: ShapeDtypeStruct) -> tuple[ShapeDtypeStruct, ShapeDtypeStruct]:
    *lead, m, n = a.shape
    k = min(m, n)
    return ShapeDtypeStruct((*lead, m, k), a.dtype), ShapeDtypeStruct((*lead, k, n), a.dtype)


#: Of matrices with at least as many rows as columns.
_qr = primitive("qr", lambda a: tuple(np.linalg.qr(a)), _qr_shape, many=True)
_qr.cost(lambda ans, a: 4 * a.size * a.shape[-1])
batch_stacks(_qr)


def _below(x: Any) -> Any:
    n = x.shape[-1]
    return x * np.tri(n, k=-1, dtype=x.real.dtype)


def _imaginary_diagonal(x: Any) -> Any:
    return on_diagonal(1j * np.imag(np.diagonal(x, axis1=-2, axis2=-1)))


@_qr.jvp_joint
def _pushed(ts: Any, ans: Any, _a: Any) -> tuple[Any, Any]:
    q, r = ans
    x = swap(np.linalg.solve(swap(r), swap(ts[0])))
    c = adjoint(q) @ x
    turn = _below(c) - adjoint(_below(c))  # q^H dq
    if c.dtype.kind == "c":
        turn = turn + _imaginary_diagonal(c)
    return x - q @ (c - turn), (c - turn) @ r


@_qr.vjp_joint
def _pulled(cts: Any, ans: Any, _a: Any) -> list[Any]:
    (of_q, of_r), (q, r) = cts, ans
    of_rest = of_r @ swap(r) - swap(q) @ of_q  # of c - turn
    of_c = of_rest - _below(of_rest - adjoint(of_rest))
    if of_c.dtype.kind == "c":
        of_c = of_c - _imaginary_diagonal(of_rest)
    of_x = of_q + np.conjugate(q) @ of_c
    return [swap(np.linalg.solve(r, swap(of_x)))]


def _complete_shape(a: ShapeDtypeStruct) -> tuple[ShapeDtypeStruct, ShapeDtypeStruct]:
    *lead, m, n = a.shape
    return ShapeDtypeStruct((*lead, m, m), a.dtype), ShapeDtypeStruct((*lead, m, n), a.dtype)


#: Of matrices with more rows than columns.
_qr_complete = primitive("qr_complete", lambda a: tuple(np.linalg.qr(a, "complete")), _complete_shape, many=True)
batch_stacks(_qr_complete)


# The last columns of Q may be any basis of what the first ones leave. They turn with that space, and not within it.


@_qr_complete.jvp_joint
def _(ts: Any, ans: Any, a: Any) -> tuple[Any, Any]:
    (q, r), n = ans, a.shape[-1]
    first, rest = q[..., :n], q[..., n:]
    t, of_r = _pushed(ts, (first, r[..., :n, :]), a)
    zeros = np.zeros((*r.shape[:-2], r.shape[-2] - n, n), r.dtype)
    return (
        np.concatenate([t, -first @ (adjoint(t) @ rest)], axis=-1),
        np.concatenate([of_r, zeros], axis=-2),
    )


@_qr_complete.vjp_joint
def _(cts: Any, ans: Any, a: Any) -> list[Any]:
    (of_q, of_r), (q, r), n = cts, ans, a.shape[-1]
    first, rest = q[..., :n], q[..., n:]
    of_first = of_q[..., :n] - np.conjugate(rest) @ adjoint(of_q[..., n:]) @ np.conjugate(first)
    return _pulled((of_first, of_r[..., :n, :]), (first, r[..., :n, :]), a)


@implements(np.linalg.qr)
def qr(a: Any, mode: str = "reduced") -> Any:
    """NumPy's ``linalg.qr`` in the modes reduced, complete and r. Matrices of full rank have a derivative; of the
    columns that ``mode="complete"`` adds it is right for what does not depend on the basis that they happen to be."""
    if mode not in ("reduced", "complete", "r"):
        raise UnsupportedError(
            f"np.linalg.qr: mode={mode!r} has no rule for tracers, which gives Householder reflectors; write "
            "mode='reduced', 'complete' or 'r'"
        )
    (a,) = as_matrices("np.linalg.qr", a)
    m, n = a.shape[-2:]
    if m >= n:
        q, r = bind(_qr_complete if mode == "complete" and m > n else _qr, (a,))
    else:
        q, r = bind(_qr, (a[..., :m],))
        r = np.concatenate([r, adjoint(q) @ a[..., m:]], axis=-1)
    return r if mode == "r" else _Result(q, r)
