"""`jit`: what is traced and how often, static arguments, what is refused, what comes back, and `disable_jit`."""

import functools
import inspect
import threading
import warnings

import numpy as np
import pytest
from drawing import Draws
from laws import close

import fnflare as ff
from fnflare import nn, tree
from fnflare.core import ShapeDtypeStruct, is_tracer, trace_depth
from fnflare.errors import ArgumentError, ConcretizationError, LeakedTracerError, ShapeError, TracerArrayError
from fnflare.testing import check_grads, check_vmap

RNG = Draws(12)
X = RNG.standard_normal((4, 3))
W = RNG.standard_normal((3, 2))


def counted(f, **options):
    """`f`, jitted, and the list of what it was traced with."""
    traces = []

    def run(*args, **kwargs):
        traces.append((args, kwargs))
        return f(*args, **kwargs)

    run.__signature__ = inspect.signature(f)
    return ff.jit(run, **options), traces


def loss(w, x):
    return np.mean(np.square(np.tanh(x @ w)))


# -- when it traces -----------------------------------------------------------------------------


class TestSignatures:
    def test_once_for_equal_shapes_and_dtypes(self):
        f, traces = counted(lambda x, y: {"s": x @ y, "t": (x, 2.0)})
        for k in range(3):
            close(f(X + k, W * k), {"s": (X + k) @ (W * k), "t": (X + k, 2.0)})
        assert len(traces) == 1
        f(X[:2], W)
        f(X.astype(np.float32), W)
        f(X, W.astype(np.float32))
        assert len(traces) == 4
        f(X[:2] * 2, W)
        f(X.T.copy().T, W)  # a layout is no part of a signature
        assert len(traces) == 4

    def test_structures(self):
        f, traces = counted(lambda t: tree.map(np.sin, t))
        trees = [{"a": X, "b": None}, {"a": X, "b": X}, (X, X), [X, X], {"a": X, "c": X}, None, X, {}, ()]
        for t in trees + trees:
            close(f(t), tree.map(np.sin, t))
        assert len(traces) == len(trees)

    def test_keyword_arguments(self):
        f, traces = counted(lambda x, *, scale=2.0, more=None: x * scale + (0 if more is None else more["b"]))
        close(f(X), X * 2)
        close(f(X, scale=3.0), X * 3)
        close(f(X, more={"b": X}, scale=4.0), X * 5)
        close(f(X, scale=4.0, more={"b": 2 * X}), X * 6)
        close(f(x=X, scale=1.0), X)
        assert len(traces) == 4

    def test_python_numbers_are_weak(self):
        f, traces = counted(lambda x, s: x * s)
        x = X.astype(np.float32)
        for s in (2.0, -3.5, 2):
            assert f(x, s).dtype == np.float32
            close(f(x, s), x * s)
        assert len(traces) == 2  # float and int
        assert f(x, np.float64(2)).dtype == np.float64
        assert f(x, np.float32(2)).dtype == np.float32
        close(f(np.arange(3), 2), np.arange(3) * 2)
        close(f(np.arange(3), 2.0), np.arange(3) * 2.0)
        close(f(True, 3), 3)
        assert type(ff.jit(lambda x: x)(1.5)) is float

    def test_a_number_is_no_array_of_its_kind(self):
        f, traces = counted(lambda s: s * np.ones(2, np.float32))
        kinds = [1.0, 1, True, np.float64(1), np.float32(1), np.array(1.0), np.int64(1), np.bool_(True), np.ones(2), 1j]
        for s in kinds:
            assert f(s).dtype == (s * np.ones(2, np.float32)).dtype
        assert len(traces) == len(kinds) - 1  # an array of shape () and a NumPy scalar are the same

    def test_tracers_and_arrays_share_programs(self):
        f, traces = counted(loss)
        for _ in range(2):
            f(W, X)
            ff.grad(f)(W, X)
            ff.jvp(f, (W, X), (W, X))
            ff.vmap(f, (None, 0))(W, X[:, None])
            ff.grad(f)(W, X[:1])
        assert len(traces) == 2  # X and one row of it, whose gradients and batches are made of the programs

    def test_side_effects_happen_at_the_trace(self):
        printed = []

        @ff.jit
        def f(x):
            printed.append(is_tracer(x) and x.shape)
            return x * len(printed)

        assert [f(2.0), f(3.0), f(np.ones(2)).sum(), f(4.0)] == [2.0, 3.0, 4.0, 4.0]
        assert printed == [(), (2,)]

    def test_closures_that_are_bound_anew(self):
        scale = 2.0
        f, traces = counted(lambda x: x * scale)
        g = ff.jit(lambda x: x * scale)
        assert (f(3.0), g(3.0)) == (6.0, 6.0)
        scale = 5.0
        assert g(3.0) == 15.0
        scale = 2.0
        assert g(3.0) == 6.0
        w = np.ones(2)
        h = ff.jit(lambda x: x @ w)
        assert h(np.ones(2)) == 2.0
        w = np.full(2, 3.0)
        assert h(np.ones(2)) == 6.0
        assert len(traces) == 1

    def test_a_closure_filled_later(self):
        @ff.jit
        def f(n):
            return later(n)

        def later(n):
            return n + 1

        assert f(1) == 2

    def test_recursion(self):
        @ff.jit
        def outer(x, y):
            return inner(x) + y

        @ff.jit
        def inner(x):
            return np.sin(x)

        close(outer(X, X), np.sin(X) + X)

        def power(x, n):
            return x if n == 1 else x * jitted(x, n - 1)

        jitted = ff.jit(power, static_argnums=1)
        close(jitted(X, 5), X**5)

    def test_the_oldest_programs_go(self, monkeypatch):
        monkeypatch.setitem(type(ff.jit(len))._trace.__globals__, "_MOST_ENTRIES", 3)
        f, traces = counted(lambda x: np.sin(x) * len(x))
        for n in (1, 2, 3, 4, 5, 4, 3, 5, 1, 5):
            close(f(X[0, :1] * np.ones(n)), np.sin(X[0, :1] * np.ones(n)) * n)
        assert [len(args[0]) for args, _ in traces] == [1, 2, 3, 4, 5, 1]
        assert len(f._entries) == 3

    def test_warning_once_after_many_signatures(self):
        @ff.jit
        def padded(x, y):
            return np.sum(x) + y

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for n in range(20):
                padded(np.ones(n), 1.0)
                padded(np.ones(n), 2.0)
        with pytest.warns(ff.RetracingWarning) as caught:
            padded(np.ones(20), 1.0)
        message = str(caught[0].message)
        assert "padded has been traced for 21 signatures" in message
        assert "leaf 0 had the shapes (0,), (1,), (2,), (3,), ..." in message
        assert "leaf 1" not in message
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for n in range(21, 60):
                padded(np.ones(n), 1.0)

    def test_warning_for_other_reasons(self):
        f = ff.jit(lambda x, n: x * n, static_argnums=1)
        for n in range(20):
            f(1.0, n)
        with pytest.warns(ff.RetracingWarning, match="they differ in static arguments, dtypes or what the function"):
            f(1.0, 20)
        g = ff.jit(sum)
        for n in range(1, 21):
            g([1.0] * n)
        with pytest.warns(ff.RetracingWarning, match="between 1 and 21 array arguments"):
            g([1.0] * 21)

    def test_what_it_looks_like(self):
        @ff.jit
        def scaled(x):
            """Twice."""
            return 2 * x

        assert scaled.__name__ == "scaled"
        assert scaled.__doc__ == "Twice."
        assert scaled.__wrapped__(3) == 6
        assert ff.eval_shape(scaled, np.ones(2, np.float32)) == ShapeDtypeStruct((2,), np.float32)


