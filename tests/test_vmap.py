"""`vmap` is the stack of what the function gives for each example, wherever the axes are and in whatever nesting."""

import re
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import nn, tree
from fnflare.core import BatchTracer, is_tracer
from fnflare.errors import (
    ArgumentError,
    ConcretizationError,
    DtypeError,
    LeakedTracerError,
    ShapeError,
    TracerArrayError,
)
from fnflare.testing import check_grads, check_vmap, random_like

RNG = Draws(11)
X = RNG.standard_normal((4, 3))
W = RNG.standard_normal((3, 3))
PARAMS = {"w": RNG.standard_normal((3, 2)), "b": RNG.standard_normal(2)}


def close(a, b):
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-13)
    assert tree.structure(a) == tree.structure(b)


def loss(params, x):
    return np.mean(np.square(np.tanh(x @ params["w"] + params["b"])))


def by_loop(f, *columns):
    """The stack of ``f(*row)`` over the rows."""
    return tree.map(lambda *xs: np.stack(xs), *[f(*row) for row in zip(*columns, strict=True)])


class Pair(NamedTuple):
    left: object
    right: object


class TestAxes:
    @pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
    def test_the_axis_of_an_argument(self, axis):
        x = RNG.standard_normal((2, 3, 4))
        close(ff.vmap(np.cumsum, in_axes=axis)(x), np.stack([np.cumsum(v) for v in np.moveaxis(x, axis, 0)]))

    @pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
    def test_the_axis_of_an_output(self, axis):
        x = RNG.standard_normal((2, 3, 4))
        assert np.array_equal(ff.vmap(lambda v: v.T, out_axes=axis)(x), np.moveaxis(x.transpose(0, 2, 1), 0, axis))

    def test_arguments_that_are_shared(self):
        def f(w, x):
            return np.tanh(x @ w)

        close(ff.vmap(f, in_axes=(None, 0))(W, X), np.tanh(X @ W))
        close(ff.vmap(f, in_axes=[None, 1])(W, X.T), np.tanh(X @ W))
        close(ff.vmap(f, (None, 0), 1)(W, X), np.tanh(X @ W).T)

    def test_prefixes_of_arguments_and_outputs(self):
        params = {"w": np.stack([W, 2 * W], axis=-1), "b": [X[0], 2.0], "name": "dense", "none": None}
        x = RNG.standard_normal((2, 3))

        def f(p, pair):
            assert p["name"] == "dense"
            assert p["b"][1] == 2.0
            y = p["w"] @ pair.left + p["b"][0] * pair.right
            return {"y": y, "shared": [p["b"][0], p["b"][1]], "both": (y, p["b"][0] + 1)}

        axes = ({"w": -1, "b": None, "name": None, "none": None}, Pair(0, None))
        out = ff.vmap(f, axes, {"y": 1, "shared": None, "both": 0})(params, Pair(x, 3.0))
        y = np.stack([W @ x[0], 2 * W @ x[1]]) + 3 * X[0]
        close(out["y"], y.T)
        close(out["shared"], [X[0], 2.0])
        close(out["both"], (y, np.stack([X[0] + 1] * 2)))

    def test_keyword_arguments_are_mapped_along_axis_0(self):
        def f(x, *, scale, tree):
            return x * scale + tree["a"]

        out = ff.vmap(f, in_axes=1)(X.T, scale=np.arange(4.0), tree={"a": np.ones(4)})
        close(out, X * np.arange(4.0)[:, None] + 1)

    def test_a_named_tuple_may_hold_the_axes_of_the_arguments(self):
        close(ff.vmap(np.multiply, in_axes=Pair(0, None))(X, 2.0), 2 * X)

    def test_outputs_that_are_the_same_for_all_are_repeated_in_memory_of_their_own(self):
        w = np.ones(2)
        out = ff.vmap(lambda x: (w, 2.5, 3, x), out_axes=(1, 0, 0, 0))(X)
        assert [o.shape for o in out] == [(2, 4), (4,), (4,), (4, 3)]
        assert [o.dtype for o in out] == [np.float64, np.float64, np.int64, np.float64]
        out[0][0, 0] = 7.0
        assert out[0].sum() == 14.0
        assert w.sum() == 2.0

    def test_the_number_of_examples_where_nothing_is_mapped(self):
        close(ff.vmap(lambda x: 2 * x, in_axes=None, axis_size=2)(X), np.stack([2 * X] * 2))
        close(ff.vmap(lambda: np.ones(2), axis_size=3)(), np.ones((3, 2)))
        close(ff.vmap(np.sin, axis_size=4)(X), np.sin(X))
        assert ff.vmap(lambda x: x, in_axes=None, out_axes=None, axis_size=2)(3.0) == 3.0

    def test_no_examples(self):
        def f(x):
            return {"s": np.tanh(x).sum(), "y": x[:2] * 2.0, "k": np.argmax(x)}

        for chunk_size in (None, 2):
            out = ff.vmap(f, in_axes=1, chunk_size=chunk_size)(np.zeros((3, 0), np.float32))
            shapes = tree.map(lambda x: (x.shape, x.dtype), out)
            assert shapes == {"s": ((0,), np.float32), "y": ((0, 2), np.float32), "k": ((0,), np.int64)}

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, bool])
    def test_dtypes_stay(self, dtype):
        x = np.ones((2, 3), dtype)
        assert ff.vmap(lambda v: v * 1)(x).dtype == (x * 1).dtype
        if dtype is np.float32:
            assert ff.vmap(lambda v, s: v * 2.0 + s, in_axes=(0, None))(x, 0.5).dtype == np.float32
            assert ff.vmap(lambda v, s: v * s)(x, np.ones(2)).dtype == np.float64

    def test_the_examples_are_seen_one_at_a_time(self):
        def f(x):
            assert isinstance(x, BatchTracer)
            assert (x.shape, x.ndim, x.size, len(x), x.dtype) == ((3, 2), 2, 6, 3, np.float64)
            assert [row.shape for row in x] == [(2,)] * 3
            assert "shape=(3, 2)" in repr(x)
            return x

        x = np.zeros((3, 4, 2))
        assert ff.vmap(f, in_axes=1, out_axes=1)(x).shape == x.shape

    def test_names(self):
        def scaled(x):
            """Twice."""
            return 2 * x

        assert ff.vmap(scaled).__name__ == "vmap(scaled)"
        assert "Twice." in ff.vmap(scaled).__doc__
        assert ff.vmap(scaled).__wrapped__ is scaled


