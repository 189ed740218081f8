"""What the renderer asks about the processor: how wide its vectors are and what it does in one instruction."""

from __future__ import annotations

from dataclasses import dataclass

from fnflare.compiler.llvm import engine

__all__ = ["Target", "target"]


@dataclass(frozen=True, slots=True)
class Target:
    """A processor.

    Attributes:
        bits: the width of a vector register.
        fma: whether it multiplies and adds in one instruction.
        masked: the widths of the numbers of which it loads and stores some lanes alone in one instruction.
    """

    bits: int
    fma: bool
    masked: frozenset[int]


def target(bits: int | None = None) -> Target:
    """The processor of this process, or one like it with registers of another width."""
    triple, _, listed = engine.machine()
    features = set(listed.split(","))
    arm = triple.startswith(("aarch64", "arm64"))
    masked: set[int] = set()
    if "+avx" in features:
        masked |= {32, 64}
    if {"+avx512bw", "+avx512vl"} <= features:
        masked |= {8, 16}
    if bits is None:
        bits = 512 if "+avx512f" in features else 256 if "+avx" in features else 128
    return Target(bits, arm or "+fma" in features, frozenset(masked))
