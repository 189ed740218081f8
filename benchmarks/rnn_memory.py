"""The peak memory of the gradient of a long RNN, beside PyTorch's for the same net.

``python -m benchmarks.rnn_memory [--steps 1000]``: each library in a process of its own, from before the
forward pass to after the backward pass, above what imports, parameters and data take.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.memory import peak_above_baseline
from benchmarks.processes import fresh

BATCH, FEATURES, UNITS = 32, 64, 128
LIMIT = 1.5


def _inputs(steps: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((BATCH, steps, FEATURES), dtype=np.float32)


def fnflare_gradient() -> Callable[[np.ndarray], Any]:
    """The gradient of the mean square of all outputs, as a function of the inputs."""
    import fnflare as ff
    from fnflare import nn

    model = nn.RNN(UNITS)
    _, params = model.init(ff.random.key(0), (-1, -1, FEATURES))
    gradient = ff.grad(lambda params, x: np.mean(model.apply(params, x) ** 2))
    return lambda x: gradient(params, x)


def torch_gradient() -> Callable[[np.ndarray], Any]:
    """The same in PyTorch."""
    import torch

    model = torch.nn.RNN(FEATURES, UNITS, batch_first=True)

    def gradient(x: np.ndarray) -> Any:
        outputs, _ = model(torch.from_numpy(x))
        return torch.autograd.grad((outputs**2).mean(), list(model.parameters()))

    return gradient


SIDES = {"fnflare": fnflare_gradient, "torch": torch_gradient}


def measure(side: str, steps: int) -> int:
    """Bytes at the peak of one gradient."""
    gradient = SIDES[side]()
    gradient(_inputs(3))  # what a library allocates once is not the net's
    inputs = _inputs(steps)
    return peak_above_baseline(lambda: gradient(inputs))


def main() -> int:
    """Measure both; 1 if fnflare needs more than it allows itself, else 0."""
    parser = argparse.ArgumentParser("python -m benchmarks.rnn_memory", description="memory of an RNN's gradient")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--here", choices=SIDES, help="measure one library in this process, print JSON")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.here, args.steps)))
        return 0
    peak = {side: fresh("benchmarks.rnn_memory", "--steps", str(args.steps), "--here", side) for side in SIDES}
    ratio = peak["fnflare"] / peak["torch"]
    one = BATCH * args.steps * UNITS * 4
    print(f"an RNN of {UNITS} units over {args.steps} steps, batch {BATCH}, {FEATURES} features, float32")
    for side, size in peak.items():
        print(f"{side:10s}{size / 1e6:9.1f} MB, {size / one:5.2f} times the hidden states")
    print(f"fnflare / torch: {ratio:.2f} (at most {LIMIT}: {'held' if ratio <= LIMIT else 'MISSED'})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
