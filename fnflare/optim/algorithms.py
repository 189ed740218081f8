"""The optimisers by name. Each is a chain of the building blocks, with optax's arguments and defaults.

All of them return the update to be added, so the learning rate comes in with a minus sign.
"""

from __future__ import annotations

from typing import Any

from fnflare.optim.adam_family import scale_by_amsgrad, scale_by_belief, scale_by_radam, scale_by_yogi
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
from fnflare.optim.averages import add_noise, ema
from fnflare.optim.base import GradientTransformation, ScalarOrSchedule, identity
from fnflare.optim.combine import Mask, chain, masked
from fnflare.optim.factored import scale_by_factored_rms
from fnflare.optim.layerwise import (
    clip_by_block_rms,
    scale_by_param_block_rms,
    scale_by_rprop,
    scale_by_sign,
    scale_by_trust_ratio,
)
from fnflare.optim.leaves import is_nonzero
from fnflare.optim.transforms import add_decayed_weights, descending, scale, scale_by_learning_rate

__all__ = [
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "amsgrad",
    "lamb",
    "lars",
    "lion",
    "nadam",
    "nadamw",
    "noisy_sgd",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
    "sign_sgd",
    "yogi",
]


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


def nadam(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    *,
    nesterov: bool = True,
) -> GradientTransformation:
    """Nadam (Dozat, 2016, "Incorporating Nesterov momentum into Adam"): `adam` that looks one step ahead.

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root of the mean square.
        eps_root: added under the root.
        nesterov: False is Adam.

    >>> import numpy as np
    >>> opt, params = nadam(0.1), {"w": np.array([3.0, 4.0])}
    >>> updates, state = opt.update({"w": np.array([0.5, -0.5])}, opt.init(params), params)
    >>> updates["w"].round(4)
    array([-0.1474,  0.1474])
    """
    return adam(learning_rate, b1, b2, eps, eps_root, nesterov=nesterov)


def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: float = 1e-4,
    mask: Mask | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformation:
    """Nadam with decoupled weight decay, as in `adamw`.

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root of the mean square.
        eps_root: added under the root.
        weight_decay: the factor of the decay.
        mask: which parameters decay, as in `masked`.
        nesterov: False is AdamW.

    Raises:
        ArgumentError: ``update`` was called without the parameters.
    """
    return adamw(learning_rate, b1, b2, eps, eps_root, weight_decay, mask, nesterov=nesterov)


def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-4,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Adamax with decoupled weight decay, as in `adamw`.

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        b1: the decay of the mean gradient.
        b2: the decay of the maximum of its size.
        eps: added to its size.
        weight_decay: the factor of the decay.
        mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.
    """
    decay = add_decayed_weights(weight_decay, mask)
    return chain(scale_by_adamax(b1, b2, eps), decay, scale_by_learning_rate(learning_rate))


def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    *,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> GradientTransformation:
    """AMSGrad (Reddi et al., 2018, "On the convergence of Adam and beyond").

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root.
        eps_root: added under the root.
        bias_correction_mu: whether the mean is corrected for its start.
        bias_correction_nu: whether the mean square is, before its maximum over the steps is taken.

    >>> import numpy as np
    >>> opt, params = amsgrad(0.1), {"w": np.array([3.0, 4.0])}
    >>> updates, state = opt.update({"w": np.array([0.5, -0.5])}, opt.init(params), params)
    >>> updates["w"].round(4)
    array([-0.1,  0.1])
    """
    rule = scale_by_amsgrad(
        b1, b2, eps, eps_root, bias_correction_mu=bias_correction_mu, bias_correction_nu=bias_correction_nu
    )
    return chain(rule, scale_by_learning_rate(learning_rate))


def radam(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Rectified Adam (Liu et al., 2020, "On the variance of the adaptive learning rate and beyond").

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root.
        eps_root: added under the root.
        threshold: the length of the average of squares from which on it is used.
        nesterov: look one step ahead along the mean gradient.

    >>> import numpy as np
    >>> opt, params = radam(0.1), {"w": np.array([3.0, 4.0])}
    >>> updates, state = opt.update({"w": np.array([0.5, -0.5])}, opt.init(params), params)
    >>> updates["w"].round(4)
    array([-0.05,  0.05])
    """
    rule = scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov)
    return chain(rule, scale_by_learning_rate(learning_rate))


