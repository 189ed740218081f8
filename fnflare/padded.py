"""Batches of sequences of unequal length: one array padded to the longest, and the lengths.

The data loaders make them, recurrent layers and global pools honour the lengths, layers that work on each position
alone let them pass. A `Padded` is a named tuple and so a pytree: `fnflare.tree.map` and every transform go through it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fnflare.errors import ArgumentError, ShapeError

__all__ = ["Padded", "pad"]


class Padded(NamedTuple):
    """A batch of N sequences, padded at their ends to a common length T.

    Attributes:
        values: array of shape (N, T, ...); what stands at and past a sequence's length is padding, finite numbers that
            no output depends on (layers multiply some of it by zero).
        lengths: integer array of shape (N,), each between 0 and T.

    >>> batch = ff.nn.pad([[1, 2, 3], [4]])
    >>> batch.values
    array([[1, 2, 3],
           [4, 0, 0]])
    >>> batch.lengths
    array([3, 1])
    """

    values: Any
    lengths: Any

    def mask(self) -> Any:
        """Which positions are real.

        Returns:
            bool array of shape (N, T): true before each sequence's length, false on its padding.

        >>> ff.nn.pad([[1, 2, 3], [4]]).mask()
        array([[ True,  True,  True],
               [ True, False, False]])
        """
        positions = np.arange(np.shape(self.values)[1])
        return positions < np.reshape(self.lengths, (-1, 1))


def pad(sequences: Sequence[ArrayLike], value: Any = 0, multiple_of: int = 1, dtype: DTypeLike | None = None) -> Padded:
    """Stack sequences of unequal length into one batch.

    Args:
        sequences: N arrays (or lists of numbers) of shapes (T_i, ...), equal past the first axis; T_i may be 0.
        value: what the padding holds.
        multiple_of: the common length is rounded up to a multiple of this, so that fewer shapes occur.
        dtype: of the values; by default the one to which the dtypes of all sequences promote.

    Returns:
        `Padded` with values of shape (N, T, ...), T the greatest T_i rounded up, and lengths of dtype int64.

    Raises:
        ArgumentError: there is no sequence, or `multiple_of` is not positive.
        ShapeError: a sequence is a scalar, or the shapes differ past the first axis.

    >>> ff.nn.pad([[1.0], [2.0, 3.0]], value=-1.0, multiple_of=4).values
    array([[ 1., -1., -1., -1.],
           [ 2.,  3., -1., -1.]])
    """
    if multiple_of < 1:
        raise ArgumentError(f"pad: multiple_of must be at least 1, got {multiple_of}")
    arrays = [np.asarray(s) for s in sequences]
    if not arrays:
        raise ArgumentError("pad: expected at least one sequence, got none")
    # An empty list says nothing of features or dtype: NumPy reads [] as float64 of shape (0,).
    telling = [a for a in arrays if a.shape != (0,)] or arrays
    features = telling[0].shape[1:]
    for i, a in enumerate(arrays):
        if a.ndim == 0 or (a.shape[1:] != features and a.shape != (0,)):
            raise ShapeError(
                f"pad: sequence {i} has shape {a.shape}; expected (T, {', '.join(map(str, features))}) "
                "with any T, as the first sequence has: sequences of one batch may differ in their first axis only"
            )
    lengths = np.array([len(a) for a in arrays], dtype=np.int64)
    longest = -(-int(lengths.max()) // multiple_of) * multiple_of
    kind = np.dtype(dtype) if dtype is not None else np.result_type(*{a.dtype for a in telling})
    values = np.full((len(arrays), longest, *features), value, dtype=kind)
    for row, a in zip(values, arrays, strict=True):
        if len(a):  # an empty list would not broadcast to (0, features)
            row[: len(a)] = a
    return Padded(values, lengths)
