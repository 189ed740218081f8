"""Reductions that leave out nan.

Arrays and tracers go in. Each nan is replaced by what changes nothing, or left out with ``where=``, before the plain
reduction of the same name is called, so that it reaches neither value nor derivative: its own derivative is zero.
NumPy's warnings of rows without any number are not given.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import dtype_of
from fnflare.core.tracer import implements
from fnflare.ops.order import known
from fnflare.ops.reduce import is_given, is_set, left_out, masked, nan_where, no_value, refuse_out

__all__ = ["nanmax", "nanmin"]


def _numbers(a: Any) -> Any:
    """Where there is a number."""
    return ~np.isnan(a) if dtype_of(a).kind in "fc" else np.ones(np.shape(a), bool)


def _filled(a: Any, fill: Any) -> Any:
    return masked(a, _numbers(a), fill) if dtype_of(a).kind in "fc" else a


def _counted(a: Any, where: Any) -> Any:
    """The elements that a mean is taken of."""
    return _numbers(a) if left_out(where) else _numbers(a) & where


@implements(np.nansum)
def nansum(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = no_value,
    initial: Any = no_value,
    where: Any = no_value,
) -> Any:
    """NumPy's ``nansum``."""
    refuse_out("np.nansum", out)
    return np.sum(_filled(a, 0), axis, dtype, keepdims=is_set(keepdims), initial=initial, where=where)


@implements(np.nanprod)
def nanprod(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    keepdims: Any = no_value,
    initial: Any = no_value,
    where: Any = no_value,
) -> Any:
    """NumPy's ``nanprod``."""
    refuse_out("np.nanprod", out)
    return np.prod(_filled(a, 1), axis, dtype, keepdims=is_set(keepdims), initial=initial, where=where)


@implements(np.nancumsum)
def nancumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """NumPy's ``nancumsum``."""
    refuse_out("np.nancumsum", out)
    return np.cumsum(_filled(a, 0), axis, dtype)


@implements(np.nancumprod)
def nancumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """NumPy's ``nancumprod``."""
    refuse_out("np.nancumprod", out)
    return np.cumprod(_filled(a, 1), axis, dtype)


@implements(np.nanmean)
def nanmean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = no_value, *, where: Any = no_value
) -> Any:
    """NumPy's ``nanmean``."""
    refuse_out("np.nanmean", out)
    if dtype_of(a).kind not in "fc":
        return np.mean(a, axis, dtype, keepdims=is_set(keepdims), where=where)
    return np.mean(_filled(a, 0), axis, dtype, keepdims=is_set(keepdims), where=_counted(a, where))


@implements(np.nanvar)
def nanvar(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = no_value,
    *,
    where: Any = no_value,
    mean: Any = no_value,
    correction: Any = no_value,
) -> Any:
    """NumPy's ``nanvar``: nan where `ddof` is the count of numbers or more."""
    refuse_out("np.nanvar", out)
    keep = is_set(keepdims)
    further = {"ddof": ddof, "mean": mean, "correction": correction}
    if dtype_of(a).kind not in "fc":
        return np.var(a, axis, dtype, keepdims=keep, where=where, **further)
    counted = _counted(a, where)
    ans = np.var(_filled(a, 0), axis, dtype, keepdims=keep, where=counted, **further)
    too_few = np.sum(np.broadcast_to(counted, np.shape(a)), axis, keepdims=keep) <= (
        ddof if correction is no_value else correction
    )
    return nan_where(too_few, ans)


@implements(np.nanstd)
def nanstd(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    out: Any = None,
    ddof: Any = 0,
    keepdims: Any = no_value,
    *,
    where: Any = no_value,
    mean: Any = no_value,
    correction: Any = no_value,
) -> Any:
    """NumPy's ``nanstd``; where all elements are equal it has no derivative, as ``std`` has none."""
    refuse_out("np.nanstd", out)
    return np.sqrt(nanvar(a, axis, dtype, None, ddof, keepdims, where=where, mean=mean, correction=correction))


def _extreme(reduce: Any, a: Any, axis: Any, keepdims: Any, initial: Any, where: Any, worst: float) -> Any:
    keep = is_set(keepdims)
    if dtype_of(a).kind not in "fc":
        return reduce(a, axis, keepdims=keep, initial=initial, where=where)
    ans = reduce(_filled(a, worst), axis, keepdims=keep, initial=initial, where=where)
    if is_given(initial):
        return ans
    return nan_where(~np.any(_numbers(a), axis=axis, keepdims=keep), ans)


@implements(np.nanmax)
def nanmax(
    a: Any,
    axis: Any = None,
    out: Any = None,
    keepdims: Any = no_value,
    initial: Any = no_value,
    where: Any = no_value,
) -> Any:
    """NumPy's ``nanmax``; the gradient of a tie is shared equally."""
    refuse_out("np.nanmax", out)
    return _extreme(np.max, a, axis, keepdims, initial, where, -np.inf)


@implements(np.nanmin)
def nanmin(
    a: Any,
    axis: Any = None,
    out: Any = None,
    keepdims: Any = no_value,
    initial: Any = no_value,
    where: Any = no_value,
) -> Any:
    """NumPy's ``nanmin``; the gradient of a tie is shared equally."""
    refuse_out("np.nanmin", out)
    return _extreme(np.min, a, axis, keepdims, initial, where, np.inf)


def _position(find: Any, a: Any, axis: Any, keepdims: Any, worst: float) -> Any:
    none = ~np.any(_numbers(a), axis=axis)
    rows = known(none)
    if rows is not None and np.any(rows):
        raise ValueError(f"np.nan{find.__name__}: All-NaN slice encountered")
    return find(_filled(a, worst), axis=axis, keepdims=is_set(keepdims))


@implements(np.nanargmax)
def nanargmax(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = no_value) -> Any:
    """NumPy's ``nanargmax``; under jit and vmap a row of nothing but nan gives 0, where NumPy raises."""
    refuse_out("np.nanargmax", out)
    return _position(np.argmax, a, axis, keepdims, -np.inf)


@implements(np.nanargmin)
def nanargmin(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = no_value) -> Any:
    """NumPy's ``nanargmin``; under jit and vmap a row of nothing but nan gives 0, where NumPy raises."""
    refuse_out("np.nanargmin", out)
    return _position(np.argmin, a, axis, keepdims, np.inf)
