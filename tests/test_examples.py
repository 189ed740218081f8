"""Every example runs as a user types it, in the little size that it takes with --smoke."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("tqdm") is None:
        pytest.skip("the examples show their progress with the extra fnflare[train]")
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    # Run elsewhere: an example writes what it saves below the folder that it is called in.
    run = subprocess.run(
        [sys.executable, "-W", "error", str(path), "--smoke"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip(), "it prints nothing"


def test_the_examples_of_the_readme_exist() -> None:
    assert {"sentiment", "mnist", "char_lm", "regression"} <= {path.stem for path in EXAMPLES}