def adabelief(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """AdaBelief (Zhuang et al., 2020, "Adapting stepsizes by the belief in observed gradients").

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared distance of gradients from it.
        eps: added to the root.
        eps_root: added to the mean squared distance at every step.
        nesterov: look one step ahead along the mean gradient.

    >>> import numpy as np
    >>> opt, params = adabelief(0.1), {"w": np.array([3.0, 4.0])}
    >>> updates, state = opt.update({"w": np.array([0.5, -0.5])}, opt.init(params), params)
    >>> updates["w"].round(4)
    array([-0.1111,  0.1111])
    """
    return chain(scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov), scale_by_learning_rate(learning_rate))


def yogi(
    learning_rate: ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3
) -> GradientTransformation:
    """Yogi (Zaheer et al., 2018, "Adaptive methods for nonconvex optimization").

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean gradient.
        b2: one minus the factor of the steps of the mean square.
        eps: added to the root.
    """
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))


def lamb(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-6,
    eps_root: float = 0.0,
    weight_decay: float = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    """LAMB (You et al., 2020, "Large batch optimization for deep learning: training BERT in 76 minutes").

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root.
        eps_root: added under the root.
        weight_decay: the factor of the weight decay, which counts in the norm of the update.
        mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> import numpy as np
    >>> opt, params = lamb(0.1), {"w": np.array([3.0, 4.0])}
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
    weight_decay: float = 0.0,
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
        weight_decay: the factor of the weight decay.
        weight_decay_mask: which parameters decay, as in `masked`; True for all.
        trust_coefficient: the norm of an array's update as a fraction of that of its parameters.
        eps: added to the norm of the gradient.
        trust_ratio_mask: which arrays are scaled so, as in `masked`; True for all. Biases and the scales of
            normalisations are usually left out of both.
        momentum: the decay of the sum of updates.
        nesterov: look one step ahead.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> import numpy as np
    >>> opt, params = lars(0.1), {"w": np.array([3.0, 4.0])}
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


def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float | None = 1.0,
    momentum: float | None = None,
    weight_decay_rate: float | None = None,
    eps: float = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask | None = None,
) -> GradientTransformation:
    """Adafactor (Shazeer & Stern, 2018, "Adaptive learning rates with sublinear memory cost").

    Args:
        learning_rate: a number or a schedule; None for 1.
        min_dim_size_to_factor: arrays are factored whose two largest axes are at least that long.
        decay_rate: the exponent of the decay of the mean square.
        decay_offset: the step at which its count begins.
        multiply_by_parameter_scale: whether updates are relative to the root mean square of the parameters.
        clipping_threshold: the greatest root mean square of an update; None for none.
        momentum: the decay of the mean update; None for no momentum.
        weight_decay_rate: the factor of the decoupled weight decay, which the learning rate does not scale.
        eps: added to the squared gradient.
        factored: False keeps every mean square in full.
        weight_decay_mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters, which the parameter scale and the weight decay
            need.
    """
    rules = [scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)]
    if clipping_threshold is not None:
        rules.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        rules.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        rules.append(scale_by_param_block_rms())
    if momentum is not None:
        rules.append(ema(momentum, debias=False))
    if weight_decay_rate is not None:
        rules.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*rules, scale(-1.0))


def rprop(
    learning_rate: float,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> GradientTransformation:
    """Rprop (Riedmiller & Braun, 1993), for full batches; it takes no step where a sign has changed.

    It agrees with PyTorch's; optax 0.2.8 returns each update one step late.

    Args:
        learning_rate: the step size to start from.
        eta_minus: the factor of a step size where the gradient's sign has changed.
        eta_plus: the factor where it has not.
        min_step_size: the least step size.
        max_step_size: the greatest.
    """
    return chain(scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size), scale(-1.0))


def sign_sgd(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    """Descent along the signs of the gradient (Bernstein et al., 2018, "signSGD").

    Args:
        learning_rate: a number or a schedule.
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


def noisy_sgd(
    learning_rate: ScalarOrSchedule, eta: float = 0.01, gamma: float = 0.55, key: Any = 0
) -> GradientTransformation:
    """Descent along gradients with noise (Neelakantan et al., 2015, "Adding gradient noise improves learning").

    Args:
        learning_rate: a number or a schedule.
        eta: the variance of the noise in the first step.
        gamma: the exponent of its decay.
        key: of `fnflare.random`, or a seed.
    """
    return chain(add_noise(eta, gamma, key), scale_by_learning_rate(learning_rate))
