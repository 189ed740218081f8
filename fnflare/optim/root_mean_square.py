"""Optimisers by name that divide the gradient by the root of an average of its squares.

Each is a chain of the building blocks, with optax's arguments and defaults. What they return is to be added, so the
learning rate comes in with a minus sign.
"""

from __future__ import annotations

from typing import Any

from fnflare.optim.adaptive import optional_trace, scale_by_adadelta, scale_by_rms, scale_by_rss, scale_by_stddev
from fnflare.optim.averages import ema
from fnflare.optim.base import GradientTransformation, ScalarOrSchedule, identity
from fnflare.optim.combine import Mask, chain
from fnflare.optim.factored import scale_by_factored_rms, scale_by_sm3
from fnflare.optim.layerwise import clip_by_block_rms, scale_by_param_block_rms
from fnflare.optim.leaves import is_nonzero
from fnflare.optim.transforms import add_decayed_weights, scale, scale_by_learning_rate

__all__ = ["adadelta", "adafactor", "adagrad", "rmsprop", "sm3"]


def adagrad(
    learning_rate: ScalarOrSchedule, initial_accumulator_value: float = 0.1, eps: float = 1e-7
) -> GradientTransformation:
    """Adagrad (Duchi et al., 2011, "Adaptive subgradient methods for online learning").

    Args:
        learning_rate: a number or a schedule.
        initial_accumulator_value: the sum of squared gradients to start from.
        eps: added to that sum.

    >>> opt, params = ff.optim.adagrad(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([0.5, 0.2]), state, params)[0].round(4)
    (array([-0.0845,  0.0535]), array([-0.0645, -0.0471]))
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
    bias_correction: bool = False,
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
        bias_correction: whether the averages are corrected for their start, as in Adam.

    >>> opt, params = ff.optim.rmsprop(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4), opt.update(np.array([0.5, 0.2]), state, params)[0].round(4)
    (array([-0.3162,  0.3162]), array([-0.2294, -0.2294]))
    """
    rule = scale_by_stddev if centered else scale_by_rms
    return chain(
        rule(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        scale_by_learning_rate(learning_rate),
        optional_trace(momentum, nesterov),
    )


def adadelta(
    learning_rate: ScalarOrSchedule = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: Mask | None = None,
) -> GradientTransformation:
    """Adadelta (Zeiler, 2012, "ADADELTA: an adaptive learning rate method").

    Args:
        learning_rate: a number or a schedule; 1 as in the paper. (optax's default is None, which leaves the
            sign of the updates as it is, so that they climb.)
        rho: the decay of the mean squares.
        eps: added under the roots.
        weight_decay: the factor of an L2 penalty, or a schedule of it; unless it is 0, ``update`` needs the parameters.
        weight_decay_mask: which parameters it applies to, as in `masked`.

    >>> opt, params = ff.optim.adadelta(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(6), opt.update(np.array([0.5, 0.2]), state, params)[0].round(6)
    (array([-0.000316,  0.000316]), array([-0.000324, -0.000324]))
    """
    penalty = add_decayed_weights(weight_decay, weight_decay_mask) if is_nonzero(weight_decay) else identity()
    return chain(penalty, scale_by_adadelta(rho, eps), scale_by_learning_rate(learning_rate))


def adafactor(
    learning_rate: ScalarOrSchedule | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: float = 0.8,
    decay_offset: int = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: float | None = 1.0,
    momentum: float | None = None,
    dtype_momentum: Any = None,
    weight_decay_rate: ScalarOrSchedule | None = None,
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
        dtype_momentum: the dtype in which that is kept; the parameters' where it is None (optax's default is float32).
        weight_decay_rate: the factor of the decoupled weight decay, or a schedule of it; the learning rate
            does not scale it.
        eps: added to the squared gradient.
        factored: False keeps every mean square in full.
        weight_decay_mask: which parameters decay, as in `masked`.

    Raises:
        ArgumentError: ``update`` was called without the parameters, which the parameter scale and the weight decay
            need.

    >>> opt, params = ff.optim.adafactor(0.1), np.array([3.0, 4.0])
    >>> updates, state = opt.update(np.array([0.5, -0.2]), opt.init(params), params)
    >>> updates.round(4)
    array([-0.3536,  0.3536])
    """
    rules = [scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)]
    if clipping_threshold is not None:
        rules.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        rules.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        rules.append(scale_by_param_block_rms())
    if momentum is not None:
        rules.append(ema(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if weight_decay_rate is not None:
        rules.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*rules, scale(-1.0))


def sm3(learning_rate: ScalarOrSchedule, momentum: float = 0.9) -> GradientTransformation:
    """SM3 (Anil et al., 2019, "Memory-efficient adaptive optimization").

    Args:
        learning_rate: a number or a schedule.
        momentum: the decay of the mean update.

    >>> opt, params = ff.optim.sm3(0.1), np.array([[3.0, 4.0]])
    >>> opt.update(np.array([[0.5, -0.2]]), opt.init(params), params)[0].round(4)
    array([[-0.01,  0.01]])
    """
    return chain(scale_by_sm3(momentum), scale_by_learning_rate(learning_rate))
