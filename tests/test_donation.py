"""Donated arguments: answers are the same, lie in their memory where that is safe, and nobody else's is touched."""

import numpy as np
import pytest
from drawing import Draws
from hypothesis import given
from hypothesis import strategies as st

import fnflare as ff
from fnflare import optim, train, tree
from fnflare.compiler.donation import apart
from fnflare.errors import ArgumentError

pytest.importorskip("llvmlite")

RNG = Draws(3)
A = RNG.standard_normal((6, 6))


def copied(t):
    return tree.map(lambda x: np.array(x) if np.ndim(x) else x, t)


def same(got, expected):
    assert tree.structure(got) == tree.structure(expected)
    for x, y in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13)


def overwrites(f, *args):
    """Whether a function of one donated array answers in its memory, in the general and in the shortest way."""
    jitted = ff.jit(f, donate_argnums=0)
    whether = []
    for _ in range(4):
        given_array = args[0].copy()
        out = jitted(given_array, *args[1:])
        same(out, ff.jit(f)(*args))
        whether.append(out is given_array)
        assert out is given_array or not np.shares_memory(out, given_array)
    assert len(set(whether)) == 1
    return whether[0]


# -- what is overwritten ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "f",
    [
        lambda p, g: p - 0.1 * g,
        lambda p, g: np.tanh(p) * p + np.exp(-p) * g,
        lambda p, g: np.where(p > 0, p, g),
        lambda p, g: g @ g,
        lambda p, g: p.T @ g + 1 - p.T @ g * 2,
        lambda p, g: np.sum(p) + g,
        lambda p, g: ff.scan(lambda c, x: (c + x @ g, None), np.zeros(6), p)[0] + g,
    ],
)
def test_memory_that_is_read_before_it_is_written(f):
    assert overwrites(f, A, A + 1)


@pytest.mark.parametrize(
    "f",
    [
        lambda p, g: p.T + g,
        lambda p, g: p[::-1] * 2 + g,
        lambda p, g: np.roll(p, 1, 1) + p,
        lambda p, g: p[0] + g,
        lambda p, g: p + p[:, :1],
        lambda p, g: p @ g,
        lambda p, g: np.cumsum(p, 0),
        lambda p, g: p + p.T * g,
        lambda p, g: np.pad(p, 1)[2:, :-2] + p,
        lambda p, g: ff.at(p)[1:].set(p[:-1]) * g,
        lambda p, g: np.concatenate([p[3:], p[:3]]) + 1,
        lambda p, g: ff.fori_loop(0, 4, lambda i, c: ff.at(c)[i].set(c[i + 1] * 2), p),
        lambda p, g: p[(g[0] > 0).astype(int)[:, None] + np.arange(6) % 3, np.arange(6)] + p,
    ],
)
def test_memory_that_is_still_read(f):
    overwrites(f, A, A + 1)


def test_numbers_that_say_where_others_lie():
    places = np.random.default_rng(0).permutation(4096)
    assert not overwrites(lambda p: p[p], places)
    assert not overwrites(lambda p: p[p] + 1, places)


def test_rows_that_are_read_twice():
    overwrites(lambda p, g: (p - np.mean(p, 1, keepdims=True)) / np.sqrt(np.var(p, 1, keepdims=True) + 1) * g, A, A + 1)
    overwrites(lambda p, g: np.exp(p) / np.sum(np.exp(p), 1, keepdims=True) + p * np.max(p, 1, keepdims=True), A, A)
    overwrites(lambda p, g: p / np.sqrt(np.sum(p * p, 0, keepdims=True)), A, A)
    large = RNG.standard_normal((3, 20_000))
    overwrites(lambda p, g: np.exp(p) / np.sum(np.exp(p), 1, keepdims=True) + p, large, large)


OPERATIONS = [
    lambda a, b: np.tanh(a) + b,
    lambda a, b: a * 0.5 - b,
    lambda a, b: a.T + b,
    lambda a, b: np.tanh(a @ b),
    lambda a, b: a[::-1] - b[:, ::-1],
    lambda a, b: np.roll(a, 1, 0) * 0.5 + b,
    lambda a, b: np.exp(a) / np.sum(np.exp(a), 1, keepdims=True) + np.max(b, 0),
    lambda a, b: a - np.mean(b, 0),
    lambda a, b: a + b[:1],
    lambda a, b: np.cumsum(a, 1) * 0.1 + b,
    lambda a, b: ff.at(np.tanh(a))[1:3].set(b[2:4]),
    lambda a, b: np.concatenate([a[:2], b[2:]]),
    lambda a, b: ff.scan(lambda c, x: (np.tanh(c + x), c), a[0], b)[1],
    lambda a, b: np.stack([a[0], *[b[i] for i in (2, 0, 4, 1, 3)]]),
    lambda a, b: a,
]
STEPS = st.lists(st.tuples(st.sampled_from(range(len(OPERATIONS))), st.integers(0, 9), st.integers(0, 9)), max_size=7)


