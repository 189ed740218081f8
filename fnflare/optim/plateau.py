"""Steps that shrink once the loss has stopped to fall: updates and a loss go in, scaled updates come out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError
from fnflare.optim.base import GradientTransformationExtraArgs, safe_increment, state_of, zero_count
from fnflare.optim.leaves import float_dtype, map_leaves

__all__ = ["ReduceLROnPlateauState", "reduce_on_plateau"]


class ReduceLROnPlateauState(NamedTuple):
    """The state of `reduce_on_plateau`.

    Attributes:
        scale: the factor of the updates.
        best_value: the least value so far.
        plateau_count: for how many values there was no better one.
        cooldown_count: how many values are still ignored.
        count: how many values were gathered for the mean.
        avg_value: their mean.
    """

    scale: Any
    best_value: Any
    plateau_count: Any
    cooldown_count: Any
    count: Any
    avg_value: Any


def reduce_on_plateau(
    factor: float = 0.1,
    patience: int = 10,
    rtol: float = 1e-4,
    atol: float = 0.0,
    cooldown: int = 0,
    accumulation_size: int = 1,
    min_scale: float = 0.0,
) -> GradientTransformationExtraArgs:
    """Scales the updates down whenever a value, such as the loss, has stopped to improve.

    It goes behind an optimiser in a chain and takes the value by keyword: ``opt.update(grads, state, params,
    value=loss)``; `fnflare.train.make_step` gives the loss of the step.

    Args:
        factor: by which the scale is multiplied, in (0, 1).
        patience: after how many values without a better one.
        rtol: by what fraction of the best value a better one has to be less.
        atol: by how much it has to be less.
        cooldown: how many values are ignored after that.
        accumulation_size: how many values are averaged to one; more than 1 for the losses of small batches.
        min_scale: the least scale.

    Raises:
        ArgumentError: an argument is out of range; ``update`` was called without ``value=``.

    >>> opt = ff.optim.chain(ff.optim.sgd(1.0), ff.optim.reduce_on_plateau(factor=0.5, patience=2))
    >>> state = opt.init(np.zeros(1))
    >>> for loss in (3.0, 2.0, 2.0, 2.0, 1.0):
    ...     updates, state = opt.update(np.ones(1), state, value=loss)
    ...     print(updates)
    [-1.]
    [-1.]
    [-1.]
    [-0.5]
    [-0.5]
    """
    if not 0 < factor < 1:
        raise ArgumentError(f"reduce_on_plateau: factor must be greater than 0 and less than 1, got {factor!r}")
    if rtol < 0 or atol < 0 or rtol > 1 or rtol + atol == 0:
        raise ArgumentError(
            f"reduce_on_plateau: rtol must be in [0, 1], atol at least 0, and one of them positive, got {rtol!r} and "
            f"{atol!r}"
        )
    if patience < 1 or cooldown < 0 or accumulation_size < 1:
        raise ArgumentError(
            "reduce_on_plateau: patience and accumulation_size must be at least 1 and cooldown at least 0, got "
            f"patience={patience!r}, accumulation_size={accumulation_size!r}, cooldown={cooldown!r}"
        )

    def init(params: Any) -> ReduceLROnPlateauState:
        dtype = float_dtype(params)
        best, mean = np.full((), np.inf, dtype), np.zeros((), dtype)
        return ReduceLROnPlateauState(np.ones((), dtype), best, zero_count(), zero_count(), zero_count(), mean)

    def judged(old: ReduceLROnPlateauState, mean: Any) -> ReduceLROnPlateauState:
        """The state after a whole mean, which is better than the best one or is not."""
        zero = zero_count()
        improved = mean < (1 - rtol) * old.best_value - atol
        cooling = old.cooldown_count > 0
        waited = np.where(improved | cooling, zero, safe_increment(old.plateau_count))
        reduce = waited >= patience
        return ReduceLROnPlateauState(
            scale=np.where(reduce, np.maximum(old.scale * factor, min_scale), old.scale),
            best_value=np.where(improved, mean, old.best_value),
            plateau_count=np.where(reduce, zero, waited),
            cooldown_count=np.where(
                cooling, old.cooldown_count - np.int32(1), np.where(reduce, np.int32(cooldown), zero)
            ),
            count=zero,
            avg_value=np.zeros_like(mean),
        )

    def update(
        updates: Any, state: Any, params: Any = None, *, value: Any = None, **extra_args: Any
    ) -> tuple[Any, ReduceLROnPlateauState]:
        old = state_of(ReduceLROnPlateauState, state, "reduce_on_plateau")
        if value is None:
            raise ArgumentError("reduce_on_plateau: update needs the loss; write opt.update(grads, state, value=loss)")
        dtype = old.avg_value.dtype
        count = safe_increment(old.count)
        # Before the division, so that a mean of one value is that value.
        value = np.asarray(value) if not hasattr(value, "astype") else value
        mean = ((old.avg_value * old.count + value.astype(dtype)) / count).astype(dtype)
        whole = count >= accumulation_size
        gathering = old._replace(count=count, avg_value=mean)
        new = tree.map(lambda a, b: np.where(whole, a, b), judged(old, mean), gathering)
        scaled = map_leaves("reduce_on_plateau", lambda g, c: (c * g,), {"updates": updates}, new.scale, outputs=1)
        return scaled[0], new

    return GradientTransformationExtraArgs(init, update)
