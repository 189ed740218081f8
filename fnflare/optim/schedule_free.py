"""Schedule-free learning: an average of the parameters in the place of a schedule of the learning rate.

An optimiser goes in; gradients are taken between its parameters z and their average x, and what is trained is that
point in between, y. The average, which is what one wants in the end, is made of y and the state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.core import is_tracer
from fnflare.errors import ArgumentError, TreeError
from fnflare.optim.adaptive import scale_by_rms
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    ScalarOrSchedule,
    need_params,
    safe_increment,
    state_of,
    with_extra_args_support,
)
from fnflare.optim.combine import chain
from fnflare.optim.descent import sgd
from fnflare.optim.leaves import copied, float_dtype, map_leaves, tiled, weak_at
from fnflare.optim.moments import kept_as, like
from fnflare.optim.schedules import warmup_constant_schedule
from fnflare.optim.transforms import add_decayed_weights, scale_by_learning_rate

__all__ = [
    "ScheduleFreeState",
    "schedule_free",
    "schedule_free_adamw",
    "schedule_free_eval_params",
    "schedule_free_sgd",
]


class ScheduleFreeState(NamedTuple):
    """The state of `schedule_free`.

    Attributes:
        b1: where between z and x the gradients are taken.
        weight_sum: the sum of the weights of the average.
        step_count: the number of the next update, from 1 on.
        max_lr: the greatest learning rate so far.
        base_optimizer_state: the inner state.
        z: the parameters of the inner optimiser.
    """

    b1: Any
    weight_sum: Any
    step_count: Any
    max_lr: Any
    base_optimizer_state: Any
    z: Any


def _scalar(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if hasattr(x, "astype") else np.asarray(x, dtype)


def schedule_free(
    base_optimizer: GradientTransformation,
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    weight_lr_power: float = 2.0,
    state_dtype: Any = None,
) -> GradientTransformationExtraArgs:
    """Makes an optimiser schedule-free (Defazio et al., 2024, "The road less scheduled").

    The inner optimiser should have no momentum, which the average replaces. Evaluate with `schedule_free_eval_params`.

    Args:
        base_optimizer: the optimiser.
        learning_rate: its learning rate, which weighs the average.
        b1: where between z and the average the gradients are taken, 1 for at the average.
        weight_lr_power: the power of the greatest learning rate so far with which a step counts in the average.
        state_dtype: the dtype in which z is kept; the parameters' where it is None.

    Raises:
        ArgumentError: `b1` is not in (0, 1]; ``update`` was called without the parameters.

    >>> opt = ff.optim.schedule_free(ff.optim.sgd(1.0), 1.0, b1=0.5)
    >>> y = np.array([0.0])
    >>> state = opt.init(y)
    >>> for _ in range(3):
    ...     updates, state = opt.update(np.array([-1.0]), state, y)
    ...     y = ff.optim.apply_updates(y, updates)
    >>> state.z, ff.optim.schedule_free_eval_params(state, y), y  # 3, the mean of 1, 2 and 3, and half way between
    (array([3.]), array([2.]), array([2.5]))
    """
    if not is_tracer(b1) and not 0 < b1 <= 1:
        raise ArgumentError(f"schedule_free: b1 must be greater than 0 and at most 1, got {b1!r}")
    inner = with_extra_args_support(base_optimizer)

    @tiled
    def kernel(u: Any, y: Any, z: Any, b1: Any, c: Any) -> tuple[Any, Any]:
        x = (y - (1 - b1) * z) / b1
        z = z + u
        x = (1 - c) * x + c * z
        return b1 * x + (1 - b1) * z - y, z

    def init(params: Any) -> ScheduleFreeState:
        dtype = float_dtype(params)
        zero = [np.zeros((), dtype) for _ in range(2)]
        z = kept_as(copied(params), state_dtype)
        return ScheduleFreeState(_scalar(b1, dtype), zero[0], np.ones((), np.int32), zero[1], inner.init(params), z)

    def update(updates: Any, state: Any, params: Any = None, **extra_args: Any) -> tuple[Any, ScheduleFreeState]:
        need_params("schedule_free", updates, params)
        old = state_of(ScheduleFreeState, state, "schedule_free")
        dtype = old.max_lr.dtype
        rate = weak_at(learning_rate, old.step_count)
        greatest = np.maximum(old.max_lr, rate)
        weight = greatest**weight_lr_power
        total = old.weight_sum + weight
        share = np.where(total > 0, weight / np.where(total > 0, total, 1.0), 0.0)
        updates, inner_state = inner.update(updates, old.base_optimizer_state, params, **extra_args)
        trees = {"updates": updates, "params": params, "state.z": like(old.z, updates, state_dtype)}
        new, z = map_leaves("schedule_free", kernel, trees, b1, share, outputs=2)
        numbers = _scalar(total, dtype), safe_increment(old.step_count), _scalar(greatest, dtype)
        return new, ScheduleFreeState(old.b1, *numbers, inner_state, kept_as(z, state_dtype))

    return GradientTransformationExtraArgs(init, update)


def schedule_free_eval_params(state: Any, params: Any) -> Any:
    """The average of the parameters, for evaluation, of an optimiser with `schedule_free` in it.

    Args:
        state: the state, in which there may be other optimisers around `schedule_free`.
        params: the parameters that are trained.

    Raises:
        TreeError: there is no `schedule_free` in the state, or more than one.

    >>> opt, params = ff.optim.schedule_free_sgd(1.0), np.array([0.0])
    >>> updates, state = opt.update(np.array([-1.0]), opt.init(params), params)
    >>> ff.optim.schedule_free_eval_params(state, params + updates)
    array([1.])
    """

    def wanted(node: Any) -> bool:
        return type(node) is ScheduleFreeState

    found = [node for node in tree.leaves(state, is_leaf=wanted) if wanted(node)]
    if len(found) != 1:
        raise TreeError(
            f"schedule_free_eval_params: expected a state with one schedule_free in it, found {len(found)}; make the "
            "optimiser as schedule_free_adamw(1e-3)"
        )
    trees = {"params": params, "state.z": found[0].z}
    return map_leaves("schedule_free", lambda y, z, b: ((y - (1 - b) * z) / b,), trees, found[0].b1, outputs=1)[0]


def _warm(learning_rate: float, warmup_steps: int | None) -> ScalarOrSchedule:
    return learning_rate if warmup_steps is None else warmup_constant_schedule(0.0, learning_rate, warmup_steps)


def schedule_free_sgd(
    learning_rate: float = 1.0,
    warmup_steps: int | None = None,
    b1: float = 0.9,
    weight_decay: float | None = None,
    weight_lr_power: float = 2.0,
    state_dtype: Any = None,
) -> GradientTransformationExtraArgs:
    """Schedule-free descent (Defazio et al., 2024, "The road less scheduled").

    Args:
        learning_rate: a number.
        warmup_steps: in how many steps it is reached; None for none.
        b1: as in `schedule_free`.
        weight_decay: the factor of an L2 penalty; None for none.
        weight_lr_power: as in `schedule_free`.
        state_dtype: as in `schedule_free`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.schedule_free_sgd(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([0.5, -0.2]), state, params + updates)[0].round(4)
    (array([-0.05,  0.02]), array([-0.0275,  0.011 ]))
    """
    rate = _warm(learning_rate, warmup_steps)
    opt: GradientTransformation = sgd(rate)
    if weight_decay is not None:
        opt = chain(add_decayed_weights(weight_decay), opt)
    return schedule_free(opt, rate, b1, weight_lr_power, state_dtype)


def schedule_free_adamw(
    learning_rate: float = 0.0025,
    warmup_steps: int | None = None,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    weight_lr_power: float = 2.0,
    state_dtype: Any = None,
) -> GradientTransformationExtraArgs:
    """Schedule-free AdamW (Defazio et al., 2024, "The road less scheduled").

    Args:
        learning_rate: a number.
        warmup_steps: in how many steps it is reached; None for none.
        b1: as in `schedule_free`, in the place of momentum.
        b2: the decay of the mean squared gradient.
        eps: added to its root.
        weight_decay: the factor of the decay, which the learning rate scales too.
        weight_lr_power: as in `schedule_free`.
        state_dtype: as in `schedule_free`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.schedule_free_adamw(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([0.5, -0.2]), state, params + updates)[0].round(4)
    (array([-0.1,  0.1]), array([-0.055,  0.055]))
    """
    rate = _warm(learning_rate, warmup_steps)
    rule = scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True)
    opt = chain(rule, add_decayed_weights(weight_decay), scale_by_learning_rate(rate))
    return schedule_free(opt, rate, b1, weight_lr_power, state_dtype)
