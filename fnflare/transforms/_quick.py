"""Calls of jitted functions by the shortest way: straight from the arguments to native code and back.

The structures of a signature's arguments and answer go in, and native code that checks its arguments
(`fnflare.compiler.native.checked`); a function comes out that takes arguments apart, hands over their leaves and puts
the answer together. It is written as Python code for just these structures, and leaves alone, to the general way,
whatever is not what it expects: `MISSED` says so.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from types import CellType, CodeType
from typing import Any, NamedTuple, cast

from fnflare.program.frozen import frozen
from fnflare.tree import TreeDef
from fnflare.tree._nodes import node_of

__all__ = ["MISSED", "Quick", "Shape", "quick_call"]

#: ``quick(args, kwargs)``: the answer, or `MISSED`.
Quick = Callable[[tuple[Any, ...], dict[str, Any]], Any]
#: What a quick call returns for arguments that it does not take.
MISSED = object()
#: Deeper structures are left alone: Python's parser nests only so many brackets.
_DEEPEST = 40


class Shape(NamedTuple):
    """What a call looks like from outside.

    Attributes:
        positional: the structure of each positional argument, None for a static one.
        keywords: the name of each keyword argument and its structure, None for a static one; those that are not
            static in the order in which their leaves come.
        out: the structure of the answer.
        cells: how many variables the function closes over.
    """

    positional: tuple[TreeDef | None, ...]
    keywords: tuple[tuple[str, TreeDef | None], ...]
    out: TreeDef
    cells: int


def quick_call(
    shape: Shape, statics: Sequence[Any], cells: Sequence[CellType], contents: Sequence[Any], native: Callable[..., Any]
) -> Quick | None:
    """A function that does a whole call.

    Args:
        shape: what it looks like.
        statics: the values of the static arguments, first the positional ones.
        cells, contents: the variables that the function closes over, and what has to be in them.
        native: takes the leaves and returns a list, or None for other ones than it was made for.

    Returns:
        The function; None where the structures are too deep.
    """
    structures = [s for s in (*shape.positional, *[s for _, s in shape.keywords], shape.out) if s is not None]
    if max(map(_depth, structures)) > _DEEPEST:
        return None
    writer = _Writer()
    scope: dict[str, Any] = writer.constants
    exec(_code("\n".join(writer.function(shape))), scope)  # noqa: S102
    made: Quick = scope["make"](native, MISSED, [_same_static(v) for v in statics], cells, contents)
    return made


def _same_static(value: Any) -> Callable[[Any], bool]:
    """Whether something is a certain static argument, or as good as that."""
    kind = type(value)
    if value is None:
        return lambda x: x is None
    if kind is int or kind is str or kind is bool:
        return lambda x: type(x) is kind and x == value
    key = frozen(value, lasting=True)
    return lambda x: type(x) is kind and frozen(x, lasting=True) == key


@functools.lru_cache(maxsize=512)
def _code(text: str) -> CodeType:
    return compile(text, "<quick call>", "exec")


def _depth(structure: TreeDef) -> int:
    deepest, level = 0, [structure]
    while level:
        deepest += 1
        level = [c for s in level for c in s.children]
    return deepest


class _Writer:
    """Writes the code of one shape."""

    def __init__(self) -> None:
        self.constants: dict[str, Any] = {}
        self._names: Iterator[str] = (f"x{i}" for i in itertools.count())
        self.leaves: list[str] = []

    def function(self, shape: Shape) -> list[str]:
        read = self._arguments(shape)
        given = ", ".join(self.leaves)
        numbers = range(len([s for s in (*shape.positional, *[s for _, s in shape.keywords]) if s is None]))
        return [
            "def make(native, missed, statics, cells, contents):",
            *[f"    same{i} = statics[{i}]" for i in numbers],
            *[f"    cell{i}, content{i} = cells[{i}], contents[{i}]" for i in range(shape.cells)],
            "    def quick(args, kwargs):",
            f"        if {self._wrong(shape)}:",
            "            return missed",
            "        try:",
            *[f"            {line}" for line in (*self._closure(shape), *read, "pass")],
            "        except (KeyError, TypeError, ValueError):  # another dict; nothing hashable; an empty cell",
            "            return missed",
            f"        out = native({given})",
            "        if out is None:",
            "            return missed",
            *[f"        {line}" for line in self._answer(shape.out)],
            "    return quick",
        ]

    def _wrong(self, shape: Shape) -> str:
        keywords = f"len(kwargs) != {len(shape.keywords)}" if shape.keywords else "kwargs"
        return f"len(args) != {len(shape.positional)} or {keywords}"

    def _closure(self, shape: Shape) -> list[str]:
        return [f"if cell{i}.cell_contents is not content{i}: return missed" for i in range(shape.cells)]

    def _arguments(self, shape: Shape) -> list[str]:
        lines: list[str] = []
        statics = (f"same{i}" for i in itertools.count())
        names = [next(self._names) for _ in shape.positional]
        if names:
            lines.append(f"{', '.join(names)}, = args")
        named = list(zip(names, shape.positional, strict=True))
        for keyword, structure in shape.keywords:
            name = next(self._names)
            lines.append(f"{name} = kwargs[{keyword!r}]")
            named.append((name, structure))
        for name, structure in named:
            if structure is None:
                lines.append(f"if not {next(statics)}({name}): return missed")
            else:
                self._read(name, structure, lines)
        return lines

    def _read(self, name: str, s: TreeDef, lines: list[str]) -> None:
        """Take what a variable holds apart."""
        if s.kind is None:
            self.leaves.append(name)
            return
        if s.kind is type(None):
            lines.append(f"if {name} is not None: return missed")
            return
        kind, count = self._constant(s.kind), len(s.children)
        parts = [next(self._names) for _ in s.children]
        if s.kind is dict:
            lines.append(f"if type({name}) is not {kind} or len({name}) != {count}: return missed")
            for part, key in zip(parts, cast(tuple[Any, ...], s.aux), strict=True):
                lines.append(f"{part} = {name}[{self._constant(key)}]")
        elif s.kind is tuple or s.kind is list or node_of(s.kind).is_tuple:
            lines.append(f"if type({name}) is not {kind} or len({name}) != {count}: return missed")
            lines += [f"{', '.join(parts)}, = {name}"] * bool(parts)
        else:
            opened, aux = next(self._names), next(self._names)
            lines.append(f"if type({name}) is not {kind}: return missed")
            lines.append(f"{opened}, {aux} = {self._constant(node_of(s.kind).flatten)}({name})")
            lines.append(f"if {aux} != {self._constant(s.aux)} or len({opened}) != {count}: return missed")
            lines += [f"{', '.join(parts)}, = {opened}"] * bool(parts)
        for part, child in zip(parts, s.children, strict=True):
            self._read(part, child, lines)

    # -- the answer -----------------------------------------------------------------------------------

    def _answer(self, s: TreeDef) -> list[str]:
        names = [f"y{i}" for i in range(s.num_leaves)]
        if s.kind is None:
            return ["return out[0]"]
        text = self._built(s, iter(names))
        return [*[f"{', '.join(names)}, = out"] * bool(names), f"return {text}"]

    def _built(self, s: TreeDef, names: Iterator[str]) -> str:
        if s.kind is None:
            return next(names)
        if s.kind is type(None):
            return "None"
        parts = [self._built(c, names) for c in s.children]
        if s.kind is tuple:
            return f"({', '.join(parts)},)" if parts else "()"
        if s.kind is list:
            return f"[{', '.join(parts)}]"
        if s.kind is dict:
            keys = [self._constant(k) for k in cast(tuple[Any, ...], s.aux)]
            return f"{{{', '.join([f'{k}: {p}' for k, p in zip(keys, parts, strict=True)])}}}"
        node = node_of(s.kind)
        if node.is_tuple:
            return f"{self._constant(s.kind)}({', '.join(parts)})"
        return f"{self._constant(node.unflatten)}({self._constant(s.aux)}, [{', '.join(parts)}])"

    def _constant(self, value: Any) -> str:
        """The name of an object in the code."""
        if type(value) is str:
            return repr(value)
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name
