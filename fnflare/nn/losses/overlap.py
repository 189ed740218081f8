"""Losses of segmentation: how little a predicted region overlaps with a given one."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import ops
from fnflare.core import number
from fnflare.nn.losses.checks import float_pair

__all__ = ["dice_loss", "tversky_loss"]

_PAIR = ("predictions", "targets")
Axis = int | tuple[int, ...] | None


def dice_loss(predictions: Any, targets: Any, *, axis: Axis = None, smooth: float = 1.0, squared: bool = False) -> Any:
    """1 minus the Dice coefficient, twice the overlap of two regions divided by the sum of their sizes.

    Args:
        predictions: probabilities (N, ...) of belonging to the region, floats.
        targets: of the same shape, 0 or 1, booleans, or probabilities.
        axis: the axes of a region; by default all but the first. For one number for each example and class write
            ``axis=(1, 2)``, of arrays (N, H, W, classes).
        smooth: added to both parts of the fraction; with 0 two empty regions have loss 0.
        squared: take sums of squares for the sizes (Milletari et al., 2016, "V-Net").

    Returns:
        The losses, from 0 to 1, of the shape without the axes.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the predictions are not floats.

    >>> ff.nn.dice_loss(np.array([[1.0, 1.0, 0.0]]), np.array([[1, 0, 0]]), smooth=0.0).round(4)
    array([0.3333])
    """
    p, t = float_pair("dice_loss", predictions, targets, _PAIR)
    sizes = np.square(p) + np.square(t) if squared else p + t
    return _lacking(2 * (p * t), sizes, axis, smooth)


def tversky_loss(
    predictions: Any, targets: Any, *, alpha: float = 0.3, beta: float = 0.7, axis: Axis = None, smooth: float = 1.0
) -> Any:
    """1 minus the Tversky index, ``overlap / (overlap + alpha * falsely in + beta * falsely out)`` (Salehi et al.
    2017).

    With alpha and beta of 1/2 it is `dice_loss` with half of the smoothing, with 1 and 1 that of Jaccard.

    Args:
        predictions: probabilities (N, ...) of belonging to the region, floats.
        targets: of the same shape, 0 or 1, booleans, or probabilities.
        alpha: the weight of what is predicted and should not be.
        beta: the weight of what should be predicted and is not; larger than alpha favours recall.
        axis: the axes of a region; by default all but the first.
        smooth: added to both parts of the fraction; with 0 two empty regions have loss 0.

    Returns:
        The losses, from 0 to 1, of the shape without the axes.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the predictions are not floats.

    >>> ff.nn.tversky_loss(np.array([[1.0, 1.0, 0.0]]), np.array([[1, 0, 0]]), smooth=0.0).round(4)
    array([0.2308])
    """
    p, t = float_pair("tversky_loss", predictions, targets, _PAIR)
    overlap = p * t
    return _lacking(overlap, overlap + number(alpha) * (p * (1 - t)) + number(beta) * ((1 - p) * t), axis, smooth)


def _lacking(over: Any, under: Any, axis: Axis, smooth: float) -> Any:
    """1 minus the fraction of two sums; 0 where both are."""
    axes = tuple(range(1, over.ndim)) if axis is None else axis
    smooth = number(smooth)
    over, under = np.sum(over, axis=axes) + smooth, np.sum(under, axis=axes) + smooth
    return 1.0 - ops.safe_where(under != 0, lambda o, u: o / u, over, under, otherwise=1.0)
