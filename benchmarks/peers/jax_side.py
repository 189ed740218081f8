"""JAX's side, with optax: compiled by `jax.jit`, and op by op for `tiny`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.sizes import BILSTM, GPT, LENET, MLP, TEXTCNN, TINY, Step, generator, sentence_lengths

Loss = Callable[..., Any]


def _train(loss: Loss, params: Any, optimizer: Any, *batch: Any) -> Step:
    """A compiled train step of ``loss(params, key, *batch)``, run again and again on its own result."""
    key = jax.random.key(0)

    @jax.jit
    def update(params: Any, state: Any, key: Any, *batch: Any) -> Any:
        grads = jax.grad(loss)(params, key, *batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    current = [params, optimizer.init(params)]

    def step() -> None:
        current[:] = update(*current, key, *batch)
        jax.block_until_ready(current[0])

    return step


def _normal(rng: np.random.Generator, scale: float = 0.05) -> Callable[..., Any]:
    return lambda *shape: jnp.array(rng.standard_normal(shape) * scale, "f4")


def _drop(key: Any, x: Any, rate: float) -> Any:
    return x * jax.random.bernoulli(key, 1 - rate, x.shape) / (1 - rate)


def _cross_entropy(logits: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _lstm(params: Any, x: Any, mask: Any, *, reverse: bool) -> Any:
    """The last state of an LSTM over padded sentences; padding leaves the state as it is."""
    gates_in = (x @ params["W"] + params["b"]).transpose(1, 0, 2)

    def cell(carry: Any, inputs: Any) -> Any:
        h, c = carry
        gates, keep = inputs
        i, f, o, u = jnp.split(gates + h @ params["U"], 4, -1)
        c_new = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(u)
        h_new = jax.nn.sigmoid(o) * jnp.tanh(c_new)
        return (jnp.where(keep, h_new, h), jnp.where(keep, c_new, c)), None

    zeros = jnp.zeros((x.shape[0], BILSTM.hidden))
    (h, _), _ = jax.lax.scan(cell, (zeros, zeros), (gates_in, mask.T[..., None]), reverse=reverse)
    return h


def bilstm(mode: str) -> Step:
    """All sentences padded to the longest, two `lax.scan`s."""
    c, rng, lengths = BILSTM, generator(), sentence_lengths()
    x = np.zeros((len(lengths), int(lengths.max()), c.features), "f4")
    for i, t in enumerate(lengths):
        x[i, :t] = rng.standard_normal((t, c.features))
    y, normal = rng.integers(0, c.classes, len(lengths)), _normal(rng, 0.1)

    def direction() -> dict[str, Any]:
        return {
            "W": normal(c.features, 4 * c.hidden),
            "U": normal(c.hidden, 4 * c.hidden),
            "b": jnp.zeros(4 * c.hidden),
        }

    params = {
        "forward": direction(),
        "backward": direction(),
        "W": normal(2 * c.hidden, c.classes),
        "b": jnp.zeros(c.classes),
    }

    def loss(p: Any, key: Any, x: Any, lengths: Any, y: Any) -> Any:
        mask = jnp.arange(x.shape[1])[None] < lengths[:, None]
        last = [_lstm(p["forward"], x, mask, reverse=False), _lstm(p["backward"], x, mask, reverse=True)]
        h = _drop(key, jnp.concatenate(last, -1), c.dropout)
        return _cross_entropy(h @ p["W"] + p["b"], y)

    return _train(loss, params, optax.adadelta(1.0), jnp.array(x), jnp.array(lengths), jnp.array(y))


def mlp(mode: str) -> Step:
    """Dense, relu, dropout, dense."""
    c, rng = MLP, generator()
    normal = _normal(rng)
    params = (normal(c.inputs, c.hidden), jnp.zeros(c.hidden), normal(c.hidden, c.classes), jnp.zeros(c.classes))

    def loss(p: Any, key: Any, x: Any, y: Any) -> Any:
        h = _drop(key, jax.nn.relu(x @ p[0] + p[1]), c.dropout)
        return _cross_entropy(h @ p[2] + p[3], y)

    x, y = rng.standard_normal((c.batch, c.inputs)), rng.integers(0, c.classes, c.batch)
    return _train(loss, params, optax.adam(1e-3), jnp.array(x, "f4"), jnp.array(y))


def lenet(mode: str) -> Step:
    """Two convolutions with pools, two dense layers; channels last."""
    c, rng = LENET, generator()
    normal, (f1, f2) = _normal(rng), c.filters
    params = [
        (normal(c.window, c.window, 1, f1), jnp.zeros(f1)),
        (normal(c.window, c.window, f1, f2), jnp.zeros(f2)),
        (normal(c.flat, c.hidden), jnp.zeros(c.hidden)),
        (normal(c.hidden, c.classes), jnp.zeros(c.classes)),
    ]

    def conv(x: Any, w: Any, b: Any) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=layout) + b

    def pool(x: Any) -> Any:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def loss(p: Any, key: Any, x: Any, y: Any) -> Any:
        h = jax.nn.relu(pool(conv(x, *p[0])))
        h = jax.nn.relu(pool(conv(h, *p[1])))
        h = jax.nn.relu(h.reshape(h.shape[0], -1) @ p[2][0] + p[2][1])
        return _cross_entropy(h @ p[3][0] + p[3][1], y)

    x, y = rng.standard_normal((c.batch, c.side, c.side, 1)), rng.integers(0, c.classes, c.batch)
    return _train(loss, params, optax.adam(1e-3), jnp.array(x, "f4"), jnp.array(y))


def tiny(mode: str) -> Step:
    """`jax.grad`, compiled ("jit") or op by op ("eager")."""
    jax.config.update("jax_enable_x64", True)
    c, rng = TINY, generator()
    x = jnp.array(rng.standard_normal((c.examples, c.features)))
    y = jnp.array(rng.integers(0, 2, c.examples).astype("f8"))
    w = jnp.zeros(c.features)

    def loss(w: Any) -> Any:
        p = 0.5 * (jnp.tanh(x @ w) + 1)
        return -jnp.log(p * y + (1 - p) * (1 - y)).sum()

    gradient = jax.jit(jax.grad(loss)) if mode == "jit" else jax.grad(loss)
    return lambda: jax.block_until_ready(gradient(w))


def _norm(x: Any, p: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * p[0] + p[1]


def _attend(p: Any, x: Any) -> Any:
    batch, length, width = x.shape
    head = width // GPT.heads
    q, k, v = (
        a.reshape(batch, length, GPT.heads, head).transpose(0, 2, 1, 3)
        for a in jnp.split(x @ p["qkv"][0] + p["qkv"][1], 3, -1)
    )
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(head).astype("f4")
    scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -1e30)
    mixed = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(batch, length, width)
    return mixed @ p["out"][0] + p["out"][1]


def gpt(mode: str) -> Step:
    """The transformer, with attention written out."""
    c, rng = GPT, generator()
    normal = _normal(rng)

    def dense(inputs: int, outputs: int) -> Any:
        return normal(inputs, outputs), jnp.zeros(outputs, "f4")

    def norm() -> Any:
        return jnp.ones(c.width, "f4"), jnp.zeros(c.width, "f4")

    def block() -> dict[str, Any]:
        return {
            "norm1": norm(),
            "norm2": norm(),
            "qkv": dense(c.width, 3 * c.width),
            "out": dense(c.width, c.width),
            "up": dense(c.width, 4 * c.width),
            "down": dense(4 * c.width, c.width),
        }

    params = {
        "tokens": normal(c.vocabulary, c.width),
        "positions": jnp.zeros((c.length, c.width), "f4"),
        "blocks": [block() for _ in range(c.blocks)],
        "norm": norm(),
        "head": dense(c.width, c.vocabulary),
    }

    def loss(p: Any, key: Any, tokens: Any, labels: Any) -> Any:
        x = p["tokens"][tokens] + p["positions"]
        for q in p["blocks"]:
            x = x + _attend(q, _norm(x, q["norm1"]))
            up = jax.nn.gelu(_norm(x, q["norm2"]) @ q["up"][0] + q["up"][1])
            x = x + up @ q["down"][0] + q["down"][1]
        return _cross_entropy(_norm(x, p["norm"]) @ p["head"][0] + p["head"][1], labels)

    tokens, labels = (jnp.array(rng.integers(0, c.vocabulary, (c.batch, c.length))) for _ in range(2))
    return _train(loss, params, optax.adamw(c.learning_rate), tokens, labels)


def textcnn(mode: str) -> Step:
    """Convolutions of three widths, each with relu and the maximum over time; channels last."""
    c, rng = TEXTCNN, generator()
    normal = _normal(rng)
    params = {
        "convs": [(normal(k, c.features, c.filters), jnp.zeros(c.filters)) for k in c.windows],
        "W": normal(len(c.windows) * c.filters, c.classes),
        "b": jnp.zeros(c.classes),
    }

    def conv(x: Any, w: Any, b: Any) -> Any:
        layout = ("NWC", "WIO", "NWC")
        return jax.lax.conv_general_dilated(x, w, (1,), "VALID", dimension_numbers=layout) + b

    def loss(p: Any, key: Any, x: Any, y: Any) -> Any:
        h = jnp.concatenate([jax.nn.relu(conv(x, w, b)).max(1) for w, b in p["convs"]], -1)
        return _cross_entropy(_drop(key, h, c.dropout) @ p["W"] + p["b"], y)

    x, y = rng.standard_normal((c.batch, c.length, c.features)), rng.integers(0, c.classes, c.batch)
    return _train(loss, params, optax.adadelta(1.0), jnp.array(x, "f4"), jnp.array(y))


def pergrad(mode: str) -> Step:
    """`jit` of `vmap` of `grad`."""
    c, rng = MLP, generator()
    normal = _normal(rng)
    params = (normal(c.inputs, c.hidden), jnp.zeros(c.hidden), normal(c.hidden, c.classes), jnp.zeros(c.classes))

    def loss(p: Any, x: Any, y: Any) -> Any:
        hidden = jax.nn.relu(x @ p[0] + p[1])
        return optax.softmax_cross_entropy_with_integer_labels(hidden @ p[2] + p[3], y)

    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))
    xs = jnp.array(rng.standard_normal((c.batch, c.inputs)), "f4")
    ys = jnp.array(rng.integers(0, c.classes, c.batch))
    return lambda: jax.block_until_ready(gradients(params, xs, ys))
