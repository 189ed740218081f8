"""`pure_callback` calls what cannot be traced from wherever it stands, as it would be called without a transform."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fnflare as ff
from fnflare import config
from fnflare.errors import ArgumentError, ShapeError, TreeError, UnsupportedError

X = np.array([3.0, 1.0, 2.0])


def _sorted(x):
    """Python's own sort, which no tracer survives; along the last axis, as one that takes batches must."""
    rows = [sorted(row) for row in np.reshape(x, (-1, x.shape[-1])).tolist()]
    return np.array(rows, x.dtype).reshape(x.shape)


def _call(x, method=None):
    return ff.pure_callback(_sorted, x, x, vmap_method=method)


@pytest.mark.parametrize("native", [False, True])
def test_a_call_in_a_program(native):
    def f(x):
        return np.sum(_call(x * 2) * np.arange(3.0)) + x

    expected = np.sum(_sorted(X * 2) * np.arange(3.0)) + X
    with config.override(use_native=native):
        np.testing.assert_allclose(f(X), expected)
        np.testing.assert_allclose(ff.jit(f)(X), expected)
        np.testing.assert_allclose(ff.jit(f)(X + 1), f(X + 1))
        looped = ff.jit(lambda x: ff.scan(lambda c, r: (c + _call(x)[0], c * r), 0.0, x))
        np.testing.assert_allclose(looped(X)[0], 3.0)
    assert ff.eval_shape(f, X).shape == (3,)


@pytest.mark.parametrize("wrap", [lambda f: f, ff.jit])
@pytest.mark.parametrize("method", ["sequential", "expand_dims", "broadcast_all"])
def test_batches(method, wrap):
    xs = np.stack([X, -X, X[::-1] * 2])
    np.testing.assert_array_equal(wrap(ff.vmap(partial(_call, method=method)))(xs), _sorted(xs))
    np.testing.assert_array_equal(wrap(ff.vmap(partial(_call, method=method), in_axes=1))(xs.T), _sorted(xs))

    def outer(x, y):  # takes batches of either, or of both
        return np.multiply(x[..., :, None], y[..., None, :])

    def f(x, y):
        return ff.pure_callback(outer, ff.ShapeDtypeStruct((3, 3), x.dtype), x, y, vmap_method=method)

    np.testing.assert_array_equal(wrap(ff.vmap(f, in_axes=(0, None)))(xs, X), outer(xs, X))


def test_trees_go_in_and_come_out():
    def f(pair, *, scale):
        return {"sum": pair[0] + pair[1], "count": np.array(int(scale))}

    like = {"sum": X, "count": ff.ShapeDtypeStruct((), np.int64)}
    out = ff.jit(lambda x: ff.pure_callback(f, like, (x, 1.0), scale=3))(X)
    np.testing.assert_array_equal(out["sum"], X + 1)
    assert out["count"] == 3


def test_a_rule_around_it():
    @ff.custom_jvp
    def total(x):
        return np.sum(_call(x))

    total.defjvps(lambda t, ans, x: np.sum(t))
    for transform in (ff.grad(total), ff.jit(ff.grad(total)), ff.grad(ff.jit(total))):
        np.testing.assert_array_equal(transform(X), np.ones(3))
    assert ff.jit(lambda x: ff.jvp(total, (x,), (x,))[1])(X) == 6


def test_what_it_refuses():
    for transform in (lambda f: f, ff.jit):
        with pytest.raises(UnsupportedError, match=r"_sorted cannot be differentiated.*ff\.custom_jvp"):
            ff.grad(lambda x: np.sum(transform(_call)(x)))(X)  # noqa: B023
        with pytest.raises(UnsupportedError, match=r"_sorted cannot be differentiated"):
            ff.jvp(transform(_call), (X,), (X,))
        with pytest.raises(UnsupportedError, match=r"_sorted has no rule for vmap.*vmap_method='sequential'"):
            transform(ff.vmap(_call))(X[None])
        with pytest.raises(ShapeError, match=r"answer 0 of .*_sorted was to be float64\[2\], got float64\[3\]"):
            transform(lambda x: ff.pure_callback(_sorted, x[:2], x))(X)
        with pytest.raises(TreeError, match=r"was to return \(\*, \*\)|was to return TreeDef"):
            transform(lambda x: ff.pure_callback(_sorted, (x, x), x))(X)
    with pytest.raises(ArgumentError, match=r"vmap_method='fast' is none of"):
        _call(X, "fast")
    np.testing.assert_array_equal(ff.grad(lambda x: np.sum(x * _call(ff.stop_gradient(x))))(X), np.sort(X))
