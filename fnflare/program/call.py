"""A call of a program, as a primitive: what `jit` is to every other transform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fnflare.core import bind, move_axis, primitive
from fnflare.core.aval import ShapeDtypeStruct, dtype_of
from fnflare.program.dead_code import live_part
from fnflare.program.derivatives import batched, pushforward
from fnflare.program.interpreter import execute, run
from fnflare.program.ir import Program
from fnflare.program.partition import Policy, partition
from fnflare.program.tracing import ProgramTrace, evaluate

__all__ = ["call", "call_program"]


def _kernel(*args: Any, program: Program, whole: bool, policy: Policy | None) -> tuple[Any, ...]:
    return tuple(run(program, args) if whole else execute(program, args))


def _shape(*avals: Any, program: Program, whole: bool, policy: Policy | None) -> list[ShapeDtypeStruct]:
    return program.out_avals


#: ``program(*args)``. In another program it dissolves into its equations, unless it is to stay `whole`: then what it
#: computes is not shared with what stands around it, which is how `checkpoint` computes things twice. `policy` says
#: what its derivative may store; see `fnflare.program.partition`.
call = primitive("call", _kernel, _shape, many=True, carries="program")


def call_program(program: Program, args: Sequence[Any], *, whole: bool = False, policy: Policy | None = None) -> Any:
    """Call a program on arrays or tracers; returns a tuple of its outputs."""
    return bind(call, args, {"program": program, "whole": whole, "policy": policy})


@call.entering
def _(trace: ProgramTrace, args: Any, *, program: Program, whole: bool, policy: Policy | None) -> tuple[Any, ...]:
    if whole:
        return trace.emit(call, args, {"program": program, "whole": whole, "policy": policy})
    return tuple(evaluate(program, args))


@call.pruning
def _(used: tuple[int, ...], *, program: Program, whole: bool, policy: Policy | None) -> Any:
    part, inputs = live_part(program, used)
    return used, inputs, {"program": part, "whole": whole, "policy": policy}


@call.cost
def _(_ans: Any, *_avals: Any, program: Program, **_: Any) -> int:
    return flops_of(program)


def flops_of(program: Program) -> int:
    """The floating-point operations of a program."""
    total = 0
    for e in program.equations:
        if e.prim.flops is not None:
            ans = [v.aval for v in e.outputs]
            total += e.prim.flops(ans if e.prim.many else ans[0], *[a.aval for a in e.inputs], **(e.params or {}))
    return total


def real_among(traced: Sequence[int], args: Sequence[Any]) -> tuple[int, ...]:
    """The traced arguments that have a derivative."""
    return tuple([i for i in traced if dtype_of(args[i]).kind in "fc"])


@call.residuals
def _(traced: Any, *args: Any, program: Program, whole: bool, policy: Policy | None) -> Any:
    part = partition(program, real_among(traced, args), policy)
    outputs = call_program(part.forward, args, whole=whole)
    answers, residuals = outputs[: len(program.outputs)], outputs[len(program.outputs) :]
    read = [args[i] if kind == "input" else residuals[i] for kind, i in part.reads]
    return answers, (part, read, len(args))


@call.vjp_joint
def _(cts: Any, _ans: Any, part: Any, read: Any, count: int, *, program: Any, whole: bool, policy: Any) -> list[Any]:
    backward = call_program(part.backward, [*read, *[cts[i] for i in part.active]], whole=whole)
    gradients: list[Any] = [None] * count
    for i, g in zip(part.reached, backward, strict=True):
        gradients[i] = g
    return gradients


@call.dual
def _(ts: Any, *args: Any, program: Program, whole: bool, policy: Policy | None) -> tuple[Any, Any]:
    moving = tuple([i for i, t in enumerate(ts) if t is not None])
    pushed = pushforward(program, moving)
    out = call_program(pushed.program, [*args, *[ts[i] for i in moving]], whole=whole, policy=policy)
    count = len(program.outputs)
    tangents: list[Any] = [None] * count
    for i, t in zip(pushed.moved, out[count:], strict=True):
        tangents[i] = t
    return out[:count], tangents


@call.vmap
def _(size: int, args: Any, axes: Any, *, program: Program, whole: bool, policy: Policy | None) -> Any:
    which = tuple([axis is not None for axis in axes])
    many = batched(program, size, which)
    return call_program(many.program, to_front(args, axes), whole=whole, policy=policy), many.axes


def to_front(args: Sequence[Any], axes: Sequence[int | None]) -> list[Any]:
    """The arguments of a batching rule with the examples along axis 0."""
    return [x if axis is None else move_axis(x, axis, 0) for x, axis in zip(args, axes, strict=True)]
