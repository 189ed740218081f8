"""Linear equations: inverses, solutions, pseudoinverses, least squares, and what is made of them.

Stacks of matrices go in. `inv`, `solve` and `pinv` are primitives, since their kernels are LAPACK's; everything else
arranges its arguments for one of them. The rules are those of

- M. B. Giles, An extended collection of matrix derivative results for forward and reverse mode algorithmic
  differentiation, Oxford University Computing Laboratory, report NA-08/01, 2008 (inverse, solution);
- G. H. Golub and V. Pereyra, The differentiation of pseudo-inverses and nonlinear least squares problems whose
  variables separate, SIAM J. Numer. Anal. 10, 1973 (pseudoinverse, of matrices whose rank stays what it is).
"""

from __future__ import annotations

import math
import operator
from itertools import pairwise
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, Tracer, bind, move_axis, primitive
from fnflare.core.tracer import implements
from fnflare.errors import ArgumentError, ShapeError
from fnflare.ops.elementwise import convert
from fnflare.ops.index import in_front
from fnflare.ops.matrices import (
    adjoint,
    as_matrices,
    batch_stacks,
    hermitian_part,
    same_shape,
    sizes_squared,
    square,
    stacked,
    swap,
)
from fnflare.ops.shape import no_out, unbroadcast

__all__ = ["inverse_or_nan"]

# -- inv ----------------------------------------------------------------------------------------


def _inv_kernel(a: Any, *, singular: str) -> Any:
    if singular == "raise":
        return np.linalg.inv(a)
    try:
        return np.linalg.inv(a)
    except np.linalg.LinAlgError:
        if a.ndim == 2:
            return np.full_like(a, np.nan)
        return np.stack([_inv_kernel(one, singular=singular) for one in a])


_inv = primitive("inv", _inv_kernel, same_shape)
_inv.vjp(lambda ct, ans, _a, *, singular: -(swap(ans) @ ct @ swap(ans)))
_inv.jvp(lambda t, ans, _a, *, singular: -(ans @ t @ ans))
_inv.cost(lambda ans, a, **_: 2 * a.size * a.shape[-1])
batch_stacks(_inv)


@implements(np.linalg.inv)
def inv(a: Any) -> Any:
    """NumPy's ``linalg.inv``."""
    (a,) = as_matrices("np.linalg.inv", a)
    square("np.linalg.inv", a)
    return bind(_inv, (a,), {"singular": "raise"})


def inverse_or_nan(a: Any) -> Any:
    """The inverses, with nan for matrices that have none."""
    return bind(_inv, (a,), {"singular": "nan"})


# -- solve --------------------------------------------------------------------------------------


def _solve_shape(a: ShapeDtypeStruct, b: ShapeDtypeStruct) -> ShapeDtypeStruct:
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return ShapeDtypeStruct((*lead, *b.shape[-2:]), np.result_type(a.dtype, b.dtype))


