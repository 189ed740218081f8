"""Rules that look at a whole parameter array at once: its norm, its signs, its mean.

Updates, and for some the parameters, go in; updates in the scale of each array come out. Together with the rules by
element they make LARS and LAMB, and Rprop stands here for its state of one step size an element.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare.errors import ArgumentError
from fnflare.optim.base import GradientTransformation, need_params, state_of, stateless, sum_of_squares
from fnflare.optim.leaves import abs_sq, filled, map_leaves, reject_complex, tiled

__all__ = [
    "ScaleByRpropState",
    "centralize",
    "clip_by_block_rms",
    "normalize",
    "scale_by_param_block_norm",
    "scale_by_param_block_rms",
    "scale_by_rprop",
    "scale_by_sign",
    "scale_by_trust_ratio",
    "zero_nans",
]


def _root(squares: Any, least: Any = 0.0) -> Any:
    """The root of what may be zero, at least `least`, with a derivative of 0 there."""
    known = squares > least * least
    return np.where(known, np.sqrt(np.where(known, squares, 1.0)), least)


def scale_by_trust_ratio(
    min_norm: float = 0.0, trust_coefficient: float = 1.0, eps: float = 0.0
) -> GradientTransformation:
    """Scales the update of each array to the norm of its parameters.

    You et al., 2017, "Large batch training of convolutional networks" (LARS), and 2020, "Large batch optimization for
    deep learning: training BERT in 76 minutes" (LAMB). An array of zeros, or a zero update, is left as it is.

    Args:
        min_norm: a norm that is less counts as this.
        trust_coefficient: a factor.
        eps: added to the norm of the update.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt = ff.optim.scale_by_trust_ratio()
    >>> opt.update(np.array([3.0, 4.0]), opt.init(None), np.array([0.0, 10.0]))[0]
    array([6., 8.])
    """

    def kernel(g: Any, p: Any, least: Any, factor: Any, eps: Any) -> tuple[Any]:
        param, update = _root(np.sum(abs_sq(p)), least), _root(np.sum(abs_sq(g)), least)
        zero = (param == 0) | (update == 0)
        ratio = factor * param / (np.where(zero, 1.0, update) + eps)
        return (g * np.where(zero, 1.0, ratio),)

    def scaled(updates: Any, params: Any) -> Any:
        need_params("scale_by_trust_ratio", updates, params)
        trees = {"updates": updates, "params": params}
        return map_leaves("scale_by_trust_ratio", kernel, trees, min_norm, trust_coefficient, eps, outputs=1)[0]

    return stateless(scaled)


def _mean_square(x: Any) -> Any:
    return np.sum(abs_sq(x)) / max(np.size(x), 1)


def scale_by_param_block_rms(min_scale: float = 1e-3) -> GradientTransformation:
    """Multiplies the update of each array by the root mean square of its parameters.

    Args:
        min_scale: the least factor, for parameters that are zero.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt = ff.optim.scale_by_param_block_rms()
    >>> opt.update(np.array([1.0, -1.0]), opt.init(None), np.array([3.0, 3.0]))[0]
    array([ 3., -3.])
    """

    def kernel(g: Any, p: Any, least: Any) -> tuple[Any]:
        return (g * _root(_mean_square(p), least),)

    def scaled(updates: Any, params: Any) -> Any:
        need_params("scale_by_param_block_rms", updates, params)
        trees = {"updates": updates, "params": params}
        return map_leaves("scale_by_param_block_rms", kernel, trees, min_scale, outputs=1)[0]

    return stateless(scaled)


def scale_by_param_block_norm(min_scale: float = 1e-3) -> GradientTransformation:
    """Multiplies the update of each array by the norm of its parameters.

    Args:
        min_scale: the least factor, for parameters that are zero.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt = ff.optim.scale_by_param_block_norm()
    >>> opt.update(np.array([1.0, -1.0]), opt.init(None), np.array([3.0, 4.0]))[0]
    array([ 5., -5.])
    """

    def kernel(g: Any, p: Any, least: Any) -> tuple[Any]:
        return (g * _root(np.sum(abs_sq(p)), least),)

    def scaled(updates: Any, params: Any) -> Any:
        need_params("scale_by_param_block_norm", updates, params)
        trees = {"updates": updates, "params": params}
        return map_leaves("scale_by_param_block_norm", kernel, trees, min_scale, outputs=1)[0]

    return stateless(scaled)


def clip_by_block_rms(threshold: float) -> GradientTransformation:
    """Scales down the update of each array whose root mean square is greater than a threshold.

    Shazeer & Stern, 2018, "Adafactor: adaptive learning rates with sublinear memory cost".

    >>> opt = ff.optim.clip_by_block_rms(1.0)
    >>> opt.update(np.array([4.0, -4.0]), opt.init(None))[0]
    array([ 1., -1.])
    """

    def kernel(g: Any, threshold: Any) -> tuple[Any]:
        return (g / np.maximum(1.0, _root(_mean_square(g)) / threshold),)

    return stateless(
        lambda updates, _: map_leaves("clip_by_block_rms", kernel, {"u": updates}, threshold, outputs=1)[0]
    )


def normalize() -> GradientTransformation:
    """Divides all updates by their `global_norm`; updates that are all zero stay zero.

    >>> opt = ff.optim.normalize()
    >>> opt.update({"w": np.array([3.0]), "b": np.array([4.0])}, opt.init(None))[0]
    {'b': array([0.8]), 'w': array([0.6])}
    """

    def normalized(updates: Any, params: Any) -> Any:
        norm = _root(sum_of_squares(updates))
        factor = np.where(norm > 0, 1 / np.where(norm > 0, norm, 1.0), 1.0)
        return map_leaves("normalize", lambda g, c: (c * g,), {"updates": updates}, factor, outputs=1)[0]

    return stateless(normalized)


def centralize(output_axis: int = 0) -> GradientTransformation:
    """Subtracts from the gradient of each array of two axes or more its mean over the inputs of each output.

    Yong et al., 2020, "Gradient centralization: a new optimization technique for deep neural networks".

    Args:
        output_axis: the axis of the outputs: the first, as in optax; -1 for the weights of the layers of `fnflare.nn`,
            whose outputs are the last axis.

    >>> opt = ff.optim.centralize(output_axis=-1)
    >>> opt.update(np.array([[1.0, 2.0], [3.0, 6.0]]), opt.init(None))[0]
    array([[-1., -2.],
           [ 1.,  2.]])
    """

    def kernel(g: Any) -> tuple[Any]:
        if np.ndim(g) < 2 or not g.size:
            return (g,)
        axes = tuple([i for i in range(g.ndim) if i != output_axis % g.ndim])
        return (g - np.mean(g, axis=axes, keepdims=True),)

    return stateless(lambda updates, _: map_leaves("centralize", kernel, {"updates": updates}, outputs=1)[0])


def zero_nans() -> GradientTransformation:
    """Replaces what is NaN in the updates by zeros; infinities stay.

    Unlike optax's, it keeps no state: ask for ``np.isnan`` of the gradients, or use `apply_if_finite`, which counts.

    >>> opt = ff.optim.zero_nans()
    >>> opt.update(np.array([1.0, np.nan]), opt.init(None))[0]
    array([1., 0.])
    """

    def kernel(g: Any) -> tuple[Any]:
        return (np.where(np.isnan(g), np.zeros_like(g), g),)

    return stateless(lambda updates, _: map_leaves("zero_nans", kernel, {"updates": updates}, outputs=1)[0])


def scale_by_sign() -> GradientTransformation:
    """Replaces the updates by their signs.

    Bernstein et al., 2018, "signSGD: compressed optimisation for non-convex problems".

    >>> opt = ff.optim.scale_by_sign()
    >>> opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))[0]
    array([ 1., -1.])
    """
    return stateless(
        lambda updates, _: map_leaves("scale_by_sign", lambda g: (np.sign(g),), {"updates": updates}, outputs=1)[0]
    )


class ScaleByRpropState(NamedTuple):
    """``step_sizes``: of each element; ``prev_updates``: the last gradient, zero where its sign had changed."""

    step_sizes: Any
    prev_updates: Any


def scale_by_rprop(
    learning_rate: float,
    eta_minus: float = 0.5,
    eta_plus: float = 1.2,
    min_step_size: float = 1e-6,
    max_step_size: float = 50.0,
) -> GradientTransformation:
    """Rprop's rule: a step size for each element, which grows while the gradient keeps its sign.

    Riedmiller & Braun, 1993, "A direct adaptive method for faster backpropagation learning: the RPROP algorithm", in
    the form of Igel & Hüsken, 2000, that takes no step where the sign has changed (iRprop-), which is PyTorch's. It
    is for full batches: the sign of a noisy gradient says little.

    Args:
        learning_rate: the step size to start from.
        eta_minus: the factor where the sign has changed.
        eta_plus: the factor where it has not.
        min_step_size: the least step size.
        max_step_size: the greatest.

    >>> opt = ff.optim.scale_by_rprop(0.1)
    >>> updates, state = opt.update(np.array([3.0, -4.0]), opt.init(np.zeros(2)))
    >>> updates.round(4), opt.update(np.array([3.0, 4.0]), state)[0].round(4)
    (array([ 0.1, -0.1]), array([0.12, 0.  ]))
    """
    if not 0 < eta_minus < 1 < eta_plus:
        raise ArgumentError(
            f"scale_by_rprop: expected 0 < eta_minus < 1 < eta_plus, got eta_minus={eta_minus!r}, eta_plus={eta_plus!r}"
        )

    @tiled
    def kernel(g: Any, step: Any, last: Any, minus: Any, plus: Any, least: Any, most: Any) -> tuple[Any, Any, Any]:
        agree = np.sign(g) * np.sign(last)
        grown = np.clip(step * np.where(agree > 0, np.full_like(g, plus), np.full_like(g, minus)), least, most)
        step = np.where(agree == 0, step, grown)
        g = np.where(agree < 0, np.zeros_like(g), g)
        return step * np.sign(g), step, g

    def init(params: Any) -> ScaleByRpropState:
        return ScaleByRpropState(filled(params, learning_rate), filled(params, 0.0))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ScaleByRpropState]:
        reject_complex("scale_by_rprop", updates)
        steps, last = state_of(ScaleByRpropState, state, "scale_by_rprop")
        trees = {"updates": updates, "state.step_sizes": steps, "state.prev_updates": last}
        hyper = (eta_minus, eta_plus, min_step_size, max_step_size)
        updates, steps, last = map_leaves("scale_by_rprop", kernel, trees, *hyper, outputs=3)
        return updates, ScaleByRpropState(steps, last)

    return GradientTransformation(init, update)
