"""Libraries of C that stand alone: they build from their own files, check what they get, and agree with Python."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from c_compiler import build, empty, needs_cc
from drawing import Draws

import fnflare as ff
from fnflare.compiler.c99 import standalone
from fnflare.compiler.lower import lower
from fnflare.compiler.lowered import Lowered, Output
from fnflare.core import aval_of
from fnflare.errors import ArgumentError, UnsupportedError
from fnflare.nest import Axis, Buffer, Element, Kernel, Module, Part, Run, Size, Store, index
from fnflare.program import run, simplify, trace_program

Array = np.ndarray[Any, Any]
generator = Draws(0)


def normal(*shape: int) -> Array:
    return generator.standard_normal(shape).astype(np.float32)


class Library:
    """A library, built in a folder of its own from nothing but its files."""

    def __init__(self, files: dict[str, str | bytes], name: str, folder: Path) -> None:
        for file, content in files.items():
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        self.name, self.folder = name, folder
        source = files[f"{name}.c"]
        assert isinstance(source, str)
        self._library = build(source, folder, name=name)

    def load(self, path: Path | None = None) -> int:
        function = self._library[f"{self.name}_load"]
        function.argtypes = [ctypes.c_char_p]
        return int(function(str(path or self.folder / f"{self.name}.weights").encode()))

    def workspace(self, *sizes: int) -> int:
        function = self._library[f"{self.name}_workspace"]
        function.restype = ctypes.c_size_t
        return int(function(*[ctypes.c_int64(n) for n in sizes]))

    def __call__(self, *args: Array | int | None) -> int:
        """Calls it with arrays and sizes, and scratch memory that begins at an odd place."""
        sizes = [a for a in args if isinstance(a, int)]
        memory = empty(self.workspace(*sizes) + 65, np.uint8)
        given = [*args, memory[1:-64]]
        native = [ctypes.c_int64(a) if isinstance(a, int) else a if a is None else _pointer(a) for a in given]
        code = int(self._library[self.name](*native))
        assert memory[0] == 0x5A and (memory[-64:] == 0x5A).all()  # it stays within its workspace
        return code


def _pointer(a: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)


def check(f: Callable[..., Any], args: Sequence[Array], folder: Path, constants: Any, rtol: float = 1e-5) -> Library:
    """The library of a function agrees with the function."""
    program = simplify(trace_program(lambda *xs: [f(*xs)], [aval_of(a) for a in args]).program)
    names = [f"x{k}" for k in range(len(args))]
    shapes = [a.shape for a in args]
    lowered = lower(program)
    sizes = [args[number].shape[axis] for _, number, axis in lowered.sizes]
    library = Library(standalone(lowered, "model", names, ["y"], constants, shapes), "model", folder)
    (wanted,) = (np.asarray(a) for a in run(program, args))
    got = empty(wanted.shape, wanted.dtype)
    if (folder / "model.weights").exists():
        assert library(*args, got, *sizes) == 3  # not loaded
        assert library.load() == 0
    assert library(*args, got, *sizes) == 0
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=rtol)
    return library


W, B, V = normal(20, 30), normal(30), normal(30, 7)


def mlp(x: Any) -> Any:
    h = np.maximum(x @ W + B, 0) @ V
    e = np.exp(h - h.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def recurrent(xs: Any, u: Any) -> Any:
    def cell(h: Any, x: Any) -> Any:
        h = np.tanh(x + h @ u * 0.1)
        return h, h

    return ff.scan(cell, np.zeros(xs.shape[1], np.float32), xs)[1]


@needs_cc
@pytest.mark.parametrize("constants", ["inside", "file"])
def test_a_perceptron(constants: str, tmp_path: Path) -> None:
    library = check(mlp, [normal(5, 20)], tmp_path, constants)
    header = (tmp_path / "model.h").read_text()
    assert re.search(r"x0 +in, float, \(5, 20\)", header) and re.search(r"y +out, float, \(5, 7\)", header)
    assert "int model(const float *x0, float *y, void *workspace);" in header
    assert ("model_load" in header) == (constants == "file")
    assert library(None, empty((5, 7), np.float32)) == 1


@needs_cc
def test_a_recurrent_loop(tmp_path: Path) -> None:
    check(recurrent, [normal(9, 8), normal(8, 8)], tmp_path, "inside")


@needs_cc
def test_files_of_weights_are_checked(tmp_path: Path) -> None:
    library = check(mlp, [normal(5, 20)], tmp_path, "file")
    data = (tmp_path / "model.weights").read_bytes()
    bad = tmp_path / "bad"
    for content in (
        b"",
        data[:-1],
        data + b"x",
        b"F" + data[1:],
        data[:8] + data[11:7:-1] + data[12:],
        data[:16] + b"\1" + data[17:],
    ):
        bad.write_bytes(content)
        assert library.load(bad) == 5
        assert library(normal(5, 20), empty((5, 7), np.float32)) == 3
    assert library.load(tmp_path / "missing") == 4
    assert library.load() == 0


@needs_cc
def test_headers_are_headers_of_c_plus_plus_too(tmp_path: Path) -> None:
    program = simplify(trace_program(lambda x: [mlp(x)], [aval_of(normal(5, 20))]).program)
    text = standalone(lower(program), "model", ["class"], ["new"])["model.h"]
    assert isinstance(text, str)
    assert "const float *class2, float *new2" in text and 'extern "C" {' in text


# -- by hand ------------------------------------------------------------------------------------------

N = Size("n")


def chain(links: int) -> Lowered:
    """Steps each of which adds 1, over memory whose size is known when it runs; and copies of what is there already."""
    x, y = Buffer("x", "f32", index(N) * 3, "input"), Buffer("y", "f32", index(N) * 3, "output")
    unused = Buffer("unused", "f64", index(2), "input")
    scratch = [Buffer("s", "f32", index(N) * 3, "scratch") for _ in range(links - 1)]
    p, q, i = Buffer("p", "f32", index(0), "parameter"), Buffer("q", "f32", index(0), "parameter"), Axis("i", index(N))
    kernel = Kernel("add_one", (p, q), (N,), i, (Store(q, index(i), Element("f32", p, index(i)) + 1.0),))
    path = [x, *scratch, y]
    body = tuple(Run(kernel, (Part(a, index(0)), Part(b, index(0))), (index(N) * 3,)) for a, b in pairwise(path))
    module = Module("chain", tuple(path), (N,), (kernel,), body)
    outputs = (
        Output(y, (index(N), index(3)), np.dtype(np.float32)),
        Output(y, (index(N), index(3)), np.dtype(np.float32)),
        Output(1, (index(2),), np.dtype(np.float64)),
        Output(np.array([[True, False]]), (index(1), index(2)), np.dtype(bool)),
    )
    lifetimes = {b: (k, k + 1) for k, b in enumerate(scratch)}
    return Lowered(module, (x, unused), (), outputs, lifetimes, ((N, 0, 0),))


@needs_cc
@pytest.mark.parametrize("constants", ["inside", "file"])
def test_sizes_given_when_it_runs_and_copies(constants: Any, tmp_path: Path) -> None:
    files = standalone(chain(9), "chain", ["x/0", "params/x"], ["y"] * 4, constants, [[N, 3], [2]])
    library = Library(files, "chain", tmp_path)
    assert constants == "inside" or library.load() == 0
    for n in (1, 7, 100):
        x, z = normal(n, 3), generator.standard_normal(2)
        outs = [empty((n, 3), np.float32), empty((n, 3), np.float32), empty(2, np.float64), empty((1, 2), np.uint8)]
        assert library(x, z, *outs, n) == 0
        wanted = x
        for _ in range(9):
            wanted = wanted + np.float32(1)
        np.testing.assert_array_equal(outs[0], wanted)
        np.testing.assert_array_equal(outs[1], wanted)
        np.testing.assert_array_equal(outs[2], z)
        np.testing.assert_array_equal(outs[3], [[1, 0]])
        # of a chain only two neighbours are in use at a time
        assert library.workspace(n) == 2 * (-(-12 * n // 64) * 64) + 64
    assert library(x, z, *outs, 0) == 2
    header = str(files["chain.h"])
    assert "x_0" in header and "params_x" in header and "the size of x_0 along axis 0" in header
    assert re.search(r"x_0 +in, float, \(n, 3\)", header)


@needs_cc
def test_special_constants_are_written_exactly(tmp_path: Path) -> None:
    info = np.finfo(np.float32)
    special = [0.0, -0.0, 0.1, -1.5, 1e30, np.inf, -np.inf, np.nan, info.max, info.tiny, info.smallest_subnormal]
    arrays = [np.array(special, np.float32), np.array(special), np.arange(300, dtype=np.float64) / 7]
    arrays += [
        np.array([np.iinfo(t).min, np.iinfo(t).max, 5], t) for t in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
    ]
    arrays += [np.array([True, False, True]), np.zeros((0, 3), np.float32), np.array(2.5)]
    outputs = tuple(Output(a, tuple(index(n) for n in a.shape), a.dtype) for a in arrays)
    lowered = Lowered(Module("constants", (), (), (), ()), (), (), outputs, {}, ())
    for constants in ("inside", "file"):
        folder = tmp_path / constants
        folder.mkdir()
        files = standalone(lowered, "constants", [], [f"y{k}" for k in range(len(arrays))], constants)  # type: ignore[arg-type]
        library = Library(files, "constants", folder)
        assert constants == "inside" or library.load() == 0
        got = [empty(a.shape, a.dtype) for a in arrays]
        assert library(*got) == 0
        for a, b in zip(arrays, got, strict=True):
            assert a.tobytes() == b.tobytes()


def test_what_cannot_be_written_is_refused() -> None:
    lowered = chain(2)
    with pytest.raises(ArgumentError, match="input_names has 1 names for 2"):
        standalone(lowered, "chain", ["x"], ["y"] * 4)
    with pytest.raises(ArgumentError, match="identifier"):
        standalone(lowered, "a b", ["x", "z"], ["y"] * 4)
    with pytest.raises(ArgumentError, match="constants"):
        standalone(lowered, "chain", ["x", "z"], ["y"] * 4, "elsewhere")  # type: ignore[arg-type]
    strange = Output(np.zeros(2, np.complex64), (index(2),), np.dtype(np.complex64))
    with pytest.raises(UnsupportedError, match="complex64"):
        standalone(Lowered(Module("m", (), (), (), ()), (), (), (strange,), {}, ()), "m", [], ["y"])
