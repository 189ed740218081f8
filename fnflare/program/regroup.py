"""Regrouping products in the body of a loop, so that more of them can leave it.

The body of a scan goes in; in what comes out ``(ct * a) * b``, of which only ``ct`` depends on the carry, has become
``ct * (a * b)``, whose second product `fnflare.program.hoist` then does for all steps at once. The backward pass of
a recurrent cell is made of such products: cotangents times the derivatives of gates.
"""

from __future__ import annotations

from fnflare.core import primitives
from fnflare.program.dead_code import drop_dead_code
from fnflare.program.ir import Atom, Equation, Literal, Program, Var

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
        self.uses: dict[Var, int] = {}
        for a in [a for e in program.equations for a in e.inputs] + list(program.outputs):
            if type(a) is Var:
                self.uses[a] = self.uses.get(a, 0) + 1

    def program(self) -> Program:
        for e in self.source.equations:
            if any(a in self.late for a in e.inputs if type(a) is Var):
                self.late.update(e.outputs)
                e = self._regrouped(e)
            self.equations.append(e)
        return self.source.replace(equations=self.equations)

    def _regrouped(self, e: Equation) -> Equation:
        if e.prim.name == "negative":
            return self._negated(e)
        if e.prim.name != "multiply":
            return e
        x, y = e.inputs
        if self._is_late(y):
            x, y = y, x
        if self._is_late(y) or not self._fits(e, x, y):
            return e
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

    def _emit(self, name: str, inputs: tuple[Atom, ...], e: Equation) -> Var:
        prim = primitives()[name]
        out = Var(prim.shape(*[a.aval for a in inputs]))
        self.equations.append(Equation(prim, inputs, None, (out,), e.source))
        return out
