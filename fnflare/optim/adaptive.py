"""Update rules that give every parameter a step size of its own, from the history of its gradient.

Each rule is a kernel on one leaf, written as in its paper: it takes the gradient, the moments and the
hyperparameters, and returns the update and the new moments. The moments have the parameters' shapes and dtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare.core import is_tracer
from fnflare.errors import ArgumentError
from fnflare.optim.base import GradientTransformation, ScalarOrSchedule, identity
from fnflare.optim.leaves import abs_sq, check_decay, is_nonzero, tiled, weak, weak_at
from fnflare.optim.moments import counted_rule, rule

__all__ = [
    "ScaleByAdaDeltaState",
    "ScaleByAdamState",
    "ScaleByLionState",
    "ScaleByRStdDevState",
    "ScaleByRStdDevWithCountState",
    "ScaleByRmsState",
    "ScaleByRmsWithCountState",
    "ScaleByRssState",
    "TraceState",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_lion",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_stddev",
    "trace",
]


class TraceState(NamedTuple):
    """``trace``: the decaying sum of the updates so far."""

    trace: Any


def trace(decay: float, nesterov: bool = False, accumulator_dtype: Any = None) -> GradientTransformation:
    """Momentum: replaces the updates by the decaying sum of all updates so far.

    The sum is ``t = g + decay * t``, not an average; with `nesterov` the update is ``g + decay * t``, one
    step further along it (Sutskever et al., 2013, "On the importance of initialization and momentum in deep
    learning").

    Args:
        decay: the share of the old sum that is kept, in [0, 1).
        nesterov: look ahead.
        accumulator_dtype: the dtype in which the sum is kept; the parameters' where it is None.

    >>> opt = ff.optim.trace(0.9)
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 3., -4.]), array([5.7, 0.4]))
    """
    check_decay("trace", decay=decay)

    @tiled
    def kernel(g: Any, t: Any, decay: Any) -> tuple[Any, Any]:
        t = g + decay * t
        return (g + decay * t if nesterov else t), t

    return rule("trace", kernel, TraceState, decay, dtypes={"trace": accumulator_dtype})


def optional_trace(momentum: float | None, nesterov: bool, accumulator_dtype: Any = None) -> GradientTransformation:
    """`trace`, or nothing where there is no momentum."""
    return identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)


class ScaleByAdamState(NamedTuple):
    """``count``: updates made, an int32 scalar; ``mu`` and ``nu``: the first and the second moment."""

    count: Any
    mu: Any
    nu: Any


def _times(a: Any, x: Any, out: Any) -> Any:
    """``a * x``, written into `out` where there is one."""
    return a * x if out is None else np.multiply(x, a, out=out)


def _squared(g: Any, out: Any) -> Any:
    """The squared sizes of the elements, written into `out` where there is one and they have its dtype."""
    return abs_sq(g) if out is None or g.dtype.kind == "c" else np.multiply(g, g, out=out)


def _minus(a: Any, b: Any, out: Any) -> Any:
    """``a - b``, written into `out` where there is one."""
    return a - b if out is None else np.subtract(a, b, out=out)


def _plus(fresh: Any, x: Any) -> Any:
    """``fresh + x``, in the memory of `fresh`, which nobody else holds, unless one of them is traced."""
    if type(fresh) is np.ndarray and not is_tracer(x):
        fresh += x
        return fresh
    return fresh + x


def _scaled(fresh: Any, a: Any) -> Any:
    """``fresh * a``, in the memory of `fresh`, which nobody else holds, unless one of them is traced."""
    if type(fresh) is np.ndarray and not is_tracer(a):
        fresh *= a
        return fresh
    return fresh * a


def scale_by_adam(
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    step_size: ScalarOrSchedule = 1.0,
) -> GradientTransformation:
    """Adam's rule: the mean gradient over the root of the mean squared gradient, both corrected for their start.

    Kingma & Ba, 2015, "Adam: a method for stochastic optimization"; with `nesterov` Dozat, 2016,
    "Incorporating Nesterov momentum into Adam".

    Args:
        b1: the decay of the first moment.
        b2: the decay of the second moment.
        eps: added to the root, so that a gradient of zero does not divide by zero.
        eps_root: added under the root; a small positive one keeps the rule differentiable at a gradient of zero.
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        nesterov: look one step ahead along the first moment.
        step_size: a factor or a schedule of one, which costs nothing here; optax only has it as a
            transformation of its own.

    >>> opt = ff.optim.scale_by_adam()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 1., -1.]), array([1.    , 0.0526]))
    """
    check_decay("scale_by_adam", b1=b1, b2=b2)
    rooted = is_nonzero(eps_root)

    # The most used rule makes the fewest passes over memory: `_plus` and `_scaled` work in place on arrays that
    # are made here, and ``out`` is where the results belong in a large array, or Nones.
    @tiled
    def kernel(
        g: Any,
        mu: Any,
        nu: Any,
        b1: Any,
        b2: Any,
        step: Any,
        ahead: Any,
        eps: Any,
        eps_root: Any,
        out: Any = (None, None, None),
    ) -> tuple[Any, Any, Any]:
        # b m + (1 - b) g as m + (1 - b) (g - m), which needs no other array than the result.
        mu = _plus(_scaled(_minus(g, mu, out[1]), 1 - b1), mu)
        nu = _plus(_scaled(_minus(_squared(g, out[2]), nu, out[2]), 1 - b2), nu)
        size = _plus(np.sqrt(nu + eps_root if rooted else nu), eps)
        direction = step * mu + ahead * g if nesterov else _times(step, mu, out[0])
        return direction / size if out[0] is None else np.divide(direction, size, out=out[0]), mu, nu

    def hyper(count: Any) -> tuple[Any, ...]:
        # The corrections go into the scalars (section 2 of the paper): with r = sqrt(1 - b2^t),
        # m / (sqrt(v / r^2 + eps_root) + eps) = r m / (sqrt(v + r^2 eps_root) + r eps).
        t = weak(count) + 1
        r = (1 - b2**t) ** 0.5
        step = r * weak_at(step_size, count)
        if nesterov:
            step, ahead = step * b1 / (1 - b1 ** (t + 1)), step * (1 - b1) / (1 - b1**t)
        else:
            step, ahead = step / (1 - b1**t), 0.0
        return b1, b2, step, ahead, r * eps, r * r * eps_root

    return counted_rule("scale_by_adam", kernel, ScaleByAdamState, hyper, dtypes={"mu": mu_dtype})


def scale_by_adamax(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> GradientTransformation:
    """Adamax's rule: the mean gradient over the decaying maximum of its size.

    Kingma & Ba, 2015, section 7.1. The state is a `ScaleByAdamState` whose ``nu`` is the maximum.

    Args:
        b1: the decay of the mean.
        b2: the decay of the maximum.
        eps: added to the size of the gradient.

    >>> opt = ff.optim.scale_by_adamax()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 1., -1.]), array([1.    , 0.0526]))
    """
    check_decay("scale_by_adamax", b1=b1, b2=b2)

    @tiled
    def kernel(g: Any, mu: Any, nu: Any, b1: Any, b2: Any, eps: Any, correction: Any) -> tuple[Any, Any, Any]:
        mu = b1 * mu + (1 - b1) * g
        nu = np.maximum(b2 * nu, np.abs(g) + eps)
        return correction * mu / nu, mu, nu

    def hyper(count: Any) -> tuple[Any, ...]:
        return b1, b2, eps, 1 / (1 - b1 ** (weak(count) + 1))

    return counted_rule("scale_by_adamax", kernel, ScaleByAdamState, hyper)


class ScaleByRmsState(NamedTuple):
    """``nu``: the mean squared gradient."""

    nu: Any


class ScaleByRmsWithCountState(NamedTuple):
    """``count``: updates made, an int32 scalar; ``nu``: the mean squared gradient."""

    count: Any
    nu: Any


def scale_by_rms(
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """RMSProp's rule: the gradient over the root of its mean square.

    Tieleman & Hinton, 2012, "Neural networks for machine learning", lecture 6e.

    Args:
        decay: the decay of the mean square.
        eps: added to the mean square, or to its root.
        initial_scale: the mean square to start from.
        eps_in_sqrt: False adds `eps` to the root, as PyTorch does.
        bias_correction: whether the averages are corrected for their start, as in Adam.

    >>> opt = ff.optim.scale_by_rms(decay=0.9)
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 3.1623, -3.1623]), array([2.2942, 2.2942]))
    """
    check_decay("scale_by_rms", decay=decay)

    @tiled
    def kernel(g: Any, nu: Any, decay: Any, eps: Any, c: Any) -> tuple[Any, Any]:
        nu = decay * nu + (1 - decay) * abs_sq(g)
        mean = c * nu if bias_correction else nu
        return g / (np.sqrt(mean + eps) if eps_in_sqrt else np.sqrt(mean) + eps), nu

    kind = ScaleByRmsWithCountState if bias_correction else ScaleByRmsState
    hyper = _corrected(bias_correction, decay, eps)
    return counted_rule("scale_by_rms", kernel, kind, hyper, start={"nu": initial_scale})


def _corrected(bias_correction: bool, decay: float, eps: float) -> Callable[[Any], tuple[Any, ...]]:
    """The hyperparameters of RMSProp's rules: the last is what corrects an average for its start."""
    return lambda count: (decay, eps, 1 / (1 - decay ** (weak(count) + 1)) if bias_correction else 1.0)


