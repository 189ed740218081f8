"""`checkpoint`, `custom_vjp` and `custom_jvp`: functions that traces see as one primitive."""

# ruff: noqa: E731 (a function to differentiate reads best as a formula)

from typing import Any

import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import tree
from fnflare.core import trace_depth
from fnflare.testing import check_grads

RNG = Draws(5)
X = RNG.standard_normal(3)
A = RNG.standard_normal((3, 3))


def close(actual, desired):
    np.testing.assert_allclose(actual, desired, rtol=1e-11, atol=1e-12)


def same_derivatives(f, g, *args):
    """Two functions to scalars agree in value and in first and second derivatives, in every mix of modes."""
    direction = tree.map(lambda x: RNG.standard_normal(np.shape(x)), args)
    alike = lambda a, b: tree.map(close, a, b)
    alike(f(*args), g(*args))
    alike(ff.grad(f)(*args), ff.grad(g)(*args))
    alike(ff.jvp(f, args, direction), ff.jvp(g, args, direction))
    alike(ff.linearize(f, *args)[1](*direction), ff.linearize(g, *args)[1](*direction))
    alike(ff.hessian(f)(*args), ff.hessian(g)(*args))
    alike(ff.jacrev(ff.grad(f))(*args), ff.jacrev(ff.grad(g))(*args))
    alike(ff.jvp(ff.grad(f), args, direction), ff.jvp(ff.grad(g), args, direction))
    forward = [ff.grad(lambda *xs, h=h: ff.jvp(h, xs, direction)[1])(*args) for h in (f, g)]
    alike(*forward)
    twice = [ff.jvp(lambda *xs, h=h: ff.jvp(h, xs, direction)[1], args, direction) for h in (f, g)]
    alike(*twice)
    assert trace_depth() == 0


def inner(x):
    return np.tanh(A @ x) * np.sin(x)


def loop(c, x):
    h = x
    for _ in range(4):
        h = c(lambda state, inputs: np.tanh(A @ state + inputs))(h, x)
    return h


def closure_returned(c, x):
    doubled, same = c(lambda y: (y * 2, x))(x)
    return doubled * same**2


def intermediate_closure(c, x):
    h = np.tanh(x)
    return c(lambda y: np.sin(y * h) * h)(x)


def through_trees(c, x):
    out = c(lambda p: {"a": p["u"] * p["v"][0], "b": [np.cos(p["u"]), None]})({"u": x, "v": (x * x,)})
    return out["a"] * out["b"][0]


def beside_other_arguments(c, x):
    def pick(y, ids, mode, flag=None):
        return np.sin(y[ids]) if mode == "sin" and flag else y

    return c(pick)(x, np.array([0, 0, 2]), "sin", flag=(1,))


def integer_answers(c, x):
    squares, order = c(lambda y: (y * y, np.argsort(y)))(x)
    return x[order] * squares


@ff.custom_jvp
def cube(x):
    return x**3


cube.defjvps(lambda t, out, x: 3 * x * x * t)

