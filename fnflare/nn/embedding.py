"""Embeddings: integers in, vectors out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fnflare.errors import ArgumentError, DtypeError
from fnflare.nn import scoping
from fnflare.nn.initializers import Initializer, normal
from fnflare.nn.layer import Layer, Shape, function, layer, positive_int, require_key
from fnflare.ops.at import at
from fnflare.padded import Padded

__all__ = ["Embedding", "FixedEmbedding"]

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

    >>> from fnflare import random
    >>> shape, params = Embedding(1000, 25).init(random.key(0), (-1, -1))
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

    >>> FixedEmbedding(np.eye(3)).apply((), np.array([2, 0]))
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


def _look_up(kind: str, vectors: Any, words: Any) -> Any:
    if type(words) is Padded:
        return Padded(_look_up(kind, vectors, words.values), words.lengths)
    dtype = getattr(words, "dtype", None)
    if dtype is None or dtype.kind not in "iu":
        raise DtypeError(f"{scoping.where()}{kind} expected an array of integers, got {dtype or type(words).__name__}")
    try:
        return at(vectors)[words].get()  # a plain table cannot be read at a tracer of words by itself
    except IndexError:
        raise ArgumentError(
            f"{scoping.where()}{kind} has vectors for words 0 to {vectors.shape[0] - 1}, "
            f"got words from {words.min()} to {words.max()}"
        ) from None
