"""Determinants and their logarithms.

Stacks of square matrices go in. The derivative of a determinant is the matrix of its cofactors (Jacobi), which exists
where the inverse does not; it is computed from the singular values, none of which it divides by, and so is its own
derivative. Only from the third on do derivatives need the inverse, and raise where there is none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, primitive
from fnflare.core.tracer import implements
from fnflare.ops.matrices import adjoint, as_matrices, batch_stacks, real_dtype, same_shape, square, swap
from fnflare.ops.shape import unbroadcast

__all__: list[str] = []

# -- det ----------------------------------------------------------------------------------------


def _det_shape(a: ShapeDtypeStruct) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(a.shape[:-2], a.dtype)


def _before(s: Any) -> Any:
    """The product of the values before each, along the last axis."""
    ones = np.ones((*s.shape[:-1], 1), s.dtype)
    return np.cumprod(np.concatenate([ones, s], axis=-1), axis=-1)[..., :-1]


def _after(s: Any) -> Any:
    """The product of the values after each."""
    return np.flip(_before(np.flip(s, -1)), -1)


def _without_one(s: Any) -> Any:
    """The products of all singular values but one."""
    return _before(s) * _after(s)


def _without_two(s: Any) -> Any:
    """The products of all singular values but two; zero where the two are the same."""
    later = np.tri(s.shape[-1], k=-1, dtype=bool).T
    between = _before(np.where(later, s[..., None, :], 1))
    upper = np.triu(_before(s)[..., :, None] * between * _after(s)[..., None, :], 1)
    return upper + swap(upper)


def _cofactors_kernel(a: Any) -> Any:
    u, s, vh = np.linalg.svd(a)
    phase = (np.linalg.det(u) * np.linalg.det(vh))[..., None, None]
    return (phase * (u.conj() * _without_one(s)[..., None, :]) @ vh.conj()).astype(a.dtype, copy=False)


def _change_kernel(a: Any, t: Any) -> Any:
    u, s, vh = np.linalg.svd(a)
    phase = (np.linalg.det(u) * np.linalg.det(vh))[..., None, None]
    e = adjoint(u) @ t @ adjoint(vh)
    without = _without_two(s)
    diagonal = (without @ np.diagonal(e, axis1=-2, axis2=-1)[..., None]) * np.eye(a.shape[-1])
    return (phase * u.conj() @ (diagonal - without * swap(e)) @ vh.conj()).astype(t.dtype, copy=False)


def _change_shape(a: ShapeDtypeStruct, t: ShapeDtypeStruct) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(np.broadcast_shapes(a.shape, t.shape), np.result_type(a.dtype, t.dtype))


#: How the cofactors of the first argument change along the second.
_cofactors_change = primitive("cofactors_change", _change_kernel, _change_shape)
batch_stacks(_cofactors_change)


def _regular_kernel(a: Any) -> Any:
    s = np.linalg.svd(a, compute_uv=False)
    # NumPy's inv refuses a pivot of exactly zero alone; rounding leaves one of a singular matrix near it.
    if s.size and np.any(s[..., -1] <= s[..., 0] * (s.shape[-1] * np.finfo(s.dtype).eps)):
        raise np.linalg.LinAlgError("np.linalg.det: the third and further derivatives are for regular matrices")
    return a


#: A matrix as it is; an error where it has no inverse to working precision.
_regular = primitive("regular", _regular_kernel, same_shape)
_regular.derivative(lambda ct, _ans, _a: ct)
batch_stacks(_regular)


def _third(d: Any, a: Any, t: Any) -> Any:
    """The third derivative of the determinant along `d` and `t`, as a matrix: symmetric in all three directions."""
    inverse = np.linalg.inv(bind(_regular, (a,)))
    x, y = inverse @ t, inverse @ d
    trace_x, trace_y, trace_xy = [np.trace(m, axis1=-2, axis2=-1)[..., None, None] for m in (x, y, x @ y)]
    change = (trace_x * trace_y - trace_xy) * inverse + (x @ y + y @ x - trace_y * x - trace_x * y) @ inverse
    return np.linalg.det(a)[..., None, None] * swap(change)


_cofactors_change.vjp(
    lambda ct, _ans, a, t: unbroadcast(_third(ct, a, t), a.shape),
    lambda ct, _ans, a, t_like: unbroadcast(bind(_cofactors_change, (a, ct)), t_like.shape),
)
_cofactors_change.jvp(
    lambda d, _ans, a, t: _third(d, a, t),
    lambda d, _ans, a, _t: bind(_cofactors_change, (a, d)),
)


#: The derivative of the determinant by each element.
_cofactors = primitive("cofactors", _cofactors_kernel, same_shape)
# The matrix of second derivatives is symmetric, so one rule serves both modes.
_cofactors.derivative(lambda ct, _ans, a: bind(_cofactors_change, (a, ct)))
batch_stacks(_cofactors)


_det = primitive("det", np.linalg.det, _det_shape)
_det.vjp(lambda ct, _ans, a: ct[..., None, None] * _cofactors(a))
_det.jvp(lambda t, _ans, a: np.sum(t * _cofactors(a), axis=(-2, -1)))
_det.cost(lambda ans, a: a.size * a.shape[-1] * 2 // 3)
batch_stacks(_det)


@implements(np.linalg.det)
def det(a: Any) -> Any:
    """NumPy's ``linalg.det``; first and second derivatives hold for singular matrices too."""
    (a,) = as_matrices("np.linalg.det", a)
    square("np.linalg.det", a)
    return bind(_det, (a,))


# -- slogdet ------------------------------------------------------------------------------------

_Result: Any = type(np.linalg.slogdet(np.eye(1)))


def _slogdet_shape(a: ShapeDtypeStruct) -> tuple[ShapeDtypeStruct, ShapeDtypeStruct]:
    return ShapeDtypeStruct(a.shape[:-2], a.dtype), ShapeDtypeStruct(a.shape[:-2], real_dtype(a.dtype))


_slogdet = primitive("slogdet", lambda a: tuple(np.linalg.slogdet(a)), _slogdet_shape, many=True)
_slogdet.cost(lambda ans, a: a.size * a.shape[-1] * 2 // 3)
batch_stacks(_slogdet)


@_slogdet.vjp_joint
def _(cts: Any, ans: Any, a: Any) -> list[Any]:
    of_sign, of_log = cts
    if a.dtype.kind == "c":  # the sign turns by the imaginary part of the trace of a^-1 da
        of_log = of_log + 1j * np.imag(of_sign * ans[0])
    return [of_log[..., None, None] * swap(np.linalg.inv(a))]


@_slogdet.jvp_joint
def _(ts: Any, ans: Any, a: Any) -> tuple[Any, Any]:
    trace = np.trace(np.linalg.solve(a, ts[0]), axis1=-2, axis2=-1)
    if a.dtype.kind != "c":
        return None, trace
    return ans[0] * (1j * np.imag(trace)), np.real(trace)


@implements(np.linalg.slogdet)
def slogdet(a: Any) -> Any:
    """NumPy's ``linalg.slogdet``; of a singular matrix it has no derivative, and asking for it raises LinAlgError."""
    (a,) = as_matrices("np.linalg.slogdet", a)
    square("np.linalg.slogdet", a)
    return _Result(*bind(_slogdet, (a,)))
