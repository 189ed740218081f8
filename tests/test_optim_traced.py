"""Optimiser steps under fnflare's own transforms: meta-gradients, hypergradients, abstract evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optimisers_under_test import OPTIMISERS, Make, run

import fnflare as ff
from fnflare import optim, tree
from fnflare.optim import leaves
from fnflare.testing import check_vmap

SMOOTH: dict[str, Make] = {
    **{name: make for name, make in OPTIMISERS.items() if name not in ("lion", "rprop", "sign_sgd")},  # signs are flat
    "clipped": lambda: optim.chain(optim.clip_by_global_norm(0.5), optim.adam(0.1)),
    "masked": lambda: optim.masked(optim.adam(0.1), {"w": True, "b": False}),
    "multi": lambda: optim.multi_transform({"a": optim.adam(0.1), "b": optim.sgd(0.1, 0.9)}, {"w": "a", "b": "b"}),
}

PARAMS = {"w": np.array([0.5, -1.5, 2.0]), "b": np.array(0.3)}


def inner_loss(params: Any) -> Any:
    return np.sum(np.sin(params["w"]) ** 2) + params["b"] ** 2 * np.sum(params["w"])


def outer_loss(opt: optim.GradientTransformation, params: Any, steps: int = 3) -> Any:
    params, _ = run(opt, params, ff.grad(inner_loss), steps)
    return np.sum(params["w"] ** 2) + params["b"]


def numerical(f: Any, params: Any, eps: float = 1e-6) -> np.ndarray:
    flat, unravel = tree.ravel(params)
    bumps = eps * np.eye(flat.size)
    return np.array([(f(unravel(flat + e)) - f(unravel(flat - e))) / (2 * eps) for e in bumps])


@pytest.mark.parametrize("name", SMOOTH)
def test_gradient_through_three_steps(name: str) -> None:
    opt = SMOOTH[name]()

    def f(params: Any) -> Any:
        return outer_loss(opt, params)

    grads = ff.grad(f)(PARAMS)
    assert tree.structure(grads) == tree.structure(PARAMS)
    assert np.allclose(tree.ravel(grads)[0], numerical(f, PARAMS), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("make", [optim.sgd, optim.adam, optim.adamw, optim.rmsprop])
def test_gradient_by_the_learning_rate(make: Any, dtype: Any) -> None:
    params = tree.map(lambda x: x.astype(dtype), PARAMS)

    def f(rate: Any) -> Any:
        return outer_loss(make(rate), params)

    rate = np.asarray(0.1)
    slope = ff.grad(f)(rate)
    exact = ff.grad(lambda r: outer_loss(make(r), PARAMS))(rate)
    assert np.allclose(exact, numerical(lambda r: outer_loss(make(r), PARAMS), rate), rtol=1e-6)
    assert np.allclose(slope, exact, rtol=1e-3 if dtype is np.float32 else 1e-12)
    assert f(rate).dtype == dtype


@pytest.mark.parametrize("traced", ["grads", "mu", "nu"])
@pytest.mark.parametrize("tile", [1, 2**15])
def test_each_argument_alone_may_be_traced(traced: str, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "TILE", tile)
    opt = optim.adam(0.1)
    grads = np.array([1.0, -2.0])
    _, state = opt.update(grads, opt.init(grads))

    def f(x: Any) -> Any:
        args = {"grads": grads, "mu": state.mu, "nu": state.nu, traced: x}
        updates, _ = opt.update(args["grads"], state._replace(mu=args["mu"], nu=args["nu"]))
        return np.sum(np.sin(updates))

    x = {"grads": grads, "mu": state.mu, "nu": state.nu}[traced]
    assert np.allclose(ff.grad(f)(x), numerical(f, x), rtol=1e-5)


def test_gradient_through_the_clipping_of_a_zero_gradient_is_finite() -> None:
    opt = optim.clip_by_global_norm(1.0)

    def f(g: Any) -> Any:
        return np.sum(opt.update(g, opt.init(g))[0])

    assert np.array_equal(ff.grad(f)(np.zeros(3)), np.ones(3))


def test_eps_root_keeps_the_gradient_finite_where_the_gradient_is_zero() -> None:
    opt = optim.adam(0.1, eps_root=1e-8)

    def f(g: Any) -> Any:
        return np.sum(opt.update(g, opt.init(g))[0])

    assert np.all(np.isfinite(ff.grad(f)(np.zeros(3))))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_abstract_evaluation_tells_the_shapes_of_a_step(name: str) -> None:
    opt = OPTIMISERS[name]()
    params = {"w": np.ones((2, 3), np.float32), "b": np.ones(3)}

    def step(params: Any, grads: Any) -> Any:
        state = opt.init(params)
        updates, state = opt.update(grads, state, params)
        updates, state = opt.update(grads, state, params)
        return optim.apply_updates(params, updates), state

    def described(t: Any) -> Any:
        return tree.map(lambda x: (tuple(x.shape), np.dtype(x.dtype)), t)

    assert described(ff.eval_shape(step, params, params)) == described(step(params, params))
    state = opt.init(params)
    shapes = ff.eval_shape(lambda s: opt.update(params, s, params), state)
    assert described(shapes) == described(opt.update(params, state, params))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_many_models_at_once(name: str) -> None:
    opt = OPTIMISERS[name]()
    many = tree.map(lambda x: np.stack([x, 0.5 * x, -x]), PARAMS)
    check_vmap(lambda params: run(opt, params, ff.grad(inner_loss), 3), (many,))
