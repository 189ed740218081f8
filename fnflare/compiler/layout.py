"""Where the buffers of a program lie, worked out once for each combination of sizes.

A lowered program and numbers for its sizes go in; offsets in scratch memory and the shapes of the answers come out, all
that a call needs besides the addresses of its arguments.
"""

from __future__ import annotations

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
)

__all__ = ["Layout", "evaluate", "is_tiny", "layout"]

#: So many scalar operations take a few microseconds.
_TINY = 10_000


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


def layout(lowered: Lowered, sizes: tuple[int, ...]) -> Layout:
    """The layout of a program for numbers in place of its sizes, in the order of the module's sizes."""
    found = {size: n for (size, _, _), n in zip(lowered.sizes, sizes, strict=True)}
    buffers = lowered.module.buffers
    constants = {b: value.__array_interface__["data"][0] for b, value in lowered.constants}
    scratch = [i for i, b in enumerate(buffers) if b.role == "scratch"]
    wanted = []
    for i in scratch:
        b = buffers[i]
        wanted.append((evaluate(b.size, found) * DTYPES[b.dtype].itemsize, *lowered.lifetimes[b]))
    offsets, total = plan(wanted)
    addresses = np.array([constants.get(b, 0) for b in buffers], np.uintp)
    addresses[scratch] = offsets
    return Layout(
        np.array([found[s] for s in lowered.module.sizes], np.int64),
        addresses,
        np.array(scratch, np.intp),
        total,
        tuple([tuple([evaluate(n, found) for n in o.shape]) for o in lowered.outputs]),
    )


def is_tiny(lowered: Lowered, sizes: tuple[int, ...]) -> bool:
    """Whether a program takes so little time that letting other threads run meanwhile costs more."""
    found = {size: n for (size, _, _), n in zip(lowered.sizes, sizes, strict=True)}
    try:
        return _operations(lowered.module.body, found) <= _TINY
    except TypeError:  # the work depends on what is computed
        return False


def _operations(statements: Sequence[Statement], sizes: Mapping[Size, int]) -> int:
    """About how many scalar operations statements of a module's body take."""
    total = 0
    for s in statements:
        if isinstance(s, Run):
            own = {size: evaluate(n, sizes) for size, n in zip(s.kernel.sizes, s.sizes, strict=True)}
            turns = 1 if s.kernel.axis is None else evaluate(s.kernel.axis.extent, own)
            total += turns * evaluate(s.kernel.work, own)
        elif isinstance(s, Contract):
            total += math.prod([evaluate(loop.extent, sizes) for loop in s.loops])
        elif isinstance(s, Repeat) and s.condition is None:
            total += evaluate(s.axis.extent, sizes) * _operations(s.body, sizes)
        elif isinstance(s, (Branch, Sections)):
            total += sum([_operations(body, sizes) for body in s.bodies])
        else:
            raise TypeError(f"the work of a {type(s).__name__} is not known")
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
