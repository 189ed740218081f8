"""Rules: a table of patterns and of what to compute instead, to which users may add.

A program goes in; wherever an equation, with those that made its inputs, looks like the pattern of a rule, the
rule's function is traced on the shapes it finds there, and its equations take the place of the one. The library's
own rules, which keep results finite where the naive formula overflows, are in `fnflare.program.stability`.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.program.frozen import frozen
from fnflare.program.ir import Atom, Equation, Literal, Program, Var
from fnflare.program.patterns import Operation
from fnflare.program.rewriting import Draft, rewrite
from fnflare.program.tracing import trace_program

__all__ = ["Rule", "apply_rules", "remove_rule", "rule", "rules", "ruling", "version"]

#: Traced replacements that one rule remembers at most.
_REMEMBERED = 512


class Rule:
    """A rewriting of programs; made by the decorator `rule`.

    Attributes:
        name: of its function.
        doc: the docstring of its function.
        patterns: what it looks for.
        kinds: the kinds of dtypes (``dtype.kind``) of answers for which it holds.
    """

    __slots__ = ("_arguments", "_function", "_traced", "doc", "kinds", "name", "patterns")

    def __init__(self, function: Callable[..., Any], patterns: tuple[Operation, ...], kinds: str) -> None:
        self.name: str = function.__name__
        self.doc = inspect.getdoc(function) or ""
        self.patterns = patterns
        self.kinds = kinds
        self._function = function
        parameters = inspect.signature(function).parameters.values()
        self._arguments = tuple([p.name for p in parameters if p.default is p.empty])
        self._traced: dict[Hashable, Program | None] = {}
        for pattern in patterns:
            unknown = set(self._arguments) - pattern.names()
            if unknown:
                raise ArgumentError(
                    f"rule {self.name!r} takes {', '.join(sorted(unknown))}, which its pattern does not name; it "
                    f"names {', '.join(sorted(pattern.names()))}"
                )

    def __repr__(self) -> str:
        return f"Rule({self.name})"

    def replacement(self, draft: Draft, equation: Equation, found: dict[str, Any]) -> Atom | None:
        """What takes the place of an equation for what a pattern found; None where the function declines."""
        atoms: list[Atom] = []
        layout: dict[str, Any] = {}
        for name in self._arguments:
            value = found[name]
            if isinstance(value, (Var, Literal)):
                layout[name] = _Slot(len(atoms))
                atoms.append(value)
            elif _is_atoms(value):
                layout[name] = _Slot(slice(len(atoms), len(atoms) + len(value)))
                atoms.extend(value)
            else:
                layout[name] = value
        program = self._program(atoms, layout)
        if program is None:
            return None
        aval = equation.outputs[0].aval
        if _is_narrower(program.out_avals[0], aval):
            # The formula widened what it took; so as to lose no digits the replacement has to do so first.
            atoms = [_widened(draft, a, equation) for a in atoms]
            program = self._program(atoms, layout)
            if program is None:
                return None
        _check_fits(self, program.out_avals[0], aval)
        return draft.fit(draft.splice(program, atoms, equation.source), equation)

    def _program(self, atoms: Sequence[Atom], layout: dict[str, Any]) -> Program | None:
        """The program that the function traces to; it is remembered."""
        avals = [a.aval for a in atoms]
        try:
            key: Hashable = (*avals, *[frozen(v, lasting=True) for v in layout.values()])
        except TypeError:
            return self._trace(avals, layout)
        try:
            return self._traced[key]
        except KeyError:
            program = self._trace(avals, layout)
        if len(self._traced) >= _REMEMBERED:
            self._traced.clear()
        self._traced[key] = program
        return program

    def _trace(self, avals: Sequence[ShapeDtypeStruct], layout: dict[str, Any]) -> Program | None:
        declined = False

        def run(*tracers: Any) -> Sequence[Any]:
            nonlocal declined
            answer = self._function(**{k: tracers[v.place] if isinstance(v, _Slot) else v for k, v in layout.items()})
            declined = answer is None
            return () if declined else (answer,)

        try:
            traced = trace_program(run, avals, self.name, of=self._function)
        except Exception as error:
            error.add_note(f"while tracing the replacement of rule {self.name!r} for {list(avals)}")
            raise
        if traced.captured:
            raise ArgumentError(f"rule {self.name!r} reads a tracer from its closure; a rule must be a pure function")
        return None if declined else traced.program


class _Slot:
    """The place of an argument among the inputs of a replacement."""

    __slots__ = ("place",)

    def __init__(self, place: int | slice) -> None:
        self.place = place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Slot) and other.place == self.place

    def __hash__(self) -> int:
        return hash(str(self.place))


def _is_atoms(value: Any) -> bool:
    return type(value) is tuple and all(isinstance(v, (Var, Literal)) for v in value) and bool(value)


def _is_narrower(got: ShapeDtypeStruct, wanted: ShapeDtypeStruct) -> bool:
    return got.dtype.kind in "fc" and got.dtype.kind == wanted.dtype.kind and got.dtype.itemsize < wanted.dtype.itemsize


def _widened(draft: Draft, atom: Atom, equation: Equation) -> Atom:
    """A number in the dtype of the answer, if that is wider, or if it is a whole one."""
    aval = equation.outputs[0].aval
    if not (_is_narrower(atom.aval, aval) or atom.aval.dtype.kind in "biu"):
        return atom
    return draft.coerce(atom, ShapeDtypeStruct(atom.aval.shape, aval.dtype), equation.source) or atom


class _Table:
    """The rules by name, and the patterns by the primitive at their root, the largest first."""

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}
        self.by_root: dict[str, list[tuple[Operation, Rule]]] = {}
        self.version = 0
        self._lock = threading.Lock()

    def enter(self, made: Rule) -> None:
        with self._lock:
            self.rules.pop(made.name, None)
            self.rules[made.name] = made
            self._changed()

    def remove(self, name: str) -> None:
        with self._lock:
            if name not in self.rules:
                raise ArgumentError(f"remove_rule: there is no rule {name!r}; there are {', '.join(self.rules)}")
            del self.rules[name]
            self._changed()

    def _changed(self) -> None:
        pairs = [(pattern, r) for r in reversed(self.rules.values()) for pattern in r.patterns]
        by_root: dict[str, list[tuple[Operation, Rule]]] = {}
        for pattern, r in sorted(pairs, key=lambda pair: -pair[0].size()):
            by_root.setdefault(pattern.prim, []).append((pattern, r))
        self.by_root = by_root
        self.version += 1  # last: what is simplified under a version has been so by its rules


_table = _Table()


def version() -> int:
    """A number that changes whenever a rule is added or removed."""
    return _table.version


def rules() -> tuple[Rule, ...]:
    """All rules, the library's own first."""
    return tuple(_table.rules.values())


