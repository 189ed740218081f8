"""Kernels that write where they read: whether one may, and how it is then written.

A statement that runs a kernel goes in with two buffers, one that it reads and one that it writes; out comes whether
each element is read before it is replaced, and the body of a module with one buffer in place of the two. Such a kernel
is given one parameter in place of two, since two that are bound to the same memory are promised never to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

from fnflare.compiler.independence import touched
from fnflare.nest import (
    Apply,
    Axis,
    Branch,
    Buffer,
    Contract,
    Element,
    Index,
    Integer,
    Kernel,
    Let,
    Local,
    Loop,
    Part,
    Position,
    Repeat,
    Run,
    Scalar,
    Sections,
    Statement,
    Store,
    Update,
    index,
    operands,
    walk,
)

__all__ = ["Places", "kernels_of", "rebound"]


class Places:
    """Where in a body buffers are read and written.

    Attributes:
        body: its statements.
        first, last: the number of the statement that is the first, or the last, to touch a buffer.
    """

    def __init__(self, body: tuple[Statement, ...]) -> None:
        self.body = body
        self.first: dict[Buffer, int] = {}
        self.last: dict[Buffer, int] = {}
        for k, s in enumerate(self.body):
            for b in touched(s)[0]:
                self.first.setdefault(b, k)
                self.last[b] = k

    def fits(self, source: Buffer, answer: Buffer) -> bool:
        """Whether an input is dead where an answer begins to be written, or is replaced by it element by element."""
        begin, end = self.first.get(answer), self.last.get(source, -1)
        if begin is None or end > begin:
            return False
        s = self.body[begin]
        if end < begin:
            return True
        return (
            isinstance(s, Run) and (pair := _parameters(s, source, answer)) is not None and _in_place(s.kernel, *pair)
        )


def _parameters(run: Run, source: Buffer, answer: Buffer) -> tuple[Buffer, Buffer] | None:
    """The parameters that are bound to two buffers, if there is one for each and both begin at one element."""
    bound = list(zip(run.kernel.parameters, run.parts, strict=True))
    reads = [(p, part.start) for p, part in bound if part.buffer is source]
    writes = [(p, part.start) for p, part in bound if part.buffer is answer]
    if len(reads) != 1 or len(writes) != 1 or reads[0][1] != writes[0][1] or reads[0][0].dtype != writes[0][0].dtype:
        return None
    return reads[0][0], writes[0][0]


class _Place(NamedTuple):
    """A statement as the number of one in a body, and the axis that the body is repeated over."""

    axis: Axis | None
    body: tuple[Statement, ...]
    number: int


class _Access(NamedTuple):
    """A statement of a kernel that stores to a buffer or reads it.

    Attributes:
        bodies: the loops that it stands in, from the outermost one, and it itself.
        stores: whether it stores.
        indices: where it reads, as `_read_at` tells.
    """

    bodies: tuple[_Place, ...]
    statement: Statement
    stores: bool
    indices: frozenset[Index | None]


def _accesses(kernel: Kernel, buffer: Buffer) -> list[_Access]:
    """All of them, in the order in which they are written."""
    out: list[_Access] = []

    def visit(body: tuple[Statement, ...], axis: Axis | None, around: tuple[_Place, ...]) -> None:
        for k, s in enumerate(body):
            here = (*around, _Place(axis, body, k))
            if isinstance(s, Loop):
                visit(s.body, s.axis, here)
                continue
            read = _read_at(s, buffer)
            stores = isinstance(s, Store) and s.buffer is buffer
            if stores or read:
                out.append(_Access(here, s, stores, read))

    visit(kernel.body, kernel.axis, ())
    return out


def _read_at(s: Statement, buffer: Buffer) -> frozenset[Index | None]:
    """Where a statement reads a buffer; None among it where what it reads there says where something else lies."""
    if not isinstance(s, (Let, Update, Store)):
        return frozenset()
    found: set[Index | None] = set()
    places = [*operands(Position("i64", s.index))] if isinstance(s, Store) else []
    for x in walk([s.value]):
        if isinstance(x, (Element, Position)):
            places += operands(x)
        if isinstance(x, Element) and x.buffer is buffer:
            found.add(x.index)
    if any(isinstance(x, Element) and x.buffer is buffer for x in walk(places)):
        found.add(None)
    return frozenset(found)


def _in_place(kernel: Kernel, source: Buffer, answer: Buffer) -> bool:
    """Whether a kernel may store an answer where it reads an input: each element is read before it is replaced.

    There is one store, every turn of all loops around it goes to another element, and the input is read at the index
    of that element alone, in the body of the store, from which reads are brought forward, or before it.
    """
    stores = [a for a in _accesses(kernel, answer) if a.stores]
    if len(stores) != 1:
        return False
    (store,) = stores
    assert isinstance(store.statement, Store)
    at = store.statement.index
    if not _one_to_one(at, [axis for axis, _, _ in store.bodies if axis is not None]):
        return False
    return all(a.indices == {at} and _before(a, store) for a in _accesses(kernel, source))


def _before(read: _Access, store: _Access) -> bool:
    """Whether something is read before a store in the same turn, or can be, at the beginning of the store's body."""
    depth = len(store.bodies)
    if len(read.bodies) >= depth and read.bodies[depth - 1][1] is store.bodies[-1][1]:
        return True
    for (_, ours, k), (_, theirs, n) in zip(read.bodies, store.bodies, strict=False):
        if ours is not theirs:
            return False
        if k != n:
            return k < n
    return False


