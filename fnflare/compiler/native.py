"""Programs as native functions: lowered, rendered, compiled and ready to be called.

A program goes in, a function of its flat arguments comes out. What cannot be lowered as a whole runs in native segments
around the operations that cannot, which the interpreter runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fnflare import config
from fnflare.compiler.build import build
from fnflare.compiler.segments import Segment, chained, segments
from fnflare.program.interpreter import compiled
from fnflare.program.ir import Program

__all__ = ["function_of"]


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
    return compiled(part.program) if part.lowered is None else build(part.lowered).call
