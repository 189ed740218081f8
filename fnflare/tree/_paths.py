"""Paths: where in a tree a leaf stands, as the keys that lead there.

A tree comes in, its leaves come out each with its path: a tuple of dict keys, indices and names of fields.
"""

from __future__ import annotations

from typing import Any

from fnflare.tree._structure import IsLeaf, TreeDef, flatten, keys_of

__all__ = ["Path", "flatten_with_path", "leaves_with_path", "path_str"]

Path = tuple[Any, ...]


def path_str(path: Path) -> str:
    """A path as text, its keys joined by slashes.

    >>> ff.tree.path_str(("lstm", "forward", 0))
    'lstm/forward/0'
    """
    return "/".join([str(k) for k in path])


def _paths(treedef: TreeDef, prefix: Path, out: list[Path]) -> None:
    if treedef.kind is None:
        out.append(prefix)
        return
    for key, child in zip(keys_of(treedef), treedef.children, strict=True):
        _paths(child, (*prefix, key), out)


def flatten_with_path(tree: Any, is_leaf: IsLeaf | None = None) -> tuple[list[tuple[Path, Any]], TreeDef]:
    """Like `flatten`, each leaf paired with its path, a tuple of dict keys, indices and field names.

    >>> ff.tree.flatten_with_path({"lstm": [1, 2]})[0]
    [(('lstm', 0), 1), (('lstm', 1), 2)]
    """
    flat, treedef = flatten(tree, is_leaf)
    paths: list[Path] = []
    _paths(treedef, (), paths)
    return list(zip(paths, flat, strict=True)), treedef


def leaves_with_path(tree: Any, is_leaf: IsLeaf | None = None) -> list[tuple[Path, Any]]:
    """The leaves of a pytree, each paired with its path; see `flatten_with_path`."""
    return flatten_with_path(tree, is_leaf)[0]
