"""Placeholder until passes land."""

from fnflare.program.ir import Literal, Program


def simplify(program: Program) -> Program:
    needed = {a for a in program.outputs if type(a) is not Literal}
    kept = []
    for e in reversed(program.equations):
        if any(v in needed for v in e.outputs):
            kept.append(e)
            needed.update(a for a in e.inputs if type(a) is not Literal)
    return program.replace(equations=kept[::-1])
