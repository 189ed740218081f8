"""Constant folding: what depends on no argument is worked out when the program is made, not when it runs.

A program goes in; an equation whose inputs are all constants is run at once, unless its answer is large. Constants
that repeat one number (the ones and zeros of derivative rules) are worked out as that number, and large ones stay
without memory of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fnflare.core import aval_of, plain_kernel
from fnflare.ops.shape import broadcast_scalar
from fnflare.program.frozen import is_plain
from fnflare.program.ir import Equation, Literal, Program
from fnflare.program.rewriting import Draft, rewrite

__all__ = ["fold_constants", "folding"]

#: Answers up to this many bytes are kept in a program; larger ones only where they replace constants as large.
_LIMIT = 65536

#: Operations that move elements: of one number repeated they give the same number repeated.
_MOVES = frozenset({"broadcast_to", "reshape", "transpose", "getitem", "windows", "stop_gradient"})

#: Operations that treat each element alike, beside those that also broadcast.
_POINTWISE = frozenset({"convert", "convert_discrete", "round"})


def fold_constants(program: Program) -> Program:
    """A program without equations of constants alone; `program` itself where there are none.

    What has a function or a program among its parameters is left alone: it may run for long.
    """
    return rewrite(program, folding)


def folding(_draft: Draft, equation: Equation) -> Sequence[Literal] | None:
    """The step of `fold_constants`."""
    literals: list[Literal] = []
    for a in equation.inputs:
        if type(a) is not Literal:
            return None
        literals.append(a)
    if not literals or not is_plain(equation.params or {}):
        return None
    repeated = _folded_number(equation, literals)
    if repeated is not None:
        return (repeated,)
    size = sum(a.aval.size * a.aval.dtype.itemsize for a in equation.outputs)
    if size > max(_LIMIT, *[a.aval.size * a.aval.dtype.itemsize for a in literals]):
        return None
    answer = _run(equation, [a.value for a in literals])
    if answer is None:
        return None
    answers = tuple(answer) if equation.prim.many else (answer,)
    if any(aval_of(x) != v.aval for x, v in zip(answers, equation.outputs, strict=True)):
        return None
    return tuple([Literal(x) for x in answers])


def _folded_number(equation: Equation, literals: list[Literal]) -> Literal | None:
    """The answer of an equation of constants that repeat one number each, itself one number repeated."""
    prim = equation.prim
    moves = prim.name in _MOVES and len(literals) == 1
    aval = equation.outputs[0].aval
    if not aval.shape or not aval.size or not (moves or prim.elementwise or prim.name in _POINTWISE):
        return None
    numbers = [a.repeated for a in literals]
    if any(n is None for n in numbers):
        return None
    number = numbers[0] if moves else _run(equation, numbers)
    if not isinstance(number, np.generic) or number.dtype != aval.dtype:
        return None
    if aval.size * number.nbytes <= _LIMIT:
        return Literal(np.full(aval.shape, number))  # matrix products take an array that is really there faster
    return Literal(broadcast_scalar(number, aval.shape))


def _run(equation: Equation, args: list[Any]) -> Any:
    """What the kernel makes of constants; None where it fails, as it then shall when the program runs."""
    try:
        with np.errstate(all="ignore"):
            return plain_kernel(equation.prim)(*args, **(equation.params or {}))
    except Exception:
        return None
