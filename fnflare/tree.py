"""Pytrees: nested containers of arrays, taken apart into leaves and put together again.

A pytree goes in as tuples, lists, dicts, named tuples and registered classes; a flat list of
leaves and a `TreeDef` come out, and the way back. ``None`` is an empty node and the keys of a dict
are taken in sorted order, so two dicts with equal keys have equal structure. Everything above
(transforms, layers, optimisers, files) moves parameters through these functions alone.

The names and the conventions are those of ``jax.tree``; a path is a plain tuple of keys, and
`path_str` writes it as ``"lstm/forward/W"``.
"""

from __future__ import annotations

import builtins
import dataclasses
import functools
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from fnflare.errors import ArgumentError, TreeError

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

T = TypeVar("T")
Path = tuple[Any, ...]
IsLeaf = Callable[[Any], bool]


class _Node(NamedTuple):
    """How a container type is taken apart and rebuilt; whether it is a tuple of its children, made of these."""

    flatten: Callable[[Any], tuple[Sequence[Any], Hashable]]
    unflatten: Callable[[Any, Sequence[Any]], Any]
    keys: Callable[[Any], Sequence[Any]]
    is_tuple: bool = False


_registry: dict[type, _Node] = {}


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
        keys = _keys_of(self)
        if self.kind is dict:
            return "{" + ", ".join(f"{k!r}: {v}" for k, v in zip(keys, inner, strict=True)) + "}"
        return f"{self.kind.__name__}({', '.join(f'{k}={v}' for k, v in zip(keys, inner, strict=True))})"


_LEAF = TreeDef(None, None, (), 1)
_NONE = TreeDef(type(None), None, (), 0)
_NO_LAYER = TreeDef(tuple, None, (), 0)  # the parameters of a layer that has none
_EMPTY_LIST = TreeDef(list, None, (), 0)


def _keys_of(treedef: TreeDef) -> Sequence[Any]:
    """The path entries of the children of `treedef`."""
    kind = treedef.kind
    if kind is tuple or kind is list:
        return range(len(treedef.children))
    if kind is dict:
        return cast(tuple[Any, ...], treedef.aux)
    if kind is type(None):
        return ()
    assert kind is not None
    return _node_of(kind).keys(treedef)  # type: ignore[union-attr]


def _sorted_keys(d: dict[Any, Any]) -> tuple[Any, ...]:
    try:
        return tuple(sorted(d))
    except TypeError:
        raise TreeError(
            f"the keys of a dict in a pytree must be comparable with each other, got {list(d)!r}; "
            "use keys of one type, or an OrderedDict, which keeps its own order"
        ) from None


def _named_tuple_node(cls: type) -> _Node:
    return _Node(
        flatten=lambda t: (t, None),
        unflatten=lambda aux, children: cls(*children),
        keys=lambda treedef: cls._fields,  # type: ignore[attr-defined]
        is_tuple=True,
    )


def _node_of(cls: type) -> _Node | None:
    """The registered node of `cls`, or None where its instances are leaves."""
    node = _registry.get(cls)
    if node is None and issubclass(cls, tuple) and hasattr(cls, "_fields"):
        node = _registry[cls] = _named_tuple_node(cls)
    return node


def node_of(kind: type) -> _Node:
    """How instances of a registered class, the kind of a structure, are taken apart."""
    return _registry[kind]


def _flatten(tree: Any, out: list[Any], is_leaf: IsLeaf | None) -> TreeDef:
    if is_leaf is not None and is_leaf(tree):
        out.append(tree)
        return _LEAF
    kind = type(tree)
    if kind is np.ndarray:
        out.append(tree)
        return _LEAF
    aux: Hashable = None
    if kind is dict:
        aux = _sorted_keys(tree)
        items: Iterable[Any] = [tree[k] for k in aux]
    elif kind is tuple or kind is list:
        if not tree:
            return _NO_LAYER if kind is tuple else _EMPTY_LIST
        items = tree
    elif tree is None:
        return _NONE
    else:
        node = _node_of(kind)
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
            children.append(_flatten(c, out, is_leaf))
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
    return out, _flatten(tree, out, is_leaf)


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


