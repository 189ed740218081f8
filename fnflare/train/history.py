"""What a run has reported, and its learning curves as text and as a picture."""

from __future__ import annotations

import bisect
import itertools
import os
from array import array
from collections.abc import Iterator, KeysView, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fnflare.errors import ArgumentError

__all__ = ["History", "Series", "plot_history"]


class Series(NamedTuple):
    """One curve.

    Attributes:
        steps: int64 array of shape (n,): how many steps had been done at each point.
        values: float64 array of shape (n,).
    """

    steps: np.ndarray
    values: np.ndarray


class _Column(NamedTuple):
    steps: array[int]
    values: array[float]


class History:
    """The numbers that a run has reported, by name.

    `add` takes them, ``history["loss"]`` gives them back as a list, `series` together with their steps, `by_epoch` one
    an epoch. `fit` keeps one; a loop of your own may as well.

    >>> history = ff.train.History()
    >>> for step, loss in enumerate([4.0, 2.0, 1.0, 1.0], start=1):
    ...     history.add(step, {"loss": loss}, averaged=True)
    ...     if step % 2 == 0:
    ...         history.add(step, {"validation loss": loss + 0.5})
    ...         history.end_epoch(step)
    >>> history["loss"], history.by_epoch("loss")
    ([4.0, 2.0, 1.0, 1.0], [3.0, 1.0])
    >>> print(history.table())
    epoch  step  loss  validation loss
        1     2     3              2.5
        2     4     1              1.5
    """

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        self._averaged: set[str] = set()
        self._ends = array("q")

    def add(self, step: int, reports: Mapping[str, float], *, averaged: bool = False) -> None:
        """Take in numbers.

        Args:
            step: how many steps were done.
            reports: the numbers by name.
            averaged: whether each is but a sample of its epoch, as the loss of a batch is, so that the mean tells
                most about the epoch; otherwise the last one does.
        """
        for name, value in reports.items():
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = _Column(array("q"), array("d"))
                if averaged:
                    self._averaged.add(name)
            column.steps.append(step)
            column.values.append(value)

    def end_epoch(self, step: int) -> None:
        """Note that an epoch ended after this many steps."""
        self._ends.append(step)

    @property
    def names(self) -> list[str]:
        """What was reported, in the order of first appearance."""
        return list(self._columns)

    @property
    def averaged(self) -> list[str]:
        """The names whose means over an epoch tell most about it."""
        return [name for name in self._columns if name in self._averaged]

    @property
    def epoch_ends(self) -> list[int]:
        """After how many steps each epoch ended."""
        return self._ends.tolist()

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __getitem__(self, name: str) -> list[float]:
        """All values of that name, in order."""
        return self._column(name).values.tolist()

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def keys(self) -> KeysView[str]:
        """The names, so that ``dict(history)`` is all values by name."""
        return self._columns.keys()

    def items(self) -> Iterator[tuple[str, list[float]]]:
        """Each name with all its values."""
        return ((name, self[name]) for name in self)

    def __repr__(self) -> str:
        return f"History({len(self._ends)} epochs of {', '.join(self._columns) or 'nothing'})"

    def series(self, name: str) -> Series:
        """All values of that name with their steps.

        Raises:
            ArgumentError: nothing of that name was reported.
        """
        column = self._column(name)
        return Series(np.array(column.steps, np.int64), np.array(column.values, np.float64))

    def latest(self, name: str, count: int) -> list[float]:
        """The last values of that name, at most `count`."""
        return self._column(name).values[-count:].tolist()

    def by_epoch(self, name: str) -> list[float]:
        """One value for each epoch that has ended.

        Returns:
            The mean over the epoch of what a step measures, the last value of other reports; NaN for an epoch without.

        Raises:
            ArgumentError: nothing of that name was reported.
        """
        return [self._of_epoch(name, begin, end) for begin, end in itertools.pairwise([0, *self._ends])]

    def last_epoch(self, name: str) -> float:
        """The last element of `by_epoch`, at the cost of that epoch alone.

        Raises:
            ArgumentError: no epoch has ended, or nothing of that name was reported.
        """
        if not self._ends:
            raise ArgumentError("History.last_epoch: no epoch has ended yet")
        return self._of_epoch(name, self._ends[-2] if len(self._ends) > 1 else 0, self._ends[-1])

    def _of_epoch(self, name: str, begin: int, end: int) -> float:
        """The value of the epoch that had done its first step after `begin`, its last after `end` steps."""
        steps, values = self._column(name)
        first, last = bisect.bisect_right(steps, begin), bisect.bisect_right(steps, end)
        if first == last:
            return float("nan")
        return float(np.mean(values[first:last])) if name in self._averaged else values[last - 1]

    def epochs_at(self, steps: Any) -> np.ndarray:
        """Numbers of steps as numbers of epochs, 1.5 being half way through the second.

        Args:
            steps: integers of shape (n,). An epoch that has not ended counts as long as the one before it.
        """
        if not self._ends:
            raise ArgumentError("History.epochs_at: no epoch has ended yet")
        ends = np.array([0, *self._ends], np.float64)
        at = np.asarray(steps, np.float64)
        inside = np.interp(at, ends, np.arange(len(ends)))
        return inside + np.maximum(at - ends[-1], 0) / (ends[-1] - ends[-2])

    def table(self, names: Sequence[str] | None = None) -> str:
        """A table with a line for each epoch that has ended.

        Args:
            names: the columns; all that was reported by default.

        Raises:
            ArgumentError: nothing of such a name was reported.
        """
        names = self.names if names is None else list(names)
        columns = [[f"{x:.4g}" for x in self.by_epoch(name)] for name in names]
        numbers = [str(i + 1) for i in range(len(self._ends))]
        filled = [["epoch", *numbers], ["step", *map(str, self._ends)]]
        filled += [[name, *column] for name, column in zip(names, columns, strict=True)]
        widths = [max(map(len, column)) for column in filled]
        rows = zip(*filled, strict=True)
        return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows)

    def _column(self, name: str) -> _Column:
        if name not in self._columns:
            raise ArgumentError(f"History: nothing called {name!r} was reported; there is {', '.join(self.names)}")
        return self._columns[name]

    # What follows serves checkpoints: a state that can be saved, and marks to save that of an earlier moment.

    def mark(self) -> dict[str, int]:
        """How much there is of each column now; `state` can go back to it."""
        return {"": len(self._ends), **{name: len(column.steps) for name, column in self._columns.items()}}

    def state(self, mark: Mapping[str, int] | None = None) -> dict[str, Any]:
        """The whole as a pytree of arrays, for `fnflare.io.save`.

        Args:
            mark: what `mark` returned; what was added since is left out.
        """
        mark = self.mark() if mark is None else mark
        columns = []
        for name, column in self._columns.items():
            if n := mark.get(name, 0):
                steps, values = np.array(column.steps[:n], np.int64), np.array(column.values[:n], np.float64)
                columns.append(
                    {"name": np.array(name), "averaged": name in self._averaged, "steps": steps, "values": values}
                )
        return {"epoch_ends": np.array(self._ends[: mark[""]], np.int64), "columns": columns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take the place of the history whose `state` this is."""
        self._ends = array("q", state["epoch_ends"].tolist())
        self._columns, self._averaged = {}, set()
        for saved in state["columns"]:
            name = str(saved["name"])
            self._columns[name] = _Column(array("q", saved["steps"].tolist()), array("d", saved["values"].tolist()))
            if saved["averaged"]:
                self._averaged.add(name)


def plot_history(history: History, path: str | os.PathLike[str], *, names: Sequence[str] | None = None) -> None:
    """Draw learning curves into a picture.

    Curves whose names end in the same word, such as ``loss`` and ``validation loss``, share a panel. Where values were
    reported at each step, they are drawn thin and their means over the epochs thick.

    Args:
        history: what `fit` returned as ``result.history``.
        path: the file, ``.png`` or another suffix that Matplotlib knows. Folders that lack are made.
        names: what to draw; all that was reported by default.

    Raises:
        ArgumentError: there is nothing to draw, or nothing of such a name was reported.
        ImportError: without the extra ``fnflare[notebooks]``.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plot_history needs Matplotlib: pip install 'fnflare[notebooks]'") from error
    panels: dict[str, list[str]] = {}
    for name in history.names if names is None else names:
        panels.setdefault(name.split(" ")[-1], []).append(name)
    if not panels:
        raise ArgumentError("plot_history: the history is empty")
    # Not through pyplot, which would open windows and choose a backend for the whole process.
    figure = Figure(figsize=(4.8 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (quantity, members) in zip(np.ravel(figure.subplots(1, len(panels))), panels.items(), strict=True):
        for number, name in enumerate(members):
            _draw(axes, history, name, name.removesuffix(quantity).strip() or "train", f"C{number}")
        axes.set_xlabel("epoch" if history.epoch_ends else "step")
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
        axes.legend()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _draw(axes: Any, history: History, name: str, label: str, color: str) -> None:
    """One curve: the points themselves, and where they are many the means by epoch above them."""
    steps, values = history.series(name)
    ends = history.epoch_ends
    many = len(steps) > 4 * max(len(ends), 1)
    x = history.epochs_at(steps) if ends else steps
    if not many:
        axes.plot(x, values, color=color, marker="o", markersize=4, label=label)
        return
    faint = bool(ends)
    axes.plot(x, values, color=color, linewidth=0.8, alpha=0.35 if faint else 1.0, label=None if faint else label)
    if ends:
        # A mean over an epoch says most about its middle, yet it stands where the validation of that epoch stands.
        axes.plot(
            np.arange(1, len(ends) + 1), history.by_epoch(name), color=color, marker="o", markersize=4, label=label
        )
