"""Control flow: loops over time, loops that a condition ends, and branches become statements of the same function.

A body is a block of its own, whose statements stand inside the loop. A step's inputs are parts of the arrays they are
stacked in, its outputs are written into their places in the stacks, and the number of steps may be known only when the
code runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fnflare.compiler.block import Block, NotLowered, lowering, machine_type
from fnflare.compiler.graph import Place, Stored, Value
from fnflare.compiler.naming import Places
from fnflare.nest import Axis, Branch, Buffer, Index, Part, Repeat, index, product
from fnflare.program.ir import Equation, Program, Var

__all__: list[str] = []

#: Up to this many elements are copied in front of a loop so that they lie in order in it.
_SETTLED = 1 << 20


def _comment(e: Equation) -> Places:
    return Places([e.source])


def _stored_like(block: Block, v: Any, e: Equation, place: Place | None = None) -> Stored:
    return block.stored(block.module.shape_of(v), machine_type(v.aval.dtype), place, e.source)


@lowering("scan")
def _(
    block: Block, e: Equation, *args: Value, program: Program, consts: int, carry: int, length: int, reverse: bool
) -> list[Value]:
    steps = block.module.length(e)
    fixed = [_settled(block, v) for v in args[:consts]]
    xs = [block.in_memory(v) for v in args[consts + carry :]]
    state = []
    for v, x in zip(program.inputs[consts : consts + carry], args[consts : consts + carry], strict=True):
        state.append(_begun(block, v, x, e))
    stacks = [_stored_like(block, v, e, block.target(v)) for v in e.outputs[carry:]]
    final = [Stored(s.shape, s.dtype, s.place, e.source) for s in state]

    def emit() -> list[Any]:
        time = Axis("t", steps)
        t = index(time) if not reverse else steps - 1 - index(time)
        env: dict[Var, Value] = {}
        env.update(zip(program.inputs[:consts], map(_same, fixed), strict=True))
        for v, s in zip(program.inputs[consts : consts + carry], state, strict=True):
            env[v] = Value(Stored(s.shape, s.dtype, s.place))
        for v, x in zip(program.inputs[consts + carry :], xs, strict=True):
            env[v] = _step(x, t)
        body = Block(block.module, env)
        targets = [_row(s, t) for s in stacks]
        _run_body(body, program, [s.place for s in state], targets, e)
        return [Repeat(time, tuple(body.statements()), None, _comment(e))]

    block.action([*fixed, *[Value(s) for s in state], *xs], [*final, *stacks], emit, e.source)
    return [*[Value(s) for s in final], *[Value(s) for s in stacks]]


def _settled(block: Block, x: Value) -> Value:
    """A value in memory whose last axis lies in order: every step reads it, so that a copy made once pays."""
    size = product(x.shape).constant
    if x.plain or size is None or size > _SETTLED:
        return block.in_memory(x)
    return Value(block.copy(x))


def _begun(block: Block, v: Var, x: Value, e: Equation) -> Stored:
    """Memory for a carry, with its first value."""
    dtype = machine_type(v.aval.dtype)
    shape = block.module.shape_of(v)
    out = block.stored(shape, dtype, None, e.source, "carry")
    out.after.append(block.copy(block.cast(x, dtype).broadcast(shape), out.place, e.source))
    return out


def _step(x: Value, t: Index) -> Value:
    """What a step sees of a stacked array."""
    place = x.place()
    assert place is not None
    part = place.part(t * place.strides[0], place.strides[1:])
    return Value(Stored(x.shape[1:], x.dtype, part))


def _row(stack: Stored, t: Index) -> Place:
    """Where a step's output belongs."""
    assert stack.place is not None
    return stack.place.part(t * stack.place.strides[0], stack.place.strides[1:])