def rule(*patterns: Any, kinds: str = "f") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: wherever a program computes what one of `patterns` says, compute the decorated function instead.

    Args:
        *patterns: made of `operand`, `constant`, `parameter` and their like, with NumPy's ufuncs and with `op`.
        kinds: the kinds of dtypes (``dtype.kind``) of answers for which the rule holds; real floats by default.

    The function has one argument for each hole of the patterns that it wants, by name, and is written in NumPy's and
    fnflare's functions. It is traced: it may look at shapes and dtypes. None for an answer means that the rule does
    not apply here. An answer of another dtype or shape is converted and broadcast to what it replaces.

    Of several rules that fit, the one with the largest pattern is taken, and of those the one that was added last. A
    rule takes the place of an earlier one with the same name. Replacements may meet further rules.

    Raises:
        ArgumentError: the function has an argument that a pattern does not name.

    >>> from fnflare.program import operand, remove_rule, rule, rules
    >>> X = operand("x")
    >>> @rule(np.sqrt(np.square(X)))
    ... def root_of_square(x):
    ...     return np.abs(x)
    >>> rules()[-1]
    Rule(root_of_square)
    >>> remove_rule("root_of_square")
    """
    if not patterns or not all(isinstance(p, Operation) for p in patterns):
        raise ArgumentError(
            f"rule: each pattern must be an operation on operands, np.log(np.exp(X)) say, got {list(patterns)}"
        )

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        _table.enter(Rule(function, patterns, kinds))
        return function

    return enter


def remove_rule(name: str) -> None:
    """Take a rule out of the table.

    Raises:
        ArgumentError: there is none with that name.
    """
    _table.remove(name)


def apply_rules(program: Program) -> Program:
    """A program in which the rules of the table have been applied; `program` itself where none fits."""
    return rewrite(program, ruling)


def ruling(draft: Draft, equation: Equation) -> tuple[Atom] | None:
    """The step of `apply_rules`."""
    entries = _table.by_root.get(equation.prim.name)
    if entries is None or equation.prim.many:
        return None
    aval = equation.outputs[0].aval
    for pattern, r in entries:
        if aval.dtype.kind not in r.kinds:
            continue
        for found in pattern.match_equation(equation, draft.made_by, {}):
            answer = r.replacement(draft, equation, found)
            if answer is not None:
                return (answer,)
    return None


def _check_fits(r: Rule, got: ShapeDtypeStruct, wanted: ShapeDtypeStruct) -> None:
    if not _broadcasts(got.shape, wanted.shape):
        raise ShapeError(
            f"rule {r.name!r} has an answer of shape {got.shape} in the place of one of shape {wanted.shape}"
        )
    if not np.can_cast(got.dtype, wanted.dtype, "same_kind"):
        raise DtypeError(
            f"rule {r.name!r} has an answer of dtype {got.dtype} in the place of one of dtype {wanted.dtype}"
        )


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(n in (1, m) for n, m in zip(shape[::-1], to[::-1], strict=False))
