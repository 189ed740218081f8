"""Programs as native functions: lowered, rendered, compiled and ready to be called.

A program goes in, a function of its flat arguments comes out. What cannot be lowered as a whole runs in native segments
around the operations that cannot, which the interpreter runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fnflare import config
from fnflare.compiler.build import code_of
from fnflare.compiler.executable import Executable
from fnflare.compiler.llvm import engine
from fnflare.compiler.llvm.render import render
from fnflare.compiler.lowered import Lowered
from fnflare.compiler.segments import Segment, chained, segments
from fnflare.kernels import mkl
from fnflare.program.interpreter import compiled
from fnflare.program.ir import Program

__all__ = ["build", "function_of"]


@functools.cache
def _threads() -> bool:
    """Make the functions of MKL and OpenMP known to code that is loaded; says whether there are threads."""
    symbols = mkl.native_symbols()
    for name, address in symbols.items():
        engine.add_symbol(name, address)
    return "__kmpc_fork_call" in symbols


def build(lowered: Lowered) -> Executable:
    """Compile a lowered program."""
    return Executable(lowered, code_of(render(lowered.module, threads=_threads())))


def function_of(program: Program) -> Callable[..., list[Any]]:
    """A program as a function of plain arrays, which returns a list of its outputs."""
    if not config.use_native():
        return compiled(program)
    return program.derived("native", lambda: _function(program))


def _function(program: Program) -> Callable[..., list[Any]]:
    parts = segments(program)
    if len(parts) == 1:
        return _part(parts[0])
    return chained(program, parts, _part)


def _part(part: Segment) -> Callable[..., list[Any]]:
    return compiled(part.program) if part.lowered is None else build(part.lowered)
