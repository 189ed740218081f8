"""Programs of derivatives and of batches: a program run again, under another trace, while a new one is made."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare.core import BatchTrace, DualTrace, DualTracer, ShapeDtypeStruct, aval_of, move_axis
from fnflare.program.ir import Program
from fnflare.program.simplify import simplify
from fnflare.program.tracing import evaluate, trace_program

__all__ = ["Batched", "Pushed", "batched", "pushforward"]


class Pushed(NamedTuple):
    """A program's derivative in forward mode.

    Attributes:
        program: from the inputs, and the tangents of those that have one, to the outputs, and their tangents.
        moved: which outputs have a tangent.
    """

    program: Program
    moved: tuple[int, ...]


def pushforward(program: Program, moving: tuple[int, ...], at_least: tuple[int, ...] = ()) -> Pushed:
    """The program of values and tangents.

    Args:
        program: the program.
        moving: the inputs that have a tangent.
        at_least: outputs that shall have one, of zeros where they do not depend on those inputs.
    """
    return program.derived(("push", moving, at_least), lambda: _pushforward(program, moving, at_least))


def _pushforward(program: Program, moving: tuple[int, ...], at_least: tuple[int, ...]) -> Pushed:
    count = len(program.inputs)
    moved: list[int] = []

    def push(*xs: Any) -> list[Any]:
        tangents = dict(zip(moving, xs[count:], strict=True))
        with DualTrace(program) as dual:
            duals = [DualTracer(dual, x, tangents[i]) if i in tangents else x for i, x in enumerate(xs[:count])]
            outputs = evaluate(program, duals)
        ts = []
        for i, x in enumerate(outputs):
            t = dual.tangent_of(x)
            if t is None and i in at_least:
                aval = aval_of(x)
                t = np.zeros(aval.shape, aval.dtype)
            if t is not None:
                moved.append(i)
                ts.append(t)
        return [*[dual.lower(x) for x in outputs], *ts]

    avals = [*program.in_avals, *[program.in_avals[i].strong for i in moving]]
    traced = trace_program(push, avals, f"{program.name} pushforward").program
    return Pushed(simplify(traced), tuple(moved))


class Batched(NamedTuple):
    """A program of many examples at once.

    Attributes:
        program: its batched inputs and outputs have the examples along axis 0.
        axes: 0 for each output that is batched, None for what all examples share.
    """

    program: Program
    axes: tuple[int | None, ...]


def batched(program: Program, size: int, which: tuple[bool, ...], at_least: tuple[int, ...] = ()) -> Batched:
    """The program for `size` examples.

    Args:
        program: the program of one example.
        size: the number of examples.
        which: whether each input is batched.
        at_least: outputs that shall be batched, repeated where all examples share them.
    """
    return program.derived(("batch", size, which, at_least), lambda: _batched(program, size, which, at_least))


def _batched(program: Program, size: int, which: tuple[bool, ...], at_least: tuple[int, ...]) -> Batched:
    axes: list[int | None] = []

    def batch(*xs: Any) -> list[Any]:
        with BatchTrace(program, size) as trace:
            outputs = evaluate(program, [trace.tracer(x, 0) if b else x for x, b in zip(xs, which, strict=True)])
        values = []
        for i, x in enumerate(outputs):
            value, axis = trace.below(x)
            if axis is None and i in at_least:
                value, axis = np.broadcast_to(value, (size, *np.shape(value))), 0
            axes.append(None if axis is None else 0)
            values.append(value if axis is None else move_axis(value, axis, 0))
        return values

    avals = [
        ShapeDtypeStruct((size, *a.shape), a.dtype) if b else a for a, b in zip(program.in_avals, which, strict=True)
    ]
    traced = trace_program(batch, avals, f"{program.name} batched").program
    return Batched(simplify(traced), tuple(axes))
