"""Recurrent layers one upon another, as one layer: the states of all are handed in and out together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fnflare import random
from fnflare.errors import TreeError
from fnflare.nn import scoping
from fnflare.nn.combinators import init_child
from fnflare.nn.dropout import Dropout
from fnflare.nn.layer import Layer, Shape, named

__all__ = ["stack"]


def stack(kind: str, layers: Sequence[Layer], dropout: float) -> Layer:
    """The layer of recurrent layers each of which reads the outputs of the one before.

    Args:
        kind: what it is called.
        layers: recurrent layers, which take ``initial_state=`` and ``return_state=``.
        dropout: the fraction of the outputs of all but the last that is dropped in training.
    """
    count = len(layers)
    drop = Dropout(dropout).apply

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        parts = []
        for i, layer in enumerate(layers):
            own = None if key is None else random.fold_in(key, i)
            input_shape, params = init_child(str(i), layer.init, own, input_shape)
            parts.append(params)
        return input_shape, tuple(parts)

    def apply(
        params: Any,
        inputs: Any,
        *,
        key: Any = None,
        train: bool = False,
        initial_state: Any = None,
        return_state: bool = False,
    ) -> Any:
        parts = _one_each(kind, "its parameters", params, count)
        starts = [None] * count if initial_state is None else _one_each(kind, "an initial_state", initial_state, count)
        states = []
        for i, (layer, own, start) in enumerate(zip(layers, parts, starts, strict=True)):
            with scoping.scope(str(i)):
                inputs = layer.apply(own, inputs, initial_state=start, return_state=return_state)
                if return_state:
                    inputs, state = inputs
                    states.append(state)
                if i < count - 1:
                    inputs = drop((), inputs, key=None if key is None else random.fold_in(key, i), train=train)
        return (inputs, tuple(states)) if return_state else inputs

    return named(kind, Layer(init, apply))


def _one_each(kind: str, what: str, given: Any, count: int) -> Any:
    if not isinstance(given, (tuple, list)) or len(given) != count:
        got = f"{type(given).__name__}" + (f" of {len(given)}" if isinstance(given, (tuple, list, dict)) else "")
        raise TreeError(f"{scoping.where()}{kind} expected {what} as a tuple of {count}, one for each layer, got {got}")
    return given