class ScaleByRStdDevState(NamedTuple):
    """``mu``: the mean gradient; ``nu``: the mean squared gradient."""

    mu: Any
    nu: Any


class ScaleByRStdDevWithCountState(NamedTuple):
    """``count``: updates made, an int32 scalar; ``mu``: the mean gradient; ``nu``: the mean squared gradient."""

    count: Any
    mu: Any
    nu: Any


def scale_by_stddev(
    decay: float = 0.9,
    eps: float = 1e-8,
    initial_scale: float = 0.0,
    eps_in_sqrt: bool = True,
    bias_correction: bool = False,
) -> GradientTransformation:
    """Centred RMSProp's rule: the gradient over its standard deviation.

    Graves, 2013, "Generating sequences with recurrent neural networks". A variance that rounding made
    negative counts as zero.

    Args:
        decay: the decay of both means.
        eps: added to the variance, or to its root.
        initial_scale: the mean square to start from.
        eps_in_sqrt: False adds `eps` to the root, as PyTorch does.
        bias_correction: whether the averages are corrected for their start, as in Adam.

    >>> opt = ff.optim.scale_by_stddev(decay=0.9)
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 3.3333, -3.3333]), array([2.5491, 2.2948]))
    """
    check_decay("scale_by_stddev", decay=decay)

    @tiled
    def kernel(g: Any, mu: Any, nu: Any, decay: Any, eps: Any, c: Any) -> tuple[Any, Any, Any]:
        mu = decay * mu + (1 - decay) * g
        nu = decay * nu + (1 - decay) * abs_sq(g)
        mean, square = (c * mu, c * nu) if bias_correction else (mu, nu)
        variance = np.maximum(square - abs_sq(mean), 0.0)
        return g / (np.sqrt(variance + eps) if eps_in_sqrt else np.sqrt(variance) + eps), mu, nu

    kind = ScaleByRStdDevWithCountState if bias_correction else ScaleByRStdDevState
    hyper = _corrected(bias_correction, decay, eps)
    return counted_rule("scale_by_stddev", kernel, kind, hyper, start={"nu": initial_scale})


