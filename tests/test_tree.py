"""Pytrees: what is taken apart comes together again, paths, structures that differ, masks."""

import dataclasses
import functools
from collections import OrderedDict, defaultdict
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fnflare as ff
from fnflare import tree
from fnflare.errors import ArgumentError, TreeError


class Pair(NamedTuple):
    first: Any
    second: Any


@tree.register_dataclass
@dataclasses.dataclass
class Point:
    x: Any
    y: Any


@functools.partial(tree.register_dataclass, meta_fields=("name",))
@dataclasses.dataclass
class Named:
    value: Any
    name: str = "n"


class Bag:
    """A class of one's own, with a size that is not a leaf."""

    def __init__(self, items, label):
        self.items, self.label = list(items), label

    def __eq__(self, other):
        return isinstance(other, Bag) and (self.items, self.label) == (other.items, other.label)

    __hash__ = None


tree.register_node(Bag, lambda b: (b.items, b.label), lambda label, items: Bag(items, label))


class Box:
    def __init__(self, inside):
        self.inside = inside


tree.register_node(Box, lambda b: ((b.inside,), None), lambda _, c: Box(*c), keys=lambda _: ("inside",))

LEAVES = st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=2)
KEYS = st.text("abc", max_size=2)


def containers(inner):
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
        st.dictionaries(KEYS, inner, max_size=3).map(lambda d: defaultdict(list, d)),
        st.builds(Pair, inner, inner),
        st.builds(Point, inner, inner),
        st.builds(Named, inner, st.text(max_size=1)),
        st.builds(Bag, st.lists(inner, max_size=2), st.text(max_size=1)),
    )


TREES = st.recursive(LEAVES | st.none(), containers, max_leaves=12)


@given(TREES)
def test_unflatten_undoes_flatten(t):
    flat, structure = tree.flatten(t)
    assert tree.unflatten(structure, flat) == t
    assert structure.unflatten(iter(flat)) == t
    assert len(flat) == structure.num_leaves
    assert tree.leaves(t) == flat
    assert tree.structure(t) == structure


@given(TREES)
def test_structures_compare_and_hash_by_what_is_left_without_leaves(t):
    structure = tree.structure(t)
    other = tree.structure(tree.map(lambda _: object(), t))
    assert structure == other
    assert hash(structure) == hash(other)
    assert repr(structure) == repr(other)
    assert structure != tree.structure([t, t])


@given(TREES)
def test_map_keeps_the_structure_and_composes(t):
    assert tree.map(lambda x: x, t) == t
    assert tree.map(lambda x: (x, x)[0], tree.map(str, t)) == tree.map(str, t)
    assert tree.leaves(tree.map(lambda x, y: (str(x), y)[0], t, t)) == [str(x) for x in tree.leaves(t)]


@given(TREES)
def test_paths_name_every_leaf_once_in_order(t):
    pairs, structure = tree.flatten_with_path(t)
    assert [x for _, x in pairs] == tree.leaves(t)
    assert structure == tree.structure(t)
    paths = [path for path, _ in pairs]
    assert len(set(paths)) == len(paths)
    assert tree.leaves_with_path(t) == pairs
    assert tree.leaves(tree.map_with_path(lambda path, x: tree.path_str(path), t)) == [tree.path_str(p) for p in paths]


@given(TREES, st.integers(0, 10))
def test_partition_and_combine(t, modulus):

    def where(x):
        return isinstance(x, int) and x % (modulus + 1) == 0

    yes, no = tree.partition(t, where)
    assert tree.leaves(yes) == [x for x in tree.leaves(t) if where(x)]
    assert tree.leaves(no) == [x for x in tree.leaves(t) if not where(x)]
    assert tree.combine(yes, no) == tree.combine(no, yes) == t
    assert tree.partition(t, tree.map(where, t)) == (yes, no)


