"""Random words: the rounds of Philox as integer arithmetic, a block of four words at a time.

The streams are those of `fnflare.kernels.philox`, bit for bit; see there for what the words of a counter mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.compiler.block import Block, NotLowered, lowering
from fnflare.compiler.graph import Place, Stored, Value
from fnflare.kernels import philox
from fnflare.nest import (
    Axis,
    Buffer,
    Element,
    Index,
    Kernel,
    Local,
    Part,
    Position,
    Scalar,
    Store,
    apply,
    cast,
    constant,
    index,
    product,
    select,
)
from fnflare.nest import Let as Named
from fnflare.program.ir import Equation

__all__: list[str] = []

_LANES = 4


def _rounds(counter: list[Scalar], key: tuple[Scalar, Scalar]) -> tuple[list[Named], list[Scalar]]:
    """Ten rounds on a counter of four words, each word of each round a name of its own."""
    a, b, c, d = counter
    k, m = key
    lets: list[Named] = []

    def named(name: str, value: Scalar) -> Scalar:
        lets.append(Named(name, value))
        return Local("u64", name)

    for n in range(philox.ROUNDS):
        first, second = (constant(f, "u64") for f in philox.MULTIPLIERS)
        high = apply("multiply_high", c, second) ^ b ^ k
        other = apply("multiply_high", a, first) ^ d ^ m
        a, b, c, d = (
            named(f"a{n}", high),
            named(f"b{n}", c * second),
            named(f"c{n}", other),
            named(f"d{n}", a * first),
        )
        k, m = k + constant(philox.WEYL[0], "u64"), m + constant(philox.WEYL[1], "u64")
    return lets, [a, b, c, d]


def _streams(
    block: Block,
    e: Equation,
    key: Value,
    count: int,
    domain: int,
    reads: list[Value],
    data: Callable[[list[Buffer], list[Place], Index], tuple[Scalar, Scalar]],
) -> Value:
    """The first words of the stream of each of many keys, for two words of data."""
    rows = product(key.shape[:-1])
    if rows.constant is None:
        raise NotLowered(f"{e.prim.name} of keys whose number is given at run time")
    blocks = -(-count // _LANES)
    width = blocks * _LANES  # whole blocks are written; what is beyond the count is never read
    buffer = block.module.allocate((rows, index(width)), "u64", "words").buffer
    place = Place(buffer, index(0), (*[s * width for s in _rows_of(key)], index(1)))
    out = Stored((*key.shape[:-1], index(count)), "u64", place, e.source)
    inputs = [block.in_memory(key.reshaped((rows, index(2)))), *reads]

    def emit() -> list[Any]:
        places = [p for p in (v.place() for v in inputs) if p is not None]
        buffers = [Buffer(f"x{k}", v.dtype, index(0), "parameter") for k, v in enumerate(inputs)]
        target = Buffer("y", "u64", index(0), "parameter")
        turn = Axis("block", rows * blocks)
        row, number = index(turn) // blocks, index(turn) % blocks
        words = [Element("u64", buffers[0], places[0].offset((row, index(k)))) for k in (0, 1)]
        low, high = data(buffers[1:], places[1:], row)
        counter = [Position("u64", number + 1), low, high, constant(domain, "u64")]
        lets, lanes = _rounds(counter, (words[0], words[1]))
        stores = [Store(target, index(turn) * _LANES + k, x) for k, x in enumerate(lanes)]
        kernel = Kernel("philox", (target, *buffers), (), turn, (*lets, *stores), work=index(100))
        bound = [Part(buffer, index(0)), *[Part(p.buffer, p.start) for p in places]]
        return [block.module.kernels.run(kernel, bound, [])]

    block.action(inputs, [out], emit, e.source)
    return Value(out)


def _rows_of(key: Value) -> list[Index]:
    """How many keys each step along the axes in front of a key skips."""
    out: list[Index] = []
    step = index(1)
    for n in reversed(key.shape[:-1]):
        out.append(step)
        step = step * n
    return out[::-1]


@lowering("random_words")
def _(block: Block, e: Equation, key: Value, *, domain: int, data: int, count: int) -> Value:
    mask = 2**64 - 1
    low, high = (constant(np.uint64(part), "u64") for part in (data & mask, (data >> 64) & mask))
    return _streams(block, e, key, count, domain, [], lambda buffers, places, row: (low, high))


@lowering("random_fold")
def _(block: Block, e: Equation, key: Value, data: Value) -> Value:
    if data.shape or len(key.shape) != 1:
        raise NotLowered("random_fold of many keys or numbers")
    number = block.in_memory(data)

    def halves(buffers: list[Buffer], places: list[Place], row: Index) -> tuple[Scalar, Scalar]:
        x = Element(number.dtype, buffers[0], places[0].offset(()))
        ones = constant(np.uint64(2**64 - 1), "u64")
        zero = constant(0, "u64")
        negative = select(apply("less", x, constant(0, x.dtype)), ones, zero) if x.dtype[0] == "i" else zero
        return cast(x, "u64"), negative

    return _streams(block, e, key, 2, philox.FOLD, [number], halves)


@lowering("random_pieces")
def _(block: Block, e: Equation, words: Value, *, dtype: np.dtype[Any], count: int) -> Value:
    """The same memory, read as narrower numbers: the low bits come first on the machines that code is made for."""
    from fnflare.compiler.block import machine_type

    stored = block.in_memory(words)
    narrow = machine_type(np.dtype(dtype))
    ratio = 8 // np.dtype(dtype).itemsize
    shape = block.module.shape_of(e.outputs[0])
    source = stored.node
    if not stored.plain or source.place is None or source.place.strides[-1] != 1:
        raise NotLowered("random_pieces of words that do not lie one after the other")
    wide = source.place
    place = Place(wide.buffer, wide.start * ratio, (*[s * ratio for s in wide.strides[:-1]], index(1)))
    out = Stored(shape, narrow, place, e.source)
    out.after.append(source)
    return Value(out)
