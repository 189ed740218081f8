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
from fnflare.optim.base import GradientTransformation, ScalarOrSchedule, identity, safe_increment, state_of, zero_count
from fnflare.optim.leaves import Kernel, check_decay, filled, is_nonzero, map_leaves, tiled, weak

__all__ = [
    "ScaleByAdaDeltaState",
    "ScaleByAdamState",
    "ScaleByLionState",
    "ScaleByRStdDevState",
    "ScaleByRmsState",
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


def _advance(
    who: str, kernel: Kernel, updates: Any, moments: dict[str, Any], hyper: tuple[Any, ...]
) -> tuple[Any, ...]:
    """The new updates and the new moments."""
    trees = {"updates": updates, **{f"state.{name}": moment for name, moment in moments.items()}}
    return map_leaves(who, kernel, trees, *hyper, outputs=1 + len(moments))


def _rule(who: str, kernel: Kernel, kind: Any, starts: tuple[float, ...], *hyper: Any) -> GradientTransformation:
    """The transformation with the state `kind`, a named tuple of moments, which begin at `starts`."""

    def init(params: Any) -> Any:
        return kind(*[filled(params, start) for start in starts])

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, *moments = _advance(who, kernel, updates, state_of(kind, state, who)._asdict(), hyper)
        return updates, kind(*moments)

    return GradientTransformation(init, update)


class TraceState(NamedTuple):
    """``trace``: the decaying sum of the updates so far."""

    trace: Any


def trace(decay: float, nesterov: bool = False) -> GradientTransformation:
    """Momentum: replaces the updates by the decaying sum of all updates so far.

    The sum is ``t = g + decay * t``, not an average; with `nesterov` the update is ``g + decay * t``, one
    step further along it (Sutskever et al., 2013, "On the importance of initialization and momentum in deep
    learning").

    Args:
        decay: the share of the old sum that is kept, in [0, 1).
        nesterov: look ahead.

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

    return _rule("trace", kernel, TraceState, (0.0,), decay)


def optional_trace(momentum: float | None, nesterov: bool) -> GradientTransformation:
    """`trace`, or nothing where there is no momentum."""
    return identity() if momentum is None else trace(momentum, nesterov)


class ScaleByAdamState(NamedTuple):
    """``count``: updates made, an int32 scalar; ``mu`` and ``nu``: the first and the second moment."""

    count: Any
    mu: Any
    nu: Any


def _adam_like(who: str, kernel: Kernel, hyper: Callable[[Any], tuple[Any, ...]]) -> GradientTransformation:
    """The transformation with Adam's state; `hyper` takes how many updates were made before this one."""

    def init(params: Any) -> ScaleByAdamState:
        return ScaleByAdamState(zero_count(), filled(params, 0.0), filled(params, 0.0))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ScaleByAdamState]:
        count, mu, nu = state_of(ScaleByAdamState, state, who)
        updates, mu, nu = _advance(who, kernel, updates, {"mu": mu, "nu": nu}, hyper(count))
        return updates, ScaleByAdamState(safe_increment(count), mu, nu)

    return GradientTransformation(init, update)


def _times(a: Any, x: Any, out: Any) -> Any:
    """``a * x``, written into `out` where there is one."""
    return a * x if out is None else np.multiply(x, a, out=out)


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
        nu = _plus(_scaled(_minus(_times(g, g, out[2]), nu, out[2]), 1 - b2), nu)
        size = _plus(np.sqrt(nu + eps_root if rooted else nu), eps)
        direction = step * mu + ahead * g if nesterov else _times(step, mu, out[0])
        return direction / size if out[0] is None else np.divide(direction, size, out=out[0]), mu, nu

    def hyper(count: Any) -> tuple[Any, ...]:
        # The corrections go into the scalars (section 2 of the paper): with r = sqrt(1 - b2^t),
        # m / (sqrt(v / r^2 + eps_root) + eps) = r m / (sqrt(v + r^2 eps_root) + r eps).
        t = weak(count) + 1
        r = (1 - b2**t) ** 0.5
        step = r * weak(step_size(count) if callable(step_size) else step_size)
        if nesterov:
            step, ahead = step * b1 / (1 - b1 ** (t + 1)), step * (1 - b1) / (1 - b1**t)
        else:
            step, ahead = step / (1 - b1**t), 0.0
        return b1, b2, step, ahead, r * eps, r * r * eps_root

    return _adam_like("scale_by_adam", kernel, hyper)


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

    return _adam_like("scale_by_adamax", kernel, lambda count: (b1, b2, eps, 1 / (1 - b1 ** (weak(count) + 1))))


