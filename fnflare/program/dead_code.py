"""Dead code: equations whose outputs nobody uses.

A program goes in, walked once from its end; the same program without those equations comes out. Its inputs
stay as they are, since callers count on their number.
"""

from __future__ import annotations

from fnflare.program.ir import Literal, Program

__all__ = ["drop_dead_code"]


def drop_dead_code(program: Program) -> Program:
    """A program without the equations of which no output is used; `program` itself where there are none."""
    used = {a for a in program.outputs if type(a) is not Literal}
    kept = []
    for equation in reversed(program.equations):
        if not used.isdisjoint(equation.outputs):
            kept.append(equation)
            used.update(equation.inputs)
    if len(kept) == len(program.equations):
        return program
    return program.replace(equations=reversed(kept))