class TestChunks:
    @pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 9])
    def test_chunks_give_the_same(self, chunk_size):
        def f(x, w):
            return (np.tanh(x @ w), w.sum(), x.sum())

        for axes, out_axes, x in (((0, None), (0, None, 0), X), ((1, None), (-1, 0, 0), X.T)):
            whole = ff.vmap(f, axes, out_axes)(x, W)
            close(ff.vmap(f, axes, out_axes, chunk_size=chunk_size)(x, W), whole)

    def test_no_more_examples_at_once_than_a_chunk(self):
        seen = []

        def f(x):
            seen.append(x.value.shape[0])
            return x

        ff.vmap(f, chunk_size=3)(np.zeros((7, 2)))
        assert seen == [3, 3, 1]

    def test_chunks_differentiate(self):
        f = ff.vmap(lambda x, w: np.tanh(x @ w), (0, None), chunk_size=3)
        check_grads(f, (X, W), order=2)
        close(ff.vmap(ff.grad(loss), (None, 0), chunk_size=3)(PARAMS, X), ff.vmap(ff.grad(loss), (None, 0))(PARAMS, X))

    def test_chunks_nest(self):
        x = RNG.standard_normal((3, 5, 2))
        f = ff.vmap(ff.vmap(lambda v: np.cumsum(v) * v, chunk_size=2), chunk_size=2)
        close(f(x), np.cumsum(x, -1) * x)


