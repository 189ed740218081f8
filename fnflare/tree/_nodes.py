"""What kinds of containers are nodes of pytrees, and how each is taken apart and rebuilt.

A class comes in with the functions that open and close its instances; `registered` finds them again. Tuples, lists,
dicts and None are not here: `fnflare.tree._structure` knows them by heart.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

from fnflare.errors import ArgumentError, TreeError

__all__ = ["Node", "node_of", "register_dataclass", "register_node", "registered", "registry", "sorted_keys"]

T = TypeVar("T")


class Node(NamedTuple):
    """How a container type is taken apart and rebuilt; whether it is a tuple of its children, made of these."""

    flatten: Callable[[Any], tuple[Sequence[Any], Hashable]]
    unflatten: Callable[[Any, Sequence[Any]], Any]
    keys: Callable[[Any], Sequence[Any]]
    is_tuple: bool = False


registry: dict[type, Node] = {}


def sorted_keys(d: dict[Any, Any]) -> tuple[Any, ...]:
    try:
        return tuple(sorted(d))
    except TypeError:
        raise TreeError(
            f"the keys of a dict in a pytree must be comparable with each other, got {list(d)!r}; "
            "use keys of one type, or an OrderedDict, which keeps its own order"
        ) from None


def _named_tuple_node(cls: type) -> Node:
    return Node(
        flatten=lambda t: (t, None),
        unflatten=lambda aux, children: cls(*children),
        keys=lambda treedef: cls._fields,  # type: ignore[attr-defined]
        is_tuple=True,
    )


def registered(cls: type) -> Node | None:
    """The registered node of `cls`, or None where its instances are leaves."""
    node = registry.get(cls)
    if node is None and issubclass(cls, tuple) and hasattr(cls, "_fields"):
        node = registry[cls] = _named_tuple_node(cls)
    return node


def node_of(kind: type) -> Node:
    """How instances of a registered class, the kind of a structure, are taken apart."""
    return registry[kind]


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
    if cls in registry or cls in (tuple, list, dict, type(None)):
        raise ArgumentError(f"{cls.__name__} is already registered as a pytree node")
    names = keys
    registry[cls] = Node(flatten, unflatten, lambda td: range(len(td.children)) if names is None else names(td.aux))


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


registry[OrderedDict] = Node(
    flatten=lambda d: (list(d.values()), tuple(d)),
    unflatten=lambda keys, children: OrderedDict(zip(keys, children, strict=True)),
    keys=lambda treedef: treedef.aux,
)
registry[defaultdict] = Node(
    flatten=lambda d: ([d[k] for k in sorted_keys(d)], (d.default_factory, sorted_keys(d))),
    unflatten=lambda aux, children: defaultdict(aux[0], zip(aux[1], children, strict=True)),
    keys=lambda treedef: treedef.aux[1],
)
