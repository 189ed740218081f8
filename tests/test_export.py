"""Models as libraries in C: they build without Python, and give Python's answers."""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import nn
from fnflare.errors import ArgumentError, UnsupportedError

Array = np.ndarray[Any, Any]
CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler")
generator = Draws(0)


def normal(*shape: int) -> Array:
    return generator.standard_normal(shape, dtype=np.float32)


class Library:
    """A library that was exported, compiled as its users compile it, and loaded."""

    def __init__(self, fun: Callable[..., Any], args: tuple[Any, ...], path: Path, weights: Any = "inside") -> None:
        files = ff.export.c99(fun, args, path, weights=weights)
        self.name, self.files, self.fun = path.stem, {f.suffix: f for f in files}, fun
        self.source, self.header = self.files[".c"].read_text(), self.files[".h"].read_text()
        assert CC is not None
        target = path.with_suffix(".so")
        flags = ["-O3", "-march=native", "-std=c99", "-Wall", "-Werror"]
        command = [CC, *flags, "-shared", "-fPIC", str(files[0]), "-o", str(target), "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        self._library = ctypes.CDLL(str(target))

    def load(self) -> int:
        return int(self._library[f"{self.name}_load"](str(self.files[".weights"]).encode()))

    def __call__(self, *args: Any, sizes: tuple[int, ...] = ()) -> Array:
        """What the function in C answers, an array like Python's answer."""
        wanted = np.asarray(self.fun(*args))
        lengths = [ctypes.c_int64(n) for n in sizes]
        bytes_needed = self._library[f"{self.name}_workspace"]
        bytes_needed.restype = ctypes.c_size_t
        memory = np.empty(bytes_needed(*lengths), np.uint8)
        out = np.full_like(wanted, 7)
        arrays = [np.ascontiguousarray(a) for a in ff.tree.leaves(args)]
        pointers = [ctypes.c_void_p(a.ctypes.data) for a in [*arrays, out]]
        assert self._library[self.name](*pointers, *lengths, ctypes.c_void_p(memory.ctypes.data)) == 0
        return out

    def check(self, *args: Any, sizes: tuple[int, ...] = ()) -> None:
        """The function in C answers what the function in Python answers."""
        np.testing.assert_allclose(self(*args, sizes=sizes), self.fun(*args), rtol=1e-4, atol=1e-5)


def model_of(layer: nn.Layer, shape: tuple[int, ...]) -> Callable[..., Any]:
    """A model with parameters none of which is 0, as a function of its inputs."""
    _, params = layer.init(ff.random.key(0), shape)
    params = ff.tree.map(lambda p: p + 0.1 * generator.standard_normal(p.shape).astype(p.dtype), params)
    return lambda x: layer.apply(params, x)


@needs_cc
@pytest.mark.parametrize("weights", ["inside", "file"])
def test_mlp(weights, tmp_path):
    mlp = model_of(nn.serial(hidden=nn.Dense(128), relu=nn.Relu, head=nn.Dense(10), out=nn.Softmax), (-1, 784))
    library = Library(mlp, (normal(3, 784),), tmp_path / "mlp.c", weights)
    assert "int mlp(const float *x, float *out, void *workspace);" in library.header
    assert "x          in, float, (3, 784)" in library.header
    for name in ("hidden_W", "hidden_b", "head_W", "head_b", "out_softmax"):
        assert re.search(rf"\b{name}\b", library.source), name
    if weights == "file":
        assert library.files[".weights"].stat().st_size > 4 * 784 * 128
        assert library.load() == 0
    else:
        assert sorted(library.files) == [".c", ".h"]
    for _ in range(3):
        library.check(normal(3, 784))


@needs_cc
def test_lenet(tmp_path):
    lenet = model_of(
        nn.serial(
            conv1=nn.Conv(6, (5, 5), padding="SAME"),
            relu1=nn.Relu,
            pool1=nn.MaxPool((2, 2)),
            conv2=nn.Conv(16, (5, 5), padding="VALID"),
            relu2=nn.Relu,
            pool2=nn.AvgPool((2, 2)),
            flat=nn.Flatten,
            dense=nn.Dense(84),
            tanh=nn.Tanh,
            head=nn.Dense(10),
            out=nn.LogSoftmax,
        ),
        (-1, 28, 28, 1),
    )
    library = Library(lenet, (normal(2, 28, 28, 1),), tmp_path / "lenet.c", "file")
    assert "conv2_W" in library.source
    assert library.load() == 0
    for _ in range(3):
        library.check(normal(2, 28, 28, 1))


def bilstm() -> Callable[..., Any]:
    layers = nn.serial(words=nn.Embedding(50, 7), lstm=nn.LSTM(5, bidirectional=True, last=True), head=nn.Dense(2))
    return model_of(layers, (-1, -1))


@needs_cc
def test_bilstm_at_all_lengths(tmp_path):
    library = Library(bilstm(), (np.zeros((1, 9), np.int32),), tmp_path / "bilstm.c")
    assert "int bilstm(const int32_t *x, float *out, int64_t T0, void *workspace);" in library.header
    assert "x          in, int32_t, (1, T0)" in library.header
    for name in ("words_W", "lstm_forward_W", "lstm_backward_U", "lstm_carry"):
        assert re.search(rf"\b{name}\b", library.source), name
    for length in (1, 2, 3, 9, 10, 64, 257):
        library.check(generator.integers(0, 50, (1, length), np.int32), sizes=(length,))


@needs_cc
def test_padded_batches(tmp_path):
    example = nn.Padded(np.zeros((3, 9), np.int32), np.array([9, 4, 1]))
    library = Library(bilstm(), (example,), tmp_path / "classifier.c")
    assert "const int32_t *x_values, const int64_t *x_lengths, float *out, int64_t T0" in library.header
    for longest in (1, 2, 9, 17, 40):
        values = generator.integers(0, 50, (3, longest), np.int32)
        lengths = generator.integers(1, longest + 1, 3)
        library.check(nn.Padded(values, lengths), sizes=(longest,))


@needs_cc
def test_what_depends_on_the_length_is_for_that_length_alone(tmp_path):
    w = normal(3, 3)

    def mean(x):
        return ff.scan(lambda c, a: (np.tanh(c + a @ w), None), np.zeros(3, np.float32), x)[0] / x.shape[0]

    library = Library(mean, (normal(6, 3),), tmp_path / "mean.c")
    assert "int mean(const float *x, float *out, void *workspace);" in library.header
    library.check(normal(6, 3))


@needs_cc
def test_the_text_says_where_it_comes_from(tmp_path):
    library = Library(bilstm(), (np.zeros((1, 9), np.int32),), tmp_path / "net.c")
    assert f"{__file__}:" in library.source
    assert ", in lstm: return lambda x: layer.apply(params, x) */" in library.source


def test_weights_of_partial_functions_have_names(tmp_path):
    layer = nn.serial(hidden=nn.Dense(4), tanh=nn.Tanh)
    _, params = layer.init(ff.random.key(0), (-1, 3))
    source = ff.export.c99(functools.partial(layer.apply, params), (normal(2, 3),), tmp_path / "net.c")[0].read_text()
    assert "static const float hidden_W[12]" in source


def test_arguments_may_be_shapes(tmp_path):
    shape = ff.ShapeDtypeStruct((4,), np.float64)
    source, header = ff.export.c99(lambda x: {"up": x + 1, "down": x - 1}, (shape,), tmp_path / "steps.c")
    assert "int steps(const double *x, double *down, double *up, void *workspace);" in header.read_text()
    assert source.name == "steps.c"


def test_what_cannot_be_exported_is_named(tmp_path):
    with pytest.raises(UnsupportedError, match=r"order cannot be written in C: sort has no lowering"):
        ff.export.c99(lambda x: np.sort(np.exp(x)), (normal(3),), tmp_path / "order.c")
    assert not list(tmp_path.iterdir())


def test_the_name_of_the_file_must_be_one_of_c(tmp_path):
    with pytest.raises(ArgumentError, match="write an identifier"):
        ff.export.c99(np.tanh, (normal(3),), tmp_path / "my net.c")
