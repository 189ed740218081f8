"""Loops of which only the last step's outputs are wanted.

A scan's body goes in, and comes out in two: what the carry needs, which loops, and what only the outputs
need, which runs once, after the loop. Where an output is a carry, as in most recurrent cells, nothing is left to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fnflare.core import ShapeDtypeStruct
from fnflare.program.hoist import live
from fnflare.program.ir import Program, Var
from fnflare.program.scan import loop
from fnflare.program.tracing import evaluate

__all__ = ["loop_to_last"]


class _Apart(NamedTuple):
    """A body in two.

    Attributes:
        body: the loop's, without outputs; after the carries it carries `handed`, which no step reads.
        finish: from the constants, the scanned inputs `xs` of the last step, and `reads`, to its outputs.
        handed: what else of a step the outputs need.
        reads: numbers among the outputs of `body`.
        xs: numbers of the scanned inputs.
    """

    body: Program
    finish: Program
    handed: tuple[ShapeDtypeStruct, ...]
    reads: tuple[int, ...]
    xs: tuple[int, ...]


def _apart(program: Program, consts: int, carry: int) -> _Apart:
    carries, ys = program.outputs[:carry], program.outputs[carry:]
    looping = live(program.equations, carries)
    in_loop = set(map(id, looping))
    rest = live([e for e in program.equations if id(e) not in in_loop], ys)
    read = dict.fromkeys([a for a in [*[a for e in rest for a in e.inputs], *ys] if type(a) is Var])
    fixed, xs = program.inputs[:consts], program.inputs[consts + carry :]
    outside = {*fixed, *xs, *[v for e in rest for v in e.outputs]}
    needed = [v for v in read if v not in outside]
    handed = [v for v in needed if v not in carries]
    # Their first values are never read: a step writes them, and the last step's are what comes out.
    written = [Var(ShapeDtypeStruct(v.aval.shape, v.aval.dtype)) for v in handed]
    scanned = [i for i, v in enumerate(xs) if v in read]
    outputs = [*carries, *handed]
    return _Apart(
        Program([*program.inputs[: consts + carry], *written, *xs], looping, outputs, program.name),
        Program([*fixed, *[xs[i] for i in scanned], *needed], rest, ys, f"{program.name} last"),
        tuple([v.aval for v in written]),
        tuple([outputs.index(v) for v in needed]),
        tuple(scanned),
    )


def loop_to_last(
    program: Program, consts: Sequence[Any], init: Sequence[Any], xs: Sequence[Any], length: int, reverse: bool
) -> tuple[Any, ...]:
    """`loop`, with the outputs of the last step alone; there is at least one step.

    Returns:
        The final carries, and the outputs of the step that ran last.
    """
    apart = program.derived(("last", len(consts), len(init)), lambda: _apart(program, len(consts), len(init)))
    unread = [np.zeros(a.shape, a.dtype)[()] for a in apart.handed]
    out = loop(apart.body, consts, [*init, *unread], xs, length, reverse)
    at_end = [xs[i][0 if reverse else -1] for i in apart.xs]
    return *out[: len(init)], *evaluate(apart.finish, [*consts, *at_end, *[out[i] for i in apart.reads]])
