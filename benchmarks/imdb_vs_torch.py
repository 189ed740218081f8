"""The sentiment of IMDB's reviews: the same bidirectional LSTM in fnflare and in PyTorch, side by side.

``python -m benchmarks.imdb_vs_torch [DATA] [--epochs 3]``, where DATA (or FNFLARE_DATA) is a folder with
``imdb`` and ``glove`` in it. Both get the same batches in the same order and, unless ``--start own`` says
otherwise, the same initial weights; with ``--dropout 0`` they then differ by rounding alone.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import fnflare as ff
from fnflare import data, nn, optim

UNITS = 25
RATE = 2e-3


class Corpus(NamedTuple):
    """Reviews as numbers of words, and the vector of each word."""

    train: tuple[list[np.ndarray], np.ndarray]
    test: tuple[list[np.ndarray], np.ndarray]
    vectors: np.ndarray


class Classifier(NamedTuple):
    """One library's net: learns from a batch and returns its loss; gives the logits of a batch."""

    learn: Callable[[nn.Padded, np.ndarray], float]
    predict: Callable[[nn.Padded], np.ndarray]


def read(folder: Path, reviews: int, test_reviews: int, length: int) -> Corpus:
    """Read the reviews, shuffled and cut, and the vectors of GloVe's words."""
    words, vectors = data.read_vectors(next((folder / "glove").glob("glove*.txt")))
    vocabulary = data.Vocabulary(words)
    matrix, _ = vocabulary.embedding_matrix(words, vectors)

    def split(name: str, count: int) -> tuple[list[np.ndarray], np.ndarray]:
        texts, labels, _ = data.imdb(folder / "imdb", name)
        chosen = np.random.default_rng(0).permutation(len(texts))[:count]
        return [vocabulary.encode(data.tokenize(texts[i])[:length]) for i in chosen], labels[chosen]

    return Corpus(split("train", reviews), split("test", test_reviews), matrix)


def fnflare_classifier(vectors: np.ndarray, dropout: float, seed: int) -> tuple[Classifier, Any]:
    """fnflare's net, and its initial parameters."""
    model = nn.serial(
        words=nn.FixedEmbedding(vectors),
        lstm=nn.LSTM(UNITS, bidirectional=True),
        pool=nn.GlobalMaxPool,
        drop=nn.Dropout(dropout),
        head=nn.Dense(2),
    )
    _, params = model.init(ff.random.key(seed), (-1, -1))
    start, optimizer, key, count = params, optim.adam(RATE), ff.random.key(seed + 1), 0
    state = optimizer.init(params)

    @ff.value_and_grad
    def loss(params: Any, x: nn.Padded, y: np.ndarray, key: Any) -> Any:
        logits = model.apply(params, x, key=key, train=True)
        return np.mean(nn.softmax_cross_entropy_with_integer_labels(logits, y))

    def learn(x: nn.Padded, y: np.ndarray) -> float:
        nonlocal params, state, count
        value, grads = loss(params, x, y, ff.random.fold_in(key, count))
        updates, state = optimizer.update(grads, state, params)
        params = optim.apply_updates(params, updates)
        count += 1
        return float(value)

    return Classifier(learn, lambda x: model.apply(params, x)), start


def _copy_weights(params: Any, lstm: torch.nn.LSTM, head: torch.nn.Linear) -> None:
    """Give PyTorch's layers fnflare's weights; the order of the gates is the same, theirs are transposed."""
    with torch.no_grad():
        for suffix, name in (("", "forward"), ("_reverse", "backward")):
            one = params["lstm"][name]
            getattr(lstm, f"weight_ih_l0{suffix}").copy_(torch.from_numpy(one["W"].T))
            getattr(lstm, f"weight_hh_l0{suffix}").copy_(torch.from_numpy(one["U"].T))
            getattr(lstm, f"bias_ih_l0{suffix}").copy_(torch.from_numpy(one["b"]))
            getattr(lstm, f"bias_hh_l0{suffix}").zero_().requires_grad_(False)  # PyTorch has a second, redundant one
        head.weight.copy_(torch.from_numpy(params["head"]["W"].T))
        head.bias.copy_(torch.from_numpy(params["head"]["b"]))


