"""Stopping a run that no longer gets better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from fnflare.errors import ArgumentError

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """Says when a number has not got better for a while (Prechelt, Early stopping - but when?, 1998).

    Give it to `fit`, or ask it in a loop of your own: ``if stopping.update(value, params): break``.

    >>> stopping = ff.train.EarlyStopping("validation loss", patience=2)
    >>> [stopping.update(loss) for loss in (0.9, 0.5, 0.6, 0.4, 0.5, 0.4)]
    [False, False, False, False, False, True]
    >>> stopping.best
    0.4

    Attributes:
        monitor: the name of the number that is looked at.
        best: the best value so far, None before the first.
        best_params: the parameters that had it, None without `keep_best` or before the first value.
    """

    def __init__(
        self,
        monitor: str = "validation loss",
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] = "min",
        keep_best: bool = False,
    ) -> None:
        """A stop that has seen nothing yet.

        Args:
            monitor: the name of a report, such as ``"validation loss"``, or of a metric of the step, whose mean over
                each epoch is taken. In `fit` every report of that name is looked at.
            patience: how many reports in a row may be no better than the best.
            min_delta: by how much a value has to be better to count as better.
            mode: whether less or more is better.
            keep_best: whether the best parameters are kept, to be what `fit` returns.

        Raises:
            ArgumentError: an argument is out of range.
        """
        if patience < 1 or min_delta < 0 or mode not in ("min", "max"):
            raise ArgumentError(
                "EarlyStopping: expected patience of at least 1, min_delta of at least 0 and mode 'min' or 'max', got "
                f"{patience}, {min_delta} and {mode!r}"
            )
        self.monitor, self.keep_best = monitor, keep_best
        self._patience, self._min_delta, self._sign = patience, min_delta, 1.0 if mode == "min" else -1.0
        self.reset()

    def reset(self) -> None:
        """Forget all that was seen."""
        self.best: float | None = None
        self.best_params: Any = None
        self._waited = 0

    @property
    def stopped(self) -> bool:
        """Whether it is time to stop."""
        return self._waited >= self._patience

    def update(self, value: float, params: Any = None) -> bool:
        """Look at a value; NaN is no better than anything.

        Args:
            value: the number that should get better.
            params: the parameters that have it; needed with `keep_best` alone.

        Returns:
            Whether it is time to stop.
        """
        gain = math.inf if self.best is None else self._sign * (self.best - value)
        if not math.isnan(value) and gain > self._min_delta:
            self.best, self._waited = float(value), 0
            if self.keep_best:
                self.best_params = params
        else:
            self._waited += 1
        return self.stopped

    def state(self, params: Any) -> dict[str, Any]:
        """What it has seen, as a pytree of one structure for all moments.

        Args:
            params: the present parameters, which stand in where no best ones are known yet.
        """
        return {
            "seen": self.best is not None,
            "best": 0.0 if self.best is None else self.best,
            "waited": self._waited,
            "params": (params if self.best_params is None else self.best_params) if self.keep_best else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.reset()
        self._waited = int(state["waited"])
        if state["seen"]:
            self.best, self.best_params = float(state["best"]), state["params"]
