"""The columns of a data set: for each kind of element, how a batch of it is made."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fnflare.errors import ArgumentError
from fnflare.padded import Padded, pad
from fnflare.tree import TreeDef, flatten_with_path, path_str

__all__ = ["Column", "ObjectColumn", "SequenceColumn", "columns_of"]


class Column:
    """An array whose first axis counts the examples; a batch of it is an array."""

    def __init__(self, elements: Any) -> None:
        self.elements = elements

    def __len__(self) -> int:
        return len(self.elements)

    def batch(self, places: np.ndarray) -> Any:
        """The batch of the examples at `places`."""
        return self.elements[places]


class ObjectColumn(Column):
    """A list of anything, such as strings or trees; a batch of it is a list."""

    def batch(self, places: np.ndarray) -> list[Any]:
        return [self.elements[i] for i in places.tolist()]


class SequenceColumn(Column):
    """A list of arrays of unequal length; a batch of it is `Padded`."""

    def __init__(self, arrays: list[np.ndarray], dtype: DTypeLike, value: Any, multiple_of: int) -> None:
        super().__init__(arrays)
        self.lengths = np.array([len(a) for a in arrays], np.int64)
        self.dtype, self.value, self.multiple_of = dtype, value, multiple_of

    def batch(self, places: np.ndarray) -> Padded:
        return pad([self.elements[i] for i in places.tolist()], self.value, self.multiple_of, self.dtype)


def columns_of(data: Any, value: Any, multiple_of: int) -> tuple[list[Column], TreeDef]:
    """Take a data set apart.

    Args:
        data: a pytree whose leaves are arrays with one example along the first axis, or lists with one element an
            example. A list is a leaf here: what it holds are examples, not columns.
        value: what sequences are padded with.
        multiple_of: see `fnflare.padded.pad`.

    Returns:
        The columns, all of one length, and the structure that a batch has.

    Raises:
        ArgumentError: there is no example, a leaf is neither array nor list, or the lengths differ; names the path.
    """
    pairs, treedef = flatten_with_path(data, is_leaf=lambda node: isinstance(node, list))
    columns = [_column(path_str(path), leaf, value, multiple_of) for path, leaf in pairs]
    if not columns or not len(columns[0]):
        raise ArgumentError("DataLoader: data has no examples")
    for (path, _), column in zip(pairs, columns, strict=True):
        if len(column) != len(columns[0]):
            raise ArgumentError(
                f"DataLoader: data has {len(columns[0])} examples at {path_str(pairs[0][0])!r} and {len(column)} at "
                f"{path_str(path)!r}; all must have one element for each example"
            )
    return columns, treedef


def _column(path: str, leaf: Any, value: Any, multiple_of: int) -> Column:
    if isinstance(leaf, list):
        return _list_column(leaf, value, multiple_of)
    if np.ndim(leaf) == 0 or not hasattr(leaf, "dtype"):
        raise ArgumentError(
            f"DataLoader: data at {path!r} is a {type(leaf).__name__}; expected an array with one example along its "
            "first axis, or a list with one element for each example"
        )
    return Column(np.asarray(leaf))


def _list_column(elements: list[Any], value: Any, multiple_of: int) -> Column:
    if all(isinstance(e, (bool, int, float, complex, np.number, np.bool_)) for e in elements):
        return Column(np.array(elements))
    arrays = [_numbers(e) for e in elements]
    if any(a is None for a in arrays):
        return ObjectColumn(elements)
    sequences: list[np.ndarray] = [a for a in arrays if a is not None]
    # One dtype for every batch, whichever sequences meet in it; an empty list has none of its own.
    dtypes = {a.dtype for a in sequences if a.shape != (0,)} or {a.dtype for a in sequences}
    return SequenceColumn(sequences, np.result_type(*dtypes), value, multiple_of)


def _numbers(element: Any) -> np.ndarray | None:
    """An element as a sequence of numbers, None where it is something else."""
    if not isinstance(element, (np.ndarray, list)):
        return None
    try:
        array = np.asarray(element)
    except ValueError:  # a list of lists of unequal length
        return None
    return array if array.ndim and array.dtype.kind in "biufc" else None
