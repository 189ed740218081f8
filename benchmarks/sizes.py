"""The eight workloads: their sizes and the inputs that both sides draw from, so that the work is the same.

========  ============================================================================================
name      one unit of work
========  ============================================================================================
bilstm    32 sentences of IMDB-like length (300 features), bidirectional LSTM of 25 units a direction,
          dropout, 2 classes, one Adadelta step
mlp       784-128-10, relu, dropout 0.2, batch 128, one Adam step
lenet     conv 5x5x20, pool, relu, conv 5x5x50, pool, relu, 500, 10; 28x28x1, batch 100, one Adam step
tree      32 random binary trees of about 19 leaves, Tree-LSTM of 100 units, one Adam step
tiny      gradient of a logistic-regression loss, 10x5, float64: nothing but overhead
gpt       2 blocks, width 128, 4 heads, 128 tokens, batch 16, one AdamW step
textcnn   300 features, widths 3, 4, 5 x 100 filters, 60 words, batch 50, one Adadelta step
pergrad   the gradient of each of 128 examples of the mlp
========  ============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Step = Callable[[], object]
"""Runs one unit of work and returns when it is done."""

Tree = int | tuple[Any, Any]
"""A leaf, which is the number of a token, or a pair of trees."""


@dataclass(frozen=True)
class Bilstm:
    """The sentence classifier."""

    sentences: int = 32
    features: int = 300
    hidden: int = 25
    classes: int = 2
    dropout: float = 0.5


@dataclass(frozen=True)
class Mlp:
    """The multi-layer perceptron, of `mlp` and `pergrad`."""

    batch: int = 128
    inputs: int = 784
    hidden: int = 128
    classes: int = 10
    dropout: float = 0.2


@dataclass(frozen=True)
class Lenet:
    """The digit classifier."""

    batch: int = 100
    side: int = 28
    window: int = 5
    filters: tuple[int, int] = (20, 50)
    hidden: int = 500
    classes: int = 10

    @property
    def flat(self) -> int:
        """Features after the second pool: 28 -> 24 -> 12 -> 8 -> 4, so 4 x 4 x 50."""
        side = self.side
        for _ in self.filters:
            side = (side - self.window + 1) // 2
        return side * side * self.filters[-1]


@dataclass(frozen=True)
class TreeLstm:
    """The Tree-LSTM."""

    trees: int = 32
    leaves: int = 19
    tokens: int = 200
    features: int = 100
    hidden: int = 100
    classes: int = 5


@dataclass(frozen=True)
class Tiny:
    """The logistic regression."""

    examples: int = 10
    features: int = 5


@dataclass(frozen=True)
class Gpt:
    """The transformer."""

    batch: int = 16
    length: int = 128
    width: int = 128
    heads: int = 4
    blocks: int = 2
    vocabulary: int = 65
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class TextCnn:
    """The convolutional sentence classifier."""

    batch: int = 50
    length: int = 60
    features: int = 300
    windows: tuple[int, ...] = (3, 4, 5)
    filters: int = 100
    classes: int = 2
    dropout: float = 0.5


@dataclass(frozen=True)
class Recurrent:
    """A recurrent layer in one direction, and a classifier of its last state."""

    units: int
    features: int
    batch: int = 32
    length: int = 200
    classes: int = 2


BILSTM, MLP, LENET, TREE, TINY, GPT, TEXTCNN = Bilstm(), Mlp(), Lenet(), TreeLstm(), Tiny(), Gpt(), TextCnn()

NAMES = ("bilstm", "mlp", "lenet", "tree", "tiny", "gpt", "textcnn", "pergrad")

CELLS = {"cell25": Recurrent(25, 300), "cell128": Recurrent(128, 128)}
"""Beside the workloads: what `benchmarks.unseen_cell` trains. The first is of the size of `bilstm`."""


def generator() -> np.random.Generator:
    """The source of every workload's inputs."""
    return np.random.default_rng(0)


def sentence_lengths() -> np.ndarray:
    """Lengths of sentences in words, spread as IMDB's reviews are: mean about 230 (187 in this draw), 10 to 1000."""
    return np.clip(generator().lognormal(5.2, 0.65, BILSTM.sentences).astype(int), 10, 1000)


def random_tree(rng: np.random.Generator, low: int, high: int) -> Tree:
    """A random binary tree over the tokens low, ..., high - 1, as nested pairs."""
    if high - low == 1:
        return low
    cut = int(rng.integers(low + 1, high))
    return (random_tree(rng, low, cut), random_tree(rng, cut, high))


def random_trees(rng: np.random.Generator) -> list[Tree]:
    """The trees of one batch."""
    return [random_tree(rng, 0, int(max(2, rng.poisson(TREE.leaves)))) for _ in range(TREE.trees)]
