"""Rewriting: what the passes that walk a program from front to back have in common.

A program and a step go in. The step sees each equation with its inputs already rewritten, and says what stands
in its place: nothing else (None), another equation with the same outputs, or what the outputs are now called.
Every pass is one walk, so passes are linear in the length of the program.
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

    def current(self, equation: Equation) -> Equation:
        """An equation of the old program with its inputs as they are called now."""
        names = self._names
        if not names:
            return equation
        inputs = tuple([names.get(a, a) for a in equation.inputs])
        return equation if inputs == equation.inputs else equation._replace(inputs=inputs)

    def maker(self, atom: Atom, name: str) -> Equation | None:
        """The equation that `atom` comes from if it is one of the primitive with the given name."""
        equation = self.made_by.get(atom)
        return equation if equation is not None and equation.prim.name == name else None

    def keep(self, equation: Equation) -> None:
        """Put an equation into the new program."""
        self._equations.append(equation)
        for v in equation.outputs:
            self.made_by[v] = equation

    def replace(self, equation: Equation, answers: Sequence[Atom]) -> None:
        """Let the outputs of an equation be called something else from here on."""
        self._names.update(zip(equation.outputs, answers, strict=True))

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

    def finish(self, program: Program) -> Program:
        """The new program, that was made of `program`."""
        return program.replace(equations=self._equations, outputs=[self._names.get(a, a) for a in program.outputs])


Step = Callable[[Draft, Equation], Equation | Atom | Sequence[Atom] | None]


def rewrite(program: Program, step: Step) -> Program:
    """Walk a program once; returns it itself where the step had nothing to say.

    Args:
        program: the program.
        step: ``step(draft, equation)`` returns None where the equation stays, an `Equation` with the same outputs
            that takes its place, or the atoms (the atom, where it has one output) that its outputs are now.
    """
    draft = Draft()
    changed = False
    for equation in program.equations:
        equation = draft.current(equation)
        answer = step(draft, equation)
        if answer is None:
            draft.keep(equation)
            continue
        changed = True
        if isinstance(answer, Equation):
            draft.keep(answer)
        else:
            draft.replace(equation, (answer,) if isinstance(answer, (Var, Literal)) else answer)
    return draft.finish(program) if changed else program
