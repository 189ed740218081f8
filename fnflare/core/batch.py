"""Batching: one run of a function on all examples at once.

A primitive on `BatchTracer`s goes in, each an array with one axis more than the user's function sees;
its batching rule does the work of all examples with one call, a level below. What is the same for
every example stays without that axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fnflare.core.aval import dtype_of
from fnflare.core.primitive import Primitive
from fnflare.core.trace import OBJECT, Trace, bind, closed_call, refuse_objects
from fnflare.core.tracer import Tracer
from fnflare.errors import ConcretizationError, UnsupportedError

__all__ = ["BatchTrace", "BatchTracer", "align", "in_place", "move_axis", "shifted", "spread"]


class BatchTracer(Tracer):
    """An example out of many: `value` holds all of them along its axis `axis`."""

    __slots__ = ("axis", "value")

    weak = False

    def __init__(self, trace: BatchTrace, value: Any, axis: int) -> None:
        self._trace = trace
        self.value = value
        self.axis = axis
        self.code = None

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.value.shape
        return (*shape[: self.axis], *shape[self.axis + 1 :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return dtype_of(self.value)

    def __bool__(self) -> bool:
        raise ConcretizationError(
            f"the truth of {self!r}, made {self.origin()}, differs from example to example under vmap. Instead of a "
            "Python if or while on it write np.where or ff.cond, or keep the argument out of the batch (in_axes=None)"
        )

    def _no_number(self, function: str) -> ConcretizationError:
        index = "; instead of array[t] write ff.at(array)[t].get()" if function == "operator.index" else ""
        return ConcretizationError(
            f"{function}() of {self!r}, made {self.origin()}: it has one value for each example of the batch. Keep to "
            f"array operations{index}, or keep the argument out of the batch (in_axes=None)"
        )


class BatchTrace(Trace):
    """A trace that works on all examples of a batch at once.

    Args:
        fun: the user's function.
        size: the number of examples.
    """

    __slots__ = ("size",)

    def __init__(self, fun: Any, size: int) -> None:
        super().__init__(fun)
        self.size = size

    def tracer(self, value: Any, axis: int) -> BatchTracer:
        """An array whose axis `axis` counts the examples, as one example."""
        return BatchTracer(self, value, axis)

    def below(self, x: Any) -> tuple[Any, int | None]:
        """What `x` is below this trace, and along which axis it is batched: None for what every example shares."""
        return (x.value, x.axis) if type(x) is BatchTracer and x._trace is self else (x, None)

    def process(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> Any:
        for a in args:
            if isinstance(a, Tracer) and a._trace.closed:
                return closed_call(a._trace, prim, args, params)
        pairs = [self.below(a) for a in args]
        values = [v for v, _ in pairs]
        axes = [axis for _, axis in pairs]
        if prim.batch is not None:
            ans, axis = prim.batch(self.size, values, axes, **(params or {}))
        elif prim.elementwise:
            if any(getattr(v, "dtype", None) is OBJECT for v, axis in pairs if axis is None):
                refuse_objects(prim)
            values, axis = align(values, axes)
            ans = bind(prim, values, params)
        else:
            raise UnsupportedError(f"{prim.name} has no rule for vmap; call it in a loop and stack the results")
        if prim.many:
            return tuple([self._answer(a, i) for a, i in zip(ans, axis, strict=True)])
        return self._answer(ans, axis)

    def _answer(self, ans: Any, axis: int | None) -> Any:
        if axis is None:
            return ans
        tracer = BatchTracer(self, ans, axis)
        tracer.mark()
        return tracer


# -- what rules are written with ----------------------------------------------------------------


def move_axis(x: Any, source: int, destination: int) -> Any:
    """`x` with its axis `source` at `destination`; `x` itself where it is there already."""
    if source == destination:
        return x
    order = [i for i in range(len(x.shape)) if i != source]
    order.insert(destination, source)
    return x.transpose(order)


def spread(x: Any, axis: int | None, size: int, at: int) -> Any:
    """`x` with the examples along axis `at`, repeated there (without memory of their own) where all share it."""
    if axis is not None:
        return move_axis(x, axis, at)
    shape = np.shape(x)
    return np.broadcast_to(np.expand_dims(x, at), (*shape[:at], size, *shape[at:]))


def shifted(axes: Sequence[int], axis: int) -> tuple[int, ...]:
    """Axes of an example, counted from 0, as axes of the array that holds all examples along `axis`."""
    return tuple([a + (a >= axis) for a in axes])


def in_place(prim: Primitive) -> None:
    """Give the rule of an operation of one argument that leaves every axis where it is."""
    prim.vmap(lambda _size, args, axes, **params: (bind(prim, args, params or None), axes[0]))


def align(values: Sequence[Any], axes: Sequence[int | None]) -> tuple[list[Any], int]:
    """Arguments that broadcast against each other, with the axis of the examples at one place in all.

    The argument with the most axes gives the place: the front where it has it there, otherwise the place counted
    from the last axis, as broadcasting counts. Other arguments are moved, or get axes of length one.

    Returns:
        The arguments and the axis of the examples in what they broadcast to.
    """
    values = [np.asarray(v) if isinstance(v, (list, tuple)) else v for v in values]
    ranks = [len(getattr(v, "shape", ())) - (axis is not None) for v, axis in zip(values, axes, strict=True)]
    after = -1  # how many axes come after that of the examples
    widest = -1
    for axis, rank in zip(axes, ranks, strict=True):
        if axis is not None and rank > widest:
            widest = rank
            after = rank - axis if axis else max(ranks)
    out = []
    for v, axis, rank in zip(values, axes, ranks, strict=True):
        if axis is None:
            if rank > after:
                v = v.reshape((*v.shape[: rank - after], 1, *v.shape[rank - after :]))
        elif rank >= after:
            v = move_axis(v, axis, rank - after)
        else:
            v = move_axis(v, axis, 0)
            v = v.reshape((v.shape[0], *[1] * (after - rank), *v.shape[1:]))
        out.append(v)
    return out, max(ranks) - after