# -- static arguments ---------------------------------------------------------------------------


def powers(x, n, kind="sum", *, sign=1):
    assert isinstance(n, int) and isinstance(kind, str)
    return sign * (np.sum(x**n) if kind == "sum" else x**n)


class TestStatic:
    @pytest.mark.parametrize(
        "options",
        [
            {"static_argnums": (1, 2)},
            {"static_argnums": [1, 2]},
            {"static_argnums": (-2, -1)},
            {"static_argnames": ("n", "kind")},
            {"static_argnames": ["n", "kind"]},
            {"static_argnums": 1, "static_argnames": "kind"},
            {"static_argnums": (1,), "static_argnames": ("n", "kind", "sign")},
        ],
    )
    def test_by_number_and_by_name(self, options):
        f = ff.jit(powers, **options)
        for _ in range(2):
            close(f(X, 3), powers(X, 3))
            close(f(X, 3, "each"), powers(X, 3, "each"))
            close(f(X, n=2, kind="each"), powers(X, 2, "each"))
            close(f(x=X, n=2, sign=-1), -powers(X, 2))
            close(f(X, 1, kind="each", sign=2), 2 * X)
        check_grads(lambda x: f(x, 3, "each"), (X,), order=2)
        check_vmap(f, (X, 2), in_axes=(0, None))

    def test_each_value_once(self):
        f, traces = counted(lambda x, n: x**n, static_argnums=1)
        for n in (1, 2, 1, 2, 3):
            f(X, n)
        assert len(traces) == 3
        for n in (1, 1.0, True):  # equal, but not the same
            f(X, n)
        assert len(traces) == 5
        f(X, (1, 2)[0])
        assert len(traces) == 5

    def test_values_that_are_equal_but_not_the_same(self):
        f = ff.jit(lambda x, t: x + t[0], static_argnums=1)
        x = np.arange(3)
        for t in ((1,), (1.0,), (True,), (1,), (np.float32(1),)):
            assert f(x, t).dtype == (x + t[0]).dtype

    def test_none_is_a_value_too(self):
        f, traces = counted(lambda x, m: x * (7 if m is None else m), static_argnums=1)
        for m in (None, None, 2, None, 0, None, 2, None, None):
            close(f(X, m), X * (7 if m is None else m))
        assert len(traces) == 3

    def test_functions_that_do_not_tell_their_parameters(self):
        assert ff.jit(np.add, static_argnums=1)(2.0, 3) == 5
        with pytest.raises(ArgumentError, match="the number of arguments of max is open; count static_argnums from 0"):
            ff.jit(max, static_argnums=-1)

    def test_as_a_decorator(self):
        @ff.jit(static_argnums=1)
        def f(x, n):
            return [x] * n

        close(f(X, 2), [X, X])

        @ff.jit(static_argnames="n")
        def g(x, n):
            return [x] * n

        close(g(X, 3), [X] * 3)

        @ff.jit()
        def h(x):
            return 2 * x

        close(h(X), 2 * X)

    def test_with_any_number_of_arguments(self):
        f = ff.jit(lambda *xs: xs[1] * xs[0], static_argnums=0)
        close(f(2, X), 2 * X)
        g = ff.jit(lambda x, **options: x * options["k"] if options["flip"] else x, static_argnames="flip")
        close(g(X, k=3.0, flip=True), 3 * X)
        close(g(X, k=3.0, flip=False), X)

    def test_a_default_is_not_traced(self):
        f = ff.jit(powers, static_argnums=(1, 2))
        close(f(X, 2), powers(X, 2))  # kind is left to its default
        g = ff.jit(lambda x, n=3: x * n if n == 3 else x, static_argnums=-1)
        close(g(X), 3 * X)

    def test_functions_and_layers(self):
        f = ff.jit(lambda g, x: g(x), static_argnums=0)
        close(f(np.sin, X), np.sin(X))
        close(f(np.cos, X), np.cos(X))
        layer = nn.Dense(2)
        _, params = layer.init(ff.random.key(0), (-1, 3))
        close(ff.jit(layer.apply)(params, X), layer.apply(params, X))

    def test_what_cannot_be_static(self):
        f = ff.jit(powers, static_argnums=1)
        with pytest.raises(ArgumentError, match=r"static argument .* of powers is a list, which is not hashable"):
            f(X, [1, 2])
        with pytest.raises(ArgumentError, match=r"static argument .* of powers is a ndarray, which is not hashable"):
            f(X, n=np.ones(2))
        with pytest.raises(ArgumentError, match=r"no argument static_argnames='m'"):
            ff.jit(powers, static_argnames="m")
        with pytest.raises(ArgumentError, match=r"no argument static_argnums=7"):
            ff.jit(powers, static_argnums=7)


