"""The laws of the transforms over random programs and over the registry: each transform of a function gives what the
definition of the transform says, in whatever nesting."""

import os
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from laws import described
from test_ops import CASES, SMOOTH, call, in_float32

import fnflare as ff
from fnflare import tree
from fnflare.testing import check_jvp, check_jvp_vjp, check_vjp, programs, random_like

#: How many programs: the same three hundred in CI, a thousand times more when asked to be thorough.
EXAMPLES = {"ci": 300, "thorough": 300_000}.get(os.environ.get("HYPOTHESIS_PROFILE", "dev"), 60)
many = settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def close(got, expected, law, rtol=1e-9, atol=1e-11):
    """Two trees agree in structure, shapes, dtypes and, to rounding, in values."""
    assert tree.structure(got) == tree.structure(expected), law
    assert described(got) == described(expected), law
    for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        if np.asarray(b).dtype == ff.float0:
            continue
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=law)


def stack(*trees):
    return tree.map(lambda *xs: np.stack(xs), *trees)


class Subject:
    """A program as the laws take it: a function of its floating arguments, and batches of them."""

    def __init__(self, program):
        self.f = program.f
        self.args = program.args
        self.other = program.draw(program.seed + 1000)
        self.floats = tuple(range(len(program.shapes)))
        self.batch = tuple([np.stack(pair) for pair in zip(self.args, self.other, strict=True)])
        self.primals = self.args[: len(self.floats)]
        self.rest = self.args[len(self.floats) :]

    def smooth(self, *xs):
        """The program as a function of what it is differentiated with respect to."""
        return self.f(*xs, *self.rest)

    def loss(self, *args):
        """A scalar in which every element of what the program returns has its own weight."""
        leaves = tree.leaves(self.f(*args))
        return sum(np.mean(x * np.linspace(0.5, 1.5, x.size).reshape(x.shape)) for x in leaves)

    def grad(self, f):
        return ff.grad(f, argnums=self.floats)


def against_differences(check, f, f_derivative, points):
    """Hold a derivative to finite differences; where a step crosses a kink, at two other points."""
    try:
        check(f, f_derivative, points[0])
    except AssertionError:
        for point in points[1:]:
            check(f, f_derivative, point)


def points(program, subject):
    return [subject.primals, *[program.draw(program.seed + k)[: len(subject.floats)] for k in (2000, 3000)]]


@given(programs(reverse=False))
@many
def test_values(program):
    s = Subject(program)
    value = s.f(*s.args)
    close(ff.jit(s.f)(*s.args), value, "jit(f) = f")
    with ff.disable_jit():
        close(s.f(*s.args), value, "disable_jit: f = f")
    each = stack(value, s.f(*s.other))
    close(ff.vmap(s.f)(*s.batch), each, "vmap(f) = the stack of f")
    close(ff.jit(ff.vmap(s.f))(*s.batch), each, "jit(vmap(f)) = the stack of f")
    close(ff.vmap(ff.jit(s.f))(*s.batch), each, "vmap(jit(f)) = the stack of f")
    foretold = tree.map(lambda a: (a.shape, a.dtype.str), ff.eval_shape(s.f, *s.args))
    assert foretold == described(value), "eval_shape foretells f"


@given(programs(reverse=False))
@many
def test_forward_derivatives(program):
    s = Subject(program)
    ts = random_like(s.primals, 1)
    expected = ff.jvp(s.smooth, s.primals, ts)
    against_differences(check_jvp, s.smooth, partial(ff.jvp, s.smooth), points(program, s))
    close(ff.jvp(ff.jit(s.smooth), s.primals, ts), expected, "jvp(jit(f)) = jvp(f)")
    close(ff.jit(partial(ff.jvp, s.smooth))(s.primals, ts), expected, "jit(jvp(f)) = jvp(f)")
    out, push = ff.linearize(s.smooth, *s.primals)
    close((out, push(*ts)), expected, "linearize(f) = jvp(f)")
    with ff.disable_jit():
        close(ff.jvp(s.smooth, s.primals, ts), expected, "disable_jit: jvp(f) = jvp(f)")


@given(programs())
@many
def test_reverse_derivatives(program):
    s = Subject(program)
    expected = s.grad(s.loss)(*s.args)
    against_differences(check_vjp, s.smooth, partial(ff.vjp, s.smooth), points(program, s))
    check_jvp_vjp(s.smooth, s.primals)
    check_jvp_vjp(ff.jit(s.smooth), s.primals)
    close(s.grad(ff.jit(s.loss))(*s.args), expected, "grad(jit(f)) = grad(f)")
    close(ff.jit(s.grad(s.loss))(*s.args), expected, "jit(grad(f)) = grad(f)")
    close(s.grad(ff.checkpoint(s.loss))(*s.args), expected, "grad(checkpoint(f)) = grad(f)")
    close(ff.jit(s.grad(ff.checkpoint(s.loss)))(*s.args), expected, "jit(grad(checkpoint(f))) = grad(f)")


