"""What an optimiser is: a pair of pure functions on pytrees.

``init(params)`` makes a state and ``update(updates, state, params)`` turns gradients into updates, which
`apply_updates` adds to the parameters. Nothing is changed in place, so an old state stays good: a step can
be repeated, compared, differentiated or thrown away. The interface and the names are those of optax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError, TreeError
from fnflare.optim.leaves import abs_sq, dtype_of, map_leaves

__all__ = [
    "EmptyState",
    "GradientTransformation",
    "GradientTransformationExtraArgs",
    "ScalarOrSchedule",
    "Schedule",
    "UpdateFn",
    "apply_updates",
    "global_norm",
    "identity",
    "safe_increment",
    "set_to_zero",
    "stateless",
    "with_extra_args_support",
]

Schedule = Callable[[Any], Any]
"""A function of the step count (0 for the first update), such as those of `fnflare.optim.schedules`."""

ScalarOrSchedule = float | Schedule


UpdateFn = Callable[..., tuple[Any, Any]]
"""``update(updates, state, params=None) -> (updates, state)``, with more by keyword where it says so."""


class GradientTransformation(NamedTuple):
    """An optimiser, or a part of one, as a pair of pure functions.

    Attributes:
        init: takes the parameters, returns the state, a pytree of arrays.
        update: takes the updates (at first the gradients), the state and the parameters; returns new updates
            of the same structure, shapes and dtypes, and the new state. The parameters may be left out where
            the transformation does not need them.
    """

    init: Callable[[Any], Any]
    update: UpdateFn


class GradientTransformationExtraArgs(GradientTransformation):
    """A transformation whose ``update`` takes more by keyword, such as the loss.

    ``update(updates, state, params, value=loss, grad=grads, value_fn=f)`` is what `lbfgs`, `reduce_on_plateau` and
    `sam` want some of. What is made of other transformations (`chain`, `masked`, ...) hands all of it on to those
    that are of this class, and each takes what it knows. `fnflare.train.make_step` gives ``value``, ``grad``,
    ``value_fn`` and ``grad_fn``.
    """

    __slots__ = ()


def with_extra_args_support(tx: GradientTransformation) -> GradientTransformationExtraArgs:
    """The same transformation, whose ``update`` may be given keywords that it has no use for.

    >>> opt = ff.optim.with_extra_args_support(ff.optim.identity())
    >>> opt.update({"w": 2.0}, ff.optim.EmptyState(), value=1.0)
    ({'w': 2.0}, EmptyState())
    """
    if isinstance(tx, GradientTransformationExtraArgs):
        return tx

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        return tx.update(updates, state, params)

    return GradientTransformationExtraArgs(tx.init, update)


class EmptyState(NamedTuple):
    """The state of a transformation that remembers nothing."""


def stateless(f: Callable[[Any, Any], Any]) -> GradientTransformation:
    """The transformation that applies a function to the updates, and keeps no state.

    Args:
        f: ``f(updates, params) -> updates``; the parameters are None where ``update`` is called without them.

    >>> opt = ff.optim.stateless(lambda updates, params: ff.tree.map(np.sign, updates))
    >>> opt.update({"w": np.array([3.0, -4.0])}, opt.init(None))[0]
    {'w': array([ 1., -1.])}
    """

    def init(params: Any) -> EmptyState:
        return EmptyState()

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return f(updates, params), state

    return GradientTransformation(init, update)


def identity() -> GradientTransformation:
    """Leaves the updates as they are.

    >>> ff.optim.identity().update({"w": 2.0}, ff.optim.EmptyState())
    ({'w': 2.0}, EmptyState())
    """
    return stateless(lambda updates, params: updates)


def set_to_zero() -> GradientTransformation:
    """Replaces every update by zeros: freezes the parameters that it is given by `multi_transform`.

    >>> ff.optim.set_to_zero().update({"w": np.ones(2)}, ff.optim.EmptyState())[0]
    {'w': array([0., 0.])}
    """
    return stateless(lambda updates, params: tree.map(np.zeros_like, updates))


def apply_updates(params: Any, updates: Any) -> Any:
    """Add updates to parameters.

    Args:
        params: a pytree of arrays.
        updates: a pytree of the same structure and shapes, from an optimiser's ``update``.

    Returns:
        New parameters, each with the dtype of the old one.

    Raises:
        TreeError: the structures differ; names the first path that does.
        ShapeError: an update does not have its parameter's shape; names the path.

    >>> ff.optim.apply_updates({"w": np.float32([1, 2])}, {"w": np.float32([0.5, -1])})
    {'w': array([1.5, 1. ], dtype=float32)}
    """

    def add(param: Any, update: Any) -> tuple[Any]:
        new = param + update
        dtype = getattr(param, "dtype", None)
        return (new if dtype is None or new.dtype == dtype else new.astype(dtype),)

    (new,) = map_leaves("apply_updates", add, {"params": params, "updates": updates}, outputs=1)
    return new


def sum_of_squares(updates: Any) -> Any:
    """The sum of the squared sizes of all elements of a pytree."""
    return sum((np.sum(abs_sq(leaf)) for leaf in tree.leaves(updates)), 0.0)


def inner_product(a: Any, b: Any) -> Any:
    """The sum of the products of the elements of two pytrees, of which complex numbers are vectors of two."""
    pairs = zip(tree.leaves(a), tree.leaves(b), strict=True)
    return sum((np.sum(x * y if dtype_of(x).kind != "c" else (np.conj(x) * y).real) for x, y in pairs), 0.0)


def global_norm(updates: Any) -> Any:
    """The Euclidean norm of all elements of a pytree taken as one vector.

    Args:
        updates: a pytree of arrays of any shapes.

    Returns:
        A scalar in the dtype to which the leaves promote; 0.0 for a tree without leaves.

    >>> float(ff.optim.global_norm({"w": np.array([3.0]), "b": np.array(4.0)}))
    5.0
    """
    return np.sqrt(sum_of_squares(updates))


def safe_increment(count: Any) -> Any:
    """The next step count, which stays at the largest integer of its dtype instead of wrapping around.

    >>> int(ff.optim.safe_increment(np.int32(7))), int(ff.optim.safe_increment(np.int32(2**31 - 1)))
    (8, 2147483647)
    """
    return np.minimum(count, np.iinfo(count.dtype).max - 1) + 1


def zero_count() -> np.ndarray:
    """The step count of a fresh state."""
    return np.zeros((), np.int32)


def need_params(who: str, updates: Any, params: Any) -> None:
    """Raises ArgumentError where a transformation that reads the parameters was called without them."""
    if params is None and tree.leaves(updates):
        raise ArgumentError(f"{who}: update needs the parameters; write opt.update(grads, state, params)")


def state_of(kind: type, state: Any, who: str) -> Any:
    """`state`, or an error where another transformation made it."""
    if type(state) is not kind:
        raise TreeError(
            f"{who}: update got a state of type {type(state).__name__}, expected {kind.__name__}; "
            "pass the state that this transformation's own init or update returned"
        )
    return state
