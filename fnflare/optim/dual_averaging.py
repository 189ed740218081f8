"""MADGRAD: dual averaging, in which each step starts from the first parameters.

Gradients and parameters go in, updates come out; the state holds the first parameters and the sums of the gradients and
of their squares, weighted by growing step sizes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare.optim.base import (
    GradientTransformation,
    ScalarOrSchedule,
    need_params,
    safe_increment,
    state_of,
    zero_count,
)
from fnflare.optim.combine import chain
from fnflare.optim.leaves import abs_sq, check_decay, copied, filled, map_leaves, reject_complex, tiled, weak, weak_at
from fnflare.optim.transforms import add_decayed_weights

__all__ = ["MadgradState", "madgrad", "scale_by_madgrad"]


class MadgradState(NamedTuple):
    """``count``: updates made; ``grad_sum_sq``, ``s``: the weighted sums; ``x0``: the first parameters."""

    count: Any
    grad_sum_sq: Any
    s: Any
    x0: Any


def scale_by_madgrad(
    learning_rate: ScalarOrSchedule, momentum: float = 0.9, eps: float = 1e-6
) -> GradientTransformation:
    """MADGRAD's rule: from the first parameters along the sum of gradients, over the cube root of that of squares.

    Defazio & Jelassi, 2021, "Adaptivity without compromise: a momentumized, adaptive, dual averaged gradient method for
    stochastic optimization". What comes out is the update itself, downhill.

    Args:
        learning_rate: a number or a schedule.
        momentum: how much of the way the parameters stay behind, in [0, 1).
        eps: added to the cube root and to the learning rate.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.scale_by_madgrad(0.1), np.array([3.0, 4.0])
    >>> opt.update(np.array([0.5, -0.2]), opt.init(params), params)[0].round(4)
    array([-0.0171,  0.0126])
    """
    check_decay("scale_by_madgrad", momentum=momentum)

    @tiled
    def kernel(g: Any, p: Any, q: Any, s: Any, x0: Any, pace: Any, momentum: Any, eps: Any) -> tuple[Any, Any, Any]:
        q, s = q + pace * abs_sq(g), s + pace * g
        return (1 - momentum) * (x0 - s / (np.cbrt(q) + eps) - p), q, s

    def init(params: Any) -> MadgradState:
        return MadgradState(zero_count(), filled(params, 0.0), filled(params, 0.0), copied(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, MadgradState]:
        who = "scale_by_madgrad"
        need_params(who, updates, params)
        reject_complex(who, updates)
        old = state_of(MadgradState, state, who)
        rate = weak_at(learning_rate, old.count)
        trees = {"updates": updates, "params": params, "grad_sum_sq": old.grad_sum_sq, "s": old.s, "x0": old.x0}
        pace = (rate + eps) * (weak(old.count) + 1) ** 0.5
        new, squares, total = map_leaves(who, kernel, trees, pace, momentum, eps, outputs=3)
        return new, MadgradState(safe_increment(old.count), squares, total, old.x0)

    return GradientTransformation(init, update)


def madgrad(
    learning_rate: ScalarOrSchedule, momentum: float = 0.9, weight_decay: float = 0.0, eps: float = 1e-6
) -> GradientTransformation:
    """MADGRAD (Defazio & Jelassi, 2021, "Adaptivity without compromise").

    Args:
        learning_rate: a number or a schedule.
        momentum: how much of the way the parameters stay behind, in [0, 1).
        weight_decay: the factor of an L2 penalty.
        eps: added to the cube root and to the learning rate.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.madgrad(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([0.5, -0.2]), state, params + updates)[0].round(4)
    (array([-0.0171,  0.0126]), array([-0.0291,  0.0214]))
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))
