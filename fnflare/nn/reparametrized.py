"""Layers around a layer that make its weights of other parameters: of a length and a direction, or divided by a norm.

A layer goes in, a layer comes out whose parameters have the same paths; below that of each weight that is
named stand what it is made of. At every use the weights are made and handed to the layer within.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import ops, random, tree
from fnflare.errors import ArgumentError, TreeError
from fnflare.nn import scoping
from fnflare.nn.combinators import check_layer
from fnflare.nn.layer import Layer, named, positive_int, require_key
from fnflare.nn.state import running_state

__all__ = ["SpectralNorm", "WeightNorm"]


def WeightNorm(inner: Layer, names: str | Sequence[str] = "W") -> Layer:
    """A layer whose weights are a length times a direction, ``g * v / norm(v)`` (Salimans & Kingma 2016).

    The norm of each output (the last axis of a weight) is taken over all other axes. The parameters, and the paths,
    are those of the layer within, but for the weights: in the place of ``W`` stands ``{"g": (out,), "v": (..., out)}``,
    drawn so that the weight is what the layer within has drawn.

    Args:
        inner: a layer, of layers too.
        names: how the weights are called, in all layers within.

    Raises:
        ArgumentError: `inner` is not a layer, or in init, has no weight of these names.

    >>> from fnflare import nn
    >>> shape, params = nn.WeightNorm(nn.Dense(3)).init(ff.random.key(0), (-1, 4))
    >>> ff.tree.map(np.shape, params)
    {'W': {'g': (3,), 'v': (4, 3)}, 'b': (3,)}
    """
    kind = "WeightNorm"
    inner_init, inner_apply = check_layer(inner, kind)
    wanted = _names(kind, names)

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        output_shape, params = inner_init(key, input_shape)
        lengths: dict[str, Any] = {}
        count = 0

        def part(w: Any, path: str) -> dict[str, Any]:
            nonlocal count
            lengths[path] = _lengths(w)
            count += 3 * w.size
            return {"g": lengths[path], "v": w}

        parts = _with_weights(kind, params, wanted, part)
        _note(kind, output_shape, lengths, count)
        return output_shape, parts

    def weight(parts: Any, path: str) -> Any:
        if not _is_made(parts):
            raise TreeError(
                f"{scoping.where()}{kind} expected {path!r} as a dict with keys ['g', 'v'], got "
                f"{type(parts).__name__}; pass what init returned for this very model"
            )
        lengths = _lengths(parts["v"])
        # A direction of zeros, such as that of a weight that begins with zeros, gives zeros.
        return parts["v"] * (parts["g"] / np.where(lengths > 0, lengths, np.ones((), lengths.dtype)))

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        return inner_apply(_with_weights(kind, params, wanted, weight), inputs, key=key, train=train)

    return named(kind, Layer(init, apply))


def SpectralNorm(
    inner: Layer, names: str | Sequence[str] = "W", *, iterations: int = 1, epsilon: float = 1e-12
) -> Layer:
    """A layer whose weights are divided by their largest singular value (Miyato et al. 2018).

    A weight counts as a matrix whose columns are its outputs, the last axis. Its largest singular value is found by
    power iteration, a step or a few whenever the layer is used in training, from the vector that the last step left:
    that is state, so wrap the model in `with_state`. Parameters and paths are those of the layer within.

    Args:
        inner: a layer, of layers too.
        names: how the weights are called, in all layers within.
        iterations: how many steps at each use in training.
        epsilon: the least norm that vectors are divided by.

    Raises:
        ArgumentError: a setting is out of range, `inner` is not a layer or has no weight of these names, or the model
            is used without `with_state`.

    >>> from fnflare import nn
    >>> model = nn.with_state(nn.serial(hidden=nn.SpectralNorm(nn.Dense(3))))
    >>> shape, params, state = model.init(ff.random.key(0), (-1, 4))
    >>> state["hidden/spectral"]["W"].shape
    (3,)
    """
    kind = "SpectralNorm"
    inner_init, inner_apply = check_layer(inner, kind)
    wanted = _names(kind, names)
    iterations = positive_int(kind, "iterations", iterations)

    def unit(x: Any) -> Any:
        return x / np.maximum(np.sqrt(np.sum(x * x)), epsilon)

    def matrix(w: Any) -> Any:
        return np.reshape(w, (-1, w.shape[-1]))

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        output_shape, params = inner_init(key, input_shape)
        require_key(kind, key)
        vectors: dict[str, Any] = {}
        count = 0

        def draw(w: Any, path: str) -> Any:
            nonlocal count
            vectors[path] = unit(random.normal(random.fold_in(key, len(vectors)), w.shape[-1:]).astype(w.dtype))
            count += 5 * w.size
            return w

        _with_weights(kind, params, wanted, draw)
        with scoping.scope("spectral"):
            running_state(kind).add(kind, vectors)
        _note(kind, output_shape, (), count)
        return output_shape, params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        with scoping.scope("spectral"):
            store = running_state(kind)
            vectors = dict(store.read(kind))

        def weight(w: Any, path: str) -> Any:
            a = matrix(w)
            fixed, right = ops.stop_gradient(a), vectors[path]
            for _ in range(iterations if train else 0):
                right = unit(unit(fixed @ right) @ fixed)
            vectors[path] = right
            # With both vectors fixed, the derivative is that of the singular value where they are its own.
            return w / (unit(fixed @ right) @ (a @ right))

        made = _with_weights(kind, params, wanted, weight)
        if train:
            with scoping.scope("spectral"):
                store.write(kind, vectors)
        return inner_apply(made, inputs, key=key, train=train)

    return named(kind, Layer(init, apply))


def _names(kind: str, names: Any) -> tuple[str, ...]:
    wanted = (names,) if isinstance(names, str) else tuple(names)
    if not wanted or not all(isinstance(n, str) for n in wanted):
        raise ArgumentError(f"{kind}: names must be the name of a weight, such as 'W', or several, got {names!r}")
    return wanted


def _with_weights(kind: str, params: Any, names: tuple[str, ...], f: Callable[[Any, str], Any]) -> Any:
    """Parameters with `f` of each weight, or of what it is made of, in its place."""
    found = False

    def made(path: Any, leaf: Any) -> Any:
        nonlocal found
        if not path or path[-1] not in names:
            return leaf
        found = True
        return f(leaf, tree.path_str(path))

    out = tree.map_with_path(made, params, is_leaf=_is_made)
    if not found:
        raise ArgumentError(
            f"{scoping.where()}{kind}: the layer within has no parameter named {' or '.join(map(repr, names))}; "
            "give names=, how its weights are called"
        )
    return out


def _is_made(node: Any) -> bool:
    return type(node) is dict and node.keys() == {"g", "v"}


def _note(kind: str, output_shape: Any, params: Any, flops: int) -> None:
    """Tell `summary` of what is added to the layer within."""
    recorder = scoping.local.recorder
    if recorder is not None:
        recorder.add(kind, output_shape, params, flops)


def _lengths(w: Any) -> Any:
    """The norm of each output of a weight: over all axes but the last."""
    return ops.safe_sqrt(np.sum(w * w, axis=tuple(range(w.ndim - 1))))
