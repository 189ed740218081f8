"""Cotangents of arrays of which parts were read: kept as rows and places, added up when they are needed.

The rule of a read hands the tape a `Scatter`; the sweep collects those of one array in a `Pending` and
asks it for the dense total when the array's own record is due. Reading a thousand rows of a table one by
one thus costs a thousand rows, not a thousand tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core.tracer import Tracer

__all__ = ["Pending", "Scatter", "is_basic"]


class Scatter:
    """The cotangent of an array that was read at an index: the rows, and where they belong.

    Args:
        aval: the shape and dtype of the array.
        index: the index, as it was read.
        rows: the cotangent of what was read.
        add: ``add(x, rows, index=index)``, the traced operation, for rows that are tracers.
    """

    __slots__ = ("add", "aval", "index", "rows")

    def __init__(self, aval: Any, index: Any, rows: Any, add: Callable[..., Any]) -> None:
        self.aval = aval
        self.index = index
        self.rows = rows
        self.add = add


class Pending:
    """Cotangents waiting to be added up: a dense part, or None, and scattered parts."""

    __slots__ = ("dense", "parts")

    def __init__(self, dense: Any, part: Scatter) -> None:
        self.dense = dense
        self.parts = [part]

    def add(self, g: Any) -> None:
        """Add another cotangent, dense or scattered."""
        if type(g) is Scatter:
            self.parts.append(g)
        else:
            self.dense = g if self.dense is None else self.dense + g

    def total(self) -> Any:
        """All of it in one new array."""
        aval = self.parts[0].aval
        dense = self.dense
        if isinstance(dense, Tracer) or any(isinstance(p.rows, Tracer) for p in self.parts):
            total = np.zeros(aval.shape, aval.dtype) if dense is None else dense
            for p in self.parts:
                total = p.add(total, p.rows, index=p.index)
            return total
        total = np.zeros(aval.shape, aval.dtype) if dense is None else np.array(dense)
        table: list[Scatter] = []
        for p in self.parts:
            if is_basic(p.index):
                total[p.index] += p.rows
            elif _reads_rows(p.index):
                table.append(p)
            else:
                np.add.at(total, p.index, p.rows)
        if table:
            _add_rows(total, table)
        return total


def _reads_rows(index: Any) -> bool:
    """Whether an index is one array of integers, which reads whole rows, as an embedding does."""
    i = index[0] if type(index) is tuple and len(index) == 1 else index
    return type(i) is np.ndarray and i.dtype.kind in "iu"


def _add_rows(total: Any, parts: list[Scatter]) -> None:
    """Add rows to an array, in place: sorted and summed first, since many are of the same few words."""
    tail = total.shape[1:]
    indices = [np.reshape(p.index[0] if type(p.index) is tuple else p.index, -1) for p in parts]
    rows = np.concatenate([p.rows.reshape(len(i), *tail) for p, i in zip(parts, indices, strict=True)])
    index = np.concatenate(indices)
    if not len(index):
        return
    index = np.where(index < 0, index + len(total), index)
    order = np.argsort(index, kind="stable")
    index = index[order]
    starts = np.flatnonzero(np.concatenate([[True], index[1:] != index[:-1]]))
    total[index[starts]] += np.add.reduceat(rows[order], starts, axis=0)


def is_basic(index: Any) -> bool:
    """Whether an index is NumPy's basic kind (integers, slices, ellipsis, None), which reads each
    element at most once."""
    for i in index if type(index) is tuple else (index,):
        if not (i is None or i is Ellipsis or (isinstance(i, (slice, int, np.integer)) and not isinstance(i, bool))):
            return False
    return True
