"""Trees in parts: the leaves of one tree come in, some go to one tree and the rest to another, and back together."""

from __future__ import annotations

from typing import Any

from fnflare.tree._map import map
from fnflare.tree._match import spread
from fnflare.tree._structure import flatten, unflatten_iterator

__all__ = ["combine", "partition"]


def partition(tree: Any, where: Any) -> tuple[Any, Any]:
    """Split a tree in two of the same shape, with None for the leaves that went to the other one.

    Args:
        tree: the pytree.
        where: a predicate of a leaf, or a tree of booleans of which `tree` may be an extension.

    Returns:
        The tree of the leaves that `where` holds for, and the tree of the others; `combine` undoes it.

    >>> ff.tree.partition({"w": 1.5, "n": 3}, lambda x: isinstance(x, float))
    ({'n': None, 'w': 1.5}, {'n': 3, 'w': None})
    """
    flat, treedef = flatten(tree)
    mask = [where(x) for x in flat] if callable(where) else spread(where, tree, None, "tree.partition, mask")
    yes = [x if m else None for x, m in zip(flat, mask, strict=True)]
    no = [None if m else x for x, m in zip(flat, mask, strict=True)]
    return unflatten_iterator(treedef, iter(yes)), unflatten_iterator(treedef, iter(no))


def combine(*trees: Any) -> Any:
    """Join trees made by `partition`: at each place the first leaf that is not None.

    >>> ff.tree.combine({"n": None, "w": 1.5}, {"n": 3, "w": None})
    {'n': 3, 'w': 1.5}
    """

    def is_none(x: Any) -> bool:
        return x is None

    return map(lambda *xs: next((x for x in xs if x is not None), None), *trees, is_leaf=is_none)
