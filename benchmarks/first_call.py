"""What the first call of a compiled step takes: to trace, simplify, lower and compile it, and to run it once.

``python -m benchmarks.first_call [NAME ...] [--runs 3] [--threads 2]``: each in a process of its own. fnflare's first
process finds no code on disk, its second finds what the first has left there; `jax.jit` compiles anew, as it does
unless one asks it to keep code. All modules are imported, and data, parameters and the optimiser's state are made,
before the clock starts. Figures are medians over the runs, ratios are medians of the ratios of each run.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import pkgutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks import commandline
from benchmarks.contestants import CONTESTANTS, FIRST_CALL, MODULES, OWN, SECOND_PROCESS, Contestant
from benchmarks.processes import fresh

OURS, PEER = Contestant(OWN, "jit"), Contestant("jax", "jit")

NAMES = tuple(name for name, takers in CONTESTANTS.items() if OURS in takers and PEER in takers)
"""The workloads that both sides compile."""


class Seconds(NamedTuple):
    """First calls of one workload in one run, seconds.

    Attributes:
        cold: fnflare's, with no code on disk.
        warm: fnflare's in the next process.
        peer: that of `jax.jit`; None where JAX is not installed.
    """

    cold: float
    warm: float
    peer: float | None


class FirstCalls(NamedTuple):
    """The medians of some runs, and the ratios to `jax.jit`'s, None where that is not installed."""

    cold: float
    warm: float
    peer: float | None
    cold_ratio: float | None
    warm_ratio: float | None

    @property
    def missed(self) -> bool:
        """Whether a promise is broken."""
        return (self.cold_ratio or 0) > FIRST_CALL or (self.warm_ratio or 0) > SECOND_PROCESS


def summarize(runs: Sequence[Seconds]) -> FirstCalls:
    """The medians of runs, and those of their ratios."""
    compared = [run for run in runs if run.peer is not None]
    return FirstCalls(
        statistics.median(run.cold for run in runs),
        statistics.median(run.warm for run in runs),
        statistics.median(run.peer or 0 for run in compared) if compared else None,
        statistics.median(run.cold / (run.peer or 1) for run in compared) if compared else None,
        statistics.median(run.warm / (run.peer or 1) for run in compared) if compared else None,
    )


def _import_all(library: str) -> None:
    """Import what the library has, also what it would import when it is needed, and load MKL and LLVM."""
    importlib.import_module(MODULES[library])
    if library != OWN:
        return
    import fnflare as ff

    # The shared libraries that JAX has in one, which its import loads.
    importlib.import_module("llvmlite.binding")
    ff.config.use_mkl()
    for package in ("core", "ops", "kernels", "nest", "program", "compiler", "transforms", "nn", "optim"):
        path = [f"{folder}/{package}" for folder in ff.__path__]
        for module in pkgutil.walk_packages(path, f"fnflare.{package}."):
            importlib.import_module(module.name)


def first_call(workload: str, contestant: Contestant) -> float:
    """Seconds of the first call, in this process."""
    _import_all(contestant.library)
    step = contestant.make(workload)
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def _side(workload: str, contestant: Contestant, threads: int, folder: str) -> float:
    variables = {"FNFLARE_CACHE": "1", "FNFLARE_CACHE_DIR": folder, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    return float(
        fresh("benchmarks.first_call", workload, "--here", contestant.library, threads=threads, variables=variables)
    )


def measure(workload: str, runs: int = 3, threads: int = 2) -> FirstCalls:
    """First calls of a workload, each in a process of its own.

    Args:
        workload: one of `NAMES`.
        runs: how often each side is measured, in turn.
        threads: how many threads, and cores, each may use.
    """
    with_peer = importlib.util.find_spec("jax") is not None
    results = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="fnflare-first-call-") as folder:
            cold, warm = (_side(workload, OURS, threads, folder) for _ in range(2))
            results.append(Seconds(cold, warm, _side(workload, PEER, threads, folder) if with_peer else None))
    return summarize(results)


def _ratio(x: float | None, limit: float) -> str:
    return "-" if x is None else f"{x:.2f}{'' if x <= limit else ' MISSED'}"


HEADING = (
    f"{'first call':10s}{'no code s':>11s}{'code s':>9s}{'jax.jit s':>11s}"
    f"{f'no code, <= {FIRST_CALL:g}':>22s}{f'code, <= {SECOND_PROCESS:g}':>22s}"
)


def line(workload: str, found: FirstCalls) -> str:
    """A line of the table that `HEADING` heads."""
    return (
        f"{workload:10s}{found.cold:11.3f}{found.warm:9.3f}{'-' if found.peer is None else f'{found.peer:.3f}':>11s}"
        f"{_ratio(found.cold_ratio, FIRST_CALL):>22s}{_ratio(found.warm_ratio, SECOND_PROCESS):>22s}"
    )


def main(argv: list[str] | None = None) -> int:
    """Measure; 1 if fnflare takes longer than it promises, else 0."""
    parser = commandline.parser("first_call", "first calls of compiled steps", NAMES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--here", choices=(OURS.library, PEER.library), help="measure in this process, print JSON")
    args = parser.parse_args(argv)
    if args.here:
        print(json.dumps(first_call(args.names[0], OURS if args.here == OURS.library else PEER)))
        return 0
    print(HEADING)
    missed = False
    for name in args.names or NAMES:
        found = measure(name, args.runs, args.threads)
        missed |= found.missed
        print(line(name, found), flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
