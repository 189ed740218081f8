"""Choosing between programs, as a primitive that carries its branches.

An index and operands go in, what the chosen branch returns comes out. Where the index is known, under
differentiation alone, only its branch is there; otherwise derivatives choose between the branches' derivatives. Each
branch has places of its own for its residuals: where all branches run, for a batch, none reads what another left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, move_axis, primitive
from fnflare.core.tracer import ValueTracer
from fnflare.program.call import call_program, flops_of, real_among
from fnflare.program.dead_code import live_part
from fnflare.program.derivatives import batched, pushforward
from fnflare.program.interpreter import run
from fnflare.program.ir import Program, Var
from fnflare.program.partition import Partition, partition
from fnflare.program.tracing import evaluate, trace_program
from fnflare.program.while_loop import is_known

__all__ = ["choose", "cond", "taking_all", "within"]

Branches = tuple[Program, ...]
#: For each output the branch that alone fills it, the others giving zeros that nobody reads; None for what all return.
#: Empty where all return everything.
Owners = tuple[int | None, ...]


def _kernel(index: Any, *args: Any, branches: Branches, owners: Owners = ()) -> tuple[Any, ...]:
    return tuple(run(branches[within(index, branches)], args))


def within(index: Any, branches: Sequence[Any]) -> int:
    """The index of a branch; one out of range is brought to the nearest."""
    while isinstance(index, ValueTracer):
        index = index.value
    return min(max(int(index), 0), len(branches) - 1)


def _shape(_index: Any, *avals: Any, branches: Branches, owners: Owners = ()) -> list[ShapeDtypeStruct]:
    return [ShapeDtypeStruct(a.shape, a.dtype) for a in branches[0].out_avals]


cond = primitive("cond", _kernel, _shape, many=True, carries="program")


@cond.pruning
def _(used: tuple[int, ...], *, branches: Branches, owners: Owners = ()) -> Any:
    parts = [live_part(b, used) for b in branches]
    inputs = sorted({i for _, read in parts for i in read})
    avals = branches[0].in_avals
    programs = []
    for part, read in parts:
        own = dict(zip(read, part.inputs, strict=True))
        programs.append(part.replace(inputs=[own.get(i, Var(avals[i])) for i in inputs]))
    params: dict[str, Any] = {"branches": tuple(programs)}
    if owners:
        params["owners"] = tuple([owners[i] for i in used])
    return used, (0, *[1 + i for i in inputs]), params


@cond.cost
def _(_ans: Any, *_avals: Any, branches: Branches, owners: Owners = ()) -> int:
    return max(flops_of(b) for b in branches)


def choose(index: Any, branches: Branches, args: Sequence[Any], owners: Owners = ()) -> tuple[Any, ...]:
    """Run the branch that the index says, on operands that all branches take."""
    if is_known(index):
        return call_program(branches[within(index, branches)], args)
    params: dict[str, Any] = {"branches": branches}
    if any(owner is not None for owner in owners):
        params["owners"] = owners
    return bind(cond, [index, *args], params)


def _every(owners: Owners, branches: Branches) -> Owners:
    return owners or (None,) * len(branches[0].outputs)


# -- forward mode -------------------------------------------------------------------------------


@cond.dual
def _(ts: Any, index: Any, *args: Any, branches: Branches, owners: Owners = ()) -> Any:
    moving = tuple([i for i, t in enumerate(ts[1:]) if t is not None])
    moved = sorted({k for b in branches for k in pushforward(b, moving).moved})
    pushed = tuple([pushforward(b, moving, tuple(moved)).program for b in branches])
    owners = _every(owners, branches)
    out = choose(index, pushed, [*args, *[ts[1 + i] for i in moving]], (*owners, *[owners[k] for k in moved]))
    count = len(branches[0].outputs)
    tangents = dict(zip(moved, out[count:], strict=True))
    return out[:count], [tangents.get(k) for k in range(count)]


# -- reverse mode -------------------------------------------------------------------------------


class _Reversal:
    """The branches' derivatives in reverse mode, made to return and to take the same."""

    def __init__(self, branches: Branches, wanted: tuple[int, ...]) -> None:
        self.parts = [partition(b, wanted) for b in branches]
        self.count = len(branches[0].outputs)
        self.active = sorted({i for p in self.parts for i in p.active})
        self.reached = sorted({i for p in self.parts for i in p.reached})
        #: The residuals of all branches, one branch's after the other's.
        self.slots: list[ShapeDtypeStruct] = []
        self.owners: list[int] = []
        places = []
        for k, part in enumerate(self.parts):
            residuals = part.forward.out_avals[self.count :]
            places.append(range(len(self.slots), len(self.slots) + len(residuals)))
            self.slots += [ShapeDtypeStruct(a.shape, a.dtype) for a in residuals]
            self.owners += [k] * len(residuals)
        self.forward = tuple([self._forward(p, s) for p, s in zip(self.parts, places, strict=True)])
        pairs = zip(branches, self.parts, places, strict=True)
        self.backward = tuple([self._backward(b, p, s) for b, p, s in pairs])

    def _forward(self, part: Partition, places: range) -> Program:
        def run_forward(*args: Any) -> list[Any]:
            out = evaluate(part.forward, args)
            residuals = dict(zip(places, out[self.count :], strict=True))
            filled = [residuals.get(i, np.zeros(a.shape, a.dtype)) for i, a in enumerate(self.slots)]
            return [*out[: self.count], *filled]

        return trace_program(run_forward, part.forward.in_avals, part.forward.name).program

    def _backward(self, branch: Program, part: Partition, places: range) -> Program:
        avals = branch.in_avals
        cts = [ShapeDtypeStruct(a.shape, a.dtype) for a in (branch.out_avals[i] for i in self.active)]

        def run_backward(*xs: Any) -> list[Any]:
            args, slots = xs[: len(avals)], xs[len(avals) : len(avals) + len(self.slots)]
            given = dict(zip(self.active, xs[len(avals) + len(self.slots) :], strict=True))
            read = [args[i] if kind == "input" else slots[places[i]] for kind, i in part.reads]
            out = evaluate(part.backward, [*read, *[given[i] for i in part.active]])
            gradients = dict(zip(part.reached, out, strict=True))
            return [gradients[i] if i in gradients else np.zeros(avals[i].shape, avals[i].dtype) for i in self.reached]

        return trace_program(run_backward, [*avals, *self.slots, *cts], part.backward.name).program


