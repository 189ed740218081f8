"""Trees beside each other: cutting one where another has its leaves.

A structure and a tree come in that should agree as far as the structure goes; the parts of the tree come out that stand
where the structure has leaves, or an error that names the first path at which the two differ.
"""

from __future__ import annotations

from typing import Any

from fnflare.errors import TreeError
from fnflare.tree._paths import Path, path_str
from fnflare.tree._structure import IsLeaf, TreeDef, children_of, flatten, flatten_into, keys_of, leaves, structure

__all__ = ["cut", "matching_leaves", "spread"]


def _first_difference(expected: TreeDef, got: TreeDef, path: Path = ()) -> str:
    """Says where two structures part, naming the first path at which they do."""
    where = f"at {path_str(path)!r}" if path else "at the root"
    if expected.kind is not got.kind:
        return f"{where}: expected {_kind_name(expected)}, got {_kind_name(got)}"
    if expected.kind is None:
        return f"{where}: equal"
    a, b = list(keys_of(expected)), list(keys_of(got))
    if a != b:
        missing, extra = [k for k in a if k not in b], [k for k in b if k not in a]
        parts = [f"missing {missing}"] * bool(missing) + [f"unexpected {extra}"] * bool(extra)
        return f"{where}: {' and '.join(parts) or f'keys in another order, {a} and {b}'}"
    for key, x, y in zip(a, expected.children, got.children, strict=True):
        if x != y:
            return _first_difference(x, y, (*path, key))
    return f"{where}: metadata {expected.aux!r} and {got.aux!r} differ"


def _kind_name(treedef: TreeDef) -> str:
    return "a leaf" if treedef.kind is None else "None" if treedef.kind is type(None) else treedef.kind.__name__


def cut(treedef: TreeDef, tree: Any, is_leaf: IsLeaf | None, out: list[Any], path: Path, what: str) -> None:
    """Cut `tree` where `treedef` has its leaves."""
    if treedef.kind is None:
        out.append(tree)
        return
    children: list[Any] = []
    top = flatten_into(tree, children, lambda node: node is not tree)
    if top.kind is not treedef.kind or top.aux != treedef.aux or len(top.children) != len(treedef.children):
        raise TreeError(f"{what}: {_first_difference(treedef, structure(tree, is_leaf), path)}")
    for key, child, sub in zip(keys_of(treedef), treedef.children, children_of(tree), strict=True):
        cut(child, sub, is_leaf, out, (*path, key), what)


def matching_leaves(treedef: TreeDef, other: Any, is_leaf: IsLeaf | None, what: str) -> list[Any]:
    flat, got = flatten(other, is_leaf)
    if got == treedef:
        return flat
    out: list[Any] = []
    cut(treedef, other, is_leaf, out, (), what)
    return out


def spread(prefix: Any, tree: Any, is_leaf: IsLeaf | None, what: str) -> list[Any]:
    """For each leaf of `tree` the leaf of a prefix that stands at or above its place."""
    flat, treedef = flatten(prefix, is_leaf)
    subtrees: list[Any] = []
    cut(treedef, tree, None, subtrees, (), what)
    return [x for x, sub in zip(flat, subtrees, strict=True) for _ in leaves(sub)]
