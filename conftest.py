"""Runs the examples of the package as a user would paste them: with the names `np` and `ff`, and no others.

It stands here and not in the package, which ships no tests, nor in `tests`, whose conftest is not read where the
package alone is named. An item's own hooks would not reach an installed package, which lies elsewhere; those of the
session do.
"""

from __future__ import annotations

import numpy as np
import pytest

import fnflare as ff


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Takes from each example the globals of the module that it stands in."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.dtest.globs = {"__name__": "__main__", "np": np, "ff": ff}
