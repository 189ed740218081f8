"""Code that was compiled before is found by the program, in this process and in the next."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from native import python

import fnflare as ff
from fnflare.program import run

pytest.importorskip("llvmlite")

from fnflare.compiler import native, object_code, reuse, segments
from fnflare.compiler.description import described, restored
from fnflare.compiler.lower import lower
from fnflare.compiler.lowered import Lowered

TABLE = np.arange(3000.0).reshape(1000, 3)
PLACES = np.array([2, 0, 1])


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FNFLARE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("FNFLARE_CACHE", raising=False)
    with ff.config.override(use_native=True):
        forget()
        yield tmp_path / "cache"


@pytest.fixture
def lowerings(monkeypatch):
    """The programs that were lowered."""
    found = []
    whole = segments.lower
    monkeypatch.setattr(segments, "lower", lambda program: found.append(program) or whole(program))
    return found


def forget():
    """As in a new process."""
    gc.collect()
    reuse._met.clear()
    object_code._loaded.clear()


def read(xs):
    state, ys = ff.scan(lambda c, x: (np.tanh(c + x), c * 2), np.zeros(3), xs)
    return {"state": state, "ys": ys, "given": xs, "fixed": TABLE[:2], "number": 3, "again": ys}


def program_at(steps, function=read):
    return ff.make_program(function, simplify=True)(np.ones((steps, 3)))


def check(program, *args):
    """Native code answers as the interpreter does."""
    for got, wanted in zip(native.function_of(program)(*args), run(program, args), strict=True):
        assert type(got) is type(wanted)
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_a_new_length_is_not_lowered(lowerings):
    before = object_code.compilations()
    for steps in (7, 9, 30, 2):
        check(program_at(steps), np.random.default_rng(0).standard_normal((steps, 3)))
    assert len(lowerings) == 1
    assert object_code.compilations() == before + 1


def test_a_new_process_does_not_lower(lowerings):
    check(program_at(7), np.ones((7, 3)))
    forget()
    before = object_code.compilations()
    check(program_at(8), np.ones((8, 3)))
    assert len(lowerings) == 1
    assert object_code.compilations() == before


def test_other_constants_are_other_programs(lowerings):
    for table in (TABLE, TABLE + 1, TABLE):
        check(program_at(4, lambda xs, table=table: xs + table[:4] + table.T[:, PLACES].sum(0)), np.ones((4, 3)))
    assert len(lowerings) == 2


def test_constants_are_those_of_the_program_at_hand(lowerings):
    w = np.random.default_rng(0).standard_normal((3, 3))
    for matrix in (w, w.copy(), np.asfortranarray(w), np.repeat(w, 2, axis=0)[::2]):
        check(program_at(4, lambda xs, matrix=matrix: (np.tanh(xs @ matrix)[:, PLACES], matrix)), np.ones((4, 3)))
    assert len(lowerings) == 1


@pytest.mark.parametrize("damage", [b"", b"nonsense" * 20, b"x" * 64 + b"{}"], ids=["empty", "other", "short"])
def test_a_description_that_is_none_is_made_anew(damage, lowerings):
    program = program_at(7)
    check(program, np.ones((7, 3)))
    reuse.cache.store(reuse.key(program, native.sizes_of(program)), damage)
    forget()
    check(program_at(7), np.ones((7, 3)))
    assert len(lowerings) == 2
    forget()
    check(program_at(7), np.ones((7, 3)))
    assert len(lowerings) == 2


def test_damaged_files_are_made_anew(place, lowerings):
    check(program_at(7), np.ones((7, 3)))
    for file in place.iterdir():
        file.write_bytes(file.read_bytes()[:-3])
    forget()
    check(program_at(7), np.ones((7, 3)))
    assert len(lowerings) == 2


def test_a_description_without_its_code_is_not_enough(place, lowerings):
    check(program_at(7), np.ones((7, 3)))
    largest = max(place.iterdir(), key=lambda f: f.stat().st_size)
    largest.unlink()
    forget()
    check(program_at(7), np.ones((7, 3)))
    assert len(lowerings) == 2


def test_without_the_cache_nothing_is_kept_on_disk(place, monkeypatch, lowerings):
    monkeypatch.setenv("FNFLARE_CACHE", "0")
    check(program_at(7), np.ones((7, 3)))
    check(program_at(8), np.ones((8, 3)))
    assert len(lowerings) == 1
    assert not place.exists()


def test_what_cannot_be_lowered_as_a_whole_runs_in_segments():
    check(program_at(5, lambda xs: np.sort(np.exp(xs), axis=0) + 1), np.random.default_rng(0).random((5, 3)))


def test_a_description_says_all_but_the_loops():
    program = program_at(7)
    lowered = lower(program)
    text = described(lowered, program)
    other = program_at(9)
    again = restored(text, other)
    assert isinstance(again, Lowered)
    assert [(b.dtype, b.size, b.role) for b in again.module.buffers] == [
        (b.dtype, b.size, b.role) for b in lowered.module.buffers
    ]
    assert again.sizes == lowered.sizes
    assert [o.shape for o in again.outputs] == [o.shape for o in lowered.outputs]
    assert list(again.lifetimes.values()) == [
        lowered.lifetimes[b] for b in lowered.module.buffers if b.role == "scratch"
    ]
    assert described(again, other) == text


STEP = """
import numpy as np
import fnflare as ff
from fnflare.compiler import object_code

def read(xs, w):
    return ff.scan(lambda c, x: (np.tanh(c + x @ w), None), np.zeros(4), xs)[0]

out = ff.jit(ff.grad(lambda w, xs: np.sum(read(xs, w))))(np.full((3, 4), 0.1), np.ones(({steps}, 3)))
import sys
print(object_code.compilations(), "fnflare.compiler.lower" in sys.modules, repr(float(np.sum(out))))
"""


def test_a_second_process_finds_what_the_first_compiled():
    first = python(STEP.format(steps=6)).split()
    second = python(STEP.format(steps=6)).split()
    longer = python(STEP.format(steps=9)).split()
    assert first[:2] == ["1", "True"]
    assert second == ["0", "False", first[2]]
    assert longer[:2] == ["0", "False"]
