"""`debug_nans` stops at the operation that gave the first NaN, and says where that was written."""

import threading

import numpy as np
import pytest

import fnflare as ff
from fnflare import nn
from fnflare.core import observed
from fnflare.errors import FnflareError, NonFiniteError

X = np.array([1.0, 4.0, -1.0])


@pytest.fixture(autouse=True)
def _quiet():
    with np.errstate(all="ignore"):
        yield


def line(f, offset):
    """The number of a line of a function, counted from its first."""
    return f.__code__.co_firstlineno + offset


def caught(f, *args, **settings):
    """The error of `f` under `debug_nans`."""
    with pytest.raises(NonFiniteError) as info, ff.debug_nans(**settings):
        f(*args)
    return info.value


def roots(x):
    y = x * 2
    return np.sum(np.sqrt(y))


def norm(x):
    squares = x * x
    return np.sqrt(np.sum(squares))


def _with_rule(f):
    g = ff.custom_jvp(f)
    g.defjvps(lambda t, out, x: np.sum(t * x))
    return g


class TestForward:
    def test_names_the_operation_and_the_line(self):
        error = caught(ff.grad(roots), X)
        assert (error.op, error.phase, error.derivative_of) == ("sqrt", "forward", None)
        assert (error.file, error.line, error.layer) == (__file__, line(roots, 2), "")
        assert error.from_inputs is False
        text = str(error)
        assert f"sqrt gave NaN in the forward pass, at {__file__}:{line(roots, 2)}, in roots" in text
        assert "return np.sum(np.sqrt(y))" in text
        assert "answer: float64 (3,), 1 of 3 elements not finite, the first at [2]: nan" in text
        assert "argument 0: float64 (3,), finite, from -2 to 8" in text
        assert "All arguments were finite: it arose here." in text

    def test_is_both_a_library_error_and_an_arithmetic_one(self):
        error = caught(ff.grad(roots), X)
        assert isinstance(error, FnflareError) and isinstance(error, FloatingPointError)

    def test_names_the_layer(self):
        model = nn.serial(encoder=nn.serial(dense=nn.Dense(3), root=nn.elementwise(np.sqrt)), out=nn.Dense(1))
        _, params = model.init(ff.random.key(0), (-1, 4))

        def loss(p):
            return np.sum(model.apply(p, np.ones((2, 4), np.float32)))

        error = caught(ff.grad(loss), params)
        assert (error.layer, error.line) == ("encoder/root", line(loss, 1))
        assert str(error).startswith("in layer 'encoder/root': sqrt gave NaN")
        assert not getattr(error, "__notes__", [])

    def test_says_what_came_in(self):
        error = caught(ff.grad(lambda x: np.sum(x * 2)), np.array([1.0, np.nan]))
        assert error.from_inputs is True
        assert "Argument 0 held NaN before" in str(error)

    def test_says_when_an_infinity_came_in(self):
        def f(x):
            big = x * np.inf
            return np.sum(big - big)

        error = caught(ff.grad(f), np.ones(2))
        assert (error.op, error.line) == ("subtract", line(f, 2))
        assert "Argument 0 was infinite before: debug_nans(inf=True)" in str(error)

    @pytest.mark.parametrize(
        "transformed",
        [
            lambda f: ff.value_and_grad(f),
            lambda f: lambda x: ff.jvp(f, (x,), (x,)),
            lambda f: lambda x: ff.vjp(f, x),
            lambda f: lambda x: ff.linearize(f, x),
            lambda f: lambda x: ff.vmap(f)(x[None]),
            lambda f: ff.jit(f),
            lambda f: ff.grad(ff.jit(f)),
            lambda f: ff.jit(ff.grad(f)),
            lambda f: ff.hessian(f),
            lambda f: ff.grad(ff.checkpoint(f)),
            lambda f: lambda x: ff.scan(lambda c, y: (c, f(y)), 0.0, x[None]),
            lambda f: lambda x: ff.cond(True, f, f, x),
            lambda f: ff.grad(_with_rule(f)),
        ],
    )
    def test_inside_of_every_transform(self, transformed):
        error = caught(transformed(roots), X)
        assert (error.op, error.line, error.phase) == ("sqrt", line(roots, 2), "forward")

    def test_numbers_are_shown_as_they_are(self):
        error = caught(ff.grad(lambda x: np.log(x) * 2), -1.0)
        assert "answer: float64 nan" in str(error)
        assert "argument 0: float64 -1.0, finite" in str(error)

    def test_complex_numbers_and_integers_take_part(self):
        error = caught(ff.grad(lambda x: np.abs(x.astype(np.complex128) * np.array([1, 2]) / 0).sum()), np.zeros(2))
        assert error.op == "divide"
        assert "complex128 (2,), finite" in str(error)


