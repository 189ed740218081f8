"""Sums of products as functions of LLVM's language: plain loops, for where nothing quicker is there."""

from __future__ import annotations

from typing import NamedTuple

from fnflare.compiler.llvm.kernels import render_kernel
from fnflare.compiler.llvm.target import target
from fnflare.compiler.llvm.writer import Library
from fnflare.nest import (
    Accumulator,
    Axis,
    Buffer,
    Contract,
    Element,
    Index,
    Kernel,
    Local,
    Loop,
    Size,
    Statement,
    Store,
    Update,
    index,
)

__all__ = ["Contraction", "contraction"]


class Contraction(NamedTuple):
    """A function ``void name(ptr out, ptr a, ptr b, i64 ...sizes)`` that does a `Contract`.

    Attributes:
        name: what it is called; the same for functions that are the same.
        definition: its text.
        declarations: what it calls.
        sizes: what it is given beside the operands.
    """

    name: str
    definition: str
    declarations: tuple[str, ...]
    sizes: tuple[Index, ...]


def contraction(contract: Contract) -> Contraction:
    """A function that does a `Contract`."""
    dtype = contract.out.buffer.dtype
    free = [loop for loop in contract.loops if loop.out != 0]
    summed = [loop for loop in contract.loops if loop.out == 0]
    sizes = tuple(i for loop in (*free, *summed) for i in (loop.extent, loop.out, loop.a, loop.b))
    names = [Size(f"s{k}") for k in range(len(sizes))]
    axes = [Axis(f"i{k}", index(names[4 * k])) for k in range(len(contract.loops))]
    places = [Index({})] * 3
    for k, axis in enumerate(axes):
        places = [p + index(axis) * index(names[4 * k + 1 + j]) for j, p in enumerate(places)]
    buffers = [Buffer(n, dtype, index(1), "parameter") for n in ("out", "a", "b")]
    out, a, b = (Element(dtype, buffer, p) for buffer, p in zip(buffers, places, strict=True))
    where = out.index.replace({axis: index(0) for axis in axes[len(free) :]})
    inner: tuple[Statement, ...] = (Update("sum", a * b),)
    for axis in reversed(axes[len(free) :]):
        inner = (Loop(axis, inner),)
    total = Local(dtype, "sum") + Element(dtype, buffers[0], where) if contract.accumulate else Local(dtype, "sum")
    body: tuple[Statement, ...] = (Accumulator("sum", "add", dtype), *inner, Store(buffers[0], where, total))
    for axis in reversed(axes[: len(free)]):
        body = (Loop(axis, body),)
    name = f"contract.{dtype}.{len(free)}.{len(summed)}.{int(contract.accumulate)}"
    kernel, library = Kernel("contract", tuple(buffers), tuple(names), None, body), Library()
    return Contraction(name, render_kernel(kernel, name, library, target()), tuple(library.declarations), sizes)
