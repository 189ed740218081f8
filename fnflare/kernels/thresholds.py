"""From which size on MKL serves an operation; NumPy serves the smaller ones.

A call of MKL through ctypes costs some 3 microseconds more than one of NumPy, and waking its second thread some
80 more; large operands earn that back. ``benchmarks/kernels.py`` measures both; the numbers here are where MKL is
ahead and stays so (``docs/performance.md`` has the figures). `NEVER` is for what NumPy does at least as fast at
every size.
"""

from __future__ import annotations

import sys

__all__ = ["ELEMENTWISE", "MATMUL", "NEVER"]

NEVER = sys.maxsize

MATMUL = NEVER
"""Matrix products: multiplications, that is (batch) m n k.

MKL alone is up to a quarter faster than NumPy's OpenBLAS where its threads spin between calls, and up to 15 %
where they sleep. But the two libraries' threads starve each other: in a program that uses both, as any does that
mixes plain ``x @ w`` with gradients, MKL's products take twice as long when its threads sleep, and NumPy's up to
a hundred times as long when they spin. So all products are NumPy's.
"""

ELEMENTWISE = {
    # elements: float32, float64
    "cos": (NEVER, 1 << 11),  # NumPy's float64 sine and cosine are scalar code
    "erf": (1 << 1, 1 << 1),  # against the rational functions of kernels/erf.py
    "exp": (NEVER, NEVER),
    "expm1": (NEVER, NEVER),
    "log": (NEVER, NEVER),
    "log1p": (NEVER, NEVER),
    "sin": (NEVER, 1 << 11),
    "tanh": (NEVER, NEVER),
}
"""Elementwise functions: elements of the array.

NumPy's loops are vectorised too; MKL's lead on a million elements comes from its second thread, and turns into a
loss between products of NumPy's BLAS, whose threads are in that one's way.
"""
