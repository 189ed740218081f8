"""Programs as native functions: lowered, rendered, compiled and ready to be called.

A program goes in, a function of its flat arguments comes out. What cannot be lowered as a whole runs in native segments
around the operations that cannot, which the interpreter runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fnflare import config
from fnflare.compiler.build import build
from fnflare.compiler.donation import apart, donate
from fnflare.compiler.executable import Executable
from fnflare.compiler.lowered import Lowered
from fnflare.compiler.segments import Segment, chained, segments
from fnflare.program.interpreter import compiled
from fnflare.program.ir import Program

__all__ = ["checked", "function_of", "peak_bytes"]


def function_of(program: Program, donated: tuple[int, ...] = ()) -> Callable[..., list[Any]]:
    """A program as a function of plain arrays, which returns a list of its outputs.

    Args:
        program: the program.
        donated: the numbers of the arguments whose memory may be used for the answers.
    """
    if not config.use_native():
        return compiled(program)
    return program.derived(("native", donated), lambda: _function(program, donated))


def _function(program: Program, donated: tuple[int, ...]) -> Callable[..., list[Any]]:
    parts = segments(program)
    if parts[0].program is program:
        return _part(parts[0], donated)
    return chained(program, parts, _part)  # one part alone may still lack inputs and answers of the program


def _part(part: Segment, donated: tuple[int, ...] = ()) -> Callable[..., list[Any]]:
    if part.lowered is None:
        return compiled(part.program)
    executable, overwritten = _executable(part.program, part.lowered, donated)
    call = executable.call
    return (lambda *args: call(*apart(args, overwritten))) if overwritten else call


def _executable(program: Program, lowered: Lowered, donated: tuple[int, ...]) -> tuple[Executable, frozenset[int]]:
    """A program as code, and the numbers of the arguments that it overwrites."""

    def make() -> tuple[Executable, frozenset[int]]:
        in_place, overwritten = donate(lowered, program.in_avals, donated)
        return build(in_place), overwritten

    made: tuple[Executable, frozenset[int]] = program.derived(("executable", donated), make)
    return made


def checked(program: Program, donated: tuple[int, ...] = ()) -> Callable[..., list[Any] | None] | None:
    """A program as a function of anything, which returns None, and has done nothing, for what it is not made for.

    Args:
        program, donated: as in `function_of`.

    Returns:
        The function; None where the program is not one piece of native code, or this Python does not allow it.
    """
    whole = _whole(program, donated)
    if whole is None:
        return None
    executable, overwritten = whole
    return executable.checked(program.in_avals, overwritten)


def peak_bytes(program: Program, donated: tuple[int, ...] = ()) -> int | None:
    """The memory that a call of a program needs beside its arguments and constants: scratch memory and the answers.

    Args:
        program, donated: as in `function_of`.

    Returns:
        The bytes; None where the program is not one piece of native code.
    """
    whole = _whole(program, donated)
    return None if whole is None else whole[0].peak_bytes([a.shape for a in program.in_avals])


def _whole(program: Program, donated: tuple[int, ...]) -> tuple[Executable, frozenset[int]] | None:
    """A program as code, where it is native and one piece."""
    if not config.use_native():
        return None
    part = segments(program)[0]
    if part.program is not program or part.lowered is None:
        return None
    return _executable(program, part.lowered, donated)