# -- what it refuses ----------------------------------------------------------------------------


class TestErrors:
    def test_arguments_that_are_no_arrays(self):
        f = ff.jit(lambda x, o=None: x)
        for bad, name in (("text", "str"), (object(), "object"), (np.sin, "ufunc"), ({1, 2}, "set")):
            with pytest.raises(ArgumentError, match=f"argument 1 of .* is a {name}, which is no array.*static_argnums"):
                f(X, bad)
            with pytest.raises(ArgumentError, match=f"argument 'o', leaf 'a/0' of .* is a {name}"):
                f(X, o={"a": [bad]})
            with pytest.raises(ArgumentError, match=f"argument 1 of .* is a {name}"):
                ff.grad(lambda x, bad=bad: f(x, bad))(1.0)
        close(f(X, 3.0), X)

    def test_outputs_that_are_no_arrays(self):
        with pytest.raises(ArgumentError, match="returned a str; a jitted function returns pytrees of arrays"):
            ff.jit(lambda x: (x, "text"))(X)

    @pytest.mark.parametrize(
        "f",
        [
            lambda x: x if x[0, 0] > 0 else -x,
            lambda x: x if np.any(x > 0) else -x,
            lambda x: [1 for _ in range(x.sum().astype(int))],
            lambda x: float(x[0, 0]) * x,
            lambda x: int(x[0, 0]) * x,
            lambda x: x[0, 0].item(),
            lambda x: (x * 2).tolist(),
            lambda x: X[x[0, 0].astype(int)],
            lambda x: 1 if x[0, 0] and x[0, 1] else 0,
            lambda x: assert_(x[0, 0] == 0),
            lambda x: x[: np.argmax(x)],
        ],
    )
    def test_the_value_of_a_tracer_is_not_known(self, f):
        with pytest.raises((ConcretizationError, TracerArrayError)) as caught:
            ff.jit(f)(X)
        assert trace_depth() == 0
        assert __file__ in str(caught.value)

    def test_if_on_a_tracer(self):
        def absolute(x):
            if x > 0:
                return x
            return -x

        with pytest.raises(ConcretizationError, match=r"np\.where or ff\.cond, or let the argument be static"):
            ff.jit(absolute)(2.0)
        with pytest.raises(ConcretizationError):
            ff.grad(ff.jit(absolute))(2.0)
        with pytest.raises(ConcretizationError):
            ff.jit(ff.grad(absolute))(2.0)
        close(ff.jit(absolute, static_argnums=0)(2.0), 2.0)
        close(ff.grad(absolute)(-2.0), np.float64(-1.0))

    def test_shapes_of_results_that_depend_on_values(self):
        for f in (lambda x: x[x > 0], np.nonzero, np.unique):
            with pytest.raises((ConcretizationError, TracerArrayError, TypeError)):
                ff.jit(f)(X)

    def test_an_error_leaves_nothing_behind(self):
        @ff.jit
        def f(x, fail):
            if fail.shape:
                raise KeyError("mine")
            return x * 2

        for g in (f, lambda x, y: ff.grad(lambda v: np.sum(f(v, y)))(x), ff.vmap(f, (0, None))):
            with pytest.raises(KeyError, match="mine"):
                g(X, np.ones(1))
            assert trace_depth() == 0
            g(X, 0.0)
        close(f(X, 0.0), 2 * X)
        with pytest.raises(ValueError, match=r"\(4, 3\)|size 4"):
            ff.jit(np.matmul)(X, X)
        with pytest.raises(ShapeError):
            ff.jit(lambda x: ff.scan(lambda c, _: (c[:1], None), x, length=2))(X)
        assert trace_depth() == 0

    def test_leaks(self):
        kept = []

        @ff.jit
        def f(x):
            kept.append(x)
            return x + 1

        f(X)
        with pytest.raises(LeakedTracerError, match="outlived its transform"):
            kept[0] + 1
        with pytest.raises(LeakedTracerError, match="outlived its transform"):
            ff.jit(lambda x: x + kept[0])(X)
        with pytest.raises(LeakedTracerError, match="outlived its transform"):
            ff.jit(lambda x: kept[0])(X)
        assert trace_depth() == 0

    def test_no_function(self):
        with pytest.raises(ArgumentError, match="expected a function, got a float"):
            ff.jit(3.0)


