"""Random words and variates as primitives: constants to every derivative, known by shape to `eval_shape`.

A key goes in, words come out, and words become variates; `fnflare.random` is written in these.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, primitive
from fnflare.kernels import philox, variates

__all__ = ["pieces_of", "variate", "words_of"]

_words = primitive(
    "random_words",
    philox.words,
    lambda key, *, domain, data, count: ShapeDtypeStruct((count,), np.uint64),
    differentiable=False,
)


def _cut(words: Any, *, dtype: np.dtype[Any], count: int) -> Any:
    # Little-endian on every machine, so that the pieces come in the same order.
    return words.astype("<u8", copy=False).view(dtype.newbyteorder("<"))[:count].astype(dtype, copy=False)


_pieces = primitive(
    "random_pieces", _cut, lambda words, *, dtype, count: ShapeDtypeStruct((count,), dtype), differentiable=False
)

_KINDS = {
    "uniform": variates.uniform,
    "normal": variates.normal,
    "exponential": variates.exponential,
    "gumbel": variates.gumbel,
}

_variate = primitive(
    "random_variate",
    lambda words, kind: _KINDS[kind](words),
    lambda words, *, kind: ShapeDtypeStruct(words.shape, np.float32 if words.dtype.itemsize == 4 else np.float64),
    differentiable=False,
)


def words_of(key: Any, domain: int, data: int, count: int) -> Any:
    """The first `count` words of 64 bits of the stream that a key has for a domain and data."""
    return bind(_words, (key,), {"domain": domain, "data": data, "count": count})


def pieces_of(words: Any, dtype: np.dtype[Any], count: int) -> Any:
    """Words of 64 bits cut into `count` unsigned integers of a narrower dtype, low bits first."""
    return bind(_pieces, (words,), {"dtype": dtype, "count": count})


def variate(words: Any, kind: str) -> Any:
    """Standard variates, one a word: "uniform", "normal", "exponential" or "gumbel"."""
    return bind(_variate, (words,), {"kind": kind})
