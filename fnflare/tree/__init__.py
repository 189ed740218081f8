"""Pytrees: nested containers of arrays, taken apart into leaves and put together again.

A pytree goes in as tuples, lists, dicts, named tuples and registered classes; a flat list of
leaves and a `TreeDef` come out, and the way back. ``None`` is an empty node and the keys of a dict
are taken in sorted order, so two dicts with equal keys have equal structure. Everything above
(transforms, layers, optimisers, files) moves parameters through these functions alone.

The names and the conventions are those of ``jax.tree``; a path is a plain tuple of keys, and
`path_str` writes it as ``"lstm/forward/W"``.
"""

from __future__ import annotations

from fnflare.tree._fold import all, equal, reduce
from fnflare.tree._map import broadcast, map, map_with_path, transpose
from fnflare.tree._nodes import register_dataclass, register_node
from fnflare.tree._partition import combine, partition
from fnflare.tree._paths import Path as Path
from fnflare.tree._paths import flatten_with_path, leaves_with_path, path_str
from fnflare.tree._structure import TreeDef, flatten, leaves, structure, unflatten
from fnflare.tree._vector import ravel

__all__ = [
    "TreeDef",
    "all",
    "broadcast",
    "combine",
    "equal",
    "flatten",
    "flatten_with_path",
    "leaves",
    "leaves_with_path",
    "map",
    "map_with_path",
    "partition",
    "path_str",
    "ravel",
    "reduce",
    "register_dataclass",
    "register_node",
    "structure",
    "transpose",
    "unflatten",
]
