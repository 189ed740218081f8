"""Parameters that several layers share: one leaf, whose gradient is the sum over its uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fnflare as ff
from fnflare import io, nn, optim, train, tree
from fnflare.errors import ArgumentError, ShapeError, TreeError

VOCABULARY, WIDTH = 7, 4


def language_model() -> nn.Layer:
    model = nn.serial(embed=nn.Embedding(VOCABULARY, WIDTH), act=nn.Tanh, out=nn.Dense(VOCABULARY))
    return nn.tied(model, {"out/W": ("embed/W", np.transpose)})


def init(model: nn.Layer, shape: Any = (-1,)) -> Any:
    return model.init(ff.random.key(0), shape)[1]


WORDS = np.array([1, 3, 3, 0])


def loss(model: nn.Layer, params: Any) -> Any:
    return np.sum(np.sin(model.apply(params, WORDS)))


def by_hand(params: Any) -> Any:
    embed, out = params["embed"]["W"], params["out"]["b"]
    return np.sum(np.sin(np.tanh(ff.at(embed)[WORDS].get()) @ embed.T + out))


@pytest.mark.parametrize("jit", [False, True])
def test_gradients_add_up(jit: bool) -> None:
    model = language_model()
    params = init(model)
    assert params["out"]["W"] is None
    f = ff.value_and_grad(lambda p: loss(model, p))
    value, grads = ff.jit(f)(params) if jit else f(params)
    expected, expected_grads = ff.value_and_grad(by_hand)(params)
    assert np.allclose(value, expected, rtol=1e-6)
    assert tree.structure(grads) == tree.structure(params)
    assert np.allclose(grads["embed"]["W"], expected_grads["embed"]["W"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_a_train_step_moves_the_one_array(jit: bool) -> None:
    model, opt = language_model(), optim.adam(0.1)
    params = init(model)
    state = opt.init(params)
    assert len(tree.leaves(state.mu)) == len(tree.leaves(params)) == 2
    step = train.make_step(lambda p, batch, key: loss(model, p), opt, jit=jit)
    losses = []
    for _ in range(5):
        params, state, metrics = step(params, state, WORDS)
        losses.append(float(metrics["loss"]))
    assert losses == sorted(losses, reverse=True)
    assert params["out"]["W"] is None


def test_files_and_summaries_count_it_once(tmp_path: Any) -> None:
    model = language_model()
    params = init(model)
    io.save(tmp_path / "model.npz", params)
    assert tree.equal(io.load(tmp_path / "model.npz", like=params), params)
    with np.load(tmp_path / "model.npz") as archive:
        assert sorted(n for n in archive.files if not n.endswith(".json")) == ["embed/W", "out/b"]
    summary = nn.summary(model, (-1,))
    assert summary.params == VOCABULARY * WIDTH + VOCABULARY
    assert sum(row.params for row in summary.rows) == summary.params
    assert sum(row.nbytes for row in summary.rows) == summary.nbytes
    assert {row.path: row.params for row in summary.rows} == {"embed": 28, "act": 0, "out": 7}
    inside = nn.summary(nn.serial(model=model, act=nn.Tanh), (-1,))
    assert sum(row.params for row in inside.rows) == inside.params == summary.params


def test_whole_layers_may_be_shared() -> None:
    model = nn.tied(nn.serial(nn.Dense(3), nn.Tanh, nn.Dense(3), nn.Dense(3)), {"2": "0", "3": "0"})
    params = init(model, (-1, 3))
    assert len(tree.leaves(params)) == 2
    x = np.float32([[1, 2, 3]])
    w, b = params[0]["W"], params[0]["b"]
    assert np.allclose(model.apply(params, x), (np.tanh(x @ w + b) @ w + b) @ w + b, rtol=1e-5)
    grads = ff.grad(lambda p: np.sum(model.apply(p, x)))(params)
    assert tree.structure(grads) == tree.structure(params)


def test_it_is_a_layer_among_others() -> None:
    model = nn.serial(nn.parallel(language_model(), language_model()), nn.FanInSum)
    params = init(model, ((-1,), (-1,)))
    assert model.apply(params, (WORDS, WORDS)).shape == (4, VOCABULARY)
    assert len(tree.leaves(params)) == 4


@pytest.mark.parametrize(
    ("ties", "error", "message"),
    [
        ({"out/W": "embed/W"}, ShapeError, r"\(4, 7\) and \(7, 4\); a function such as np.transpose"),
        ({"out/w": "embed/W"}, TreeError, r"no parameter at 'out/w'; at 'w' there are \['W', 'b'\]"),
        ({"out": "embed"}, TreeError, "'out' and 'embed' have different structures"),
        ({"out/W": "out/W"}, ArgumentError, "overlaps"),
        ({"out/W": "embed/W", "embed": "act"}, ArgumentError, "overlaps"),
        ({"out/W": ("embed/W", 3)}, ArgumentError, "a path and a function"),
        ({"": "embed/W"}, ArgumentError, "expected the path"),
    ],
)
def test_what_does_not_fit_is_named(ties: Any, error: type[Exception], message: str) -> None:
    model = nn.serial(embed=nn.Embedding(VOCABULARY, WIDTH), act=nn.Tanh, out=nn.Dense(VOCABULARY))
    with pytest.raises(error, match=message):
        init(nn.tied(model, ties))