@given(st.recursive(hnp.arrays(st.sampled_from([np.float32, np.float64]), hnp.array_shapes(min_dims=0, min_side=0),
                               elements=st.floats(-100, 100, width=32)), containers, max_leaves=6))  # fmt: skip
def test_ravel_and_back(t):
    flat, unravel = tree.ravel(t)
    assert flat.ndim == 1
    assert flat.size == sum(x.size for x in tree.leaves(t))
    assert tree.equal(unravel(flat), t)
    doubled = unravel(flat * 2)
    assert tree.equal(doubled, tree.map(lambda x: x * 2, t))


@given(st.integers(0, 3), st.lists(KEYS, max_size=3, unique=True))
def test_transpose_turns_inside_out(n, keys):
    rows = [{k: (i, k) for k in keys} for i in range(n)]
    tagged = tree.map(str, rows)
    outer, inner = tree.structure([0] * n), tree.structure(dict.fromkeys(keys, (0, 0)))
    columns = tree.transpose(outer, inner, tagged)
    assert columns == {k: ([str(i) for i in range(n)], [str(k)] * n) for k in keys}
    if n:
        assert tree.transpose(inner, outer, columns) == tagged


def test_dicts_are_equal_whatever_their_order():
    a, b = {"z": 1, "a": 2}, {"a": 2, "z": 1}
    assert tree.flatten(a) == tree.flatten(b)
    assert tree.leaves(a) == [2, 1]
    assert tree.leaves(OrderedDict(z=1, a=2)) == [1, 2]
    assert tree.structure(OrderedDict(z=1, a=2)) != tree.structure(OrderedDict(a=2, z=1))
    with pytest.raises(TreeError, match="comparable"):
        tree.flatten({1: 0, "a": 0})


def test_none_is_an_empty_node():
    assert tree.leaves({"a": None, "b": (None, 1)}) == [1]
    assert tree.map(lambda x: x + 1, {"a": None, "b": 1}) == {"a": None, "b": 2}
    assert tree.leaves([None, 1], is_leaf=lambda x: x is None) == [None, 1]
    assert tree.structure(None).num_leaves == 0


def test_is_leaf_stops_the_descent():
    t = {"a": (1, 2), "b": [(3, 4), 5]}

    def pairs(x):
        return isinstance(x, tuple)

    assert tree.leaves(t, is_leaf=pairs) == [(1, 2), (3, 4), 5]
    assert tree.map(lambda x: 0, t, is_leaf=pairs) == {"a": 0, "b": [0, 0]}
    assert tree.structure(t, is_leaf=pairs) == tree.structure({"a": 0, "b": [0, 0]})
    assert tree.reduce(lambda a, b: a + b, {"a": (1,), "b": [(2, 3)]}, (), is_leaf=pairs) == (1, 2, 3)


def test_paths_of_every_kind_of_node():
    t = {"net": [Pair(1, Point(2, 3)), Named(4)], "bag": Bag([5], "l"), "box": Box(6), "o": OrderedDict(k=7)}
    paths = [tree.path_str(p) for p, _ in tree.leaves_with_path(t)]
    assert paths == ["bag/0", "box/inside", "net/0/first", "net/0/second/x", "net/0/second/y", "net/1/value", "o/k"]
    assert tree.leaves_with_path(3) == [((), 3)]


def test_subclasses_of_containers_are_leaves_unless_registered():
    class Special(dict):
        pass

    class Words(list):
        pass

    t = [Special(a=1), Words([1])]
    assert tree.leaves(t) == t


