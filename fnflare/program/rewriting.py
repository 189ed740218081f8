"""Rewriting: what the passes that walk a program from front to back have in common.

A program and the steps of some passes go in. A step sees each equation with its inputs already rewritten, and says
what its outputs are called from there on, if it can be done without. Every walk is linear in the length of the
program, and the passes can share one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import fnflare.ops  # noqa: F401  (fills the registry that is read below)
from fnflare.core import Primitive, ShapeDtypeStruct, Source, primitives
from fnflare.program.ir import Atom, Equation, Literal, Program, Var

__all__ = ["COMMUTATIVE", "Draft", "Step", "rewrite"]

#: Operations whose two arguments may change places.
COMMUTATIVE = frozenset(
    {"add", "multiply", "maximum", "minimum", "logaddexp", "equal", "not_equal", "logical_and", "logical_or"}
)

_PRIMITIVES = primitives()


class Draft:
    """A program that is being rewritten.

    Attributes:
        made_by: the equation, rewritten, that each variable comes from.
    """

    __slots__ = ("_equations", "_names", "made_by")

    def __init__(self) -> None:
        self._equations: list[Equation] = []
        self._names: dict[Atom, Atom] = {}  # what replaced variables are called now
        self.made_by: dict[Atom, Equation] = {}

    def maker(self, atom: Atom, name: str) -> Equation | None:
        """The equation that `atom` comes from if it is one of the primitive with the given name."""
        equation = self.made_by.get(atom)
        return equation if equation is not None and equation.prim.name == name else None

    def keep(self, equation: Equation) -> None:
        """Put an equation into the new program."""
        self._equations.append(equation)
        for v in equation.outputs:
            self.made_by[v] = equation

    def emit(
        self, prim: Primitive | str, inputs: Sequence[Atom], params: dict[str, Any] | None, source: Source | None
    ) -> Var:
        """Put a new equation with one output into the new program; returns the output."""
        if isinstance(prim, str):
            prim = _PRIMITIVES[prim]
        out = Var(prim.shape(*[a.aval for a in inputs], **(params or {})))
        self.keep(Equation(prim, tuple(inputs), params, (out,), source))
        return out

    def fit(self, atom: Atom | None, equation: Equation) -> Atom | None:
        """`atom` as the answer of an equation: converted and broadcast where it needs to be, so that nothing which
        comes after sees another dtype or shape. None where it cannot be, or is None itself."""
        return None if atom is None else self.coerce(atom, equation.outputs[0].aval, equation.source)

    def coerce(self, atom: Atom, aval: ShapeDtypeStruct, source: Source | None) -> Atom | None:
        """`atom` with the given shape and dtype; None where a weak scalar is asked for and it is not one."""
        if atom.aval == aval:
            return atom
        if aval.weak:
            return None
        if type(atom) is Literal and not aval.shape and not atom.aval.shape:
            return Literal(np.asarray(atom.value).astype(aval.dtype)[()])
        if atom.aval.dtype != aval.dtype or atom.aval.weak:
            prim = "convert" if aval.dtype.kind in "fc" else "convert_discrete"
            atom = self.emit(prim, (atom,), {"dtype": aval.dtype}, source)
        if atom.aval.shape != aval.shape:
            atom = self.emit("broadcast_to", (atom,), {"shape": aval.shape}, source)
        return atom

    def apply(
        self, prim: Primitive | str, inputs: Sequence[Atom], equation: Equation, params: dict[str, Any] | None = None
    ) -> Atom | None:
        """The answer of another primitive in the place of an equation's."""
        return self.fit(self.emit(prim, inputs, params, equation.source), equation)

    def splice(self, program: Program, inputs: Sequence[Atom], source: Source | None) -> Atom:
        """Put the equations of a program with one output into the new one; returns its output.

        Args:
            program: the program.
            inputs: what its inputs are here.
            source: the place in the user's code that its equations shall bear.
        """
        names: dict[Atom, Atom] = dict(zip(program.inputs, inputs, strict=True))
        for equation in program.equations:
            outputs = tuple([Var(v.aval) for v in equation.outputs])
            names.update(zip(equation.outputs, outputs, strict=True))
            ins = tuple([names.get(a, a) for a in equation.inputs])
            self.keep(Equation(equation.prim, ins, equation.params, outputs, source))
        (out,) = program.outputs
        return names.get(out, out)

    def rewrite(self, program: Program, steps: Sequence[Step]) -> Program:
        """Walk a program; see `rewrite`."""
        names, equations, made_by = self._names, self._equations, self.made_by
        for equation in program.equations:
            if names:
                inputs = tuple([names.get(a, a) for a in equation.inputs])
                if inputs != equation.inputs:
                    equation = equation._replace(inputs=inputs)
            for step in steps:
                answers = step(self, equation)
                if answers is not None:
                    # What an equation was merged with may itself have been replaced since.
                    names.update(zip(equation.outputs, [names.get(a, a) for a in answers], strict=True))
                    break
            else:
                equations.append(equation)
                for v in equation.outputs:
                    made_by[v] = equation
        if not names:
            return program
        return program.replace(equations=equations, outputs=[names.get(a, a) for a in program.outputs])


#: ``step(draft, equation)``: what the outputs of an equation are called from here on; None if it stays.
Step = Callable[[Draft, Equation], Sequence[Atom] | None]


def rewrite(program: Program, *steps: Step) -> Program:
    """Walk a program once, trying steps in turn on each equation; returns it itself where none had anything to say."""
    return Draft().rewrite(program, steps)
