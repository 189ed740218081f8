"""Which layer is running: the names of the layers around it, from the outermost to the innermost.

Combinators put the name of each child on a stack before they call it, and take it off again whatever
happens. Errors read the stack to say in which layer they arose, `with_state` to know whose statistics
are asked for, `summary` to name its rows. The stack is per thread; reading it costs nothing but a look-up,
so that a small net called very often does not feel it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fnflare.core.scope import layer_names
from fnflare.tree import path_str

if TYPE_CHECKING:
    from fnflare.nn.state import StateStore
    from fnflare.nn.summarize import Recorder

__all__ = ["annotate", "local", "names", "path", "scope", "where"]


class _Local(threading.local):
    """What each thread knows of the layers it is running."""

    def __init__(self) -> None:
        self.names = layer_names()
        self.recorder: Recorder | None = None
        self.states: StateStore | None = None


local = _Local()


def names() -> list[str]:
    """The stack itself, for combinators to push to; who pushes must pop in ``finally``."""
    return local.names


def path() -> str:
    """The path of the layer that is running, such as ``"encoder/lstm"``; empty at the outermost layer."""
    return path_str(tuple(local.names))


def where() -> str:
    """How a message about the layer that is running starts: ``"in layer 'encoder/lstm': "``, or nothing at the top."""
    return f"in layer {path()!r}: " if local.names else ""


def annotate(error: BaseException) -> None:
    """Note on an error that leaves a layer in which layer it arose, unless it says so already."""
    said = [str(error), *getattr(error, "__notes__", ())]
    if not any(text.startswith("in layer ") for text in said):
        error.add_note(f"in layer {path()!r}")


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Name a part of a layer of your own.

    Layers that are called within have `name` in their path: in errors, in `summary`, and in the
    state of `with_state`. Combinators do this for their children.

    Args:
        name: the name of the part.

    >>> inner = ff.nn.Dense(3)
    >>> _, params = inner.init(ff.random.key(0), (-1, 5))
    >>> with ff.nn.scope("encoder"), ff.nn.scope("head"):
    ...     inner.apply(params, np.zeros((2, 4)))
    Traceback (most recent call last):
        ...
    fnflare.errors.ShapeError: in layer 'encoder/head': Dense expected inputs (..., 5), got (2, 4)
    """
    stack = local.names
    depth = len(stack)
    stack.append(str(name))
    try:
        yield
    except Exception as error:
        annotate(error)
        raise
    finally:
        del stack[depth:]


@contextmanager
def substituted(**attributes: Any) -> Iterator[None]:
    """Give attributes of `local` other values for a while."""
    before = {name: getattr(local, name) for name in attributes}
    for name, value in attributes.items():
        setattr(local, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(local, name, value)
