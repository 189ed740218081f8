"""Algebra: what can be said of one equation and those that made its inputs, without changing a result.

A program goes in; neutral elements, double negations, transposes of transposes, reshapes that change nothing and
their like are gone from what comes out. An answer keeps its shape and dtype: where ``x * 1`` converts or
broadcasts, a convert or a broadcast stays. Results stay the same to the last bit but for three liberties, which
every compiler of numerical code takes: the sign of a zero (``x + 0`` of -0.0 is 0.0, and is taken for x), the powers
two and three as products, and the imaginary part of an infinite complex number times one. ``x * 0`` and ``x - x``
stay, since nan and infinity are none of those.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.program.ir import Atom, Equation, Literal, Program
from fnflare.program.rewriting import Draft, rewrite

__all__ = ["tidy", "tidying"]

Tidy = Callable[[Draft, Equation], Atom | None]

_TABLE: dict[str, Tidy] = {}


def tidy(program: Program) -> Program:
    """A program without operations that do nothing or undo each other; `program` itself where there are none."""
    return rewrite(program, tidying)


def tidying(draft: Draft, equation: Equation) -> tuple[Atom] | None:
    """The step of `tidy`."""
    rule = _TABLE.get(equation.prim.name)
    answer = None if rule is None else rule(draft, equation)
    if answer is None and equation.prim.elementwise:
        answer = _narrowed(draft, equation)
    return None if answer is None else (answer,)


def _of(*names: str) -> Callable[[Tidy], Tidy]:
    def enter(rule: Tidy) -> Tidy:
        for name in names:
            _TABLE[name] = rule
        return rule

    return enter


def _is(atom: Atom, number: int) -> bool:
    """Whether an atom is a constant that is `number` throughout."""
    return type(atom) is Literal and atom.repeated is not None and bool(atom.repeated == number)


# -- arithmetic ---------------------------------------------------------------------------------


def _negated(draft: Draft, atom: Atom, equation: Equation) -> Atom | None:
    """x where `atom` is -x, as a term of an equation; integers wrap around, so they must not be widened after."""
    made = draft.maker(atom, "negative")
    if made is None:
        return None
    (x,) = made.inputs
    return x if x.aval.dtype.kind in "fc" or x.aval.dtype == equation.outputs[0].aval.dtype else None


@_of("add")
def _add(draft: Draft, equation: Equation) -> Atom | None:
    x, y = equation.inputs
    if _is(y, 0):
        return draft.fit(x, equation)
    if _is(x, 0):
        return draft.fit(y, equation)
    negated = _negated(draft, y, equation)
    if negated is not None:
        return draft.apply("subtract", (x, negated), equation)
    negated = _negated(draft, x, equation)
    return None if negated is None else draft.apply("subtract", (y, negated), equation)


@_of("subtract")
def _subtract(draft: Draft, equation: Equation) -> Atom | None:
    x, y = equation.inputs
    if _is(y, 0):
        return draft.fit(x, equation)
    if _is(x, 0):
        return _negative_of(draft, y, equation)
    negated = _negated(draft, y, equation)
    return None if negated is None else draft.apply("add", (x, negated), equation)


def _negative_of(draft: Draft, x: Atom, equation: Equation) -> Atom | None:
    fitted = draft.fit(x, equation)
    return None if fitted is None else draft.apply("negative", (fitted,), equation)


@_of("multiply")
def _multiply(draft: Draft, equation: Equation) -> Atom | None:
    x, y = equation.inputs
    for factor, other in ((y, x), (x, y)):
        if _is(factor, 1):
            return draft.fit(other, equation)
        if _is(factor, -1):
            return _negative_of(draft, other, equation)
    return _of_negatives(draft, equation)


@_of("divide")
def _divide(draft: Draft, equation: Equation) -> Atom | None:
    x, y = equation.inputs
    if _is(y, 1):
        return draft.fit(x, equation)
    if _is(y, -1):
        return _negative_of(draft, x, equation)
    return _of_negatives(draft, equation)


def _of_negatives(draft: Draft, equation: Equation) -> Atom | None:
    """The product or quotient of two negatives: that of what they negate."""
    x, y = [_negated(draft, a, equation) for a in equation.inputs]
    return None if x is None or y is None else draft.apply(equation.prim, (x, y), equation)


@_of("negative")
def _negative(draft: Draft, equation: Equation) -> Atom | None:
    (x,) = equation.inputs
    made = draft.maker(x, "negative")
    if made is not None:
        return draft.fit(made.inputs[0], equation)
    made = draft.maker(x, "subtract")
    return None if made is None else draft.apply("subtract", made.inputs[::-1], equation)


@_of("positive")
def _positive(draft: Draft, equation: Equation) -> Atom | None:
    return draft.fit(equation.inputs[0], equation)


@_of("power")
def _power(draft: Draft, equation: Equation) -> Atom | None:
    x, y = equation.inputs
    if not (_is(y, 1) or _is(y, 2) or _is(y, 3)):
        return None
    base = draft.fit(x, equation)
    if base is None or _is(y, 1):
        return base
    square = draft.apply("square", (base,), equation)
    return square if square is None or _is(y, 2) else draft.apply("multiply", (square, base), equation)


@_of("square", "absolute")
def _even(draft: Draft, equation: Equation) -> Atom | None:
    made = draft.maker(equation.inputs[0], "negative")
    if made is None or equation.outputs[0].aval.dtype.kind == "u":
        return None
    return draft.apply(equation.prim, made.inputs, equation)


@_of("select")
def _select(draft: Draft, equation: Equation) -> Atom | None:
    condition, x, y = equation.inputs
    if type(condition) is Literal and condition.repeated is not None:
        return draft.fit(x if condition.repeated else y, equation)
    if x is y:
        return draft.fit(x, equation)
    made = draft.maker(condition, "logical_not")
    return None if made is None else draft.apply("select", (made.inputs[0], y, x), equation)


def _narrowed(draft: Draft, equation: Equation) -> Atom | None:
    """An elementwise operation on what was broadcast: on what it was broadcast from, and broadcast afterwards
    where no other argument does so."""
    inputs: list[Atom] | None = None
    for i, a in enumerate(equation.inputs):
        if not a.aval.shape:
            continue
        if type(a) is Literal:
            narrow: Atom | None = Literal(a.repeated) if isinstance(a.repeated, np.generic) else None
        else:
            made = draft.maker(a, "broadcast_to")
            narrow = None if made is None or made.inputs[0].aval.weak else made.inputs[0]
        if narrow is not None:
            inputs = inputs or list(equation.inputs)
            inputs[i] = narrow
    return None if inputs is None else draft.apply(equation.prim, inputs, equation, equation.params)


# -- layout -------------------------------------------------------------------------------------


def _reshaped(draft: Draft, atom: Atom, equation: Equation) -> Atom | None:
    """`atom`, which has as many elements as the answer of an equation, in its shape and dtype."""
    aval = equation.outputs[0].aval
    if atom.aval.shape != aval.shape:
        atom = draft.emit("reshape", (atom,), {"shape": aval.shape}, equation.source)
    return draft.fit(atom, equation)


@_of("reshape")
def _reshape(draft: Draft, equation: Equation) -> Atom | None:
    (x,) = equation.inputs
    if x.aval.shape == equation.outputs[0].aval.shape:
        return draft.fit(x, equation)
    made = draft.maker(x, "reshape")
    return None if made is None else _reshaped(draft, made.inputs[0], equation)


@_of("broadcast_to")
def _broadcast_to(draft: Draft, equation: Equation) -> Atom | None:
    (x,) = equation.inputs
    if x.aval.shape == equation.outputs[0].aval.shape and not x.aval.weak:
        return x
    made = draft.maker(x, "broadcast_to")
    if made is None:
        made = draft.maker(x, "reshape")
        if made is None or x.aval.shape != (1,) * (x.aval.ndim - made.inputs[0].aval.ndim) + made.inputs[0].aval.shape:
            return None
    return draft.apply("broadcast_to", made.inputs, equation, equation.params)


@_of("transpose")
def _transpose(draft: Draft, equation: Equation) -> Atom | None:
    (x,) = equation.inputs
    axes = equation.params["axes"]  # type: ignore[index]
    if axes == tuple(range(len(axes))):
        return draft.fit(x, equation)
    made = draft.maker(x, "transpose")
    if made is None:
        return None
    before = made.params["axes"]  # type: ignore[index]
    composed = tuple([before[a] for a in axes])
    if composed == tuple(range(len(axes))):
        return draft.fit(made.inputs[0], equation)
    return draft.apply("transpose", made.inputs, equation, {"axes": composed})


@_of("getitem")
def _getitem(draft: Draft, equation: Equation) -> Atom | None:
    """An index of nothing but whole slices and new axes is a reshape."""
    if len(equation.inputs) > 1:
        return None
    (x,) = equation.inputs
    index = equation.params["index"]  # type: ignore[index]
    items = index if type(index) is tuple else (index,)
    axis = 0
    for item in items:
        if type(item) is slice:
            if item.indices(x.aval.shape[axis]) != (0, x.aval.shape[axis], 1):
                return None
            axis += 1
        elif item is Ellipsis:
            axis = x.aval.ndim - sum(type(i) is slice for i in items[items.index(Ellipsis) + 1 :])
        elif item is not None:
            return None
    return _reshaped(draft, x, equation)


@_of("concatenate", "stack")
def _join(draft: Draft, equation: Equation) -> Atom | None:
    return _reshaped(draft, equation.inputs[0], equation) if len(equation.inputs) == 1 else None


@_of("sum", "prod", "max", "min", "any", "all")
def _reduction(draft: Draft, equation: Equation) -> Atom | None:
    """A reduction of one element at a time."""
    (x,) = equation.inputs
    axes = equation.params["axes"]  # type: ignore[index]
    return _reshaped(draft, x, equation) if math.prod([x.aval.shape[i] for i in axes]) == 1 else None


# -- dtypes and constants -----------------------------------------------------------------------


@_of("convert", "convert_discrete")
def _convert(draft: Draft, equation: Equation) -> Atom | None:
    (x,) = equation.inputs
    if x.aval == equation.outputs[0].aval:
        return x
    made = draft.maker(x, "convert") or draft.maker(x, "convert_discrete")
    if made is None or not _keeps_all(made.inputs[0].aval.dtype, x.aval.dtype):
        return None
    return draft.fit(made.inputs[0], equation)


def _keeps_all(source: np.dtype[Any], target: np.dtype[Any]) -> bool:
    """Whether every number of one dtype is one of the other, and converted on gives what it gives itself."""
    if source.kind == "c" or target.kind == "c":
        return source == target
    if source.kind in "iu" and target.kind == "f":
        return np.iinfo(source).bits <= np.finfo(target).nmant
    return np.can_cast(source, target, "safe")


@_of("stop_gradient")
def _stop_gradient(draft: Draft, equation: Equation) -> Atom | None:
    (x,) = equation.inputs
    return x if draft.maker(x, "stop_gradient") is not None else None
