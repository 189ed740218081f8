"""Expressions of C for scalar expressions of loop nests.

Directed graphs go in; what is used once is written in place, what is used more often or would be too long to read gets
a name before the statement that needs it. An expression that has a name in a block or in one around it is not written
again.
"""

from __future__ import annotations

from fnflare.compiler.c99.helpers import Helpers
from fnflare.compiler.c99.indices import index_text, integers
from fnflare.compiler.c99.layout import Lines
from fnflare.compiler.c99.literals import C_TYPES, Level, Text, literal
from fnflare.compiler.c99.operators import bits, operation
from fnflare.compiler.c99.scope import Scope
from fnflare.compiler.c99.uses import children
from fnflare.nest import Apply, Atom, Constant, Element, Index, Integer, Local, Position, Scalar

__all__ = ["Expressions"]

#: An expression longer than this gets a name of its own.
_LONG = 72


class Expressions:
    """Writes the expressions of one block; the names that they need are declared in its lines."""

    def __init__(self, lines: Lines, scope: Scope, helpers: Helpers, used: dict[Scalar, int]) -> None:
        self._lines = lines
        self._scope = scope
        self._helpers = helpers
        self._used = used

    def value(self, root: Scalar, named: bool = False) -> Text:
        """A scalar expression; one that the caller names (`named`) is given no other name here."""
        texts: dict[Scalar, Text] = {}
        for x in self._missing(root):
            name = self._scope.find(x) if not isinstance(x, Local) else None
            text = Text(name, Level.PRIMARY) if name is not None else self._written(x, texts)
            if name is None and not (named and x is root) and self._deserves_name(x, text, x is root):
                name = self._scope.declare(x, "t", first=0)
                self._lines.add(f"const {C_TYPES[x.dtype]} {name} = {text.text};")
                text = Text(name, Level.PRIMARY)
            texts[x] = text
        return texts[root]

    def index(self, index: Index) -> Text:
        """An index; the integers in it are computed."""
        return self._index(index, {a.value: self.value(a.value) for a in integers(index)})

    def _missing(self, root: Scalar) -> list[Scalar]:
        """An expression and those below it down to what has a name, arguments before what is made of them."""
        order: list[Scalar] = []
        seen: set[Scalar] = set()
        stack: list[tuple[Scalar, bool]] = [(root, False)]
        while stack:
            x, ready = stack.pop()
            if ready:
                order.append(x)
            elif x not in seen:
                seen.add(x)
                stack.append((x, True))
                if isinstance(x, (Apply, Element, Position)) and self._scope.find(x) is None:
                    stack += [(a, False) for a in reversed(children(x))]
        return order

    def _written(self, x: Scalar, texts: dict[Scalar, Text]) -> Text:
        if isinstance(x, Constant):
            self._helpers.mathematics |= isinstance(x.value, float)
            return literal(x.value, x.dtype)
        if isinstance(x, Local):
            return self._scope.text(x.name)
        if isinstance(x, Element):
            text = Text(f"{self._scope.name(x.buffer)}[{self._index(x.index, texts).text}]", Level.PRIMARY)
            return bits(self._scope.stored(x.buffer), x.dtype, text, self._helpers)
        if isinstance(x, Position):
            text = self._index(x.index, texts)
            return text if x.dtype == "i64" else Text(f"({C_TYPES[x.dtype]}){text.at(Level.UNARY)}", Level.UNARY)
        assert isinstance(x, Apply)
        args = [texts[a] for a in x.args]
        if all(isinstance(a, Constant) for a in x.args):
            # Compilers warn of what they can compute themselves and overflows.
            args = [self._constant(a, t) for a, t in zip(x.args, args, strict=True)]
        return operation(x, args, self._helpers)

    def _constant(self, x: Scalar, text: Text) -> Text:
        name = self._scope.declare(x, "t", first=0)
        self._lines.add(f"const {C_TYPES[x.dtype]} {name} = {text.text};")
        return Text(name, Level.PRIMARY)

    def _deserves_name(self, x: Scalar, text: Text, is_root: bool) -> bool:
        if not isinstance(x, (Apply, Element)):
            return False
        if self._used.get(x, 0) > 1:
            return True
        return isinstance(x, Apply) and not is_root and len(text.text) > _LONG

    def _index(self, index: Index, texts: dict[Scalar, Text]) -> Text:
        def name(a: Atom) -> Text:
            if not isinstance(a, Integer):
                return self._scope.text(a)  # type: ignore[arg-type]
            text = texts[a.value]
            return text if a.value.dtype == "i64" else Text(f"(int64_t){text.at(Level.UNARY)}", Level.UNARY)

        return index_text(index, name)
