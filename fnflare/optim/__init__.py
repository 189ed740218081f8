"""Optimisers: pairs of pure functions on pytrees, with optax's names.

>>> import numpy as np
>>> from fnflare import optim
>>> opt = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(1e-2))
>>> params = {"w": np.float32([3.0, -2.0])}
>>> state = opt.init(params)
>>> for _ in range(1000):
...     grads = {"w": 2 * params["w"]}
...     updates, state = opt.update(grads, state, params)
...     params = optim.apply_updates(params, updates)
>>> bool(optim.global_norm(params) < 1e-3)
True
"""

from fnflare.optim.adaptive import (
    ScaleByAdaDeltaState,
    ScaleByAdamState,
    ScaleByLionState,
    ScaleByRmsState,
    ScaleByRssState,
    ScaleByRStdDevState,
    TraceState,
    scale_by_adadelta,
    scale_by_adam,
    scale_by_adamax,
    scale_by_lion,
    scale_by_rms,
    scale_by_rss,
    scale_by_stddev,
    trace,
)
from fnflare.optim.algorithms import adadelta, adagrad, adam, adamax, adamw, lion, rmsprop, sgd
from fnflare.optim.base import (
    EmptyState,
    GradientTransformation,
    ScalarOrSchedule,
    Schedule,
    apply_updates,
    global_norm,
    identity,
    safe_increment,
    set_to_zero,
)
from fnflare.optim.combine import (
    MaskedState,
    MultiTransformState,
    chain,
    labels_by_path,
    mask_by_path,
    masked,
    multi_transform,
)
from fnflare.optim.schedules import (
    constant_schedule,
    cosine_decay_schedule,
    cosine_onecycle_schedule,
    exponential_decay,
    join_schedules,
    linear_onecycle_schedule,
    linear_schedule,
    piecewise_constant_schedule,
    piecewise_interpolate_schedule,
    polynomial_schedule,
    warmup_constant_schedule,
    warmup_cosine_decay_schedule,
    warmup_exponential_decay_schedule,
)
from fnflare.optim.transforms import (
    ScaleByScheduleState,
    add_decayed_weights,
    clip,
    clip_by_global_norm,
    scale,
    scale_by_learning_rate,
    scale_by_schedule,
)

__all__ = [
    "EmptyState",
    "GradientTransformation",
    "MaskedState",
    "MultiTransformState",
    "ScalarOrSchedule",
    "ScaleByAdaDeltaState",
    "ScaleByAdamState",
    "ScaleByLionState",
    "ScaleByRStdDevState",
    "ScaleByRmsState",
    "ScaleByRssState",
    "ScaleByScheduleState",
    "Schedule",
    "TraceState",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "add_decayed_weights",
    "apply_updates",
    "chain",
    "clip",
    "clip_by_global_norm",
    "constant_schedule",
    "cosine_decay_schedule",
    "cosine_onecycle_schedule",
    "exponential_decay",
    "global_norm",
    "identity",
    "join_schedules",
    "labels_by_path",
    "linear_onecycle_schedule",
    "linear_schedule",
    "lion",
    "mask_by_path",
    "masked",
    "multi_transform",
    "piecewise_constant_schedule",
    "piecewise_interpolate_schedule",
    "polynomial_schedule",
    "rmsprop",
    "safe_increment",
    "scale",
    "scale_by_adadelta",
    "scale_by_adam",
    "scale_by_adamax",
    "scale_by_learning_rate",
    "scale_by_lion",
    "scale_by_rms",
    "scale_by_rss",
    "scale_by_schedule",
    "scale_by_stddev",
    "set_to_zero",
    "sgd",
    "trace",
    "warmup_constant_schedule",
    "warmup_cosine_decay_schedule",
    "warmup_exponential_decay_schedule",
]
