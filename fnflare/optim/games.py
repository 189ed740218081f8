"""Optimism: gradients that look one step ahead, for games, in which plain descent circles.

Updates go in; updates and their last change come out, added up.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare.optim.adaptive import scale_by_adam
from fnflare.optim.base import GradientTransformation, ScalarOrSchedule, state_of
from fnflare.optim.combine import chain
from fnflare.optim.leaves import copied, filled, map_leaves
from fnflare.optim.transforms import scale_by_learning_rate

__all__ = ["ScaleByOptimisticGradientState", "optimistic_adam_v2", "scale_by_optimistic_gradient"]


class ScaleByOptimisticGradientState(NamedTuple):
    """``is_initial_step``: whether there was no update yet; ``previous_gradient``: the last gradient."""

    is_initial_step: Any
    previous_gradient: Any


def scale_by_optimistic_gradient(alpha: float = 1.0, beta: float = 1.0) -> GradientTransformation:
    """Adds to the gradient its change since the last step: ``alpha * g + beta * (g - last g)``.

    Mokhtari et al., 2020, "A unified analysis of extra-gradient and optimistic gradient methods for saddle point
    problems".

    Args:
        alpha: the factor of the gradient.
        beta: the factor of its change, which is 0 in the first step.

    >>> opt = ff.optim.scale_by_optimistic_gradient()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates, opt.update(np.array([3.5, -2.0]), state)[0]
    (array([ 3., -4.]), array([4., 0.]))
    """

    def kernel(g: Any, last: Any, alpha: Any, change: Any) -> tuple[Any]:
        return (alpha * g + change * (g - last),)

    def init(params: Any) -> ScaleByOptimisticGradientState:
        return ScaleByOptimisticGradientState(np.ones((), np.bool_), filled(params, 0.0))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ScaleByOptimisticGradientState]:
        first, last = state_of(ScaleByOptimisticGradientState, state, "scale_by_optimistic_gradient")
        trees = {"updates": updates, "state.previous_gradient": last}
        change = np.where(first, 0.0, beta)
        (ahead,) = map_leaves("scale_by_optimistic_gradient", kernel, trees, alpha, change, outputs=1)
        return ahead, ScaleByOptimisticGradientState(np.zeros((), np.bool_), copied(updates))

    return GradientTransformation(init, update)


def optimistic_adam_v2(
    learning_rate: ScalarOrSchedule,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    nesterov: bool = True,
) -> GradientTransformation:
    """Adam with optimism (Daskalakis et al., 2018, "Training GANs with optimism").

    Args:
        learning_rate: a number or a schedule.
        alpha: the factor of Adam's direction.
        beta: the factor of its change.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root of the mean square.
        eps_root: added under the root.
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        nesterov: as in `adam`.

    >>> opt, params = ff.optim.optimistic_adam_v2(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([0.5, 0.2]), state, params)[0].round(4)
    (array([-0.1474,  0.1474]), array([-0.0841, -0.2593]))
    """
    rule = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return chain(rule, scale_by_optimistic_gradient(alpha, beta), scale_by_learning_rate(learning_rate))
