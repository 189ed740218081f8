"""Products and contractions: matmul, dot, tensordot, einsum and what is made of them.

`matmul` and `einsum` are the primitives; the others arrange their arguments for one of the two.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare import kernels
from fnflare.core import ShapeDtypeStruct, bind, move_axis, primitive
from fnflare.core.tracer import UFUNC_FUNCTIONS, UFUNCS, implements
from fnflare.errors import ShapeError, UnsupportedError
from fnflare.ops.index import in_front, index_set
from fnflare.ops.shape import unbroadcast

__all__ = ["einsum", "matmul"]

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
    if out is not None:
        raise UnsupportedError("np.dot: out= cannot take a tracer; use what the function returns")
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
    if out is not None:
        raise UnsupportedError("np.outer: out= cannot take a tracer; use what the function returns")
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


# -- einsum -------------------------------------------------------------------------------------
#
# Subscripts reach the primitive in one canonical form: every operand's axes as letters, explicit
# output, no ellipsis, so that the rules need not parse.


def _free_letters(text: str) -> list[str]:
    return [c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in text]


def _canonical(subscripts: str, ndims: list[int]) -> tuple[tuple[str, ...], str]:
    """``"...ij,jk"`` and the numbers of axes as letters of each operand and of the output."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ndims):
        raise ValueError(f"einsum: {subscripts!r} names {len(terms)} operands, got {len(ndims)}")
    free = _free_letters(text)
    widths = [n - len(t.replace("...", "")) for t, n in zip(terms, ndims, strict=True) if "..." in t]
    dots = "".join(free[: max(widths, default=0)])
    full = []
    for term, n in zip(terms, ndims, strict=True):
        width = n - len(term.replace("...", ""))
        if width < 0 or (width and "..." not in term):
            raise ValueError(f"einsum: {term!r} in {subscripts!r} does not fit an operand with {n} axes")
        full.append(term.replace("...", dots[len(dots) - width :]))
    letters = "".join(terms).replace(".", "")
    implicit = dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return tuple(full), right.replace("...", dots) if arrow else implicit


def _einsum_kernel(*xs: Any, terms: tuple[str, ...], out: str) -> Any:
    return np.einsum(",".join(terms) + "->" + out, *xs, optimize=len(xs) > 1)


def _sizes(terms: tuple[str, ...], xs: Any) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for term, x in zip(terms, xs, strict=True):
        for c, n in zip(term, x.shape, strict=True):
            if sizes.get(c, 1) != n and n != 1 and sizes.get(c, 1) != 1:
                raise ValueError(f"einsum: axis {c!r} has length {sizes[c]} and {n} in {','.join(terms)}")
            sizes[c] = max(n, sizes.get(c, 1)) if n else 0
    return sizes


def _einsum_shape(*xs: ShapeDtypeStruct, terms: tuple[str, ...], out: str) -> ShapeDtypeStruct:
    sizes = _sizes(terms, xs)
    return ShapeDtypeStruct(tuple([sizes[c] for c in out]), np.result_type(*[x.dtype for x in xs]))


_einsum = primitive("einsum", _einsum_kernel, _einsum_shape)


@_einsum.cost
def _(ans: Any, *xs: ShapeDtypeStruct, terms: tuple[str, ...], out: str) -> int:
    return len(xs) * math.prod(_sizes(terms, xs).values())


@_einsum.vjp_joint
def _(ct: Any, _ans: Any, *xs: Any, terms: tuple[str, ...], out: str) -> list[Any]:
    return [_einsum_operand(ct, k, xs, terms, out) for k in range(len(xs))]


def _einsum_operand(ct: Any, k: int, xs: Any, terms: tuple[str, ...], out: str) -> Any:
    """The cotangent of operand k: contract the cotangent with the other operands.

    Letters that only operand k has were summed away; they come back by broadcasting. A letter that
    occurs twice in it read a diagonal; the cotangent is written onto the diagonal of zeros.
    """
    term = terms[k]
    others = [t for i, t in enumerate(terms) if i != k]
    unique = "".join(dict.fromkeys(term))
    reachable = set("".join(others) + out)
    target = "".join([c for c in unique if c in reachable])
    operands = (ct, *[x for i, x in enumerate(xs) if i != k])
    g = np.einsum(",".join((out, *others)) + "->" + target, *operands)
    lengths = dict(zip(target, g.shape, strict=True))  # 1 where only operand k is longer than that
    shape = [lengths.get(c, 1) for c in unique]
    full = [xs[k].shape[term.index(c)] for c in unique]
    g = np.reshape(g, shape)
    stretched = tuple([i for i, (n, m) in enumerate(zip(shape, full, strict=True)) if m == 1 and n != 1])
    g = np.sum(g, axis=stretched, keepdims=True) if stretched else g
    g = np.broadcast_to(g, full)
    return g if unique == term else _onto_diagonal(g, term, unique, xs[k].shape)


def _onto_diagonal(g: Any, term: str, unique: str, shape: tuple[int, ...]) -> Any:
    grids = np.ogrid[tuple([slice(n) for n in g.shape])] if g.ndim > 1 else [np.arange(g.shape[0])]
    return index_set(np.zeros(shape, g.dtype), g, index=tuple([grids[unique.index(c)] for c in term]))


@_einsum.jvp_joint
def _(ts: Any, _ans: Any, *xs: Any, terms: tuple[str, ...], out: str) -> Any:
    total = None
    for k, t in enumerate(ts):
        if t is not None:
            part = bind(_einsum, (*xs[:k], t, *xs[k + 1 :]), {"terms": terms, "out": out})
            total = part if total is None else total + part
    return total


@implements(np.einsum)
def einsum(subscripts: Any, *operands: Any, out: Any = None, optimize: Any = False, **kwargs: Any) -> Any:
    """NumPy's ``einsum``, with subscripts as text."""
    if out is not None or kwargs:
        raise UnsupportedError(f"np.einsum: {['out', *kwargs][0]}= has no rule for tracers; leave it out")
    if not isinstance(subscripts, str):
        raise UnsupportedError("np.einsum: write the subscripts as text, np.einsum('ij,jk->ik', x, y)")
    xs = [x if hasattr(x, "dtype") else np.asarray(x) for x in operands]
    return _contract(xs, *_canonical(subscripts, [x.ndim for x in xs]))


def _contract(xs: Any, terms: tuple[str, ...], out: str) -> Any:
    if _is_matrix_product(terms, out):
        return bind(matmul, xs)
    return bind(_einsum, xs, {"terms": terms, "out": out})


@_einsum.vmap
def _(_size: int, xs: Any, axes: Any, *, terms: tuple[str, ...], out: str) -> tuple[Any, int]:
    letter = _free_letters("".join(terms) + out)[0]
    terms = tuple([t if a is None else t[:a] + letter + t[a:] for t, a in zip(terms, axes, strict=True)])
    return _contract(xs, terms, letter + out), 0


def _is_matrix_product(terms: tuple[str, ...], out: str) -> bool:
    """Whether it is ``...ij,...jk->...ik``, which matmul serves faster."""
    if len(terms) != 2 or len(terms[0]) != len(terms[1]) or len(terms[0]) < 2:
        return False
    batch, i, j = terms[0][:-2], terms[0][-2], terms[0][-1]
    k = terms[1][-1]
    return terms[1][:-1] == batch + j and out == batch + i + k and len({*batch, i, j, k}) == len(batch) + 3


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