@given(STEPS, st.lists(st.integers(0, 9), min_size=1, max_size=4), st.sets(st.integers(0, 2)))
def test_random_programs(steps, ends, donated):
    def f(*arrays):
        found = list(arrays)
        for which, i, j in steps:
            found.append(np.tanh(OPERATIONS[which](found[i % len(found)], found[-1 - j % len(found)])))
        return [found[-1 - k % len(found)] for k in ends]

    args = [A, A.T + 1, A * 2]
    expected = ff.jit(f)(*args)
    jitted = ff.jit(f, donate_argnums=sorted(donated))
    for _ in range(3):
        given_arrays = copied(args)
        same(jitted(*given_arrays), expected)
        for i in {0, 1, 2} - donated:
            np.testing.assert_array_equal(given_arrays[i], args[i])


@pytest.mark.parametrize(
    "optimizer", [optim.sgd(0.1), optim.sgd(0.1, momentum=0.9), optim.adam(0.01), optim.adamw(0.01)]
)
def test_steps_of_optimisers_need_no_memory(optimizer):
    def step(params, state, x):
        grads = ff.grad(lambda p: np.sum(np.square(np.tanh(np.tanh(x @ p["w"] + p["b"]) @ p["v"]))))(params)
        updates, state = optimizer.update(grads, state, params)
        return optim.apply_updates(params, updates), state

    params = {"w": RNG.standard_normal((6, 5)), "b": np.zeros(5), "v": RNG.standard_normal((5, 5))}
    usual, in_place = ff.jit(step), ff.jit(step, donate_argnums=(0, 1))
    a, b = (params, optimizer.init(params)), copied((params, optimizer.init(params)))
    for _ in range(5):
        before = {id(x) for x in tree.leaves(b) if np.ndim(x)}
        a, b = usual(*a, A), in_place(*b, A)
        same(b, a)
        assert {id(x) for x in tree.leaves(b) if np.ndim(x)} == before


def test_train_steps():
    def loss(params, batch, key):
        return np.mean(np.square(np.tanh(batch @ params["w"]) @ params["v"]))

    optimizer = optim.adam(0.01)
    usual = train.make_step(loss, optimizer, jit=True)
    in_place = train.make_step(loss, optimizer, jit=True, donate=True)
    params = {"w": RNG.standard_normal((6, 5)), "v": RNG.standard_normal((5, 5))}
    a, b = (params, optimizer.init(params)), copied((params, optimizer.init(params)))
    for _ in range(4):
        before = b[0]["w"]
        a, b = usual(*a, A)[:2], in_place(*b, A)[:2]
        same(b, a)
        assert b[0]["w"] is before
    with pytest.raises(ArgumentError, match="make the step without donate=True"):
        train.fit(in_place, *b, [A])
    with pytest.raises(ArgumentError, match="pass jit=True too"):
        train.make_step(loss, optimizer, donate=True)


# -- what is not -------------------------------------------------------------------------------------


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize(
    "array",
    [
        read_only(A),
        np.stack([A, A])[0],
        np.asfortranarray(A),
        np.broadcast_to(A[0], A.shape),
        np.repeat(A, 2, 1)[:, ::2],
    ],
)
def test_memory_that_is_not_the_arguments_own(array):
    f = ff.jit(lambda p: p * 2 + 1, donate_argnums=0)
    f(A.copy())
    f(A.copy())
    before = np.array(array)
    out = f(array)
    np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(out, before * 2 + 1)
    assert not np.shares_memory(out, array)


def test_arguments_that_share_memory():
    f = ff.jit(lambda p, q, g: (p + g, q * 2 + p), donate_argnums=(0, 1))

    def expected(p, q, g):
        return p + g, q * 2 + p

    for _ in range(4):
        p, q, g = A.copy(), A + 1, A * 3
        same(f(p, q, g), expected(A, A + 1, A * 3))
        p = A.copy()
        same(f(p, p, A), expected(A, A, A))
        same(f(p, A + 1, p), expected(A, A + 1, A))
        np.testing.assert_array_equal(p, A)
        same(f(p, A + 1, p.T), expected(A, A + 1, A.T))
        same(f(p, p[::-1], p[:, ::-1]), expected(A, A[::-1], A[:, ::-1]))
        np.testing.assert_array_equal(p, A)
        long = np.concatenate([A, A])
        same(f(long[:6], long[3:9], long[6:]), expected(long[:6], long[3:9], long[6:]))


