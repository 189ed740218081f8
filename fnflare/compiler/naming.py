"""What kernels and buffers are called, and where the user wrote what they do.

Names of inputs, layers and primitives go in, names for print come out: they are part of nothing that makes two kernels
or two programs equal, and only the renderer to C makes them identifiers. Places become text when somebody reads it,
since looking up the number of a line takes longer than lowering it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fnflare.core import Source

__all__ = ["Places", "named", "of_input"]


class Places:
    """The lines that something computes, each once, as ``file:line`` with the layer around it and the line itself."""

    __slots__ = ("_sources",)

    def __init__(self, sources: Iterable[Source | None]) -> None:
        self._sources = tuple(sources)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([_place(s) for s in self._sources if s is not None]))


def _place(source: Source) -> str:
    layer = f", in {'/'.join(source.path)}" if source.path else ""
    phase = "" if source.phase == "forward" else f", {source.phase}"
    text = f": {source.text}" if source.text else ""
    return f"{source}{layer}{phase}{text}"


def named(source: Source | None, what: str) -> str:
    """What the answer of a primitive is called, and the kernel that computes it: by its layer and the primitive.

    >>> from fnflare.compiler.naming import named
    >>> named(None, "tanh")
    'tanh'
    """
    if source is None:
        return what
    if source.phase == "backward":
        what = f"{source.derivative_of or what}_grad"
    path = "_".join(source.path)
    return f"layer{path}_{what}" if path[:1].isdigit() else f"{path}_{what}" if path else what


def of_input(name: str) -> str:
    """What the buffer of an input is called: a leaf deep in an argument needs no name of that argument.

    >>> from fnflare.compiler.naming import of_input
    >>> of_input("params/lstm/forward/W"), of_input("params/W"), of_input("x"), of_input("")
    ('lstm_forward_W', 'params_W', 'x', 'in')
    """
    parts = name.split("/")
    path = "_".join(parts[1:] if len(parts) > 2 else parts)
    return f"layer{path}" if path[:1].isdigit() else path or "in"
