"""Sentences of all lengths share one compilation, and one lowering."""

from __future__ import annotations

import numpy as np
import pytest

import fnflare as ff
from fnflare import nn, optim

pytest.importorskip("llvmlite")

from fnflare.compiler import segments
from fnflare.compiler.object_code import compilations

LENGTHS = range(2, 202)
model = nn.serial(lstm=nn.LSTM(3, bidirectional=True, last=True), head=nn.Dense(2))
optimizer = optim.sgd(1e-2)


def update(params, state, sentence, label):
    def loss(params):
        return np.mean(nn.softmax_cross_entropy_with_integer_labels(model.apply(params, sentence), label))

    value, grads = ff.value_and_grad(loss)(params)
    updates, state = optimizer.update(grads, state, params)
    return optim.apply_updates(params, updates), state, value


def test_two_hundred_lengths_are_one_compilation(tmp_path, monkeypatch):
    monkeypatch.setenv("FNFLARE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("FNFLARE_CACHE", raising=False)
    lowered = []
    lower = segments.lower
    monkeypatch.setattr(segments, "lower", lambda program: lowered.append(program) or lower(program))
    _, params = model.init(ff.random.key(0), (-1, -1, 4))
    state, label = optimizer.init(params), np.array([1])
    rng = np.random.default_rng(0)
    sentences = {t: rng.standard_normal((1, t, 4), dtype=np.float32) for t in LENGTHS}
    step = ff.jit(update)
    with ff.config.override(use_native=True):
        step(params, state, sentences[100], label)  # what all calls share is compiled before it is counted
        first = compilations()
        again = ff.jit(lambda *args: update(*args)[:2])
        # Each length costs a trace still, of which the warning tells.
        with pytest.warns(ff.RetracingWarning, match="traced for 21 signatures"):
            answers = {t: again(params, state, x, label) for t, x in sentences.items()}
    assert compilations() == first + 1
    assert len(lowered) == 2
    with ff.config.override(use_native=False):
        for t in (2, 3, 17, 100, 201):
            wanted = update(params, state, sentences[t], label)[:2]
            for a, b in zip(ff.tree.leaves(answers[t]), ff.tree.leaves(wanted), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_running_sums_along_and_across_lengths():
    def f(xs):
        ys = ff.scan(lambda c, x: (np.tanh(c + x), c), np.zeros(4), xs)[1]
        return np.cumsum(ys, 0), np.cumsum(ys, 1), np.cumsum(ys[::-1].T, 1)

    jitted = ff.jit(f)
    assert jitted.lower(np.ones((5, 4))).is_native
    for n in (2, 3, 8, 5, 1, 0):
        xs = np.random.default_rng(n).standard_normal((n, 4))
        for got, expected in zip(jitted(xs), f(xs), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-14)


def test_running_products_and_their_gradients_along_and_across_lengths():
    def f(xs):
        ys = ff.scan(lambda c, x: (np.tanh(c + x), c), np.ones(4), xs)[1]
        return np.prod(ys, 1), np.cumprod(ys, 0), np.cumprod(ys[::-1].T, 1)

    jitted = ff.jit(lambda xs: (f(xs), ff.grad(lambda xs: sum(np.sum(y * y) for y in f(xs)))(xs)))
    assert jitted.lower(np.ones((5, 4))).is_native
    for n in (2, 3, 8, 5, 1, 0):
        xs = np.random.default_rng(n).standard_normal((n, 4))
        wanted = f(xs), ff.grad(lambda xs: sum(np.sum(y * y) for y in f(xs)))(xs)
        for got, expected in zip(ff.tree.leaves(jitted(xs)), ff.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-13)


def test_a_running_sum_of_a_view_of_runtime_strides():
    def f(x):
        return ff.vmap(lambda y: ff.map(lambda a: ff.checkpoint(lambda b: np.cumsum(b) / 2)(a), y))(x)

    for shape in ((2, 3, 4), (2, 5, 4)):
        x = np.random.default_rng(0).standard_normal(shape)
        np.testing.assert_allclose(ff.jit(f)(x), f(x), rtol=1e-12)
