"""Making programs: the user's function, run on tracers that write down what is done to them.

A function and the abstract values of its arguments go in; a program comes out, together with the tracers
of enclosing transforms that the function took from its closure: each is an input of the program. While the
function runs, those transforms are closed, so that whatever touches one of their tracers comes to this
trace, and not only what touches an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fnflare.core import (
    AbstractTracer,
    Primitive,
    ShapeDtypeStruct,
    Tracer,
    aval_of,
    bind,
    current_source,
    is_number,
    sourced,
    sources_wanted,
    stamping,
)
from fnflare.core.trace import OBJECT, Redirect, Trace, closed_call, open_traces, redirecting, refuse_objects
from fnflare.ops.elementwise import convert
from fnflare.program.ir import Atom, Equation, Literal, Program, Var

__all__ = ["ProgramTrace", "ProgramTracer", "Traced", "evaluate", "trace_program"]


class ProgramTracer(AbstractTracer):
    """The value of a variable, of which only the shape and the dtype are known.

    `number` says that Python's own operators made it of Python numbers alone: run as it is written the function has a
    Python number there, whose dtype gives way to that of arrays. Its variable is an array like others; where it meets
    one, the trace converts it.
    """

    __slots__ = ("number", "variable")

    def __init__(self, trace: ProgramTrace, var: Var) -> None:
        self._trace = trace
        self.variable = var
        self.aval = var.aval
        self.number = False
        self.code = None

    def become_number(self) -> None:
        self.number = True


def _given_way(prim: Primitive, args: Any) -> Any:
    """The arguments, numbers in the dtype that a Python number takes beside the arrays among them."""
    arrays = [aval_of(a).dtype for a in args if not is_number(a)]
    if not arrays:
        return args
    out = []
    for a in args:
        if type(a) is ProgramTracer and a.number:
            wanted = np.result_type(*arrays, a.dtype.type(0).item())
            # NumPy compares whole numbers of any size by value.
            if wanted != a.dtype and not (wanted.kind in "iu" and prim.name in _COMPARISONS):
                a = convert(a, wanted)
        out.append(a)
    return out


_COMPARISONS = frozenset({"equal", "greater", "greater_equal", "less", "less_equal", "not_equal"})


class ProgramTrace(Trace):
    """A trace that writes equations."""

    __slots__ = ("captured", "equations", "outside")

    def __init__(self, fun: Any = None) -> None:
        super().__init__(fun)
        self.equations: list[Equation] = []
        #: The tracers of enclosing traces that came in, and the input that stands for each.
        self.captured: dict[int, tuple[Tracer, ProgramTracer]] = {}
        self.outside: set[int] = set()

    def process(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> Any:
        if self.closed:
            return closed_call(self, prim, args, params)
        for a in args:
            if isinstance(a, Tracer) and a._trace is not self:
                return closed_call(a._trace, prim, args, params)
        if prim.enter is not None:
            return prim.enter(self, args, **(params or {}))
        return self.emit(prim, args, params)

    def emit(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> Any:
        """Write an equation; returns tracers of its outputs."""
        if prim.elementwise and any(type(a) is ProgramTracer and a.number for a in args):
            args = _given_way(prim, args)
        atoms = tuple([self.atom(a) for a in args])
        avals = prim.shape(*[a.aval for a in atoms], **(params or {}))
        if not prim.many and avals.dtype is OBJECT:
            refuse_objects(prim)
        outputs = tuple([Var(a) for a in (avals if prim.many else (avals,))])
        source = current_source()
        self.equations.append(Equation(prim, atoms, params, outputs, source))
        tracers = tuple([ProgramTracer(self, v) for v in outputs])
        if source is not None:
            for tracer in tracers:
                tracer.code, tracer.lasti = source.code, source.lasti
        return tracers if prim.many else tracers[0]

    def atom(self, x: Any) -> Atom:
        """The variable or constant that a value is in this program."""
        if isinstance(x, Tracer):
            if x._trace is self:
                return x.variable  # type: ignore[attr-defined]
            if id(x._trace) in self.outside:
                return self.capture(x).variable
            closed_call(x._trace, _output, (x,), None)  # raises: the tracer has outlived its transform
        return Literal(x)

    def capture(self, x: Any) -> Any:
        """What stands in this program for a tracer of an enclosing trace; anything else as it is."""
        if not isinstance(x, Tracer) or id(x._trace) not in self.outside:
            return x
        if id(x) not in self.captured:
            tracer = self.argument(aval_of(x))
            tracer.number = type(x) is ProgramTracer and x.number
            if x.code is not None:
                tracer.code, tracer.lasti = x.code, x.lasti
            self.captured[id(x)] = (x, tracer)
        return self.captured[id(x)][1]

    def argument(self, aval: ShapeDtypeStruct) -> ProgramTracer:
        """A tracer of a new input."""
        return ProgramTracer(self, Var(aval))


#: Names what a leaked tracer was about to become, for the message.
_output = Primitive("the output of a program", lambda x: x, lambda x: x)


class _Captures(Redirect):
    """Brings the tracers of enclosing traces into the program that is being made."""

    def __init__(self, trace: ProgramTrace) -> None:
        self.trace = trace

    def redirect(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> tuple[bool, Any]:
        outside = self.trace.outside
        # One that is open was opened again on top of the program, by a custom rule under vmap: its tracers work.
        theirs = [isinstance(a, Tracer) and a._trace.closed and id(a._trace) in outside for a in args]
        if not any(theirs):
            return False, None
        inputs = [self.trace.capture(a) if outer else a for a, outer in zip(args, theirs, strict=True)]
        return True, bind(prim, inputs, params)


class Traced(NamedTuple):
    """A program, whose first inputs stand for `captured`, tracers of enclosing traces."""

    program: Program
    captured: list[Tracer]


def trace_program(
    fun: Callable[..., Sequence[Any]], avals: Sequence[ShapeDtypeStruct], name: str = "", of: Any = None
) -> Traced:
    """Write down what a function does.

    Args:
        fun: takes one tracer for each of `avals`, returns a sequence of tracers and arrays.
        avals: the abstract values of its arguments.
        name: for printing.
        of: the user's function, for messages.
    """
    trace = ProgramTrace(of or fun)
    enclosing = open_traces()
    trace.outside = {id(t) for t in enclosing}
    suspended = [t for t in enclosing if not t.closed]
    redirect = _Captures(trace)
    stack = redirecting()
    for t in suspended:
        t.closed = True
    stack.append(redirect)
    try:
        with trace, stamping():
            arguments = [trace.argument(aval) for aval in avals]
            outputs = [trace.atom(x) for x in fun(*arguments)]
    finally:
        stack.remove(redirect)
        for t in suspended:
            t.closed = False
    captured = list(trace.captured.values())
    inputs = [*[t.variable for _, t in captured], *[t.variable for t in arguments]]
    return Traced(Program(inputs, trace.equations, outputs, name), [x for x, _ in captured])


def evaluate(program: Program, args: Sequence[Any]) -> list[Any]:
    """Run a program equation by equation through `bind`, on arrays or tracers of any transform."""
    values: dict[Var, Any] = dict(zip(program.inputs, args, strict=True))
    wanted = sources_wanted()
    here = current_source() if wanted else None
    last = program.derived("last reads", lambda: _last_reads(program))
    for equation, dead in zip(program.equations, last, strict=True):
        inputs = [a.value if type(a) is Literal else values[a] for a in equation.inputs]  # type: ignore[index]
        if wanted and equation.source is not None:
            with sourced(equation.source.within(here)):
                ans = bind(equation.prim, inputs, equation.params)
        else:
            ans = bind(equation.prim, inputs, equation.params)
        if equation.prim.many:
            values.update(zip(equation.outputs, ans, strict=True))
        else:
            values[equation.outputs[0]] = ans
        for v in dead:
            del values[v]
    return [a.value if type(a) is Literal else values[a] for a in program.outputs]  # type: ignore[index]


def _last_reads(program: Program) -> list[list[Var]]:
    """For each equation, the variables that are of no use after it."""
    used: set[Var] = {a for a in program.outputs if type(a) is Var}
    out = []
    for equation in reversed(program.equations):
        variables = dict.fromkeys(a for a in (*equation.inputs, *equation.outputs) if type(a) is Var)
        out.append([v for v in variables if v not in used])
        used.update(variables)
    return out[::-1]