def _unflatten(treedef: TreeDef, leaves: Any) -> Any:
    kind = treedef.kind
    if kind is None:
        return next(leaves)
    children = [next(leaves) if c.kind is None else _unflatten(c, leaves) for c in treedef.children]
    if kind is tuple:
        return tuple(children)
    if kind is list:
        return children
    if kind is dict:
        return dict(zip(treedef.aux, children, strict=True))  # type: ignore[call-overload]
    if kind is type(None):
        return None
    return _registry[kind].unflatten(treedef.aux, children)


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
    return _unflatten(treedef, iter(leaves))


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
    for key, child in zip(_keys_of(treedef), treedef.children, strict=True):
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


def _first_difference(expected: TreeDef, got: TreeDef, path: Path = ()) -> str:
    """Says where two structures part, naming the first path at which they do."""
    where = f"at {path_str(path)!r}" if path else "at the root"
    if expected.kind is not got.kind:
        return f"{where}: expected {_kind_name(expected)}, got {_kind_name(got)}"
    if expected.kind is None:
        return f"{where}: equal"
    a, b = list(_keys_of(expected)), list(_keys_of(got))
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


def _subtrees(treedef: TreeDef, tree: Any, is_leaf: IsLeaf | None, out: list[Any], path: Path, what: str) -> None:
    """Cut `tree` where `treedef` has its leaves."""
    if treedef.kind is None:
        out.append(tree)
        return
    cut: list[Any] = []
    top = _flatten(tree, cut, lambda node: node is not tree)
    if top.kind is not treedef.kind or top.aux != treedef.aux or len(top.children) != len(treedef.children):
        raise TreeError(f"{what}: {_first_difference(treedef, structure(tree, is_leaf), path)}")
    for key, child, sub in zip(_keys_of(treedef), treedef.children, _open(tree), strict=True):
        _subtrees(child, sub, is_leaf, out, (*path, key), what)


def _open(tree: Any) -> Sequence[Any]:
    """The direct children of a node."""
    kind = type(tree)
    if kind is dict:
        return [tree[k] for k in _sorted_keys(tree)]
    if kind is tuple or kind is list:
        return tree
    if tree is None:
        return ()
    node = _node_of(kind)
    assert node is not None
    return list(node.flatten(tree)[0])


def _matching_leaves(treedef: TreeDef, other: Any, is_leaf: IsLeaf | None, what: str) -> list[Any]:
    flat, got = flatten(other, is_leaf)
    if got == treedef:
        return flat
    out: list[Any] = []
    _subtrees(treedef, other, is_leaf, out, (), what)
    return out


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
        return _unflatten(treedef, iter([f(x) for x in flat]))
    columns = [_matching_leaves(treedef, r, is_leaf, f"tree.map, tree {i + 2}") for i, r in enumerate(rest)]
    return _unflatten(treedef, iter([f(*xs) for xs in zip(flat, *columns, strict=True)]))


def map_with_path(f: Callable[..., Any], tree: Any, *rest: Any, is_leaf: IsLeaf | None = None) -> Any:
    """Like `map`; `f` gets the path of the leaf as its first argument.

    >>> ff.tree.map_with_path(lambda path, x: f"{ff.tree.path_str(path)}={x}", {"a": [1, 2]})
    {'a': ['a/0=1', 'a/1=2']}
    """
    pairs, treedef = flatten_with_path(tree, is_leaf)
    columns = [_matching_leaves(treedef, r, is_leaf, f"tree.map_with_path, tree {i + 2}") for i, r in enumerate(rest)]
    return _unflatten(treedef, iter([f(path, *xs) for (path, *xs) in _rows(pairs, columns)]))


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
    return _unflatten(structure(tree), iter(_spread(prefix, tree, is_leaf, "tree.broadcast")))


def _spread(prefix: Any, tree: Any, is_leaf: IsLeaf | None, what: str) -> list[Any]:
    """For each leaf of `tree` the leaf of a prefix that stands at or above its place."""
    flat, treedef = flatten(prefix, is_leaf)
    subtrees: list[Any] = []
    _subtrees(treedef, tree, None, subtrees, (), what)
    return [x for x, sub in zip(flat, subtrees, strict=True) for _ in leaves(sub)]


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
    _subtrees(outer, tree, None, subtrees, (), "tree.transpose")
    rows = [_matching_leaves(inner, s, None, "tree.transpose, inner tree") for s in subtrees]
    columns = zip(*rows, strict=True) if rows else [()] * inner.num_leaves
    return _unflatten(inner, iter([_unflatten(outer, iter(col)) for col in columns]))


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
        return np.zeros(0), lambda vector: _unflatten(treedef, iter(()))
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
        return _unflatten(treedef, iter(parts))

    return np.concatenate([np.reshape(x, -1) for x in flat]), unravel


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
    mask = [where(x) for x in flat] if callable(where) else _spread(where, tree, None, "tree.partition, mask")
    yes = [x if m else None for x, m in zip(flat, mask, strict=True)]
    no = [None if m else x for x, m in zip(flat, mask, strict=True)]
    return _unflatten(treedef, iter(yes)), _unflatten(treedef, iter(no))


