"""What the custom rules, whose primitives carry functions, do where they meet `vmap`.

A function of one example goes in, made for a batching trace; what the primitive carries on, below that trace, is
a function of all examples, which opens the trace again, lifts its arguments and runs the function there.
It may run after the trace has closed, in a backward pass, and what it closes over still means what it meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fnflare.core import BatchTrace, BatchTracer
from fnflare.core.batch import spread
from fnflare.core.tracer import ValueTracer

__all__ = ["batch_traces", "lifted", "lowered", "reopened", "unread"]


def batch_traces(values: Sequence[Any]) -> list[BatchTrace]:
    """The batching traces that a primitive on these values will come through, in that order."""
    found: dict[int, BatchTrace] = {}
    for x in values:
        while isinstance(x, (BatchTracer, ValueTracer)):
            if isinstance(x, BatchTracer):
                found[id(x._trace)] = x._trace
            x = x.value
    return sorted(found.values(), key=lambda trace: -trace.level)


def unread(values: Sequence[Any], others: Sequence[Any]) -> list[BatchTracer]:
    """Arguments that nothing reads, which lead a primitive on `values` through the batching traces that only `others`
    have, what its function closes over say."""
    known = batch_traces(values)
    return [trace.tracer(np.zeros(trace.size), 0) for trace in batch_traces(others) if trace not in known]


@contextmanager
def reopened(trace: BatchTrace) -> Iterator[None]:
    """Run with a trace on top of the stack that may be further down in it, or closed."""
    level, closed = trace.level, trace.closed
    try:
        with trace:
            yield
    finally:
        trace.level, trace.closed = level, closed


def lifted(trace: BatchTrace, values: Sequence[Any], axes: Sequence[int | None]) -> list[Any]:
    """What all examples have, as what one has."""
    return [x if axis is None else trace.tracer(x, axis) for x, axis in zip(values, axes, strict=True)]


def lowered(trace: BatchTrace, values: Sequence[Any]) -> tuple[Any, ...]:
    """What one example has, as what all have, along a first axis; None stays."""
    return tuple([None if x is None else spread(*trace.below(x), trace.size, 0) for x in values])
