"""What has a name in a block of C: loop variables, buffers, sizes, and values that were computed.

Objects of loop nests go in, the identifiers that stand for them come out; a block sees the names of the blocks around
it, and what it names itself is forgotten after it.
"""

from __future__ import annotations

import re

from fnflare.compiler.c99.literals import Level, Text
from fnflare.compiler.c99.names import Names
from fnflare.nest import Axis, Buffer, Scalar, Size

__all__ = ["Named", "Scope"]

Named = Axis | Buffer | Size | Scalar | str


class Scope:
    """The names of one block.

    Attributes:
        used: what has been asked for of what this block itself names.
    """

    def __init__(self, names: Names, outer: Scope | None = None) -> None:
        self.names = names
        self._outer = outer
        self.used: set[Named] = set()
        self._stored: dict[Buffer, str] = {}
        # Objects are their own keys, strings those of `Let` and `Accumulator`.
        self._given: dict[Named, str] = {}

    def inner(self) -> Scope:
        """A block in this one."""
        return Scope(Names(self.names), self)

    def declare(self, thing: Named, hint: str, first: int = 1) -> str:
        """A new identifier for something."""
        name = self.names.fresh(hint, first)
        self._given[thing] = name
        return name

    def stand_for(self, thing: Named, name: str) -> None:
        """An identifier that is there already now stands for something else too."""
        self._given[thing] = name

    def declare_axis(self, axis: Axis) -> str:
        """A new identifier for a loop's variable; numbered ones become i, j, k from the outermost in."""
        hint = axis.name
        if re.fullmatch("i[0-9]+[hl]*", hint):
            hint = next((letter for letter in "ijklmnpq" if not self.names.has(letter)), "i")
        return self.declare(axis, hint)

    def declare_buffer(self, b: Buffer, dtype: str) -> str:
        """A new identifier for a buffer whose memory holds numbers of `dtype`, which may not be its own."""
        self._stored[b] = dtype
        return self.declare(b, b.name)

    def stored(self, b: Buffer) -> str:
        """The type of the numbers that a buffer's memory holds."""
        scope: Scope | None = self
        while scope is not None:
            if b in scope._stored:
                return scope._stored[b]
            scope = scope._outer
        return b.dtype

    def find(self, thing: Named) -> str | None:
        """The identifier of something, None where it has none."""
        scope: Scope | None = self
        while scope is not None:
            if thing in scope._given:
                scope.used.add(thing)
                return scope._given[thing]
            scope = scope._outer
        return None

    def name(self, thing: Named) -> str:
        """The identifier of something that must have one."""
        found = self.find(thing)
        if found is None:
            raise LookupError(f"{thing} is used where nothing declares it")
        return found

    def text(self, thing: Named) -> Text:
        """The identifier as an expression."""
        return Text(self.name(thing), Level.PRIMARY)
