"""The page on NumPy's functions is true: it is what its script makes, every function that is served has calls that
show it, and every other one that takes arrays refuses a tracer by name."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy_table import PAGE, calls, page, public_functions, refusals, server, special_functions

import fnflare as ff
from fnflare.core.tracer import ADVICE
from fnflare.errors import FnflareError

FUNCTIONS = public_functions()
REFUSED = [r.name for r in refusals()]
#: What makes arrays of its argument in C; the message names these functions whichever of them it was.
CONVERSIONS = {"array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray"}


def test_the_page_is_what_its_script_makes() -> None:
    pytest.importorskip("scipy")
    made, written = page(), PAGE.read_text()
    if made.splitlines()[-1] == written.splitlines()[-1]:  # the same version of NumPy
        assert made == written, "run python -m tests.numpy_table"
    lines = {line.split(" | ")[0]: line for line in written.splitlines()}
    for line in made.splitlines():
        if line.startswith("| `") and line.split(" | ")[0] in lines:
            assert line == lines[line.split(" | ")[0]]


def test_every_function_that_is_served_has_calls_that_show_it() -> None:
    without = [name for name, cases in calls(FUNCTIONS).items() if not cases]
    assert not without, "list calls of these in tests/surface/cases_*.py"


def test_every_function_of_scipy_that_is_served_has_calls_that_show_it() -> None:
    pytest.importorskip("scipy")
    assert not [name for name, cases in calls(special_functions()).items() if not cases]


def test_every_refusal_says_what_to_write() -> None:
    assert not [r.name for r in refusals() if not r.instead], "give them advice in fnflare/ops/refused.py"


def test_no_advice_is_left_for_what_is_served() -> None:
    named = {n: f for n, f in FUNCTIONS.items() if f"numpy.{n}" in ADVICE}
    assert [n for n, f in named.items() if server(f) is not None or n not in REFUSED] == []


def _first(t: Any) -> list[tuple[Any, ...]]:
    """Arguments of which the first is a tracer or made of tracers: whatever a function takes, something is there."""
    tracers = [t, t[:, None] * np.ones(3), [t, t], [[t, t]], t[0]]
    others = [1, "f", [0, 1], [True, False, True], (2, 2), np.zeros(3), None, *tracers]
    return [*[(x,) for x in tracers], *itertools.product(tracers, others), (t, [0], 1.0), (t, t, t)]


def _later(t: Any) -> list[tuple[Any, ...]]:
    """Arguments of which a later one is a tracer."""
    return [(x, t) for x in (1, "f", [True, False, True], (2, 2), np.zeros(3), np.sum)] + [
        (np.sum, 0, t), (1.0, t, 3), (np.zeros(3), [True, False, True], t), (np.zeros(3), [0], t, 0)
    ]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_served_refuses_tracers_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No attempt returns anything, and one of them raises an error that names the function."""
    monkeypatch.chdir(tmp_path)  # some write files
    function, short = FUNCTIONS[name], name.rpartition(".")[2]
    seen: list[str] = []

    def attempt(t: Any, several: list[tuple[Any, ...]]) -> None:
        for args in several:
            try:
                answer = function(*args)
            except FnflareError as error:
                seen.append(str(error))
            except Exception:  # arguments that the function does not take
                continue
            else:
                assert answer is None, f"{name}{args} gave {answer!r}"

    def loss(t: Any) -> Any:
        attempt(t, _first(t))
        if not seen:
            attempt(t, _later(t))
        return np.sum(t)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some functions are deprecated
        ff.grad(loss)(np.array([0.5, 1.5, 2.5]))
    assert seen, "no attempt came to the tracer"
    if short not in CONVERSIONS:
        assert any(short in message for message in seen), seen[0]