def combine(*trees: Any) -> Any:
    """Join trees made by `partition`: at each place the first leaf that is not None.

    >>> ff.tree.combine({"n": None, "w": 1.5}, {"n": 3, "w": None})
    {'n': 3, 'w': 1.5}
    """

    def is_none(x: Any) -> bool:
        return x is None

    return map(lambda *xs: next((x for x in xs if x is not None), None), *trees, is_leaf=is_none)


def register_node(
    cls: type,
    flatten: Callable[[Any], tuple[Sequence[Any], Hashable]],
    unflatten: Callable[[Any, Sequence[Any]], Any],
    keys: Callable[[Any], Sequence[Any]] | None = None,
) -> None:
    """Let instances of a class be nodes of pytrees.

    Args:
        cls: the class; its subclasses are not included.
        flatten: takes an instance, returns its children and hashable metadata.
        unflatten: takes the metadata and the children, returns an instance. It must accept any
            objects as children, since transforms put tracers and placeholders there.
        keys: takes the metadata, returns the name of each child for paths; indices by default.

    Raises:
        ArgumentError: the class is registered already.
    """
    if cls in _registry or cls in (tuple, list, dict, type(None)):
        raise ArgumentError(f"{cls.__name__} is already registered as a pytree node")
    names = keys
    _registry[cls] = _Node(flatten, unflatten, lambda td: range(len(td.children)) if names is None else names(td.aux))


def register_dataclass(
    cls: type[T], data_fields: Sequence[str] | None = None, meta_fields: Sequence[str] = ()
) -> type[T]:
    """Let instances of a dataclass be nodes of pytrees; usable as a decorator.

    Args:
        cls: a dataclass.
        data_fields: the fields that are children; all that are not metadata by default.
        meta_fields: the fields that belong to the structure; their values must be hashable.

    Returns:
        The class itself.

    >>> import dataclasses
    >>> @ff.tree.register_dataclass
    ... @dataclasses.dataclass
    ... class Point:
    ...     x: float
    ...     y: float
    >>> ff.tree.map(lambda v: v + 1, Point(1, 2)).y
    3
    """
    if not dataclasses.is_dataclass(cls):
        raise ArgumentError(f"{cls.__name__} is not a dataclass; decorate it with @dataclasses.dataclass first")
    names = [f.name for f in dataclasses.fields(cls) if f.init]
    meta = tuple(meta_fields)
    data = tuple(data_fields) if data_fields is not None else tuple(n for n in names if n not in meta)
    if sorted(data + meta) != sorted(names):
        raise ArgumentError(f"{cls.__name__}: data_fields and meta_fields must be its fields {names} exactly")

    def flat(obj: Any) -> tuple[Sequence[Any], Hashable]:
        return [getattr(obj, n) for n in data], tuple(getattr(obj, n) for n in meta)

    def unflat(aux: Any, children: Sequence[Any]) -> Any:
        return cls(**dict(zip(data, children, strict=True)), **dict(zip(meta, aux, strict=True)))

    register_node(cls, flat, unflat, lambda aux: data)
    return cls


_registry[OrderedDict] = _Node(
    flatten=lambda d: (list(d.values()), tuple(d)),
    unflatten=lambda keys, children: OrderedDict(zip(keys, children, strict=True)),
    keys=lambda treedef: treedef.aux,
)
_registry[defaultdict] = _Node(
    flatten=lambda d: ([d[k] for k in _sorted_keys(d)], (d.default_factory, _sorted_keys(d))),
    unflatten=lambda aux, children: defaultdict(aux[0], zip(aux[1], children, strict=True)),
    keys=lambda treedef: treedef.aux[1],
)
