"""Reading and writing at indices of every kind that NumPy has, in every combination, against NumPy itself."""

import numpy as np
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

import fnflare as ff
from fnflare import config

#: The shapes of index arrays, any two of which broadcast.
WIDE = [(2,), (1,), (2, 2), (1, 2), (2, 1), (), (1, 1)]


@st.composite
def index_arrays(draw, n):
    """Integers within bounds, or none at all."""
    shape = draw(st.sampled_from(WIDE))
    count = int(np.prod(shape))
    numbers = draw(st.lists(st.integers(-n, n - 1), min_size=count, max_size=count))
    array = np.array(numbers, draw(st.sampled_from([np.intp, np.int8]))).reshape(shape)
    return array.tolist() if shape and draw(st.booleans()) else array


@st.composite
def masks(draw, shape):
    """A mask, by preference of as many True as index arrays are long."""
    count = int(np.prod(shape))
    if draw(st.booleans()) and count >= 2:
        chosen = draw(st.permutations(range(count)))[:2]
        flat = np.isin(np.arange(count), chosen)
    else:
        flat = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    return flat.reshape(shape)


FLAGS = [True, False, np.True_, np.array(True), np.array(False)]


@st.composite
def indices(draw, shape):
    """An index of an array of the given shape."""
    parts = []
    axis = 0
    kinds = ["integer", "slice", "slice", "none", "array", "mask", "flag", "empty", "two-axis mask"]
    while axis < len(shape) and draw(st.integers(0, 5)):
        kind, n = draw(st.sampled_from(kinds)), shape[axis]
        if kind in ("integer", "array") and n:
            parts.append(draw(st.integers(-n, n - 1) if kind == "integer" else index_arrays(n)))
        elif kind == "mask":
            parts.append(draw(masks((n,))))
        elif kind == "two-axis mask" and axis + 1 < len(shape):
            parts.append(draw(masks(shape[axis : axis + 2])))
            axis += 1
        elif kind == "empty":
            parts.append(draw(st.sampled_from([[], np.zeros(0, int), np.zeros((2, 0), int)])))
        elif kind in ("none", "flag"):
            parts.append(None if kind == "none" else draw(st.sampled_from(FLAGS)))
            continue
        else:
            parts.append(draw(st.slices(n)))
        axis += 1
    if draw(st.booleans()):
        if draw(st.booleans()):
            parts.append(...)
        elif axis == len(shape):  # what stands after the ellipsis reads the last axes
            parts.insert(draw(st.integers(0, len(parts))), ...)
    return parts[0] if len(parts) == 1 and draw(st.booleans()) else tuple(parts)


@st.composite
def reads(draw):
    """An array and an index that NumPy accepts."""
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    x = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(shape)
    index = draw(indices(shape))
    try:
        x[index]
    except IndexError:  # arrays that do not broadcast
        assume(False)
    event(" ".join(sorted({type(i).__name__ for i in (index if isinstance(index, tuple) else (index,))})))
    return x, index


def like(x, seed):
    return np.asarray(np.random.default_rng(seed).standard_normal(np.shape(x)))


def scattered(x, index, rows):
    out = np.zeros_like(x)
    np.add.at(out, index, rows)
    return out


@given(reads())
def test_reads_are_numpys_in_both_modes(case):
    x, index = case
    expected, t = x[index], like(x, 1)
    out, pull = ff.vjp(lambda x: x[index], x)
    np.testing.assert_array_equal(out, expected, strict=True)
    out, tangent = ff.jvp(lambda x: x[index], (x,), (t,))
    np.testing.assert_array_equal(out, expected, strict=True)
    np.testing.assert_array_equal(tangent, t[index], strict=True)
    ct = like(expected, 2)[()]
    np.testing.assert_allclose(pull(ct)[0], scattered(x, index, ct), rtol=1e-14)
    np.testing.assert_allclose(ff.vjp(lambda t: ff.jvp(lambda x: x[index], (x,), (t,))[1], t)[1](ct)[0], pull(ct)[0])


