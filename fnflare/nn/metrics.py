"""Metrics: how good predictions are, as plain numbers that nobody differentiates.

What is predicted comes first and is given in one of three ways: floats (..., classes), of which the largest
is the class; floats of the labels' own shape, where a positive one is class 1; or integers of that shape,
which are the classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from fnflare.errors import ArgumentError, DtypeError, ShapeError

__all__ = ["accuracy", "confusion_matrix", "f1", "precision", "recall", "roc_auc", "top_k_accuracy"]

Average = Literal["binary", "macro", "micro", "weighted"]


def _pairs(who: str, logits: ArrayLike, labels: ArrayLike, ignore_index: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of the examples that count, the predictions still as they were given."""
    given, wanted = np.asarray(logits), np.asarray(labels)
    if wanted.dtype.kind not in "iub":
        raise DtypeError(f"{who}: labels must be integers or booleans, got {wanted.dtype}")
    scores = given.dtype.kind == "f" and given.ndim == wanted.ndim + 1
    if (given.shape[:-1] if scores else given.shape) != wanted.shape:
        raise ShapeError(
            f"{who}: expected floats of shape {(*wanted.shape, 'classes')}, or floats or integers of shape "
            f"{wanted.shape}, for labels of shape {wanted.shape}; got {given.dtype} of shape {given.shape}"
        )
    counts = np.ones(wanted.shape, bool) if ignore_index is None else wanted != ignore_index
    if not counts.any():
        raise ArgumentError(f"{who}: there are no examples, so there is nothing to average")
    return given[counts], wanted[counts].astype(np.int64, copy=False)


def _classes(given: np.ndarray) -> np.ndarray:
    """The predicted class of each of n examples."""
    if given.ndim == 2:
        return np.argmax(given, axis=-1)
    return (given > 0 if given.dtype.kind == "f" else given).astype(np.int64, copy=False)


def accuracy(logits: ArrayLike, labels: ArrayLike, *, ignore_index: int | None = None) -> float:
    """The fraction of examples whose class is predicted right.

    Args:
        logits: scores or classes, as the module says.
        labels: the right classes, integers (...).
        ignore_index: a label whose examples do not count, such as that of padding.

    Returns:
        A number from 0 to 1.

    Raises:
        ShapeError, DtypeError: the two do not fit together.
        ArgumentError: there are no examples.

    >>> ff.nn.accuracy([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 0, 0])
    0.6666666666666666
    """
    given, wanted = _pairs("accuracy", logits, labels, ignore_index)
    return float(np.mean(_classes(given) == wanted))


def top_k_accuracy(logits: ArrayLike, labels: ArrayLike, k: int = 5, *, ignore_index: int | None = None) -> float:
    """The fraction of examples whose class is among the `k` with the largest scores.

    Of equal scores that of the lower class counts as the larger, so with k = 1 this is `accuracy`.

    Args:
        logits: floats (..., classes).
        labels: the right classes, integers (...).
        k: how many classes are looked at, from 1 to all.
        ignore_index: a label whose examples do not count.

    Returns:
        A number from 0 to 1.

    Raises:
        ShapeError, DtypeError: the two do not fit together.
        ArgumentError: there are no examples, a label is out of range, or there are no k classes.

    >>> ff.nn.top_k_accuracy([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], [1, 2], k=2)
    0.5
    """
    given, wanted = _pairs("top_k_accuracy", logits, labels, ignore_index)
    if given.ndim != 2:
        raise ShapeError("top_k_accuracy: needs scores of shape (..., classes), got one number an example")
    classes = np.arange(given.shape[1])
    if not 1 <= k <= classes.size:
        raise ArgumentError(f"top_k_accuracy: k must be from 1 to {classes.size}, the number of classes, got {k!r}")
    _check_range("top_k_accuracy", wanted, classes.size)
    own = np.take_along_axis(given, wanted[:, None], axis=1)
    # Not `given > own`: a score that is not a number ranks first, as in argmax.
    ahead = ~(given <= own) | ((given == own) & (classes < wanted[:, None]))
    ahead[np.arange(wanted.size), wanted] = False
    return float(np.mean(ahead.sum(axis=1) < k))


def _check_range(who: str, values: np.ndarray, num_classes: int, what: str = "labels") -> None:
    low, high = values.min(), values.max()
    if low < 0 or high >= num_classes:
        raise ArgumentError(
            f"{who}: {what} must be from 0 to {num_classes - 1} for {num_classes} classes, "
            f"got {low if low < 0 else high}"
        )


