"""The checks of derivatives: they pass what is right, and fail what is wrong with the leaf and both numbers."""

import re
from functools import partial

import numpy as np
import pytest

import fnflare as ff
from fnflare import nn, testing, tree
from fnflare.core import TapeTracer
from fnflare.errors import ArgumentError

X = np.array([0.3, -0.7, 1.1])


def wrong(rule):
    """The identity with a tangent rule of one's own."""
    f = ff.custom_jvp(lambda x: x * 1.0)
    f.defjvps(rule)
    return f


def test_right_derivatives_pass_in_trees_of_anything():
    def f(p, ids, name, n):
        return {"y": np.tanh(p["w"])[ids] * n, "i": ids * 2, "s": [np.sum(p["b"][0]) * p["b"][1], None, 3]}

    args = ({"w": X, "b": (X, 2.0), "none": None}, np.array([0, 2, 0]), "name", 3)
    testing.check_grads(f, args, order=2)
    testing.check_jvp(f, partial(ff.jvp, f), args)
    testing.check_vjp(f, partial(ff.vjp, f), args)
    testing.check_jvp_vjp(f, args)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_tolerances_follow_the_dtype(dtype):
    testing.check_grads(lambda x: np.sum(np.sin(x) * x), (X.astype(dtype),), order=2)
    slightly = {np.float16: 1.5, np.float32: 1.05, np.float64: 1.0001}[dtype]
    f = wrong(lambda t, out, x: slightly * t)
    with pytest.raises(AssertionError):
        testing.check_grads(f, (X.astype(dtype),), order=1)


