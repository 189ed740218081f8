"""The speed of the machine's arithmetic, which no library can beat: one large matrix product."""

from __future__ import annotations

import numpy as np

from benchmarks.sizes import Step, generator

SIDE = 2048

SGEMM_GFLOP = 2e-9 * SIDE**3
"""Floating-point work of one unit."""


def sgemm(mode: str) -> Step:
    """A float32 matrix product, large enough that only arithmetic counts."""
    rng = generator()
    a, b = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    return lambda: np.matmul(a, b, out=out)
