"""Functions that nets are made of and NumPy lacks: activations, and the affine map.

They work on arrays and tracers of any shape, each element alone unless an axis is given, and keep
the dtype. Values and derivatives are finite however large the inputs are; where a function has a kink its
derivative is one of the two sides', which its text names, and PyTorch's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare import ops, random
from fnflare.core import number
from fnflare.errors import ArgumentError, DtypeError, ShapeError

__all__ = [
    "celu",
    "elu",
    "gelu",
    "glu",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "linear",
    "lisht",
    "log_sigmoid",
    "log_softmax",
    "logcosh",
    "logsumexp",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "sparsemax",
    "swish",
    "tanh",
    "tanhshrink",
    "threshold",
]

#: ``max(x, 0)`` with derivative 0 at 0, as PyTorch and JAX have it.
relu = ops.relu
#: ``1 / (1 + exp(-x))`` without overflow.
sigmoid = ops.logistic
#: ``log(1 + exp(x))`` without overflow.
softplus = ops.softplus
#: NumPy's own.
tanh = np.tanh
softmax = ops.softmax
log_softmax = ops.log_softmax
logsumexp = ops.logsumexp

_LOG_2 = math.log(2.0)
_SQRT_HALF = 0.5**0.5
_SQRT_2_OVER_PI = (2.0 / np.pi) ** 0.5
# The fixed point of mean 0 and variance 1; Klambauer et al. 2017, equation 14.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def linear(x: Any, w: Any, b: Any = None) -> Any:
    """The affine map of the last axis: ``x @ w + b``, as one matrix product whatever axes come before.

    Args:
        x: (..., in).
        w: (in, out).
        b: (out,), or None for no bias.

    Returns:
        (..., out).

    >>> ff.nn.linear(np.ones((2, 5, 3), np.float32), np.ones((3, 4), np.float32)).shape
    (2, 5, 4)
    """
    if x.ndim > 2:
        # NumPy multiplies a stack of matrices one at a time; rows of all of them together are one product.
        shape = x.shape
        y = np.reshape(np.reshape(x, (-1, shape[-1])) @ w, (*shape[:-1], w.shape[1]))
    else:
        y = x @ w
    return y if b is None else y + b


def log_sigmoid(x: Any) -> Any:
    """The logarithm of the sigmoid, exact also where the sigmoid underflows.

    >>> float(ff.nn.log_sigmoid(np.float64(-1000.0)))
    -1000.0
    """
    return -ops.softplus(-x)


def silu(x: Any) -> Any:
    """``x * sigmoid(x)``, also called swish (Hendrycks & Gimpel 2016; Ramachandran et al. 2017).

    >>> float(ff.nn.silu(np.float64(0.0)))
    0.0
    """
    return x * ops.logistic(x)


#: The other name of `silu`.
swish = silu


def gelu(x: Any, approximate: bool = False) -> Any:
    """``x`` times the standard normal distribution function at ``x`` (Hendrycks & Gimpel 2016).

    Args:
        x: any shape.
        approximate: take the paper's approximation by tanh, whose error is up to 5e-4. Its derivative is nan where the
            square of ``x`` overflows, beyond 1e19 in float32.

    >>> round(float(ff.nn.gelu(np.float64(1.0))), 4)
    0.8413
    """
    if approximate:
        return 0.5 * x * (1.0 + np.tanh(_SQRT_2_OVER_PI * (x + 0.044715 * (x * x * x))))
    return 0.5 * x * (1.0 + ops.erf(x * _SQRT_HALF))


def leaky_relu(x: Any, slope: float = 0.01) -> Any:
    """``x`` where it is positive, `slope` times ``x`` elsewhere (Maas et al. 2013). At 0 its derivative is the slope.

    >>> ff.nn.leaky_relu(np.array([-1.0, 2.0]))
    array([-0.01,  2.  ])
    """
    return np.where(x > 0, x, number(slope) * x)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere (Clevert et al. 2015); derivative alpha at 0.

    >>> ff.nn.elu(np.array([-np.inf, 2.0]))
    array([-1.,  2.])
    """
    positive = x > 0
    # The branch that is not taken must not overflow: its derivative would be inf, and 0 * inf is nan.
    return np.where(positive, x, number(alpha) * np.expm1(np.where(positive, 0.0, x)))


def selu(x: Any) -> Any:
    """The scaled `elu` that keeps activations normalised (Klambauer et al. 2017). At 0 its derivative is that of below.

    >>> round(float(ff.nn.selu(np.float64(1.0))), 4)
    1.0507
    """
    return _SELU_SCALE * elu(x, _SELU_ALPHA)


