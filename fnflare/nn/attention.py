"""Attention: every position looks at all positions, or at those before it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import ops, random
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.functions import linear
from fnflare.nn.initializers import Initializer, glorot_uniform, zeros
from fnflare.nn.layer import (
    Layer,
    Shape,
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

__all__ = ["MultiHeadAttention"]

_GLOROT = glorot_uniform()

_PARTS = ("query", "key", "value", "output")


def MultiHeadAttention(
    heads: int,
    *,
    causal: bool = False,
    head_size: int | None = None,
    rotary: bool = False,
    bias: bool = True,
    W_init: Initializer = _GLOROT,
    b_init: Initializer = zeros,
) -> Layer:
    """Self-attention with several heads (Vaswani et al. 2017).

    Inputs and outputs (N, T, features). Of a `Padded` batch no position looks past the end of its
    sequence, so that each sequence gives what it gives alone. Parameters ``{"query": ..., "key": ..., "value":
    ..., "output": ...}``, each ``{"W": (in, out), "b": (out,)}``; the heads lie side by side in the outputs of
    the first three.

    ``apply`` takes two more keywords. ``mask=``: booleans of shape (T, T), (N, T, T) or (N, heads, T, T),
    true where the position of the last axis may be looked at from that of the last but one. A
    position that may look nowhere sees the mean of all. ``return_weights=True``: the outputs are then a pair, the
    second how much of each position was taken, (N, heads, T, T), of a `Padded` batch zero past the ends.

    Args:
        heads: how many.
        causal: whether positions look only at themselves and those before them.
        head_size: the size of a query; by default features / heads, which has to be whole.
        rotary: whether queries and keys are turned by their positions, see `nn.rotary`; their size has to be even.
        bias: whether there are ``b``.
        W_init: draws each W, ``init(key, shape)``.
        b_init: draws each b.

    Raises:
        ArgumentError: a setting is out of range.
        DtypeError: when applied, the mask is not of booleans.
        ShapeError: when applied, the inputs or the mask have other shapes.

    >>> from fnflare import nn, random
    >>> shape, params = nn.MultiHeadAttention(4).init(random.key(0), (-1, -1, 32))
    >>> shape, params["query"]["W"].shape
    ((-1, -1, 32), (32, 32))
    """
    kind = "MultiHeadAttention"
    heads = positive_int(kind, "heads", heads)
    if head_size is not None:
        head_size = positive_int(kind, "head_size", head_size)
    function(kind, "W_init", W_init)
    function(kind, "b_init", b_init)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        features = known_features(kind, input_shape, 3, "(N, T, features)")
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
            rows, columns = (inner, features) if name == "output" else (features, inner)
            params[name] = {"W": W_init(keys[2 * i], (rows, columns))}
            if bias:
                params[name]["b"] = b_init(keys[2 * i + 1], (columns,))
        return input_shape, params

    def apply(
        params: Any,
        inputs: Any,
        *,
        key: Any = None,
        train: bool = False,
        mask: Any = None,
        return_weights: bool = False,
    ) -> Any:
        x = inputs.values if type(inputs) is Padded else inputs
        features = params["query"]["W"].shape[0]
        if len(getattr(x, "shape", ())) != 3 or x.shape[-1] != features:
            raise mismatch(kind, f"(N, T, {features})", x)
        batch, steps, _ = x.shape
        q, k, v = [_heads(linear(x, p["W"], p.get("b")), heads) for p in (params[n] for n in _PARTS[:3])]
        if rotary:
            q, k = turned(q), turned(k)
        scores = (q @ np.swapaxes(k, -1, -2)) * q.shape[-1] ** -0.5
        seen = _visible(inputs, (batch, heads, steps, steps), causal, mask)
        if seen is not None:
            # The least finite number, not -inf: a row that sees nothing then has no nan.
            scores = np.where(seen, scores, np.asarray(np.finfo(scores.dtype).min))
        weights = ops.softmax(scores)
        mixed = np.swapaxes(weights @ v, 1, 2)
        out = params["output"]
        y = linear(np.reshape(mixed, (batch, steps, out["W"].shape[0])), out["W"], out.get("b"))
        if type(inputs) is Padded:
            y = Padded(y, inputs.lengths)
            if return_weights:
                weights = np.where(inputs.mask()[:, None, :, None], weights, np.zeros((), weights.dtype))
        return (y, weights) if return_weights else y

    def flops(shape: Shape, out: Shape, params: Any) -> int:
        features, inner = params["query"]["W"].shape
        steps = units_of((*shape[:2], 1))
        projections = steps * 4 * (2 * features * inner) + steps * (3 * inner + features) * bias
        return projections + rotary * 6 * steps * inner + steps * steps * (4 * inner + 6 * heads)

    return layer(kind, init, apply, flops)


def _heads(x: Any, heads: int) -> Any:
    """(N, T, heads * size) to (N, heads, T, size)."""
    batch, steps, inner = x.shape
    return np.swapaxes(np.reshape(x, (batch, steps, heads, inner // heads)), 1, 2)


def _visible(inputs: Any, size: Shape, causal: bool, mask: Any) -> Any:
    """Where positions may look, to broadcast against `size`, (N, heads, T, T); None for everywhere."""
    steps = size[-1]
    seen = None
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
                f"{scoping.where()}MultiHeadAttention expected a mask of shape ({steps}, {steps}), "
                f"({size[0]}, {steps}, {steps}) or {size}, got {shape}"
            )
        seen = mask[:, None] if len(shape) == 3 else mask
    if causal:
        lower = np.tri(steps, dtype=bool)
        seen = lower if seen is None else np.logical_and(seen, lower)
    if type(inputs) is Padded:
        real = inputs.mask()[:, None, None, :]
        seen = real if seen is None else np.logical_and(seen, real)
    return seen
