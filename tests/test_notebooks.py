"""Every notebook runs from its first cell to its last."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))

nbclient = pytest.importorskip("nbclient", reason="notebooks run with the extra fnflare[notebooks]")
nbformat = pytest.importorskip("nbformat", reason="notebooks run with the extra fnflare[notebooks]")
pytest.importorskip("ipykernel", reason="notebooks run with the extra fnflare[notebooks]")
pytest.importorskip("matplotlib", reason="the notebooks draw with the extra fnflare[notebooks]")

# jupyter_client reports its own pending changes as warnings, and the event loop of a stopped kernel is closed late.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client", "ignore::ResourceWarning")


@pytest.fixture
def quiet_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keeps the kernel's files out of the home folder, and the debugger's warning out of the output."""
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    # The kernel is another process: it must find what this one finds, be it installed or a checkout.
    root = str(Path(__file__).parent.parent)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")])))


def _outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, quiet_kernel: None) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": path.parent}}
    ).execute()
    errors = [output for output in _outputs(notebook) if output.output_type == "error"]
    assert not errors, errors
    assert any("image/png" in output.get("data", {}) for output in _outputs(notebook)), "it draws nothing"


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS
