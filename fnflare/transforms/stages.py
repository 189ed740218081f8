"""What becomes of a jitted function: its program, what of it is native, and the code as text.

A program comes in from `jit`; a `Stage` shows how it would be run, as a report and in three languages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

from fnflare.compiler.segments import Segment, segments
from fnflare.errors import ArgumentError
from fnflare.nest import Branch, Contract, Repeat, Run, Sections, Statement
from fnflare.program import Program

__all__ = ["Stage"]

Language = Literal["program", "c99", "llvm"]


class Stage:
    """A jitted function for one signature, before it is compiled; made by ``jit(f).lower(*args)``.

    Its text is a report of what is native and what is not, and why.

    Attributes:
        program: the simplified program.
        segments: its parts, each a program with its loop nests, or with the reasons why it has none.
        compile: compiles it now rather than when it is first run; returns the jitted function.
    """

    def __init__(self, program: Program, compiled: Callable[[], Callable[..., Any]]) -> None:
        self.program = program
        self.segments = segments(program)
        self.compile = compiled

    @property
    def is_native(self) -> bool:
        """Whether all of the program is native code."""
        return all(s.lowered is not None for s in self.segments)

    def as_text(self, language: Language = "program") -> str:
        """The program as text.

        Args:
            language: "program", as it is run by the interpreter; "c99", the loop nests in C, with the user's lines
                beside them; or "llvm", the same as they are compiled.

        Raises:
            ArgumentError: there is no such language.
        """
        if language not in get_args(Language):
            raise ArgumentError(f"language: {language!r} is none of {', '.join(map(repr, get_args(Language)))}")
        if language == "program":
            return self.program.text(lines=True)
        return "\n".join([self._text_of(s, k, language) for k, s in enumerate(self.segments)])

    def _text_of(self, segment: Segment, number: int, language: str) -> str:
        mark = "//" if language == "c99" else ";"
        if segment.lowered is None:
            names = ", ".join(dict.fromkeys(e.prim.name for e in segment.program.equations))
            return f"{mark} In NumPy: {names}\n"
        name = "".join(c if c.isalnum() else "_" for c in self.program.name).strip("_") or "program"
        if len(self.segments) > 1:
            name = f"{name}_{number}"
        if language == "c99":
            from fnflare.compiler.c99.render import render as render_c99

            return render_c99(segment.lowered.module, name)
        from fnflare.compiler.llvm.render import render as render_llvm

        module = segment.lowered.module
        lines = [f"; kernel.{k}: {n.name}; {', '.join(n.comment)}\n" for k, n in enumerate(module.kernels)]
        return f"{''.join(lines)}\n{render_llvm(module, name)}"

    def __str__(self) -> str:
        count = len(self.program.equations)
        lines = [f"{self.program.name}: {count} equations in {_counted(len(self.segments), 'segment')}"]
        lines += [_line(s) for s in self.segments]
        return "\n".join(lines)

    __repr__ = __str__


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _line(segment: Segment) -> str:
    equations = _counted(len(segment.program.equations), "equation")
    if segment.lowered is None:
        return f"  NumPy: {equations}: {'; '.join(segment.reasons)}"
    module = segment.lowered.module
    runs = [s for s in _flat(module.body) if isinstance(s, Run)]
    products = [s for s in _flat(module.body) if isinstance(s, Contract)]
    loops = [s for s in _flat(module.body) if isinstance(s, Repeat)]
    parts = [
        f"{_counted(len(runs), 'loop nest')} ({len(module.kernels)} different)",
        _counted(len(products), "sum") + " of products",
    ]
    if loops:
        parts.append(_counted(len(loops), "loop") + " over time")
    if module.sizes:
        parts.append(f"{_counted(len(module.sizes), 'size')} given at run time")
    return f"  native: {equations}: {', '.join(parts)}"


def _flat(body: tuple[Statement, ...]) -> list[Statement]:
    out: list[Statement] = []
    for s in body:
        out.append(s)
        for inner in (s.body,) if isinstance(s, Repeat) else s.bodies if isinstance(s, (Branch, Sections)) else ():
            out += _flat(inner)
    return out
