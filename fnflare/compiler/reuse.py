"""Compiled code of equal programs, found before anything is lowered.

A program goes in. Where an equal one, of the same lengths or others, was compiled before, in this process or another,
its code comes out with what is needed to call it, and nothing is lowered, rendered or hashed but the program itself.
What is kept under the key of a program is a description (`fnflare.compiler.description`) and the key of the object
code, which is kept apart, since different programs may have the same.
"""

from __future__ import annotations

import functools
from pathlib import Path

from fnflare.compiler import cache
from fnflare.compiler.build import abilities, text_of
from fnflare.compiler.description import described, restored
from fnflare.compiler.executable import Executable
from fnflare.compiler.generic_key import generic_key
from fnflare.compiler.layout import keep_newest
from fnflare.compiler.lowered import Lowered
from fnflare.compiler.object_code import code_at, key_of, surroundings
from fnflare.compiler.sizes import Sizes
from fnflare.program.ir import Program

__all__ = ["built", "found", "key"]

#: The key of the object code and the description, of programs that this process has met.
_met: dict[str, str] = {}
_KEY_LENGTH = 64


def key(program: Program, sizes: Sizes, donated: tuple[int, ...] = ()) -> str | None:
    """What equal programs with the same arguments donated have in common; None where that cannot be said."""
    own = generic_key(program, sizes)
    if own is None:
        return None
    return cache.fingerprint("program", own, str(donated), *map(str, abilities()), _compiler(), *surroundings())


def found(key: str, program: Program) -> Executable | None:
    """The code of an equal program, for this one; None where there is none.

    Args:
        key: the program's.
        program: the program.
    """
    text = _met.get(key)
    if text is None:
        payload = cache.lookup(key)
        if payload is None:
            return None
        text = payload.decode(errors="replace")
    code = code_at(text[:_KEY_LENGTH])
    if code is None:
        return None
    try:
        made = Executable(restored(text[_KEY_LENGTH:], program), code)
    except (ValueError, TypeError, KeyError, IndexError):
        return None
    _remember(key, text)
    return made


def built(key: str | None, program: Program, lowered: Lowered) -> Executable:
    """Compile a lowered program, and let equal ones find its code.

    Raises:
        RuntimeError: LLVM does not accept the program's text.
        TypeError: an operation of it is not defined for the type of its arguments.
    """
    text = text_of(lowered)
    code_key = key_of(text)
    code = code_at(code_key, text)
    assert code is not None
    description = None if key is None else described(lowered, program)
    if key is not None and description is not None:
        _remember(key, code_key + description)
        cache.store(key, (code_key + description).encode())
    return Executable(lowered, code)


def _remember(key: str, text: str) -> None:
    _met[key] = text
    keep_newest(_met)


@functools.cache
def _compiler() -> str:
    """The state of the files that lower and render, so that working on them does not leave their old answers."""
    here = Path(__file__).parent
    files = sorted([f for room in (here, here.parent / "nest") for f in room.rglob("*.py")])
    states = [f.stat() for f in files]
    return cache.fingerprint(*[f"{f.name} {s.st_size} {s.st_mtime_ns}" for f, s in zip(files, states, strict=True)])
