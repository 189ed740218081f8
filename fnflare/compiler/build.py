"""From a lowered program to one that can be called.

Loop nests become LLVM's text, the text code in memory (`fnflare.compiler.object_code`), which a function of arrays is
put around (`fnflare.compiler.executable`). Equal texts are compiled and loaded once, however many programs they stand
for: the values of constants and what becomes of the answers are not in the code.
"""

from __future__ import annotations

import functools

from fnflare.compiler.executable import ENTRY, Executable
from fnflare.compiler.llvm import engine
from fnflare.compiler.lowered import Lowered
from fnflare.compiler.object_code import code_of
from fnflare.kernels import mkl

__all__ = ["abilities", "build", "text_of"]


def build(lowered: Lowered) -> Executable:
    """Compile a lowered program, or find its code where it was compiled before.

    Raises:
        RuntimeError: LLVM does not accept the program's text.
        TypeError: an operation of it is not defined for the type of its arguments.
    """
    return Executable(lowered, code_of(text_of(lowered)))


def text_of(lowered: Lowered) -> str:
    """A lowered program in LLVM's language.

    Raises:
        TypeError: an operation of it is not defined for the type of its arguments.
    """
    from fnflare.compiler.llvm.render import render  # not needed where code is found

    threads, blas = abilities()
    return render(lowered.module, ENTRY, threads=threads, blas=blas)


def abilities() -> tuple[bool, bool]:
    """Whether there are OpenMP's threads, and whether there is a BLAS."""
    symbols = _symbols()
    return "__kmpc_fork_call" in symbols, mkl.enabled() and "cblas_sgemm" in symbols


@functools.cache
def _symbols() -> frozenset[str]:
    """Let code find the functions of libraries that it calls; their names."""
    symbols = mkl.native_symbols()
    for name, address in symbols.items():
        engine.add_symbol(name, address)
    return frozenset(symbols)
