"""The library's own rules: formulas that overflow, underflow or cancel, and what to compute instead.

They are entries of the table in `fnflare.program.rules` like a user's, and hold for real floats. Each says the same
as the formula in exact arithmetic; where the formula gives infinity or nan, or loses all digits, it does not. Square
roots at zero are left as NumPy has them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import primitives
from fnflare.ops import log_softmax, logistic, logsumexp, softmax, softplus
from fnflare.ops.reduce import axes_of, kept
from fnflare.program.patterns import constant, op, operand, parameter, reshaped, several
from fnflare.program.rules import rule

__all__: list[str] = []

X = operand("x")
Y = operand("y")
A = parameter("axis")
AXES = parameter("axes")
KEEPDIMS = parameter("keepdims")
INDEX = parameter("index")
SHAPE = parameter("shape")

_sum_exp = op.sum(np.exp(X), axes=AXES, keepdims=KEEPDIMS)


def _is_full_float(x: Any) -> bool:
    """Whether softmax and its kin can take x: real, and with elements along every axis."""
    return x.dtype.kind == "f" and x.size > 0


def _lines_up(x: Any, axes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a reduction of x over axes, brought into a shape, broadcasts against x along those axes."""
    return (1,) * (x.ndim - len(shape)) + shape == kept(x.shape, axes)


# -- logarithms of what was made by exponentials ------------------------------------------------


@rule(np.log(np.exp(X)))
def log_of_exp(x: Any) -> Any:
    """log(exp(x)) = x"""
    return x


@rule(np.log(np.exp(X) + np.exp(Y)))
def log_of_sum_of_two_exps(x: Any, y: Any) -> Any:
    """log(exp(x) + exp(y)) = logaddexp(x, y)"""
    return np.logaddexp(x, y)


@rule(np.log(1 + np.exp(X)), np.log1p(np.exp(X)), op.logaddexp(X, 0))
def log_of_one_plus_exp(x: Any) -> Any:
    """log(1 + exp(x)) = softplus(x)"""
    return softplus(x)


@rule(np.log(_sum_exp))
def log_of_sum_of_exps(x: Any, axes: Any, keepdims: Any) -> Any:
    """log(sum(exp(x))) = logsumexp(x)"""
    return logsumexp(x, axes, keepdims) if _is_full_float(x) else None


@rule(np.log(_sum_exp / constant("count", lambda n: n > 0)))
def log_of_mean_of_exps(x: Any, axes: Any, keepdims: Any, count: Any) -> Any:
    """log(mean(exp(x))) = logsumexp(x) - log(n)"""
    return logsumexp(x, axes, keepdims) - math.log(count) if _is_full_float(x) else None


# -- softmax ------------------------------------------------------------------------------------


@rule(np.exp(X) / reshaped(_sum_exp, "total"))
def softmax_by_hand(x: Any, axes: Any, total: Any) -> Any:
    """exp(x) / sum(exp(x)) = softmax(x)"""
    if not (_is_full_float(x) and _lines_up(x, axes, total)):
        return None
    return softmax(x, axes[0]) if len(axes) == 1 else np.exp(x - logsumexp(x, axes, keepdims=True))


def _without_maximum(function: Any, x: Any, axis: Any, axes: Any, top: Any) -> Any:
    """The function of x, if what was subtracted does not vary along the axis."""
    return function(x, axis) if axis % x.ndim in axes and _lines_up(x, axes, top) else None


_max = op.max(X, axes=AXES, keepdims=KEEPDIMS)


@rule(op.softmax(X - reshaped(_max, "top"), axis=A), op.softmax(X - op.stop_gradient(reshaped(_max, "top")), axis=A))
def softmax_of_shifted(x: Any, axis: Any, axes: Any, top: Any) -> Any:
    """softmax(x - max(x)) = softmax(x), which subtracts the maximum itself"""
    return _without_maximum(softmax, x, axis, axes, top)


