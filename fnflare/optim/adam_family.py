"""Relatives of Adam: other second moments, and other corrections for the start.

Each is a kernel on one leaf as in `fnflare.optim.adaptive`: the gradient, the moments and the hyperparameters go in,
the update and the new moments come out. The corrections for the start are scalars, computed once for all leaves.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare.core import is_tracer
from fnflare.errors import ArgumentError
from fnflare.optim.adaptive import ScaleByAdamState
from fnflare.optim.base import GradientTransformation
from fnflare.optim.leaves import abs_sq, check_decay, is_nonzero, tiled, weak
from fnflare.optim.moments import counted_rule

__all__ = [
    "ScaleByAmsgradState",
    "ScaleByBeliefState",
    "scale_by_acprop",
    "scale_by_amsgrad",
    "scale_by_belief",
    "scale_by_radam",
    "scale_by_yogi",
]


def _first(b1: Any, t: Any, nesterov: bool) -> tuple[Any, Any]:
    """The factors of the mean gradient and of the gradient in the mean that is corrected for its start."""
    if nesterov:
        return b1 / (1 - b1 ** (t + 1)), (1 - b1) / (1 - b1**t)
    return 1 / (1 - b1**t), 0.0


def _mix(mean: Any, ahead: Any, mu: Any, g: Any, nesterov: bool) -> Any:
    return mean * mu + ahead * g if nesterov else mean * mu


class ScaleByAmsgradState(NamedTuple):
    """``count``: updates made; ``mu``, ``nu``: the moments; ``nu_max``: the greatest second moment so far."""

    count: Any
    mu: Any
    nu: Any
    nu_max: Any


def scale_by_amsgrad(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool = True,
) -> GradientTransformation:
    """AMSGrad's rule: Adam with the greatest mean square so far, so that step sizes do not grow again.

    Reddi et al., 2018, "On the convergence of Adam and beyond".

    Args:
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root.
        eps_root: added under the root.
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        bias_correction_mu: whether the mean is corrected for its start; the paper does not.
        bias_correction_nu: whether the mean square is, before the maximum is taken; the paper does not.

    >>> opt = ff.optim.scale_by_amsgrad()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 1., -1.]), array([1.    , 0.0526]))
    """
    check_decay("scale_by_amsgrad", b1=b1, b2=b2)

    @tiled
    def kernel(
        g: Any, mu: Any, nu: Any, top: Any, b1: Any, b2: Any, eps: Any, root: Any, c1: Any, c2: Any
    ) -> tuple[Any, Any, Any, Any]:
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        top = np.maximum(top, c2 * nu)
        return c1 * mu / (np.sqrt(top + root) + eps), mu, nu, top

    def hyper(count: Any) -> tuple[Any, ...]:
        t = weak(count) + 1
        c1 = 1 / (1 - b1**t) if bias_correction_mu else 1.0
        c2 = 1 / (1 - b2**t) if bias_correction_nu else 1.0
        return b1, b2, eps, eps_root, c1, c2

    return counted_rule("scale_by_amsgrad", kernel, ScaleByAmsgradState, hyper, dtypes={"mu": mu_dtype})


def scale_by_radam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    threshold: float = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """RAdam's rule: Adam that is only momentum until its mean square has been averaged over enough steps.

    Liu et al., 2020, "On the variance of the adaptive learning rate and beyond". The state is Adam's.

    Args:
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared gradient.
        eps: added to the root.
        eps_root: added under the root.
        threshold: the length of the average from which on it is used, more than 4.
        nesterov: look one step ahead along the mean gradient.

    >>> opt = ff.optim.scale_by_radam()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 3., -4.]), array([3.    , 0.2105]))
    """
    check_decay("scale_by_radam", b1=b1, b2=b2)
    if not is_tracer(threshold) and threshold <= 4:
        raise ArgumentError(f"scale_by_radam: threshold must be greater than 4, got {threshold!r}")
    rooted = is_nonzero(eps_root)

    @tiled
    def kernel(
        g: Any, mu: Any, nu: Any, b1: Any, b2: Any, eps: Any, root: Any, mean: Any, ahead: Any, c2: Any, r: Any
    ) -> tuple[Any, Any, Any]:
        mu = b1 * mu + (1 - b1) * g
        nu = b2 * nu + (1 - b2) * abs_sq(g)
        direction = _mix(mean, ahead, mu, g, nesterov)
        size = np.sqrt(c2 * nu + root if rooted else c2 * nu) + eps
        return np.where(r > 0, r * direction / size, direction), mu, nu

    longest = 2 / (1 - b2) - 1

    def hyper(count: Any) -> tuple[Any, ...]:
        t = weak(count) + 1
        # Section 5 of the paper: rho_t, the length of the average, and r_t, the factor of the step; 0 for none.
        decayed = b2**t
        length = longest - 2 * t * decayed / (1 - decayed)
        used = length >= threshold
        safe = np.where(used, length, 5.0)
        r = ((safe - 4) * (safe - 2) * longest / ((longest - 4) * (longest - 2) * safe)) ** 0.5
        return b1, b2, eps, eps_root, *_first(b1, t, nesterov), 1 / (1 - decayed), np.where(used, r, 0.0)

    return counted_rule("scale_by_radam", kernel, ScaleByAdamState, hyper)


class ScaleByBeliefState(NamedTuple):
    """``count``: updates made; ``mu``: the mean gradient; ``nu``: the mean squared distance of gradients from it."""

    count: Any
    mu: Any
    nu: Any


def scale_by_belief(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-16, eps_root: float = 1e-16, *, nesterov: bool = False
) -> GradientTransformation:
    """AdaBelief's rule: the mean gradient over the root of the mean squared distance of gradients from it.

    Zhuang et al., 2020, "AdaBelief optimizer: adapting stepsizes by the belief in observed gradients".

    Args:
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared distance.
        eps: added to the root.
        eps_root: added to the mean squared distance at every step, as in the paper.
        nesterov: look one step ahead along the mean gradient.

    >>> opt = ff.optim.scale_by_belief()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 1.1111, -1.1111]), array([1.168 , 0.0556]))
    """
    check_decay("scale_by_belief", b1=b1, b2=b2)

    @tiled
    def kernel(
        g: Any, mu: Any, nu: Any, b1: Any, b2: Any, eps: Any, root: Any, mean: Any, ahead: Any, c2: Any
    ) -> tuple[Any, Any, Any]:
        mu = b1 * mu + (1 - b1) * g
        off = g - mu
        nu = b2 * nu + (1 - b2) * abs_sq(off) + root
        return _mix(mean, ahead, mu, g, nesterov) / (np.sqrt(c2 * nu) + eps), mu, nu

    def hyper(count: Any) -> tuple[Any, ...]:
        t = weak(count) + 1
        return b1, b2, eps, eps_root, *_first(b1, t, nesterov), 1 / (1 - b2**t)

    return counted_rule("scale_by_belief", kernel, ScaleByBeliefState, hyper)


def scale_by_yogi(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-3,
    eps_root: float = 0.0,
    initial_accumulator_value: float = 1e-6,
) -> GradientTransformation:
    """Yogi's rule: Adam whose mean square moves towards the squared gradient by steps of that square's size.

    Zaheer et al., 2018, "Adaptive methods for nonconvex optimization". The state is Adam's.

    Args:
        b1: the decay of the mean gradient.
        b2: one minus the factor of the steps of the mean square.
        eps: added to the root.
        eps_root: added under the root.
        initial_accumulator_value: both moments to start from.

    >>> opt = ff.optim.scale_by_yogi()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 0.9996, -0.9997]), array([0.9994, 0.0526]))
    """
    check_decay("scale_by_yogi", b1=b1, b2=b2)

    @tiled
    def kernel(
        g: Any, mu: Any, nu: Any, b1: Any, b2: Any, eps: Any, root: Any, c1: Any, c2: Any
    ) -> tuple[Any, Any, Any]:
        mu = b1 * mu + (1 - b1) * g
        square = abs_sq(g)
        nu = nu - (1 - b2) * np.sign(nu - square) * square
        return c1 * mu / (np.sqrt(c2 * nu + root) + eps), mu, nu

    def hyper(count: Any) -> tuple[Any, ...]:
        t = weak(count) + 1
        return b1, b2, eps, eps_root, 1 / (1 - b1**t), 1 / (1 - b2**t)

    return counted_rule("scale_by_yogi", kernel, ScaleByAdamState, hyper, start=initial_accumulator_value)


def scale_by_acprop(
    b1: float = 0.9, b2: float = 0.999, eps: float = 1e-16, eps_root: float = 1e-16
) -> GradientTransformation:
    """ACProp's rule: the gradient over the root of the mean squared distance of those before it from their mean.

    Zhuang et al., 2021, "Momentum centering and asynchronous update for adaptive gradient methods". The state is
    AdaBelief's; the first update is the gradient.

    Args:
        b1: the decay of the mean gradient.
        b2: the decay of the mean squared distance.
        eps: added to the root.
        eps_root: added to the mean squared distance at every step.

    >>> opt = ff.optim.scale_by_acprop()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates, opt.update(np.array([3.0, 4.0]), state)[0]
    (array([ 3., -4.]), array([1., 1.]))
    """
    check_decay("scale_by_acprop", b1=b1, b2=b2)

    @tiled
    def kernel(
        g: Any, mu: Any, nu: Any, b1: Any, b2: Any, eps: Any, root: Any, c2: Any, first: Any
    ) -> tuple[Any, Any, Any]:
        update = g / (np.sqrt(c2 * nu + first) + eps)
        nu = b2 * nu + (1 - b2) * abs_sq(g - mu) + root
        return update, b1 * mu + (1 - b1) * g, nu

    def hyper(count: Any) -> tuple[Any, ...]:
        first = count == 0
        correction = 1 - b2 ** np.maximum(weak(count), 1.0)
        return b1, b2, eps, eps_root, np.where(first, 0.0, 1 / correction), np.where(first, 1.0, 0.0)

    return counted_rule("scale_by_acprop", kernel, ScaleByBeliefState, hyper)
