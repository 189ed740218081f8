"""Optimisers by name that go along the gradient, a sum of gradients, or the signs of one.

Each is a chain of the building blocks, with optax's arguments and defaults. What they return is to be added, so the
learning rate comes in with a minus sign.
"""

from __future__ import annotations

from typing import Any

from fnflare.optim.adaptive import optional_trace, scale_by_lion
from fnflare.optim.averages import add_noise, ema
from fnflare.optim.base import GradientTransformation, GradientTransformationExtraArgs, ScalarOrSchedule
from fnflare.optim.clipping import differentially_private_aggregate
from fnflare.optim.combine import Mask, chain
from fnflare.optim.games import scale_by_optimistic_gradient
from fnflare.optim.layerwise import scale_by_rprop, scale_by_sign
from fnflare.optim.polyak import scale_by_polyak
from fnflare.optim.transforms import add_decayed_weights, scale, scale_by_learning_rate

__all__ = [
    "dpsgd",
    "lion",
    "noisy_sgd",
    "optimistic_gradient_descent",
    "polyak_sgd",
    "rprop",
    "sgd",
    "sign_sgd",
    "signum",
]


def sgd(
    learning_rate: ScalarOrSchedule,
    momentum: float | None = None,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
) -> GradientTransformation:
    """Stochastic gradient descent, with momentum if wanted.

    Args:
        learning_rate: a number or a schedule.
        momentum: the decay of the sum of gradients, in [0, 1); None for plain descent.
        nesterov: look one step ahead; only with momentum.
        accumulator_dtype: the dtype in which the sum of gradients is kept; the parameters' where it is None.

    >>> opt = ff.optim.sgd(0.1)
    >>> params = {"w": np.array([1.0])}
    >>> updates, state = opt.update({"w": np.array([2.0])}, opt.init(params), params)
    >>> ff.optim.apply_updates(params, updates)
    {'w': array([0.8])}
    """
    return chain(optional_trace(momentum, nesterov, accumulator_dtype), scale_by_learning_rate(learning_rate))


def noisy_sgd(
    learning_rate: ScalarOrSchedule, eta: float = 0.01, gamma: float = 0.55, key: Any = 0
) -> GradientTransformation:
    """Descent along gradients with noise (Neelakantan et al., 2015, "Adding gradient noise improves learning").

    Args:
        learning_rate: a number or a schedule.
        eta: the variance of the noise in the first step.
        gamma: the exponent of its decay.
        key: of `fnflare.random`, or a seed.

    >>> opt = ff.optim.noisy_sgd(0.1, eta=1.0)
    >>> updates, state = opt.update(np.ones(10_000), opt.init(np.ones(10_000)))
    >>> round(float(np.mean(updates)), 2), round(float(np.std(updates)), 2)
    (-0.1, 0.1)
    """
    return chain(add_noise(eta, gamma, key), scale_by_learning_rate(learning_rate))


def sign_sgd(learning_rate: ScalarOrSchedule) -> GradientTransformation:
    """Descent along the signs of the gradient (Bernstein et al., 2018, "signSGD").

    Args:
        learning_rate: a number or a schedule.

    >>> opt, params = ff.optim.sign_sgd(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4)
    array([-0.1,  0.1])
    """
    return chain(scale_by_sign(), scale_by_learning_rate(learning_rate))


