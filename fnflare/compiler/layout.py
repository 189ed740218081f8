"""Where the buffers of a program lie, worked out once for each combination of sizes.

A lowered program and numbers for its sizes go in; offsets in scratch memory and the shapes of the answers come out, all
that a call needs besides the addresses of its arguments.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fnflare.compiler.lowered import Lowered
from fnflare.compiler.memory import plan
from fnflare.nest import (
    DTYPES,
    Atom,
    Branch,
    Contract,
    Index,
    Quotient,
    Remainder,
    Repeat,
    Run,
    Sections,
    Size,
    Statement,
    index,
    product,
)

__all__ = ["Layout", "Layouts", "evaluate", "is_tiny", "keep_newest", "work_of"]

#: A program is laid out for as many combinations of sizes.
_MOST_KEPT = 1024
#: So many scalar operations take a few microseconds.
_TINY = 10_000
#: The work of a loop of which nobody knows how long it runs.
_ENDLESS = Index({(): 1 << 62})


class Layout(NamedTuple):
    """Where everything lies for certain sizes.

    Attributes:
        sizes: the sizes, as the code is given them.
        addresses: for each buffer of the module its address if it is a constant, its offset if it is in scratch
            memory, 0 if it is an argument or an answer.
        scratch: the numbers of the buffers in scratch memory.
        total: the bytes of scratch memory.
        shapes: of the answers.
    """

    sizes: np.ndarray[Any, Any]
    addresses: np.ndarray[Any, Any]
    scratch: np.ndarray[Any, Any]
    total: int
    shapes: tuple[tuple[int, ...], ...]


class Layouts:
    """The layouts of a program.

    Scratch memory is laid out for sizes that are rounded up, as far as nothing then overlaps: programs for sentences of
    all lengths would otherwise have as many plans, and a plan takes much longer than a sentence.

    Args:
        lowered: the program.
    """

    def __init__(self, lowered: Lowered) -> None:
        self._lowered = lowered
        buffers = lowered.module.buffers
        self._scratch = [i for i, b in enumerate(buffers) if b.role == "scratch"]
        self._grows = all(_grows(buffers[i].size) for i in self._scratch)
        constants = {b: value.__array_interface__["data"][0] for b, value in lowered.constants}
        self._addresses = np.array([constants.get(b, 0) for b in buffers], np.uintp)
        self._layouts: dict[tuple[int, ...], Layout] = {}
        self._plans: dict[tuple[int, ...], tuple[list[int], int]] = {}

    def find(self, sizes: tuple[int, ...]) -> Layout:
        """The layout for numbers in place of the program's sizes, in the order of ``lowered.sizes``."""
        found = self._layouts.get(sizes)
        if found is None:
            found = self._layouts[sizes] = self._make(sizes)
            keep_newest(self._layouts)
        return found

    def _make(self, sizes: tuple[int, ...]) -> Layout:
        lowered = self._lowered
        values = values_of(lowered, sizes)
        offsets, total = self._plan(tuple(map(_rounded, sizes)) if self._grows else sizes)
        addresses = self._addresses.copy()
        addresses[self._scratch] = offsets
        return Layout(
            np.array([values[s] for s in lowered.module.sizes], np.int64),
            addresses,
            np.array(self._scratch, np.intp),
            total,
            tuple([tuple([evaluate(n, values) for n in o.shape]) for o in lowered.outputs]),
        )

    def _plan(self, sizes: tuple[int, ...]) -> tuple[list[int], int]:
        found = self._plans.get(sizes)
        if found is None:
            values = values_of(self._lowered, sizes)
            wanted = []
            for i in self._scratch:
                b = self._lowered.module.buffers[i]
                wanted.append((evaluate(b.size, values) * DTYPES[b.dtype].itemsize, *self._lowered.lifetimes[b]))
            found = self._plans[sizes] = plan(wanted)
            keep_newest(self._plans)
        return found


def keep_newest(entries: dict[Any, Any]) -> None:
    """Drop the oldest of too many entries; other threads may be doing so too."""
    while len(entries) > _MOST_KEPT:
        with contextlib.suppress(StopIteration, RuntimeError):
            entries.pop(next(iter(entries)), None)


def values_of(lowered: Lowered, sizes: tuple[int, ...]) -> dict[Size, int]:
    """The value of each size of a program."""
    return {size: n for (size, _, _), n in zip(lowered.sizes, sizes, strict=True)}


def _grows(value: Index) -> bool:
    """Whether an index of sizes surely does not become smaller where one of them becomes larger."""
    return all(c >= 0 and all(isinstance(a, Size) for a in m) for m, c in value.terms.items())


def _rounded(size: int) -> int:
    """A size, or up to an eighth more: of numbers with as many bits there are eight."""
    step = 1 << max(size.bit_length() - 4, 0)
    return -(-size // step) * step


def is_tiny(lowered: Lowered, sizes: tuple[int, ...]) -> bool:
    """Whether a program takes so little time that letting other threads run meanwhile costs more."""
    return evaluate(work_of(lowered), values_of(lowered, sizes)) <= _TINY


def work_of(lowered: Lowered) -> Index:
    """About how many scalar operations a program takes; more than any where that depends on what is computed."""
    if lowered.work is not None:
        return lowered.work
    work = _operations(lowered.module.body)
    known = all(isinstance(a, (Size, Quotient, Remainder)) for a in work.atoms())
    return work if known else _ENDLESS


def _operations(statements: Sequence[Statement]) -> Index:
    """About how many scalar operations statements of a module's body take."""
    total = index(0)
    for s in statements:
        if isinstance(s, Run):
            own: dict[Atom, Index] = dict(zip(s.kernel.sizes, s.sizes, strict=True))
            turns = index(1) if s.kernel.axis is None else s.kernel.axis.extent
            total = total + (turns * s.kernel.work).replace(own)
        elif isinstance(s, Contract):
            total = total + product([loop.extent for loop in s.loops])
        elif isinstance(s, Repeat):
            total = total + (s.axis.extent * _operations(s.body) if s.condition is None else _ENDLESS)
        elif isinstance(s, (Branch, Sections)):
            for body in s.bodies:
                total = total + _operations(body)
    return total


def evaluate(value: Index, sizes: Mapping[Size, int]) -> int:
    """An index without loop variables, as a number."""
    known = value.constant
    if known is not None:
        return known
    return sum([c * math.prod([_factor(a, sizes) for a in m]) for m, c in value.terms.items()])


def _factor(a: Atom, sizes: Mapping[Size, int]) -> int:
    if isinstance(a, Size):
        return sizes[a]
    if isinstance(a, Quotient):
        return evaluate(a.value, sizes) // evaluate(a.divisor, sizes)
    if isinstance(a, Remainder):
        return evaluate(a.value, sizes) % evaluate(a.divisor, sizes)
    raise TypeError(f"{a} is no size")
