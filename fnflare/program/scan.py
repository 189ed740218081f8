"""The loop with a carry, as a primitive that carries its body as a program.

Constants, carries and scanned inputs go in, final carries and stacked outputs come out. Its derivatives are
loops of the body's derivatives: forward mode carries tangents along, reverse mode runs a loop that stores
residuals and one that reads them from the end to the start, with the cotangents of constants as carries that
add up. Every such loop is taken apart by `fnflare.program.hoist` before it is bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, move_axis, primitive, zeros
from fnflare.program.call import flops_of, real_among
from fnflare.program.dead_code import live_part
from fnflare.program.derivatives import batched, pushforward
from fnflare.program.hoist import add_up, hoist, run_batched
from fnflare.program.interpreter import run_loop
from fnflare.program.ir import Program, Var
from fnflare.program.partition import Partition, partition
from fnflare.program.simplify import simplify
from fnflare.program.tracing import evaluate, trace_program

__all__ = ["loop", "scan"]


def _kernel(*args: Any, program: Program, consts: int, carry: int, length: int, reverse: bool) -> tuple[Any, ...]:
    return tuple(run_loop(program, consts, carry, args, length, reverse))


def _shape(
    *avals: Any, program: Program, consts: int, carry: int, length: int, reverse: bool
) -> list[ShapeDtypeStruct]:
    out = program.out_avals
    return [*out[:carry], *[ShapeDtypeStruct((length, *a.shape), a.dtype) for a in out[carry:]]]


scan = primitive("scan", _kernel, _shape, many=True, carries="program")


@scan.pruning
def _(used: tuple[int, ...], *, program: Program, consts: int, carry: int, length: int, reverse: bool) -> Any:
    kept = set(used)
    while True:  # a carry that is used needs those that it is made of
        outputs = tuple(sorted(kept))
        part, inputs = live_part(program, outputs)
        more = {i - consts for i in inputs if consts <= i < consts + carry} - kept
        if not more:
            break
        kept |= more
    carries = [k for k in outputs if k < carry]
    if len(outputs) == len(program.outputs):
        return None
    # A carry that is returned has an argument, though its next value may not depend on it.
    own = dict(zip(inputs, part.inputs, strict=True))
    fixed, _, xs = _groups(inputs, consts, carry)
    places = [*fixed, *[consts + k for k in carries], *xs]
    body = part.replace(inputs=[own.get(i) or Var(program.inputs[i].aval) for i in places])
    params = {"program": body, "consts": len(fixed), "carry": len(carries), "length": length, "reverse": reverse}
    return outputs, tuple(places), params


@scan.cost
def _(_ans: Any, *_avals: Any, program: Program, length: int, **_: Any) -> int:
    return length * flops_of(program)


def loop(
    program: Program, consts: Sequence[Any], init: Sequence[Any], xs: Sequence[Any], length: int, reverse: bool
) -> tuple[Any, ...]:
    """Run a body over time, with what need not be in the loop outside of it.

    Args:
        program: the body, from constants, carries and a step's inputs to carries and a step's outputs.
        consts: the constants.
        init: the carries before the first step.
        xs: the inputs, stacked along axis 0.
        length: the number of steps.
        reverse: whether to go from the last step to the first.

    Returns:
        The final carries, and the outputs, stacked along axis 0.
    """
    parts = hoist(program, len(consts), len(init))
    if parts is None:
        return _bind(program, consts, init, xs, length, reverse)
    still = [*consts, *evaluate(parts.invariant, consts)]
    early = run_batched(parts.before, length, still, xs) if parts.before.outputs else []
    scanned = [*xs, *early]
    out = _bind(
        parts.core,
        [still[i] for i in parts.core_consts],
        [init[k] for k in parts.core_carry],
        [scanned[i] for i in parts.core_xs],
        length,
        reverse,
    )
    count = len(parts.core_carry)
    later = run_batched(parts.after, length, still, [*scanned, *out[count:]])
    final: dict[int, Any] = dict(zip(parts.core_carry, out[:count], strict=True))
    operands = later[parts.ys :]
    for k, totals in parts.totals:
        taken = sum(len(t.operands) for t in totals)
        final[k] = add_up(totals, operands[:taken], init[k])
        operands = operands[taken:]
    return (*[final[k] for k in range(len(init))], *later[: parts.ys])


def _bind(program: Program, consts: Any, init: Any, xs: Any, length: int, reverse: bool) -> tuple[Any, ...]:
    if not init and not program.outputs:
        return ()
    params = {"program": program, "consts": len(consts), "carry": len(init), "length": length, "reverse": reverse}
    return bind(scan, [*consts, *init, *xs], params)


def _groups(numbers: Sequence[int], consts: int, carry: int) -> tuple[list[int], list[int], list[int]]:
    """Numbers of arguments, apart by what they are: constants, carries, scanned inputs."""
    return (
        [i for i in numbers if i < consts],
        [i for i in numbers if consts <= i < consts + carry],
        [i for i in numbers if i >= consts + carry],
    )


# -- forward mode -------------------------------------------------------------------------------


@scan.dual
def _(ts: Any, *args: Any, program: Program, consts: int, carry: int, length: int, reverse: bool) -> Any:
    moving = [i for i, t in enumerate(ts) if t is not None]
    body, moving, moved = _moving_body(program, tuple(moving), consts, carry)
    tangents = {i: zeros(args[i]) if ts[i] is None else ts[i] for i in moving}
    by_kind = _groups(moving, consts, carry)
    primal = [args[:consts], args[consts : consts + carry], args[consts + carry :]]
    consts_, init, xs = [[*p, *[tangents[i] for i in group]] for p, group in zip(primal, by_kind, strict=True)]
    out = loop(body, consts_, init, xs, length, reverse)
    # Carries, their tangents, outputs, their tangents.
    count = carry + len(by_kind[1])
    ys = len(program.outputs) - carry
    answers = [*out[:carry], *out[count : count + ys]]
    values = dict(zip(moved, [*out[carry:count], *out[count + ys :]], strict=True))
    return tuple(answers), [values.get(i) for i in range(len(program.outputs))]


def _moving_body(program: Program, moving: tuple[int, ...], consts: int, carry: int) -> tuple[Program, Any, Any]:
    """The body that carries tangents along; which of its inputs and outputs have one."""

    def make() -> tuple[Program, Any, Any]:
        moves = moving
        while True:
            pushed = pushforward(program, moves, tuple([i - consts for i in moves if consts <= i < consts + carry]))
            more = {consts + k for k in pushed.moved if k < carry} - set(moves)
            if not more:
                break
            moves = tuple(sorted({*moves, *more}))
        p, count = pushed.program, len(program.inputs)
        place = {i: p.inputs[count + k] for k, i in enumerate(moves)}
        groups = _groups(moves, consts, carry)
        borders = (0, consts, consts + carry, count)
        inputs = []
        for k, group in enumerate(groups):
            inputs += [*p.inputs[borders[k] : borders[k + 1]], *[place[i] for i in group]]
        total = len(program.outputs)
        ts = dict(zip(pushed.moved, p.outputs[total:], strict=True))
        outputs = [
            *p.outputs[:carry],
            *[ts[k] for k in range(carry) if k in ts],
            *p.outputs[carry:total],
            *[ts[k] for k in range(carry, total) if k in ts],
        ]
        return p.replace(inputs=inputs, outputs=outputs), moves, pushed.moved

    return program.derived(("scan push", moving, consts, carry), make)


# -- reverse mode -------------------------------------------------------------------------------


class _Reversal:
    """A scan's derivative in reverse mode: the body that stores residuals, and the body that reads them."""

    def __init__(self, program: Program, wanted: tuple[int, ...], consts: int, carry: int) -> None:
        self.part = part = _settled(program, wanted, consts, carry)
        count = len(program.outputs)
        self.through = [i for i in range(carry) if i in part.active or consts + i in part.reached]
        # What the backward body reads of the constants and the scanned inputs is there already; of the carries and
        # of what is made in a step, every step's value is stored.
        self.const_reads = [i for kind, i in part.reads if kind == "input" and i < consts]
        self.x_reads = [i for kind, i in part.reads if kind == "input" and i >= consts + carry]
        stored = [part.forward.inputs[i] for kind, i in part.reads if kind == "input" and consts <= i < consts + carry]
        self.forward = part.forward.replace(outputs=[*part.forward.outputs, *stored])
        self.residuals = len(part.forward.outputs) - count + len(stored)
        self.reached_consts, _, self.reached_xs = _groups(part.reached, consts, carry)
        self.active_ys = [i for i in part.active if i >= carry]
        self.backward = self._backward(program, consts, carry)

    def _backward(self, program: Program, consts: int, carry: int) -> Program:
        part, through = self.part, self.through
        avals = program.in_avals
        const_avals = [avals[i] for i in self.const_reads]
        carry_avals = [avals[consts + k] for k in through]
        total_avals = [avals[i] for i in self.reached_consts]
        residual_avals = self.forward.out_avals[len(self.forward.outputs) - self.residuals :]
        x_avals = [avals[i] for i in self.x_reads]
        y_avals = [program.out_avals[i] for i in self.active_ys]

        def body(*args: Any) -> list[Any]:
            rest = iter(args)
            const_values = iter([next(rest) for _ in const_avals])
            cts: dict[int, Any] = {k: next(rest) for k in through}
            totals = [next(rest) for _ in total_avals]
            stored = [next(rest) for _ in residual_avals]
            x_values = iter([next(rest) for _ in x_avals])
            cts.update({i: next(rest) for i in self.active_ys})
            own = len(self.part.forward.outputs) - len(program.outputs)
            residuals, carries = stored[:own], iter(stored[own:])
            read = []
            for kind, i in part.reads:
                if kind == "residual":
                    read.append(residuals[i])
                else:
                    read.append(next(const_values if i < consts else carries if i < consts + carry else x_values))
            out = evaluate(part.backward, [*read, *[cts[i] for i in part.active]])
            gradients = dict(zip(part.reached, out, strict=True))
            back = [
                gradients[consts + k] if consts + k in gradients else np.zeros(a.shape, a.dtype)
                for k, a in zip(through, carry_avals, strict=True)
            ]
            added = [t + gradients[i] for t, i in zip(totals, self.reached_consts, strict=True)]
            return [*back, *added, *[gradients[i] for i in self.reached_xs]]

        order = [*const_avals, *carry_avals, *total_avals, *residual_avals, *x_avals, *y_avals]
        return simplify(trace_program(body, [a.strong for a in order], f"{program.name} backward").program)


