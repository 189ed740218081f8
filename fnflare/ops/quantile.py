"""Medians and quantiles: a sort, a choice of places in it, and an interpolation between them.

Arrays and tracers go in, the quantiles asked for among them. Which places a quantile lies between depends on how many
elements there are and on nothing else, so values and derivatives are those of the one or two elements that stand
there. The methods are those of R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages" (1996), which
NumPy has, under NumPy's names.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fnflare.core import aval_of, dtype_of, is_tracer
from fnflare.core.tracer import implements
from fnflare.ops.elementwise import convert
from fnflare.ops.gather import take
from fnflare.ops.moments import weights_along
from fnflare.ops.reduce import axes_of, is_set, kept, nan_where, no_value, refuse_out

__all__ = ["median", "nanmedian", "nanpercentile", "nanquantile", "percentile", "quantile"]

#: The continuous methods: the quantile q of n elements is at ``n q + alpha + q (1 - alpha - beta) - 1``.
_CONTINUOUS = {
    "interpolated_inverted_cdf": (0.0, 1.0),
    "hazen": (0.5, 0.5),
    "weibull": (0.0, 0.0),
    "median_unbiased": (1 / 3, 1 / 3),
    "normal_unbiased": (3 / 8, 3 / 8),
}
_METHODS = (
    "inverted_cdf", "averaged_inverted_cdf", "closest_observation", *_CONTINUOUS,
    "linear", "lower", "higher", "midpoint", "nearest",
)  # fmt: skip


def _neighbours(method: str, n: Any, q: Any) -> tuple[Any, Any]:
    """The number of the lower of the two elements, among `n` sorted ones, that the quantile lies between, and the
    share of the upper one; None for a share where the quantile is that one element.

    Where a rounded product decides between elements nothing is added to it before it does: native code may do both
    with one rounding, and then 5 * 0.2 is not 1.
    """
    if method in _CONTINUOUS:
        alpha, beta = _CONTINUOUS[method]
        at = n * q + (alpha + q * (1 - alpha - beta)) - 1
        return np.floor(at), at - np.floor(at)
    if method == "inverted_cdf":
        return np.ceil(n * q) - 1, None
    if method == "closest_observation":
        return np.rint(n * q) - 1, None
    if method == "averaged_inverted_cdf":
        at = n * q
        below = np.floor(at)
        return below - 1, np.where(at == below, 0.5, 1.0)
    at = (n - 1) * q
    if method in ("lower", "higher", "nearest"):
        rounding = {"lower": np.floor, "higher": np.ceil, "nearest": np.rint}[method]
        return rounding(at), None
    below = np.floor(at)
    return below, np.where(at == below, 0.0, 0.5) if method == "midpoint" else at - below


def _between(low: Any, high: Any, t: Any) -> Any:
    """The element at the fraction `t` of the way, from the nearer of the two, so that it is exact at both."""
    apart = high - low
    if not is_tracer(t):
        if np.all(t < 0.5):
            return low + apart * t
        if np.all(t >= 0.5):
            return high - apart * (1 - t)
    return np.where(t >= 0.5, high - apart * (1 - t), low + apart * t)


@functools.lru_cache(maxsize=256)
def _answer_dtype(a: np.dtype[Any], q: np.dtype[Any], weak: bool, method: str) -> np.dtype[Any]:
    """The dtype of NumPy's answer; `weak` where the quantile asked for is a Python number."""
    asked = np.zeros((), q).item() if weak else np.zeros(1, q)
    plain: Any = np.quantile
    return np.dtype(plain(np.zeros(1, a), asked, method=method).dtype)


def rows_first(a: Any, axes: tuple[int, ...]) -> Any:
    """`a` with the axes that are reduced as one, in front."""
    rest = [i for i in range(a.ndim) if i not in axes]
    moved = np.transpose(a, (*axes, *rest)) if axes != tuple(range(len(axes))) else a
    return np.reshape(moved, (-1, *moved.shape[len(axes) :])) if len(axes) != 1 else moved


