"""Kernels: what the primitives run on plain arrays, each by the fastest library that can take the operands.

Every function here is NumPy's of the same name (`erf`, which NumPy lacks, is one more ufunc): same shapes,
dtypes and special values for whatever it is given, values within a few units in the last place. Large float32
and float64 arrays go to MKL (`fnflare.kernels.mkl`) where it is installed and switched on, from the sizes in
`fnflare.kernels.thresholds` on; all else goes to NumPy, after a test that costs a small array next to nothing.
MKL does not give NumPy's warnings of overflow, division by zero and invalid values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.errors import DtypeError
from fnflare.kernels import mkl
from fnflare.kernels.erf import erf as _rational_erf
from fnflare.kernels.thresholds import ELEMENTWISE, MATMUL, NEVER

__all__ = ["cos", "erf", "exp", "expm1", "log", "log1p", "matmul", "matmul_add", "sin", "tanh"]

_matmul = np.matmul


def matmul(a: Any, b: Any) -> Any:
    """The matrix product, as ``np.matmul``.

    Args:
        a, b: what ``np.matmul`` takes.

    Returns:
        What ``np.matmul`` returns.

    Raises:
        ValueError: the shapes do not fit, as NumPy says it.

    >>> from fnflare.kernels import matmul
    >>> matmul(np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]]))
    array([[1., 2.],
           [3., 4.]])
    """
    try:
        small = a.size * b.shape[-1] < _WORTH_A_LOOK
    except (AttributeError, IndexError):  # a list, a number, a 0-d array: NumPy knows what to say
        small = True
    return _matmul(a, b) if small else _large_matmul(a, b)


# Multiplications below which a product goes to NumPy unseen.
_WORTH_A_LOOK = min(MATMUL, 1 << 14)


def _large_matmul(a: Any, b: Any) -> Any:
    if type(a) is not np.ndarray or type(b) is not np.ndarray or a.ndim < 2:
        return _matmul(a, b)
    if a.ndim > 2 and b.ndim == 2 and a.flags.c_contiguous and a.shape[-1] == b.shape[0]:
        # One product of a tall matrix, where NumPy would make one of each small matrix.
        rows = math.prod(a.shape[:-1])
        return _large_matmul(a.reshape(rows, a.shape[-1]), b).reshape(*a.shape[:-1], b.shape[-1])
    product = mkl.gemm(a, b) if b.ndim >= 2 and a.size * b.shape[-1] >= MATMUL else None
    return _matmul(a, b) if product is None else product


def matmul_add(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Add a matrix product to an array, in place, as ``out += np.matmul(a, b)``.

    Args:
        a: (..., m, k).
        b: (..., k, n).
        out: (..., m, n), of a dtype that holds the product's.

    Returns:
        ``out``.

    Raises:
        ValueError: the shapes do not fit, as NumPy says it.

    >>> from fnflare.kernels import matmul_add
    >>> matmul_add(np.eye(2), np.ones((2, 2)), np.full((2, 2), 5.0))
    array([[6., 6.],
           [6., 6.]])
    """
    if out.size * a.shape[-1] < MATMUL or mkl.gemm(a, b, out, accumulate=True) is None:
        out += _matmul(a, b)
    return out


def _elementwise(name: str, by_numpy: Callable[..., Any]) -> Callable[..., Any]:
    from_32, from_64 = ELEMENTWISE[name]
    least = min(from_32, from_64)
    if least == NEVER:
        return by_numpy

    def function(x: Any, out: np.ndarray | None = None) -> Any:
        try:
            small = x.size < least
        except AttributeError:  # a number, a list
            small = True
        if small:
            return by_numpy(x) if out is None else by_numpy(x, out)
        if x.size < (from_32 if x.itemsize == 4 else from_64):
            return by_numpy(x, out)
        values = mkl.elementwise(name, x, out)
        return by_numpy(x, out) if values is None else values

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{name} of every element, as ``np.{name}(x, out)``; see the module on where it is computed."
    return function


def _numpy_erf(x: Any, out: np.ndarray | None = None) -> Any:
    """erf as a ufunc would do it: numbers and lists too, integers as float64, float16 by way of float32."""
    values = np.asarray(x)
    if values.dtype.kind not in "biuf":
        raise DtypeError(f"erf: real numbers are needed, got dtype {values.dtype}")
    dtype = np.promote_types(values.dtype, np.float16)  # in the machine's order of bytes, whatever x has
    result = _rational_erf(values.astype(np.promote_types(dtype, np.float32), copy=False)).astype(dtype, copy=False)
    if out is not None:
        np.copyto(out, result, casting="same_kind")
        return out
    return result if result.ndim else result[()]


cos = _elementwise("cos", np.cos)
erf = _elementwise("erf", _numpy_erf)
exp = _elementwise("exp", np.exp)
expm1 = _elementwise("expm1", np.expm1)
log = _elementwise("log", np.log)
log1p = _elementwise("log1p", np.log1p)
sin = _elementwise("sin", np.sin)
tanh = _elementwise("tanh", np.tanh)