def celu(x: Any, alpha: float = 1.0) -> Any:
    """The `elu` that is smooth for every alpha: ``alpha * (exp(x / alpha) - 1)`` below 0 (Barron 2017).

    >>> ff.nn.celu(np.array([-np.inf, 2.0]), alpha=3.0)
    array([-3.,  2.])
    """
    positive, alpha = x > 0, number(alpha)
    return np.where(positive, x, alpha * np.expm1(np.where(positive, 0.0, x) / alpha))


def prelu(x: Any, slope: Any) -> Any:
    """`leaky_relu` whose slope is an array, a parameter as a rule (He et al. 2015). At 0 its derivative is the slope.

    Args:
        x: any shape.
        slope: broadcast against x, such as (features,).

    >>> ff.nn.prelu(np.array([-2.0, 2.0]), np.array([0.25, 0.25]))
    array([-0.5,  2. ])
    """
    return np.where(x > 0, x, slope * x)


def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """`x` kept between two bounds. The derivative is 1 between them, and 0 at a bound and beyond.

    >>> ff.nn.hardtanh(np.array([-3.0, 0.5, 1e4]))
    array([-1. ,  0.5,  1. ])
    """
    min_val, max_val = number(min_val), number(max_val)
    return np.where(x <= min_val, min_val, np.where(x >= max_val, max_val, x))


def relu6(x: Any) -> Any:
    """`relu` that ends at 6 (Howard et al. 2017). The derivative is 0 at 0 and at 6.

    >>> ff.nn.relu6(np.array([-1.0, 2.0, 7.0]))
    array([0., 2., 6.])
    """
    return hardtanh(x, 0.0, 6.0)


def hardsigmoid(x: Any) -> Any:
    """A sigmoid of three straight lines, ``relu6(x + 3) / 6``. The derivative is 0 at -3 and 3.

    >>> ff.nn.hardsigmoid(np.array([-4.0, 0.0, 4.0]))
    array([0. , 0.5, 1. ])
    """
    return relu6(x + 3.0) / 6.0


def hardswish(x: Any) -> Any:
    """``x * hardsigmoid(x)`` (Howard et al. 2019). The derivative is 0 at -3 and 1 at 3.

    >>> ff.nn.hardswish(np.array([-4.0, 3.0]))
    array([-0.,  3.])
    """
    return x * hardsigmoid(x)


def mish(x: Any) -> Any:
    """``x * tanh(softplus(x))`` (Misra 2019).

    >>> round(float(ff.nn.mish(np.float64(1.0))), 4)
    0.8651
    """
    return x * np.tanh(ops.softplus(x))


def lisht(x: Any) -> Any:
    """``x * tanh(x)`` (Roy et al. 2019).

    >>> round(float(ff.nn.lisht(np.float64(-1.0))), 4)
    0.7616
    """
    return x * np.tanh(x)


def logcosh(x: Any) -> Any:
    """``log(cosh(x))`` without overflow, and to full relative precision also near 0, where it is ``x**2 / 2``.

    >>> ff.nn.logcosh(np.array([-1e4, 0.0, 1e-9]))
    array([9.99930685e+03, 0.00000000e+00, 5.00000000e-19])
    """
    near, size = np.abs(x) < 1, np.abs(x)
    # cosh(x)**-2 is 1 - tanh(x)**2; the branch that is not taken must not come near its logarithm of 0.
    t = np.tanh(np.where(near, x, 0.0))
    return np.where(near, -0.5 * np.log1p(-t * t), size + np.log1p(np.exp(-2.0 * size)) - _LOG_2)


def softsign(x: Any) -> Any:
    """``x / (1 + abs(x))`` (Bergstra et al. 2009).

    >>> ff.nn.softsign(np.array([-1.0, 0.0, 3.0]))
    array([-0.5 ,  0.  ,  0.75])
    """
    return x / (1.0 + np.abs(x))


def tanhshrink(x: Any) -> Any:
    """``x - tanh(x)``.

    >>> round(float(ff.nn.tanhshrink(np.float64(1.0))), 4)
    0.2384
    """
    return x - np.tanh(x)


def softshrink(x: Any, threshold: float = 0.5) -> Any:
    """`x` moved towards 0 by the threshold, and 0 where it is not larger than that, as is the derivative there.

    >>> ff.nn.softshrink(np.array([-2.0, 0.5, 2.0]))
    array([-1.5,  0. ,  1.5])
    """
    return np.where(np.abs(x) <= threshold, 0.0, x - number(threshold) * np.sign(x))


def hardshrink(x: Any, threshold: float = 0.5) -> Any:
    """`x`, and 0 where its size is not larger than the threshold, as is the derivative there.

    >>> ff.nn.hardshrink(np.array([-2.0, 0.5, 2.0]))
    array([-2.,  0.,  2.])
    """
    return np.where(np.abs(x) <= threshold, 0.0, x)


