"""Products of matrices, convolutions and their gradients: all are one kind of statement, a sum of products.

Operands are read where they lie, transposed, sliced or broadcast as they may be; only what is not laid out evenly is
copied first. A convolution's windows are strides of its input, so no matrix of windows is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fnflare.compiler.block import Block, NotLowered, lowering, machine_type
from fnflare.compiler.graph import Idx, Place, Value
from fnflare.compiler.naming import Places
from fnflare.nest import (
    Contract,
    ContractLoop,
    Index,
    Integer,
    Part,
    Position,
    Scalar,
    apply,
    constant,
    index,
    select,
)
from fnflare.program.ir import Equation

__all__ = ["padded"]

#: A loop of a contraction: its extent, and the axes of the answer and of both operands that it runs along.
Letters = tuple[Index, int | None, int | None, int | None]


def contracted(block: Block, e: Equation, x: Value, y: Value, loops: Sequence[Letters]) -> Value:
    """The sum of products of two arrays over loops along their axes."""
    out = e.outputs[0]
    shape, dtype = block.module.shape_of(out), machine_type(out.aval.dtype)
    if dtype == "b1":
        raise NotLowered(f"{e.prim.name} of truth values")
    a, b = (block.in_memory(block.cast(v, dtype)) for v in (x, y))
    wanted = block.target(out)
    target = block.stored(shape, dtype, wanted, e.source)
    target.movable = wanted is None

    def emit() -> list[Any]:
        places = [p for p in (target.place, a.place(), b.place()) if p is not None]

        def stride(place: Place, axis: int | None) -> Index:
            return index(0) if axis is None else place.strides[axis]

        steps = tuple(
            [
                ContractLoop(n, *[stride(p, k) for p, k in zip(places, axes, strict=True)])
                for n, *axes in loops
                if n != 1
            ]
        )
        return [_contract(places, steps, e)]

    block.action([a, b], [target], emit, e.source)
    return Value(target)


def _contract(places: Sequence[Place], loops: tuple[ContractLoop, ...], e: Equation) -> Contract:
    parts = [Part(p.buffer, p.start) for p in places]
    return Contract(parts[0], parts[1], parts[2], loops, False, Places([e.source]))


@lowering("matmul")
def _(block: Block, e: Equation, x: Value, y: Value) -> Value:
    out = block.module.shape_of(e.outputs[0])
    rows, columns = len(x.shape) > 1, len(y.shape) > 1
    lead = len(out) - rows - columns
    loops: list[Letters] = []
    for k in range(lead):
        places: list[int | None] = []
        for v, rank in ((x, len(x.shape)), (y, len(y.shape))):
            axis = k - lead + rank - 2
            places.append(axis if axis >= 0 and v.shape[axis] != 1 else None)
        loops.append((out[k], k, places[0], places[1]))
    if rows:
        loops.append((out[lead], lead, len(x.shape) - 2, None))
    if columns:
        loops.append((out[-1], len(out) - 1, None, len(y.shape) - 1))
    loops.append((x.shape[-1], None, len(x.shape) - 1, len(y.shape) - 2 if columns else 0))
    return contracted(block, e, x, y, loops)


@lowering("einsum")
def _(block: Block, e: Equation, *xs: Value, terms: tuple[str, ...], out: str) -> Value:
    if len(xs) != 2 or any(len(set(t)) < len(t) for t in (*terms, out)):
        raise NotLowered("einsum of other than two operands, or with a letter twice in one of them")
    sizes: dict[str, Index] = {}
    for term, x in zip(terms, xs, strict=True):
        for c, n in zip(term, x.shape, strict=True):
            sizes[c] = sizes[c] if c in sizes and n == 1 else n
    loops: list[Letters] = []
    for c, n in sizes.items():
        places = [
            t.index(c) if c in t and (v is None or v.shape[t.index(c)] == n) else None
            for t, v in ((out, None), (terms[0], xs[0]), (terms[1], xs[1]))
        ]
        loops.append((n, places[0], places[1], places[2]))
    return contracted(block, e, xs[0], xs[1], loops)


# -- convolutions -----------------------------------------------------------------------------------


def _clamped(i: Index, low: int, high: Index) -> Index:
    """An index brought into ``low .. high - 1``."""
    x = apply("maximum", Position("i64", i), constant(low, "i64"))
    return index(Integer(apply("minimum", x, Position("i64", high - 1))))


def padded(
    block: Block, x: Value, pads: Sequence[tuple[int, int]], steps: Sequence[int], axes: Sequence[int], e: Equation
) -> Value:
    """An array with zeros around it, and between its elements where a step is more than 1."""
    if all(p == (0, 0) for p in pads) and all(s == 1 for s in steps):
        return x
    shape = list(x.shape)
    for (low, high), step, axis in zip(pads, steps, axes, strict=True):
        shape[axis] = (x.shape[axis] - 1) * step + 1 + (low + high)

    def element(read: Any, idx: Idx) -> Scalar:
        inside: Scalar = constant(True, "b1")
        place = list(idx)
        for (low, high), step, axis in zip(pads, steps, axes, strict=True):
            if (low, high) == (0, 0) and step == 1:
                continue
            position = Position("i64", idx[axis] - low)
            end = (x.shape[axis] - 1) * step + 1
            inside = inside & (position >= 0) & apply("less", position, Position("i64", end))
            if step > 1:
                inside = inside & apply(
                    "equal", apply("remainder", position, constant(step, "i64")), constant(0, "i64")
                )
            place[axis] = _clamped(idx[axis] - low, 0, end) // step
        return select(inside, read(x, tuple(place)), constant(0, x.dtype))

    return block.map(tuple(shape), x.dtype, (x,), element, 4, e.source)


def _windows(x: Value, window: Idx, out: Idx, strides: Sequence[int], dilation: Sequence[int]) -> Value:
    """(..., N, *out, *window, C): the windows of an array (..., N, *spatial, C)."""
    rank = len(window)
    first = len(x.shape) - rank - 1
    shape = (*x.shape[:first], *out, *window, x.shape[-1])

    def at(idx: Idx) -> Idx:
        spatial = [idx[first + k] * strides[k] + idx[first + rank + k] * dilation[k] for k in range(rank)]
        return (*idx[:first], *spatial, idx[-1])

    return x.seen(shape, at)


def _groups(shape: Idx, rank: int) -> tuple[int, list[Letters]]:
    """How many axes of groups with operands of their own there are in front, and the loop along it."""
    count = len(shape) - rank - 2
    return count, [(shape[k], k, k, k) for k in range(count)]


@lowering("conv")
def _(block: Block, e: Equation, x: Value, w: Value, *, strides: Any, padding: Any, dilation: Any) -> Value:
    rank = len(strides)
    g, groups = _groups(x.shape, rank)
    wide = padded(block, x, padding, (1,) * rank, range(g + 1, g + rank + 1), e)
    out = block.module.shape_of(e.outputs[0])
    windows = _windows(block.in_memory(wide), w.shape[g : g + rank], out[g + 1 : -1], strides, dilation)
    spatial: list[Letters] = [(out[g + k], g + k, g + k, None) for k in range(rank + 1)]
    filters: list[Letters] = [(out[-1], g + rank + 1, None, g + rank + 1)]
    window: list[Letters] = [(w.shape[g + k], None, g + 1 + rank + k, g + k) for k in range(rank + 1)]
    return contracted(block, e, windows, w, [*groups, *spatial, *filters, *window])


@lowering("conv_input_grad")
def _(
    block: Block, e: Equation, ct: Value, w: Value, *, input_shape: Any, strides: Any, padding: Any, dilation: Any
) -> Value:
    """A convolution of the cotangent, spread by the strides, with the filter turned over and its channels swapped."""
    rank = len(strides)
    g, groups = _groups(ct.shape, rank)
    shape = block.module.shape_of(e.outputs[0])
    window = w.shape[g : g + rank]
    pads = []
    for k in range(rank):
        reach = ((window[k].constant or 1) - 1) * dilation[k]
        low = reach - padding[k][0]
        spread = (ct.shape[g + 1 + k] - 1) * strides[k] + 1
        high = (shape[g + 1 + k] + reach - spread - low).constant
        if high is None or low < 0 or high < 0:
            raise NotLowered("conv_input_grad with padding beyond its window")
        pads.append((low, high))
    wide = padded(block, ct, pads, strides, range(g + 1, g + rank + 1), e)

    def turned(idx: Idx) -> Idx:
        return (*idx[:g], *[window[k] - 1 - idx[g + k] for k in range(rank)], idx[-1], idx[-2])

    flipped = w.seen((*w.shape[:g], *window, w.shape[-1], w.shape[-2]), turned)
    swapped = Value(block.copy(flipped, source=e.source))
    windows = _windows(block.in_memory(wide), window, shape[g + 1 : -1], (1,) * rank, dilation)
    spatial: list[Letters] = [(shape[g + k], g + k, g + k, None) for k in range(rank + 1)]
    channels: list[Letters] = [(shape[-1], g + rank + 1, None, g + rank + 1)]
    summed: list[Letters] = [(swapped.shape[g + k], None, g + 1 + rank + k, g + k) for k in range(rank + 1)]
    return contracted(block, e, windows, swapped, [*groups, *spatial, *channels, *summed])


@lowering("conv_filter_grad")
def _(
    block: Block, e: Equation, x: Value, ct: Value, *, filter_shape: Any, strides: Any, padding: Any, dilation: Any
) -> Value:
    rank = len(strides)
    g, groups = _groups(x.shape, rank)
    shape = block.module.shape_of(e.outputs[0])
    wide = padded(block, x, padding, (1,) * rank, range(g + 1, g + rank + 1), e)
    windows = _windows(block.in_memory(wide), shape[g : g + rank], ct.shape[g + 1 : -1], strides, dilation)
    window: list[Letters] = [(shape[g + k], g + k, g + 1 + rank + k, None) for k in range(rank + 1)]
    filters: list[Letters] = [(shape[-1], g + rank + 1, None, g + rank + 1)]
    summed: list[Letters] = [(ct.shape[g + k], None, g + k, g + k) for k in range(rank + 1)]
    return contracted(block, e, windows, ct, [*groups, *window, *filters, *summed])


# -- windows and their adjoint ------------------------------------------------------------------------


@lowering("windows")
def _(block: Block, e: Equation, x: Value, **params: Any) -> Value:
    shape = block.module.shape_of(e.outputs[0])
    rank = len(params["strides"])
    strides, dilation = params["strides"], params["dilation"]

    def at(idx: Idx) -> Idx:
        spatial = [idx[1 + k] * strides[k] + idx[2 + rank + k] * dilation[k] for k in range(rank)]
        return (idx[0], *spatial, idx[1 + rank])

    return x.seen(shape, at)


@lowering("fold")
def _(block: Block, e: Equation, ct: Value, **params: Any) -> Value:
    """Each element of the answer gathers from the windows that it is in."""
    shape = block.module.shape_of(e.outputs[0])
    strides, dilation = params["strides"], params["dilation"]
    rank = len(strides)
    out, window = ct.shape[1 : rank + 1], ct.shape[rank + 2 :]
    everywhere = (*shape, *window)

    def element(read: Any, idx: Idx) -> Scalar:
        inside: Scalar = constant(True, "b1")
        place = []
        for k in range(rank):
            shift = Position("i64", idx[1 + k] - idx[2 + rank + k] * dilation[k])
            step = constant(strides[k], "i64")
            at = apply("floor_divide", shift, step)
            inside = inside & (shift >= 0) & apply("less", at, Position("i64", out[k]))
            if strides[k] > 1:
                inside = inside & apply("equal", apply("remainder", shift, step), constant(0, "i64"))
            clamped = apply("minimum", apply("maximum", at, constant(0, "i64")), Position("i64", out[k] - 1))
            place.append(index(Integer(clamped)))
        return select(inside, read(ct, (idx[0], *place, idx[1 + rank], *idx[2 + rank :])), constant(0, ct.dtype))

    spread = block.map(everywhere, ct.dtype, (ct,), element, 8, e.source)
    return block.reduce("add", spread, range(rank + 2, 2 * rank + 2), False, e.source)
