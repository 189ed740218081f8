"""The peak memory of the gradient of a long RNN: beside PyTorch's for the same net, and, cut into checkpointed
segments, beside what that needs in theory.

``python -m benchmarks.rnn_memory [--steps 1000]``: each in a process of its own, from before the forward pass to after
the backward pass, above what imports, parameters and data take.

**The theory.** A scan over S segments of L steps each, T = S L, where each segment is a checkpointed scan, keeps of
the forward pass the borders alone: one hidden state h a segment. The backward pass has the inside of one segment at
a time, which is what the gradient of L steps takes without checkpoints. Of each step it has the state that it began
with, which the gradient of the recurrent weights multiplies; the derivative 1 - h^2 of its tanh, which the cotangent
is multiplied by on its way back; and that cotangent of what goes into the tanh, since the gradient of a weight is
one product over all steps of the segment. These are arrays of the size of h, batch x units, so together

    (S + 3 L) batch units 4 bytes, the least at L = sqrt(T / 3),

where without checkpoints it were 3 T (Chen et al. 2016, "Training deep nets with sublinear memory cost"). Parameters
and their gradients, and what lives within a step only, are small beside that, since the batch is wide and the
segments are many, and are left out. (A backward pass that made the derivative of the tanh from the state step by step
would do with two arrays a step, and take longer.)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.memory import peak_above_baseline
from benchmarks.processes import fresh


class Net(NamedTuple):
    """The sizes of a net and its batch."""

    batch: int
    features: int
    units: int

    @property
    def state(self) -> int:
        """Bytes of a hidden state."""
        return self.batch * self.units * 4


PLAIN = Net(32, 64, 128)
LIMIT = 1.5

CHECKPOINTED = Net(2048, 8, 64)
CHECKPOINTED_LIMIT = 1.25

ARRAYS_A_STEP = 3
"""What the backward pass has of each step of the segment that it is in."""

Gradient = Callable[[np.ndarray], Any]


def fnflare_gradient() -> Gradient:
    """The gradient of the mean square of all outputs, as a function of the inputs, (batch, steps, features)."""
    import fnflare as ff
    from fnflare import nn

    model = nn.RNN(PLAIN.units)
    _, params = model.init(ff.random.key(0), (-1, -1, PLAIN.features))
    gradient = ff.grad(lambda params, x: np.mean(model.apply(params, x) ** 2))
    return lambda x: gradient(params, x)


def torch_gradient() -> Gradient:
    """The same in PyTorch."""
    import torch

    model = torch.nn.RNN(PLAIN.features, PLAIN.units, batch_first=True)

    def gradient(x: np.ndarray) -> Any:
        outputs, _ = model(torch.from_numpy(x))
        return torch.autograd.grad((outputs**2).mean(), list(model.parameters()))

    return gradient


def segment_steps(steps: int) -> int:
    """The length of the segments that takes the least memory, of those that divide the sequence."""
    return min((n for n in range(1, steps + 1) if steps % n == 0), key=lambda n: steps // n + ARRAYS_A_STEP * n)


def theory(steps: int) -> int:
    """The bytes that the checkpointed net has to hold at once."""
    segment = segment_steps(steps)
    return (steps // segment + ARRAYS_A_STEP * segment) * CHECKPOINTED.state


def checkpointed_gradient(segments: bool = True) -> Gradient:
    """The gradient of the mean square of the last state, as a function of the inputs, (steps, batch, features).

    Args:
        segments: False runs one scan over all steps, without checkpoints: the same numbers.
    """
    import fnflare as ff
    from fnflare import nn

    cell = nn.RNNCell(CHECKPOINTED.units)
    _, params = cell.init(ff.random.key(0), CHECKPOINTED.features)

    def run(params: Any, state: Any, x: Any) -> Any:
        return ff.scan(lambda state, x: (cell.apply(params, state, x)[0], None), state, x)[0]

    def loss(params: Any, x: Any) -> Any:
        state = np.zeros((x.shape[1], CHECKPOINTED.units), x.dtype)
        if not segments:
            return np.mean(run(params, state, x) ** 2)
        pieces = np.reshape(x, (-1, segment_steps(x.shape[0]), *x.shape[1:]))
        segment = ff.checkpoint(run)
        state, _ = ff.scan(lambda state, piece: (segment(params, state, piece), None), state, pieces)
        return np.mean(state**2)

    gradient = ff.jit(ff.grad(loss))
    return lambda x: gradient(params, x)


SIDES = {"fnflare": fnflare_gradient, "torch": torch_gradient, "checkpointed": checkpointed_gradient}


def _inputs(side: str, steps: int) -> np.ndarray:
    net = CHECKPOINTED if side == "checkpointed" else PLAIN
    shape = (steps, net.batch, net.features) if side == "checkpointed" else (net.batch, steps, net.features)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def measure(side: str, steps: int) -> int:
    """Bytes at the peak of one gradient."""
    gradient = SIDES[side]()
    inputs = _inputs(side, steps)
    # What a library allocates once is not the net's; neither is the program, which is made for these shapes.
    gradient(inputs if side == "checkpointed" else _inputs(side, 3))
    return peak_above_baseline(lambda: gradient(inputs))


def _verdict(ratio: float, limit: float) -> str:
    return f"{ratio:.2f} (at most {limit}: {'held' if ratio <= limit else 'MISSED'})"


def _say_plain(peak: dict[str, int], steps: int) -> float:
    print(f"an RNN of {PLAIN.units} units over {steps} steps, batch {PLAIN.batch}, {PLAIN.features} features, float32")
    for side in ("fnflare", "torch"):
        size = peak[side]
        print(f"{side:10s}{size / 1e6:9.1f} MB, {size / (steps * PLAIN.state):5.2f} times the hidden states")
    ratio = peak["fnflare"] / peak["torch"]
    print(f"fnflare / torch: {_verdict(ratio, LIMIT)}")
    return ratio


def _say_checkpointed(peak: int, steps: int) -> float:
    net, segment = CHECKPOINTED, segment_steps(steps)
    segments, wanted = steps // segment, theory(steps)
    print(
        f"\nan RNN of {net.units} units over {steps} steps as {segments} checkpointed segments of {segment}, "
        f"batch {net.batch}, {net.features} features, float32"
    )
    for name, size in (("measured", peak), ("theory", wanted)):
        print(f"{name:10s}{size / 1e6:9.1f} MB, {size / net.state:5.0f} hidden states")
    print(f"{'':10s}in theory {segments} borders, and {ARRAYS_A_STEP} arrays of each step of one segment")
    ratio = peak / wanted
    print(f"measured / theory: {_verdict(ratio, CHECKPOINTED_LIMIT)}")
    return ratio


def main() -> int:
    """Measure all; 1 if fnflare needs more than it allows itself, else 0."""
    parser = argparse.ArgumentParser("python -m benchmarks.rnn_memory", description="memory of an RNN's gradient")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--here", choices=SIDES, help="measure one of them in this process, print JSON")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.here, args.steps)))
        return 0
    peak = {side: fresh("benchmarks.rnn_memory", "--steps", str(args.steps), "--here", side) for side in SIDES}
    plain = _say_plain(peak, args.steps)
    checkpointed = _say_checkpointed(peak["checkpointed"], args.steps)
    return int(plain > LIMIT or checkpointed > CHECKPOINTED_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
