"""Programs as native functions: lowered, rendered, compiled and ready to be called.

A program goes in, a function of its flat arguments comes out. What cannot be lowered as a whole runs in native segments
around the operations that cannot, which the interpreter runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fnflare import config
from fnflare.compiler.build import build
from fnflare.compiler.executable import Executable
from fnflare.compiler.lowered import Lowered
from fnflare.compiler.segments import Segment, chained, segments
from fnflare.program.interpreter import compiled
from fnflare.program.ir import Program

__all__ = ["checked", "function_of"]


def function_of(program: Program) -> Callable[..., list[Any]]:
    """A program as a function of plain arrays, which returns a list of its outputs."""
    if not config.use_native():
        return compiled(program)
    return program.derived("native", lambda: _function(program))


def _function(program: Program) -> Callable[..., list[Any]]:
    parts = segments(program)
    if parts[0].program is program:
        return _part(parts[0])
    return chained(program, parts, _part)  # one part alone may still lack inputs and answers of the program


def _part(part: Segment) -> Callable[..., list[Any]]:
    return compiled(part.program) if part.lowered is None else _executable(part.program, part.lowered).call


def _executable(program: Program, lowered: Lowered) -> Executable:
    made: Executable = program.derived("executable", lambda: build(lowered))
    return made


def checked(program: Program) -> Callable[..., list[Any] | None] | None:
    """A program as a function of anything, which returns None, and has done nothing, for what it is not made for.

    Returns:
        The function; None where the program is not one piece of native code, or this Python does not allow it.
    """
    if not config.use_native():
        return None
    part = segments(program)[0]
    if part.program is not program or part.lowered is None:
        return None
    return _executable(program, part.lowered).checked(program.in_avals)
