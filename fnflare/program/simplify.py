"""Simplifying: all passes, one after another, until nothing changes.

A program goes in, one that computes the same with less comes out. Each pass is in a file of its own and leaves
work for the others (folding makes constants that algebra sees, rules leave dead code), so they take turns; the
number of turns is bounded, since rules are the user's and may go in circles.
"""

from __future__ import annotations

from collections.abc import Callable

from fnflare.program.algebra import tidy
from fnflare.program.common import merge_common
from fnflare.program.dead_code import drop_dead_code
from fnflare.program.folding import fold_constants
from fnflare.program.ir import Program
from fnflare.program.rules import apply_rules, version

__all__ = ["PASSES", "simplify"]

#: The passes of one turn. Common subexpressions come before the rules, which ask whether two operands are the same.
PASSES: tuple[Callable[[Program], Program], ...] = (
    fold_constants,
    tidy,
    merge_common,
    apply_rules,
    drop_dead_code,
)

_TURNS = 10


def simplify(program: Program) -> Program:
    """A program with the same inputs and outputs that does less.

    Args:
        program: the program. Programs in the parameters of its equations are not touched.

    Returns:
        A program whose answers differ by rounding at most, and are finite in more places. `program` itself where
        nothing can be said of it. It is remembered: asking again costs nothing.

    Derivatives must be taken of what comes out, not put in: a rule that mends the value of a formula that overflows
    cannot mend a derivative which the formula already has. See `fnflare.program.ahead`.
    """
    return program.derived(("simplified", version()), lambda: _simplified(program))


def _simplified(program: Program) -> Program:
    for _ in range(_TURNS):
        before = program
        for one in PASSES:
            program = one(program)
        if program is before:
            break
    return program
