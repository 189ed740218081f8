"""One contestant in a process of its own: it sets its work up, then runs a turn whenever it is asked to.

``python -m benchmarks.worker WORKLOAD LIBRARY MODE`` writes one line of JSON when it is ready, and one for
each line that it reads, which is the number of seconds that the turn should last.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
import traceback
from typing import Any, TextIO

from benchmarks.contestants import MODULES, Contestant
from benchmarks.sizes import Step


def turn(step: Step, seconds: float) -> dict[str, Any]:
    """Run units of work for about so many seconds.

    The first is not counted: the others' turns have left the caches cold, which is not what a user's loop sees.
    """
    step()
    times: list[float] = []
    start = time.perf_counter()
    while not times or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        step()
        times.append(time.perf_counter() - before)
    return {"seconds": statistics.median(times), "units": len(times)}


def _prepare(workload: str, contestant: Contestant) -> tuple[Step, dict[str, float]]:
    start = time.perf_counter()
    importlib.import_module(MODULES[contestant.library])
    imported = time.perf_counter()
    if contestant.library == "torch":
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    step = contestant.make(workload)
    step()
    return step, {"import": imported - start, "first_call": time.perf_counter() - imported}


def _serve(answers: TextIO, workload: str, contestant: Contestant) -> None:
    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        step, ready = _prepare(workload, contestant)
        answer(ready)
        for line in sys.stdin:
            answer(turn(step, float(line)))
    except ModuleNotFoundError as error:
        answer({"error": f"not installed: {error.name}"})
    except Exception as error:
        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"})


if __name__ == "__main__":
    # Libraries print what they like to the standard output; the answers have it to themselves.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        _serve(answers, sys.argv[1], Contestant(sys.argv[2], sys.argv[3]))
