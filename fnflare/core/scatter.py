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
from fnflare.kernels.rows import add_rows

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
        if isinstance(dense, Tracer) or any(_is_traced(p) for p in self.parts):
            return _traced_total(dense, self.parts)
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
            index, rows = _table(table, aval.shape[1:])
            add_rows(total, np.where(index < 0, index + len(total), index), rows)
        return total


def _reads_rows(index: Any) -> bool:
    """Whether an index is one array of integers, which reads whole rows, as an embedding does."""
    i = index[0] if type(index) is tuple and len(index) == 1 else index
    return type(i) is np.ndarray and i.dtype.kind in "iu"


def _table(parts: list[Scatter], tail: tuple[int, ...]) -> tuple[Any, Any]:
    """The rows of all parts and where they belong."""
    indices = [np.reshape(p.index[0] if type(p.index) is tuple else p.index, -1) for p in parts]
    rows = [np.reshape(p.rows, (len(i), *tail)) for p, i in zip(parts, indices, strict=True)]
    return np.concatenate(indices), np.concatenate(rows)


# -- parts that are tracers: as few traced operations as will do ---------------------------------


def _is_traced(part: Scatter) -> bool:
    index = part.index if type(part.index) is tuple else (part.index,)
    return isinstance(part.rows, Tracer) or any(isinstance(i, Tracer) for i in index)


def _traced_total(dense: Any, parts: list[Scatter]) -> Any:
    """The total in traced operations, which write into nothing. Each part on its own would cost an array as
    large as the whole, so cuts along one axis are joined, and rows of a table are added all at once."""
    aval = parts[0].aval
    cuts: dict[int, dict[tuple[int, int], Any]] = {}
    rest: list[Scatter] = []
    table: list[Scatter] = []
    for p in parts:
        cut = _cut(p.index, aval.shape)
        if cut is not None:
            axis, start, stop, single = cut
            rows = np.expand_dims(p.rows, axis) if single else p.rows
            here = cuts.setdefault(axis, {})
            here[start, stop] = here[start, stop] + rows if (start, stop) in here else rows
        else:
            (table if _reads_rows(p.index) else rest).append(p)
    terms = [] if dense is None else [dense]
    for axis, pieces in cuts.items():
        terms += [_joined(layer, pieces, axis, aval) for layer in _layers(pieces)]
    total = terms[0] if terms else np.zeros(aval.shape, aval.dtype)
    for term in terms[1:]:
        total = total + term
    if len(table) > 1:
        index, rows = _table(table, aval.shape[1:])
        rest.append(Scatter(aval, index, rows, table[0].add))
    else:
        rest += table
    for p in rest:
        total = p.add(total, p.rows, index=p.index)
    return total


def _cut(index: Any, shape: tuple[int, ...]) -> tuple[int, int, int, bool] | None:
    """The axis that an index cuts, from where to where, and whether it takes the axis away; None where it does
    anything else."""
    parts = list(index) if type(index) is tuple else [index]
    if not is_basic(index) or any(i is None for i in parts):
        return None
    if Ellipsis in parts:
        k = parts.index(Ellipsis)
        parts[k : k + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    found = None
    for axis, i in enumerate(parts):
        single = not isinstance(i, slice)
        start, stop, step = (int(i) % shape[axis], int(i) % shape[axis] + 1, 1) if single else i.indices(shape[axis])
        if not single and (start, stop, step) == (0, shape[axis], 1):
            continue
        if found is not None or step != 1 or stop <= start:
            return None
        found = axis, start, stop, single
    return found


def _layers(pieces: dict[tuple[int, int], Any]) -> list[list[tuple[int, int]]]:
    """The pieces, in order, in layers of which none overlaps itself."""
    layers: list[list[tuple[int, int]]] = []
    for start, stop in sorted(pieces):
        layer = next((known for known in layers if known[-1][1] <= start), None)
        if layer is None:
            layers.append([(start, stop)])
        else:
            layer.append((start, stop))
    return layers


def _joined(layer: list[tuple[int, int]], pieces: dict[tuple[int, int], Any], axis: int, aval: Any) -> Any:
    """Pieces that do not overlap, and zeros between them, as one array."""
    shape = aval.shape
    out = []
    end = 0
    for start, stop in [*layer, (shape[axis], shape[axis])]:
        if start > end:
            out.append(np.zeros((*shape[:axis], start - end, *shape[axis + 1 :]), aval.dtype))
        if stop > start:
            out.append(pieces[start, stop])
        end = stop
    return np.concatenate(out, axis)


def is_basic(index: Any) -> bool:
    """Whether an index is NumPy's basic kind (integers, slices, ellipsis, None), which reads each
    element at most once."""
    for i in index if type(index) is tuple else (index,):
        if not (i is None or i is Ellipsis or (isinstance(i, (slice, int, np.integer)) and not isinstance(i, bool))):
            return False
    return True
