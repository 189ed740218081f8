"""fnflare's side of the workloads, as a user would write them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import fnflare as ff
from benchmarks.sizes import (
    BILSTM,
    GPT,
    LENET,
    MLP,
    TEXTCNN,
    TINY,
    TREE,
    Step,
    Tree,
    generator,
    random_trees,
    sentence_lengths,
)
from fnflare import nn, optim

Loss = Callable[..., Any]


def train_step(mode: str, loss: Loss, params: Any, optimizer: optim.GradientTransformation, *batch: Any) -> Step:
    """A train step of ``loss(params, key, *batch)``, run again and again on its own result, the parameters.

    It is run as it is written ("eager") or as one program ("jit").
    """
    gradient = ff.grad(loss)
    state, key, count = optimizer.init(params), ff.random.key(0), 0

    def update(params: Any, state: Any, key: Any, count: Any, *batch: Any) -> tuple[Any, Any]:
        grads = gradient(params, ff.random.fold_in(key, count), *batch)
        updates, state = optimizer.update(grads, state, params)
        return optim.apply_updates(params, updates), state

    run = ff.jit(update, donate_argnums=(0, 1)) if mode == "jit" else update

    def step() -> Any:
        nonlocal params, state, count
        params, state = run(params, state, key, count, *batch)
        count += 1
        return params

    return step


def classifier_loss(model: nn.Layer) -> Loss:
    """The mean cross-entropy of a model's logits."""

    def loss(params: Any, key: Any, x: Any, y: Any) -> Any:
        logits = model.apply(params, x, key=key, train=True)
        return np.mean(nn.softmax_cross_entropy_with_integer_labels(logits, y))

    return loss


def _train_classifier(mode: str, model: nn.Layer, shape: tuple[int, ...], optimizer: Any, x: Any, y: Any) -> Step:
    _, params = model.init(ff.random.key(1), shape)
    return train_step(mode, classifier_loss(model), params, optimizer, x, y)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape, dtype=np.float32)


def _train_by_sentence(
    parts: int, loss: Loss, params: Any, optimizer: optim.GradientTransformation, xs: Sequence[np.ndarray], ys: Any
) -> Step:
    """A train step of the mean of ``loss(params, key, x, y)`` over sentences, each with a length of its own.

    One program adds the gradient of a sentence to the sum of those before it. The sentences are dealt to so many
    threads of Python, the longest first; native code runs without the interpreter's lock.
    """
    order = np.argsort([-len(x) for x in xs], kind="stable")
    hands = [order[part::parts] for part in range(parts)]
    zeros = ff.tree.map(np.zeros_like, params)
    state, key, count = optimizer.init(params), ff.random.key(0), 0

    @ff.jit
    def add_gradient(total: Any, params: Any, key: Any, count: Any, number: Any, x: Any, y: Any) -> Any:
        key = ff.random.fold_in(ff.random.fold_in(key, count), number)
        return ff.tree.map(np.add, total, ff.grad(loss)(params, key, x, y))

    @ff.jit
    def update(params: Any, state: Any, totals: Any) -> tuple[Any, Any]:
        grads = ff.tree.map(lambda *each: sum(each) / len(xs), *totals)
        updates, state = optimizer.update(grads, state, params)
        return optim.apply_updates(params, updates), state

    def total_of(hand: np.ndarray) -> Any:
        total = zeros
        for number in hand:
            total = add_gradient(total, params, key, count, number, xs[number], ys[number])
        return total

    run = map if parts == 1 else ThreadPoolExecutor(parts).map

    def step() -> Any:
        nonlocal params, state, count
        params, state = update(params, state, list(run(total_of, hands)))
        count += 1
        return params

    return step


