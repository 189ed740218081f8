"""Optimisers around optimisers, which decide when and with what the inner one runs.

Gradients, parameters and an inner state go in; the inner update runs or waits, on these gradients or on those that
were gathered. A choice that is known when Python runs is made by Python; in a program it is one `fnflare.cond`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare import transforms, tree
from fnflare.core import is_tracer
from fnflare.errors import ArgumentError
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    need_params,
    safe_increment,
    state_of,
    sum_of_squares,
    with_extra_args_support,
    zero_count,
)
from fnflare.optim.leaves import copied, filled, map_leaves, tiled, weak

__all__ = [
    "ApplyIfFiniteState",
    "LookaheadState",
    "MultiStepsState",
    "all_finite",
    "apply_if_finite",
    "has_updated",
    "lookahead",
    "multi_steps",
    "skip_large_updates",
    "skip_not_finite",
]


def choose(pred: Any, true_fun: Callable[[], Any], false_fun: Callable[[], Any]) -> Any:
    """What one of two functions returns; where the choice is not known yet, both are traced."""
    if is_tracer(pred):
        return transforms.cond(pred, true_fun, false_fun)
    return true_fun() if pred else false_fun()


def all_finite(updates: Any) -> Any:
    """Whether no element of a pytree is infinite or NaN."""
    finite: Any = np.True_
    for leaf in tree.leaves(updates):
        finite = finite & np.all(np.isfinite(leaf))
    return finite


class ApplyIfFiniteState(NamedTuple):
    """The state of `apply_if_finite`.

    Attributes:
        notfinite_count: how many updates in a row up to now were not finite.
        last_finite: whether the last was.
        total_notfinite: how many were not, in all.
        inner_state: the inner state.
    """

    notfinite_count: Any
    last_finite: Any
    total_notfinite: Any
    inner_state: Any


def apply_if_finite(inner: GradientTransformation, max_consecutive_errors: int) -> GradientTransformationExtraArgs:
    """Skips updates in which something is infinite or NaN: these become zeros, and the inner state stays.

    Args:
        inner: the optimiser.
        max_consecutive_errors: after how many such updates in a row they are let through again, so that a run that
            has gone wrong shows it.

    >>> opt = ff.optim.apply_if_finite(ff.optim.sgd(0.1), max_consecutive_errors=5)
    >>> updates, state = opt.update(np.array([1.0, np.nan]), opt.init(np.zeros(2)))
    >>> updates, int(state.total_notfinite)
    (array([0., 0.]), 1)
    """
    inner = with_extra_args_support(inner)

    def init(params: Any) -> ApplyIfFiniteState:
        return ApplyIfFiniteState(zero_count(), np.ones((), np.bool_), zero_count(), inner.init(params))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, ApplyIfFiniteState]:
        old = state_of(ApplyIfFiniteState, state, "apply_if_finite")
        finite = all_finite(updates)
        in_a_row = np.where(finite, zero_count(), safe_increment(old.notfinite_count))
        total = np.where(finite, old.total_notfinite, safe_increment(old.total_notfinite))
        updates, inner_state = choose(
            finite | (in_a_row > max_consecutive_errors),
            lambda: inner.update(updates, old.inner_state, params, **extra_args),
            lambda: (filled(updates, 0.0), old.inner_state),
        )
        return updates, ApplyIfFiniteState(in_a_row, finite, total, inner_state)

    return GradientTransformationExtraArgs(init, update)


class MultiStepsState(NamedTuple):
    """The state of `multi_steps`.

    Attributes:
        mini_step: how many gradients were gathered since the last update.
        gradient_step: how many updates were made.
        inner_opt_state: the inner state.
        acc_grads: the mean (or the sum) of the gathered gradients.
        skip_state: what `should_skip_update_fn` has said last.
    """

    mini_step: Any
    gradient_step: Any
    inner_opt_state: Any
    acc_grads: Any
    skip_state: Any


def _never_skip(updates: Any, gradient_step: Any, params: Any) -> tuple[Any, Any]:
    return np.False_, ()


def _arrays_like(new: Any, before: Any) -> Any:
    return new.astype(before.dtype) if is_tracer(new) else np.asarray(new, before.dtype)


def skip_not_finite(updates: Any, gradient_step: Any, params: Any) -> tuple[Any, Any]:
    """For `multi_steps`: leaves gradients out in which something is infinite or NaN.

    >>> opt = ff.optim.multi_steps(ff.optim.sgd(1.0), 1, should_skip_update_fn=ff.optim.skip_not_finite)
    >>> updates, state = opt.update(np.array([1.0, np.nan]), opt.init(np.zeros(2)))
    >>> updates, int(state.skip_state["num_not_finite"])
    (array([0., 0.]), 1)
    """
    bad = sum((np.sum(~np.isfinite(leaf)) for leaf in tree.leaves(updates)), np.int64(0))
    return bad > 0, {"should_skip": bad > 0, "num_not_finite": bad}


def skip_large_updates(updates: Any, gradient_step: Any, params: Any, max_squared_norm: float) -> tuple[Any, Any]:
    """For `multi_steps`, with `functools.partial`: leaves gradients out whose squared norm is too large, or NaN.

    >>> opt = ff.optim.multi_steps(ff.optim.sgd(1.0), 1, should_skip_update_fn=lambda *args: (
    ...     ff.optim.skip_large_updates(*args, max_squared_norm=10.0)))
    >>> state = opt.init(np.zeros(2))
    >>> opt.update(np.array([1.0, 2.0]), state)[0], opt.update(np.array([1.0, 3.5]), state)[0]
    (array([-1., -2.]), array([0., 0.]))
    """
    square = sum_of_squares(updates)
    skip = ~(square < max_squared_norm)
    return skip, {"should_skip": skip, "norm_squared": square}


def multi_steps(
    opt: GradientTransformation,
    every_k_schedule: int | Callable[[Any], Any],
    use_grad_mean: bool = True,
    should_skip_update_fn: Callable[[Any, Any, Any], tuple[Any, Any]] | None = None,
) -> GradientTransformationExtraArgs:
    """Gathers the gradients of k steps and makes one update with their mean: large batches in little memory.

    The other steps return updates of zero. This is optax's ``MultiSteps``, as a transformation.

    Args:
        opt: the optimiser.
        every_k_schedule: k, or a function from the number of updates made so far to k.
        use_grad_mean: False gives the optimiser the sum.
        should_skip_update_fn: ``f(updates, gradient_step, params) -> (skip, state)`` says which gradients are left out,
            as if their step had not been; `skip_not_finite`, for example.

    Raises:
        ArgumentError: k is less than 1.

    >>> opt = ff.optim.multi_steps(ff.optim.sgd(1.0), 2)
    >>> state = opt.init(np.zeros(1))
    >>> for gradient in (1.0, 3.0, 5.0):
    ...     updates, state = opt.update(np.array([gradient]), state)
    ...     print(updates, bool(ff.optim.has_updated(state)))
    [0.] False
    [-2.] True
    [0.] False
    """
    if not callable(every_k_schedule) and every_k_schedule < 1:
        raise ArgumentError(f"multi_steps: every_k_schedule must be at least 1, got {every_k_schedule!r}")
    inner = with_extra_args_support(opt)
    should_skip = should_skip_update_fn or _never_skip

    def kernel(g: Any, acc: Any, c: Any) -> tuple[Any]:
        return (acc + c * (g - acc) if use_grad_mean else acc + g,)

    def init(params: Any) -> MultiStepsState:
        zeros = filled(params, 0.0)
        skip_state = copied(should_skip(zeros, zero_count(), params)[1])
        return MultiStepsState(zero_count(), zero_count(), inner.init(params), zeros, skip_state)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, MultiStepsState]:
        old = state_of(MultiStepsState, state, "multi_steps")
        k = every_k_schedule(old.gradient_step) if callable(every_k_schedule) else every_k_schedule
        skip, skip_state = should_skip(updates, old.gradient_step, params)
        skip_state = tree.map(_arrays_like, skip_state, old.skip_state)

        def gather() -> tuple[Any, MultiStepsState]:
            trees = {"updates": updates, "state.acc_grads": old.acc_grads}
            (acc,) = map_leaves("multi_steps", tiled(kernel), trees, 1 / (weak(old.mini_step) + 1), outputs=1)
            # A schedule may shrink k below what was gathered already.
            due = old.mini_step + 1 >= k
            return choose(due, lambda: act(acc), lambda: wait(acc))

        def act(acc: Any) -> tuple[Any, MultiStepsState]:
            new, inner_state = inner.update(acc, old.inner_opt_state, params, **extra_args)
            step = safe_increment(old.gradient_step)
            return new, MultiStepsState(zero_count(), step, inner_state, filled(acc, 0.0), skip_state)

        def wait(acc: Any) -> tuple[Any, MultiStepsState]:
            waiting = old._replace(mini_step=safe_increment(old.mini_step), acc_grads=acc, skip_state=skip_state)
            return filled(acc, 0.0), waiting

        return choose(skip, lambda: (filled(updates, 0.0), old._replace(skip_state=skip_state)), gather)

    return GradientTransformationExtraArgs(init, update)


def has_updated(state: MultiStepsState) -> Any:
    """Whether the last step of `multi_steps` made an update.

    >>> opt = ff.optim.multi_steps(ff.optim.sgd(1.0), 2)
    >>> updates, state = opt.update(np.ones(1), opt.init(np.zeros(1)))
    >>> bool(ff.optim.has_updated(state)), bool(ff.optim.has_updated(opt.update(np.ones(1), state)[1]))
    (False, True)
    """
    return (state.mini_step == 0) & (state.gradient_step > 0)


class LookaheadState(NamedTuple):
    """The state of `lookahead`.

    Attributes:
        fast_state: the inner state.
        steps_since_sync: how many steps the fast parameters have gone.
        slow: the slow parameters.
    """

    fast_state: Any
    steps_since_sync: Any
    slow: Any


def lookahead(
    fast_optimizer: GradientTransformation, sync_period: int, slow_step_size: float, reset_state: bool = False
) -> GradientTransformationExtraArgs:
    """Some steps forward, one step back: every so often the parameters return most of the way to where they were.

    Zhang et al., 2019, "Lookahead optimizer: k steps forward, 1 step back". Unlike optax's it takes plain parameters,
    the fast ones, and keeps the slow ones in its state; right after a synchronisation the two are the same.

    Args:
        fast_optimizer: the optimiser of the fast parameters.
        sync_period: after how many of its steps the two are brought together.
        slow_step_size: how far the slow parameters then go towards the fast ones, 1 for all the way.
        reset_state: whether the inner state then starts afresh.

    Raises:
        ArgumentError: `sync_period` is less than 1; ``update`` was called without the parameters.

    >>> opt = ff.optim.lookahead(ff.optim.sgd(1.0), sync_period=2, slow_step_size=0.5)
    >>> params = np.array([0.0])
    >>> state = opt.init(params)
    >>> for _ in range(4):
    ...     updates, state = opt.update(np.array([-1.0]), state, params)
    ...     params = ff.optim.apply_updates(params, updates)
    ...     print(params)
    [1.]
    [1.]
    [2.]
    [2.]
    """
    if sync_period < 1:
        raise ArgumentError(f"lookahead: sync_period must be at least 1, got {sync_period!r}")
    inner = with_extra_args_support(fast_optimizer)

    @tiled
    def kernel(u: Any, p: Any, slow: Any, size: Any) -> tuple[Any, Any]:
        slow = slow + size * (p + u - slow)
        return slow - p, slow

    def init(params: Any) -> LookaheadState:
        return LookaheadState(inner.init(params), zero_count(), copied(params))

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, LookaheadState]:
        need_params("lookahead", updates, params)
        old = state_of(LookaheadState, state, "lookahead")
        updates, fast_state = inner.update(updates, old.fast_state, params, **extra_args)

        def sync() -> tuple[Any, LookaheadState]:
            trees = {"updates": updates, "params": params, "state.slow": old.slow}
            new, slow = map_leaves("lookahead", kernel, trees, slow_step_size, outputs=2)
            return new, LookaheadState(inner.init(params) if reset_state else fast_state, zero_count(), slow)

        steps = safe_increment(old.steps_since_sync)
        return choose(steps >= sync_period, sync, lambda: (updates, LookaheadState(fast_state, steps, old.slow)))

    return GradientTransformationExtraArgs(init, update)
