"""What every test runs under: Hypothesis' profiles, and a guard against state that leaks."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from fnflare import config
from fnflare.core import plain_kernel, primitives, trace_depth

# No deadlines: a test must not fail because the machine was busy.
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("dev", max_examples=20, deadline=None)
# For the whole suite in several threads at once, where each of them runs its own examples.
settings.register_profile(
    "threads",
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough",
    max_examples=2000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def _global_state() -> dict[str, Any]:
    """Everything global that a function of the library might touch and has to put back."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 (nobody may draw from it)
    return {
        "the number of open traces": trace_depth(),
        "the number of observed primitives": sum(plain_kernel(p) is not p.kernel for p in primitives().values()),
        "the number of threads": config.num_threads(),
        "whether MKL is used": config.use_mkl(),
        "NumPy's error handling (np.errstate)": np.geterr(),
        "NumPy's print options": np.get_printoptions(),
        "NumPy's global random state": zlib.crc32(legacy["state"]["key"].tobytes(), legacy["state"]["pos"]),
        "the working directory": Path.cwd(),
    }


@pytest.fixture(autouse=True)
def _nothing_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves a trace open, a thread count or any other global setting changed."""
    before = _global_state()
    yield
    after = _global_state()
    if int(request.config.getoption("parallel_threads", 1)) > 1:
        # Hypothesis seeds it and puts it back, which threads that do so at once do in any order.
        del before["NumPy's global random state"]
    leaked = [f"{name}: was {was!r}, is {after[name]!r}" for name, was in before.items() if was != after[name]]
    assert not leaked, "the test leaked global state\n" + "\n".join(leaked)


@pytest.fixture
def data_dir() -> Path:
    """The folder with the real data sets, from FNFLARE_DATA; the test is skipped where there is none."""
    where = os.environ.get("FNFLARE_DATA")
    if not where or not Path(where).is_dir():
        pytest.skip("FNFLARE_DATA does not name a folder with data sets")
    return Path(where)
