"""Adding up over all steps of a loop: a sum of products is one product.

A term that a loop adds to a carry in every step goes in; its `Total` says which values have to be kept of
every step so that all terms can be added up after the loop, and `contracted` does it. The gradient of a
weight thus becomes one product of all steps' states with all steps' cotangents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fnflare.core import bind, inlined, primitives
from fnflare.ops.index import index_add
from fnflare.program.ir import Atom, Equation, Literal, Var

__all__ = ["Total", "contracted", "negated", "total_of"]

#: Linear operations of one argument.
_COMMUTING = frozenset({"reshape", "transpose", "negative", "convert"})
#: A term this many times larger than what it is made of is added up in the loop.
_MOST_GROWTH = 4


class Total(NamedTuple):
    """How the terms of all steps are added up.

    Attributes:
        kind: "matmul", "outer", "sum", "rows" or "stack".
        operands: what is kept of every step.
        equation: the operation that makes the term of them, for its parameters and shapes.
        finish: what is done to the total, the last first.
        is_cheap: whether keeping the operands is no waste.
    """

    kind: str
    operands: tuple[Atom, ...]
    equation: Equation | None
    finish: tuple[Equation, ...]
    is_cheap: bool


def total_of(term: Var, maker: dict[Var, Equation], uses: dict[Var, int]) -> Total:
    """How the terms that stand for `term` in every step are added up."""
    finish: list[Equation] = []
    e = maker.get(term)
    while e is not None and _commutes(e) and uses[term] == 1 and type(e.inputs[0]) is Var:
        finish.append(e)
        term = e.inputs[0]
        e = maker.get(term)
    kind = None if e is None or uses[term] != 1 else _kind(e)
    if e is None or kind is None:
        growth = 1 if e is None else term.aval.size / max(sum(_sizes(e.inputs)), 1)
        # What a program inside of the loop makes is there in every step: it can as well be added at once.
        is_cheap = growth <= _MOST_GROWTH and not (e is not None and e.prim.many)
        return Total("stack", (term,), None, tuple(finish), is_cheap)
    operands = e.inputs[1:] if kind == "rows" else e.inputs
    return Total(kind, tuple(operands), e, tuple(finish), True)


def _commutes(e: Equation) -> bool:
    """Whether an operation may be done after the adding up: it is linear, which it is not where integers overflow."""
    return e.prim.name in _COMMUTING and e.inputs[0].aval.dtype.kind in "fc"


_negative = Equation(primitives()["negative"], (), None, (), None)


def negated(total: Total) -> Total:
    """What is subtracted in every step, added up."""
    return total._replace(finish=(_negative, *total.finish))


def _sizes(atoms: Sequence[Atom]) -> list[int]:
    return [a.aval.size for a in atoms if type(a) is Var]


def _kind(e: Equation) -> str | None:
    """How an operation's answers are added up, where that is better than to keep them all."""
    shapes = [a.aval.shape for a in e.inputs]
    same_dtype = all(a.aval.dtype == e.outputs[0].aval.dtype for a in e.inputs)
    match e.prim.name:
        case "matmul" if len(shapes[0]) == len(shapes[1]) == 2:
            return "matmul"
        case "multiply" if _is_outer(shapes):
            return "outer"
        case "sum" if same_dtype:
            return "sum"
        case "index_add" if _adds_rows(e):
            return "rows"
    return None


def _is_outer(shapes: Sequence[tuple[int, ...]]) -> bool:
    return all(len(s) == 2 for s in shapes) and shapes[0][1] == 1 and shapes[1][0] == 1


def _adds_rows(e: Equation) -> bool:
    """Whether it adds rows to zeros, at places that are an array of the program: the gradient of a gather."""
    x, v = e.inputs[:2]
    if len(e.inputs) != 3 or type(x) is not Literal or np.any(x.value) or v.aval.dtype != x.aval.dtype:
        return False
    assert e.params is not None
    index = e.params["index"]
    others = index[1:] if type(index) is tuple else ()
    first_axis = all(i is Ellipsis or (type(i) is slice and i == slice(None)) for i in others)
    return first_axis and v.aval.shape == (*e.inputs[2].aval.shape, *x.aval.shape[1:])


def contracted(total: Total, operands: Sequence[Any]) -> Any:
    """The sum of the terms of all steps.

    Args:
        total: says how to add up.
        operands: its operands, stacked along axis 0.
    """
    maker = total.equation or next(iter(total.finish), None)
    with inlined(None if maker is None else maker.source):
        answer = _summed(total, _widened(total, operands))
        for e in reversed(total.finish):
            answer = bind(e.prim, [answer], e.params)
    return answer


def _widened(total: Total, operands: Sequence[Any]) -> list[Any]:
    """The operands in the precision in which the loop adds up."""
    dtypes = [v.aval.dtype for e in total.finish for v in e.outputs]
    wide = max(dtypes, key=lambda d: d.itemsize, default=np.dtype(bool))
    return [x.astype(wide) if x.dtype.kind in "fc" and x.dtype.itemsize < wide.itemsize else x for x in operands]


def _summed(total: Total, operands: Sequence[Any]) -> Any:
    match total.kind:
        case "matmul":
            return _rows_product(np.swapaxes(operands[0], 1, 2), operands[1])
        case "outer":
            return _rows_product(np.swapaxes(operands[0], 1, 2), operands[1])
        case "sum":
            assert total.equation is not None and total.equation.params is not None
            params = total.equation.params
            axes = tuple([a + 1 for a in params["axes"]])
            return np.sum(operands[0], axis=(0, *axes), keepdims=False).reshape(total.equation.outputs[0].aval.shape)
        case "rows":
            assert total.equation is not None
            zeros = total.equation.inputs[0]
            rows, places = operands
            width = zeros.aval.shape[1:]
            return index_add(np.zeros(zeros.aval.shape, rows.dtype), rows.reshape(-1, *width), index=places.reshape(-1))
    return np.sum(operands[0], axis=0)


def _rows_product(a: Any, b: Any) -> Any:
    """The sum over steps and rows of the outer products of a's rows (T, n, i) with b's (T, n, j): one product."""
    return np.matmul(np.reshape(a, (-1, a.shape[2])).T, np.reshape(b, (-1, b.shape[2])))
