"""Runs fnflare beside its peers and prints the ratios.

``python -m benchmarks.run [NAME ...] [--peers torch,jax,autograd] [--seconds 1.5] [--json FILE] [--png FILE]``

Only ratios from one run mean anything, since the machine's speed drifts and others may use it. So every
contestant of a workload is a process of its own that stays alive, and they take turns of a fraction of a
second, in an order that rotates; a ratio is the median, over the rounds, of the quotient of two turns of the
same round. Between its turns a process is stopped, for an idle thread pool would spin and slow the others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from benchmarks import commandline, report
from benchmarks.arithmetic import SGEMM_GFLOP, gflop
from benchmarks.contestants import CONTESTANTS, OWN, SGEMM, Contestant
from benchmarks.processes import environment, pin
from benchmarks.sizes import NAMES

TURN_SECONDS = 0.25
LEAST_ROUNDS = 5
ALL_LIBRARIES = ("torch", "jax", "autograd")


class ContestantError(Exception):
    """A contestant could not run; the message says why."""


class Worker:
    """A contestant's process, seen from outside."""

    def __init__(self, workload: str, contestant: Contestant, threads: int, log: IO[str]) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", workload, *contestant],
            env=os.environ | environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            preexec_fn=pin(threads),  # noqa: PLW1509 (this process has one thread)
        )
        self.ready = self._read()
        self._signal("SIGSTOP")

    def turn(self, seconds: float) -> float:
        """Let the contestant work for so long; the median time of a unit in seconds."""
        assert self._process.stdin is not None
        self._signal("SIGCONT")
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        answer = self._read()
        self._signal("SIGSTOP")
        return float(answer["seconds"])

    def close(self) -> None:
        """End the process and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"ended with status {self._process.wait()}"}
        if "error" in answer:
            self._log.seek(0)
            self.close()
            raise ContestantError(answer["error"], self._log.read())
        return answer

    def _signal(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, getattr(signal, name))


class Outcome(NamedTuple):
    """What came of one contestant: the seconds of a unit, round by round, or why there are none."""

    turns: list[float]
    first_call: float | None
    imported: float | None
    error: str | None = None


@contextlib.contextmanager
def _workers(workload: str, contestants: list[Contestant], threads: int) -> Iterator[dict[Contestant, Worker | str]]:
    """The processes of all contestants, ready and waiting; a reason where there is none."""
    with contextlib.ExitStack() as stack:
        running: dict[Contestant, Worker | str] = {}
        for contestant in contestants:
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            try:
                worker = Worker("sgemm" if contestant == SGEMM else workload, contestant, threads, log)
            except ContestantError as error:
                running[contestant] = error.args[0]
                if contestant.library == OWN:
                    print(error.args[1], file=sys.stderr)
                continue
            stack.callback(worker.close)
            running[contestant] = worker
        yield running


def race(workload: str, contestants: list[Contestant], seconds: float, threads: int) -> dict[Contestant, Outcome]:
    """Let contestants do the same work in turn.

    Args:
        workload: one of `benchmarks.sizes.NAMES`.
        contestants: who takes part.
        seconds: how long each of them works in all, about.
        threads: how many threads, and cores, each may use.
    """
    with _workers(workload, contestants, threads) as workers:
        able = [(c, w) for c, w in workers.items() if isinstance(w, Worker)]
        turns: dict[Contestant, list[float]] = {c: [] for c, _ in able}
        for number in range(max(LEAST_ROUNDS, math.ceil(seconds / TURN_SECONDS))):
            first = number % max(1, len(able))
            for contestant, worker in able[first:] + able[:first]:
                turns[contestant].append(worker.turn(TURN_SECONDS))
        return {
            c: Outcome([], None, None, w)
            if isinstance(w, str)
            else Outcome(turns[c], w.ready["first_call"], w.ready["import"])
            for c, w in workers.items()
        }


def quotient(a: Outcome, b: Outcome) -> float:
    """The median, over the rounds, of what one took divided by what the other took."""
    return statistics.median(x / y for x, y in zip(a.turns, b.turns, strict=True))


def summarize(workload: str, outcomes: dict[Contestant, Outcome]) -> report.Workload:
    """The medians and ratios of a race."""
    own = {c.mode: o for c, o in outcomes.items() if c.library == OWN and o.turns}
    sgemm = outcomes.get(SGEMM)
    work, floor = gflop(workload), None
    if work is not None and sgemm is not None and sgemm.turns:
        floor = statistics.median(sgemm.turns) * work / SGEMM_GFLOP
    rows = [
        report.Row(
            library=c.library,
            mode=c.mode,
            milliseconds=statistics.median(o.turns) * 1e3 if o.turns else None,
            ratios={mode: quotient(mine, o) for mode, mine in own.items()} if o.turns and c.library != OWN else {},
            first_call_seconds=o.first_call,
            import_seconds=o.imported,
            error=o.error,
        )
        for c, o in outcomes.items()
        if c != SGEMM
    ]
    return report.Workload(workload, rows, None if floor is None else floor * 1e3)


def measure(
    name: str, libraries: Collection[str] = ALL_LIBRARIES, *, seconds: float = 1.5, threads: int = 2
) -> report.Workload:
    """Race all contestants of a workload that are of some libraries, and of fnflare.

    Args:
        name: one of `benchmarks.sizes.NAMES`.
        libraries: the peers.
        seconds: how long each contestant works in all, about.
        threads: how many threads, and cores, each may use.
    """
    contestants = [c for c in CONTESTANTS[name] if c.library == OWN or c.library in libraries]
    extra = [] if gflop(name) is None else [SGEMM]
    return summarize(name, race(name, contestants + extra, seconds, threads))


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = commandline.parser("run", "fnflare beside its peers", NAMES)
    parser.add_argument("--peers", default=",".join(ALL_LIBRARIES), help="libraries to run beside, joined by commas")
    parser.add_argument("--seconds", type=float, default=1.5, help="working time of each contestant (default 1.5)")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--png", type=Path, help="draw the ratios here (with matplotlib)")
    args = parser.parse_args(argv)
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the workloads that the command line names; 1 if fnflare failed in one or missed a target, else 0."""
    args = _arguments(argv)
    libraries = args.peers.split(",")
    results = []
    for name in args.names or NAMES:
        results.append(measure(name, libraries, seconds=args.seconds, threads=args.threads))
        print(report.table(results[-1]), flush=True)
    print(report.summary(results))
    about = {
        "threads": args.threads,
        "seconds": args.seconds,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
    }
    if args.json:
        report.write_json(args.json, results, about)
    if args.png:
        report.draw(args.png, results)
    return int(any(report.missed(result) for result in results))


if __name__ == "__main__":
    sys.exit(main())
