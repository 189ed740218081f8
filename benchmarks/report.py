"""What a run of the benchmarks says: tables, JSON and a picture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestants import TARGETS


@dataclass(frozen=True)
class Row:
    """One contestant's result; ``ratio`` is fnflare's time divided by this one's."""

    contestant: str
    own: bool
    milliseconds: float | None
    ratio: float | None
    first_call_seconds: float | None
    import_seconds: float | None
    error: str | None = None


@dataclass(frozen=True)
class Workload:
    """The results of one workload; the floor is what its arithmetic alone would take on this machine."""

    name: str
    rows: list[Row]
    floor_milliseconds: float | None

    @property
    def own(self) -> Row | None:
        """fnflare's row, where it ran."""
        return next((row for row in self.rows if row.own and row.milliseconds is not None), None)

    @property
    def best_peer(self) -> Row | None:
        """The fastest of the others."""
        peers = [row for row in self.rows if not row.own and row.milliseconds is not None]
        return min(peers, key=lambda row: row.milliseconds or 0.0, default=None)


def missed(workload: Workload) -> list[str]:
    """The promises that this result breaks."""
    if any(row.own and row.error for row in workload.rows):
        return ["fnflare failed"]
    late = [(row, TARGETS.get((workload.name, row.contestant))) for row in workload.rows]
    return [
        f"{row.ratio:.2f} of {row.contestant}, wanted at most {target}"
        for row, target in late
        if target is not None and row.ratio is not None and row.ratio > target
    ]


def _number(x: float | None, digits: int = 3) -> str:
    return "-" if x is None else f"{x:.{digits}g}" if x < 100 else f"{x:.0f}"


def _verdict(workload: str, row: Row) -> str:
    target = TARGETS.get((workload, row.contestant))
    if target is None or row.ratio is None:
        return ""
    return f"  (at most {target}: {'held' if row.ratio <= target else 'MISSED'})"


def table(workload: Workload) -> str:
    """All contestants of a workload."""
    lines = [f"\n{workload.name:18s}{'ms a unit':>10s}{'fnflare/it':>12s}{'first call s':>14s}{'import s':>10s}"]
    for row in workload.rows:
        if row.error:
            lines.append(f"  {row.contestant:16s}{row.error}")
            continue
        ratio = "" if row.own else _number(row.ratio)
        lines.append(
            f"  {row.contestant:16s}{_number(row.milliseconds, 4):>10s}{ratio:>12s}"
            f"{_number(row.first_call_seconds):>14s}{_number(row.import_seconds):>10s}{_verdict(workload.name, row)}"
        )
    if workload.floor_milliseconds is not None:
        lines.append(f"  {'arithmetic alone':16s}{_number(workload.floor_milliseconds, 4):>10s}")
    return "\n".join(lines)


def summary(workloads: list[Workload]) -> str:
    """One line a workload: fnflare against the best of the peers and against the arithmetic."""
    lines = [f"\n{'workload':10s}{'fnflare ms':>12s}{'/ best peer':>13s}  {'best peer':16s}{'/ arithmetic':>12s}"]
    for workload in workloads:
        own, best, floor = workload.own, workload.best_peer, workload.floor_milliseconds
        above = own.milliseconds / floor if own and own.milliseconds and floor else None
        lines.append(
            f"{workload.name:10s}{_number(own.milliseconds if own else None, 4):>12s}"
            f"{_number(best.ratio if best else None):>13s}  {best.contestant if best else '-':16s}{_number(above):>12s}"
        )
    broken = [f"{workload.name}: {what}" for workload in workloads for what in missed(workload)]
    return "\n".join(lines + [f"MISSED {what}" for what in broken])


def write_json(path: Path, workloads: list[Workload], about: dict[str, Any]) -> None:
    """Everything that was measured, for other programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"about": about, "workloads": [asdict(workload) for workload in workloads]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def draw(path: Path, workloads: list[Workload]) -> None:
    """The ratios as bars on a logarithmic axis; shorter is better, and left of 1 fnflare is the faster."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    bars = [(w.name, row) for w in workloads for row in w.rows if not row.own and row.ratio is not None]
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.28 * len(bars)), layout="constrained")
    libraries = sorted({row.contestant.split()[0] for _, row in bars})
    for position, (_, row) in enumerate(bars):
        assert row.ratio is not None
        colour = f"C{libraries.index(row.contestant.split()[0])}"
        axes.barh(position, row.ratio - 1, left=1, color=colour)
        axes.text(row.ratio, position, f" {row.ratio:.2f} ", va="center", ha="left" if row.ratio >= 1 else "right")
    axes.set_yticks(range(len(bars)), [f"{name}: {row.contestant}" for name, row in bars])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("time of fnflare / time of the peer, one unit of work")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