def assert_(x):
    assert x


# -- what it returns ----------------------------------------------------------------------------


class TestOutputs:
    @pytest.mark.parametrize(
        "f",
        [
            lambda x: None,
            lambda x: (),
            lambda x: {"a": x, "b": None, "c": (x, [x * 2])},
            lambda x: x,
            lambda x: (x, x),
            lambda x: 3,
            lambda x: 2.5,
            lambda x: True,
            lambda x: [1, 2.0, x, np.float32(3), np.arange(2), 1j, np.int8(4)],
            lambda x: x.shape,
            lambda x: np.sum(x),
            lambda x: x > 0,
            lambda x: (x > 0).astype(np.int8),
            lambda x: np.float64(2),
            lambda x: np.array(3.0),
        ],
    )
    def test_any_tree(self, f):
        for g in (ff.jit(f), ff.jit(ff.jit(f))):
            for _ in range(2):
                got, expected = g(X), f(X)
                close(got, expected)
                for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
                    if type(b) in (int, float):
                        assert type(a) is type(b)

    def test_no_arguments(self):
        assert ff.jit(lambda: 3.0)() == 3.0
        close(ff.jit(lambda: np.arange(3))(), np.arange(3))

    def test_a_dead_computation_is_not_run(self):
        def f(x):
            np.log(x)  # of a negative number would warn
            return x + 1

        assert ff.jit(f)(-1.0) == 0.0

    def test_methods(self):
        class Model:
            def __init__(self, w):
                self.w = w
                self.traces = 0

            @ff.jit
            def plain(self, x):
                return x @ self.w

            def run(self, x):
                self.traces += 1
                return x @ self.w

        model = Model(W)
        with pytest.raises(ArgumentError, match=r"argument 0 of .*plain is a Model, which is no array"):
            model.plain(X)
        run = ff.jit(model.run)
        close(run(X), X @ W)
        close(run(2 * X), 2 * X @ W)
        assert model.traces == 1

        class Static:
            @ff.jit(static_argnums=0)
            def double(self, x):
                return 2 * x

            @staticmethod
            @ff.jit
            def triple(x):
                return 3 * x

        close(Static().double(X), 2 * X)
        close(Static().triple(X), 3 * X)

    def test_callables_of_any_kind(self):
        class Adder:
            def __call__(self, x):
                return x + 1

        close(ff.jit(Adder())(X), X + 1)
        close(ff.jit(functools.partial(np.multiply, 3.0))(X), 3 * X)
        close(ff.jit(np.sin)(X), np.sin(X))
        close(ff.jit(np.add)(X, 1.0), X + 1)