class TestBackward:
    def test_names_the_operation_whose_derivative_it_is(self):
        def f(x):
            root = np.sqrt(x)
            return np.sum(root * 0.0)

        error = caught(ff.grad(f), np.zeros(3))
        assert (error.op, error.phase, error.derivative_of) == ("divide", "backward", "sqrt")
        assert (error.file, error.line) == (__file__, line(f, 1))
        assert error.from_inputs is False
        place = f"{__file__}:{line(f, 1)}, in f\n    root = np.sqrt(x)\n"
        assert f"divide gave NaN in the backward pass, in the derivative of sqrt, at {place}" in str(error)

    def test_names_the_layer_of_the_forward_pass(self):
        model = nn.serial(dense=nn.Dense(3), square=nn.elementwise(np.square), root=nn.elementwise(np.sqrt))
        _, params = model.init(ff.random.key(0), (-1, 4))

        def loss(p):
            return np.sum(model.apply(p, np.zeros((2, 4), np.float32)))

        error = caught(ff.grad(loss), params)
        assert (error.layer, error.phase, error.line) == ("square", "backward", line(loss, 1))
        assert str(error).startswith("in layer 'square': ")

    @pytest.mark.parametrize(
        "transformed",
        [
            lambda f: ff.jit(ff.grad(f)),
            lambda f: ff.grad(ff.jit(f)),
            lambda f: lambda x: ff.vjp(f, x)[1](np.float64(1.0)),
            lambda f: lambda x: ff.vmap(ff.grad(f))(x[None]),
            lambda f: ff.jacrev(f),
        ],
    )
    def test_inside_of_every_transform(self, transformed):
        error = caught(transformed(norm), np.zeros(3))
        assert (error.phase, error.line) == ("backward", line(norm, 1))
        assert error.derivative_of == "multiply"

    def test_a_rule_of_the_users_own_has_its_line(self):
        @ff.custom_vjp
        def f(x):
            return x * 1

        def backward(_, ct):
            return (np.log(-ct),)

        f.defvjp(lambda x: (x, None), backward)
        error = caught(ff.grad(lambda x: np.sum(f(x))), X)
        assert (error.op, error.phase, error.line) == ("log", "backward", line(backward, 1))

    def test_tangents_have_the_line_of_their_operation(self):
        error = caught(lambda x: ff.jvp(norm, (x,), (x,)), np.zeros(3))
        assert error.line == line(norm, 2)
        pushed = caught(lambda x: ff.linearize(norm, x)[1](x), np.zeros(3))
        assert (pushed.line, pushed.derivative_of) == (line(norm, 2), "sqrt")

    def test_second_derivatives(self):
        def f(x):
            return np.sqrt(x**4)

        error = caught(ff.grad(ff.grad(f)), 0.0)
        assert (error.phase, error.line) == ("backward", line(f, 1))


class TestInfinities:
    def test_are_let_through(self):
        def attention(scores):
            masked = np.where(np.array([True, False]), scores, -np.inf)
            return np.sum(nn.softmax(masked) * scores)

        with ff.debug_nans():
            gradient = ff.grad(attention)(np.array([1.0, 2.0]))
        np.testing.assert_array_equal(gradient, ff.grad(attention)(np.array([1.0, 2.0])))

    def test_stop_where_that_is_wished(self):
        def f(x):
            return np.sum(np.log(x))

        with ff.debug_nans():
            assert ff.value_and_grad(f)(np.zeros(2))[0] == -np.inf
        error = caught(ff.grad(f), np.zeros(2), inf=True)
        assert (error.op, error.line) == ("log", line(f, 1))
        assert "log gave infinity in the forward pass" in str(error)

    def test_stop_in_the_backward_pass(self):
        error = caught(ff.grad(lambda x: np.sum(np.sqrt(x))), np.zeros(2), inf=True)
        assert (error.op, error.phase, error.derivative_of) == ("divide", "backward", "sqrt")


class TestBlocks:
    def test_nothing_raises_after_one(self):
        with ff.debug_nans():
            ff.grad(roots)(np.ones(3))
        assert not observed()
        assert np.isnan(ff.grad(roots)(X)).any()

    def test_nothing_is_left_after_an_error(self):
        caught(ff.grad(roots), X)
        assert not observed()
        assert np.isnan(ff.grad(roots)(X)).any()

    def test_a_part_is_left_out(self):
        with ff.debug_nans():
            with ff.debug_nans(False):
                assert np.isnan(ff.grad(roots)(X)).any()
            with pytest.raises(NonFiniteError):
                ff.grad(roots)(X)

    def test_the_innermost_says_what_is_looked_for(self):
        log = ff.jit(np.log)
        with ff.debug_nans(inf=True):
            with ff.debug_nans():
                log(np.zeros(2))
            with pytest.raises(NonFiniteError, match="infinity"):
                log(np.zeros(2))
        with ff.debug_nans(False), ff.debug_nans(), pytest.raises(NonFiniteError):
            ff.grad(roots)(X)

    def test_a_switched_off_block_observes_nothing(self):
        with ff.debug_nans(False):
            assert not observed()

    def test_decorates(self):
        @ff.debug_nans()
        def step(x):
            return ff.grad(roots)(x)

        step(np.ones(3))
        with pytest.raises(NonFiniteError):
            step(X)

    def test_other_threads_are_left_alone(self):
        answers = []
        with ff.debug_nans():
            thread = threading.Thread(target=lambda: answers.append(np.errstate(all="ignore")(ff.grad(roots))(X)))
            thread.start()
            thread.join()
        assert np.isnan(answers[0]).any()

    def test_beside_a_profile(self):
        with ff.debug_nans():
            report = ff.profile(ff.grad(roots))(np.ones(3))
            assert report.calls > 0
            with pytest.raises(NonFiniteError):
                ff.profile(ff.grad(roots))(X)

    def test_answers_are_the_same(self):
        with ff.debug_nans(inf=True):
            got = ff.value_and_grad(norm)(X), ff.jvp(norm, (X,), (X,)), ff.vmap(np.square)(X)
        assert ff.tree.equal(got, (ff.value_and_grad(norm)(X), ff.jvp(norm, (X,), (X,)), ff.vmap(np.square)(X)))
        assert all(type(x) in (np.ndarray, np.float64) for x in ff.tree.leaves(got))
