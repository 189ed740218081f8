"""Bodies of loop nests as blocks of C.

Statements go in, lines come out: loops, assignments, calls of kernels. The functions around them are written by
`fnflare.compiler.c99.render`.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Sequence

from fnflare.compiler.c99.helpers import Helpers
from fnflare.compiler.c99.layout import Lines
from fnflare.compiler.c99.literals import C_TYPES, FLOATS, Level, is_signed, literal, width
from fnflare.compiler.c99.operators import assignment, bits, operation
from fnflare.compiler.c99.scalars import Expressions
from fnflare.compiler.c99.scope import Scope
from fnflare.compiler.c99.uses import counts, uses_axis
from fnflare.nest import (
    Accumulator,
    Apply,
    Axis,
    Branch,
    Contract,
    Element,
    Index,
    Let,
    Local,
    Loop,
    Part,
    Repeat,
    Run,
    Scalar,
    Statement,
    Store,
    Update,
)

__all__ = ["Block", "Called"]

#: Tells for a statement that calls a function: its name, and the parts and the sizes that it is given.
Called = Callable[[Run | Contract], tuple[str, Sequence[Part], Sequence[Index]]]


class Block:
    """Writes statements into the lines of a function."""

    def __init__(
        self,
        lines: Lines,
        scope: Scope,
        helpers: Helpers,
        called: Called,
        accumulators: ChainMap[str, Accumulator] | None = None,
    ) -> None:
        self._lines = lines
        self._scope = scope
        self._helpers = helpers
        self._called = called
        self._accumulators = ChainMap[str, Accumulator]() if accumulators is None else accumulators
        self._expressions = Expressions(lines, scope, helpers, {})
        self._used: dict[Scalar, int] = {}

    def write(self, body: Sequence[Statement]) -> None:
        """The statements of a body, which are this block's."""
        self._used = counts(body)
        self._expressions = Expressions(self._lines, self._scope, self._helpers, self._used)
        for s in body:
            if isinstance(s, Let):
                self._let(s)
            elif isinstance(s, Accumulator):
                self._accumulator(s)
            elif isinstance(s, Update):
                self._update(s)
            elif isinstance(s, Store):
                self._store(s)
            elif isinstance(s, (Run, Contract)):
                self._call(s)
            elif isinstance(s, Loop):
                self._loop(s.axis, s.body)
            elif isinstance(s, Repeat):
                self._repeat(s)
            elif isinstance(s, Branch):
                self._branch(s)
            else:
                for inner in s.bodies:
                    self._inner(inner)

    def _inner(self, body: Sequence[Statement], scope: Scope | None = None) -> None:
        """The statements of a block in this one."""
        scope = self._scope.inner() if scope is None else scope
        Block(self._lines, scope, self._helpers, self._called, self._accumulators.new_child()).write(body)

    # -- numbers --------------------------------------------------------------------------------------

    def _let(self, s: Let) -> None:
        known = self._scope.find(s.value)
        if known is not None:
            self._scope.stand_for(s.name, known)
            return
        value = self._expressions.value(s.value, named=True)
        name = self._scope.declare(s.name, s.name)
        self._lines.add(f"const {C_TYPES[s.value.dtype]} {name} = {value.text};")
        self._scope.stand_for(s.value, name)

    def _accumulator(self, s: Accumulator) -> None:
        self._accumulators[s.name] = s
        name = self._scope.declare(s.name, s.name)
        self._lines.add(f"{C_TYPES[s.dtype]} {name} = {_neutral(s.op, s.dtype)};")

    def _update(self, s: Update) -> None:
        declared = self._accumulators[s.name]
        name = self._scope.name(s.name)
        value = self._expressions.value(s.value)
        operator = assignment(declared.op, declared.dtype)
        if operator is not None:
            self._lines.add(f"{name} {operator} {value.text};")
            return
        combined = Apply(declared.dtype, declared.op, (Local(declared.dtype, s.name), s.value))
        self._lines.add(f"{name} = {operation(combined, [self._scope.text(s.name), value], self._helpers).text};")

    def _store(self, s: Store) -> None:
        operator, value = "=", s.value
        if isinstance(value, Apply) and self._changes_in_place(s, value):
            operator, value = assignment(value.op, value.dtype) or "=", value.args[1]
        text = bits(s.value.dtype, self._scope.stored(s.buffer), self._expressions.value(value), self._helpers).text
        place = f"{self._scope.name(s.buffer)}[{self._expressions.index(s.index).text}]"
        self._lines.add(f"{place} {operator} {text};")

    def _changes_in_place(self, s: Store, value: Apply) -> bool:
        """Whether what is stored is what was there, combined with something: ``y[i] += x``."""
        first = value.args[0]
        if not isinstance(first, Element) or first.buffer is not s.buffer or first.index != s.index:
            return False
        if (
            self._scope.stored(s.buffer) != value.dtype
            or self._used[value] > 1
            or self._used[first] > 1
            or self._scope.find(first) is not None
        ):
            return False
        return assignment(value.op, value.dtype) is not None

    # -- what surrounds them --------------------------------------------------------------------------

    def _loop(self, axis: Axis, body: Sequence[Statement]) -> None:
        extent = self._expressions.index(axis.extent).at(Level.SHIFT)
        scope = self._scope.inner()
        name = scope.declare_axis(axis)
        with self._lines.block(f"for (int64_t {name} = 0; {name} < {extent}; {name}++)"):
            self._inner(body, scope)

    def _repeat(self, s: Repeat) -> None:
        self._lines.comment(s.comment)
        if s.condition is None:
            self._loop(s.axis, s.body)
            return
        condition = self._first(s.condition)
        scope = self._scope.inner()
        head = f"while ({condition})"
        if uses_axis(s.body, s.axis):
            name = scope.declare_axis(s.axis)
            head = f"for (int64_t {name} = 0; {condition}; {name}++)"
        with self._lines.block(head):
            self._inner(s.body, scope)

    def _branch(self, s: Branch) -> None:
        self._lines.comment(s.comment)
        number = self._helpers.clamp(self._first(s.which), len(s.bodies))
        with self._lines.block(f"switch ({number})"):
            for n, body in enumerate(s.bodies):
                # The last is what is left, so that compilers know that one of them is done.
                label = "default:" if n == len(s.bodies) - 1 else f"case {n}:"
                with self._lines.block(label):
                    self._inner(body)
                    self._lines.add("break;")

    def _call(self, s: Run | Contract) -> None:
        if isinstance(s, Contract):
            self._lines.comment(s.comment)
        name, parts, sizes = self._called(s)
        args = [self._part(p) for p in parts] + [self._expressions.index(i).text for i in sizes]
        self._lines.add(f"{name}({', '.join(args)});")

    def _part(self, p: Part) -> str:
        name = self._scope.name(p.buffer)
        return name if p.start == 0 else f"{name} + {self._expressions.index(p.start).at(Level.SUM)}"

    def _first(self, p: Part) -> str:
        return f"{self._scope.name(p.buffer)}[{self._expressions.index(p.start).text}]"


def _neutral(op: str, dtype: str) -> str:
    """The number that an operation leaves every other number as it is with."""
    if op in ("add", "or"):
        return literal(0, dtype).text
    if dtype == "b1":
        return literal(op != "maximum", dtype).text
    if op == "multiply":
        return literal(1, dtype).text
    if dtype in FLOATS:
        return literal(-math.inf if op == "maximum" else math.inf, dtype).text
    bits = width(dtype)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed(dtype) else (0, 2**bits - 1)
    if op == "and":
        return literal(-1 if is_signed(dtype) else high, dtype).text
    return literal(low if op == "maximum" else high, dtype).text
