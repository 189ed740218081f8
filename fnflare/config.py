"""Settings: how many threads compute, and whether MKL is used.

From the environment, before Python starts:

- ``FNFLARE_MKL=0``: do not use MKL. NumPy's own loops and BLAS do the work.
- ``FNFLARE_DISABLE_JIT=1``: run functions as they are written where `fnflare.jit`, `scan`, `cond` and their like would
  make programs of them, as inside of `fnflare.disable_jit()`.
- ``FNFLARE_NATIVE=0``: run programs with NumPy, as where llvmlite is not installed, in place of compiling them.
- ``FNFLARE_CACHE=0``: keep no compiled code on disk. Otherwise it is kept in the folder ``FNFLARE_CACHE_DIR``, by
  default ``~/.cache/fnflare`` (in ``$XDG_CACHE_HOME`` or, on Windows, in ``%LOCALAPPDATA%``), at most
  ``FNFLARE_CACHE_BYTES`` of it, by default 256 MiB; see `fnflare.compiler.cache`.
- ``MKL_NUM_THREADS``, ``OMP_NUM_THREADS`` (the first that is set counts): the number of threads. By default MKL takes
  one a physical core. Its other variables (``MKL_THREADING_LAYER``, ``MKL_CBWR``, ``KMP_*``) count too.

From a program, the functions below. They set for the whole process, but inside of a block of `override` for that block
alone, in the thread that runs it, so that threads do not disturb each other; threads that the block starts have the
process's settings. Computations may run in any number of Python threads at once. The number of threads counts for MKL
and for compiled code alike, which share OpenMP's runtime; without MKL compiled code runs in the thread that calls it. A
child of ``os.fork`` computes with as many threads, of its own. Products that NumPy's own BLAS
does (the small ones; all of them without MKL) obey its variable, ``OPENBLAS_NUM_THREADS``, which it reads when NumPy is
imported.
"""

from __future__ import annotations

import contextlib
import functools
import operator
import os
import re
import threading
import warnings
from collections.abc import Iterator

from fnflare.errors import ArgumentError, DtypeError
from fnflare.kernels import mkl
from fnflare.kernels.settings import of_thread, place_of

__all__ = [
    "mkl_version",
    "num_threads",
    "override",
    "set_num_threads",
    "set_use_mkl",
    "set_use_native",
    "use_mkl",
    "use_native",
]


class _Settings(threading.local):
    """What was asked for: by the process, as attributes of the class, and by blocks of a thread, as its own."""

    native: bool = os.environ.get("FNFLARE_NATIVE", "1") != "0"


#: Those of the thread that asks. ``settings.native``: whether native code is switched on, which is what `use_native`
#: tells where llvmlite is known to be there.
settings = _Settings()


def num_threads() -> int:
    """How many threads compute at most.

    Returns:
        What `set_num_threads` has set; otherwise what MKL takes; without MKL what the environment says, or the number
        of processors that this process may run on.

    >>> ff.config.num_threads() >= 1
    True
    """
    return mkl.requested().threads or mkl.max_threads() or _threads_of_environment() or _processors()


def set_num_threads(count: int) -> None:
    """Set how many threads compute at most: in the whole process, or in a block of `override`.

    Args:
        count: at least 1.

    Raises:
        ArgumentError: the count is less.
        DtypeError: it is not an int.

    >>> from fnflare import config
    >>> with config.override():
    ...     config.set_num_threads(1)
    ...     config.num_threads()
    1
    """
    try:
        number = operator.index(count)
    except TypeError:
        raise DtypeError(f"count: an int is needed, got {type(count).__name__}") from None
    if number < 1:
        raise ArgumentError(f"count: at least one thread is needed, got {number}")
    mkl.set_max_threads(number)


def use_mkl() -> bool:
    """Whether MKL is used: it is installed, it loads, and it is not switched off.

    >>> ff.config.use_mkl() in (True, False)
    True
    """
    return mkl.enabled()


def set_use_mkl(on: bool) -> None:
    """Switch MKL on or off, in the whole process or in a block of `override`.

    Switching it on where it is not installed does nothing.

    Args:
        on: whether it may be used.

    >>> from fnflare import config
    >>> with config.override():
    ...     config.set_use_mkl(False)
    ...     config.use_mkl()
    False
    """
    mkl.enable(bool(on))


def use_native() -> bool:
    """Whether `fnflare.jit` compiles programs: llvmlite is installed, and it is not switched off.

    >>> ff.config.use_native() in (True, False)
    True
    """
    return settings.native and _has_llvmlite()


#: The first release of llvmlite that compiles what is written here: LLVM 20's language and passes.
_LEAST_LLVMLITE = (0, 45)


@functools.cache
def _has_llvmlite() -> bool:
    try:
        import llvmlite  # the package alone, in under a millisecond: LLVM is loaded with the first code
    except ImportError:
        return False
    found = llvmlite.__version__
    if tuple([int(part) for part in re.findall(r"\d+", found)[:2]]) >= _LEAST_LLVMLITE:
        return True
    least = ".".join(map(str, _LEAST_LLVMLITE))
    warnings.warn(
        f"programs run on NumPy: native code needs llvmlite {least} or newer, and {found} is installed; "
        f'write pip install -U "llvmlite>={least}", or FNFLARE_NATIVE=0 in the environment to go on without',
        stacklevel=2,
    )
    return False


def set_use_native(on: bool) -> None:
    """Switch native code on or off, in the whole process or in a block of `override`.

    Switching it on where llvmlite is not installed does nothing.

    Args:
        on: whether programs that are run from now on may be compiled.

    >>> from fnflare import config
    >>> with config.override():
    ...     config.set_use_native(False)
    ...     config.use_native()
    False
    """
    place_of(settings).native = bool(on)


def mkl_version() -> str | None:
    """The version that MKL tells, for reports; None where it is not installed or does not load.

    >>> version = ff.config.mkl_version()
    """
    return mkl.version()


@contextlib.contextmanager
def override(
    *, num_threads: int | None = None, use_mkl: bool | None = None, use_native: bool | None = None
) -> Iterator[None]:
    """Change settings for a block, in the thread that runs it, and put them back after it; for tests and comparisons.

    Whatever is set inside of the block counts for the block. Other threads keep the process's settings.

    Args:
        num_threads: as in `set_num_threads`; None leaves it.
        use_mkl: as in `set_use_mkl`; None leaves it.
        use_native: as in `set_use_native`; None leaves it.

    Raises:
        ArgumentError, DtypeError: as `set_num_threads`.

    >>> with ff.config.override(use_mkl=False):
    ...     ff.config.set_use_mkl(True)
    """
    with mkl.block(), of_thread(settings, "native"):
        if num_threads is not None:
            set_num_threads(num_threads)
        if use_mkl is not None:
            set_use_mkl(use_mkl)
        if use_native is not None:
            set_use_native(use_native)
        yield


def _threads_of_environment() -> int | None:
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        # OMP_NUM_THREADS may give a number for each level of nesting.
        first = os.environ.get(name, "").split(",")[0].strip()
        if first.isdecimal() and int(first) > 0:
            return int(first)
    return None


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
