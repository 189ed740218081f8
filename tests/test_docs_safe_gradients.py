"""The examples of the page on safe gradients print what it says."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "safe-gradients.md"


@pytest.mark.thread_unsafe(reason="doctest takes the output of the process")
def test_the_page_on_safe_gradients_tells_the_truth() -> None:
    result = doctest.testfile(str(PAGE), module_relative=False)
    assert result.attempted > 15
    assert result.failed == 0
