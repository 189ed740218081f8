"""`jit` under and over every other transform, and whose memory goes in and comes out."""

import numpy as np
import pytest
from drawing import Draws
from laws import close

import fnflare as ff
from fnflare import nn, tree
from fnflare.core import ShapeDtypeStruct
from fnflare.program import trace_program
from fnflare.testing import check_grads, check_vmap

RNG = Draws(12)
X = RNG.standard_normal((4, 3))
W = RNG.standard_normal((3, 2))


def loss(w, x):
    return np.mean(np.square(np.tanh(x @ w)))


# -- memory -------------------------------------------------------------------------------------


class TestMemory:
    def test_outputs_are_the_callers_own(self):
        constant, table = np.ones(3), np.arange(6.0).reshape(2, 3)

        @ff.jit
        def f(x):
            y = np.sin(x)
            return [constant, table.T, np.zeros(3), y, y, y * 1.0, np.broadcast_to(x[0], (2, 2)), np.ones(3) + 0 * x]

        for _ in range(3):
            out = f(np.arange(3.0))
            close(out[0], np.ones(3))
            close(out[1], np.arange(6.0).reshape(2, 3).T)
            close(out[2], np.zeros(3))
            close(out[3], np.sin(np.arange(3.0)))
            close(out[6], np.zeros((2, 2)))
            for k, y in enumerate(out):
                y[...] = 7.0 + k
            assert [float(np.mean(y)) for y in out[3:5]] == [10.0, 11.0]
        assert constant.sum() == 3.0
        assert table.sum() == 15.0

    def test_arguments_are_never_written_to(self):
        def f(x, y):
            z = x + y
            for _ in range(3):
                z = np.tanh(z * x - y)
            return {"z": z, "t": x.T.reshape(x.shape) + z, "m": np.maximum(x, z), "s": ff.at(y)[0].set(z[0])}

        x, y = X.copy(), 2 * X
        x.flags.writeable = y.flags.writeable = False
        expected = f(X, 2 * X)
        for _ in range(2):
            close(ff.jit(f)(x, y), expected)
            close(ff.jit(lambda x, y: ff.vjp(f, x, y)[1](expected))(x, y), ff.vjp(f, x, y)[1](expected))
            close(ff.jit(ff.vmap(f))(x, y), ff.vmap(f)(x, y))
        with pytest.raises(ValueError, match="read-only"):
            x[0] = 1.0

    def test_views_and_the_arrays_they_look_at(self):
        def f(x):
            y = x * 2
            view = y[1:]
            again = y.T
            y = y + 1  # may not be written where its views still look
            return view * 3, again + y.T, np.sin(y), view

        close(ff.jit(f)(X), f(X))

        def g(x):
            y = np.exp(x)
            parts = [y[:2], y[2:], y.reshape(-1)[::2]]
            z = np.sqrt(y)
            return [p + 1 for p in parts], z, parts[0]

        close(ff.jit(g)(X), g(X))
        close(
            ff.jit(lambda x: np.maximum(x * 2, np.minimum(x * 3, x.T.T * -1)))(X),
            np.maximum(X * 2, np.minimum(X * 3, -X)),
        )

    def test_arrays_of_any_layout(self):
        for x in (X.T, X[::-1], np.asfortranarray(X), X[:, ::2], np.broadcast_to(X[0], (2, 3))):
            f = lambda x: (np.tanh(x) @ x.T, x.reshape(-1), np.sum(x, 0))  # noqa: E731
            close(ff.jit(f)(x), f(x))


# -- nesting ------------------------------------------------------------------------------------


