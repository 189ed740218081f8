"""Running reductions along an axis: sums, products, and any ufunc's ``accumulate``.

Arrays and tracers go in. The derivatives of a running product are linear recurrences, in which nothing is divided by
an element that may be zero; a recurrence's derivatives are recurrences again, so that every order is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, primitive
from fnflare.core.batch import shifted, spread
from fnflare.core.tracer import implements
from fnflare.ops.elementwise import convert
from fnflare.ops.reduce import axes_of, refuse_out, summed

__all__ = ["cumprod", "cumsum", "doubled", "stepped"]


def _same(x: ShapeDtypeStruct, *, axis: int) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(x.shape, summed(x.dtype))


def _part(x: Any, axis: int, start: int | None, stop: int | None, step: int = 1) -> Any:
    """``x[start:stop:step]`` along an axis."""
    return x[(*[slice(None)] * axis, slice(start, stop, step))]


# -- sums ---------------------------------------------------------------------------------------

_cumsum = primitive("cumsum", lambda x, axis: np.cumsum(x, axis=axis), _same, multilinear=True)
_cumsum.vjp(lambda ct, _ans, _x, *, axis: np.flip(np.cumsum(np.flip(ct, axis), axis=axis), axis))
_cumsum.vmap(lambda _size, args, dims, *, axis: (bind(_cumsum, args, {"axis": shifted((axis,), dims[0])[0]}), dims[0]))
_cumsum.cost(lambda ans, x, **_: x.size)


def _running(prim: Any, name: str, a: Any, axis: Any, dtype: Any, out: Any) -> Any:
    refuse_out(name, out)
    if dtype is not None:
        a = convert(a, dtype)
    if axis is None:
        a, axis = np.reshape(a, -1), 0
    return bind(prim, (a,), {"axis": axes_of(axis, a.ndim)[0]})


@implements(np.cumsum)
def cumsum(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """NumPy's ``cumsum``."""
    return _running(_cumsum, "np.cumsum", a, axis, dtype, out)


# -- linear recurrences -------------------------------------------------------------------------


def _beside(x: Any, axis: int, reverse: bool) -> Any:
    """For each place along an axis the element before it, or after it where `reverse`; zero where there is none."""
    if x.shape[axis] == 0:
        return x
    zero = np.zeros((*x.shape[:axis], 1, *x.shape[axis + 1 :]), x.dtype)
    rest = _part(x, axis, 1, None) if reverse else _part(x, axis, None, -1)
    return np.concatenate([rest, zero] if reverse else [zero, rest], axis=axis)


def _recurrence_kernel(a: Any, b: Any, *, axis: int, reverse: bool) -> Any:
    out = np.array(b, order="C")
    h, a = np.moveaxis(out, axis, 0), np.moveaxis(a, axis, 0)
    if reverse:
        h, a = h[::-1], a[::-1]
    for k in range(1, len(h)):
        h[k] += a[k] * h[k - 1]
    return out


#: ``h[k] = a[k] * h[k - 1] + b[k]`` along an axis, from ``h[-1] = 0`` on; from the end where `reverse`.
_recurrence = primitive(
    "recurrence",
    _recurrence_kernel,
    lambda a, b, *, axis, reverse: ShapeDtypeStruct(b.shape, b.dtype),
)
_recurrence.cost(lambda ans, *_avals, **_: 2 * ans.size)


def recurrence(a: Any, b: Any, axis: int, reverse: bool = False) -> Any:
    """``h[k] = a[k] * h[k - 1] + b[k]`` along an axis; from the end where `reverse`."""
    return bind(_recurrence, (a, b), {"axis": axis, "reverse": reverse})


@_recurrence.vjp_joint
def _(ct: Any, ans: Any, a: Any, _b: Any, *, axis: int, reverse: bool) -> Any:
    g = recurrence(_beside(a, axis, not reverse), ct, axis, not reverse)
    return [g * _beside(ans, axis, reverse), g]


