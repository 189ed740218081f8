"""Abstract values: what is known of an array without its elements.

A value goes in, its shape, its dtype and whether it is a weak Python scalar come out. Shape rules
of primitives map these to the abstract value of the answer; `eval_shape` returns them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["ShapeDtypeStruct", "aval_of", "dtype_of", "in_native_order", "resolvable", "zeros"]

_WEAK = {float: np.dtype(np.float64), int: np.dtype(np.int64), complex: np.dtype(np.complex128)}


class ShapeDtypeStruct:
    """The shape and the dtype of an array, without the array.

    Args:
        shape: the shape.
        dtype: the dtype.
        weak: whether it stands for a Python scalar, whose dtype gives way to that of arrays (NEP 50).

    >>> ff.ShapeDtypeStruct((2, 3), np.float32)
    ShapeDtypeStruct(shape=(2, 3), dtype=float32)
    """

    __slots__ = ("dtype", "shape", "weak")

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    weak: bool

    def __init__(self, shape: tuple[int, ...], dtype: Any, weak: bool = False) -> None:
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.weak = weak

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take."""
        return self.size * self.dtype.itemsize

    @property
    def strong(self) -> ShapeDtypeStruct:
        """The same of an array, whose dtype does not give way."""
        return ShapeDtypeStruct(self.shape, self.dtype) if self.weak else self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ShapeDtypeStruct):
            return NotImplemented
        return (self.shape, self.dtype, self.weak) == (other.shape, other.dtype, other.weak)

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype, self.weak))

    def __repr__(self) -> str:
        weak = ", weak=True" if self.weak else ""
        return f"ShapeDtypeStruct(shape={self.shape}, dtype={self.dtype}{weak})"


def aval_of(x: Any) -> ShapeDtypeStruct:
    """The abstract value of an array, a tracer, a `ShapeDtypeStruct` or a Python number."""
    if type(x) is np.ndarray:
        aval = ShapeDtypeStruct.__new__(ShapeDtypeStruct)
        aval.shape = x.shape
        aval.dtype = x.dtype
        aval.weak = False
        return aval
    weak = _WEAK.get(type(x))
    if weak is not None:
        return ShapeDtypeStruct((), weak, weak=True)
    if isinstance(x, ShapeDtypeStruct):
        return x
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return ShapeDtypeStruct(x.shape, x.dtype, getattr(x, "weak", False))
    array = np.asarray(x)
    return ShapeDtypeStruct(array.shape, array.dtype)


def resolvable(aval: ShapeDtypeStruct) -> Any:
    """An abstract value as a ufunc's ``resolve_dtypes`` takes it: a dtype, or the Python type of a weak scalar."""
    return {"f": float, "i": int, "c": complex}[aval.dtype.kind] if aval.weak else aval.dtype


def dtype_of(x: Any) -> np.dtype[Any]:
    """The dtype that `x` has or, as a Python scalar, would have alone."""
    return x.dtype if hasattr(x, "dtype") else aval_of(x).dtype


def zeros(x: Any) -> Any:
    """Zeros of the shape and dtype of an array, a number or a tracer, in the machine's byte order."""
    aval = aval_of(x)
    return np.zeros(aval.shape, aval.dtype if aval.dtype.isnative else aval.dtype.newbyteorder("="))[()]


def in_native_order(x: Any) -> Any:
    """`x` in the machine's byte order, in which all that is computed with it is."""
    dtype = getattr(x, "dtype", None)
    return x if dtype is None or dtype.isnative else x.astype(dtype.newbyteorder("="))
