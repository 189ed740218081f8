"""Bodies of control flow are traced once, and what they read from around them is read in every call."""

from __future__ import annotations

import array
import dataclasses
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fnflare as ff

XS = np.ones(3)


def module(source: str) -> dict[str, Any]:
    """The globals of a module of the user's with the given source."""
    scope: dict[str, Any] = {"np": np, "ff": ff, "XS": XS}
    exec(compile(source, "/home/user/model.py", "exec"), scope)
    return scope


#: Ways to give ``body`` to something that stages it: each calls ``body(x)`` at 1.0, and a function made anew does so.
STAGED = {
    "scan": "ff.scan(lambda c, x: (c + body(x), None), 0.0, XS[:1])[0]",
    "while_loop": "ff.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, c[1] + body(1.0)), (0, 0.0))[1]",
    "cond": "ff.cond(True, lambda x: body(x), lambda x: 0.0 * x, 1.0)",
    "checkpoint": ("ff.grad(ff.checkpoint(lambda x: x * body(1.0), policy=ff.checkpoint_policies.dots_saveable))(1.0)"),
}


@pytest.mark.parametrize("staged", STAGED.values(), ids=STAGED.keys())
class TestChanges:
    """What changes between calls is seen, as it is without staging."""

    def check(self, staged: str, setup: str, change: str, before: float, after: float) -> None:
        scope = module(f"{setup}\ndef run():\n    return {staged}")
        assert scope["run"]() == before
        exec(change, scope)
        assert scope["run"]() == after

    def test_a_global_array(self, staged: str) -> None:
        self.check(staged, "w = np.array(2.0)\ndef body(x): return w * x", "w = np.array(7.0)", 2, 7)

    def test_a_global_number(self, staged: str) -> None:
        self.check(staged, "w = 2.0\ndef body(x): return w * x", "w = 7.0", 2, 7)

    def test_a_global_function(self, staged: str) -> None:
        setup = "w = 2.0\ndef helper(x): return w * x\ndef body(x): return helper(x)"
        self.check(staged, setup, "def helper(x): return x - 3", 2, -2)

    def test_what_a_global_function_reads(self, staged: str) -> None:
        setup = "w = np.array(2.0)\ndef helper(x): return w * x\ndef body(x): return helper(x)"
        self.check(staged, setup, "w = np.array(7.0)", 2, 7)

    def test_an_attribute_of_an_object(self, staged: str) -> None:
        setup = (
            "class Model:\n    def __init__(self, w): self.w = w\n    def body(self, x): return self.w * x\n"
            "model = Model(np.array(2.0))\nbody = model.body"
        )
        self.check(staged, setup, "model.w = np.array(7.0)", 2, 7)

    def test_a_set(self, staged: str) -> None:
        self.check(staged, "seen = {1}\ndef body(x): return len(seen) * x", "seen.add(2)", 1, 2)

    def test_a_global_array_whose_value_python_needs(self, staged: str) -> None:
        setup = "w = np.array(2)\ndef body(x): return 1.0 * w.tolist() * x if w > 1 else -x"
        self.check(staged, setup, "w = np.array(0)", 2, -1)

    def test_a_default(self, staged: str) -> None:
        self.check(staged, "def body(x, w=np.array(2.0)): return w * x", "body.__defaults__ = (np.array(7.0),)", 2, 7)

    def test_what_the_function_assigns_to(self, staged: str) -> None:
        setup = "w = 2.0\ndef body(x):\n    global calls\n    calls = w\n    return w * x"
        self.check(staged, setup, "assert calls == 2.0; w = 7.0", 2, 7)


def traces(capsys: pytest.CaptureFixture[str]) -> int:
    return capsys.readouterr().out.count("tracing")


BODY = "def body(x):\n    print('tracing')\n    return w * x\n"


@pytest.mark.parametrize("staged", STAGED.values(), ids=STAGED.keys())
def test_other_arrays_among_the_globals_need_no_other_trace(staged: str, capsys: pytest.CaptureFixture[str]) -> None:
    scope = module(f"w = np.array(2.0)\n{BODY}def run():\n    return {staged}")
    assert scope["run"]() == 2
    assert traces(capsys) > 0
    for w in (3.0, 4.0):
        scope["w"] = np.array(w)
        assert scope["run"]() == w
    scope["w"][...] = 5.0
    assert scope["run"]() == 5
    assert traces(capsys) == 0


def test_a_recursive_function_is_traced_once(capsys: pytest.CaptureFixture[str]) -> None:
    scope = module(
        "w = np.array(2.0)\n"
        "def power(x, n):\n    print('tracing')\n    return x if n == 0 else w * power(x, n - 1)\n"
        "def run():\n    return ff.map(lambda x: power(x, 3), XS)"
    )
    np.testing.assert_array_equal(scope["run"](), [8, 8, 8])
    assert traces(capsys) > 0
    scope["w"] = np.array(3.0)
    np.testing.assert_array_equal(scope["run"](), [27, 27, 27])
    assert traces(capsys) == 0


def test_a_function_that_an_object_holds_as_well() -> None:
    scope = module(
        "w = np.array(2.0)\ndef helper(x): return w * x\n"
        "class Model:\n    def __init__(self): self.f = helper\n    def body(self, x): return helper(x) + self.f(x)\n"
        "model = Model()\ndef run():\n    return ff.map(lambda x: model.body(x), XS)"
    )
    np.testing.assert_array_equal(scope["run"](), [4, 4, 4])
    scope["w"] = np.array(3.0)
    np.testing.assert_array_equal(scope["run"](), [6, 6, 6])


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float


