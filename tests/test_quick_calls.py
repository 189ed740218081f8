"""Calls of jitted functions by the shortest way: they are what the general way gives, and leave to it what is its."""

import collections
import dataclasses
import importlib
import threading
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import close

import fnflare as ff
from fnflare import tree
from fnflare.core import is_tracer, observing
from fnflare.errors import ArgumentError

pytest.importorskip("llvmlite")

from fnflare.compiler import fastcall

jit_module = importlib.import_module("fnflare.transforms.jit")

pytestmark = pytest.mark.skipif(not fastcall.available(), reason="not with this Python")

A, B = np.arange(6.0).reshape(2, 3), np.linspace(-1.0, 1.0, 6).reshape(2, 3)


class Pair(NamedTuple):
    first: object
    second: object


@dataclasses.dataclass
class Named:
    array: object
    name: str


tree.register_dataclass(Named, ["array"], ["name"])


class Meets(list):
    """A list of its own, registered as a node below."""


tree.register_node(Meets, lambda m: (m[1:], m[0]), lambda first, rest: Meets([first, *rest]))


@pytest.fixture
def general(monkeypatch):
    """The calls that go the general way."""
    calls = []
    execute = jit_module.execute

    def counted(program, args, *rest):
        calls.append(args)
        return execute(program, args, *rest)

    monkeypatch.setattr(jit_module, "execute", counted)
    return calls


def warm(f, *args, **kwargs):
    """A function after the calls that make its shortest way."""
    f(*args, **kwargs)
    f(*args, **kwargs)
    return f


def same(got, expected):
    assert tree.structure(got) == tree.structure(expected)
    for x, y in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        assert type(x) is type(y)
        np.testing.assert_array_equal(x, y, strict=True)


def doubled(t):
    return tree.map(lambda x: x * 2, t)


TREES = {
    "arrays": (A, B),
    "one": A,
    "none": None,
    "nothing": (),
    "no list": [],
    "no dict": {},
    "dict": {"w": A, "b": [B, None], "n": ()},
    "keys of all kinds": {(1, "a"): A, (0, "b"): B},
    "named tuple": Pair(A, {"x": Pair(B, A)}),
    "dataclass": Named({"deep": A}, "name"),
    "node": Meets(["first", A, (B, B)]),
    "ordered": collections.OrderedDict(z=A, a=B),
    "default": collections.defaultdict(list, z=A, a=B),
    "numbers": (1.5, 2, True, np.float32(3), np.array(4.0), np.array([5], np.int8)),
}


@pytest.mark.parametrize("name", TREES)
def test_structures_of_all_kinds(name, general):
    t = TREES[name]
    with ff.config.override(use_native=False):
        expected = ff.jit(lambda t, *, scale=1.0: (doubled(t), scale))(t)
    f = warm(ff.jit(lambda t, *, scale=1.0: (doubled(t), scale)), t)
    count = len(general)
    same(f(t), expected)
    assert len(general) == count
    warm(f, t, scale=A)
    count = len(general)
    close(f(t, scale=B), (doubled(t), B))
    assert len(general) == count
    close(f(t), (doubled(t), 1.0))


LEAVES = st.sampled_from([A, B, A[:1], np.float32(1.5), 2.5, 3, True, np.array(1, np.int32), np.zeros((0, 2))])
NODES = st.recursive(
    LEAVES | st.none(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
        st.builds(Pair, inner, inner),
        st.builds(Named, inner, st.sampled_from(["x", "y"])),
    ),
    max_leaves=8,
)


@given(st.lists(st.tuples(NODES, NODES), min_size=1, max_size=3), st.lists(st.integers(0, 2), max_size=8))
def test_calls_of_any_trees_in_any_order(pairs, order):
    f = ff.jit(lambda s, t: {"s": doubled(s), "t": (t, s)})
    fresh = [ff.jit(lambda s, t: {"s": doubled(s), "t": (t, s)})(*pair) for pair in pairs]
    for k in [n % len(pairs) for n in (0, 0, *order)]:
        same(f(*pairs[k]), fresh[k])