class ScaleByRmsState(NamedTuple):
    """``nu``: the mean squared gradient."""

    nu: Any


def scale_by_rms(
    decay: float = 0.9, eps: float = 1e-8, initial_scale: float = 0.0, eps_in_sqrt: bool = True
) -> GradientTransformation:
    """RMSProp's rule: the gradient over the root of its mean square.

    Tieleman & Hinton, 2012, "Neural networks for machine learning", lecture 6e.

    Args:
        decay: the decay of the mean square.
        eps: added to the mean square, or to its root.
        initial_scale: the mean square to start from.
        eps_in_sqrt: False adds `eps` to the root, as PyTorch does.

    >>> opt = ff.optim.scale_by_rms(decay=0.9)
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 3.1623, -3.1623]), array([2.2942, 2.2942]))
    """
    check_decay("scale_by_rms", decay=decay)

    @tiled
    def kernel(g: Any, nu: Any, decay: Any, eps: Any) -> tuple[Any, Any]:
        nu = decay * nu + (1 - decay) * (g * g)
        return g / (np.sqrt(nu + eps) if eps_in_sqrt else np.sqrt(nu) + eps), nu

    return _rule("scale_by_rms", kernel, ScaleByRmsState, (initial_scale,), decay, eps)


class ScaleByRStdDevState(NamedTuple):
    """``mu``: the mean gradient; ``nu``: the mean squared gradient."""

    mu: Any
    nu: Any


def scale_by_stddev(
    decay: float = 0.9, eps: float = 1e-8, initial_scale: float = 0.0, eps_in_sqrt: bool = True
) -> GradientTransformation:
    """Centred RMSProp's rule: the gradient over its standard deviation.

    Graves, 2013, "Generating sequences with recurrent neural networks". A variance that rounding made
    negative counts as zero.

    Args:
        decay: the decay of both means.
        eps: added to the variance, or to its root.
        initial_scale: the mean square to start from.
        eps_in_sqrt: False adds `eps` to the root, as PyTorch does.

    >>> opt = ff.optim.scale_by_stddev(decay=0.9)
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 3.3333, -3.3333]), array([2.5491, 2.2948]))
    """
    check_decay("scale_by_stddev", decay=decay)

    @tiled
    def kernel(g: Any, mu: Any, nu: Any, decay: Any, eps: Any) -> tuple[Any, Any, Any]:
        mu = decay * mu + (1 - decay) * g
        nu = decay * nu + (1 - decay) * (g * g)
        variance = np.maximum(nu - mu * mu, 0.0)
        return g / (np.sqrt(variance + eps) if eps_in_sqrt else np.sqrt(variance) + eps), mu, nu

    return _rule("scale_by_stddev", kernel, ScaleByRStdDevState, (0.0, initial_scale), decay, eps)


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
        total = total + g * g
        return g / np.sqrt(total + eps), total

    return _rule("scale_by_rss", kernel, ScaleByRssState, (initial_accumulator_value,), eps)


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
        e_g = rho * e_g + (1 - rho) * (g * g)
        delta = np.sqrt((e_x + eps) / (e_g + eps)) * g
        e_x = rho * e_x + (1 - rho) * (delta * delta)
        return delta, e_g, e_x

    return _rule("scale_by_adadelta", kernel, ScaleByAdaDeltaState, (0.0, 0.0), rho, eps)


class ScaleByLionState(NamedTuple):
    """``mu``: the mean gradient."""

    mu: Any


def scale_by_lion(b1: float = 0.9, b2: float = 0.99) -> GradientTransformation:
    """Lion's rule: the sign of a mix of the gradient and its mean.

    Chen et al., 2023, "Symbolic discovery of optimization algorithms". Unlike optax's, the state has no step
    count, which the rule does not need.

    Args:
        b1: the share of the mean in the mix.
        b2: the decay of the mean.

    >>> opt = ff.optim.scale_by_lion()
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 1., -1.]), array([1., 1.]))
    """
    check_decay("scale_by_lion", b1=b1, b2=b2)

    @tiled
    def kernel(g: Any, mu: Any, b1: Any, b2: Any) -> tuple[Any, Any]:
        return np.sign(b1 * mu + (1 - b1) * g), b2 * mu + (1 - b2) * g

    return _rule("scale_by_lion", kernel, ScaleByLionState, (0.0,), b1, b2)
