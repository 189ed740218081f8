"""The pages for those who come from another library: their programs run, and the names that they give are there."""

from __future__ import annotations

import re
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "coming-from"
PAGES = sorted(FOLDER.glob("*.md"))
# What a page's tables may begin a name with.
ROOTS = {"np": "numpy", "ff": "fnflare", "scipy": "scipy"} | {
    room: f"fnflare.{room}" for room in ("data", "nn", "optim", "train")
}


def _rows(page: Path) -> list[list[str]]:
    """The cells of every row of a page's tables, without the headings and the lines below them."""
    found = []
    below_heading = False
    for line in page.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if cells and all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            below_heading = True
        elif cells and below_heading:
            found.append(cells)
        elif not cells:
            below_heading = False
    return found


def _missing(code: str) -> str | None:
    """What of the dotted name that `code` begins with is not there, None if all of it is."""
    name = re.match(r"[A-Za-z_][\w.]*", code)
    root, *path = name.group().rstrip(".").split(".") if name else [""]
    if root not in ROOTS:
        return f"`{code}` begins with none of {', '.join(ROOTS)}"
    try:
        reduce(getattr, path, import_module(ROOTS[root]))
    except ModuleNotFoundError as error:
        return None if error.name == "scipy" else str(error)
    except AttributeError:
        return f"`{code}` names nothing"
    return None


def test_there_is_a_page_for_each_of_the_libraries_that_people_come_from() -> None:
    assert {"autograd", "flux", "jax", "knet", "optax", "pytorch", "stax"} <= {page.stem for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_programs_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    names: dict[str, object] = {"__name__": page.stem}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{page.name}, block {number + 1}", "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_names_that_a_page_gives_are_there(page: Path) -> None:
    rows = _rows(page)
    assert len(rows) > 10
    assert not [row for row in rows if len(row) != 3]
    assert not [row for row in rows if not re.search(r"`", row[1]) and row[1] != "no"]
    wrong = [_missing(code) for row in rows for code in re.findall(r"`([^`]+)`", row[1])]
    assert not [problem for problem in wrong if problem]
    # Who finds nothing is told what to write instead, or why there is nothing.
    assert not [row for row in rows if row[1] == "no" and not row[2]]
