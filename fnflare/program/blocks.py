"""Blocks: elementwise equations over large arrays, to be run together piece by piece.

A program goes in, the same program comes out with such equations side by side, and where they are. An equation alone
reads its arguments from memory and writes its answer there; a block goes over all of its arrays once, a piece at a
time, and what only the block itself reads never leaves the cache. `fnflare.program.python_code` writes the loops.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fnflare.program.ir import Equation, Program, Var

__all__ = ["Block", "arrange"]

#: Answers with fewer elements stay in the cache by themselves.
SMALLEST = 1 << 16


class Block(NamedTuple):
    """Equations of a program that are run together.

    Attributes:
        start, stop: the range of their numbers.
        shape: of all their answers.
        flat: whether arguments of other shapes are all single numbers, so that the order of elements does not matter.
    """

    start: int
    stop: int
    shape: tuple[int, ...]
    flat: bool


class _Open:
    """A block that may still grow."""

    def __init__(self) -> None:
        self.equations: list[Equation] = []


def arrange(program: Program) -> tuple[Program, list[Block]]:
    """Bring elementwise equations over large arrays together.

    An equation waits in the block of its shape until somebody outside of the block needs an answer of that.

    Returns:
        The program in its new order, and its blocks; blocks of one equation are left out.
    """
    if not any(_is_member(e) for e in program.equations):
        return program, []
    order: list[Equation] = []
    blocks: list[Block] = []
    waiting: dict[tuple[int, ...], _Open] = {}
    home: dict[Var, tuple[int, ...]] = {}

    def close(shape: tuple[int, ...]) -> None:
        equations = waiting.pop(shape).equations
        start = len(order)
        order.extend(equations)
        for e in equations:
            home.pop(e.outputs[0], None)
        if len(equations) > 1:
            blocks.append(Block(start, len(order), shape, all(_is_flat(e) for e in equations)))

    for e in program.equations:
        shape = e.outputs[0].aval.shape if _is_member(e) else None
        needed = {home[a] for a in e.inputs if type(a) is Var and a in home}
        for other in needed - {shape}:
            close(other)
        if shape is None:
            order.append(e)
            continue
        waiting.setdefault(shape, _Open()).equations.append(e)
        home[e.outputs[0]] = shape
    for shape in list(waiting):
        close(shape)
    return program.replace(equations=order), blocks


def _is_member(e: Equation) -> bool:
    """Whether an equation is elementwise over a large array, with arguments that can be cut along its first axis."""
    if e.prim.many or not (e.prim.elementwise or e.prim.name == "convert"):
        return False
    out = e.outputs[0].aval
    return out.size >= SMALLEST and out.ndim > 0 and all(_is_cuttable(a.aval.shape, out.shape) for a in e.inputs)


def _is_cuttable(shape: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether an argument is cut with the answer along its first axis, or serves for each piece as it is."""
    return len(shape) < len(whole) or shape[0] in (1, whole[0])


def _is_flat(e: Equation) -> bool:
    whole = e.outputs[0].aval.shape
    return all(a.aval.shape == whole or a.aval.size == 1 for a in e.inputs)
