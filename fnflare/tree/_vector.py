"""One vector of all leaves: a tree of arrays comes in, a vector comes out, and the function that undoes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError
from fnflare.tree._structure import flatten, unflatten_iterator

__all__ = ["ravel"]


def ravel(tree: Any) -> tuple[Any, Callable[[Any], Any]]:
    """Lay all leaves out in one vector.

    Args:
        tree: a pytree of arrays (or tracers) of any shapes.

    Returns:
        A vector of their elements, in the dtype to which they promote, and the function that turns
        such a vector back into a tree with the leaves' own shapes and dtypes.

    >>> flat, unravel = ff.tree.ravel({"w": np.ones((2, 2)), "b": np.zeros(1)})
    >>> flat
    array([0., 1., 1., 1., 1.])
    >>> unravel(flat * 2)["b"]
    array([0.])
    """
    flat, treedef = flatten(tree)
    if not flat:
        return np.zeros(0), lambda vector: unflatten_iterator(treedef, iter(()))
    specs = [(np.shape(x), x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype) for x in flat]
    sizes = [int(np.prod(shape)) for shape, _ in specs]
    borders = np.cumsum([0, *sizes])

    def unravel(vector: Any) -> Any:
        if np.shape(vector) != (int(borders[-1]),):
            raise ArgumentError(f"unravel: expected a vector of shape ({borders[-1]},), got {np.shape(vector)}")
        parts = [
            np.reshape(vector[a:b], shape).astype(dtype, copy=False)
            for a, b, (shape, dtype) in zip(borders, borders[1:], specs, strict=False)
        ]
        return unflatten_iterator(treedef, iter(parts))

    return np.concatenate([np.reshape(x, -1) for x in flat]), unravel
