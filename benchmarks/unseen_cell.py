"""A recurrent cell that the library has never seen, as fast as its own: trained beside `nn.LSTM`.

``python -m benchmarks.unseen_cell [--seconds 1.5] [--threads 2]``: the jitted train step of a classifier of the last
state, its cell an LSTM with layer normalisation (Ba et al. 2016) and peepholes (Gers & Schmidhuber 2000), written for
one step and run by `fnflare.scan`, beside the same with `fnflare.nn.LSTM`, of the same size on the same data; in turn,
each in a process of its own, as `benchmarks.run` does it. PyTorch's `nn.LSTM` runs beside them for comparison.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import fnflare as ff
from benchmarks import commandline
from benchmarks.contestants import UNSEEN_CELL, Contestant
from benchmarks.run import quotient, race
from benchmarks.sizes import CELLS, Recurrent, Step, generator
from benchmarks.workloads import normal, train_step
from fnflare import nn, optim

UNSEEN, LSTM, TORCH = Contestant("cell", "unseen"), Contestant("cell", "lstm"), Contestant("torch", "eager")


def normalised(x: Any, scale: Any) -> Any:
    """Mean 0 and variance 1 over the last axis, times a scale."""
    x = x - np.mean(x, axis=-1, keepdims=True)
    return scale * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5)


def cell(p: Any, carry: tuple[Any, Any], x: Any) -> tuple[Any, Any]:
    """One step of the cell: its sums are normalised, and its gates see its state."""
    h, c = carry
    gates = normalised(x @ p["W"], p["scale_x"]) + normalised(h @ p["U"], p["scale_h"]) + p["b"]
    i, f, g, o = np.split(gates, 4, axis=-1)
    w_i, w_f, w_o = p["peephole"]
    c = nn.sigmoid(f + w_f * c) * c + nn.sigmoid(i + w_i * c) * np.tanh(g)
    h = nn.sigmoid(o + w_o * c) * np.tanh(normalised(c, p["scale_c"]))
    return h, c


def _unseen(c: Recurrent, rng: np.random.Generator) -> tuple[Any, Any]:
    """The last state of the cell, as a function of parameters and inputs (N, T, features); and the parameters."""
    params = {
        "W": 0.1 * normal(rng, c.features, 4 * c.units),
        "U": 0.1 * normal(rng, c.units, 4 * c.units),
        "b": np.zeros(4 * c.units, np.float32),
        "peephole": 0.1 * normal(rng, 3, c.units),
        "scale_x": np.ones(4 * c.units, np.float32),
        "scale_h": np.ones(4 * c.units, np.float32),
        "scale_c": np.ones(c.units, np.float32),
    }

    def apply(p: Any, x: Any) -> Any:
        zeros = np.zeros((x.shape[0], c.units), np.float32)
        (h, _), _ = ff.scan(lambda carry, x: (cell(p, carry, x), None), (zeros, zeros), np.swapaxes(x, 0, 1))
        return h

    return apply, params


def _lstm(c: Recurrent) -> tuple[Any, Any]:
    """The same with the library's own LSTM."""
    layer = nn.LSTM(c.units, last=True)
    _, params = layer.init(ff.random.key(1), (-1, -1, c.features))
    return layer.apply, params


def _training(name: str, mode: str) -> Step:
    """A train step with the cell ("unseen") or the library's ("lstm")."""
    c, rng = CELLS[name], generator()
    x, y = normal(rng, c.batch, c.length, c.features), rng.integers(0, c.classes, c.batch)
    last_state, recurrent = _unseen(c, rng) if mode == "unseen" else _lstm(c)
    _, head = nn.Dense(c.classes).init(ff.random.key(2), (-1, c.units))

    def loss(params: Any, key: Any, x: Any, y: Any) -> Any:
        logits = nn.Dense(c.classes).apply(params["head"], last_state(params["recurrent"], x))
        return np.mean(nn.softmax_cross_entropy_with_integer_labels(logits, y))

    return train_step("jit", loss, {"recurrent": recurrent, "head": head}, optim.adam(1e-3), x, y)


cell25, cell128 = partial(_training, "cell25"), partial(_training, "cell128")


class Times(NamedTuple):
    """Milliseconds of a train step, and the ratio of the first two; None for what is not installed."""

    unseen: float
    lstm: float
    torch: float | None
    ratio: float


def measure(name: str, seconds: float = 1.5, threads: int = 2) -> Times:
    """Train both cells, in turn.

    Args:
        name: one of `benchmarks.sizes.CELLS`.
        seconds: how long each works in all, about.
        threads: how many threads, and cores, each may use.

    Raises:
        RuntimeError: one of the two did not run.
    """
    outcomes = race(name, [UNSEEN, LSTM, TORCH], seconds, threads)
    for contestant in (UNSEEN, LSTM):
        if outcomes[contestant].error:
            raise RuntimeError(f"{name}, {contestant}: {outcomes[contestant].error}")
    unseen, lstm, torch = (
        statistics.median(outcomes[c].turns) * 1e3 if outcomes[c].turns else None for c in (UNSEEN, LSTM, TORCH)
    )
    assert unseen is not None and lstm is not None
    return Times(unseen, lstm, torch, quotient(outcomes[UNSEEN], outcomes[LSTM]))


HEADING = (
    f"{'units':8s}{'unseen ms':>11s}{'nn.LSTM ms':>12s}{'PyTorch ms':>12s}"
    f"{f'unseen / nn.LSTM, <= {UNSEEN_CELL:g}':>28s}"
)


def line(name: str, found: Times) -> str:
    """A line of the table that `HEADING` heads."""
    torch = "-" if found.torch is None else f"{found.torch:.2f}"
    verdict = "held" if found.ratio <= UNSEEN_CELL else "MISSED"
    return f"{CELLS[name].units:<8d}{found.unseen:11.2f}{found.lstm:12.2f}{torch:>12s}{found.ratio:20.2f} {verdict:>7s}"


def main(argv: list[str] | None = None) -> int:
    """Measure; 1 if the cell is slower than is promised, else 0."""
    parser = commandline.parser("unseen_cell", "an unseen cell beside nn.LSTM")
    parser.add_argument("--seconds", type=float, default=1.5, help="working time of each contestant (default 1.5)")
    args = parser.parse_args(argv)
    print(HEADING)
    missed = False
    for name in CELLS:
        found = measure(name, args.seconds, args.threads)
        missed |= found.ratio > UNSEEN_CELL
        print(line(name, found), flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
