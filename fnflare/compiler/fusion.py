"""Which arrays get memory, and which share loops.

The nodes and actions of a block of equations go in, in order; a schedule comes out: actions, and groups of nodes that
are computed in one loop nest. A node without memory is computed again by each of its readers, which is how chains of
elementwise operations fuse; nodes over the same elements that read the same arrays share a group, also where one
combines a row that the next one reads, which is how a softmax becomes one nest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from fnflare.compiler.graph import Action, Idx, Map, Node, Place, Reduce, Stored, Value, fresh_axes, indices, reshaper
from fnflare.nest import Axis, Buffer, Element, Index, Local, Scalar, index, product

__all__ = ["COLUMN", "FULL", "REDUCE", "ROW", "Group", "Member", "schedule"]

#: An element that takes more operations than this is not computed once for each of several readers.
_CHEAP = 6
#: The same for an element that is read again and again, by the elements of a larger array.
_CHEAP_AGAIN = 2
#: An element that takes more operations than this gets memory even for one reader: loop bodies stay of a size that
#: compiles quickly and fits into registers.
_LARGE = 200
#: An array of so many elements, each of at most so many operations, may be computed twice to save its memory.
_BIG, _AGAIN = 1 << 18, 60
#: Up to this many elements are combined in a register while the axis that lies closest stays in the lanes.
_FEW = 64
#: How many groups back a node looks for one to join.
_BACK = 12

#: What a member of a group is: computed for each element of the group's domain; once for each row; the combination of
#: a row; the combination of a column.
FULL, ROW, REDUCE, COLUMN = "full", "row", "reduce", "column"


@dataclass(slots=True, eq=False)
class Member:
    """A node in a group.

    Attributes:
        level: one of `FULL`, `ROW`, `REDUCE` and `COLUMN`.
        idx: its index in the loop variables of the group; for a combination that of its answer.
        value: its element; for a combination what is combined.
        phase: the number of the run over the row in which it is computed; a row's value is there before that run.
        name: of the local that holds it, for a row's value.
    """

    node: Node
    level: str
    idx: Idx
    value: Scalar
    phase: int
    name: str


@dataclass(slots=True, eq=False)
class Group:
    """Nodes that share a loop nest.

    Attributes:
        axes: the loop variables, outermost first.
        inner: those along which rows extend; None while there are no rows.
        members: what is computed, in order.
        parameters: the buffer that stands for each place that is read, by the place's buffer, beginning and type.
        again: nodes that are read in a later run over the row than the one that computes them.
    """

    axes: list[Axis]
    inner: frozenset[Axis] | None = None
    members: list[Member] = field(default_factory=list)
    by_node: dict[Node, Member] = field(default_factory=dict)
    reads: set[Node] = field(default_factory=set)
    parameters: dict[tuple[Buffer, Index, str], Buffer] = field(default_factory=dict)
    again: set[Node] = field(default_factory=set)
    memo: dict[tuple[int, str, Node, Idx], Scalar] = field(default_factory=dict)
    columns: frozenset[Axis] | None = None
    named: int = 0

    @property
    def shape(self) -> Idx:
        """The extents of the loops."""
        return tuple([a.extent for a in self.axes])

    def parameter(self, place: Place, dtype: str, letter: str = "x") -> Buffer:
        """The buffer that stands for a place in the group's kernel; it is called x where that reads it first."""
        key = (place.buffer, place.start, dtype)
        found = self.parameters.get(key)
        if found is None:
            found = self.parameters[key] = Buffer(f"{letter}{self.named}", dtype, index(0), "parameter")
            self.named += 1
        return found


class _NoFit(Exception):  # noqa: N818 -- not an error: the node goes elsewhere
    """A node cannot be computed in a group."""


Item = Node | Action
Step = Group | Action


def schedule(items: Sequence[Item], must: set[Node], allocate: Callable[[Node], Place]) -> list[Step]:
    """Order the nodes and actions of a block, with nodes in groups.

    Args:
        items: in an order in which they can be done.
        must: nodes that lie in memory, whoever reads them.
        allocate: gives a node its place.
    """
    return _Scheduler(items, must, allocate).steps


