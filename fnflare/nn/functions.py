"""Functions that nets are made of and NumPy lacks: activations, and the affine map.

They work on arrays and tracers of any shape, each element alone unless an axis is given, and keep
the dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import ops

__all__ = [
    "elu",
    "gelu",
    "leaky_relu",
    "linear",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "relu",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]

relu = ops.relu
sigmoid = ops.logistic
softplus = ops.softplus
softmax = ops.softmax
log_softmax = ops.log_softmax
logsumexp = ops.logsumexp
tanh = np.tanh

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

    >>> linear(np.ones((2, 5, 3), np.float32), np.ones((3, 4), np.float32)).shape
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

    >>> float(log_sigmoid(np.float64(-1000.0)))
    -1000.0
    """
    return -ops.softplus(-x)


def silu(x: Any) -> Any:
    """``x * sigmoid(x)``, also called swish (Hendrycks & Gimpel 2016; Ramachandran et al. 2017).

    >>> float(silu(np.float64(0.0)))
    0.0
    """
    return x * ops.logistic(x)


def gelu(x: Any, approximate: bool = False) -> Any:
    """``x`` times the standard normal distribution function at ``x`` (Hendrycks & Gimpel 2016).

    Args:
        x: any shape.
        approximate: take the paper's approximation by tanh, whose error is up to 5e-4.

    >>> round(float(gelu(np.float64(1.0))), 4)
    0.8413
    """
    if approximate:
        return 0.5 * x * (1.0 + np.tanh(_SQRT_2_OVER_PI * (x + 0.044715 * (x * x * x))))
    return 0.5 * x * (1.0 + ops.erf(x * _SQRT_HALF))


def leaky_relu(x: Any, slope: float = 0.01) -> Any:
    """``x`` where it is positive, `slope` times ``x`` elsewhere (Maas et al. 2013).

    >>> leaky_relu(np.array([-1.0, 2.0]))
    array([-0.01,  2.  ])
    """
    return np.where(x > 0, x, slope * x)


def elu(x: Any, alpha: float = 1.0) -> Any:
    """``x`` where it is positive, ``alpha * (exp(x) - 1)`` elsewhere (Clevert et al. 2015).

    >>> elu(np.array([-np.inf, 2.0]))
    array([-1.,  2.])
    """
    positive = x > 0
    # The branch that is not taken must not overflow: its derivative would be inf, and 0 * inf is nan.
    return np.where(positive, x, alpha * np.expm1(np.where(positive, 0.0, x)))


def selu(x: Any) -> Any:
    """The scaled `elu` that keeps activations normalised (Klambauer et al. 2017).

    >>> round(float(selu(np.float64(1.0))), 4)
    1.0507
    """
    return _SELU_SCALE * elu(x, _SELU_ALPHA)
