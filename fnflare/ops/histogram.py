"""Histograms: counts, or sums of weights, of the elements in each bin.

Arrays and tracers go in. The counts have no derivative; sums of weights are linear in the weights, and edges that are
found from the elements are a function of the smallest and the largest of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import dtype_of, is_tracer
from fnflare.core.tracer import implements
from fnflare.errors import ArgumentError, DtypeError
from fnflare.ops.elementwise import convert
from fnflare.ops.index import index_add
from fnflare.ops.order import concrete, known, searchsorted

__all__ = ["histogram"]


def _edges(name: str, a: Any, bins: Any, limits: Any, weights: Any) -> Any:
    """The edges of the bins, one more than there are bins."""
    if isinstance(bins, str):
        if weights is not None:
            raise TypeError(f"{name}: bins={bins!r} is not for data with weights; give the number of bins")
        value = concrete(name, a, f"write a number of bins instead of bins={bins!r}")
        bins = len(np.histogram_bin_edges(value, bins, limits)) - 1
    if np.ndim(bins) == 1:
        edges = bins if is_tracer(bins) else np.asarray(bins)
        plain = known(edges)
        if plain is not None and np.any(plain[:-1] > plain[1:]):
            raise ValueError(f"{name}: bins must increase monotonically")
        return edges
    if not isinstance(bins, (int, np.integer)):
        error = ArgumentError if np.ndim(bins) else DtypeError
        raise error(f"{name}: bins must be a number of bins that is known, or a vector of edges, got {bins!r}")
    return _even(name, a, int(bins), limits)


def _even(name: str, a: Any, count: int, limits: Any) -> Any:
    """Edges of bins of equal width."""
    if count < 1:
        raise ValueError(f"{name}: bins must be positive, got {count}")
    dtype = np.result_type(a.dtype, np.float16 if a.dtype.kind == "f" else np.float64)
    if limits is not None:
        low, high = limits
        if not (is_tracer(low) or is_tracer(high)):
            if low > high:
                raise ValueError(f"{name}: range={limits} must have its smaller number first")
            return np.histogram_bin_edges(np.zeros(0, a.dtype), count, limits)
    elif np.size(a) == 0:
        low, high = 0.0, 1.0
    else:
        low, high = np.min(a), np.max(a)
    low, high = convert(low, dtype), convert(high, dtype)
    width = known(high - low)
    if width is not None and not np.isfinite(width):
        raise ValueError(f"{name}: the range of the elements, from {low} to {high}, is not finite")
    half = np.where(low == high, dtype.type(0.5), dtype.type(0))
    low, high = low - half, high + half
    inner = np.arange(count, dtype=dtype) * ((high - low) / count) + low
    return np.concatenate([inner, np.reshape(high, 1)])


@implements(np.histogram_bin_edges)
def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Any:
    """NumPy's ``histogram_bin_edges``; the rules for the number of bins, such as ``"auto"``, are for known values."""
    return _edges("np.histogram_bin_edges", _flat(a), bins, range, weights)


def _flat(a: Any) -> Any:
    return np.reshape(a if hasattr(a, "dtype") else np.asarray(a), -1)


@implements(np.histogram)
def histogram(a: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> tuple[Any, Any]:
    """NumPy's ``histogram``: differentiated in the weights, and in the elements where the edges depend on them."""
    a = _flat(a)
    w = np.ones(a.shape, np.intp) if weights is None else _flat(weights)
    if w.shape != a.shape:
        raise ValueError(f"np.histogram: weights of {w.shape[0]} elements for {a.shape[0]}")
    edges = _edges("np.histogram", a, bins, range, weights)
    count = edges.shape[0] - 1
    at = searchsorted(edges, a, "right") - 1
    at = np.where(a == edges[-1], count - 1, at)  # the last bin has both of its edges
    inside = (at >= 0) & (at < count)
    wide = np.result_type(w.dtype, np.float64) if w.dtype.kind in "fc" else w.dtype  # as NumPy adds weights up
    sums = index_add(np.zeros(count, wide), np.where(inside, w, dtype_of(w).type(0)), index=np.clip(at, 0, count - 1))
    sums = sums if wide == w.dtype else convert(sums, w.dtype)
    if not density:
        return sums, edges
    return sums / convert(edges[1:] - edges[:-1], np.float64) / np.sum(sums), edges
