"""Adding up at index arrays, where an index may come more than once: the gradient of an embedding, say.

An array, an index and values go in; the array is changed in place. NumPy's ``np.add.at`` looks at every element
on its own. Where whole rows are named by arrays of integers, as nearly always, the rows are sorted and
summed first instead, if there are not just a few.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["add_at", "add_rows"]

# Elements from which on sorting pays: it takes some twenty calls of NumPy, and saves some 10 ns an element.
_MANY = 1 << 11


def add_at(x: np.ndarray, index: Any, values: Any) -> None:
    """Add values to a part of an array, in place; what an index names twice is added to twice.

    Args:
        x: the array.
        index: any index of NumPy's with an array in it.
        values: what broadcasts to ``x[index]``; it takes the dtype of `x`.

    >>> from fnflare.kernels.rows import add_at
    >>> x = np.zeros(3)
    >>> add_at(x, np.array([0, 2, 2]), 1.0)
    >>> x
    array([1., 0., 2.])
    """
    parts = index if type(index) is tuple else (index,)
    if not all(_is_integers(i) for i in parts) or not x.flags.c_contiguous:
        np.add.at(x, index, values)
        return
    arrays = np.broadcast_arrays(*parts)
    lead, tail = x.shape[: len(arrays)], x.shape[len(arrays) :]
    shape = arrays[0].shape
    if math.prod(shape) * math.prod(tail) < _MANY:
        np.add.at(x, index, values)
        return
    places = np.zeros(shape, np.intp)
    for i, n in zip(arrays, lead, strict=True):
        places *= n
        places += _from_zero(i, n)
    values = np.asarray(values).astype(x.dtype, copy=False)
    rows = np.broadcast_to(values, (*shape, *tail)).reshape(places.size, *tail)
    add_rows(x.reshape(math.prod(lead), *tail), places.reshape(-1), rows)


def add_rows(x: np.ndarray, index: np.ndarray, rows: np.ndarray) -> None:
    """Add rows to an array, in place: sorted and summed first, since many may be for the same place.

    Args:
        x: (n, ...).
        index: (m,), integers from 0 to n - 1.
        rows: (m, ...).

    >>> from fnflare.kernels.rows import add_rows
    >>> x = np.zeros((3, 1))
    >>> add_rows(x, np.array([2, 0, 2]), np.array([[1.0], [2.0], [3.0]]))
    >>> x[:, 0]
    array([2., 0., 4.])
    """
    if not len(index):
        return
    order = np.argsort(index, kind="stable")
    index = index[order]
    starts = np.flatnonzero(np.concatenate([[True], index[1:] != index[:-1]]))
    x[index[starts]] += np.add.reduceat(rows[order], starts, 0, rows.dtype)


def _is_integers(i: Any) -> bool:
    return isinstance(i, (int, np.ndarray, np.integer)) and np.asarray(i).dtype.kind in "iu"


def _from_zero(index: np.ndarray, n: int) -> np.ndarray:
    """Places along an axis of length n, counted from its start."""
    if index.size and not (-n <= index.min() and index.max() < n):
        wrong = index[(index < -n) | (index >= n)].flat[0]
        raise IndexError(f"index {wrong} is out of bounds for an axis of size {n}")
    return np.where(index < 0, index + n, index).astype(np.intp)
