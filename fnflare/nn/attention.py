"""Attention: every position looks at all positions, or at those before it, of its sequence or of another."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import ops, random
from fnflare.core import number
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.dropout import Dropout
from fnflare.nn.functions import linear
from fnflare.nn.initializers import Initializer, glorot_uniform, zeros
from fnflare.nn.layer import (
    Layer,
    Shape,
    checked_shape,
    fraction,
    function,
    known_features,
    layer,
    mismatch,
    positive_int,
    require_key,
    units_of,
)
from fnflare.nn.positions import rotary as turned
from fnflare.padded import Padded

__all__ = ["MultiHeadAttention", "dot_product_attention"]

_GLOROT = glorot_uniform()

_PARTS = ("query", "key", "value", "output")


def MultiHeadAttention(
    heads: int,
    *,
    causal: bool = False,
    head_size: int | None = None,
    rotary: bool = False,
    bias: bool = True,
    dropout: float = 0.0,
    W_init: Initializer = _GLOROT,
    b_init: Initializer = zeros,
) -> Layer:
    """Attention with several heads (Vaswani et al. 2017): of a sequence to itself, or to another.

    Inputs and outputs (N, T, features). Of a `Padded` batch no position looks past the end of its
    sequence, so that each sequence gives what it gives alone. Parameters ``{"query": ..., "key": ..., "value":
    ..., "output": ...}``, each ``{"W": (in, out), "b": (out,)}``; the heads lie side by side in the outputs of
    the first three.

    Inputs may be a tuple as well: ``(queries, memory)``, where the first looks at the second, or ``(queries, keys,
    values)``. Each is an array or a `Padded` batch, (N, S, any number of features) but for the first; the outputs are
    of the kind and the size of the queries. Queries that have nothing to look at, as that sequence has length 0, give
    what a mixture of zeros gives. `init` is given the shapes as a tuple.

    ``apply`` takes two more keywords. ``mask=``: booleans of shape (T, S), (N, T, S) or (N, heads, T, S),
    true where the position of the last axis may be looked at from that of the last but one; S is T where a sequence
    looks at itself. A position that may look nowhere sees the mean of all. ``return_weights=True``: the outputs are
    then a pair, the second how much of each position was taken, (N, heads, T, S), of a `Padded` batch zero past the
    ends.

    Args:
        heads: how many.
        causal: whether positions look only at those of the same number and before.
        head_size: the size of a query; by default features / heads, which has to be whole.
        rotary: whether queries and keys are turned by their positions, see `nn.rotary`; their size has to be even.
        bias: whether there are ``b``.
        dropout: the fraction of the weights that is set to zero in training, see `Dropout`.
        W_init: draws each W, ``init(key, shape)``.
        b_init: draws each b.

    Raises:
        ArgumentError: a setting is out of range.
        DtypeError: when applied, the mask is not of booleans.
        MissingKeyError: when applied with ``train=True`` and no key, and there is `dropout`.
        ShapeError: when applied, the inputs or the mask have other shapes.

    >>> from fnflare import nn, random
    >>> shape, params = nn.MultiHeadAttention(4).init(random.key(0), (-1, -1, 32))
    >>> shape, params["query"]["W"].shape
    ((-1, -1, 32), (32, 32))
    >>> across = nn.MultiHeadAttention(4)
    >>> shape, params = across.init(random.key(0), ((-1, -1, 32), (-1, -1, 20)))
    >>> across.apply(params, (np.ones((2, 5, 32), np.float32), np.ones((2, 9, 20), np.float32))).shape
    (2, 5, 32)
    """
    kind = "MultiHeadAttention"
    heads = positive_int(kind, "heads", heads)
    if head_size is not None:
        head_size = positive_int(kind, "head_size", head_size)
    function(kind, "W_init", W_init)
    function(kind, "b_init", b_init)
    dropped = Dropout(fraction(kind, "dropout", dropout)).apply

    def init(key: Any, input_shape: Any) -> tuple[Shape, Any]:
        shapes = [checked_shape(kind, s) for s in _sources(input_shape, _are_shapes(input_shape))]
        sizes = [known_features(kind, s, 3, "(N, T, features)") for s in shapes]
        features = sizes[0]
        if head_size is None and features % heads:
            raise ArgumentError(
                f"{scoping.where()}{kind}: {features} features do not divide among {heads} heads; give head_size="
            )
        if rotary and (head_size or features // heads) % 2:
            raise ArgumentError(
                f"{scoping.where()}{kind}: rotary=True turns pairs of features, got queries of size "
                f"{head_size or features // heads}; give an even head_size="
            )
        require_key(kind, key)
        inner = heads * (head_size or features // heads)
        keys = random.split(key, 8)
        params: dict[str, Any] = {}
        for i, name in enumerate(_PARTS):
            rows, columns = (inner, features) if name == "output" else (sizes[i], inner)
            params[name] = {"W": W_init(keys[2 * i], (rows, columns))}
            if bias:
                params[name]["b"] = b_init(keys[2 * i + 1], (columns,))
        return shapes[0], params

    def apply(
        params: Any,
        inputs: Any,
        *,
        key: Any = None,
        train: bool = False,
        mask: Any = None,
        return_weights: bool = False,
    ) -> Any:
        several = type(inputs) is not Padded and isinstance(inputs, (tuple, list))
        sources = _sources(inputs, several)
        q, k, v = [
            _heads(_projected(params[name], x.values if type(x) is Padded else x), heads)
            for name, x in zip(_PARTS, sources, strict=False)
        ]
        if several:
            _check_sources(sources)
        batch, steps = q.shape[0], q.shape[2]
        if rotary:
            q, k = turned(q), turned(k)
        scores = (q @ np.swapaxes(k, -1, -2)) * q.shape[-1] ** -0.5
        seen, real = _visible(sources, scores.shape, causal, mask)
        if seen is not None:
            # The least finite number, not -inf: a row that sees nothing then has no nan.
            lowest = np.asarray(np.finfo(scores.dtype).min)
            # Of such a row the padding gets nothing still.
            fill = lowest if mask is None or real is None else np.where(real, lowest / 2, lowest)
            scores = np.where(seen, scores, fill)
        weights = ops.softmax(scores)
        if several and real is not None:
            # A sequence to look at may have length 0, whose padding would be seen.
            weights = np.where(real, weights, np.zeros((), weights.dtype))
        if dropout:
            weights = dropped((), weights, key=key, train=train)
        mixed = np.swapaxes(weights @ v, 1, 2)
        out = params["output"]
        y = linear(np.reshape(mixed, (batch, steps, out["W"].shape[0])), out["W"], out.get("b"))
        queries = sources[0]
        if type(queries) is Padded:
            y = Padded(y, queries.lengths)
            if return_weights:
                weights = np.where(queries.mask()[:, None, :, None], weights, np.zeros((), weights.dtype))
        return (y, weights) if return_weights else y

    def flops(shape: Any, out: Shape, params: Any) -> int:
        features, inner = params["query"]["W"].shape
        shapes = _sources(shape, _are_shapes(shape))
        steps, others, _ = [units_of((*s[:2], 1)) for s in shapes]
        products = sum(units_of(s) for s in shapes) * 2 * inner + steps * 2 * inner * features
        biases = bias * (units_of((*shapes[0][:2], inner + features)) + 2 * others * inner)
        turns = rotary * 3 * (steps + others) * inner
        return products + biases + turns + steps * others * (4 * inner + 6 * heads)

    return layer(kind, init, apply, flops, several=True)


def dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    bias: Any = None,
    mask: Any = None,
    *,
    scale: float | None = None,
    is_causal: bool = False,
) -> Any:
    """Mixtures of values, weighed by the softmax of how well each query fits the keys (Vaswani et al. 2017); the name
    and the arguments are those of ``jax.nn``.

    Args:
        query: (N, T, heads, size).
        key: (N, S, heads, size).
        value: (N, S, heads, any size).
        bias: added to the scores, broadcast against (N, heads, T, S).
        mask: booleans, broadcast likewise, true where a key may be looked at. A query that may look nowhere gets the
            mean of all values.
        scale: by which products are multiplied; by default ``size ** -0.5``.
        is_causal: whether queries look only at keys of the same number and before.

    Returns:
        (N, T, heads, size of the values).

    Raises:
        DtypeError: the mask is not of booleans.
        ShapeError: the shapes do not fit.

    >>> x = np.ones((2, 5, 4, 8), np.float32)
    >>> ff.nn.dot_product_attention(x, x, x, is_causal=True).shape
    (2, 5, 4, 8)
    """
    shapes = [np.shape(x) for x in (query, key, value)]
    (*most, size), keys, values = shapes
    fits = len(shapes[0]) == len(keys) == len(values) == 4 and keys == (most[0], keys[1], most[2], size)
    if not fits or values[:-1] != keys[:-1]:
        raise ShapeError(
            "dot_product_attention expected (N, T, heads, size) and twice (N, S, heads, size), got "
            f"{', '.join(map(str, shapes))}"
        )
    q, k, v = [np.swapaxes(x, 1, 2) for x in (query, key, value)]
    scores = (q @ np.swapaxes(k, -1, -2)) * (size**-0.5 if scale is None else number(scale))
    if bias is not None:
        scores = scores + bias
    if mask is not None and getattr(mask, "dtype", np.dtype(bool)).kind != "b":
        raise DtypeError(
            f"dot_product_attention expected a mask of booleans, got {mask.dtype}; write mask == 0, or bias="
        )
    seen: Any = np.tri(query.shape[1], key.shape[1], dtype=bool) if is_causal else None
    if mask is not None:
        seen = mask if seen is None else np.logical_and(mask, seen)
    if seen is not None:
        scores = np.where(seen, scores, np.asarray(np.finfo(scores.dtype).min))
    return np.swapaxes(ops.softmax(scores) @ v, 1, 2)


def _are_shapes(shape: Any) -> bool:
    """Whether this is the shapes of several inputs, and not that of one."""
    return isinstance(shape, (tuple, list)) and len(shape) > 0 and all(isinstance(s, (tuple, list)) for s in shape)


def _sources(given: Any, several: bool) -> Any:
    """Where queries, keys and values come from; of inputs or of their shapes."""
    if not several:
        return given, given, given
    if len(given) not in (2, 3):
        raise ShapeError(
            f"{scoping.where()}MultiHeadAttention expected one input, a pair (queries, memory) or (queries, keys, "
            f"values), got {len(given)}"
        )
    return given if len(given) == 3 else (given[0], given[1], given[1])


def _projected(params: Any, x: Any) -> Any:
    features = params["W"].shape[0]
    if len(getattr(x, "shape", ())) != 3 or x.shape[-1] != features:
        raise mismatch("MultiHeadAttention", f"(N, T, {features})", x)
    return linear(x, params["W"], params.get("b"))


def _check_sources(sources: Any) -> None:
    """Sequences that are looked at are as many as those that look, and have a value for each key."""
    shapes = [np.shape(x.values if type(x) is Padded else x) for x in sources]
    queries, keys, values = shapes
    if not queries[0] == keys[0] == values[0] or keys[1] != values[1]:
        raise ShapeError(
            f"{scoping.where()}MultiHeadAttention expected queries (N, T, ...), keys and values (N, S, ...), "
            f"got shapes {', '.join(map(str, shapes))}"
        )


def _heads(x: Any, heads: int) -> Any:
    """(N, T, heads * size) to (N, heads, T, size)."""
    batch, steps, inner = x.shape
    return np.swapaxes(np.reshape(x, (batch, steps, heads, inner // heads)), 1, 2)


def _visible(sources: Any, size: Shape, causal: bool, mask: Any) -> tuple[Any, Any]:
    """Where positions may look, and where there is something to look at, to broadcast against `size`, (N, heads, T, S);
    None for everywhere."""
    steps, others = size[-2:]
    seen = real = None
    if mask is not None:
        mask = mask if hasattr(mask, "dtype") else np.asarray(mask)
        if mask.dtype.kind != "b":
            raise DtypeError(
                f"{scoping.where()}MultiHeadAttention expected a mask of booleans, true where a position may be "
                f"looked at, got {mask.dtype}; of numbers to be added, 0 and -inf, write mask == 0"
            )
        shape = mask.shape
        wide = (shape[0], 1, *shape[1:]) if len(shape) == 3 else shape
        if len(shape) not in (2, 3, 4) or any(n not in (1, m) for n, m in zip(wide[::-1], size[::-1], strict=False)):
            raise ShapeError(
                f"{scoping.where()}MultiHeadAttention expected a mask of shape ({steps}, {others}), "
                f"({size[0]}, {steps}, {others}) or {size}, got {shape}"
            )
        seen = mask[:, None] if len(shape) == 3 else mask
    if causal:
        lower = np.tri(steps, others, dtype=bool)
        seen = lower if seen is None else np.logical_and(seen, lower)
    _, keys, values = sources
    for x in (keys,) if values is keys else (keys, values):
        if type(x) is Padded:
            within = x.mask()[:, None, None, :]
            real = within if real is None else np.logical_and(real, within)
    if real is not None:
        seen = real if seen is None else np.logical_and(seen, real)
    return seen, real
