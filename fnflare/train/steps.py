"""The standard train step, made of a loss and an optimiser.

A loss and an optimiser go in, a function from parameters, optimiser state, batch and key to the next ones comes out.
It runs operation by operation, as it is written, or with ``jit=True`` as one program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fnflare import optim, transforms
from fnflare.errors import ArgumentError, ConcretizationError

__all__ = ["GradientStep", "Step", "make_step"]

Step = Callable[[Any, Any, Any, Any], tuple[Any, Any, Mapping[str, Any]]]
"""``step(params, opt_state, batch, key) -> (params, opt_state, metrics)``, metrics holding at least ``"loss"``."""

LossFn = Callable[[Any, Any, Any], Any]
"""``loss_fn(params, batch, key) -> loss`` or ``-> (loss, metrics)``."""


class GradientStep:
    """A step down the gradient of a loss, as `make_step` makes it.

    Attributes:
        donates: whether it may overwrite the parameters and the optimiser's state that it is given.
    """

    def __init__(
        self, loss_fn: LossFn, optimizer: optim.GradientTransformation, grad_norm: bool, jit: bool, donate: bool
    ) -> None:
        def loss_and_metrics(params: Any, batch: Any, key: Any) -> Any:
            out = loss_fn(params, batch, key)
            return out if isinstance(out, tuple) else (out, {})

        names = ("loss", "grad_norm") if grad_norm else ("loss",)

        def train_step(params: Any, opt_state: Any, batch: Any, key: Any) -> tuple[Any, Any, Any, Any]:
            (loss, aux), grads = self._value_and_grad(params, batch, key)

            def value_fn(params: Any) -> Any:
                return loss_and_metrics(params, batch, key)[0]

            updates, opt_state = optimizer.update(
                grads,
                opt_state,
                params,
                value=loss,
                grad=grads,
                value_fn=value_fn,
                grad_fn=lambda params, i: transforms.grad(value_fn)(params),
            )
            _check_metrics(aux, names)
            own = (loss, optim.global_norm(grads)) if grad_norm else (loss,)
            return optim.apply_updates(params, updates), opt_state, own, aux

        train_step.__qualname__ = train_step.__name__  # as messages name it
        optimizer = optim.with_extra_args_support(optimizer)
        self._value_and_grad = transforms.value_and_grad(loss_and_metrics, has_aux=True)
        self._run = transforms.jit(train_step, donate_argnums=(0, 1) if donate else ()) if jit else train_step
        self.donates = donate
        self._names, self._jit = names, jit

    def __call__(self, params: Any, opt_state: Any, batch: Any, key: Any = None) -> tuple[Any, Any, dict[str, Any]]:
        """One step: new parameters, the optimiser's new state, and the metrics."""
        try:
            params, opt_state, own, aux = self._run(params, opt_state, batch, key)
        except (ArgumentError, ConcretizationError) as error:
            if self._jit:
                error.add_note(
                    "This is a step of make_step(..., jit=True), a program of arrays alone; without jit=True the step "
                    "takes batches of anything, and the loss may look at values"
                )
            raise
        return params, opt_state, {**dict(zip(self._names, own, strict=True)), **aux}

    def gradients(self, params: Any, batch: Any, key: Any = None) -> Any:
        """The gradients of the loss alone, mirroring the parameters."""
        return self._value_and_grad(params, batch, key)[1]


def _check_metrics(aux: Any, own: Sequence[str]) -> None:
    if not isinstance(aux, Mapping) or not set(own).isdisjoint(aux):
        raise ArgumentError(
            "make_step: beside the loss loss_fn may return a dict of metrics without "
            f"{' and '.join(map(repr, own))}, got {list(aux) if isinstance(aux, Mapping) else type(aux).__name__}"
        )


def make_step(
    loss_fn: LossFn,
    optimizer: optim.GradientTransformation,
    *,
    grad_norm: bool = False,
    jit: bool = False,
    donate: bool = False,
) -> GradientStep:
    """The standard train step: a gradient of the loss, an update of the parameters.

    Args:
        loss_fn: ``loss_fn(params, batch, key)`` returns the loss, a scalar, or ``(loss, metrics)`` with a dict of other
            scalars such as an accuracy. `key` is the step's own, for dropout; None where the run has none.
        optimizer: from `fnflare.optim`. One that takes them gets the loss as ``value``, the gradients as ``grad``, and
            the loss and its gradient on the step's batch as functions ``value_fn(params)`` and ``grad_fn(params, i)``.
        grad_norm: whether ``"grad_norm"``, the Euclidean norm of all gradients before the optimiser changes them, is
            among the metrics.
        jit: whether all of it runs as one program (`fnflare.jit`), which is faster, and traced anew for each shape
            of a batch: have a loader with ``multiple_of=`` or ``borders=`` give sentences few shapes. Batches then
            consist of arrays, the loss does not depend on their values in a Python ``if``, and what it does besides
            array operations, printing say, happens once. Without it the step runs operation by operation, as it is
            written, on batches of anything: that is for nets that follow their data, over trees for instance.
        donate: whether the program may write the new parameters and state into the memory of those it is given, which
            are then not to be used any more (`donate_argnums` of `fnflare.jit`): for loops of your own over large
            models. `fit` keeps the state before a step, to go back to it, and takes no such step.

    Returns:
        ``step(params, opt_state, batch, key=None) -> (params, opt_state, metrics)``; a pure function, unless it
        may `donate`. With or without `jit` its answers are the same, up to rounding.

    Raises:
        ArgumentError: `donate` without `jit`; by the step, if the metrics are no dict, or have a name of the step's
            own; with `jit` also if something in a batch is no array.
        ConcretizationError: by the step, with `jit`, if the loss needs the value of an array.

    >>> step = ff.train.make_step(lambda params, batch, key: np.sum((params - batch) ** 2), ff.optim.sgd(0.25))
    >>> params = np.zeros(2)
    >>> params, opt_state, metrics = step(params, ff.optim.sgd(0.25).init(params), np.array([1.0, 2.0]))
    >>> params, float(metrics["loss"])
    (array([0.5, 1. ]), 5.0)
    """
    if donate and not jit:
        raise ArgumentError("make_step: donate=True is for programs; pass jit=True too")
    return GradientStep(loss_fn, optimizer, grad_norm, jit, donate)
