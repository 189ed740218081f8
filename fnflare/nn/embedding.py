"""Embeddings: integers in, vectors out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fnflare.core import is_tracer
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.initializers import Initializer, normal
from fnflare.nn.layer import (
    Layer,
    Shape,
    checked_shape,
    function,
    is_pair_of_shapes,
    layer,
    positive_int,
    require_key,
    units_of,
)
from fnflare.nn.windows import clear
from fnflare.ops.at import at
from fnflare.padded import Padded

__all__ = ["Embedding", "EmbeddingBag", "FixedEmbedding"]

_NORMAL = normal(1.0)


def Embedding(vocab: int, dim: int, *, W_init: Initializer = _NORMAL) -> Layer:
    """A trainable vector for each of `vocab` words.

    Inputs: integers of any shape, each at least 0 and below `vocab`; outputs (..., dim). A `Padded`
    batch passes with its lengths. Parameters ``{"W": (vocab, dim)}``.

    Args:
        vocab: the number of words.
        dim: the size of the vectors.
        W_init: draws W, ``init(key, shape)``; by default normal with standard deviation 1, which gives
            layers after it inputs of variance 1.

    Raises:
        ArgumentError: a setting is out of range; when applied, a word is not below `vocab`.
        DtypeError: when applied, the inputs are not integers.

    >>> from fnflare import nn, random
    >>> shape, params = nn.Embedding(1000, 25).init(random.key(0), (-1, -1))
    >>> shape, params["W"].shape
    ((-1, -1, 25), (1000, 25))
    """
    vocab, dim = positive_int("Embedding", "vocab", vocab), positive_int("Embedding", "dim", dim)
    function("Embedding", "W_init", W_init)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        require_key("Embedding", key)
        return (*input_shape, dim), {"W": W_init(key, (vocab, dim))}

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        return _look_up("Embedding", params["W"], inputs)

    return layer("Embedding", init, apply, lambda shape, out, params: 0)


def FixedEmbedding(matrix: ArrayLike) -> Layer:
    """A given vector for each word, which is not trained: it is no parameter.

    Inputs: integers of any shape; outputs (..., dim) in the dtype of the matrix. A `Padded` batch
    passes with its lengths. Parameters ``()``.

    Args:
        matrix: (vocab, dim), a vector for each word, such as those of GloVe.

    Raises:
        ArgumentError: the matrix does not have two axes; when applied, a word is not below ``vocab``.
        DtypeError: when applied, the inputs are not integers.

    >>> ff.nn.FixedEmbedding(np.eye(3)).apply((), np.array([2, 0]))
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    vectors = np.asarray(matrix)
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        raise ArgumentError(
            "FixedEmbedding: expected a floating-point matrix of shape (vocab, dim), "
            f"got {vectors.dtype} of shape {vectors.shape}"
        )

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        return (*input_shape, vectors.shape[1]), ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        return _look_up("FixedEmbedding", vectors, inputs)

    return layer("FixedEmbedding", init, apply, lambda shape, out, params: 0)


def EmbeddingBag(vocab: int, dim: int, *, mode: str = "mean", W_init: Initializer = _NORMAL) -> Layer:
    """One vector for a bag of words: the mean, sum or maximum of theirs.

    Inputs: integers (N, T), bags of T words each; a `Padded` batch of them, bags of as many words as each sequence has;
    or a pair (words, offsets) of integers (M,) and (N,), bag i from offset i up to the next, the last up to the end.
    Outputs (N, dim), zeros for a bag without words. Parameters ``{"W": (vocab, dim)}``.

    Args:
        vocab: the number of words.
        dim: the size of the vectors.
        mode: ``"mean"``, ``"sum"`` or ``"max"``.
        W_init: draws W, ``init(key, shape)``.

    Raises:
        ArgumentError: a setting is out of range; when applied, a word is not below `vocab`, or the offsets do not start
            with 0 and ascend.
        DtypeError: when applied, the inputs are not integers.
        ShapeError: when applied, they have other shapes.

    >>> params = {"W": np.array([[1.0], [2.0], [4.0]])}
    >>> bag = ff.nn.EmbeddingBag(3, 1, mode="sum").apply
    >>> bag(params, np.array([[0, 1], [2, 2]])).ravel()
    array([3., 8.])
    >>> bag(params, (np.array([0, 1, 2]), np.array([0, 0, 1]))).ravel()
    array([0., 1., 6.])
    """
    kind = "EmbeddingBag"
    vocab, dim = positive_int(kind, "vocab", vocab), positive_int(kind, "dim", dim)
    function(kind, "W_init", W_init)
    if mode not in ("mean", "sum", "max"):
        raise ArgumentError(f"{kind}: mode must be one of 'mean', 'sum', 'max', got {mode!r}")

    def init(key: Any, input_shape: Any) -> tuple[Shape, Any]:
        pair = is_pair_of_shapes(input_shape)
        shape = checked_shape(kind, input_shape[1] if pair else input_shape)
        if len(shape) != (1 if pair else 2):
            raise _not_bags(input_shape)
        require_key(kind, key)
        return (shape[0], dim), {"W": W_init(key, (vocab, dim))}

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is not Padded and isinstance(inputs, (tuple, list)):
            return _bags_by_offsets(params["W"], inputs, mode)
        if len(getattr(inputs.values if type(inputs) is Padded else inputs, "shape", (0, 0))) != 2:
            raise _not_bags(np.shape(inputs.values if type(inputs) is Padded else inputs))
        rows = _look_up(kind, params["W"], inputs)
        if type(rows) is not Padded:
            vectors, count = rows, np.asarray(rows.shape[1])
        else:
            vectors = clear(rows.values, rows.mask(), -np.inf if mode == "max" else 0)
            count = np.reshape(rows.lengths, (-1, 1))
        if vectors.shape[1] == 0:
            return np.zeros((vectors.shape[0], dim), vectors.dtype)
        if mode == "max":
            return np.where(count > 0, np.max(vectors, axis=1), np.zeros((), vectors.dtype))
        total = np.sum(vectors, axis=1)
        return total if mode == "sum" else total / np.maximum(count, 1).astype(total.dtype)

    def flops(shape: Any, out: Shape, params: Any) -> int:
        return units_of(out) if is_pair_of_shapes(shape) else units_of(shape) * dim

    return layer(kind, init, apply, flops, several=True)


