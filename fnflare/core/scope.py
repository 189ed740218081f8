"""The names of the layers that are running, outermost first.

Layers push their names here while they run (see `fnflare.nn.scoping`); what an operation is said to belong to in
a program, a profile or an error is read here. The stack is per thread.
"""

from __future__ import annotations

import threading

__all__ = ["layer_names"]


class _Local(threading.local):
    def __init__(self) -> None:
        self.names: list[str] = []


_local = _Local()


def layer_names() -> list[str]:
    """The stack itself, to push to; who pushes must pop in ``finally``."""
    return _local.names
