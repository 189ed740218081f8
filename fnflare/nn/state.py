"""State that a model keeps beside its parameters, such as running statistics, as an explicit pytree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fnflare.errors import ArgumentError, TreeError
from fnflare.nn import scoping
from fnflare.nn.combinators import check_layer
from fnflare.nn.layer import Layer

__all__ = ["StateStore", "StatefulLayer", "running_state", "with_state"]


class StatefulLayer(NamedTuple):
    """A model with state: two pure functions. Made by `with_state`.

    Attributes:
        init: ``init(key, input_shape) -> (output_shape, params, state)``.
        apply: ``apply(params, state, inputs, *, key=None, train=False) -> (outputs, state)``.
    """

    init: Callable[..., tuple[Any, Any, Any]]
    apply: Callable[..., tuple[Any, Any]]


class StateStore:
    """The states of the layers of a model while it runs: what came in, and what goes out."""

    def __init__(self, states: dict[str, Any]) -> None:
        self.states = states
        self.new = dict(states)
        self._depth = len(scoping.names())

    def _key(self, kind: str) -> str:
        """The path of the layer within the model; its kind where it is the whole model."""
        return "/".join(scoping.names()[self._depth :]) or kind

    def add(self, kind: str, state: Any) -> None:
        """Give the layer that is running its first state."""
        key = self._key(kind)
        if key in self.new:
            raise ArgumentError(
                f"{scoping.where()}two layers keep state under the path {key!r}; in a layer of your own "
                "give each its name with nn.scope(name), in init and in apply"
            )
        self.new[key] = state

    def read(self, kind: str) -> Any:
        """The state of the layer that is running."""
        key = self._key(kind)
        try:
            return self.states[key]
        except KeyError:
            raise TreeError(
                f"{scoping.where()}the state has no entry {key!r}; it has {sorted(self.states)}. "
                "Pass what init returned for this very model"
            ) from None

    def write(self, kind: str, state: Any) -> None:
        """Give the layer that is running a new state."""
        self.new[self._key(kind)] = state


def running_state(kind: str) -> StateStore:
    """The states of the model that is running, for a layer of a kind that keeps some."""
    store = scoping.local.states
    if store is None:
        raise ArgumentError(
            f"{scoping.where()}{kind} keeps running statistics, which need a place: wrap the whole model, "
            "as in model = nn.with_state(nn.serial(...)), whose apply takes and returns the state"
        )
    return store


def with_state(model: Layer) -> StatefulLayer:
    """Make the state of a model's layers explicit, such as the running statistics of `BatchNorm`.

    The state is a dict with one entry for each layer that keeps some, under the layer's path. It goes
    in beside the parameters and comes out beside the outputs, so that apply stays a pure function:
    return the new state from the loss as ``aux`` of ``value_and_grad(loss, has_aux=True)``. With
    ``train=False`` it comes out as it went in.

    Args:
        model: a layer.

    Returns:
        A pair (init, apply); see `StatefulLayer`.

    Raises:
        ArgumentError: `model` is not a layer, or two layers keep state under one path.

    >>> from fnflare import nn, random
    >>> model = nn.with_state(nn.serial(dense=nn.Dense(3), norm=nn.BatchNorm()))
    >>> shape, params, state = model.init(random.key(0), (-1, 2))
    >>> sorted(state), sorted(state["norm"])
    (['norm'], ['mean', 'var'])
    """
    inner_init, inner_apply = check_layer(model, "with_state")

    def init(key: Any, input_shape: Any) -> tuple[Any, Any, Any]:
        store = StateStore({})
        with scoping.substituted(states=store):
            output_shape, params = inner_init(key, input_shape)
        return output_shape, params, store.new

    def apply(params: Any, state: Any, inputs: Any, *, key: Any = None, train: bool = False) -> tuple[Any, Any]:
        if not isinstance(state, dict):
            raise TreeError(
                f"{scoping.where()}with_state: expected the state as a dict, got {type(state).__name__}; "
                "apply takes (params, state, inputs)"
            )
        store = StateStore(state)
        with scoping.substituted(states=store):
            outputs = inner_apply(params, inputs, key=key, train=train)
        return outputs, store.new

    for function, name in ((init, "init"), (apply, "apply")):
        function.__name__, function.__qualname__ = name, f"with_state.{name}"
    return StatefulLayer(init, apply)