#: Functions of x whose parts go through c, which is `checkpoint` or nothing.
CHECKPOINTED = {
    "function": lambda c, x: c(inner)(x),
    "in the middle": lambda c, x: c(inner)(x * 2) ** 2,
    "chain": lambda c, x: c(inner)(c(inner)(c(inner)(x))),
    "returns its argument": lambda c, x: c(lambda y: y)(x) * x,
    "argument twice": lambda c, x: c(lambda y, z: np.sin(y) * z)(x, x),
    "constant argument": lambda c, x: c(lambda y, z: y * z)(x, X) * x,
    "closure": lambda c, x: c(lambda y: np.sin(y) * x)(x * x),
    "closure only": lambda c, x: c(lambda: np.sin(x) * x)(),
    "closure over what the argument is built on": lambda c, x: c(lambda y: np.exp(y * x))(x),
    "closure returned": closure_returned,
    "closure used before and after": lambda c, x: np.sin(x) * c(lambda y: y * x)(np.cos(x)) * x,
    "intermediate closure": intermediate_closure,
    "nested": lambda c, x: c(lambda y: c(inner)(y) * y)(x),
    "nested with closures": lambda c, x: c(lambda y: c(lambda z: np.sin(z * x) * y)(y) * x)(x * 2),
    "three levels of closures": lambda c, x: c(lambda y: c(lambda z: c(lambda u: np.sin(u * x) * y * z)(z * y) * x)(y))(
        x
    ),
    "trees": through_trees,
    "other arguments": beside_other_arguments,
    "integer answers": integer_answers,
    "answer unused": lambda c, x: c(lambda y: (np.sin(y), np.exp(y)))(x)[0],
    "derivative inside": lambda c, x: c(ff.grad(lambda y: np.sum(np.sin(y) * y * y)))(x),
    "derivative inside of a closure": lambda c, x: c(ff.grad(lambda y: np.sum(np.sin(y * x) * y)))(x),
    "inside a derivative": lambda c, x: ff.grad(lambda y: np.sum(c(inner)(y)))(x) * x,
    "inside a derivative with closure": lambda c, x: ff.grad(lambda y: np.sum(c(lambda z: np.sin(z * x))(y)))(x),
    "inside a jvp with closure": lambda c, x: ff.jvp(lambda y: c(lambda z: np.sin(z * x) * y)(y), (x,), (x * 2,))[1],
    "inside a linearize": lambda c, x: ff.linearize(lambda y: c(lambda z: np.sin(z * x))(y), x)[1](x),
    "pullback inside": lambda c, x: c(lambda y: ff.vjp(lambda z: np.sin(z * x), y)[1](y)[0])(x),
    "control flow": lambda c, x: c(lambda y: np.sin(y) if np.sum(y * x) > -1e9 else y)(x),
    "loop": loop,
    "stop_gradient": lambda c, x: c(lambda y: y * ff.stop_gradient(y * x))(x),
    "eval_shape inside": lambda c, x: c(lambda y: y * ff.eval_shape(lambda z: z * x, y).size)(x),
    "custom rule inside": lambda c, x: c(lambda y: cube(y) * x)(x),
}


@pytest.mark.parametrize("f", CHECKPOINTED.values(), ids=CHECKPOINTED.keys())
def test_checkpoint_changes_no_derivative(f):
    same_derivatives(lambda x: np.sum(f(ff.checkpoint, x)), lambda x: np.sum(f(lambda part: part, x)), X)


@pytest.mark.parametrize(
    "f",
    [pytest.param(f, id=name) for name, f in CHECKPOINTED.items() if name not in ("control flow", "integer answers")],
)
def test_shapes_of_derivatives_of_checkpoints_are_foretold(f):
    def loss(x):
        return np.sum(f(ff.checkpoint, x))

    assert ff.eval_shape(ff.grad(loss), X) == ff.ShapeDtypeStruct((3,), np.float64)
    assert ff.eval_shape(ff.hessian(loss), X) == ff.ShapeDtypeStruct((3, 3), np.float64)
    assert ff.eval_shape(lambda x: ff.jvp(loss, (x,), (x,))[1], X) == ff.ShapeDtypeStruct((), np.float64)


def test_checkpoint_runs_again_only_backward():
    runs = []

    @ff.checkpoint
    def f(x):
        runs.append(trace_depth())
        return np.sum(np.sin(x))

    f(X)
    assert runs == [0]
    runs.clear()
    _, pullback = ff.vjp(f, X)
    assert len(runs) == 1
    pullback(1.0)
    assert len(runs) == 2


@pytest.mark.thread_unsafe(reason="it measures the memory of the process")
def test_checkpoint_keeps_only_its_inputs():
    def kept(f):
        """The bytes that a pullback of f keeps alive besides its input."""
        import tracemalloc

        x = np.ones(10_000)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        held = ff.vjp(f, x)
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert held[1](np.ones(10_000))[0].shape == x.shape
        return after - before

    def deep(x):
        for _ in range(20):
            x = np.sin(x)
        return x

    assert kept(deep) > 20 * 80_000
    assert kept(ff.checkpoint(deep)) < 3 * 80_000


