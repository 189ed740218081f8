"""The optimisers by name. Each is a chain of the building blocks, with optax's arguments and defaults.

All of them return the update to be added, so the learning rate comes in with a minus sign.
"""

from __future__ import annotations

from fnflare.optim.adaptive import (
    scale_by_adadelta,
    scale_by_adam,
    scale_by_adamax,
    scale_by_lion,
    scale_by_rms,
    scale_by_rss,
    scale_by_stddev,
    trace,
)
from fnflare.optim.base import GradientTransformation, ScalarOrSchedule, identity
from fnflare.optim.combine import Mask, chain
from fnflare.optim.leaves import is_nonzero
from fnflare.optim.transforms import add_decayed_weights, descending, scale_by_learning_rate

__all__ = ["adadelta", "adagrad", "adam", "adamax", "adamw", "lion", "rmsprop", "sgd"]


def _momentum(momentum: float | None, nesterov: bool) -> GradientTransformation:
    return identity() if momentum is None else trace(momentum, nesterov)


def sgd(
    learning_rate: ScalarOrSchedule, momentum: float | None = None, nesterov: bool = False
) -> GradientTransformation:
    """Stochastic gradient descent, with momentum if wanted.

    Args:
        learning_rate: a number or a schedule.
        momentum: the decay of the sum of gradients, in [0, 1); None for plain descent.
        nesterov: look one step ahead; only with momentum.

    >>> import numpy as np
    >>> from fnflare.optim import apply_updates
    >>> opt = sgd(0.1)
    >>> params = {"w": np.array([1.0])}
    >>> updates, state = opt.update({"w": np.array([2.0])}, opt.init(params), params)
    >>> apply_updates(params, updates)
    {'w': array([0.8])}
    """
    return chain(_momentum(momentum, nesterov), scale_by_learning_rate(learning_rate))


def adadelta(
    learning_rate: ScalarOrSchedule = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    weight_decay_mask: Mask | None = None,
) -> GradientTransformation:
    """Adadelta (Zeiler, 2012, "ADADELTA: an adaptive learning rate method").

    Args:
        learning_rate: a number or a schedule; 1 as in the paper. (optax's default is None, which leaves the
            sign of the updates as it is, so that they climb.)
        rho: the decay of the mean squares.
        eps: added under the roots.
        weight_decay: the factor of an L2 penalty; a positive one makes ``update`` need the parameters.
        weight_decay_mask: which parameters it applies to, as in `masked`.
    """
    penalty = add_decayed_weights(weight_decay, weight_decay_mask) if is_nonzero(weight_decay) else identity()
    return chain(penalty, scale_by_adadelta(rho, eps), scale_by_learning_rate(learning_rate))


def adagrad(
    learning_rate: ScalarOrSchedule, initial_accumulator_value: float = 0.1, eps: float = 1e-7
) -> GradientTransformation:
    """Adagrad (Duchi et al., 2011, "Adaptive subgradient methods for online learning").

    Args:
        learning_rate: a number or a schedule.
        initial_accumulator_value: the sum of squared gradients to start from.
        eps: added to that sum.
    """
    return chain(scale_by_rss(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate))


def rmsprop(
    learning_rate: ScalarOrSchedule,
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: float | None = None,
    nesterov: bool = False,
) -> GradientTransformation:
    """RMSProp (Tieleman & Hinton, 2012), centred (Graves, 2013) and with momentum if wanted.

    Args:
        learning_rate: a number or a schedule.
        decay: the decay of the mean squared gradient.
        eps: added to it, or to its root.
        initial_scale: the mean squared gradient to start from.
        eps_in_sqrt: False adds `eps` to the root, as PyTorch does.
        centered: divide by the standard deviation instead.
        momentum: the decay of the sum of updates, in [0, 1); None for no momentum.
        nesterov: look one step ahead; only with momentum.
    """
    rule = scale_by_stddev if centered else scale_by_rms
    return chain(
        rule(decay, eps, initial_scale, eps_in_sqrt),
        scale_by_learning_rate(learning_rate),
        _momentum(momentum, nesterov),
    )


def adam(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam (Kingma & Ba, 2015, "Adam: a method for stochastic optimization").

    The state is one `ScaleByAdamState`, since the learning rate is folded into the rule.

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root of the mean square.
        eps_root: added under the root; use a positive one to differentiate through the optimiser.
        nesterov: Nadam (Dozat, 2016, "Incorporating Nesterov momentum into Adam").

    >>> import numpy as np
    >>> opt = adam(1e-3)
    >>> params = {"w": np.float32([1.0])}
    >>> updates, state = opt.update({"w": np.float32([5.0])}, opt.init(params))
    >>> updates
    {'w': array([-0.001], dtype=float32)}
    """
    return scale_by_adam(b1, b2, eps, eps_root, nesterov=nesterov, step_size=descending(learning_rate))


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: float = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019, "Decoupled weight decay regularization").

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root of the mean square.
        eps_root: added under the root.
        weight_decay: the factor of the decay.
        mask: which parameters decay, as in `masked`: ``mask_by_path("*/W")`` leaves the biases out.
        nesterov: as in `adam`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def adamax(
    learning_rate: ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> GradientTransformation:
    """Adamax (Kingma & Ba, 2015, section 7.1).

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean gradient.
        b2: the decay of the maximum of its size.
        eps: added to its size.
    """
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


def lion(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.99,
    weight_decay: float = 1e-3,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Lion (Chen et al., 2023, "Symbolic discovery of optimization algorithms").

    The updates have the size of the learning rate, so it wants to be some 3 to 10 times smaller than Adam's.

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        b1: the share of the mean gradient in the direction.
        b2: the decay of the mean gradient.
        weight_decay: the factor of the decoupled weight decay.
        mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.
    """
    return chain(scale_by_lion(b1, b2), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))
