"""The transforms: each alone, in its forms of arguments, and nested in any mix."""

# ruff: noqa: E731 (a function to differentiate reads best as a formula)

import threading
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import ops, tree
from fnflare.core import trace_depth
from fnflare.testing import check_grads

RNG = Draws(11)
X = RNG.standard_normal(4)
A = RNG.standard_normal((4, 4))
close = partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-12)


def bowl(x):
    """A scalar function with a full Hessian and all higher derivatives."""
    return np.sum(np.sin(A @ x) * np.exp(-x * x)) + np.prod(x)


def vector(x):
    return np.tanh(A @ x) * x


class TestNesting:
    def test_orders_of_a_polynomial(self):
        f = lambda x: x**5
        derivatives = [f]
        for _ in range(6):
            derivatives.append(ff.grad(derivatives[-1]))
        assert [float(d(2.0)) for d in derivatives] == [32, 80, 160, 240, 240, 120, 0]

    def test_forward_and_reverse_agree_at_second_order(self):
        v = RNG.standard_normal(4)
        forward_over_reverse = ff.jvp(ff.grad(bowl), (X,), (v,))[1]
        reverse_over_forward = ff.grad(lambda x: ff.jvp(bowl, (x,), (v,))[1])(X)
        reverse_over_reverse = ff.grad(lambda x: np.vdot(ff.grad(bowl)(x), v))(X)
        forward_over_forward = ff.jvp(lambda x: ff.jvp(bowl, (x,), (v,))[1], (X,), (v,))[1]
        close(forward_over_reverse, reverse_over_forward)
        close(forward_over_reverse, reverse_over_reverse)
        close(v @ forward_over_reverse, forward_over_forward)

    def test_third_order_in_every_mix(self):
        modes = {
            "reverse": lambda f: lambda s: ff.grad(f)(s),
            "forward": lambda f: lambda s: ff.jvp(f, (s,), (1.0,))[1],
            "linearized": lambda f: lambda s: ff.linearize(f, s)[1](1.0),
            "pulled": lambda f: lambda s: ff.vjp(f, s)[1](1.0)[0],
        }
        f = lambda s: bowl(s * X)
        expected = ff.grad(ff.grad(ff.grad(f)))(0.7)
        for a in modes.values():
            for b in modes.values():
                for c in modes.values():
                    close(a(b(c(f)))(0.7), expected)

    @pytest.mark.parametrize("outer", [ff.jacfwd, ff.jacrev])
    @pytest.mark.parametrize("inner", [ff.jacfwd, ff.jacrev])
    def test_all_hessians_agree(self, outer, inner):
        h = ff.hessian(bowl)(X)
        close(outer(inner(bowl))(X), h)
        close(h, h.T)
        close(h, ff.jacrev(ff.grad(bowl))(X))

    def test_third_derivative_tensor(self):
        close(ff.jacfwd(ff.hessian(bowl))(X), ff.jacrev(ff.jacrev(ff.jacrev(bowl)))(X))

    def test_check_grads_to_third_order(self):
        check_grads(bowl, (X,), order=3)
        check_grads(vector, (X,), order=3)


class TestPerturbationConfusion:
    """Siskind and Pearlmutter 2005, "Perturbation confusion and referential transparency"."""

    @pytest.mark.parametrize("inner", ["grad", "jvp"])
    @pytest.mark.parametrize("outer", ["grad", "jvp"])
    def test_the_inner_derivative_takes_the_outer_variable_as_constant(self, outer, inner):
        d = {"grad": ff.grad, "jvp": lambda f: lambda x: ff.jvp(f, (x,), (1.0,))[1]}
        f = lambda x: x * d[inner](lambda y: x + y)(1.0)
        assert d[outer](f)(1.0) == 1.0
        g = lambda x: x * d[inner](lambda y: x * y * y)(x)  # 2 x^3 whose inner derivative holds x fixed
        assert d[outer](g)(3.0) == 54.0

    @pytest.mark.parametrize("mode", [ff.jacfwd, ff.jacrev])
    def test_a_function_that_returns_a_function(self, mode):
        shift = lambda s: lambda f: lambda x: f(x + s)
        h = lambda s: mode(lambda x: shift(s)(np.sin)(x))(0.3)
        close(mode(h)(0.2), -np.sin(0.5))

    def test_closures_over_tracers_of_several_levels(self):
        def f(a):
            def g(b):
                return ff.grad(lambda c: a * b * c * c + b**3 * c)(b)  # 2 a b^2 + b^3

            return ff.grad(g)(a)  # 4 a^2 + 3 a^2

        assert f(2.0) == 28.0
        assert ff.grad(f)(2.0) == 28.0
        check_grads(f, (2.0,), order=2)


