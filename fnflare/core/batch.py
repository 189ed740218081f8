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
from fnflare.core.trace import Trace, bind, closed_call
from fnflare.core.tracer import Tracer
from fnflare.errors import ConcretizationError, UnsupportedError

__all__ = ["BatchTrace", "BatchTracer", "move_axis"]


class BatchTracer(Tracer):
    """An example out of many: `value` holds all of them along its axis `axis`."""

    __slots__ = ("axis", "value")

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
        return ConcretizationError(
            f"{function}() of {self!r}, made {self.origin()}: it has one value for each example of the batch. Keep to "
            "array operations, or keep the argument out of the batch (in_axes=None)"
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
            ans, axis = bind(prim, _aligned(values, axes), params), 0
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


def move_axis(x: Any, source: int, destination: int) -> Any:
    """`x` with its axis `source` at `destination`; `x` itself where it is there already."""
    if source == destination:
        return x
    order = [i for i in range(len(x.shape)) if i != source]
    order.insert(destination, source)
    return x.transpose(order)


def _aligned(values: Sequence[Any], axes: Sequence[int | None]) -> list[Any]:
    """The arguments of an elementwise operation with the examples along axis 0 of each, and axes of length one
    after it where one argument has fewer axes than another: broadcasting counts from the last axis."""
    ranks = [len(np.shape(v)) - (axis is not None) for v, axis in zip(values, axes, strict=True)]
    rank = max(ranks)
    out = []
    for v, axis, r in zip(values, axes, ranks, strict=True):
        if axis is not None:
            v = move_axis(v, axis, 0)
            if r < rank:
                v = v.reshape((v.shape[0],) + (1,) * (rank - r) + v.shape[1:])
        out.append(v)
    return out
