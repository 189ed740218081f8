"""From loop nests to a function of arrays."""

import os

import numpy as np
import pytest
from native import lowered, python

from fnflare.compiler import cache
from fnflare.compiler.lowered import Output
from fnflare.nest import Axis, Buffer, Element, Kernel, Part, Run, Size, Store, index

pytest.importorskip("llvmlite")

from fnflare.compiler.build import build
from fnflare.compiler.object_code import compilations


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FNFLARE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("FNFLARE_CACHE", raising=False)
    monkeypatch.setattr(cache, "_room", cache._Room())


def affine(shift, columns=3, work=1):
    """``(2 x + c + shift, x)`` for x of shape (n, columns) and a constant row c, by way of scratch memory."""
    n, size = Size("n"), Size("size")
    length = index(n) * columns
    x, c, s, y = (
        Buffer(name, "f32", count, role)
        for name, count, role in (
            ("x", length, "input"),
            ("c", index(columns), "constant"),
            ("s", length, "scratch"),
            ("y", length, "output"),
        )
    )
    a, b, r = (Buffer(name, "f32", index(0), "parameter") for name in "abr")
    i = Axis("i", index(size))
    read = Element("f32", a, index(i))
    double = Kernel("double", (a, r), (size,), i, (Store(r, index(i), read * 2.0),), work=index(work), vector=True)
    add = Store(r, index(i), read + Element("f32", b, index(i) % columns) + shift)
    add = Kernel("add", (a, b, r), (size,), i, (add,), work=index(work), vector=True)
    start = index(0)
    body = [
        Run(double, (Part(x, start), Part(s, start)), (length,)),
        Run(add, (Part(s, start), Part(c, start), Part(y, start)), (length,)),
    ]
    shape, f32 = (index(n), index(columns)), np.dtype(np.float32)
    value = np.arange(columns, dtype=np.float32)
    outputs = [Output(y, shape, f32), Output(0, shape, f32)]
    program = lowered([x], outputs, body, [(s, 0, 1)], [(c, value)], [(n, 0, 0)])
    module = program.module
    kernels = type(module)(module.name, module.buffers, module.sizes, (double, add), module.body)
    return type(program)(kernels, program.inputs, program.constants, outputs, program.lifetimes, program.sizes)


def expected(x, shift):
    return 2 * x + np.arange(x.shape[1], dtype=np.float32) + np.float32(shift)


def test_loop_nests_run_on_arrays():
    before = compilations()
    f = build(affine(0.5))
    for rows in (1, 2, 5, 17, 300):
        x = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
        for given in (x, np.asfortranarray(x)):
            y, same = f(given)
            assert same is given
            np.testing.assert_array_equal(y, expected(x, 0.5))
    assert compilations() - before == 1


def test_equal_nests_are_compiled_once():
    before = compilations()
    first, second, third = build(affine(0.25)), build(affine(0.25)), build(affine(0.75))
    assert compilations() - before == 2
    x = np.ones((4, 3), np.float32)
    for f, shift in ((first, 0.25), (second, 0.25), (third, 0.75)):
        np.testing.assert_array_equal(f(x)[0], expected(x, shift))


def test_much_work_is_shared_out_and_answers_the_same():
    x = np.random.default_rng(0).normal(size=(100_000, 3)).astype(np.float32)
    np.testing.assert_array_equal(build(affine(0.125, work=1000))(x)[0], expected(x, 0.125))


FORK = """
import os, warnings
import numpy as np
from fnflare.compiler.build import build
from test_build import affine, expected

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork while there are threads
f = build(affine(0.125, work=1000))
x = np.ones((100_000, 3), np.float32)
good = np.array_equal(f(x)[0], expected(x, 0.125))  # OpenMP's threads are there now
child = os.fork()
if not child:
    good = np.array_equal(f(x)[0], expected(x, 0.125))
    os._exit(0 if good else 1)
print(good, os.waitpid(child, 0)[1], np.array_equal(f(x)[0], expected(x, 0.125)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
def test_a_child_shares_out_work_as_its_parent_did():
    assert python(FORK) == "True 0 True"
