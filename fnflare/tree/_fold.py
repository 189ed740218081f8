"""Answers about whole trees: all leaves come in, one value comes out."""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError
from fnflare.tree._structure import IsLeaf, flatten, leaves

__all__ = ["all", "equal", "reduce"]

_no_initial = object()


def reduce(f: Callable[[Any, Any], Any], tree: Any, initial: Any = _no_initial, is_leaf: IsLeaf | None = None) -> Any:
    """Fold the leaves from left to right.

    >>> ff.tree.reduce(lambda a, b: a + b, {"a": 1, "b": (2, 3)}, 0)
    6
    """
    flat = leaves(tree, is_leaf)
    return functools.reduce(f, flat) if initial is _no_initial else functools.reduce(f, flat, initial)


def all(tree: Any, is_leaf: IsLeaf | None = None) -> bool:
    """Whether every leaf is true; an array leaf is true where all of its elements are.

    >>> ff.tree.all({"a": True, "b": np.array([True, False])})
    False
    """
    return builtins.all(bool(np.all(x)) for x in leaves(tree, is_leaf))


def equal(*trees: Any) -> bool:
    """Whether trees have the same structure and leaves of the same shape, dtype and values.

    NaN equals NaN here: the question is whether two trees hold the same numbers.

    >>> ff.tree.equal({"w": np.ones(2)}, {"w": np.ones(2)}), ff.tree.equal((1, 2), [1, 2])
    (True, False)
    """
    if len(trees) < 2:
        raise ArgumentError(f"tree.equal compares two trees or more, got {len(trees)}")
    first, treedef = flatten(trees[0])
    for other in trees[1:]:
        flat, got = flatten(other)
        if got != treedef or not builtins.all(_leaf_equal(a, b) for a, b in zip(first, flat, strict=True)):
            return False
    return True


def _leaf_equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape or x.dtype != y.dtype:
        return False
    return bool(np.array_equal(x, y, equal_nan=x.dtype.kind in "fc"))
