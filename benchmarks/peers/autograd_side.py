"""HIPS autograd's side."""

from __future__ import annotations

from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np

from benchmarks.sizes import TINY, Step, generator


def tiny(mode: str) -> Step:
    """`autograd.grad` of the loss in its own NumPy."""
    c, rng = TINY, generator()
    x = rng.standard_normal((c.examples, c.features))
    y = rng.integers(0, 2, c.examples).astype("f8")
    w = np.zeros(c.features)

    def loss(w: Any) -> Any:
        p = 0.5 * (anp.tanh(anp.dot(x, w)) + 1)
        return -anp.sum(anp.log(p * y + (1 - p) * (1 - y)))

    gradient = autograd.grad(loss)
    return lambda: gradient(w)
