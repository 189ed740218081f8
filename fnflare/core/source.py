"""Where an operation was written: the user's function and line, the layer around it, forward or backward.

Programs stamp it on their equations and observed tapes on their records, so that a picture, a profile or an error
can point at the line. It is found by walking up the stack to the first frame outside of the library; where a
derivative or a program is run, `sourced` puts the place of the original operation above the frames below it.
"""

from __future__ import annotations

import dis
import linecache
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple

import numpy as np

from fnflare.core.scope import layer_names

__all__ = [
    "Source",
    "cell_name",
    "current_source",
    "inlined",
    "is_library",
    "sourced",
    "sources_wanted",
    "wanting_sources",
]

#: Rooms whose frames are never the user's.
_ROOMS = (str(Path(__file__).resolve().parents[1]) + os.sep, str(Path(np.__file__).parent) + os.sep)


class Source(NamedTuple):
    """A place in the user's code.

    Attributes:
        code: the code object of the function.
        lasti: the instruction in it.
        path: the names of the layers around it, outermost first.
        phase: "forward" or "backward".
        derivative_of: the primitive whose derivative rule runs; empty where none does.
    """

    code: CodeType
    lasti: int
    path: tuple[str, ...] = ()
    phase: str = "forward"
    derivative_of: str = ""

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.code.co_filename

    @property
    def line(self) -> int:
        """The number of the line."""
        lines = [line for start, line in dis.findlinestarts(self.code) if start <= self.lasti and line is not None]
        return lines[-1] if lines else self.code.co_firstlineno

    @property
    def text(self) -> str:
        """The line itself, stripped; empty where the source is not at hand."""
        return linecache.getline(self.file, self.line).strip()

    def within(self, outer: Source | None) -> Source:
        """This place, of an equation, where its program is run at `outer`: in the layers around that, and backward
        where that is a backward pass."""
        if outer is None:
            return self
        phase = "backward" if "backward" in (self.phase, outer.phase) else "forward"
        return Source(self.code, self.lasti, outer.path + self.path, phase, self.derivative_of or outer.derivative_of)

    def __str__(self) -> str:
        return f"{cell_name(self.file) or self.file}:{self.line}"


def cell_name(file: str) -> str | None:
    """What a notebook calls the cell that Python knows as a file of some temporary name: ``In[3]``; None for a file
    that is one."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    label_and_name = None if shell is None else shell.compile.format_code_name(file)
    return None if label_and_name is None else label_and_name[1]


class _Anchor(NamedTuple):
    """A place that was set: it holds for all that runs below `frame`, unless the user's own code runs there."""

    source: Source
    frame: FrameType
    depth: int  # of the stack of layers at that time


class _Current(threading.local):
    anchor: _Anchor | None = None
    wanted: int = 0


_current = _Current()


class _Sourced:
    """The context of `sourced`; a class, since it is entered once for each record of a sweep."""

    __slots__ = ("_before", "_frame", "_source")

    def __init__(self, source: Source | None, frame: FrameType | None) -> None:
        self._source = source
        self._frame = frame

    def __enter__(self) -> None:
        self._before = _current.anchor
        if self._source is not None:
            _current.anchor = _Anchor(self._source, self._frame or sys._getframe(1), len(layer_names()))

    def __exit__(self, *error: object) -> None:
        _current.anchor = self._before


def sourced(source: Source | None, frame: FrameType | None = None) -> _Sourced:
    """Let `source` be the place of the operations that the library runs in a ``with`` block; None leaves it.

    Code of the user's own that is called within the block (a rule of `custom_vjp`, say) has places of its own, in the
    phase of `source` and in the layers that it names.

    Args:
        source: the place.
        frame: that of the block, where another function enters it.
    """
    return _Sourced(source, frame)


def inlined(source: Source | None) -> _Sourced:
    """Let `source`, the place of an equation, be that of the operations that it becomes here (see `Source.within`);
    nothing where nobody wants to know."""
    if source is None or not sources_wanted():
        return _Sourced(None, None)
    return _Sourced(source.within(current_source()), None)


@contextmanager
def wanting_sources() -> Iterator[None]:
    """While this lasts tapes of this thread remember the place of each record (see `new_tape`)."""
    _current.wanted += 1
    try:
        yield
    finally:
        _current.wanted -= 1


def sources_wanted() -> bool:
    """Whether tapes are to remember the place of each record."""
    return _current.wanted > 0


class _OwnFiles(dict[str, bool]):
    """Whether a source file belongs to the library or to NumPy; worked out once a file."""

    def __missing__(self, filename: str) -> bool:
        own = self[filename] = filename.startswith(_ROOMS)
        return own


#: Whether a source file is the library's or NumPy's.
is_library = _OwnFiles().__getitem__


def current_source(frame: FrameType | None = None) -> Source | None:
    """The place that is running: the innermost line outside of the library, or what `sourced` has set since.

    Args:
        frame: where to look from; the caller by default.

    Returns:
        The place, with the layers that are running and the phase; None where no code of the user's runs.
    """
    anchor = _current.anchor
    stop = None if anchor is None else anchor.frame
    f = sys._getframe(1) if frame is None else frame
    while f is not stop and is_library(f.f_code.co_filename):
        if f.f_back is None:
            return None
        f = f.f_back
    names = layer_names()
    if anchor is None:
        return Source(f.f_code, f.f_lasti, tuple(names))
    source = anchor.source
    path = (*source.path, *names[anchor.depth :])
    if f is stop:
        return source._replace(path=path)
    return Source(f.f_code, f.f_lasti, path, source.phase)
