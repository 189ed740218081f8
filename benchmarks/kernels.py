"""NumPy's own kernels beside MKL's, over sizes: where the numbers in ``fnflare/kernels/thresholds.py`` come from.

    python benchmarks/kernels.py [--quick] [--threads N] [--only gemm|batch|FUNCTION ...]

prints tables in Markdown: the median time of a call of each, in microseconds, and their ratio (below 1: MKL is
faster), and under each table the size from which on MKL is ahead for good. The two take turns, so that what disturbs
the machine disturbs both. Threads of one pool that still wait for work disturb the other: ``KMP_BLOCKTIME=0`` makes
MKL's sleep at once. Set ``OPENBLAS_NUM_THREADS`` beside ``--threads`` for a fair comparison.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from fnflare import config
from fnflare.kernels import mkl
from fnflare.kernels.erf import erf as rational_erf

Call = Callable[[], object]
Row = tuple[str, int, float, float]  # label, size in the unit of the threshold, seconds by NumPy, seconds by MKL

GEMM = [4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048]
TALL = [
    (1, 100, 25),
    (32, 100, 100),
    (32, 300, 100),
    (128, 784, 128),
    (400, 300, 100),
    (4096, 25, 100),
    (20000, 75, 25),
]
BATCHED = [(8, 16, 16, 16), (8, 64, 32, 64), (64, 32, 64, 32), (64, 64, 64, 64), (128, 128, 64, 128)]
ELEMENTS = [1 << p for p in range(4, 23, 2)]
DOMAIN = {"log": (1e-3, 1e3), "log1p": (1e-3, 1e3)}


def measure(first: Call, second: Call, seconds: float) -> tuple[float, float]:
    """The median seconds of a call of each, called in turns for about so many seconds."""
    first(), second()
    start = time.perf_counter()
    first(), second()
    pair = max(time.perf_counter() - start, 1e-7)
    repeat = max(1, int(50e-6 / pair))  # calls to one reading of the clock
    rounds = max(5, int(seconds / (pair * repeat)))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, kept in zip((first, second), times, strict=True):
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            kept.append((time.perf_counter() - start) / repeat)
    return statistics.median(times[0]), statistics.median(times[1])


def need(result: np.ndarray | None) -> np.ndarray:
    """What MKL has computed; a case that it does not take is a mistake in this script."""
    if result is None:
        raise RuntimeError("MKL did not take these operands")
    return result


def products(dtype: type, seconds: float, shapes: list[tuple[int, ...]]) -> list[Row]:
    random = np.random.default_rng(0)
    rows = []
    for *batch, m, k, n in shapes:
        a: np.ndarray = random.standard_normal((*batch, m, k)).astype(dtype)
        b: np.ndarray = random.standard_normal((*batch, k, n)).astype(dtype)
        times = measure(partial(np.matmul, a, b), lambda a=a, b=b: need(mkl.gemm(a, b)), seconds)  # type: ignore[misc]
        rows.append((" x ".join(map(str, (*batch, m, k, n))), math.prod((*batch, m, k, n)), *times))
    return sorted(rows, key=lambda row: row[1])


def elementwise(name: str, dtype: type, seconds: float, sizes: list[int]) -> list[Row]:
    random = np.random.default_rng(0)
    other = rational_erf if name == "erf" else getattr(np, name)
    rows = []
    for size in sizes:
        x: np.ndarray = random.uniform(*DOMAIN.get(name, (-5.0, 5.0)), size).astype(dtype)
        times = measure(partial(other, x), lambda x=x: need(mkl.elementwise(name, x)), seconds)  # type: ignore[misc]
        rows.append((f"{size:,}", size, *times))
    return rows


def crossover(rows: list[Row]) -> str:
    """The smallest measured size from which on MKL is ahead for good."""
    ahead: int | None = None
    for _, size, by_numpy, by_mkl in reversed(rows):
        if by_mkl >= by_numpy:
            break
        ahead = size
    return "MKL is not ahead at the largest size." if ahead is None else f"MKL is ahead from {ahead:,} on."


def show(title: str, unit: str, rows: list[Row]) -> None:
    print(f"\n### {title}\n\n| {unit} | NumPy, us | MKL, us | MKL / NumPy |\n|---:|---:|---:|---:|")
    for label, _, by_numpy, by_mkl in rows:
        print(f"| {label} | {by_numpy * 1e6:.2f} | {by_mkl * 1e6:.2f} | {by_mkl / by_numpy:.2f} |")
    print(f"\n{crossover(rows)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few sizes and short runs, to see that it works")
    parser.add_argument("--threads", type=int, help="MKL's threads")
    parser.add_argument("--only", nargs="+", choices=["gemm", "batch", *sorted(mkl.FUNCTIONS)], help="some tables only")
    arguments = parser.parse_args()
    if arguments.threads:
        config.set_num_threads(arguments.threads)
    if not config.use_mkl():
        sys.exit("MKL is not installed, or FNFLARE_MKL=0 is set: there is nothing to compare NumPy with.")
    step, seconds = (4, 0.01) if arguments.quick else (1, 0.5)
    wanted = arguments.only or ["gemm", "batch", *sorted(mkl.FUNCTIONS)]
    print(f"{config.mkl_version()}, {config.num_threads()} threads; NumPy {np.__version__};")
    print(f"Python {platform.python_version()}; {os.cpu_count()} processors, {platform.machine()}")
    for dtype in (np.float32, np.float64):
        for name in wanted:
            if name == "gemm":
                shapes: list[tuple[int, ...]] = [*((n, n, n) for n in GEMM[::step]), *TALL[::step]]
                show(f"matmul, {dtype.__name__}", "m x k x n", products(dtype, seconds, shapes))
            elif name == "batch":
                rows = products(dtype, seconds, [*BATCHED[::step]])
                show(f"matmul of batches, {dtype.__name__}", "batch x m x k x n", rows)
            else:
                show(f"{name}, {dtype.__name__}", "elements", elementwise(name, dtype, seconds, ELEMENTS[::step]))


if __name__ == "__main__":
    main()
