"""Intel MKL through ctypes: matrix products and elementwise functions. The only file that knows MKL.

The library is found through the file list of the ``mkl`` distribution, loaded on first use, and never needed: where
it is absent, broken or switched off, and for operands that it cannot take as they lie in memory, every function here
returns None and the caller uses NumPy.

Loading MKL sets it up as follows, each unless the user's environment says otherwise:

- threading by Intel's OpenMP (``MKL_THREADING_LAYER``), or none where that is not installed;
- the same bits from run to run (``MKL_CBWR``): MKL otherwise chooses its code by the alignment of the operands, and
  training could not be resumed to the same numbers. The number of threads still counts.
"""

from __future__ import annotations

import contextlib
import ctypes
import fnmatch
import functools
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fnflare.kernels.settings import of_thread, place_of

__all__ = [
    "FUNCTIONS",
    "block",
    "elementwise",
    "enable",
    "enabled",
    "gemm",
    "max_threads",
    "native_symbols",
    "requested",
    "set_max_threads",
    "version",
]

# --- loading --------------------------------------------------------------------------------------------------

_THREADING_INTEL, _THREADING_SEQUENTIAL = 0, 1
_CBWR_AUTO = 2

_RUNTIME = ("mkl", ("libmkl_rt.so*", "mkl_rt*.dll"))
_OPENMP = ("intel-openmp", ("libiomp5.so", "libiomp5md.dll"))


def _find(distribution: str, patterns: tuple[str, ...]) -> Path | None:
    """The file of an installed distribution with such a name."""
    import importlib.metadata  # takes longer to import than the rest of this package's kernels together

    try:
        files = importlib.metadata.files(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns):
            path = Path(str(file.locate())).resolve()
            if path.exists():
                return path
    return None


@functools.cache
def _load() -> ctypes.CDLL | None:
    """Load MKL and set it up; None where that fails, for whatever reason."""
    path = _find(*_RUNTIME)
    if path is None:
        return None
    try:
        threading_layer = _load_openmp()
        library = ctypes.CDLL(str(path))
        if "MKL_THREADING_LAYER" not in os.environ:
            library.MKL_Set_Threading_Layer(threading_layer)
        if "MKL_CBWR" not in os.environ:
            library.MKL_CBWR_Set(_CBWR_AUTO)
        _declare(library)
    except (OSError, AttributeError):  # a file that is no library, or one that lacks a function
        return None
    global _default_threads
    if _default_threads is None:  # another thread that loads it at the same time may have told it a number
        _default_threads = int(library.MKL_Get_Max_Threads())
    if _settings.threads is not None:
        _tell(library)
    return library


def _load_openmp() -> int:
    return _THREADING_SEQUENTIAL if _openmp() is None else _THREADING_INTEL


@functools.cache
def _openmp() -> ctypes.CDLL | None:
    path = _find(*_OPENMP)
    if path is None:
        return None
    openmp = ctypes.CDLL(str(path))
    if "KMP_BLOCKTIME" not in os.environ:
        # OpenMP's idle threads would spin for 200 ms, in the way of the threads of NumPy's own BLAS: a product
        # of each in turn took twenty times as long as either alone.
        openmp.kmp_set_blocktime(1)
    return openmp


def _declare(library: ctypes.CDLL) -> None:
    """Give the functions their C types, without which ctypes would pass doubles and pointers wrongly.

    MKL_INT has 32 bits in the interface that libmkl_rt chooses by default.
    """
    pointer, integer, stride = ctypes.c_void_p, ctypes.c_int, ctypes.c_int
    for letter, scalar in (("s", ctypes.c_float), ("d", ctypes.c_double)):
        head = [ctypes.c_int] * 3 + [integer] * 3 + [scalar]
        single = getattr(library, f"cblas_{letter}gemm")
        single.argtypes = [*head, pointer, integer, pointer, integer, scalar, pointer, integer]
        batched = getattr(library, f"cblas_{letter}gemm_batch_strided")
        operand = [pointer, integer, stride]
        batched.argtypes = [*head, *operand, *operand, scalar, *operand, integer]
        vectors = [getattr(library, f"vm{letter}{name}") for name in FUNCTIONS.values()]
        for vector in vectors:
            vector.argtypes = [integer, pointer, pointer, ctypes.c_int64]
        for function in (single, batched, *vectors):
            function.restype = None