def test_arguments_apart():
    a, b = A.copy(), A + 1
    out = apart([a, b, a[1:], 2.0, np.float64(3)], frozenset({0, 1}))
    assert out[0] is not a and not np.shares_memory(out[0], a) and out[1] is b and out[2].base is a
    out = apart([a, a, b], frozenset({0, 1}))
    assert not np.shares_memory(out[0], out[1]) and out[2] is b


def test_constants_are_not_overwritten():
    start = A.copy()
    f = ff.jit(lambda p: p - 0.1 * (p - start), donate_argnums=0)
    p = start
    for k in range(4):
        p = f(p)
        np.testing.assert_allclose(p, A, err_msg=str(k))
    g = ff.jit(lambda p: (p * 2, start), donate_argnums=0)
    for _ in range(3):
        start[...] = A
        np.testing.assert_array_equal(g(start)[1], A)


def test_arguments_that_are_answers():
    f = ff.jit(lambda p, g: (p, p + g, g), donate_argnums=0)
    for _ in range(3):
        p = A.copy()
        a, b, _ = f(p, A)
        assert a is p
        np.testing.assert_array_equal(a, A)
        np.testing.assert_array_equal(b, A + A)


def test_answers_that_are_the_same():
    @ff.jit
    def plain(p):
        return p * 2

    def twice(p):
        y = plain(p)
        return y, y

    f = ff.jit(twice, donate_argnums=0)
    for _ in range(3):
        p = A.copy()
        a, b = f(p)
        same((a, b), (A * 2, A * 2))
        assert a is p and not np.shares_memory(a, b)


def test_numbers_and_other_dtypes():
    f = ff.jit(lambda p, n: (p.astype(np.float32) + 1, n + 1), donate_argnums=(0, 1))
    for _ in range(3):
        for n in (1.0, np.float64(1), np.array(1.0), np.ones(1)):
            p = A.copy()
            a, m = f(p, n)
            np.testing.assert_array_equal(p, A)
            np.testing.assert_array_equal(a, A.astype(np.float32) + 1)
            assert np.all(m == 2)


# -- how it is asked for -------------------------------------------------------------------------------


def test_names_and_positions():
    def f(params, x, *, state):
        return tree.map(lambda p, s: p + s * x, params, state), tree.map(lambda s: s * 2, state)

    for options in ({"donate_argnames": ("params", "state")}, {"donate_argnums": (0,), "donate_argnames": "state"}):
        for call in (lambda g, p, s: g(p, 2.0, state=s), lambda g, p, s: g(params=p, x=2.0, state=s)):
            g = ff.jit(f, **options)
            for _ in range(3):
                p, s = {"a": A.copy(), "b": [A + 1]}, {"a": A * 2, "b": [A * 3]}
                out = call(g, p, s)
                same(out, f({"a": A, "b": [A + 1]}, 2.0, state={"a": A * 2, "b": [A * 3]}))
                assert out[0]["a"] is p["a"] and out[1]["b"][0] is s["b"][0]


def test_with_static_arguments():
    g = ff.jit(lambda n, p, how="add": p + n if how == "add" else p * n, static_argnums=(0, 2), donate_argnums=-2)
    for n in (1, 1, 1, 2):
        p = A.copy()
        assert g(n, p, "times") is p
        np.testing.assert_array_equal(p, A * n)


def test_wrong_arguments():
    with pytest.raises(ArgumentError, match="there is no argument donate_argnums=3"):
        ff.jit(lambda x: x, donate_argnums=3)
    with pytest.raises(ArgumentError, match="there is no argument donate_argnames='y'"):
        ff.jit(lambda x: x, donate_argnames="y")
    with pytest.raises(ArgumentError, match=r"argument 0 of .* is static, so that it cannot be donated"):
        ff.jit(lambda x: x, static_argnums=0, donate_argnums=0)


def test_other_transforms_and_the_interpreter_leave_arguments_alone():
    f = ff.jit(lambda p: p * p + 1, donate_argnums=0)
    p = A.copy()
    np.testing.assert_allclose(ff.grad(lambda p: np.sum(f(p)))(p), 2 * A)
    np.testing.assert_allclose(ff.vmap(f)(p), A * A + 1)
    with ff.config.override(use_native=False):
        f(p)
    with ff.disable_jit():
        f(p)
    np.testing.assert_array_equal(p, A)
    assert f(p) is p
