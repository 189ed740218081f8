"""Blocks as Python code: a loop over pieces of large arrays.

A `Block` goes in, lines of the interpreter's code come out: they lay out the answers that are read later, and
buffers of one piece for those that are not, and then run all equations of the block on one piece after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from fnflare.core import plain_kernel
from fnflare.program.blocks import Block
from fnflare.program.ir import Atom, Equation, Literal, Var

__all__ = ["Names", "block_lines", "takes_out"]

#: Elements of a piece: 64 KiB of float32. A handful of pieces fits into a core's second-level cache, and a call of
#: NumPy, half a microsecond, is little beside the work on one.
PIECE = 1 << 14


class Names(Protocol):
    """What the lines of a block need of the writer of the function around them."""

    local: dict[Var, str]

    def constant(self, value: Any, prefix: str = "c") -> str:
        """A name for a value that stays."""

    def atom(self, a: Atom) -> str:
        """How an atom is written."""


def takes_out(kernel: Any) -> bool:
    """Whether a kernel can write its answer into an array that it is given."""
    return isinstance(kernel, np.ufunc) and kernel.nin <= 2 and kernel.signature is None


def out_argument(kernel: Any, target: str) -> str:
    """How the array to write into is passed: by name to the two ufuncs that do not take it by position."""
    return f"out={target}" if kernel in (np.maximum, np.minimum) else target


def block_lines(
    names: Names, block: Block, equations: Sequence[Equation], kept: Sequence[Var], places: dict[Var, str]
) -> list[str]:
    """The lines that run a block.

    Args:
        names: the writer of the function.
        block: the block.
        equations: its equations.
        kept: the answers that are read after it.
        places: an expression for the array of each kept answer that has one already.
    """
    return _BlockWriter(names, block, equations, kept, places).lines()


class _BlockWriter:
    def __init__(
        self, names: Names, block: Block, equations: Sequence[Equation], kept: Sequence[Var], places: dict[Var, str]
    ) -> None:
        self.names = names
        self.block = block
        self.equations = equations
        self.kept = list(kept)
        self.places = places
        self.piece: dict[Var, str] = {}  # how the current piece of a variable is written
        self.before: list[str] = []
        self.top: list[str] = []  # the first lines of the loop
        self.body: list[str] = []
        self.literals: dict[int, str] = {}
        self.buffered: set[Var] = set()  # answers that live in a buffer of one piece
        self.free: dict[np.dtype[Any], list[str]] = {}
        self.buffers = 0

    def lines(self) -> list[str]:
        self._inputs()
        self._outputs()
        last = {a: i for i, e in enumerate(self.equations) for a in e.inputs if type(a) is Var}
        for i, e in enumerate(self.equations):
            self.body.append(self._line(i, e, last))
        shape = self.block.shape
        if self.block.flat:
            count, step = int(np.prod(shape)), PIECE
        else:
            count, step = shape[0], max(1, PIECE // max(1, int(np.prod(shape[1:]))))
        head = [f"for lo in range(0, {count}, {step}):", f"    hi = min(lo + {step}, {count})"]
        return [*self.before, *head, *[f"    {line}" for line in (*self.top, *self.body)]]

    def _inputs(self) -> None:
        """Names for the pieces of the arguments."""
        inside = {v for e in self.equations for v in e.outputs}
        outer = dict.fromkeys(a for e in self.equations for a in e.inputs if a not in inside)
        for k, a in enumerate(outer):
            text = self._outer(a, k)
            if type(a) is Var:
                self.piece[a] = text
            else:
                self.literals[id(a)] = text

    def _outer(self, a: Atom, k: int) -> str:
        aval, shape = a.aval, self.block.shape
        text = self.names.atom(a)
        if not aval.shape:
            return text
        if self.block.flat:
            self.before.append(f"w{k} = {text}.reshape(-1)")
            if aval.size == 1:
                return f"w{k}"
        elif len(aval.shape) < len(shape) or aval.shape[0] == 1:
            return text
        else:
            self.before.append(f"w{k} = {text}")
        self.top.append(f"k{k} = w{k}[lo:hi]")
        return f"k{k}"

    def _outputs(self) -> None:
        """Arrays for the answers that are kept, and names for their pieces."""
        for i, v in enumerate(self.kept):
            name = self.names.local[v]
            place = self.places.get(v)
            empty = f"{self.names.constant(np.empty, 'f')}({v.aval.shape}, {self.names.constant(v.aval.dtype)})"
            self.before.append(f"{name} = {place or empty}")
            flat = ".reshape(-1)" if self.block.flat else ""
            self.before.append(f"o{i} = {name}{flat}")
            self.top.append(f"p{i} = o{i}[lo:hi]")
            self.piece[v] = f"p{i}"

    def _line(self, i: int, e: Equation, last: dict[Any, int]) -> str:
        out = e.outputs[0]
        inputs = [self.literals[id(a)] if type(a) is Literal else self.piece[a] for a in e.inputs]  # type: ignore[index]
        dying = [a for a in dict.fromkeys(e.inputs) if type(a) is Var and last[a] == i and a in self.buffered]
        for a in dying:
            self.free.setdefault(a.aval.dtype, []).append(self.piece[a])
        kernel: Callable[..., Any] = plain_kernel(e.prim)
        if takes_out(kernel):
            target = self.piece.get(out) or self._buffer(out)
            return f"{self.names.constant(kernel, 'f')}({', '.join(inputs)}, {out_argument(kernel, target)})"
        if e.params:
            kernel = partial(kernel, **e.params)
        right = f"{self.names.constant(kernel, 'f')}({', '.join(inputs)})"
        if out in self.piece:
            return f"{self.piece[out]}[...] = {right}"
        self.piece[out] = f"q{i}"
        return f"q{i} = {right}"

    def _buffer(self, v: Var) -> str:
        """A buffer of one piece for an answer that only the block reads."""
        self.buffered.add(v)
        free = self.free.setdefault(v.aval.dtype, [])
        if free:
            self.piece[v] = free.pop()
            return self.piece[v]
        k = self.buffers
        self.buffers += 1
        shape = self.block.shape
        size: Any = PIECE
        if not self.block.flat:
            size = (max(1, PIECE // max(1, int(np.prod(shape[1:])))), *shape[1:])
        self.before.append(f"b{k} = {self.names.constant(np.empty, 'f')}({size}, {self.names.constant(v.aval.dtype)})")
        self.top.append(f"u{k} = b{k}[: hi - lo]")
        self.piece[v] = f"u{k}"
        return self.piece[v]
