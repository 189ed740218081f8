"""Reporters: what is measured while a run goes on.

A reporter is a function of a `Moment` that returns numbers by name, or nothing; `fit` calls it after every step and
after every epoch. The classes here are such functions, and `Every` changes when one of them measures. None of them
remembers anything: what was measured before stands in the moment's history, which checkpoints hold, so that a resumed
run reports what an unbroken one does.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from fnflare import nn
from fnflare.errors import ArgumentError
from fnflare.train.state import Event, Moment

__all__ = ["Accuracy", "AverageLoss", "Callback", "Evaluate", "Every", "GradientSize", "ReporterFn"]

Reports = Mapping[str, float]
ReporterFn = Callable[[Moment], Reports | None]
"""Takes a moment of the run, returns numbers by name or None."""


class Reporter(abc.ABC):
    """Measures at one kind of event; `report` does it at once.

    Attributes:
        on: ``"step"`` or ``"epoch"``.
    """

    on: Event = "step"

    def __call__(self, moment: Moment) -> Reports | None:
        return self.report(moment) if moment.event == self.on else None

    @abc.abstractmethod
    def report(self, moment: Moment) -> Reports | None:
        """The numbers at that moment, whatever the event."""


class Callback(Reporter):
    """Calls a function of the moment; what it returns is reported, unless it is None.

    >>> halved = ff.train.Callback(lambda moment: {"half loss": moment.metrics["loss"] / 2}, on="step")
    >>> halved(ff.train.Moment("step", 1, 0, None, None, {"loss": 3.0}, ff.train.History()))
    {'half loss': 1.5}
    """

    def __init__(self, function: ReporterFn, *, on: Event = "epoch") -> None:
        self._function, self.on = function, _event("Callback", on)

    def report(self, moment: Moment) -> Reports | None:
        return self._function(moment)


class Every(Reporter):
    """Lets another reporter measure after every n-th step, and then alone."""

    def __init__(self, steps: int, reporter: ReporterFn) -> None:
        """A reporter that is asked more rarely.

        Args:
            steps: n.
            reporter: one of this module, or a function of the moment.

        Raises:
            ArgumentError: n is not positive.
        """
        if steps < 1:
            raise ArgumentError(f"Every: steps must be at least 1, got {steps}")
        self._steps = steps
        self._report = reporter.report if isinstance(reporter, Reporter) else reporter

    def report(self, moment: Moment) -> Reports | None:
        return self._report(moment) if moment.step % self._steps == 0 else None


class AverageLoss(Reporter):
    """The mean loss of the last steps, which is less noisy than that of one batch."""

    def __init__(self, window: int = 100, *, metric: str = "loss", name: str | None = None) -> None:
        """A reporter of a moving average.

        Args:
            window: over how many steps.
            metric: of what; the loss, or another metric of the step.
            name: of the report; ``"average loss"`` by default.

        Raises:
            ArgumentError: the window is not positive.
        """
        if window < 1:
            raise ArgumentError(f"AverageLoss: window must be at least 1, got {window}")
        self._window, self._metric, self._name = window, metric, name or f"average {metric}"

    def report(self, moment: Moment) -> Reports:
        return {self._name: float(np.mean(moment.history.latest(self._metric, self._window)))}


class GradientSize(AverageLoss):
    """The mean Euclidean norm of the gradients of the last steps, by default of the last one alone.

    It reads the metric ``"grad_norm"``, which ``make_step(..., grad_norm=True)`` measures.
    """

    def __init__(self, window: int = 1) -> None:
        super().__init__(window, metric="grad_norm", name="gradient size")

    def report(self, moment: Moment) -> Reports:
        if "grad_norm" not in moment.metrics:
            raise ArgumentError(
                "GradientSize: the step's metrics have no 'grad_norm'; make it with make_step(..., grad_norm=True), or "
                "put optim.global_norm(grads) there"
            )
        return super().report(moment)


class Evaluate(Reporter):
    """The means of some measures over a set, such as the loss on validation data.

    >>> def measures(params, batch):
    ...     x, y = batch
    ...     return {"loss": np.abs(params * x - y)}
    >>> batches = [(np.array([1.0, 2.0]), np.array([2.0, 5.0])), (np.array([3.0]), np.array([6.0]))]
    >>> evaluate = ff.train.Evaluate(measures, batches)
    >>> evaluate.measure(2.0)
    {'validation loss': 0.3333333333333333}
    """

    def __init__(
        self,
        measures: Callable[[Any, Any], Mapping[str, Any]],
        batches: Iterable[Any],
        *,
        prefix: str = "validation ",
        on: Event = "epoch",
    ) -> None:
        """A reporter of means over a set.

        Args:
            measures: ``measures(params, batch)`` returns arrays by name, with one element for each example (or each
                word): what the losses of `fnflare.nn` give before they are reduced, or ``predicted == labels``.
            batches: the set, such as a `DataLoader` without a key or a list of batches; it is gone through each time.
            prefix: is put in front of the names.
            on: when to measure; see `Every` for more often.

        Raises:
            ArgumentError: `batches` is an iterator, which can be gone through only once.
        """
        if isinstance(batches, Iterator):
            raise ArgumentError(
                "Evaluate: batches can be gone through only once; pass a list or a DataLoader, no generator"
            )
        self._measures, self._batches, self._prefix, self.on = measures, batches, prefix, _event("Evaluate", on)

    def measure(self, params: Any) -> dict[str, float]:
        """The means with these parameters.

        Raises:
            ArgumentError: there is no example, or a measure is reduced already.
        """
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for batch in self._batches:
            for name, values in self._measures(params, batch).items():
                if np.ndim(values) == 0:
                    raise ArgumentError(
                        f"Evaluate: the measure {name!r} is a scalar; return one number for each example, so that "
                        "batches of unequal size count right: leave out np.mean"
                    )
                sums[name] = sums.get(name, 0.0) + float(np.sum(values, dtype=np.float64))
                counts[name] = counts.get(name, 0) + np.size(values)
        if not counts or 0 in counts.values():
            raise ArgumentError("Evaluate: there are no examples to average over")
        return {self._prefix + name: total / counts[name] for name, total in sums.items()}

    def report(self, moment: Moment) -> Reports:
        return self.measure(moment.params)


class Accuracy(Evaluate):
    """The fraction of a set whose class is predicted right.

    >>> from fnflare import data
    >>> points, signs = np.array([[1.0], [-2.0], [3.0], [4.0]]), np.array([1, 0, 1, 0])
    >>> loader = data.DataLoader((points, signs), batch_size=2)
    >>> ff.train.Accuracy(lambda params, x: params * x[:, 0], loader).measure(2.0)
    {'validation accuracy': 0.75}
    """

    def __init__(
        self,
        predict: Callable[[Any, Any], Any],
        batches: Iterable[Any],
        *,
        name: str = "validation accuracy",
        on: Event = "epoch",
    ) -> None:
        """A reporter of the accuracy.

        Args:
            predict: ``predict(params, inputs)`` returns logits or classes, as `fnflare.nn.accuracy` takes them.
            batches: pairs of inputs and labels, as in `Evaluate`.
            name: of the report.
            on: when to measure; see `Every` for more often.
        """

        def measures(params: Any, batch: Any) -> dict[str, Any]:
            inputs, labels = batch
            right = nn.accuracy(predict(params, inputs), labels)
            return {name: np.full(np.shape(labels), right)}

        super().__init__(measures, batches, prefix="", on=on)


def _event(who: str, on: Event) -> Event:
    if on not in ("step", "epoch"):
        raise ArgumentError(f"{who}: on must be 'step' or 'epoch', got {on!r}")
    return on


def call(reporters: Iterable[ReporterFn], moment: Moment) -> dict[str, float]:
    """What all reporters have to say at a moment.

    Raises:
        ArgumentError: a report is no mapping of names to numbers.
    """
    reports: dict[str, float] = {}
    for reporter in reporters:
        given = reporter(moment)
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise ArgumentError(
                f"a reporter, {reporter!r}, returned a {type(given).__name__}; expected numbers by name, or None"
            )
        reports.update(numbers(f"the report of {reporter!r}", given))
    return reports


def numbers(what: str, given: Mapping[str, Any]) -> dict[str, float]:
    """Scalars by name as Python floats.

    Raises:
        ArgumentError: one is no number.
    """
    try:
        return {name: float(value) for name, value in given.items()}
    except (TypeError, ValueError):
        pass
    name, value = next((name, value) for name, value in given.items() if not _is_number(value))
    raise ArgumentError(
        f"{what} has {name!r} of shape {np.shape(value)} and type {type(value).__name__}; write a number"
    )


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
