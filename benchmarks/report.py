"""What a run of the benchmarks says: tables, JSON and a picture."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.contestants import OWN, TARGETS, Target


@dataclass(frozen=True)
class Row:
    """One contestant's result; ``ratios`` holds, for each of fnflare's modes, its time divided by this one's."""

    library: str
    mode: str
    milliseconds: float | None
    ratios: dict[str, float]
    first_call_seconds: float | None
    import_seconds: float | None
    error: str | None = None

    @property
    def contestant(self) -> str:
        """The library and its mode."""
        return f"{self.library} {self.mode}"

    @property
    def own(self) -> bool:
        """Whether this is fnflare."""
        return self.library == OWN


@dataclass(frozen=True)
class Workload:
    """The results of one workload; the floor is what its arithmetic alone would take on this machine."""

    name: str
    rows: list[Row]
    floor_milliseconds: float | None

    @property
    def own(self) -> list[Row]:
        """fnflare's modes, as far as they ran."""
        return [row for row in self.rows if row.own and row.milliseconds is not None]

    @property
    def peers(self) -> list[Row]:
        """The others, as far as they ran."""
        return [row for row in self.rows if not row.own and row.milliseconds is not None]

    def part_of_limit(self, row: Row) -> float | None:
        """How much of a row's time the arithmetic alone would take: 1 is the limit of any library."""
        return self.floor_milliseconds / row.milliseconds if self.floor_milliseconds and row.milliseconds else None

    @property
    def best_peer(self) -> Row | None:
        """The fastest of the others."""
        return min(self.peers, key=lambda row: row.milliseconds or 0.0, default=None)


def reached(workload: Workload, target: Target) -> float | None:
    """The ratio that a target speaks of: the fastest mode's to the fastest peer; None where one side did not run."""
    peers = [row.ratios for row in workload.peers if row.contestant in target.peers]
    modes = [row.mode for row in workload.own if row.mode in target.modes]
    # The fastest peer is the one with the greatest ratio.
    return min((max(ratios[mode] for ratios in peers) for mode in modes), default=None) if peers else None


def _promises(workload: Workload) -> list[tuple[Target, float]]:
    """The promises that this result speaks of, and what it says."""
    ratios = [(target, reached(workload, target)) for target in TARGETS.get(workload.name, ())]
    return [(target, ratio) for target, ratio in ratios if ratio is not None]


def missed(workload: Workload) -> list[str]:
    """The promises that this result breaks."""
    failed = [f"{row.contestant} failed" for row in workload.rows if row.own and row.error]
    return failed + [f"{ratio:.2f}, {target}" for target, ratio in _promises(workload) if ratio > target.limit]


def _number(x: float | None, digits: int = 3) -> str:
    return "-" if x is None else f"{x:.{digits}g}" if x < 100 else f"{x:.0f}"


def _percent(x: float | None) -> str:
    return "-" if x is None else f"{100 * x:.0f} %"


def table(workload: Workload) -> str:
    """All contestants of a workload, with a column of ratios for each of fnflare's modes."""
    modes = [row.mode for row in workload.own]
    width = max([10, *(len(mode) + 5 for mode in modes)])
    heads = "".join(f"{f'{mode}/it':>{width}s}" for mode in modes)
    lines = [f"\n{workload.name:18s}{'ms a unit':>10s}{'of limit':>10s}{heads}{'first call s':>14s}{'import s':>10s}"]
    for row in workload.rows:
        if row.error:
            lines.append(f"  {row.contestant:16s}{row.error}")
            continue
        ratios = "".join(f"{'' if row.own else _number(row.ratios.get(mode)):>{width}s}" for mode in modes)
        lines.append(
            f"  {row.contestant:16s} {_number(row.milliseconds, 4):>9s}"
            f"{_percent(workload.part_of_limit(row)):>10s}{ratios}"
            f"{_number(row.first_call_seconds):>14s}{_number(row.import_seconds):>10s}"
        )
    if workload.floor_milliseconds is not None:
        lines.append(f"  {'arithmetic alone':16s}{_number(workload.floor_milliseconds, 4):>10s}")
    for target, ratio in _promises(workload):
        lines.append(f"  {target}: {ratio:.2f}, {'held' if ratio <= target.limit else 'MISSED'}")
    return "\n".join(lines)


def summary(workloads: list[Workload]) -> str:
    """One line for each workload and mode of fnflare: beside the best peer and the arithmetic's limit."""
    lines = [
        f"\n{'workload':10s}{'fnflare':10s}{'ms':>10s}{'/ best peer':>13s}  {'best peer':16s}{'of the limit':>12s}"
    ]
    for workload in workloads:
        best = workload.best_peer
        for row in workload.own:
            ratio = _number(best.ratios[row.mode] if best else None)
            lines.append(
                f"{workload.name:10s}{row.mode:10s}{_number(row.milliseconds, 4):>10s}"
                f"{ratio:>13s}  {best.contestant if best else '-':16s}{_percent(workload.part_of_limit(row)):>12s}"
            )
    broken = [f"{workload.name}: {what}" for workload in workloads for what in missed(workload)]
    return "\n".join(lines + [f"MISSED {what}" for what in broken])


def write_json(path: Path, workloads: list[Workload], about: dict[str, Any]) -> None:
    """Everything that was measured, for other programs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"about": about, "workloads": [_with_targets(workload) for workload in workloads]}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _with_targets(workload: Workload) -> dict[str, Any]:
    targets = [{**target._asdict(), "reached": ratio} for target, ratio in _promises(workload)]
    return {**asdict(workload), "targets": targets}


def draw(path: Path, workloads: list[Workload]) -> None:
    """The ratios as bars on a logarithmic axis, a colour for each of fnflare's modes; shorter is better, and left of 1
    fnflare is the faster."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    peers = [(workload.name, row) for workload in workloads for row in workload.peers]
    modes = list(dict.fromkeys(mode for _, row in peers for mode in row.ratios))
    count = sum(len(row.ratios) for _, row in peers)
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.2 * count + 0.1 * len(peers)), layout="constrained")
    ticks, position = [], 0.0
    for _, row in peers:
        ticks.append(position + (len(row.ratios) - 1) / 2)
        for mode, ratio in row.ratios.items():
            axes.barh(position, ratio - 1, left=1, height=0.9, color=f"C{modes.index(mode)}")
            aligned = "left" if ratio >= 1 else "right"
            axes.text(ratio, position, f" {_number(ratio, 2)} ", va="center", ha=aligned, fontsize=7)
            position += 1
        position += 0.5
    axes.set_yticks(ticks, [f"{name}: {row.contestant}" for name, row in peers])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("time of fnflare / time of the peer, one unit of work")
    handles = [plt.Rectangle((0, 0), 1, 1, color=f"C{i}") for i in range(len(modes))]
    axes.legend(handles, [f"fnflare {mode}" for mode in modes], loc="best", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)