def looping(settings: Any) -> Callable[[], Any]:
    def step(c: Any, x: Any) -> Any:
        print("tracing")
        return c + settings.rate * x, None

    return lambda: ff.scan(step, 0.0, XS)[0]


def test_objects_that_say_that_they_stay_are_told_apart_by_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert looping(Settings(2.0))() == 6
    assert traces(capsys) > 0
    assert looping(Settings(2.0))() == 6
    assert traces(capsys) == 0
    assert looping(Settings(3.0))() == 9


def test_objects_that_may_change_are_read_in_every_call(capsys: pytest.CaptureFixture[str]) -> None:
    settings = types.SimpleNamespace(rate=2.0)
    run = looping(settings)
    assert run() == 6
    settings.rate = 3.0
    assert run() == 9
    assert traces(capsys) > 1


def test_gradients_reach_what_a_function_takes_from_a_global_function() -> None:
    scope = module(
        "def outer(w):\n    def body(x): return w * x\n    return ff.scan(lambda c, x: (c + body(x), None), 0.0, XS)[0]"
    )
    assert ff.grad(scope["outer"])(2.0) == 3
    assert ff.jit(ff.grad(scope["outer"]))(2.0) == 3


@dataclasses.dataclass(slots=True)
class Slots:
    rate: Any
    unset: Any = dataclasses.field(init=False)


class Both(Slots):
    """In whose instances something is in a slot, and something else is not."""


class Grid(np.ndarray):
    pass


def written_into(memory: Any) -> Callable[[Any], None]:
    def write(x: float) -> None:
        memory[0] = x

    return write


@pytest.mark.parametrize(
    "make",
    [
        lambda: (box := Slots(2.0), lambda x: setattr(box, "rate", x), "w.rate"),
        lambda: (box := Both(2.0), lambda x: setattr(box, "rate", x), "w.rate"),
        lambda: (box := Slots(np.array([2.0])), written_into(box.rate), "w.rate[0]"),
        lambda: (grid := np.array([2.0]).view(Grid), written_into(grid), "w[0]"),
        lambda: (numbers := array.array("d", [2.0]), written_into(numbers), "w[0]"),
        lambda: (view := memoryview(array.array("d", [2.0])), written_into(view), "w[0]"),
        lambda: (book := {1: 2.0, "a": 0.0}, lambda x: book.update({1: x}), "w[1]"),
    ],
    ids=["slots", "slots and more", "array in a slot", "subclass", "array.array", "memoryview", "keys without order"],
)
def test_what_may_be_written_into_is_read_in_every_call(make: Any) -> None:
    w, write, read = make()
    scope = module(f"w = None\ndef run():\n    return ff.scan(lambda c, x: (c + {read} * x, None), 0.0, XS)[0]")
    scope["w"] = w
    for rate in (2.0, 3.0, 5.0):
        write(rate)
        assert scope["run"]() == 3 * rate


def test_variables_around_that_a_function_assigns_to() -> None:
    scope = module(
        "def make():\n"
        "    w, calls, parts = np.array(2.0), 0, []\n"
        "    def step(c, x):\n"
        "        nonlocal calls\n        calls += 1\n        return c + w * x, None\n"
        "    def deeper(c, x):\n"
        "        def count():\n            nonlocal calls\n            calls += 1\n"
        "        count()\n        return c + w * x, None\n"
        "    def run(f):\n        assert ff.scan(f, 0.0, XS)[0] == 6\n        return calls\n"
        "    return run, step, deeper"
    )
    run, step, deeper = scope["make"]()
    before = 0
    for f in (step, step, deeper, deeper):
        after = run(f)
        assert after > before
        before = after


def test_a_function_may_assign_to_variables_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    scope = module(
        "def step(c, x):\n"
        "    print('tracing')\n    total = 0\n"
        "    def add(y):\n        nonlocal total\n        total = total + y\n"
        "    add(c)\n    add(x)\n    return total, None\n"
    )
    for _ in range(2):
        assert ff.scan(scope["step"], 0.0, XS)[0] == 3
    assert traces(capsys) > 0
    assert ff.scan(scope["step"], 0.0, XS)[0] == 3
    assert traces(capsys) == 0


def test_a_variable_around_that_has_no_value_yet() -> None:
    def loss(w: Any) -> Any:
        def step(c: Any, x: Any) -> Any:
            return c + w * x if ready else c + later(x), None

        ready = True
        total = ff.scan(step, 0.0, XS)[0]
        later = np.sin
        return total

    assert loss(2.0) == 6
    assert ff.grad(loss)(2.0) == 3
    assert ff.jit(ff.grad(loss))(2.0) == 3


@pytest.mark.parametrize("what", ["numbers", "functions"])
def test_closures_of_thousands_of_parts(what: str) -> None:
    many: Any = [2.0] * 5000 if what == "numbers" else [lambda x, i=i: i + x for i in range(5000)]

    def run() -> Any:
        return ff.scan(lambda c, x: (c + (many[1] * x if what == "numbers" else many[1](x)), None), 0.0, XS)[0]

    assert run() == 6
    many[1] = 7.0 if what == "numbers" else lambda x: 6 * x + x
    assert run() == 21
