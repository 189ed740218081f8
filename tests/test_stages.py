"""What `jit(f).lower(*args)` tells of a function: the report, the texts, and the function itself."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import fnflare as ff
from fnflare import nn
from fnflare.errors import ArgumentError

x = np.linspace(0.1, 1.0, 12, dtype=np.float32).reshape(4, 3)
params = {"W": np.ones((3, 5), np.float32), "b": np.zeros(5, np.float32)}


def dense(params, x):
    return np.tanh(x @ params["W"] + params["b"])


def line_of(function, text):
    lines, first = inspect.getsourcelines(function)
    return next(first + k for k, line in enumerate(lines) if text in line)


def half_native(x):
    y = np.exp(x) * 2
    return np.sort(y, axis=0) + 1


def test_a_native_function_is_one_segment():
    stage = ff.jit(dense).lower(params, x)
    assert stage.is_native
    assert str(stage).splitlines() == [
        "dense: 3 equations in 1 segment",
        "  native: 3 equations: 1 loop nest (1 different), 1 sum of products",
    ]


def test_loops_and_lengths_are_counted():
    def read(xs):
        return ff.scan(lambda h, x: (np.tanh(h + x), None), np.zeros(3, np.float32), xs)[0]

    report = str(ff.jit(read).lower(x))
    assert "1 loop over time, 1 size given at run time" in report


def test_what_is_not_native_is_named_with_its_reason():
    stage = ff.jit(half_native).lower(x)
    assert not stage.is_native
    assert [s.lowered is not None for s in stage.segments] == [True, False, True]
    assert stage.segments[1].reasons == ("sort has no lowering",)
    assert "  NumPy: 1 equation: sort has no lowering" in str(stage).splitlines()
    assert "// In NumPy: sort" in stage.as_text("c99").splitlines()


def test_the_program_has_the_names_of_the_arguments():
    text = ff.jit(dense).lower(params, x).as_text()
    assert "params/W: float32[3,5]" in text
    assert text == ff.jit(dense).lower(params, x).as_text("program")
    assert "test_stages.py" in text


@pytest.mark.parametrize("static", [{}, {"static_argnums": 0}, {"static_argnames": "scale"}])
def test_names_of_inputs_where_arguments_are_static_or_by_keyword(static):
    def scaled(scale, x, y):
        return scale * (x["left"] + y)

    stage = ff.jit(scaled, **static).lower(2.0, {"left": x}, y=x)
    assert stage.program.input_names == (() if static else ("scale",)) + ("x/left", "y")


def test_the_text_in_c_has_names_and_lines():
    text = ff.jit(dense).lower(params, x).as_text("c99")
    assert f"{__file__}:{line_of(dense, 'np.tanh')}" in text
    assert 'return np.tanh(x @ params["W"] + params["b"])' in text
    assert "void dense(const float *params_W, const float *params_b, const float *x" in " ".join(text.split())
    assert "static void tanh2(const float *restrict x0, const float *restrict x1, float *restrict y2)" in text


def test_the_text_in_c_names_layers_and_derivatives():
    layer = nn.serial(hidden=nn.Dense(4), act=nn.Tanh, head=nn.Dense(1))
    _, params = layer.init(ff.random.key(0), (-1, 3))
    stage = ff.jit(ff.grad(lambda params, x: np.sum(layer.apply(params, x)))).lower(params, x)
    text = stage.as_text("c99")
    assert "const float *hidden_W" in text
    assert "static void act_tanh(" in text
    assert ", in hidden, backward: stage = " in text


def test_equal_loops_of_different_layers_are_one():
    layer = nn.serial(first=nn.serial(dense=nn.Dense(3), act=nn.Tanh), second=nn.serial(dense=nn.Dense(3), act=nn.Tanh))
    _, params = layer.init(ff.random.key(0), (-1, 3))
    (segment,) = ff.jit(layer.apply).lower(params, x).segments
    assert [k.name for k in segment.lowered.module.kernels] == ["first_act_tanh"]


def test_the_text_for_llvm():
    pytest.importorskip("llvmlite")
    text = ff.jit(dense).lower(params, x).as_text("llvm")
    assert text.startswith("; kernel.0: tanh; ")
    assert "define void @dense(ptr %buffers, ptr %sizes)" in text


def test_names_are_not_part_of_what_is_compiled():
    pytest.importorskip("llvmlite")
    from fnflare.compiler.llvm.render import render

    def text(function, *args):
        (segment,) = ff.jit(function).lower(*args).segments
        return render(segment.lowered.module)

    def other(weights, inputs):
        return np.tanh(inputs @ weights["W"] + weights["b"])

    assert text(dense, params, x) == text(other, params, x)


def test_there_are_three_languages():
    with pytest.raises(ArgumentError, match="'fortran' is none of 'program', 'c99', 'llvm'"):
        ff.jit(dense).lower(params, x).as_text("fortran")


def test_compile_gives_the_function():
    jitted = ff.jit(dense)
    compiled = jitted.lower(params, x).compile()
    assert compiled is jitted
    np.testing.assert_allclose(compiled(params, x), dense(params, x), rtol=1e-6)


def test_compile_compiles():
    pytest.importorskip("llvmlite")
    from fnflare.compiler.object_code import compilations

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FNFLARE_CACHE", "0")
        with ff.config.override(use_native=True):
            stage = ff.jit(lambda x: np.exp(x) * 1.2345678).lower(x)
            before = compilations()
            compiled = stage.compile()
            assert compilations() == before + 1
            compiled(x)
            assert compilations() == before + 1