def test_an_error_in_a_checkpoint_leaves_nothing_behind():
    def fails(x):
        raise RuntimeError("inside")

    for transform in (ff.grad, lambda f: lambda x: ff.jvp(f, (x,), (x,)), ff.hessian):
        with pytest.raises(RuntimeError, match="inside"):
            transform(lambda x: np.sum(ff.checkpoint(fails)(x)))(X)
        assert trace_depth() == 0
    close(ff.grad(lambda x: np.sum(x * ff.checkpoint(np.sin)(x)))(X), np.sin(X) + X * np.cos(X))


class TestCustomVjp:
    def test_the_rule_is_used_and_the_function_otherwise(self):
        calls = []

        @ff.custom_vjp
        def f(x, y):
            calls.append("f")
            return x * y

        def fwd(x, y):
            calls.append("fwd")
            return x * y, y

        def bwd(residuals, ct):
            calls.append("bwd")
            return 10 * ct * residuals, None

        f.defvjp(fwd, bwd)
        assert f(2.0, 3.0) == 6.0
        assert calls == ["f"]
        assert ff.value_and_grad(f, (0, 1))(2.0, 3.0) == (6.0, (30.0, 0.0))
        assert calls == ["f", "fwd", "bwd"]
        assert ff.grad(f)(2.0, y=3.0) == 30.0

    def test_its_rule_differentiates_again(self):
        f = ff.custom_vjp(lambda x: np.sin(x))
        f.defvjp(lambda x: (np.sin(x), x), lambda x, ct: (ct * np.cos(x),))
        check_grads(lambda x: f(x * x), (X,), order=3, modes=("rev",))
        close(ff.jvp(ff.grad(lambda x: np.sum(f(x))), (X,), (X,))[1], -np.sin(X) * X)

    def test_trees_and_arguments_without_derivative(self):
        @ff.custom_vjp
        def f(p, name, n):
            return {"out": p["a"] * p["b"], "n": n}

        def bwd(residuals, ct):
            a, b = residuals
            return {"a": ct["out"] * b, "b": ct["out"] * a}, None, None

        f.defvjp(lambda p, name, n: (f(p, name, n), (p["a"], p["b"])), bwd)
        g = ff.grad(lambda p: np.sum(f(p, "name", 3)["out"]))({"a": X, "b": X * 2})
        close(g["a"], 2 * X)
        close(g["b"], X)

    def test_nondiff_argnums(self):
        f = ff.custom_vjp(lambda fun, x, n: fun(x) * n, nondiff_argnums=(0, 2))
        f.defvjp(lambda fun, x, n: (fun(x) * n, x), lambda fun, n, x, ct: (ct * n * np.cos(x) * 100,))
        assert f(np.sin, 0.5, 3) == np.sin(0.5) * 3
        close(ff.grad(lambda x: f(np.sin, x, 3))(0.5), 300 * np.cos(0.5))
        close(ff.grad(lambda x: f(np.sin, x=x, n=3))(0.5), 300 * np.cos(0.5))

    def test_defaults_and_keyword_only_arguments(self):
        f = ff.custom_vjp(lambda x, y=2.0, *, k=1: x * y * k)
        f.defvjp(lambda x, y=2.0: (x * y, y), lambda y, ct: (ct * y, None))
        assert ff.grad(f)(3.0, y=4.0) == 4.0
        with pytest.raises(ff.errors.ArgumentError, match="keyword-only"):
            ff.grad(f)(3.0, k=2)

    def test_forward_mode_is_refused(self):
        f = ff.custom_vjp(lambda x: x)
        f.defvjp(lambda x: (x, None), lambda _, ct: (ct,))
        for forward in (lambda: ff.jvp(f, (1.0,), (1.0,)), lambda: ff.linearize(f, 1.0)[1](1.0)):
            with pytest.raises(ff.errors.UnsupportedError, match="custom_jvp"):
                forward()
        assert trace_depth() == 0

    @pytest.mark.parametrize(
        ("bwd", "error", "match"),
        [
            (lambda _, ct: ct, ff.errors.CotangentError, "tuple of 2"),
            (lambda _, ct: (ct,), ff.errors.CotangentError, "of 1"),
            (lambda _, ct: (ct, {"a": ct}), ff.errors.CotangentError, "structure"),
            (lambda _, ct: (ct, {"a": ct, "b": np.ones(7)}), ff.errors.CotangentError, r"\(7,\)"),
        ],
    )
    def test_wrong_cotangents_are_refused(self, bwd, error, match):
        f = ff.custom_vjp(lambda x, p: x * p["a"] * p["b"])
        f.defvjp(lambda x, p: (x * p["a"] * p["b"], None), bwd)
        with pytest.raises(error, match=match):
            ff.grad(lambda x: np.sum(f(x, {"a": X, "b": X})))(X)
        assert trace_depth() == 0

    def test_missing_and_wrong_rules(self):
        f = ff.custom_vjp(lambda x: x)
        assert f(1.0) == 1.0
        with pytest.raises(ff.errors.ArgumentError, match="defvjp"):
            ff.grad(f)(1.0)
        f.defvjp(lambda x: x, lambda _, ct: (ct,))
        with pytest.raises(ff.errors.ArgumentError, match="pair"):
            ff.grad(f)(1.0)

    def test_cotangents_take_the_dtype_of_their_primal(self):
        f = ff.custom_vjp(lambda x: x * 2)
        f.defvjp(lambda x: (x * 2, None), lambda _, ct: (ct.astype(np.float64) * 2,))
        assert ff.grad(lambda x: np.sum(f(x)))(np.ones(2, np.float32)).dtype == np.float32

    def test_eval_shape_and_names(self):
        @ff.custom_vjp
        def named(x):
            """Documented."""
            return x[:2]

        named.defvjp(lambda x: (x[:2], None), lambda _, ct: (ct,))
        assert ff.eval_shape(named, X).shape == (2,)
        assert (named.__name__, named.__doc__) == ("named", "Documented.")


