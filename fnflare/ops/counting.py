"""What depends on the values of its arguments for the size of its answer: unique elements and counts of numbers.

Tracers whose values are known go in, as under `grad` and `jvp`; under jit and vmap a typed error says what to write
instead. What is picked out of an array or added up is differentiated; counts and places are plain.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core import is_tracer
from fnflare.core.tracer import implements
from fnflare.ops.index import index_add
from fnflare.ops.order import concrete

__all__ = ["bincount", "unique"]


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
    value = concrete("np.unique", ar, _SORTED)
    plain: Any = np.unique
    _, index, *rest = plain(value, True, return_inverse, return_counts, axis, equal_nan=equal_nan, **kwargs)
    found = np.reshape(ar, -1)[index] if axis is None else np.take(ar, index, axis=axis)
    answers = (found, *([index] if return_index else []), *rest)
    return answers if len(answers) > 1 else found


@implements(np.unique_values)
def unique_values(x: Any, /) -> Any:
    """NumPy's ``unique_values``; see `unique`."""
    value = concrete("np.unique_values", x, _SORTED)
    sorted_, index = np.unique(value, return_index=True, equal_nan=False)
    # Newer releases of NumPy do not sort here.
    order = np.argsort(np.argsort(np.unique_values(value), kind="stable"), kind="stable")
    return np.reshape(x, -1)[index[order] if len(order) == len(sorted_) else index]


@implements(np.unique_counts)
def unique_counts(x: Any, /) -> Any:
    """NumPy's ``unique_counts``; see `unique`."""
    plain = np.unique_counts(concrete("np.unique_counts", x, _SORTED))
    return plain._replace(values=unique(x, equal_nan=False))


@implements(np.unique_inverse)
def unique_inverse(x: Any, /) -> Any:
    """NumPy's ``unique_inverse``; see `unique`."""
    plain = np.unique_inverse(concrete("np.unique_inverse", x, _SORTED))
    return plain._replace(values=unique(x, equal_nan=False))


@implements(np.unique_all)
def unique_all(x: Any, /) -> Any:
    """NumPy's ``unique_all``; see `unique`."""
    plain = np.unique_all(concrete("np.unique_all", x, _SORTED))
    return plain._replace(values=unique(x, equal_nan=False))


# -- counts -------------------------------------------------------------------------------------


@implements(np.bincount)
def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Any:
    """NumPy's ``bincount``: linear in the weights; `x` must be concrete, since its largest element is the size."""
    value = concrete("np.bincount", x, "write ff.at(np.zeros(size))[x].add(weights)")
    if not is_tracer(weights):
        return np.bincount(value, weights, minlength)
    counts = np.bincount(value, None, minlength)
    return index_add(np.zeros(counts.shape), weights.astype(np.float64), index=np.asarray(value))
