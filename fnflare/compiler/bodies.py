"""The body of a kernel looked through and rewritten: what it reads and stores, and other values for its loop variables.

Statements of `fnflare.nest` come in; the sizes, indices, buffers and expressions in them go out, or the same statements
with something else in place of what they count by. Nothing here chooses: that `fnflare.compiler.nests` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fnflare.nest import (
    Apply,
    Axis,
    Buffer,
    Element,
    Index,
    Integer,
    Let,
    Loop,
    Position,
    Scalar,
    Size,
    Statement,
    Store,
    Update,
    index,
    walk,
)

__all__ = ["Rewriter", "parameters_in", "sizes_in", "sizes_of"]


def sizes_of(body: Sequence[Statement]) -> tuple[Size, ...]:
    """The sizes given at run time that statements use."""
    return sizes_in([*[a.extent for a in _axes_of(body)], *_indices_of(body)])


def sizes_in(found: Iterable[Index]) -> tuple[Size, ...]:
    """The sizes given at run time that indices are made of."""
    out: dict[Size, None] = {}
    for i in found:
        for a in i.atoms():
            if isinstance(a, Size):
                out[a] = None
            elif isinstance(a, Axis):
                out.update(dict.fromkeys(sizes_in([a.extent])))
    return tuple(out)


def _axes_of(body: Sequence[Statement]) -> list[Axis]:
    out = []
    for s in body:
        if isinstance(s, Loop):
            out += [s.axis, *_axes_of(s.body)]
    return out


def _scalars_of(body: Sequence[Statement]) -> list[Scalar]:
    out: list[Scalar] = []
    for s in body:
        if isinstance(s, Loop):
            out += _scalars_of(s.body)
        elif isinstance(s, (Let, Store, Update)):
            out.append(s.value)
            if isinstance(s, Store):
                out += [a.value for a in s.index.atoms() if isinstance(a, Integer)]
    return out


def _stores_of(body: Sequence[Statement]) -> list[Store]:
    out: list[Store] = []
    for s in body:
        if isinstance(s, Loop):
            out += _stores_of(s.body)
        elif isinstance(s, Store):
            out.append(s)
    return out


def _indices_of(body: Sequence[Statement]) -> list[Index]:
    found = [s.index for s in _stores_of(body)]
    return found + [x.index for x in walk(_scalars_of(body)) if isinstance(x, (Element, Position))]


def parameters_in(body: Sequence[Statement]) -> set[Buffer]:
    used = {s.buffer for s in _stores_of(body)}
    used |= {x.buffer for x in walk(_scalars_of(body)) if isinstance(x, Element)}
    return used


class Rewriter:
    """Replaces loop variables in expressions, which keep what they share."""

    def __init__(self, values: dict[Any, Index], element: Callable[[Element], Element] | None) -> None:
        self.values = values
        self.element = element
        self.done: dict[int, Scalar] = {}
        self.indices: dict[Index, Index] = {}

    def scalar(self, root: Scalar) -> Scalar:
        for x in walk([root]):
            if id(x) not in self.done:
                self.done[id(x)] = self._one(x)
        return self.done[id(root)]

    def _one(self, x: Scalar) -> Scalar:
        if isinstance(x, Apply):
            args = tuple([self.done[id(a)] for a in x.args])
            return x if all(a is b for a, b in zip(args, x.args, strict=True)) else Apply(x.dtype, x.op, args)
        if isinstance(x, Element):
            moved = self.index(x.index)
            x = x if moved is x.index else Element(x.dtype, x.buffer, moved)
            return x if self.element is None else self.element(x)
        if isinstance(x, Position):
            return Position(x.dtype, self.index(x.index))
        return x

    def index(self, i: Index) -> Index:
        found = self.indices.get(i)
        if found is None:
            values = dict(self.values)
            for a in i.atoms():
                if isinstance(a, Integer):
                    values[a] = index(Integer(self.scalar(a.value)))
            found = i.replace(values) if values else i
            self.indices[i] = found = i if found == i else found
        return found

    def statements(self, body: Sequence[Statement]) -> tuple[Statement, ...]:
        out: list[Statement] = []
        for s in body:
            if isinstance(s, Loop):
                out.append(Loop(s.axis, self.statements(s.body), s.vector, s.unroll))
            elif isinstance(s, Let):
                out.append(Let(s.name, self.scalar(s.value)))
            elif isinstance(s, Update):
                out.append(Update(s.name, self.scalar(s.value)))
            elif isinstance(s, Store):
                out.append(Store(s.buffer, self.index(s.index), self.scalar(s.value)))
            else:
                out.append(s)
        return tuple(out)
