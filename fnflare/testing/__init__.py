"""Property testing: laws that functions and layers keep, and strategies of what to try them on.

A law is a function, ``check_...``, that returns nothing or fails with an `AssertionError`. The message names the law,
the leaf and both numbers, and ends in the smallest example that was found: code to paste, with its imports and its
arrays as literals, that fails in the same way.

>>> import numpy as np
>>> ff.testing.check_grads(lambda w, x: np.sum(np.tanh(x @ w)), (np.ones(3), np.eye(3)), order=2)
>>> from fnflare import nn
>>> ff.testing.check_layer(nn.serial(nn.Dense(3), nn.Tanh), (-1, 2))

Where they are not given, the step of finite differences and the tolerances follow from the coarsest floating dtype
among the arguments and answers:

========  =======  ======================  ================================
dtype     ``eps``  ``atol`` and ``rtol``,  ``atol`` and ``rtol``, one mode
                   finite differences      or executor against the other
========  =======  ======================  ================================
float16   1e-1     1e-1                    1e-2
float32   5e-3     2e-3                    1e-4
float64   6e-6     1e-6                    1e-10
========  =======  ======================  ================================

The strategies are Hypothesis' (``pip install 'fnflare[test]'``), which is imported when the first of them is asked
for; the checks do without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fnflare.testing.batching import check_vmap
from fnflare.testing.compiling import check_jit
from fnflare.testing.derivatives import check_grads, check_jvp, check_jvp_vjp, check_vjp
from fnflare.testing.directions import numerical_jvp, random_like
from fnflare.testing.failures import LawError
from fnflare.testing.layers import check_layer
from fnflare.testing.models import check_model

if TYPE_CHECKING:
    from fnflare.testing.random_programs import RandomProgram, programs
    from fnflare.testing.strategies import arrays, batches, keys, params_for, pytrees, shapes

#: The strategies, and the modules they are in, which import Hypothesis.
_STRATEGIES = {
    **dict.fromkeys(("arrays", "batches", "keys", "params_for", "pytrees", "shapes"), "fnflare.testing.strategies"),
    **dict.fromkeys(("RandomProgram", "programs"), "fnflare.testing.random_programs"),
}


def __getattr__(name: str) -> Any:
    if name not in _STRATEGIES:
        raise AttributeError(f"module 'fnflare.testing' has no attribute {name!r}")
    try:
        return getattr(import_module(_STRATEGIES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        raise ImportError(
            f"fnflare.testing.{name} is a strategy of Hypothesis, which comes with pip install 'fnflare[test]'"
        ) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *_STRATEGIES})


__all__ = [
    "LawError",
    "RandomProgram",
    "arrays",
    "batches",
    "check_grads",
    "check_jit",
    "check_jvp",
    "check_jvp_vjp",
    "check_layer",
    "check_model",
    "check_vjp",
    "check_vmap",
    "keys",
    "numerical_jvp",
    "params_for",
    "programs",
    "pytrees",
    "random_like",
    "shapes",
]