def _bags_by_offsets(vectors: Any, inputs: Any, mode: str) -> Any:
    """Bags of words that lie one after the other, from the offset of each on."""
    if len(inputs) != 2 or any(len(np.shape(x)) != 1 for x in inputs):
        raise _not_bags(tuple([np.shape(x) for x in inputs]))
    words, offsets = inputs
    if getattr(offsets, "dtype", np.dtype(float)).kind not in "iu":
        raise DtypeError(f"{scoping.where()}EmbeddingBag expected offsets that are integers, got {offsets!r}")
    if not is_tracer(offsets) and (
        offsets[:1].any() or (np.diff(offsets) < 0).any() or (offsets[-1:] > words.shape[0]).any()
    ):
        raise ArgumentError(
            f"{scoping.where()}EmbeddingBag: offsets start with 0, ascend, and end within the {words.shape[0]} words, "
            f"got {offsets}"
        )
    rows = _look_up("EmbeddingBag", vectors, words)
    ends = np.concatenate([offsets[1:], np.full(1, rows.shape[0], offsets.dtype)])
    count = np.reshape(ends - offsets, (-1, 1))
    bag = np.searchsorted(offsets, np.arange(rows.shape[0]), side="right") - 1
    shape = (offsets.shape[0], rows.shape[1])
    if mode == "max":
        top = at(np.full(shape, -np.inf, rows.dtype))[bag].max(rows)
        return np.where(count > 0, top, np.zeros((), rows.dtype))
    total = at(np.zeros(shape, rows.dtype))[bag].add(rows)
    return total if mode == "sum" else total / np.maximum(count, 1).astype(rows.dtype)


def _not_bags(got: Any) -> ShapeError:
    return ShapeError(
        f"{scoping.where()}EmbeddingBag expected words (N, T), or a pair (words, offsets) of shapes (M,) and (N,), "
        f"got shape {got}"
    )


def _look_up(kind: str, vectors: Any, words: Any, batch: Padded | None = None) -> Any:
    if type(words) is Padded:
        return Padded(_look_up(kind, vectors, words.values, words), words.lengths)
    dtype = getattr(words, "dtype", None)
    if dtype is None or dtype.kind not in "iu":
        raise DtypeError(f"{scoping.where()}{kind} expected an array of integers, got {dtype or type(words).__name__}")
    if type(words) is np.ndarray and dtype.kind == "i" and words.size and words.min() < 0 and _is_in(words, batch):
        raise _no_such_words(kind, vectors, words)  # NumPy would count them from the end
    try:
        return at(vectors)[words].get()  # a plain table cannot be read at a tracer of words by itself
    except IndexError:
        raise _no_such_words(kind, vectors, words) from None


def _is_in(words: np.ndarray, batch: Padded | None) -> bool:
    """Whether words that have some negative ones have them in a sequence, and not past the ends alone."""
    return batch is None or (not is_tracer(batch.lengths) and bool(np.any(words[batch.mask()] < 0)))


def _no_such_words(kind: str, vectors: Any, words: Any) -> ArgumentError:
    return ArgumentError(
        f"{scoping.where()}{kind} has vectors for words 0 to {vectors.shape[0] - 1}, "
        f"got words from {words.min()} to {words.max()}"
    )
