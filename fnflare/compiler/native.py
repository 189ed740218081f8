"""Programs as native functions: lowered, rendered, compiled and ready to be called.

A program goes in, a function of its flat arguments comes out. Code of an equal program is used where there is some.
What cannot be lowered as a whole runs in native segments around the operations that cannot, which the interpreter runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fnflare import config
from fnflare.compiler import reuse
from fnflare.compiler.build import build
from fnflare.compiler.executable import Executable
from fnflare.compiler.sizes import sizes_of
from fnflare.program.interpreter import compiled
from fnflare.program.ir import Program

if TYPE_CHECKING:
    from fnflare.compiler.segments import Segment

__all__ = ["checked", "function_of"]


def function_of(program: Program) -> Callable[..., list[Any]]:
    """A program as a function of plain arrays, which returns a list of its outputs."""
    if not config.use_native():
        return compiled(program)
    return program.derived("native", lambda: _function(program))


def _function(program: Program) -> Callable[..., list[Any]]:
    whole = _executable(program)
    if whole is not None:
        return whole.call
    from fnflare.compiler.segments import chained, segments  # lowering is not needed where code is found

    parts = segments(program)
    if parts[0].program is program:
        return compiled(program)
    return chained(program, parts, _part)  # one part alone may still lack inputs and answers of the program


def _part(part: Segment) -> Callable[..., list[Any]]:
    return compiled(part.program) if part.lowered is None else build(part.lowered).call


def _executable(program: Program) -> Executable | None:
    """A program as one piece of native code; None where it is not one."""
    made: Executable | None = program.derived("executable", lambda: _made(program))
    return made


def _made(program: Program) -> Executable | None:
    key = reuse.key(program, sizes_of(program))
    made = None if key is None else reuse.found(key, program)
    if made is not None:
        return made
    from fnflare.compiler.segments import segments

    part = segments(program)[0]
    if part.program is not program or part.lowered is None:
        return None
    return reuse.built(key, program, part.lowered)


def checked(program: Program) -> Callable[..., list[Any] | None] | None:
    """A program as a function of anything, which returns None, and has done nothing, for what it is not made for.

    Returns:
        The function; None where the program is not one piece of native code, or this Python does not allow it.
    """
    whole = _executable(program) if config.use_native() else None
    return None if whole is None else whole.checked(program.in_avals)
