"""Products of matrices and what is made of them: matmul, dot, vdot, inner, outer, tensordot; norms.

`matmul` is the primitive; the others arrange their arguments for it, or for an elementwise product.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare import kernels
from fnflare.core import ShapeDtypeStruct, bind, move_axis, primitive
from fnflare.core.tracer import UFUNC_FUNCTIONS, UFUNCS, implements
from fnflare.errors import ShapeError
from fnflare.ops.index import in_front
from fnflare.ops.shape import no_out, unbroadcast

__all__ = ["matmul"]

# -- matmul -------------------------------------------------------------------------------------


def _matmul_shape(x: ShapeDtypeStruct, y: ShapeDtypeStruct) -> ShapeDtypeStruct:
    if not x.ndim or not y.ndim:
        raise ValueError(f"matmul: needs at least one axis in each argument, got shapes {x.shape} and {y.shape}")
    if x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise ValueError(f"matmul: shapes {x.shape} and {y.shape} do not fit")
    lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    shape = (*lead, *x.shape[-2:-1], *(y.shape[-1:] if y.ndim > 1 else ()))
    return ShapeDtypeStruct(shape, np.result_type(x.dtype, y.dtype))


matmul = primitive("matmul", kernels.matmul, _matmul_shape, multilinear=True)
matmul.cost(lambda ans, x, y: 2 * ans.size * x.shape[-1])
UFUNCS[np.matmul] = matmul


def _swap(x: Any) -> Any:
    return x.swapaxes(-1, -2)


def _matmul_left(ct: Any, _ans: Any, x_like: Any, y: Any) -> Any:
    if y.ndim == 1:
        g = ct * y if x_like.ndim == 1 else ct[..., None] * y
    elif x_like.ndim == 1:
        g = bind(matmul, (y, ct)) if y.ndim == 2 else bind(matmul, (y, ct[..., None]))[..., 0]
    else:
        g = bind(matmul, (ct, _swap(y)))
    return unbroadcast(g, x_like.shape)


def _matmul_right(ct: Any, _ans: Any, x: Any, y_like: Any) -> Any:
    if x.ndim == 1:
        g = ct * x if y_like.ndim == 1 else x[:, None] * ct[..., None, :]
    elif y_like.ndim == 1:
        g = bind(matmul, (ct, x)) if x.ndim == 2 else bind(matmul, (_swap(x), ct[..., None]))[..., 0]
    elif y_like.ndim == 2 and x.ndim > 2:
        # One large product over all rows of the batch instead of one a matrix and a sum.
        n = math.prod(x.shape[:-1])
        g = bind(matmul, (_swap(np.reshape(x, (n, x.shape[-1]))), np.reshape(ct, (n, ct.shape[-1]))))
    else:
        g = bind(matmul, (_swap(x), ct))
    return unbroadcast(g, y_like.shape)


matmul.vjp(_matmul_left, _matmul_right)


@matmul.vmap
def _(_size: int, args: Any, axes: Any) -> tuple[Any, int]:
    (x, y), (i, j) = args, axes
    if j is None:
        return _more_rows(x, i, y)
    return _more_columns(x, y, j) if i is None else _pairwise(x, i, y, j)


def _more_rows(x: Any, i: int, y: Any) -> tuple[Any, int]:
    """``x @ y`` where only x is batched: the rows of all examples are rows of one product."""
    if y.ndim <= 2:
        if i == x.ndim - 1:
            x, i = move_axis(x, i, 0), 0
        if x.ndim == 2:
            return bind(matmul, (x, y)), i
        rows = x.shape[:-1]
        product = bind(matmul, (np.reshape(x, (math.prod(rows), x.shape[-1])), y))
        return np.reshape(product, (*rows, *y.shape[1:])), i
    if x.ndim == 2:
        return bind(matmul, (move_axis(x, i, 0), y)), y.ndim - 2
    x = move_axis(x, i, x.ndim - 3)
    *lead, size, m, k = x.shape
    product = bind(matmul, (np.reshape(x, (*lead, size * m, k)), y))
    *lead, _, n = product.shape
    return np.reshape(product, (*lead, size, m, n)), len(lead)


def _more_columns(x: Any, y: Any, j: int) -> tuple[Any, int]:
    """``x @ y`` where only y is batched: the columns of all examples are columns of one product, if they
    lie side by side. To lay them so would take as long as the product of each with a few rows."""
    if y.ndim == 2:  # an example is one column
        rows = x.shape[:-1]
        flat = x if x.ndim <= 2 else np.reshape(x, (math.prod(rows), x.shape[-1]))
        product = bind(matmul, (move_axis(y, j, 0), flat if x.ndim == 1 else _swap(flat)))
        return product if x.ndim <= 2 else np.reshape(product, (y.shape[j], *rows)), 0
    if j < y.ndim - 2:
        if x.ndim > 2:
            y, j = in_front(y, j, x.ndim), 0
        return bind(matmul, (x, y)), j
    *lead, k, a, b = y.shape
    product = bind(matmul, (x, np.reshape(y, (*lead, k, a * b))))
    return np.reshape(product, (*product.shape[:-1], a, b)), product.ndim - (j == y.ndim - 2)


def _pairwise(x: Any, i: int, y: Any, j: int) -> tuple[Any, int]:
    """``x @ y`` where both are batched: one product an example."""
    x, y = move_axis(x, i, 0), move_axis(y, j, 0)
    row, column = x.ndim == 2, y.ndim == 2
    x = x[:, None] if row else x
    y = y[..., None] if column else y
    rank = max(x.ndim, y.ndim) - 1
    product = bind(matmul, (in_front(x, 0, rank), in_front(y, 0, rank)))
    if row or column:
        *shape, m, n = product.shape
        product = np.reshape(product, (*shape, *(() if row else (m,)), *(() if column else (n,))))
    return product, 0


@implements(np.dot)
def dot(a: Any, b: Any, out: Any = None) -> Any:
    """NumPy's ``dot``."""
    no_out("np.dot", out)
    if np.ndim(a) == 0 or np.ndim(b) == 0:
        return _scaled(a, b)
    return np.matmul(a, b) if np.ndim(b) <= 2 else np.tensordot(a, b, (-1, -2))


