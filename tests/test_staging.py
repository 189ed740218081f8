"""Bodies of loops and branches are traced once for each structure, shapes and dtypes, however often and from wherever
they are run, and again where what they close over is another constant; carries that change are told apart."""

import functools
import itertools

import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import nn, tree
from fnflare.core import aval_of, trace_depth
from fnflare.errors import ArgumentError, ShapeError, TreeError
from fnflare.program import staging

pytestmark = pytest.mark.thread_unsafe(reason="threads would share the counter of traces")

RNG = Draws(8)
W = RNG.standard_normal((3, 3))
XS = RNG.standard_normal((5, 3))
H = RNG.standard_normal(3)


class Traces:
    """Counts how often a function runs: in the class, which is no part of that by which its program is found again."""

    number = 0

    def __call__(self, *_):
        type(self).number += 1


@pytest.fixture
def traces():
    return type("Traces", (Traces,), {})()


SCALE = 2.0
TABLE = np.arange(3.0)


def helper(x):
    return x * SCALE


# -- how often ----------------------------------------------------------------------------------


def test_once_for_many_calls_and_lengths(traces):
    def step(c, x):
        traces()
        return np.tanh(c + x), c

    for steps in (5, 3, 0, 1, 5):
        ff.scan(step, H, XS[:steps])
        ff.scan(step, H, XS[:steps], reverse=True)
    assert traces.number == 1
    ff.scan(step, H.astype(np.float32), XS.astype(np.float32))
    assert traces.number == 2
    ff.scan(step, H[:2], XS[:, :2])
    assert traces.number == 3
    ff.scan(step, H, XS)
    assert traces.number == 3


def test_once_for_a_lambda_made_anew_in_every_call(traces):
    def run(w, h, xs, pair):
        return ff.scan(lambda c, x: (np.tanh(c @ w + x) + pair[0], traces()), h, xs)[0]

    for k in range(4):  # arrays of the closure may have other values
        run(W * k, H, XS, (np.ones(3) * k, "text"))
    assert traces.number == 1
    np.testing.assert_allclose(run(W, H, XS, (np.zeros(3), "text")), _loop(W, H, XS), rtol=1e-13)
    assert traces.number == 1
    run(W, H, XS, (np.zeros(3), "other text"))
    assert traces.number == 2


def _loop(w, h, xs):
    for x in xs:
        h = np.tanh(h @ w + x)
    return h


def test_once_under_each_transform_of_arrays(traces):
    def run(w, h, xs):
        return np.sum(ff.scan(lambda c, x: (np.tanh(c @ w + x), traces()), h, xs)[0])

    for _ in range(3):
        ff.grad(run)(W, H, XS)
        ff.jvp(run, (W, H, XS), (W, H, XS))
        ff.grad(lambda w: ff.jvp(run, (w, H, XS), (W, H, XS))[1])(W)
        ff.vmap(run, (None, 0, None))(W, np.stack([H, H]), XS)
        ff.vmap(ff.grad(run), (None, 0, None))(W, np.stack([H, H]), XS)
    assert traces.number == 1


def test_once_for_each_of_the_branches_and_conditions(traces):
    def run(x, y):
        a = ff.cond(x[0] > 0, lambda u: (traces(), u * y)[1], lambda u: (traces(), u - y)[1], x)
        b = ff.switch(1, [lambda u: (traces(), u)[1], lambda u: (traces(), y)[1]], a)
        c = ff.while_loop(lambda c: (traces(), c[0] < 3)[1], lambda c: (traces(), (c[0] + 1, c[1] * y))[1], (0, b))
        return ff.fori_loop(0, 2, lambda i, u: (traces(), u + y)[1], c[1])

    run(H, H)
    # A number in the first carry of the loop is an array when its dtype is known: its body runs for both.
    first = traces.number
    assert first == 2 + 2 + 3 + 1
    for k in range(3):
        run(H * k, H - k)
        ff.grad(lambda x: np.sum(run(x, H)))(H)
    assert traces.number == first


def test_once_though_the_function_is_wrapped(traces):
    def step(w, c, x):
        traces()
        return np.tanh(c @ w + x), None

    for k in range(3):
        ff.scan(functools.partial(step, W + k), H, XS)
    assert traces.number == 1
    for k in range(3):
        ff.scan(lambda c, x, w=W + k: step(w, c, x), H, XS)
    assert traces.number == 2

    class Cell:
        def __init__(self, rate):
            self.rate = rate

        def step(self, c, x):
            return step(W, c * self.rate, x)

    one = Cell(0.5)
    for _ in range(3):
        ff.scan(one.step, H, XS)
    assert traces.number == 3
    one.rate = 0.25
    ff.scan(one.step, H, XS)
    assert traces.number == 4


