"""Functions whose derivatives stay finite where the plain ones have none: square root, logarithm, norm, and a choice.

Each is a composition of what is there: an element at which the plain function's derivative is infinite is replaced
before the function sees it, and its value after, so that no rule ever multiplies a zero with an infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core import dtype_of, number
from fnflare.errors import ArgumentError, DtypeError
from fnflare.ops.elementwise import stop_gradient

__all__ = ["safe_log", "safe_norm", "safe_sqrt", "safe_where"]


def _real(who: str, x: Any) -> Any:
    """`x` as an array or tracer of real floats; integers become float64, as NumPy's functions have it."""
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    if x.dtype.kind in "biu":
        return x.astype(np.float64)
    if x.dtype.kind != "f":
        raise DtypeError(f"{who}: expected real numbers, got {x.dtype}; for complex ones write np.abs(x) first")
    return x


def safe_where(condition: Any, fun: Callable[..., Any], *args: Any, otherwise: Any = 0.0, fill: Any = 1.0) -> Any:
    """``fun(*args)`` where a condition holds, `otherwise` elsewhere, with derivatives that know nothing of `fun` there.

    ``np.where(x > 0, np.log(x), 0)`` computes the logarithm of every element, and its derivative multiplies 0 by that
    of the logarithm, which at 0 is infinite: the gradient is nan although the branch is not taken. Here `fun` gets
    `fill` in place of the elements at which the condition does not hold.

    Args:
        condition: booleans.
        fun: a function that works on each element alone.
        *args: its arguments, broadcast against the condition.
        otherwise: the value where the condition does not hold; differentiated like the second branch of `np.where`.
        fill: a number at which `fun` and its derivatives are finite, in all arguments.

    Returns:
        An array of the shape to which all broadcast.

    >>> x = np.array([0.0, 2.0])
    >>> ff.grad(lambda x: np.sum(ff.safe_where(x > 0, np.log, x)))(x)
    array([0. , 0.5])
    """
    if not callable(fun):
        raise ArgumentError(
            f"safe_where: expected a function that is applied where the condition holds, got {type(fun).__name__}; "
            "write safe_where(x > 0, np.log, x), or np.where for arrays that are there already"
        )
    fill = number(fill)
    return np.where(condition, fun(*[np.where(condition, x, fill) for x in args]), otherwise)


def safe_sqrt(x: Any) -> Any:
    """The square root, with value and derivatives 0 at 0 and below.

    At 0 the derivative of ``np.sqrt`` is infinite, and nan as soon as it is multiplied by 0, as in
    ``np.sqrt(np.sum(x**2))``. Below 0, where rounding may lead a variance, ``np.sqrt`` is nan; a nan stays one here.

    Args:
        x: real numbers.

    >>> ff.safe_sqrt(np.array([-1e-9, 0.0, 4.0]))
    array([0., 0., 2.])
    >>> ff.grad(lambda x: np.sum(ff.safe_sqrt(x)))(np.array([-1e-9, 0.0, 4.0]))
    array([0.  , 0.  , 0.25])
    """
    x = _real("safe_sqrt", x)
    # A nan is not at most 0, and so goes through.
    return safe_where(np.logical_not(x <= 0), np.sqrt, x)


def safe_log(x: Any, eps: float | None = None) -> Any:
    """The natural logarithm of ``max(x, eps)``, with derivatives 0 at `eps` and below.

    ``np.log`` of 0 is minus infinity, with an infinite derivative, and nan below 0.

    Args:
        x: real numbers; a nan stays one.
        eps: the least number whose logarithm is taken, positive; by default the smallest normal one of the dtype, 1e-38
            for float32. Second derivatives, which are ``-1 / x**2``, want one that is larger than its square root.

    Raises:
        ArgumentError: eps is not positive.

    >>> ff.safe_log(np.array([0.0, 1e-12, 1.0]), eps=1e-6).round(3)
    array([-13.816, -13.816,   0.   ])
    >>> ff.grad(lambda x: np.sum(ff.safe_log(x)))(np.array([0.0, 0.5]))
    array([0., 2.])
    """
    x = _real("safe_log", x)
    least = float(np.finfo(x.dtype).tiny) if eps is None else number(eps)
    if not least > 0:
        raise ArgumentError(f"safe_log: eps must be positive, got {eps!r}")
    return np.log(np.where(x <= least, least, x))


def safe_norm(x: Any, ord: float = 2, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Any:
    """The norm of vectors, with derivatives 0 at the vector of zeros, and without overflow.

    The gradient of a norm is ``x / norm(x)``, which for zeros is 0 / 0. 0 is the subgradient of least size, which
    ``np.linalg.norm`` of a tracer has too. Here elements are scaled by the largest, so that neither the squares of
    large numbers overflow nor those of small ones vanish.

    Args:
        x: real numbers.
        ord: the exponent p of ``sum(abs(x)**p)**(1/p)``, at least 1, or ``np.inf`` for the largest size.
        axis: an axis, or a tuple of axes whose elements are one vector; None for all.
        keepdims: whether the axes stay, with size 1.

    Raises:
        ArgumentError: `ord` is less than 1.

    >>> ff.safe_norm(np.array([[3e200, 4e200], [0.0, 0.0]]), axis=1)
    array([5.e+200, 0.e+000])
    >>> ff.grad(lambda x: np.sum(ff.safe_norm(x, axis=1)))(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    x = _real("safe_norm", x)
    ord = number(ord)
    given: Any = ord
    if isinstance(given, str) or not given >= 1:
        raise ArgumentError(f"safe_norm: ord must be a number and at least 1, got {ord!r}")
    if x.size == 0:
        return np.sum(x, axis=axis, keepdims=keepdims)
    size = np.abs(x)
    if ord in (1, np.inf):
        return (np.sum if ord == 1 else np.max)(size, axis=axis, keepdims=keepdims)
    largest = stop_gradient(np.max(size, axis=axis, keepdims=True))
    scale = np.where(np.isfinite(largest), np.maximum(largest, np.finfo(dtype_of(x)).tiny), 1.0)
    some = np.logical_not(largest == 0)
    powers = np.square(x / scale) if ord == 2 else safe_where(size != 0, lambda s: s**ord, size / scale)
    total = np.sum(powers, axis=axis, keepdims=True)
    out = safe_where(some, np.sqrt if ord == 2 else lambda s: s ** (1.0 / ord), total) * scale
    return out if keepdims else np.squeeze(out, axis=axis if axis is not None else tuple(range(x.ndim)))