# -- switching it off ---------------------------------------------------------------------------


class TestDisabled:
    def test_the_function_runs_as_it_is(self):
        f, traces = counted(lambda x: x * 2 if x > 0 else -x)
        with ff.disable_jit():
            assert [f(3.0), f(-3.0), f(2.0)] == [6.0, 3.0, 2.0 * 2]
            with ff.disable_jit(False), pytest.raises(ConcretizationError):
                f(3.0)
            assert f(1.0) == 2.0
        assert len(traces) == 5
        with pytest.raises(ConcretizationError):
            f(3.0)

    def test_it_comes_back_after_an_error(self):
        with pytest.raises(KeyError), ff.disable_jit():
            raise KeyError
        f, traces = counted(lambda x: np.sin(x))
        f(X)
        f(X)
        assert len(traces) == 1

    def test_it_holds_for_one_thread(self):
        f, traces = counted(lambda x: x + 1)
        with ff.disable_jit():
            thread = threading.Thread(target=lambda: [f(1.0) for _ in range(3)])
            thread.start()
            thread.join()
        assert len(traces) == 1

    def test_transforms(self):
        with ff.disable_jit():
            expected = ff.grad(ff.jit(loss))(W, X), ff.vmap(ff.jit(loss), (None, 0))(W, X)
        close(ff.grad(ff.jit(loss))(W, X), expected[0])
        close(ff.vmap(ff.jit(loss), (None, 0))(W, X), expected[1])


# -- threads ------------------------------------------------------------------------------------


def test_threads_that_call_one_function():
    f, traces = counted(lambda w, x: ff.scan(lambda c, r: (np.tanh(c + r @ w), c), np.zeros(2), x))
    gradient = ff.jit(ff.grad(lambda w, x: np.sum(f(w, x)[0])))
    sizes = [1, 2, 3, 4] * 4
    expected = {
        n: (f.__wrapped__(W, X[:n]), ff.grad(lambda w, n=n: np.sum(f.__wrapped__(w, X[:n])[0]))(W)) for n in sizes
    }
    traces.clear()
    barrier = threading.Barrier(len(sizes))
    results, errors = {}, []

    def work(k, n):
        try:
            barrier.wait()
            results[k] = [(f(W, X[:n]), gradient(W, X[:n])) for _ in range(5)]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=item) for item in enumerate(sizes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for k, n in enumerate(sizes):
        for got in results[k]:
            close(got, expected[n])
    assert len(traces) == 4  # once for each shape, though many asked at once
