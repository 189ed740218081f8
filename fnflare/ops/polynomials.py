"""Polynomials by their coefficients, from the highest power down: polyval, sums and products, derivatives, vander."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError
from fnflare.ops.shape import as_arrays

__all__ = ["polyval"]


def _coefficients(name: str, *ps: Any) -> list[Any]:
    for p in ps:
        if isinstance(p, np.poly1d):
            raise UnsupportedError(f"{name}: np.poly1d has no rule beside tracers; give its coefficients, p.coeffs")
    return [np.atleast_1d(p) for p in as_arrays(ps)]


@implements(np.polyval)
def polyval(p: Any, x: Any) -> Any:
    """NumPy's ``polyval``, by Horner's rule."""
    (p,) = _coefficients("np.polyval", p)
    (x,) = as_arrays([x])
    y = np.zeros(x.shape, x.dtype)
    for i in range(p.shape[0]):
        y = y * x + p[i]
    return y


def _as_long(ps: list[Any]) -> list[Any]:
    """Coefficients with zeros for the high powers that only another one has."""
    n = max(p.shape[0] for p in ps)
    return [np.concatenate([np.zeros(n - p.shape[0], p.dtype), p]) if p.shape[0] < n else p for p in ps]


@implements(np.polyadd)
def polyadd(a1: Any, a2: Any) -> Any:
    """NumPy's ``polyadd``."""
    a1, a2 = _as_long(_coefficients("np.polyadd", a1, a2))
    return a1 + a2


@implements(np.polysub)
def polysub(a1: Any, a2: Any) -> Any:
    """NumPy's ``polysub``."""
    a1, a2 = _as_long(_coefficients("np.polysub", a1, a2))
    return a1 - a2


@implements(np.polymul)
def polymul(a1: Any, a2: Any) -> Any:
    """NumPy's ``polymul``."""
    return np.convolve(*_coefficients("np.polymul", a1, a2))


@implements(np.polyder)
def polyder(p: Any, m: int = 1) -> Any:
    """NumPy's ``polyder``."""
    if m < 0:
        raise ValueError(f"np.polyder: the order must be positive, got {m}")
    (p,) = _coefficients("np.polyder", p)
    for _ in range(m):
        n = p.shape[0] - 1
        p = p[:-1] * np.arange(n, 0, -1)
    return p


@implements(np.polyint)
def polyint(p: Any, m: int = 1, k: Any = None) -> Any:
    """NumPy's ``polyint``."""
    if m < 0:
        raise ValueError(f"np.polyint: the order must be positive, got {m}")
    (p,) = _coefficients("np.polyint", p)
    constants = np.atleast_1d(*as_arrays([0 if k is None else k]))
    if constants.shape[0] < m and constants.shape[0] != 1:
        raise ValueError(f"np.polyint: k must be one number or {m} of them, got {constants.shape[0]}")
    for i in range(m):
        constant = constants[i if constants.shape[0] > 1 else 0]
        p = np.concatenate([p / np.arange(p.shape[0], 0, -1), np.reshape(constant, (1,))])
    return p


@implements(np.vander)
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """NumPy's ``vander``; the powers are repeated products, whose derivatives are right at zero."""
    if x.ndim != 1:
        raise ValueError(f"np.vander: x must have one axis, got shape {x.shape}")
    n = x.shape[0] if N is None else N
    x = x.astype(np.promote_types(x.dtype, int))
    if n == 0:
        return np.zeros((x.shape[0], 0), x.dtype)
    powers = [np.ones(x.shape, x.dtype), *([x] if n > 1 else [])]
    while len(powers) < n:
        powers.append(powers[-1] * x)
    return np.stack(powers if increasing else powers[::-1], axis=1)