class TestCustomJvp:
    def test_both_modes_and_orders(self):
        f = ff.custom_jvp(lambda x, y: np.sin(x) * y)

        @f.defjvp
        def _(primals, tangents):
            (x, y), (tx, ty) = primals, tangents
            return f(x, y), np.cos(x) * y * tx + np.sin(x) * ty

        check_grads(lambda x, y: f(x * y, y) * x, (X, X[::-1].copy()), order=3)
        same_derivatives(lambda x: np.sum(f(x, A) * x), lambda x: np.sum(np.sin(x) * A * x), X)

    def test_the_rule_is_what_counts(self):
        f = ff.custom_jvp(lambda x: x)
        f.defjvp(lambda primals, tangents: (primals[0], 10 * tangents[0]))
        assert ff.grad(f)(1.0) == 10.0
        assert ff.jvp(f, (1.0,), (1.0,))[1] == 10.0
        assert ff.linearize(f, 1.0)[1](1.0) == 10.0
        assert ff.grad(ff.grad(lambda x: f(x) ** 2))(1.0) == 200.0

    def test_rules_by_argument(self):
        f = ff.custom_jvp(lambda x, y, z: x * y + z)
        f.defjvps(lambda t, out, x, y, z: t * y, None, lambda t, out, x, y, z: 5 * t)
        assert ff.grad(f, (0, 1, 2))(2.0, 3.0, 4.0) == (3.0, 0.0, 5.0)
        none = ff.custom_jvp(lambda x: x * 2)
        none.defjvps(None)
        assert ff.grad(none)(2.0) == 0.0
        fixed = ff.custom_jvp(lambda n, x: x**n, nondiff_argnums=(0,))
        with pytest.raises(ff.errors.ArgumentError, match="nondiff_argnums"):
            fixed.defjvps(None)

    def test_trees_integers_and_nondiff_argnums(self):
        f = ff.custom_jvp(lambda n, p: {"y": p["a"] ** n, "i": np.argmax(p["a"])}, nondiff_argnums=(0,))

        @f.defjvp
        def _(n, primals, tangents):
            (p,), (t,) = primals, tangents
            assert tangents[0]["k"].dtype == ff.float0
            out = f(n, p)
            return out, {"y": n * p["a"] ** (n - 1) * t["a"], "i": np.zeros((), ff.float0)}

        p = {"a": X, "k": np.array([1, 2])}
        close(ff.grad(lambda x: np.sum(f(3, p | {"a": x})["y"]))(X), 3 * X**2)
        out, tangent = ff.jvp(lambda x: f(3, p | {"a": x}), (X,), (X,))
        close(tangent["y"], 3 * X**3)
        assert tangent["i"].dtype == ff.float0
        assert out["i"] == np.argmax(X)
        close(ff.linearize(lambda x: f(3, p | {"a": x})["y"], X)[1](X), 3 * X**3)

    @pytest.mark.parametrize(
        ("rule", "error", "match"),
        [
            (lambda p, t: t[0], ff.errors.ArgumentError, "pair"),
            (lambda p, t: (p[0], {"a": t[0]}), ff.errors.CotangentError, "structure"),
            (lambda p, t: (p[0], t[0][:2]), ff.errors.CotangentError, "shape"),
            (lambda p, t: (p[0], t[0].astype(np.float32)), ff.errors.CotangentError, "dtype"),
        ],
    )
    def test_wrong_rules_are_refused(self, rule, error, match):
        f = ff.custom_jvp(lambda x: x)
        f.defjvp(rule)
        for transform in (lambda: ff.jvp(f, (X,), (X,)), lambda: ff.grad(lambda x: np.sum(f(x)))(X)):
            with pytest.raises(error, match=match):
                transform()
        assert trace_depth() == 0

    def test_a_missing_rule_is_named(self):
        f = ff.custom_jvp(lambda x: x)
        with pytest.raises(ff.errors.ArgumentError, match="defjvp"):
            ff.grad(f)(1.0)

    def test_numpy_functions_may_have_rules(self):
        sign = ff.custom_jvp(np.tanh)
        sign.defjvps(lambda t, out, x: t)
        assert ff.grad(sign)(0.5) == 1.0


