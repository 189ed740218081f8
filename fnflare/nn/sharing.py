"""Layers that share parameters: one leaf in the tree, used in several places.

A layer goes in with the paths of what is shared; a layer comes out whose parameters have None where another layer's are
used. Everything that goes over the tree, an optimiser, a file, a count, so meets a shared array once, and its gradient
is the sum over all its uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError, ShapeError, TreeError
from fnflare.nn import scoping
from fnflare.nn.combinators import check_layer
from fnflare.nn.layer import Layer, named

__all__ = ["tied"]

_Keys = tuple[str, ...]
Source = str | tuple[str, Callable[[Any], Any]]


def tied(inner: Layer, ties: Mapping[str, Source]) -> Layer:
    """A layer some of whose parameters are those of another part of it.

    The parameters have None in the place of what is tied, so that there is one array for all its uses: its gradient
    is the sum over them, an optimiser keeps one state for it, `fnflare.io.save` stores it and `summary` counts it once.

    Args:
        inner: the layer, for instance a `serial` with names.
        ties: where parameters are taken from, by the path of the place in which they are used: of one array
            (``"out/W"``) or of all that is below a path (``"decoder"``). The source is a path, or a path and a
            function of the array such as ``np.transpose``. A source is not tied itself.

    Returns:
        A layer with the paths of `inner`.

    Raises:
        ArgumentError: a path is tied to itself, or to what is tied.
        TreeError: when initialised, there is no parameter at a path, or what is below two paths differs.
        ShapeError: when initialised, arrays that are tied do not have the same shape.

    >>> from fnflare import nn, random
    >>> model = nn.serial(embed=nn.Embedding(1000, 16), act=nn.Tanh, out=nn.Dense(1000))
    >>> model = nn.tied(model, {"out/W": ("embed/W", np.transpose)})
    >>> _, params = model.init(random.key(0), (-1,))
    >>> params["out"]["W"], params["embed"]["W"].shape
    (None, (1000, 16))
    >>> model.apply(params, np.array([1, 2, 3])).shape
    (3, 1000)
    """
    inner_init, inner_apply = check_layer(inner, "tied")
    pairs = [(_keys(target), *_source(source)) for target, source in ties.items()]
    for target, source, _ in pairs:
        for other, _, _ in pairs:
            if source[: len(other)] == other or other[: len(source)] == source:
                raise ArgumentError(
                    f"tied: {'/'.join(target)!r} is tied to {'/'.join(source)!r}, which overlaps with what is tied at "
                    f"{'/'.join(other)!r}; tie both to one place that is not tied"
                )

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        recorder = scoping.local.recorder
        before = 0 if recorder is None else len(recorder.rows)
        output_shape, params = inner_init(key, input_shape)
        for target, source, change in pairs:
            own = _at(params, target)
            _check_same(target, own, source, _changed(_at(params, source), change))
            params = _with(params, target, tree.map(lambda _: None, own))
            if recorder is not None:
                recorder.leave_out(before, (*scoping.names(), *target), own)
        return output_shape, params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        whole = params
        for target, source, change in pairs:
            whole = _with(whole, target, _changed(_at(params, source), change))
        return inner_apply(whole, inputs, key=key, train=train)

    return named("tied", Layer(init, apply))


def _keys(path: Any) -> _Keys:
    if not isinstance(path, str) or not path:
        raise ArgumentError(f"tied: expected the path of parameters, such as 'out/W', got {path!r}")
    return tuple(path.split("/"))


def _source(source: Any) -> tuple[_Keys, Callable[[Any], Any] | None]:
    if isinstance(source, tuple):
        path, change = source
        if not callable(change):
            raise ArgumentError(f"tied: expected a path and a function of the array, got {source!r}")
        return _keys(path), change
    return _keys(source), None


def _changed(values: Any, change: Callable[[Any], Any] | None) -> Any:
    return values if change is None else tree.map(change, values)


def _index(node: Any, key: str, path: _Keys) -> Any:
    """The key or the index by which a node of parameters has a child."""
    if isinstance(node, dict) and key in node:
        return key
    if isinstance(node, (tuple, list)) and key.isdecimal() and int(key) < len(node):
        return int(key)
    have = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, (tuple, list)) else []
    raise TreeError(f"{scoping.where()}tied: there is no parameter at {'/'.join(path)!r}; at {key!r} there are {have}")


def _at(params: Any, path: _Keys) -> Any:
    for key in path:
        params = params[_index(params, key, path)]
    return params


def _with(params: Any, path: _Keys, value: Any, depth: int = 0) -> Any:
    """The parameters with something else at a path; all that is beside it is the same."""
    if depth == len(path):
        return value
    at = _index(params, path[depth], path)
    new = _with(params[at], path, value, depth + 1)
    if isinstance(params, dict):
        return {**params, at: new}
    parts = list(params)
    parts[at] = new
    if isinstance(params, list):
        return parts
    return type(params)(*parts) if hasattr(params, "_fields") else tuple(parts)


def _check_same(target: _Keys, own: Any, source: _Keys, given: Any) -> None:
    names = f"{'/'.join(target)!r} and {'/'.join(source)!r}"
    if tree.structure(own) != tree.structure(given):
        raise TreeError(f"{scoping.where()}tied: the parameters at {names} have different structures")
    for (path, a), b in zip(tree.leaves_with_path(own), tree.leaves(given), strict=True):
        if np.shape(a) != np.shape(b):
            below = f", at {tree.path_str(path)!r} below," if path else ""
            raise ShapeError(
                f"{scoping.where()}tied: the parameters at {names}{below} have shapes {np.shape(a)} and {np.shape(b)}; "
                "a function such as np.transpose may stand beside the path of the source"
            )
