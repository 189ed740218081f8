"""What a run has and what its reporters see: two named tuples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from fnflare.train.history import History

__all__ = ["Event", "Moment", "TrainState"]

Event = Literal["step", "epoch"]
"""When something happens: after a step, or after the last step of an epoch."""


class TrainState(NamedTuple):
    """What training has reached.

    Attributes:
        params: the parameters.
        opt_state: the optimiser's state.
        step: how many steps were done.
        epoch: how many epochs were done.
    """

    params: Any
    opt_state: Any
    step: int
    epoch: int


class Moment(NamedTuple):
    """A moment of a run, as reporters see it.

    Attributes:
        event: ``"step"`` after every step; ``"epoch"`` after every epoch, once its last step was reported.
        step: how many steps were done, over all epochs.
        epoch: the number of the epoch, from 0.
        params: the parameters after the step.
        opt_state: the optimiser's state after the step.
        metrics: what the step has measured, at least ``"loss"``; after an epoch the mean of it over the epoch.
        history: all that was reported before.
    """

    event: Event
    step: int
    epoch: int
    params: Any
    opt_state: Any
    metrics: Mapping[str, float]
    history: History
