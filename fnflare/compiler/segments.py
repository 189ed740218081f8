"""Programs in segments: what can be lowered runs natively, what cannot runs in NumPy in between.

A program goes in; parts of it come out, each a program of its own, alternately native and not, in an order in which
they can be run and that makes few of them. The reason why an equation is not native comes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fnflare.compiler.block import NotLowered
from fnflare.compiler.lower import lower
from fnflare.compiler.lowered import Lowered
from fnflare.program.ir import Atom, Equation, Literal, Program, Var, variables

__all__ = ["Segment", "chained", "segments"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a program.

    Attributes:
        program: the part, a program of its own.
        lowered: its loop nests; None for a part that is not native.
        reasons: for a part that is not native why, each reason once.
    """

    program: Program
    lowered: Lowered | None
    reasons: tuple[str, ...] = ()


def segments(program: Program) -> tuple[Segment, ...]:
    """The parts of a program, one where all of it can be lowered."""
    return program.derived("segments", lambda: _segments(program))


def _segments(program: Program) -> tuple[Segment, ...]:
    try:
        return (Segment(program, lower(program)),)
    except NotLowered as error:
        whole = str(error)
    reasons = {id(e): _obstacle(e) for e in program.equations}
    if not any(reasons.values()):
        return (Segment(program, None, (whole,)),)
    runs = _runs(program, reasons)
    if len(runs) == 1:
        return (Segment(program, None, tuple(dict.fromkeys(filter(None, reasons.values())))),)
    out = []
    for equations in runs:
        part = _part(program, equations)
        why = tuple(dict.fromkeys([r for e in equations if (r := reasons[id(e)])]))
        out.append(_lowered(part) if not why else Segment(part, None, why))
    return tuple(out)


def _lowered(part: Program) -> Segment:
    try:
        return Segment(part, lower(part))
    except NotLowered as error:
        return Segment(part, None, (str(error),))


def _obstacle(e: Equation) -> str:
    """Why an equation cannot be lowered, "" where it can."""
    inputs = list(dict.fromkeys(variables(e.inputs)))
    try:
        lower(Program(inputs, [e], e.outputs))
    except NotLowered as error:
        return str(error)
    return ""


def _runs(program: Program, reasons: dict[int, str]) -> list[list[Equation]]:
    """The equations in runs, alternately native and not: each as long as what came before it allows."""
    there = set(program.inputs)
    pending = list(program.equations)
    out: list[list[Equation]] = []
    native = True
    while pending:
        run, left = [], []
        for e in pending:
            if bool(reasons[id(e)]) != native and all(v in there for v in variables(e.inputs)):
                run.append(e)
                there.update(e.outputs)
            else:
                left.append(e)
        if run:
            out.append(run)
        pending, native = left, not native
    return out


def _part(program: Program, equations: Sequence[Equation]) -> Program:
    """Equations as a program, from what they read to what others read of them."""
    own = {v for e in equations for v in e.outputs}
    inside = {id(e) for e in equations}
    read = [v for e in equations for v in variables(e.inputs) if v not in own]
    others: list[Atom] = [a for e in program.equations if id(e) not in inside for a in e.inputs]
    wanted = [v for v in variables([*others, *program.outputs]) if v in own]
    return Program(dict.fromkeys(read), equations, dict.fromkeys(wanted), program.name)


def chained(
    program: Program, parts: Sequence[Segment], function: Callable[[Segment], Callable[..., list[Any]]]
) -> Callable[..., list[Any]]:
    """A function of a program's arguments that runs its parts one after the other."""
    slots: dict[Var, int] = {v: k for k, v in enumerate(program.inputs)}
    steps = []
    for part in parts:
        reads = [slots[v] for v in part.program.inputs]
        for v in variables(part.program.outputs):
            slots[v] = len(slots)
        steps.append((function(part), reads))
    ends = [a.value if type(a) is Literal else slots[a] for a in program.outputs]  # type: ignore[index]
    fixed = [type(a) is Literal for a in program.outputs]

    def run(*args: Any) -> list[Any]:
        values = list(args)
        for step, reads in steps:
            values += step(*[values[k] for k in reads])
        return [end if known else values[end] for end, known in zip(ends, fixed, strict=True)]

    return run