class TestNesting:
    def test_gradients_of_each_example(self):
        each = ff.vmap(ff.grad(loss), in_axes=(None, 0))(PARAMS, X)
        close(each, by_loop(lambda x: ff.grad(loss)(PARAMS, x), X))
        values, again = ff.vmap(ff.value_and_grad(loss), in_axes=(None, 0))(PARAMS, X)
        close(again, each)
        close(values, by_loop(lambda x: loss(PARAMS, x), X))

    def test_gradients_of_scalars_that_are_python_numbers(self):
        def f(a, x):
            return np.sum(np.sin(x * np.float32(2)) * a)

        x = X.astype(np.float32)
        each = ff.vmap(ff.grad(f, argnums=(0, 1)), in_axes=(None, 0))(2.0, x)
        expected = by_loop(lambda v: ff.grad(f, argnums=(0, 1))(2.0, v), x)
        assert [g.dtype for g in each] == [g.dtype for g in expected] == [np.float64, np.float32]
        for g, h in zip(each, expected, strict=True):
            np.testing.assert_allclose(g, h, rtol=1e-6)

    def test_auxiliary_output(self):
        def f(p, x):
            return (loss(p, x), {"doubled": 2 * x, "n": 3})

        g, aux = ff.vmap(ff.grad(f, has_aux=True), in_axes=(None, 0))(PARAMS, X)
        close(g, ff.vmap(ff.grad(loss), in_axes=(None, 0))(PARAMS, X))
        close(aux, {"doubled": 2 * X, "n": np.full(4, 3)})

    def test_the_gradient_of_a_sum_over_examples(self):
        def total(p, x):
            return np.sum(ff.vmap(loss, in_axes=(None, 0))(p, x))

        each = ff.vmap(ff.grad(loss), in_axes=(None, 0))(PARAMS, X)
        close(ff.grad(total)(PARAMS, X), tree.map(lambda g: g.sum(0), each))
        check_grads(total, (PARAMS, X), order=2)

    def test_every_pair_by_two_maps(self):
        pairs = ff.vmap(ff.vmap(lambda x, y: np.tanh(x @ y), (None, 0)), (0, None))
        close(pairs(X, W), np.tanh(X @ W.T))
        f = ff.vmap(ff.vmap(lambda x: np.cumsum(x) * x[0], in_axes=1, out_axes=1), in_axes=2, out_axes=-1)
        x = RNG.standard_normal((2, 3, 4))
        close(f(x), np.cumsum(x, 0) * x[:1])

    def test_closures_over_tracers_of_other_transforms(self):
        def f(w):
            return np.sum(ff.vmap(lambda x: ff.grad(lambda v: np.sum(np.tanh(v @ w)))(x))(X))

        check_grads(f, (W,), order=2)
        outer = ff.vmap(lambda a: ff.vmap(lambda b: a * b + a)(X[:, 0]))(X[:, 1])
        close(outer, np.outer(X[:, 1], X[:, 0]) + X[:, 1:2])

    def test_forward_mode(self):
        def f(x):
            return np.tanh(x) * x[::-1]

        ts = random_like(X)
        close(ff.vmap(lambda x, t: ff.jvp(f, (x,), (t,)))(X, ts), ff.jvp(ff.vmap(f), (X,), (ts,)))
        out, push = ff.linearize(f, X[0])
        close(ff.vmap(push)(ts), by_loop(push, ts))
        close(ff.vmap(lambda x, t: ff.linearize(f, x)[1](t))(X, ts), ff.jvp(ff.vmap(f), (X,), (ts,))[1])
        assert out.shape == (3,)

    def test_a_pullback_that_is_mapped(self):
        def f(p, i):
            return np.tanh(p["w"])[i] * p["b"]

        _, pullback = ff.vjp(f, PARAMS, 1)
        cts = RNG.standard_normal((5, 2))
        mapped, nothing = ff.vmap(pullback)(cts)
        close(mapped, by_loop(lambda ct: pullback(ct)[0], cts))
        assert nothing.shape == (5,)
        assert nothing.dtype == ff.float0

    def test_derivatives_to_second_order(self):
        def f(x, w):
            return np.exp(-np.sum(np.square(x @ w))) + np.max(x) * np.min(w)

        check_grads(ff.vmap(f, in_axes=(0, None)), (X, W), order=2)
        check_vmap(ff.hessian(f), (X, W), in_axes=(0, None))
        check_vmap(ff.jacrev(ff.jacfwd(f, 1)), (X, W), in_axes=(0, None))
        check_vmap(lambda x: ff.vmap(ff.grad(lambda v: np.sum(np.sin(v) * v)))(x * np.eye(3)), (X,))

    def test_shapes_are_foretold(self):
        f = ff.vmap(ff.grad(loss), in_axes=(None, 0), out_axes=-1)
        foretold = ff.eval_shape(f, PARAMS, X)
        assert tree.map(lambda a: a.shape, foretold) == {"b": (2, 4), "w": (3, 2, 4)}
        assert ff.vmap(lambda x: np.zeros(ff.eval_shape(np.cumsum, x).shape))(X).shape == (4, 3)

    def test_stopped_gradients(self):
        def f(x):
            return ff.stop_gradient(x) * x

        close(ff.vmap(ff.grad(f))(X[:, 0]), X[:, 0])
        close(ff.grad(lambda x: np.sum(ff.vmap(f)(x)))(X), X)

    def test_padding_by_masks_that_differ(self):
        def f(x, n):
            return np.sum(np.where(np.arange(3) < n, np.square(x), 0.0))

        lengths = np.array([3, 1, 0, 2])
        check_vmap(f, (X, lengths))
        g = ff.vmap(ff.grad(f))(X, lengths)
        close(g, np.where(np.arange(3) < lengths[:, None], 2 * X, 0))