class ScaleByRssState(NamedTuple):
    """``sum_of_squares``: the sum of all squared gradients so far."""

    sum_of_squares: Any


def scale_by_rss(initial_accumulator_value: float = 0.1, eps: float = 1e-7) -> GradientTransformation:
    """Adagrad's rule: the gradient over the root of the sum of all its squares.

    Duchi et al., 2011, "Adaptive subgradient methods for online learning and stochastic optimization".

    Args:
        initial_accumulator_value: the sum to start from.
        eps: added to the sum.

    >>> opt = ff.optim.scale_by_rss(0.0)
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 1., -1.]), array([0.7071, 0.7071]))
    """
    known = not (is_tracer(initial_accumulator_value) or is_tracer(eps))
    if known and (initial_accumulator_value < 0 or eps < 0 or initial_accumulator_value + eps == 0):
        raise ArgumentError(
            "scale_by_rss: initial_accumulator_value and eps must not be negative, and one of them must be positive, "
            f"got {initial_accumulator_value!r} and {eps!r}"
        )

    @tiled
    def kernel(g: Any, total: Any, eps: Any) -> tuple[Any, Any]:
        total = total + abs_sq(g)
        return g / np.sqrt(total + eps), total

    return rule("scale_by_rss", kernel, ScaleByRssState, eps, start=initial_accumulator_value)