def _confusion(
    who: str, logits: ArrayLike, labels: ArrayLike, num_classes: int | None, ignore_index: int | None
) -> np.ndarray:
    given, wanted = _pairs(who, logits, labels, ignore_index)
    predicted = _classes(given)
    if num_classes is None:
        num_classes = max(given.shape[1] if given.ndim == 2 else 2, int(predicted.max()) + 1, int(wanted.max()) + 1)
    _check_range(who, predicted, num_classes, "predictions")
    _check_range(who, wanted, num_classes)
    cells = np.bincount(wanted * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def confusion_matrix(
    logits: ArrayLike, labels: ArrayLike, *, num_classes: int | None = None, ignore_index: int | None = None
) -> np.ndarray:
    """How many examples of each class are predicted as each class.

    Args:
        logits: scores or classes, as the module says.
        labels: the right classes, integers (...).
        num_classes: by default as many as the scores or the greatest number seen tell, at least 2.
        ignore_index: a label whose examples do not count.

    Returns:
        Counts (num_classes, num_classes), int64: the row is the label, the column the prediction.

    Raises:
        ShapeError, DtypeError: the two do not fit together.
        ArgumentError: there are no examples, or a class is out of range.

    >>> ff.nn.confusion_matrix([0, 1, 1, 1], [0, 0, 1, 1])
    array([[1, 1],
           [0, 2]])
    """
    return _confusion("confusion_matrix", logits, labels, num_classes, ignore_index)


def _ratio(over: np.ndarray, under: np.ndarray, zero_division: float) -> np.ndarray:
    safe = np.where(under == 0, 1, under)
    return np.where(under == 0, zero_division, over / safe)


# Of the right positives, the predicted positives and the labelled positives of each class.
_Score = Callable[[np.ndarray, np.ndarray, np.ndarray, float], np.ndarray]


def _averaged(
    who: str,
    score: _Score,
    logits: ArrayLike,
    labels: ArrayLike,
    average: Average | None,
    num_classes: int | None,
    zero_division: float,
    ignore_index: int | None,
) -> float | np.ndarray:
    matrix = _confusion(who, logits, labels, num_classes, ignore_index)
    right, predicted, labelled = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    if average == "binary":
        if matrix.shape[0] != 2:
            raise ArgumentError(
                f"{who}: average='binary' is for 2 classes, got {matrix.shape[0]}; "
                "write average='macro', 'micro', 'weighted' or None"
            )
        return float(score(right, predicted, labelled, zero_division)[1])
    if average == "micro":
        return float(score(right.sum(), predicted.sum(), labelled.sum(), zero_division))
    scores = score(right, predicted, labelled, zero_division)
    if average is None:
        return scores
    if average == "macro":
        return float(np.mean(scores[(predicted + labelled) > 0]))
    if average == "weighted":
        return float(np.average(scores, weights=labelled))
    raise ArgumentError(f"{who}: average must be 'binary', 'macro', 'micro', 'weighted' or None, got {average!r}")


def _precision(right: np.ndarray, predicted: np.ndarray, labelled: np.ndarray, zero_division: float) -> np.ndarray:
    return _ratio(right, predicted, zero_division)


def _recall(right: np.ndarray, predicted: np.ndarray, labelled: np.ndarray, zero_division: float) -> np.ndarray:
    return _ratio(right, labelled, zero_division)


def _f1(right: np.ndarray, predicted: np.ndarray, labelled: np.ndarray, zero_division: float) -> np.ndarray:
    return _ratio(2 * right, predicted + labelled, zero_division)


def precision(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    average: Average | None = "binary",
    num_classes: int | None = None,
    zero_division: float = 0.0,
    ignore_index: int | None = None,
) -> float | np.ndarray:
    """The fraction of the examples predicted as a class that are of it.

    Args:
        logits: scores or classes, as the module says.
        labels: the right classes, integers (...).
        average: ``"binary"`` gives the score of class 1 of two; ``"macro"`` the mean over the classes that are
            labelled or predicted at all; ``"micro"`` that of all classes counted together, which is the accuracy;
            ``"weighted"`` the mean weighted by how often a class is labelled; None each class's own.
        num_classes: by default as many as the scores or the greatest number seen tell, at least 2.
        zero_division: the score of a class where nothing is predicted as it.
        ignore_index: a label whose examples do not count.

    Returns:
        A number from 0 to 1, or with ``average=None`` an array (num_classes,).

    Raises:
        ShapeError, DtypeError: the two do not fit together.
        ArgumentError: there are no examples, a class is out of range, or `average` does not fit the classes.

    >>> ff.nn.precision([1, 1, 1, 0], [1, 1, 0, 0])
    0.6666666666666666
    """
    return _averaged("precision", _precision, logits, labels, average, num_classes, zero_division, ignore_index)


def recall(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    average: Average | None = "binary",
    num_classes: int | None = None,
    zero_division: float = 0.0,
    ignore_index: int | None = None,
) -> float | np.ndarray:
    """The fraction of the examples of a class that are predicted as it.

    Args:
        logits: scores or classes, as the module says.
        labels: the right classes, integers (...).
        average: ``"binary"`` gives the score of class 1 of two; ``"macro"`` the mean over the classes that are
            labelled or predicted at all; ``"micro"`` that of all classes counted together, which is the accuracy;
            ``"weighted"`` the mean weighted by how often a class is labelled; None each class's own.
        num_classes: by default as many as the scores or the greatest number seen tell, at least 2.
        zero_division: the score of a class where nothing is labelled as it.
        ignore_index: a label whose examples do not count.

    Returns:
        A number from 0 to 1, or with ``average=None`` an array (num_classes,).

    Raises:
        ShapeError, DtypeError: the two do not fit together.
        ArgumentError: there are no examples, a class is out of range, or `average` does not fit the classes.

    >>> ff.nn.recall([1, 0, 0, 0], [1, 1, 0, 0])
    0.5
    """
    return _averaged("recall", _recall, logits, labels, average, num_classes, zero_division, ignore_index)


def f1(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    average: Average | None = "binary",
    num_classes: int | None = None,
    zero_division: float = 0.0,
    ignore_index: int | None = None,
) -> float | np.ndarray:
    """The harmonic mean of `precision` and `recall`.

    Args:
        logits: scores or classes, as the module says.
        labels: the right classes, integers (...).
        average: ``"binary"`` gives the score of class 1 of two; ``"macro"`` the mean over the classes that are
            labelled or predicted at all; ``"micro"`` that of all classes counted together, which is the accuracy;
            ``"weighted"`` the mean weighted by how often a class is labelled; None each class's own.
        num_classes: by default as many as the scores or the greatest number seen tell, at least 2.
        zero_division: the score of a class where nothing is labelled or predicted as it.
        ignore_index: a label whose examples do not count.

    Returns:
        A number from 0 to 1, or with ``average=None`` an array (num_classes,).

    Raises:
        ShapeError, DtypeError: the two do not fit together.
        ArgumentError: there are no examples, a class is out of range, or `average` does not fit the classes.

    >>> ff.nn.f1([1, 1, 1, 0], [1, 1, 0, 0])
    0.8
    """
    return _averaged("f1", _f1, logits, labels, average, num_classes, zero_division, ignore_index)


def roc_auc(scores: ArrayLike, labels: ArrayLike, *, ignore_index: int | None = None) -> float:
    """The area under the receiver operating characteristic: how often an example of a class has a larger score for it
    than one of another class, ties counted as half (Hanley & McNeil 1982).

    Args:
        scores: floats of the labels' shape, larger where class 1 is more likely; or floats (..., classes), of which the
            areas of all classes, each against the rest, are averaged. Any increasing function of the scores gives the
            same, so logits will do where there is one number an example.
        labels: the right classes, integers (...).
        ignore_index: a label whose examples do not count.

    Returns:
        A number from 0 to 1; 0.5 is chance. Classes of which there is no example, or no other, are left out.

    Raises:
        ShapeError, DtypeError: the two do not fit together.
        ArgumentError: there are no two classes among the labels, or a label is out of range.

    >>> ff.nn.roc_auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    given, wanted = _pairs("roc_auc", scores, labels, ignore_index)
    if given.dtype.kind != "f":
        raise DtypeError(f"roc_auc: needs scores, floats, and not predicted classes; got {given.dtype}")
    several = given.ndim == 2
    _check_range("roc_auc", wanted, given.shape[1] if several else 2)
    columns = enumerate(given.T) if several else [(1, given)]
    pairs = [(column, wanted == k) for k, column in columns]
    areas = [_area(column, positive) for column, positive in pairs if 0 < positive.sum() < positive.size]
    if not areas:
        raise ArgumentError("roc_auc: all labels are of one class, so there is nothing to tell apart")
    return float(np.mean(areas))


def _area(scores: np.ndarray, positive: np.ndarray) -> float:
    """The share of pairs of a positive and a negative example that the scores put right, from the sum of ranks."""
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # equal scores share the mean of their ranks
    n = int(positive.sum())
    return float((ranks[places][positive].sum() - n * (n + 1) / 2) / (n * (positive.size - n)))
