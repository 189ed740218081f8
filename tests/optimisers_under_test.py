"""The optimisers that the tests go through, and a loop to run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fnflare import optim

Make = Callable[[], optim.GradientTransformation]

OPTIMISERS: dict[str, Make] = {
    "sgd": lambda: optim.sgd(1e-2),
    "momentum": lambda: optim.sgd(1e-3, momentum=0.9),
    "nesterov": lambda: optim.sgd(1e-3, momentum=0.9, nesterov=True),
    "adadelta": lambda: optim.adadelta(1.0, rho=0.9, eps=1e-3),
    "adagrad": lambda: optim.adagrad(0.5),
    "rmsprop": lambda: optim.rmsprop(3e-3),
    "rmsprop_eps_outside": lambda: optim.rmsprop(3e-3, eps=1e-3, eps_in_sqrt=False),
    "rmsprop_momentum": lambda: optim.rmsprop(1e-3, decay=0.95, momentum=0.5, nesterov=True),
    "rmsprop_centered": lambda: optim.rmsprop(1e-3, decay=0.95, eps=1e-3, centered=True),
    "adam": lambda: optim.adam(1e-2),
    "nadam": lambda: optim.adam(1e-2, nesterov=True),
    "adam_eps_root": lambda: optim.adam(1e-2, eps_root=1e-6),
    "adamw": lambda: optim.adamw(1e-2, weight_decay=1e-4),
    "adamax": lambda: optim.adamax(1e-2),
    "lion": lambda: optim.lion(optim.linear_schedule(3e-3, 0.0, 4000), weight_decay=0.0),
    "adam_schedule": lambda: optim.adam(optim.warmup_cosine_decay_schedule(0.0, 3e-2, 100, 4000)),
}


def steps(
    opt: optim.GradientTransformation, params: Any, grads_of: Callable[[Any], Any], n: int
) -> Iterator[tuple[Any, Any]]:
    """Parameters and state after each of n steps."""
    state = opt.init(params)
    for _ in range(n):
        updates, state = opt.update(grads_of(params), state, params)
        params = optim.apply_updates(params, updates)
        yield params, state


def run(opt: optim.GradientTransformation, params: Any, grads_of: Callable[[Any], Any], n: int) -> tuple[Any, Any]:
    """Parameters and state after n steps."""
    *_, last = steps(opt, params, grads_of, n)
    return last