@cond.residuals
def _(traced: Any, index: Any, *args: Any, branches: Branches, owners: Owners = ()) -> Any:
    wanted = tuple([i - 1 for i in real_among(traced, [index, *args]) if i > 0])
    reversal = branches[0].derived(("reversal", branches, wanted), lambda: _Reversal(branches, wanted))
    out = choose(index, reversal.forward, args, (*_every(owners, branches), *reversal.owners))
    return out[: reversal.count], (reversal, index, args, out[reversal.count :])


@cond.vjp_joint
def _(
    cts: Any,
    _ans: Any,
    reversal: _Reversal,
    index: Any,
    args: Any,
    slots: Any,
    *,
    branches: Branches,
    owners: Owners = (),
) -> list[Any]:
    out = choose(index, reversal.backward, [*args, *slots, *[cts[i] for i in reversal.active]])
    gradients: list[Any] = [None] * (1 + len(args))
    for i, g in zip(reversal.reached, out, strict=True):
        gradients[1 + i] = g
    return gradients


# -- batching -----------------------------------------------------------------------------------


@cond.vmap
def _(size: int, args: Any, axes: Any, *, branches: Branches, owners: Owners = ()) -> Any:
    values = [x if axis is None else move_axis(x, axis, 0) for x, axis in zip(args, axes, strict=True)]
    which = tuple([axis is not None for axis in axes[1:]])
    every = [batched(b, size, which) for b in branches]
    if axes[0] is None:
        at_least = tuple([k for k in range(len(branches[0].outputs)) if any(m.axes[k] == 0 for m in every)])
        programs = tuple([batched(b, size, which, at_least).program for b in branches])
        out = choose(values[0], programs, values[1:], owners)
        return out, tuple([0 if k in at_least else None for k in range(len(out))])
    # Each example chooses for itself: all branches run for all of them.
    all_outputs = tuple(range(len(branches[0].outputs)))
    outs = [call_program(batched(b, size, which, all_outputs).program, values[1:]) for b in branches]
    index = np.clip(values[0], 0, len(branches) - 1)
    owners = _every(owners, branches)
    answer = [outs[owner or 0][i] for i, owner in enumerate(owners)]
    for k, out in enumerate(outs[1:], start=1):
        for i, (old, new) in enumerate(zip(answer, out, strict=True)):
            if owners[i] is None:
                mine = (index == k).reshape((size,) + (1,) * (len(new.shape) - 1))
                answer[i] = np.where(mine, new, old)
    return tuple(answer), (0,) * len(answer)


def taking_all(programs: Sequence[Program], consts: Sequence[int]) -> Branches:
    """Programs that each take some constants, then common operands, as programs that take all constants.

    Args:
        programs: the branches.
        consts: how many constants each takes, its first inputs.
    """
    key = ("taking all", tuple(programs), tuple(consts))
    return programs[0].derived(key, lambda: _taking_all(programs, consts))


def _taking_all(programs: Sequence[Program], consts: Sequence[int]) -> Branches:
    out = []
    for k, program in enumerate(programs):
        unused = [[Var(v.aval) for v in p.inputs[:n]] for p, n in zip(programs, consts, strict=True)]
        unused[k] = list(program.inputs[: consts[k]])
        inputs = [*[v for group in unused for v in group], *program.inputs[consts[k] :]]
        out.append(program.replace(inputs=inputs))
    return tuple(out)
