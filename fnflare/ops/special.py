"""Functions that neural nets need and NumPy lacks, each computed without overflow.

They are primitives of their own because their kernels take few passes over memory, their rules keep
little, and a program then shows them as what they are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare import kernels
from fnflare.core import Primitive, ShapeDtypeStruct, bind, primitive
from fnflare.core.batch import shifted
from fnflare.core.primitive import writes_out
from fnflare.ops.reduce import reduce_sum

__all__ = ["erf", "log_softmax", "logistic", "logsumexp", "relu", "softmax", "softplus"]


# What np.max and np.sum come to, without their checks of the arguments.
_max: Any = np.maximum.reduce
_sum: Any = np.add.reduce


@writes_out
def _relu_kernel(x: Any, out: Any = None) -> Any:
    return np.maximum(x, 0, out=out)


#: ``max(x, 0)`` with derivative 0 at 0, as PyTorch and JAX have it.
relu = primitive("relu", _relu_kernel, ufunc=np.positive)
relu.derivative(lambda ct, ans, _x: ct * (ans > 0))
relu.cost(lambda ans, x: ans.size)


@writes_out
def _logistic_kernel(x: Any, out: Any = None) -> Any:
    # exp(-x) may overflow to infinity, whose reciprocal is right; 0.5 + 0.5 tanh(x / 2), which cannot, would round all
    # of the lower tail to zero. In place on one buffer.
    with np.errstate(over="ignore", under="ignore"):
        if type(x) is not np.ndarray or x.dtype.kind not in "fc" or not x.ndim:
            return 1.0 / (1.0 + np.exp(-1.0 * x))
        out = kernels.exp(np.negative(x, out), out) if out is not None else kernels.exp(-x)
        out += 1
        return np.reciprocal(out, out)


def _logistic_shape(x: ShapeDtypeStruct) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, np.multiply.resolve_dtypes((x.dtype, float, None))[-1])


#: The logistic function ``1 / (1 + exp(-x))``, often called sigmoid.
logistic = primitive("logistic", _logistic_kernel, _logistic_shape)
logistic.elementwise = True
logistic.derivative(lambda ct, ans, _x: ct * (ans * (1 - ans)))
logistic.cost(lambda ans, x: 4 * ans.size)

#: ``log(1 + exp(x))`` without overflow.
softplus = primitive("softplus", lambda x: np.logaddexp(x, 0), ufunc=np.exp)
softplus.derivative(lambda ct, _ans, x: ct * logistic(x))
softplus.cost(lambda ans, x: 4 * ans.size)

#: The error function ``2 / sqrt(pi) * integral of exp(-t^2) from 0 to x``.
erf = primitive("erf", kernels.erf, ufunc=np.exp)
erf.derivative(lambda ct, _ans, x: ct * (2 / math.sqrt(math.pi)) * np.exp(-x * x))
erf.cost(lambda ans, x: 8 * ans.size)


def _same(x: ShapeDtypeStruct, *, axis: Any) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, x.dtype)


def _axes(axis: Any, ndim: int) -> tuple[int, ...]:
    """`axis` (None for all) as a tuple of axes from 0."""
    axes = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple([a % ndim for a in axes])


def _batches(prim: Primitive) -> None:
    """Give the batching rule of an operation that keeps the axes along which it works."""

    def rule(_size: int, args: Any, dims: Any, *, axis: Any) -> tuple[Any, int]:
        (x,), (dim,) = args, dims
        axes = shifted(_axes(axis, x.ndim - 1), dim)
        return bind(prim, (x,), {"axis": axes if axis is None or isinstance(axis, tuple) else axes[0]}), dim

    prim.vmap(rule)


def _softmax_kernel(x: Any, *, axis: Any) -> Any:
    out = kernels.exp(x - _finite_max(x, axis))
    out /= _sum(out, axis, None, None, True)
    return out


def _finite_max(x: Any, axis: Any) -> Any:
    """The maximum to subtract before exp; 0 where it is infinite, which inf - inf would make nan, or of nothing."""
    if not x.size:
        return np.zeros((), x.dtype)
    top = _max(x, axis, None, None, True)
    finite = np.isfinite(top)
    return top if finite.all() else np.where(finite, top, np.zeros_like(top))


def _total(x: Any, axis: int) -> Any:
    return bind(reduce_sum, (x,), {"axes": (axis % x.ndim,), "keepdims": True})


_softmax = primitive("softmax", _softmax_kernel, _same)
_softmax.derivative(lambda ct, ans, _x, *, axis: ans * (ct - _total(ct * ans, axis)))
_batches(_softmax)
_softmax.cost(lambda ans, x, **_: 5 * ans.size)


def _log_softmax_kernel(x: Any, *, axis: Any) -> Any:
    out = x - _finite_max(x, axis)
    if out.size:  # the logarithm of a sum of nothing is no business of anybody's
        out -= np.log(_sum(kernels.exp(out), axis, None, None, True))
    return out


# The Jacobian I - 1 softmax(x)^T is not symmetric, so the two modes differ.
_log_softmax = primitive("log_softmax", _log_softmax_kernel, _same)
_log_softmax.vjp(lambda ct, ans, _x, *, axis: ct - np.exp(ans) * _total(ct, axis))
_log_softmax.jvp(lambda t, ans, _x, *, axis: t - np.sum(t * np.exp(ans), axis=axis, keepdims=True))
_batches(_log_softmax)
_log_softmax.cost(lambda ans, x, **_: 5 * ans.size)


def _logsumexp_kernel(x: Any, *, axis: Any) -> Any:
    top = _finite_max(x, axis)
    with np.errstate(divide="ignore"):  # log(0) is the right answer for a row of -inf
        return np.log(np.sum(kernels.exp(x - top), axis=axis, keepdims=True)) + top


def _logsumexp_shape(x: ShapeDtypeStruct, *, axis: Any) -> ShapeDtypeStruct:
    axes = _axes(axis, x.ndim)
    return ShapeDtypeStruct(tuple([1 if i in axes else n for i, n in enumerate(x.shape)]), x.dtype)


def _shares(x: Any, ans: Any) -> Any:
    """exp(x - logsumexp(x)); 0 in a row of -inf, where the difference would be nan."""
    finite = np.isfinite(ans)
    return np.exp(np.where(finite, x, -np.inf) - np.where(finite, ans, 0))


_logsumexp = primitive("logsumexp", _logsumexp_kernel, _logsumexp_shape)
_logsumexp.vjp(lambda ct, ans, x, *, axis: ct * _shares(x, ans))
_logsumexp.jvp(lambda t, ans, x, *, axis: np.sum(t * _shares(x, ans), axis=axis, keepdims=True))
_batches(_logsumexp)
_logsumexp.cost(lambda ans, x, **_: 4 * x.size)


def _floating(x: Any) -> Any:
    """An array of floating dtype: of integers and booleans float64."""
    x = x if hasattr(x, "dtype") else np.asarray(x)
    return x if x.dtype.kind in "fc" else x.astype(np.float64)


def softmax(x: Any, axis: int = -1) -> Any:
    """``exp(x) / sum(exp(x))`` along an axis, without overflow.

    Args:
        x: an array; integers count as float64.
        axis: the axis whose elements shall sum to one.

    >>> ff.nn.softmax(np.array([0.0, 0.0, 1000.0]))
    array([0., 0., 1.])
    """
    return bind(_softmax, (_floating(x),), {"axis": axis})


def log_softmax(x: Any, axis: int = -1) -> Any:
    """``log(softmax(x))``, finite where the softmax itself would round to zero.

    >>> ff.nn.log_softmax(np.array([0.0, 1000.0]))
    array([-1000.,     0.])
    """
    return bind(_log_softmax, (_floating(x),), {"axis": axis})


def logsumexp(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """``log(sum(exp(x)))`` over axes, without overflow.

    Args:
        x: an array; integers count as float64.
        axis: an axis, a tuple of axes, or None for all.
        keepdims: whether to keep the axes, with length one.

    >>> import math
    >>> float(ff.nn.logsumexp(np.array([1000.0, 1000.0]))) == 1000 + math.log(2)
    True
    """
    out = bind(_logsumexp, (_floating(x),), {"axis": axis})
    return out if keepdims else np.squeeze(out, axis=axis if axis is not None else tuple(range(len(np.shape(x)))))
