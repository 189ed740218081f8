"""The methods of ufuncs on tracers: ``reduce`` and ``accumulate`` of any, and what stands for ``reduceat`` and ``at``.

The folds that have a function of their own in NumPy come to that. Others are made of the ufunc itself: halving and
doubling where the order of combination does not matter, so that the steps are few, otherwise element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core import dtype_of
from fnflare.core.tracer import UFUNC_METHODS
from fnflare.errors import UnsupportedError
from fnflare.ops import cumulative, nan, reduce
from fnflare.ops.cumulative import doubled, stepped
from fnflare.ops.elementwise import convert
from fnflare.ops.reduce import axes_of, is_given, is_set, kept, left_out, masked, no_value, refuse_out
from fnflare.ops.special import logsumexp

__all__: list[str] = []

#: The functions of NumPy's namespace that ufuncs' folds come to. Ours, since NumPy's own would come back here where the
#: mask is the only tracer.
_REDUCTIONS: dict[Any, Callable[..., Any]] = {
    np.add: reduce.sum,
    np.multiply: reduce.prod,
    np.maximum: reduce.max,
    np.minimum: reduce.min,
    np.fmax: nan.nanmax,
    np.fmin: nan.nanmin,
    np.logical_or: reduce.any,
    np.logical_and: reduce.all,
}
_RUNNING: dict[Any, Callable[..., Any]] = {np.add: cumulative.cumsum, np.multiply: cumulative.cumprod}
_ASSOCIATIVE = frozenset({
    np.add, np.multiply, np.maximum, np.minimum, np.fmax, np.fmin, np.logaddexp, np.logaddexp2, np.hypot,
    np.logical_and, np.logical_or, np.logical_xor, np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.gcd, np.lcm,
})  # fmt: skip
#: What to write instead of ``ufunc.at``.
_AT = {
    np.add: "add(v)",
    np.subtract: "add(-v)",
    np.multiply: "multiply(v)",
    np.divide: "divide(v)",
    np.power: "power(v)",
    np.maximum: "max(v)",
    np.minimum: "min(v)",
}


def _reduce(
    ufunc: Any,
    a: Any,
    axis: Any = 0,
    dtype: Any = None,
    out: Any = None,
    keepdims: bool = False,
    initial: Any = no_value,
    where: Any = True,
) -> Any:
    """``ufunc.reduce``."""
    name = f"np.{ufunc.__name__}.reduce"
    refuse_out(name, out[0] if out else None)
    a = a if hasattr(a, "dtype") else np.asarray(a)
    if dtype is not None:
        a = convert(a, dtype)
    function = _REDUCTIONS.get(ufunc)
    if function is None:
        return _folded(name, ufunc, a, axis, keepdims, initial, where)
    if ufunc in (np.logical_or, np.logical_and):  # np.any and np.all take no initial=
        ans = function(a, axis=axis, keepdims=keepdims, where=where)
        return ufunc(ans, initial) if is_given(initial) else ans
    given = {"initial": initial} if is_given(initial) else {}
    return function(a, axis=axis, keepdims=keepdims, where=where, **given)


def _folded(name: str, ufunc: Any, a: Any, axis: Any, keepdims: bool, initial: Any, where: Any) -> Any:
    axes = axes_of(axis, a.ndim)
    associative = ufunc in _ASSOCIATIVE
    if len(axes) != 1 and not associative:
        raise ValueError(f"{name}: the order of elements matters, so that it is over one axis, got axis={axis!r}")
    rest = [i for i in range(a.ndim) if i not in axes]
    if not left_out(where):
        if ufunc.identity is None:
            raise UnsupportedError(f"{name}: where= has no rule for tracers without an identity; pick the elements")
        a = masked(a, where, _identity(ufunc, a.dtype))
    rows = np.reshape(np.transpose(a, (*axes, *rest)), (-1, *[a.shape[i] for i in rest]))
    if is_given(initial):
        first = np.broadcast_to(convert(initial, a.dtype), (1, *rows.shape[1:]))
        rows = np.concatenate([first, rows], axis=0)
    ans = _fold(name, ufunc, rows)
    return np.reshape(ans, kept(a.shape, axes)) if is_set(keepdims) else ans


def _identity(ufunc: Any, dtype: np.dtype[Any]) -> Any:
    return np.asarray(ufunc.identity).astype(dtype)[()]  # -1 stands for all bits, also of an unsigned number


def _fold(name: str, ufunc: Any, rows: Any) -> Any:
    n = rows.shape[0]
    if n == 0:
        if ufunc.identity is None:
            raise ValueError(f"{name}: a fold of no elements, which has no identity, needs initial=")
        return np.full(rows.shape[1:], ufunc.identity, ufunc.reduce(np.ones(1, rows.dtype)).dtype)
    if n == 1:
        if ufunc.identity is not None:  # np.hypot makes -3 to 3
            return ufunc(_identity(ufunc, rows.dtype), rows[0])
        dtype = ufunc.reduce(np.ones(1, rows.dtype)).dtype
        return np.copy(rows[0]) if dtype == rows.dtype else convert(rows[0], dtype)
    if ufunc is np.logaddexp:
        return logsumexp(rows, axis=0)
    if ufunc not in _ASSOCIATIVE:
        ans = rows[0]
        for k in range(1, n):
            ans = ufunc(ans, rows[k])
        return ans
    while n > 1:
        half = n // 2
        paired = ufunc(rows[:half], rows[half : 2 * half])
        rows = np.concatenate([paired, rows[2 * half :]], axis=0) if n % 2 else paired
        n = rows.shape[0]
    return rows[0]


def _accumulate(ufunc: Any, a: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
    """``ufunc.accumulate``; at ties of ``np.maximum`` and ``np.minimum`` the derivative is a subgradient, in which the
    equal elements have shares that add up to one."""
    name = f"np.{ufunc.__name__}.accumulate"
    refuse_out(name, out[0] if out else None)
    if dtype is not None:
        a = convert(a, dtype)
    (axis,) = axes_of(axis, a.ndim)
    running = _RUNNING.get(ufunc)
    if running is not None:
        return running(a, axis=axis)
    dtype = ufunc.accumulate(np.ones(1, dtype_of(a))).dtype
    a = a if a.dtype == dtype else convert(a, dtype)
    if a.size == 0 or a.shape[axis] == 1:
        return np.copy(a)
    return doubled(ufunc, a, axis) if ufunc in _ASSOCIATIVE else np.stack(stepped(ufunc, a, axis), axis=axis)


def _reduceat(ufunc: Any, *_args: Any, **_kwargs: Any) -> Any:
    raise UnsupportedError(
        f"np.{ufunc.__name__}.reduceat has no rule for tracers; write np.stack of np.{ufunc.__name__}.reduce(x[i:j]) "
        "for each pair of borders, or for sums np.diff(np.cumsum(x)[borders])"
    )


def _at(ufunc: Any, *_args: Any, **_kwargs: Any) -> Any:
    method = _AT.get(ufunc, "apply(f)")
    raise UnsupportedError(
        f"np.{ufunc.__name__}.at writes into its argument, which a tracer cannot be; write x = ff.at(x)[i].{method}"
    )


UFUNC_METHODS.update({"reduce": _reduce, "accumulate": _accumulate, "reduceat": _reduceat, "at": _at})
