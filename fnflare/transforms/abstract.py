"""`eval_shape`: what a function would return, without computing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fnflare import tree
from fnflare.core import AbstractTrace, ShapeDtypeStruct, aval_of
from fnflare.transforms._call import concrete

__all__ = ["eval_shape"]


def _is_arrayish(x: Any) -> bool:
    return isinstance(x, (ShapeDtypeStruct, float)) or hasattr(x, "shape")


def eval_shape(fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The shapes and dtypes of what `fun` returns, found without any arithmetic.

    Args:
        fun: a function of pytrees of arrays.
        *args, **kwargs: its arguments; arrays or `ShapeDtypeStruct`s, which stand for arrays. Leaves
            that are neither, such as strings, are passed as they are.

    Returns:
        A tree like the answer of `fun` with a `ShapeDtypeStruct` for each array.

    Raises:
        ConcretizationError: `fun` needs the value of an array, in a Python ``if`` say.

    >>> ff.eval_shape(np.matmul, ff.ShapeDtypeStruct((2, 3), np.float32), np.ones((3, 4), np.float32))
    ShapeDtypeStruct(shape=(2, 4), dtype=float32)
    """
    trace = AbstractTrace(fun)
    leaves, structure = tree.flatten((args, kwargs))
    with trace:
        lifted = [trace.tracer(aval_of(x)) if _is_arrayish(concrete(x)) else x for x in leaves]
        a, k = tree.unflatten(structure, lifted)
        out = fun(*a, **k)
    return tree.map(lambda x: aval_of(concrete(x)) if _is_arrayish(concrete(x)) else x, out)