_NATIVE = (
    "cblas_sgemm",
    "cblas_dgemm",
    "cblas_sgemm_batch_strided",
    "cblas_dgemm_batch_strided",
    "MKL_Get_Max_Threads",
)
_NATIVE_OPENMP = (
    "__kmpc_fork_call",
    "__kmpc_global_thread_num",
    "__kmpc_push_num_threads",
    "omp_get_num_threads",
    "omp_get_thread_num",
    "omp_in_parallel",
)


def native_symbols() -> dict[str, int]:
    """Where functions begin that compiled code may call, by their names: matrix products and OpenMP's runtime.

    Returns:
        The addresses; nothing where MKL is not used, and none of OpenMP's functions where that is not installed.
    """
    library = _library()
    if library is None:
        return {}
    functions = {name: getattr(library, name) for name in _NATIVE}
    openmp = _openmp()
    if openmp is not None:
        functions |= {name: getattr(openmp, name) for name in _NATIVE_OPENMP}
    return {name: int(ctypes.cast(f, ctypes.c_void_p).value or 0) for name, f in functions.items()}


# --- settings ---------------------------------------------------------------------------------------------------


class Requested(NamedTuple):
    """What was asked for: that MKL may be used, and with how many threads at most (None: its own default)."""

    use: bool
    threads: int | None


class _Settings(threading.local):
    """What was asked for: by the process, as attributes of the class, and by blocks of a thread, as its own."""

    use: bool = os.environ.get("FNFLARE_MKL", "1") != "0"
    threads: int | None = None


_settings = _Settings()
_default_threads: int | None = None


def requested() -> Requested:
    """What was asked for in this thread, whether MKL is there or not."""
    return Requested(_settings.use, _settings.threads)


@contextlib.contextmanager
def block() -> Iterator[None]:
    """A block in which this thread has settings of its own; after it they are what they were before."""
    try:
        with of_thread(_settings, *Requested._fields):
            yield
    finally:
        _tell_threads()


def enable(on: bool) -> None:
    """Let MKL be used, or not: in this thread's block, outside of one in the whole process."""
    place_of(_settings).use = on


def enabled() -> bool:
    """Whether MKL is switched on and there; loads it."""
    return _library() is not None


def _library() -> ctypes.CDLL | None:
    return _load() if _settings.use else None


def version() -> str | None:
    """What MKL says of itself, or None where it cannot be loaded; whether it is switched on does not count."""
    library = _load()
    if library is None:
        return None
    text = ctypes.create_string_buffer(256)
    library.MKL_Get_Version_String(text, len(text))
    return text.value.decode().strip()


def max_threads() -> int | None:
    """How many threads MKL uses at most, or None where it is not used."""
    library = _library()
    return None if library is None else int(library.MKL_Get_Max_Threads())


def set_max_threads(count: int | None) -> None:
    """Set how many threads MKL uses at most, None for its default: in this thread's block, outside of one in the whole
    process."""
    place_of(_settings).threads = count
    _tell_threads()


def _tell_threads() -> None:
    # Loading just to say so would cost a process that never comes to use MKL; what loads it tells it.
    library = _load() if _load.cache_info().currsize else None
    if library is not None:
        _tell(library)


def _tell(library: ctypes.CDLL) -> None:
    library.MKL_Set_Num_Threads(_Settings.threads or _default_threads or 1)
    library.MKL_Set_Num_Threads_Local(vars(_settings).get("threads") or 0)  # 0: as the process


# --- what MKL can take --------------------------------------------------------------------------------------------

_LETTERS = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}
_MAX_INT = 2**31 - 1


def _letter(*arrays: Any) -> str | None:
    """The letter of the arrays' common dtype in MKL's names; None where one is not an aligned array of it."""
    dtype = getattr(arrays[0], "dtype", None)
    for array in arrays:
        if type(array) is not np.ndarray or array.dtype != dtype or not array.flags.aligned:
            return None
    return _LETTERS.get(arrays[0].dtype)


# --- matrix products ----------------------------------------------------------------------------------------------

_ROW_MAJOR, _NO_TRANS, _TRANS = 101, 111, 112


