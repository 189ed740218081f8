"""Reading, writing and ordering of many examples at once: every form of index, with any of the arrays batched."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from vmap_laws import RNG, close, normal, operations, with_axis

import fnflare as ff
from fnflare.errors import ConcretizationError
from fnflare.kernels import rows
from fnflare.testing import check_grads, check_vmap

MASK = np.array([True, False, True])
ALL = slice(None)
#: Indices of an array of shape (4, 3, 5), with numbers for the index arrays to come, and the shapes of those.
FORMS = [
    ((1,), []),
    ((slice(1, 3), ..., -1), []),
    ((ALL, None, 1), []),
    ((slice(None, None, -1), ..., None), []),
    ((ALL, MASK), []),
    ((ALL, MASK, slice(1, 2)), []),
    ((ALL, [0, 2], [[1], [0]]), []),
    ((0, ALL, [1, 1]), []),
    (("0",), [()]),
    (("0",), [(2,)]),
    (("0",), [(2, 2)]),
    ((ALL, "0"), [()]),
    ((ALL, "0"), [(2, 2)]),
    ((..., "0"), [(2,)]),
    ((..., "0", slice(1, 3)), [(2, 1)]),
    (("0", "1"), [(2, 1), (3,)]),
    (("0", "1"), [(), (3,)]),
    (("0", "1"), [(), ()]),
    (("0", ALL, "1"), [(2,), (2,)]),
    (("0", ALL, "1"), [(), (2,)]),
    (("0", ALL, "1"), [(), ()]),
    ((ALL, "0", "1"), [(2, 1), (3,)]),
    ((ALL, "0", "1"), [(), ()]),
    ((0, ALL, "0"), [(2,)]),
    ((0, ALL, "0"), [()]),
    ((ALL, 0, "0"), [(2,)]),
    (("0", None, "1"), [(2,), (2,)]),
    ((ALL, "0", None, "1"), [(2,), (2,)]),
    (("0", ..., "1"), [(2,), (1, 2)]),
    ((ALL, MASK, "0"), [(2,)]),
    (("0", MASK), [(2,)]),
    ((ALL, [0, 2], "0"), [(2,)]),
    (("0", ALL, [0, 2]), [()]),
    (("0", "1", "2"), [(2,), (2,), (2,)]),
    (("0", ALL, "1", None), [(2, 1), (2,)]),
    ((slice(0, 0), "0"), [(2,)]),
]
SHAPE = (4, 3, 5)


def filled(form, arrays):
    return tuple([arrays[int(i)] if isinstance(i, str) else i for i in form])


@st.composite
def reads(draw, writes=False):
    """An array, a value to write where wanted, index arrays, the axes of the examples in all of them, and the index as
    a function of the arrays."""
    form, shapes = draw(st.sampled_from(FORMS))
    part = np.zeros(SHAPE)[filled(form, [np.zeros(s, np.intp) for s in shapes])].shape
    own = [SHAPE]
    if writes:
        own.append(draw(st.sampled_from([part, part[1:], (1,) * bool(part) + part[1:], ()])))
    own += shapes
    axes = tuple([draw(st.sampled_from([None, 0, -1, 1])) for _ in own])
    axes = tuple([None if a is not None and a > len(s) else a for a, s in zip(axes, own, strict=True)])
    assume(any(a is not None for a in axes))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    floats = len(own) - len(shapes)
    full = [with_axis(s, a) for s, a in zip(own, axes, strict=True)]
    values = [rng.standard_normal(s) if i < floats else rng.integers(-3, 3, s) for i, s in enumerate(full)]
    return values, axes, lambda arrays: filled(form, arrays)


@given(reads())
def test_reads_at_every_form_of_index(case):
    values, axes, index = case

    def read(x, *arrays):
        return ff.at(x)[index(arrays)].get()

    check_vmap(read, values, axes)
    check_vmap(ff.grad(lambda x, *arrays: np.sum(np.sin(read(x, *arrays)))), values, axes)
    shared = axes[0] is None
    total = ff.grad(lambda x: np.sum(np.sin(ff.vmap(read, axes)(x, *values[1:]))))(values[0])
    each = ff.vmap(ff.grad(lambda x, *arrays: np.sum(np.sin(read(x, *arrays)))), axes, out_axes=axes[0] or 0)(*values)
    close(total, each.sum(0) if shared else each)


@given(reads(writes=True), st.sampled_from(["set", "add", "multiply", "min", "max", "divide"]))
def test_writes_at_every_form_of_index(case, method):
    values, axes, index = case

    def write(x, v, *arrays):
        return getattr(ff.at(x)[index(arrays)], method)(v)

    # A value of fewer axes than the part is one for each of the equal indices, too.
    check_vmap(write, values, axes)


@given(reads(writes=True), st.sampled_from(["set", "add", "multiply", "max"]))
def test_derivatives_of_writes(case, method):
    values, axes, index = case

    def loss(x, v, *arrays):
        return np.sum(np.sin(getattr(ff.at(x)[index(arrays)], method)(v)))

    def tangent(x, v, *arrays):
        return ff.jvp(lambda x, v: getattr(ff.at(x)[index(arrays)], method)(v), (x, v), (np.cos(x), np.sin(v)))[1]

    check_vmap(ff.grad(loss, argnums=(0, 1)), values, axes)
    check_vmap(tangent, values, axes)
    x, v, *arrays = values
    total = ff.grad(lambda x, v: np.sum(ff.vmap(loss, axes)(x, v, *arrays)), argnums=(0, 1))(x, v)
    each = ff.vmap(ff.grad(loss, argnums=(0, 1)), axes, out_axes=tuple([a or 0 for a in axes[:2]]))(*values)
    close(total, tuple([g.sum(0) if a is None else g for g, a in zip(each, axes, strict=False)]))


def test_second_derivatives_through_reads_and_writes():
    i = np.array([[0, 2, 2], [1, 1, 3]])

    def f(x, v, i):
        y = ff.at(ff.at(x)[i].multiply(v))[:, i].add(np.sin(v)[:, 0])
        return np.sum(np.sin(y[i, i])[:, None] * ff.at(y)[i[0]].set(v[0])[i])

    check_grads(ff.vmap(f), (normal(2, 4, 4), normal(2, 3, 1), i), order=2)
    check_vmap(ff.hessian(f, argnums=(0, 1)), (normal(2, 4, 4), normal(2, 3, 1), i))
    check_grads(ff.vmap(f, (None, None, 0)), (normal(4, 4), normal(3, 1), i), order=2)


def test_what_is_shared_is_not_repeated_to_be_read():
    table, ids = normal(50, 4), np.array([[1, 2], [3, 3]])
    seen = operations(ff.vmap(lambda t, i: ff.at(t)[i].get(), (None, 0)), table, ids)
    assert seen == [("getitem", (50, 4), (2, 2))]


@pytest.mark.parametrize("shared", [True, False])
def test_the_last_of_equal_writes_gets_the_gradient(shared):
    i = np.array([[0, 2, 0], [1, 1, 1]])
    v = normal(3, 4) if shared else normal(2, 3, 4)
    axes = (None, None if shared else 0, 0)
    f = ff.grad(lambda x, v, i: np.sum(np.arange(12.0).reshape(3, 4) * ff.at(x)[i].set(v)), argnums=1)
    check_vmap(f, (normal(3, 4), v, i), axes)
    got = ff.vmap(f, axes)(normal(3, 4), v, i)
    assert (got[0, 0] == 0).all()  # covered by the third
    np.testing.assert_array_equal(got[0, 2], np.arange(4.0))
    np.testing.assert_array_equal(got[1, :2], 0)


@pytest.mark.parametrize("method", ["max", "min", "multiply", "power"])
@given(ids=st.lists(st.lists(st.integers(0, 3), min_size=9, max_size=9), min_size=2, max_size=3), ties=st.booleans())
def test_values_for_one_element_are_combined_as_at_a_known_index(method, ids, ties):
    ids = np.array(ids)
    v = RNG.integers(0, 3, ids.shape) / 2 if ties else normal(*ids.shape)
    x = np.abs(normal(4)) + 0.5

    def update(x, v, i):
        return getattr(ff.at(x)[i], method)(v)

    check_vmap(update, (x, v, ids), (None, 0, 0))
    # Ties share as they do there.
    check_vmap(ff.grad(lambda x, v, i: np.sum(np.sin(update(x, v, i))), argnums=(0, 1)), (x, v, ids), (None, 0, 0))


def test_maxima_of_segments_of_each_example():
    ids = np.array([[0, 1, 0, 2], [2, 2, 2, 1]])
    rows = normal(2, 4, 3)

    def maxima(ids, rows):
        return ff.at(np.full((3, 3), -np.inf))[ids].max(rows)

    check_vmap(maxima, (ids, rows))
    np.testing.assert_array_equal(ff.vmap(maxima)(ids, rows)[1, 2], rows[1, :3].max(0))


def test_an_index_that_cannot_be_mapped_says_so():
    with pytest.raises(ConcretizationError, match=r"np\.where"):
        ff.vmap(lambda x: ff.at(x)[x > 0].set(0.0))(normal(2, 3))
    with pytest.raises(ConcretizationError, match="unknown size"):
        ff.vmap(np.nonzero)(normal(2, 3))


def test_an_index_out_of_range_is_refused():
    table = normal(3, 2)
    for use in (lambda i: ff.at(table)[i].get(), lambda i: ff.at(table)[i].add(1.0)):
        with pytest.raises(IndexError):
            ff.vmap(use)(np.array([[0, 1], [1, 3]]))


ORDERS = {
    "sort": np.sort,
    "sort all": lambda x: np.sort(x, axis=None),
    "sort axis": lambda x: np.sort(x, axis=0),
    "argsort": np.argsort,
    "argsort axis": lambda x: x.argsort(0),
    "searchsorted": lambda x: np.searchsorted(np.sort(x[0]), x, side="right"),
    "searchsorted in a shared array": lambda x: np.searchsorted(np.array([-0.5, 0.0, 0.4]), x),
    "searchsorted of shared values": lambda x: np.searchsorted(np.sort(x[1]), np.array([[-0.5, 0.4]])),
    "take_along_axis": lambda x: np.take_along_axis(x, np.argsort(x, axis=0), axis=0),
    "median": lambda x: np.sort(x, axis=1)[:, 2] * x[:, 0],
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_order(name, axis):
    f = ORDERS[name]
    check_vmap(f, (normal(*with_axis((3, 4), axis)),), axis)
    check_vmap(ff.vmap(f, in_axes=axis), (normal(*with_axis(with_axis((3, 4), axis), 1)),), 1)
    out = f(normal(3, 4))
    if out.dtype.kind == "f":
        check_vmap(ff.grad(lambda x: np.sum(np.sin(f(x)))), (normal(*with_axis((3, 4), axis)),), axis)


@given(
    st.sampled_from([((5,), (4,)), ((5, 2), (3,)), ((2, 3, 2), (4,)), ((3, 4), (0,)), ((2, 3), (2, 2))]),
    st.integers(1, 2),
    st.sampled_from([np.float64, np.float32, np.int8, np.uint16]),
    st.sampled_from([np.int64, np.int16, np.uint8]),
)
def test_adding_rows_is_adding_one_by_one(shapes, arrays, dtype, index_dtype):
    shape, places = shapes
    arrays = min(arrays, len(shape))
    low = 0 if np.dtype(index_dtype).kind == "u" else -1
    index = tuple([RNG.integers(low * n, n, places).astype(index_dtype) for n in shape[:arrays]])
    x = RNG.integers(0, 2, shape).astype(dtype)
    for values in (RNG.integers(0, 2, (*places, *shape[arrays:])).astype(dtype), 1, np.ones((), dtype)):
        ours, theirs = x.copy(), x.copy()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rows, "_MANY", 0)
            rows.add_at(ours, index if arrays > 1 else index[0], values)
        np.add.at(theirs, index, values)
        np.testing.assert_array_equal(ours, theirs)


def test_adding_many_rows():
    index = RNG.integers(-9, 9, (50, 8))
    x, values = normal(9, 6), normal(50, 8, 6)
    expected = x.copy()
    np.add.at(expected, index, values)
    rows.add_at(x, index, values)
    close(x, expected)


@pytest.mark.parametrize("many", [0, 1000])
def test_adding_by_sorting_takes_what_adding_one_by_one_takes(monkeypatch, many):
    monkeypatch.setattr(rows, "_MANY", many)
    with pytest.raises(IndexError, match="index 3 is out of bounds"):
        rows.add_at(np.zeros(3), np.array([0, 3]), 1.0)
    x = np.zeros(3, np.int64)
    rows.add_at(x, np.array([0, 0, 2]), np.array([1.5, 1.5, 2.5]))
    np.testing.assert_array_equal(x, [2, 0, 2])