def _asked(name: str, q: Any, whole: float) -> Any:
    """The quantiles asked for, as fractions; checked where they are known."""
    if not is_tracer(q):
        q = q if type(q) in (int, float) else np.asarray(q)
        if np.size(q) and not (np.min(q) >= 0 and np.max(q) <= whole):
            raise ValueError(f"{name}: q must be in the range [0, {whole:g}], got {q}")
    if np.ndim(q) > 2:
        raise ValueError(f"{name}: q must be a number or a vector, got shape {np.shape(q)}")
    return q if whole == 1 else q / whole


def _of_sorted(rows: Any, n: Any, q: Any, method: str, dtype: np.dtype[Any]) -> Any:
    """Quantiles of sorted rows, which lie along the first axis and of which the first `n` count."""
    below, t = _neighbours(method, n, q)
    top = np.maximum(n, 1) - 1
    low = _at(rows, np.clip(below, 0, top))
    if t is None:
        return low
    high = _at(rows, np.clip(below + 1, 0, top))
    return _between(low, high, _as(t if is_tracer(t) else np.asarray(t)[()], dtype))


def _as(x: Any, dtype: np.dtype[Any]) -> Any:
    return x if x.dtype == dtype else convert(x, dtype)


def _at(rows: Any, places: Any) -> Any:
    """The elements at places along the first axis: the same for all rows, or with an axis for each axis of the rows,
    some of them of length one."""
    index = convert(places, np.intp)
    shape = np.shape(index)
    rest = rows.shape[1:]
    lead = shape[: len(shape) - len(rest)]
    if math.prod(shape[len(lead) :]) == 1:
        return take(rows, np.reshape(index, lead), axis=0)
    index = np.broadcast_to(index, (*lead, *rest))
    return np.reshape(np.take_along_axis(rows, np.reshape(index, (-1, *rest)), axis=0), (*lead, *rest))


def _weighted(rows: Any, weights: Any, q: Any) -> Any:
    """The inverted distribution function of weighted rows: the first element at which the running sum of weights
    reaches the fraction `q` of all; elements without weight at the beginning do not count."""
    order = np.argsort(rows, axis=0)
    reached = np.cumsum(np.take_along_axis(weights, order, axis=0), axis=0, dtype=np.float64)
    reached = reached / reached[-1:]
    before = (reached < np.expand_dims(q, len(np.shape(q)) - rows.ndim + 1)) | (reached == 0)
    places = np.minimum(np.sum(before, axis=-rows.ndim), rows.shape[0] - 1)
    return _at(np.take_along_axis(rows, order, axis=0), places)


def _quantiles(
    name: str, a: Any, q: Any, whole: float, axis: Any, method: str, keepdims: Any, weights: Any, skip: bool
) -> Any:
    a = a if hasattr(a, "dtype") else np.asarray(a)
    if a.dtype.kind == "c":
        raise TypeError(f"{name}: quantiles are of real numbers, got dtype {a.dtype}")
    if method not in _METHODS:
        raise ValueError(f"{name}: {method!r} is not a method; use one of {', '.join(_METHODS)}")
    weak = aval_of(q).weak
    q = _asked(name, q, whole)
    if skip and a.size == 0:  # as NumPy, of one quantile for all that are asked for
        return np.mean(a, axis=axis, keepdims=is_set(keepdims))
    dtype = _answer_dtype(a.dtype, dtype_of(q), weak, method)
    axes = axes_of(axis, a.ndim)
    rows = rows_first(a, axes)
    asked = np.shape(q)
    places = q if rows.ndim == 1 else np.reshape(q, (*asked, *[1] * (rows.ndim - 1)))
    empty = np.isnan(rows) if a.dtype.kind == "f" else np.zeros(rows.shape, bool)
    if weights is not None:
        ans = _weighted(rows, _weight_rows(name, weights, a, axis, method, empty if skip else None), places)
    else:
        n = rows.shape[0] - np.sum(empty, axis=0) if skip and a.dtype.kind == "f" else rows.shape[0]
        rows = np.sort(rows, axis=0)
        ans = _of_sorted(rows, n, places, method, dtype)
    if a.dtype.kind == "f" and not skip:  # nan is sorted to the end
        ans = nan_where(np.any(empty, axis=0), ans)
    return np.reshape(ans, (*asked, *kept(a.shape, axes))) if is_set(keepdims) else ans


