"""The speed of the machine's arithmetic, which no library can beat, and how much of it each workload needs.

One large matrix product says how fast; of a workload its matrix products count, which are nearly all of its work: the
forward pass, the gradient of the weights, and the gradient of the inputs where something before them is trained. A
convolution counts as the product that it is a sum of. Padding counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.sizes import (
    BILSTM,
    GPT,
    LENET,
    MLP,
    TEXTCNN,
    TREE,
    Step,
    Tree,
    generator,
    random_trees,
    sentence_lengths,
)

SIDE = 2048


def _product(m: int, k: int, n: int, passes: int = 1) -> float:
    """Floating-point work of the product of (m, k) and (k, n), so many times; billions of operations."""
    return 2e-9 * m * k * n * passes


SGEMM_GFLOP = _product(SIDE, SIDE, SIDE)
"""Floating-point work of one unit of `sgemm`."""

#: The forward pass, the gradient of the weights, and that of the inputs where it is needed.
DATA, HIDDEN = 2, 3


def sgemm(mode: str) -> Step:
    """A float32 matrix product, large enough that only arithmetic counts."""
    rng = generator()
    a, b = (rng.standard_normal((SIDE, SIDE), dtype=np.float32) for _ in range(2))
    out = np.empty_like(a)
    return lambda: np.matmul(a, b, out=out)


def _bilstm() -> float:
    c, words = BILSTM, int(sentence_lengths().sum())
    gates = 4 * c.hidden
    direction = _product(words, c.features, gates, DATA) + _product(words, c.hidden, gates, HIDDEN)
    return 2 * direction + _product(c.sentences, 2 * c.hidden, c.classes, HIDDEN)


def _mlp() -> float:
    c = MLP
    return _product(c.batch, c.inputs, c.hidden, DATA) + _product(c.batch, c.hidden, c.classes, HIDDEN)


def _lenet() -> float:
    c, window = LENET, LENET.window**2
    first = c.side - c.window + 1
    second = first // 2 - c.window + 1
    return (
        _product(c.batch * first**2, window, c.filters[0], DATA)
        + _product(c.batch * second**2, window * c.filters[0], c.filters[1], HIDDEN)
        + _product(c.batch, c.flat, c.hidden, HIDDEN)
        + _product(c.batch, c.hidden, c.classes, HIDDEN)
    )


def _leaves(node: Tree) -> int:
    return 1 if isinstance(node, int) else _leaves(node[0]) + _leaves(node[1])


def _tree() -> float:
    c = TREE
    leaves = sum(_leaves(tree) for tree in random_trees(generator()))
    return (
        _product(leaves, c.features, 3 * c.hidden, HIDDEN)
        + _product(leaves - c.trees, 2 * c.hidden, 5 * c.hidden, HIDDEN)
        + _product(c.trees, c.hidden, c.classes, HIDDEN)
    )


def _gpt() -> float:
    c, tokens = GPT, GPT.batch * GPT.length
    projections = 4 * _product(tokens, c.width, c.width, HIDDEN)
    pairs = c.batch * c.length * (c.length + 1) // 2  # of a token and one that it sees
    attention = 2 * _product(pairs, c.width, 1, HIDDEN)
    forward = 2 * _product(tokens, c.width, 4 * c.width, HIDDEN)
    return c.blocks * (projections + attention + forward) + _product(tokens, c.width, c.vocabulary, HIDDEN)


def _textcnn() -> float:
    c = TEXTCNN
    convolutions = sum(
        _product(c.batch * (c.length - window + 1), window * c.features, c.filters, DATA) for window in c.windows
    )
    return convolutions + _product(c.batch, len(c.windows) * c.filters, c.classes, HIDDEN)


_COUNTS: dict[str, Callable[[], float]] = {
    "bilstm": _bilstm,
    "mlp": _mlp,
    "lenet": _lenet,
    "tree": _tree,
    "gpt": _gpt,
    "textcnn": _textcnn,
    "pergrad": _mlp,  # and an array of gradients for each example to write, which is most of its time
}


def gflop(workload: str) -> float | None:
    """Floating-point work of a unit, in billions of operations; None where there is next to none."""
    return _COUNTS[workload]() if workload in _COUNTS else None
