"""Hyperparameters as part of the state, where they can be read, logged and changed while a run goes on.

A function that makes an optimiser goes in; one that makes the same optimiser comes out, whose numbers are leaves of its
state. In a program they are inputs, so that a new learning rate needs no new program.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    safe_increment,
    state_of,
    with_extra_args_support,
    zero_count,
)

__all__ = ["InjectHyperparamsState", "inject_hyperparams", "set_hyperparams"]


class InjectHyperparamsState(NamedTuple):
    """The state of an optimiser made with `inject_hyperparams`.

    Attributes:
        count: how many updates were made.
        hyperparams: the numbers of the last update by name, scalars of one dtype, float64 unless another was asked for.
        inner_state: the inner state.
    """

    count: Any
    hyperparams: dict[str, Any]
    inner_state: Any


def inject_hyperparams(
    inner_factory: Callable[..., GradientTransformation],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: Any = None,
) -> Callable[..., GradientTransformationExtraArgs]:
    """Make an optimiser's numbers part of its state.

    Args:
        inner_factory: a function that makes an optimiser, such as `adam`.
        static_args: names of arguments that stay as they are. Flags, None, and what the function's annotations call a
            mask, a function or an integer stay so anyway; so do numbers that are not given and have no default.
        hyperparam_dtype: the dtype of the numbers in the state; None for float64. It does not widen what they meet.

    Returns:
        A function with the arguments of `inner_factory`, each number of which may also be a schedule. Numbers are
        changed by `set_hyperparams` between two steps; those of a schedule are set anew by every step.

    Raises:
        ArgumentError: `static_args` names what is no argument.

    >>> opt = ff.optim.inject_hyperparams(ff.optim.adam)(1e-3, b1=ff.optim.linear_schedule(0.5, 0.9, 10))
    >>> params = {"w": np.ones(1)}
    >>> state = opt.init(params)
    >>> {name: float(value) for name, value in state.hyperparams.items() if name in ("learning_rate", "b1")}
    {'b1': 0.5, 'learning_rate': 0.001}
    >>> updates, state = opt.update(params, ff.optim.set_hyperparams(state, learning_rate=0.5), params)
    >>> updates["w"].round(4)
    array([-0.5])
    """
    signature = inspect.signature(inner_factory)
    static = {static_args} if isinstance(static_args, str) else set(static_args)
    unknown = sorted(static - set(signature.parameters))
    if unknown:
        raise ArgumentError(
            f"inject_hyperparams: static_args names {unknown}, arguments are {list(signature.parameters)}"
        )

    @functools.wraps(inner_factory)
    def factory(*args: Any, **kwargs: Any) -> GradientTransformationExtraArgs:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {
            name: value
            for name, value in bound.arguments.items()
            if name not in static and _is_number(value, signature.parameters[name].annotation)
        }
        schedules = {name: value for name, value in given.items() if callable(value)}

        def numbers(count: Any, old: dict[str, Any]) -> dict[str, Any]:
            new = {name: f(count) for name, f in schedules.items()}
            return {name: _scalar(new[name] if name in new else old[name], hyperparam_dtype) for name in sorted(given)}

        def make(hyperparams: dict[str, Any]) -> GradientTransformationExtraArgs:
            call = inspect.BoundArguments(signature, bound.arguments | hyperparams)
            return with_extra_args_support(inner_factory(*call.args, **call.kwargs))

        def init(params: Any) -> InjectHyperparamsState:
            hyperparams = numbers(zero_count(), given)
            return InjectHyperparamsState(zero_count(), hyperparams, make(hyperparams).init(params))

        def update(
            updates: Any, state: Any, params: Any = None, **extra_args: Any
        ) -> tuple[Any, InjectHyperparamsState]:
            count, old, inner_state = state_of(InjectHyperparamsState, state, "inject_hyperparams")
            hyperparams = numbers(count, old)
            updates, inner_state = make(hyperparams).update(updates, inner_state, params, **extra_args)
            return updates, InjectHyperparamsState(safe_increment(count), hyperparams, inner_state)

        return GradientTransformationExtraArgs(init, update)

    return factory


def _is_number(value: Any, annotation: Any) -> bool:
    """Whether an argument is a number that may change, or a schedule of one."""
    if isinstance(value, (bool, np.bool_)):
        return False
    if isinstance(value, (int, float, np.number, np.ndarray)) or callable(value):
        name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
        return annotation is inspect.Parameter.empty or "float" in name.lower() or "Scalar" in name
    return False


def _scalar(value: Any, dtype: Any) -> Any:
    dtype = np.float64 if dtype is None else dtype
    return value.astype(dtype) if hasattr(value, "astype") else np.asarray(value, dtype)


def set_hyperparams(state: Any, **values: float) -> Any:
    """The state of an optimiser with other hyperparameters, for every `inject_hyperparams` in it that has them.

    Args:
        state: the state, of a chain for example.
        **values: numbers by the name of the hyperparameter. One that follows a schedule is set by that again.

    Raises:
        ArgumentError: nothing in the state has a hyperparameter of that name.

    >>> opt = ff.optim.inject_hyperparams(ff.optim.sgd)(0.1)
    >>> state = ff.optim.set_hyperparams(opt.init(np.zeros(1)), learning_rate=0.5)
    >>> opt.update(np.ones(1), state)[0]
    array([-0.5])
    """
    missing = set(values)

    def replaced(node: Any) -> Any:
        if type(node) is not InjectHyperparamsState:
            return node
        own = {
            name: _scalar(value, node.hyperparams[name].dtype)
            for name, value in values.items()
            if name in node.hyperparams
        }
        missing.difference_update(own)
        inner = tree.map(replaced, node.inner_state, is_leaf=_is_injected)
        return node._replace(hyperparams={**node.hyperparams, **own}, inner_state=inner)

    new = tree.map(replaced, state, is_leaf=_is_injected)
    if missing:
        raise ArgumentError(
            f"set_hyperparams: nothing in the state has a hyperparameter {min(missing)!r}; make the optimiser "
            "with inject_hyperparams(adam)(learning_rate=1e-3)"
        )
    return new


def _is_injected(node: Any) -> bool:
    return type(node) is InjectHyperparamsState
