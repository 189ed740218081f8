"""Simplifying: all passes, again and again until nothing changes.

A program goes in, one that computes the same with less comes out. Each pass is in a file of its own and leaves
work for the others: folding makes constants that algebra sees, rules leave dead code. They share the walks over
the program, whose number is bounded, since rules are the user's and may go in circles.
"""

from __future__ import annotations

from fnflare.program.algebra import tidying
from fnflare.program.common import merging
from fnflare.program.dead_code import drop_dead_code
from fnflare.program.folding import folding
from fnflare.program.ir import Program
from fnflare.program.rewriting import rewrite
from fnflare.program.rules import ruling, version

__all__ = ["simplify"]

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
    key = ("simplified", version())
    simple = program.derived(key, lambda: _simplified(program))
    if simple is None:
        return program
    simple.derived(key, lambda: None)
    return simple


def _simplified(program: Program) -> Program | None:
    """The simplified program; None if it is `program` itself, which then need not refer to itself."""
    simple = program
    for _ in range(_TURNS):
        before = simple
        # Merging comes before the rules, which ask whether two operands are the same.
        simple = drop_dead_code(rewrite(simple, folding, tidying, merging(), ruling))
        if simple is before:
            break
    return None if simple is program else simple