def _settled(program: Program, wanted: tuple[int, ...], consts: int, carry: int) -> Partition:
    """The body's derivative, with respect also to the carries that come to depend on the wanted arguments."""
    while True:
        part = partition(program, wanted)
        more = {consts + i for i in part.active if i < carry} - set(wanted)
        if not more:
            return part
        wanted = tuple(sorted({*wanted, *more}))


@scan.residuals
def _(traced: Any, *args: Any, program: Program, consts: int, carry: int, length: int, reverse: bool) -> Any:
    wanted = real_among(traced, args)
    reversal = program.derived(("reversal", wanted, consts, carry), lambda: _Reversal(program, wanted, consts, carry))
    fixed, init, xs = args[:consts], args[consts : consts + carry], args[consts + carry :]
    out = loop(reversal.forward, fixed, init, xs, length, reverse)
    count = len(program.outputs)
    read = [fixed[i] for i in reversal.const_reads]
    stored = [*out[count:], *[args[i] for i in reversal.x_reads]]
    totals = [zeros(args[i]) for i in reversal.reached_consts]
    return out[:count], (reversal, read, totals, stored, len(args))


@scan.vjp_joint
def _(
    cts: Any,
    _ans: Any,
    reversal: _Reversal,
    read: Any,
    totals: Any,
    stored: Any,
    count: int,
    *,
    program: Program,
    consts: int,
    carry: int,
    length: int,
    reverse: bool,
) -> list[Any]:
    state = [*[cts[k] for k in reversal.through], *totals]
    out = loop(reversal.backward, read, state, [*stored, *[cts[i] for i in reversal.active_ys]], length, not reverse)
    gradients: list[Any] = [None] * count
    places = [*[consts + k for k in reversal.through], *reversal.reached_consts, *reversal.reached_xs]
    for i, g in zip(places, out, strict=True):
        gradients[i] = g
    return gradients


# -- batching -----------------------------------------------------------------------------------


@scan.vmap
def _(size: int, args: Any, axes: Any, *, program: Program, consts: int, carry: int, length: int, reverse: bool) -> Any:
    which = [axis is not None for axis in axes]
    while True:
        at_least = tuple([k for k in range(carry) if which[consts + k]])
        many = batched(program, size, tuple(which), at_least)
        more = [consts + k for k in range(carry) if many.axes[k] == 0 and not which[consts + k]]
        if not more:
            break
        for i in more:
            which[i] = True
    values = []
    for i, (x, axis) in enumerate(zip(args, axes, strict=True)):
        place = 1 if i >= consts + carry else 0  # time comes first
        if axis is not None:
            x = move_axis(x, axis, place)
        elif which[i]:
            x = np.broadcast_to(x, (size, *np.shape(x)))
        values.append(x)
    out = loop(
        many.program, values[:consts], values[consts : consts + carry], values[consts + carry :], length, reverse
    )
    return out, tuple([None if axis is None else 0 if k < carry else 1 for k, axis in enumerate(many.axes)])
