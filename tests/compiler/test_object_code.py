"""From text to code: compiled once, kept in memory and on disk."""

import gc
import os
import sys
import threading
import time

import numpy as np
import pytest
from native import python, scale, scale_any_length

from fnflare.compiler import cache
from fnflare.compiler.executable import Executable

pytest.importorskip("llvmlite")

from fnflare.compiler import object_code as build
from fnflare.compiler.llvm import engine


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FNFLARE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("FNFLARE_CACHE", raising=False)
    monkeypatch.setattr(cache, "_room", cache._Room())
    build._loaded.clear()
    return tmp_path / "cache"


def compiled_by(run):
    before = build.compilations()
    run()
    return build.compilations() - before


def forget():
    """As in a new process."""
    gc.collect()
    build._loaded.clear()


def test_equal_texts_are_one_code_in_memory():
    (first, text), (second, again) = scale((4,)), scale((4,))
    codes = []
    assert compiled_by(lambda: codes.append(build.code_of(text))) == 1
    assert compiled_by(lambda: codes.append(build.code_of(again))) == 0
    assert codes[0] is codes[1]
    for program in (first, second):
        np.testing.assert_array_equal(Executable(program, codes[0])(np.ones(4))[0], np.full(4, 2.0))


def test_texts_that_differ_are_two():
    assert compiled_by(lambda: [build.code_of(scale((4,), number=n)[1]) for n in (2.0, 3.0)]) == 2


def test_code_on_disk_is_not_compiled_again():
    program, text = scale((5,))
    assert compiled_by(lambda: build.code_of(text)) == 1
    forget()
    codes = []
    assert compiled_by(lambda: codes.append(build.code_of(text))) == 0
    np.testing.assert_array_equal(Executable(program, codes[0])(np.ones(5))[0], np.full(5, 2.0))


def test_damaged_code_is_compiled_again(place):
    program, text = scale((6,))
    build.code_of(text)
    (file,) = place.iterdir()
    file.write_bytes(file.read_bytes()[:-100])
    forget()
    codes = []
    assert compiled_by(lambda: codes.append(build.code_of(text))) == 1
    np.testing.assert_array_equal(Executable(program, codes[0])(np.ones(6))[0], np.full(6, 2.0))


def test_without_the_cache_nothing_is_kept_on_disk(place, monkeypatch):
    monkeypatch.setenv("FNFLARE_CACHE", "0")
    text = scale((7,))[1]
    assert compiled_by(lambda: build.code_of(text)) == 1
    forget()
    assert compiled_by(lambda: build.code_of(text)) == 1
    assert not place.exists()


def test_code_of_another_processor_is_not_taken(monkeypatch):
    text = scale((8,))[1]
    build.code_of(text)
    forget()
    monkeypatch.setattr(build, "surroundings", lambda: ("another", "processor"))
    assert compiled_by(lambda: build.code_of(text)) == 1


def test_unused_code_leaves_memory():
    code = build.code_of(scale((9,))[1])
    assert len(build._loaded) == 1
    del code
    gc.collect()
    assert len(build._loaded) == 0


def test_many_lengths_are_one_compilation():
    program, text = scale_any_length(3)

    def run():
        double = Executable(program, build.code_of(text))
        for n in range(1, 201):
            np.testing.assert_array_equal(double(np.ones((n, 3)))[0], np.full((n, 3), 2.0))

    assert compiled_by(run) == 1


def test_threads_that_want_one_text_compile_it_once():
    text = scale((10,))[1]
    codes = []

    def run():
        threads = [threading.Thread(target=lambda: codes.append(build.code_of(text))) for _ in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()

    assert compiled_by(run) == 1
    assert len({id(c) for c in codes}) == 1


def test_code_that_is_given_up_is_not_found_again():
    """While the thread that held it last waits for its turn to give it up, another asks for the same text."""
    program, text = scale((11,))
    held = [build.code_of(text)]
    with engine._lock:
        thread = threading.Thread(target=held.clear)
        thread.start()
        while held:
            time.sleep(0.001)
        time.sleep(0.05)  # for the thread to come to where it waits for the lock
        code = build.code_of(text)
    thread.join()
    np.testing.assert_array_equal(Executable(program, code)(np.ones(11))[0], np.full(11, 2.0))


def test_text_that_is_not_llvms_is_an_error(place):
    with pytest.raises(RuntimeError):
        build.code_of("this is no module")
    assert not place.exists()


OTHER = """
import numpy as np
from fnflare.compiler import object_code as build
from fnflare.compiler.executable import Executable
from native import scale
program, text = scale((11,))
print(Executable(program, build.code_of(text))(np.ones(11))[0].sum(), build.compilations())
"""


def test_the_next_process_finds_the_code():
    assert python(OTHER) == "22.0 1"
    assert python(OTHER) == "22.0 0"


FORK = """
import os, threading, warnings
from fnflare.compiler import object_code as build
from native import scale

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while there are threads
threads = [threading.Thread(target=build.code_of, args=(scale((n,))[1],)) for n in range(1, 9)]
for t in threads:
    t.start()
child = os.fork()
if not child:
    for n in range(1, 10):
        build.code_of(scale((n,))[1])
    os._exit(0)
for t in threads:
    t.join()
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_child_compiles_what_its_parent_was_compiling():
    assert python(FORK) == "0"


def test_the_versions_are_part_of_the_key():
    assert all(isinstance(v, str) and v for v in engine.versions())
    assert set(engine.versions()) <= set(build.surroundings())


_SCATTERED = """
import ctypes
from fnflare.compiler.llvm import engine

numbers = ", ".join(f"i64 {n}" for n in range(65536))
code = engine.compile_text(f'''
@table = private constant [65536 x i64] [{numbers}]
define i64 @look_up(i64 %n) {{
  %at = getelementptr [65536 x i64], ptr @table, i64 0, i64 %n
  %found = load i64, ptr %at
  ret i64 %found
}}''')
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def reserve(size):
    return libc.mmap(None, size, 0, 0x4022, -1, 0)  # private, anonymous, without memory behind it


# Nothing is free any more but single pages above 4 GiB that are not, and what lies below these.
blocks = [reserve(2**30) for _ in range(4)]
for size in [2**n for n in range(28, 11, -1)]:
    while (block := reserve(size)) > min(blocks):
        pass
    libc.munmap(block, size)
for n in range(0, 40, 2):
    libc.munmap(max(blocks) + 2**29 + 4096 * n, 4096)
loaded = engine.load(code)
print(ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address("look_up"))(4321))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="lays out the memory of a process as Linux does it")
def test_code_is_loaded_where_memory_is_scattered():
    assert python(_SCATTERED) == "4321"
