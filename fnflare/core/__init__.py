"""The heart of fnflare: primitives, tracers, traces, and the one function `bind` between them.

A value goes in that is an array, a Python number or a `Tracer`; `bind` finds the innermost trace
among the arguments and hands the primitive to it, or runs the primitive's kernel where there is
none. What a trace does with a primitive (write it on a tape, push a tangent through it, work out
its shape) is in a file of its own; what a primitive is, is in `fnflare.ops`.
"""

from fnflare.core.abstract import AbstractTrace, AbstractTracer
from fnflare.core.aval import ShapeDtypeStruct, aval_of, dtype_of, zeros
from fnflare.core.batch import BatchTrace, BatchTracer, move_axis
from fnflare.core.capture import Capture, alias, capture, substitute
from fnflare.core.dual import DualTrace, DualTracer
from fnflare.core.eager import run_observed, run_on_bottom
from fnflare.core.numbers import as_number, is_number, number, number_operators
from fnflare.core.observe import observed, observing, overhead, plain_kernel, stamping
from fnflare.core.primitive import Primitive, primitive, primitives
from fnflare.core.scatter import Scatter
from fnflare.core.source import Source, cell_name, current_source, inlined, is_library, sourced, sources_wanted
from fnflare.core.sourced_tape import new_linear_tape, new_tape
from fnflare.core.tape import LinearTape, Tape, TapeTracer
from fnflare.core.trace import Trace, bind, trace_depth
from fnflare.core.tracer import Tracer, is_tracer

__all__ = [
    "AbstractTrace",
    "AbstractTracer",
    "BatchTrace",
    "BatchTracer",
    "Capture",
    "DualTrace",
    "DualTracer",
    "LinearTape",
    "Primitive",
    "Scatter",
    "ShapeDtypeStruct",
    "Source",
    "Tape",
    "TapeTracer",
    "Trace",
    "Tracer",
    "alias",
    "as_number",
    "aval_of",
    "bind",
    "capture",
    "cell_name",
    "current_source",
    "dtype_of",
    "inlined",
    "is_library",
    "is_number",
    "is_tracer",
    "move_axis",
    "new_linear_tape",
    "new_tape",
    "number",
    "number_operators",
    "observed",
    "observing",
    "overhead",
    "plain_kernel",
    "primitive",
    "primitives",
    "run_observed",
    "run_on_bottom",
    "sourced",
    "sources_wanted",
    "stamping",
    "substitute",
    "trace_depth",
    "zeros",
]
