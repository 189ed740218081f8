"""The text of one function of LLVM's language while it is written: instructions, blocks, loops and branches.

What is written is in SSA form from the start, so that LLVM need not bring it there: named values that change from turn
to turn of a loop become phi instructions here. Everything that is written is remembered for as long as it is in scope.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from fnflare.compiler.llvm.machine_types import Value

__all__ = ["Library", "Writer"]


class Library:
    """What the functions of a module need beside themselves, each thing once."""

    def __init__(self) -> None:
        self.declarations: dict[str, None] = {}
        self.definitions: dict[str, str] = {}

    def declare(self, text: str) -> None:
        """Declare a function that is defined elsewhere."""
        self.declarations[f"declare {text}"] = None

    def text(self) -> str:
        """All of it."""
        return "\n".join([*self.definitions.values(), *self.declarations]) + "\n"


class Writer:
    """A function's body.

    Attributes:
        names: the values that have names in the loop nest.
        memo: what has been computed already and may be used here, by what it was computed from.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        self.entry: list[str] = []
        self.lines: list[str] = []
        self.block = "start"
        self.names: dict[str, Value] = {}
        self.memo: dict[Any, Any] = {}
        self._outer: list[dict[Any, Any]] = []
        self._count = 0

    # -- instructions and blocks ------------------------------------------------------------------

    def fresh(self) -> str:
        """A name for a value."""
        self._count += 1
        return f"%v{self._count}"

    def emit(self, instruction: str) -> str:
        """Write an instruction; the name of its value."""
        self._count += 1
        name = f"%v{self._count}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def label(self) -> str:
        """A name for a block."""
        self._count += 1
        return f"b{self._count}"

    def jump(self, label: str) -> None:
        """End the block; go on at another."""
        self.lines.append(f"  br label %{label}")

    def start(self, label: str) -> None:
        """Begin a block."""
        self.lines.append(f"{label}:")
        self.block = label

    def text(self, head: str) -> str:
        """The whole function, which answers nothing."""
        body = "\n".join(self.lines)
        entry = "\n".join(self.entry)
        return f"{head} {{\nentry:\n{entry}\n  br label %start\nstart:\n{body}\n  ret void\n}}\n"

    # -- what is remembered -----------------------------------------------------------------------

    def enter(self) -> None:
        """Begin a scope: what is computed in it is forgotten after it."""
        self._outer.append(self.memo)
        self.memo = dict(self.memo)

    def leave(self) -> None:
        """End a scope."""
        self.memo = self._outer.pop()

    def forget(self, keys: Collection[Any] | None = None) -> None:
        """Forget what has been computed, or only some of it, since memory has changed that it was computed from."""
        for memo in (self.memo, *self._outer):
            if keys is None:
                memo.clear()
                continue
            for key in keys:
                memo.pop(key, None)

    # -- control ----------------------------------------------------------------------------------

    def repeat(
        self, begin: str, end: str, step: int, carried: Iterable[str], body: Callable[[str], None], certain: bool
    ) -> None:
        """``for i in range(begin, end, step): body(i)``.

        Args:
            begin: where the variable begins.
            end: what it stays below.
            step: what is added to it in each turn.
            carried: the names of the values that a turn hands on to the next one and to what comes after.
            body: writes a turn.
            certain: whether there is at least one turn for sure.
        """
        head, after = self.label(), self.label()
        before, outer = self.block, dict(self.names)
        if certain:
            self.jump(head)
        else:
            self.lines.append(f"  br i1 {self.emit(f'icmp slt i64 {begin}, {end}')}, label %{head}, label %{after}")
        self.start(head)
        i = self.fresh()
        hole = len(self.lines)
        self.lines.append("")  # for the phi instructions: what comes round is known at the end of the turn
        first = {n: outer[n] for n in carried}
        merged = {n: v._replace(text=self.fresh()) for n, v in first.items()}
        self.names |= merged
        self.enter()
        body(i)
        self.leave()
        last = {n: self.names[n] for n in first}
        following = self.emit(f"add nuw nsw i64 {i}, {step}")
        phis = [f"  {i} = phi i64 [ {begin}, %{before} ], [ {following}, %{self.block} ]"]
        phis += [self._phi(merged[n], v, before, last[n]) for n, v in first.items()]
        self.lines[hole] = "\n".join(phis)
        end_of_turn = self.block
        self.lines.append(f"  br i1 {self.emit(f'icmp slt i64 {following}, {end}')}, label %{head}, label %{after}")
        self.start(after)
        self.names = outer | last
        if not certain:
            self._merge(first, before, last, end_of_turn)

    def when(self, condition: str, carried: Iterable[str], body: Callable[[], None]) -> None:
        """``if condition: body()``."""
        yes, after = self.label(), self.label()
        before, outer = self.block, dict(self.names)
        first = {n: outer[n] for n in carried}
        self.lines.append(f"  br i1 {condition}, label %{yes}, label %{after}")
        self.start(yes)
        self.enter()
        body()
        self.leave()
        last, end = {n: self.names[n] for n in first}, self.block
        self.jump(after)
        self.start(after)
        self.names = outer
        self._merge(first, before, last, end)

    def _merge(self, first: dict[str, Value], before: str, last: dict[str, Value], end: str) -> None:
        for name, value in first.items():
            merged = value._replace(text=self.fresh())
            sources = f"[ {value.text}, %{before} ], [ {last[name].text}, %{end} ]"
            self.lines.append(f"  {merged.text} = phi {value.type} {sources}")
            self.names[name] = merged

    def _phi(self, merged: Value, first: Value, before: str, last: Value) -> str:
        sources = f"[ {first.text}, %{before} ], [ {last.text}, %{self.block} ]"
        return f"  {merged.text} = phi {merged.type} {sources}"
