"""Answers in the memory of arguments: what `donate_argnums` allows, as far as no number is read after it is replaced.

A lowered program goes in with the numbers of the inputs that may be overwritten; out comes one in which answers are
written into their buffers. An answer may take the place of an input that was read for the last time in an earlier
statement of the body, or in the same kernel element by element, each before it is written, as optimisers do it. Such a
kernel is given one parameter in place of two, since two that are bound to the same memory are promised never to be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fnflare.compiler.independence import buffers_of, touched
from fnflare.compiler.lowered import Lowered, Output
from fnflare.core import ShapeDtypeStruct
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
    places = _Places(lowered)
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


class _Places:
    """Where in the body buffers are read and written."""

    def __init__(self, lowered: Lowered) -> None:
        self.body = lowered.module.body
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


def _merged(lowered: Lowered, pairs: dict[Buffer, int]) -> Lowered:
    """The program with answers in the buffers of inputs."""
    renamed: dict[Buffer, Buffer] = {}
    for answer, i in pairs.items():
        b = lowered.inputs[i]
        renamed[answer] = renamed[b] = Buffer(b.name, b.dtype, b.size, "output")
    kernels = _Kernels()
    body = tuple([_rebound(s, renamed, kernels) for s in lowered.module.body])
    used = buffers_of(body)
    module = replace(
        lowered.module,
        buffers=tuple([b for b in dict.fromkeys(renamed.get(b, b) for b in lowered.module.buffers) if b in used]),
        kernels=tuple(_kernels_of(body)),
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


def _kernels_of(body: Iterable[Statement]) -> dict[Kernel, None]:
    out: dict[Kernel, None] = {}
    for s in body:
        if isinstance(s, Run):
            out[s.kernel] = None
        for inner in _bodies(s):
            out |= _kernels_of(inner)
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