def _run_body(
    body: Block, program: Program, carries: Sequence[Place | None], targets: Sequence[Place], e: Equation
) -> None:
    """Lower a step: its outputs go to their places, then the new carries to theirs.

    A new carry is computed elsewhere and moved when nothing reads the old one any more.
    """
    count = len(carries)
    for a, place in zip(program.outputs[count:], targets, strict=True):
        if type(a) is Var and a not in body.targets and a not in program.inputs:
            body.targets[a] = place
    body.run(program.equations, e.source)
    for a, place in zip(program.outputs[count:], targets, strict=True):
        body.store(_typed(body, body.value(a), a), place, e.source)
    moved = []
    homes = {home.buffer for home in carries if home is not None}
    for a, home in zip(program.outputs[:count], carries, strict=True):
        assert home is not None
        x = _typed(body, body.value(a), a)
        if type(x.node) is Stored and x.plain and x.node.place is home:
            continue
        moved.append((_apart(body, x, homes), home))
    body.moves(moved, e.source)


def _apart(body: Block, x: Value, homes: set[Buffer]) -> Value:
    """A new carry in memory that no carry's move overwrites: an old carry, in another order maybe, is copied."""
    place = x.node.place
    if place is not None and place.buffer in homes:
        return Value(body.copy(x))
    return body.in_memory(x)


def _typed(body: Block, x: Value, a: Any) -> Value:
    shape = body.module.shape_of(a)
    return x if x.shape == shape else x.broadcast(shape)


@lowering("while_loop")
def _(
    block: Block, e: Equation, *args: Value, condition: Program, body: Program, tests: int, consts: int
) -> list[Value]:
    of_test = [block.in_memory(v) for v in args[:tests]]
    of_body = [block.in_memory(v) for v in args[tests : tests + consts]]
    state = [_begun(block, v, x, e) for v, x in zip(body.inputs[consts:], args[tests + consts :], strict=True)]
    final = [Stored(s.shape, s.dtype, s.place, e.source) for s in state]
    going = block.stored((), "b1", None, e.source, "going")

    def test() -> list[Any]:
        env = dict(zip(condition.inputs, [*map(_same, of_test), *[_again(s) for s in state]], strict=True))
        inner = Block(block.module, env)
        inner.run(condition.equations, e.source)
        assert going.place is not None
        inner.store(inner.cast(inner.value(condition.outputs[0]), "b1"), going.place, e.source)
        return inner.statements()

    def emit() -> list[Any]:
        env = dict(zip(body.inputs, [*map(_same, of_body), *[_again(s) for s in state]], strict=True))
        inner = Block(block.module, env)
        _run_body(inner, body, [s.place for s in state], [], e)
        assert going.place is not None
        turn = (*inner.statements(), *test())
        return [*test(), Repeat(Axis("turn", index(1)), turn, Part(going.place.buffer, going.place.start), _comment(e))]

    block.action([*of_test, *of_body, *[Value(s) for s in state]], [*final, going], emit, e.source)
    return [Value(s) for s in final]


def _again(s: Stored) -> Value:
    return Value(Stored(s.shape, s.dtype, s.place))


@lowering("cond")
def _(
    block: Block, e: Equation, which: Value, *args: Value, branches: tuple[Program, ...], owners: Any = ()
) -> list[Value]:
    number = block.in_memory(block.cast(which, "i64"))
    if number.shape:
        raise NotLowered("cond of an array of indices")
    operands = [block.in_memory(v) for v in args]
    outs = [_stored_like(block, v, e, block.target(v)) for v in e.outputs]

    def emit() -> list[Any]:
        bodies = []
        for program in branches:
            inner = Block(block.module, dict(zip(program.inputs, [_same(v) for v in operands], strict=True)))
            _run_body(inner, program, [], [s.place for s in outs if s.place is not None], e)
            bodies.append(tuple(inner.statements()))
        place = number.place()
        assert place is not None
        return [Branch(Part(place.buffer, place.start), tuple(bodies), _comment(e))]

    block.action([number, *operands], outs, emit, e.source)
    return [Value(s) for s in outs]


def _same(v: Value) -> Value:
    """A value in memory, as another block sees it: what computes it is not that block's affair."""
    return Value(Stored(v.shape, v.dtype, v.place()))


@lowering("call")
def _(block: Block, e: Equation, *args: Value, program: Program, **_: Any) -> list[Value]:
    for v, x in zip(program.inputs, args, strict=True):
        block.env[v] = x
    block.run(program.equations, e.source)
    return [block.value(a) for a in program.outputs]