def threshold(x: Any, threshold: float, value: float) -> Any:
    """`x` where it is larger than the threshold, and `value`, with derivative 0, elsewhere.

    >>> ff.nn.threshold(np.array([0.5, 1.0, 2.0]), 1.0, -7.0)
    array([-7., -7.,  2.])
    """
    return np.where(x <= threshold, number(value), x)


def glu(x: Any, axis: int = -1) -> Any:
    """The gated linear unit (Dauphin et al. 2017): the first half of an axis times the sigmoid of the second.

    Args:
        x: an array whose axis has an even size.
        axis: the axis that is halved.

    Raises:
        ShapeError: the size is odd.

    >>> ff.nn.glu(np.array([2.0, 4.0, 0.0, 0.0]))
    array([1., 2.])
    """
    size = x.shape[axis]
    if size % 2:
        raise ShapeError(f"glu: axis {axis} has an odd size, {size}, and cannot be halved; got shape {x.shape}")
    values, gates = np.split(x, 2, axis=axis)
    return values * ops.logistic(gates)


def softmin(x: Any, axis: int = -1) -> Any:
    """``softmax(-x)``.

    >>> ff.nn.softmin(np.array([0.0, 1e4]))
    array([1., 0.])
    """
    return ops.softmax(-x, axis)


def gumbel_softmax(key: Any, logits: Any, temperature: float = 1.0, *, hard: bool = False, axis: int = -1) -> Any:
    """A draw from a distribution over classes that can be differentiated in its logits (Jang et al. 2017; Maddison et
    al. 2017): the softmax of the logits with Gumbel noise on them.

    Args:
        key: for the noise.
        logits: floats, not normalised.
        temperature: the lower, the nearer are draws to one-hot vectors, and the more the gradients vary.
        hard: give the one-hot vector of the largest element, with the derivative of what it would be otherwise.
        axis: the axis of the classes.

    Returns:
        Of the shape and dtype of the logits; sums to one along the axis.

    Raises:
        ArgumentError: the temperature is not positive.
        DtypeError: the logits are not floats.

    >>> y = ff.nn.gumbel_softmax(ff.random.key(0), np.log([0.1, 0.2, 0.7]), hard=True)
    >>> sorted(y.round(6).tolist())
    [0.0, 0.0, 1.0]
    """
    if not temperature > 0:
        raise ArgumentError(f"gumbel_softmax: temperature must be positive, got {temperature!r}")
    logits = logits if hasattr(logits, "dtype") else np.asarray(logits)
    if logits.dtype.kind != "f":
        raise DtypeError(f"gumbel_softmax: logits must be floats, got {logits.dtype}; write logits.astype(np.float32)")
    noise = random.gumbel(key, logits.shape, logits.dtype if logits.dtype.itemsize > 2 else np.float32)
    y = ops.softmax((logits + ops.convert(noise, logits.dtype)) / number(temperature), axis)
    if not hard:
        return y
    size = logits.shape[axis]
    places = np.reshape(np.arange(size), (-1, *[1] * (logits.ndim - 1 - axis % logits.ndim)))
    chosen = np.expand_dims(np.argmax(ops.stop_gradient(y), axis=axis), axis) == places
    return y + ops.stop_gradient(ops.convert(chosen, logits.dtype) - y)


def sparsemax(x: Any, axis: int = -1) -> Any:
    """The distribution that is nearest to `x`, in which small elements get exactly 0 (Martins & Astudillo 2016).

    Args:
        x: floats.
        axis: the axis whose elements shall sum to one.

    >>> ff.nn.sparsemax(np.array([2.0, 1.5, 0.0]))
    array([0.75, 0.25, 0.  ])
    """
    axis = axis % x.ndim
    if not x.shape[axis]:
        return x
    x = x - ops.stop_gradient(np.max(x, axis=axis, keepdims=True))
    # Which elements have a share is piecewise constant: to derivatives what follows is a mean over them. Those that are
    # 1 below the largest have none, which also disposes of infinities.
    size = np.maximum(ops.stop_gradient(x), -1.0)
    falling = -np.sort(-size, axis=axis)
    ranks = np.reshape(np.arange(1, x.shape[axis] + 1), (-1, *(1,) * (x.ndim - axis - 1)))
    sharing = np.cumsum(falling, axis=axis) - ranks * falling < 1
    least = np.min(np.where(sharing, falling, np.inf), axis=axis, keepdims=True)
    shares = np.logical_not(size < least)  # and not >=, so that nan goes on
    count = ops.convert(np.sum(shares, axis=axis, keepdims=True), x.dtype)
    excess = np.sum(np.where(shares, x, 0.0), axis=axis, keepdims=True) - 1.0
    return np.where(shares, x - excess / count, 0.0)