class Layer(NamedTuple):
    w: np.ndarray
    b: np.ndarray


class TestArguments:
    def f(self, x, y, *, z=1.0):
        return np.sum(x * y * z)

    def test_argnums(self):
        x, y = np.array([1.0, 2.0]), np.array([3.0, 5.0])
        close(ff.grad(self.f)(x, y), y)
        close(ff.grad(self.f, 1)(x, y), x)
        close(ff.grad(self.f, argnums=-1)(x, y), x)
        close(ff.grad(self.f, np.int64(1))(x, y), x)
        gx, gy = ff.grad(self.f, (0, 1))(x, y)
        close([gx, gy], [y, x])
        gy, gx = ff.grad(self.f, [1, 0])(x, y)
        close([gx, gy], [y, x])
        (only,) = ff.grad(self.f, (1,))(x, y)
        close(only, x)

    def test_argnames(self):
        x, y = np.array([1.0, 2.0]), np.array([3.0, 5.0])
        assert ff.grad(self.f, argnames="z")(x, y, z=2.0) == 13.0
        named = ff.grad(self.f, argnames=("z",))(x, y, z=2.0)
        assert set(named) == {"z"}
        assert named["z"] == 13.0
        by_number, by_name = ff.grad(self.f, argnums=0, argnames="z")(x, y, z=2.0)
        close(by_number, 2 * y)
        assert by_name == 13.0
        (gx, gy), names = ff.grad(self.f, argnums=(0, 1), argnames=["z"])(x, y, z=2.0)
        close([gx, gy, names["z"] * x], [2 * y, 2 * x, 13.0 * x])
        np.testing.assert_array_equal(ff.jacrev(self.f, argnames="z")(x, y, z=2.0), 13.0)
        np.testing.assert_array_equal(ff.jacfwd(self.f, argnames="z")(x, y, z=2.0), 13.0)

    @pytest.mark.parametrize("transform", [ff.grad, ff.value_and_grad, ff.jacrev, ff.jacfwd])
    def test_wrong_argnums_are_refused(self, transform):
        with pytest.raises(ff.errors.ArgumentError, match="argnums"):
            transform(self.f, 2)(1.0, 2.0)
        with pytest.raises(ff.errors.ArgumentError, match="argnames"):
            transform(self.f, argnames="q")(1.0, 2.0)
        with pytest.raises(ff.errors.ArgumentError, match="argnums"):
            transform(self.f, "z")(1.0, 2.0)

    def test_gradients_mirror_any_tree(self):
        params = {"cell": Layer(A, X), "rest": [None, (), {"s": 2.0}, np.float32(3)], "nothing": None}

        def loss(p):
            return np.sum(np.tanh(p["cell"].w @ p["cell"].b)) * p["rest"][2]["s"] * p["rest"][3]

        value, gradient = ff.value_and_grad(loss)(params)
        assert tree.structure(gradient) == tree.structure(params)
        assert isinstance(gradient["cell"], Layer)
        for g, p in zip(tree.leaves(gradient), tree.leaves(params), strict=True):
            assert (np.shape(g), np.asarray(g).dtype) == (np.shape(p), np.asarray(p).dtype)
        assert value == loss(params)
        check_grads(loss, (tree.map(np.float64, params),), order=2)

    def test_empty_trees(self):
        assert ff.grad(lambda p, x: np.sum(x))({}, X) == {}
        assert ff.grad(lambda p, x: np.sum(x))(None, X) is None
        assert ff.vjp(lambda: 1.0)[1](1.0) == ()
        assert ff.jvp(lambda: 1.0, (), ()) == (1.0, 0.0)
        assert ff.jacrev(lambda x: {})(X) == {}
        assert ff.grad(lambda x: np.sum(x))(np.zeros((0, 3))).shape == (0, 3)

    def test_arguments_that_are_not_differentiated_pass_untouched(self):
        class Parse:
            words = ("a", "b")

        parse, log = Parse(), []

        def loss(w, tree_, ids, name, sink, flag=None):
            assert tree_ is parse
            assert isinstance(ids, np.ndarray)
            assert name == "name"
            sink.append(flag)
            return np.sum(w[ids]) * len(tree_.words)

        ids = np.array([0, 0, 1])
        close(ff.grad(loss)(X, parse, ids, "name", log, flag=True), [4, 2, 0, 0])
        assert log == [True]

    def test_python_and_numpy_scalars_are_parameters(self):
        for x in (3.0, np.float64(3), np.float32(3), np.array(3.0)):
            g = ff.grad(lambda x: x**2)(x)
            assert g == 6.0
            assert np.shape(g) == ()
            assert g.dtype == (np.float32 if isinstance(x, np.float32) else np.float64)

    def test_an_unused_parameter_has_a_zero_gradient(self):
        g = ff.grad(lambda p: p["a"] * 2.0)({"a": 1.0, "b": np.ones((2, 2), np.float32)})
        assert g["b"].dtype == np.float32
        np.testing.assert_array_equal(g["b"], np.zeros((2, 2)))

    def test_a_loss_may_be_its_argument_or_a_constant(self):
        assert ff.grad(lambda x: x)(2.0) == 1.0
        assert ff.grad(lambda x: 3.0)(2.0) == 0.0
        assert ff.value_and_grad(lambda x: np.float32(3))(2.0) == (3.0, 0.0)

    def test_has_aux(self):
        def f(x):
            return np.sum(x * x), {"x": x * 2, "text": "aux", "n": 3, "nothing": None}

        gradient, aux = ff.grad(f, has_aux=True)(X)
        (value, aux2), gradient2 = ff.value_and_grad(f, has_aux=True)(X)
        out, pullback, aux3 = ff.vjp(f, X, has_aux=True)
        primal, tangent, aux4 = ff.jvp(f, (X,), (X,), has_aux=True)
        lin, push, aux5 = ff.linearize(f, X, has_aux=True)
        jacobian, aux6 = ff.jacrev(f, has_aux=True)(X)
        jacobian2, aux7 = ff.jacfwd(f, has_aux=True)(X)
        hessian, aux8 = ff.hessian(f, has_aux=True)(X)
        for g in (gradient, gradient2, pullback(1.0)[0], jacobian, jacobian2):
            close(g, 2 * X)
        close([value, out, primal, lin], [np.sum(X * X)] * 4)
        close([tangent, push(X)], [2 * np.sum(X * X)] * 2)
        close(hessian, 2 * np.eye(4))
        for a in (aux, aux2, aux3, aux4, aux5, aux6, aux7, aux8):
            assert (a["text"], a["n"], a["nothing"]) == ("aux", 3, None)
            assert type(a["x"]) is np.ndarray
            close(a["x"], 2 * X)

    def test_aux_of_an_inner_transform_carries_derivatives(self):
        def f(x):
            g, aux = ff.grad(lambda y: (np.sum(y**2), np.sum(y**3)), has_aux=True)(x)
            return np.sum(g) + aux

        close(ff.grad(f)(X), 2 + 3 * X**2)

    def test_transformed_functions_have_names(self):
        def loss(x):
            """The loss."""
            return x

        for transform in (ff.grad, ff.value_and_grad, ff.jacrev, ff.jacfwd, ff.hessian, ff.checkpoint):
            new = transform(loss)
            assert "loss" in new.__name__
            assert "The loss." in new.__doc__
            assert new.__wrapped__ is loss or transform is ff.hessian


