"""Whether functions are staged, or run as they are written: `disable_jit`, and ``FNFLARE_DISABLE_JIT`` in the
environment."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["disable_jit", "is_disabled"]


class _Mode(threading.local):
    disabled: bool = os.environ.get("FNFLARE_DISABLE_JIT", "") not in ("", "0")


_mode = _Mode()


def is_disabled() -> bool:
    """Whether this thread runs functions as they are written."""
    return _mode.disabled


@contextmanager
def disable_jit(disable: bool = True) -> Iterator[None]:
    """Let `jit`, `scan`, `cond` and their like run the functions that they are given as they are written, in this
    thread, for a while: to print in them, to step through them. ``FNFLARE_DISABLE_JIT=1`` in the environment, before
    Python starts, does it to a whole program.

    Args:
        disable: False switches staging on again.

    >>> with ff.disable_jit():
    ...     print(ff.scan(lambda total, x: (total + x, print("at", x)), 0, np.array([1, 2]))[0])
    at 1
    at 2
    3
    """
    before = _mode.disabled
    _mode.disabled = disable
    try:
        yield
    finally:
        _mode.disabled = before
