"""Losses: one number an example, not reduced over the batch.

The names and arguments are those of optax. The caller reduces, most often with `np.mean`, and may weigh the
examples first. What is predicted comes first and carries the gradient; labels are data.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import ops
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.padded import Padded

__all__ = [
    "absolute_error",
    "hinge_loss",
    "huber_loss",
    "kl_divergence",
    "sigmoid_binary_cross_entropy",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "squared_error",
]


def _array(x: Any) -> Any:
    """`x` itself where it is an array or a tracer, else the array of a list or a number."""
    if type(x) is Padded:
        raise ArgumentError(
            "a loss takes arrays, got a Padded batch: give it the .values of logits and labels, and average "
            "what it returns where there are words, as in np.mean(losses[labels.mask()])"
        )
    return x if hasattr(x, "dtype") else np.asarray(x)


def _float_pair(who: str, predicted: Any, wanted: Any, names: tuple[str, str], hint: str = "") -> tuple[Any, Any]:
    """Both as arrays of one shape, the second in the dtype of the first, which must be a float."""
    predicted, wanted = _array(predicted), _array(wanted)
    _check_float(who, names[0], predicted)
    if predicted.shape != wanted.shape:
        raise ShapeError(
            f"{who}: {names[0]} and {names[1]} must have the same shape, got {predicted.shape} and {wanted.shape}"
            f"{hint or '; nothing is broadcast here, reshape one to the other'}"
        )
    # Integers and booleans are strong dtypes: int64 labels would turn a float32 loss into float64.
    return predicted, wanted if wanted.dtype == predicted.dtype else wanted.astype(predicted.dtype)


def _check_float(who: str, name: str, x: Any) -> None:
    if x.dtype.kind != "f":
        raise DtypeError(f"{who}: {name} must be floats, got {x.dtype}; write {name}.astype(np.float32)")


def softmax_cross_entropy(logits: Any, labels: Any, *, label_smoothing: float = 0.0) -> Any:
    """Cross-entropy of the softmax of logits with given distributions over the classes.

    Args:
        logits: floats (..., classes), not normalised. They must be finite: a class is ruled out by a large
            negative logit such as -1e9, not by minus infinity.
        labels: (..., classes), a distribution over the last axis, such as one-hot rows.
        label_smoothing: the share of each label, in [0, 1), that is spread evenly over all classes (Szegedy
            et al., 2016, "Rethinking the Inception architecture").

    Returns:
        The losses (...) in nats, in the dtype of the logits.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the logits are not floats.
        ArgumentError: label_smoothing is not in [0, 1).

    >>> softmax_cross_entropy(np.zeros((1, 4)), np.array([[0.0, 1.0, 0.0, 0.0]])).round(4)
    array([1.3863])
    """
    who = "softmax_cross_entropy"
    hint = "; for integer labels write softmax_cross_entropy_with_integer_labels(logits, labels)"
    logits, labels = _float_pair(who, logits, labels, ("logits", "labels"), hint)
    _check_smoothing(who, label_smoothing)
    if label_smoothing:
        labels = (1 - label_smoothing) * labels + label_smoothing / labels.shape[-1]
    return -np.sum(labels * ops.log_softmax(logits, axis=-1), axis=-1)


def softmax_cross_entropy_with_integer_labels(
    logits: Any, labels: Any, *, label_smoothing: float = 0.0, ignore_index: int | None = None
) -> Any:
    """Cross-entropy of the softmax of logits with the number of the right class.

    Args:
        logits: floats (..., classes), not normalised.
        labels: integers (...), from 0 to classes - 1.
        label_smoothing: as in `softmax_cross_entropy`.
        ignore_index: a label whose examples have loss 0 and gradient 0, such as that of padding; it may be out
            of range. Reduce with ``np.sum(losses) / np.sum(labels != ignore_index)``.

    Returns:
        The losses (...) in nats, in the dtype of the logits.

    Raises:
        ShapeError: the labels do not have the shape of the logits without its last axis.
        DtypeError: the logits are not floats, or the labels are not integers.
        ArgumentError: a label is out of range, or label_smoothing is not in [0, 1).

    >>> losses = softmax_cross_entropy_with_integer_labels(np.zeros((2, 4)), np.array([3, -1]), ignore_index=-1)
    >>> losses.round(4)
    array([1.3863, 0.    ])
    """
    who = "softmax_cross_entropy_with_integer_labels"
    logits, labels = _array(logits), _array(labels)
    _check_float(who, "logits", logits)
    _check_smoothing(who, label_smoothing)
    _check_integer_labels(who, logits.shape, labels)
    used = labels if ignore_index is None else np.where(labels == ignore_index, 0, labels)
    _check_range(who, used, logits.shape[-1], ignore_index)
    log_p = ops.log_softmax(logits, axis=-1)
    losses = -_at_labels(log_p, used)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * np.mean(log_p, axis=-1)
    return losses if ignore_index is None else np.where(labels == ignore_index, 0.0, losses)


def _at_labels(log_p: Any, labels: Any) -> Any:
    """The element of each row of the last axis that a label names."""
    rows = np.reshape(log_p, (-1, log_p.shape[-1])) if log_p.ndim != 2 else log_p
    picked = rows[np.arange(rows.shape[0]), np.reshape(labels, -1)]
    return picked if log_p.ndim == 2 else np.reshape(picked, labels.shape)


def _check_smoothing(who: str, label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ArgumentError(f"{who}: label_smoothing must be at least 0 and less than 1, got {label_smoothing!r}")


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


def sigmoid_binary_cross_entropy(logits: Any, labels: Any) -> Any:
    """Cross-entropy of the sigmoid of each logit with the probability that it should give.

    Args:
        logits: floats of any shape.
        labels: of the same shape: 0 or 1, booleans, or probabilities between.

    Returns:
        The losses in nats, of the shape and dtype of the logits.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the logits are not floats.

    >>> sigmoid_binary_cross_entropy(np.array([0.0, 100.0]), np.array([True, False])).round(4)
    array([  0.6931, 100.    ])
    """
    logits, labels = _float_pair("sigmoid_binary_cross_entropy", logits, labels, ("logits", "labels"))
    # Two softplus and no difference: exact in the tails, where the loss of a right answer is tiny.
    return labels * ops.softplus(-logits) + (1 - labels) * ops.softplus(logits)


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

    >>> squared_error(np.array([1.0, 2.0]), np.array([0, 5]))
    array([1., 9.])
    """
    predictions, targets = _float_pair("squared_error", predictions, targets, ("predictions", "targets"))
    return np.square(predictions - targets)


