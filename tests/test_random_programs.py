"""Random shapes, axes, indices and small programs: NumPy's answers, and derivatives that agree in every mode."""

from functools import partial

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from laws import same_as_numpy

import fnflare as ff
from fnflare.testing import check_grads, check_jvp_vjp, check_vmap

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
FULL_SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=3)
SEEDS = st.integers(0, 2**32 - 1)


def normal(seed, shape):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape))


@given(hnp.mutually_broadcastable_shapes(num_shapes=2, min_dims=0, max_dims=3, min_side=0, max_side=3), SEEDS)
def test_broadcasting(shapes, seed):
    a, b = [normal(seed + i, s) for i, s in enumerate(shapes.input_shapes)]
    same_as_numpy(lambda x, y: x * y + np.exp(x) - y / (1 + x * x), a, b, order=1)


@given(st.data(), FULL_SHAPES, SEEDS)
def test_reductions_over_any_axes(data, shape, seed):
    axis = data.draw(st.none() | hnp.valid_tuple_axes(len(shape)) | st.integers(-len(shape), len(shape) - 1))
    keepdims = data.draw(st.booleans())
    reduction = data.draw(st.sampled_from([np.sum, np.mean, np.max, np.min, np.prod, np.var]))
    x = normal(seed, shape)
    if np.unique(x).size == x.size:
        same_as_numpy(lambda t: reduction(t, axis=axis, keepdims=keepdims), x, order=1)


@given(st.data(), FULL_SHAPES, SEEDS)
def test_scans_and_order_along_any_axis(data, shape, seed):
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    function = data.draw(
        st.sampled_from([np.cumsum, np.sort, lambda t, axis: np.take_along_axis(t, np.argsort(t, axis), axis)])
    )
    same_as_numpy(lambda t: function(t, axis=axis), normal(seed, shape), order=1)


@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4), SEEDS)
def test_basic_indices(data, shape, seed):
    index = data.draw(hnp.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    same_as_numpy(lambda t: t[index] * 1.0, normal(seed, shape), order=1)


@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4), SEEDS)
def test_advanced_indices(data, shape, seed):
    index = data.draw(
        hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(min_dims=0, max_dims=2, max_side=5))
    )
    x = normal(seed, shape)
    same_as_numpy(lambda t: t[index] * 1.0, x, order=1)
    values = normal(seed + 1, x[index].shape)
    check_grads(lambda t, v: ff.at(t)[index].add(v), (x, values), order=1)
    check_grads(lambda t, v: ff.at(t)[index].set(v), (x, values), order=1)


@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4), SEEDS)
def test_boolean_masks(data, shape, seed):
    mask = data.draw(hnp.arrays(bool, shape[: data.draw(st.integers(1, len(shape)))]))
    x = normal(seed, shape)
    same_as_numpy(lambda t: t[mask] * 1.0, x, order=1)
    check_grads(lambda t, v: ff.at(t)[mask].set(v), (x, normal(seed + 1, x[mask].shape)), order=1)


@given(st.data(), SEEDS)
def test_rearrangements(data, seed):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=3))
    axes = data.draw(st.permutations(range(len(shape))))
    widths = data.draw(
        st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=len(shape), max_size=len(shape))
    )
    shift = data.draw(st.integers(-5, 5))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    sections = data.draw(st.integers(1, 4))

    def f(t):
        moved = np.transpose(np.roll(np.pad(t, widths), shift, axis), axes)
        parts = np.array_split(moved, sections, axis=axis)
        joined = np.concatenate([p * (i + 1) for i, p in enumerate(parts)], axis=axis)
        return np.stack([joined, np.flip(moved, axis)], axis=axis)

    same_as_numpy(f, normal(seed, shape), order=1)


