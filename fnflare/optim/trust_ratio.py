"""Optimisers by name whose update of an array is in proportion to the norm of its parameters.

Each is a chain of the building blocks, with optax's arguments and defaults. What they return is to be added, so the
learning rate comes in with a minus sign.
"""

from __future__ import annotations

from typing import Any

from fnflare.optim.adaptive import scale_by_adam, trace
from fnflare.optim.base import GradientTransformation, ScalarOrSchedule
from fnflare.optim.combine import Mask, chain, masked
from fnflare.optim.layerwise import scale_by_trust_ratio
from fnflare.optim.transforms import add_decayed_weights, scale_by_learning_rate

__all__ = ["fromage", "lamb", "lars"]


def lamb(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    """LAMB (You et al., 2020, "Large batch optimization for deep learning: training BERT in 76 minutes").

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root.
        eps_root: added under the root.
        weight_decay: the factor of the weight decay, or a schedule of it, which counts in the norm of the update.
        mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.lamb(0.1), {"w": np.array([3.0, 4.0])}
    >>> updates, state = opt.update({"w": np.array([0.5, -0.5])}, opt.init(params), params)
    >>> updates["w"].round(4)
    array([-0.3536,  0.3536])
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


def lars(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask = True,
    trust_coefficient: float = 0.001,
    eps: float = 0.0,
    trust_ratio_mask: Mask = True,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> GradientTransformation:
    """LARS (You et al., 2017, "Large batch training of convolutional networks").

    Args:
        learning_rate: a number or a schedule.
        weight_decay: the factor of the weight decay, or a schedule of it.
        weight_decay_mask: which parameters decay, as in `masked`; True for all.
        trust_coefficient: the norm of an array's update as a fraction of that of its parameters.
        eps: added to the norm of the gradient.
        trust_ratio_mask: which arrays are scaled so, as in `masked`; True for all. Biases and the scales of
            normalisations are usually left out of both.
        momentum: the decay of the sum of updates.
        nesterov: look one step ahead.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.lars(0.1), {"w": np.array([3.0, 4.0])}
    >>> updates, state = opt.update({"w": np.array([0.5, -0.5])}, opt.init(params), params)
    >>> updates["w"].round(4)
    array([-0.0004,  0.0004])
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps), trust_ratio_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )


def fromage(learning_rate: ScalarOrSchedule, min_norm: float = 1e-6) -> GradientTransformation:
    """Fromage (Bernstein et al., 2020, "On the distance between two neural networks and the stability of learning").

    A step of the size of the learning rate relative to the norm of each array, and a shrinking that keeps it from
    growing.

    Args:
        learning_rate: a number or a schedule.
        min_norm: a norm that is less counts as this.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.fromage(0.1), np.array([3.0, 4.0])
    >>> opt.update(np.array([0.3, -0.4]), opt.init(params), params)[0].round(4)
    array([-0.3134,  0.3782])
    """
    shrink: ScalarOrSchedule
    rate: ScalarOrSchedule
    if callable(learning_rate):
        schedule = learning_rate
        rate = lambda count: schedule(count) * _shrinking(schedule(count))  # noqa: E731
        shrink = lambda count: _shrinking(schedule(count)) - 1  # noqa: E731
    else:
        rate, shrink = learning_rate * _shrinking(learning_rate), _shrinking(learning_rate) - 1
    return chain(scale_by_trust_ratio(min_norm), scale_by_learning_rate(rate), add_decayed_weights(shrink))


def _shrinking(rate: Any) -> Any:
    return (1 + rate**2) ** -0.5
