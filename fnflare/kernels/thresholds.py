"""From which size on MKL serves an operation; NumPy serves the smaller ones.

A call of MKL through ctypes costs some 2 microseconds more than one of NumPy, which it earns back on large operands by
its threads and vector instructions. ``benchmarks/kernels.py`` measures both; the numbers here are where MKL is
ahead and stays so. `NEVER` is for what NumPy does at least as fast at every size.
"""

from __future__ import annotations

import sys

__all__ = ["ELEMENTWISE", "MATMUL", "NEVER"]

NEVER = sys.maxsize

MATMUL = 1 << 18
"""Matrix products: multiplications, that is (batch) m n k."""

ELEMENTWISE = {
    # elements: float32, float64
    "cos": (1 << 15, 1 << 14),
    "erf": (1 << 1, 1 << 1),  # against the rational functions of kernels/erf.py
    "exp": (1 << 15, 1 << 14),
    "expm1": (1 << 14, 1 << 13),
    "log": (1 << 15, 1 << 14),
    "log1p": (1 << 14, 1 << 13),
    "sin": (1 << 15, 1 << 14),
    "tanh": (1 << 15, 1 << 14),
}
"""Elementwise functions: elements of the array."""
