"""Tables of numbers in text files: comma-separated values and their kin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fnflare.data.files import StrPath, read_lines
from fnflare.errors import ArgumentError, DataFileError

__all__ = ["Table", "read_table"]

_WHAT = "a table of numbers"
_SOURCE = "where the table is published (UCI tables: https://archive.ics.uci.edu)"


class Table(NamedTuple):
    """A table of numbers.

    Attributes:
        values: array of shape (rows, columns).
        names: of the columns; empty where the file has no header.
    """

    values: np.ndarray
    names: tuple[str, ...]


def read_table(
    path: StrPath,
    *,
    header: bool = False,
    delimiter: str | None = None,
    columns: Sequence[int] | None = None,
    dtype: DTypeLike = np.float64,
) -> Table:
    """Read a table of numbers, one row a line.

    Args:
        path: the file, gzipped or not; empty lines are passed over.
        header: whether the first line names the columns.
        delimiter: between the columns; by default the first of comma, semicolon and tab that the first line has, or
            else any blanks.
        columns: the places, from 0, of the columns to read, negative ones counted from the end; all by default.
        dtype: of the values.

    Returns:
        `Table`.

    Raises:
        MissingFileError: there is no such file.
        DataFileError: a row has more or fewer columns than the first, or holds something that is no number; the
            message gives line and column.
        ArgumentError: `columns` has a place that the table lacks.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"age;price\\n65.2;24\\n78.9;21.6\\n")
    ...     file.flush()
    ...     read_table(file.name, header=True)
    Table(values=array([[65.2, 24. ],
           [78.9, 21.6]]), names=('age', 'price'))
    """
    names: tuple[str, ...] = ()
    rows: list[list[float]] = []
    width = 0
    places: list[int] = []
    for number, line in read_lines(path, _WHAT, _SOURCE):
        if not line.strip():
            continue
        if not width:
            delimiter = delimiter or next((sign for sign in ",;\t" if sign in line), None)
        fields = [field.strip() for field in line.split(delimiter)]
        if not width:
            width = len(fields)
            places = _places(columns, width)
            if header:
                names = tuple(fields[i].strip('"') for i in places)
                continue
        if len(fields) != width:
            raise DataFileError(
                f"{path}, line {number}: expected {width} columns as in the first row, found {len(fields)}"
            )
        rows.append([_number(fields[i], f"{path}, line {number}, column {i + 1}", not rows) for i in places])
    if not rows:
        raise DataFileError(f"{path}: expected {_WHAT}, found no row")
    return Table(np.array(rows, dtype), names)


def _places(columns: Sequence[int] | None, width: int) -> list[int]:
    if columns is None:
        return list(range(width))
    for i in columns:
        if not -width <= i < width:
            raise ArgumentError(f"read_table: columns names column {i}; the table has {width}, from 0 to {width - 1}")
    return [i % width for i in columns]


def _number(field: str, where: str, first: bool) -> float:
    try:
        return float(field)
    except ValueError:
        hint = "; header=True reads the first line as names" if first else ""
        raise DataFileError(f"{where}: expected a number, found {field!r}{hint}") from None