def test_nested_bodies_are_traced_once(traces):
    def outer(c, x):
        return ff.scan(lambda d, y: (np.tanh(d + y * c), traces()), c, x)[0], None

    for k in range(3):
        ff.scan(outer, H, np.stack([XS, XS + k]))
    assert traces.number == 1


def test_layers_in_bodies(traces):
    init, apply = nn.serial(nn.Dense(4), nn.Tanh, nn.Dense(3))
    _, params = init(ff.random.key(0), (-1, 3))

    def run(params, xs):
        def step(c, x):
            traces()
            return apply(params, (c + x)[None])[0], None

        return ff.scan(step, H, xs)[0]

    expected = H
    for x in XS:
        expected = apply(params, (expected + x)[None])[0]
    for _ in range(3):
        np.testing.assert_allclose(run(params, XS), expected, rtol=1e-12)
        ff.grad(lambda p: np.sum(run(p, XS)))(params)
    assert traces.number == 1


# -- when again ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        (1, 2),
        (1, 1.0, True),
        (0.0, -0.0),
        ("a", "b"),
        ((1, 2), (1, 3), [1, 3]),
        ({"k": 1}, {"k": 2}),
        (None, 0),
        (np.float64, np.float32),
        (np.sin, np.cos),
        (np.dtype("f4"), np.dtype("f8")),
        (lambda x: x, lambda x: x + 1),
        (np.ones(3), np.ones((3, 1))),
        (np.ones(3), np.ones(3, np.float32)),
    ],
)
def test_again_for_other_constants_in_the_closure(traces, values):
    for value in values + values:
        ff.scan(lambda c, x: (c + x, traces(value)), H, XS)  # noqa: B023
    assert traces.number == len(values)


def test_a_constant_that_the_body_reads():
    def run(power, flip):
        def step(c, x):
            y = c + x**power
            return (-y if flip else y), None

        return ff.scan(step, 0.0, np.array([2.0, 3.0]))[0]

    assert [float(run(p, f)) for p, f in ((1, False), (2, False), (2, True), (1, False))] == [5.0, 13.0, -5.0, 5.0]


def test_arrays_that_the_body_looks_at(traces):
    """Branching on an array of the closure is allowed where its value is known: it is then a constant."""

    def run(w, h):
        def step(c, x):
            traces()
            return (c + x if w[0, 0] > 0 else c - x), None

        return ff.scan(step, h, XS)[0]

    for w in (W, -W, W):
        np.testing.assert_allclose(run(w, H), H + XS.sum(0) * np.sign(w[0, 0]), rtol=1e-12)


def test_arrays_that_the_body_takes_apart():
    """What only an array has, and no tracer, is there too."""
    names = {W.tobytes(): "plain"}

    def run(w):
        return ff.scan(lambda c, x: (c + (1.0 if w.tobytes() in names else x @ w @ x), None), 0.0, XS)[0]

    assert run(W) == len(XS)
    np.testing.assert_allclose(run(W + 1), sum(x @ (W + 1) @ x for x in XS), rtol=1e-12)


def test_tracers_that_a_body_keeps_do_no_harm():
    kept = []

    def step(c, x):
        kept.append(c)
        return np.tanh(c * c + x), None

    first = ff.scan(step, 0.5, XS[:, 0])[0]
    for _ in range(2):
        assert ff.scan(step, 0.5, XS[:, 0])[0] == first


def test_only_what_is_read_is_an_argument():
    unread, read = np.ones(1000), np.ones(3)
    for _ in range(2):
        staged = staging.stage(lambda x: (unread.shape, x + read)[1], tree.structure((0,)), [aval_of(H)])
        assert len(staged.consts) == 1
        assert staged.consts[0] is read


def test_globals_that_change(monkeypatch):
    def run():
        return float(ff.scan(lambda c, x: (c + helper(x) * TABLE[1], None), 0.0, np.ones(3))[0])

    assert run() == 6.0
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert run() == 9.0
    monkeypatch.setitem(globals(), "TABLE", np.full(3, 2.0))
    assert run() == 18.0
    monkeypatch.setitem(globals(), "helper", lambda x: x)
    assert run() == 6.0
    monkeypatch.undo()
    assert run() == 6.0