class TestVjpAndJvp:
    def test_a_pullback_may_be_called_again(self):
        out, pullback = ff.vjp(lambda x, w: {"y": np.tanh(w @ x), "n": 3}, X, A)
        cts = [{"y": RNG.standard_normal(4), "n": np.zeros((), ff.float0)} for _ in range(2)]
        first, second = pullback(cts[0]), pullback(cts[1])
        again = pullback(cts[0])
        assert tree.equal(first, again)
        both = pullback({"y": cts[0]["y"] + cts[1]["y"], "n": cts[0]["n"]})
        close(both[0], first[0] + second[0])
        assert out["n"] == 3

    def test_an_output_that_is_returned_twice_gets_both_cotangents(self):
        _, pullback = ff.vjp(lambda x: (x, x, x * 2), 1.0)
        assert pullback((1.0, 2.0, 3.0)) == (9.0,)

    def test_integers_have_float0(self):
        ids = np.array([1, 2])
        _, pullback = ff.vjp(lambda x, i: x[i], X, ids)
        gx, gi = pullback(np.ones(2))
        close(gx, [0, 1, 1, 0])
        assert gi.dtype == ff.float0
        out, tangent = ff.jvp(lambda x, i: (x[i], i), (X, ids), (X, np.zeros(2, ff.float0)))
        close(tangent[0], X[ids])
        assert tangent[1].dtype == ff.float0
        np.testing.assert_array_equal(out[1], ids)

    def test_linearize_is_jvp(self):
        out, push = ff.linearize(vector, X)
        for _ in range(3):
            v = RNG.standard_normal(4)
            expected = ff.jvp(vector, (X,), (v,))
            close(out, expected[0])
            close(push(v), expected[1])
        close(push(2 * X), 2 * push(X))

    def test_jacobians_of_trees(self):
        f = lambda p, s: {"a": p["w"] @ p["b"] * s, "b": np.sum(p["w"])}
        params = {"w": A[:2, :3], "b": X[:3]}
        rev, fwd = ff.jacrev(f, (0, 1))(params, 2.0), ff.jacfwd(f, (0, 1))(params, 2.0)
        assert tree.structure(rev) == tree.structure(fwd)
        assert rev["a"][0]["w"].shape == (2, 2, 3)
        assert rev["b"][0]["b"].shape == (3,)
        assert rev["a"][1].shape == (2,)
        tree.map(close, rev, fwd)
        close(rev["a"][0]["b"], 2 * A[:2, :3])

    @pytest.mark.parametrize("transform", [ff.jacrev, ff.jacfwd])
    def test_jacobians_without_elements_keep_the_dtype(self, transform):
        for f, n in ((lambda x: x[:0], 3), (lambda x: x * 2, 0)):
            jacobian = transform(f)(np.ones(n, np.float32))
            assert (jacobian.shape, jacobian.dtype) == ((0, n), np.float32)

    def test_holomorphic(self):
        z = np.array(0.3 + 0.4j)
        close(ff.grad(lambda z: np.exp(z) * z, holomorphic=True)(z), np.exp(z) * (1 + z))


