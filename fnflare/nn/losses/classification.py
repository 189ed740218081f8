"""Losses of classifiers: cross-entropies, focal losses, hinges, and divergences of distributions."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import ops
from fnflare.core import is_tracer, number
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn.losses.checks import array, check_float, float_pair

__all__ = [
    "hinge_loss",
    "kl_divergence",
    "kl_divergence_with_log_targets",
    "multi_margin_loss",
    "sigmoid_binary_cross_entropy",
    "sigmoid_focal_loss",
    "soft_margin_loss",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softmax_focal_loss",
    "softmax_focal_loss_with_integer_labels",
    "squared_hinge_loss",
]


def softmax_cross_entropy(logits: Any, labels: Any, *, label_smoothing: float = 0.0, class_weights: Any = None) -> Any:
    """Cross-entropy of the softmax of logits with given distributions over the classes.

    Args:
        logits: floats (..., classes), not normalised. They must be finite: a class is ruled out by a large
            negative logit such as -1e9, not by minus infinity.
        labels: (..., classes), a distribution over the last axis, such as one-hot rows.
        label_smoothing: the share of each label, in [0, 1), that is spread evenly over all classes (Szegedy
            et al., 2016, "Rethinking the Inception architecture").
        class_weights: (classes,), by which the part of each class in a loss is multiplied.

    Returns:
        The losses (...) in nats, in the dtype of the logits.

    Raises:
        ShapeError: the shapes differ, or there are not as many weights as classes.
        DtypeError: the logits are not floats.
        ArgumentError: label_smoothing is not in [0, 1).

    >>> ff.nn.softmax_cross_entropy(np.zeros((1, 4)), np.array([[0.0, 1.0, 0.0, 0.0]])).round(4)
    array([1.3863])
    """
    who = "softmax_cross_entropy"
    hint = "; for integer labels write softmax_cross_entropy_with_integer_labels(logits, labels)"
    logits, labels = float_pair(who, logits, labels, ("logits", "labels"), hint)
    label_smoothing = _checked_smoothing(who, label_smoothing)
    if label_smoothing:
        labels = (1 - label_smoothing) * labels + label_smoothing / labels.shape[-1]
    if class_weights is not None:
        labels = labels * _weights(who, class_weights, logits)
    return -np.sum(labels * ops.log_softmax(logits, axis=-1), axis=-1)


def softmax_cross_entropy_with_integer_labels(
    logits: Any,
    labels: Any,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    class_weights: Any = None,
) -> Any:
    """Cross-entropy of the softmax of logits with the number of the right class.

    Args:
        logits: floats (..., classes), not normalised.
        labels: integers (...), from 0 to classes - 1.
        label_smoothing: as in `softmax_cross_entropy`.
        ignore_index: a label whose examples have loss 0 and gradient 0, such as that of padding; it may be out
            of range. Reduce with ``np.sum(losses) / np.sum(labels != ignore_index)``.
        class_weights: (classes,), by which the loss of an example is multiplied, that of its class. A mean that is
            weighted too is ``np.sum(losses) / np.sum(class_weights[labels])``.

    Returns:
        The losses (...) in nats, in the dtype of the logits.

    Raises:
        ShapeError: the labels do not have the shape of the logits without its last axis, or there are not as many
            weights as classes.
        DtypeError: the logits are not floats, or the labels are not integers.
        ArgumentError: a label is out of range, or label_smoothing is not in [0, 1).

    >>> losses = ff.nn.softmax_cross_entropy_with_integer_labels(np.zeros((2, 4)), np.array([3, -1]), ignore_index=-1)
    >>> losses.round(4)
    array([1.3863, 0.    ])
    """
    who = "softmax_cross_entropy_with_integer_labels"
    logits, labels, used = _checked_labels(who, logits, labels, ignore_index)
    label_smoothing = _checked_smoothing(who, label_smoothing)
    log_p = ops.log_softmax(logits, axis=-1)
    losses = -_at_labels(log_p, used)
    weights = None if class_weights is None else _weights(who, class_weights, logits)
    if weights is not None:
        losses = losses * ops.at(weights)[used].get()
    if label_smoothing:
        spread = np.mean(log_p if weights is None else log_p * weights, axis=-1)
        losses = (1 - label_smoothing) * losses - label_smoothing * spread
    return losses if ignore_index is None else np.where(labels == ignore_index, 0.0, losses)


def _checked_labels(who: str, logits: Any, labels: Any, ignore_index: int | None) -> tuple[Any, Any, Any]:
    """Logits, integer labels, and the labels with some class in place of `ignore_index`."""
    logits, labels = array(logits), array(labels)
    check_float(who, "logits", logits)
    _check_integer_labels(who, logits.shape, labels)
    used = labels if ignore_index is None else np.where(labels == ignore_index, 0, labels)
    _check_range(who, used, logits.shape[-1], ignore_index)
    return logits, labels, used


def _weights(who: str, class_weights: Any, logits: Any) -> Any:
    """The weights of the classes, in the dtype of the logits."""
    weights = array(class_weights)
    if weights.shape != logits.shape[-1:]:
        raise ShapeError(
            f"{who}: class_weights must be one number for each of the {logits.shape[-1]} classes, "
            f"got shape {weights.shape}"
        )
    return weights if weights.dtype == logits.dtype else weights.astype(logits.dtype)


def _at_labels(log_p: Any, labels: Any) -> Any:
    """The element of each row of the last axis that a label names."""
    rows = np.reshape(log_p, (-1, log_p.shape[-1])) if log_p.ndim != 2 else log_p
    at = np.arange(rows.shape[0]), np.reshape(labels, -1)
    picked = ops.at(rows)[at].get() if is_tracer(labels) else rows[at]
    return picked if log_p.ndim == 2 else np.reshape(picked, labels.shape)


def _checked_smoothing(who: str, label_smoothing: float) -> Any:
    if not 0 <= label_smoothing < 1:
        raise ArgumentError(f"{who}: label_smoothing must be at least 0 and less than 1, got {label_smoothing!r}")
    return number(label_smoothing)


def _check_integer_labels(who: str, logits_shape: tuple[int, ...], labels: Any) -> None:
    if labels.dtype.kind not in "iu":
        raise DtypeError(
            f"{who}: labels must be integers, got {labels.dtype}; for distributions over the classes write "
            "softmax_cross_entropy(logits, labels)"
        )
    if not logits_shape or labels.shape != logits_shape[:-1]:
        raise ShapeError(
            f"{who}: labels must have the shape of the logits without the last axis (the classes), "
            f"got logits {logits_shape} and labels {labels.shape}"
        )


def _check_range(who: str, labels: Any, classes: int, ignore_index: int | None) -> None:
    if not isinstance(labels, (np.ndarray, np.generic)) or labels.size == 0:  # a tracer's values may not be known
        return
    low, high = labels.min(), labels.max()
    if low < 0 or high >= classes:
        besides = "" if ignore_index is None else f", or ignore_index={ignore_index}"
        raise ArgumentError(
            f"{who}: labels must be from 0 to {classes - 1} for logits of {classes} classes{besides}, "
            f"got {low if low < 0 else high}; "
            "pass ignore_index= for the label of padding, or widen the last layer"
        )


def sigmoid_binary_cross_entropy(logits: Any, labels: Any, *, pos_weight: Any = None) -> Any:
    """Cross-entropy of the sigmoid of each logit with the probability that it should give.

    Args:
        logits: floats of any shape.
        labels: of the same shape: 0 or 1, booleans, or probabilities between.
        pos_weight: by which the part of label 1 in a loss is multiplied: a number, or an array that broadcasts
            against the logits, such as one for each class. More than 1 favours recall, less than 1 precision.

    Returns:
        The losses in nats, of the shape and dtype of the logits.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the logits are not floats.

    >>> ff.nn.sigmoid_binary_cross_entropy(np.array([0.0, 100.0]), np.array([True, False])).round(4)
    array([  0.6931, 100.    ])
    """
    logits, labels = float_pair("sigmoid_binary_cross_entropy", logits, labels, ("logits", "labels"))
    # Two softplus and no difference: exact in the tails, where the loss of a right answer is tiny.
    of_ones = labels if pos_weight is None else labels * ops.convert(array(pos_weight), logits.dtype)
    return of_ones * ops.softplus(-logits) + (1 - labels) * ops.softplus(logits)


def sigmoid_focal_loss(logits: Any, labels: Any, *, alpha: float | None = None, gamma: float = 2.0) -> Any:
    """`sigmoid_binary_cross_entropy` that gives easy examples less weight: ``(1 - p)**gamma`` times it, p being the
    probability of the right answer (Lin et al., 2017, "Focal loss for dense object detection").

    Args:
        logits: floats of any shape.
        labels: of the same shape: 0 or 1, booleans, or probabilities between.
        alpha: the weight of label 1, that of label 0 being ``1 - alpha``; None for 1 and 1.
        gamma: at least 0; with 0 this is the cross-entropy.

    Returns:
        The losses in nats, of the shape and dtype of the logits.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the logits are not floats.
        ArgumentError: gamma is negative.

    >>> ff.nn.sigmoid_focal_loss(np.array([0.0, 100.0]), np.array([True, False])).round(4)
    array([  0.1733, 100.    ])
    """
    who = "sigmoid_focal_loss"
    logits, labels = float_pair(who, logits, labels, ("logits", "labels"))
    losses = labels * ops.softplus(-logits) + (1 - labels) * ops.softplus(logits)
    wrong = labels * ops.logistic(-logits) + (1 - labels) * ops.logistic(logits)
    losses, alpha = _focus(who, wrong, gamma) * losses, number(alpha)
    return losses if alpha is None else losses * (alpha * labels + (1 - alpha) * (1 - labels))


def _focus(who: str, wrong: Any, gamma: float) -> Any:
    """``wrong**gamma``, with a finite derivative where the probability of being wrong is 0, also for gamma below 1."""
    if not gamma >= 0:
        raise ArgumentError(f"{who}: gamma must be at least 0, got {gamma!r}")
    gamma = number(gamma)
    if gamma == 0:
        return np.ones_like(wrong)
    return ops.safe_where(wrong > 0, lambda p: p**gamma, wrong)


def softmax_focal_loss(logits: Any, labels: Any, *, gamma: float = 2.0, class_weights: Any = None) -> Any:
    """`softmax_cross_entropy` in which each class has the weight ``(1 - p)**gamma``, p being its probability (Lin et
    al., 2017).

    Args:
        logits: floats (..., classes), not normalised.
        labels: (..., classes), a distribution over the last axis, such as one-hot rows.
        gamma: at least 0; with 0 this is the cross-entropy.
        class_weights: (classes,), by which the part of each class in a loss is multiplied.

    Returns:
        The losses (...) in nats, in the dtype of the logits.

    Raises:
        ShapeError: the shapes differ, or there are not as many weights as classes.
        DtypeError: the logits are not floats.
        ArgumentError: gamma is negative.

    >>> ff.nn.softmax_focal_loss(np.zeros((1, 2)), np.array([[0.0, 1.0]])).round(4)
    array([0.1733])
    """
    who = "softmax_focal_loss"
    hint = "; for integer labels write softmax_focal_loss_with_integer_labels(logits, labels)"
    logits, labels = float_pair(who, logits, labels, ("logits", "labels"), hint)
    if class_weights is not None:
        labels = labels * _weights(who, class_weights, logits)
    log_p = ops.log_softmax(logits, axis=-1)
    return -np.sum(labels * _focus(who, -np.expm1(log_p), gamma) * log_p, axis=-1)


def softmax_focal_loss_with_integer_labels(
    logits: Any, labels: Any, *, gamma: float = 2.0, ignore_index: int | None = None, class_weights: Any = None
) -> Any:
    """`softmax_focal_loss` with the number of the right class.

    Args:
        logits: floats (..., classes), not normalised.
        labels: integers (...), from 0 to classes - 1.
        gamma: at least 0; with 0 this is the cross-entropy.
        ignore_index: a label whose examples have loss 0 and gradient 0.
        class_weights: (classes,), by which the loss of an example is multiplied, that of its class.

    Returns:
        The losses (...) in nats, in the dtype of the logits.

    Raises:
        ShapeError: the labels do not have the shape of the logits without its last axis, or there are not as many
            weights as classes.
        DtypeError: the logits are not floats, or the labels are not integers.
        ArgumentError: a label is out of range, or gamma is negative.

    >>> ff.nn.softmax_focal_loss_with_integer_labels(np.zeros((1, 2)), np.array([1])).round(4)
    array([0.1733])
    """
    who = "softmax_focal_loss_with_integer_labels"
    logits, labels, used = _checked_labels(who, logits, labels, ignore_index)
    log_p = _at_labels(ops.log_softmax(logits, axis=-1), used)
    losses = -_focus(who, -np.expm1(log_p), gamma) * log_p
    if class_weights is not None:
        losses = losses * ops.at(_weights(who, class_weights, logits))[used].get()
    return losses if ignore_index is None else np.where(labels == ignore_index, 0.0, losses)


def hinge_loss(predictor_outputs: Any, targets: Any) -> Any:
    """The hinge loss of a linear classifier: how far each output is from a margin of 1 on the right side.

    Args:
        predictor_outputs: floats of any shape.
        targets: of the same shape, -1 or 1.

    Returns:
        The losses, of the shape and dtype of the outputs.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the outputs are not floats.
        ArgumentError: a target is neither -1 nor 1.

    >>> ff.nn.hinge_loss(np.array([2.0, 0.5, 0.5]), np.array([1, 1, -1]))
    array([0. , 0.5, 1.5])
    """
    return np.maximum(1 - _agreement("hinge_loss", predictor_outputs, targets), 0.0)


def squared_hinge_loss(predictor_outputs: Any, targets: Any) -> Any:
    """The square of `hinge_loss`, which is smooth; arguments and errors as there.

    >>> ff.nn.squared_hinge_loss(np.array([2.0, 0.5, 0.5]), np.array([1, 1, -1]))
    array([0.  , 0.25, 2.25])
    """
    return np.square(np.maximum(1 - _agreement("squared_hinge_loss", predictor_outputs, targets), 0.0))


def soft_margin_loss(predictor_outputs: Any, targets: Any) -> Any:
    """The logistic loss, ``log(1 + exp(-outputs * targets))``; arguments and errors as in `hinge_loss`.

    >>> ff.nn.soft_margin_loss(np.array([0.0, -1000.0]), np.array([1, 1])).round(4)
    array([6.931e-01, 1.000e+03])
    """
    return ops.softplus(-_agreement("soft_margin_loss", predictor_outputs, targets))


def multi_margin_loss(logits: Any, labels: Any, *, margin: float = 1.0, p: int = 1) -> Any:
    """By how much the output of each other class, and a margin, exceed that of the right one, summed and divided by the
    number of classes (Weston & Watkins, 1999).

    Args:
        logits: floats (..., classes).
        labels: integers (...), from 0 to classes - 1.
        margin: by how much the right class shall be ahead.
        p: the power to which each excess is raised, 1 or 2.

    Returns:
        The losses (...), in the dtype of the logits.

    Raises:
        ShapeError: the labels do not have the shape of the logits without its last axis.
        DtypeError: the logits are not floats, or the labels are not integers.
        ArgumentError: a label is out of range, or p is neither 1 nor 2.

    >>> ff.nn.multi_margin_loss(np.array([[2.0, 1.5, 0.0, 0.0]]), np.array([0]))
    array([0.125])
    """
    who = "multi_margin_loss"
    if p not in (1, 2):
        raise ArgumentError(f"{who}: p must be 1 or 2, got {p!r}")
    logits, labels, _ = _checked_labels(who, logits, labels, None)
    excess = ops.relu(number(margin) - _at_labels(logits, labels)[..., None] + logits)
    others = np.arange(logits.shape[-1]) != labels[..., None]
    terms = np.where(others, excess if p == 1 else np.square(excess), np.zeros((), logits.dtype))
    return np.mean(terms, axis=-1)


def _agreement(who: str, outputs: Any, targets: Any) -> Any:
    """How far each output is on the right side."""
    outputs, targets = float_pair(who, outputs, targets, ("predictor_outputs", "targets"))
    if isinstance(targets, np.ndarray) and not np.all(np.abs(targets) == 1):
        raise ArgumentError(f"{who}: targets must be -1 or 1; for labels 0 and 1 write 2 * labels - 1")
    return outputs * targets


def kl_divergence(log_predictions: Any, targets: Any) -> Any:
    """The Kullback-Leibler divergence of predicted distributions from given ones, KL(targets || predictions).

    Args:
        log_predictions: floats (..., classes), logarithms of distributions over the last axis, such as
            ``ops.log_softmax(logits)``.
        targets: (..., classes), distributions; a probability of 0 contributes nothing, whatever is predicted.

    Returns:
        The divergences (...) in nats, in the dtype of the predictions.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the predictions are not floats.

    >>> ff.nn.kl_divergence(np.log([[0.5, 0.5]]), np.array([[1.0, 0.0]])).round(4)
    array([0.6931])
    """
    log_q, p = float_pair("kl_divergence", log_predictions, targets, ("log_predictions", "targets"))
    present = p != 0
    log_ratio = np.log(np.where(present, p, 1.0)) - log_q
    return np.sum(p * np.where(present, log_ratio, 0.0), axis=-1)


def kl_divergence_with_log_targets(log_predictions: Any, log_targets: Any) -> Any:
    """`kl_divergence` of distributions whose logarithms are given too, KL(targets || predictions).

    Args:
        log_predictions: floats (..., classes), logarithms of distributions over the last axis.
        log_targets: (..., classes), likewise; minus infinity is a probability of 0.

    Returns:
        The divergences (...) in nats, in the dtype of the predictions.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the predictions are not floats.

    >>> ff.nn.kl_divergence_with_log_targets(np.log([[0.5, 0.5]]), np.array([[0.0, -np.inf]])).round(4)
    array([0.6931])
    """
    names = ("log_predictions", "log_targets")
    log_q, log_p = float_pair("kl_divergence_with_log_targets", log_predictions, log_targets, names)
    terms = ops.safe_where(log_p > -np.inf, lambda p, q: np.exp(p) * (p - q), log_p, log_q)
    return np.sum(terms, axis=-1)
