"""Writes the body of an LLVM function: values, loops and labels go in, lines of text come out.

Integers that are known are folded here, so that code for known and for unknown sizes is written by the same lines.
What is written is read by LLVM's parser; renderers of single constructs call this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["Text", "Value"]

#: An integer that is known, or the name of an i64.
Value = int | str


class Text:
    """The lines of one function's body, and the block that is being written.

    >>> from fnflare.compiler.llvm.text import Text
    >>> text = Text()
    >>> text.add(text.multiply(3, "%n"), 0)
    '%v0'
    >>> text.lines[-1]
    '  %v0 = mul nsw i64 %n, 3'
    """

    def __init__(self) -> None:
        self.block = "entry"
        self.lines = ["entry:"]
        self._names = 0

    def fresh(self) -> str:
        """A name that is not in use yet, without its sigil."""
        self._names += 1
        return f"v{self._names - 1}"

    def line(self, text: str) -> None:
        """An instruction without a result."""
        self.lines.append(f"  {text}")

    def let(self, instruction: str) -> str:
        """The name of an instruction's result."""
        name = f"%{self.fresh()}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def begin(self, label: str) -> None:
        """Begin a block; the one before it has ended."""
        self.lines.append(f"{label}:")
        self.block = label

    # -- integers ---------------------------------------------------------------------------------------

    def add(self, x: Value, y: Value) -> Value:
        """``x + y``."""
        if isinstance(x, int) and isinstance(y, int):
            return x + y
        if y == 0:
            return x
        return y if x == 0 else self.let(f"add nsw i64 {x}, {y}")

    def subtract(self, x: Value, y: Value) -> Value:
        """``x - y``."""
        if isinstance(x, int) and isinstance(y, int):
            return x - y
        return x if y == 0 else self.let(f"sub nsw i64 {x}, {y}")

    def multiply(self, x: Value, y: Value) -> Value:
        """``x * y``."""
        if isinstance(x, int) and isinstance(y, int):
            return x * y
        if isinstance(x, int):
            x, y = y, x
        if y == 0:
            return 0
        return x if y == 1 else self.let(f"mul nsw i64 {x}, {y}")

    def divide(self, x: Value, y: Value) -> Value:
        """``x // y``; neither is negative."""
        if isinstance(x, int) and isinstance(y, int):
            return x // y
        return x if y == 1 else self.let(f"udiv i64 {x}, {y}")

    def smaller(self, x: Value, y: Value) -> Value:
        """The smaller of two."""
        if isinstance(x, int) and isinstance(y, int):
            return min(x, y)
        less = self.let(f"icmp slt i64 {x}, {y}")
        return self.let(f"select i1 {less}, i64 {x}, i64 {y}")

    def product(self, values: Sequence[Value]) -> Value:
        """The product of some."""
        out: Value = 1
        for v in values:
            out = self.multiply(out, v)
        return out

    # -- memory -----------------------------------------------------------------------------------------

    def at(self, pointer: str, kind: str, offset: Value) -> str:
        """The address some elements further on."""
        return pointer if offset == 0 else self.let(f"getelementptr {kind}, ptr {pointer}, i64 {offset}")

    # -- control ----------------------------------------------------------------------------------------

    def repeat(
        self,
        count: Value,
        carried: Sequence[tuple[str, str]],
        body: Callable[[Value, list[str]], Sequence[str]],
        step: int = 1,
    ) -> list[str]:
        """``for i in range(0, count * step, step): carried = body(i, carried)``.

        Args:
            count: the number of turns; a count that is known to be 0 or 1 needs no loop.
            carried: type and first value of each number that goes from turn to turn.
            body: writes a turn, and says what the numbers are after it.
            step: by how much the loop's variable grows.

        Returns:
            The numbers after the last turn.
        """
        values = [value for _, value in carried]
        if count == 0:
            return values
        if count == 1:
            return list(body(0, values))
        before, head, end = self.block, self.fresh(), self.fresh()
        limit = self.multiply(count, step)
        if isinstance(count, int):
            self.line(f"br label %{head}")
        else:
            some = self.let(f"icmp sgt i64 {count}, 0")
            self.line(f"br i1 {some}, label %{head}, label %{end}")
        self.begin(head)
        turn, names = f"%{self.fresh()}", [f"%{self.fresh()}" for _ in carried]
        phis = len(self.lines)
        self.lines += [""] * (1 + len(names))
        new = body(turn, names)
        following = self.add(turn, step)
        self.lines[phis] = f"  {turn} = phi i64 [ 0, %{before} ], [ {following}, %{self.block} ]"
        for n, (name, value, (kind, first)) in enumerate(zip(names, new, carried, strict=True)):
            self.lines[phis + 1 + n] = f"  {name} = phi {kind} [ {first}, %{before} ], [ {value}, %{self.block} ]"
        more = self.let(f"icmp slt i64 {following}, {limit}")
        last = self.block
        self.line(f"br i1 {more}, label %{head}, label %{end}")
        self.begin(end)
        if isinstance(count, int):
            return list(new)
        return [
            self.let(f"phi {kind} [ {first}, %{before} ], [ {value}, %{last} ]")
            for (kind, first), value in zip(carried, new, strict=True)
        ]
