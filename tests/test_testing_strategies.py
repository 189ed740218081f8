"""The strategies of `fnflare.testing`: what they draw, what it shrinks to, and that Hypothesis comes only with them."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

import fnflare as ff
from fnflare import nn, testing, tree

MODEL = nn.serial(hidden=nn.Dense(3), act=nn.Tanh, out=nn.Dense(2))


@given(testing.shapes(min_dims=1, max_dims=2, min_side=0, max_side=3))
def test_shapes(shape):
    assert type(shape) is tuple
    assert 1 <= len(shape) <= 2
    assert all(0 <= n <= 3 for n in shape)


@given(st.data())
def test_arrays(data):
    dtype = np.dtype(data.draw(st.sampled_from(["?", "i1", "u2", "i8", "f2", "f4", "f8", "c8", "c16", ">f4"])))
    shape = data.draw(testing.shapes(min_side=0, max_side=5))
    x = data.draw(testing.arrays(shape, dtype, bound=3, generic=data.draw(st.booleans())))
    assert (x.shape, x.dtype) == (shape, dtype)
    assert np.all(np.isfinite(x))


@given(testing.arrays((3, 2), np.float16))
def test_arrays_are_short_numbers_within_the_bound(x):
    assert np.all(np.abs(x) <= 4)
    assert np.array_equal(x * 16, np.round(x * 16))


@given(testing.arrays((3, 4), np.float32, generic=True))
def test_generic_arrays_have_neither_zeros_nor_ties(x):
    assert np.all(x)
    assert len(np.unique(x)) == x.size


def test_arrays_shrink():
    small = find(testing.arrays(), lambda x: x.size > 2 and np.any(x))
    assert small.size in (3, 4)  # a square of 2 is as plain as a row of 3
    assert sorted(np.abs(small).reshape(-1).tolist())[-2:] == [0, 1 / 16]
    large = find(testing.arrays((5, 5)), lambda x: np.max(x) > 1)
    assert np.max(large) == 1.0625


@given(testing.pytrees(testing.arrays((2,))))
def test_pytrees_are_trees_of_their_leaves(t):
    leaves, structure = tree.flatten(t)
    assert all(leaf.shape == (2,) for leaf in leaves)
    assert tree.equal(tree.unflatten(structure, leaves), t)


def test_pytrees_shrink_to_a_leaf():
    assert find(testing.pytrees(st.just(1.5)), lambda t: tree.leaves(t)) == 1.5
    assert find(testing.pytrees(st.just(1.5)), lambda t: isinstance(t, dict)) == {}


@given(testing.keys())
def test_keys(key):
    assert ff.random.normal(key, (2,)).shape == (2,)


@given(testing.params_for(MODEL, (-1, 4), dtype=np.float64))
def test_params_for_has_the_structure_that_init_gives(params):
    like = MODEL.init(ff.random.key(0), (-1, 4))[1]
    assert tree.structure(params) == tree.structure(like)
    assert tree.map(np.shape, params) == tree.map(np.shape, like)
    assert all(leaf.dtype == np.float64 for leaf in tree.leaves(params))


def test_params_for_moves_biases_and_shrinks_to_what_init_gives():
    params = find(testing.params_for(MODEL, (-1, 4)), lambda p: np.any(p["out"]["b"]))
    assert np.all(params["hidden"]["b"])
    params = find(testing.params_for(MODEL, (-1, 4)), lambda p: True)
    assert tree.equal(params, MODEL.init(ff.random.key(0), (-1, 4))[1])


@given(testing.batches(((-1, -1, 3), (-1, 2)), max_side=3))
def test_batches_of_several_inputs_agree(inputs):
    a, b = inputs
    assert a.shape[2:] == (3,)
    assert b.shape == (a.shape[0], 2)
    assert a.dtype == b.dtype == np.float32
    assert 1 <= a.shape[0] <= 3


@given(testing.batches((-1, 4), integers=7, min_side=0))
def test_batches_of_integers(ids):
    assert ids.dtype == np.int64
    assert np.all((ids >= 0) & (ids < 7))


@given(params=testing.params_for(MODEL, (-1, 4)), x=testing.batches((-1, 4)))
@settings(max_examples=10)
def test_a_law_of_a_layer_in_ones_own_words(params, x):
    y = MODEL.apply(params, x)
    assert y.shape == (len(x), 2)
    testing.check_vmap(MODEL.apply, (params, np.stack([x, -x])), in_axes=(None, 0))


def test_failures_under_hypothesis_are_shrunk_by_hypothesis():
    def law(x):
        testing.check_jit(lambda x: x * (2 if isinstance(x, np.ndarray) else 3), (x,))

    with pytest.raises(testing.LawError) as caught:
        given(testing.arrays(testing.shapes(min_dims=1)))(settings(database=None, print_blob=False)(law))()
    assert "np.array([0.0625])" in caught.value.example or "np.array([-0.0625])" in caught.value.example


@given(testing.programs(most=3))
@settings(max_examples=10)
def test_programs_can_be_pasted(program):
    space = {}
    exec(repr(program), space)
    value, again = program.f(*program.args), space["f"](*space["args"])
    assert tree.equal(value, again)


def test_programs_shrink():
    program = find(testing.programs(), lambda p: len(p.source.splitlines()) > 3, settings=settings(database=None))
    assert isinstance(program, testing.RandomProgram)
    assert len(program.source.splitlines()) == 4
    assert len(program.shapes) == 1


LAZY = """
import sys
import fnflare
assert "fnflare.testing" not in sys.modules
sys.modules["hypothesis"] = None  # as where it is not installed
import numpy as np
from fnflare import nn, testing
testing.check_grads(np.sin, (1.0,), order=2)
testing.check_layer(nn.Dense(2), (-1, 3), laws=["shapes", "dtypes", "gradients"])
try:
    testing.check_grads(np.floor, (1.0,), order=1, atol=-1)
except AssertionError as failure:
    assert "testing.check_grads(np.floor" in str(failure)
else:
    raise SystemExit("no failure")
try:
    testing.arrays
except ImportError as error:
    assert "fnflare[test]" in str(error), error
else:
    raise SystemExit("no error")
assert {"arrays", "check_layer", "programs"} <= set(dir(testing))
"""


def test_the_checks_do_without_hypothesis():
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_names_are_no_attributes():
    with pytest.raises(AttributeError, match="has no attribute 'array'"):
        _ = testing.array
