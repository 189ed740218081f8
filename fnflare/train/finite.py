"""Finding out why a loss is not finite."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import tree
from fnflare.errors import NonFiniteError
from fnflare.train.state import TrainState

__all__ = ["first_not_finite", "non_finite_loss"]


def first_not_finite(params: Any) -> str | None:
    """The path of the first leaf of a pytree that holds an infinity or NaN, None where all are finite.

    >>> from fnflare.train.finite import first_not_finite
    >>> first_not_finite({"lstm": {"W": np.ones(2), "b": np.array([0.0, np.inf])}})
    'lstm/b'
    """
    for path, leaf in tree.leaves_with_path(params):
        kind = np.asarray(leaf).dtype.kind
        if kind in "fc" and not np.all(np.isfinite(leaf)):
            return tree.path_str(path)
    return None


def non_finite_loss(loss: float, before: TrainState, step: Any, batch: Any, key: Any, params: Any) -> NonFiniteError:
    """The error for a loss that is not finite.

    Args:
        loss: the loss of the step.
        before: what the run had before that step.
        step: the step; one with a method ``gradients`` is asked for those.
        batch: that the step was given.
        key: that the step was given.
        params: the parameters after the step.
    """
    error = NonFiniteError(
        f"step {before.step + 1}, in epoch {before.epoch + 1} (both counted from 1): the loss is {loss}; "
        f"{_cause(before.params, step, batch, key, params)}. The state before this step is in the error's .state, and "
        "a checkpoint that was saved is untouched. A lower learning rate or optim.clip_by_global_norm(1.0) before the "
        "optimiser often helps; inside of ff.debug_nans() the step names the operation and the line of the first NaN"
    )
    error.state = before
    return error


def _cause(before: Any, step: Any, batch: Any, key: Any, after: Any) -> str:
    """Names the first parameter that is not finite, or whose gradient is not."""
    path = first_not_finite(before)
    if path is not None:
        return f"the parameter {path!r} was not finite before the step"
    if hasattr(step, "gradients"):
        with np.errstate(all="ignore"):
            path = first_not_finite(step.gradients(before, batch, key))
        if path is not None:
            return f"all parameters were finite, the gradient of {path!r} is not"
    path = first_not_finite(after)
    if path is not None:
        return f"all parameters were finite before the step, its update of {path!r} is not"
    return "all parameters are finite, before and after: look at the batch and the loss function"
