"""Covariances, correlations and membership, written with products and sorting."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import dtype_of, is_tracer
from fnflare.core.tracer import implements
from fnflare.ops.elementwise import convert
from fnflare.ops.gather import take

__all__: list[str] = []


def _rows(x: Any, dtype: Any, rowvar: bool) -> Any:
    """Variables as the rows of a matrix."""
    x = convert(x if is_tracer(x) else np.asarray(x), dtype)
    if x.ndim > 2:
        raise ValueError(f"np.cov: an array of variables has one or two axes, got shape {x.shape}")
    return x[None] if x.ndim == 1 else np.reshape(x, (1, 1)) if x.ndim == 0 else x if rowvar else x.T


@implements(np.cov)
def cov(
    m: Any,
    y: Any = None,
    rowvar: bool = True,
    bias: bool = False,
    ddof: int | None = None,
    fweights: Any = None,
    aweights: Any = None,
    *,
    dtype: Any = None,
) -> Any:
    """NumPy's ``cov``: at least in float64, as there."""
    if dtype is None:
        dtype = np.result_type(
            *[dtype_of(a if hasattr(a, "dtype") else np.asarray(a)) for a in (m, y) if a is not None], float
        )
    x = _rows(m, dtype, rowvar)
    if y is not None:
        x = np.concatenate([x, _rows(y, dtype, rowvar)])
    ddof = (0 if bias else 1) if ddof is None else ddof
    weights = [w for w in (fweights, aweights) if w is not None]
    if not weights:
        total = x.shape[1]
        mean = np.sum(x, axis=1, keepdims=True) / total
        factor: Any = total - ddof
        weighted = x = x - mean
    else:
        w = weights[0] * weights[1] if len(weights) == 2 else weights[0] * 1.0
        total = np.sum(w)
        mean = np.sum(x * w, axis=1, keepdims=True) / total
        factor = total - ddof * (1 if aweights is None else np.sum(w * aweights) / total)
        x = x - mean
        weighted = x * w
    weighted = np.conjugate(weighted) if weighted.dtype.kind == "c" else weighted
    return np.squeeze(np.dot(x, weighted.T) / factor)


@implements(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None) -> Any:
    """NumPy's ``corrcoef``: at least in float64, as there."""
    c = cov(x, y, rowvar, dtype=dtype)
    if c.ndim == 0:
        return c / c
    deviation = np.sqrt(np.real(np.diag(c)) if c.dtype.kind == "c" else np.diag(c))
    c = c / deviation[:, None] / deviation[None, :]
    if c.dtype.kind == "c":
        return np.clip(np.real(c), -1, 1) + 1j * np.clip(np.imag(c), -1, 1)
    return np.clip(c, -1, 1)


@implements(np.isin)
def isin(
    element: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False, *, kind: Any = None
) -> Any:
    """NumPy's ``isin``: by a search among the sorted elements, whatever `assume_unique` and `kind` say."""
    element, test = (x if is_tracer(x) else np.asarray(x) for x in (element, test_elements))
    test = np.sort(np.reshape(test, -1))
    if not test.size:
        return np.full(element.shape, invert)
    place = np.minimum(np.searchsorted(test, element), test.size - 1)
    found = take(test, place) == element
    return ~found if invert else found