class TestReads:
    """Cotangents of reads inside and outside of the map."""

    @staticmethod
    def recurrent(w, xs):
        h = np.zeros(2)
        for t in range(len(xs)):
            h = np.tanh(xs[t] @ w["w"] + h * w["b"])
        return np.sum(h)

    def test_a_loop_over_time(self):
        xs = RNG.standard_normal((4, 5, 3))
        f = ff.grad(self.recurrent, argnums=(0, 1))
        check_vmap(f, (PARAMS, xs), in_axes=(None, 0))
        check_vmap(f, (PARAMS, np.moveaxis(xs, 0, 2)), in_axes=(None, 2))

        def total(w, x):
            return np.sum(ff.vmap(self.recurrent, (None, 0))(w, x))

        check_grads(total, (PARAMS, xs), order=2)

    def test_a_loop_over_time_joins_its_rows_once(self):
        """The cotangents of T reads cost one array, not T of them: no write into a part takes place."""
        names = []

        def f(x):
            _, pullback = ff.vjp(lambda x: sum(np.sin(x[t]) for t in range(6)), x)
            return ff.vmap(pullback)(np.ones((2, 3)))

        from fnflare.core import AbstractTrace, ShapeDtypeStruct

        trace = AbstractTrace(f, observe=lambda prim, *_: names.append(prim.name))
        with trace:
            f(trace.tracer(ShapeDtypeStruct((6, 3), np.float64)))
        assert names.count("concatenate") == 1
        assert "index_add" not in names

    @pytest.mark.parametrize(
        "read",
        [
            lambda x: x[0] * x[0] + x[1] * x[-1],
            lambda x: x[1:3] * x[:2] + x[..., 1:][:2, :1],
            lambda x: x[:, 0] * x[:, -1] + x[:, 1],
            lambda x: x[..., 2] * x[0, 2] + x[..., 2],
            lambda x: x[::2].sum() + x[::-1] * x + x[2:2].sum(),
            lambda x: x[np.array([0, 2, 0])] * x[np.array([[1, -1, 0]])] + x[[1]],
            lambda x: x[None, 1] * x[np.array([True, False, True, True])].sum() + x.sum(),
            lambda x: np.split(x, [1, 2])[1] * np.concatenate(np.split(x, 2)[::-1]),
            lambda x: x[1, 2] * x[np.array(3), np.array([0, 0, 1])] + x[...],
        ],
    )
    def test_reads_of_every_kind(self, read):
        def f(x):
            return np.sum(np.sin(read(x)))

        xs = RNG.standard_normal((3, 4, 3))
        check_vmap(ff.grad(f), (xs,))
        check_vmap(ff.grad(f), (np.moveaxis(xs, 0, 2),), in_axes=2)
        check_grads(ff.grad(f), (xs[0],), order=1)
        check_grads(lambda x: np.sum(ff.vmap(f)(x)), (xs,), order=1)

    def test_reads_at_indices_that_are_mapped(self):
        ids = np.array([[0, 1], [3, 3], [2, 0]])

        def f(table, i):
            return np.sum(np.sin(ff.at(table)[i].get()) * 2.0)

        check_vmap(f, (X, ids), in_axes=(None, 0))
        check_vmap(ff.grad(f), (X, ids), in_axes=(None, 0))
        # The cotangent is the same for all, and only its place differs.
        check_vmap(ff.grad(lambda table, i: np.sum(table[i])), (X, ids), in_axes=(None, 0))
        check_grads(lambda table: np.sum(ff.vmap(f, (None, 0))(table, ids)), (X,), order=2)
        check_vmap(ff.grad(lambda x, i: np.sum(x[i] * x[0]) * x[i[0]].sum()), (np.stack([X] * 3), ids))


