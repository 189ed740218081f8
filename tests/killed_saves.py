"""A program that kills processes while they save: ``python killed_saves.py FILE KILLS SEED``.

Each process saves one state after the other to the file, and tells by a pipe which are complete. It is killed at a
random moment, and the file is loaded: it has to hold one whole state, the last complete one or the one after it. Forks
of this process start in a millisecond; it has loaded nothing that runs threads.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from fnflare.train import Checkpointer

LIKE = {"step": 0, "params": [np.zeros((100, 100), np.float32), np.zeros(3)], "opt_state": (np.zeros(2_000),)}
LONGEST = 0.04  # seconds until a kill: some saves


def state_of(step: int) -> Any:
    """A state all of whose numbers are those of one step."""
    params = [np.full((100, 100), step, np.float32), np.full(3, float(step))]
    return {"step": step, "params": params, "opt_state": (np.full(2_000, float(step)),)}


def save_for_ever(checkpointer: Checkpointer, step: int, pipe: int) -> None:
    """Saves state after state, from the one after `step`; after each its number goes into the pipe."""
    while True:
        step += 1
        checkpointer.save(state_of(step))
        os.write(pipe, struct.pack("q", step))


def killed_after(checkpointer: Checkpointer, step: int, delay: float) -> int:
    """Lets a process save for a while and kills it; the number of its last complete state."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        try:
            save_for_ever(checkpointer, step, writer)
        finally:
            os._exit(1)
    os.close(writer)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, "the process ended by itself: saving failed"
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    numbers = [n for (n,) in struct.iter_unpack("q", told[: len(told) // 8 * 8])]
    return numbers[-1] if numbers else step


def main(path: str, kills: int, seed: int) -> None:
    """Kills so many processes and checks the file after each."""
    moments = random.Random(seed)
    checkpointer = Checkpointer(Path(path))
    step = amid = 0
    checkpointer.save(state_of(step))
    for _ in range(kills):
        before = set(Path(path).parent.iterdir())
        complete = killed_after(checkpointer, step, moments.uniform(0, LONGEST))
        loaded = checkpointer.restore(like=LIKE)
        step = loaded["step"]
        assert step in (complete, complete + 1), f"complete was {complete}, the file holds {step}"
        for leaf in (*loaded["params"], *loaded["opt_state"]):
            assert np.all(leaf == step), "the file holds a mixture of two states"
        amid += len(set(Path(path).parent.iterdir()) - before)
    checkpointer.save(state_of(step))
    assert list(Path(path).parent.iterdir()) == [Path(path)], "what was left by killed processes is still there"
    print(step, amid)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