def absolute_error(predictions: Any, targets: Any) -> Any:
    """The absolute value of each difference; arguments and errors as in `squared_error`.

    >>> absolute_error(np.array([1.0, 2.0]), np.array([0, 5]))
    array([1., 3.])
    """
    predictions, targets = _float_pair("absolute_error", predictions, targets, ("predictions", "targets"))
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

    >>> huber_loss(np.array([0.5, 3.0]), np.array([0.0, 0.0]))
    array([0.125, 2.5  ])
    """
    if delta <= 0:
        raise ArgumentError(f"huber_loss: delta must be positive, got {delta!r}")
    predictions, targets = _float_pair("huber_loss", predictions, targets, ("predictions", "targets"))
    size = np.abs(predictions - targets)
    inner = np.minimum(size, delta)
    return 0.5 * np.square(inner) + delta * (size - inner)


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

    >>> hinge_loss(np.array([2.0, 0.5, 0.5]), np.array([1, 1, -1]))
    array([0. , 0.5, 1.5])
    """
    outputs, targets = _float_pair("hinge_loss", predictor_outputs, targets, ("predictor_outputs", "targets"))
    if isinstance(targets, np.ndarray) and not np.all(np.abs(targets) == 1):
        raise ArgumentError("hinge_loss: targets must be -1 or 1; for labels 0 and 1 write 2 * labels - 1")
    return np.maximum(1 - outputs * targets, 0.0)


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

    >>> kl_divergence(np.log([[0.5, 0.5]]), np.array([[1.0, 0.0]])).round(4)
    array([0.6931])
    """
    log_q, p = _float_pair("kl_divergence", log_predictions, targets, ("log_predictions", "targets"))
    present = p != 0
    log_ratio = np.log(np.where(present, p, 1.0)) - log_q
    return np.sum(p * np.where(present, log_ratio, 0.0), axis=-1)