class TestCustomRules:
    def test_custom_vjp(self):
        @ff.custom_vjp
        def f(x, y):
            return {"p": x * y, "s": np.sum(np.sin(x))}

        f.defvjp(
            lambda x, y: (f(x, y), (x, y)),
            lambda r, ct: (ct["p"] * r[1] * 3 + ct["s"] * np.cos(r[0]), np.sum(ct["p"] * r[0])),
        )

        def scalar(x, y):
            return np.sum(f(x, y)["p"]) * f(x, y)["s"]

        y = RNG.standard_normal(4)
        for axes, args in (((0, 0), (X, y)), ((None, 0), (X[0], y)), ((0, None), (X, 2.0)), ((1, None), (X.T, 2.0))):
            check_vmap(f, args, axes)
            check_vmap(ff.grad(scalar, argnums=(0, 1)), args, axes)
        each = ff.vmap(ff.grad(scalar))(X, y)
        close(ff.grad(lambda x: np.sum(ff.vmap(scalar)(x, y)))(X), each)

    def test_custom_jvp(self):
        @ff.custom_jvp
        def f(x, y):
            return np.sin(x) * y

        f.defjvp(lambda p, t: (f(*p), t[0] * np.cos(p[0]) * p[1] * 2 + np.sin(p[0]) * t[1]))
        y = RNG.standard_normal(4)
        for axes, args in (((0, 0), (X, y)), ((None, 0), (X[0], y)), ((0, None), (X, 2.0)), ((1, 0), (X.T, y))):
            check_vmap(f, args, axes)
            check_vmap(ff.grad(lambda x, y: np.sum(f(x, y)), argnums=(0, 1)), args, axes)
            check_vmap(lambda x, y: ff.jvp(f, (x, y), (x, y)), args, axes)

        def rule(x):
            return np.sum(f(x, 1.0))

        close(ff.grad(lambda x: np.sum(ff.vmap(rule)(x)))(X), 2 * np.cos(X))
        close(ff.jvp(ff.vmap(lambda x: f(x, 1.0)), (X,), (X,))[1], 2 * X * np.cos(X))

    def test_checkpoint(self):
        f = ff.checkpoint(lambda w, x: np.sum(np.tanh(np.tanh(x @ w) @ w)))
        check_vmap(f, (W, X), in_axes=(None, 0))
        check_vmap(ff.grad(f, argnums=(0, 1)), (W, X), in_axes=(None, 0))
        check_grads(ff.vmap(f, in_axes=(None, 0)), (W, X), order=2)
        total = ff.grad(lambda w: np.sum(ff.vmap(ff.checkpoint(lambda x: np.sum(np.tanh(x @ w))))(X)))
        close(total(W), ff.grad(lambda w: np.sum(np.tanh(X @ w)))(W))

    @pytest.mark.parametrize(
        "transform",
        [
            lambda f: ff.vmap(f, (0, None)),
            lambda f: ff.vmap(ff.vmap(f, (0, None)), (None, 0)),
            lambda f: ff.vmap(ff.grad(f, (0, 1)), (0, None)),
            lambda f: ff.grad(lambda x, w: ff.vmap(f, (0, None))(x, w).sum(), (0, 1)),
            lambda f: ff.vmap(ff.grad(lambda x, w: ff.vmap(f, (None, 0))(x, w).sum(), (0, 1)), (0, None)),
            lambda f: ff.vmap(ff.hessian(f), (0, None)),
            lambda f: ff.hessian(lambda x, w: ff.vmap(f, (0, None))(x, w).sum(), 1),
        ],
    )
    def test_a_checkpoint_that_closes_over_examples(self, transform):
        def f(x, w, checkpoint=lambda f: f):
            u = np.tanh(x * np.sum(w))
            y = checkpoint(lambda a: np.sin(a * u) * w[0] + u)(x)
            return np.sum(np.sin(checkpoint(lambda a: checkpoint(lambda b: b * a * x * w)(a + y))(x)))

        close(transform(partial(f, checkpoint=ff.checkpoint))(X, W), transform(f)(X, W))


