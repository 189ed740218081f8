"""Adam and its relatives by name: the mean gradient over the root of a second moment.

Each is a chain of the building blocks, with optax's arguments and defaults. What they return is to be added, so the
learning rate comes in with a minus sign.
"""

from __future__ import annotations

from typing import Any

from fnflare.optim.adam_family import scale_by_acprop, scale_by_amsgrad, scale_by_belief, scale_by_radam, scale_by_yogi
from fnflare.optim.adaptive import scale_by_adam, scale_by_adamax
from fnflare.optim.base import GradientTransformation, ScalarOrSchedule, with_extra_args_support
from fnflare.optim.combine import Mask, chain
from fnflare.optim.transforms import add_decayed_weights, descending, scale_by_learning_rate

__all__ = ["acprop", "adabelief", "adam", "adamax", "adamaxw", "adamw", "amsgrad", "nadam", "nadamw", "radam", "yogi"]


def adam(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
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
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        nesterov: Nadam (Dozat, 2016, "Incorporating Nesterov momentum into Adam").

    >>> opt = ff.optim.adam(1e-3)
    >>> params = {"w": np.float32([1.0])}
    >>> updates, state = opt.update({"w": np.float32([5.0])}, opt.init(params))
    >>> updates
    {'w': array([-0.001], dtype=float32)}
    """
    rule = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, step_size=descending(learning_rate))
    return with_extra_args_support(rule)


def adamw(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule = 1e-4,
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
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        weight_decay: the factor of the decay, or a schedule of it.
        mask: which parameters decay, as in `masked`: ``mask_by_path("*/W")`` leaves the biases out.
        nesterov: as in `adam`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.adamw(0.1, weight_decay=0.5), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4)
    array([-0.25, -0.1 ])
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def nadam(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
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
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        nesterov: False is Adam.

    >>> opt, params = ff.optim.nadam(0.1), {"w": np.array([3.0, 4.0])}
    >>> updates, state = opt.update({"w": np.array([0.5, -0.5])}, opt.init(params), params)
    >>> updates["w"].round(4)
    array([-0.1474,  0.1474])
    """
    return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)


def nadamw(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule = 1e-4,
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
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        weight_decay: the factor of the decay, or a schedule of it.
        mask: which parameters decay, as in `masked`.
        nesterov: False is AdamW.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.nadamw(0.1, weight_decay=0.5), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4)
    array([-0.2974, -0.0526])
    """
    return adamw(learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov=nesterov)


def adamax(
    learning_rate: ScalarOrSchedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> GradientTransformation:
    """Adamax (Kingma & Ba, 2015, section 7.1).

    Args:
        learning_rate: a number or a schedule.
        b1: the decay of the mean gradient.
        b2: the decay of the maximum of its size.
        eps: added to its size.

    >>> opt, params = ff.optim.adamax(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([0.5, 0.2]), state, params)[0].round(4)
    (array([-0.1,  0.1]), array([-0.1   , -0.0053]))
    """
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


def adamaxw(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: ScalarOrSchedule = 1e-4,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Adamax with decoupled weight decay, as in `adamw`.

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        b1: the decay of the mean gradient.
        b2: the decay of the maximum of its size.
        eps: added to its size.
        weight_decay: the factor of the decay, or a schedule of it.
        mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.adamaxw(0.1, weight_decay=0.5), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4)
    array([-0.25, -0.1 ])
    """
    decay = add_decayed_weights(weight_decay, mask)
    return chain(scale_by_adamax(b1, b2, eps), decay, scale_by_learning_rate(learning_rate))


def amsgrad(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
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
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        bias_correction_mu: whether the mean is corrected for its start.
        bias_correction_nu: whether the mean square is, before its maximum over the steps is taken.

    >>> opt, params = ff.optim.amsgrad(0.1), {"w": np.array([3.0, 4.0])}
    >>> updates, state = opt.update({"w": np.array([0.5, -0.5])}, opt.init(params), params)
    >>> updates["w"].round(4)
    array([-0.1,  0.1])
    """
    rule = scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu)
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

    >>> opt, params = ff.optim.radam(0.1), {"w": np.array([3.0, 4.0])}
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

    >>> opt, params = ff.optim.adabelief(0.1), {"w": np.array([3.0, 4.0])}
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

    >>> opt, params = ff.optim.yogi(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([0.5, 0.2]), state, params)[0].round(4)
    (array([-0.0996,  0.0983]), array([-0.0997, -0.0052]))
    """
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))


def acprop(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-16,
    eps_root: float = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    mask: Mask | None = None,
) -> GradientTransformation:
    """ACProp (Zhuang et al., 2021, "Momentum centering and asynchronous update for adaptive gradient methods").

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared distance of gradients from it.
        eps: added to the root.
        eps_root: added to the mean squared distance at every step.
        weight_decay: the factor of the decay, or a schedule of it.
        mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.acprop(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates, opt.update(np.array([0.5, -0.2]), state, params)[0]
    (array([-0.05,  0.02]), array([-0.1,  0.1]))
    """
    rule = scale_by_acprop(b1, b2, eps, eps_root)
    return chain(rule, add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))
