"""Every listed call of a NumPy or SciPy function on tracers: NumPy's values, shapes and dtypes, right derivatives of
both modes and orders, batches, and the same from programs on both executors."""

from __future__ import annotations

import numpy as np
import pytest
from laws import agree, in_dtype, same_as_numpy
from surface_cases import Case, all_cases

import fnflare as ff
from fnflare import config

CASES = all_cases()


def _name(case: Case, number: int) -> str:
    shapes = ",".join(str(np.shape(a)).replace(" ", "") for a in ff.tree.leaves(case.args))
    return f"{number}-{case.function}-{shapes}"


NAMED = [pytest.param(case, id=_name(case, i)) for i, case in enumerate(CASES)]


@pytest.mark.parametrize("case", NAMED)
def test_like_numpy(case: Case) -> None:
    """Values, dtypes and derivatives are NumPy's and right; float32 stays float32; vmap gives the stack."""
    same_as_numpy(case.call, *case.args, order=case.order, foretold=case.jit, vmap=case.vmap)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("case", [p for p in NAMED if p.values[0].jit])
def test_under_jit(case: Case, native: bool) -> None:
    """A program of the call gives what the call gives, on either executor."""
    for dtype in (np.float64, np.float32):
        args = in_dtype(case.args, dtype)
        with config.override(use_native=native):
            agree(ff.jit(case.call)(*args), case.call(*args))
