"""Modules of loop nests as modules of LLVM's language.

Lowering's `Module` goes in, text comes out that `fnflare.compiler.llvm.engine` compiles: a function that is given the
buffers and the sizes, and internal functions for the kernels and the products of matrices that it calls.
"""

from __future__ import annotations

from fnflare.compiler.llvm.body import Program, render_body
from fnflare.compiler.llvm.target import target
from fnflare.compiler.llvm.threads import add_share
from fnflare.compiler.llvm.writer import Library
from fnflare.nest import Module

__all__ = ["render"]


def render(
    module: Module,
    name: str = "main",
    width_bits: int | None = None,
    threads: bool = False,
    blas: bool = False,
) -> str:
    """A module in LLVM's language.

    Args:
        module: what is to be compiled.
        name: what its function is called: ``void name(ptr buffers, ptr sizes)``, where `buffers` is an array of
            pointers, one for each of ``module.buffers``, and `sizes` one of 64-bit integers, one for each of
            ``module.sizes``.
        width_bits: how wide the vectors are; by default as wide as the processor's registers.
        threads: whether to share work out among the threads of OpenMP's runtime, which has to be there then.
        blas: whether to leave large products of matrices to BLAS, whose functions have to be there then.

    Returns:
        The text.

    Raises:
        TypeError: an operation is not defined for the type of its arguments.
    """
    library = Library()
    add_share(library, threads)
    program = Program(module, library, target(width_bits), threads, blas)
    main = render_body(program, name)
    return main + library.text()
