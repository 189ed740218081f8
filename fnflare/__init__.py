"""fnflare: functional neural nets for dynamic models on CPUs, on NumPy and MKL.

A model is a pure function of an explicit parameter pytree. Write NumPy; `grad` records a tape and
returns gradients that mirror the parameters; layers are ``(init, apply)`` pairs.

>>> import numpy as np
>>> import fnflare as ff
>>> loss = lambda params, x, y: np.mean((x @ params["w"] + params["b"] - y) ** 2)
>>> params = {"w": np.zeros(2), "b": 0.0}
>>> ff.grad(loss)(params, np.eye(2), np.array([1.0, 2.0]))
{'b': np.float64(-3.0), 'w': array([-1., -2.])}
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fnflare import config, errors, io, ops, random, tree
from fnflare.core import ShapeDtypeStruct
from fnflare.io import load, save
from fnflare.ops import at, safe_log, safe_norm, safe_sqrt, safe_where
from fnflare.program import Program
from fnflare.transforms import (
    RetracingWarning,
    checkpoint,
    cond,
    custom_jvp,
    custom_vjp,
    debug_nans,
    disable_jit,
    eval_shape,
    float0,
    fori_loop,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jit,
    jvp,
    linearize,
    make_program,
    map,
    profile,
    pure_callback,
    scan,
    stop_gradient,
    switch,
    value_and_grad,
    vjp,
    vmap,
    while_loop,
)
from fnflare.transforms import policies as checkpoint_policies

if TYPE_CHECKING:
    from fnflare import data, export, nn, optim, testing, train

__version__ = "0.1.0"

# Rooms that differentiating does not need; they are imported when they are first asked for.
_LATER = ("data", "export", "nn", "optim", "testing", "train")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return import_module(f"fnflare.{name}")
    raise AttributeError(f"module 'fnflare' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})


__all__ = [
    "Program",
    "RetracingWarning",
    "ShapeDtypeStruct",
    "at",
    "checkpoint",
    "checkpoint_policies",
    "cond",
    "config",
    "custom_jvp",
    "custom_vjp",
    "data",
    "debug_nans",
    "disable_jit",
    "errors",
    "eval_shape",
    "export",
    "float0",
    "fori_loop",
    "grad",
    "hessian",
    "io",
    "jacfwd",
    "jacrev",
    "jit",
    "jvp",
    "linearize",
    "load",
    "make_program",
    "map",
    "nn",
    "ops",
    "optim",
    "profile",
    "pure_callback",
    "random",
    "safe_log",
    "safe_norm",
    "safe_sqrt",
    "safe_where",
    "save",
    "scan",
    "stop_gradient",
    "switch",
    "testing",
    "train",
    "tree",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]