def bilstm(mode: str) -> Step:
    """All sentences in one padded batch ("eager", "jit"), or each by itself without padding: one after the other
    ("sentences"), or two at a time, with one thread for each ("threads")."""
    c, rng, lengths = BILSTM, generator(), sentence_lengths()
    xs = [normal(rng, int(t), c.features) for t in lengths]
    ys = rng.integers(0, c.classes, len(lengths))
    model = nn.serial(
        lstm=nn.LSTM(c.hidden, bidirectional=True, last=True), drop=nn.Dropout(c.dropout), head=nn.Dense(c.classes)
    )
    shape, optimizer = (-1, -1, c.features), optim.adadelta()
    if mode in ("eager", "jit"):
        return _train_classifier(mode, model, shape, optimizer, nn.pad(xs), ys)
    if mode == "threads":
        ff.config.set_num_threads(1)
    batch_loss = classifier_loss(model)
    _, params = model.init(ff.random.key(1), shape)

    def loss(params: Any, key: Any, x: Any, y: Any) -> Any:
        return batch_loss(params, key, x[None], y[None])

    return _train_by_sentence(2 if mode == "threads" else 1, loss, params, optimizer, xs, ys)


def mlp(mode: str) -> Step:
    """Dense, relu, dropout, dense."""
    c, rng = MLP, generator()
    model = nn.serial(nn.Dense(c.hidden), nn.Relu, nn.Dropout(c.dropout), nn.Dense(c.classes))
    x, y = normal(rng, c.batch, c.inputs), rng.integers(0, c.classes, c.batch)
    return _train_classifier(mode, model, (-1, c.inputs), optim.adam(1e-3), x, y)


def lenet(mode: str) -> Step:
    """Two convolutions with pools, two dense layers."""
    c, rng = LENET, generator()
    window = (c.window, c.window)
    model = nn.serial(
        nn.Conv(c.filters[0], window, padding="VALID"),
        nn.MaxPool((2, 2)),
        nn.Relu,
        nn.Conv(c.filters[1], window, padding="VALID"),
        nn.MaxPool((2, 2)),
        nn.Relu,
        nn.Flatten,
        nn.Dense(c.hidden),
        nn.Relu,
        nn.Dense(c.classes),
    )
    x, y = normal(rng, c.batch, c.side, c.side, 1), rng.integers(0, c.classes, c.batch)
    return _train_classifier(mode, model, (-1, c.side, c.side, 1), optim.adam(1e-3), x, y)


def tree(mode: str) -> Step:
    """A Tree-LSTM by plain recursion, which is a program of its own for each batch of trees: there is no "jit"."""
    c, rng = TREE, generator()
    trees = random_trees(rng)
    labels = rng.integers(0, c.classes, c.trees)
    logistic = ff.ops.logistic
    params = {
        "embedding": normal(rng, c.tokens, c.features),
        "leaf": {"W": 0.1 * normal(rng, c.features, 3 * c.hidden), "b": np.zeros(3 * c.hidden, np.float32)},
        "compose": {"W": 0.1 * normal(rng, 2 * c.hidden, 5 * c.hidden), "b": np.zeros(5 * c.hidden, np.float32)},
        "head": {"W": 0.1 * normal(rng, c.hidden, c.classes), "b": np.zeros(c.classes, np.float32)},
    }

    def dense(p: Any, x: Any) -> Any:
        return x @ p["W"] + p["b"]

    def encode(p: Any, node: Tree) -> tuple[Any, Any]:
        if isinstance(node, int):
            i, o, u = np.split(dense(p["leaf"], p["embedding"][node]), 3)
            cell = logistic(i) * np.tanh(u)
        else:
            (h_left, c_left), (h_right, c_right) = encode(p, node[0]), encode(p, node[1])
            i, f_left, f_right, o, u = np.split(dense(p["compose"], np.concatenate([h_left, h_right])), 5)
            cell = logistic(i) * np.tanh(u) + logistic(f_left) * c_left + logistic(f_right) * c_right
        return logistic(o) * np.tanh(cell), cell

    def loss(p: Any, key: Any, trees: list[Tree], labels: np.ndarray) -> Any:
        logits = np.stack([dense(p["head"], encode(p, t)[0]) for t in trees])
        return np.mean(nn.softmax_cross_entropy_with_integer_labels(logits, labels))

    return train_step(mode, loss, params, optim.adam(1e-3), trees, labels)


