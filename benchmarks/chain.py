"""A long chain of scalar ops: the backward pass must not recurse, and time and memory must grow in a line.

``python -m benchmarks.chain [LENGTH ...]`` differentiates ``x -> sin(x) * 1.0001`` repeated, each length in a
process of its own, and prints the time and the memory of one op, which a linear method keeps constant.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import Any

import numpy as np

import fnflare as ff
from benchmarks.memory import peak_above_baseline
from benchmarks.processes import fresh

LENGTHS = (10_000, 100_000, 1_000_000)


def chain(x: Any, length: int) -> Any:
    """`length` scalar ops, one after the other."""
    for _ in range(length // 2):
        x = np.sin(x) * 1.0001
    return x


def exact(x: float, length: int) -> float:
    """The derivative of `chain` by the chain rule, in plain floats."""
    derivative = 1.0
    for _ in range(length // 2):
        derivative *= math.cos(x) * 1.0001
        x = math.sin(x) * 1.0001
    return derivative


def measure(length: int) -> dict[str, float]:
    """Differentiate one chain: seconds, bytes at the peak, and the error against `exact`."""
    ff.grad(chain)(0.5, 10)  # imports and caches are not the chain's
    seconds, derivative = 0.0, 0.0

    def work() -> None:
        nonlocal seconds, derivative
        start = time.perf_counter()
        derivative = float(ff.grad(chain)(0.5, length))
        seconds = time.perf_counter() - start

    memory = peak_above_baseline(work)
    wanted = exact(0.5, length)
    return {"seconds": seconds, "bytes": memory, "error": abs(derivative - wanted) / abs(wanted)}


def main() -> None:
    """Measure every length that the command line names."""
    parser = argparse.ArgumentParser("python -m benchmarks.chain", description="a long chain of scalar ops")
    parser.add_argument("lengths", nargs="*", type=int, default=LENGTHS)
    parser.add_argument("--here", action="store_true", help="measure one length in this process, print JSON")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(measure(args.lengths[0])))
        return
    print(f"{'ops':>10s}{'seconds':>10s}{'us an op':>10s}{'MB':>10s}{'bytes an op':>13s}{'relative error':>16s}")
    for length in args.lengths:
        m = fresh("benchmarks.chain", str(length), "--here")
        print(
            f"{length:10d}{m['seconds']:10.3f}{1e6 * m['seconds'] / length:10.2f}"
            f"{m['bytes'] / 1e6:10.1f}{m['bytes'] / length:13.0f}{m['error']:16.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
