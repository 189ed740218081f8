"""Loops that do not depend on each other, side by side: the two directions of a bidirectional layer, for one.

The statements of a module's body go in and come out in an order in which loops over time that need nothing of each
other stand together, as `Sections` that threads can share. What each statement reads and writes is read off its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fnflare.nest import Branch, Buffer, Contract, Loop, Part, Repeat, Run, Sections, Statement, Store

__all__ = ["buffers_of", "side_by_side", "touched"]


def touched(statement: Statement) -> tuple[set[Buffer], set[Buffer]]:
    """The buffers that a statement reads or writes, and those that it writes."""
    every: set[Buffer] = set()
    written: set[Buffer] = set()
    _touch(statement, every, written)
    return every, written


def buffers_of(body: Iterable[Statement]) -> set[Buffer]:
    """The buffers that statements read or write."""
    return {b for s in body for b in touched(s)[0]}


def _touch(s: Statement, every: set[Buffer], written: set[Buffer]) -> None:
    if isinstance(s, Run):
        stored = _stored(s.kernel.body)
        for parameter, part in zip(s.kernel.parameters, s.parts, strict=True):
            every.add(part.buffer)
            if parameter in stored:
                written.add(part.buffer)
    elif isinstance(s, Contract):
        every.update((s.out.buffer, s.a.buffer, s.b.buffer))
        written.add(s.out.buffer)
    elif isinstance(s, (Repeat, Branch, Sections)):
        looked_at: list[Part | None] = [s.condition] if isinstance(s, Repeat) else []
        looked_at += [s.which] if isinstance(s, Branch) else []
        every.update(p.buffer for p in looked_at if p is not None)
        for body in (s.body,) if isinstance(s, Repeat) else s.bodies:
            for inner in body:
                _touch(inner, every, written)


def _stored(body: Iterable[Statement]) -> set[Buffer]:
    out: set[Buffer] = set()
    for s in body:
        if isinstance(s, Store):
            out.add(s.buffer)
        elif isinstance(s, Loop):
            out |= _stored(s.body)
    return out


def side_by_side(body: Sequence[Statement]) -> tuple[Statement, ...]:
    """Statements with loops over time that are independent of each other in `Sections`."""
    if sum(isinstance(s, Repeat) for s in body) < 2:
        return tuple(body)
    needs = _needs(body)
    out: list[Statement] = []
    done: set[int] = set()

    def emit(k: int) -> None:
        """A statement, behind all that it needs."""
        stack = [k]
        while stack:
            n = stack[-1]
            missing = [m for m in sorted(needs[n]) if m not in done]
            if n in done:
                stack.pop()
            elif missing:
                stack += reversed(missing)
            else:
                stack.pop()
                done.add(n)
                out.append(body[n])

    for k, s in enumerate(body):
        if k in done:
            continue
        partner = _partner(body, needs, done, k) if isinstance(s, Repeat) else None
        if partner is None:
            emit(k)
            continue
        for n in sorted(needs[k] | needs[partner]):
            emit(n)
        done.update((k, partner))
        out.append(Sections(((s,), (body[partner],))))
    return tuple(out)


def _partner(body: Sequence[Statement], needs: list[set[int]], done: set[int], k: int) -> int | None:
    """The next loop over time that needs nothing of a loop, and of nothing that needs it."""
    for n in range(k + 1, len(body)):
        if isinstance(body[n], Repeat) and n not in done and k not in needs[n]:
            return n
    return None


def _needs(body: Sequence[Statement]) -> list[set[int]]:
    """For each statement those before it that must have been done, theirs among them."""
    out: list[set[int]] = []
    writer: dict[Buffer, int] = {}
    readers: dict[Buffer, list[int]] = {}
    for k, s in enumerate(body):
        every, written = touched(s)
        direct: set[int] = set()
        for b in every:
            if b in writer:
                direct.add(writer[b])
        for b in written:
            direct.update(readers.pop(b, ()))
            writer[b] = k
        for b in every - written:
            readers.setdefault(b, []).append(k)
        out.append(set().union(direct, *[out[n] for n in direct]))
    return out