class TestNesting:
    def test_a_jitted_function_in_another_dissolves(self):
        inner = ff.jit(lambda x, y: np.sin(x) * y)
        outer = ff.jit(lambda x: inner(x, 2.0) + inner(inner(x, x), x))
        program = trace_program(lambda x: [outer(x)], [ShapeDtypeStruct((3,), np.float64)]).program
        names = [e.prim.name for e in program.equations]
        assert "call" not in names
        assert set(names) == {"sin", "multiply", "add"}
        close(outer(X), np.sin(X) * 2 + np.sin(np.sin(X) * X) * X)

    @pytest.mark.parametrize(
        "transform",
        [
            ff.grad,
            lambda f: ff.grad(f, argnums=(0, 1)),
            ff.value_and_grad,
            ff.jacrev,
            ff.jacfwd,
            ff.hessian,
            lambda f: lambda w, x: ff.jvp(f, (w, x), (w, x)),
            lambda f: lambda w, x: ff.vjp(f, w, x)[1](1.0),
            lambda f: lambda w, x: ff.linearize(f, w, x)[1](w, x),
            lambda f: ff.vmap(f, (None, 0)),
            lambda f: ff.vmap(ff.grad(f), (None, 0)),
            lambda f: ff.grad(lambda w, x: np.sum(ff.vmap(f, (None, 0))(w, x))),
            ff.checkpoint,
            lambda f: ff.grad(ff.checkpoint(f)),
            lambda f: lambda w, x: ff.scan(lambda c, r: (c + f(w, r), c), 0.0, x),
            lambda f: lambda w, x: ff.cond(x[0, 0] > 0, f, lambda w, x: 2.0, w, x),
        ],
    )
    def test_under_and_over(self, transform):
        expected = transform(loss)(W, X)
        close(transform(ff.jit(loss))(W, X), expected, rtol=1e-10)
        close(ff.jit(transform(loss))(W, X), expected, rtol=1e-10)
        close(ff.jit(transform(ff.jit(loss)))(W, X), expected, rtol=1e-10)

    def test_derivatives_of_higher_order(self):
        check_grads(ff.jit(loss), (W, X), order=2)
        check_grads(ff.jit(ff.grad(loss)), (W, X), order=2)
        check_grads(ff.jit(ff.grad(ff.jit(ff.grad(lambda x: np.sin(x) * x * x)))), (0.7,), order=1)

    def test_closures_over_tracers(self):
        def f(w, x):
            @ff.jit
            def inner(x):
                return np.tanh(x @ w)

            return np.sum(inner(x) * inner(2 * x))

        check_grads(f, (W, X), order=2)
        check_grads(ff.jit(f), (W, X), order=2)
        check_vmap(f, (np.stack([W, -W]), X), (0, None))
        check_vmap(ff.jit(ff.grad(f)), (np.stack([W, -W]), X), (0, None))
        with ff.disable_jit():
            expected = ff.grad(f)(W, X)
        close(ff.grad(f)(W, X), expected)
        close(f(W, X), np.sum(np.tanh(X @ W) * np.tanh(2 * X @ W)))

    def test_one_function_inside_and_outside_of_a_transform(self):
        """A program that was made inside of one transform holds nothing of it."""
        f = ff.jit(lambda x: np.sin(x) * x)
        g = ff.grad(f)(0.5)
        assert g == ff.grad(f)(0.5) == ff.jit(ff.grad(f))(0.5)
        close(f(0.5), np.sin(0.5) * 0.5)
        close(ff.vmap(f)(X), np.sin(X) * X)
        close(ff.vmap(ff.grad(f))(X[0]), np.cos(X[0]) * X[0] + np.sin(X[0]))
        close(f(X), np.sin(X) * X)

    def test_a_closure_over_a_tracer_is_not_kept(self):
        held = []
        f = ff.jit(lambda x: x * held[0])

        def g(w):
            held[:] = [w]
            return f(3.0)

        assert ff.grad(g)(2.0) == 3.0
        assert ff.grad(g)(5.0) == 3.0
        held[:] = [7.0]
        assert f(3.0) == 21.0

    def test_auxiliary_output_and_names(self):
        def f(params, x):
            y = x @ params["w"]
            return np.sum(y * y), {"y": y, "n": 3}

        for g in (ff.grad(ff.jit(f), has_aux=True), ff.jit(ff.grad(f, has_aux=True))):
            gradient, aux = g({"w": W}, X)
            close(gradient, {"w": 2 * X.T @ (X @ W)})
            close(aux["y"], X @ W)
            assert aux["n"] == 3
        h = ff.jit(ff.grad(lambda x, w: np.sum((x @ w) ** 2), argnames="w"))
        close(h(X, w=W), 2 * X.T @ (X @ W))

    def test_layers_and_train_steps(self):
        init, apply = nn.serial(nn.Dense(8), nn.Relu, nn.LayerNorm(), nn.Dense(3))
        _, params = init(ff.random.key(1), (-1, 3))
        opt = ff.optim.adam(1e-2)

        def step(params, state, x, y):
            def objective(p):
                return np.mean(nn.losses.softmax_cross_entropy_with_integer_labels(apply(p, x), y))

            value, grads = ff.value_and_grad(objective)(params)
            updates, state = opt.update(grads, state, params)
            return ff.optim.apply_updates(params, updates), state, value

        y = np.array([0, 2, 1, 0])
        plain = jitted = (params, opt.init(params))
        for _ in range(5):
            *plain, value = step(*plain, X, y)
            *jitted, other = ff.jit(step)(*jitted, X, y)
            np.testing.assert_allclose(value, other, rtol=1e-6)
        for a, b in zip(tree.leaves(plain), tree.leaves(jitted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
            assert a.dtype == b.dtype

    def test_random_numbers(self):
        f = ff.jit(lambda key: [ff.random.normal(k, (3,)) for k in ff.random.split(key)])
        for seed in (0, 1):
            key = ff.random.key(seed)
            got = f(key)
            for a, k in zip(got, ff.random.split(key), strict=True):
                np.testing.assert_array_equal(a, ff.random.normal(k, (3,)))


def test_tangents_and_cotangents_that_are_numbers():
    """A tracer of a Python number is a tangent like any other."""

    def f(x):
        return ff.jvp(np.sin, (x,), (x,))[1] + ff.vjp(np.cos, x)[1](x)[0]

    expected = np.cos(0.5) * 0.5 - np.sin(0.5) * 0.5
    for g in (f, ff.jit(f)):
        np.testing.assert_allclose(g(0.5), expected, rtol=1e-14)
        check_grads(g, (0.5,), order=2)
        x = np.linspace(0, 1, 3)
        np.testing.assert_allclose(ff.vmap(g)(x), x * np.cos(x) - x * np.sin(x), rtol=1e-14)
