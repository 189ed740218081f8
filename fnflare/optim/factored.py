"""Adafactor's rule: Adam's second moment in the memory of a row and a column.

Updates go in, updates over the root of an estimate of their mean square come out. For a matrix the estimate is the
product of the means over its rows and over its columns; small arrays keep it in full.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.core import is_tracer
from fnflare.optim.base import GradientTransformation, safe_increment, state_of, zero_count
from fnflare.optim.leaves import abs_sq, check_decay, dtype_of, leaves_like, reject_complex, weak

__all__ = ["FactoredState", "ScaleBySM3State", "scale_by_factored_rms", "scale_by_sm3"]


class FactoredState(NamedTuple):
    """``count``: updates made; ``v_row``, ``v_col``: mean squares of factored arrays; ``v``: of the others.

    Where an array has no entry of a kind, there is one zero in its place.
    """

    count: Any
    v_row: Any
    v_col: Any
    v: Any


def _largest_axes(shape: tuple[int, ...], factored: bool, least: int) -> tuple[int, int] | None:
    """The second largest axis and the largest, where both are large enough."""
    if not factored or len(shape) < 2:
        return None
    order = np.argsort(shape)
    return (int(order[-2]), int(order[-1])) if shape[order[-2]] >= least else None


def _power_decay(step: Any, exponent: float) -> Any:
    return 1 - (step + 1) ** -exponent


def scale_by_factored_rms(
    factored: bool = True,
    decay_rate: float = 0.8,
    step_offset: int = 0,
    min_dim_size_to_factor: int = 128,
    epsilon: float = 1e-30,
    decay_rate_fn: Callable[..., Any] = _power_decay,
) -> GradientTransformation:
    """Adafactor's rule: the gradient over the root of its mean square, estimated from rows and columns.

    Shazeer & Stern, 2018, "Adafactor: adaptive learning rates with sublinear memory cost". The decay of the means
    grows with the number t of the update: it is ``1 - t**-decay_rate``.

    Args:
        factored: False keeps every mean square in full.
        decay_rate: the exponent of the decay.
        step_offset: the step at which the count of the decay begins.
        min_dim_size_to_factor: arrays are factored whose two largest axes are at least that long.
        epsilon: added to the squared gradient.
        decay_rate_fn: the decay as a function of the step, from 0 on, and of `decay_rate`.

    >>> opt = ff.optim.scale_by_factored_rms(min_dim_size_to_factor=2)
    >>> gradient = np.array([[1.0, 2.0], [2.0, 4.0]])
    >>> updates, state = opt.update(gradient, opt.init(gradient))
    >>> updates, state.v_row, state.v_col
    (array([[1., 1.],
           [1., 1.]]), array([ 2.5, 10. ]), array([ 2.5, 10. ]))
    """
    check_decay("scale_by_factored_rms", decay_rate=decay_rate)

    def start(p: Any) -> tuple[Any, Any, Any]:
        axes = _largest_axes(np.shape(p), factored, min_dim_size_to_factor)
        dtype = dtype_of(p)
        none = np.zeros(1, dtype)
        if axes is None:
            return none, none.copy(), np.zeros_like(p)
        small, large = axes
        return np.zeros(np.delete(p.shape, large), dtype), np.zeros(np.delete(p.shape, small), dtype), none

    def kernel(g: Any, row: Any, col: Any, full: Any, decay: Any, eps: Any) -> tuple[Any, Any, Any, Any]:
        square = abs_sq(g) + eps
        axes = _largest_axes(np.shape(g), factored, min_dim_size_to_factor)
        if axes is None:
            full = decay * full + (1 - decay) * square
            return g / np.sqrt(full), row, col, full
        small, large = axes
        row = decay * row + (1 - decay) * np.mean(square, axis=large)
        col = decay * col + (1 - decay) * np.mean(square, axis=small)
        mean = np.mean(row, axis=small - 1 if small > large else small, keepdims=True)
        update = g / np.expand_dims(np.sqrt(row / mean), large) / np.expand_dims(np.sqrt(col), small)
        return update, row, col, full

    def init(params: Any) -> FactoredState:
        flat, treedef = tree.flatten(params)
        return FactoredState(zero_count(), *_transposed(treedef, [start(p) for p in flat], 3))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, FactoredState]:
        count, *moments = state_of(FactoredState, state, "scale_by_factored_rms")
        flat, treedef = tree.flatten(updates)
        names = ("state.v_row", "state.v_col", "state.v")
        columns = [
            leaves_like(treedef, m, "scale_by_factored_rms", "updates", n) for n, m in zip(names, moments, strict=True)
        ]
        decay = decay_rate_fn(weak(count) - step_offset, decay_rate)
        rows = [
            kernel(g, row, col, full, weak(decay, dtype_of(g)), weak(epsilon, dtype_of(g)))
            for g, row, col, full in zip(flat, *columns, strict=True)
        ]
        updates, *moments = _transposed(treedef, rows, 4)
        return updates, FactoredState(safe_increment(count), *moments)

    return GradientTransformation(init, update)


def _transposed(treedef: tree.TreeDef, rows: list[tuple[Any, ...]], outputs: int) -> list[Any]:
    return [tree.unflatten(treedef, [row[k] for row in rows]) for k in range(outputs)]


class ScaleBySM3State(NamedTuple):
    """``mu``: for each array a list of the greatest sums along each of its axes; ``nu``: the mean update."""

    mu: Any
    nu: Any


def scale_by_sm3(b1: float = 0.9, b2: float = 1.0, eps: float = 1e-8) -> GradientTransformation:
    """SM3's rule: Adagrad with sums for the rows and the columns of an array instead of its elements.

    Anil et al., 2019, "Memory-efficient adaptive optimization". An element's sum is the least of those that cover it.

    Args:
        b1: the decay of the mean update.
        b2: the decay of the sums; 1 for sums as they are.
        eps: added to a sum.

    >>> opt = ff.optim.scale_by_sm3()
    >>> updates, state = opt.update(np.array([[1.0, 2.0], [2.0, 4.0]]), opt.init(np.zeros((2, 2))))
    >>> updates.round(4), state.mu
    (array([[0.1, 0.1],
           [0.1, 0.1]]), [array([ 4., 16.]), array([ 4., 16.])])
    """
    check_decay("scale_by_sm3", b1=b1)
    b2_is_one = not is_tracer(b2) and bool(b2 == 1.0)

    def others(axis: int, ndim: int) -> tuple[int, ...]:
        return tuple([i for i in range(ndim) if i != axis])

    def along(x: Any, axis: int, ndim: int) -> Any:
        return np.reshape(x, [-1 if i == axis else 1 for i in range(ndim)])

    def one(g: Any, nu: Any, *sums: Any) -> tuple[Any, list[Any]]:
        decay, least = weak(b1, dtype_of(g)), weak(eps, dtype_of(g))
        keep = weak(b2, dtype_of(g))
        fresh = 1.0 if b2_is_one else 1.0 - keep
        total = fresh * abs_sq(g)
        if sums:
            cover = along(sums[0], 0, np.ndim(g))
            for axis, s in enumerate(sums[1:], 1):
                cover = np.minimum(cover, along(s, axis, np.ndim(g)))
            total = total + keep * cover
        positive = total > 0
        update = np.where(positive, g / np.sqrt(np.where(positive, total + least, 1.0)), 0.0).astype(dtype_of(g))
        new = [np.max(total, axis=others(axis, np.ndim(g)), initial=0.0) for axis in range(np.ndim(g))]
        return decay * nu + (1 - decay) * update, new

    def init(params: Any) -> ScaleBySM3State:
        mu = tree.map(lambda p: [np.zeros(n, dtype_of(p)) for n in np.shape(p)], params)
        return ScaleBySM3State(mu, tree.map(np.zeros_like, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ScaleBySM3State]:
        reject_complex("scale_by_sm3", updates)
        old = state_of(ScaleBySM3State, state, "scale_by_sm3")
        flat, treedef = tree.flatten(updates)
        nus = leaves_like(treedef, old.nu, "scale_by_sm3", "updates", "state.nu")
        sums = iter(tree.leaves(old.mu))
        rows = [one(g, nu, *[next(sums) for _ in range(np.ndim(g))]) for g, nu in zip(flat, nus, strict=True)]
        nu = tree.unflatten(treedef, [row[0] for row in rows])
        return nu, ScaleBySM3State(tree.unflatten(treedef, [row[1] for row in rows]), nu)

    return GradientTransformation(init, update)
