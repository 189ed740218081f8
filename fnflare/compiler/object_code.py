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

__all__ = ["code_at", "code_of", "compilations", "key_of", "surroundings"]

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
    code = code_at(key_of(text), text, counted)
    assert code is not None
    return code


def key_of(text: str) -> str:
    """What the code of a module is kept under."""
    return cache.fingerprint(text, *surroundings())


def code_at(key: str, text: str | None = None, counted: bool = True) -> engine.Code | None:
    """The code that is kept under a key, in memory.

    Args:
        key: the key.
        text: what to compile if there is none.
        counted: as for `code_of`.

    Returns:
        The code; None where there is none, nor a text.
    """
    with _lock:
        code = _loaded.get(key)
        if code is None:
            found = _object_code(key, text, counted)
            if found is None:
                return None
            code = _loaded[key] = engine.load(found)
        return code


def _object_code(key: str, text: str | None, counted: bool) -> bytes | None:
    global _compilations  # noqa: PLW0603
    found = cache.lookup(key)
    if found is None and text is not None:
        found = engine.compile_text(text)
        _compilations += counted
        cache.store(key, found)
    return found


@functools.cache
def surroundings() -> tuple[str, ...]:
    """What object code depends on besides the text."""
    version = sys.modules["fnflare"].__version__  # the package imports all rooms, so none imports it
    return version, sys.implementation.cache_tag or sys.version, *engine.machine(), *engine.versions()
