"""Programs: the second way in which fnflare runs a function.

A function is run once on tracers that have shapes and no values; what it does comes out as a `Program`, typed
SSA over the same primitives that the tape knows. Passes, each in a file of its own, turn programs into programs;
the interpreter runs them on plain arrays.
"""

from fnflare.program.interpreter import Runner, run
from fnflare.program.ir import Atom, Equation, Literal, Program, Var
from fnflare.program.tracing import ProgramTrace, ProgramTracer, Traced, evaluate, trace_program

__all__ = [
    "Atom",
    "Equation",
    "Literal",
    "Program",
    "ProgramTrace",
    "ProgramTracer",
    "Runner",
    "Traced",
    "Var",
    "evaluate",
    "run",
    "trace_program",
]
