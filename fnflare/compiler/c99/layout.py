"""How the text is laid out: indents, lines of a length that reads well, and comments.

Statements and comments go in, lines come out. It knows nothing of what they say but brackets, operators and commas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["WIDTH", "Lines", "comment", "wrapped"]

WIDTH = 100
_OPERATORS = "+-*/%<>=!&|^?:"


class Lines:
    """Lines of C that are being written, each indented as deep as the blocks around it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self._depth = 0

    def add(self, text: str) -> None:
        """A statement or the head of one."""
        self.done += wrapped(" " * (4 * self._depth) + text)

    def comment(self, lines: Iterable[str]) -> None:
        """A comment, where there is something to say."""
        self.done += comment(lines, " " * (4 * self._depth))

    @contextmanager
    def block(self, head: str, tail: str = "}") -> Iterator[None]:
        """What is added meanwhile stands in a block after `head`."""
        self.add(f"{head} {{" if head else "{")
        self._depth += 1
        yield
        self._depth -= 1
        self.done.append(" " * (4 * self._depth) + tail)


def comment(lines: Iterable[str], indent: str = "") -> list[str]:
    """Lines as a comment of C, with nothing in them that would end it or be more than text."""
    clean = ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in lines]
    clean = [line.replace("*/", "* /").replace("/*", "/ *").replace("??/", "?? /") for line in clean]
    if not clean:
        return []
    if len(clean) == 1:
        return [f"{indent}/* {clean[0]} */"]
    return [f"{indent}/* {clean[0]}", *[f"{indent} * {line}".rstrip() for line in clean[1:]], f"{indent} */"]


def wrapped(line: str) -> list[str]:
    """A line in pieces of at most `WIDTH` columns where that can be, broken outside as many brackets as possible."""
    indent = " " * (len(line) - len(line.lstrip()) + 8)
    out: list[str] = []
    while len(line) > WIDTH:
        end = _break(line)
        if end is None:
            break
        out.append(line[:end])
        line = indent + line[end + 1 :]
    out.append(line)
    return out


def _break(line: str) -> int | None:
    """The space at which a line is best broken: before an operator or after a comma; None where there is none."""
    best, best_depth, depth = None, 0, 0
    for n, c in enumerate(line[: WIDTH + 1]):
        if c in "([":
            depth += 1
        elif c in ")]":
            depth -= 1
        elif c == " " and n > 40 and _may_break(line, n) and (best is None or depth <= best_depth):
            best, best_depth = n, depth
    return best


def _may_break(line: str, space: int) -> bool:
    before = line[space - 1]
    if before in ",;":
        return True
    token = line[space + 1 : space + 4].partition(" ")[0]
    ends = before.isalnum() or before in ")]_"
    return ends and token not in ("", "=") and all(c in _OPERATORS for c in token)