@st.composite
def contractions(draw):
    """Subscripts and operands of an einsum: letters may repeat in a term, between terms and vanish."""
    sizes = {c: draw(st.integers(1, 3)) for c in "abcd"}
    terms = draw(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=3))
    present = sorted(set("".join(terms)))
    out = "".join(draw(st.lists(st.sampled_from(present), unique=True, max_size=3))) if present else ""
    seed = draw(SEEDS)
    operands = [normal(seed + i, [sizes[c] for c in t]) for i, t in enumerate(terms)]
    return f"{','.join(terms)}->{out}", operands


@given(contractions())
def test_einsum(contraction):
    subscripts, operands = contraction
    same_as_numpy(lambda *xs: np.einsum(subscripts, *xs), *operands, order=1)


# -- programs -----------------------------------------------------------------------------------
#
# A program is a list of steps, each an operation and the numbers of the earlier values it takes. All
# values have shape (3, 3) and stay of moderate size, so that any sequence of steps is smooth.


def stopped(x):
    constant = ff.stop_gradient(x)
    return constant * x / (1 + np.abs(constant))


UNARY = [
    np.sin,
    np.tanh,
    lambda x: np.exp(-x * x),
    lambda x: np.log1p(x * x),
    lambda x: np.sqrt(1 + x**2),
    lambda x: x.T,
    lambda x: x[::-1] * 0.5,
    lambda x: x - np.mean(x, axis=0),
    lambda x: np.sum(x, axis=1, keepdims=True) / 3 + 0 * x,
    lambda x: np.roll(np.cumsum(x, axis=1), 1) / 3,
    lambda x: x[np.array([2, 0, 2])],
    lambda x: ff.at(x)[np.array([1, 1])].add(x[:2]) / 2,
    lambda x: np.concatenate([x[1:], x[:1] / 2]),
    lambda x: np.stack([x[0], x[2], x[1]], axis=1),
    lambda x: np.reshape(np.ravel(x), (3, 3)),
    lambda x: np.where(np.eye(3) > 0, x, 0.3),
    lambda x: ff.ops.logistic(x) + ff.ops.softplus(x) / 2,
    lambda x: ff.ops.softmax(x, axis=0) - ff.ops.log_softmax(x) / 4,
    stopped,
    ff.checkpoint(lambda x: np.cos(x) * x / 2),
    ff.grad(lambda x: np.sum(np.sin(x) * x)),
    lambda x: ff.jvp(np.tanh, (x,), (x,))[1],
    ff.vmap(lambda row: np.tanh(row) * row[0]),
    ff.vmap(lambda column: np.cumsum(column) / 3, in_axes=1, out_axes=-1, chunk_size=2),
    ff.vmap(ff.grad(lambda row: np.sum(np.sin(row) * row[::-1]))),
    ff.vmap(ff.checkpoint(lambda row: np.sin(row) - row[np.array([1, 1, 0])] / 2), in_axes=1),
]
BINARY = [
    lambda x, y: x + y,
    lambda x, y: x - y / 2,
    lambda x, y: np.tanh(x) * np.tanh(y),
    lambda x, y: x / (2 + np.sin(y)),
    lambda x, y: np.arctan2(np.tanh(x), 2 + np.tanh(y)),
    lambda x, y: np.tanh(x @ y),
    lambda x, y: np.einsum("ij,kj->ik", np.tanh(x), np.tanh(y)),
    lambda x, y: np.logaddexp(x, y),
    lambda x, y: ff.checkpoint(lambda a: np.sin(a) * y)(x),
    lambda x, y: ff.grad(lambda a: np.sum(np.sin(a * y)))(x) / 2,
    lambda x, y: np.take(np.concatenate([x, y]), [0, 5, 3], axis=0),
    ff.vmap(lambda row, y: np.tanh(row) @ np.tanh(y), in_axes=(0, None)),
    lambda x, y: ff.vmap(lambda row: np.sin(row * y[0]) + y[1] / 2, in_axes=1)(x),
    lambda x, y: ff.vmap(ff.checkpoint(lambda row: np.sin(row) * y[2]))(x),
    ff.vmap(ff.vmap(lambda a, b: np.sum(np.sin(a) * b) / 3, (0, None)), (None, 0)),
]


