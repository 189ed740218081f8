"""Whenever a process that saves is killed, the last complete checkpoint loads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize(("suffix", "kills"), [(".npz", 100), (".safetensors", 20)])
def test_a_hundred_kills_while_saving(tmp_path: Path, suffix: str, kills: int) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    program = Path(__file__).with_name("killed_saves.py")
    command = [sys.executable, str(program), str(tmp_path / f"run{suffix}"), str(kills), "0"]
    done = subprocess.run(
        command, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    saved, amid = map(int, done.stdout.split())
    # Otherwise the kills came too early or too late to tell anything.
    assert saved > 0
    assert amid > 0
