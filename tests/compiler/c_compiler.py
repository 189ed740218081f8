"""C in tests: compiled with every warning an error, loaded, and called with arrays."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler")


def build(text: str, folder: Path, flags: list[str] | None = None, name: str = "unit") -> ctypes.CDLL:
    """A translation unit, compiled and loaded."""
    assert CC is not None
    source, library = folder / f"{name}.c", folder / f"{name}.so"
    source.write_text(text)
    optimised = ["-O3", "-march=native"] if flags is None else flags
    command = [CC, *optimised, *STRICT, "-fPIC", "-shared", str(source), "-o", str(library), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, f"{done.stderr}\n{text}"
    return ctypes.CDLL(str(library))


def call(library: ctypes.CDLL, name: str, *args: Any) -> None:
    """Calls a function with pointers to arrays and with sizes."""
    assert all(isinstance(a, int) or a.flags.c_contiguous for a in args)
    native = [ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(a.ctypes.data) for a in args]
    function = getattr(library, name)
    function.restype = None
    function(*native)


def empty(shape: int | tuple[int, ...], dtype: np.dtype[Any] | type) -> np.ndarray[Any, Any]:
    """Memory that holds what no answer is."""
    dtype = np.dtype(dtype)
    return np.frombuffer(bytearray(b"\x5a" * int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)
