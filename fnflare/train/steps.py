"""The standard train step, made of a loss and an optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fnflare import optim
from fnflare.errors import ArgumentError
from fnflare.transforms import value_and_grad

__all__ = ["GradientStep", "Step", "make_step"]

Step = Callable[[Any, Any, Any, Any], tuple[Any, Any, Mapping[str, Any]]]
"""``step(params, opt_state, batch, key) -> (params, opt_state, metrics)``, metrics holding at least ``"loss"``."""

LossFn = Callable[[Any, Any, Any], Any]
"""``loss_fn(params, batch, key) -> loss`` or ``-> (loss, metrics)``."""


class GradientStep:
    """A step down the gradient of a loss, as `make_step` makes it."""

    def __init__(self, loss_fn: LossFn, optimizer: optim.GradientTransformation, grad_norm: bool) -> None:
        self._optimizer, self._grad_norm = optimizer, grad_norm

        def loss_and_metrics(params: Any, batch: Any, key: Any) -> Any:
            out = loss_fn(params, batch, key)
            return out if isinstance(out, tuple) else (out, {})

        self._value_and_grad = value_and_grad(loss_and_metrics, has_aux=True)

    def __call__(self, params: Any, opt_state: Any, batch: Any, key: Any = None) -> tuple[Any, Any, dict[str, Any]]:
        """One step: new parameters, the optimiser's new state, and the metrics."""
        (loss, aux), grads = self._value_and_grad(params, batch, key)
        updates, opt_state = self._optimizer.update(grads, opt_state, params)
        own = {"loss": loss, "grad_norm": optim.global_norm(grads)} if self._grad_norm else {"loss": loss}
        if not isinstance(aux, Mapping) or not own.keys().isdisjoint(aux):
            raise ArgumentError(
                "make_step: beside the loss loss_fn may return a dict of metrics without "
                f"{' and '.join(map(repr, own))}, got {list(aux) if isinstance(aux, Mapping) else type(aux).__name__}"
            )
        return optim.apply_updates(params, updates), opt_state, {**own, **aux}

    def gradients(self, params: Any, batch: Any, key: Any = None) -> Any:
        """The gradients of the loss alone, mirroring the parameters."""
        return self._value_and_grad(params, batch, key)[1]


def make_step(loss_fn: LossFn, optimizer: optim.GradientTransformation, *, grad_norm: bool = False) -> GradientStep:
    """The standard train step: a gradient of the loss, an update of the parameters.

    Args:
        loss_fn: ``loss_fn(params, batch, key)`` returns the loss, a scalar, or ``(loss, metrics)`` with a dict of other
            scalars such as an accuracy. `key` is the step's own, for dropout; None where the run has none.
        optimizer: from `fnflare.optim`.
        grad_norm: whether ``"grad_norm"``, the Euclidean norm of all gradients before the optimiser changes them, is
            among the metrics.

    Returns:
        ``step(params, opt_state, batch, key=None) -> (params, opt_state, metrics)``; a pure function.

    >>> import numpy as np
    >>> step = make_step(lambda params, batch, key: np.sum((params - batch) ** 2), optim.sgd(0.25))
    >>> params = np.zeros(2)
    >>> params, opt_state, metrics = step(params, optim.sgd(0.25).init(params), np.array([1.0, 2.0]))
    >>> params, float(metrics["loss"])
    (array([0.5, 1. ]), 5.0)
    """
    return GradientStep(loss_fn, optimizer, grad_norm)