def _one_to_one(at: Index, axes: Sequence[Axis]) -> bool:
    """Whether an index goes to another element in each turn of some loops: as in an array without gaps."""
    left = {a: at.coefficient(a) for a in axes if a.extent != 1}
    if any(isinstance(a, Integer) for a in at.atoms()) or None in left.values():
        return False
    step = index(1)
    while left:
        found = next((a for a, s in left.items() if s == step), None)
        if found is None:
            return False
        del left[found]
        step = step * found.extent
    return True


# -- rewriting -------------------------------------------------------------------------------------


def rebound(body: Iterable[Statement], renamed: dict[Buffer, Buffer]) -> tuple[Statement, ...]:
    """A body with other buffers, whose kernels work in place where two of theirs have become one."""
    kernels = _Kernels()
    return tuple([_rebound(s, renamed, kernels) for s in body])


def kernels_of(body: Iterable[Statement]) -> dict[Kernel, None]:
    """The kernels that a body runs, each once."""
    out: dict[Kernel, None] = {}
    for s in body:
        if isinstance(s, Run):
            out[s.kernel] = None
        for inner in _bodies(s):
            out |= kernels_of(inner)
    return out


def _bodies(s: Statement) -> tuple[tuple[Statement, ...], ...]:
    return (s.body,) if isinstance(s, Repeat) else s.bodies if isinstance(s, (Branch, Sections)) else ()


def _rebound(s: Statement, renamed: dict[Buffer, Buffer], kernels: _Kernels) -> Statement:
    """A statement with other buffers."""

    def part(p: Part) -> Part:
        return Part(renamed[p.buffer], p.start) if p.buffer in renamed else p

    def inner(body: tuple[Statement, ...]) -> tuple[Statement, ...]:
        return tuple([_rebound(t, renamed, kernels) for t in body])

    if isinstance(s, Run):
        return kernels.run(Run(s.kernel, tuple(map(part, s.parts)), s.sizes))
    if isinstance(s, Contract):
        return replace(s, out=part(s.out), a=part(s.a), b=part(s.b))
    if isinstance(s, Repeat):
        return replace(s, body=inner(s.body), condition=None if s.condition is None else part(s.condition))
    if isinstance(s, Branch):
        return replace(s, which=part(s.which), bodies=tuple(map(inner, s.bodies)))
    return replace(s, bodies=tuple(map(inner, s.bodies))) if isinstance(s, Sections) else s


class _Kernels:
    """Kernels that work in place, each made once."""

    def __init__(self) -> None:
        self._made: dict[tuple[Kernel, tuple[tuple[int, int], ...]], Kernel] = {}

    def run(self, run: Run) -> Run:
        """A run in which no buffer that is written is bound to two parameters."""
        pairs = _doubled(run)
        if not pairs:
            return run
        key = (run.kernel, tuple(pairs))
        if key not in self._made:
            self._made[key] = _working_in_place(run.kernel, pairs, f"{run.kernel.name}_in_place{len(self._made)}")
        gone = {read for read, _ in pairs}
        return Run(self._made[key], tuple([p for n, p in enumerate(run.parts) if n not in gone]), run.sizes)


