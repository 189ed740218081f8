"""What a NumPy or SciPy function is held to: one call of it, on arrays, whose value and derivatives are checked.

The families of functions list their calls in `tests/surface/cases_*.py`, each with a `CASES`; `test_cases.py` beside
them holds every one to the same laws, and the table of what is supported is made by running them.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """One call of a function.

    Args:
        function: Its name below the module, as users write it: ``"median"``, ``"linalg.solve"``, ``"fft.rfft"``,
            ``"scipy.special.erf"``, ``"ndarray.std"`` for a method.
        call: The call, a function of `args`.
        args: Arrays. Those of float64 (complex128) are differentiated, batched and also run as float32 (complex64);
            others stay as they are.
        order: How many orders of derivatives are checked against finite differences; 0 where there are none.
        jit: Whether it can be traced by jit (the shape of the answer does not depend on values).
        vmap: Whether it batches.
    """

    function: str
    call: Callable[..., Any]
    args: tuple[Any, ...]
    order: int = 2
    jit: bool = True
    vmap: bool = True


def all_cases() -> list[Case]:
    """The cases of all families, in the order of their files."""
    files = sorted((Path(__file__).parent / "surface").glob("cases_*.py"))
    return [case for f in files for case in importlib.import_module(f.stem).CASES]


def known(case: Case) -> bool:
    """Whether this release of NumPy knows the function, and all arguments, of a call that older ones do not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            case.call(*case.args)
        except (AttributeError, TypeError, ValueError, FutureWarning):
            return False
    return True


def quietly(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of NumPy that says of itself that it is going away, and may do so here."""

    def call(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return function(*args, **kwargs)

    return call


#: Whether this is the oldest NumPy that is supported, some of whose answers later releases have mended.
OLDEST = np.__version__.startswith("2.0.")


def normal(*shape: int, seed: int = 0) -> Any:
    """Standard normal numbers, the same for the same shape and seed."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def between(low: float, high: float, *shape: int, seed: int = 0) -> Any:
    """Numbers between two bounds."""
    return np.random.default_rng([seed, *shape]).uniform(low, high, shape)


def apart(*shape: int, seed: int = 0) -> Any:
    """Numbers of which no two are close nor any close to zero: sorting and comparing them is smooth nearby."""
    count = int(np.prod(shape))
    return (np.random.default_rng([seed, *shape]).permutation(count).reshape(shape) - count / 2 + 0.3) * 0.37