@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"a": (1, 2)}, r"at the root.*missing \['b'\]"),
        ({"a": (1, 2), "b": {"c": 3}, "d": 4}, r"unexpected \['d'\]"),
        ({"a": (1, 2, 3), "b": {"c": 3}}, "at 'a'"),
        ({"a": [1, 2], "b": {"c": 3}}, "at 'a': expected tuple, got list"),
        ({"a": (1, 2), "b": {"x": 3}}, r"at 'b': missing \['c'\] and unexpected \['x'\]"),
        ({"a": (1, 2), "b": None}, "at 'b': expected dict, got None"),
        ({"a": 1, "b": {"c": 3}}, "at 'a': expected tuple, got a leaf"),
        ((1, 2), "at the root: expected dict, got tuple"),
    ],
)
def test_map_names_the_first_path_that_differs(other, match):
    t = {"a": (1, 2), "b": {"c": 3}}
    with pytest.raises(TreeError, match=match):
        tree.map(lambda x, y: x, t, other)
    with pytest.raises(TreeError, match=match):
        tree.map_with_path(lambda p, x, y: x, t, other)
    with pytest.raises(TreeError, match=match):
        tree.map(lambda x, y, z: x, t, t, other)


def test_map_takes_a_prefix():
    assert tree.map(lambda m, sub: (m, sub), {"a": True, "b": False}, {"a": [1, 2], "b": {"c": 3}}) == {
        "a": (True, [1, 2]),
        "b": (False, {"c": 3}),
    }
    assert tree.map(lambda m, sub: len(sub), Named(0, "k"), Named([1, 2, 3], "k")) == Named(3, "k")
    with pytest.raises(TreeError, match="metadata"):
        tree.map(lambda x, y: x, Named(0, "k"), Named(0, "other"))


def test_partition_takes_a_mask_that_is_a_prefix():
    params = {"encoder": {"w": 1, "b": 2}, "head": {"w": 3}}
    trained, frozen = tree.partition(params, {"encoder": False, "head": True})
    assert trained == {"encoder": {"w": None, "b": None}, "head": {"w": 3}}
    assert tree.combine(trained, frozen) == params
    with pytest.raises(TreeError, match=r"missing \['head'\]|unexpected"):
        tree.partition(params, {"encoder": False})


def test_broadcast_spreads_a_prefix():
    params = {"encoder": {"w": 1, "b": [2, None]}, "head": (3, 4)}
    assert tree.broadcast({"encoder": "e", "head": ("w", "b")}, params) == {
        "encoder": {"w": "e", "b": ["e", None]},
        "head": ("w", "b"),
    }
    assert tree.broadcast(0, params) == tree.map(lambda _: 0, params)
    spread = tree.broadcast({"encoder": None, "head": 0}, params, is_leaf=lambda x: x is None)
    assert spread == {"encoder": {"w": None, "b": [None, None]}, "head": (0, 0)}
    with pytest.raises(TreeError, match=r"tree\.broadcast: at 'head': expected list, got tuple"):
        tree.broadcast({"encoder": 0, "head": [0, 0]}, params)


def test_gradient_with_respect_to_a_part():
    params = {"w": np.ones(2), "steps": 3, "name": "model"}
    floats, rest = tree.partition(params, lambda x: isinstance(x, np.ndarray))
    g = ff.grad(lambda p: np.sum(tree.combine(p, rest)["w"] * rest["steps"]))(floats)
    assert tree.equal(g, {"w": np.full(2, 3.0), "steps": None, "name": None})


def test_unflatten_counts_the_leaves():
    with pytest.raises(TreeError, match="2 leaves, got 1"):
        tree.unflatten(tree.structure((0, 0)), [1])
    with pytest.raises(TreeError, match="2 leaves, got 3"):
        tree.unflatten(tree.structure((0, 0)), [1, 2, 3])


def test_unravel_checks_the_length():
    _, unravel = tree.ravel({"w": np.ones((2, 2))})
    with pytest.raises(ArgumentError, match=r"\(4,\).*\(3,\)"):
        unravel(np.ones(3))
    empty, back = tree.ravel({"a": None})
    assert empty.shape == (0,)
    assert back(empty) == {"a": None}


