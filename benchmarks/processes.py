"""Starts fresh Pythons, so that no measurement sees what another has left: with so many threads, on so many cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any


def environment(threads: int) -> dict[str, str]:
    """The variables that give the numerical libraries so many threads."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def pin(threads: int) -> Callable[[], None] | None:
    """What a new process does to stay on the first so many cores; None where the system has no such thing.

    JAX and NumPy's loops take what the scheduler gives, so this gives the same cores to everyone.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))[:threads]
    return lambda: os.sched_setaffinity(0, cores)


def fresh(module: str, *arguments: str, threads: int | None = None, variables: Mapping[str, str] | None = None) -> Any:
    """Run ``python -m module arguments`` and decode the last line that it prints, which is JSON.

    Args:
        module: the module to run as a script.
        *arguments: its arguments.
        threads: the threads of the numerical libraries, and the cores; their own choice when None.
        variables: of the environment, besides.

    Raises:
        subprocess.CalledProcessError: it failed; its standard error has been shown.
    """
    run = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=os.environ | (environment(threads) if threads else {}) | dict(variables or {}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=pin(threads) if threads else None,
    )
    return json.loads(run.stdout.splitlines()[-1])