@pytest.mark.parametrize("modes", [("fwd",), ("rev",), ("fwd", "rev")])
def test_a_wrong_derivative_is_found(modes):
    f = wrong(lambda t, out, x: 1.01 * t)
    with pytest.raises(AssertionError, match="finite differences give"):
        testing.check_grads(f, (X,), order=1, modes=modes)
    testing.check_grads(f, (X,), order=1, modes=modes, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_a_wrong_second_derivative_is_found_and_named(mode):
    # sin with the right first derivative, whose own derivative is wrong: cos taken for a constant.
    f = ff.custom_jvp(np.sin)
    f.defjvps(lambda t, out, x: t * ff.stop_gradient(np.cos(x)))
    testing.check_grads(f, (X,), order=1)
    name = {"fwd": "jvp of jvp", "rev": "vjp of vjp"}[mode]
    with pytest.raises(AssertionError, match=name):
        testing.check_grads(f, (X,), order=2, modes=(mode,))


def test_the_failing_leaf_is_named_with_both_numbers_and_the_seed():
    f = wrong(lambda t, out, x: 2 * t)

    def model(params):
        return {"out": [np.sum(params["good"]), f(params["layer"]["bad"])]}

    params = {"good": X, "layer": {"bad": 3.0}}
    smallest = {"good": X[:1], "layer": {"bad": 3.0}}
    v = testing.random_like((smallest,), seed=7)[0]["layer"]["bad"]
    with pytest.raises(AssertionError) as caught:
        testing.check_jvp(model, partial(ff.jvp, model), (params,), seed=7)
    message = str(caught.value)
    assert "leaf 'out/1'" in message
    assert f"{2 * v:.6g}"[:6] in message
    assert f"{v:.6g}"[:6] in message
    assert "seed=7" in message
    with pytest.raises(AssertionError, match=r"leaf '0/layer/bad'.*seed=7"):
        testing.check_vjp(model, partial(ff.vjp, model), (params,), seed=7)


def test_the_worst_element_is_named():
    f = partial(np.multiply, 1.0)
    with pytest.raises(AssertionError, match=r"tangent\[2\].*2 of 3 elements"):
        testing.check_jvp(f, lambda p, t: (f(*p), f(*t) + np.array([0.0, 0.1, 0.5])), (X,))


def test_wrong_values_shapes_dtypes_and_structures_are_found():
    f = partial(np.multiply, 2)
    right = partial(ff.jvp, f)
    cases = {
        "value": lambda p, t: (f(*p) + 1e-3, f(*t)),
        "shape": lambda p, t: (f(*p), f(*t)[:2]),
        "dtype float32": lambda p, t: (f(*p), f(*t).astype(np.float32)),
        "structure": lambda p, t: (f(*p), (f(*t),)),
        "nan": lambda p, t: (f(*p), f(*t) * np.nan),
    }
    testing.check_jvp(f, right, (X,))
    for match, f_jvp in cases.items():
        with pytest.raises(AssertionError, match=match):
            testing.check_jvp(f, f_jvp, (X,))
    backward = {
        "value": lambda x: (x, lambda ct: (2 * ct,)),
        "shape": lambda x: (f(x), lambda ct: (2 * ct[0],)),
        "dtype float32": lambda x: (f(x), lambda ct: (np.float32(2) * ct.astype(np.float32),)),
        "structure": lambda x: (f(x), lambda ct: 2 * ct),
        "differences give": lambda x: (f(x), lambda ct: (ct,)),
        "nan": lambda x: (f(x), lambda ct: (ct * np.nan,)),
    }
    testing.check_vjp(f, lambda x: (f(x), lambda ct: (2 * ct,)), (X,))
    for match, f_vjp in backward.items():
        with pytest.raises(AssertionError, match=match):
            testing.check_vjp(f, f_vjp, (X,))


def test_modes_that_disagree_are_found():
    backward = ff.custom_vjp(np.sin)
    backward.defvjp(lambda x: (np.sin(x), x), lambda x, ct: (ct * np.cos(x) * (1 + 1e-8),))

    def crooked(x):
        # Reads which mode is running, which no honest function does, to give derivatives that part by 1e-8.
        return backward(x) if isinstance(x, TapeTracer) else np.sin(x)

    testing.check_grads(crooked, (X,), order=1, modes=("rev",))  # finite differences cannot tell

    with pytest.raises(AssertionError, match=r"<vjp\(u\), v> = .*<u, jvp\(v\)> = "):
        testing.check_jvp_vjp(crooked, (X,))


def test_numerical_jvp():
    got = testing.numerical_jvp(lambda x, n: {"y": x**n, "n": n}, (X, 3), (X, None), eps=1e-5)
    np.testing.assert_allclose(got["y"], 3 * X**3, rtol=1e-8)
    assert got["n"].dtype == ff.float0


def test_random_like():
    like = {"w": np.zeros((2, 3), np.float32), "f": 1.0, "i": np.arange(3), "s": "text", "n": None}
    a, b, c = testing.random_like(like), testing.random_like(like, 0), testing.random_like(like, 1)
    assert tree.equal(a, b)
    assert not np.array_equal(a["w"], c["w"])
    assert (a["w"].dtype, a["i"].dtype, np.shape(a["f"])) == (np.float32, ff.float0, ())
    assert a["n"] is None


def test_arguments_are_checked():
    for kwargs in ({"order": 0}, {"order": 1, "modes": ()}, {"order": 1, "modes": ("sideways",)}):
        with pytest.raises(ArgumentError, match="check_grads"):
            testing.check_grads(np.sin, (1.0,), **kwargs)


class TestModel:
    model = nn.serial(hidden=nn.Dense(5), act=nn.Tanh, out=nn.Dense(2))

    def problem(self):
        _, params = self.model.init(ff.random.key(0), (-1, 3))
        x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
        return params, x, np.array([0, 1, 1, 0])

    def loss(self, params, x, labels, *, scale=1.0):
        logits = self.model.apply(params, x)
        return -scale * np.mean(np.take_along_axis(ff.ops.log_softmax(logits), labels[:, None], axis=1))

    def test_the_gradient_of_a_model_is_checked_in_one_call(self):
        params, x, labels = self.problem()
        testing.check_model(self.loss, params, x, labels, scale=3.0, directions=3)
        testing.check_model(self.loss, tree.map(np.float64, params), x, labels, directions=2)
        testing.check_model(self.loss, params, x, labels, promote=False)
        testing.check_model(lambda p: (self.loss(p, x, labels), {"x": x}), params, has_aux=True)

    def test_a_wrong_leaf_is_named(self):
        params, x, labels = self.problem()

        def loss(p):
            bias = wrong(lambda t, out, b: 3 * t)(p["out"]["b"])
            return self.loss(p | {"out": p["out"] | {"b": bias}}, x, labels)

        with pytest.raises(AssertionError, match=re.escape("leaf '0/out/b'")) as caught:
            testing.check_model(loss, params, seed=5)
        assert "seed=5" in str(caught.value)

    def test_a_gradient_of_another_dtype_is_found(self):
        def loss(p):
            return np.sum(p["w"] * p["w"])

        testing.check_model(loss, {"w": np.ones(2, np.float32)})
        with pytest.raises(ff.errors.DtypeError):
            testing.check_model(loss, {"w": np.ones(2, np.int64)})
