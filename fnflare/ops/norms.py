"""Norms of vectors and matrices, and condition numbers.

Arrays and tracers go in; everything is made of sums, extremes and singular values. A norm has no derivative where it is
zero, nor where an element or singular value that it takes the size of is; what is given there is finite:

- the 2-norm, the Frobenius norm and the p-norms have derivative 0 at zero, and p-norms are flat along elements that
  are zero, which for p > 1 is what they are;
- sizes of elements have derivative 0 at zero (the 1-norm, sums of rows and columns);
- extremes (infinity norms, the norms 1, 2, -1 and -2 of matrices) share their derivative equally among ties;
- the nuclear norm has the derivative ``u @ vh`` of the decomposition that is computed.

These are subgradients of the norms among them, which are convex.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core.tracer import implements
from fnflare.errors import ArgumentError, ShapeError
from fnflare.ops.elementwise import convert
from fnflare.ops.matrices import as_matrices, sizes_squared, square
from fnflare.ops.reduce import axes_of
from fnflare.ops.solve import inverse_or_nan

__all__ = ["norm"]


def _root(total: Any) -> Any:
    """The square root of a sum of squares, with derivative 0 at zero."""
    zero = total == 0
    return np.where(zero, 0, np.sqrt(np.where(zero, 1, total)))


def _floating(x: Any) -> Any:
    return x if x.dtype.kind in "fc" else convert(x, np.float64)


@implements(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """NumPy's ``linalg.norm``, in all orders; see the module for derivatives at zero and at ties."""
    x = _floating(x)
    if axis is None and (ord is None or (ord in ("f", "fro") and x.ndim == 2) or (ord == 2 and x.ndim == 1)):
        return _root(np.sum(sizes_squared(x), keepdims=keepdims))
    axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    if len(axes) == 1:
        return _vector_norm(x, ord, axes_of(axes[0], x.ndim)[0], keepdims)
    if len(axes) != 2 or len(axes_of(axes, x.ndim)) != 2:
        raise ShapeError(f"np.linalg.norm: give one axis or two, got axis={axis!r} for shape {x.shape}")
    return _matrix_norm(x, ord, int(axes[0]) % x.ndim, int(axes[1]) % x.ndim, keepdims)


def _vector_norm(x: Any, ord: Any, axis: int, keepdims: bool) -> Any:
    if isinstance(ord, str):
        raise ArgumentError(f"np.linalg.norm: ord={ord!r} is no norm of vectors")
    if ord is None or ord == 2:
        return _root(np.sum(sizes_squared(x), axis=axis, keepdims=keepdims))
    if ord == 0:
        return np.sum((x != 0).astype(x.real.dtype), axis=axis, keepdims=keepdims)
    size = np.abs(x)
    if ord == np.inf:
        return _largest(size, axis, keepdims)
    if ord == -np.inf:
        return np.min(size, axis=axis, keepdims=keepdims)
    if ord == 1:
        return np.sum(size, axis=axis, keepdims=keepdims)
    if ord < 0:
        return np.sum(size**ord, axis=axis, keepdims=keepdims) ** (1.0 / ord)
    zero = size == 0
    total = np.sum(np.where(zero, 0, np.where(zero, 1, size) ** ord), axis=axis, keepdims=keepdims)
    zero = total == 0
    return np.where(zero, 0, np.where(zero, 1, total) ** (1.0 / ord))


def _largest(x: Any, axis: int, keepdims: bool) -> Any:
    """The maximum of sizes; 0 of none."""
    return np.max(x, axis=axis, keepdims=keepdims) if x.shape[axis] else np.sum(x, axis=axis, keepdims=keepdims)


def _matrix_norm(x: Any, ord: Any, row: int, column: int, keepdims: bool) -> Any:
    if ord in (None, "fro", "f"):
        return _root(np.sum(sizes_squared(x), axis=(row, column), keepdims=keepdims))
    if ord in (2, -2, "nuc"):
        out = _of_singular_values(np.linalg.svdvals(np.moveaxis(x, (row, column), (-2, -1))), ord)
        return np.expand_dims(out, (row, column)) if keepdims else out
    if ord not in (1, -1, np.inf, -np.inf):
        raise ArgumentError(f"np.linalg.norm: ord={ord!r} is no norm of matrices")
    summed, compared = (row, column) if abs(ord) == 1 else (column, row)
    total = np.sum(np.abs(x), axis=summed, keepdims=True)
    out = _largest(total, compared, True) if ord > 0 else np.min(total, axis=compared, keepdims=True)
    return out if keepdims else np.squeeze(out, axis=(row, column))


def _of_singular_values(s: Any, ord: Any) -> Any:
    if ord == "nuc":
        return np.sum(s, axis=-1)
    return _largest(s, -1, False) if ord == 2 else np.min(s, axis=-1)


@implements(np.linalg.vector_norm)
def vector_norm(x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> Any:
    """NumPy's ``linalg.vector_norm``: over any number of axes."""
    x = _floating(x)
    axes = axes_of(axis, x.ndim)
    rest = [i for i in range(x.ndim) if i not in axes]
    count = math.prod([x.shape[i] for i in axes])
    if len(axes) != 1:
        flat = np.reshape(np.transpose(x, (*axes, *rest)), (count, *[x.shape[i] for i in rest]))
        out = _vector_norm(flat, ord, 0, False)
    else:
        out = _vector_norm(x, ord, axes[0], False)
    return np.expand_dims(out, axes) if keepdims else out


@implements(np.linalg.matrix_norm)
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """NumPy's ``linalg.matrix_norm``: of stacks of matrices along the last two axes."""
    return norm(x, ord, (-2, -1), keepdims)


@implements(np.linalg.cond)
def cond(x: Any, p: Any = None) -> Any:
    """NumPy's ``linalg.cond``: the norm of a matrix times that of its inverse; of a singular matrix infinity."""
    (x,) = as_matrices("np.linalg.cond", x)
    with np.errstate(all="ignore"):
        if p is None or p in (2, -2):
            s = np.linalg.svdvals(x)
            out = s[..., -1] / s[..., 0] if p == -2 else s[..., 0] / s[..., -1]
        else:
            square("np.linalg.cond", x)
            out = norm(x, p, (-2, -1)) * norm(inverse_or_nan(x), p, (-2, -1))
    undefined = np.isnan(out) & ~np.any(np.isnan(x), axis=(-2, -1))
    return np.where(undefined, np.inf, out)
