"""The optimisers that the tests go through, and a loop to run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

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
    "amsgrad": lambda: optim.amsgrad(1e-2),
    "radam": lambda: optim.radam(1e-2),
    "nadamw": lambda: optim.nadamw(1e-2),
    "adamaxw": lambda: optim.adamaxw(1e-2),
    "adabelief": lambda: optim.adabelief(1e-2, eps=1e-8),
    "yogi": lambda: optim.yogi(1e-2),
    "lamb": lambda: optim.lamb(optim.linear_schedule(1e-1, 0.0, 4000)),
    "lars": lambda: optim.lars(optim.linear_schedule(2.0, 0.0, 4000), trust_coefficient=1e-2, eps=1e-6),
    "adafactor": lambda: optim.adafactor(optim.linear_schedule(5e-2, 0.0, 4000), min_dim_size_to_factor=2),
    "adafactor_full": lambda: optim.adafactor(
        optim.linear_schedule(1e-2, 0.0, 4000), momentum=0.9, factored=False, multiply_by_parameter_scale=False
    ),
    "rprop": lambda: optim.rprop(1e-2),
    "sign_sgd": lambda: optim.sign_sgd(optim.linear_schedule(3e-3, 0.0, 4000)),
    "noisy_sgd": lambda: optim.noisy_sgd(1e-2, eta=1e-4),
    "centralized": lambda: optim.chain(optim.centralize(-1), optim.zero_nans(), optim.sgd(1e-2)),
    "averaged": lambda: optim.chain(optim.adam(1e-2), optim.params_ema(0.99), optim.polyak_average()),
    "ema": lambda: optim.chain(optim.ema(0.9), optim.scale(-1e-2)),
    "apply_if_finite": lambda: optim.apply_if_finite(optim.adam(1e-2), 5),
    "multi_steps": lambda: optim.multi_steps(optim.adam(2e-2), 2),
    "multi_steps_skip": lambda: optim.multi_steps(
        optim.sgd(3e-2), lambda count: 1 + (count > 100), should_skip_update_fn=optim.skip_not_finite
    ),
    "lookahead": lambda: optim.lookahead(optim.adam(2e-2), 5, 0.5),
    "lookahead_reset": lambda: optim.lookahead(optim.sgd(1e-2, momentum=0.5), 3, 0.8, reset_state=True),
    "injected": lambda: optim.inject_hyperparams(optim.adam)(optim.exponential_decay(2e-2, 1000, 0.9), eps_root=1e-12),
    "adan": lambda: optim.adan(1e-2),
    "adopt": lambda: optim.adopt(1e-2),
    "ademamix": lambda: optim.ademamix(optim.linear_schedule(1e-2, 0.0, 4000), b3=0.99, alpha=1.0),
    "novograd": lambda: optim.novograd(optim.linear_schedule(1e-2, 0.0, 4000)),
    "sm3": lambda: optim.sm3(0.1),
    "optimistic": lambda: optim.optimistic_gradient_descent(1e-2),
    "schedule_free": lambda: optim.schedule_free_adamw(1e-2, warmup_steps=10),
    "prodigy": lambda: optim.prodigy(),
    "dadapt_adamw": lambda: optim.dadapt_adamw(optim.linear_schedule(1.0, 0.0, 4000)),
    "cocob": lambda: optim.cocob(),
    "dog": lambda: optim.dog(init_step=("distance", 1e-2)),
    "dowg": lambda: optim.dowg(init_estim_sq_dist=1e-4),
    "muon": lambda: optim.muon(optim.linear_schedule(1e-2, 0.0, 4000)),
    "rules": lambda: optim.named_chain(
        ("clip", optim.adaptive_grad_clip(1.0, eps=1.0)),
        ("norms", optim.monitor({"norm": optim.global_norm})),
        ("flat", optim.flatten(optim.conditionally_transform(optim.scale(0.5), lambda step: step % 2 == 0))),
        ("adam", optim.adam(1e-2, mu_dtype=np.float64)),
    ),
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
