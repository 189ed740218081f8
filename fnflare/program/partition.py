"""Differentiating programs in reverse: one joint program, cut into a forward and a backward one.

A program goes in, and which of its inputs are to get cotangents. The joint program, outputs and
cotangents from inputs and cotangents of outputs, is traced on a tape; what does not depend on a cotangent is
the forward part. What the backward part reads of it is stored, the residuals, or made again from what is
stored, where that is cheaper; a policy may say otherwise, which is all that `checkpoint` is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fnflare.core import new_tape
from fnflare.program.ir import Atom, Equation, Program, Var, variables
from fnflare.program.simplify import simplify
from fnflare.program.tracing import evaluate, trace_program

__all__ = ["Partition", "Policy", "partition"]

#: Whether the answer of an equation may be stored: ``policy(prim, *avals, **params)``.
Policy = Callable[..., bool]


class Partition(NamedTuple):
    """A program's derivative in reverse mode, in two programs.

    Attributes:
        forward: from the inputs to the outputs, and after them the residuals.
        backward: from what it reads, and the cotangents of the `active` outputs, to those of the `wanted` inputs.
        reads: what the backward program takes first, in order: ``("input", i)`` or ``("residual", k)``.
        active: the outputs whose cotangents matter.
        reached: which inputs get a cotangent, one for each output of `backward`.
    """

    forward: Program
    backward: Program
    reads: tuple[tuple[str, int], ...]
    active: tuple[int, ...]
    reached: tuple[int, ...]


def partition(program: Program, wanted: tuple[int, ...], policy: Policy | None = None) -> Partition:
    """Differentiate a program with respect to the inputs `wanted`, in two steps.

    Args:
        program: the program.
        wanted: the numbers of inputs of floating dtype.
        policy: says of an equation whether its outputs may be stored; by default what is cheap to make again
            is not.
    """
    return program.derived(("partition", wanted, policy), lambda: _partition(program, wanted, policy))


def _partition(program: Program, wanted: tuple[int, ...], policy: Policy | None) -> Partition:
    joint, active, reached = _joint(program, wanted)
    count = len(program.inputs)
    primals, cotangents = joint.inputs[:count], joint.inputs[count:]
    outputs, gradients = joint.outputs[: len(program.outputs)], joint.outputs[len(program.outputs) :]
    known, unknown = _split(joint.equations, cotangents)
    read = _read_by(unknown, gradients, cotangents)
    stored, again = _stored(known, primals, read, policy)
    residuals = [v for v in stored if v not in set(primals)]
    forward = Program(primals, known, [*outputs, *residuals], f"{program.name} forward")
    number = {v: ("input", i) for i, v in enumerate(primals)} | {v: ("residual", k) for k, v in enumerate(residuals)}
    backward = Program([*stored, *cotangents], [*again, *unknown], gradients, f"{program.name} backward")
    return Partition(simplify(forward), backward, tuple([number[v] for v in stored]), active, reached)


def _joint(program: Program, wanted: tuple[int, ...]) -> tuple[Program, tuple[int, ...], tuple[int, ...]]:
    """The program of outputs and gradients, the outputs that depend on the wanted inputs, and the inputs on which
    these depend."""
    real = [i for i, aval in enumerate(program.out_avals) if aval.dtype.kind in "fc"]
    count = len(program.inputs)
    active: list[int] = []
    reached: list[int] = []

    def joint(*xs: Any) -> list[Any]:
        tape = new_tape(program)
        with tape:
            lifted = {i: tape.leaf(xs[i]) for i in wanted}
            outputs = evaluate(program, [lifted.get(i, x) for i, x in enumerate(xs[:count])])
        seeds: dict[int, Any] = {}
        for i, ct in zip(real, xs[count:], strict=True):
            slot = tape.slot_of(outputs[i])
            if slot >= 0:
                active.append(i)
                seeds[slot] = ct if slot not in seeds else seeds[slot] + ct
        gradients = []
        for i, g in zip(wanted, tape.backward(seeds, free=True), strict=True):
            if g is not None:
                reached.append(i)
                gradients.append(g)
        return [*[tape.lower(x) for x in outputs], *gradients]

    avals = [*program.in_avals, *[program.out_avals[i].strong for i in real]]
    traced = trace_program(joint, avals, program.name).program
    place = {i: count + k for k, i in enumerate(real)}
    inputs = [*traced.inputs[:count], *[traced.inputs[place[i]] for i in active]]
    return simplify(traced.replace(inputs=inputs)), tuple(active), tuple(reached)


def _split(equations: Sequence[Equation], cotangents: Sequence[Var]) -> tuple[list[Equation], list[Equation]]:
    """The equations that do not depend on a cotangent, and those that do."""
    unknown_vars: set[Var] = set(cotangents)
    known, unknown = [], []
    for equation in equations:
        if any(a in unknown_vars for a in variables(equation.inputs)):
            unknown_vars.update(equation.outputs)
            unknown.append(equation)
        else:
            known.append(equation)
    return known, unknown


def _read_by(unknown: Sequence[Equation], gradients: Sequence[Atom], cotangents: Sequence[Var]) -> list[Var]:
    """The variables of the forward part that the backward part reads, in order."""
    inside = set(cotangents).union(*[e.outputs for e in unknown]) if unknown else set(cotangents)
    atoms = [a for e in unknown for a in e.inputs] + list(gradients)
    return [v for v in dict.fromkeys(variables(atoms)) if v not in inside]


def _stored(
    known: Sequence[Equation], primals: Sequence[Var], read: Sequence[Var], policy: Policy | None
) -> tuple[list[Var], list[Equation]]:
    """What to store so that the backward part has all that it reads, and what it makes again from that."""
    stored = dict.fromkeys(read)
    given = set(primals)
    again: list[Equation] = []
    for equation in reversed(known):
        if not any(v in stored for v in equation.outputs):
            continue
        if policy is None:
            store = not _is_cheap(equation, stored, given)
        else:
            avals = [a.aval for a in equation.inputs]
            store = policy(equation.prim, *avals, **(equation.params or {}))
        if not store:
            again.append(equation)
            for v in equation.outputs:
                stored.pop(v, None)
            stored.update(dict.fromkeys(variables(equation.inputs)))
    again.reverse()
    return list(stored), again


#: What NumPy does without a copy.
_VIEWS = frozenset({"reshape", "transpose", "broadcast_to", "getitem"})
#: What costs no more than to store and load it.
_CHEAP = frozenset(
    {"add", "subtract", "multiply", "negative", "square", "convert", "select", "maximum", "minimum", "relu"}
    | {"equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "logical_and", "logical_not"}
)


def _is_cheap(equation: Equation, stored: dict[Var, None], given: set[Var]) -> bool:
    """Whether an answer is better made again: a view of something no larger, or a simple function of what is
    stored anyway."""
    inputs = variables(equation.inputs)
    at_hand = all(v in stored or v in given for v in inputs)
    if equation.prim.name in _VIEWS:
        return at_hand or inputs[0].aval.size <= equation.outputs[0].aval.size
    return equation.prim.name in _CHEAP and at_hand
