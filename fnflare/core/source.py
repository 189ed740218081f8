"""Where an operation was written: the user's function and line.

Programs stamp it on their equations, so that a picture, a profile or an error can point at the line.
A derivative's operations carry the line of the operation whose derivative they are.
"""

from __future__ import annotations

import dis
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import NamedTuple

__all__ = ["Source", "current_source", "sourced"]

_PACKAGE = str(Path(__file__).resolve().parents[1])


class Source(NamedTuple):
    """A place in the user's code.

    Attributes:
        code: the code object of the function.
        lasti: the instruction in it.
        path: the names of the layers around it, outermost first.
        phase: "forward" or "backward".
    """

    code: CodeType
    lasti: int
    path: tuple[str, ...] = ()
    phase: str = "forward"

    @property
    def line(self) -> int:
        """The number of the line."""
        lines = [line for start, line in dis.findlinestarts(self.code) if start <= self.lasti and line is not None]
        return lines[-1] if lines else self.code.co_firstlineno

    def __str__(self) -> str:
        return f"{self.code.co_filename}:{self.line}"


class _Current(threading.local):
    source: Source | None = None


_current = _Current()


@contextmanager
def sourced(source: Source | None) -> Iterator[None]:
    """Let `source` be the place of every operation for a while."""
    before = _current.source
    _current.source = source
    try:
        yield
    finally:
        _current.source = before


class _OwnFiles(dict[str, bool]):
    """Whether a source file belongs to the library; worked out once a file."""

    def __missing__(self, filename: str) -> bool:
        own = self[filename] = filename.startswith(_PACKAGE)
        return own


_is_own = _OwnFiles().__getitem__


def current_source() -> Source | None:
    """The place that is set by `sourced`, or the innermost line outside of the library that is running."""
    if _current.source is not None:
        return _current.source
    frame = sys._getframe(1)
    while _is_own(frame.f_code.co_filename):
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return Source(frame.f_code, frame.f_lasti)
