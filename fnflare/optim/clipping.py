"""Clipping by the norms of parts: of the units of a layer, and of the examples of a batch.

Updates go in, no longer than they may be they come out. What is allowed is a fraction of the norm of the parameters
(`adaptive_grad_clip`), or a number (`per_example_global_norm_clip`), which together with noise keeps training private.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare import random, tree
from fnflare.errors import ArgumentError, ShapeError
from fnflare.optim.averages import normal_like
from fnflare.optim.base import GradientTransformation, need_params, state_of, stateless
from fnflare.optim.leaves import abs_sq, dtype_of, map_leaves, weak

__all__ = [
    "DifferentiallyPrivateAggregateState",
    "adaptive_grad_clip",
    "differentially_private_aggregate",
    "per_example_global_norm_clip",
    "per_example_layer_norm_clip",
    "unitwise_clip",
    "unitwise_norm",
]

Axis = int | tuple[int, ...] | None


def _unit_axes(x: Any, axis: Axis) -> Axis:
    """The axes along which the weights of one unit lie: all but the last, in which the layers have their outputs."""
    if axis is not None or sum(n != 1 for n in np.shape(x)) <= 1:
        return axis
    if x.ndim > 5:
        raise ArgumentError(
            f"unitwise_norm: an array of shape {x.shape} has more than 5 axes; say with axis= which add up"
        )
    return 0 if x.ndim <= 3 else tuple(range(x.ndim - 1))


def unitwise_norm(x: Any, axis: Axis = None) -> Any:
    """The norms of the weights of each unit, in the shape of the weights.

    Brock et al., 2021, "High-performance large-scale image recognition without normalization". A vector is one unit;
    of a matrix, as of a batch of matrices, the first axis is summed; of the kernel of a convolution all but the last.

    Args:
        x: an array of weights.
        axis: the axes that are summed, where that is not what is meant.

    Raises:
        ArgumentError: the array has more than 5 axes and there is no `axis`.

    >>> ff.optim.unitwise_norm(np.array([[3.0, 1.0], [4.0, 0.0]]))
    array([[5., 1.],
           [5., 1.]])
    """
    squares = np.sum(abs_sq(x), axis=_unit_axes(x, axis), keepdims=True)
    positive = squares > 0
    return np.broadcast_to(np.where(positive, np.sqrt(np.where(positive, squares, 1.0)), 0.0), np.shape(x)).astype(
        squares.dtype
    )


def unitwise_clip(g_norm: Any, max_norm: Any, grad: Any, div_eps: float = 1e-6) -> Any:
    """A gradient scaled down where its norms are not less than they may be.

    Args:
        g_norm: its norms, in its shape, as of `unitwise_norm`.
        max_norm: what they may be.
        grad: the gradient.
        div_eps: the least norm that is divided by.

    Raises:
        ShapeError: the three have not one shape.

    >>> ff.optim.unitwise_clip(np.array([5.0, 5.0]), np.array([1.0, 9.0]), np.array([3.0, 4.0]))
    array([0.6, 4. ])
    """
    if not np.shape(g_norm) == np.shape(max_norm) == np.shape(grad):
        shapes = f"g_norm {np.shape(g_norm)}, max_norm {np.shape(max_norm)}, grad {np.shape(grad)}"
        raise ShapeError(f"unitwise_clip: expected one shape, got {shapes}; unitwise_norm has the shape of its array")
    return np.where(g_norm < max_norm, grad, grad * (max_norm / np.maximum(g_norm, div_eps)))


def adaptive_grad_clip(clipping: float, eps: float = 1e-3, axis: Axis = None) -> GradientTransformation:
    """Scales the gradient of each unit down to a fraction of the norm of its weights.

    Brock et al., 2021, "High-performance large-scale image recognition without normalization" (AGC).

    Args:
        clipping: the fraction.
        eps: the least norm of weights that counts.
        axis: as in `unitwise_norm`.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt = ff.optim.adaptive_grad_clip(0.1)
    >>> weights, gradient = np.array([[3.0, 1.0], [4.0, 0.0]]), np.array([[1.0, 0.03], [0.0, 0.04]])
    >>> opt.update(gradient, opt.init(weights), weights)[0]  # the first unit is clipped to a tenth of 5
    array([[0.5 , 0.03],
           [0.  , 0.04]])
    """

    def kernel(g: Any, p: Any, fraction: Any, least: Any) -> tuple[Any]:
        most = fraction * np.maximum(unitwise_norm(p, axis), least)
        return (unitwise_clip(unitwise_norm(g, axis), most, g),)

    def clipped(updates: Any, params: Any) -> Any:
        need_params("adaptive_grad_clip", updates, params)
        trees = {"updates": updates, "params": params}
        return map_leaves("adaptive_grad_clip", kernel, trees, clipping, eps, outputs=1)[0]

    return stateless(clipped)


def _examples(who: str, grads: Any) -> int:
    """The length of the first axis, which all arrays must have."""
    sizes = {np.shape(leaf)[:1] for leaf in tree.leaves(grads)}
    if len(sizes) != 1 or () in sizes:
        shapes = sorted(np.shape(leaf) for leaf in tree.leaves(grads))
        raise ShapeError(
            f"{who}: every gradient needs a first axis of one length, the examples, got the shapes {shapes}; write "
            "vmap(grad(loss), in_axes=(None, 0))(params, batch)"
        )
    return int(sizes.pop()[0])


def per_example_global_norm_clip(grads: Any, l2_norm_clip: float) -> tuple[Any, Any]:
    """The sum over the examples of their gradients, each scaled down to a norm over all arrays.

    Abadi et al., 2016, "Deep learning with differential privacy".

    Args:
        grads: a pytree of gradients with the examples as first axis, as of ``ff.vmap(ff.grad(loss), (None, 0))``.
        l2_norm_clip: the greatest norm of the gradient of an example.

    Returns:
        The pytree of sums, without the first axis, and how many examples were clipped.

    Raises:
        ShapeError: the gradients have not one first axis.

    >>> sums, clipped = ff.optim.per_example_global_norm_clip({"w": np.array([[3.0, 4.0], [0.3, 0.4]])}, 1.0)
    >>> sums, int(clipped)
    ({'w': array([0.9, 1.2])}, 1)
    """
    size = _examples("per_example_global_norm_clip", grads)
    squares = sum(np.sum(abs_sq(np.reshape(g, (size, -1))), axis=1) for g in tree.leaves(grads))
    long = squares > l2_norm_clip * l2_norm_clip
    factors = np.where(long, l2_norm_clip / np.sqrt(np.where(long, squares, 1.0)), 1.0)

    return tree.map(lambda g: np.tensordot(factors.astype(g.dtype), g, axes=1), grads), np.sum(long)


def per_example_layer_norm_clip(grads: Any, global_l2_norm_clip: float, uniform: bool = True) -> tuple[Any, Any]:
    """The sum over the examples of their gradients, each array of each example scaled down by itself.

    McMahan et al., 2018, "Learning differentially private recurrent language models". The norms that the arrays may
    have add up to the norm of the whole.

    Args:
        grads: as in `per_example_global_norm_clip`.
        global_l2_norm_clip: the greatest norm of the gradient of an example.
        uniform: whether all arrays may have one norm; False shares it by the number of elements.

    Returns:
        The pytree of sums, and one of how many examples were clipped.

    Raises:
        ShapeError: the gradients have not one first axis.

    >>> grads = {"v": np.array([[0.5], [2.0]]), "w": np.array([[3.0, 4.0], [0.3, 0.4]])}
    >>> sums, clipped = ff.optim.per_example_layer_norm_clip(grads, 2**0.5)  # 1 for each
    >>> sums["v"].round(4), sums["w"].round(4), int(clipped["v"]), int(clipped["w"])
    (array([1.5]), array([0.9, 1.2]), 1, 1)
    """
    _examples("per_example_layer_norm_clip", grads)
    leaves, treedef = tree.flatten(grads)
    sizes = [max(int(np.prod(g.shape[1:])), 1) for g in leaves]
    shares = [1 / len(leaves) if uniform else n / sum(sizes) for n in sizes]
    pairs = [per_example_global_norm_clip(g, global_l2_norm_clip * s**0.5) for g, s in zip(leaves, shares, strict=True)]
    return tree.unflatten(treedef, [a for a, _ in pairs]), tree.unflatten(treedef, [n for _, n in pairs])


class DifferentiallyPrivateAggregateState(NamedTuple):
    """``rng_key``: what the next noise is drawn with."""

    rng_key: Any


def differentially_private_aggregate(l2_norm_clip: float, noise_multiplier: float, key: Any) -> GradientTransformation:
    """Makes of the gradients of the examples their mean, which says little about any one of them.

    Abadi et al., 2016, "Deep learning with differential privacy": each example's gradient is clipped, and noise is
    added to the sum. Unlike other transformations it takes gradients with the examples as first axis, so it comes first
    in a chain: ``ff.vmap(ff.grad(loss), (None, 0))(params, batch)``.

    Args:
        l2_norm_clip: the greatest norm of the gradient of an example.
        noise_multiplier: the standard deviation of the noise as a fraction of that.
        key: of `fnflare.random`, or a seed.

    Raises:
        ShapeError: the gradients have not one first axis.

    >>> opt = ff.optim.differentially_private_aggregate(l2_norm_clip=1.0, noise_multiplier=0.0, key=0)
    >>> opt.update(np.array([[3.0, 4.0], [0.3, 0.4]]), opt.init(np.zeros(2)))[0]
    array([0.45, 0.6 ])
    """
    key = random.key(key) if isinstance(key, int) else key

    def init(params: Any) -> DifferentiallyPrivateAggregateState:
        return DifferentiallyPrivateAggregateState(np.array(key))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, DifferentiallyPrivateAggregateState]:
        (rng_key,) = state_of(DifferentiallyPrivateAggregateState, state, "differentially_private_aggregate")
        size = _examples("differentially_private_aggregate", updates)
        flat, treedef = tree.flatten(per_example_global_norm_clip(updates, l2_norm_clip)[0])
        keys = random.split(rng_key, len(flat) + 1)
        deviation = l2_norm_clip * noise_multiplier
        noisy = [(g + weak(deviation, dtype_of(g)) * normal_like(keys[i + 1], g)) / size for i, g in enumerate(flat)]
        return tree.unflatten(treedef, noisy), DifferentiallyPrivateAggregateState(keys[0])

    return GradientTransformation(init, update)