def ruled(kind: str, fun: Any, **kwargs: Any) -> Any:
    """`fun` with some rule of its own."""
    if kind == "custom_vjp":
        f = ff.custom_vjp(fun, **kwargs)
        f.defvjp(lambda *args: (fun(*args), None), lambda *args: (args[-1],))
        return f
    g = ff.custom_jvp(fun, **kwargs)
    g.defjvp(lambda *args: (fun(*args[:-2], *args[-2]), args[-1][0]))
    return g


@pytest.mark.parametrize("kind", ["custom_vjp", "custom_jvp"])
class TestClosures:
    def test_a_tracer_in_the_closure_is_refused(self, kind):
        def loss(w):
            return np.sum(ruled(kind, lambda x: x * w)(X))

        with pytest.raises(ff.errors.UnsupportedError, match="pass it as"):
            ff.grad(loss)(X)
        assert trace_depth() == 0

    def test_a_tracer_at_nondiff_argnums_is_refused(self, kind):
        f = ruled(kind, lambda w, x: x * w, nondiff_argnums=(0,))
        with pytest.raises(ff.errors.UnsupportedError, match="nondiff_argnums"):
            ff.grad(lambda w: np.sum(f(w, X)))(X)
        assert trace_depth() == 0

    def test_a_constant_of_the_closure_is_not(self, kind):
        def loss(w):
            constant = ff.stop_gradient(w)
            return np.sum(ruled(kind, lambda x: x * constant)(w))

        close(ff.grad(loss)(X), np.ones(3))

    def test_what_vmap_shares_is_a_constant_in_a_program(self, kind):
        def f(x, w):
            scale = ff.stop_gradient(w)
            return np.sum(ruled(kind, lambda x: np.sin(x * scale))(x)) * w[0]

        xs = np.stack([X, X + 1, X / 2])
        expected = [np.sum(np.sin(x * X)) for x in xs]
        close(ff.jit(ff.vmap(f, (0, None)))(xs, X), np.array(expected) * X[0])
        close(ff.jit(ff.vmap(ff.grad(f, 1), (0, None)))(xs, X)[:, 0], expected)

    def test_an_array_of_a_program_in_the_closure_is_refused(self, kind):
        def loss(x, w):
            return np.sum(ruled(kind, lambda x: x * w)(x))

        close(ff.jit(loss)(X, X), np.sum(X * X))
        for argnums in (0, 1, (0, 1)):
            with pytest.raises(ff.errors.UnsupportedError, match=r"from its closure an array .* pass it as another"):
                ff.grad(ff.jit(loss), argnums)(X, X)


