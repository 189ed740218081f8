"""Loops and choices against JAX, whose signatures they have."""

import inspect

import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import tree

jax = pytest.importorskip("jax")

RNG = Draws(4)
W = RNG.standard_normal((3, 3)).astype(np.float32) / 2
H = RNG.standard_normal(3).astype(np.float32)
XS = RNG.standard_normal((5, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ["scan", "map", "fori_loop", "while_loop", "cond", "switch"])
def test_signatures(name):
    ours = [(p.name, p.kind) for p in inspect.signature(getattr(ff, name)).parameters.values()]
    theirs = [(p.name, p.kind) for p in inspect.signature(getattr(jax.lax, name)).parameters.values()]
    if name == "cond":  # takes *args and sorts them out inside
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        theirs = [
            *[(n, kind) for n in ("pred", "true_fun", "false_fun")],
            ("operands", inspect.Parameter.VAR_POSITIONAL),
        ]
    assert ours == theirs[: len(ours)]


def recurrent(np_, lib):
    def loss(w, h, xs):
        def step(c, x):
            h, total = c
            h = np_.tanh(x @ w + h)
            return (h, total + np_.sum(h)), {"h": h * x[0], "none": None}

        (h, total), ys = lib.scan(step, (h, 0.0), xs, reverse=True)
        return total * np_.sum(ys["h"] ** 2) + np_.sum(h)

    return loss


def choosing(np_, lib):
    def loss(w, h, xs):
        a = lib.cond(h[0] > 0, lambda x: x @ w, lambda x: x - h, xs)
        b = lib.switch(2, [lambda x: x, np_.sin, lambda x: x * w[0]], a)
        c = lib.fori_loop(1, 4, lambda i, u: np_.tanh(u * w[1] + np_.take(w[2], i % 3)), b)
        return np_.sum(lib.map(lambda x: x @ w @ x, c))

    return loss


@pytest.mark.parametrize("make", [recurrent, choosing])
def test_values_and_gradients(make):
    f, g = make(np, ff), make(jax.numpy, jax.lax)
    for h in (H, -H):
        args = W, h, XS
        expected, theirs = jax.value_and_grad(g, argnums=(0, 1, 2))(*args)
        for transform in (lambda f: f, ff.jit):
            value, grads = transform(ff.value_and_grad(f, argnums=(0, 1, 2)))(*args)
            assert value.dtype == np.float32
            np.testing.assert_allclose(value, expected, rtol=1e-5)
            for ours, other in zip(grads, theirs, strict=True):
                assert ours.dtype == np.float32
                np.testing.assert_allclose(ours, other, rtol=1e-4, atol=1e-5)
        slope = ff.jvp(f, args, args)[1]
        np.testing.assert_allclose(slope, jax.jvp(g, args, args)[1], rtol=1e-4)
    hs = np.stack([H, -H, 2 * H])
    ours = ff.vmap(ff.grad(f), (None, 0, None))(W, hs, XS)
    np.testing.assert_allclose(ours, jax.vmap(jax.grad(g), (None, 0, None))(W, hs, XS), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "reverse"), [(0, False), (1, True), (3, True)])
def test_lengths(steps, reverse):
    def run(lib):
        def step(c, x):
            return (c[0] + x[0], c[1] * 2), (c[0], x)

        return lib.scan(step, (np.float32(0.5), np.int32(1)), XS[:steps], steps, reverse)

    ours, theirs = run(ff), run(jax.lax)
    for a, b in zip(tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_loop_with_a_condition():
    def run(np_, lib):
        def f(a):
            return lib.while_loop(lambda c: c[0] * c[0] < a, lambda c: (c[0] * 1.5, c[1] + 1), (a / 100, 0))

        return f

    f, g = run(np, ff), run(jax.numpy, jax.lax)
    xs = np.array([2, 50, 9000], np.float32)
    for ours, theirs in (
        (f(xs[1]), g(xs[1])),
        (ff.vmap(f)(xs), jax.vmap(g)(xs)),
        (ff.jvp(lambda x: f(x)[0], (xs[1],), (xs[0],)), jax.jvp(lambda x: g(x)[0], (xs[1],), (xs[0],))),
    ):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)
