"""Labels as indicator vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fnflare.errors import ArgumentError, DtypeError

__all__ = ["one_hot"]


def one_hot(labels: ArrayLike, num_classes: int, dtype: DTypeLike = np.float32) -> np.ndarray:
    """Write each label as a vector with a one at its place.

    Args:
        labels: integers of any shape, from 0 to `num_classes` - 1.
        num_classes: the length of a vector.
        dtype: of the result.

    Returns:
        Array of shape (..., num_classes), the dots being the labels' own shape.

    Raises:
        DtypeError: the labels are no integers.
        ArgumentError: a label is outside the range.

    >>> ff.data.one_hot([2, 0], 3)
    array([[0., 0., 1.],
           [1., 0., 0.]], dtype=float32)
    """
    array = np.asarray(labels)
    if array.size and array.dtype.kind not in "iu":
        raise DtypeError(f"one_hot: labels must be integers, got {array.dtype}; labels.astype(int) makes them so")
    wrong = (array < 0) | (array >= num_classes)
    if np.any(wrong):
        raise ArgumentError(
            f"one_hot: found the label {array[wrong].flat[0]}; with num_classes={num_classes} labels go from 0 to "
            f"{num_classes - 1}"
        )
    return (array[..., None] == np.arange(num_classes)).astype(dtype)
