"""Averages over steps: of updates, and of parameters, which often generalise better than the last ones.

A running average is a state beside the parameters. `ema` averages whatever it is given; `params_ema` and
`polyak_average` stand at the end of a chain, let the updates pass and keep the average of the parameters that these
lead to, which `averaged_params` reads. `add_noise` stands here too: it is what averages are good against.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fnflare import random, tree
from fnflare.errors import ArgumentError, TreeError
from fnflare.optim.base import (
    GradientTransformation,
    apply_updates,
    need_params,
    safe_increment,
    state_of,
    zero_count,
)
from fnflare.optim.leaves import check_decay, copied, dtype_of, filled, map_leaves, tiled, weak
from fnflare.optim.moments import kept_as, like

__all__ = [
    "AddNoiseState",
    "AveragedParamsState",
    "EmaState",
    "add_noise",
    "averaged_params",
    "ema",
    "incremental_update",
    "params_ema",
    "polyak_average",
]


class EmaState(NamedTuple):
    """``count``: how many trees were averaged; ``ema``: the average, not corrected for its start."""

    count: Any
    ema: Any


@tiled
def _towards(new: Any, old: Any, c: Any) -> tuple[Any]:
    return (old + c * (new - old),)


def _debiased(average: Any, correction: Any) -> Any:
    return map_leaves("ema", lambda a, c: (a * c,), {"average": average}, correction, outputs=1)[0]


def ema(decay: float, debias: bool = True, accumulator_dtype: Any = None) -> GradientTransformation:
    """Replaces updates by their exponential moving average. Parameters may be averaged so as well.

    Args:
        decay: the share of the old average that is kept, in [0, 1).
        debias: correct the average for its start at zero, as Adam does.
        accumulator_dtype: the dtype in which the average is kept; the parameters' where it is None.

    >>> average = ff.optim.ema(0.9)
    >>> state = average.init({"w": np.zeros(1)})
    >>> for params in ({"w": np.array([1.0])}, {"w": np.array([2.0])}):
    ...     mean, state = average.update(params, state)
    >>> round(float(mean["w"][0]), 6)  # (0.1 * 2 + 0.09 * 1) / 0.19
    1.526316
    """
    check_decay("ema", decay=decay)

    def init(params: Any) -> EmaState:
        return EmaState(zero_count(), filled(params, 0.0, accumulator_dtype))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, EmaState]:
        count, average = state_of(EmaState, state, "ema")
        average = like(average, updates, accumulator_dtype)
        (average,) = map_leaves("ema", _towards, {"updates": updates, "state.ema": average}, 1 - decay, outputs=1)
        mean = _debiased(average, 1 / (1 - decay ** (weak(count) + 1))) if debias else average
        return mean, EmaState(safe_increment(count), kept_as(average, accumulator_dtype))

    return GradientTransformation(init, update)


def incremental_update(new_tensors: Any, old_tensors: Any, step_size: float) -> Any:
    """The old tree moved towards the new one: ``step_size * new + (1 - step_size) * old`` (Polyak averaging).

    Args:
        new_tensors: a pytree of arrays.
        old_tensors: one of the same structure and shapes.
        step_size: how far, 1 for all the way.

    >>> ff.optim.incremental_update({"w": np.array([2.0])}, {"w": np.array([1.0])}, 0.25)
    {'w': array([1.25])}
    """
    trees = {"new_tensors": new_tensors, "old_tensors": old_tensors}
    return map_leaves("incremental_update", _towards, trees, step_size, outputs=1)[0]


class AveragedParamsState(NamedTuple):
    """``count``: how many updates were seen; ``average``: the average parameters."""

    count: Any
    average: Any


def _averaging(who: str, rate: Any) -> GradientTransformation:
    """Keeps an average of parameters that moves by ``rate(n)`` towards those after the n-th update, from 1 on."""

    def init(params: Any) -> AveragedParamsState:
        return AveragedParamsState(zero_count(), copied(params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AveragedParamsState]:
        need_params(who, updates, params)
        count, average = state_of(AveragedParamsState, state, who)
        trees = {"updates": apply_updates(params, updates), "state.average": average}
        (average,) = map_leaves(who, _towards, trees, rate(weak(count) + 1), outputs=1)
        return updates, AveragedParamsState(safe_increment(count), average)

    return GradientTransformation(init, update)


def params_ema(decay: float, debias: bool = True) -> GradientTransformation:
    """Keeps an exponential moving average of the parameters; the updates pass unchanged.

    It goes to the end of a chain, where the updates are what will be added to the parameters.

    Args:
        decay: the share of the old average that is kept, in [0, 1): 0.999 averages over some thousand steps.
        debias: average over the parameters since the first update alone; False starts from the initial parameters,
            as if they had been there for ever.

    Raises:
        ArgumentError: ``update`` was called without the parameters.

    >>> opt = ff.optim.chain(ff.optim.sgd(0.5), ff.optim.params_ema(0.9))
    >>> params = {"w": np.array([1.0])}
    >>> state = opt.init(params)
    >>> for _ in range(2):
    ...     updates, state = opt.update(params, state, params)
    ...     params = ff.optim.apply_updates(params, updates)
    >>> params["w"], ff.optim.averaged_params(state)["w"].round(4)  # (0.1 * 0.25 + 0.09 * 0.5) / 0.19
    (array([0.25]), array([0.3684]))
    """
    check_decay("params_ema", decay=decay)
    # The corrected average after n steps moves by (1 - d) / (1 - d^n): all the way in the first.
    return _averaging("params_ema", lambda n: (1 - decay) / (1 - decay**n) if debias else 1 - decay)


def polyak_average(start: int = 0) -> GradientTransformation:
    """Keeps the mean of the parameters after every update from some step on; the updates pass unchanged.

    Polyak & Juditsky, 1992, "Acceleration of stochastic approximation by averaging"; with a constant or cyclical
    learning rate it is stochastic weight averaging (Izmailov et al., 2018, "Averaging weights leads to wider optima
    and better generalization"). It goes to the end of a chain.

    Args:
        start: how many updates are left out; until then the average is the parameters themselves.

    Raises:
        ArgumentError: `start` is negative; ``update`` was called without the parameters.

    >>> opt = ff.optim.chain(ff.optim.sgd(1.0), ff.optim.polyak_average())
    >>> params = np.array([0.0])
    >>> state = opt.init(params)
    >>> for gradient in (-1.0, -2.0):
    ...     updates, state = opt.update(np.array([gradient]), state, params)
    ...     params = ff.optim.apply_updates(params, updates)
    >>> params, ff.optim.averaged_params(state)  # the mean of 1 and 3
    (array([3.]), array([2.]))
    """
    if start < 0:
        raise ArgumentError(f"polyak_average: start must not be negative, got {start!r}")
    return _averaging("polyak_average", lambda n: 1 / np.maximum(n - start, 1))


def averaged_params(state: Any) -> Any:
    """The average that `params_ema` or `polyak_average` keeps, wherever it is in an optimiser's state.

    Args:
        state: the state of an optimiser with one of them in it.

    Raises:
        TreeError: there is none, or more than one.

    >>> opt = ff.optim.chain(ff.optim.sgd(1.0), ff.optim.params_ema(0.9))
    >>> params = np.array([1.0])
    >>> updates, state = opt.update(np.array([0.5]), opt.init(params), params)
    >>> ff.optim.averaged_params(state)
    array([0.5])
    """

    def is_average(node: Any) -> bool:
        return type(node) is AveragedParamsState

    found = [leaf for leaf in tree.leaves(state, is_leaf=is_average) if is_average(leaf)]
    if len(found) != 1:
        raise TreeError(
            f"averaged_params: expected a state with one average of parameters, found {len(found)}; "
            "make the optimiser as chain(adam(1e-3), params_ema(0.999))"
        )
    return found[0].average


class AddNoiseState(NamedTuple):
    """``count``: updates made; ``rng_key``: what the next noise is drawn with."""

    count: Any
    rng_key: Any


def normal_like(key: Any, leaf: Any) -> Any:
    """Standard normal numbers in the shape and dtype of an array; the parts of complex ones share the variance."""
    dtype, shape = dtype_of(leaf), np.shape(leaf)
    if dtype.kind == "c":
        parts = random.normal(key, (2, *shape), np.zeros(0, dtype).real.dtype)
        return (parts[0] + 1j * parts[1]) * 0.5**0.5
    drawn = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float32)
    return random.normal(key, shape, drawn).astype(dtype)


def add_noise(eta: float, gamma: float, key: Any) -> GradientTransformation:
    """Adds normal noise to the updates, of variance ``eta / n**gamma`` in the n-th.

    Neelakantan et al., 2015, "Adding gradient noise improves learning for very deep networks".

    Args:
        eta: the variance in the first step.
        gamma: the exponent of its decay.
        key: of `fnflare.random`, or a seed.

    >>> opt = ff.optim.add_noise(0.01, 0.55, key=0)
    >>> noise, _ = opt.update(np.zeros(10_000), opt.init(None))
    >>> round(float(np.std(noise)), 2)
    0.1
    """
    key = random.key(key) if isinstance(key, int) else key

    def init(params: Any) -> AddNoiseState:
        return AddNoiseState(zero_count(), np.array(key))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, AddNoiseState]:
        count, rng_key = state_of(AddNoiseState, state, "add_noise")
        flat, treedef = tree.flatten(updates)
        keys = random.split(rng_key, len(flat) + 1)
        size = (eta / (weak(count) + 1) ** gamma) ** 0.5
        noisy = [g + weak(size, dtype_of(g)) * normal_like(keys[i + 1], g) for i, g in enumerate(flat)]
        return tree.unflatten(treedef, noisy), AddNoiseState(safe_increment(count), keys[0])

    return GradientTransformation(init, update)
