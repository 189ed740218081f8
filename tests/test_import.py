"""Importing the package is cheap and pulls in nothing but NumPy; the extras come when they are used."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from importlib import metadata, resources

import pytest

import fnflare

# Modules without a spec are what Cython makes up inside NumPy's own.
NEW_PACKAGES = """
import json, sys
import numpy
before = set(sys.modules)
import fnflare
new = {name.partition(".")[0] for name in set(sys.modules) - before if sys.modules[name].__spec__ is not None}
print(json.dumps(sorted(new - set(sys.stdlib_module_names))))
"""


def _modules() -> list[str]:
    return ["fnflare", *(m.name for m in pkgutil.walk_packages(fnflare.__path__, "fnflare."))]


def test_import_pulls_in_no_extra() -> None:
    out = subprocess.run([sys.executable, "-c", NEW_PACKAGES], capture_output=True, text=True, check=True).stdout
    assert set(json.loads(out)) <= {"fnflare", "numpy"}


#: Modules that are imported only where the library that they serve has been.
SERVING = {"fnflare.ops.scipy_special": "scipy"}


@pytest.mark.parametrize("name", _modules())
def test_every_module_imports_with_the_core_alone_and_says_what_it_is(name: str) -> None:
    if name in SERVING:
        pytest.importorskip(SERVING[name])
    assert importlib.import_module(name).__doc__, f"{name} has no docstring"


def test_type_hints_are_shipped() -> None:
    assert resources.files("fnflare").joinpath("py.typed").is_file()


def test_version_is_that_of_the_distribution() -> None:
    try:
        installed = metadata.version("fnflare")
    except metadata.PackageNotFoundError:
        pytest.skip("fnflare is not installed here, only on the path")
    assert fnflare.__version__ == installed


def test_public_names_exist_and_are_documented() -> None:
    assert len(set(fnflare.__all__)) == len(fnflare.__all__)
    undocumented = [name for name in fnflare.__all__ if not getattr(getattr(fnflare, name), "__doc__", None)]
    assert not undocumented
