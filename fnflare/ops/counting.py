"""What depends on the values of its arguments for the size of its answer: unique, nonzero, bincount.

Tracers whose values are known go in, as under `grad` and `jvp`; under jit and vmap a typed error says what to write
instead. What is picked out of an array or added up is differentiated; counts and places are plain.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import Tracer, is_tracer
from fnflare.core.tracer import ValueTracer, implements
from fnflare.errors import ConcretizationError
from fnflare.ops.index import index_add

__all__ = ["concrete", "known_value", "nonzero"]


def concrete(x: Any) -> Any:
    """The plain value of `x`; None where a tracer below it has none."""
    while isinstance(x, ValueTracer):
        x = x.value
    return None if isinstance(x, Tracer) else x


def known_value(name: str, x: Any, advice: str) -> Any:
    """The plain value of `x`, on which the size of the answer depends; raises where there is none."""
    value = concrete(x)
    if value is None:
        raise ConcretizationError(f"{name} of {x!r}, made {x.origin()}, has an answer of unknown size; {advice}")
    return value


@implements(np.nonzero)
def nonzero(a: Any) -> Any:
    """NumPy's ``nonzero``: of concrete tracers only, since its answer has no static size."""
    return np.nonzero(known_value("np.nonzero", a, "write np.where(condition, x, y) instead"))


@implements(np.flatnonzero)
def flatnonzero(a: Any) -> Any:
    """NumPy's ``flatnonzero``: of concrete tracers only."""
    return np.flatnonzero(known_value("np.flatnonzero", a, "write np.where(condition, x, y) instead"))


@implements(np.argwhere)
def argwhere(a: Any) -> Any:
    """NumPy's ``argwhere``: of concrete tracers only."""
    return np.argwhere(known_value("np.argwhere", a, "write np.where(condition, x, y) instead"))


# -- unique -------------------------------------------------------------------------------------

_SORTED = "write np.sort(x), whose size is that of x, and compare neighbours"


@implements(np.unique)
def unique(
    ar: Any,
    return_index: bool = False,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: Any = None,
    *,
    equal_nan: bool = True,
    **kwargs: Any,
) -> Any:
    """NumPy's ``unique``: of concrete tracers only; the derivative goes to the first of equal elements."""
    value = known_value("np.unique", ar, _SORTED)
    plain: Any = np.unique
    _, index, *rest = plain(value, True, return_inverse, return_counts, axis, equal_nan=equal_nan, **kwargs)
    found = np.reshape(ar, -1)[index] if axis is None else np.take(ar, index, axis=axis)
    answers = (found, *([index] if return_index else []), *rest)
    return answers if len(answers) > 1 else found


@implements(np.unique_values)
def unique_values(x: Any, /) -> Any:
    """NumPy's ``unique_values``; see `unique`."""
    value = known_value("np.unique_values", x, _SORTED)
    sorted_, index = np.unique(value, return_index=True, equal_nan=False)
    # Newer releases of NumPy do not sort here.
    order = np.argsort(np.argsort(np.unique_values(value), kind="stable"), kind="stable")
    return np.reshape(x, -1)[index[order] if len(order) == len(sorted_) else index]


@implements(np.unique_counts)
def unique_counts(x: Any, /) -> Any:
    """NumPy's ``unique_counts``; see `unique`."""
    plain = np.unique_counts(known_value("np.unique_counts", x, _SORTED))
    return plain._replace(values=unique(x, equal_nan=False))


@implements(np.unique_inverse)
def unique_inverse(x: Any, /) -> Any:
    """NumPy's ``unique_inverse``; see `unique`."""
    plain = np.unique_inverse(known_value("np.unique_inverse", x, _SORTED))
    return plain._replace(values=unique(x, equal_nan=False))


@implements(np.unique_all)
def unique_all(x: Any, /) -> Any:
    """NumPy's ``unique_all``; see `unique`."""
    plain = np.unique_all(known_value("np.unique_all", x, _SORTED))
    return plain._replace(values=unique(x, equal_nan=False))


# -- counts -------------------------------------------------------------------------------------


@implements(np.bincount)
def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Any:
    """NumPy's ``bincount``: linear in the weights; `x` must be concrete, since its largest element is the size."""
    value = known_value("np.bincount", x, "write ff.at(np.zeros(size))[x].add(weights)")
    if not is_tracer(weights):
        return np.bincount(value, weights, minlength)
    counts = np.bincount(value, None, minlength)
    return index_add(np.zeros(counts.shape), weights.astype(np.float64), index=np.asarray(value))