class ScaleByAdaDeltaState(NamedTuple):
    """``e_g``: the mean squared gradient; ``e_x``: the mean squared update."""

    e_g: Any
    e_x: Any


def scale_by_adadelta(rho: float = 0.9, eps: float = 1e-6) -> GradientTransformation:
    """Adadelta's rule: the gradient over its root mean square, times that of the updates so far.

    Zeiler, 2012, "ADADELTA: an adaptive learning rate method".

    Args:
        rho: the decay of both means.
        eps: added under both roots; it sets the size of the first steps.

    >>> opt = ff.optim.scale_by_adadelta()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 0.0032, -0.0032]), array([0.0032, 0.0032]))
    """
    check_decay("scale_by_adadelta", rho=rho)

    @tiled
    def kernel(g: Any, e_g: Any, e_x: Any, rho: Any, eps: Any) -> tuple[Any, Any, Any]:
        e_g = rho * e_g + (1 - rho) * abs_sq(g)
        delta = np.sqrt((e_x + eps) / (e_g + eps)) * g
        e_x = rho * e_x + (1 - rho) * abs_sq(delta)
        return delta, e_g, e_x

    return rule("scale_by_adadelta", kernel, ScaleByAdaDeltaState, rho, eps)


class ScaleByLionState(NamedTuple):
    """``mu``: the mean gradient."""

    mu: Any


def scale_by_lion(
    b1: float = 0.9,
    b2: float = 0.99,
    mu_dtype: Any = None,
    *,
    mode: str = "hard",
    smooth_beta: float = 1.0,
) -> GradientTransformation:
    """Lion's rule: the sign of a mix of the gradient and its mean.

    Chen et al., 2023, "Symbolic discovery of optimization algorithms". Unlike optax's, the state has no step
    count, which the rule does not need.

    Args:
        b1: the share of the mean in the mix.
        b2: the decay of the mean.
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        mode: ``"hard"`` for the sign; ``"smooth"`` for the tanh of `smooth_beta` times the mix; ``"refined"`` for
            the mix itself, clipped to [-1, 1].
        smooth_beta: how steep the tanh is.

    >>> opt = ff.optim.scale_by_lion()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates, opt.update(np.array([3.0, 0.1]), state)[0]  # of -0.04, the mean, and 0.1
    (array([ 1., -1.]), array([ 1., -1.]))
    """
    check_decay("scale_by_lion", b1=b1, b2=b2)
    if mode not in ("hard", "smooth", "refined"):
        raise ArgumentError(f"scale_by_lion: mode must be 'hard', 'smooth' or 'refined', got {mode!r}")

    @tiled
    def kernel(g: Any, mu: Any, b1: Any, b2: Any, beta: Any) -> tuple[Any, Any]:
        mix = b1 * mu + (1 - b1) * g
        if mode == "hard":
            update = np.sign(mix)
        else:
            update = np.tanh(beta * mix) if mode == "smooth" else np.clip(mix, -1.0, 1.0)
        return update, b2 * mu + (1 - b2) * g

    return rule("scale_by_lion", kernel, ScaleByLionState, b1, b2, smooth_beta, dtypes={"mu": mu_dtype})
