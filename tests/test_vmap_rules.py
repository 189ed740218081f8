"""The batching rules of products, convolutions and random numbers, beyond what the samples in test_ops reach: ranks,
places of the axis, nesting, and what the rules promise beside their values."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from vmap_laws import normal, operations, products, with_axis

import fnflare as ff
from fnflare import random
from fnflare.core import aval_of, primitives
from fnflare.errors import DtypeError, ShapeError
from fnflare.kernels import conv as conv_kernels
from fnflare.kernels import philox
from fnflare.testing import check_grads, check_vmap

# -- products -----------------------------------------------------------------------------------

LEAD = st.sampled_from([(), (2,), (1,), (4, 2), (4, 1)])


@st.composite
def factors(draw):
    """Shapes that multiply, and the axis of the examples in each, None for at most one."""
    k = draw(st.integers(0, 3))
    x, y = [draw(st.sampled_from([(), (1,), (3,)])) for _ in range(2)]  # the rows of x, the columns of y
    left = (*(draw(LEAD) if x else ()), *x, k)
    right = (*(draw(LEAD) if y else ()), k, *y)
    axes = [draw(st.sampled_from([None, *range(len(s) + 1), -1])) for s in (left, right)]
    assume(any(a is not None for a in axes))
    return left, right, tuple(axes)


@given(factors())
def test_products_of_all_ranks(case):
    left, right, axes = case
    try:
        np.matmul(np.zeros(left), np.zeros(right))
    except ValueError:  # the leading axes do not broadcast
        assume(False)
    xs = normal(*with_axis(left, axes[0])), normal(*with_axis(right, axes[1]))
    check_vmap(np.matmul, xs, axes)
    check_vmap(ff.grad(lambda x, y: np.sum(np.sin(x @ y)), argnums=(0, 1)), xs, axes)
    check_grads(ff.vmap(np.matmul, axes), xs, order=1)


@pytest.mark.parametrize(("shape", "axis"), [((4, 5), 0), ((5, 4), 1), ((4, 2, 5), 0), ((2, 4, 5), 1), ((2, 5, 4), 2)])
def test_many_examples_and_shared_weights_are_one_product_of_matrices(shape, axis):
    x, w = normal(*shape), normal(5, 6)
    rows = x.size // 5
    assert products(ff.vmap(np.matmul, (axis, None)), x, w) == [[(rows, 5), (5, 6)]]
    backward = ff.grad(lambda x, w: np.sum(ff.vmap(np.matmul, (axis, None))(x, w) ** 2), argnums=(0, 1))
    assert products(backward, x, w)[1:] == [[(rows, 6), (6, 5)], [(5, rows), (rows, 6)]]


def test_a_shared_matrix_times_a_vector_of_each_is_one_product():
    x, w = normal(4, 5), normal(6, 5)
    assert products(ff.vmap(np.matmul, (None, 0)), w, x) == [[(4, 5), (5, 6)]]
    assert products(ff.vmap(np.matmul, (None, 1)), w, x.T) == [[(4, 5), (5, 6)]]
    assert products(ff.vmap(np.matmul, (None, 2)), w, normal(5, 2, 4)) == [[(6, 5), (5, 8)]]


def test_gradients_of_each_example_are_a_stack_of_products():
    def loss(w, x):
        return np.sum(np.tanh(x @ w))

    x, w = normal(7, 4, 5), normal(5, 6)
    shapes = products(ff.vmap(ff.grad(loss), (None, 0)), w, x)
    assert shapes == [[(28, 5), (5, 6)], [(7, 5, 4), (7, 4, 6)]]


EINSUMS = [
    "ij,jk->ik",
    "bij,bjk->bik",
    "ij,kj->ki",
    "bqhd,bkhd->bhqk",
    "ii->i",
    "iij->j",
    "i,j->ij",
    "ij,ij->",
    "...i,ij->...j",
]


@given(st.sampled_from(EINSUMS), st.data())
def test_einsum_gets_a_letter(subscripts, data):
    sizes = {c: 2 + (i % 2) for i, c in enumerate("ijkbqhd")}
    terms = subscripts.split("->")[0].replace("...", "bq").split(",")
    shapes = [tuple([sizes[c] for c in t]) for t in terms]
    axes = tuple([data.draw(st.sampled_from([None, *range(len(s) + 1), -1])) for s in shapes])
    assume(any(a is not None for a in axes))
    xs = tuple([normal(*with_axis(s, a)) for s, a in zip(shapes, axes, strict=True)])

    def f(*xs):
        return np.einsum(subscripts, *xs)

    check_vmap(f, xs, axes)
    check_vmap(ff.grad(lambda *xs: np.sum(np.sin(f(*xs))), argnums=tuple(range(len(xs)))), xs, axes)
    assert products(ff.vmap(lambda x, y: np.einsum("ij,jk->ik", x, y)), normal(2, 3, 4), normal(2, 4, 5)) != []


# -- convolution --------------------------------------------------------------------------------


@st.composite
def convolutions(draw):
    """One of the three operations, one call of it, its parameters and the axes of the examples."""
    rank = draw(st.integers(1, 2))
    window = tuple([draw(st.integers(1, 3)) for _ in range(rank)])
    geometry = {
        "strides": tuple([draw(st.integers(1, 2)) for _ in range(rank)]),
        "padding": tuple([(draw(st.integers(0, 1)), draw(st.integers(0, 2))) for _ in range(rank)]),
        "dilation": tuple([draw(st.integers(1, 2)) for _ in range(rank)]),
    }
    x = (draw(st.integers(1, 2)), *[5] * rank, draw(st.integers(1, 4)))
    w = (*window, x[-1], draw(st.integers(1, 3)))
    y = primitives()["conv"].kernel(np.zeros(x), np.zeros(w), **geometry).shape
    name, shapes, more = draw(
        st.sampled_from(
            [
                ("conv", (x, w), {}),
                ("conv_input_grad", (y, w), {"input_shape": x}),
                ("conv_filter_grad", (x, y), {"filter_shape": w}),
            ]
        )
    )
    axes = tuple([draw(st.sampled_from([None, 0, 1, -2, -1])) for _ in shapes])
    assume(any(a is not None for a in axes))
    return name, shapes, {**more, **geometry}, axes


@given(convolutions(), st.sampled_from([None, 0, 1]), st.sampled_from([None, 0, -1]), st.sampled_from([1 << 23, 300]))
def test_convolutions(case, outer_first, outer_second, block):
    name, shapes, params, axes = case
    outer = (outer_first, outer_second)

    def f(*args):
        return primitives()[name](*args, **params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv_kernels, "_BLOCK_BYTES", block)
        xs = tuple([normal(*with_axis(s, a)) for s, a in zip(shapes, axes, strict=True)])
        check_vmap(f, xs, axes)
        check_grads(ff.vmap(f, axes), xs, order=1)
        if any(a is not None for a in outer):
            xs = tuple([normal(*with_axis(x.shape, a, 2)) for x, a in zip(xs, outer, strict=True)])
            check_vmap(ff.vmap(f, axes), xs, outer)


def test_second_derivatives_of_convolutions_with_filters_of_their_own():
    params = {"strides": (1, 2), "padding": ((1, 0), (0, 1)), "dilation": (1, 1)}
    f = ff.vmap(lambda x, w: primitives()["conv"](x, w, **params))
    check_grads(f, (normal(2, 2, 3, 4, 2), normal(2, 2, 2, 2, 2)), order=2)


def test_shared_filters_are_one_convolution():
    params = {"strides": (1,), "padding": ((0, 0),), "dilation": (1,)}
    f = ff.vmap(lambda x, w: primitives()["conv"](x, w, **params), (0, None))
    assert ("conv", (6, 5, 2), (3, 2, 4)) in operations(f, normal(3, 2, 5, 2), normal(3, 2, 4))
    own = ff.vmap(lambda x, w: primitives()["conv"](x, w, **params), (None, 0))
    assert ("conv", (2, 5, 2), (3, 2, 12)) in operations(own, normal(2, 5, 2), normal(3, 3, 2, 4))
    each = ff.vmap(ff.grad(lambda w, x: np.sum(primitives()["conv"](x, w, **params) ** 2)), (None, 0))
    assert [s for s in operations(each, normal(3, 2, 4), normal(3, 2, 5, 2)) if s[0].startswith("conv")] == [
        ("conv", (6, 5, 2), (3, 2, 4)),
        ("conv_filter_grad", (3, 2, 5, 2), (3, 2, 3, 4)),
    ]


def test_the_costs_of_groups_are_those_of_their_members():
    params = {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1)}
    x, w, y = aval_of(normal(2, 6, 6, 3)), aval_of(normal(3, 3, 3, 4)), aval_of(normal(2, 4, 4, 4))
    gx, gw, gy = [aval_of(np.zeros((5, *a.shape))) for a in (x, w, y)]
    conv, to_x, to_w = [primitives()[n].flops for n in ("conv", "conv_input_grad", "conv_filter_grad")]
    assert conv(gy, gx, gw, **params) == 5 * conv(y, x, w, **params) == 5 * 2 * y.size * 27
    assert to_x(gx, gy, gw, input_shape=gx.shape, **params) == 5 * to_x(x, y, w, input_shape=x.shape, **params)
    assert to_w(gw, gx, gy, filter_shape=gw.shape, **params) == 5 * to_w(w, x, y, filter_shape=w.shape, **params)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_windows_and_their_adjoint(axis):
    windows = {"window": (2, 1), "strides": (1, 2), "dilation": (2, 1)}
    x, y = (2, 4, 3, 2), (2, 2, 2, 2, 2, 1)
    fold = {"input_shape": x, "strides": (1, 2), "dilation": (2, 1)}
    for name, shape, params in (("windows", x, windows), ("fold", y, fold)):
        f = ff.vmap(lambda x, name=name, params=params: primitives()[name](x, **params), in_axes=axis)
        check_vmap(
            lambda x, name=name, params=params: primitives()[name](x, **params),
            (normal(*with_axis(shape, axis)),),
            axis,
        )
        check_grads(f, (normal(*with_axis(shape, axis)),), order=2)


# -- random numbers -----------------------------------------------------------------------------

KEYS = random.split(random.key(3), 200)
DRAWS = {
    "bits": lambda k: random.random_bits(k, (3,)),
    "bytes": lambda k: random.random_bits(k, (2, 3), np.uint8),
    "words": lambda k: random.random_bits(k, (40,), np.uint64),
    "none": lambda k: random.normal(k, (0, 2)),
    "uniform": lambda k: random.uniform(k, (5,), np.float64),
    "uniform between": lambda k: random.uniform(k, (5,), minval=-1, maxval=3.0),
    "uniform between arrays": lambda k: random.uniform(k, (2,), minval=np.zeros(2), maxval=np.array([1.0, 2.0])),
    "normal": random.normal,
    "normal of shape": lambda k: random.normal(k, (2, 3), np.float64),
    "truncated_normal": lambda k: random.truncated_normal(k, -1.0, 2.0),
    "truncated_normal of shape": lambda k: random.truncated_normal(k, np.array([0.0, 1.0]), 2.0, (3, 2), np.float64),
    "exponential": lambda k: random.exponential(k, (2,)),
    "gumbel": random.gumbel,
    "bernoulli": lambda k: random.bernoulli(k, 0.3, (4,)),
    "bernoulli of each": lambda k: random.bernoulli(k, np.array([0.1, 0.9])),
    "categorical": lambda k: random.categorical(k, np.log([0.1, 0.9])),
    "categorical of shape": lambda k: random.categorical(k, np.zeros((2, 3)), shape=(4, 2)),
    "randint": lambda k: random.randint(k, (3,), 0, 10),
    "randint wide": lambda k: random.randint(k, (), -5, 2**40),
    "permutation": lambda k: random.permutation(k, 7),
    "permutation of rows": lambda k: random.permutation(k, np.arange(6.0).reshape(2, 3), 1),
    "permutation of each": lambda k: random.permutation(k, np.arange(6.0).reshape(2, 3), 1, independent=True),
    "choice": lambda k: random.choice(k, 5, (3,)),
    "choice without": lambda k: random.choice(k, np.array(["a", "b", "c"]), (2,), replace=False),
    "choice by weight": lambda k: random.choice(k, np.arange(4.0), (2, 2), p=[0.1, 0.4, 0.5, 0.0]),
    "choice by weight without": lambda k: random.choice(k, 4, (3,), replace=False, p=[0.1, 0.4, 0.5, 0.2]),
    "split": lambda k: random.split(k, 3),
    "fold_in": lambda k: random.fold_in(k, -7),
    "a chain": lambda k: random.normal(random.split(random.fold_in(k, 3))[1], (2,)),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("count", [2, 200])
def test_many_keys_give_what_each_gives(name, count):
    f, keys = DRAWS[name], KEYS[:count]
    expected = np.stack([f(k) for k in keys])
    for got in (ff.vmap(f)(keys), ff.vmap(f, in_axes=1)(np.ascontiguousarray(keys.T))):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(got, expected)
    nested = ff.vmap(ff.vmap(f))(keys.reshape(2, count // 2, 2))
    np.testing.assert_array_equal(nested, expected.reshape(2, count // 2, *expected.shape[1:]))
    if expected.dtype.kind != "U":
        foretold = ff.eval_shape(f, keys[0])
        assert (foretold.shape, foretold.dtype) == (expected.shape[1:], expected.dtype)


WORD = st.integers(0, 2**64 - 1)


@given(st.tuples(WORD, WORD), st.integers(0, 3), st.integers(-(2**127), 2**127 - 1), st.integers(0, 33))
def test_words_of_many_keys_are_those_of_each(key, domain, data, count):
    keys = np.arange(130, dtype=np.uint64)[:, None] + np.array(key, np.uint64)
    many = philox.words(keys, domain, data, count)
    np.testing.assert_array_equal(many, [philox.words(k, domain, data, count) for k in keys])
    np.testing.assert_array_equal(philox.words(keys[:3], domain, data, count), many[:3])


NUMBERS = np.array([0, 1, -1, -5, 2**40, -(2**63), 2**63 - 1])


@pytest.mark.parametrize("numbers", [NUMBERS, NUMBERS.astype(np.uint64), np.arange(-100, 100).astype(np.int8)])
def test_numbers_that_are_tracers_are_folded_in(numbers):
    keys = random.split(random.key(1), len(numbers))
    expected = [[random.fold_in(k, int(i)) for i in numbers[:7]] for k in keys[:7]]
    np.testing.assert_array_equal(ff.vmap(random.fold_in, (None, 0))(keys[0], numbers[:7]), expected[0])
    np.testing.assert_array_equal(
        ff.vmap(random.fold_in, (0, None))(keys[:7], int(numbers[2])), [e[2] for e in expected]
    )
    each = [random.fold_in(k, int(i)) for k, i in zip(keys, numbers, strict=True)]
    np.testing.assert_array_equal(ff.vmap(random.fold_in)(keys, numbers), each)
    pairs = ff.vmap(ff.vmap(random.fold_in, (None, 0)), (0, None))
    np.testing.assert_array_equal(pairs(keys[:7], numbers[:7]), expected)
    other_way = ff.vmap(ff.vmap(random.fold_in, (0, None)), (None, 0))
    np.testing.assert_array_equal(other_way(keys[:7], numbers[:7]), np.swapaxes(expected, 0, 1))
    foretold = ff.eval_shape(random.fold_in, keys[0], numbers[0])
    assert (foretold.shape, foretold.dtype) == ((2,), np.uint64)


def test_what_cannot_be_folded_in_is_refused():
    with pytest.raises(DtypeError, match="an int is needed, got dtype float64"):
        ff.vmap(random.fold_in, (None, 0))(KEYS[0], normal(3))
    with pytest.raises(ShapeError, match=r"ff\.vmap\(fold_in"):
        ff.vmap(random.fold_in, (None, 0))(KEYS[0], np.zeros((2, 3), int))


def test_bounds_and_weights_of_each_example():
    keys, low, high = KEYS[:4], np.array([0, -5, 3, 7]), np.array([1, 10, 2**40, 2**62])
    check_vmap(lambda k, a, b: random.randint(k, (3,), a, b), (keys, low, high))
    check_vmap(lambda k, b: random.randint(k, (2, 2), -1, b, np.int32), (keys[0], high[:2]), (None, 0))
    check_vmap(lambda k, b: random.randint(k, (2,), np.array([0, 5]), b), (keys, high[2]), (0, None))
    p = np.abs(normal(4, 5))
    for replace in (True, False):
        check_vmap(lambda k, p, r=replace: random.choice(k, 5, (3,), r, p), (keys, p))
        check_vmap(lambda k, p, r=replace: random.choice(k, np.arange(5.0), (3,), r, p), (keys[0], p), (None, 0))
    check_vmap(lambda k, a, b: random.uniform(k, (3,), np.float64, a, b), (keys, low / 2, high / 3))
    foretold = ff.eval_shape(lambda b: random.randint(KEYS[0], (3,), 0, b, np.int16), 5)
    assert (foretold.shape, foretold.dtype) == ((3,), np.int16)
    with pytest.raises(DtypeError, match="ints are needed"):
        ff.vmap(lambda b: random.randint(KEYS[0], (), 0, b))(normal(2))
    with pytest.raises(ShapeError, match="one weight for each"):
        ff.vmap(lambda p: random.choice(KEYS[0], 4, p=p))(p)


def test_numbers_drawn_for_each_example_differ_and_have_gradients():
    def f(x, key):
        return np.sum(x * random.normal(key, x.shape, np.float64) + random.uniform(key, minval=x[0], maxval=2.0))

    x = normal(4, 3)
    check_vmap(f, (x, KEYS[:4]))
    check_vmap(f, (x[0], KEYS[:4]), (None, 0))
    check_vmap(ff.grad(f), (x, KEYS[:4]))
    check_vmap(lambda logits, k: random.categorical(k, logits), (normal(4, 5), KEYS[0]), (0, None))
    check_vmap(lambda p, k: random.bernoulli(k, p, (3,)), (np.array([0.1, 0.5]), KEYS[:2]))
    check_vmap(lambda x, k: random.permutation(k, x), (x, KEYS[:4]))
    check_vmap(lambda x, k: random.choice(k, x, (2,), replace=False), (x, KEYS[0]), (0, None))