@rule(
    op.log_softmax(X - reshaped(_max, "top"), axis=A),
    op.log_softmax(X - op.stop_gradient(reshaped(_max, "top")), axis=A),
)
def log_softmax_of_shifted(x: Any, axis: Any, axes: Any, top: Any) -> Any:
    """log_softmax(x - max(x)) = log_softmax(x), which subtracts the maximum itself"""
    return _without_maximum(log_softmax, x, axis, axes, top)


@rule(np.log(op.softmax(X, axis=A)))
def log_of_softmax(x: Any, axis: Any) -> Any:
    """log(softmax(x)) = log_softmax(x)"""
    return log_softmax(x, axis)


@rule(np.log(op.getitem(op.softmax(X, axis=A), several("arrays"), index=INDEX)))
def log_of_part_of_softmax(x: Any, axis: Any, arrays: Any, index: Any) -> Any:
    """log(softmax(x)[i]) = log_softmax(x)[i]"""
    return primitives()["getitem"](log_softmax(x, axis), *arrays, index=index)


@rule(np.log(op.reshape(op.softmax(X, axis=A), shape=SHAPE)))
def log_of_reshaped_softmax(x: Any, axis: Any, shape: Any) -> Any:
    """log(reshape(softmax(x))) = reshape(log_softmax(x))"""
    return np.reshape(log_softmax(x, axis), shape)


@rule(np.log(op.transpose(op.softmax(X, axis=A), axes=AXES)))
def log_of_transposed_softmax(x: Any, axis: Any, axes: Any) -> Any:
    """log(transpose(softmax(x))) = transpose(log_softmax(x))"""
    return np.transpose(log_softmax(x, axis), axes)


@rule(X - reshaped(op.logsumexp(X, axis=A), "total"))
def log_softmax_by_hand(x: Any, axis: Any, total: Any) -> Any:
    """x - logsumexp(x) = log_softmax(x), where it is over one axis"""
    axes = axes_of(axis, x.ndim)
    return log_softmax(x, axes[0]) if len(axes) == 1 and _lines_up(x, axes, total) else None


# -- the logistic function ----------------------------------------------------------------------


@rule(1 / (1 + np.exp(X)), np.reciprocal(1 + np.exp(X)))
def logistic_by_hand(x: Any) -> Any:
    """1 / (1 + exp(x)) = logistic(-x)"""
    return logistic(-x)


@rule(np.exp(X) / (1 + np.exp(X)))
def logistic_by_exp(x: Any) -> Any:
    """exp(x) / (1 + exp(x)) = logistic(x)"""
    return logistic(x)


@rule(X / (1 + np.exp(-X)))
def silu_by_hand(x: Any) -> Any:
    """x / (1 + exp(-x)) = x logistic(x)"""
    return x * logistic(x)


@rule(np.log(op.logistic(X)))
def log_of_logistic(x: Any) -> Any:
    """log(logistic(x)) = -softplus(-x)"""
    return -softplus(-x)


@rule(np.log(1 - op.logistic(X)), np.log1p(-op.logistic(X)))
def log_of_one_minus_logistic(x: Any) -> Any:
    """log(1 - logistic(x)) = -softplus(x)"""
    return -softplus(x)


@rule((np.exp(X) - np.exp(-X)) / (np.exp(X) + np.exp(-X)))
def tanh_by_hand(x: Any) -> Any:
    """(exp(x) - exp(-x)) / (exp(x) + exp(-x)) = tanh(x)"""
    return np.tanh(x)


# -- what cancels near zero ---------------------------------------------------------------------


@rule(np.log(1 + X))
def log_of_one_plus(x: Any) -> Any:
    """log(1 + x) = log1p(x)"""
    return np.log1p(x)


@rule(np.log(1 - X))
def log_of_one_minus(x: Any) -> Any:
    """log(1 - x) = log1p(-x)"""
    return np.log1p(-x)


@rule(np.exp(X) - 1)
def exp_minus_one(x: Any) -> Any:
    """exp(x) - 1 = expm1(x)"""
    return np.expm1(x)
