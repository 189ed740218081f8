"""Products of vectors and matrices beside those of `fnflare.ops.linalg`: cross and kron.

Each is an elementwise product of its arguments, with axes moved and added.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from fnflare.core.tracer import implements
from fnflare.ops.shape import as_arrays, axes_in_order, reshape

__all__ = ["cross", "kron"]

#: Since NumPy 2.5 `cross` is of vectors of three elements alone; before, those of two were on their way out.
_OF_TWO = np.lib.NumpyVersion(np.__version__) < "2.5.0"


@implements(np.cross)
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """NumPy's ``cross``."""
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = as_arrays([a, b])
    if not a.ndim or not b.ndim:
        raise ValueError(f"np.cross needs vectors, got shapes {a.shape} and {b.shape}")
    sizes = [x.shape[axes_in_order(i, x.ndim)[0]] for x, i in ((a, axisa), (b, axisb))]
    if not {2, 3}.issuperset(sizes):
        raise ValueError(f"np.cross: vectors must have 2 or 3 elements, got {sizes[0]} and {sizes[1]}")
    if 2 in sizes and not _OF_TWO:
        raise ValueError(
            f"np.cross: since NumPy 2.5 vectors must have 3 elements, got {sizes[0]} and {sizes[1]}; of vectors in a "
            "plane write x[..., 0] * y[..., 1] - x[..., 1] * y[..., 0]"
        )
    if 2 in sizes:
        # What NumPy says of it itself, so that code under a transform is told as well.
        warnings.warn(
            "Arrays of 2-dimensional vectors are deprecated. Use arrays of 3-dimensional vectors instead. "
            "(deprecated in NumPy 2.0)",
            DeprecationWarning,
            stacklevel=3,
        )
    xs, ys = _components(a, axisa), _components(b, axisb)
    if sizes == [2, 2]:
        return xs[0] * ys[1] - xs[1] * ys[0]
    parts = [_minor(xs, ys, i, j) for i, j in ((1, 2), (2, 0), (0, 1))]
    return np.stack(parts, axis=axes_in_order(axisc, parts[2].ndim + 1)[0])


def _components(x: Any, axis: int) -> list[Any]:
    """The components of vectors along an axis; None for the third of two."""
    x = np.moveaxis(x, axis, -1)
    return [x[..., 0], x[..., 1], x[..., 2] if x.shape[-1] == 3 else None]


def _minor(xs: list[Any], ys: list[Any], i: int, j: int) -> Any:
    """``x[i] * y[j] - x[j] * y[i]``, where a component that is None is zero."""
    left = None if xs[i] is None or ys[j] is None else xs[i] * ys[j]
    right = None if xs[j] is None or ys[i] is None else xs[j] * ys[i]
    if right is None:
        return left
    return -right if left is None else left - right


@implements(np.kron)
def kron(a: Any, b: Any) -> Any:
    """NumPy's ``kron``."""
    a, b = as_arrays([a, b])
    rank = max(a.ndim, b.ndim)
    left = (1,) * (rank - a.ndim) + tuple(a.shape)
    right = (1,) * (rank - b.ndim) + tuple(b.shape)
    spread = reshape(a, [k for n in left for k in (n, 1)]) * reshape(b, [k for n in right for k in (1, n)])
    return reshape(spread, [n * m for n, m in zip(left, right, strict=True)])
