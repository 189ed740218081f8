"""All that fnflare promises of its speed and memory, measured in one go, as one table in Markdown.

``python -m benchmarks.everything [NAME ...] [--seconds 1.5] [--runs 3] [--threads 2] [--markdown FILE]``: the units of
work of `benchmarks.run`, the first calls of `benchmarks.first_call`, the peaks of `benchmarks.step_memory` and the cell
of `benchmarks.unseen_cell`. Each prints its own table when it is done; what misses its promise is bold in Markdown.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import commandline, first_call, report, run, step_memory, unseen_cell
from benchmarks.contestants import FIRST_CALL, PEAK_MEMORY, SECOND_PROCESS, TARGETS, UNSEEN_CELL, Target
from benchmarks.sizes import CELLS, NAMES


class Entry(NamedTuple):
    """What was measured of one workload; None where it does not apply, or failed."""

    time: report.Workload
    first: first_call.FirstCalls | None
    peaks: step_memory.Peaks | None


def _strictest(workload: report.Workload) -> Target | None:
    """The promise of native code, which is the last of a workload's."""
    targets = TARGETS.get(workload.name, ())
    return targets[-1] if targets else None


def _seconds(x: float | None) -> str:
    return "" if x is None else f"{x:.2f}"


def _milliseconds(x: float | None) -> str:
    return "" if x is None else f"{x:.3g}" if x < 100 else f"{x:.0f}"


def _ratio(x: float | None, limit: float | None) -> str:
    """A ratio, bold if it is above its limit."""
    if x is None:
        return ""
    told = f"{x:.2f}"
    return f"**{told}**" if limit is not None and x > limit else told


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


HEADS = (
    "workload",
    "fnflare",
    "ms",
    "of the limit",
    "fastest peer",
    "ms",
    "ratio",
    "at most",
    "first call s",
    f"/ jax.jit (at most {FIRST_CALL:g})",
    "code on disk s",
    f"/ jax.jit (at most {SECOND_PROCESS:g})",
    "peak MB",
    f"/ PyTorch (at most {PEAK_MEMORY:g})",
)


def _time_cells(workload: report.Workload) -> tuple[str, ...]:
    target = _strictest(workload)
    own = [row for row in workload.own if target is None or row.mode in target.modes]
    peers = [row for row in workload.peers if target is None or row.contestant in target.peers]
    if not own:
        return ("failed",) + ("",) * 6
    best = min(own, key=lambda row: row.milliseconds or 0.0)
    peer = max(peers, key=lambda row: row.ratios[best.mode], default=None)
    part = workload.part_of_limit(best)
    return (
        best.mode,
        _milliseconds(best.milliseconds),
        "" if part is None else f"{100 * part:.0f} %",
        "" if peer is None else peer.contestant,
        "" if peer is None else _milliseconds(peer.milliseconds),
        "" if peer is None else _ratio(peer.ratios[best.mode], target.limit if target else None),
        "" if target is None else f"{target.limit:g}",
    )


def _cells(entry: Entry) -> tuple[str, ...]:
    first, peaks = entry.first, entry.peaks
    return (
        entry.time.name,
        *_time_cells(entry.time),
        _seconds(first and first.cold),
        _ratio(first and first.cold_ratio, FIRST_CALL),
        _seconds(first and first.warm),
        _ratio(first and first.warm_ratio, SECOND_PROCESS),
        "" if peaks is None else f"{peaks.own[peaks.best] / 1e6:.1f} ({peaks.best})",
        _ratio(peaks and peaks.reached, PEAK_MEMORY),
    )


def markdown(entries: Sequence[Entry], cells: Mapping[str, unseen_cell.Times]) -> str:
    """One table of everything: a line for each workload, and one for each size of the unseen cell."""
    lines = [_row(*HEADS), _row(*["---"] * len(HEADS)), *(_row(*_cells(entry)) for entry in entries)]
    for name, found in cells.items():
        own, peer = _milliseconds(found.unseen), _milliseconds(found.lstm)
        told = (f"unseen cell, {CELLS[name].units} units", "jit", own, "", "nn.LSTM", peer)
        rest = ("",) * (len(HEADS) - len(told) - 2)
        lines.append(_row(*told, _ratio(found.ratio, UNSEEN_CELL), f"{UNSEEN_CELL:g}", *rest))
    return "\n".join(lines)


def missed(entries: Sequence[Entry], cells: Mapping[str, unseen_cell.Times]) -> Iterator[str]:
    """The promises that are broken."""
    for entry in entries:
        name, first, peaks = entry.time.name, entry.first, entry.peaks
        yield from (f"{name}: {what}" for what in report.missed(entry.time))
        if first and first.missed:
            yield f"{name}: first call"
        if peaks and (peaks.reached or 0) > PEAK_MEMORY:
            yield f"{name}: peak memory"
    yield from (f"unseen cell, {CELLS[name].units} units" for name, t in cells.items() if t.ratio > UNSEEN_CELL)


def _measured(name: str, runs: int, seconds: float, threads: int) -> Entry:
    time, first, peaks = run.measure(name, seconds=seconds, threads=threads), None, None
    print(report.table(time), flush=True)
    try:
        if name in first_call.NAMES:
            first = first_call.measure(name, runs, threads)
            print(f"{first_call.HEADING}\n{first_call.line(name, first)}", flush=True)
        peaks = step_memory.measure(name, threads)
        print(f"{step_memory.HEADING}\n{step_memory.table(name, peaks)}", flush=True)
    except subprocess.CalledProcessError as error:
        print(f"{name}: {error}", flush=True)
    return Entry(time, first, peaks)


def main(argv: list[str] | None = None) -> int:
    """Measure everything; 1 if a promise is broken, else 0."""
    parser = commandline.parser("everything", "all promises, in one table", NAMES)
    parser.add_argument("--seconds", type=float, default=1.5, help="working time of each contestant (default 1.5)")
    parser.add_argument("--runs", type=int, default=3, help="first calls of each side (default 3)")
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    args = parser.parse_args(argv)
    entries = [_measured(name, args.runs, args.seconds, args.threads) for name in args.names or NAMES]
    cells = {name: unseen_cell.measure(name, args.seconds, args.threads) for name in CELLS}
    table, broken = markdown(entries, cells), list(missed(entries, cells))
    print("\n" + "\n".join([table, "", *(f"MISSED {what}" for what in broken)]))
    if args.markdown:
        args.markdown.parent.mkdir(parents=True, exist_ok=True)
        args.markdown.write_text(table + "\n", encoding="utf-8")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
