"""From LLVM's text to code in memory, by way of object code that is kept on disk.

Equal texts are compiled once and loaded once, however many programs they stand for: what differs between those, the
values of constants and what becomes of the answers, is not in the code.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import weakref

from fnflare.compiler import cache
from fnflare.compiler.llvm import engine

__all__ = ["code_of", "compilations"]

_lock = threading.RLock()
#: Code in memory, as long as something may call it.
_loaded: weakref.WeakValueDictionary[str, engine.Code] = weakref.WeakValueDictionary()
_compilations = 0

if hasattr(os, "register_at_fork"):
    # A child must not be made while another thread, which the child lacks, is compiling.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def compilations() -> int:
    """How many programs' texts this process has compiled; what was found in memory or on disk does not count."""
    return _compilations


def code_of(text: str, counted: bool = True) -> engine.Code:
    """The code of a module in LLVM's language, in memory.

    Args:
        text: the module.
        counted: whether it is a program, which `compilations` counts.

    Raises:
        RuntimeError: LLVM does not accept the text.
    """
    with _lock:
        key = cache.fingerprint(text, *_surroundings())
        code = _loaded.get(key)
        if code is None:
            code = _loaded[key] = engine.load(_object_code(key, text, counted))
        return code


def _object_code(key: str, text: str, counted: bool) -> bytes:
    global _compilations  # noqa: PLW0603
    found = cache.lookup(key)
    if found is None:
        found = engine.compile_text(text)
        _compilations += counted
        cache.store(key, found)
    return found


@functools.cache
def _surroundings() -> tuple[str, ...]:
    """What object code depends on besides the text."""
    version = sys.modules["fnflare"].__version__  # the package imports all rooms, so none imports it
    return version, sys.implementation.cache_tag or sys.version, *engine.machine(), *engine.versions()
