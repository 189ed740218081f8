"""`scan`, `map`, `fori_loop`, `while_loop`, `cond` and `switch` are the loops and choices of Python that they stand
for: with any trees, under any transform, with closures over anything; and their bodies are traced once."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from drawing import Draws
from laws import agree, close

import fnflare as ff
from fnflare import tree
from fnflare.core import trace_depth
from fnflare.errors import ArgumentError, ConcretizationError, ShapeError, TreeError, UnsupportedError
from fnflare.testing import check_grads, check_jvp, check_vmap

RNG = Draws(3)
W = RNG.standard_normal((3, 3)) / 2
XS = RNG.standard_normal((5, 3))
H = RNG.standard_normal(3)


def stacked(trees):
    return tree.map(lambda *each: np.stack(each), *trees)


def python_scan(f, carry, xs, length=None, reverse=False):
    """The loop that `scan` stands for."""
    steps = length if length is not None else len(tree.leaves(xs)[0])
    ys = [None] * steps
    for t in reversed(range(steps)) if reverse else range(steps):
        carry, ys[t] = f(carry, tree.map(lambda x, t=t: x[t], xs))
    return carry, stacked(ys)


def cell(h, x):
    h = np.tanh(x + h @ W)
    return h, h * x


@dataclass
class State:
    hidden: object
    count: object
    name: str = "lstm"


tree.register_dataclass(State, data_fields=["hidden", "count"], meta_fields=["name"])


class Pair(NamedTuple):
    left: object
    right: object


# -- scan is the Python loop --------------------------------------------------------------------

BODIES = {
    "plain": (cell, H, XS),
    "tuple": (lambda c, x: ((c[1] + x, c[0] * 0.5), c[0]), (H, H * 2), XS),
    "dict": (
        lambda c, x: ({"a": np.sin(c["a"] + x["u"]), "n": c["n"] + 1}, {"y": c["a"], "n": c["n"], "none": None}),
        {"a": H, "n": np.int64(3)},
        {"u": XS, "unread": XS[:, 0]},
    ),
    "dataclass": (
        lambda c, x: (State(np.tanh(c.hidden + x), c.count + 1), Pair(c.count, c.hidden)),
        State(H, np.int32(0)),
        XS,
    ),
    "None in the carry": (lambda c, x: ((None, c[1] + x), (None, c[1])), (None, H), XS),
    "no carry": (lambda c, x: (c, np.sin(x)), (), XS),
    "no outputs": (lambda c, x: (c + x, None), H, XS),
    "no outputs, as a tuple": (lambda c, x: (c * x, ()), H, XS),
    "constant outputs": (lambda c, x: (c, (np.ones(2), H, np.float32(2))), H, XS),
    "the input as the output": (lambda c, x: (x, (x, c)), H, XS),
    "a carry that stays": (lambda c, x: (c, c[0] @ x), (H, W), XS),
    "carries that swap": (lambda c, x: ((c[1], c[0]), c[0] + x), (H, -H), XS),
    "a sum": (lambda c, x: (c + x @ W, c), H, XS),
    "a difference": (lambda c, x: (c - np.outer(x, x), c[0]), W, XS),
    "integers": (lambda c, x: (c * 2 + x, c % 3), np.int64(1), np.arange(6)),
    "small integers": (lambda c, x: (c + x, c), np.uint8([200, 7]), np.uint8([[50, 51], [52, 9], [200, 90]])),
    "booleans": (lambda c, x: (c ^ x, ~c), np.bool_(True), np.array([True, False, True])),
    "booleans that add up": (lambda c, x: (c + x, None), np.bool_(False), np.array([False, True, True])),
    "single precision": (lambda c, x: (np.tanh(c + x), c), H.astype(np.float32), XS.astype(np.float32)),
    "half adds up in single": (
        lambda c, x: (c + x.astype(np.float32), None),
        np.float32(0),
        np.full(20, 60000, np.float16),
    ),
    "numbers": (lambda c, x: (c + x, c), np.float64(0.5), np.arange(4.0)),
    "complex": (lambda c, x: (c * 1j + x, c), np.complex128(1), XS[:, 0]),
    "matrices": (lambda c, x: (np.tanh(c @ x), x.T), W, RNG.standard_normal((4, 3, 3))),
    "traced index": (lambda c, x: (ff.at(c)[x].add(1.0), np.take(c, x)), H, np.array([0, 2, 2, 1])),
    "empty arrays": (lambda c, x: (c + x, c), np.zeros((0, 2)), np.zeros((3, 0, 2))),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", list(BODIES))
def test_scan_is_the_loop(name, reverse):
    f, init, xs = BODIES[name]
    expected = python_scan(f, init, xs, reverse=reverse)
    close(ff.scan(f, init, xs, reverse=reverse), expected)
    agree(ff.jit(lambda c, xs: ff.scan(f, c, xs, reverse=reverse))(init, xs), expected)
    with ff.disable_jit():
        close(ff.scan(f, init, xs, reverse=reverse), expected)
    steps = len(tree.leaves(xs)[0])
    close(ff.scan(f, init, xs, steps, reverse), expected)


@pytest.mark.parametrize("name", [n for n, (_, init, _) in BODIES.items() if n != "complex"])
def test_scan_under_vmap(name):
    f, init, xs = BODIES[name]
    many = tree.map(lambda x: np.stack([x, x[::-1]], axis=1), xs)  # time first, examples second
    each = [python_scan(f, init, tree.map(lambda x, k=k: x[:, k], many)) for k in range(2)]
    mapped = ff.vmap(lambda c, xs: ff.scan(f, c, xs), in_axes=(None, 1))
    close(mapped(init, many), stacked(each))
    agree(ff.jit(mapped)(init, many), stacked(each))


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("name", [n for n in BODIES if n != "constant outputs"])
def test_few_steps(name, steps):
    f, init, xs = BODIES[name]
    xs = tree.map(lambda x: x[:steps], xs)
    got = ff.scan(f, init, xs)
    if steps:
        close(got, python_scan(f, init, xs))
    else:
        y = f(init, tree.map(lambda x: np.zeros(x.shape[1:], x.dtype)[()], xs))[1]
        close(got, (init, tree.map(lambda a: np.zeros((0, *np.shape(a)), np.asarray(a).dtype), y)))
    agree(ff.jit(lambda c, xs: ff.scan(f, c, xs))(init, xs), got)
    with ff.disable_jit():
        close(ff.scan(f, init, xs), got)


SMOOTH = [n for n in BODIES if n not in ("complex", "single precision", "half adds up in single", "empty arrays")]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", [n for n in SMOOTH if "integers" not in n and "booleans" not in n])
def test_derivatives_of_scan(name, reverse):
    f, init, xs = BODIES[name]

    def run(init, xs):
        return ff.scan(f, init, xs, reverse=reverse)

    check_grads(run, (init, xs), order=2, atol=1e-5, rtol=1e-5)
    check_grads(ff.jit(run), (init, xs), order=1)


@pytest.mark.parametrize("steps", [0, 1])
def test_derivatives_of_few_steps(steps):
    def loss(w, h, xs):
        last, ys = ff.scan(lambda h, x: (np.tanh(x @ w + h), h * x), h, xs)
        return np.sum(last) + np.sum(ys)

    args = (W, H, XS[:steps])
    check_grads(loss, args, order=2)
    expected = ff.grad(loss, argnums=(0, 1, 2))(*args)
    close(ff.jit(ff.grad(loss, argnums=(0, 1, 2)))(*args), expected)
    assert [g.shape for g in expected] == [(3, 3), (3,), (steps, 3)]


def test_a_loop_over_a_length_alone():
    close(ff.scan(lambda c, x: (c * 2, (c, x)), 1.0, length=3), (np.float64(8.0), (np.array([1.0, 2.0, 4.0]), None)))
    close(ff.scan(lambda c, x: (c, c), H, None, 2)[1], np.stack([H, H]))
    close(ff.scan(lambda c, x: (c, 1), (), {}, np.int64(3)), ((), np.ones(3, np.int64)))
    assert ff.scan(lambda c, x: (c, None), (), length=4) == ((), None)


def test_outputs_are_the_callers_own():
    xs = np.arange(3.0)
    constant = np.ones(2)

    def f(c, x):
        return c, (x, 1.0, constant, x * 2, x * 2)

    for _ in range(2):
        _, ys = ff.scan(f, 0.0, xs)
        close(ys[:3], (np.arange(3.0), np.ones(3), np.ones((3, 2))))
        close(ys[3], ys[4])
        for y in ys[:4]:
            y[...] = 7.0
        close(ys[4], 2 * np.arange(3.0))
        close(xs, np.arange(3.0))
        close(constant, np.ones(2))


def test_python_numbers():
    """A Python number takes the dtype of what it meets, where it comes in and where it goes out."""
    x32 = XS.astype(np.float32)
    last, ys = ff.scan(lambda c, x: (c + x[0], c), 0.0, x32)
    assert (last.dtype, ys.dtype) == (np.float32, np.float32)
    last, ys = ff.scan(lambda c, x: (c + x[0], c), 0, x32)
    assert (last.dtype, ys.dtype) == (np.float32, np.float32)
    last, ys = ff.scan(lambda c, x: (c + 1, c), 0, x32)
    assert (last.dtype, ys.dtype) == (np.int64, np.int64)
    last, ys = ff.scan(lambda c, x: (c + 0.5, c), 0, x32)
    assert (last.dtype, ys.dtype) == (np.float64, np.float64)
    last, ys = ff.scan(lambda c, x: (1.0, c), np.float32(2), x32)
    close((last, ys), (np.float32(1), np.array([2, 1, 1, 1, 1], np.float32)))
    last = ff.jit(lambda c: ff.scan(lambda c, x: (1.0, None), c, x32)[0] * np.ones(2, np.float32))(np.float64(3))
    assert last.dtype == np.float64
    assert ff.while_loop(lambda c: c[1] < 3, lambda c: (0.0, c[1] + 1), (np.float32(2), 0))[0].dtype == np.float32
    assert ff.fori_loop(0, 3, lambda i, c: c + i, 0).dtype == np.int64
    assert ff.fori_loop(0, 3, lambda i, c: c * np.float32(2), 1.0).dtype == np.float32
    assert ff.cond(True, lambda: 1, lambda: np.float32(2)).dtype == np.float32
    for pred in (True, False):
        assert ff.cond(pred, lambda: 1.5, lambda: 2).dtype == np.float64
        assert ff.cond(pred, lambda: 2, lambda: 1.5) == (2.0 if pred else 1.5)


# -- closures -----------------------------------------------------------------------------------


def test_closures_over_tracers_of_every_transform():
    def run(w, h, xs):
        def step(c, x):
            inner = ff.fori_loop(0, 2, lambda i, u: np.tanh(u @ w + x * i), c)
            return inner + h, np.sum(inner * xs[0])

        return ff.scan(step, h, xs)

    def loss(w, h, xs):
        last, ys = run(w, h, xs)
        return np.sum(last * last) + np.sum(ys)

    with ff.disable_jit():
        expected = run(W, H, XS)
        slope = ff.jvp(run, (W, H, XS), (W, H, XS))[1]
        gradient = ff.grad(loss, argnums=(0, 1, 2))(W, H, XS)
        second = ff.jvp(ff.grad(loss), (W, H, XS), (W, H, XS))[1]
    for f in (run, ff.jit(run)):
        close(f(W, H, XS), expected)
        close(ff.jvp(f, (W, H, XS), (W, H, XS))[1], slope)
        close(ff.vmap(f, (None, None, 0))(W, H, np.stack([XS, XS])), stacked([expected, expected]))
        close(ff.vmap(f, (0, None, None))(np.stack([W, W]), H, XS), stacked([expected, expected]))
    close(ff.grad(loss, argnums=(0, 1, 2))(W, H, XS), gradient)
    close(ff.jit(ff.grad(loss, argnums=(0, 1, 2)))(W, H, XS), gradient)
    close(ff.jvp(ff.grad(loss), (W, H, XS), (W, H, XS))[1], second)
    close(ff.jit(ff.jvp, static_argnums=0)(ff.grad(loss), (W, H, XS), (W, H, XS))[1], second)
    each = ff.vmap(ff.grad(loss), (None, 0, None))(W, np.stack([H, -H]), XS)
    close(each, np.stack([ff.grad(loss)(W, H, XS), ff.grad(loss)(W, -H, XS)]))


def test_closures_of_branches_and_conditions():
    def f(a, b, n):
        chosen = ff.cond(a[0] > 0, lambda: a * b, lambda: a - b)
        other = ff.switch(n, [lambda x: x * a, lambda x: np.sin(x) + b, lambda x: x], chosen)
        return ff.while_loop(lambda c: np.sum(c * c) < np.sum(b * b) + 9, lambda c: c * 1.5 + b * b, other)

    for a, n in itertools.product((H, -H), (0, 1, 2)):
        with ff.disable_jit():
            expected = f(a, H + 1, n)
            slope = ff.jvp(lambda a, b: f(a, b, n), (a, H + 1), (H, H))[1]  # noqa: B023
            gradient = ff.grad(lambda a, b: np.sum(f(a, b, n)), argnums=(0, 1))(a, H + 1)  # noqa: B023
        close(f(a, H + 1, n), expected)
        close(ff.jit(f)(a, H + 1, n), expected)
        close(ff.jvp(lambda a, b: f(a, b, n), (a, H + 1), (H, H))[1], slope)  # noqa: B023
        close(ff.jit(lambda a, b: ff.jvp(lambda a, b: f(a, b, n), (a, b), (H, H))[1])(a, H + 1), slope)  # noqa: B023
        close(ff.grad(lambda a, b: np.sum(f(a, b, n)), argnums=(0, 1))(a, H + 1), gradient)  # noqa: B023
    a, ns = np.stack([H, -H, H, -H]), np.array([0, 1, 2, 5])
    check_vmap(f, (a, H + 1, ns), in_axes=(0, None, 0))
    check_vmap(f, (a, np.stack([H] * 4), 1), in_axes=(0, 0, None))
    check_vmap(f, (H, np.stack([H, H + 1, H - 1, H]), 0), in_axes=(None, 0, None))


def test_nothing_is_left_of_a_body_that_fails():
    def bad(c, x):
        raise KeyError("mine")

    def wrong(c, x):
        return c @ np.ones(7), None

    for transform in (lambda f: f, ff.jit, ff.grad, ff.vmap):
        for body, error in ((bad, KeyError), (wrong, ValueError)):
            with pytest.raises(error):
                transform(lambda x, b=body: ff.scan(b, x, None, 3)[0])(H if transform is not ff.grad else 1.0)
            assert trace_depth() == 0
    close(ff.grad(lambda x: ff.scan(lambda c, _: (c * x, None), x, None, 2)[0])(2.0), np.float64(12.0))


# -- nesting ------------------------------------------------------------------------------------


def test_scan_in_scan():
    def outer(c, x):
        inner, ys = ff.scan(lambda d, y: (np.tanh(d + y * c), d * y), x[0], x)
        return c + inner, ys * inner

    close(ff.scan(outer, 0.5, XS), python_scan(outer, np.float64(0.5), XS))
    check_grads(lambda c, xs: ff.scan(outer, c, xs), (0.5, XS), order=2, atol=1e-5, rtol=1e-5)
    check_vmap(lambda c, xs: ff.scan(outer, c, xs), (np.array([0.5, -0.5]), XS), (0, None))


def test_scan_in_cond_and_cond_in_scan():
    def f(h, xs, flip):
        def up(h):
            return ff.scan(lambda c, x: (np.sin(c + x), None), h, xs)[0]

        def down(h):
            return ff.scan(lambda c, x: (c * np.cos(x), None), h, xs, reverse=True)[0]

        def step(c, x):
            y = ff.cond(np.sum(x) > flip, lambda c: np.tanh(c * x), lambda c: c - x, c)
            return y, ff.switch((y[0] > 0).astype(int), [np.sin, np.cos], x)

        return ff.cond(h[0] > flip, up, down, h), ff.scan(step, h, xs)

    for h, flip in itertools.product((H, -H), (0.0, 0.3)):
        with ff.disable_jit():
            expected = f(h, XS, flip)
        close(f(h, XS, flip), expected)
        close(ff.jit(f)(h, XS, flip), expected)
        check_grads(lambda h, xs: f(h, xs, flip), (h, XS), order=1)  # noqa: B023
        check_grads(ff.jit(lambda h, xs: f(h, xs, flip)), (h, XS), order=1)  # noqa: B023
    check_vmap(f, (np.stack([H, -H, 2 * H]), np.stack([XS, -XS, XS]), 0.1), (0, 0, None))
    gradient = ff.grad(lambda h, xs: np.sum(f(h, xs, 0.1)[0]) + np.sum(f(h, xs, 0.1)[1][1]))
    check_vmap(gradient, (np.stack([H, -H, 2 * H]), np.stack([XS, -XS, XS])))


def test_while_in_scan():
    def f(h, xs):
        def step(c, x):
            grown = ff.while_loop(lambda u: np.sum(np.abs(u)) < 2, lambda u: u * 1.5 + x * x, c)
            return grown / 3, np.sum(grown)

        return ff.scan(step, h, xs)

    close(f(H, XS), python_scan(lambda c, x: tree.map(np.squeeze, f(c, x[None])), H, XS))
    check_jvp(f, lambda p, t: ff.jvp(f, p, t), (H, XS))
    check_jvp(f, ff.jit(lambda p, t: ff.jvp(f, p, t)), (H, XS))
    check_vmap(f, (np.stack([H, H / 9, 5 * H]), XS), (0, None))
    with pytest.raises(UnsupportedError, match="while_loop: reverse mode"):
        ff.grad(lambda h: np.sum(f(h, XS)[0]))(H)


# -- loops with a condition ---------------------------------------------------------------------


def collatz(n):
    return ff.while_loop(
        lambda c: c[0] != 1,
        lambda c: (np.where(c[0] % 2 == 0, c[0] // 2, 3 * c[0] + 1), c[1] + 1),
        (n, 0),
    )[1]


def test_while_loop_of_integers():
    expected = np.array([0, 1, 7, 2, 5, 8])
    for f in (collatz, ff.jit(collatz)):
        assert [int(f(np.int64(n))) for n in range(1, 7)] == expected.tolist()
        close(ff.vmap(f)(np.arange(1, 7)), expected)
        close(ff.jit(ff.vmap(f))(np.arange(1, 7)), expected)
    with ff.disable_jit():
        assert collatz(np.int64(6)) == 8
        close(ff.vmap(collatz)(np.arange(1, 7)), expected)


def newton(a):
    """The square root of `a`, in as many turns as it takes."""
    return ff.while_loop(lambda x: np.abs(x * x - a) > 1e-13 * a, lambda x: (x + a / x) / 2, a)


def test_derivatives_of_while_loop():
    for a in (2.0, 9.0, 100.0):
        close(ff.jvp(newton, (a,), (1.0,))[1], np.float64(0.5 / np.sqrt(a)), rtol=1e-7)
        close(ff.jit(ff.jacfwd(newton))(a), np.float64(0.5 / np.sqrt(a)), rtol=1e-7)
        close(ff.grad(newton)(a), np.float64(0.5 / np.sqrt(a)), rtol=1e-7)
        close(ff.grad(ff.grad(newton))(a), np.float64(-0.25 * a**-1.5), rtol=1e-6)
        close(ff.jvp(ff.grad(newton), (a,), (1.0,))[1], np.float64(-0.25 * a**-1.5), rtol=1e-6)
    a = np.array([2.0, 9.0, 100.0])
    close(ff.vmap(newton)(a), np.sqrt(a))
    close(ff.vmap(ff.jacfwd(newton))(a), 0.5 / np.sqrt(a), rtol=1e-7)
    close(ff.jvp(ff.vmap(newton), (a,), (np.ones(3),))[1], 0.5 / np.sqrt(a), rtol=1e-7)


def test_reverse_mode_of_while_loop_needs_known_values():
    for f in (ff.jit(ff.grad(newton)), ff.grad(ff.jit(lambda a: newton(a) * 1.0))):
        with pytest.raises(UnsupportedError, match=r"write ff\.scan, ff\.fori_loop with known bounds"):
            f(2.0)
    with pytest.raises(UnsupportedError, match="while_loop: reverse mode"):
        ff.vmap(ff.grad(newton))(np.array([2.0, 3.0]))
    assert trace_depth() == 0


def test_reverse_mode_of_a_loop_with_several_carries():
    def f(x, w):
        def body(c):
            n, u, fixed, unused = c
            return n + 1, np.tanh(u @ w) + fixed, fixed, unused * 2

        n, u, _, _ = ff.while_loop(lambda c: c[0] < 4, body, (0, x, x * 2, np.ones(2)))
        return u * n

    check_grads(f, (H, W), order=2)
    with ff.disable_jit():
        expected = ff.grad(lambda x, w: np.sum(f(x, w)), argnums=(0, 1))(H, W)
    close(ff.grad(lambda x, w: np.sum(f(x, w)), argnums=(0, 1))(H, W), expected)
    check_grads(lambda x: ff.while_loop(lambda c: c[0] < 0, lambda c: (c[0] + 1, c[1] * x), (0, x))[1], (H,), order=1)


def test_while_loop_with_bounds_that_are_mapped():
    def f(n, x):
        return ff.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 1.5, c[2]), (0, x, H))

    check_vmap(f, (np.array([0, 3, 1]), np.array([1.0, 2.0, 3.0])))
    check_vmap(f, (2, np.array([1.0, 2.0, 3.0])), (None, 0))
    check_vmap(f, (np.array([0, 3, 1]), 2.0), (0, None))
    close(ff.vmap(f, axis_size=0)(np.zeros(0, int), np.zeros(0))[1], np.zeros(0))


def test_while_loop_errors():
    with pytest.raises(ShapeError, match=r"must return one boolean of shape \(\)"):
        ff.while_loop(lambda c: c > 0, lambda c: c, H)
    with pytest.raises(ShapeError, match=r"must return one boolean"):
        ff.while_loop(lambda c: c, lambda c: c, 1.0)
    with pytest.raises(ShapeError, match=r"must return one boolean"):
        ff.while_loop(lambda c: (), lambda c: c, 1.0)
    with pytest.raises(ShapeError, match=r"the carry, leaf '0': float64\[3\] comes in, float64\[2\] goes out"):
        ff.while_loop(lambda c: True, lambda c: (c[0][:2], c[1]), (H, 0))
    with pytest.raises(TreeError, match="must return a carry of the structure that it takes"):
        ff.while_loop(lambda c: True, lambda c: (c, c), H)
    with pytest.raises(ConcretizationError):
        ff.while_loop(lambda c: c < 3, lambda c: c + 1 if c > 0 else c, np.int64(0))


# -- loops with bounds --------------------------------------------------------------------------


def test_fori_loop_is_the_loop():
    def run(lower, upper, h):
        return ff.fori_loop(lower, upper, lambda i, h: np.tanh(h * i + W[0]), h)

    for lower, upper in ((0, 4), (2, 5), (-3, 1), (3, 3), (5, 2), (np.int32(1), np.int64(3))):
        expected = H
        for i in range(int(lower), int(upper)):
            expected = np.tanh(expected * i + W[0])

        close(run(lower, upper, H), expected)
        close(ff.jit(run)(lower, upper, H), expected)  # traced bounds
        close(ff.jit(run, static_argnums=(0, 1))(int(lower), int(upper), H), expected)
        check_grads(lambda h: run(lower, upper, h), (H,), order=1)  # noqa: B023
        with ff.disable_jit():
            close(run(lower, upper, H), expected)
    close(ff.vmap(run, (None, 0, None))(0, np.array([0, 2]), H), np.stack([H, run(0, 2, H)]))
    close(ff.jvp(lambda h: ff.jit(run)(0, 3, h), (H,), (H,)), ff.jvp(lambda h: run(0, 3, h), (H,), (H,)))


def test_the_index_of_fori_loop():
    def body(i, seen):
        assert (i.shape, i.dtype) == ((), np.int64)
        return ff.at(seen)[i].set(i * 2)

    close(ff.fori_loop(1, 4, body, np.zeros(5, int)), np.array([0, 2, 4, 6, 0]))
    close(
        ff.fori_loop(0, 2, lambda i, t: {"a": t["a"] + i, "b": None}, {"a": 1, "b": None}),
        {"a": np.int64(2), "b": None},
    )
    for bad in (1.5, "3"):
        with pytest.raises((TypeError, ArgumentError)):
            ff.fori_loop(0, bad, lambda i, x: x, 0)


def test_map():
    def f(x):
        return {"n": np.sqrt(np.sum(x * x)), "x": (x, None)}

    close(ff.map(f, XS), stacked([f(x) for x in XS]))
    for size in (1, 2, 5, 9):
        close(ff.map(f, XS, batch_size=size), stacked([f(x) for x in XS]))
    close(ff.jit(lambda xs: ff.map(f, xs))(XS), stacked([f(x) for x in XS]))
    close(ff.map(lambda p: p["a"] * p["b"], {"a": XS, "b": np.arange(5)}), XS * np.arange(5)[:, None])
    check_grads(lambda xs: ff.map(f, xs), (XS,), order=2)
    check_vmap(lambda xs: ff.map(f, xs), (np.stack([XS, -XS]),))
    assert ff.map(lambda x: x.sum(), np.zeros((0, 3))).shape == (0,)


# -- choices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [-7, 0, 1, 2, 9])
def test_switch(index):
    branches = [lambda x, y: {"v": x * y, "n": 0}, lambda x, y: {"v": np.sin(x), "n": 1}, lambda x, y: {"v": y, "n": 2}]
    expected = tree.map(np.asarray, branches[min(max(index, 0), 2)](H, XS[0]))
    for i in (index, np.int32(index), np.asarray(index)):
        close(ff.switch(i, branches, H, XS[0]), expected)
        close(ff.jit(lambda i, x, y: ff.switch(i, branches, x, y))(i, H, XS[0]), expected)
        with ff.disable_jit():
            close(tree.map(np.asarray, ff.switch(i, branches, H, XS[0])), expected)
    check_grads(lambda x, y: ff.switch(index, branches, x, y)["v"], (H, XS[0]), order=2)
    check_grads(ff.jit(lambda x, y: ff.switch(index, branches, x, y)["v"]), (H, XS[0]), order=2)
    check_grads(
        lambda x, y: ff.jit(ff.switch, static_argnums=1)(index, tuple(branches), x, y)["v"], (H, XS[0]), order=2
    )
    check_vmap(lambda i, x: ff.switch(i, branches, x, x), (np.array([0, index, 2]), XS[:3]))


@pytest.mark.parametrize("pred", [True, False, np.bool_(True), 0, 2, 0.0, -1.5, np.array(True), np.float32(0)])
def test_cond(pred):
    def f(pred, x, y):
        return ff.cond(pred, lambda x, y: (x * y, None), lambda x, y: (x - y, None), x, y)

    expected = (H * XS[0] if pred else H - XS[0], None)
    close(f(pred, H, XS[0]), expected)
    close(ff.jit(f)(pred, H, XS[0]), expected)
    check_grads(lambda x, y: f(pred, x, y), (H, XS[0]), order=2)
    check_grads(lambda x, y: ff.jit(f)(pred, x, y), (H, XS[0]), order=2)
    close(ff.vmap(f, (0, 0, None))(np.stack([pred, pred]), XS[:2], H)[0], np.stack([f(pred, x, H)[0] for x in XS[:2]]))


def test_cond_without_operands_and_with_trees():
    assert ff.cond(True, lambda: 1.0, lambda: 2.0) == 1.0
    assert ff.cond(False, lambda: {"a": None}, lambda: {"a": None}) == {"a": None}
    out = ff.cond(H[0] > 9, lambda s: s, lambda s: State(s.hidden * 2, s.count + 1, s.name), State(H, 3, "gru"))
    close(out, State(H * 2, np.int64(4), "gru"))


def test_a_predicate_of_the_differentiated_argument():
    def f(x):
        return ff.cond(x > 0, lambda x: x * x, lambda x: -x, x)

    for g in (ff.grad(f), ff.jit(ff.grad(f)), ff.grad(ff.jit(f)), ff.jacfwd(f)):
        assert [float(g(x)) for x in (2.0, -3.0)] == [4.0, -1.0]
        close(ff.vmap(g)(np.array([2.0, -3.0])), np.array([4.0, -1.0]))
    close(ff.vmap(ff.grad(ff.grad(f)))(np.array([2.0, -3.0])), np.array([2.0, 0.0]))


def test_only_the_chosen_branch_runs():
    def f(x):
        return ff.cond(x > 0, lambda x: np.log(x), lambda x: x, x)

    for g in (f, ff.jit(f), ff.grad(f), ff.jit(ff.grad(f))):
        assert np.isfinite(g(-1.0))  # the logarithm of a negative number would warn


def test_branches_of_a_batch_do_not_read_what_others_left():
    """All branches run for all examples, on each example's own values: nothing divides by another branch's zero."""

    def f(x):
        return ff.cond(x > 0.2, np.sin, lambda x: np.sqrt(1 + x * x) / (2 + x), x)

    xs = np.array([0.1, 0.5, -0.3])
    for g in (ff.grad(f), ff.grad(ff.grad(f)), ff.jacfwd(ff.grad(f)), ff.grad(ff.jit(f))):
        close(ff.vmap(g)(xs), np.stack([g(x) for x in xs]))
        close(ff.jit(ff.vmap(g))(xs), np.stack([g(x) for x in xs]))


def test_branches_that_differ():
    cases = [
        (lambda x: x, lambda x: (x, x), TreeError, "all branches must return the same structure"),
        (lambda x: x, lambda x: x[:2], ShapeError, r"float64\[2\].*float64\[3\]|float64\[3\].*float64\[2\]"),
        (lambda x: x, lambda x: x.astype(np.float32), ShapeError, r"float32\[3\].*float64\[3\]|float64.*float32"),
        (lambda x: x[0], lambda x: 1j, ShapeError, "all branches must return the same shapes and dtypes"),
        (lambda x: np.int64(1), lambda x: 2.5, ShapeError, "all branches must return the same shapes and dtypes"),
        (lambda x: {"a": x}, lambda x: {"b": x}, TreeError, "'a'.*'b'|'b'.*'a'"),
    ]
    for a, b, error, message in cases:
        for p in (True, False):
            with pytest.raises(error, match=message):
                ff.cond(p, a, b, H)
            with pytest.raises(error, match=message):
                ff.jit(lambda x, a=a, b=b: ff.cond(x[0] > 0, a, b, x))(H)
            with pytest.raises(error, match=message):
                ff.switch(int(p), [a, a, b], H)


def test_choices_that_are_none():
    with pytest.raises(ShapeError, match=r"cond: pred must be one boolean of shape \(\), got bool\[3\].*np.where"):
        ff.cond(H > 0, np.sin, np.cos, H)
    with pytest.raises(ShapeError, match="switch: index must be one integer"):
        ff.switch(1.0, [np.sin], H)
    with pytest.raises(ShapeError, match="switch: index must be one integer"):
        ff.switch(np.array([0, 1]), [np.sin, np.cos], H)
    with pytest.raises(ArgumentError, match="at least one branch"):
        ff.switch(0, [], H)
    with pytest.raises(ArgumentError, match="the branches must be functions, got a float"):
        ff.cond(True, 1.0, np.sin, H)
    with pytest.raises(ArgumentError, match=r"cond: operands, leaf '0' is a str"):
        ff.cond(True, lambda x: x, lambda x: x, "text")


@pytest.mark.parametrize("size", [1, 2, 3, 6, 7])
def test_map_in_batches(size):
    def f(x):
        return {"y": np.sin(x["a"]) * 2, "n": np.sum(x["a"])}

    xs = {"a": np.arange(12.0).reshape(6, 2)}
    want = ff.map(f, xs)
    for got in (ff.map(f, xs, batch_size=size), ff.jit(lambda xs: ff.map(f, xs, batch_size=size))(xs)):
        assert ff.tree.structure(got) == ff.tree.structure(want)
        np.testing.assert_allclose(got["y"], want["y"], rtol=1e-15)
        np.testing.assert_allclose(got["n"], want["n"], rtol=1e-15)


def test_map_needs_batches_of_something():
    with pytest.raises(ff.errors.ArgumentError, match="batch_size must be at least 1, got 0"):
        ff.map(lambda x: x, np.ones(3), batch_size=0)