class TestStopGradient:
    def test_constant_in_every_mode_and_order(self):
        f = lambda x: ff.stop_gradient(x) ** 2 * x
        assert ff.grad(f)(3.0) == 9.0
        assert ff.jvp(f, (3.0,), (1.0,))[1] == 9.0
        assert ff.grad(ff.grad(f))(3.0) == 0.0
        assert ff.linearize(f, 3.0)[1](1.0) == 9.0

    def test_trees_of_anything(self):
        seen = []

        def f(x):
            seen.append(ff.stop_gradient({"x": x, "s": "text", "n": None, "k": 3}))
            return np.sum(x)

        ff.grad(f)(X)
        assert seen[0]["s"] == "text"
        assert type(seen[0]["x"]) is np.ndarray
        assert float(ff.stop_gradient(2.0)) == 2.0

    def test_the_value_of_an_outer_level_still_has_its_derivative(self):
        # The inner stop holds for the inner derivative and for the outer one: a constant is one everywhere.
        f = lambda x: ff.grad(lambda y: y * ff.stop_gradient(x * y))(x)
        assert f(3.0) == 9.0
        assert ff.grad(f)(3.0) == 0.0


class TestEvalShape:
    @pytest.mark.parametrize(
        "f",
        [
            bowl,
            vector,
            ff.grad(bowl),
            ff.hessian(bowl),
            lambda x: ff.jvp(vector, (x,), (x,)),
            lambda x: ff.vjp(vector, x)[1](x),
            lambda x: ff.linearize(vector, x)[1](x),
            ff.checkpoint(vector),
            ff.grad(ff.checkpoint(bowl)),
            lambda x: {"a": [x > 0, np.argmax(x)], "b": x.astype(np.float32), "c": 3, "d": 2.0},
            lambda x: ff.stop_gradient(x),
            lambda x: ff.random.normal(ff.random.key(0), (3,)) + x[:3],
            lambda x: ops.conv(x.reshape(1, 4, 1), np.ones((2, 1, 3)), (1,), ((0, 1),), (1,)),
        ],
    )
    def test_foretells_shapes_and_dtypes(self, f):
        foretold = ff.eval_shape(f, X)
        tree.map(lambda s, y: close([*s.shape], [*np.shape(y)]), foretold, f(X))
        assert tree.map(lambda s: s.dtype, foretold) == tree.map(lambda y: np.asarray(y).dtype, f(X))

    def test_structs_stand_for_arrays_and_strings_pass(self):
        spec = ff.ShapeDtypeStruct((2, 3), np.float32)
        out = ff.eval_shape(lambda p, mode, k=None: p["w"] @ p["w"].T if mode == "a" else k, {"w": spec}, "a", k=1.0)
        assert out == ff.ShapeDtypeStruct((2, 2), np.float32)

    def test_weak_numbers_stay_weak(self):
        out = ff.eval_shape(lambda x, s: (x * s, s), np.ones(2, np.float32), 2.0)
        assert out[0].dtype == np.float32
        assert out[1] == ff.ShapeDtypeStruct((), np.float64, weak=True)

    @pytest.mark.parametrize(
        "f",
        [
            lambda x: x if np.sum(x) > 0 else -x,
            lambda x: float(x[0]),
            lambda x: x[: int(x[0])],
            lambda x: x[x > 0],
            lambda x: x[np.nonzero(x)],
            lambda x: range(np.argmax(x)),
            lambda x: x.tolist(),
        ],
    )
    def test_a_value_is_not_known(self, f):
        with pytest.raises(ff.errors.ConcretizationError):
            ff.eval_shape(f, X)
        assert trace_depth() == 0

    def test_shapes_that_do_not_fit_are_refused_as_by_numpy(self):
        for f in (lambda x: x @ np.ones(3), lambda x: x + np.ones(3), lambda x: x.reshape(3), lambda x: x[4, 4]):
            with pytest.raises((ValueError, IndexError)):
                ff.eval_shape(f, X)