def gemm(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None, *, accumulate: bool = False) -> np.ndarray | None:
    """Multiply matrices, or equally many matrices pairwise.

    Args:
        a: (..., m, k), float32 or float64. Its matrices lie row by row or, as transposed ones, column by column.
        b: (..., k, n), as a; with equal leading axes.
        out: where to put the product: (..., m, n), C-contiguous, apart from a and b in memory; by default a new array.
        accumulate: add the product to what is in a given ``out``.

    Returns:
        ``out``; None, and nothing done, where MKL is not used or cannot take the operands as they are.
    """
    library = _library()
    letter = None if library is None else _letter(a, b) if out is None else _letter(a, b, out)
    if letter is None or a.ndim < 2 or a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        return None
    *batch, m, k = a.shape
    n = b.shape[-1]
    if a.size == 0 or n == 0:
        return None
    left, right, count = _layout(a), _layout(b), math.prod(batch)
    if left is None or right is None or max(m * n, count, *left, *right) > _MAX_INT:
        return None
    beta = 0.0
    if out is None:
        out = np.empty((*batch, m, n), a.dtype)
    elif not _is_target(out, (*batch, m, n)) or np.may_share_memory(out, a) or np.may_share_memory(out, b):
        return None
    elif accumulate:
        beta = 1.0
    sizes = (_ROW_MAJOR, left[0], right[0], m, n, k, 1.0)
    if count == 1:
        call = getattr(library, f"cblas_{letter}gemm")
        call(*sizes, a.ctypes.data, left[1], b.ctypes.data, right[1], beta, out.ctypes.data, n)
    else:
        call = getattr(library, f"cblas_{letter}gemm_batch_strided")
        operands = (a.ctypes.data, *left[1:], b.ctypes.data, *right[1:], beta, out.ctypes.data, n, m * n, count)
        call(*sizes, *operands)
    return out


def _layout(x: np.ndarray) -> tuple[int, int, int] | None:
    """How the matrices of x, which is not empty, lie: transposed or not, leading dimension, distance; in elements.

    None where BLAS cannot take them so.
    """
    *batch, rows, columns = x.shape
    # The common cases first, since the general one takes as long as a small product.
    if x.flags.c_contiguous:
        return _NO_TRANS, columns, rows * columns
    if not batch and x.flags.f_contiguous:
        return _TRANS, rows, rows * columns
    *distances, down, across = (stride // x.itemsize for stride in x.strides)
    if any(stride % x.itemsize for stride in x.strides):
        return None
    # The stride of an axis of length one says nothing.
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        order, leading, extent = _NO_TRANS, down if rows > 1 else columns, rows
    elif (down == 1 or rows == 1) and (across >= rows or columns == 1):
        order, leading, extent = _TRANS, across if columns > 1 else rows, columns
    else:
        return None
    distance = _distance(batch, distances)
    if distance is None or (math.prod(batch) > 1 and distance < leading * extent):
        return None
    return order, leading, distance


def _distance(batch: list[int], distances: list[int]) -> int | None:
    """The one distance at which the matrices follow each other in the order of C; None where there is none."""
    expected = None
    for length, distance in zip(reversed(batch), reversed(distances), strict=True):
        if length == 1:
            continue
        if expected is None:
            first, expected = distance, distance
        elif distance != expected:
            return None
        expected *= length
    return 0 if expected is None else first


def _is_target(out: np.ndarray, shape: tuple[int, ...]) -> bool:
    return out.shape == shape and out.flags.c_contiguous and out.flags.writeable


# --- elementwise functions ------------------------------------------------------------------------------------------

# NumPy's name (erf: math's) and MKL's.
FUNCTIONS = {
    "cos": "Cos",
    "erf": "Erf",
    "exp": "Exp",
    "expm1": "Expm1",
    "log": "Ln",
    "log1p": "Log1p",
    "sin": "Sin",
    "tanh": "Tanh",
}

# High accuracy (below one unit in the last place), no error handling, denormal numbers as such. It goes with each
# call, since MKL's global mode would be a setting that others can change.
_MODE = 0x2 | 0x100 | 0x140000


def elementwise(name: str, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray | None:
    """Apply a function to every element.

    Args:
        name: one of ``FUNCTIONS``.
        x: float32 or float64, without gaps in memory.
        out: where to put the values: an array that lies as x does, x itself or apart from it; by default a new one.

    Returns:
        ``out``; None, and nothing done, where MKL is not used or cannot take the operands as they are. NumPy's
        warnings of overflow and of invalid values are not given.
    """
    library = _library()
    letter = None if library is None else _letter(x) if out is None else _letter(x, out)
    if letter is None or x.size > _MAX_INT or not (x.flags.c_contiguous or x.flags.f_contiguous):
        return None
    if out is None:
        out = np.empty_like(x)
    elif not (out.flags.writeable and (out is x or _lies_like(out, x))):
        return None
    getattr(library, f"vm{letter}{FUNCTIONS[name]}")(x.size, x.ctypes.data, out.ctypes.data, _MODE)
    return out


def _lies_like(out: np.ndarray, x: np.ndarray) -> bool:
    return out.shape == x.shape and out.strides == x.strides and not np.may_share_memory(out, x)
