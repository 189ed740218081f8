"""Programs: the second way in which fnflare runs a function.

A function is run once on tracers that have shapes and no values; what it does comes out as a `Program`, typed
SSA over the same primitives that the tape knows. Passes, each in a file of its own, turn programs into programs;
the interpreter runs them on plain arrays.
"""

from fnflare.program import stability  # noqa: F401  (fills the table of rules)
from fnflare.program.ahead import run_ahead
from fnflare.program.interpreter import compiled, run
from fnflare.program.ir import Atom, Equation, Literal, Program, Var
from fnflare.program.patterns import constant, op, operand, parameter, reshaped, several
from fnflare.program.rules import Rule, remove_rule, rule, rules
from fnflare.program.simplify import simplify
from fnflare.program.tracing import ProgramTrace, ProgramTracer, Traced, evaluate, trace_program

__all__ = [
    "Atom",
    "Equation",
    "Literal",
    "Program",
    "ProgramTrace",
    "ProgramTracer",
    "Rule",
    "Traced",
    "Var",
    "compiled",
    "constant",
    "evaluate",
    "op",
    "operand",
    "parameter",
    "remove_rule",
    "reshaped",
    "rule",
    "rules",
    "run",
    "run_ahead",
    "several",
    "simplify",
    "trace_program",
]
