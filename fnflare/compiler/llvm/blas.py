"""Contractions that BLAS does: products of matrices that are large and lie in memory as it wants them.

Simplified loops go in; a `Product` says how `cblas_?gemm` is to be called and for which loops around it, and `call`
writes that as an LLVM function. What is no such product, or small, runs in our own kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fnflare.compiler.llvm.contract_loops import estimate, kind, swapped, volume
from fnflare.compiler.llvm.text import Text, Value
from fnflare.nest import ContractLoop, Index, nonnegative

__all__ = ["BLAS_LEAST", "BLAS_TURNS", "Product", "call", "pays", "product"]

#: BLAS is worth its call where each of its three loops has at least so many turns, and all together so many.
BLAS_LEAST, BLAS_TURNS = 32, 200**3
#: Its numbers have 32 bits.
_MOST = 2**31 - 1

_ROW_MAJOR, _AS_IT_LIES, _TRANSPOSED = 101, 111, 112
_LETTERS = {"f32": ("s", "float"), "f64": ("d", "double")}


@dataclass(frozen=True, slots=True)
class Product:
    """A product of matrices, C = A B, for all turns of some loops.

    Attributes:
        swapped: whether A is the second operand; C is then the transpose of what the loops say.
        m: the loop over rows of C.
        n: the loop over columns of C, which lie side by side.
        k: the sum.
        transposed: for A and for B, whether the columns, not the rows, are without gaps.
        batch: the loops around.
    """

    swapped: bool
    m: ContractLoop
    n: ContractLoop
    k: ContractLoop
    transposed: tuple[bool, bool]
    batch: tuple[ContractLoop, ...]


def product(loops: tuple[ContractLoop, ...], dtype: str) -> Product | None:
    """How BLAS would do it; None where it cannot."""
    sums = [x for x in loops if x.out == 0]
    if dtype not in _LETTERS or len(sums) != 1 or any(x.extent == 0 for x in loops):
        return None
    found = [_product(loops, False), _product(swapped(loops), True)]
    return max((p for p in found if p), key=lambda p: volume([p.m, p.n, p.k]), default=None)


def _product(loops: tuple[ContractLoop, ...], swap: bool) -> Product | None:
    columns = [x for x in loops if kind(x) == "column" and x.out == 1]
    rows = [x for x in loops if kind(x) == "row" and x.a != 0]
    (k,) = [x for x in loops if x.out == 0]
    for n in columns:
        for m in sorted(rows, key=lambda x: -estimate(x.extent)):
            a, b = _layout(m.extent, m.a, k.extent, k.a), _layout(k.extent, k.b, n.extent, n.b)
            fits = all((x.constant or 0) <= _MOST for one in (m, n, k) for x in (one.extent, one.out, one.a, one.b))
            if a is not None and b is not None and nonnegative(m.out - n.extent) and fits:
                batch = tuple([x for x in loops if x not in (m, n, k)])
                return Product(swap, m, n, k, (a, b), batch)
    return None


def _layout(rows: Index, down: Index, columns: Index, across: Index) -> bool | None:
    """Whether a matrix lies transposed; None where BLAS cannot take it."""
    if across == 1 and nonnegative(down - columns):
        return False
    if down == 1 and nonnegative(across - rows):
        return True
    return None


def pays(p: Product) -> bool:
    """Whether BLAS does one product faster than our own kernels would."""
    loops = p.m, p.n, p.k
    return min(estimate(x.extent) for x in loops) >= BLAS_LEAST and volume(loops) >= BLAS_TURNS


def call(
    name: str, p: Product, dtype: str, accumulate: bool, value: Callable[[Index], Value], sizes: int
) -> tuple[str, tuple[str, ...]]:
    """The function that calls BLAS, and what it declares.

    Args:
        name: of the function.
        p: what to call.
        dtype: of the operands.
        accumulate: whether to add to what the answer holds.
        value: an index as a number, or the name of the argument that holds it.
        sizes: how many such arguments there are.
    """
    letter, element = _LETTERS[dtype]
    text = Text()

    def integer(x: Index) -> str:
        number = value(x)
        return f"i32 {number}" if isinstance(number, int) else f"i32 {text.let(f'trunc i64 {number} to i32')}"

    def nest(level: int, out: str, a: str, b: str) -> None:
        if level < len(p.batch):
            loop = p.batch[level]

            def turn(i: Value, _: list[str]) -> list[str]:
                strides = [value(s) for s in (loop.out, loop.a, loop.b)]
                moved = zip((out, a, b), strides, strict=True)
                nest(level + 1, *[text.at(x, element, text.multiply(i, s)) for x, s in moved])
                return []

            text.repeat(value(loop.extent), [], turn)
            return
        order = [f"i32 {_TRANSPOSED if t else _AS_IT_LIES}" for t in p.transposed]
        lda, ldb = p.k.a if p.transposed[0] else p.m.a, p.n.b if p.transposed[1] else p.k.b
        extents = [integer(x.extent) for x in (p.m, p.n, p.k)]
        left = [f"{element} 1.0", f"ptr {a}", integer(lda), f"ptr {b}", integer(ldb)]
        right = [f"{element} {1.0 if accumulate else 0.0}", f"ptr {out}", integer(p.m.out)]
        arguments = ", ".join([f"i32 {_ROW_MAJOR}", *order, *extents, *left, *right])
        text.line(f"call void @cblas_{letter}gemm({arguments})")

    nest(0, "%out", *(("%b", "%a") if p.swapped else ("%a", "%b")))
    text.line("ret void")
    given = ", ".join(["ptr noalias %out", "ptr %a", "ptr %b", *[f"i64 %s{n}" for n in range(sizes)]])
    kinds = ", ".join(["i32"] * 6 + [element, "ptr", "i32", "ptr", "i32", element, "ptr", "i32"])
    definition = "\n".join([f"define internal void @{name}({given}) nounwind {{", *text.lines, "}"])
    return definition, (f"declare void @cblas_{letter}gemm({kinds})",)
