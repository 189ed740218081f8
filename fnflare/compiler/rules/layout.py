"""Layout: reshaping, transposing, repeating and joining arrays, which is index arithmetic wherever it can be."""

from __future__ import annotations

from typing import Any

from fnflare.compiler.block import Block, lowering, machine_type
from fnflare.compiler.graph import Place, Stored, Value, fresh_axes, strides_of
from fnflare.nest import index
from fnflare.program.ir import Equation

__all__: list[str] = []


@lowering("reshape")
def _(block: Block, e: Equation, x: Value, *, shape: Any) -> Value:
    """A view where the elements lie evenly in the new shape too; elsewhere an array of its own."""
    out = x.reshaped(block.module.shape_of(e.outputs[0]))
    _lay_out_for(x)
    if block.is_even(out):
        return out
    return block.map(out.shape, out.dtype, (out,), lambda read, idx: read(out, idx), 0, e.source)


def _lay_out_for(x: Value) -> None:
    """Let an array that is seen transposed lie in the order in which it is seen, if nobody counts on another one."""
    node = x.node
    if x.plain or type(node) is not Stored or not node.movable or len(x.shape) != len(node.shape):
        return
    axes = fresh_axes(x.shape)
    seen = x.at(tuple([index(a) for a in axes]))
    steps = dict(zip(axes, strides_of(x.shape), strict=True))
    order = [next((a for a in axes if i == index(a)), None) for i in seen]
    if None in order or len(set(order)) < len(order) or node.place is None:
        return
    node.place = Place(node.place.buffer, node.place.start, tuple([steps[a] for a in order if a is not None]))


@lowering("transpose")
def _(block: Block, e: Equation, x: Value, *, axes: tuple[int, ...]) -> Value:
    return x.transposed(axes)


@lowering("broadcast_to")
def _(block: Block, e: Equation, x: Value, *, shape: Any) -> Value:
    return x.broadcast(block.module.shape_of(e.outputs[0]))


@lowering("concatenate")
def _(block: Block, e: Equation, *xs: Value, axis: int) -> Value:
    out = e.outputs[0]
    shape, dtype = block.module.shape_of(out), machine_type(out.aval.dtype)
    axis %= len(shape)
    return joined(block, e, [block.cast(x, dtype) for x in xs], axis)


@lowering("stack")
def _(block: Block, e: Equation, *xs: Value, axis: int) -> Value:
    out = e.outputs[0]
    dtype = machine_type(out.aval.dtype)
    axis %= out.aval.ndim
    parts = []
    for x in xs:
        shape = (*x.shape[:axis], index(1), *x.shape[axis:])
        parts.append(block.cast(x, dtype).reshaped(shape))
    return joined(block, e, parts, axis)


def joined(block: Block, e: Equation, parts: list[Value], axis: int) -> Value:
    """Arrays one after the other along an axis: each is written into its part of the whole."""
    out = e.outputs[0]
    shape, dtype = block.module.shape_of(out), machine_type(out.aval.dtype)
    whole = block.stored(shape, dtype, block.target(out), e.source)
    assert whole.place is not None
    start = index(0)
    for x in parts:
        place = whole.place.part(start * whole.place.strides[axis], whole.place.strides)
        whole.after.append(block.store(x, place, e.source))
        start = start + x.shape[axis]
    return Value(whole)
