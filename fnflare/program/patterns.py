"""Patterns: what a rule looks for in a program, written the way the user writes it.

A pattern is built from named holes with NumPy's functions and operators, ``np.log(1 + np.exp(X))``, or, for what is no
ufunc, with `op`: ``op.softmax(X, axis=A)``. Matched against an equation and the equations that made its inputs, it
gives what stands in each hole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from fnflare.core import primitives
from fnflare.core.tracer import UFUNCS
from fnflare.errors import ArgumentError
from fnflare.program.frozen import frozen, frozen_literal
from fnflare.program.ir import Atom, Equation, Literal
from fnflare.program.rewriting import COMMUTATIVE

__all__ = ["Pattern", "constant", "op", "operand", "parameter", "reshaped", "several"]

Found = dict[str, Any]
Makers = Mapping[Atom, Equation]


class Pattern(NDArrayOperatorsMixin):
    """What an argument of an equation may look like. Ufuncs and operators of patterns give patterns."""

    __slots__ = ()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        prim = UFUNCS.get(ufunc) or primitives().get(ufunc.__name__)
        if prim is None or method != "__call__" or kwargs:
            raise ArgumentError(
                f"a pattern cannot hold np.{ufunc.__name__} (method {method!r}, keywords {sorted(kwargs)}): it is no "
                "primitive; name the one that the program has, op.sum(X, axes=A, keepdims=K) say"
            )
        return Operation(prim.name, inputs, {})

    def match(self, atom: Atom, made_by: Makers, found: Found) -> Iterator[Found]:
        """What is in the holes if `atom` looks like this, added to what was found before: each way in which it does,
        since the arguments of a sum may be taken in either order."""
        raise TypeError(f"{type(self).__name__} must define match")

    def names(self) -> set[str]:
        """The names of the holes in it."""
        return set()

    def size(self) -> int:
        """The number of operations in it."""
        return 0


class _Operand(Pattern):
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def match(self, atom: Atom, made_by: Makers, found: Found) -> Iterator[Found]:
        known = found.get(self.name)
        if known is None:
            yield {**found, self.name: atom}
        elif _same(known, atom):
            yield found

    def names(self) -> set[str]:
        return {self.name}


def _same(x: Atom, y: Atom) -> bool:
    """Whether two atoms hold the same values."""
    if x is y:
        return True
    return type(x) is Literal and type(y) is Literal and frozen_literal(x) == frozen_literal(y)


class _Constant(Pattern):
    __slots__ = ("name", "predicate")

    def __init__(self, name: str, predicate: Callable[[Any], bool] | None) -> None:
        self.name = name
        self.predicate = predicate

    def match(self, atom: Atom, made_by: Makers, found: Found) -> Iterator[Found]:
        number = _number(atom)
        if number is not None and (self.predicate is None or self.predicate(number)):
            yield from _added(found, self.name, number)

    def names(self) -> set[str]:
        return {self.name}


class _Number(Pattern):
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def match(self, atom: Atom, made_by: Makers, found: Found) -> Iterator[Found]:
        number = _number(atom)
        if number is not None and number == self.value:
            yield found


def _number(atom: Atom) -> Any:
    """The number that an atom is throughout; None where it is no such constant."""
    return atom.repeated if type(atom) is Literal else None


def _added(found: Found, name: str, value: Any) -> Iterator[Found]:
    """`found` with a static value added, if it holds no other under that name."""
    if name not in found:
        yield {**found, name: value}
    elif frozen(found[name]) == frozen(value):
        yield found


class _Reshaped(Pattern):
    __slots__ = ("name", "pattern")

    def __init__(self, pattern: Pattern, name: str) -> None:
        self.pattern = pattern
        self.name = name

    def match(self, atom: Atom, made_by: Makers, found: Found) -> Iterator[Found]:
        shape = atom.aval.shape
        equation = made_by.get(atom)
        if equation is not None and equation.prim.name == "reshape":
            (atom,) = equation.inputs
        for inside in self.pattern.match(atom, made_by, found):
            yield from _added(inside, self.name, shape)

    def names(self) -> set[str]:
        return {self.name} | self.pattern.names()

    def size(self) -> int:
        return self.pattern.size()


class _Several:
    """Any number of last arguments."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Parameter:
    """A static parameter of an equation."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Operation(Pattern):
    """An equation of the primitive with a given name, whose inputs look as given and that has the parameters given
    and no others."""

    __slots__ = ("inputs", "params", "prim", "rest")

    def __init__(self, prim: str, inputs: tuple[Any, ...], params: dict[str, Any]) -> None:
        self.prim = prim
        self.rest = inputs[-1].name if inputs and isinstance(inputs[-1], _Several) else None
        self.inputs = [_as_pattern(p) for p in (inputs if self.rest is None else inputs[:-1])]
        self.params = params

    def match(self, atom: Atom, made_by: Makers, found: Found) -> Iterator[Found]:
        equation = made_by.get(atom)
        if equation is not None and equation.prim.name == self.prim:
            yield from self.match_equation(equation, made_by, found)

    def match_equation(self, equation: Equation, made_by: Makers, found: Found) -> Iterator[Found]:
        """As `match`, of the equation of this primitive that makes the atom."""
        atoms = equation.inputs
        count = len(self.inputs)
        params = equation.params or {}
        if len(atoms) < count or (self.rest is None and len(atoms) > count) or params.keys() != self.params.keys():
            return
        swaps = count == 2 and self.prim in COMMUTATIVE
        for after in self._match_params(list(self.params), params, found):
            if self.rest is not None:
                after = {**after, self.rest: atoms[count:]}
            yield from self._match_inputs(0, atoms, made_by, after)
            if swaps:
                yield from self._match_inputs(0, atoms[::-1], made_by, after)

    def _match_params(self, keys: list[str], params: dict[str, Any], found: Found) -> Iterator[Found]:
        if not keys:
            yield found
            return
        wanted, value = self.params[keys[0]], params[keys[0]]
        if isinstance(wanted, _Parameter):
            for after in _added(found, wanted.name, value):
                yield from self._match_params(keys[1:], params, after)
        elif frozen(wanted) == frozen(value):
            yield from self._match_params(keys[1:], params, found)

    def _match_inputs(self, i: int, atoms: tuple[Atom, ...], made_by: Makers, found: Found) -> Iterator[Found]:
        if i == len(self.inputs):
            yield found
            return
        for after in self.inputs[i].match(atoms[i], made_by, found):
            yield from self._match_inputs(i + 1, atoms, made_by, after)

    def names(self) -> set[str]:
        out = {p.name for p in self.params.values() if isinstance(p, _Parameter)}
        if self.rest is not None:
            out.add(self.rest)
        return out.union(*[p.names() for p in self.inputs])

    def size(self) -> int:
        return 1 + sum(p.size() for p in self.inputs)


def _as_pattern(x: Any) -> Pattern:
    if isinstance(x, Pattern):
        return x
    if isinstance(x, (int, float, complex, np.number)):
        return _Number(x)
    raise ArgumentError(
        f"an argument in a pattern must be a pattern or a number, got {x!r}; parameters are given by keyword"
    )


def operand(name: str) -> Pattern:
    """A hole for any array. Where the name occurs twice, both must be the same array.

    >>> np.log(np.exp(ff.program.operand("x"))).names()
    {'x'}
    """
    return _Operand(name)


def constant(name: str, predicate: Callable[[Any], bool] | None = None) -> Pattern:
    """A hole for a constant that is one number throughout; the rule gets the number itself, which is static.

    Args:
        name: its name.
        predicate: what the number must fulfil.

    A number that is known is written as it is: ``1 + np.exp(X)``.
    """
    return _Constant(name, predicate)


def reshaped(pattern: Pattern, name: str) -> Pattern:
    """`pattern`, or a reshape of it: the hole gets the shape that was found.

    For what is broadcast afterwards: ``x / np.sum(x, axis=1)[:, None]`` and ``x / np.sum(x, axis=1, keepdims=True)``
    then look the same but for that shape.
    """
    return _Reshaped(pattern, name)


def parameter(name: str) -> Any:
    """A hole for a static parameter: ``op.softmax(X, axis=parameter("axis"))``."""
    return _Parameter(name)


def several(name: str) -> Any:
    """A hole for any number of last arguments, of which the rule gets a tuple: index arrays, say."""
    return _Several(name)


class _Op:
    """Patterns of primitives by their names: ``op.softmax(X, axis=A)``.

    A pattern must name every parameter that the primitive has: one that it knows nothing of could change what the
    operation means.
    """

    def __getattr__(self, name: str) -> Callable[..., Operation]:
        return lambda *inputs, **params: Operation(name, inputs, params)


op = _Op()