@given(programs(most=4))
@many
def test_second_derivatives(program):
    s = Subject(program)
    ts = random_like(s.primals, 1)

    def gradient(*xs):
        return s.grad(s.loss)(*xs, *s.rest)

    def slope(*xs):
        return ff.jvp(lambda *ys: s.loss(*ys, *s.rest), xs, ts)[1]

    expected = ff.jvp(gradient, s.primals, ts)[1]
    against_differences(
        partial(check_jvp, atol=1e-5, rtol=1e-5), gradient, partial(ff.jvp, gradient), points(program, s)
    )
    close(s.grad(slope)(*s.primals), expected, "reverse over forward = forward over reverse")
    close(ff.jit(s.grad(slope))(*s.primals), expected, "jit of reverse over forward")
    close(ff.jit(lambda *xs: ff.jvp(gradient, xs, ts)[1])(*s.primals), expected, "jit of forward over reverse")
    dot = s.grad(lambda *xs: sum(np.sum(g * t) for g, t in zip(gradient(*xs), ts, strict=True)))
    close(dot(*s.primals), expected, "reverse over reverse")
    close(ff.jit(dot)(*s.primals), expected, "jit of reverse over reverse")


@given(programs(most=4))
@many
def test_derivatives_of_batches(program):
    s = Subject(program)
    gradient = s.grad(s.loss)
    each = stack(gradient(*s.args), gradient(*s.other))
    close(ff.vmap(gradient)(*s.batch), each, "vmap(grad(f)) = the stack of grad(f)")
    close(ff.jit(ff.vmap(gradient))(*s.batch), each, "jit(vmap(grad(f)))")
    close(ff.vmap(ff.jit(gradient))(*s.batch), each, "vmap(jit(grad(f)))")
    total = s.grad(lambda *xs: np.sum(ff.vmap(s.loss)(*xs)))
    close(total(*s.batch), each, "grad of the sum of vmap(f) = vmap(grad(f))")
    ts = random_like(s.batch[: len(s.floats)], 1)

    def push(xs, ts, rest):
        return ff.jvp(lambda *ys: s.f(*ys, *rest), xs, ts)[1]

    batch = (s.batch[: len(s.floats)], ts, s.batch[len(s.floats) :])
    pushed = stack(*[push(*tree.map(lambda x, k=k: x[k], batch)) for k in range(2)])
    close(ff.vmap(push)(*batch), pushed, "vmap(jvp(f)) = the stack of jvp(f)")
    close(ff.jit(ff.vmap(push))(*batch), pushed, "jit(vmap(jvp(f)))")


# -- the registry -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "sample"), CASES)
def test_jit_of_every_primitive(name, sample):
    for args, params in (sample, in_float32(sample)):
        f = call(name, params)
        jitted, expected = ff.jit(f), f(*args)
        tolerance = 1e-12 if expected.dtype == np.float64 else 1e-5
        for _ in range(2):  # traced, and from the cache
            close(jitted(*args), expected, name, tolerance, tolerance)
        close(ff.jit(partial(f, *args))(), expected, f"{name} of constants", tolerance, tolerance)
        foretold = ff.eval_shape(jitted, *args)
        assert (foretold.shape, foretold.dtype) == (expected.shape, expected.dtype)


@pytest.mark.parametrize(("name", "sample"), SMOOTH)
def test_jit_of_every_derivative(name, sample):
    for args, params in (sample, in_float32(sample)):
        f = call(name, params)
        out, pullback = ff.vjp(f, *args)
        tolerance = 1e-11 if out.dtype == np.float64 else 1e-4
        ts, ct = random_like(args), random_like(out, 1)

        def pull(ct, *xs, f=f):
            return ff.vjp(f, *xs)[1](ct)

        expected = pullback(ct)
        close(ff.vjp(ff.jit(f), *args)[1](ct), expected, f"vjp of jit of {name}", tolerance, tolerance)
        close(ff.jit(pull)(ct, *args), expected, f"jit of vjp of {name}", tolerance, tolerance)
        expected = ff.jvp(f, args, ts)
        close(ff.jvp(ff.jit(f), args, ts), expected, f"jvp of jit of {name}", tolerance, tolerance)
        close(ff.jit(partial(ff.jvp, f))(args, ts), expected, f"jit of jvp of {name}", tolerance, tolerance)
