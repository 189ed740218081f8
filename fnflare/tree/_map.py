"""Functions of every leaf: trees come in, one tree of what the function returned comes out.

Where there are several trees, the first one says what the structure is and the others are cut where it has its leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from fnflare.tree._match import cut, matching_leaves, spread
from fnflare.tree._paths import Path, flatten_with_path
from fnflare.tree._structure import IsLeaf, TreeDef, flatten, structure, unflatten_iterator

__all__ = ["broadcast", "map", "map_with_path", "transpose"]


def map(f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: IsLeaf | None = None) -> Any:
    """Apply `f` to every leaf of `tree`, with the corresponding parts of the other trees.

    Args:
        f: a function of ``1 + len(rest)`` arguments.
        tree: the tree whose structure the result has.
        *rest: trees of the same structure, or trees of which `tree` is a prefix: `f` then gets
            whole subtrees of theirs.
        is_leaf: as in `flatten`.

    Raises:
        TreeError: a tree of `rest` does not have the structure; names the first path that differs.

    >>> ff.tree.map(lambda p, g: p - g, {"w": 3, "b": 1}, {"w": 1, "b": 1})
    {'b': 0, 'w': 2}
    """
    flat, treedef = flatten(tree, is_leaf)
    if not rest:
        return unflatten_iterator(treedef, iter([f(x) for x in flat]))
    columns = [matching_leaves(treedef, r, is_leaf, f"tree.map, tree {i + 2}") for i, r in enumerate(rest)]
    return unflatten_iterator(treedef, iter([f(*xs) for xs in zip(flat, *columns, strict=True)]))


def map_with_path(f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: IsLeaf | None = None) -> Any:
    """Like `map`; `f` gets the path of the leaf as its first argument.

    >>> ff.tree.map_with_path(lambda path, x: f"{ff.tree.path_str(path)}={x}", {"a": [1, 2]})
    {'a': ['a/0=1', 'a/1=2']}
    """
    pairs, treedef = flatten_with_path(tree, is_leaf)
    columns = [matching_leaves(treedef, r, is_leaf, f"tree.map_with_path, tree {i + 2}") for i, r in enumerate(rest)]
    return unflatten_iterator(treedef, iter([f(path, *xs) for (path, *xs) in _rows(pairs, columns)]))


def _rows(pairs: list[tuple[Path, Any]], columns: list[list[Any]]) -> Iterable[tuple[Any, ...]]:
    for i, (path, leaf) in enumerate(pairs):
        yield (path, leaf, *[c[i] for c in columns])


def broadcast(prefix: Any, tree: Any, is_leaf: IsLeaf | None = None) -> Any:
    """A tree like `tree` in which each leaf of a prefix of it stands at every leaf below its place.

    Args:
        prefix: a tree of which `tree` is an extension.
        tree: the pytree.
        is_leaf: as in `flatten`, for the nodes of `prefix`.

    Raises:
        TreeError: `prefix` is no prefix of `tree`; names the first path at which it is not.

    >>> ff.tree.broadcast({"a": 0, "b": 1}, {"a": (7, 8), "b": 9})
    {'a': (0, 0), 'b': 1}
    """
    return unflatten_iterator(structure(tree), iter(spread(prefix, tree, is_leaf, "tree.broadcast")))


def transpose(outer: TreeDef, inner: TreeDef, tree: Any) -> Any:
    """Turn a tree of trees inside out.

    Args:
        outer: the structure of the outer tree.
        inner: the structure of each subtree of it.
        tree: a tree of structure `outer` whose leaves are trees of structure `inner`.

    Returns:
        A tree of structure `inner` whose leaves are trees of structure `outer`.

    >>> from fnflare import tree
    >>> tree.transpose(tree.structure([0, 0]), tree.structure({"a": 0}), [{"a": 1}, {"a": 2}])
    {'a': [1, 2]}
    """
    subtrees: list[Any] = []
    cut(outer, tree, None, subtrees, (), "tree.transpose")
    rows = [matching_leaves(inner, s, None, "tree.transpose, inner tree") for s in subtrees]
    columns = zip(*rows, strict=True) if rows else [()] * inner.num_leaves
    return unflatten_iterator(inner, iter([unflatten_iterator(outer, iter(col)) for col in columns]))