@given(reads())
def test_reads_batch(case):
    x, index = case
    xs = np.stack([x, 2 * x, like(x, 1)], axis=-1)
    expected = np.stack([xs[..., k][index] for k in range(3)])
    np.testing.assert_array_equal(ff.vmap(lambda x: x[index], in_axes=-1)(xs), expected)
    cts = like(expected, 2)
    pulled = ff.vmap(lambda x, ct: ff.vjp(lambda x: x[index], x)[1](ct)[0], in_axes=(-1, 0))(xs, cts)
    np.testing.assert_allclose(pulled, np.stack([scattered(x, index, ct) for ct in cts]), rtol=1e-14)


@pytest.mark.parametrize("native", [False, True])
@given(case=reads())
def test_reads_compile(case, native):
    x, index = case
    ct = like(x[index], 2)[()]
    with config.override(use_native=native):
        np.testing.assert_array_equal(ff.jit(lambda x: x[index])(x), x[index])
        pulled = ff.jit(lambda x, ct: ff.vjp(lambda x: x[index], x)[1](ct)[0])(x, ct)
    np.testing.assert_allclose(pulled, scattered(x, index, ct), rtol=1e-14)


@given(reads(), st.sampled_from(["set", "add"]))
def test_writes_are_numpys_batch_and_compile(case, method):
    x, index = case
    v = like(x[index], 3)
    xs, vs = np.stack([x, 3 * x]), np.stack([v, like(v, 4)], axis=-1)

    def written(x, v):
        out = np.array(x)
        if method == "add":
            np.add.at(out, index, v)
        else:
            out[index] = v
        return out

    def write(x, v):
        return getattr(ff.at(x)[index], method)(v)

    np.testing.assert_array_equal(ff.vjp(write, x, v)[0], written(x, v))
    expected = np.stack([written(xs[k], vs[..., k]) for k in range(2)])
    np.testing.assert_array_equal(ff.vmap(write, in_axes=(0, -1))(xs, vs), expected)
    for native in (False, True):
        with config.override(use_native=native):
            np.testing.assert_allclose(ff.jit(write)(x, v), written(x, v), rtol=1e-14)


#: Indices and the shapes of values with axes of length one in front, which the parts that they name do not have.
LEADING = [(0, (1, 3)), ((1, 0), (1, 1)), ([1, 1], (1, 1, 2, 3)), (slice(1), (1, 1, 3))]


@pytest.mark.parametrize("method", ["set", "add", "multiply", "divide", "power", "min", "max"])
def test_writes_drop_axes_of_length_one_in_front(method):
    """As NumPy's assignment does, on arrays and on every kind of tracer."""
    x = np.arange(1.0, 7.0).reshape(2, 3)
    for index, shape in LEADING:
        v = like(np.empty(shape), 5)

        def write(x, v, index=index):
            return getattr(ff.at(x)[index], method)(v)

        expected = write(x, v.reshape(shape[1:]) if len(shape) == 2 else v[0])
        for f in (write, ff.jit(write), lambda x, v: ff.vmap(write)(x[None], v[None])[0]):
            np.testing.assert_allclose(f(x, v), expected, rtol=1e-14)
            (dx, dv) = ff.grad(lambda x, v: np.sum(f(x, v) ** 2), (0, 1))(x, v)  # noqa: B023
            (ex, ev) = ff.grad(lambda x, v: np.sum(write(x, v) ** 2), (0, 1))(x, v[0])
            np.testing.assert_allclose(dx, ex, rtol=1e-12)
            np.testing.assert_allclose(dv, ev[None], rtol=1e-12)
            np.testing.assert_allclose(ff.jvp(f, (x, v), (x, v))[1], ff.jvp(write, (x, v[0]), (x, v[0]))[1], rtol=1e-12)
    for transform in (lambda f: f, ff.jit):
        with pytest.raises(ValueError, match="broadcast"):
            transform(lambda x, v: getattr(ff.at(x)[0], method)(v))(x, np.ones((2, 3)))
