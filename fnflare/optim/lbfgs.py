"""L-BFGS: the direction of a Newton step, from the last few differences of gradients.

A gradient and the parameters go in, the gradient times an estimate of the inverse Hessian comes out. With a line search
behind it (`fnflare.optim.linesearch`) it is a method for deterministic functions, such as losses of whole data sets.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    ScalarOrSchedule,
    identity,
    need_params,
    safe_increment,
    state_of,
    zero_count,
)
from fnflare.optim.combine import chain
from fnflare.optim.leaves import copied, filled, map_leaves
from fnflare.optim.linesearch import scale_by_zoom_linesearch
from fnflare.optim.transforms import scale, scale_by_learning_rate

__all__ = ["ScaleByLBFGSState", "lbfgs", "scale_by_lbfgs"]


class ScaleByLBFGSState(NamedTuple):
    """The state of `scale_by_lbfgs`.

    Attributes:
        count: updates made.
        params: the last parameters.
        updates: the last gradients.
        diff_params_memory: the last differences of parameters, each laid out as one row; the newest is the last.
        diff_updates_memory: those of gradients.
        weights_memory: one over the product of the two; 0 for a pair that tells nothing.
    """

    count: Any
    params: Any
    updates: Any
    diff_params_memory: Any
    diff_updates_memory: Any
    weights_memory: Any


def _minus(a: Any, b: Any) -> tuple[Any]:
    return (a - b,)


def _pushed(rows: Any, row: Any) -> Any:
    return np.concatenate([rows[1:], np.reshape(row, (1, *rows.shape[1:]))])


def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True) -> GradientTransformation:
    """Multiplies the gradient by the L-BFGS estimate of the inverse Hessian.

    Liu & Nocedal, 1989, "On the limited memory BFGS method for large scale optimization"; algorithm 7.4 of Nocedal &
    Wright, 2006, "Numerical optimization". A pair of differences in which the curvature is not positive is left out.

    Args:
        memory_size: how many differences are remembered.
        scale_init_precond: whether the estimate begins with the curvature of the newest difference; in the first step
            the direction is then no longer than 1.

    Raises:
        ArgumentError: `memory_size` is less than 1; ``update`` was called without the parameters.

    >>> opt = ff.optim.scale_by_lbfgs()
    >>> gradient = lambda x: np.array([1.0, 10.0]) * x  # of a bowl that is ten times as steep in one direction
    >>> state = opt.init(np.zeros(2))
    >>> for x in (np.array([0.0, 0.0]), np.array([1.0, 0.0]), np.array([1.0, 1.0])):
    ...     updates, state = opt.update(gradient(x), state, x)
    >>> updates  # after as many differences as there are directions it is the Newton step, x
    array([1., 1.])
    """
    if memory_size < 1:
        raise ArgumentError(f"scale_by_lbfgs: memory_size must be at least 1, got {memory_size!r}")

    def init(params: Any) -> ScaleByLBFGSState:
        flat, _ = tree.ravel(filled(params, 0.0))
        rows = np.zeros((memory_size, *flat.shape), flat.dtype)
        zeros = filled(params, 0.0)
        return ScaleByLBFGSState(
            zero_count(), copied(params), zeros, rows, np.zeros_like(rows), np.zeros(memory_size, flat.dtype)
        )

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ScaleByLBFGSState]:
        need_params("scale_by_lbfgs", updates, params)
        old = state_of(ScaleByLBFGSState, state, "scale_by_lbfgs")
        moved = map_leaves("scale_by_lbfgs", _minus, {"updates": params, "state.params": old.params}, outputs=1)[0]
        turned = map_leaves("scale_by_lbfgs", _minus, {"updates": updates, "state.updates": old.updates}, outputs=1)[0]
        s, y = tree.ravel(moved)[0], tree.ravel(turned)[0]
        curvature = np.sum(s * y)
        # In the first update there is no difference yet.
        useful = (curvature > 0) & (old.count > 0)
        weight = np.where(useful, 1 / np.where(useful, curvature, 1.0), 0.0)
        rows_s, rows_y = _pushed(old.diff_params_memory, s), _pushed(old.diff_updates_memory, y)
        weights = _pushed(old.weights_memory, weight)
        g, unravel = tree.ravel(updates)
        start = _first_scale(g, y, curvature, useful) if scale_init_precond else 1.0
        direction = unravel(_inverse_hessian_times(g, rows_s, rows_y, weights, start))
        new = ScaleByLBFGSState(safe_increment(old.count), params, updates, rows_s, rows_y, weights)
        return direction, new

    return GradientTransformation(init, update)


def _first_scale(g: Any, y: Any, curvature: Any, useful: Any) -> Any:
    """What the estimate begins with: the newest curvature, or what makes the direction no longer than 1."""
    square = np.sum(g * g)
    length = np.sqrt(np.where(square > 1, square, 1.0))
    return np.where(useful, curvature / np.where(useful, np.sum(y * y), 1.0), 1 / length)


def _inverse_hessian_times(g: Any, rows_s: Any, rows_y: Any, weights: Any, start: Any) -> Any:
    """The two loops of algorithm 7.4: from the newest difference to the oldest, and back."""
    factors = {}
    for i in reversed(range(len(rows_s))):
        factors[i] = weights[i] * np.sum(rows_s[i] * g)
        g = g - factors[i] * rows_y[i]
    g = start * g
    for i, factor in reversed(factors.items()):
        g = g + (factor - weights[i] * np.sum(rows_y[i] * g)) * rows_s[i]
    return g


_ZOOM = scale_by_zoom_linesearch(max_linesearch_steps=20, initial_guess_strategy="one")


def lbfgs(
    learning_rate: ScalarOrSchedule | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: GradientTransformation | None = _ZOOM,
) -> GradientTransformationExtraArgs:
    """L-BFGS with a line search, for functions without noise.

    The line search takes the function and what is known of it by keyword: ``opt.update(grads, state, params,
    value=value, grad=grads, value_fn=f)``; `fnflare.train.make_step` gives all of them. `value_and_grad_from_state`
    has the value and the gradient that the search has computed last. The search has loops without a fixed number of
    rounds, through which there is no reverse derivative.

    Args:
        learning_rate: a factor of the direction before the search; None for 1.
        memory_size: how many differences of gradients are remembered.
        scale_init_precond: as in `scale_by_lbfgs`.
        linesearch: a line search; None for steps of fixed size.

    Raises:
        ArgumentError: ``update`` was called without what it needs.

    >>> def rosenbrock(x):
    ...     return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    >>> opt = ff.optim.lbfgs()
    >>> x = np.array([-1.2, 1.0])
    >>> state = opt.init(x)
    >>> value_and_grad = ff.optim.value_and_grad_from_state(rosenbrock)
    >>> for _ in range(40):
    ...     value, grad = value_and_grad(x, state=state)
    ...     updates, state = opt.update(grad, state, x, value=value, grad=grad, value_fn=rosenbrock)
    ...     x = ff.optim.apply_updates(x, updates)
    >>> x.round(6)
    array([1., 1.])
    """
    down = scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate)
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), down, linesearch or identity())