class _Scheduler:
    """Puts one item after the other into place."""

    def __init__(self, items: Sequence[Item], must: set[Node], allocate: Callable[[Node], Place]) -> None:
        self.allocate = allocate
        self.must = must
        self.steps: list[Step] = []
        self.position: dict[Node, int] = {}
        self.kept = _kept(items, must)
        self._deps: dict[Node, tuple[Node, ...]] = {}
        self._by_size: dict[Index, list[int]] = {}
        for item in items:
            if isinstance(item, Action):
                for node in item.writes:
                    self.position[node] = len(self.steps)
                for value in item.reads:
                    self.place_of(value.node)
                self.steps.append(item)
            elif item in self.kept:
                self._put(item)

    def place_of(self, node: Node) -> Place:
        """Where a node lies; a place is made for one that has none."""
        if node.place is None:
            node.place = self.allocate(node)
        return node.place

    def deps(self, node: Node) -> tuple[Node, ...]:
        """The nodes in memory, or in groups, that one is made of."""
        found = self._deps.get(node)
        if found is None:
            seen: dict[Node, None] = {}
            for value in node.args:
                arg = value.node
                if arg in self.kept or isinstance(arg, Stored):
                    seen[arg] = None
                else:
                    seen.update(dict.fromkeys(self.deps(arg)))
            found = self._deps[node] = tuple(seen)
        return found

    def _earliest(self, node: Node) -> int:
        """The first step that may compute a node."""
        out = 0
        for dep in self.deps(node):
            out = max(out, self.position.get(dep, -1))
            for writer in dep.after:
                out = max(out, self.position.get(writer, -1) + 1)
        return out

    def _put(self, node: Node) -> None:
        domain = node.args[0].shape if isinstance(node, Reduce) else node.shape
        size, first = product(domain), self._earliest(node)
        candidates = [k for k in self._by_size.get(size, ())[-_BACK:] if k >= first]
        if not isinstance(node, Reduce):
            candidates += [k for k in self._row_groups(node) if k >= first]
        for k in sorted(candidates, reverse=True):
            group = self.steps[k]
            assert isinstance(group, Group)
            if self._shares(node, group) and self._joins(node, k, group):
                return
        group = Group(fresh_axes(domain))
        self._by_size.setdefault(size, []).append(len(self.steps))
        self.steps.append(group)
        if not self._joins(node, len(self.steps) - 1, group):
            raise AssertionError(f"a {type(node).__name__} does not fit a group of its own")

    def _row_groups(self, node: Node) -> list[int]:
        """The groups that compute combinations of rows which a node reads."""
        found = {self.position[d] for d in self.deps(node) if d in self.position and not isinstance(d, Stored)}
        return [k for k in found if isinstance(self.steps[k], Group)]

    def _shares(self, node: Node, group: Group) -> bool:
        """Whether a node reads an array that a group makes or reads, of more than one element."""
        return any(d in group.by_node or (d in group.reads and product(d.shape) != 1) for d in self.deps(node))

    def _joins(self, node: Node, k: int, group: Group) -> bool:
        """Make a node a member of a group if it can be; says whether."""
        try:
            member, inner, columns = self._member(node, k, group)
        except _NoFit:
            return False
        group.inner, group.columns = inner, columns
        group.members.append(member)
        group.by_node[node] = member
        group.reads.update(self.deps(node))
        self.position[node] = k
        if member.level == COLUMN or node in self.must:
            self.place_of(node)
        return True

    def _member(
        self, node: Node, k: int, group: Group
    ) -> tuple[Member, frozenset[Axis] | None, frozenset[Axis] | None]:
        inner, columns = group.inner, group.columns
        everywhere = indices(group.axes)
        name = f"r{len(group.members)}"
        if isinstance(node, Reduce):
            operand = node.args[0]
            full = reshaper(group.shape, operand.shape)(everywhere)
            kept = tuple([i for n, i in enumerate(full) if n not in node.axes])
            along = frozenset(_axes_in([i for n, i in enumerate(full) if n in node.axes]))
            stay = frozenset(_axes_in(kept))
            if along & stay:
                raise _NoFit
            level = REDUCE
            if _is_column(group.axes, along):
                level, columns = COLUMN, self._agreed(columns, along)
            else:
                inner = self._agreed(inner, along)
            if columns is not None and inner is not None and (columns & inner or not _leads(group.axes, columns)):
                raise _NoFit
            phase = self._phase(node, group)
            value = self._reader(k, group, phase, FULL)(operand, full)
            return Member(node, level, kept, value, phase, name), inner, columns
        assert isinstance(node, Map)
        level = FULL
        if product(node.shape) == product(group.shape):
            idx = reshaper(group.shape, node.shape)(everywhere)
        else:
            rows = [a for a in group.axes if inner is None or a not in inner]
            if inner is None or product([a.extent for a in rows]) != product(node.shape):
                raise _NoFit
            level = ROW
            idx = reshaper(tuple([a.extent for a in rows]), node.shape)(indices(rows))
        phase = self._phase(node, group)
        read = self._reader(k, group, phase, level)
        return Member(node, level, idx, node.element(read, idx), phase, name), inner, columns

    @staticmethod
    def _agreed(known: frozenset[Axis] | None, axes: frozenset[Axis]) -> frozenset[Axis]:
        if known is not None and known != axes:
            raise _NoFit
        return axes

    def _phase(self, node: Node, group: Group) -> int:
        """The first run over the row in which all that a node reads is there."""
        phase = 0
        for d in self.deps(node):
            m = group.by_node.get(d)
            if m is not None:
                phase = max(phase, m.phase + (m.level == REDUCE))
        return phase

    def _reader(self, k: int, group: Group, phase: int, level: str) -> Callable[[Value, Idx], Scalar]:
        """What gives elements of values to a member of a group."""

        def read(value: Value, idx: Idx) -> Scalar:
            return scalar(value.node, value.at(idx))

        def scalar(node: Node, idx: Idx) -> Scalar:
            m = group.by_node.get(node)
            if m is not None:
                return self._at_hand(m, idx, group, phase, level)
            key = (phase, level, node, idx)
            found = group.memo.get(key)
            if found is None:
                if isinstance(node, Map) and node not in self.kept:
                    found = node.element(read, idx)
                elif self.position.get(node, -1) >= k or any(self.position.get(w, -1) >= k for w in node.after):
                    raise _NoFit
                else:
                    found = self._element(node, idx, group)
                group.memo[key] = found
            return found

        return read

    def _element(self, node: Node, idx: Idx, group: Group) -> Scalar:
        place = self.place_of(node)
        return Element(node.dtype, group.parameter(place, node.dtype), place.offset(idx))

    def _at_hand(self, m: Member, idx: Idx, group: Group, phase: int, level: str) -> Scalar:
        """An element of a node that the same group computes."""
        if m.level == COLUMN or m.idx != idx or m.phase > phase:
            raise _NoFit
        if m.level in (REDUCE, ROW):
            return Local(m.node.dtype, m.name)
        if level != FULL:
            raise _NoFit
        if m.phase == phase:
            return m.value
        group.again.add(m.node)
        return self._element(m.node, idx, group)


