"""Random directions in trees, differences along them, and how exact those can be.

Trees go in; tangents, inner products and directional derivatives come out, and the step and the tolerances that their
dtypes allow. The checks of derivatives are made of these. Complex leaves are moved and compared as the pairs of real
numbers that they are; a cotangent is matched with a tangent as `fnflare.ops.complex` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.testing.failures import is_floating, wide
from fnflare.transforms import float0

__all__ = [
    "DIFFERENCE_TOLERANCES",
    "MODE_TOLERANCES",
    "STEPS",
    "coarsest",
    "inner",
    "numerical_jvp",
    "random_like",
    "tolerances",
]

#: By the bytes of a floating dtype: the step, and the tolerances against differences and between modes. The steps are
#: the cube roots of the dtypes' precisions, at which the two errors of a central difference, of cutting off the series
#: and of rounding, are alike.
STEPS = {2: 1e-1, 4: 5e-3, 8: 6e-6}
DIFFERENCE_TOLERANCES = {2: 1e-1, 4: 2e-3, 8: 1e-6}
MODE_TOLERANCES = {2: 1e-2, 4: 1e-4, 8: 1e-10}


def coarsest(*trees: Any) -> int:
    """The bytes of the coarsest floating dtype among the leaves, 8 where there is none; of a complex number those of
    each part."""
    sizes = [np.asarray(x).real.itemsize for t in trees for x in tree.leaves(t) if is_floating(x)]
    return min(8, *sizes) if sizes else 8


def tolerances(default: float, atol: float | None, rtol: float | None) -> tuple[float, float]:
    """atol and rtol, where they are not given the default."""
    return default if atol is None else atol, default if rtol is None else rtol


def random_like(like: Any, seed: int = 0) -> Any:
    """A random direction: a tangent or cotangent of a tree.

    Args:
        like: a pytree.
        seed: of the random numbers.

    Returns:
        A tree like `like` of standard normal numbers in the shapes and dtypes of its leaves, with
        float0 where a leaf is not of floating dtype.

    >>> ff.testing.random_like({"w": np.zeros((2, 3), np.float32)})["w"].dtype
    dtype('float32')
    """
    rng = np.random.default_rng(seed)

    def draw(x: Any) -> Any:
        if not is_floating(x):
            return np.zeros(np.shape(x), float0)
        dtype, numbers = np.asarray(x).dtype, rng.standard_normal(np.shape(x))
        if dtype.kind == "c":
            numbers = numbers + 1j * rng.standard_normal(np.shape(x))
        return np.asarray(numbers, dtype)[()]

    return tree.map(draw, like)


def inner(a: Any, b: Any) -> tuple[float, float]:
    """The inner product of two trees of one structure, and the sum of its terms' sizes. That of complex numbers is
    the one by which cotangents are matched with tangents, the real part of the product without a conjugate."""
    total, size = 0.0, 0.0
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        if is_floating(x) and is_floating(y):
            product = wide(x) * wide(y)
            total += float(np.sum(product.real))
            size += float(np.sum(np.abs(product)))
    return total, size


def _moved(primals: Any, tangents: Any, step: float) -> Any:
    def move(x: Any, t: Any) -> Any:
        if not is_floating(x):
            return x
        there = wide(x) + step * wide(t)
        return there.item() if type(x) in (float, complex) else there.astype(np.asarray(x).dtype)[()]

    return tree.map(move, primals, tangents)


def numerical_jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], eps: float) -> Any:
    """The directional derivative by a central difference, ``(f(x + eps t) - f(x - eps t)) / (2 eps)``.

    Args:
        f: a function of pytrees.
        primals: its arguments, a tuple or list.
        tangents: the direction, of the same structure; what stands for a leaf of another dtype is not read.
        eps: the step.

    Returns:
        A tree like the answer of `f`: float64 or complex128 arrays, float0 for leaves that are not of floating dtype.

    >>> round(float(ff.testing.numerical_jvp(np.sin, (0.0,), (2.0,), 1e-5)), 8)
    2.0
    """
    ahead = f(*_moved(tuple(primals), tuple(tangents), eps))
    behind = f(*_moved(tuple(primals), tuple(tangents), -eps))

    def slope(a: Any, b: Any) -> Any:
        if not is_floating(a):
            return np.zeros(np.shape(a), float0)
        return (wide(a) - wide(b)) / (2 * eps)

    return tree.map(slope, ahead, behind)
