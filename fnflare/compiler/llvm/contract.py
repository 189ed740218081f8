"""Contractions as LLVM functions: products of matrices, convolutions, their gradients.

A `Contract` goes in, the text of a function that runs it comes out, and which run-time sizes it takes. Loops are
simplified first, so that contractions that differ only in how they were written are one function.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, replace

from fnflare.compiler.llvm import engine
from fnflare.compiler.llvm.blas import Product, call, pays, product
from fnflare.compiler.llvm.contract_loops import simplified
from fnflare.compiler.llvm.microkernel import kernel
from fnflare.compiler.llvm.text import Value
from fnflare.compiler.llvm.tiles import Machine, plan
from fnflare.nest import DTYPES, Contract, ContractLoop, Index, Size, index

__all__ = ["Contraction", "contraction", "uses_blas"]


@dataclass(frozen=True, slots=True)
class Contraction:
    """A function that runs a contraction.

    Attributes:
        name: of the function, which is ``void name(ptr out, ptr a, ptr b, i64 size, ...)``; equal contractions have
            equal names.
        definition: the function and what belongs to it, in LLVM's language, all of it internal. It may call
            ``void share(ptr body, ptr context, i64 extent, i64 least)``, which runs ``void body(ptr context, i64 begin,
            i64 end)`` over all turns from 0 to below the extent, at least so many at a time, and which the module
            defines.
        declarations: the other functions that it calls, a line each.
        sizes: what is to be given for the sizes.
    """

    name: str
    definition: str
    declarations: tuple[str, ...]
    sizes: tuple[Index, ...]


def contraction(contract: Contract, blas: bool = False, machine: Machine | None = None) -> Contraction:
    """Write a contraction as a function.

    Args:
        contract: what is to be computed.
        blas: whether there is a BLAS, which then does what it does faster: ``cblas_sgemm`` and ``cblas_dgemm`` with
            integers of 32 bits.
        machine: the processor's vectors; by default those of this one.
    """
    loops = simplified(contract.loops)
    found = _product(loops, contract.out.buffer.dtype) if blas else None
    sizes: dict[Index, Index] = {}
    numbered = tuple([_numbered(x, sizes) for x in loops])
    if found is not None:
        m, n, k = [_numbered(x, sizes) for x in (found.m, found.n, found.k)]
        found = replace(found, m=m, n=n, k=k, batch=tuple([_numbered(x, sizes) for x in found.batch]))
    machine = machine or Machine.of(engine.machine()[2])
    key = _Key(contract.out.buffer.dtype, numbered, contract.accumulate, machine, len(sizes), found)
    name, definition, declarations = _written(key)
    return Contraction(name, definition, declarations, tuple(sizes))


def uses_blas(contract: Contract) -> bool:
    """Whether BLAS, where there is one, does a contraction."""
    return _product(simplified(contract.loops), contract.out.buffer.dtype) is not None


def _product(loops: tuple[ContractLoop, ...], dtype: str) -> Product | None:
    found = product(loops, dtype)
    return found if found is not None and pays(found) else None


def _numbered(loop: ContractLoop, sizes: dict[Index, Index]) -> ContractLoop:
    """A loop whose unknown numbers are called by the order in which they come."""

    def known(value: Index) -> Index:
        if value.constant is not None:
            return value
        return sizes.setdefault(value, index(Size(f"s{len(sizes)}")))

    return ContractLoop(known(loop.extent), known(loop.out), known(loop.a), known(loop.b))


class _Key:
    """What a function is made of; its text tells it from others."""

    def __init__(
        self,
        dtype: str,
        loops: tuple[ContractLoop, ...],
        accumulate: bool,
        machine: Machine,
        sizes: int,
        product: Product | None,
    ) -> None:
        self.dtype, self.loops, self.accumulate, self.machine = dtype, loops, accumulate, machine
        self.sizes, self.product = sizes, product
        turns = "; ".join(f"{x.extent}: {x.out}, {x.a}, {x.b}" for x in loops)
        self.text = f"{dtype} {'+=' if accumulate else '='} {turns} {f'by {product}' if product else f'on {machine}'}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@functools.lru_cache(maxsize=1024)
def _written(key: _Key) -> tuple[str, str, tuple[str, ...]]:
    name = f"contract_{hashlib.sha256(key.text.encode()).hexdigest()[:16]}"
    if any(x.extent == 0 and x.out != 0 for x in key.loops):
        return name, f"define internal void @{name}(ptr %out, ptr %a, ptr %b) nounwind {{\n  ret void\n}}", ()
    if key.product is not None:
        return name, *call(name, key.product, key.dtype, key.accumulate, _value, key.sizes)
    kind = DTYPES[key.dtype]
    best = plan(key.loops, kind.itemsize, kind.kind == "f", key.machine)
    written = kernel(name, best, key.dtype, key.accumulate, _value, key.sizes)
    return name, written.definition, written.declarations


def _value(value: Index) -> Value:
    known = value.constant
    return f"%{value}" if known is None else known