def test_objects_whose_attributes_change():
    class Cell:
        def __init__(self):
            self.params = {"w": np.ones(())}
            self.scale = 1.0

        def __call__(self, c, x):
            return c + x * self.params["w"] * self.scale, None

        def step(self, c, x):
            return self(c, x)

    cell = Cell()
    for body in (cell, cell.step, lambda c, x: cell(c, x)):
        cell.params, cell.scale = {"w": np.ones(())}, 1.0
        assert ff.scan(body, 0.0, np.ones(3))[0] == 3.0
        cell.params = {"w": np.array(2.0)}
        assert ff.scan(body, 0.0, np.ones(3))[0] == 6.0
        cell.scale = 5.0
        assert ff.scan(body, 0.0, np.ones(3))[0] == 30.0
    mixed = {1: np.ones(()), "a": 1.0}  # keys that cannot be sorted
    for value in (1.0, 2.0, 3.0):
        mixed["a"] = value
        assert ff.scan(lambda c, x: (c + mixed[1] * mixed["a"], None), 0.0, np.ones(3))[0] == 3 * value
    cell.scale = 1.0
    gradient = ff.grad(
        lambda w: ff.scan(lambda c, x: (setattr(cell, "params", {"w": w}), cell(c, x))[1], 0.0, np.ones(3))[0]
    )
    assert gradient(3.0) == 3.0
    cell.params = {"w": np.array(2.0)}
    assert ff.scan(cell, 0.0, np.ones(3))[0] == 6.0


def test_jitted_functions_in_bodies():
    w = np.ones(())
    g = ff.jit(lambda x: x * w)

    def run():
        return float(ff.scan(lambda c, x: (c + g(x), None), 0.0, np.ones(3))[0])

    assert run() == 3.0
    w = np.array(2.0)
    assert run() == 6.0


def test_functions_that_look_alike_in_different_modules():
    """Equal code is not the same function where the globals differ, and a module that is gone leaves nothing behind."""
    seen = []
    for k in range(5):
        space = {"np": np, "K": float(k)}
        exec("def step(c, x):\n    return c + K * x, None", space)
        seen.append(float(ff.scan(space["step"], 0.0, np.ones(2))[0]))
        del space
    assert seen == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_functions_that_close_over_themselves(traces):
    def run(n, w):
        def down(k, x):
            traces()
            return x if k == 0 else down(k - 1, np.sin(x @ w))

        return ff.scan(lambda c, x: (down(n, c + x), None), H, XS)[0]

    a, b = run(2, W), run(2, W)
    np.testing.assert_array_equal(a, b)
    assert traces.number == 3
    assert not np.array_equal(run(1, W), a)


def test_random_numbers_in_bodies():
    key = ff.random.key(3)

    def run(key):
        return ff.scan(lambda k, _: tuple(ff.random.split(k)), key, length=3)[1]

    keys = run(key)
    with ff.disable_jit():
        np.testing.assert_array_equal(run(key), keys)
    drawn = ff.scan(lambda c, k: (c + ff.random.normal(k, (2,)), None), np.zeros(2), keys)[0]
    np.testing.assert_allclose(drawn, sum(ff.random.normal(k, (2,)).astype(np.float64) for k in keys), rtol=1e-13)


# -- carries that change ------------------------------------------------------------------------

CHANGES = [
    (lambda c, x: (c[:2], None), H, ShapeError, r"the carry: float64\[3\] comes in, float64\[2\] goes out"),
    (lambda c, x: (c.astype(np.float32), None), H, ShapeError, r"float64\[3\] comes in, float32\[3\] goes out"),
    (lambda c, x: (c > 0, None), H, ShapeError, r"float64\[3\] comes in, bool\[3\] goes out"),
    (lambda c, x: (x, None), 1.0, ShapeError, r"float64\[\] comes in, float64\[3\] goes out"),
    (lambda c, x: (c * 1.5, None), np.int64(1), ShapeError, r"int64\[\] comes in, float64\[\] goes out"),
    (lambda c, x: (1.5, None), np.int64(1), ShapeError, r"int64\[\] comes in, float64\[\] goes out"),
    (
        lambda c, x: ({"a": {"b": c["a"]["b"][:1]}, "c": c["c"]}, None),
        {"a": {"b": H}, "c": H},
        ShapeError,
        r"the carry, leaf 'a/b': float64\[3\] comes in, float64\[1\] goes out",
    ),
    (lambda c, x: ((c, c), None), H, TreeError, r"it takes TreeDef\(\*\), it returns TreeDef\(\(\*, \*\)\)"),
    (lambda c, x: ({"a": c["a"]}, None), {"a": H, "b": H}, TreeError, r"it takes .*'b'.*, it returns"),
    (lambda c, x: (None, None), H, TreeError, "it takes"),
    (lambda c, x: c, H, TreeError, r"must return a pair \(carry, y\), got TreeDef\(\*\)"),
    (lambda c, x: (c, x, x), H, TreeError, r"must return a pair \(carry, y\)"),
]