def _doubled(run: Run) -> list[tuple[int, int]]:
    """The parameters of a run that read what another one of it writes, each with that one."""
    written = {a.buffer for a in _stores(run.kernel.body)}
    parameters = run.kernel.parameters
    writers = {part.buffer: n for n, part in enumerate(run.parts) if parameters[n] in written}
    return [
        (n, writers[part.buffer])
        for n, part in enumerate(run.parts)
        if part.buffer in writers and parameters[n] not in written
    ]


def _stores(body: Iterable[Statement]) -> list[Store]:
    out: list[Store] = []
    for s in body:
        out += [s] if isinstance(s, Store) else _stores(s.body) if isinstance(s, Loop) else []
    return out


def _working_in_place(kernel: Kernel, pairs: Sequence[tuple[int, int]], name: str) -> Kernel:
    body = kernel.body
    for n, (read, write) in enumerate(pairs):
        body = _with_one(body, kernel.parameters[read], kernel.parameters[write], str(n))
    gone = {read for read, _ in pairs}
    parameters = tuple([p for n, p in enumerate(kernel.parameters) if n not in gone])
    return replace(kernel, name=name, parameters=parameters, body=body)


def _with_one(body: tuple[Statement, ...], source: Buffer, answer: Buffer, number: str) -> tuple[Statement, ...]:
    """Statements that read and write one buffer.

    What is read in the body of the store is read at its beginning. The store comes last where it can: what
    was computed from memory that then changes would be computed again after it.
    """
    store = next((s for s in body if isinstance(s, Store) and s.buffer is answer), None)
    if store is None:
        reading = _Reading(source, lambda x: Element(x.dtype, answer, x.index))
        out: list[Statement] = []
        for s in body:
            if isinstance(s, Loop):
                out.append(replace(s, body=_with_one(s.body, source, answer, number)))
            else:
                out.append(reading.statement(s))
        return tuple(out)
    old = Let(f"old{number}", Element(answer.dtype, answer, store.index))
    reading = _Reading(source, lambda x: Local(x.dtype, old.name))
    rest = [reading.statement(s) for s in body]
    at = body.index(store)
    if not _accessed(rest[at + 1 :], answer):
        store = cast(Store, rest[at])
        new = Let(f"new{number}", store.value)
        rest[at] = new
        rest.append(replace(store, value=Local(answer.dtype, new.name)))
    return (old, *rest)


def _accessed(body: Iterable[Statement], buffer: Buffer) -> bool:
    """Whether statements of a kernel read or store to a buffer."""
    return any(
        _accessed(s.body, buffer)
        if isinstance(s, Loop)
        else bool(_read_at(s, buffer)) or (isinstance(s, Store) and s.buffer is buffer)
        for s in body
    )


class _Reading:
    """Puts something else in place of what is read of a buffer; what statements share stays shared."""

    def __init__(self, source: Buffer, change: Callable[[Element], Scalar]) -> None:
        self._source = source
        self._change = change
        self._done: dict[int, Scalar] = {}

    def statement(self, s: Statement) -> Statement:
        if isinstance(s, Loop):
            return replace(s, body=tuple([self.statement(t) for t in s.body]))
        return replace(s, value=self._scalar(s.value)) if isinstance(s, (Let, Update, Store)) else s

    def _scalar(self, root: Scalar) -> Scalar:
        done = self._done
        for x in walk([root]):
            if id(x) in done:
                continue
            done[id(x)] = x
            if isinstance(x, Element) and x.buffer is self._source:
                done[id(x)] = self._change(x)
            elif isinstance(x, Apply):
                args = tuple([done[id(a)] for a in x.args])
                if any(a is not b for a, b in zip(args, x.args, strict=True)):
                    done[id(x)] = Apply(x.dtype, x.op, args)
        return done[id(root)]