def test_ravel_is_differentiable():
    params = {"w": np.ones((2, 2)), "b": np.zeros(2, np.float32)}
    _, unravel = tree.ravel(params)
    g = ff.grad(lambda p: np.sum(tree.ravel(p)[0] ** 2) + np.sum(unravel(tree.ravel(p)[0])["w"]))(params)
    np.testing.assert_array_equal(g["w"], np.full((2, 2), 3.0))
    assert g["b"].dtype == np.float32


def test_transpose_names_what_does_not_fit():
    with pytest.raises(TreeError, match="missing"):
        tree.transpose(tree.structure([0, 0]), tree.structure({"a": 0}), [{"a": 1}, {}])
    with pytest.raises(TreeError, match=r"at 'a': unexpected \[1\]"):
        tree.transpose(tree.structure([0, 0]), tree.structure({"a": [0]}), [{"a": [1]}, {"a": [2, 3]}])
    with pytest.raises(TreeError, match="expected list, got tuple"):
        tree.transpose(tree.structure([0, 0]), tree.structure({"a": 0}), ({"a": 1}, {"a": 1}))


def test_reduce_and_all():
    t = {"a": 1, "b": (2, None, [3])}
    assert tree.reduce(lambda a, b: a - b, t) == -4
    assert tree.reduce(lambda a, b: a - b, t, 10) == 4
    with pytest.raises(TypeError):
        tree.reduce(lambda a, b: a, {})
    assert tree.all({})
    assert tree.all({"a": np.array([1, 2]), "b": True})
    assert not tree.all({"a": np.array([1, 0])})


def test_equal():
    t = {"w": np.array([1.0, np.nan]), "n": 3}
    assert tree.equal(t, {"w": np.array([1.0, np.nan]), "n": 3}, t)
    assert not tree.equal(t, {"w": np.array([1.0, np.nan], np.float32), "n": 3})
    assert not tree.equal(t, {"w": np.array([1.0, 2.0]), "n": 3})
    assert not tree.equal(t, {"w": np.array([[1.0, np.nan]]), "n": 3})
    assert not tree.equal(t, {"w": np.array([1.0, np.nan])})
    assert not tree.equal(t, t, {"n": 3})
    assert tree.equal("text", "text")
    with pytest.raises(ArgumentError, match="two trees"):
        tree.equal(t)


def test_registering_twice_or_wrongly_is_refused():
    for cls in (Bag, Point, dict, tuple, list, OrderedDict):
        with pytest.raises(ArgumentError, match="already"):
            tree.register_node(cls, lambda b: ((), None), lambda aux, c: c)
    with pytest.raises(ArgumentError, match="dataclass"):
        tree.register_dataclass(int)

    @dataclasses.dataclass
    class Three:
        a: int
        b: int
        c: int

    with pytest.raises(ArgumentError, match=r"\['a', 'b', 'c'\]"):
        tree.register_dataclass(Three, data_fields=["a"], meta_fields=["b"])
    assert tree.leaves(Three(1, 2, 3)) == [Three(1, 2, 3)]


def test_metadata_belongs_to_the_structure():
    assert tree.structure(Named(1, "a")) != tree.structure(Named(1, "b"))
    assert tree.structure(Bag([1], "a")) == tree.structure(Bag([2], "a"))
    assert ff.grad(lambda p: p.value * len(p.name))(Named(2.0, "abc")) == Named(3.0, "abc")


def test_a_structure_is_no_equal_of_anything_else():
    assert tree.structure((1,)) != (1,)
    assert ff.ShapeDtypeStruct((2,), float) != (2,)
    assert ff.ShapeDtypeStruct((2,), float) == ff.ShapeDtypeStruct((2,), np.float64)


def test_a_structure_prints_as_what_it_is():
    t = {"a": (1,), "b": [None, Pair(1, 2)], "c": Named(1)}
    assert repr(tree.structure(t)) == "TreeDef({'a': (*,), 'b': [None, Pair(first=*, second=*)], 'c': Named(value=*)})"
