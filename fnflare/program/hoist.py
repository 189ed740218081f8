"""Moving work out of loops: what a step does that need not wait for the step before it.

The body of a scan goes in, and comes out in four parts. What depends on constants alone runs once; what depends
on the scanned inputs but not on the carry runs before the loop, for all steps at once; the core is what the carry
needs, and loops; what nothing in the loop waits for runs after it, for all steps at once. A carry that only
adds up leaves the loop too: `fnflare.program.contract` adds up its terms over all steps, as one product where
they are products.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fnflare.core import BatchTrace, move_axis
from fnflare.program.contract import Total, contracted, negated, total_of
from fnflare.program.ir import Atom, Equation, Program, Var, uses_of, variables
from fnflare.program.regroup import regroup
from fnflare.program.tracing import evaluate

__all__ = ["Hoisted", "hoist", "run_batched"]

#: Products, and rows of tables: their answers are worth storing for all steps, however large they are.
_WORTH_STORING = frozenset({"matmul", "einsum", "conv", "getitem"})
#: What NumPy does without a copy.
_VIEWS = frozenset({"reshape", "transpose", "getitem"})
#: An answer this much larger than what it is made of, such as a one-hot code, is made step by step.
_MOST_GROWTH = 16


class Hoisted(NamedTuple):
    """A loop's body in parts.

    Attributes:
        invariant: from the constants to what else is the same in every step.
        before: from the constants, the invariants and the scanned inputs to more scanned inputs, a step.
        core: the body that remains; its constants are those and the invariants that it reads.
        after: from the constants, the invariants, all scanned inputs and the core's outputs to outputs, a step.
        core_consts, core_carry, core_xs: what the core takes: numbers among (constants, invariants), carries, and
            (scanned inputs, those of `before`).
        ys: the number of outputs among those of `after`; the operands of the totals come after them.
        totals: for each carry that left the loop, its number and how its terms add up.
    """

    invariant: Program
    before: Program
    core: Program
    after: Program
    core_consts: tuple[int, ...]
    core_carry: tuple[int, ...]
    core_xs: tuple[int, ...]
    ys: int
    totals: tuple[tuple[int, tuple[Total, ...]], ...]


def hoist(program: Program, consts: int, carry: int) -> Hoisted | None:
    """Take a scan's body apart.

    Args:
        program: from constants, carries and a step's inputs to carries and a step's outputs.
        consts: how many constants there are.
        carry: how many carries there are.

    Returns:
        The parts; None if all of it has to stay in the loop.
    """
    return program.derived(("hoist", consts, carry), lambda: _hoist(program, consts, carry))


def _hoist(program: Program, consts: int, carry: int) -> Hoisted | None:
    return _Splitter(regroup(program, consts, carry), consts, carry).split()


class _Splitter:
    """The work of `hoist`."""

    def __init__(self, program: Program, consts: int, carry: int) -> None:
        self.program = program
        self.consts = program.inputs[:consts]
        self.carry = program.inputs[consts : consts + carry]
        self.xs = program.inputs[consts + carry :]
        self.carry_out = program.outputs[:carry]
        self.ys = program.outputs[carry:]
        self.maker = {v: e for e in program.equations for v in e.outputs}
        self.uses = uses_of(program)

    def split(self) -> Hoisted | None:
        fixed, ahead = self._levels()
        terms = {k: t for k in range(len(self.carry)) if (t := self._terms(k)) is not None}
        loop_carry = [k for k in range(len(self.carry)) if k not in terms]
        outside = set(fixed) | set(ahead)
        core = self._needed([self.carry_out[k] for k in loop_carry], outside)
        # What must run step by step stays in the core, and with it what that reads.
        pinned = [e for e in self.program.equations if id(e) not in outside and _is_pinned(e)]
        core |= self._needed([v for e in pinned for v in e.outputs], outside)
        wanted = [*self.ys, *[a for ts in terms.values() for t in ts for a in t.operands]]
        later = self._needed(wanted, outside | core)
        after = [e for e in self.program.equations if id(e) in later]
        if not (fixed or ahead or after or terms):
            return None
        return self._assemble(fixed, ahead, core, after, loop_carry, terms)

    def _levels(self) -> tuple[dict[int, Equation], dict[int, Equation]]:
        """The equations that depend on constants alone, and those that do not depend on the carry."""
        still: set[Var] = set(self.consts)
        early: set[Var] = set(self.xs)
        fixed: dict[int, Equation] = {}
        ahead: dict[int, Equation] = {}
        for e in self.program.equations:
            inputs = variables(e.inputs)
            if _is_pinned(e):
                continue
            if all(v in still for v in inputs):
                still.update(e.outputs)
                fixed[id(e)] = e
            elif all(v in still or v in early for v in inputs) and _is_worth_storing(e, early):
                early.update(e.outputs)
                ahead[id(e)] = e
        return fixed, ahead

    def _needed(self, atoms: Iterable[Atom], outside: set[int]) -> set[int]:
        """The equations, by id, that the atoms need, but for those outside."""
        found: set[int] = set()
        stack = variables(atoms)
        while stack:
            e = self.maker.get(stack.pop())
            if e is not None and id(e) not in found and id(e) not in outside:
                found.add(id(e))
                stack.extend(variables(e.inputs))
        return found

    def _terms(self, k: int) -> list[Total] | None:
        """What is added to carry `k` in a step, if nothing else happens to it and adding it up later is no waste."""
        acc = self.carry[k]
        terms: list[Total] = []
        if self.uses.get(acc, 0) != 1 or not _adds_up(acc.aval.dtype):
            return None
        out = self.carry_out[k]
        while out is not acc:
            e = self.maker.get(out) if type(out) is Var else None
            if e is None or self.uses[out] != 1 or not _is_sum(e) or e.outputs[0].aval != acc.aval:  # type: ignore[index]
                return None
            along = [a for a in _taken(e) if a is acc or (type(a) is Var and self._leads_to(a, acc))]
            rest = [a for a in e.inputs if a is not along[0]] if len(along) == 1 else []
            if len(rest) != 1 or type(rest[0]) is not Var or rest[0].aval != acc.aval:
                return None
            total = total_of(rest[0], self.maker, self.uses)
            terms.append(negated(total) if e.prim.name == "subtract" else total)
            out = along[0]
        return terms if all(t.is_cheap for t in terms) else None

    def _leads_to(self, v: Var, acc: Var) -> bool:
        """Whether `v` is a chain of additions down to the carry `acc`."""
        while True:
            e = self.maker.get(v)
            if e is None or not _is_sum(e):
                return False
            if any(a is acc for a in _taken(e)):
                return True
            inner = [a for a in _taken(e) if type(a) is Var and (m := self.maker.get(a)) and _is_sum(m)]
            if len(inner) != 1:
                return False
            v = inner[0]

    def _assemble(
        self,
        fixed: dict[int, Equation],
        ahead: dict[int, Equation],
        core: set[int],
        after: list[Equation],
        loop_carry: list[int],
        sums: dict[int, list[Total]],
    ) -> Hoisted:
        name = self.program.name
        core_equations = [e for e in self.program.equations if id(e) in core]
        after_outputs = [*self.ys, *[a for ts in sums.values() for t in ts for a in t.operands]]
        looping = [self.carry_out[k] for k in loop_carry]
        read = dict.fromkeys(
            variables([*[a for e in [*core_equations, *after] for a in e.inputs], *after_outputs, *looping])
        )
        invariants = [v for e in fixed.values() for v in e.outputs if v in read or self._read_by(ahead.values(), v)]
        early = [v for e in ahead.values() for v in e.outputs if v in read]
        in_core = {v for e in core_equations for v in e.outputs} | set(self.carry)
        read_after = dict.fromkeys(variables([*[a for e in after for a in e.inputs], *after_outputs]))
        handed = [v for v in read_after if v in in_core]
        views = self._views_of(handed)
        handed = [v for v in handed if v not in views]
        after = [*views.values(), *after]
        core_reads = set(variables([*[a for e in core_equations for a in e.inputs], *looping, *handed]))
        still, scanned = [*self.consts, *invariants], [*self.xs, *early]
        core_consts = tuple([i for i, v in enumerate(still) if v in core_reads])
        core_xs = tuple([i for i, v in enumerate(scanned) if v in core_reads])
        core_inputs = [
            *[still[i] for i in core_consts],
            *[self.carry[k] for k in loop_carry],
            *[scanned[i] for i in core_xs],
        ]
        return Hoisted(
            Program(self.consts, live(list(fixed.values()), invariants), invariants, f"{name} invariant"),
            Program([*still, *self.xs], live(list(ahead.values()), early), early, f"{name} before"),
            Program(core_inputs, core_equations, [*looping, *handed], name),
            Program([*still, *scanned, *handed], after, after_outputs, f"{name} after"),
            core_consts,
            tuple(loop_carry),
            core_xs,
            len(self.ys),
            tuple([(k, tuple(ts)) for k, ts in sums.items()]),
        )

    def _views_of(self, handed: Sequence[Var]) -> dict[Var, Equation]:
        """What the core would hand on though it is a part of something else that it hands on; it can be taken of that
        afterwards."""
        there = set(handed)
        views = [e for e in self.program.equations if e.prim.name in _VIEWS and len(e.inputs) == 1]
        return {e.outputs[0]: e for e in views if e.outputs[0] in there and e.inputs[0] in there}

    def _read_by(self, equations: Iterable[Equation], v: Var) -> bool:
        return any(v is a for e in equations for a in e.inputs)


def _is_sum(e: Equation) -> bool:
    return e.prim.name in ("add", "subtract")


def _taken(e: Equation) -> tuple[Atom, ...]:
    """The arguments of a sum or difference that keep their sign."""
    return e.inputs if e.prim.name == "add" else e.inputs[:1]


def live(equations: Sequence[Equation], outputs: Iterable[Atom]) -> list[Equation]:
    """The equations that the outputs need."""
    needed = set(variables(outputs))
    kept = []
    for e in reversed(equations):
        if any(v in needed for v in e.outputs):
            kept.append(e)
            needed.update(variables(e.inputs))
    return kept[::-1]


def _is_pinned(e: Equation) -> bool:
    """Whether an equation has to run step by step: it carries a program or a user's function, or has no batching
    rule."""
    prim = e.prim
    return prim.many or (prim.batch is None and not prim.elementwise)


def _adds_up(dtype: np.dtype[Any]) -> bool:
    """Whether a sum over an axis is of the same dtype, so that it is what adding step by step gives."""
    return dtype.kind in "fc" or (dtype.kind in "iu" and dtype.itemsize == 8)


def _is_worth_storing(e: Equation, early: set[Var]) -> bool:
    if e.prim.name in _WORTH_STORING:
        return True
    size = sum(v.aval.size for v in set(variables(e.inputs)) if v in early)
    return e.outputs[0].aval.size <= _MOST_GROWTH * max(size, 1)


def run_batched(program: Program, size: int, shared: Sequence[Any], stacked: Sequence[Any]) -> list[Any]:
    """Run a program for all steps at once.

    Args:
        program: its first inputs are the same for all steps.
        size: the number of steps.
        shared: the values of those inputs.
        stacked: of the others, one for each step along axis 0.

    Returns:
        Its outputs, stacked along axis 0.
    """
    if not program.equations and all(v in program.inputs[len(shared) :] for v in program.outputs):
        place = dict(zip(program.inputs[len(shared) :], stacked, strict=True))
        return [place[v] for v in program.outputs]  # type: ignore[index]
    with BatchTrace(program, size) as trace:
        outputs = [trace.below(x) for x in evaluate(program, [*shared, *[trace.tracer(x, 0) for x in stacked]])]
    return [np.broadcast_to(x, (size, *np.shape(x))) if axis is None else move_axis(x, axis, 0) for x, axis in outputs]


def add_up(totals: Sequence[Total], operands: Sequence[Any], start: Any) -> Any:
    """A carry that left the loop: where it began, and all its terms."""
    rest = list(operands)
    for total in totals:
        count = len(total.operands)
        start = start + contracted(total, rest[:count])
        rest = rest[count:]
    return start
