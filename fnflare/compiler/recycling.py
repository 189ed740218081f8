"""Large arrays written where others are read for the last time.

A module's body goes in with the buffers of its scratch memory; out comes one in which kernels that read an array for
the last time, element by element, write what they make in its place: one array less at a time, and one less that has to
come into the cache. The plan of the memory (`fnflare.compiler.memory`) then finds them one buffer.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from fnflare.compiler.in_place import Places, rebound
from fnflare.nest import Buffer, Run, Statement

__all__ = ["recycled"]

#: Smaller arrays than this one, in elements, are not worth a kernel of their own.
_LARGE = 1 << 17


def recycled(body: tuple[Statement, ...], scratch: AbstractSet[Buffer]) -> tuple[Statement, ...]:
    """Let kernels write into the memory of what they read for the last time.

    Args:
        body: of a module.
        scratch: the buffers that hold nothing before and after it.
    """
    large = {b for b in scratch if _is_large(b)}
    if not large:
        return body
    places = Places(body)
    renamed: dict[Buffer, Buffer] = {}
    for k, s in enumerate(body):
        if not isinstance(s, Run):
            continue
        # In the order of the parts: the same program is to be the same text in every process.
        here = [b for b in dict.fromkeys(part.buffer for part in s.parts) if b in large]
        dying = [b for b in here if places.last[b] == k and places.first[b] < k]
        for answer in [b for b in here if places.first[b] == k]:
            found = next((b for b in dying if _alike(b, answer) and places.fits(b, answer)), None)
            if found is not None:
                dying.remove(found)
                renamed[answer] = renamed.get(found, found)
    return rebound(body, renamed) if renamed else body


def _is_large(b: Buffer) -> bool:
    return b.size.constant is not None and b.size.constant >= _LARGE


def _alike(a: Buffer, b: Buffer) -> bool:
    return a.dtype == b.dtype and a.size == b.size
