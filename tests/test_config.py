"""Settings: threads, MKL on and off, the environment; of the process, and of blocks in a thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fnflare import config, kernels
from fnflare.errors import ArgumentError, DtypeError
from fnflare.kernels import mkl

needs_mkl = pytest.mark.skipif(config.mkl_version() is None, reason="MKL is not installed")


def python(code: str, **environment: str) -> str:
    """What a fresh interpreter prints."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MKL_", "OMP_", "KMP_", "FNFLARE_"))}
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_threads_are_set_and_put_back() -> None:
    before = config.num_threads()
    assert before >= 1
    with config.override(num_threads=1):
        assert config.num_threads() == 1
        with config.override(num_threads=2):
            assert config.num_threads() == 2
        config.set_num_threads(3)
        assert config.num_threads() == 3
    assert config.num_threads() == before


def test_override_puts_back_after_an_error() -> None:
    before = mkl.requested()
    with pytest.raises(ZeroDivisionError), config.override(num_threads=1, use_mkl=False):
        _ = 1 // 0
    assert mkl.requested() == before


def in_a_thread(run: Callable[[], object]) -> list[object]:
    """What it returns there."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(run()))
    thread.start()
    thread.join()
    return found


def settings() -> tuple[object, ...]:
    return config.num_threads(), mkl.max_threads(), config.use_mkl(), config.use_native(), config.settings.native


def test_a_block_is_of_its_thread() -> None:
    before = settings()
    with config.override(num_threads=3, use_mkl=False, use_native=False):
        assert settings() == (3, None, False, False, False)
        assert in_a_thread(settings) == [before]
        config.set_num_threads(4)
        config.set_use_mkl(True)
        config.set_use_native(True)
        assert settings()[0] == 4
        assert in_a_thread(settings) == [before]
    assert settings() == before


def test_blocks_of_threads_end_in_any_order() -> None:
    before, entered, left = settings(), threading.Event(), threading.Event()

    def other() -> None:
        with config.override(num_threads=5, use_mkl=False, use_native=False):
            entered.set()
            left.wait(60)

    thread = threading.Thread(target=other)
    with config.override(num_threads=6, use_mkl=False, use_native=False):
        thread.start()
        entered.wait(60)
    assert settings() == before
    left.set()
    thread.join()
    assert settings() == before


def test_what_is_set_outside_of_blocks_counts_for_all_threads() -> None:
    code = """
import threading
from fnflare import config
config.num_threads(), config.set_num_threads(3), config.set_use_mkl(False), config.set_use_native(False)
def look():
    print(config.num_threads(), config.use_mkl(), config.settings.native)
    with config.override(num_threads=2, use_mkl=True):
        print(config.num_threads(), config.settings.native)
thread = threading.Thread(target=look)
thread.start()
thread.join()
"""
    assert python(code).split("\n") == ["3 False False", "2 False"]


@needs_mkl
def test_mkl_is_told() -> None:
    before = mkl.max_threads()
    with config.override(use_mkl=True, num_threads=1):
        assert mkl.max_threads() == 1
    assert mkl.max_threads() == before
    assert "Math Kernel Library" in (config.mkl_version() or "")


def test_mkl_is_switched() -> None:
    a = np.ones((4, 4), np.float32)
    with config.override(use_mkl=False):
        assert not config.use_mkl()
        assert mkl.gemm(a, a) is None and mkl.elementwise("exp", a) is None and mkl.max_threads() is None
    with config.override(use_mkl=True):
        assert config.use_mkl() == (config.mkl_version() is not None)


@pytest.mark.parametrize(
    ("bad", "error", "says"), [(0, ArgumentError, "at least one thread"), (1.5, DtypeError, "an int is needed")]
)
def test_wrong_counts(bad: int, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        config.set_num_threads(bad)


def test_the_environment_disables_jit() -> None:
    code = "import fnflare as ff; print(ff.jit(lambda x: 1 if x > 0 else 2)(3.0))"  # no program can be made of that
    assert python(code, FNFLARE_DISABLE_JIT="1") == "1"
    for value in ("0", ""):
        with pytest.raises(subprocess.CalledProcessError):
            python(code, FNFLARE_DISABLE_JIT=value)


def test_the_environment_switches_mkl_off() -> None:
    code = "from fnflare import config; print(config.use_mkl(), config.mkl_version() is None, config.num_threads())"
    missing = str(config.mkl_version() is None)
    assert python(code, FNFLARE_MKL="0", OMP_NUM_THREADS="3,2") == f"False {missing} 3"
    assert python(code, FNFLARE_MKL="0", OMP_NUM_THREADS="3", MKL_NUM_THREADS="5") == f"False {missing} 5"


def test_a_senseless_variable_is_passed_over() -> None:
    code = "from fnflare import config; print(config.num_threads() >= 1)"
    assert python(code, FNFLARE_MKL="0", OMP_NUM_THREADS="all") == "True"


@needs_mkl
def test_mkls_own_variable_counts() -> None:
    assert python("from fnflare import config; print(config.num_threads())", MKL_NUM_THREADS="1") == "1"


@needs_mkl
def test_threads_set_before_mkl_is_loaded_count() -> None:
    code = """
