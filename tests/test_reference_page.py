"""The page of all public names is what its script makes of the docstrings, and says something of every one."""

from __future__ import annotations

import re
from importlib import import_module

import pytest
from reference_page import MODULES, PAGE, exported, first_sentence, page, summary


def test_the_page_is_what_its_script_makes() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "run python -m tests.reference_page"


@pytest.mark.parametrize("path", MODULES.values())
def test_every_public_name_says_what_it_is(path: str) -> None:
    module = import_module(path)
    silent = [name for name, thing in exported(module).items() if not summary(module, name, thing)]
    assert not silent, "give these a docstring, or a comment that begins with #: above a constant"


def test_no_default_shows_where_it_lies_in_memory() -> None:
    assert not re.findall(r".*0x[0-9a-f]{6}.*", page())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Draw. And more.", "Draw."),
        ("Two lines of\none sentence: and why.", "Two lines of one sentence."),
        ("``for i in x: f(i)`` as one operation.\n\nMore.", "`for i in x: f(i)` as one operation."),
        ('Adam (Kingma & Ba et al. 2015, "Adam: a method"). More', 'Adam (Kingma & Ba et al. 2015, "Adam: a method").'),
        ("The numbers 0 .. n - 1. More.", "The numbers 0 .. n - 1."),
        ("KL(p || q)::\n\n    code", "KL(p \\|\\| q)."),
    ],
)
def test_first_sentences(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence
