"""The peak memory of a piece of work, in a process of its own."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path

_STATUS = Path("/proc/self/status")
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss


def _status(field: str) -> int:
    """A field of Linux's /proc/self/status that is in kB, as bytes."""
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _give_back() -> None:
    """Return freed memory to the system, lest the work reuse it unseen."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def peak_above_baseline(work: Callable[[], object]) -> int:
    """Bytes by which the resident memory rises, at its peak, while `work` runs.

    On Linux the peak is reset first. Elsewhere it is the peak of the whole life of the process, so what is
    needed before the work (imports, data) must not have taken more than the work does.
    """
    _give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _status("VmRSS")
    except OSError:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT
        work()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT - before
    work()
    return _status("VmHWM") - before
