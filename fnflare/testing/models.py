"""The bump test of a whole model: its gradient against finite differences of the loss.

A loss, its parameters and a batch go in; nothing comes out, or an `AssertionError` that names the first parameter whose
gradient is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.testing.derivatives import assert_directions
from fnflare.testing.directions import DIFFERENCE_TOLERANCES, STEPS, coarsest, random_like, tolerances
from fnflare.testing.failures import assert_structure
from fnflare.testing.holding import hold
from fnflare.testing.writing import Writer, limits_of
from fnflare.transforms import value_and_grad

__all__ = ["check_model", "doubled"]


def check_model(
    loss: Callable[..., Any],
    params: Any,
    *args: Any,
    has_aux: bool = False,
    promote: bool = True,
    directions: int = 1,
    seed: int = 0,
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
    **kwargs: Any,
) -> None:
    """The bump test of a whole model: its gradient against finite differences of the loss in random directions.

    Args:
        loss: ``loss(params, *args, **kwargs)`` returns a scalar, or ``(scalar, aux)`` with `has_aux`.
        params: a pytree of floating arrays.
        *args, **kwargs: the rest of the arguments: a batch, ``key=``, ``train=``.
        promote: whether the differences are taken in float64: `params` and the floating leaves of `args` are
            converted for them. The gradient itself is computed in the dtypes that are given, and the tolerance is
            theirs. With False the differences too are taken in the given dtypes, for a loss that cannot
            compute in another.
        directions: how many directions to try.
        seed: of the first direction; each further one takes the seed that follows.
        atol, rtol, eps: the tolerances and the step; by dtype where None, see the module.

    Raises:
        AssertionError: the gradient's structure, shapes or dtypes are not those of `params`, or it is wrong; names
            the first leaf that is.

    >>> def loss(params, x, y):
    ...     return np.mean(np.square(np.tanh(x @ params["w"]) + params["b"] - y))
    >>> params = {"w": np.ones((3, 2), np.float32), "b": np.zeros(2, np.float32)}
    >>> ff.testing.check_model(loss, params, np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32))
    """
    limits = (atol, rtol, eps)

    def law(given: Any) -> None:
        params, args, kwargs = given
        _model_law(loss, params, args, kwargs, has_aux, promote, range(seed, seed + directions), limits)

    def write(writer: Writer, given: Any) -> str:
        params, args, kwargs = given
        rest = [writer.expression(x) for x in (params, *args)]
        keywords: dict[str, str | None] = {k: writer.expression(v) for k, v in kwargs.items()}
        keywords["has_aux"] = "True" if has_aux else None
        keywords["promote"] = None if promote else "False"
        keywords["directions"] = None if directions == 1 else str(directions)
        keywords |= limits_of(*limits, seed=seed)
        return writer.call("check_model", writer.subject(loss, "loss", 0), *rest, **keywords)

    hold(law, (params, args, kwargs), write, generic=True)


def _model_law(
    loss: Any,
    params: Any,
    args: Any,
    kwargs: Any,
    has_aux: bool,
    promote: bool,
    seeds: range,
    limits: tuple[float | None, float | None, float | None],
) -> None:
    _, gradient = value_and_grad(loss, has_aux=has_aux)(params, *args, **kwargs)
    assert_structure(gradient, params, "check_model: the gradient")
    default = DIFFERENCE_TOLERANCES[coarsest(params)]
    if promote:
        params, args = doubled((params, args))
    step = STEPS[coarsest(params)] if limits[2] is None else limits[2]

    def value(point: Any) -> Any:
        out = loss(point, *args, **kwargs)
        return out[0] if has_aux else out

    allowed = (*tolerances(default, *limits[:2]), step)
    for s in seeds:
        direction = (random_like(params, s),)
        assert_directions(value, (params,), (gradient,), 1.0, direction, allowed, "check_model", s)


def doubled(params: Any) -> Any:
    """A tree with its floating arrays in float64."""
    return tree.map(lambda x: x.astype(np.float64) if hasattr(x, "dtype") and x.dtype.kind == "f" else x, params)
