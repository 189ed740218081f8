"""Dead code: equations whose outputs nobody uses, and outputs that nobody uses.

A program goes in, walked once from its end; the same program without those comes out. Its inputs stay as they are,
since callers count on their number. What a loop or a branch returns in vain it need not make: the primitives that
carry programs say in their pruning rules what becomes of them.
"""

from __future__ import annotations

from fnflare.program.ir import Equation, Literal, Program, Var

__all__ = ["drop_dead_code", "live_part"]


def drop_dead_code(program: Program) -> Program:
    """A program without the equations of which no output is used; `program` itself where there are none."""
    used: set[object] = {a for a in program.outputs if type(a) is not Literal}
    kept: list[Equation] = []
    changed = False
    for equation in reversed(program.equations):
        if used.isdisjoint(equation.outputs):
            changed = True
            continue
        pruned = _pruned(equation, used)
        changed = changed or pruned is not equation
        kept.append(pruned)
        used.update(pruned.inputs)
    return program.replace(equations=reversed(kept)) if changed else program


def _pruned(equation: Equation, used: set[object]) -> Equation:
    """An equation without the outputs that nobody uses, as far as its primitive can do without."""
    rule = equation.prim.prune
    wanted = tuple([i for i, v in enumerate(equation.outputs) if v in used])
    if rule is None or len(wanted) == len(equation.outputs):
        return equation
    left = rule(wanted, **(equation.params or {}))
    if left is None:
        return equation
    outputs, inputs, params = left
    return equation._replace(
        inputs=tuple([equation.inputs[i] for i in inputs]),
        outputs=tuple([equation.outputs[i] for i in outputs]),
        params=params,
    )


def live_part(program: Program, outputs: tuple[int, ...]) -> tuple[Program, tuple[int, ...]]:
    """A program with some of its outputs, and the inputs that those need.

    Returns:
        The program, and the numbers of the inputs that it has left.
    """

    def make() -> tuple[Program, tuple[int, ...]]:
        part = drop_dead_code(program.replace(outputs=[program.outputs[i] for i in outputs]))
        read: set[Var] = {a for e in part.equations for a in e.inputs if type(a) is Var}
        read.update([a for a in part.outputs if type(a) is Var])
        inputs = tuple([i for i, v in enumerate(part.inputs) if v in read])
        return part.replace(inputs=[part.inputs[i] for i in inputs]), inputs

    return program.derived(("live part", outputs), make)
