"""Reductions, and the functions that are made of them: softmax and its kin become a few runs over each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fnflare.compiler.block import Block, NotLowered, lowering, machine_type
from fnflare.compiler.bodies import sizes_in, sizes_of
from fnflare.compiler.graph import Place, Value, indices
from fnflare.nest import (
    Axis,
    Buffer,
    Element,
    Index,
    Kernel,
    Loop,
    Part,
    Position,
    Scalar,
    Store,
    apply,
    constant,
    index,
    select,
)
from fnflare.program.ir import Equation

__all__: list[str] = []


@lowering("sum")
def _(block: Block, e: Equation, x: Value, *, axes: tuple[int, ...], keepdims: bool) -> Value:
    dtype = machine_type(e.outputs[0].aval.dtype)
    return block.reduce("add", block.cast(x, dtype), axes, keepdims, e.source)


@lowering("prod")
def _(block: Block, e: Equation, x: Value, *, axes: tuple[int, ...], keepdims: bool) -> Value:
    dtype = machine_type(e.outputs[0].aval.dtype)
    return block.reduce("multiply", block.cast(x, dtype), axes, keepdims, e.source)


@lowering("max", "min")
def _(block: Block, e: Equation, x: Value, *, axes: tuple[int, ...], keepdims: bool) -> Value:
    op = {"max": "maximum", "min": "minimum"}[e.prim.name]
    if x.dtype == "b1":
        op = {"maximum": "or", "minimum": "and"}[op]
    return block.reduce(op, x, axes, keepdims, e.source)


@lowering("any", "all")
def _(block: Block, e: Equation, x: Value, *, axes: tuple[int, ...], keepdims: bool) -> Value:
    return block.reduce("or" if e.prim.name == "any" else "and", block.cast(x, "b1"), axes, keepdims, e.source)


@lowering("argmax", "argmin")
def _(block: Block, e: Equation, x: Value, *, axis: int, keepdims: bool) -> Value:
    """The first position of the extreme, or of a NaN where there is one."""
    op = "maximum" if e.prim.name == "argmax" else "minimum"
    if x.dtype == "b1":
        x = block.cast(x, "u8")
    axis %= len(x.shape)
    best = block.reduce(op, x, (axis,), True, e.source).broadcast(x.shape)
    after = x.shape[axis]

    def position(read: Any, idx: Any) -> Scalar:
        a, b = read(x, idx), read(best, idx)
        wins = apply("equal", a, b)
        if a.dtype[0] == "f":
            wins = wins | apply("not_equal", a, a)
        return select(wins, Position("i64", idx[axis]), Position("i64", after))

    places = block.map(x.shape, "i64", (x, best), position, 2, e.source)
    return block.reduce("minimum", places, (axis,), keepdims, e.source)


# -- softmax and its kin --------------------------------------------------------------------------


def _axes(x: Value, axis: Any) -> tuple[int, ...]:
    rank = len(x.shape)
    axes = range(rank) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(a % rank for a in axes))


def _shifted(block: Block, e: Equation, x: Value, axes: tuple[int, ...]) -> tuple[Value, Value]:
    """x less its maximum along axes, and that maximum; 0 stands for one that is infinite."""
    if x.dtype[0] != "f":
        raise NotLowered(f"{e.prim.name} of {x.dtype}")
    top = block.reduce("maximum", x, axes, True, e.source)

    def finite(a: Scalar) -> Scalar:
        infinite = apply("less", apply("absolute", a), constant(float("inf"), a.dtype))
        return select(infinite, a, constant(0, a.dtype))

    top = block.elementwise(x.dtype, (top,), finite, 2, e.source)
    return block.elementwise(x.dtype, (x, top), lambda a, b: a - b, 1, e.source), top


def _function(block: Block, e: Equation, op: str, x: Value) -> Value:
    return block.elementwise(x.dtype, (x,), lambda a: apply(op, a), 15, e.source)


@lowering("softmax")
def _(block: Block, e: Equation, x: Value, *, axis: Any) -> Value:
    axes = _axes(x, axis)
    shifted, _ = _shifted(block, e, x, axes)
    powers = _function(block, e, "exp", shifted)
    total = block.reduce("add", powers, axes, True, e.source)
    scale = block.elementwise(x.dtype, (total,), lambda s: constant(1, s.dtype) / s, 4, e.source)
    return block.elementwise(x.dtype, (powers, scale), lambda p, s: p * s, 1, e.source)


@lowering("log_softmax")
def _(block: Block, e: Equation, x: Value, *, axis: Any) -> Value:
    axes = _axes(x, axis)
    shifted, _ = _shifted(block, e, x, axes)
    total = block.reduce("add", _function(block, e, "exp", shifted), axes, True, e.source)
    return block.elementwise(x.dtype, (shifted, _function(block, e, "log", total)), lambda a, b: a - b, 1, e.source)


@lowering("logsumexp")
def _(block: Block, e: Equation, x: Value, *, axis: Any) -> Value:
    axes = _axes(x, axis)
    shifted, top = _shifted(block, e, x, axes)
    total = block.reduce("add", _function(block, e, "exp", shifted), axes, True, e.source)
    return block.elementwise(x.dtype, (_function(block, e, "log", total), top), lambda a, b: a + b, 1, e.source)


# -- running sums and products ----------------------------------------------------------------------


@lowering("cumsum")
def _(block: Block, e: Equation, x: Value, *, axis: int) -> Value:
    return _running(block, e, "running_sum", (x,), axis, False, lambda before, a: apply("add", before, a))


@lowering("cumprod")
def _(block: Block, e: Equation, x: Value, *, axis: int) -> Value:
    return _running(block, e, "running_product", (x,), axis, False, lambda before, a: apply("multiply", before, a))


@lowering("recurrence")
def _(block: Block, e: Equation, a: Value, b: Value, *, axis: int, reverse: bool) -> Value:
    def step(before: Scalar, b: Scalar, a: Scalar) -> Scalar:
        return apply("add", apply("multiply", a, before), b)

    return _running(block, e, "recurrence", (b, a), axis, reverse, step)


def _running(
    block: Block,
    e: Equation,
    name: str,
    args: Sequence[Value],
    axis: int,
    reverse: bool,
    step: Callable[..., Scalar],
) -> Value:
    """An array whose first element along an axis is that of the first argument, and every other made by `step` of the
    one before it and the arguments' elements; from the end where `reverse`."""
    out = e.outputs[0]
    shape, dtype = args[0].shape, machine_type(out.aval.dtype)
    sources = [block.in_memory(block.cast(x, dtype)) for x in args]
    axis %= len(shape)
    target = block.stored(shape, dtype, block.target(out), e.source)

    def emit() -> list[Any]:
        places = [s.place() for s in sources]
        reads = [Buffer(n, dtype, index(0), "parameter") for n in ("x", "a")[: len(sources)]]
        write = Buffer("y", dtype, index(0), "parameter")
        axes = [Axis(f"i{k}", n) for k, n in enumerate(shape)]
        turn = Axis("t", shape[axis] - 1)

        def along(k: Index) -> tuple[Index, ...]:
            return tuple([k if i == axis else n for i, n in enumerate(indices(axes))])

        def at(buffer: Buffer, place: Place | None, idx: Any) -> Element:
            assert place is not None
            return Element(dtype, buffer, sum((i * s for i, s in zip(idx, place.strides, strict=True)), index(0)))

        last = shape[axis] - 1
        t = index(turn)
        first, before, here = [along(last - k if reverse else k) for k in (index(0), t, t + 1)]
        y = target.place
        elements = [at(r, p, here) for r, p in zip(reads, places, strict=True)]
        made = step(at(write, y, before), *elements)
        body: list[Any] = [
            Store(write, at(write, y, first).index, at(reads[0], places[0], first)),
            Loop(turn, (Store(write, at(write, y, here).index, made),)),
        ]
        others = [i for k, i in enumerate(axes) if k != axis and i.extent != 1]
        for i in reversed(others[1:]):
            body = [Loop(i, tuple(body))]
        outer = others[0] if others else None
        sizes = dict.fromkeys((*sizes_of(body), *(sizes_in([outer.extent]) if outer else ())))
        kernel = Kernel(name, (*reads, write), tuple(sizes), outer, tuple(body))
        parts = [Part(p.buffer, p.start) for p in (*places, y) if p is not None]
        return [block.module.kernels.run(kernel, parts, [index(s) for s in sizes])]

    block.action(sources, [target], emit, e.source)
    return Value(target)
