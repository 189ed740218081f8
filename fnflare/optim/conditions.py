"""Transformations that run at some steps only, and what the updates are in the others.

A transformation and a condition on the step go in; at a step that the condition leaves out the updates pass through, or
become zeros, and the inner state stays. `apply_every` gathers updates meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare.errors import ArgumentError
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    safe_increment,
    state_of,
    with_extra_args_support,
    zero_count,
)
from fnflare.optim.leaves import filled, map_leaves
from fnflare.optim.wrappers import choose

__all__ = [
    "ApplyEvery",
    "ConditionallyMaskState",
    "ConditionallyTransformState",
    "apply_every",
    "conditionally_mask",
    "conditionally_transform",
]


class ConditionallyTransformState(NamedTuple):
    """``inner_state``: the inner state; ``step``: how many updates were seen."""

    inner_state: Any
    step: Any


class ConditionallyMaskState(NamedTuple):
    """``step``: how many updates were seen; ``inner_state``: the inner state."""

    step: Any
    inner_state: Any


def _conditional(
    who: str,
    kind: Any,
    inner: GradientTransformation,
    should_transform_fn: Callable[..., Any],
    forward_extra_args: bool,
    otherwise: Callable[[Any], Any],
) -> GradientTransformationExtraArgs:
    rule = with_extra_args_support(inner)

    def init(params: Any) -> Any:
        return kind(step=zero_count(), inner_state=rule.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, Any]:
        old = state_of(kind, state, who)
        keywords = extra_args if forward_extra_args else {}
        updates, inner_state = choose(
            should_transform_fn(old.step, **keywords),
            lambda: rule.update(updates, old.inner_state, params, **extra_args),
            lambda: (otherwise(updates), old.inner_state),
        )
        return updates, kind(step=safe_increment(old.step), inner_state=inner_state)

    return GradientTransformationExtraArgs(init, update)


def conditionally_transform(
    inner: GradientTransformation, should_transform_fn: Callable[..., Any], forward_extra_args: bool = False
) -> GradientTransformationExtraArgs:
    """Runs a transformation at the steps for which a condition holds; at the others the updates pass unchanged.

    Args:
        inner: the transformation.
        should_transform_fn: ``f(step) -> bool``, where the step counts from 0.
        forward_extra_args: whether the function also gets what ``update`` was given by keyword.

    >>> opt = ff.optim.conditionally_transform(ff.optim.scale(0.1), lambda step: step >= 1)
    >>> updates, state = opt.update(np.array([5.0]), opt.init(np.zeros(1)))
    >>> updates, opt.update(np.array([5.0]), state)[0]
    (array([5.]), array([0.5]))
    """
    return _conditional(
        "conditionally_transform",
        ConditionallyTransformState,
        inner,
        should_transform_fn,
        forward_extra_args,
        lambda updates: updates,
    )


def conditionally_mask(
    inner: GradientTransformation, should_transform_fn: Callable[..., Any], forward_extra_args: bool = False
) -> GradientTransformationExtraArgs:
    """Runs a transformation at the steps for which a condition holds; at the others the updates become zeros.

    Args:
        inner: the transformation.
        should_transform_fn: ``f(step) -> bool``, where the step counts from 0.
        forward_extra_args: whether the function also gets what ``update`` was given by keyword.

    >>> opt = ff.optim.conditionally_mask(ff.optim.sgd(0.1), lambda step: step % 2 == 0)
    >>> updates, state = opt.update(np.array([5.0]), opt.init(np.zeros(1)))
    >>> updates, opt.update(np.array([5.0]), state)[0]
    (array([-0.5]), array([0.]))
    """
    return _conditional(
        "conditionally_mask",
        ConditionallyMaskState,
        inner,
        should_transform_fn,
        forward_extra_args,
        lambda updates: filled(updates, 0.0),
    )


class ApplyEvery(NamedTuple):
    """``count``: how many updates were gathered since the last that was let through; ``grad_acc``: their sum."""

    count: Any
    grad_acc: Any


def apply_every(k: int = 1) -> GradientTransformation:
    """Lets the sum of k updates through at every k-th step, and zeros at the others.

    It stands behind an optimiser in a chain, whose state sees every gradient. `multi_steps` stands around an optimiser,
    which then sees the mean of k gradients; for large batches that is what is meant.

    Args:
        k: how many updates are added up.

    Raises:
        ArgumentError: k is less than 1.

    >>> opt = ff.optim.apply_every(2)
    >>> updates, state = opt.update(np.array([1.0]), opt.init(np.zeros(1)))
    >>> updates, opt.update(np.array([2.0]), state)[0]
    (array([0.]), array([3.]))
    """
    if k < 1:
        raise ArgumentError(f"apply_every: k must be at least 1, got {k!r}")

    def init(params: Any) -> ApplyEvery:
        return ApplyEvery(zero_count(), filled(params, 0.0))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ApplyEvery]:
        count, gathered = state_of(ApplyEvery, state, "apply_every")
        trees = {"updates": updates, "state.grad_acc": gathered}
        keep, emit = np.where(count > 0, 1.0, 0.0), np.where(count == k - 1, 1.0, 0.0)
        new, gathered = map_leaves("apply_every", _gathered, trees, keep, emit, outputs=2)
        return new, ApplyEvery(np.where(count == k - 1, zero_count(), safe_increment(count)), gathered)

    return GradientTransformation(init, update)


def _gathered(g: Any, acc: Any, keep: Any, emit: Any) -> tuple[Any, Any]:
    acc = keep * acc + g
    return emit * acc, acc
