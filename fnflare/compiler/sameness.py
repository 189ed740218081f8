"""Whether two kernels are one: a key that is the same for those that differ in names and comments alone.

A kernel of `fnflare.nest` comes in, a hashable description of what it does goes out, in which buffers and loops are
numbered in the order in which they are met. `fnflare.compiler.nests` writes each kernel once by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fnflare.nest import (
    Accumulator,
    Apply,
    Axis,
    Constant,
    Element,
    Index,
    Kernel,
    Let,
    Local,
    Loop,
    Position,
    Quotient,
    Remainder,
    Scalar,
    Size,
    Statement,
    Store,
    Update,
    walk,
)

__all__ = ["kernel_key"]


def kernel_key(kernel: Kernel) -> Any:
    """What two kernels have in common exactly when they are the same but for names and comments."""
    numbers: dict[Any, int] = {}

    def number(thing: Any) -> int:
        return numbers.setdefault(thing, len(numbers))

    def of_index(i: Index) -> Any:
        return tuple(sorted((tuple(sorted(map(of_atom, m), key=str)), c) for m, c in i.terms.items()))

    def of_atom(a: Any) -> Any:
        if isinstance(a, Axis):
            return ("a", number(a))
        if isinstance(a, Size):
            return ("s", a.name)
        if isinstance(a, (Quotient, Remainder)):
            return (type(a).__name__, of_index(a.value), of_index(a.divisor))
        return ("v", of_scalar(a.value))

    scalars: dict[int, int] = {}
    shapes: dict[Any, int] = {}

    def of_scalar(root: Scalar) -> int:
        for x in walk([root]):
            if id(x) in scalars:
                continue
            if isinstance(x, Apply):
                shape: Any = (x.op, x.dtype, tuple([scalars[id(a)] for a in x.args]))
            elif isinstance(x, Element):
                shape = ("element", x.dtype, number(x.buffer), of_index(x.index))
            elif isinstance(x, Position):
                shape = ("position", x.dtype, of_index(x.index))
            elif isinstance(x, Local):
                shape = ("local", x.dtype, x.name)
            else:
                assert isinstance(x, Constant)
                shape = ("constant", x.dtype, repr(x.value))
            scalars[id(x)] = shapes.setdefault(shape, len(shapes))
        return scalars[id(root)]

    def of_body(body: Sequence[Statement]) -> Any:
        return tuple([of_statement(s) for s in body])

    def of_statement(s: Statement) -> Any:
        if isinstance(s, Loop):
            return ("loop", number(s.axis), of_index(s.axis.extent), s.vector, s.unroll, of_body(s.body))
        if isinstance(s, Store):
            return ("store", number(s.buffer), of_index(s.index), of_scalar(s.value))
        if isinstance(s, Let):
            return ("let", s.name, of_scalar(s.value))
        if isinstance(s, Update):
            return ("update", s.name, of_scalar(s.value))
        assert isinstance(s, Accumulator)
        return ("accumulator", s.name, s.op, s.dtype)

    first = None if kernel.axis is None else (number(kernel.axis), of_index(kernel.axis.extent))
    parameters = tuple([(number(p), p.dtype) for p in kernel.parameters])
    memory = tuple([(number(b), b.dtype, of_index(b.size)) for b in kernel.locals])
    sizes = tuple([s.name for s in kernel.sizes])
    body = of_body(kernel.body)
    return (first, kernel.vector, parameters, memory, sizes, body, tuple(shapes))
