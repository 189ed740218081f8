"""Indices from shapes and from other indices: of parts of an array of this shape, of elements by their numbers.

What depends on shapes alone is plain. Numbers of elements may be tracers, of integers; they have no derivative.
"""

from __future__ import annotations

import math
import operator
from itertools import accumulate
from typing import Any

import numpy as np

from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError
from fnflare.ops.order import concrete
from fnflare.ops.shape import as_arrays, reshape

__all__ = ["unravel_index"]


def _stand_in(x: Any) -> Any:
    """An array of the tracer's shape and dtype, without memory of its own."""
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


@implements(np.tril_indices_from)
def tril_indices_from(arr: Any, k: int = 0) -> Any:
    """NumPy's ``tril_indices_from``: plain indices."""
    return np.tril_indices_from(_stand_in(arr), k)


@implements(np.triu_indices_from)
def triu_indices_from(arr: Any, k: int = 0) -> Any:
    """NumPy's ``triu_indices_from``: plain indices."""
    return np.triu_indices_from(_stand_in(arr), k)


@implements(np.diag_indices_from)
def diag_indices_from(arr: Any) -> Any:
    """NumPy's ``diag_indices_from``: plain indices."""
    return np.diag_indices_from(_stand_in(arr))


@implements(np.einsum_path)
def einsum_path(*operands: Any, optimize: Any = "greedy", einsum_call: Any = False) -> Any:
    """NumPy's ``einsum_path``: it depends on shapes alone."""
    plain = [_stand_in(x) if hasattr(x, "shape") else x for x in operands]
    return np.einsum_path(*plain, optimize=optimize, einsum_call=einsum_call)


# -- numbers of elements ------------------------------------------------------------------------


def _strides(shape: tuple[int, ...], order: str) -> list[int]:
    """How many elements lie between neighbours along each axis."""
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', got {order!r}")
    sizes = shape[::-1] if order == "C" else shape
    steps = list(accumulate((1, *sizes[:-1]), operator.mul)) if shape else []
    return steps[::-1] if order == "C" else steps


def _integers(name: str, *xs: Any) -> list[Any]:
    arrays = as_arrays(xs)
    for x in arrays:
        if x.dtype.kind not in "biu":
            raise TypeError(f"{name} takes integers, got dtype {x.dtype}")
    return arrays


@implements(np.unravel_index)
def unravel_index(indices: Any, shape: Any, order: str = "C") -> tuple[Any, ...]:
    """NumPy's ``unravel_index``; whether a number is within the shape is not known and not checked."""
    (i,) = _integers("np.unravel_index", indices)
    shape = (operator.index(shape),) if np.ndim(shape) == 0 else tuple(shape)
    return tuple([i // step % n for step, n in zip(_strides(shape, order), shape, strict=True)])


@implements(np.ravel_multi_index)
def ravel_multi_index(multi_index: Any, dims: Any, mode: Any = "raise", order: str = "C") -> Any:
    """NumPy's ``ravel_multi_index``; whether indices are within the shape is not known and not checked."""
    dims = (operator.index(dims),) if np.ndim(dims) == 0 else tuple(dims)
    indices = _integers("np.ravel_multi_index", *multi_index)
    if len(indices) != len(dims):
        raise ValueError(f"np.ravel_multi_index: {len(indices)} indices for {len(dims)} axes, {dims}")
    modes = (mode,) * len(dims) if isinstance(mode, str) else tuple(mode)
    total: Any = 0
    for i, step, n, how in zip(indices, _strides(dims, order), dims, modes, strict=True):
        total = total + (i % n if how == "wrap" else np.clip(i, 0, n - 1) if how == "clip" else i) * step
    return total


@implements(np.ix_)
def ix_(*args: Any) -> tuple[Any, ...]:
    """NumPy's ``ix_``; a mask must be known."""
    lines = [np.nonzero(concrete("np.ix_", x))[0] if x.dtype.kind == "b" else x for x in as_arrays(args)]
    for x in lines:
        if x.ndim != 1:
            raise ValueError(f"np.ix_ takes vectors, got shape {x.shape}")
    return tuple([reshape(x, [-1 if i == at else 1 for i in range(len(lines))]) for at, x in enumerate(lines)])


# -- windows ------------------------------------------------------------------------------------


@implements(np.lib.stride_tricks.sliding_window_view)
def sliding_window_view(
    x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False
) -> Any:
    """NumPy's ``sliding_window_view``, in memory of its own."""
    if writeable:
        raise UnsupportedError("sliding_window_view: writeable=True writes into the array, which a tracer cannot be")
    window = (operator.index(window_shape),) if np.ndim(window_shape) == 0 else tuple(window_shape)
    places = np.lib.stride_tricks.sliding_window_view(np.arange(math.prod(x.shape)).reshape(x.shape), window, axis)
    return np.take(reshape(x, -1), places)
