"""Tables of numbers in text files: comma-separated values and their kin."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from fnflare.data.files import StrPath, read_lines, shown
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
    ...     ff.data.read_table(file.name, header=True)
    Table(values=array([[65.2, 24. ],
           [78.9, 21.6]]), names=('age', 'price'))
    """
    names: tuple[str, ...] = ()
    values = array("d")  # row after row: lists of numbers would take ten times the memory
    width = count = 0
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
        count += 1
        try:
            values.extend([float(fields[i]) for i in places])
        except ValueError:
            raise _no_number(fields, places, f"{path}, line {number}", count == 1) from None
    if not count:
        raise DataFileError(f"{path}: expected {_WHAT}, found no row")
    return Table(_converted(np.array(values).reshape(count, len(places)), dtype, path), names)


def _converted(values: np.ndarray, dtype: DTypeLike, path: StrPath) -> np.ndarray:
    try:
        with np.errstate(over="raise", invalid="raise"):
            return values.astype(dtype)
    except FloatingPointError:
        raise DataFileError(f"{path}: a number of the table is none of dtype {np.dtype(dtype).name}") from None


def _places(columns: Sequence[int] | None, width: int) -> list[int]:
    if columns is None:
        return list(range(width))
    for i in columns:
        if not -width <= i < width:
            raise ArgumentError(f"read_table: columns names column {i}; the table has {width}, from 0 to {width - 1}")
    return [i % width for i in columns]


def _no_number(fields: Sequence[str], places: Sequence[int], where: str, first: bool) -> DataFileError:
    """The error that names the first field of a row that is no number."""
    wrong = next(i for i in places if not _is_number(fields[i]))
    hint = "; header=True reads the first line as names" if first else ""
    return DataFileError(f"{where}, column {wrong + 1}: expected a number, found {shown(fields[wrong])}{hint}")


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True
