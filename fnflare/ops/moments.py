"""Means and what is made of them: mean, average, variance and standard deviation.

Arrays and tracers go in. All are compositions of sums, so that they differentiate, batch and compile as sums do.
Elements that ``where=`` leaves out are put to zero before anything is done with them, so that what they hold, nan
say, reaches neither value nor derivative.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import dtype_of, is_tracer
from fnflare.core.tracer import implements
from fnflare.ops import reduce
from fnflare.ops.elementwise import convert
from fnflare.ops.reduce import axes_of, is_set, left_out, masked, no_value, refuse_out

__all__ = ["average", "mean", "std", "var"]


def _count(a: Any, axis: Any, where: Any, dtype: Any, keepdims: bool) -> Any:
    """How many elements each mean is taken of: a Python number, or an array where ``where=`` says."""
    if left_out(where):
        shape = a.shape
        return math.prod(shape if axis is None else [shape[i] for i in axes_of(axis, len(shape))])
    mask = where if hasattr(where, "dtype") else np.asarray(where, bool)
    counts = np.sum(np.broadcast_to(mask, np.shape(a)), axis=axis, keepdims=keepdims)
    return convert(counts, dtype)


@implements(np.mean)
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, *, where: Any = no_value
) -> Any:
    """NumPy's ``mean``."""
    refuse_out("np.mean", out)
    if dtype is None:
        given = dtype_of(a)
        if given.char == "e":  # NumPy adds up float16 in float32
            return convert(mean(a, axis, np.float32, keepdims=keepdims, where=where), given)
        if given.kind not in "fc":
            dtype = np.float64
    total = reduce.sum(masked(a, where, 0), axis, dtype, keepdims=is_set(keepdims))
    return total / _count(a, axis, where, total.dtype, is_set(keepdims))


@implements(np.var)
def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = no_value,
    mean: Any = no_value,
    correction: Any = no_value,
) -> Any:
    """NumPy's ``var``.

    Its gradient is ``2 (x - mean) / (n - ddof)``, zero where all elements are equal. A ``mean=`` that is given is an
    argument of its own, which is differentiated by itself.
    """
    refuse_out("np.var", out)
    if correction is not no_value:
        if ddof != 0:
            raise ValueError("np.var: give ddof= or correction=, which mean the same, not both")
        ddof = correction
    if dtype is None and dtype_of(a).kind not in "fc":
        dtype = np.float64
    a = masked(a, where, 0)
    centre = np.mean(a, axis=axis, dtype=dtype, keepdims=True, where=where) if mean is no_value else mean
    apart = masked(a - centre, where, 0)
    squares = np.square(np.real(apart)) + np.square(np.imag(apart)) if apart.dtype.kind == "c" else np.square(apart)
    total = reduce.sum(squares, axis, dtype, keepdims=is_set(keepdims))
    count = _count(a, axis, where, total.dtype, is_set(keepdims))
    return total / (max(count - ddof, 0) if left_out(where) else np.maximum(count - ddof, 0))


@implements(np.std)
def std(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = False,
    *,
    where: Any = no_value,
    mean: Any = no_value,
    correction: Any = no_value,
) -> Any:
    """NumPy's ``std``.

    Where all elements are equal it has no derivative: nan, as the root of zero gives. Write
    ``np.sqrt(np.var(x) + eps)`` where that may happen.
    """
    refuse_out("np.std", out)
    return np.sqrt(var(a, axis, dtype, None, ddof, is_set(keepdims), where=where, mean=mean, correction=correction))


@implements(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = no_value) -> Any:
    """NumPy's ``average``; the weights are differentiated as well."""
    keep = is_set(keepdims)
    a = a if hasattr(a, "dtype") else np.asarray(a)
    if weights is None:
        mean_ = mean(a, axis, keepdims=keep)
        total: Any = np.full(mean_.shape, a.size / max(1, math.prod(mean_.shape)), mean_.dtype)[()]
    else:
        w = weights_along(weights, a, axis, "np.average")
        dtype = np.result_type(a.dtype, w.dtype, *([np.float64] if a.dtype.kind in "biu" else []))
        total = np.sum(_as(w, dtype), axis, keepdims=keep)
        if not is_tracer(total) and np.any(total == 0):
            raise ZeroDivisionError("np.average: the weights sum to zero, so that nothing can be divided by their sum")
        mean_ = np.sum(_as(a, dtype) * _as(w, dtype), axis, keepdims=keep) / total
    if not returned:
        return mean_
    return mean_, total if np.shape(total) == mean_.shape else np.broadcast_to(total, mean_.shape)


def _as(x: Any, dtype: Any) -> Any:
    return x if x.dtype == dtype else convert(x, dtype)


def weights_along(weights: Any, a: Any, axis: Any, name: str) -> Any:
    """Weights of the elements of `a`, or of the places along `axis`, so that they broadcast against `a`."""
    w = weights if hasattr(weights, "dtype") else np.asarray(weights)
    if w.shape == a.shape:
        return w
    if axis is None:
        raise TypeError(
            f"{name}: axis= must be given where weights, of shape {w.shape}, are not of the shape {a.shape}"
        )
    axes = [axes_of(i, a.ndim)[0] for i in (axis if isinstance(axis, tuple) else (axis,))]
    if w.shape != tuple([a.shape[i] for i in axes]):
        raise ValueError(f"{name}: weights of shape {w.shape} do not fit axis={axis} of an array of shape {a.shape}")
    w = np.transpose(w, np.argsort(axes).tolist())
    return np.reshape(w, tuple([n if i in axes else 1 for i, n in enumerate(a.shape)]))
