"""Losses of embeddings: vectors that shall lie near each other, or far apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import ops
from fnflare.core import number
from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn.losses.checks import array, float_pair
from fnflare.nn.losses.classification import softmax_cross_entropy_with_integer_labels

__all__ = [
    "contrastive_loss",
    "cosine_distance",
    "cosine_embedding_loss",
    "cosine_similarity",
    "hinge_embedding_loss",
    "info_nce_loss",
    "margin_ranking_loss",
    "triplet_margin_loss",
]


def cosine_similarity(predictions: Any, targets: Any, *, axis: int = -1, eps: float = 1e-8) -> Any:
    """The cosine of the angle between vectors.

    Args:
        predictions: floats of any shape.
        targets: of the same shape.
        axis: the axis of the vectors.
        eps: a vector whose norm is not larger than this has no direction: its similarity is 0, and so is the gradient.

    Returns:
        The similarities, from -1 to 1, of the shape without the axis.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the predictions are not floats.

    >>> ff.nn.cosine_similarity(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[6.0, 8.0], [1.0, 0.0]])).round(6)
    array([1., 0.])
    """
    x, y = float_pair("cosine_similarity", predictions, targets, ("predictions", "targets"))
    return np.sum(_direction(x, axis, eps) * _direction(y, axis, eps), axis=axis)


def _direction(x: Any, axis: int, eps: float) -> Any:
    """Vectors divided by their norms; zeros where these are nearly zero."""
    norm = ops.safe_norm(x, axis=axis, keepdims=True)
    return ops.safe_where(norm > eps, lambda x, norm: x / norm, x, norm)


def cosine_distance(predictions: Any, targets: Any, *, axis: int = -1, eps: float = 1e-8) -> Any:
    """1 minus `cosine_similarity`, from 0 to 2; arguments and errors as there.

    >>> ff.nn.cosine_distance(np.array([1.0, 0.0]), np.array([0.0, 5.0]))
    np.float64(1.0)
    """
    return 1.0 - cosine_similarity(predictions, targets, axis=axis, eps=eps)


def cosine_embedding_loss(
    embeddings: Any, others: Any, targets: Any, *, margin: float = 0.0, axis: int = -1, eps: float = 1e-8
) -> Any:
    """`cosine_distance` of pairs that belong together; of others by how much their similarity exceeds a margin.

    Args:
        embeddings: floats of any shape.
        others: of the same shape.
        targets: of that shape without the axis: 1 for pairs that belong together, -1 for others.
        margin: the similarity that others may have, from -1 to 1.
        axis: the axis of the vectors.
        eps: as in `cosine_similarity`.

    Returns:
        The losses, in the shape of the targets and the dtype of the embeddings.

    Raises:
        ShapeError: the shapes do not fit.
        DtypeError: the embeddings are not floats.
        ArgumentError: a target is neither -1 nor 1.

    >>> ff.nn.cosine_embedding_loss(np.eye(2), np.eye(2), np.array([1, -1]))
    array([0., 1.])
    """
    who = "cosine_embedding_loss"
    similarity = cosine_similarity(*_embeddings(who, embeddings, others), axis=axis, eps=eps)
    targets = _signs(who, _of_pairs(who, "targets", targets, similarity))
    return np.where(targets > 0, 1.0 - similarity, ops.relu(similarity - number(margin)))


def _embeddings(who: str, embeddings: Any, others: Any) -> tuple[Any, Any]:
    return float_pair(who, embeddings, others, ("embeddings", "others"))


def _of_pairs(who: str, name: str, labels: Any, wanted: Any) -> Any:
    labels = array(labels)
    if labels.shape != wanted.shape:
        raise ShapeError(f"{who}: {name} must be one for each pair, {wanted.shape}, got {labels.shape}")
    return labels


def triplet_margin_loss(
    anchors: Any,
    positives: Any,
    negatives: Any,
    *,
    margin: float = 1.0,
    norm_degree: float = 2,
    axis: int = -1,
    eps: float = 1e-6,
    swap: bool = False,
) -> Any:
    """How much an anchor's distance from a positive example, and a margin, exceed that from a negative one (Schultz &
    Joachims, 2004; Balntas et al., 2016).

    Args:
        anchors: floats of any shape.
        positives: of the same shape, what shall be near.
        negatives: of the same shape, what shall be far.
        margin: by how much it shall be farther.
        norm_degree: the p of the p-norm that measures distances.
        axis: the axis of the vectors.
        eps: added to each difference. With 0 the derivative of the distance between equal vectors is 0.
        swap: take the negative's distance from the positive example where that is less than from the anchor.

    Returns:
        The losses, of the shape without the axis.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the anchors are not floats.

    >>> ff.nn.triplet_margin_loss(np.array([0.0, 0.0]), np.array([0.0, 1.0]), np.array([1.5, 0.0])).round(4)
    np.float64(0.5)
    """
    who = "triplet_margin_loss"
    _, positives = float_pair(who, anchors, positives, ("anchors", "positives"))
    anchors, negatives = float_pair(who, anchors, negatives, ("anchors", "negatives"))

    def distance(x: Any, y: Any) -> Any:
        return ops.safe_norm(x - y + number(eps), number(norm_degree), axis)

    far = distance(anchors, negatives)
    if swap:
        far = np.minimum(far, distance(positives, negatives))
    return ops.relu(distance(anchors, positives) - far + number(margin))


def margin_ranking_loss(scores: Any, others: Any, targets: Any, *, margin: float = 0.0) -> Any:
    """How far a score is from being above another, or below it, by a margin (Herbrich et al., 1999).

    Args:
        scores: floats of any shape.
        others: of the same shape.
        targets: of the same shape, 1 where the score shall be the larger one, -1 where the other.
        margin: by how much.

    Returns:
        The losses, of the shape and dtype of the scores.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the scores are not floats.
        ArgumentError: a target is neither -1 nor 1.

    >>> ff.nn.margin_ranking_loss(np.array([2.0, 2.0]), np.array([1.0, 1.0]), np.array([1, -1]))
    array([0., 1.])
    """
    who = "margin_ranking_loss"
    x, y = float_pair(who, scores, others, ("scores", "others"))
    targets = ops.convert(_signs(who, _of_pairs(who, "targets", targets, x)), x.dtype)
    return ops.relu(number(margin) - targets * (x - y))


def hinge_embedding_loss(distances: Any, targets: Any, *, margin: float = 1.0) -> Any:
    """The distance of a pair that belongs together; of another by how much its distance falls short of a margin.

    Args:
        distances: floats of any shape.
        targets: of the same shape: 1 for pairs that belong together, -1 for others.
        margin: the distance that others shall have at least.

    Returns:
        The losses, of the shape and dtype of the distances.

    Raises:
        ShapeError: the shapes differ.
        DtypeError: the distances are not floats.
        ArgumentError: a target is neither -1 nor 1.

    >>> ff.nn.hinge_embedding_loss(np.array([0.25, 0.25]), np.array([1, -1]))
    array([0.25, 0.75])
    """
    who = "hinge_embedding_loss"
    distances, targets = float_pair(who, distances, targets, ("distances", "targets"))
    return np.where(_signs(who, targets) > 0, distances, ops.relu(number(margin) - distances))


def _signs(who: str, targets: Any) -> Any:
    if isinstance(targets, np.ndarray) and not np.all(np.abs(targets) == 1):
        raise ArgumentError(f"{who}: targets must be -1 or 1; for labels 0 and 1 write 2 * labels - 1")
    return targets


def contrastive_loss(embeddings: Any, others: Any, similar: Any, *, margin: float = 1.0, axis: int = -1) -> Any:
    """The squared distance of pairs that are similar; of others the square of what their distance lacks of a margin
    (Hadsell et al., 2006, "Dimensionality reduction by learning an invariant mapping").

    The distance of equal vectors that shall not be similar has derivative 0.

    Args:
        embeddings: floats of any shape.
        others: of the same shape.
        similar: of that shape without the axis, booleans, or 1 and 0.
        margin: the distance that others shall have at least.
        axis: the axis of the vectors.

    Returns:
        The losses, in the shape of `similar` and the dtype of the embeddings.

    Raises:
        ShapeError: the shapes do not fit.
        DtypeError: the embeddings are not floats.

    >>> ff.nn.contrastive_loss(np.zeros((2, 1)), np.full((2, 1), 0.25), np.array([True, False]))
    array([0.0625, 0.5625])
    """
    who = "contrastive_loss"
    x, y = _embeddings(who, embeddings, others)
    difference = x - y
    squared = np.sum(np.square(difference), axis=axis)
    similar = _of_pairs(who, "similar", similar, squared)
    lacking = ops.relu(number(margin) - ops.safe_norm(difference, axis=axis))
    return np.where(similar != 0, squared, np.square(lacking))


def info_nce_loss(embeddings: Any, others: Any, *, temperature: float = 0.1, eps: float = 1e-8) -> Any:
    """The cross-entropy of finding the partner of each vector among those of the whole batch by `cosine_similarity`
    (van den Oord et al., 2018; Radford et al., 2021, who add the loss with the arguments exchanged).

    Args:
        embeddings: floats (N, features).
        others: (N, features), of which row i belongs to row i of the embeddings and is a negative example to the rest.
        temperature: by which the similarities are divided.
        eps: as in `cosine_similarity`.

    Returns:
        The losses (N,) in nats, in the dtype of the embeddings.

    Raises:
        ShapeError: the shapes differ, or are not (N, features).
        DtypeError: the embeddings are not floats.
        ArgumentError: the temperature is not positive.

    >>> ff.nn.info_nce_loss(np.eye(3), np.eye(3), temperature=1.0).round(4)
    array([0.5514, 0.5514, 0.5514])
    """
    who = "info_nce_loss"
    x, y = _embeddings(who, embeddings, others)
    if x.ndim != 2:
        raise ShapeError(f"{who}: embeddings must have the shape (N, features), got {x.shape}")
    if not temperature > 0:
        raise ArgumentError(f"{who}: temperature must be positive, got {temperature!r}")
    similarities = _direction(x, -1, eps) @ np.transpose(_direction(y, -1, eps))
    return softmax_cross_entropy_with_integer_labels(similarities / number(temperature), np.arange(x.shape[0]))