from fnflare import config
from fnflare.kernels import mkl
config.set_num_threads(1)
assert mkl._load.cache_info().currsize == 0
print(mkl.max_threads())
"""
    assert python(code) == "1"


def test_import_loads_neither_mkl_nor_ctypes_libraries() -> None:
    code = """
import fnflare.config, fnflare.kernels, fnflare.random
from fnflare.kernels import mkl
print(mkl._load.cache_info().currsize)
"""
    assert python(code) == "0"


# --- MKL missing or broken: NumPy serves, and nothing is raised ---------------------------------------------------

BROKEN = """
import importlib.metadata, numpy as np
class File:
    name = "libmkl_rt.so.2"
    def locate(self): return {path!r}
real = importlib.metadata.files
def files(name):
    if name != "mkl": return real(name)
    {action}
importlib.metadata.files = files
from fnflare import config, kernels
x = np.ones((300, 300), np.float32)
y = kernels.matmul(x, kernels.exp(x) * 0 + 1)
print(config.use_mkl(), config.mkl_version(), float(y[0, 0]), float(kernels.erf(x)[0, 0]) > 0.8)
"""


@pytest.mark.parametrize(
    "action",
    ["raise importlib.metadata.PackageNotFoundError(name)", "return None", "return []", "return [File()]"],
)
def test_without_a_working_mkl(action: str, tmp_path: Path) -> None:
    path = tmp_path / "libmkl_rt.so.2"
    path.write_bytes(b"no library")
    assert python(BROKEN.format(path=str(path), action=action)) == "False None 300.0 True"


def test_a_listed_file_that_is_gone() -> None:
    assert python(BROKEN.format(path="nowhere/libmkl_rt.so.2", action="return [File()]")) == "False None 300.0 True"


def test_a_library_that_lacks_the_functions() -> None:
    import _ctypes

    if not getattr(_ctypes, "__file__", None):
        pytest.skip("this Python has no shared library at hand to stand for MKL")
    assert python(BROKEN.format(path=_ctypes.__file__, action="return [File()]")) == "False None 300.0 True"


def test_kernels_serve_while_mkl_is_off() -> None:
    x = np.linspace(-1, 1, 1 << 16).astype(np.float32)
    with config.override(use_mkl=False):
        assert np.array_equal(kernels.exp(x), np.exp(x))


def test_a_llvmlite_that_is_too_old_is_told_and_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", SimpleNamespace(__version__="0.44.1"))
    with pytest.warns(UserWarning, match=r"native code needs llvmlite 0\.45 or newer, and 0\.44\.1 is installed"):
        assert not config._has_llvmlite.__wrapped__()
    monkeypatch.setitem(sys.modules, "llvmlite", SimpleNamespace(__version__="1.0.0rc1"))
    assert config._has_llvmlite.__wrapped__()
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert not config._has_llvmlite.__wrapped__()
