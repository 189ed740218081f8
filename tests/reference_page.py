"""Makes `docs/reference.md`: every public name, how it is called, and its docstring's first sentence.

The names are those that modules export, grouped by the files that they are written in. Run `python -m
tests.reference_page` to write the page; `tests/test_reference_page.py` holds it to what is there.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

ROOT = Path(__file__).parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from fnflare import nn  # noqa: E402

PAGE = ROOT / "docs" / "reference.md"

#: These have so many names that the files they are written in are headings.
LARGE = ("nn", "optim")
#: The modules, as a user writes them, in the order of the page.
MODULES = {
    "ff": "fnflare",
    "ff.tree": "fnflare.tree",
    "ff.random": "fnflare.random",
    "nn": "fnflare.nn",
    "optim": "fnflare.optim",
    "data": "fnflare.data",
    "train": "fnflare.train",
    "ff.testing": "fnflare.testing",
    "ff.checkpoint_policies": "fnflare.transforms.policies",
    "ff.export": "fnflare.export",
    "ff.config": "fnflare.config",
    "ff.errors": "fnflare.errors",
    "fnflare.program": "fnflare.program",
}

HEAD = """\
# Reference

Every public name, how it is called, and the first sentence of its docstring; `help` has the rest: arguments with shapes
and dtypes, what comes back, errors, sources, and an example. This page is made of the docstrings, by
`python -m tests.reference_page`. The page assumes

```python
import fnflare as ff
from fnflare import data, nn, optim, train
```

What NumPy's own functions do on tracers is in [numpy.md](numpy.md).
"""


def exported(module: ModuleType) -> dict[str, Any]:
    """The public names of a module, but for those of modules, of types of states and of types for annotations."""
    found = {name: getattr(module, name) for name in module.__all__ if not name.endswith("State")}
    return {name: thing for name, thing in found.items() if not isinstance(thing, ModuleType) and not get_args(thing)}


def home(module: ModuleType, name: str, thing: Any) -> ModuleType:
    """The module that a name is written in."""
    written = getattr(thing, "__module__", None) if inspect.isfunction(thing) or inspect.isclass(thing) else None
    if written and written.startswith("fnflare"):
        return import_module(written)
    return _origin(module, name)


def _origin(module: ModuleType, name: str) -> ModuleType:
    """Where a module has a name from, by its own import statements."""
    for statement in _statements(module):
        if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith("fnflare"):
            for alias in statement.names:
                if name == (alias.asname or alias.name):
                    return _origin(import_module(str(statement.module)), alias.name)
    return module


@functools.cache
def _statements(module: ModuleType) -> list[ast.stmt]:
    return ast.parse(inspect.getsource(module)).body


def summary(module: ModuleType, name: str, thing: Any) -> str:
    """The first sentence of the docstring, or of the comment above a constant."""
    if inspect.isfunction(thing) or inspect.isclass(thing):
        return first_sentence(inspect.getdoc(thing) or "")
    written = inspect.getsource(home(module, name, thing))
    comment = re.search(rf"((?:^#: .*\n)+){name}\b.*=", written, re.MULTILINE)
    if comment:
        return first_sentence(" ".join(re.findall(r"^#: (.*)$", comment[1], re.MULTILINE)))
    if not isinstance(thing, nn.Layer):
        return first_sentence(inspect.getdoc(thing) or "")
    function = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    like = next((f for f in (function, function.replace("_", "")) if f in getattr(module, "__all__", ())), None)
    return f"`{like}` as a layer." if like else ""


def first_sentence(text: str, ends: str = ".:") -> str:
    """Of the first paragraph, on one line, as a cell of a table."""
    paragraph = " ".join(text.split("\n\n", maxsplit=1)[0].replace("``", "`").split()).removesuffix(":")
    # Code, quotations and what stands in brackets have points of their own.
    sentence = re.match(rf"""(?:`[^`]*`|\([^()]*\)|"[^"]*"|[^`"(])*?(?<!\.)[{ends}](?=\s[^.]|$)""", paragraph)
    found = sentence[0] if sentence else paragraph
    return (found.rstrip(":.") + "." if found else "").replace("|", "\\|")


def call(name: str, thing: Any) -> str:
    """A name with its arguments and their defaults."""
    if inspect.isclass(thing) and issubclass(thing, BaseException):
        return name
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return name
    try:
        signature = inspect.signature(thing)
    except ValueError:
        return name
    plain = [p.replace(annotation=p.empty, default=_plain(p.default)) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=signature.empty))
    return name + text.replace("|", "\\|")


def _plain(default: Any) -> Any:
    """A default that reads as it is written."""
    if isinstance(default, tuple) and default:
        written = not hasattr(default, "_fields")
    else:
        written = default is inspect.Parameter.empty or isinstance(default, (int, float, str, tuple, type(None)))
    if written:
        return default

    class Shown:
        def __repr__(self) -> str:
            return getattr(default, "__name__", "...")

    return Shown()


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for shown, path in MODULES.items():
        module = import_module(path)
        parts.append(f"\n## `{shown}`\n\n{first_sentence(inspect.getdoc(module) or '', '.')}\n")
        groups: dict[str, list[str]] = {}
        for name, thing in exported(module).items():
            where = first_sentence(inspect.getdoc(home(module, name, thing)) or "") if shown in LARGE else ""
            groups.setdefault(where, []).append(f"| `{shown}.{call(name, thing)}` | {summary(module, name, thing)} |\n")
        for heading, rows in groups.items():
            if heading:
                parts.append(f"\n**{heading.rstrip('.')}**\n")
            parts.append("\n| | |\n|---|---|\n" + "".join(sorted(rows, key=lambda row: row.lower().replace("`", " "))))
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
