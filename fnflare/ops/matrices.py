"""What the operations of linear algebra share: transposes, dtypes, stacks of matrices.

Arrays and tracers whose last two axes are those of matrices go in; all other axes count the matrices of a stack, so
that an example of a batch is one more of them. `batch_stacks` gives the primitives of this family their batching rules.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import Primitive, ShapeDtypeStruct, bind
from fnflare.errors import DtypeError, ShapeError
from fnflare.ops.elementwise import convert
from fnflare.ops.index import in_front

__all__ = [
    "adjoint",
    "as_matrices",
    "batch_stacks",
    "hermitian_part",
    "on_diagonal",
    "real_dtype",
    "same_shape",
    "sizes_squared",
    "square",
    "stacked",
    "swap",
]


def swap(x: Any) -> Any:
    """The transposed matrices."""
    return x.swapaxes(-1, -2)


def adjoint(x: Any) -> Any:
    """The transposed and conjugated matrices."""
    return swap(np.conjugate(x) if x.dtype.kind == "c" else x)


def hermitian_part(x: Any) -> Any:
    """``(x + x^H) / 2``: the gradient, or the tangent, of what takes only Hermitian matrices."""
    return (x + adjoint(x)) * 0.5


def on_diagonal(x: Any) -> Any:
    """The diagonal matrices with the given last axis on their diagonals."""
    return x[..., None] * np.eye(x.shape[-1], dtype=real_dtype(x.dtype))


def sizes_squared(x: Any) -> Any:
    """The squares of the sizes of numbers, real or complex."""
    return np.square(x) if x.dtype.kind != "c" else np.square(np.real(x)) + np.square(np.imag(x))


def real_dtype(dtype: Any) -> Any:
    """The dtype of the parts of a complex number; of real ones their own."""
    return np.zeros((), dtype).real.dtype


def as_matrices(name: str, *xs: Any, least: int = 2) -> list[Any]:
    """The arguments of a function of linear algebra as arrays of the dtype in which NumPy gives its answer.

    Args:
        name: of the function, for messages.
        *xs: arrays, tracers, lists.
        least: how many axes each needs.

    Raises:
        ShapeError: one has fewer axes.
        DtypeError: one is of float16, which NumPy's linear algebra does not take either.
    """
    arrays = [x if hasattr(x, "dtype") else np.asarray(x) for x in xs]
    for x in arrays:
        if x.ndim < least:
            raise ShapeError(f"{name}: an array with {least} axes or more is needed, got shape {x.shape}")
        if x.dtype == np.float16 or x.dtype.kind not in "biufc":
            raise DtypeError(f"{name}: dtype {x.dtype} has no linear algebra; write x.astype(np.float32)")
    dtype = np.result_type(*[np.float64 if x.dtype.kind in "biu" else x.dtype for x in arrays])
    return [x if x.dtype == dtype else convert(x, dtype) for x in arrays]


def square(name: str, x: Any) -> None:
    """Raise `ShapeError` unless the last two axes are equally long."""
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"{name}: square matrices along the last two axes are needed, got shape {x.shape}")


def same_shape(x: ShapeDtypeStruct, **_: Any) -> ShapeDtypeStruct:
    """The shape rule of an operation that keeps shape and dtype."""
    return ShapeDtypeStruct(x.shape, x.dtype)


def batch_stacks(prim: Primitive) -> None:
    """Give the batching rule of an operation on stacks of matrices: the examples are one more axis of the stack,
    whose axes broadcast against each other where there are several arguments."""
    prim.vmap(lambda _size, args, axes, **params: stacked(prim, args, axes, params))


def stacked(prim: Primitive, args: Any, axes: Any, params: Any = None) -> tuple[Any, Any]:
    """An operation on stacks of matrices, of all examples: the answers, and the axes of the examples in them."""
    rank = max([len(np.shape(x)) - (a is not None) for x, a in zip(args, axes, strict=True)])
    ans = bind(prim, [in_front(x, a, rank) for x, a in zip(args, axes, strict=True)], params or None)
    return ans, (0,) * len(ans) if prim.many else 0
