"""Large arrays: written where others are read for the last time, or computed twice rather than kept."""

import numpy as np
import pytest
from drawing import Draws
from hypothesis import given, reject
from hypothesis import strategies as st
from programs import program_of
from test_donation import OPERATIONS

import fnflare as ff
from fnflare import nn
from fnflare.compiler import fusion, recycling
from fnflare.compiler.lower import NotLowered, lower
from fnflare.program import run

pytest.importorskip("llvmlite")
from fnflare.compiler.build import build

RNG = Draws(0)
X, W, V = (RNG.standard_normal(s).astype(np.float32) for s in ((1024, 64), (64, 512), (512, 64)))
HIDDEN = 4 * 1024 * 512  # bytes


def peak(f, *args):
    return ff.jit(f).peak_bytes(*args)


def test_a_chain_between_products_takes_one_array():
    def f(x):
        return np.tanh(x @ W) @ V

    assert peak(f, X) == HIDDEN + X.nbytes
    np.testing.assert_allclose(ff.jit(f)(X), f(X), rtol=1e-4, atol=1e-4)


def test_a_softmax_is_computed_in_place():
    assert peak(lambda x: nn.softmax(x @ W) @ V, X) == HIDDEN + X.nbytes


def test_what_is_read_again_keeps_its_memory():
    def f(x):
        h = x @ W
        return np.tanh(h) @ V, h.T @ x

    assert peak(f, X) >= 2 * HIDDEN + X.nbytes
    for a, b in zip(ff.jit(f)(X), f(X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)


def gated(w, v):
    """The square of a layer whose derivative reads tanh once more."""
    h = X @ w
    y = (h * (1 + np.tanh(h))) @ v
    return np.sum(y * y)


def test_tanh_is_computed_again_for_its_derivative(monkeypatch):
    gradient = ff.grad(gated, argnums=(0, 1))
    program = program_of_pair(gradient)
    arrays = large_arrays(lower(program))
    assert arrays == 3  # what it is of, the layer's output for the gradient of v, and a cotangent in its place
    monkeypatch.setattr(fusion, "_BIG", 1 << 62)
    assert large_arrays(lower(program)) == arrays + 1
    for a, b in zip(ff.jit(gradient)(W, V), gradient(W, V), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-2 * np.abs(b).max())


def program_of_pair(f):
    return ff.make_program(f)(W, V)


def large_arrays(lowered):
    """How many arrays as large as the hidden one there are at once, at most."""
    lives = [life for b, life in lowered.lifetimes.items() if b.size.constant >= HIDDEN // 4]
    return max(sum(first <= t <= last for first, last in lives) for t in range(len(lowered.module.body)))


STEPS = st.lists(st.tuples(st.sampled_from(range(len(OPERATIONS))), st.integers(0, 9), st.integers(0, 9)), max_size=7)


@given(STEPS, st.lists(st.integers(0, 9), min_size=1, max_size=3))
def test_random_programs(steps, ends):
    def f(*arrays):
        found = list(arrays)
        for which, i, j in steps:
            found.append(np.tanh(OPERATIONS[which](found[i % len(found)], found[-1 - j % len(found)])))
        return np.stack([found[-1 - k % len(found)] for k in ends])

    a = RNG.standard_normal((6, 6))
    args = [a, a.T + 1, a * 2]
    program = program_of(f, *args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recycling, "_LARGE", 1)
        patch.setattr(fusion, "_BIG", 1)
        try:
            lowered = lower(program)
        except NotLowered:  # runs in segments, which tests of those hold to the same
            reject()
        got = build(lowered)(*args)
    for x, y in zip(got, run(program, args), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)
