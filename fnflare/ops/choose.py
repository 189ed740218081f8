"""Choices among several arrays: choose, select, piecewise; and what stands for numbers that are not finite.

Conditions go in beside what they choose from. Where they are plain, or tracers with a value, a function of `piecewise`
is called with the elements it is for, as NumPy calls it; elsewhere with all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fnflare.core import is_tracer
from fnflare.core.tracer import ValueTracer, implements
from fnflare.errors import UnsupportedError
from fnflare.ops.elementwise import convert, stop_gradient
from fnflare.ops.gather import take_along_axis
from fnflare.ops.index import index_set
from fnflare.ops.order import concrete
from fnflare.ops.shape import as_arrays, no_out

__all__ = ["choose"]


def _numbers_and_arrays(xs: Any) -> list[Any]:
    """Python numbers, whose dtype gives way, as they are, and anything else as an array."""
    return [x if type(x) in (int, float, complex) else as_arrays([x])[0] for x in xs]


@implements(np.select)
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """NumPy's ``select``."""
    if len(condlist) != len(choicelist) or not len(condlist):
        raise ValueError(
            f"np.select: needs as many conditions as choices, one or more, got {len(condlist)} and {len(choicelist)}"
        )
    conditions = as_arrays(condlist)
    for i, c in enumerate(conditions):
        if c.dtype.kind != "b":
            raise TypeError(f"np.select: condition {i} must be boolean, got dtype {c.dtype}; write a comparison")
    values = _numbers_and_arrays([*choicelist, default])
    dtype = np.result_type(*values)
    out = values.pop()
    for condition, value in zip(reversed(conditions), reversed(values), strict=True):
        out = np.where(condition, value, out)
    return convert(out, dtype)


@implements(np.choose)
def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Any:
    """NumPy's ``choose``."""
    no_out("np.choose", out)
    values = _numbers_and_arrays(choices)
    number, *arrays = np.broadcast_arrays(a, *as_arrays(values, np.result_type(*values), "unsafe"))
    table = np.stack(arrays)
    if mode == "wrap":
        number = number % len(arrays)
    elif mode == "clip":
        number = np.clip(number, 0, len(arrays) - 1)
    elif not is_tracer(number) and not ((number >= 0) & (number < len(arrays))).all():
        raise ValueError(f"np.choose: a number in a is not among those of {len(arrays)} choices")
    return take_along_axis(table, number[None], 0)[0]


@implements(np.piecewise)
def piecewise(x: Any, condlist: Any, funclist: Sequence[Any], *args: Any, **kw: Any) -> Any:
    """NumPy's ``piecewise``.

    Where a condition has no value yet, under `jit` and `vmap`, its function gets all elements of `x`, with one for
    which the condition holds in the place of those for which it does not; it must work element by element then.
    """
    conditions = _conditions(condlist, np.ndim(x))
    if len(funclist) == len(conditions) + 1:
        rest = conditions[0]
        for c in conditions[1:]:
            rest = rest | c
        conditions.append(~rest)
    if len(funclist) != len(conditions):
        raise ValueError(
            f"np.piecewise: {len(conditions)} conditions need as many functions, or one more, got {len(funclist)}"
        )
    out = np.zeros(np.shape(x), x.dtype)
    for condition, function in zip(conditions, funclist, strict=True):
        out = _piece(out, x, condition, function, args, kw)
    return out


def _conditions(condlist: Any, ndim: int) -> list[Any]:
    """The conditions, one for each piece; a single one may stand for itself."""
    of = np.ndim(condlist[0]) if isinstance(condlist, (list, tuple)) else np.ndim(condlist) - 1
    single = of < 0 or (of == 0 and ndim != 0)
    return [c.astype(bool) for c in as_arrays([condlist] if single else condlist)]


def _piece(out: Any, x: Any, condition: Any, function: Any, args: Any, kw: Any) -> Any:
    """`out` with the elements for which a condition holds replaced."""
    if not callable(function):
        return np.where(condition, convert(function, x.dtype), out)
    if not is_tracer(condition) or isinstance(condition, ValueTracer):
        mask = np.broadcast_to(concrete("np.piecewise", condition), np.shape(x))
        if not mask.any():
            return out
        return index_set(out, convert(function(x[mask], *args, **kw), x.dtype), index=mask)
    if not x.size:
        return out
    flat = np.reshape(x, -1)
    example = flat[np.argmax(np.reshape(np.broadcast_to(condition, x.shape), -1))]
    # The derivative at an element that is not for this function may not exist: nothing of it must come through.
    value = function(np.where(condition, x, stop_gradient(example)), *args, **kw)
    return np.where(condition, convert(value, x.dtype), out)


@implements(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """NumPy's ``nan_to_num``: what is replaced has derivative zero."""
    if not copy:
        raise UnsupportedError(
            "np.nan_to_num: copy=False writes into the array, which a tracer cannot be; leave it out"
        )
    if x.dtype.kind == "c":
        real, imag = [nan_to_num(part, copy, nan, posinf, neginf) for part in (np.real(x), np.imag(x))]
        return real + 1j * imag
    if x.dtype.kind != "f":
        return x
    limits = np.finfo(x.dtype)
    high = float(limits.max) if posinf is None else posinf
    low = float(limits.min) if neginf is None else neginf
    replaced = np.where(np.isinf(x), np.where(x > 0, high, low), np.where(np.isnan(x), nan, x))
    return convert(replaced, x.dtype)