def _is_column(axes: Sequence[Axis], along: frozenset[Axis]) -> bool:
    """Whether columns are combined: the axis that lies closest stays, and there is too much for registers."""
    last = [a for a in axes if a.extent != 1][-1:]
    if not last or last[0] in along or not _leads(axes, along):
        return False
    count = product([a.extent for a in along]).constant
    return count is None or count > _FEW


def _leads(axes: Sequence[Axis], along: frozenset[Axis]) -> bool:
    """Whether some axes are the outermost ones."""
    real = [a for a in axes if a.extent != 1]
    return set(real[: len(along)]) == set(along)


def _axes_in(idx: Sequence[Index]) -> set[Axis]:
    out: set[Axis] = set()
    for i in idx:
        for a in i.atoms():
            if isinstance(a, Axis):
                out.add(a)
    return out


def _kept(items: Sequence[Item], must: set[Node]) -> set[Node]:
    """The nodes that are not simply computed again by each of their readers."""
    readings = _Readings(items)
    again: set[Node] = set()
    while True:
        kept, costs = _worth_keeping(items, must, readings, again)
        large = [n for n in kept - must if isinstance(n, Map) and costs[n] <= _AGAIN and n.place is None]
        found = {n for n in large if readings.again(n, kept)} - again
        if not found:
            return kept
        again |= found  # what reads one of them may now be kept in its place


