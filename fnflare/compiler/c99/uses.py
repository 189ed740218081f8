"""What statements read and write: how often each expression is used, and what nobody uses.

Statements go in; what comes out tells the renderer which values deserve a name, which parameters a function needs, and
which definitions compilers would warn of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fnflare.compiler.c99.indices import atoms, integers
from fnflare.nest import (
    Accumulator,
    Apply,
    Axis,
    Branch,
    Buffer,
    Contract,
    Element,
    Index,
    Let,
    Local,
    Loop,
    Part,
    Position,
    Repeat,
    Run,
    Scalar,
    Sections,
    Size,
    Statement,
    Store,
    Update,
)

__all__ = ["buffers", "children", "counts", "everything", "indices", "pruned", "sizes", "uses_axis", "written"]


def children(x: Scalar) -> tuple[Scalar, ...]:
    """The expressions that one is made of directly, in the order in which they are written."""
    if isinstance(x, Apply):
        return x.args
    if isinstance(x, (Element, Position)):
        return tuple([a.value for a in integers(x.index)])
    return ()


def below(body: Sequence[Statement]) -> Iterator[Statement]:
    """Every statement of a body and of those inside it."""
    for s in body:
        yield s
        if isinstance(s, (Loop, Repeat)):
            yield from below(s.body)
        elif isinstance(s, (Branch, Sections)):
            for inner in s.bodies:
                yield from below(inner)


def indices(s: Statement) -> tuple[Index, ...]:
    """The indices that stand in a statement itself."""
    if isinstance(s, Store):
        return (s.index,)
    if isinstance(s, Loop):
        return (s.axis.extent,)
    if isinstance(s, Run):
        return (*[p.start for p in s.parts], *s.sizes)
    if isinstance(s, Contract):
        parts = [p.start for p in (s.out, s.a, s.b)]
        return (*parts, *[i for loop in s.loops for i in (loop.extent, loop.out, loop.a, loop.b)])
    if isinstance(s, Repeat):
        return (s.axis.extent,) if s.condition is None else (s.condition.start,)
    return (s.which.start,) if isinstance(s, Branch) else ()


def everything(body: Sequence[Statement]) -> Iterator[Scalar]:
    """Every expression in a body and in those inside it, each once."""
    seen: set[Scalar] = set()
    for s in below(body):
        stack = _roots(s)
        while stack:
            x = stack.pop()
            if x not in seen:
                seen.add(x)
                yield x
                stack += children(x)


def counts(body: Sequence[Statement]) -> dict[Scalar, int]:
    """How often each expression is used in a body and in those inside it."""
    used: dict[Scalar, int] = {}
    for s in below(body):
        stack = _roots(s)
        while stack:
            x = stack.pop()
            used[x] = used.get(x, 0) + 1
            if used[x] == 1:
                stack += children(x)
    return used


def buffers(body: Sequence[Statement]) -> set[Buffer]:
    """The buffers that a body reads, stores to or hands on."""
    found = written(body) | {x.buffer for x in everything(body) if isinstance(x, Element)}
    for s in below(body):
        if isinstance(s, Run):
            found |= {p.buffer for p in s.parts}
        elif isinstance(s, Contract):
            found |= {s.out.buffer, s.a.buffer, s.b.buffer}
    return found


def written(body: Sequence[Statement]) -> set[Buffer]:
    """The buffers that a kernel's body stores to."""
    return {s.buffer for s in below(body) if isinstance(s, Store)}


def sizes(body: Sequence[Statement], more: Sequence[Index] = ()) -> set[Size]:
    """The sizes that a body mentions."""
    found = [i for s in below(body) for i in indices(s)]
    found += [x.index for x in everything(body) if isinstance(x, (Element, Position))]
    return {a for i in [*found, *more] for a in atoms(i) if isinstance(a, Size)}


def uses_axis(body: Sequence[Statement], axis: Axis) -> bool:
    """Whether something in a body changes with a loop's variable."""
    found = [i for s in below(body) for i in indices(s)]
    found += [x.index for x in everything(body) if isinstance(x, (Element, Position))]
    return any(a is axis for i in found for a in atoms(i))


def pruned(body: Sequence[Statement]) -> tuple[Statement, ...]:
    """A body without the names and accumulators that nothing reads."""
    defined: dict[str, list[Scalar]] = {}
    roots: list[Scalar] = []
    for s in below(body):
        if isinstance(s, (Let, Update)):
            defined.setdefault(s.name, []).append(s.value)
            roots += [a.value for i in indices(s) for a in integers(i)]
        elif isinstance(s, Accumulator):
            defined.setdefault(s.name, [])
        else:
            roots += _roots(s)
    if not defined:
        return tuple(body)
    alive: set[str] = set()
    seen: set[Scalar] = set()
    while roots:
        x = roots.pop()
        if x in seen:
            continue
        seen.add(x)
        roots += children(x)
        if isinstance(x, Local) and x.name not in alive:
            alive.add(x.name)
            roots += defined.get(x.name, [])
    return _keep(body, alive) if len(alive) < len(defined) else tuple(body)


def _keep(body: Sequence[Statement], alive: set[str]) -> tuple[Statement, ...]:
    out: list[Statement] = []
    for s in body:
        if isinstance(s, (Let, Accumulator, Update)) and s.name not in alive:
            continue
        if isinstance(s, (Loop, Repeat)):
            s = replace(s, body=_keep(s.body, alive))
            if not s.body and isinstance(s, Loop):
                continue
        elif isinstance(s, (Branch, Sections)):
            s = replace(s, bodies=tuple([_keep(b, alive) for b in s.bodies]))
        out.append(s)
    return tuple(out)


def _roots(s: Statement) -> list[Scalar]:
    values = [s.value] if isinstance(s, (Let, Store, Update)) else []
    if isinstance(s, (Branch, Repeat)):
        part: Part | None = s.which if isinstance(s, Branch) else s.condition
        values += [Element(part.buffer.dtype, part.buffer, part.start)] if part is not None else []
    return [*values, *[a.value for i in indices(s) for a in integers(i)]]
