"""Common subexpressions: what is computed twice is computed once.

A program goes in; of equations with the same primitive, inputs and parameters the first stays, and the others'
outputs become its outputs. Random numbers are pure functions of their keys and merge like anything else.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from fnflare.program.frozen import frozen, frozen_literal
from fnflare.program.ir import Atom, Equation, Literal, Program
from fnflare.program.rewriting import COMMUTATIVE, Draft, Step, rewrite

__all__ = ["merge_common", "merging"]


def merge_common(program: Program) -> Program:
    """A program in which no equation does what an earlier one did; `program` itself where none does.

    An equation with a parameter that is not hashable, or of a primitive that must not be merged
    (`Primitive.mergeable`), stays.
    """
    return rewrite(program, merging())


def merging() -> Step:
    """A step of `merge_common`, for one walk over one program."""
    seen: dict[Hashable, Equation] = {}

    def step(_draft: Draft, equation: Equation) -> Sequence[Atom] | None:
        if not equation.prim.mergeable:
            return None
        try:
            first = seen.setdefault(_key(equation), equation)
        except TypeError:
            return None
        return None if first is equation else first.outputs

    return step


def _key(equation: Equation) -> Hashable:
    prim, inputs, params = equation.prim, equation.inputs, equation.params
    parts = [frozen_literal(a) if type(a) is Literal else a for a in inputs]
    if params:
        return (prim, *parts, frozen(params))
    return (prim, frozenset(parts)) if prim.name in COMMUTATIVE else (prim, *parts)
