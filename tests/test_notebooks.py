"""Every notebook runs from its first cell to its last, and those that compute as they are told give the same numbers
jitted and not."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

nbclient = pytest.importorskip("nbclient", reason="notebooks run with the extra fnflare[notebooks]")
nbformat = pytest.importorskip("nbformat", reason="notebooks run with the extra fnflare[notebooks]")
pytest.importorskip("ipykernel", reason="notebooks run with the extra fnflare[notebooks]")
pytest.importorskip("matplotlib", reason="the notebooks draw with the extra fnflare[notebooks]")

# jupyter_client reports its own pending changes as warnings, and the event loop of a stopped kernel is closed late.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::ResourceWarning")

NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


@pytest.fixture(scope="module")
def quiet_kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Keeps the kernel's files out of the home folder, and the debugger's warning out of the output."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        # The kernel is another process: it must find what this one finds, be it installed or a checkout.
        root = str(FOLDER.parent)
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])))
        yield


@functools.cache
def run(path: Path, jit: bool) -> Any:
    """A notebook with all its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FNFLARE_DISABLE_JIT", "0" if jit else "1")
        nbclient.NotebookClient(
            notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
        ).execute()
    return notebook


def printed(cell: Any) -> str:
    """What a cell has printed."""
    return "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream")


@pytest.mark.usefixtures("quiet_kernel")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path) -> None:
    outputs = [output for cell in run(path, True).cells for output in cell.get("outputs", [])]
    errors = [output for output in outputs if output.output_type == "error"]
    assert not errors, errors
    assert any("image/png" in output.get("data", {}) for output in outputs), "it draws nothing"


@pytest.mark.usefixtures("quiet_kernel")
@pytest.mark.parametrize("name", ["01-grad", "02-layers"])
def test_jitted_and_unjitted_give_the_same_numbers(name: str) -> None:
    jitted, plain = (run(FOLDER / f"{name}.ipynb", jit) for jit in (True, False))
    for cell, other in zip(jitted.cells, plain.cells, strict=True):
        if "make_program" in cell.source:
            continue  # a loop is a program's equation, or is written out
        text, wanted = printed(cell), printed(other)
        assert NUMBER.sub("#", text) == NUMBER.sub("#", wanted)
        numbers, expected = ([float(x) for x in NUMBER.findall(t)] for t in (text, wanted))
        # A thousand steps of training in single precision take the last bits of native code's sums and functions,
        # which are not those of NumPy's, to the second digit of a loss.
        rtol = 0.1 if "fit(" in cell.source else 1e-3
        np.testing.assert_allclose(numbers, expected, rtol=rtol, atol=1e-5, err_msg=cell.source)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
