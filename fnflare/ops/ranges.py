"""Numbers at equal steps, or equal factors, between two that may be tracers: linspace, logspace, geomspace."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError
from fnflare.ops.shape import as_arrays, reshape

__all__ = ["linspace"]


@implements(np.linspace)
def linspace(
    start: Any,
    stop: Any,
    num: Any = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
    *,
    device: Any = None,
) -> Any:
    """NumPy's ``linspace``."""
    num = operator.index(num)
    if num < 0:
        raise ValueError(f"np.linspace: num must be non-negative, got {num}")
    kind = np.result_type(start, stop, 1.0)
    start, stop = [x.astype(kind) for x in as_arrays([start, stop])]
    parts = num - 1 if endpoint else num
    number = np.arange(num, dtype=kind).reshape(num, *[1] * max(start.ndim, stop.ndim))
    step = (stop - start) / parts if parts > 0 else np.nan
    y = number * (step if parts > 0 else stop - start) + start
    if endpoint and num > 1:  # the last number is the stop itself, not what the steps come to
        y = np.where(number == num - 1, stop, y)
    if dtype is not None and np.issubdtype(dtype, np.integer):
        y = np.floor(y)
    y = np.moveaxis(y, 0, axis).astype(kind if dtype is None else dtype)
    return (y, step) if retstep else y


@implements(np.logspace)
def logspace(
    start: Any, stop: Any, num: Any = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None, axis: int = 0
) -> Any:
    """NumPy's ``logspace``; the base may be a tracer."""
    if np.ndim(base):
        start, stop, base = as_arrays([start, stop, base])
        rank = max(x.ndim for x in (start, stop, base))
        start, stop, base = [reshape(x, (*[1] * (rank - x.ndim), *x.shape)) for x in (start, stop, base)]
        base = np.expand_dims(base, axis)
    y = np.power(base, linspace(start, stop, num, endpoint, axis=axis))
    return y if dtype is None else y.astype(dtype)


@implements(np.geomspace)
def geomspace(start: Any, stop: Any, num: Any = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0) -> Any:
    """NumPy's ``geomspace``, between real numbers of one sign, which are not zero: float64 unless `dtype` says less."""
    kind = np.result_type(start, stop, 1.0, np.dtype(dtype))
    if kind.kind == "c":
        raise UnsupportedError("np.geomspace: complex numbers have no rule for tracers; write np.exp(np.linspace(...))")
    start, stop = [x.astype(kind) for x in as_arrays([start, stop])]
    sign = np.sign(start)
    y = sign * logspace(np.log10(start / sign), np.log10(stop / sign), num, endpoint)
    # The ends are what was given, not what the powers come to.
    number = np.arange(y.shape[0]).reshape(-1, *[1] * (y.ndim - 1))
    y = np.where(number == 0, start, y)
    y = np.where(number == num - 1, stop, y) if endpoint and num > 1 else y
    return np.moveaxis(y, 0, axis).astype(kind if dtype is None else dtype)
