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
from fnflare.compiler.donation import apart, donate
from fnflare.compiler.executable import Executable
from fnflare.compiler.sizes import sizes_of
from fnflare.program.interpreter import compiled
from fnflare.program.ir import Program

if TYPE_CHECKING:
    from fnflare.compiler.segments import Segment

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
    whole = _executable(program, donated)
    if whole is not None:
        call, overwritten = whole.call, _overwritten(whole)
        return (lambda *args: call(*apart(args, overwritten))) if overwritten else call
    from fnflare.compiler.segments import chained, segments  # lowering is not needed where code is found

    parts = segments(program)
    if parts[0].program is program:
        return compiled(program)
    return chained(program, parts, _part)  # one part alone may still lack inputs and answers of the program


def _part(part: Segment) -> Callable[..., list[Any]]:
    return compiled(part.program) if part.lowered is None else build(part.lowered).call


def _executable(program: Program, donated: tuple[int, ...]) -> Executable | None:
    """A program as one piece of native code; None where it is not one."""
    made: Executable | None = program.derived(("executable", donated), lambda: _made(program, donated))
    return made


def _made(program: Program, donated: tuple[int, ...]) -> Executable | None:
    key = reuse.key(program, sizes_of(program), donated)
    made = None if key is None else reuse.found(key, program)
    if made is not None:
        return made
    from fnflare.compiler.segments import segments

    part = segments(program)[0]
    if part.program is not program or part.lowered is None:
        return None
    in_place, _ = donate(part.lowered, program.in_avals, donated)
    return reuse.built(key, program, in_place)


def _overwritten(executable: Executable) -> frozenset[int]:
    """The numbers of the arguments that a program overwrites."""
    return frozenset([i for i, b in enumerate(executable.lowered.inputs) if b.role == "output"])


def checked(program: Program, donated: tuple[int, ...] = ()) -> Callable[..., list[Any] | None] | None:
    """A program as a function of anything, which returns None, and has done nothing, for what it is not made for.

    Args:
        program, donated: as in `function_of`.

    Returns:
        The function; None where the program is not one piece of native code, or this Python does not allow it.
    """
    whole = _executable(program, donated) if config.use_native() else None
    return None if whole is None else whole.checked(program.in_avals, _overwritten(whole))


def peak_bytes(program: Program, donated: tuple[int, ...] = ()) -> int | None:
    """The memory that a call of a program needs beside its arguments and constants: scratch memory and the answers.

    Args:
        program, donated: as in `function_of`.

    Returns:
        The bytes; None where the program is not one piece of native code.
    """
    whole = _executable(program, donated) if config.use_native() else None
    return None if whole is None else whole.peak_bytes([a.shape for a in program.in_avals])
