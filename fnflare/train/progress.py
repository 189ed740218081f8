"""The progress of a loop: a bar where tqdm is installed, a line now and then where it is not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import Any, Protocol, Self

__all__ = ["Progress"]

_SECONDS_BETWEEN_TEXTS = 0.1
_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Shows how far a loop has come: the rate, the time that remains, and what is reported.

    Go through it in place of what it is given, or enter it and call `advance` yourself. It writes to standard error.

    >>> progress = ff.train.Progress([1, 2, 3], "epoch 1", shown=False)
    >>> for batch in progress:
    ...     progress.report({"loss": 0.5})

    >>> with ff.train.Progress(total=2, shown=False) as progress:
    ...     progress.advance({"loss": 0.5})
    ...     progress.advance()
    """

    def __init__(
        self,
        batches: Iterable[Any] = (),
        description: str = "",
        *,
        total: int | None = None,
        done: int = 0,
        unit: str = "steps",
        shown: bool = True,
    ) -> None:
        """A progress that is shown from the first step on.

        Args:
            batches: what the loop goes through.
            description: stands in front.
            total: how many steps there are; by default as many as `batches` says, or unknown.
            done: how many of them were done before.
            unit: what steps are called, in the plural.
            shown: False shows nothing at all.
        """
        self._batches = batches
        if total is None and isinstance(batches, Sized) and len(batches):
            total = len(batches)
        self._display = _display(description, total, done, unit) if shown else None
        self._reports: dict[str, float] = {}
        self._written = float("-inf")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        with self:
            for batch in self._batches:
                yield batch
                self.advance()

    def advance(self, reports: Mapping[str, float] | None = None) -> None:
        """One step was done, with these reports."""
        if self._display is None:
            return
        if reports:
            self._reports.update(reports)
        now = time.perf_counter()
        if now - self._written >= _SECONDS_BETWEEN_TEXTS:  # to write the text costs more than a small step
            self._display.text(_text(self._reports))
            self._written = now
        self._display.advance()

    def report(self, reports: Mapping[str, float]) -> None:
        """Show these reports beside the earlier ones."""
        self._reports.update(reports)

    def close(self) -> None:
        """Show the last state for good."""
        if self._display is not None:
            self._display.text(_text(self._reports))
            self._display.close()
            self._display = None


def _text(reports: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {float(value):.4g}" for name, value in reports.items())


class _Display(Protocol):
    def text(self, text: str) -> None: ...
    def advance(self) -> None: ...
    def close(self) -> None: ...


def _display(description: str, total: int | None, done: int, unit: str) -> _Display:
    # A bar redraws its line, of which a log file would keep every state. Notebooks can redraw.
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        try:
            from tqdm import tqdm
        except ImportError:
            return _Lines(description, total, done, unit)
        return _Bar(tqdm(desc=description, total=total, initial=done, unit=f" {unit}", dynamic_ncols=True, leave=True))
    return _Lines(description, total, done, unit)


class _Bar:
    """tqdm's bar."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def text(self, text: str) -> None:
        self._bar.set_postfix_str(text, refresh=False)

    def advance(self) -> None:
        self._bar.update()

    def close(self) -> None:
        self._bar.refresh()
        self._bar.close()


class _Lines:
    """A line every few seconds and one at the end."""

    def __init__(self, description: str, total: int | None, done: int, unit: str) -> None:
        self._description, self._total, self._first, self._done, self._unit = description, total, done, done, unit
        self._text = ""
        self._start = self._last = time.perf_counter()

    def text(self, text: str) -> None:
        self._text = text

    def advance(self) -> None:
        self._done += 1
        if time.perf_counter() - self._last >= _SECONDS_BETWEEN_LINES:
            self._write(ended=False)

    def close(self) -> None:
        self._write(ended=True)

    def _write(self, ended: bool) -> None:
        self._last = time.perf_counter()
        seconds = self._last - self._start
        rate = (self._done - self._first) / max(seconds, 1e-9)
        total = "" if self._total is None else f"/{self._total}"
        parts = [f"{self._done}{total} {self._unit}", f"{rate:.1f}/s"]
        if ended:
            parts.append(f"in {seconds:.1f} s")
        elif self._total is not None and rate:
            parts.append(f"{(self._total - self._done) / rate:.0f} s left")
        line = ", ".join([*parts, self._text] if self._text else parts)
        print(f"{self._description}: {line}" if self._description else line, file=sys.stderr, flush=True)
