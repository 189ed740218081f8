"""The code in README.md runs, and its first example is as short as it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
PROGRAMS = re.findall(r"^```text\n(program .*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_first_example_has_thirty_lines_at_most() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) <= 30


def test_the_code_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The blocks continue each other, as a reader who types them would find them.
    pytest.importorskip("tqdm", reason="the tour of the README trains with the extra fnflare[train]")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"README.md, block {number + 1}", "exec"), names)
    assert "grads" in names
    printed = capsys.readouterr().out
    assert PROGRAMS and all(program in printed for program in PROGRAMS)


def test_the_first_example_learns_with_the_core_alone(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "readme"}
    exec(compile(BLOCKS[0], "README.md, block 1", "exec"), names)
    losses = [float(x) for x in re.findall(r"loss ([0-9.]+)", capsys.readouterr().out)]
    assert len(losses) > 1
    assert losses[-1] < 0.1 * losses[0]
