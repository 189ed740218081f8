"""The training loop."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

from fnflare import random
from fnflare.errors import ArgumentError, NonFiniteError
from fnflare.train.checkpoints import Checkpointer
from fnflare.train.finite import first_not_finite, non_finite_loss
from fnflare.train.history import History
from fnflare.train.progress import Progress
from fnflare.train.reporters import ReporterFn, call, numbers
from fnflare.train.state import Event, Moment, TrainState
from fnflare.train.steps import Step
from fnflare.train.stopping import EarlyStopping

__all__ = ["FitResult", "fit"]

Stopped = Literal["epochs", "max_steps", "early stopping"]


class FitResult(NamedTuple):
    """What `fit` returns.

    Attributes:
        params: the trained parameters; the best ones under ``EarlyStopping(..., keep_best=True)``.
        opt_state: the optimiser's state after the last step.
        history: all that was measured and reported.
        step: how many steps were done.
        epoch: how many epochs were done.
        stopped: why it ended: ``"epochs"``, ``"max_steps"`` or ``"early stopping"``.
    """

    params: Any
    opt_state: Any
    history: History
    step: int
    epoch: int
    stopped: Stopped


def fit(
    step: Step,
    params: Any,
    opt_state: Any,
    loader: Iterable[Any],
    *,
    epochs: int = 1,
    max_steps: int | None = None,
    key: np.ndarray | None = None,
    reporters: Sequence[ReporterFn] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    resume: bool = True,
    early_stopping: EarlyStopping | None = None,
    progress: bool = True,
) -> FitResult:
    """Train.

    Each step gets the next batch and ``random.fold_in(key, number)``, where the number of the first step is 0. Whatever
    it measures, and what the reporters say, goes into the history and is shown as the run goes on.

    With `checkpoint` a run that was interrupted goes on where it was, and gives the same numbers to the last bit as one
    that was not, if the step, the loader and the arguments are the same. A checkpoint is saved at the start, every
    `checkpoint_every` steps or else after each epoch, at the end and on Ctrl-C (`KeyboardInterrupt` is then raised on).

    Args:
        step: ``step(params, opt_state, batch, key) -> (params, opt_state, metrics)``, a pure function as `make_step`
            makes it. The metrics are scalars by name, ``"loss"`` among them.
        params: the parameters to begin with.
        opt_state: the optimiser's state to begin with, ``optimizer.init(params)``.
        loader: the batches; a `DataLoader`, or anything that gives the same batches whenever it is gone through.
        epochs: how often the loader is gone through, resumed ones included.
        max_steps: after how many steps to stop at the latest, resumed ones included.
        key: for the random numbers of the steps, such as dropout; None gives them None.
        reporters: what else to measure; see `fnflare.train.reporters`.
        checkpoint: the file, ``.npz`` or ``.safetensors``.
        checkpoint_every: how many steps lie between two checkpoints; an epoch's by default.
        resume: whether to go on from the file where there is one; otherwise it is replaced at once.
        early_stopping: when to stop before the last epoch.
        progress: whether to show the progress; False prints nothing.

    Returns:
        `FitResult`.

    Raises:
        NonFiniteError: the loss, or a parameter that was to be saved, is not finite. It names the step and the first
            parameter concerned, its ``.state`` is the `TrainState` before the step, the checkpoint stays as it was.
        CheckpointError: the checkpoint is damaged, or that of another run.
        ArgumentError: an argument does not fit the others; the key is not that of the checkpoint.

    >>> from fnflare import data, optim, train
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32)
    >>> loader = data.DataLoader((x, 2 * x + 1), batch_size=16, key=ff.random.key(0))
    >>> def loss(params, batch, key):
    ...     x, y = batch
    ...     return np.mean((params["a"] * x + params["b"] - y) ** 2)
    >>> optimizer = optim.adam(0.1)
    >>> params = {"a": np.float32(0), "b": np.float32(0)}
    >>> step = train.make_step(loss, optimizer)
    >>> result = train.fit(step, params, optimizer.init(params), loader, epochs=50, progress=False)
    >>> round(float(result.params["a"]), 2), round(float(result.params["b"]), 2), result.step
    (2.0, 1.0, 200)
    """
    if epochs < 0 or (max_steps is not None and max_steps < 0):
        raise ArgumentError(f"fit: epochs and max_steps must not be negative, got {epochs} and {max_steps}")
    if checkpoint_every is not None and checkpoint is None:
        raise ArgumentError("fit: checkpoint_every needs checkpoint=, the path of the file")
    if getattr(step, "donates", False):
        raise ArgumentError(
            "fit: the step overwrites the state that it is given, and fit has to go back to it when a step goes wrong "
            "or is interrupted; make the step without donate=True"
        )
    if isinstance(loader, Iterator) and (epochs > 1 or checkpoint is not None):
        raise ArgumentError(
            "fit: the loader can be gone through only once; pass a DataLoader or a list of batches, no generator"
        )
    run = _Run(step, TrainState(params, opt_state, 0, 0), loader, key, early_stopping, reporters)
    if checkpoint is not None:
        run.keep(Checkpointer(checkpoint, checkpoint_every), resume)
    return run.go(epochs, max_steps, progress)


@runtime_checkable
class _KeepsPosition(Protocol):
    """A loader that can be put where another one was, as a `DataLoader`."""

    def state(self) -> Any: ...
    def restore(self, state: Any) -> None: ...


class _Saved(NamedTuple):
    """All that a checkpoint is made of, at a moment that a run can go on from.

    It refers to the values of that moment, which nobody changes; of the history, which grows, it has a mark.
    """

    state: TrainState
    batch: int
    loader: Any
    stopping: Any
    history: Mapping[str, int]


class _Run:
    """A run under way.

    After each step and each epoch, when everything fits together, `_settle` makes the `_Saved` that a checkpoint is
    written from. So an interruption at any other place, in the midst of a step or a report, costs that step alone.
    """

    def __init__(
        self,
        step: Step,
        state: TrainState,
        loader: Iterable[Any],
        key: np.ndarray | None,
        stopping: EarlyStopping | None,
        reporters: Sequence[ReporterFn],
    ) -> None:
        self._step, self._loader, self._key = step, loader, key
        self._position = loader if isinstance(loader, _KeepsPosition) else None
        self._stopping, self._reporters = stopping, reporters
        self._state = self._before = state
        self._batch = 0  # how many of this epoch were done
        self._history = History()
        self._checkpointer: Checkpointer | None = None
        if stopping is not None:
            stopping.reset()

    # ------------------------------------------------------------ the loop

    def go(self, epochs: int, max_steps: int | None, progress: bool) -> FitResult:
        """Train until there is a reason to stop."""
        try:
            while (stopped := self._reason(epochs, max_steps)) is None:
                description = f"epoch {self._state.epoch + 1}/{epochs}"
                with Progress(description=description, total=self._length(), done=self._batch, shown=progress) as bar:
                    if self._steps(max_steps, bar):
                        self._end_epoch(bar)
        except KeyboardInterrupt:
            with contextlib.suppress(NonFiniteError):  # what was saved before is better than that
                self._save()
            raise
        self._save()
        best = self._stopping.best_params if self._stopping is not None else None
        params = self._state.params if best is None else best
        return FitResult(params, self._state.opt_state, self._history, self._state.step, self._state.epoch, stopped)

    def _reason(self, epochs: int, max_steps: int | None) -> Stopped | None:
        if self._stopping is not None and self._stopping.stopped:
            return "early stopping"
        if self._state.epoch >= epochs:
            return "epochs"
        return "max_steps" if max_steps is not None and self._state.step >= max_steps else None

    def _length(self) -> int | None:
        return len(self._loader) if isinstance(self._loader, Sized) else None

    def _steps(self, max_steps: int | None, bar: Progress) -> bool:
        """The steps of an epoch, or those that remain of it; whether it came to its end."""
        for batch in self._batches():
            if max_steps is not None and self._state.step >= max_steps:
                return False
            bar.advance(self._one_step(batch))
            if self._stopping is not None and self._stopping.stopped:
                return False
        if self._batch == 0:
            raise ArgumentError("fit: the loader gave no batch")
        return True

    def _batches(self) -> Iterable[Any]:
        # A loader that keeps its position has been put there; another one begins anew.
        return self._loader if self._position is not None else itertools.islice(self._loader, self._batch, None)

    def _one_step(self, batch: Any) -> dict[str, float]:
        """One step, its reports, and a checkpoint where one is due."""
        before = self._state
        key = None if self._key is None else random.fold_in(self._key, before.step)
        params, opt_state, measured = self._step(before.params, before.opt_state, batch, key)
        metrics = _checked(measured)
        if not math.isfinite(metrics["loss"]):
            raise non_finite_loss(metrics["loss"], before, self._step, batch, key, params)
        state = before._replace(params=params, opt_state=opt_state, step=before.step + 1)
        self._history.add(state.step, metrics, averaged=True)
        reports = self._report("step", state, metrics)
        self._before, self._state, self._batch = before, state, self._batch + 1
        self._settle()
        if self._checkpointer is not None and self._checkpointer.due(state.step):
            self._save()
        return {**metrics, **reports}

    def _end_epoch(self, bar: Progress) -> None:
        step = self._state.step
        self._history.end_epoch(step)
        means = {name: self._history.last_epoch(name) for name in self._history.averaged}
        reports = self._report("epoch", self._state, means)
        bar.report({**means, **reports})
        self._state, self._batch = self._state._replace(epoch=self._state.epoch + 1), 0
        self._settle()
        if self._checkpointer is not None and self._checkpointer.every is None:
            self._save()

    def _report(self, event: Event, state: TrainState, metrics: Mapping[str, float]) -> dict[str, float]:
        """What the reporters say, in the history and before the eyes of early stopping."""
        moment = Moment(event, state.step, state.epoch, state.params, state.opt_state, metrics, self._history)
        reports = call(self._reporters, moment)
        self._history.add(state.step, reports)
        if self._stopping is not None:
            seen = {**metrics, **reports} if event == "epoch" else reports
            if self._stopping.monitor in seen:
                self._stopping.update(seen[self._stopping.monitor], state.params)
            elif event == "epoch" and self._stopping.monitor not in self._history:
                raise ArgumentError(
                    f"fit: early stopping monitors {self._stopping.monitor!r}, which nothing has reported by the end "
                    f"of an epoch; there is {', '.join(map(repr, self._history.names))}"
                )
        return reports

    # ------------------------------------------------------------ checkpoints

    def keep(self, checkpointer: Checkpointer, resume: bool) -> None:
        """Save the run from now on, and go on with the one that was saved before."""
        self._checkpointer = checkpointer
        saved = checkpointer.restore(self._tree(self._now(), history=...)) if resume else None
        if saved is not None:
            self._resume(saved)
        self._settle()
        self._save()  # says at once, not after hours, when this cannot be saved

    def _resume(self, saved: Any) -> None:
        if self._key is not None and not np.array_equal(saved["key"], self._key):
            raise ArgumentError(
                "fit: the run in the checkpoint has another key; pass that one, or resume=False to begin anew"
            )
        self._state = self._before = TrainState(saved["params"], saved["opt_state"], saved["step"], saved["epoch"])
        self._batch = saved["batch"]
        self._history.restore(saved["history"])
        if self._stopping is not None:
            self._stopping.restore(saved["stopping"])
        if self._position is not None:
            self._position.restore(saved["loader"])

    def _settle(self) -> None:
        if self._checkpointer is not None:
            self._saved = self._now()

    def _now(self) -> _Saved:
        loader = None if self._position is None else self._position.state()
        stopping = None if self._stopping is None else self._stopping.state(self._state.params)
        return _Saved(self._state, self._batch, loader, stopping, self._history.mark())

    def _save(self) -> None:
        if self._checkpointer is None:
            return
        path = first_not_finite(self._saved.state.params)
        if path is not None:
            error = NonFiniteError(
                f"after {self._saved.state.step} steps the parameter {path!r} is not finite, though the loss "
                "still was. The state before the last step is in the error's .state; the checkpoint "
                f"{self._checkpointer.path} stays as it was"
            )
            error.state = self._before
            raise error
        self._checkpointer.save(self._tree(self._saved, self._history.state(self._saved.history)))

    def _tree(self, saved: _Saved, history: Any) -> dict[str, Any]:
        """What is written to the file."""
        return {
            **saved.state._asdict(),
            "batch": saved.batch,
            "key": self._key,
            "loader": saved.loader,
            "stopping": saved.stopping,
            "history": history,
        }


def _checked(metrics: Any) -> dict[str, float]:
    """The metrics of a step as Python floats."""
    if not isinstance(metrics, Mapping) or "loss" not in metrics:
        got = list(metrics) if isinstance(metrics, Mapping) else type(metrics).__name__
        raise ArgumentError(
            f"fit: step must return (params, opt_state, metrics), metrics a dict that holds 'loss'; got {got}"
        )
    return numbers("fit: the metrics of the step", metrics)
