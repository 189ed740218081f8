"""A block of equations on its way to statements: the body of a program, or of a loop or branch in it.

Equations go in one by one, each through the rule for its primitive (`fnflare.compiler.rules`), and become nodes,
values and actions; the outputs are given places; then the schedule is made and the statements come out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fnflare.compiler.fusion import Group, Item, schedule
from fnflare.compiler.graph import Action, Idx, Map, Node, Place, Read, Reduce, Stored, Value, strides_of
from fnflare.compiler.index_parts import Part
from fnflare.compiler.naming import named
from fnflare.compiler.nests import Kernels
from fnflare.compiler.sizes import Sizes
from fnflare.core import Source
from fnflare.nest import Buffer, Index, Position, Scalar, Statement, cast, constant, dtype_of, index, product
from fnflare.program.ir import Atom, Equation, Literal, Var

__all__ = ["Block", "Module", "NotLowered", "Rule", "lowering", "rule_of"]

Rule = Callable[..., Any]
_RULES: dict[str, Rule] = {}


class NotLowered(Exception):  # noqa: N818 -- not an error: the interpreter runs it
    """A primitive, or a use of it, that has no lowering; the message says which and why."""


def lowering(*names: str) -> Callable[[Rule], Rule]:
    """Decorator: the rule for primitives of these names.

    ``rule(block, e, *values, **params)`` returns the value of the equation `e`, or a list of them where the primitive
    has several answers, and raises `NotLowered` where it cannot.
    """

    def register(rule: Rule) -> Rule:
        for name in names:
            _RULES[name] = rule
        return rule

    return register


def rule_of(name: str) -> Rule | None:
    """The rule for a primitive."""
    return _RULES.get(name)


class Module:
    """What the blocks of one module share: buffers, constants, kernels, and the sizes of arrays.

    Args:
        sizes: the sizes of arrays.
        names: what constant arrays are called, by their ``id``.
    """

    def __init__(self, sizes: Sizes, names: Mapping[int, str] | None = None) -> None:
        self.sizes = sizes
        self._names = {} if names is None else names
        self.buffers: list[Buffer] = []
        self.constants: dict[int, tuple[Buffer, np.ndarray[Any, Any]]] = {}
        self.kernels = Kernels(self.allocate)
        self.scratch: set[Buffer] = set()

    def shape_of(self, a: Atom) -> Idx:
        """The shape of a variable or constant, with sizes that are given at run time as symbols."""
        return self.sizes.shape(a)

    def length(self, e: Equation) -> Index:
        """The number of steps of a scan."""
        return self.sizes.length(e)

    def index_parts(self, e: Equation) -> tuple[Part, ...]:
        """What is read or written at an index."""
        return self.sizes.index(e)

    def buffer(self, dtype: str, size: Index, role: str, name: str) -> Buffer:
        """A new buffer."""
        made = Buffer(name, dtype, size, role)
        self.buffers.append(made)
        return made

    def allocate(self, shape: Idx, dtype: str, name: str) -> Place:
        """Scratch memory for an array."""
        made = self.buffer(dtype, product(shape), "scratch", name)
        self.scratch.add(made)
        return Place(made, index(0), strides_of(shape))

    def constant(self, array: np.ndarray[Any, Any], name: str = "constant") -> Buffer:
        """The buffer that holds an array that is known; `name` is what it is called if it has no name of its own."""
        found = self.constants.get(id(array))
        if found is None:
            dtype = machine_type(array.dtype)
            buffer = self.buffer(dtype, index(array.size), "constant", self._names.get(id(array), name))
            found = self.constants[id(array)] = (buffer, np.ascontiguousarray(array).reshape(array.shape))
        return found[0]


def machine_type(dtype: np.dtype[Any]) -> str:
    """The machine type of a NumPy dtype."""
    name = dtype_of(dtype)
    if name is None:
        raise NotLowered(f"dtype {dtype}")
    return name


class Block:
    """Equations being lowered.

    Attributes:
        module: what it shares with other blocks.
        env: the value of each variable.
        items: nodes and actions, in order.
        must: nodes that lie in memory.
    """

    def __init__(self, module: Module, env: dict[Var, Value] | None = None) -> None:
        self.module = module
        self.env: dict[Var, Value] = {} if env is None else env
        self.items: list[Item] = []
        self.must: set[Node] = set()
        self.targets: dict[Var, Place] = {}
        self._what = "copy"  # the primitive of the equation that is being lowered, and where that was written
        self._source: Source | None = None
        self._literals: dict[int, Value] = {}
        self._own: set[Node] = set()
        self._copies: dict[int, tuple[Value, Value]] = {}
        self._moves: list[tuple[Value, Place, Source | None]] = []

    # -- what rules use -----------------------------------------------------------------------------

    def value(self, a: Atom) -> Value:
        """The value of a variable or constant."""
        if type(a) is Var:
            return self.env[a]
        assert type(a) is Literal
        found = self._literals.get(id(a))
        if found is None:
            found = self._literals[id(a)] = self._literal(a)
        return found

    def _literal(self, a: Literal) -> Value:
        dtype, shape = machine_type(a.aval.dtype), self.module.shape_of(a)
        number = a.repeated
        if number is not None:
            return self.full(shape, dtype, number)
        return self.constant(np.asarray(a.value), id(a), shape)

    def constant(self, array: np.ndarray[Any, Any], known_by: int | None = None, shape: Idx | None = None) -> Value:
        """An array that is known: one that counts is computed, another lies in memory.

        Args:
            array: the array.
            known_by: by what the sizes of the program know it; by default its ``id``.
            shape: its shape, by default what the sizes say.
        """
        key = id(array) if known_by is None else known_by
        sizes, dtype = self.module.sizes, machine_type(array.dtype)
        if shape is None:
            shape = sizes.literals[key]
        counting = sizes.iotas.get(key)
        if counting is not None:
            start, step, axis = counting.start, counting.step, counting.axis
            return self.map(shape, dtype, (), lambda read, idx: Position(dtype, start + idx[axis] * step), 0)
        memory = self.module.constant(array, named(self._source, "constant"))
        return Value(Stored(shape, dtype, Place(memory, index(0), strides_of(shape))))

    def full(self, shape: Idx, dtype: str, number: Any) -> Value:
        """An array of equal elements."""
        element = constant(number, dtype)
        node = Map((), dtype, (), lambda read, idx: element, cost=0)
        self._add(node)
        return Value(node).broadcast(shape)

    def map(
        self,
        shape: Idx,
        dtype: str,
        args: Sequence[Value],
        element: Callable[[Read, Idx], Scalar],
        cost: int = 1,
        source: Source | None = None,
    ) -> Value:
        """An array whose elements are computed each for itself; see `Map`."""
        node = Map(shape, dtype, args, element, cost, source)
        self._add(node)
        return Value(node)

    def elementwise(
        self,
        dtype: str,
        args: Sequence[Value],
        rule: Callable[..., Scalar],
        cost: int = 1,
        source: Source | None = None,
    ) -> Value:
        """An array whose elements are made of those of others, which are broadcast, at the same index."""
        shape = broadcast_shape([v.shape for v in args])
        wide = [v.broadcast(shape) for v in args]
        return self.map(shape, dtype, wide, lambda read, idx: rule(*[read(v, idx) for v in wide]), cost, source)

    def _add(self, node: Node) -> None:
        node.what = self._what
        self.items.append(node)
        self._own.add(node)

    def cast(self, x: Value, dtype: str, source: Source | None = None) -> Value:
        """An array in another type."""
        if x.dtype == dtype:
            return x
        return self.map(x.shape, dtype, (x,), lambda read, idx: cast(read(x, idx), dtype), 1, source)

    def reduce(
        self, op: str, x: Value, axes: Sequence[int], keepdims: bool = False, source: Source | None = None
    ) -> Value:
        """Elements combined along axes."""
        axes = tuple(sorted(a % len(x.shape) for a in axes))
        if not axes:
            return x
        node = Reduce(op, x, axes, source)
        self._add(node)
        out = Value(node)
        if keepdims:
            out = out.reshaped(tuple([index(1) if k in axes else n for k, n in enumerate(x.shape)]))
        return out

    def copy(self, x: Value, place: Place | None = None, source: Source | None = None) -> Node:
        """An array as a node of its own, at a place where that is given."""
        node = Map(x.shape, x.dtype, (x,), lambda read, idx: read(x, idx), 0, source or self._source)
        node.place = place
        self._add(node)
        node.what = "copy"
        self.must.add(node)
        return node

    def stored(
        self, shape: Idx, dtype: str, place: Place | None = None, source: Source | None = None, what: str = ""
    ) -> Stored:
        """An array in memory that an action or other nodes fill; at a place of its own unless one is given.

        Memory of its own is named after the primitive that is being lowered, or what is said here.
        """
        if place is None:
            place = self.module.allocate(shape, dtype, named(source, what or self._what))
        return Stored(shape, dtype, place, source)

    def is_even(self, x: Value) -> bool:
        """Whether a value has strides, once its node lies in memory; who asks may count on them from then on."""
        node = x.node
        if x.plain:
            _settle(node)
            return True
        if self._is_even(node, x):
            _settle(node)
            return True
        return False

    @staticmethod
    def _is_even(node: Node, x: Value) -> bool:
        known = node.place
        if known is None:
            node.place = Place(_NOWHERE, index(0), strides_of(node.shape))
        try:
            return x.place() is not None
        finally:
            node.place = known

    def in_memory(self, x: Value) -> Value:
        """A value that can be read from memory at even strides: itself, or a copy."""
        if self.is_even(x):
            self.must.add(x.node)
            return x
        found = self._copies.get(id(x))
        if found is None:
            found = self._copies[id(x)] = (x, Value(self.copy(x)))
        return found[1]

    def action(
        self,
        reads: Sequence[Value],
        writes: Sequence[Stored],
        emit: Callable[[], list[Any]],
        source: Source | None = None,
    ) -> None:
        """Statements of their own; see `Action`."""
        self.items.append(Action(reads, writes, emit, source))

    def target(self, v: Var) -> Place | None:
        """The place where an answer belongs, if it has one that nobody has taken."""
        return self.targets.pop(v, None)

    # -- from equations to statements -----------------------------------------------------------------

    def run(self, equations: Sequence[Equation], around: Source | None = None) -> None:
        """Lower equations.

        Args:
            equations: those of a program.
            around: where the equation stands that carries the program, in whose layers they are.

        Raises:
            NotLowered: one of them cannot be.
        """
        for e in equations:
            self.equation(e if around is None else e._replace(source=_within(e.source, around)))

    def equation(self, e: Equation) -> None:
        """Lower one equation."""
        self._what, self._source = e.prim.name, e.source
        rule = rule_of(e.prim.name)
        if rule is None:
            from fnflare.compiler.rules.elementwise import elementwise

            if not e.prim.elementwise:
                raise NotLowered(f"{e.prim.name} has no lowering")
            rule = elementwise
        for v in e.outputs:
            if 0 in v.aval.shape:
                raise NotLowered(f"{e.prim.name} of an array without elements")
        out: Any = rule(self, e, *[self.value(a) for a in e.inputs], **(e.params or {}))
        answers: list[Value] = out if e.prim.many else [out]
        for v, value in zip(e.outputs, answers, strict=True):
            self.env[v] = value

    def store(self, x: Value, place: Place, source: Source | None = None) -> Node:
        """See to it that a value is written to a place; returns the node that does."""
        node = x.node
        if isinstance(node, Stored) and x.plain and node.place is place:
            return node
        if x.plain and isinstance(node, (Map, Reduce)) and node.place is None and node in self._own:
            node.place = place
            self.must.add(node)
            return node
        return self.copy(x, place, source)

    def moves(self, moves: Sequence[tuple[Value, Place]], source: Source | None = None) -> None:
        """Copies of arrays in memory, made when all else is done: nobody reads what they overwrite any more."""
        self._moves = [(x, place, source) for x, place in moves]

    def _last(self) -> list[Statement]:
        block = Block(self.module)
        for x, place, source in self._moves:
            block.copy(Value(Stored(x.shape, x.dtype, x.place())), place, source)
        return block.statements() if self._moves else []

    def _allocate(self, node: Node) -> Place:
        return self.module.allocate(node.shape, node.dtype, named(node.source, node.what))

    def statements(self) -> list[Statement]:
        """The statements of all that was lowered."""
        steps = schedule(self.items, self.must, self._allocate)
        groups = [s for s in steps if isinstance(s, Group)]
        stored = set(self.must)
        keys: dict[Any, Node] = {}
        for g in groups:
            for m in g.members:
                if m.node.place is not None:
                    keys[m.node.place.buffer, m.node.place.start] = m.node
        for g in groups:
            for buffer, start, _ in g.parameters:
                node = keys.get((buffer, start))
                if node is not None and node not in g.by_node:
                    stored.add(node)
        out: list[Statement] = []
        for step in steps:
            out += step.emit() if isinstance(step, Action) else self.module.kernels.of_group(step, stored)
        return out + self._last()


def _within(source: Source | None, around: Source) -> Source:
    return around if source is None else source.within(around)


def _settle(node: Node) -> None:
    if type(node) is Stored:
        node.movable = False


_NOWHERE = Buffer("nowhere", "f32", index(0), "scratch")


def broadcast_shape(shapes: Sequence[Idx]) -> Idx:
    """The shape that shapes broadcast to."""
    rank = max(len(s) for s in shapes)
    out: list[Index] = []
    for k in range(rank):
        sizes = [s[k - rank + len(s)] for s in shapes if k - rank + len(s) >= 0]
        wide = [n for n in sizes if n != 1]
        out.append(wide[0] if wide else index(1))
    return tuple(out)
