"""Updates that keep the parameters where they may be, or that are of one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    need_params,
    stateless,
    sum_of_squares,
    with_extra_args_support,
)
from fnflare.optim.leaves import map_leaves
from fnflare.optim.wrappers import choose

__all__ = [
    "flatten",
    "keep_params_nonnegative",
    "normalize_by_update_norm",
    "periodic_update",
    "stateless_with_tree_map",
]


def keep_params_nonnegative() -> GradientTransformation:
    """Shortens updates that would make a parameter negative, so that it becomes zero. It goes to the end of a chain.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt = ff.optim.chain(ff.optim.sgd(1.0), ff.optim.keep_params_nonnegative())
    >>> params = np.array([0.5, 0.5])
    >>> updates, state = opt.update(np.array([2.0, 0.2]), opt.init(params), params)
    >>> ff.optim.apply_updates(params, updates)
    array([0. , 0.3])
    """

    def kept(updates: Any, params: Any) -> Any:
        need_params("keep_params_nonnegative", updates, params)
        trees = {"updates": updates, "params": params}
        return map_leaves("keep_params_nonnegative", _kept, trees, outputs=1)[0]

    return stateless(kept)


def _kept(g: Any, p: Any) -> tuple[Any]:
    return (np.where(p + g < 0, -p, g),)


def normalize_by_update_norm(scale_factor: float = 1.0, eps: float = 1e-6) -> GradientTransformation:
    """Scales all updates together to one norm.

    Args:
        scale_factor: the norm.
        eps: added to the norm of the updates.

    >>> opt = ff.optim.normalize_by_update_norm(10.0, eps=0.0)
    >>> opt.update(np.array([0.3, 0.4]), opt.init(None))[0]
    array([6., 8.])
    """

    def normalized(updates: Any, params: Any) -> Any:
        squares = sum_of_squares(updates)
        positive = squares > 0
        norm = np.where(positive, np.sqrt(np.where(positive, squares, 1.0)), 0.0) + eps
        factor = np.where(norm > 0, scale_factor / np.where(norm > 0, norm, 1.0), 0.0)
        trees = {"updates": updates}
        return map_leaves("normalize_by_update_norm", lambda g, c: (c * g,), trees, factor, outputs=1)[0]

    return stateless(normalized)


def flatten(inner: GradientTransformation) -> GradientTransformationExtraArgs:
    """Gives a transformation all parameters as one vector: faster for many small arrays, and blind to their borders.

    Args:
        inner: the transformation. A mask or a rule by path inside it sees one array.

    >>> opt = ff.optim.flatten(ff.optim.adam(0.1))
    >>> params = {"b": np.array([1.0]), "w": np.array([[1.0, 2.0]])}
    >>> state = opt.init(params)
    >>> state.mu, opt.update(params, state)[0]
    (array([0., 0., 0.]), {'b': array([-0.1]), 'w': array([[-0.1, -0.1]])})
    """
    rule = with_extra_args_support(inner)

    def init(params: Any) -> Any:
        return rule.init(tree.ravel(params)[0])

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        flat, unravel = tree.ravel(updates)
        flat_params = None if params is None else tree.ravel(params)[0]
        flat, state = rule.update(flat, state, flat_params, **extra_args)
        return unravel(flat), state

    return GradientTransformationExtraArgs(init, update)


def stateless_with_tree_map(f: Callable[[Any, Any], Any]) -> GradientTransformation:
    """The transformation that applies a function to each array, and keeps no state.

    Args:
        f: ``f(update, parameter) -> update``; the parameter is None where ``update`` is called without them.

    >>> opt = ff.optim.stateless_with_tree_map(lambda g, p: g + 0.1 * np.sign(p))
    >>> opt.update(np.array([1.0, 1.0]), opt.init(None), np.array([5.0, -5.0]))[0]
    array([1.1, 0.9])
    """

    def mapped(updates: Any, params: Any) -> Any:
        return tree.map(lambda g: f(g, None), updates) if params is None else tree.map(f, updates, params)

    return stateless(mapped)


def periodic_update(new_tensors: Any, old_tensors: Any, steps: Any, update_period: int) -> Any:
    """The new tree every so often, and the old one in between: a target network, for example.

    Args:
        new_tensors: a pytree of arrays.
        old_tensors: one of the same structure and shapes.
        steps: the number of the step; the new tree is taken where `update_period` divides it.
        update_period: how often.

    Raises:
        ArgumentError: `update_period` is less than 1.

    >>> [ff.optim.periodic_update(10.0, 0.0, step, 3) for step in range(5)]
    [10.0, 0.0, 0.0, 10.0, 0.0]
    """
    if update_period < 1:
        raise ArgumentError(f"periodic_update: update_period must be at least 1, got {update_period!r}")
    return choose(steps % update_period == 0, lambda: new_tensors, lambda: old_tensors)