# The second argument has at least two axes, so that NumPy never takes it for a vector.
_solve = primitive("solve", np.linalg.solve, _solve_shape)
_solve.cost(lambda ans, a, b: a.size * a.shape[-1] * 2 // 3 + 2 * ans.size * a.shape[-1])


@_solve.vmap
def _(size: int, args: Any, axes: Any) -> tuple[Any, int]:
    (a, b), (i, j) = args, axes
    if i is not None:
        return stacked(_solve, args, axes)
    # The matrices that all examples share are factored once: the examples are more columns.
    b = move_axis(b, j, b.ndim - 1)
    *lead, n, k, _ = b.shape
    x = bind(_solve, (a, np.reshape(b, (*lead, n, k * size))))
    return np.reshape(x, (*x.shape[:-1], k, size)), x.ndim


def _solve_transposed(a: Any, ct: Any) -> Any:
    return bind(_solve, (swap(a), ct))


_solve.vjp(
    lambda ct, ans, a, _b: unbroadcast(-(_solve_transposed(a, ct) @ swap(ans)), a.shape),
    lambda ct, _ans, a, b_like: unbroadcast(_solve_transposed(a, ct), b_like.shape),
)
_solve.jvp(
    lambda t, ans, a, _b: -bind(_solve, (a, t @ ans)),
    lambda t, _ans, a, _b: bind(_solve, (a, t)),
)


@implements(np.linalg.solve)
def solve(a: Any, b: Any) -> Any:
    """NumPy's ``linalg.solve``: `b` is a vector if it has one axis, otherwise a stack of matrices."""
    (a,) = as_matrices("np.linalg.solve", a)
    (b,) = as_matrices("np.linalg.solve", b, least=1)
    square("np.linalg.solve", a)
    if b.shape[-2 if b.ndim > 1 else 0] != a.shape[-1]:
        raise ShapeError(f"np.linalg.solve: matrices of shape {a.shape} do not fit right-hand sides of {b.shape}")
    return bind(_solve, (a, b[:, None]))[..., 0] if b.ndim == 1 else bind(_solve, (a, b))


# -- pinv ---------------------------------------------------------------------------------------


def _pinv_shape(a: ShapeDtypeStruct, rcond: ShapeDtypeStruct, *, hermitian: bool) -> ShapeDtypeStruct:
    return ShapeDtypeStruct((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype)


def _pinv_kernel(a: Any, rcond: Any, *, hermitian: bool) -> Any:
    return np.linalg.pinv(a, rcond, hermitian)


_pinv = primitive("pinv", _pinv_kernel, _pinv_shape)
_pinv.cost(lambda ans, a, rcond, **_: 14 * a.size * min(a.shape[-2:]))


def _pinv_change(d: Any, p: Any, a: Any) -> Any:
    """``p p^H d (1 - a p) + (1 - p a) d p^H p`` for the pseudoinverse p of `a`: what the change d of a^H does to it.

    Multiplied so that nothing is larger than the matrix.
    """
    ph = adjoint(p)
    if a.shape[-2] >= a.shape[-1]:
        first, second = (p @ ph) @ d, (d @ ph) @ p
        return first - (first @ a) @ p + second - (p @ a) @ second
    first, second = p @ (ph @ d), d @ (ph @ p)
    return first - first @ (a @ p) + second - p @ (a @ second)


def _pinv_vjp(ct: Any, ans: Any, a: Any, _rcond: Any, *, hermitian: bool) -> Any:
    # a p and p a are Hermitian: what takes the cotangent back is the change of a^H's pseudoinverse p^H.
    g = np.conjugate(_pinv_change(swap(ct), adjoint(ans), adjoint(a))) - swap(ans) @ ct @ swap(ans)
    return hermitian_part(g) if hermitian else g


def _pinv_jvp(t: Any, ans: Any, a: Any, _rcond: Any, *, hermitian: bool) -> Any:
    if hermitian:
        t = hermitian_part(t)
    return _pinv_change(adjoint(t), ans, a) - ans @ t @ ans


# Which singular values count as zero does not change with the tolerance nearby.
_pinv.vjp(_pinv_vjp, lambda ct, _ans, _a, rcond_like, **_: np.zeros(rcond_like.shape, rcond_like.dtype))
_pinv.jvp(_pinv_jvp, lambda t, ans_like, _a, _rcond, **_: np.zeros(ans_like.shape, ans_like.dtype))


@_pinv.vmap
def _(_size: int, args: Any, axes: Any, *, hermitian: bool) -> tuple[Any, int]:
    (a, rcond), (i, j) = args, axes
    rank = max(a.ndim - (i is not None) - 2, len(np.shape(rcond)) - (j is not None))
    a, rcond = in_front(a, i, rank + 2), in_front(rcond, j, rank)
    if i is None:
        a = np.broadcast_to(a, (*np.shape(rcond), *a.shape[-2:]))
    return bind(_pinv, (a, rcond), {"hermitian": hermitian}), 0


@implements(np.linalg.pinv)
def pinv(a: Any, rcond: Any = None, hermitian: bool = False, *, rtol: Any = np._NoValue) -> Any:
    """NumPy's ``linalg.pinv``; the derivative is that among matrices of the same rank, with hermitian=True among
    Hermitian ones."""
    (a,) = as_matrices("np.linalg.pinv", a)
    if rcond is not None and rtol is not np._NoValue:
        raise ArgumentError("np.linalg.pinv: give rtol= or rcond=, not both")
    if rcond is None:
        rcond = 1e-15 if rtol is np._NoValue else rtol
    if rcond is None:
        rcond = max(a.shape[-2:]) * np.finfo(a.dtype).eps
    return bind(_pinv, (a, rcond if hasattr(rcond, "shape") else np.asarray(rcond)), {"hermitian": bool(hermitian)})


# -- least squares ------------------------------------------------------------------------------


@implements(np.linalg.lstsq)
def lstsq(a: Any, b: Any, rcond: Any = None) -> tuple[Any, Any, Any, Any]:
    """NumPy's ``linalg.lstsq``, by the pseudoinverse.

    The shape of the second answer, the sums of squared residuals, depends on the rank. Where that is not known, under
    jit and vmap, it is taken to be full.
    """
    (a,) = as_matrices("np.linalg.lstsq", a)
    (b,) = as_matrices("np.linalg.lstsq", b, least=1)
    if a.ndim != 2 or b.ndim > 2 or a.shape[0] != b.shape[0]:
        raise ShapeError(f"np.linalg.lstsq: shapes {a.shape} and {b.shape} do not fit; map stacks with ff.vmap")
    result = np.result_type(a.dtype, b.dtype)
    wide = np.result_type(result, np.float64)  # NumPy computes in double precision, whatever it is given
    a, b = convert(a, wide), convert(b, wide)
    m, n = a.shape
    if rcond is None:
        rcond = float(np.finfo(wide).eps) * max(m, n)
    s = np.linalg.svd(a, compute_uv=False)
    rank = convert(np.linalg.matrix_rank(a, rtol=rcond), np.int32)
    x = bind(_pinv, (a, np.asarray(rcond)), {"hermitian": False}) @ b
    squares = np.sum(sizes_squared(b - a @ x), axis=0, keepdims=b.ndim == 1)
    if m <= n or (not isinstance(rank, Tracer) and rank < n):
        squares = np.zeros(0, squares.dtype)
    narrow = np.zeros((), result).real.dtype
    return convert(x, result), convert(squares, narrow), rank, convert(s, narrow)


# -- arrangements of the above ------------------------------------------------------------------


@implements(np.linalg.tensorinv)
def tensorinv(a: Any, ind: int = 2) -> Any:
    """NumPy's ``linalg.tensorinv``."""
    if ind <= 0:
        raise ArgumentError(f"np.linalg.tensorinv: ind counts the first axes of the inverse, from 1, got {ind}")
    shape = (*a.shape[ind:], *a.shape[:ind])
    return np.reshape(inv(np.reshape(a, (math.prod(a.shape[:ind]), math.prod(a.shape[ind:])))), shape)


@implements(np.linalg.tensorsolve)
def tensorsolve(a: Any, b: Any, axes: Any = None) -> Any:
    """NumPy's ``linalg.tensorsolve``."""
    if axes is not None:
        last = [int(k) % np.ndim(a) for k in axes]
        a = np.transpose(a, [*[i for i in range(np.ndim(a)) if i not in last], *last])
    shape = np.shape(a)[np.ndim(b) :]
    n = math.prod(shape)
    if math.prod(np.shape(a)) != n * n:
        raise ShapeError(
            f"np.linalg.tensorsolve: the axes of shape {np.shape(a)} after the first {np.ndim(b)} must have as many "
            "elements as those before"
        )
    return np.reshape(np.linalg.solve(np.reshape(a, (n, n)), np.reshape(b, -1)), shape)


@implements(np.linalg.matrix_power)
def matrix_power(a: Any, n: Any) -> Any:
    """NumPy's ``linalg.matrix_power``, by repeated squaring."""
    square("np.linalg.matrix_power", a)
    n = operator.index(n)
    if n == 0:
        return np.broadcast_to(np.eye(a.shape[-1], dtype=a.dtype), a.shape).copy()
    if n < 0:
        a, n = inv(a), -n
    result = None
    while n:
        if n & 1:
            result = a if result is None else result @ a
        n >>= 1
        a = a @ a if n else a
    return result


@implements(np.linalg.multi_dot)
def multi_dot(arrays: Any, *, out: Any = None) -> Any:
    """NumPy's ``linalg.multi_dot``: the product in the order that takes the fewest multiplications."""
    no_out("np.linalg.multi_dot", out)
    xs = [x if hasattr(x, "dtype") else np.asarray(x) for x in arrays]
    if len(xs) < 2:
        raise ArgumentError("np.linalg.multi_dot: two arrays or more are needed")
    row, column = xs[0].ndim == 1, xs[-1].ndim == 1
    xs[0] = xs[0][None] if row else xs[0]
    xs[-1] = xs[-1][:, None] if column else xs[-1]
    if any(x.ndim != 2 for x in xs) or any(x.shape[1] != y.shape[0] for x, y in pairwise(xs)):
        raise ShapeError(f"np.linalg.multi_dot: shapes {[x.shape for x in xs]} do not fit as a chain of matrices")
    product = _chain(xs, _splits([xs[0].shape[0], *[x.shape[1] for x in xs]]), 0, len(xs) - 1)
    rows, columns = product.shape
    return np.reshape(product, (*(() if row else (rows,)), *(() if column else (columns,))))


def _splits(sizes: list[int]) -> dict[tuple[int, int], int]:
    """Where to split the product of matrices i to j last, for all i and j (Cormen et al., Introduction to
    Algorithms, matrix-chain multiplication)."""
    count = len(sizes) - 1
    costs = {(i, i): 0 for i in range(count)}
    splits: dict[tuple[int, int], int] = {}
    for length in range(1, count):
        for i in range(count - length):
            j = i + length
            options = [(costs[i, k] + costs[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k) for k in range(i, j)]
            costs[i, j], splits[i, j] = min(options)
    return splits


def _chain(xs: list[Any], splits: dict[tuple[int, int], int], i: int, j: int) -> Any:
    if i == j:
        return xs[i]
    k = splits[i, j]
    return _chain(xs, splits, i, k) @ _chain(xs, splits, k + 1, j)
