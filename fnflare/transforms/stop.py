"""`stop_gradient`: a value as a constant."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import Tracer
from fnflare.ops import stop_gradient as stop

__all__ = ["stop_gradient"]


def stop_gradient(x: Any) -> Any:
    """`x` as a constant: its derivative is zero in every mode and order.

    Args:
        x: a pytree; leaves that are not arrays pass through.

    Returns:
        The same tree; under `grad` and `jvp` plain values, which may be printed or stored.

    >>> float(ff.grad(lambda x: x * ff.stop_gradient(x))(3.0))
    3.0
    """
    return tree.map(lambda leaf: stop(leaf) if isinstance(leaf, (np.ndarray, Tracer)) else leaf, x)
