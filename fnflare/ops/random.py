"""Random words and variates as primitives: constants to every derivative, known by shape to `eval_shape`.

A key goes in, words come out, and words become variates; `fnflare.random` is written in these. The examples of
a batch are leading axes of keys and words, and each key gives the words that it gives alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, move_axis, primitive
from fnflare.core.batch import in_place
from fnflare.kernels import philox, variates
from fnflare.ops.index import in_front

__all__ = ["folded", "normal_quantile", "pieces_of", "variate", "words_of"]

_words = primitive(
    "random_words",
    philox.words,
    lambda key, *, domain, data, count: ShapeDtypeStruct((*key.shape[:-1], count), np.uint64),
    differentiable=False,
)
_words.vmap(lambda _size, args, axes, **params: (bind(_words, (move_axis(args[0], axes[0], 0),), params), 0))


def _fold(key: Any, data: Any) -> Any:
    one = getattr(key, "ndim", 1) == 1 and np.ndim(data) == 0
    return philox.words(key, philox.FOLD, int(data) if one else np.asarray(data), 2)


_folded = primitive(
    "random_fold",
    _fold,
    lambda key, data: ShapeDtypeStruct((*np.broadcast_shapes(key.shape[:-1], data.shape), 2), np.uint64),
    differentiable=False,
)


@_folded.vmap
def _(_size: int, args: Any, axes: Any) -> tuple[Any, int]:
    (key, data), (i, j) = args, axes
    rank = max(key.ndim - 1 - (i is not None), data.ndim - (j is not None))
    return bind(_folded, (in_front(key, i, rank + 1), in_front(data, j, rank))), 0


def _cut(words: Any, *, dtype: np.dtype[Any], count: int) -> Any:
    # Little-endian on every machine, so that the pieces come in the same order.
    pieces = words.astype("<u8", order="C", copy=False).view(dtype.newbyteorder("<"))
    return pieces[..., :count].astype(dtype, copy=False)


_pieces = primitive(
    "random_pieces",
    _cut,
    lambda words, *, dtype, count: ShapeDtypeStruct((*words.shape[:-1], count), dtype),
    differentiable=False,
)
_pieces.vmap(lambda _size, args, axes, **params: (bind(_pieces, (move_axis(args[0], axes[0], 0),), params), 0))

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
in_place(_variate)

_normal_quantile = primitive(
    "normal_quantile",
    lambda p: variates.normal_quantile(p.reshape(-1)).reshape(p.shape),
    lambda p: p,
    differentiable=False,
)
in_place(_normal_quantile)


def words_of(key: Any, domain: int, data: int, count: int) -> Any:
    """The first `count` words of 64 bits of the stream that a key has for a domain and data."""
    return bind(_words, (key,), {"domain": domain, "data": data, "count": count})


def folded(key: Any, data: Any) -> Any:
    """The key made of a key and an integer, which may be an array without axes or a tracer of one."""
    return bind(_folded, (key, data))


def pieces_of(words: Any, dtype: np.dtype[Any], count: int) -> Any:
    """Words of 64 bits cut into `count` unsigned integers of a narrower dtype, low bits first."""
    return bind(_pieces, (words,), {"dtype": dtype, "count": count})


def variate(words: Any, kind: str) -> Any:
    """Standard variates, one a word: "uniform", "normal", "exponential" or "gumbel"."""
    return bind(_variate, (words,), {"kind": kind})


def normal_quantile(p: Any) -> Any:
    """The quantiles of the standard normal distribution at probabilities within (0, 1)."""
    return bind(_normal_quantile, (p,))
