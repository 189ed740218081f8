"""The scratch memory of a library of C, which its caller provides: how much it is, and what lies where in it.

Buffers with lifetimes go in, expressions of C for their offsets come out. Buffers whose size is known are planned
ahead; those whose size is known only when the code runs share places with others that are never in use together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fnflare.compiler.c99.layout import Lines
from fnflare.compiler.c99.literals import C_TYPES
from fnflare.compiler.memory import ALIGNMENT, plan
from fnflare.nest import DTYPES, Buffer, Index, Size

__all__ = ["Workspace"]

#: What a size that is not known is taken to be where buffers are compared.
_TYPICAL = 1000


class Workspace:
    """Where scratch buffers lie.

    Attributes:
        offsets: for each buffer the expression of C for the bytes before it.
        total: the number of bytes that buffers of known sizes take together.
        places: for each place of the others the buffers that share it, which lie in ``offsets[k]`` of C.
    """

    def __init__(self, buffers: Sequence[Buffer], lifetimes: dict[Buffer, tuple[int, int]]) -> None:
        known = [b for b in buffers if b.size.constant is not None]
        sizes = [(b.size.constant or 0) * DTYPES[b.dtype].itemsize for b in known]
        planned, self.total = plan([(n, *lifetimes[b]) for b, n in zip(known, sizes, strict=True)])
        self.offsets = {b: str(offset) for b, offset in zip(known, planned, strict=True)}
        self.places: list[list[Buffer]] = []
        for b in sorted([b for b in buffers if b not in self.offsets], key=_typical_bytes, reverse=True):
            self._place(b, lifetimes)

    def _place(self, b: Buffer, lifetimes: dict[Buffer, tuple[int, int]]) -> None:
        first, last = lifetimes[b]
        free = [all(lifetimes[o][1] < first or last < lifetimes[o][0] for o in place) for place in self.places]
        number = free.index(True) if True in free else len(self.places)
        if number == len(self.places):
            self.places.append([])
        self.places[number].append(b)
        self.offsets[b] = f"offsets[{number}]"

    def layout(self, name: str, sizes: Sequence[Size], named: Callable[[Index], str], parameters: str) -> str:
        """The functions that tell how many bytes are needed, and fill in the offsets that depend on sizes."""
        lines = Lines()
        if not self.places:
            with lines.block(f"size_t {name}_workspace({parameters})"):
                lines.done += [f"    (void){named(_as_index(s))};" for s in sizes]
                # The caller's memory may begin anywhere, the first buffer begins at a multiple of the alignment.
                lines.add(f"return {self.total + ALIGNMENT if self.total else 0};")
            return "\n".join(lines.done)
        used = {a for place in self.places for b in place for a in b.size.atoms()}
        with lines.block(f"static size_t {name}_layout(size_t *offsets, {parameters})"):
            lines.done += [f"    (void){named(_as_index(s))};" for s in sizes if s not in used]
            lines.add(f"size_t end = {self.total};")
            for number, place in enumerate(self.places):
                lines.add(f"offsets[{number}] = end;")
                texts = [f"(size_t)({named(b.size)}) * sizeof({C_TYPES[b.dtype]})" for b in place]
                texts = list(dict.fromkeys(texts))
                if len(texts) == 1:
                    lines.add(f"end += ({texts[0]} + {ALIGNMENT - 1}) / {ALIGNMENT} * {ALIGNMENT};")
                    continue
                with lines.block(""):
                    lines.add(f"size_t bytes = {texts[0]};")
                    for t in texts[1:]:
                        lines.add(f"if (bytes < {t}) bytes = {t};")
                    lines.add(f"end += (bytes + {ALIGNMENT - 1}) / {ALIGNMENT} * {ALIGNMENT};")
            lines.add("return end;")
        given = ", ".join(named(_as_index(s)) for s in sizes)
        lines.done.append("")
        with lines.block(f"size_t {name}_workspace({parameters})"):
            lines.add(f"size_t offsets[{len(self.places)}];")
            lines.add(f"return {name}_layout(offsets, {given}) + {ALIGNMENT};")
        return "\n".join(lines.done)


def _as_index(s: Size) -> Index:
    return Index({(s,): 1})


def _typical_bytes(b: Buffer) -> int:
    sizes = {a: Index({(): _TYPICAL}) for a in b.size.atoms() if isinstance(a, Size)}
    return (b.size.replace(sizes).constant or 0) * DTYPES[b.dtype].itemsize  # type: ignore[arg-type]