@st.composite
def programs(draw):
    steps = []
    for k in range(draw(st.integers(1, 6))):
        earlier = st.integers(0, k + 1)  # two arguments, then one value a step
        if draw(st.booleans()):
            steps.append((draw(st.sampled_from(UNARY)), (draw(earlier),)))
        else:
            steps.append((draw(st.sampled_from(BINARY)), (draw(earlier), draw(earlier))))
    return steps


def run(steps, x, y):
    values = [x, y]
    for operation, operands in steps:
        values.append(operation(*[values[k] for k in operands]))
    return np.mean(values[-1]) + np.sum(values[-2]) / 3


@given(programs(), SEEDS)
def test_random_programs_differentiate_in_every_mode(steps, seed):
    x, y = normal(seed, (3, 3)), normal(seed + 1, (3, 3))
    f = partial(run, steps)
    if any(operation is stopped for operation, _ in steps):
        check_jvp_vjp(f, (x, y))  # a constant to every derivative, but not to finite differences
    else:
        check_grads(f, (x, y), order=2, atol=2e-6, rtol=2e-6)


@given(programs(), SEEDS)
def test_random_programs_checkpointed_linearized_and_foretold(steps, seed):
    x, y = normal(seed, (3, 3)), normal(seed + 1, (3, 3))
    f = partial(run, steps)
    value, gradients = ff.value_and_grad(f, argnums=(0, 1))(x, y)
    np.testing.assert_allclose(value, f(x, y), rtol=1e-13)
    assert ff.eval_shape(f, x, y).shape == ()
    checked = ff.value_and_grad(ff.checkpoint(f), argnums=(0, 1))(x, y)
    np.testing.assert_allclose(checked[0], value, rtol=1e-13)
    np.testing.assert_allclose(checked[1], gradients, rtol=1e-12, atol=1e-13)
    u, v = normal(seed + 2, (3, 3)), normal(seed + 3, (3, 3))
    out, push = ff.linearize(f, x, y)
    np.testing.assert_allclose(out, value, rtol=1e-13)
    forward = ff.jvp(f, (x, y), (u, v))[1]
    np.testing.assert_allclose(push(u, v), forward, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(np.sum(gradients[0] * u) + np.sum(gradients[1] * v), forward, rtol=1e-9, atol=1e-11)
    # Second derivatives through a checkpoint: forward over reverse.
    plain = ff.jvp(ff.grad(f), (x, y), (u, v))[1]
    through = ff.jvp(ff.grad(ff.checkpoint(f)), (x, y), (u, v))[1]
    np.testing.assert_allclose(through, plain, rtol=1e-10, atol=1e-12)


@given(programs(), SEEDS, st.sampled_from([(0, None), (None, 1), (-1, 0)]), st.sampled_from([None, 1, 2]))
def test_random_programs_of_many_examples(steps, seed, axes, chunk_size):
    x, y = [normal(seed + i, (3, 3) if axis is None else (3, 3, 3)) for i, axis in enumerate(axes)]
    f = partial(run, steps)
    check_vmap(f, (x, y), axes)
    check_vmap(ff.grad(f, argnums=(0, 1)), (x, y), axes)
    check_vmap(lambda x, y: ff.jvp(f, (x, y), (y, x))[1], (x, y), axes)
    # The gradient of the map is the map of the gradient, but that a shared argument gets the sum.
    each = ff.vmap(ff.grad(f, argnums=(0, 1)), axes, out_axes=tuple([a or 0 for a in axes]))(x, y)
    total = ff.grad(lambda x, y: np.sum(ff.vmap(f, axes, chunk_size=chunk_size)(x, y)), argnums=(0, 1))(x, y)
    for g, h, axis in zip(total, each, axes, strict=True):
        np.testing.assert_allclose(g, np.sum(h, axis=0) if axis is None else h, rtol=1e-10, atol=1e-11)
