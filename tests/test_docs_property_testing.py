"""The code of docs/property-testing.md runs and prints what the page says, and its tests pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "property-testing.md"
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_code_of_the_chapter_runs_and_prints_what_it_shows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # One file for each block, as a reader has them in cells: examples show the text of functions.
    names: dict[str, object] = {"__name__": "__main__"}
    printed = ""
    for number, (kind, text) in enumerate(BLOCKS):
        if kind == "text":
            assert printed.rstrip() == text.rstrip()
            continue
        path = tmp_path / f"block_{number}.py"
        path.write_text(text, encoding="utf-8")
        exec(compile(text, str(path), "exec"), names)
        printed = capsys.readouterr().out
        for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE):
            if f"    {name}()" not in text:
                names[name]()  # type: ignore[operator]


def test_the_table_has_all_laws_and_all_strategies() -> None:
    from fnflare.testing import _STRATEGIES
    from fnflare.testing.layer_laws import APPLY_LAWS, INIT_LAWS

    page = PAGE.read_text(encoding="utf-8")
    for law in (*INIT_LAWS, *APPLY_LAWS):
        assert f"| `{law}` |" in page
    for strategy in set(_STRATEGIES) - {"RandomProgram"}:
        assert f"| `{strategy}(" in page