@implements(np.vdot)
def vdot(a: Any, b: Any, /) -> Any:
    """NumPy's ``vdot``: the product of the first argument's conjugate with the second."""
    return np.matmul(np.conjugate(np.reshape(a, -1)), np.reshape(b, -1))


@implements(np.inner)
def inner(a: Any, b: Any, /) -> Any:
    """NumPy's ``inner``."""
    return _scaled(a, b) if np.ndim(a) == 0 or np.ndim(b) == 0 else np.tensordot(a, b, (-1, -1))


def _scaled(a: Any, b: Any) -> Any:
    """A product with a number; a Python number is of float64 here, as it is to NumPy's dot and inner."""
    return np.multiply(*[x if hasattr(x, "dtype") else np.asarray(x) for x in (a, b)])


@implements(np.outer)
def outer(a: Any, b: Any, out: Any = None) -> Any:
    """NumPy's ``outer``."""
    no_out("np.outer", out)
    return np.reshape(a, (-1, 1)) * np.reshape(b, (1, -1))


UFUNC_FUNCTIONS[np.vecdot] = lambda x, y: np.sum(np.conjugate(x) * y, axis=-1)


@implements(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """NumPy's ``tensordot``: one matrix product of the arguments laid out as matrices."""
    if isinstance(axes, (int, np.integer)):
        left = list(range(np.ndim(a) - int(axes), np.ndim(a)))
        right = list(range(int(axes)))
    else:
        left, right = [list(x) if isinstance(x, (list, tuple)) else [x] for x in axes]
    left = [i % np.ndim(a) for i in left]
    right = [i % np.ndim(b) for i in right]
    if len(left) != len(right) or any(np.shape(a)[i] != np.shape(b)[j] for i, j in zip(left, right, strict=True)):
        raise ValueError(f"tensordot: shapes {np.shape(a)} and {np.shape(b)} do not fit along {left} and {right}")
    rows = [i for i in range(np.ndim(a)) if i not in left]
    columns = [i for i in range(np.ndim(b)) if i not in right]
    inner_size = math.prod([np.shape(a)[i] for i in left])
    row_shape = [np.shape(a)[i] for i in rows]
    column_shape = [np.shape(b)[i] for i in columns]
    x = np.reshape(np.transpose(a, (*rows, *left)), (math.prod(row_shape), inner_size))
    y = np.reshape(np.transpose(b, (*right, *columns)), (inner_size, math.prod(column_shape)))
    return np.reshape(np.matmul(x, y), (*row_shape, *column_shape))


# -- numpy.linalg's names for what NumPy has at top level ---------------------------------------

implements(np.linalg.matmul)(np.matmul)
implements(np.linalg.tensordot)(tensordot)
implements(np.linalg.matrix_transpose)(np.matrix_transpose)


@implements(np.linalg.outer)
def linalg_outer(x1: Any, x2: Any, /) -> Any:
    """NumPy's ``linalg.outer``, of vectors alone."""
    if np.ndim(x1) != 1 or np.ndim(x2) != 1:
        raise ShapeError(f"np.linalg.outer: vectors are needed, got shapes {np.shape(x1)} and {np.shape(x2)}")
    return outer(x1, x2)


@implements(np.linalg.vecdot)
def linalg_vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """NumPy's ``linalg.vecdot``; the first argument is conjugated."""
    return np.vecdot(np.moveaxis(x1, axis, -1), np.moveaxis(x2, axis, -1))


@implements(np.linalg.diagonal)
def linalg_diagonal(x: Any, /, *, offset: int = 0) -> Any:
    """NumPy's ``linalg.diagonal``, of the last two axes."""
    return np.diagonal(x, offset, -2, -1)


@implements(np.linalg.trace)
def linalg_trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    """NumPy's ``linalg.trace``, of the last two axes."""
    return np.trace(x, offset, -2, -1, dtype)


@implements(np.linalg.cross)
def linalg_cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """NumPy's ``linalg.cross``, of vectors with three elements."""
    if np.shape(x1)[axis] != 3 or np.shape(x2)[axis] != 3:
        raise ShapeError(
            f"np.linalg.cross: vectors of three elements along axis {axis} are needed, got shapes {np.shape(x1)} and "
            f"{np.shape(x2)}"
        )
    a, b, c = np.moveaxis(x1, axis, 0)
    x, y, z = np.moveaxis(x2, axis, 0)
    return np.stack([b * z - c * y, c * x - a * z, a * y - b * x], axis=axis)
