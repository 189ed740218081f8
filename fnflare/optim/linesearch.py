"""Line searches: how far to go along an update, found by trying the function there.

An update, the parameters, the function and its value and gradient go in; the update times a step size comes out. The
state keeps the value and the gradient at the point that was chosen, which `value_and_grad_from_state` reads, so that
they are not computed twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare import transforms, tree
from fnflare.core import is_tracer
from fnflare.errors import ArgumentError, TreeError
from fnflare.optim.base import GradientTransformationExtraArgs, need_params, state_of
from fnflare.optim.leaves import dtype_of, filled, float_dtype, map_leaves, weak

__all__ = [
    "ScaleByBacktrackingLinesearchState",
    "ScaleByZoomLinesearchState",
    "scale_by_backtracking_linesearch",
    "scale_by_zoom_linesearch",
    "value_and_grad_from_state",
    "vdot",
]


def vdot(a: Any, b: Any) -> Any:
    """The slope: the sum of the products of the elements of a direction and a gradient, pytrees of one structure."""
    pairs = zip(tree.leaves(a), tree.leaves(b), strict=True)
    return sum((np.sum(x * y if dtype_of(y).kind != "c" else (x * y).real) for x, y in pairs), 0.0)


def _moved(params: Any, updates: Any, size: Any) -> Any:
    trees = {"params": params, "updates": updates}
    return map_leaves("line search", lambda p, u, c: (p + c * u,), trees, size, outputs=1)[0]


def _scaled(updates: Any, size: Any) -> Any:
    return map_leaves("line search", lambda u, c: (c * u,), {"updates": updates}, size, outputs=1)[0]


def _select(pred: Any, a: Any, b: Any) -> Any:
    return tree.map(lambda x, y: np.where(pred, x, y), a, b)


def _loop(unfinished: Callable[[Any], Any], step: Callable[[Any], Any], value: Any) -> Any:
    """``while unfinished(value): value = step(value)``, by Python where the values are known."""
    if any(is_tracer(leaf) for leaf in tree.leaves((value, unfinished(value)))):
        return transforms.while_loop(unfinished, step, value)
    while unfinished(value):
        value = step(value)
    return value


def _check_inputs(who: str, updates: Any, params: Any, **given: Any) -> None:
    need_params(who, updates, params)
    missing = [name for name, value in given.items() if value is None]
    if missing:
        raise ArgumentError(
            f"{who}: update needs {', '.join(f'{name}=' for name in missing)}; write "
            "opt.update(grads, state, params, value=value, grad=grads, value_fn=f), where f(params) is the loss"
        )


def _scalar(x: Any, dtype: Any) -> Any:
    return x.astype(dtype) if hasattr(x, "astype") else np.asarray(x, dtype)


def _slope(updates: Any, grad: Any, dtype: Any) -> Any:
    """The slope along the update at its start; 0 where it goes uphill, so that nothing but a decrease is enough."""
    return _scalar(np.minimum(vdot(updates, grad), 0.0), dtype)


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """``learning_rate``: the last step size; ``value``: of the function there; ``grad``: its gradient, or None."""

    learning_rate: Any
    value: Any
    grad: Any


def scale_by_backtracking_linesearch(
    max_backtracking_steps: int,
    slope_rtol: float = 1e-4,
    decrease_factor: float = 0.8,
    increase_factor: float = 1.5,
    max_learning_rate: float = 1.0,
    atol: float = 0.0,
    rtol: float = 0.0,
    store_grad: bool = False,
) -> GradientTransformationExtraArgs:
    """Shortens an update until the function decreases enough (Armijo, 1966).

    A step of size a along the update u is taken where
    ``f(w + a u) <= (1 + rtol) f(w) + slope_rtol a <u, grad> + atol``; otherwise a smaller one is tried. It goes to the
    end of a chain, where updates go downhill.

    Args:
        max_backtracking_steps: how many sizes are tried after the first; the last one is taken as it is.
        slope_rtol: what fraction of the decrease that the slope promises is enough.
        decrease_factor: by which a size that was too large is multiplied.
        increase_factor: by which the last size is multiplied to get the first one that is tried.
        max_learning_rate: the greatest size.
        atol: an absolute tolerance.
        rtol: a relative tolerance.
        store_grad: whether the gradient at the end is computed and kept for `value_and_grad_from_state`.

    Raises:
        ArgumentError: ``update`` was called without the parameters, ``value=``, ``grad=`` or ``value_fn=``.

    >>> def f(x):
    ...     return np.sum(x**2)
    >>> opt = ff.optim.chain(ff.optim.sgd(1.0), ff.optim.scale_by_backtracking_linesearch(15, decrease_factor=0.5))
    >>> x = np.array([1.0, 2.0])
    >>> g = ff.grad(f)(x)
    >>> updates, state = opt.update(g, opt.init(x), x, value=f(x), grad=g, value_fn=f)
    >>> ff.optim.apply_updates(x, updates)
    array([0., 0.])
    """
    who = "scale_by_backtracking_linesearch"
    slope_rtol, decrease_factor, increase_factor = weak(slope_rtol), weak(decrease_factor), weak(increase_factor)
    max_learning_rate, atol, rtol = weak(max_learning_rate), weak(atol), weak(rtol)

    def init(params: Any) -> ScaleByBacktrackingLinesearchState:
        dtype = float_dtype(params)
        grad = filled(params, 0.0) if store_grad else None
        return ScaleByBacktrackingLinesearchState(np.ones((), dtype), np.full((), np.inf, dtype), grad)

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, ScaleByBacktrackingLinesearchState]:
        old = state_of(ScaleByBacktrackingLinesearchState, state, who)
        _check_inputs(who, updates, params, value=value, grad=grad, value_fn=value_fn)
        dtype = old.value.dtype
        start, slope = _scalar(value, dtype), _slope(updates, grad, dtype)

        def tried(size: Any) -> Any:
            return _scalar(value_fn(_moved(params, updates, size)), dtype)

        def unfinished(carry: Any) -> Any:
            count, size, now = carry
            # Not NaN and small enough: a comparison with NaN is false.
            enough = now <= (1 + rtol) * start + slope_rtol * size * slope + atol
            return ~enough & (count < max_backtracking_steps)

        def step(carry: Any) -> Any:
            count, size, _ = carry
            size = size * decrease_factor
            return count + 1, size, tried(size)

        first = np.minimum(old.learning_rate * increase_factor, max_learning_rate)
        _, size, now = _loop(unfinished, step, (np.zeros((), np.int32), first, tried(first)))
        end_grad = transforms.grad(value_fn)(_moved(params, updates, size)) if store_grad else None
        return _scaled(updates, size), ScaleByBacktrackingLinesearchState(size, now, end_grad)

    return GradientTransformationExtraArgs(init, update)


class ScaleByZoomLinesearchState(NamedTuple):
    """``learning_rate``: the last step size; ``value`` and ``grad``: of the function there; ``count``: of trials."""

    learning_rate: Any
    value: Any
    grad: Any
    count: Any


class _Point(NamedTuple):
    """A step size, the value of the function there, and its slope along the update."""

    size: Any
    value: Any
    slope: Any


class _Search(NamedTuple):
    """How far a search is.

    Attributes:
        size: what is tried next.
        low: the best point so far that decreases the function enough; at first the start.
        high: the other end of an interval with good points in it; at first infinitely far.
        grad: the gradient at `low`.
        count: how many points were tried.
        done: whether `low` is good enough.
    """

    size: Any
    low: _Point
    high: _Point
    grad: Any
    count: Any
    done: Any


def _between(low: _Point, high: _Point) -> Any:
    """Where the cubic through two points and their slopes is least; the middle where that is not well within."""
    width = high.size - low.size
    theta = 3 * (low.value - high.value) / width + low.slope + high.slope
    square = theta * theta - low.slope * high.slope
    root = np.sign(width) * np.sqrt(np.maximum(square, 0.0))
    below = high.slope - low.slope + 2 * root
    fraction = 1 - (high.slope + root - theta) / np.where(below == 0, 1.0, below)
    # False for NaN too, which comes from a value that is not finite.
    well = (square >= 0) & (below != 0) & (fraction >= 0.1) & (fraction <= 0.9)
    return low.size + width * np.where(well, fraction, 0.5)


def scale_by_zoom_linesearch(
    max_linesearch_steps: int,
    max_learning_rate: float | None = None,
    tol: float = 0.0,
    increase_factor: float = 2.0,
    slope_rtol: float = 1e-4,
    curv_rtol: float = 0.9,
    approx_dec_rtol: float | None = 1e-6,
    stepsize_precision: float = 1e-5,
    initial_guess_strategy: str = "keep",
) -> GradientTransformationExtraArgs:
    """Finds a step size where the function has decreased enough and its slope has become small (strong Wolfe).

    Nocedal & Wright, 2006, "Numerical optimization", algorithms 3.5 and 3.6: the size grows until an interval holds a
    good one, which is then narrowed by cubic interpolation. Where the function is so flat that rounding hides a
    decrease, its slope decides (Hager & Zhang, 2006, "Algorithm 851: CG_DESCENT"). It goes to the end of a chain,
    where updates go downhill. Where no size is found that decreases the function, the update becomes zero.

    Args:
        max_linesearch_steps: how many sizes are tried.
        max_learning_rate: the greatest size; None for no bound.
        tol: an absolute tolerance of both conditions.
        increase_factor: by which a size that is too small is multiplied.
        slope_rtol: what fraction of the decrease that the slope promises is enough.
        curv_rtol: what fraction of the first slope is small.
        approx_dec_rtol: how close to the first value the slope decides, as a fraction of that; None for never.
        stepsize_precision: the length of an interval that is not narrowed any more.
        initial_guess_strategy: what is tried first: ``"keep"``, the last size, or ``"one"``, which suits `lbfgs`.

    Raises:
        ArgumentError: an argument is out of range; ``update`` was called without the parameters, ``value=``, ``grad=``
            or ``value_fn=``.

    >>> def f(x):
    ...     return np.sum(x**4)
    >>> opt = ff.optim.chain(ff.optim.sgd(1.0), ff.optim.scale_by_zoom_linesearch(15))
    >>> x = np.array([10.0])
    >>> g = ff.grad(f)(x)
    >>> updates, state = opt.update(g, opt.init(x), x, value=f(x), grad=g, value_fn=f)
    >>> bool(f(ff.optim.apply_updates(x, updates)) < 0.1 * f(x))
    True
    """
    who = "scale_by_zoom_linesearch"
    if initial_guess_strategy not in ("keep", "one"):
        raise ArgumentError(f"{who}: initial_guess_strategy must be 'keep' or 'one', got {initial_guess_strategy!r}")
    if max_linesearch_steps < 1 or increase_factor <= 1:
        raise ArgumentError(
            f"{who}: max_linesearch_steps must be at least 1 and increase_factor greater than 1, got "
            f"{max_linesearch_steps!r} and {increase_factor!r}"
        )
    most = np.inf if max_learning_rate is None else weak(max_learning_rate)
    tol, increase_factor, slope_rtol, curv_rtol = weak(tol), weak(increase_factor), weak(slope_rtol), weak(curv_rtol)
    approx_dec_rtol = None if approx_dec_rtol is None else weak(approx_dec_rtol)

    def init(params: Any) -> ScaleByZoomLinesearchState:
        dtype = float_dtype(params)
        best = np.full((), np.inf, dtype)
        return ScaleByZoomLinesearchState(np.ones((), dtype), best, filled(params, 0.0), np.zeros((), np.int32))

    def update(
        updates: Any,
        state: Any,
        params: Any = None,
        *,
        value: Any = None,
        grad: Any = None,
        value_fn: Any = None,
        **extra_args: Any,
    ) -> tuple[Any, ScaleByZoomLinesearchState]:
        old = state_of(ScaleByZoomLinesearchState, state, who)
        _check_inputs(who, updates, params, value=value, grad=grad, value_fn=value_fn)
        dtype = old.value.dtype
        value_and_grad = transforms.value_and_grad(value_fn)
        zero = np.zeros((), dtype)
        start = _Point(zero, _scalar(value, dtype), _slope(updates, grad, dtype))

        def good(at: _Point) -> tuple[Any, Any]:
            """Whether the function has decreased enough, and whether its slope has become small."""
            enough = at.value <= start.value + slope_rtol * at.size * start.slope + tol
            if approx_dec_rtol is not None:
                close = at.value <= start.value + approx_dec_rtol * np.abs(start.value)
                enough = enough | (close & (at.slope <= (2 * slope_rtol - 1) * start.slope + tol))
            return enough, np.abs(at.slope) <= curv_rtol * np.abs(start.slope) + tol

        def unfinished(s: _Search) -> Any:
            wide = np.abs(s.high.size - s.low.size) > stepsize_precision
            stuck = (s.low.size >= most) | (~wide & (s.low.size > 0))
            return ~s.done & ~stuck & (s.count < max_linesearch_steps)

        def step(s: _Search) -> _Search:
            there, slopes = value_and_grad(_moved(params, updates, s.size))
            at = _Point(s.size, _scalar(there, dtype), _scalar(vdot(updates, slopes), dtype))
            enough, small = good(at)
            # An end of the interval is the best point; at the other the function is greater, or falls towards it.
            better = enough & ((at.value < s.low.value) | (s.low.size == 0))
            behind = np.sign(at.slope) * np.sign(s.high.size - s.low.size) >= 0  # signs: the size may be infinite
            high = _select(better, _select(behind, s.low, s.high), at)
            low = _select(better, at, s.low)
            found = np.isfinite(high.size)
            further = np.minimum(low.size * increase_factor, most)
            next_size = np.where(found, _between(low, _select(found, high, low._replace(size=low.size + 1))), further)
            gradient = _select(better, slopes, s.grad)
            return _Search(_scalar(next_size, dtype), low, high, gradient, s.count + np.int32(1), better & small)

        first = np.ones((), dtype) if initial_guess_strategy == "one" else old.learning_rate
        first = np.minimum(np.where(first > 0, first, np.ones((), dtype)), most).astype(dtype)
        far = _Point(zero + np.inf, start.value, start.slope)
        begun = _Search(first, start, far, grad, np.zeros((), np.int32), np.zeros((), np.bool_))
        with np.errstate(over="ignore", invalid="ignore"):  # too far out a function may overflow: that is no good point
            end = _loop(unfinished, step, begun)
        new = ScaleByZoomLinesearchState(end.low.size, end.low.value, end.grad, end.count)
        return _scaled(updates, end.low.size), new

    return GradientTransformationExtraArgs(init, update)


_KEEPERS = (ScaleByZoomLinesearchState, ScaleByBacktrackingLinesearchState)


def value_and_grad_from_state(value_fn: Callable[[Any], Any]) -> Callable[..., tuple[Any, Any]]:
    """The value and the gradient of a function at the point where a line search has ended, which knows them already.

    Args:
        value_fn: the function of the parameters, always the same one: with other data it has other values.

    Returns:
        ``f(params, *, state) -> (value, grad)``, where `state` is that of the optimiser. Before the first update it
        computes them.

    Raises:
        TreeError: by the function, where there is no line search in the state that keeps gradients.

    >>> def f(x):
    ...     return np.sum(x**2)
    >>> opt, x = ff.optim.lbfgs(), np.array([3.0])
    >>> state = opt.init(x)
    >>> value_and_grad = ff.optim.value_and_grad_from_state(f)
    >>> value, grad = value_and_grad(x, state=state)  # computed: there was no update yet
    >>> updates, state = opt.update(grad, state, x, value=value, grad=grad, value_fn=f)
    >>> value_and_grad(x + updates, state=state)[1] == ff.grad(f)(x + updates)  # known from the search
    array([ True])
    """

    def keeps(node: Any) -> bool:
        return isinstance(node, _KEEPERS)

    def value_and_grad(params: Any, *, state: Any) -> tuple[Any, Any]:
        found = [n for n in tree.leaves(state, is_leaf=keeps) if keeps(n) and n.grad is not None]
        if len(found) != 1:
            raise TreeError(
                f"value_and_grad_from_state: expected a state with one line search that keeps gradients, found "
                f"{len(found)}; the state is that of lbfgs, or of a chain that ends in a line search"
            )
        kept = found[0]
        known = np.isfinite(kept.value)
        if is_tracer(known):
            return transforms.cond(
                known, lambda: (kept.value, kept.grad), lambda: transforms.value_and_grad(value_fn)(params)
            )
        return (kept.value, kept.grad) if known else transforms.value_and_grad(value_fn)(params)

    return value_and_grad