def tiny(mode: str) -> Step:
    """`ff.grad` of a loss in plain NumPy, run as it is ("eager") or as a program ("jit")."""
    c, rng = TINY, generator()
    x = rng.standard_normal((c.examples, c.features))
    y = rng.integers(0, 2, c.examples).astype(np.float64)
    w = np.zeros(c.features)

    def loss(w: Any) -> Any:
        p = 0.5 * (np.tanh(x @ w) + 1)
        return -np.sum(np.log(p * y + (1 - p) * (1 - y)))

    gradient = ff.jit(ff.grad(loss)) if mode == "jit" else ff.grad(loss)
    return lambda: gradient(w)


def _positions() -> nn.Layer:
    """Adds a trained vector for each position."""

    def init(key: Any, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Any]:
        return shape, np.zeros((GPT.length, GPT.width), np.float32)

    def apply(params: Any, x: Any, *, key: Any = None, train: bool = False) -> Any:
        return x + params

    return nn.Layer(init, apply)


def _block() -> nn.Layer:
    """A pre-norm transformer block."""
    attention = nn.serial(nn.LayerNorm(), nn.MultiHeadAttention(GPT.heads, causal=True))
    gelu = nn.elementwise(lambda x: nn.gelu(x, approximate=True), name="gelu")
    forward = nn.serial(nn.LayerNorm(), nn.Dense(4 * GPT.width), gelu, nn.Dense(GPT.width))
    return nn.serial(attention=nn.residual(attention), forward=nn.residual(forward))


def gpt(mode: str) -> Step:
    """The transformer."""
    c, rng = GPT, generator()
    model = nn.serial(
        nn.Embedding(c.vocabulary, c.width),
        _positions(),
        *[_block() for _ in range(c.blocks)],
        nn.LayerNorm(),
        nn.Dense(c.vocabulary),
    )
    tokens, labels = (rng.integers(0, c.vocabulary, (c.batch, c.length)) for _ in range(2))
    return _train_classifier(mode, model, (-1, c.length), optim.adamw(c.learning_rate), tokens, labels)


def textcnn(mode: str) -> Step:
    """Convolutions of three widths, each with relu and the maximum over time."""
    c, rng = TEXTCNN, generator()
    branches = [nn.serial(nn.Conv(c.filters, (k,), padding="VALID"), nn.Relu, nn.GlobalMaxPool) for k in c.windows]
    model = nn.serial(
        nn.FanOut(len(branches)), nn.parallel(*branches), nn.FanInConcat(), nn.Dropout(c.dropout), nn.Dense(c.classes)
    )
    x, y = normal(rng, c.batch, c.length, c.features), rng.integers(0, c.classes, c.batch)
    return _train_classifier(mode, model, (-1, c.length, c.features), optim.adadelta(), x, y)


def pergrad(mode: str) -> Step:
    """`vmap` of `grad` ("vmap"), the same as a program ("jit"), or one gradient after the other, stacked ("loop")."""
    c, rng = MLP, generator()
    model = nn.serial(nn.Dense(c.hidden), nn.Relu, nn.Dense(c.classes))
    _, params = model.init(ff.random.key(1), (-1, c.inputs))
    xs, ys = normal(rng, c.batch, c.inputs), rng.integers(0, c.classes, c.batch)

    def loss(p: Any, x: Any, y: Any) -> Any:
        return nn.softmax_cross_entropy_with_integer_labels(model.apply(p, x), y)

    gradient = ff.grad(loss)
    gradients = ff.vmap(gradient, in_axes=(None, 0, 0))

    def one_by_one(params: Any, xs: np.ndarray, ys: np.ndarray) -> Any:
        each = [gradient(params, x, y) for x, y in zip(xs, ys, strict=True)]
        return ff.tree.map(lambda *leaves: np.stack(leaves), *each)

    run = {"loop": one_by_one, "vmap": gradients, "jit": ff.jit(gradients)}[mode]
    return lambda: run(params, xs, ys)
