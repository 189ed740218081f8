"""Answers in the memory of arguments: what `donate_argnums` allows, as far as no number is read after it is replaced.

A lowered program goes in with the numbers of the inputs that may be overwritten; out comes one in which answers are
written into their buffers. An answer may take the place of an input that was read for the last time in an earlier
statement of the body, or in the same kernel element by element, each before it is written, as optimisers do it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fnflare.compiler.in_place import Places, kernels_of, rebound
from fnflare.compiler.independence import buffers_of
from fnflare.compiler.lowered import Lowered, Output
from fnflare.core import ShapeDtypeStruct
from fnflare.nest import Buffer, Index

__all__ = ["apart", "donate"]

#: So many inputs are looked at for an answer.
_MOST_TRIED = 8


def donate(
    lowered: Lowered, avals: Sequence[ShapeDtypeStruct], donated: Iterable[int]
) -> tuple[Lowered, frozenset[int]]:
    """Let answers take the memory of inputs.

    Args:
        lowered: the program.
        avals: what its inputs are.
        donated: the numbers of those that may be overwritten.

    Returns:
        The program, and the numbers of the inputs that it overwrites: each is then an answer, as an input that is
        passed on is. These have to lie in memory of their own, apart from each other and from all other inputs.
    """
    places = Places(lowered.module.body)
    free = _candidates(lowered, avals, donated)
    pairs: dict[Buffer, int] = {}
    for o in lowered.outputs:
        if not isinstance(o.source, Buffer) or o.source in pairs or not o.shape:
            continue
        waiting = free[o.source.dtype, o.dtype, o.source.size]
        for i in waiting[:_MOST_TRIED]:
            if places.fits(lowered.inputs[i], o.source):
                waiting.remove(i)
                pairs[o.source] = i
                break
    return (_merged(lowered, pairs), frozenset(pairs.values())) if pairs else (lowered, frozenset())


def apart(args: Sequence[Any], overwritten: AbstractSet[int]) -> list[Any]:
    """Arguments of which those that are overwritten lie in memory of their own; where they do not, copies of them.

    An array may be overwritten that owns its memory, all of which no other argument shares.
    """
    out = list(args)
    for i in overwritten:
        x = out[i]
        if type(x) is not np.ndarray or not (x.flags.owndata and x.flags.writeable and x.flags.carray):
            out[i] = np.array(x, order="C")
    spans = sorted([(*byte_bounds(x), i) for i, x in enumerate(out) if isinstance(x, np.ndarray)])
    end, last = -1, -1  # of the span that reaches farthest so far
    for low, high, i in spans:
        if low < end:
            for n in {i, last} & overwritten:
                out[n] = out[n].copy()
        if high > end:
            end, last = high, i
    return out


def _candidates(
    lowered: Lowered, avals: Sequence[ShapeDtypeStruct], donated: Iterable[int]
) -> defaultdict[tuple[str, np.dtype[Any], Index], list[int]]:
    """The inputs that may be overwritten, by type and size."""
    passed = {o.source for o in lowered.outputs if isinstance(o.source, int)}
    out: defaultdict[tuple[str, np.dtype[Any], Index], list[int]] = defaultdict(list)
    for i in donated:
        b = lowered.inputs[i]
        if i not in passed and not avals[i].weak and avals[i].shape and 0 not in avals[i].shape:
            out[b.dtype, avals[i].dtype, b.size].append(i)
    return out


def _merged(lowered: Lowered, pairs: dict[Buffer, int]) -> Lowered:
    """The program with answers in the buffers of inputs."""
    renamed: dict[Buffer, Buffer] = {}
    for answer, i in pairs.items():
        b = lowered.inputs[i]
        renamed[answer] = renamed[b] = Buffer(b.name, b.dtype, b.size, "output")
    body = rebound(lowered.module.body, renamed)
    used = buffers_of(body)
    module = replace(
        lowered.module,
        buffers=tuple([b for b in dict.fromkeys(renamed.get(b, b) for b in lowered.module.buffers) if b in used]),
        kernels=tuple(kernels_of(body)),
        body=body,
    )
    return Lowered(
        module,
        tuple([renamed.get(b, b) for b in lowered.inputs]),
        # What is overwritten may be an array that the function closes over.
        tuple([(b, a.copy()) for b, a in lowered.constants]),
        tuple([_moved(o, pairs) for o in lowered.outputs]),
        lowered.lifetimes,
        lowered.sizes,
    )


def _moved(o: Output, pairs: dict[Buffer, int]) -> Output:
    if isinstance(o.source, Buffer):
        return replace(o, source=pairs[o.source]) if o.source in pairs else o
    return replace(o, source=o.source.copy()) if isinstance(o.source, np.ndarray) else o