class TestLayers:
    def test_gradients_of_each_example_of_a_net(self):
        init, apply = nn.serial(nn.Dense(5), nn.Tanh, nn.Dense(2))
        _, params = init(ff.random.key(0), (-1, 3))
        labels = np.array([0, 1, 1, 0])

        def f(params, x, label):
            return nn.losses.softmax_cross_entropy_with_integer_labels(apply(params, x[None]), label[None])[0]

        check_vmap(ff.grad(f), (params, X.astype(np.float32), labels), in_axes=(None, 0, 0))

    def test_an_ensemble(self):
        init, apply = nn.serial(nn.Dense(5), nn.Tanh, nn.Dense(2))
        members = [init(ff.random.key(k), (-1, 3))[1] for k in range(3)]
        stacked = tree.map(lambda *xs: np.stack(xs), *members)
        out = ff.vmap(apply, in_axes=(0, None))(stacked, X.astype(np.float32))
        np.testing.assert_allclose(out, np.stack([apply(m, X.astype(np.float32)) for m in members]), rtol=1e-5)


class TestRandom:
    def test_each_example_draws_by_its_own_key(self):
        keys = ff.random.split(ff.random.key(3), 4)
        normal, coins = lambda k: ff.random.normal(k, (3,)), lambda k: ff.random.bernoulli(k, 0.4, (2, 5))
        for draw in (normal, coins, ff.random.split):
            np.testing.assert_array_equal(ff.vmap(draw)(keys), np.stack([draw(k) for k in keys]))

    def test_one_key_draws_the_same_for_all(self):
        noisy = ff.vmap(lambda x, key: x + ff.random.normal(key, (3,)), in_axes=(0, None))
        close(noisy(X, ff.random.key(1)), X + ff.random.normal(ff.random.key(1), (3,)))

    def test_dropout(self):
        apply = nn.Dropout(0.5).apply
        keys = ff.random.split(ff.random.key(0), 4)
        check_vmap(ff.grad(lambda x, key: np.sum(apply((), x, key=key, train=True))), (X, keys))


