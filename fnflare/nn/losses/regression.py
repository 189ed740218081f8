"""Losses of regression: how far predicted numbers, or distributions of numbers, are from given ones."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare import ops
from fnflare.core import is_tracer, number
from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn.functions import logcosh
from fnflare.nn.losses.checks import array, check_float, float_pair

__all__ = [
    "absolute_error",
    "gaussian_nll_loss",
    "huber_loss",
    "log_cosh_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "squared_error",
    "squared_log_error",
]

_PAIR = ("predictions", "targets")


def squared_error(predictions: Any, targets: Any) -> Any:
    """The square of each difference, without a factor of one half.

    Args:
        predictions: floats of any shape.
        targets: of the same shape.

    Returns:
        The losses, of the shape and dtype of the predictions.

    Raises:
        ShapeError: the shapes differ, as (n, 1) and (n,) do.
        DtypeError: the predictions are not floats.

    >>> ff.nn.squared_error(np.array([1.0, 2.0]), np.array([0, 5]))
    array([1., 9.])
    """
    predictions, targets = float_pair("squared_error", predictions, targets, ("predictions", "targets"))
    return np.square(predictions - targets)


def absolute_error(predictions: Any, targets: Any) -> Any:
    """The absolute value of each difference; arguments and errors as in `squared_error`.

    >>> ff.nn.absolute_error(np.array([1.0, 2.0]), np.array([0, 5]))
    array([1., 3.])
    """
    predictions, targets = float_pair("absolute_error", predictions, targets, ("predictions", "targets"))
    return np.abs(predictions - targets)


def huber_loss(predictions: Any, targets: Any, *, delta: float = 1.0) -> Any:
    """Half the square of small differences, going over into a straight line (Huber, 1964).

    Args:
        predictions: floats of any shape.
        targets: of the same shape.
        delta: the difference at which the line begins; its slope is delta.

    Returns:
        The losses, of the shape and dtype of the predictions.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the predictions are not floats.
        ArgumentError: delta is not positive.

    >>> ff.nn.huber_loss(np.array([0.5, 3.0]), np.array([0.0, 0.0]))
    array([0.125, 2.5  ])
    """
    if delta <= 0:
        raise ArgumentError(f"huber_loss: delta must be positive, got {delta!r}")
    delta = number(delta)
    predictions, targets = float_pair("huber_loss", predictions, targets, ("predictions", "targets"))
    size = np.abs(predictions - targets)
    inner = np.minimum(size, delta)
    return 0.5 * np.square(inner) + delta * (size - inner)


def smooth_l1_loss(predictions: Any, targets: Any, *, beta: float = 1.0) -> Any:
    """`huber_loss` divided by the difference at which its line begins, so that the slope of the line is 1 (Girshick,
    2015, "Fast R-CNN").

    Args:
        predictions: floats of any shape.
        targets: of the same shape.
        beta: the difference at which the line begins.

    Returns:
        The losses, of the shape and dtype of the predictions.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the predictions are not floats.
        ArgumentError: beta is not positive.

    >>> ff.nn.smooth_l1_loss(np.array([0.25, 3.0]), np.array([0.0, 0.0]), beta=0.5)
    array([0.0625, 2.75  ])
    """
    if beta <= 0:
        raise ArgumentError(f"smooth_l1_loss: beta must be positive, got {beta!r}; for 0 write absolute_error")
    beta = number(beta)
    size = np.abs(_difference("smooth_l1_loss", predictions, targets))
    inner = np.minimum(size, beta)
    return (0.5 / beta) * np.square(inner) + (size - inner)


def log_cosh_loss(predictions: Any, targets: Any) -> Any:
    """The logarithm of the hyperbolic cosine of each difference: half its square where it is small, and nearly its size
    where it is large; arguments and errors as in `squared_error`.

    >>> ff.nn.log_cosh_loss(np.array([1.0, 2000.0]), np.array([1.0, 0.0])).round(4)
    array([   0.    , 1999.3069])
    """
    return logcosh(_difference("log_cosh_loss", predictions, targets))


def squared_log_error(predictions: Any, targets: Any) -> Any:
    """The square of each difference of ``log(1 + x)``, whose mean is the MSLE: for positive numbers of which the ratio
    matters.

    Args:
        predictions: floats of any shape, greater than -1.
        targets: of the same shape, likewise.

    Returns:
        The losses, of the shape and dtype of the predictions.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the predictions are not floats.

    >>> ff.nn.squared_log_error(np.array([9.0, 999.0]), np.array([99.0, 99.0])).round(4)
    array([5.3019, 5.3019])
    """
    predictions, targets = float_pair("squared_log_error", predictions, targets, _PAIR)
    return np.square(np.log1p(predictions) - np.log1p(targets))


def poisson_nll_loss(
    predictions: Any, targets: Any, *, log_input: bool = True, full: bool = False, eps: float = 1e-8
) -> Any:
    """The negative log-likelihood of counts under Poisson distributions, without the part that does not depend on the
    predictions.

    Args:
        predictions: floats of any shape, the logarithms of the rates.
        targets: of the same shape, the counts.
        log_input: False where the predictions are the rates themselves, which are positive.
        full: add Stirling's approximation of ``log(targets!)``, for targets greater than 1.
        eps: added to rates before their logarithm is taken; without effect where these are given as logarithms.

    Returns:
        The losses in nats, of the shape and dtype of the predictions. They may be negative.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the predictions are not floats.

    >>> ff.nn.poisson_nll_loss(np.log([2.0, 3.0]), np.array([2, 3])).round(4)
    array([ 0.6137, -0.2958])
    """
    predictions, targets = float_pair("poisson_nll_loss", predictions, targets, _PAIR)
    if log_input:
        losses = np.exp(predictions) - targets * predictions
    else:
        losses = predictions - targets * np.log(predictions + number(eps))
    return losses + ops.safe_where(targets > 1, _stirling, targets) if full else losses


def _stirling(n: Any) -> Any:
    """Nearly ``log(n!)``."""
    return n * np.log(n) - n + 0.5 * np.log(2 * math.pi * n)


def gaussian_nll_loss(predictions: Any, targets: Any, variances: Any, *, full: bool = False, eps: float = 1e-6) -> Any:
    """The negative log-likelihood of numbers under normal distributions of given means and variances (Nix & Weigend,
    1994, "Estimating the mean and variance of the target probability distribution").

    Args:
        predictions: floats of any shape, the means.
        targets: of the same shape.
        variances: broadcast against the predictions, not negative.
        full: add the constant ``log(2 pi) / 2``.
        eps: the least variance that is reckoned with. The derivative in a smaller one is that at eps, so that it can
            grow again.

    Returns:
        The losses in nats, of the shape and dtype of the predictions. They may be negative.

    Raises:
        ShapeError: the shapes differ, or the variances do not broadcast.
        DtypeError: the predictions or variances are not floats.
        ArgumentError: a variance is negative.

    >>> ff.nn.gaussian_nll_loss(np.array([1.0, 1.0]), np.array([1.0, 3.0]), np.array([1.0, 4.0])).round(4)
    array([0.    , 1.1931])
    """
    who = "gaussian_nll_loss"
    difference, variances = _difference(who, predictions, targets), array(variances)
    check_float(who, "variances", variances)
    try:
        fits = np.broadcast_shapes(variances.shape, difference.shape) == difference.shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"{who}: variances must broadcast against predictions of shape {difference.shape}, got {variances.shape}"
        )
    if not is_tracer(variances) and np.any(variances < 0):
        raise ArgumentError(f"{who}: variances must not be negative; write np.exp(log_variances) or nn.softplus(...)")
    # What is added is a constant to every derivative.
    variances = ops.convert(variances, difference.dtype)
    variances = variances + ops.stop_gradient(np.maximum(variances, number(eps)) - variances)
    losses = 0.5 * (np.log(variances) + np.square(difference) / variances)
    return losses + 0.5 * math.log(2 * math.pi) if full else losses


def _difference(who: str, predictions: Any, targets: Any) -> Any:
    predictions, targets = float_pair(who, predictions, targets, _PAIR)
    return predictions - targets