def doubled(kind: str, fun: Any) -> Any:
    """`fun` with twice its derivative."""
    if kind == "custom_vjp":
        f = ff.custom_vjp(fun)
        f.defvjp(lambda *args: (fun(*args), args), lambda args, ct: tuple(2 * g for g in ff.vjp(fun, *args)[1](ct)))
        return f
    g = ff.custom_jvp(fun)
    g.defjvp(lambda args, ts: (fun(*args), 2 * ff.jvp(fun, args, ts)[1]))
    return g


@pytest.mark.parametrize("kind", ["custom_vjp", "custom_jvp"])
class TestBatchedPrograms:
    """A program that holds a function with rules, under vmap."""

    def f(self, kind):
        return doubled(kind, lambda x, w: np.sin(x) @ w)

    def loop(self, kind, x, w, run):
        f = self.f(kind)
        return run(0, 3, lambda _, c: c + f(c * x, w), 1.0)

    def in_python(self, first, last, body, c):
        for i in range(first, last):
            c = body(i, c)
        return c

    XS, WS = np.arange(12.0).reshape(4, 3) / 5, np.array([[0.5, 1.5, 2.5], [-1.0, 0.3, 0.1]])

    @pytest.mark.parametrize("wrap", [lambda f: f, ff.jit], ids=["plain", "jit"])
    def test_in_a_loop(self, kind, wrap):
        def f(x, w):
            return self.loop(kind, x, w, ff.fori_loop)

        def one(x, w):
            return self.loop(kind, x, w, self.in_python)

        XS, WS = self.XS, self.WS
        expected = np.array([[one(x, w) for x in XS] for w in WS])
        close(wrap(ff.vmap(f, (0, None)))(XS, WS[0]), expected[0])
        close(wrap(ff.vmap(f, (1, None)))(XS.T, WS[0]), expected[0])
        close(wrap(ff.vmap(ff.vmap(f, (0, None)), (None, 0)))(XS, WS), expected)

    @pytest.mark.parametrize("argnum", [0, 1])
    def test_derivatives_in_a_scan(self, kind, argnum):
        f = self.f(kind)

        def scanned(x, w):
            return ff.scan(lambda c, _: (c + f(c * x, w), None), 1.0, None, length=3)[0]

        def one(x, w):
            return self.loop(kind, x, w, self.in_python)

        XS, w = self.XS, self.WS[0]
        expected = np.stack([ff.grad(one, argnum)(x, w) for x in XS])
        close(ff.vmap(ff.grad(scanned, argnum), (0, None))(XS, w), expected)
        total = expected.sum(0) if argnum else expected
        close(ff.grad(lambda xs, w: np.sum(ff.vmap(scanned, (0, None))(xs, w)), argnum)(XS, w), total)