class TestErrors:
    def test_sizes_that_differ_name_every_mapped_argument(self):
        def f(params, x, *, key):
            return x

        params = {"w": np.zeros((3, 2)), "b": [np.zeros(5), np.zeros(3)]}
        with pytest.raises(ShapeError) as e:
            ff.vmap(f, in_axes=({"w": 1, "b": [None, 0]}, 0))(params, np.zeros((4, 2)), key=np.zeros(3))
        assert e.value.args[0].splitlines()[1:] == [
            "  argument 0, leaf 'b/1': axis 0 has 3",
            "  argument 0, leaf 'w': axis 1 has 2",
            "  argument 1: axis 0 has 4",
            "  argument 'key': axis 0 has 3",
        ]
        assert "f" in str(e.value)
        with pytest.raises(ShapeError, match=r"argument 0: axis 0 has 4\n +axis_size is 3"):
            ff.vmap(np.sin, axis_size=3)(X)

    @pytest.mark.parametrize(
        ("vmapped", "args", "error", "message"),
        [
            (ff.vmap(np.sin), (1.0,), ShapeError, r"argument 0 cannot be mapped along axis 0: its shape is \(\)"),
            (ff.vmap(np.sin), (np.float32(1),), ShapeError, r"argument 0 .*\(\)"),
            (ff.vmap(np.add), (X, True), ShapeError, r"argument 1 .*None in in_axes"),
            (ff.vmap(np.sin, 2), (X,), ShapeError, r"axis 2: its shape is \(4, 3\)"),
            (ff.vmap(np.sin, -3), (X,), ShapeError, r"axis -3: its shape is \(4, 3\)"),
            (ff.vmap(lambda x, s: x), (X, {"s": ["a"]}), DtypeError, r"argument 1, leaf 's/0' is a str.*in_axes"),
            (ff.vmap(lambda x, f: x), (X, np.sin), DtypeError, r"argument 1 is a ufunc"),
            (ff.vmap(np.add, (0,)), (X, X), ArgumentError, r"in_axes has 1 entries.*2 positional"),
            (ff.vmap(np.add, (0, 0, 0)), (X, X), ArgumentError, r"in_axes has 3 entries.*2 positional"),
            (ff.vmap(np.sin, ({"a": 0},)), (X,), ArgumentError, r"in_axes of argument 0 .*prefix.*a leaf"),
            (ff.vmap(np.sin, ({"a": 0},)), ({"b": X},), ArgumentError, r"prefix.*missing \['a'\]"),
            (ff.vmap(np.sin, None), (X,), ArgumentError, r"no argument of sin is mapped.*axis_size"),
            (ff.vmap(lambda: 1.0), (), ArgumentError, r"no argument .*is mapped"),
            (ff.vmap(np.sin, 0, None), (X,), ArgumentError, r"the output differs from example to example.*None"),
            (ff.vmap(lambda x: {"a": [1, x]}, 0, None), (X,), ArgumentError, r"the output, leaf 'a/1', differs"),
            (ff.vmap(np.sin, 0, (0, 0)), (X,), ArgumentError, r"out_axes must be a prefix of the output"),
            (ff.vmap(np.sin, 0, 2), (X,), ShapeError, r"the output has 2 axes .*out_axes cannot be 2"),
            (ff.vmap(np.sin, 0, -3), (X,), ShapeError, r"the output has 2 axes"),
            (ff.vmap(lambda x: "text"), (X,), DtypeError, r"the output is a str.*None in out_axes"),
        ],
    )
    def test_what_is_wrong_is_said(self, vmapped, args, error, message):
        with pytest.raises(error, match=re.compile(message, re.DOTALL)):
            vmapped(*args)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"in_axes": "x"}, "in_axes must be an int, None, or a tree"),
            ({"in_axes": (0, 1.0)}, r"in_axes .*got 1\.0"),
            ({"in_axes": True}, "in_axes .*got True"),
            ({"out_axes": "x"}, "out_axes must be"),
            ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
            ({"in_axes": {"a": 0}}, "tuple"),
        ],
    )
    def test_wrong_settings(self, arguments, message):
        with pytest.raises(ArgumentError, match=message):
            ff.vmap(np.sin, **arguments)(X)

    def test_values_are_not_known(self):
        for use in (bool, float, int, lambda x: [1, 2][x], lambda x: x.item()):
            with pytest.raises(ConcretizationError, match="in_axes=None"):
                ff.vmap(lambda x, use=use: use(x))(np.arange(3))
        with pytest.raises(ConcretizationError, match=r"differs from example to example.*np\.where"):
            ff.vmap(lambda x: x if x > 0 else -x)(X[:, 0])
        with pytest.raises(TracerArrayError):
            ff.vmap(np.asarray)(X)
        for ids in (np.array([0, 1]), np.array([[0, 1], [1, 2]])):
            with pytest.raises(TracerArrayError, match=r"ff\.at\(array\)\[t\]\.get\(\)"):
                ff.vmap(lambda i: X[i])(ids)
            close(ff.vmap(lambda i: ff.at(X)[i].get())(ids), X[ids])
        with pytest.raises(ConcretizationError, match="a mask that is a tracer"):
            ff.vmap(lambda x: x[x > 0])(X)

    def test_a_tracer_that_outlives_the_map(self):
        kept = []
        ff.vmap(lambda x: kept.append(x) or x)(X)
        assert is_tracer(kept[0])
        with pytest.raises(LeakedTracerError):
            kept[0] + 1

    def test_an_operation_without_a_rule(self, monkeypatch):
        from fnflare.core import primitives
        from fnflare.errors import UnsupportedError

        monkeypatch.setattr(primitives()["cumsum"], "batch", None)
        with pytest.raises(UnsupportedError, match="cumsum has no rule for vmap"):
            ff.vmap(np.cumsum)(X)


class TestCheckVmap:
    def test_what_is_right_passes(self):
        def f(x, w, name):
            return {"y": x @ w["w"], "k": np.argmax(x), "ok": x > 0}

        check_vmap(f, (X, PARAMS, "name"), in_axes=(0, None, None))

    def test_what_is_wrong_is_named(self):
        def sums_too_much(x):
            whole = x.value if is_tracer(x) else x
            return {"a": np.sum(x), "b": [np.sum(whole) + 0 * np.sum(x)]}

        with pytest.raises(AssertionError, match=r"example 0, leaf 'b/0': .*alone it gives"):
            check_vmap(sums_too_much, (X,))
        with pytest.raises(AssertionError, match="example 0: "):
            check_vmap(lambda x: x.argmax() * (2 if is_tracer(x) else 1) + 1, (X,))
        with pytest.raises(AssertionError, match=r"dtype float32, not \(1,\) and float64"):
            check_vmap(lambda x: x.astype(np.float32) if is_tracer(x) else x, (X,))
        with pytest.raises(AssertionError, match="structure"):
            check_vmap(lambda x: (x,) if is_tracer(x) else x, (X,))