def lion(
    learning_rate: ScalarOrSchedule,
    b1: float = 0.9,
    b2: float = 0.99,
    mu_dtype: Any = None,
    weight_decay: ScalarOrSchedule = 1e-3,
    mask: Mask | None = None,
) -> GradientTransformation:
    """Lion (Chen et al., 2023, "Symbolic discovery of optimization algorithms").

    The updates have the size of the learning rate, so it wants to be some 3 to 10 times smaller than Adam's.

    Args:
        learning_rate: a number or a schedule; it scales the decay too.
        b1: the share of the mean gradient in the direction.
        b2: the decay of the mean gradient.
        mu_dtype: the dtype in which the mean gradient is kept; the parameters' where it is None.
        weight_decay: the factor of the decoupled weight decay, or a schedule of it.
        mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt, params = ff.optim.lion(0.1, weight_decay=0.5), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4)
    array([-0.25, -0.1 ])
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )


def dpsgd(
    learning_rate: ScalarOrSchedule,
    l2_norm_clip: float,
    noise_multiplier: float,
    seed: Any,
    momentum: float | None = None,
    nesterov: bool = False,
) -> GradientTransformation:
    """Differentially private descent (Abadi et al., 2016, "Deep learning with differential privacy").

    It takes gradients with the examples as first axis, as `differentially_private_aggregate` does.

    Args:
        learning_rate: a number or a schedule.
        l2_norm_clip: the greatest norm of the gradient of an example.
        noise_multiplier: the standard deviation of the noise as a fraction of that.
        seed: a seed, or a key of `fnflare.random`.
        momentum: the decay of the sum of gradients, in [0, 1); None for plain descent.
        nesterov: look one step ahead; only with momentum.

    >>> opt = ff.optim.dpsgd(0.1, l2_norm_clip=1.0, noise_multiplier=0.0, seed=0)
    >>> opt.update(np.array([[3.0, 4.0], [0.3, 0.4]]), opt.init(np.zeros(2)))[0]
    array([-0.045, -0.06 ])
    """
    private = differentially_private_aggregate(l2_norm_clip, noise_multiplier, seed)
    return chain(private, optional_trace(momentum, nesterov), scale_by_learning_rate(learning_rate))


def signum(learning_rate: ScalarOrSchedule, beta: float = 0.9, accumulator_dtype: Any = None) -> GradientTransformation:
    """Descent along the signs of the mean gradient (Bernstein et al., 2018, "signSGD").

    Args:
        learning_rate: a number or a schedule.
        beta: the decay of the mean gradient.
        accumulator_dtype: the dtype in which that is kept; the parameters' where it is None.

    >>> opt, params = ff.optim.signum(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates, opt.update(np.array([-0.1, -0.1]), state, params)[0]
    (array([-0.1,  0.1]), array([-0.1,  0.1]))
    """
    mean = ema(beta, debias=False, accumulator_dtype=accumulator_dtype)
    return chain(mean, scale_by_sign(), scale_by_learning_rate(learning_rate))


def optimistic_gradient_descent(
    learning_rate: ScalarOrSchedule, alpha: float = 1.0, beta: float = 1.0
) -> GradientTransformation:
    """Descent along the gradient that comes next if it goes on as from the last one to this (Mokhtari et al., 2020).

    For games, in which plain descent circles: "A unified analysis of extra-gradient and optimistic gradient methods for
    saddle point problems".

    Args:
        learning_rate: a number or a schedule.
        alpha: the factor of the gradient.
        beta: the factor of its change.

    >>> opt, params = ff.optim.optimistic_gradient_descent(0.1), np.array([3.0])
    >>> updates, state = opt.update(np.array([1.0]), opt.init(params), params)
    >>> updates, opt.update(np.array([1.5]), state, params)[0]
    (array([-0.1]), array([-0.2]))
    """
    return chain(scale_by_optimistic_gradient(alpha, beta), scale_by_learning_rate(learning_rate))


def polyak_sgd(
    max_learning_rate: float = 1.0,
    scaling: ScalarOrSchedule = 1.0,
    f_min: float = 0.0,
    eps: float = 0.0,
    variant: str = "sps",
) -> GradientTransformationExtraArgs:
    """Descent by Polyak's step size, for a loss whose least value is known (Loizou et al., 2021).

    "Stochastic Polyak step-size for SGD: an adaptive learning rate for fast convergence". It takes the loss:
    ``opt.update(grads, state, params, value=loss)``; `fnflare.train.make_step` gives it.

    Args:
        max_learning_rate: the greatest step size.
        scaling: a factor, or a schedule of one.
        f_min: the least value of the loss.
        eps: added to the squared norm of the gradient.
        variant: ``"sps"``; or ``"sps+"``, where a loss below `f_min` makes no step.

    Raises:
        ArgumentError: `variant` is neither; ``update`` was called without ``value=``.

    >>> opt, params = ff.optim.polyak_sgd(), np.array([3.0])  # of the loss x**2
    >>> opt.update(2 * params, opt.init(params), params, value=9.0)[0]
    array([-1.5])
    """
    return chain(sgd(scaling), scale_by_polyak(f_min, max_learning_rate, eps, variant))


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

    >>> opt, params = ff.optim.rprop(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([0.5, 0.2]), state, params)[0].round(4)
    (array([-0.1,  0.1]), array([-0.12, -0.  ]))
    """
    return chain(scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size), scale(-1.0))
