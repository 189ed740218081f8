"""Polynomials by their roots and by least squares; their roots, and what is left when one divides another."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, dtype_of, is_tracer, move_axis, primitive
from fnflare.core.tracer import implements
from fnflare.errors import UnsupportedError
from fnflare.ops.elementwise import convert
from fnflare.ops.order import concrete

__all__: list[str] = []


@implements(np.poly)
def poly(seq_of_zeros: Any) -> Any:
    """NumPy's ``poly`` of real roots."""
    roots = seq_of_zeros if is_tracer(seq_of_zeros) else np.stack([*seq_of_zeros])
    if roots.ndim > 1 or roots.dtype.kind == "c":
        raise UnsupportedError("np.poly has a rule for a vector of real roots; for a matrix write np.poly of its roots")
    roots = np.reshape(roots, -1)
    roots = roots.astype(np.mintypecode(roots.dtype.char))  # as NumPy: there is no single precision below float32
    zero = np.zeros(1, roots.dtype)
    out: Any = np.ones(1, roots.dtype)
    for k in range(roots.shape[0]):
        out = np.concatenate([out, zero]) - np.concatenate([zero, out * roots[k]])
    return out if roots.shape[0] else 1.0


@implements(np.polyfit)
def polyfit(x: Any, y: Any, deg: int, rcond: Any = None, full: bool = False, w: Any = None, cov: Any = False) -> Any:
    """NumPy's ``polyfit``, the coefficients alone."""
    if full or cov or np.ndim(deg):
        option = "full=True" if full else "cov=" if cov else "a list of degrees"
        raise UnsupportedError(f"np.polyfit: {option} has no rule for tracers; write np.linalg.lstsq(np.vander(x), y)")
    if deg < 0:
        raise ValueError(f"np.polyfit: the degree must not be negative, got {deg}")
    x, y = ((a if is_tracer(a) else np.asarray(a)) + 0.0 for a in (x, y))
    if x.ndim != 1 or y.ndim not in (1, 2) or x.shape[0] != y.shape[0] or not x.shape[0]:
        raise TypeError(f"np.polyfit: expected vectors of one length, not empty, got shapes {x.shape} and {y.shape}")
    rcond = len(x) * np.finfo(dtype_of(x)).eps if rcond is None else rcond
    left = np.vander(x, int(deg) + 1)
    if w is not None:
        w = (w if is_tracer(w) else np.asarray(w)) + 0.0
        # NumPy weights in place, so that the dtypes stay.
        left, y = convert(left * w[:, None], left.dtype), convert(y * (w if y.ndim == 1 else w[:, None]), y.dtype)
    scale = np.sqrt(np.sum(left * left, axis=0))
    c = np.linalg.lstsq(left / scale, y, rcond)[0]
    return (c.T / scale).T


@implements(np.polydiv)
def polydiv(u: Any, v: Any) -> tuple[Any, Any]:
    """NumPy's ``polydiv``; how long the remainder is depends on values, which must be known."""
    u, v = (np.atleast_1d(a if is_tracer(a) else np.asarray(a)) + 0.0 for a in (u, v))
    width = len(v)
    quotient, rest = [], u + 0 * v[0]
    for k in range(len(u) - width + 1):
        d = rest[k] / v[0]
        quotient.append(d)
        rest = rest - np.concatenate([np.zeros(k, v.dtype), d * v, np.zeros(len(u) - k - width, v.dtype)])
    small = np.isclose(
        concrete("np.polydiv", rest, "write its steps, r = r - d * v for d = r[k] / v[0]"), 0, rtol=1e-14
    )
    skip = min(int(np.argmin(small)) if not small.all() else len(small), len(small) - 1)
    return (np.stack(quotient) if quotient else np.zeros(1, rest.dtype)), rest[skip:]


def _roots_shape(p: ShapeDtypeStruct, *, zeros: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct((p.shape[0] - 1 - zeros,), np.result_type(p.dtype, np.complex64))


def _roots_kernel(p: Any, *, zeros: int) -> Any:
    return np.roots(p).astype(np.result_type(p.dtype, np.complex64))


#: The roots of a polynomial whose first coefficients are so many zeros. A root moves by what the change of the
#: polynomial is there, divided by the slope, also where the coefficient that changes is 0.
_roots = primitive("roots", _roots_kernel, _roots_shape)


@_roots.jvp
def _(t: Any, ans: Any, p: Any, *, zeros: int) -> Any:
    return -np.polyval(t, ans) / np.polyval(np.polyder(p), ans)


@_roots.vjp
def _(ct: Any, ans: Any, p: Any, *, zeros: int) -> Any:
    g = np.vander(ans, p.shape[0]).T @ (-ct / np.polyval(np.polyder(p), ans))
    return g if p.dtype.kind == "c" else np.real(g)


@_roots.vmap
def _(size: int, args: Any, axes: Any, *, zeros: int) -> tuple[Any, int]:
    rows = move_axis(args[0], axes[0], 0)
    return np.stack([bind(_roots, (rows[k],), {"zeros": zeros}) for k in range(size)]), 0


@implements(np.roots)
def roots(p: Any) -> Any:
    """NumPy's ``roots``, of known coefficients, always complex."""
    if np.ndim(p) != 1:
        raise ValueError(f"np.roots: expected a vector of coefficients, got shape {np.shape(p)}")
    advice = "write np.linalg.eigvals of the companion matrix"
    n = len(p) - 1
    if n < 1:
        return np.zeros(0)
    ends = concrete("np.roots", p, advice)
    if not ends.any():
        return np.zeros(0)
    p = p + 0.0
    if ends[0] == 0 or ends[-1] == 0:
        return bind(_roots, (p,), {"zeros": int(np.argmax(ends != 0))})
    companion = np.concatenate([np.reshape(-p[1:] / p[0], (1, n)), np.eye(n - 1, n, dtype=p.dtype)])
    return np.linalg.eigvals(companion)
