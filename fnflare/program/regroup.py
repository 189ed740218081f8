"""Regrouping products in the body of a loop, so that more of them can leave it.

The body of a scan goes in; in what comes out ``(ct * a) * b``, of which only ``ct`` depends on the carry, has become
``ct * (a * b)``, whose second product `fnflare.program.hoist` then does for all steps at once. The backward pass of
a recurrent cell is made of such products, cotangents times the derivatives of gates, and of arrays put together
from parts, the cotangents of gates that lie side by side: factors go into the parts, and sums of such arrays
are taken part by part, where all parts but one are zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fnflare.core import primitives
from fnflare.program.dead_code import drop_dead_code
from fnflare.program.ir import Atom, Equation, Literal, Program, Var, uses_of

__all__ = ["regroup"]


def regroup(program: Program, consts: int, carry: int) -> Program:
    """A body whose products take what depends on the carry last.

    Args:
        program: from constants, carries and a step's inputs to carries and a step's outputs.
        consts: how many constants there are.
        carry: how many carries there are.
    """
    return drop_dead_code(_Regrouping(program, consts, carry).program())


class _Regrouping:
    """The work of `regroup`: walks the equations and remembers which variables are something times a factor that does
    not depend on the carry."""

    def __init__(self, program: Program, consts: int, carry: int) -> None:
        self.source = program
        self.late: set[Var] = set(program.inputs[consts : consts + carry])
        self.factored: dict[Var, tuple[Atom, Atom]] = {}
        self.equations: list[Equation] = []
        self.parts: dict[Var, Equation] = {}  # the concatenations among those
        self.uses = uses_of(program)

    def program(self) -> Program:
        for e in self.source.equations:
            if any(a in self.late for a in e.inputs if type(a) is Var):
                self.late.update(e.outputs)
                e = self._regrouped(e)
            self._append(e)
        return self.source.replace(equations=self.equations)

    def _regrouped(self, e: Equation) -> Equation:
        if e.prim.name == "negative":
            return self._negated(e)
        if e.prim.name == "add":
            return self._joined(e)
        if e.prim.name != "multiply":
            return e
        x, y = e.inputs
        if self._is_late(y):
            x, y = y, x
        if self._is_late(y) or not self._fits(e, x, y):
            return e
        whole = self._concatenation(x)
        if whole is not None and x.aval.shape == e.outputs[0].aval.shape and y.aval.shape in (x.aval.shape, ()):
            return self._each_part(e, whole, y)
        base, factor = self._parts(x)
        if factor is not None:
            y = self._product(factor, y, e)
            e = e._replace(inputs=(base, y))
        self.factored[e.outputs[0]] = (base, y)
        return e

    def _negated(self, e: Equation) -> Equation:
        base, factor = self._parts(e.inputs[0])
        if factor is None:
            return e
        y = self._emit("negative", (factor,), e)
        self.factored[e.outputs[0]] = (base, y)
        return Equation(primitives()["multiply"], (base, y), None, e.outputs, e.source)

    # -- arrays put together from parts ---------------------------------------------------------

    def _concatenation(self, x: Atom) -> Equation | None:
        """The equation that puts together a variable that nobody else reads."""
        return self.parts.get(x) if type(x) is Var and self.uses.get(x, 0) == 1 else None

    def _each_part(self, e: Equation, whole: Equation, factor: Atom) -> Equation:
        """The product of parts put together with a factor, as products put together."""
        assert whole.params is not None
        axis, place = whole.params["axis"], 0
        parts: list[Atom] = []
        for part in whole.inputs:
            width = part.aval.shape[axis]
            if not _is_zero(part):
                index = (slice(None),) * axis + (slice(place, place + width),)
                piece = self._emit("getitem", (factor,), e, {"index": index}) if factor.aval.shape else factor
                part = self._multiplied(part, piece, e)
            parts.append(part)
            place += width
        return Equation(whole.prim, tuple(parts), whole.params, e.outputs, e.source)

    def _multiplied(self, part: Atom, factor: Atom, e: Equation) -> Var:
        out = Var(part.aval)
        self.uses[out] = 1
        product = Equation(primitives()["multiply"], (part, factor), None, (out,), e.source)
        if self._is_late(part):
            self.late.add(out)
            product = self._regrouped(product)
        self._append(product)
        return out

    def _joined(self, e: Equation) -> Equation:
        """The sum of two arrays put together from parts, as one, where of the parts at one place only one counts."""
        a, b = map(self._concatenation, e.inputs)
        if a is None or b is None or a.params != b.params or e.inputs[0] is e.inputs[1]:
            return e
        if e.inputs[0].aval != e.inputs[1].aval:  # the sum repeats one along the other
            return e
        assert a.params is not None
        parts = _merged(a.inputs, b.inputs, a.params["axis"])
        return e if parts is None else Equation(a.prim, tuple(parts), a.params, e.outputs, e.source)

    def _is_late(self, a: Atom) -> bool:
        return type(a) is Var and a in self.late

    def _fits(self, e: Equation, *atoms: Atom) -> bool:
        """Whether no argument is promoted, so that products may be taken in any order."""
        dtype = e.outputs[0].aval.dtype
        return dtype.kind == "f" and all(a.aval.dtype == dtype or a.aval.weak for a in atoms)

    def _parts(self, x: Atom) -> tuple[Atom, Atom | None]:
        """A variable that nobody else reads, as what depends on the carry and its factor."""
        if type(x) is Var and x in self.factored and self.uses[x] == 1:
            return self.factored[x]
        return x, None

    def _product(self, x: Atom, y: Atom, e: Equation) -> Atom:
        if type(x) is Literal and type(y) is Literal and x.aval.weak and y.aval.weak:
            return Literal(x.value * y.value)
        return self._emit("multiply", (x, y), e)

    def _emit(self, name: str, inputs: tuple[Atom, ...], e: Equation, params: dict[str, Any] | None = None) -> Var:
        prim = primitives()[name]
        out = Var(prim.shape(*[a.aval for a in inputs], **(params or {})))
        self.equations.append(Equation(prim, inputs, params, (out,), e.source))
        return out

    def _append(self, e: Equation) -> None:
        self.equations.append(e)
        if e.prim.name == "concatenate" and all(a.aval.dtype == e.outputs[0].aval.dtype for a in e.inputs):
            self.parts[e.outputs[0]] = e


def _is_zero(a: Atom) -> bool:
    return type(a) is Literal and not np.any(a.value)


def _merged(first: Sequence[Atom], second: Sequence[Atom], axis: int) -> list[Atom] | None:
    """The parts of a sum of two arrays of one shape: each of one of the two, where the other has zeros; None if they do
    not fit like that."""
    parts: list[Atom] = []
    queues = [list(first)[::-1], list(second)[::-1]]
    zeros = [0, 0]  # how far the zeros of each reach beyond the parts that are taken
    while queues[0] or queues[1]:
        for k in (0, 1):
            while queues[k] and _is_zero(queues[k][-1]):
                zeros[k] += queues[k].pop().aval.shape[axis]
        if not any(zeros):
            return None
        k = 0 if zeros[1] >= zeros[0] else 1  # the other has zeros here
        other = 1 - k
        if zeros[k]:  # both have
            parts.append(_zeros_like((first if k == 0 else second)[0], axis, zeros[k]))
            zeros[other] -= zeros[k]
            zeros[k] = 0
            continue
        part = queues[k].pop()
        if part.aval.shape[axis] > zeros[other]:
            return None
        zeros[other] -= part.aval.shape[axis]
        parts.append(part)
    return parts


def _zeros_like(part: Atom, axis: int, width: int) -> Literal:
    shape = part.aval.shape
    return Literal(np.zeros((*shape[:axis], width, *shape[axis + 1 :]), part.aval.dtype))
