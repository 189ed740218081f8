"""Sharpness-aware minimisation: gradients from where the loss is worst nearby.

Two optimisers go in, one that climbs and one that descends; out comes one that climbs for some steps, and then descends
from where it began, along the gradient that it found there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    apply_updates,
    need_params,
    safe_increment,
    state_of,
    with_extra_args_support,
    zero_count,
)
from fnflare.optim.leaves import copied, map_leaves
from fnflare.optim.wrappers import choose

__all__ = ["SAMState", "sam"]


class SAMState(NamedTuple):
    """The state of `sam`.

    Attributes:
        steps_since_sync: how many climbing steps were taken.
        opt_state: of the optimiser that descends.
        adv_state: of the one that climbs.
        cache: the parameters from which the climb began; None where it is opaque.
    """

    steps_since_sync: Any
    opt_state: Any
    adv_state: Any
    cache: Any


def sam(
    optimizer: GradientTransformation,
    adv_optimizer: GradientTransformation,
    sync_period: int = 2,
    reset_state: bool = True,
    opaque_mode: bool = False,
) -> GradientTransformationExtraArgs:
    """Sharpness-aware minimisation: the gradient of each step is taken where a climb from the parameters leads.

    Foret et al., 2021, "Sharpness-aware minimization for efficiently improving generalization". The paper's method
    climbs once, by rho along the normalised gradient: ``adv_optimizer=chain(normalize(), sgd(rho))``.

    There are two ways to use it. With ``opaque_mode=True`` each update is a whole step, and computes the further
    gradients itself, with a function that it is given: ``opt.update(grads, state, params, grad_fn=grad_fn)``, where
    ``grad_fn(params, i)`` is the gradient, i from 0 on the number of the climbing step; `fnflare.train.make_step`
    gives one. Otherwise each update is one climbing or descending step, every `sync_period`-th one descends, and
    parameters should be looked at only after those.

    Args:
        optimizer: the optimiser that descends.
        adv_optimizer: the one that climbs; what it would descend is climbed.
        sync_period: how many gradients make one step.
        reset_state: whether the state of the climbing optimiser is made anew for each step.
        opaque_mode: whether each update is a whole step.

    Raises:
        ArgumentError: `sync_period` is less than 1; ``update`` was called without the parameters, or without
            ``grad_fn=`` where it is opaque.

    >>> opt = ff.optim.sam(ff.optim.sgd(0.1), ff.optim.chain(ff.optim.normalize(), ff.optim.sgd(0.5)), opaque_mode=True)
    >>> grad = ff.grad(lambda x: np.sum(x**2))
    >>> x = np.array([1.0])
    >>> opt.update(grad(x), opt.init(x), x, grad_fn=lambda x, i: grad(x))[0]  # -0.1 times the gradient at 1.5
    array([-0.3])
    """
    if sync_period < 1:
        raise ArgumentError(f"sam: sync_period must be at least 1, got {sync_period!r}")
    descent, climb = with_extra_args_support(optimizer), with_extra_args_support(adv_optimizer)

    def init(params: Any) -> SAMState:
        cache = None if opaque_mode else copied(params)
        return SAMState(zero_count(), descent.init(params), climb.init(params), cache)

    def climbed(updates: Any, adv_state: Any, params: Any, extra: dict[str, Any]) -> tuple[Any, Any]:
        updates, adv_state = climb.update(updates, adv_state, params, **extra)
        return tree.map(np.negative, updates), adv_state

    def one_of_two(updates: Any, old: SAMState, params: Any, extra: dict[str, Any]) -> tuple[Any, SAMState]:
        cache = choose(old.steps_since_sync == 0, lambda: params, lambda: old.cache)

        def down() -> tuple[Any, SAMState]:
            new, opt_state = descent.update(updates, old.opt_state, cache, **extra)
            trees = {"updates": new, "state.cache": cache, "params": params}
            (new,) = map_leaves("sam", lambda u, c, p: (c - p + u,), trees, outputs=1)
            adv_state = climb.init(params) if reset_state else old.adv_state
            return new, SAMState(zero_count(), opt_state, adv_state, cache)

        def up() -> tuple[Any, SAMState]:
            new, adv_state = climbed(updates, old.adv_state, params, extra)
            return new, SAMState(safe_increment(old.steps_since_sync), old.opt_state, adv_state, cache)

        return choose(old.steps_since_sync >= sync_period - 1, down, up)

    def whole(
        updates: Any, old: SAMState, params: Any, grad_fn: Callable[[Any, int], Any], extra: dict[str, Any]
    ) -> tuple[Any, SAMState]:
        adv_state, there, gradients = old.adv_state, params, updates
        for i in range(sync_period - 1):
            step, adv_state = climbed(gradients, adv_state, there, extra)
            there = apply_updates(there, step)
            gradients = grad_fn(there, i)
        new, opt_state = descent.update(gradients, old.opt_state, params, **extra)
        return new, old._replace(opt_state=opt_state, adv_state=climb.init(params) if reset_state else adv_state)

    def update(
        updates: Any, state: Any, params: Any = None, *, grad_fn: Any = None, **extra_args: Any
    ) -> tuple[Any, SAMState]:
        need_params("sam", updates, params)
        old = state_of(SAMState, state, "sam")
        if not opaque_mode:
            return one_of_two(updates, old, params, extra_args)
        if grad_fn is None:
            raise ArgumentError(
                "sam: with opaque_mode=True update needs grad_fn=; write opt.update(grads, state, params, "
                "grad_fn=lambda params, i: grad(loss)(params, batch))"
            )
        return whole(updates, old, params, grad_fn, extra_args)

    return GradientTransformationExtraArgs(init, update)