def _worth_keeping(
    items: Sequence[Item], must: set[Node], readings: _Readings, again: AbstractSet[Node]
) -> tuple[set[Node], dict[Node, int]]:
    """The nodes that get memory, but for those that are surely computed again, and what an element of each costs."""
    kept = must | readings.of_actions
    costs: dict[Node, int] = {}
    for item in items:
        if isinstance(item, Reduce):
            kept.add(item)
        if not isinstance(item, Map):
            continue
        cost = item.cost + sum(costs.get(n, 0) for n in {v.node for v in item.args} if n not in kept)
        costs[item] = cost
        if (
            item.place is not None
            or cost > _LARGE
            or (len(readings.by_node.get(item, ())) > 1 and cost > _CHEAP and item not in again)
            or (item in readings.repeated and cost > _CHEAP_AGAIN)
        ):
            kept.add(item)
    return kept, costs


class _Readings:
    """Who reads the nodes of a block.

    Attributes:
        by_node: the numbers of the items that read a node.
        of_actions: the nodes that actions read.
        repeated: those whose elements are read again and again, by the elements of a larger array.
    """

    def __init__(self, items: Sequence[Item]) -> None:
        self.by_node: dict[Node, list[int]] = {}
        self.of_actions: set[Node] = set()
        self.repeated: set[Node] = set()
        self._items = items
        #: How many actions there are before each item.
        self._actions: list[int] = []
        for k, item in enumerate(items):
            self._actions.append((self._actions[-1] if k else 0) + isinstance(item, Action))
            if isinstance(item, Action):
                read = {v.node for v in item.reads}
                self.of_actions |= read
            else:
                read = {v.node for v in item.args}
                domain = item.args[0].shape if isinstance(item, Reduce) else item.shape
                self.repeated |= {n for n in read if n.shape != domain and product(n.shape) != product(domain)}
            for node in read:
                self.by_node.setdefault(node, []).append(k)

    def again(self, node: Map, kept: set[Node]) -> bool:
        """Whether a large array is better computed twice than kept: what it is made of is there anyway.

        It is read in two places far from each other, as tanh is by what follows it and by its derivative: between
        them its memory would only wait.
        """
        size = product(node.shape).constant
        if size is None or size < _BIG or node in self.repeated or node in self.of_actions:
            return False
        readers = self.by_node[node]
        if len({self._actions[k] for k in readers}) != 2:
            return False
        made_of, last = _in_memory(node, kept), max(readers)
        return all(self._last(n, kept) >= last for n in made_of if product(n.shape) == size)

    def _last(self, node: Node, kept: set[Node]) -> int:
        """The last item that reads a node, itself or in what is computed again from it."""
        last = 0
        for k in self.by_node.get(node, ()):
            item = self._items[k]
            last = max(last, k if isinstance(item, (Action, Reduce)) or item in kept else self._last(item, kept))
        return last


def _in_memory(node: Map, kept: set[Node]) -> set[Node]:
    """The nodes in memory that one is made of."""
    out: set[Node] = set()
    for value in node.args:
        arg = value.node
        if isinstance(arg, Map) and arg not in kept:
            out |= _in_memory(arg, kept)
        else:
            out.add(arg)
    return out
