"""The structure of a pytree, `TreeDef`, and the way from a tree to its leaves and back.

A tree comes in and is walked once; its leaves and its structure come out, of which the tree can be built again. All
that `fnflare.tree` does goes through here.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, cast

import numpy as np

from fnflare.errors import TreeError
from fnflare.tree._nodes import registered, registry, sorted_keys

__all__ = [
    "IsLeaf",
    "TreeDef",
    "children_of",
    "flatten",
    "flatten_into",
    "keys_of",
    "leaves",
    "structure",
    "unflatten",
    "unflatten_iterator",
]

IsLeaf = Callable[[Any], bool]


class TreeDef:
    """The structure of a pytree: what is left when the leaves are taken out.

    Hashable and comparable, so it can key a cache. ``num_leaves`` counts its leaves.
    """

    __slots__ = ("_hash", "aux", "children", "kind", "num_leaves")

    kind: type | None
    aux: Hashable
    children: tuple[TreeDef, ...]
    num_leaves: int

    def __init__(self, kind: type | None, aux: Hashable, children: tuple[TreeDef, ...], num_leaves: int) -> None:
        self.kind = kind  # None for a leaf, NoneType for the empty node
        self.aux = aux
        self.children = children
        self.num_leaves = num_leaves
        self._hash: int | None = None

    def unflatten(self, leaves: Iterable[Any]) -> Any:
        """Rebuild a tree of this structure; see `fnflare.tree.unflatten`."""
        return unflatten(self, leaves)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, TreeDef):
            return NotImplemented
        return (
            self.kind is other.kind
            and self.num_leaves == other.num_leaves
            and self.aux == other.aux
            and self.children == other.children
        )

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash((self.kind, self.aux, self.children))
        return self._hash

    def __repr__(self) -> str:
        return f"TreeDef({self._show()})"

    def _show(self) -> str:
        if self.kind is None:
            return "*"
        inner = [c._show() for c in self.children]
        if self.kind is type(None):
            return "None"
        if self.kind is tuple:
            return f"({', '.join(inner)}{',' if len(inner) == 1 else ''})"
        if self.kind is list:
            return f"[{', '.join(inner)}]"
        keys = keys_of(self)
        if self.kind is dict:
            return "{" + ", ".join(f"{k!r}: {v}" for k, v in zip(keys, inner, strict=True)) + "}"
        return f"{self.kind.__name__}({', '.join(f'{k}={v}' for k, v in zip(keys, inner, strict=True))})"


_LEAF = TreeDef(None, None, (), 1)
_NONE = TreeDef(type(None), None, (), 0)
_NO_LAYER = TreeDef(tuple, None, (), 0)  # the parameters of a layer that has none
_EMPTY_LIST = TreeDef(list, None, (), 0)


def keys_of(treedef: TreeDef) -> Sequence[Any]:
    """The path entries of the children of `treedef`."""
    kind = treedef.kind
    if kind is tuple or kind is list:
        return range(len(treedef.children))
    if kind is dict:
        return cast(tuple[Any, ...], treedef.aux)
    if kind is type(None):
        return ()
    assert kind is not None
    return registered(kind).keys(treedef)  # type: ignore[union-attr]


def flatten_into(tree: Any, out: list[Any], is_leaf: IsLeaf | None) -> TreeDef:
    if is_leaf is not None and is_leaf(tree):
        out.append(tree)
        return _LEAF
    kind = type(tree)
    if kind is np.ndarray:
        out.append(tree)
        return _LEAF
    aux: Hashable = None
    if kind is dict:
        aux = sorted_keys(tree)
        items: Iterable[Any] = [tree[k] for k in aux]
    elif kind is tuple or kind is list:
        if not tree:
            return _NO_LAYER if kind is tuple else _EMPTY_LIST
        items = tree
    elif tree is None:
        return _NONE
    else:
        node = registered(kind)
        if node is None:
            out.append(tree)
            return _LEAF
        items, aux = node.flatten(tree)
    before = len(out)
    children = []
    for c in items:
        if type(c) is np.ndarray and is_leaf is None:  # nearly all leaves: spared the call
            out.append(c)
            children.append(_LEAF)
        else:
            children.append(flatten_into(c, out, is_leaf))
    return TreeDef(kind, aux, tuple(children), len(out) - before)


def flatten(tree: Any, is_leaf: IsLeaf | None = None) -> tuple[list[Any], TreeDef]:
    """Take a pytree apart.

    Args:
        tree: any nesting of tuples, lists, dicts, named tuples, registered classes and leaves.
        is_leaf: called on each node before it is opened; where it is true the node is a leaf.

    Returns:
        The leaves from left to right (dicts in the order of their sorted keys) and the structure.

    Raises:
        TreeError: a dict has keys that cannot be sorted.

    >>> ff.tree.flatten({"b": 2, "a": (0, 1), "c": None})
    ([0, 1, 2], TreeDef({'a': (*, *), 'b': *, 'c': None}))
    """
    out: list[Any] = []
    return out, flatten_into(tree, out, is_leaf)


def leaves(tree: Any, is_leaf: IsLeaf | None = None) -> list[Any]:
    """The leaves of a pytree, from left to right.

    >>> ff.tree.leaves({"b": 2, "a": [0, 1]})
    [0, 1, 2]
    """
    return flatten(tree, is_leaf)[0]


def structure(tree: Any, is_leaf: IsLeaf | None = None) -> TreeDef:
    """The structure of a pytree without its leaves.

    >>> ff.tree.structure({"w": 1.0, "b": None})
    TreeDef({'b': None, 'w': *})
    """
    return flatten(tree, is_leaf)[1]


def unflatten_iterator(treedef: TreeDef, leaves: Any) -> Any:
    kind = treedef.kind
    if kind is None:
        return next(leaves)
    children = [next(leaves) if c.kind is None else unflatten_iterator(c, leaves) for c in treedef.children]
    if kind is tuple:
        return tuple(children)
    if kind is list:
        return children
    if kind is dict:
        return dict(zip(treedef.aux, children, strict=True))  # type: ignore[call-overload]
    if kind is type(None):
        return None
    return registry[kind].unflatten(treedef.aux, children)


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> Any:
    """Put a pytree together again.

    Args:
        treedef: the structure, from `flatten` or `structure`.
        leaves: as many leaves as the structure has.

    Raises:
        TreeError: there are more or fewer leaves than the structure has.

    >>> ff.tree.unflatten(ff.tree.structure({"a": 0, "b": (0, 0)}), [1, 2, 3])
    {'a': 1, 'b': (2, 3)}
    """
    leaves = list(leaves)
    if len(leaves) != treedef.num_leaves:
        raise TreeError(f"unflatten: {treedef} has {treedef.num_leaves} leaves, got {len(leaves)}")
    return unflatten_iterator(treedef, iter(leaves))


def children_of(tree: Any) -> Sequence[Any]:
    """The direct children of a node."""
    kind = type(tree)
    if kind is dict:
        return [tree[k] for k in sorted_keys(tree)]
    if kind is tuple or kind is list:
        return tree
    if tree is None:
        return ()
    node = registered(kind)
    assert node is not None
    return list(node.flatten(tree)[0])