@_recurrence.jvp_joint
def _(ts: Any, ans: Any, a: Any, _b: Any, *, axis: int, reverse: bool) -> Any:
    ta, tb = ts
    through_a = None if ta is None else ta * _beside(ans, axis, reverse)
    return recurrence(a, tb if through_a is None else through_a if tb is None else through_a + tb, axis, reverse)


@_recurrence.vmap
def _(size: int, args: Any, dims: Any, *, axis: int, reverse: bool) -> tuple[Any, int]:
    at = next(d for d in dims if d is not None)
    a, b = [spread(x, d, size, at) for x, d in zip(args, dims, strict=True)]
    return recurrence(a, b, shifted((axis,), at)[0], reverse), at


# -- products -----------------------------------------------------------------------------------

_cumprod = primitive("cumprod", lambda x, axis: np.cumprod(x, axis=axis), _same)
_cumprod.vmap(
    lambda _size, args, dims, *, axis: (bind(_cumprod, args, {"axis": shifted((axis,), dims[0])[0]}), dims[0])
)
_cumprod.cost(lambda ans, x, **_: x.size)


def _products_before(ans: Any, axis: int) -> Any:
    """For each element of a running product's argument the product of those before it."""
    if ans.shape[axis] == 0:
        return ans
    one = np.ones((*ans.shape[:axis], 1, *ans.shape[axis + 1 :]), ans.dtype)
    return np.concatenate([one, _part(ans, axis, None, -1)], axis=axis)


@_cumprod.vjp
def _(ct: Any, ans: Any, x: Any, *, axis: int) -> Any:
    return recurrence(_beside(x, axis, True), ct, axis, True) * _products_before(ans, axis)


@_cumprod.jvp
def _(t: Any, ans: Any, x: Any, *, axis: int) -> Any:
    return recurrence(x, t * _products_before(ans, axis), axis)


@implements(np.cumprod)
def cumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """NumPy's ``cumprod``; differentiates to any order, also where elements are zero."""
    return _running(_cumprod, "np.cumprod", a, axis, dtype, out)


# -- the array API's names, which NumPy has from 2.1 on ---------------------------------------------


def _cumulative(name: str, running: Callable[..., Any], begin: int) -> Callable[..., Any]:
    def function(
        x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False
    ) -> Any:
        refuse_out(name, out)
        if axis is None:
            if np.ndim(x) > 1:
                raise ValueError(f"{name}: axis= must be given for an array of shape {np.shape(x)}")
            axis = 0
        x = np.atleast_1d(x)
        ans = running(x, axis, dtype)
        if not include_initial:
            return ans
        (axis,) = axes_of(axis, ans.ndim)
        first = np.full((*ans.shape[:axis], 1, *ans.shape[axis + 1 :]), begin, ans.dtype)
        return np.concatenate([first, ans], axis=axis)

    return function


if hasattr(np, "cumulative_sum"):
    implements(np.cumulative_sum)(_cumulative("np.cumulative_sum", cumsum, 0))
    implements(np.cumulative_prod)(_cumulative("np.cumulative_prod", cumprod, 1))

# -- accumulation by any function of two arguments ------------------------------------------------


def doubled(function: Callable[[Any, Any], Any], x: Any, axis: int) -> Any:
    """The accumulation of an associative function, in as many steps as doubling takes to reach the length."""
    reach = 1
    while reach < x.shape[axis]:
        later = function(_part(x, axis, None, -reach), _part(x, axis, reach, None))
        x = np.concatenate([_part(x, axis, None, reach), later], axis=axis)
        reach *= 2
    return x


def stepped(function: Callable[[Any, Any], Any], x: Any, axis: int) -> list[Any]:
    """The accumulation of any function, element by element."""
    pieces: list[Any] = []
    for k in range(x.shape[axis]):
        piece = x[(*[slice(None)] * axis, k)]
        pieces.append(function(pieces[-1], piece) if pieces else piece)
    return pieces