def test_a_deep_structure_is_left_to_the_general_way():
    deep = A
    for _ in range(150):
        deep = (deep,)
    f = warm(ff.jit(doubled), deep)
    same(f(deep), doubled(deep))


# -- what is not as it was --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        A[:1],
        A.T,
        A.astype(np.float32),
        A.astype(">f8"),
        A.astype(int),
        np.asfortranarray(A),
        np.float64(2),
        2.0,
        2,
        True,
        np.array(2.0),
        (A,),
        [A],
        {"x": A},
        None,
    ],
)
def test_another_argument(other):
    f = warm(ff.jit(doubled), A)
    same(f(other), ff.jit(doubled)(other))
    same(f(A), A * 2)


def test_python_numbers_are_weak():
    f = ff.jit(lambda x, s: x * s)
    x = np.ones(3, np.float32)
    for s in (2.0, np.float64(2.0), np.array(2.0), 2, np.int64(2), True, np.True_, 2j, np.float32(2), 2.0, 2):
        for _ in range(3):
            same(f(x, s), ff.jit(lambda x, s: x * s)(x, s))
    assert f(x, 2.0).dtype == np.float32 and f(x, np.float64(2.0)).dtype == np.float64
    assert f(x, 2**40).dtype == np.float32
    with pytest.raises(OverflowError):
        f(np.ones(3, np.int64), 2**70)


def test_keys_and_lengths_of_containers():
    f = warm(ff.jit(doubled), {"a": A, "b": B})
    others = [{"a": A, "c": B}, {"a": A}, {"a": A, "b": B, "c": A}, {"a": A, "b": None}]
    for t in (*others, collections.OrderedDict(a=A, b=B)):
        same(f(t), doubled(t))
    same(f({"b": B, "a": A}), {"a": A * 2, "b": B * 2})
    g = warm(ff.jit(doubled), (A, [B]))
    for t in ((A, (B,)), (A, [B, B]), (A,), [A, [B]], Pair(A, [B])):
        same(g(t), doubled(t))
    with pytest.raises(TypeError):
        g((A, [B]), A)
    with pytest.raises(TypeError):
        g()


def test_metadata_of_nodes():
    f = warm(ff.jit(lambda n: Named(n.array * len(n.name), n.name)), Named(A, "two"))
    same(f(Named(A, "four")), Named(A * 4, "four"))
    same(f(Named(A, "two")), Named(A * 3, "two"))


def test_answers_with_equal_keys_of_other_types():
    for key in (1, True, 1.0):
        f = warm(ff.jit(lambda x, key=key: {key: x + 1}), A)
        (got,) = f(A)
        assert type(got) is type(key)


def test_keywords_in_any_order():
    f = warm(ff.jit(lambda x, y=1.0, z=2.0: x * y - z), A, y=B, z=A)
    close(f(A, z=A, y=B), A * B - A)
    close(f(A, z=B), A - B)
    close(f(A, B), A * B - 2)
    close(f(x=A), A - 2)
    with pytest.raises(TypeError):
        f(A, y=B, q=A)


def test_static_arguments(general):
    f = ff.jit(lambda x, n, *, how="add": x * n if how == "times" else x + n, static_argnums=1, static_argnames="how")
    for n in (2, 2.0, True, (1, 2), None):
        for how in ("add", "times"):
            if n is None or type(n) is tuple:
                continue
            for _ in range(3):
                same(f(A, n, how=how), A * n if how == "times" else A + n)
            before = len(general)
            f(A, n, how=how)
            assert len(general) == before
    same(f(A, 1), A + 1)
    same(f(A, 1), A + 1)
    assert f(A.astype(int), 1).dtype == int and f(A.astype(int), 1.0).dtype == float
    zero = ff.jit(lambda x, s: np.copysign(x, s), static_argnums=1)
    for s in (0.0, -0.0, 0.0):
        for _ in range(3):
            same(zero(A, s), np.copysign(A, s))
    with pytest.raises(ArgumentError, match="not hashable"):
        f(A, [1])


