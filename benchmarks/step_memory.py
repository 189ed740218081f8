"""The peak memory of each workload, beside PyTorch's.

``python -m benchmarks.step_memory [NAME ...] [--threads 2]``: each library and mode in a process of its own, from
before data, parameters and the optimiser's state are made until some units of work are done, above what the imports
take and what a library allocates once, which a small training of another net has brought out before. fnflare's compiled
modes run twice: a first process finds no code on disk, so that its peak is also the compiler's ("compiling"), a second
finds it there, so that its peak is that of the work alone. The promise is of the work, by the mode that needs least,
beside the least of PyTorch's ways ("compile", which brings a compiler, apart).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tempfile
from typing import NamedTuple

import numpy as np

from benchmarks import commandline
from benchmarks.contestants import CONTESTANTS, MODULES, OWN, PEAK_MEMORY, Contestant
from benchmarks.memory import peak_above_baseline
from benchmarks.processes import fresh
from benchmarks.sizes import NAMES, Step

UNITS = 3
"""Units of work that are done: what the first leaves is there when the second begins."""

COMPILED = ("jit", "sentences", "threads")
"""fnflare's modes that compile."""


class Peaks(NamedTuple):
    """Bytes at the peak of a workload, by mode.

    Attributes:
        own: fnflare's, with code that is found on disk.
        compiling: those of its modes that compile, while they compile.
        torch: PyTorch's; empty where it is not installed.
    """

    own: dict[str, int]
    compiling: dict[str, int]
    torch: dict[str, int]

    def ratio(self, mode: str) -> float | None:
        """A mode's peak, in parts of the least of PyTorch's."""
        return self.own[mode] / min(self.torch.values()) if self.torch else None

    @property
    def best(self) -> str:
        """The compiled mode that needs least; of a workload that has none, the one that does."""
        return min([mode for mode in self.own if mode in COMPILED] or self.own, key=lambda mode: self.own[mode])

    @property
    def reached(self) -> float | None:
        """The ratio that the promise speaks of."""
        return self.ratio(self.best)


def _small_training(library: str) -> None:
    """Train a small net, so that what the library allocates once is there."""
    if library == "torch":
        import torch

        model = torch.nn.Linear(2, 2)
        for kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.Adadelta):
            optimizer = kind(model.parameters())
            model(torch.ones(3, 2)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        return
    from benchmarks.workloads import train_step
    from fnflare import optim

    for mode in ("eager", "jit"):
        train_step(mode, lambda p, key: np.sum(p @ p), np.ones((2, 2), np.float32), optim.adam(1e-3))()


def peak(workload: str, contestant: Contestant) -> int:
    """Bytes at the peak of setting the workload up and of some units of it, in this process."""
    importlib.import_module(MODULES[contestant.library])
    _small_training(contestant.library)
    kept: list[Step] = []

    def work() -> None:
        kept.append(contestant.make(workload))
        for _ in range(UNITS):
            kept[0]()

    return peak_above_baseline(work)


def _side(workload: str, contestant: Contestant, threads: int, folder: str) -> int:
    variables = {"FNFLARE_CACHE": "1", "FNFLARE_CACHE_DIR": folder}
    return int(fresh("benchmarks.step_memory", workload, "--here", *contestant, threads=threads, variables=variables))


def measure(workload: str, threads: int = 2) -> Peaks:
    """The peaks of a workload.

    Args:
        workload: one of `benchmarks.sizes.NAMES`.
        threads: how many threads, and cores, each may use.
    """
    own, compiling, torch = {}, {}, {}
    with tempfile.TemporaryDirectory(prefix="fnflare-memory-") as folder:
        for contestant in CONTESTANTS[workload]:
            if contestant.library == OWN:
                if contestant.mode in COMPILED:
                    compiling[contestant.mode] = _side(workload, contestant, threads, folder)
                own[contestant.mode] = _side(workload, contestant, threads, folder)
            elif contestant.library == "torch" and contestant.mode != "compile" and importlib.util.find_spec("torch"):
                torch[contestant.mode] = _side(workload, contestant, threads, folder)
    return Peaks(own, compiling, torch)


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:.1f}"


HEADING = f"{'peak memory':28s}{'MB':>9s}{'compiling MB':>14s}{f'/ PyTorch, <= {PEAK_MEMORY:g}':>22s}"


def table(workload: str, found: Peaks) -> str:
    """The lines of a workload in the table that `HEADING` heads."""
    lines = []
    for mode, size in found.own.items():
        ratio = found.ratio(mode)
        told = "-" if ratio is None else f"{ratio:.2f}"
        verdict = "" if mode != found.best or ratio is None else "held" if ratio <= PEAK_MEMORY else "MISSED"
        lines.append(
            f"{workload:9s} {OWN + ' ' + mode:18s}{_megabytes(size):>9s}"
            f"{_megabytes(found.compiling.get(mode)):>14s}{told:>15s} {verdict:>6s}".rstrip()
        )
    return "\n".join(
        lines + [f"{workload:9s} {'torch ' + m:18s}{_megabytes(size):>9s}" for m, size in found.torch.items()]
    )


def main(argv: list[str] | None = None) -> int:
    """Measure; 1 if fnflare needs more than it promises, else 0."""
    parser = commandline.parser("step_memory", "peak memory of the workloads", NAMES)
    parser.add_argument("--here", nargs=2, metavar=("LIBRARY", "MODE"), help="measure in this process, print JSON")
    args = parser.parse_args(argv)
    if args.here:
        print(json.dumps(peak(args.names[0], Contestant(*args.here))))
        return 0
    print(HEADING)
    missed = False
    for name in args.names or NAMES:
        found = measure(name, args.threads)
        missed |= (found.reached or 0) > PEAK_MEMORY
        print(table(name, found), flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
