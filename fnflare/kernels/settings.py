"""Settings that a thread may have of its own for a block, beside those of the process.

Settings are a `threading.local` whose class has the process's values as attributes; a block gives its thread values
of its own, which hide them, and takes them away again. `fnflare.config` and `fnflare.kernels.mkl` each keep theirs so.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["of_thread", "place_of"]


@contextlib.contextmanager
def of_thread(settings: threading.local, *names: str) -> Iterator[None]:
    """A block in which this thread has settings of its own, as they are when it begins; after it they are what they
    were before."""
    own = vars(settings)
    before = own.copy()
    own.update({name: getattr(settings, name) for name in names})
    try:
        yield
    finally:
        own.clear()
        own.update(before)


def place_of(settings: threading.local) -> Any:
    """What to set an attribute of: this thread's settings in a block, outside of one the process's."""
    return settings if vars(settings) else type(settings)
