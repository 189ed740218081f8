"""Calls out of programs: a function of plain arrays as one operation, whatever it does inside.

The user's function and the abstract value of its answer go in; a primitive is bound that calls it on arrays when the
program runs, so that code which cannot be traced (SciPy's solvers, a library in C) stands in what `jit` makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import ShapeDtypeStruct, aval_of, bind, primitive
from fnflare.errors import ArgumentError, ShapeError, TreeError, UnsupportedError
from fnflare.program.call import to_front
from fnflare.transforms._call import given, name_of
from fnflare.transforms.loops import array_leaf
from fnflare.transforms.loops import map as each

__all__ = ["pure_callback"]

_METHODS = (None, "sequential", "expand_dims", "broadcast_all")


class _Callee:
    """The user's function and what it takes and returns: one static parameter of the primitive."""

    __slots__ = ("answer", "arguments", "avals", "fun", "vmap_method")

    def __init__(
        self,
        fun: Callable[..., Any],
        arguments: tree.TreeDef,
        answer: tree.TreeDef,
        avals: Sequence[ShapeDtypeStruct],
        vmap_method: str | None,
    ) -> None:
        self.fun = fun
        self.arguments = arguments
        self.answer = answer
        self.avals = avals
        self.vmap_method = vmap_method

    def __repr__(self) -> str:
        return name_of(self.fun)

    def _key(self) -> tuple[Any, ...]:
        # By identity, since not every callable is hashable.
        return id(self.fun), self.arguments, self.answer, tuple(self.avals), self.vmap_method

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Callee) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


def _called(*leaves: Any, callee: _Callee) -> tuple[Any, ...]:
    args, kwargs = tree.unflatten(callee.arguments, [np.asarray(x) for x in leaves])
    answers, structure = tree.flatten(callee.fun(*args, **kwargs))
    if structure != callee.answer:
        raise TreeError(f"pure_callback: {callee!r} was to return {callee.answer}, got {structure}")
    out = [np.asarray(a) for a in answers]
    for i, (a, aval) in enumerate(zip(out, callee.avals, strict=True)):
        if a.shape != aval.shape or not np.can_cast(a.dtype, aval.dtype, "same_kind"):
            raise ShapeError(
                f"pure_callback: answer {i} of {callee!r} was to be {aval.dtype}{list(aval.shape)}, got "
                f"{a.dtype}{list(a.shape)}; give result_shape_dtypes what the function returns"
            )
    return tuple([a.astype(v.dtype, copy=False)[()] for a, v in zip(out, callee.avals, strict=True)])


_callback = primitive("pure_callback", _called, lambda *_, callee: list(callee.avals), many=True)


def _no_derivative(*_: Any, callee: _Callee) -> Any:
    raise UnsupportedError(
        f"pure_callback: {callee!r} cannot be differentiated, since nothing is known of it; give a function around the "
        "call a rule with ff.custom_jvp or ff.custom_vjp, or pass it ff.stop_gradient(x)"
    )


_callback.vjp_joint(_no_derivative)
_callback.jvp_joint(_no_derivative)


@_callback.vmap
def _(size: int, args: Any, axes: Any, *, callee: _Callee) -> Any:
    args = to_front(args, axes)
    batched = [axis is not None for axis in axes]
    method = callee.vmap_method
    if method is None:
        raise UnsupportedError(
            f"pure_callback: {callee!r} has no rule for vmap; pass vmap_method='sequential' to call it for each "
            "example, or 'expand_dims' or 'broadcast_all' if it takes batches"
        )
    if method == "sequential":

        def one(examples: Any) -> Any:
            rest = iter(examples)
            mixed = [next(rest) if b else x for x, b in zip(args, batched, strict=True)]
            return bind(_callback, mixed, {"callee": callee})

        answers = each(one, [x for x, b in zip(args, batched, strict=True) if b])
    else:
        width = size if method == "broadcast_all" else 1
        shared = [x if b else np.broadcast_to(x, (width, *np.shape(x))) for x, b in zip(args, batched, strict=True)]
        avals = [ShapeDtypeStruct((size, *a.shape), a.dtype) for a in callee.avals]
        many = _Callee(callee.fun, callee.arguments, callee.answer, avals, method)
        answers = bind(_callback, shared, {"callee": many})
    return tuple(answers), (0,) * len(callee.avals)


def pure_callback(
    callback: Callable[..., Any], result_shape_dtypes: Any, *args: Any, vmap_method: str | None = None, **kwargs: Any
) -> Any:
    """Call a function that cannot be traced, also from within `jit`, loops and `vmap`.

    Args:
        callback: a function of pytrees of NumPy arrays. It must be pure: it may be called any number of times, or not
            at all where nobody needs its answer.
        result_shape_dtypes: a pytree of what it returns, with a `ShapeDtypeStruct`, or anything that has a shape and a
            dtype, for each array.
        *args, **kwargs: its arguments, pytrees of arrays.
        vmap_method: what `vmap` does. "sequential" calls it for each example; "expand_dims" once, with an axis of the
            examples in front of every argument, of length one in those that all examples share, and "broadcast_all"
            with that axis of full length everywhere. None raises.

    Returns:
        What it returns. Derivatives raise; a function around the call may have a rule by `custom_jvp` or `custom_vjp`.

    Raises:
        ShapeError, TreeError: it returns something else than was announced, when it runs.
        UnsupportedError: it is differentiated, or batched without a `vmap_method`.

    >>> order = lambda x: np.array(sorted(x.tolist()))
    >>> ff.jit(lambda x: 2 * ff.pure_callback(order, x, x))(np.array([3.0, 1.0, 2.0]))
    array([2., 4., 6.])
    """
    if vmap_method not in _METHODS:
        raise ArgumentError(f"pure_callback: vmap_method={vmap_method!r} is none of {', '.join(map(repr, _METHODS))}")
    leaves, arguments = tree.flatten((args, kwargs))
    leaves = [array_leaf(given(x), lambda: f"pure_callback: an argument of {name_of(callback)}") for x in leaves]
    wanted, answer = tree.flatten(result_shape_dtypes)
    avals = [aval_of(x).strong for x in wanted]
    callee = _Callee(callback, arguments, answer, avals, vmap_method)
    return tree.unflatten(answer, bind(_callback, leaves, {"callee": callee}))