@pytest.mark.parametrize(("body", "init", "error", "message"), CHANGES)
def test_carries_that_change(body, init, error, message):
    for run in (ff.scan, ff.jit(lambda f, c, xs: ff.scan(f, c, xs), static_argnums=0)):
        with pytest.raises(error, match=message) as raised:
            run(body, init, XS)
        assert str(raised.value).startswith("scan: ")
        assert "<lambda>" in str(raised.value)
    assert trace_depth() == 0


def test_the_name_of_the_loop_is_in_the_message():
    def shorter(_, c):
        return c[:2]

    message = r"^fori_loop: .*shorter must return.*float64\[3\] comes in, float64\[2\]"
    with pytest.raises(ShapeError, match=message):
        ff.fori_loop(0, 3, shorter, H)
    with pytest.raises(ShapeError, match=message):
        ff.jit(lambda n: ff.fori_loop(0, n, shorter, H))(3)
    with pytest.raises(TreeError, match=r"^fori_loop: .* must return a carry of the structure that it takes"):
        ff.fori_loop(0, 3, lambda _, c: (c, c), H)
    with pytest.raises(ShapeError, match=r"^map: xs, leaf '1' is a number"):
        ff.map(lambda x: x, (XS, 1.0))


def test_arguments_that_do_not_fit():
    with pytest.raises(ShapeError, match="the numbers of steps differ: xs, leaf 'a' has 5, xs, leaf 'b' has 3"):
        ff.scan(lambda c, x: (c, None), 0.0, {"a": XS, "b": H})
    with pytest.raises(ShapeError, match="xs has 5, length has 4"):
        ff.scan(lambda c, x: (c, None), 0.0, XS, length=4)
    with pytest.raises(ArgumentError, match=r"without xs the number of steps is unknown; pass length="):
        ff.scan(lambda c, x: (c, None), 0.0)
    with pytest.raises(ArgumentError, match="length=-1 is negative"):
        ff.scan(lambda c, x: (c, None), 0.0, length=-1)
    with pytest.raises(ShapeError, match="xs, leaf '1' is a number and has no first axis"):
        ff.scan(lambda c, x: (c, None), 0.0, (XS, 3.0))
    with pytest.raises(ArgumentError, match="scan: init, leaf 'name' is a str, which is no array"):
        ff.scan(lambda c, x: (c, None), {"name": "lstm", "h": H}, XS)
    with pytest.raises(ArgumentError, match="scan: xs is a object, which is no array"):
        ff.scan(lambda c, x: (c, None), 0.0, object())
    with pytest.raises(ArgumentError, match="while_loop: init_val is a str"):
        ff.while_loop(lambda c: True, lambda c: c, "text")


def test_functions_that_are_none():
    for call in (
        lambda: ff.scan(None, H, XS),
        lambda: ff.map(3, XS),
        lambda: ff.fori_loop(0, 3, "f", H),
        lambda: ff.while_loop(lambda c: True, None, H),
        lambda: ff.while_loop(True, lambda c: c, H),
    ):
        with pytest.raises(TypeError):
            call()


def test_numbers_of_traces_are_bounded():
    """A body that is another one in every call does not fill the memory."""
    for k in itertools.islice(itertools.count(), staging._MOST_PROGRAMS + 5):
        ff.scan(lambda c, x: (c + k, None), 0, length=1)  # noqa: B023
    assert len(staging._cache._entries) <= staging._MOST_PROGRAMS


def test_objects_that_hold_arrays_are_read_in_every_call():
    class Cell:
        def __init__(self, w):
            self.w = w

        def step(self, c, x):
            return c + np.sum(self.w * self.w) * x, None

    class Model:
        def __init__(self, cell):
            self.cell = cell

        def step(self, c, x):
            return self.cell.step(c, x)

    cell = Cell(np.array([1.0, 2.0]))
    for owner in (cell, Model(cell)):
        cell.w = np.array([1.0, 2.0])
        assert ff.scan(owner.step, 0.0, np.ones(3))[0] == 15
        cell.w[...] = 10  # written into
        assert ff.scan(owner.step, 0.0, np.ones(3))[0] == 600
        cell.w = np.zeros(2)  # another one
        assert ff.scan(owner.step, 0.0, np.ones(3))[0] == 0


def test_generators_go_on():
    rng = np.random.default_rng(0)

    def draw():
        return ff.scan(lambda c, x: (c + x * rng.standard_normal(), None), 0.0, np.ones(3))[0]

    assert draw() != draw()
