"""Runs a measurement in a fresh Python, so that none sees what another has left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def fresh(module: str, *arguments: str, threads: int | None = None) -> Any:
    """Run ``python -m module arguments`` and decode the last line that it prints, which is JSON.

    Args:
        module: the module to run as a script.
        *arguments: its arguments.
        threads: the threads of the numerical libraries; their own choice when None.

    Raises:
        subprocess.CalledProcessError: it failed; its standard error has been shown.
    """
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | (dict.fromkeys(variables, str(threads)) if threads else {})
    command = [sys.executable, "-m", module, *arguments]
    run = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])