def test_static_arguments_that_change_within():
    class Mode:
        def __init__(self, number):
            self.number = number

        def __eq__(self, other):
            return isinstance(other, Mode) and self.number == other.number

        def __hash__(self):
            return hash(self.number)

    f = ff.jit(lambda x, mode: x + mode.number, static_argnums=1)
    for number in (1, 1, 1, 2, 2, 2, 1):
        close(f(A, Mode(number)), A + number)


def test_closures_are_looked_at(general):
    scale = 2.0

    def f(x):
        return x * scale

    jitted = warm(ff.jit(f), A)
    count = len(general)
    close(jitted(A), A * 2)
    assert len(general) == count
    scale = 3.0
    close(jitted(A), A * 3)
    del scale
    with pytest.raises(NameError):
        jitted(A)
    scale = 2.0
    close(jitted(A), A * 2)


# -- what stands around ---------------------------------------------------------------------------------


def test_transforms_see_the_program():
    f = warm(ff.jit(lambda x: np.sum(x * x)), A)
    close(ff.grad(f)(A), 2 * A)
    close(ff.vmap(f)(A), np.sum(A * A, 1))
    assert "multiply" in str(ff.make_program(f)(A))
    seen = []
    g = ff.jit(lambda x, y: (seen.append(is_tracer(x)), x * y)[1])
    warm(g, A, B)
    close(ff.grad(lambda x: np.sum(g(x, B)))(A), B)
    close(ff.grad(lambda x: np.sum(g(A, B) + x))(A), np.ones_like(A))


def test_settings_are_looked_at(general):
    f = warm(ff.jit(lambda x: x + 1), A)
    count = len(general)
    with ff.config.override(use_native=False):
        f(A)
    assert len(general) == count + 1
    runs = []
    g = warm(ff.jit(lambda x: (runs.append(1), x + 1)[1]), A)
    with ff.disable_jit():
        g(A)
    assert len(runs) == 2
    calls = []
    with observing(calls.append):
        g(A)
    assert [c.prim.name for c in calls] == ["add"]


def test_answers_are_the_callers_own():
    constant = np.arange(3.0)
    f = warm(ff.jit(lambda x, y: (x, x, constant, x + 1, np.float32(2), 1.5, y, (y,))), A, 1.0)
    first, second = f(A, 1.0), f(A, 1.0)
    assert first[0] is A and first[1] is not A and not np.shares_memory(first[1], A)
    first[2][...] = first[3][...] = 7
    np.testing.assert_array_equal(second[2], constant)
    np.testing.assert_array_equal(second[3], A + 1)
    assert (type(first[4]), type(first[5]), first[6:]) == (np.float32, float, (1.0, (1.0,)))

    @ff.jit
    def twice(x):
        y = x * 2
        return y, y, np.sum(y), np.sum(y)

    a, b, s, t = warm(twice, A)(A)
    assert not np.shares_memory(a, b) and s == t == 2 * A.sum()
    np.testing.assert_array_equal(a, b)
    b[...] = 0
    np.testing.assert_array_equal(a, A * 2)


def test_programs_that_are_not_native_as_a_whole():
    f = warm(ff.jit(lambda x: np.sort(np.exp(x)) + 1), A)
    close(f(A), np.sort(np.exp(A)) + 1)


def test_threads_that_call_one_function_with_arguments_of_all_kinds():
    f = ff.jit(lambda t: doubled(t))
    trees = [A, (A, B), {"a": A}, A[:1], 2.0, [B, 3]]
    wrong = []

    def run(offset):
        for k in range(400):
            t = trees[(k // 5 + offset) % len(trees)]
            got = tree.leaves(f(t))
            if not all(np.array_equal(x, 2 * y) for x, y in zip(got, tree.leaves(t), strict=True)):
                wrong.append(t)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_signatures_in_turn(general):
    f = ff.jit(doubled)
    trees = [A, A[0], (A, B), {"a": A}]
    for t in trees * 2:
        f(t)
    count = len(general)
    for t in trees * 3:
        same(f(t), doubled(t))
    assert len(general) == count
    more = [np.ones(n) for n in range(1, 8)]
    for t in more * 4:
        same(f(t), doubled(t))