class TestTape:
    @pytest.mark.parametrize("transform", ["grad", "jvp", "linearize"])
    def test_a_long_chain_does_not_recurse(self, transform):
        def chain(x):
            for _ in range(100_000):
                x = x * 1.00001
            return x

        if transform == "grad":
            derivative = ff.grad(chain)(1.0)
        elif transform == "jvp":
            derivative = ff.jvp(chain, (1.0,), (1.0,))[1]
        else:
            derivative = ff.linearize(chain, 1.0)[1](1.0)
        np.testing.assert_allclose(derivative, 1.00001**100_000, rtol=1e-9)

    def test_gathers_accumulate(self):
        table, ids = RNG.standard_normal((50, 3)), RNG.integers(-50, 50, (7, 11))
        weights = RNG.standard_normal((7, 11, 3))
        expected = np.zeros_like(table)
        np.add.at(expected, ids, weights)
        close(ff.grad(lambda t: np.sum(t[ids] * weights))(table), expected)
        close(ff.grad(lambda t: np.sum(np.take(t, ids, axis=0) * weights))(table), expected)
        rows = lambda t: sum(np.sum(t[i] * w) for i, w in zip(ids.ravel(), weights.reshape(-1, 3), strict=True))
        close(ff.grad(rows)(table), expected)
        mixed = lambda t: rows(t) + np.sum(t[ids] * weights) + np.sum(t**2) + np.sum(t[3:5, ::-1] * 2)
        expected = 2 * expected + 2 * table
        expected[3:5] += 2
        close(ff.grad(mixed)(table), expected)

    def test_gathers_differentiate_again(self):
        ids = np.array([1, 1, 3])
        f = lambda t: np.sum(np.sin(t[ids]) * t[2]) + np.sum(t[1] ** 3)
        check_grads(f, (RNG.standard_normal((4, 2)),), order=3)

    def test_sums_of_cotangents_change_no_array_of_the_user(self):
        w, ct = RNG.standard_normal(4), RNG.standard_normal(4)
        kept = [X.copy(), w.copy(), ct.copy()]
        f = lambda x, w: x + x * w + w + (x + w) + x[::-1] + np.reshape(x, (2, 2)).ravel() + x[[0, 0, 1, 2]]
        _, pullback = ff.vjp(f, X, w)
        first = pullback(ct)
        second = pullback(ct)
        assert tree.equal(first, second)
        ff.vjp(lambda x: x, X)[1](ct)
        ff.vjp(lambda x: (x, x + x), X)[1]((ct, ct))
        for now, before in zip((X, w, ct), kept, strict=True):
            np.testing.assert_array_equal(now, before)

    def test_gradients_are_arrays_of_their_own(self):
        shared = lambda p: np.sum((p["a"] + p["b"] + p["c"]) ** 2) + np.sum(p["d"])
        params = {k: X.copy() for k in "abcd"}
        g = ff.grad(shared)(params)
        expected = 2 * 3 * X
        for k in "abc":
            g[k] += 1.0
        g["d"] *= 2
        for k in "abc":
            close(g[k], expected + 1)
        close(g["d"], np.full(4, 2.0))
        for k in "abcd":
            np.testing.assert_array_equal(params[k], X)

    def test_threads_have_traces_of_their_own(self):
        results, errors = {}, []

        def work(k):
            try:
                for _ in range(20):
                    x = X * (k + 1)
                    results[k] = ff.grad(lambda t: bowl(t) + np.sum(ff.grad(bowl)(t)))(x)
                    assert trace_depth() == 0
            except BaseException as error:  # reported by the main thread
                errors.append(error)

        def loss(x):
            threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
            for t in threads:
                t.start()
            y = np.sum(np.sin(x))
            for t in threads:
                t.join()
            return y

        close(ff.grad(loss)(X), np.cos(X))
        assert errors == []
        for k in range(4):
            close(results[k], ff.grad(lambda t: bowl(t) + np.sum(ff.grad(bowl)(t)))(X * (k + 1)))


def test_a_pullback_gives_arrays_of_its_own():
    ct = np.ones(3)
    x, y = ff.vjp(lambda x, y: x + y, np.ones(3), np.ones(3))[1](ct)
    (z,) = ff.vjp(lambda z: z, np.ones(3))[1](ct)
    assert not any(np.shares_memory(a, b) for a, b in ((x, y), (x, ct), (y, ct), (z, ct)))