def torch_classifier(vectors: np.ndarray, dropout: float, seed: int, start: Any | None) -> Classifier:
    """PyTorch's net, from fnflare's initial parameters or from its own."""
    torch.manual_seed(seed)
    embedding = torch.nn.Embedding.from_pretrained(torch.from_numpy(vectors))
    lstm = torch.nn.LSTM(vectors.shape[1], UNITS, bidirectional=True, batch_first=True)
    drop, head = torch.nn.Dropout(dropout), torch.nn.Linear(2 * UNITS, 2)
    if start is not None:
        _copy_weights(start, lstm, head)
    trained = [p for p in [*lstm.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.Adam(trained, RATE)

    def logits(x: nn.Padded, train: bool) -> torch.Tensor:
        words = embedding(torch.from_numpy(x.values))
        packed = pack_padded_sequence(words, torch.from_numpy(x.lengths), batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(lstm(packed)[0], batch_first=True, padding_value=-torch.inf)
        pooled = states.max(1).values
        return head(drop(pooled) if train else pooled)

    def learn(x: nn.Padded, y: np.ndarray) -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(logits(x, True), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def predict(x: nn.Padded) -> np.ndarray:
        with torch.no_grad():
            return logits(x, False).numpy()

    return Classifier(learn, predict)


def epoch(net: Classifier, train: data.DataLoader, test: data.DataLoader) -> tuple[float, float, float]:
    """Train once on all reviews: the mean loss, the accuracy on the test reviews, the seconds of training."""
    start = time.perf_counter()
    losses = [net.learn(x, y) for x, y in train]
    seconds = time.perf_counter() - start
    right = [np.argmax(net.predict(x), axis=-1) == y for x, y in test]
    return float(np.mean(losses)), float(np.mean(np.concatenate(right))), seconds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.imdb_vs_torch", description="sentiment, side by side")
    parser.add_argument("data", nargs="?", type=Path, default=os.environ.get("FNFLARE_DATA"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--reviews", type=int, default=10_000, help="to train on (default 10000)")
    parser.add_argument("--test-reviews", type=int, default=25_000, help="to test on (default 25000)")
    parser.add_argument("--length", type=int, default=400, help="words after which a review is cut (default 400)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--start", choices=("same", "own"), default="same", help="PyTorch's initial weights")
    args = parser.parse_args()
    if args.data is None:
        parser.error("name the folder with the data sets, or set FNFLARE_DATA")
    return args


def main() -> None:
    """Train both nets, epoch by epoch in turn."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    ff.config.set_num_threads(args.threads)
    corpus = read(Path(args.data), args.reviews, args.test_reviews, args.length)
    print(f"{len(corpus.train[0])} reviews to train on, {len(corpus.test[0])} to test on, cut at {args.length} words")
    own, start = fnflare_classifier(corpus.vectors, args.dropout, args.seed)
    peer = torch_classifier(corpus.vectors, args.dropout, args.seed, start if args.start == "same" else None)
    test = data.DataLoader(corpus.test, 100, bucket=250)
    # A loader for each, with the same key and so with the same batches.
    runs = {
        name: (net, data.DataLoader(corpus.train, args.batch, key=ff.random.key(args.seed), bucket=50))
        for name, net in (("fnflare", own), ("torch", peer))
    }
    print(f"{'epoch':>5s}  {'':8s}{'loss':>8s}{'test accuracy':>15s}{'seconds':>9s}")
    for number in range(args.epochs):
        for name, (net, train) in runs.items():
            loss, accuracy, seconds = epoch(net, train, test)
            print(f"{number + 1:5d}  {name:8s}{loss:8.4f}{accuracy:14.2%} {seconds:9.1f}", flush=True)


if __name__ == "__main__":
    main()
