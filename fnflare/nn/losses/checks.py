"""What losses ask of their arguments: arrays of floats, of one shape, and what to write where they are not."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.padded import Padded

__all__ = ["array", "check_float", "float_pair"]


def array(x: Any) -> Any:
    """`x` itself where it is an array or a tracer, else the array of a list or a number."""
    if type(x) is Padded:
        raise ArgumentError(
            "a loss takes arrays, got a Padded batch: give it the .values of logits and labels, and average "
            "what it returns where there are words, as in np.mean(losses[labels.mask()])"
        )
    return x if hasattr(x, "dtype") else np.asarray(x)


def float_pair(who: str, predicted: Any, wanted: Any, names: tuple[str, str], hint: str = "") -> tuple[Any, Any]:
    """Both as arrays of one shape, the second in the dtype of the first, which must be a float."""
    predicted, wanted = array(predicted), array(wanted)
    check_float(who, names[0], predicted)
    if predicted.shape != wanted.shape:
        raise ShapeError(
            f"{who}: {names[0]} and {names[1]} must have the same shape, got {predicted.shape} and {wanted.shape}"
            f"{hint or '; nothing is broadcast here, reshape one to the other'}"
        )
    # Integers and booleans are strong dtypes: int64 labels would turn a float32 loss into float64.
    return predicted, wanted if wanted.dtype == predicted.dtype else wanted.astype(predicted.dtype)


def check_float(who: str, name: str, x: Any) -> None:
    if x.dtype.kind != "f":
        raise DtypeError(f"{who}: {name} must be floats, got {x.dtype}; write {name}.astype(np.float32)")