def _weight_rows(name: str, weights: Any, a: Any, axis: Any, method: str, empty: Any) -> Any:
    if method != "inverted_cdf":
        raise ValueError(f"{name}: weights= need method='inverted_cdf', got {method!r}")
    w = weights_along(weights, a, axis, name)
    if not is_tracer(w) and np.any(w < 0):
        raise ValueError(f"{name}: weights must not be negative")
    rows = rows_first(np.broadcast_to(w, a.shape), axes_of(axis, a.ndim))
    return rows if empty is None else np.where(empty, 0, rows)


@implements(np.quantile)
def quantile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: Any = False,
    *,
    weights: Any = None,
) -> Any:
    """NumPy's ``quantile``, by all of its methods; differentiated in the elements and, where the method interpolates,
    in `q`. Of equal elements the derivative goes to those that a stable sort puts there."""
    refuse_out("np.quantile", out)
    return _quantiles("np.quantile", a, q, 1, axis, method, keepdims, weights, False)


@implements(np.percentile)
def percentile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: Any = False,
    *,
    weights: Any = None,
) -> Any:
    """NumPy's ``percentile``; see `quantile`."""
    refuse_out("np.percentile", out)
    return _quantiles("np.percentile", a, q, 100, axis, method, keepdims, weights, False)


@implements(np.nanquantile)
def nanquantile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: Any = no_value,
    *,
    weights: Any = None,
) -> Any:
    """NumPy's ``nanquantile``; nan for rows of nothing but nan."""
    refuse_out("np.nanquantile", out)
    return _quantiles("np.nanquantile", a, q, 1, axis, method, keepdims, weights, True)


@implements(np.nanpercentile)
def nanpercentile(
    a: Any,
    q: Any,
    axis: Any = None,
    out: Any = None,
    overwrite_input: bool = False,
    method: str = "linear",
    keepdims: Any = no_value,
    *,
    weights: Any = None,
) -> Any:
    """NumPy's ``nanpercentile``; nan for rows of nothing but nan."""
    refuse_out("np.nanpercentile", out)
    return _quantiles("np.nanpercentile", a, q, 100, axis, method, keepdims, weights, True)


# -- the median ---------------------------------------------------------------------------------


def _median(a: Any, axis: Any, keepdims: Any, skip: bool) -> Any:
    axes = axes_of(axis, a.ndim)
    rows = rows_first(a, axes)
    if rows.shape[0] == 0:
        return np.mean(a, axis=axis, keepdims=is_set(keepdims))
    dtype = a.dtype if a.dtype.kind in "fc" else np.dtype(np.float64)
    inexact = a.dtype.kind in "fc"
    empty = np.isnan(rows) if inexact else np.zeros(rows.shape, bool)
    rows = _as(np.sort(rows, axis=0), dtype)
    if skip and inexact:
        n = np.maximum(rows.shape[0] - np.sum(empty, axis=0), 1)
        ans = _middle(_at(rows, (n - 1) // 2), _at(rows, n // 2))
    else:
        n = rows.shape[0]
        ans = rows[n // 2] if n % 2 else _middle(rows[n // 2 - 1], rows[n // 2])
        if inexact:
            ans = nan_where(np.any(empty, axis=0), ans)
    return np.reshape(ans, kept(a.shape, axes)) if is_set(keepdims) else ans


def _middle(low: Any, high: Any) -> Any:
    return (low + high) / 2


@implements(np.median)
def median(a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False) -> Any:
    """NumPy's ``median``; the derivative goes to the element in the middle, or half to each of the two that are."""
    refuse_out("np.median", out)
    return _median(a, axis, keepdims, False)


@implements(np.nanmedian)
def nanmedian(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = no_value
) -> Any:
    """NumPy's ``nanmedian``; nan for rows of nothing but nan."""
    refuse_out("np.nanmedian", out)
    return _median(a, axis, keepdims, True)
