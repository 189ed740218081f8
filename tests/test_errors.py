"""The errors of the core: typed, with the fix in the message, and nothing left behind."""

import io
import math
import re
from functools import partial

import numpy as np
import pytest
from surface_cases import OLDEST

import fnflare as ff
from fnflare import errors
from fnflare.core import trace_depth

X = np.array([0.5, -1.0, 2.0])


def works_still():
    """No trace is open, and transforms do what they should."""
    assert trace_depth() == 0
    np.testing.assert_array_equal(ff.grad(lambda x: np.sum(x**2))(X), 2 * X)
    np.testing.assert_array_equal(ff.jvp(lambda x: x * 3, (X,), (X,))[1], 3 * X)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind():
    yield
    works_still()


@pytest.mark.parametrize("error", [getattr(errors, name) for name in errors.__all__])
def test_every_error_is_ours_and_a_builtin_that_one_would_guess(error):
    assert issubclass(error, errors.FnflareError)
    assert error.__doc__
    if error is not errors.FnflareError:
        assert issubclass(error, (TypeError, ValueError, RuntimeError, OSError, ArithmeticError, AttributeError))


# -- what is differentiated ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (lambda x: x * 2, r"shape \(3,\).*\.mean\(\).*jacrev"),
        (lambda x: np.sum(x, keepdims=True), r"shape \(1,\)"),
        (lambda x: (np.sum(x), x), "has_aux=True"),
        (lambda x: {"loss": np.sum(x)}, "has_aux=True"),
        (lambda x: None, "one number"),
        (lambda x: "text", "str"),
        (lambda x: np.argmax(x), "int64"),
        (lambda x: x[0] > 0, "bool"),
        (lambda x: 3, "int"),
    ],
)
def test_a_loss_that_is_not_a_scalar(loss, match):
    for transform in (ff.grad, ff.value_and_grad):
        with pytest.raises(errors.NonScalarLossError, match=match):
            transform(loss)(X)


def test_has_aux_without_a_pair():
    with pytest.raises(errors.NonScalarLossError, match=r"pair \(loss, aux\)"):
        ff.grad(lambda x: np.sum(x), has_aux=True)(X)
    with pytest.raises(errors.NonScalarLossError):
        ff.grad(lambda x: (x, None), has_aux=True)(X)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        (np.array([1, 2, 3]), "int64.*astype"),
        (3, "int64.*astype"),
        (True, "bool"),
        (np.array([True]), "bool"),
        ("text", "str.*no derivative"),
        ({"layer": {"w": X, "steps": np.array(3)}}, r"leaf 'layer/steps'.*int64"),
        ((X, [X, object()]), r"leaf '1/1'.*object"),
    ],
)
@pytest.mark.parametrize("transform", [ff.grad, ff.value_and_grad, ff.jacrev, ff.jacfwd])
def test_a_parameter_without_derivative(transform, params, match):
    with pytest.raises(errors.DtypeError, match=match):
        transform(lambda p: 1.0)(params)


@pytest.mark.parametrize("transform", [ff.grad, ff.value_and_grad, ff.jacrev])
def test_a_complex_output_without_holomorphic(transform):
    with pytest.raises(errors.NonScalarLossError, match=r"complex128.*holomorphic=True.*ff\.vjp"):
        transform(lambda z: z * z)(1j)
    with pytest.raises(errors.NonScalarLossError, match=r"complex numbers with holomorphic=True, got dtype float64"):
        transform(lambda z: np.abs(z), holomorphic=True)(1j)


def test_a_complex_argument_of_jacfwd_without_holomorphic():
    with pytest.raises(errors.DtypeError, match=r"complex128.*holomorphic=True.*ff\.jvp"):
        ff.jacfwd(lambda z: z)(1j)
    with pytest.raises(errors.NonScalarLossError, match=r"holomorphic=True, got dtype float64"):
        ff.jacfwd(lambda z: np.abs(z), holomorphic=True)(1j)


def test_a_parameter_is_named_by_its_keyword():
    with pytest.raises(errors.DtypeError, match=r"argument 'n'"):
        ff.grad(lambda x, n: x, argnames="n")(1.0, n=3)
    with pytest.raises(errors.DtypeError, match=r"argument 1, leaf 'k'"):
        ff.grad(lambda x, p: x, argnums=1)(1.0, {"k": 3})


def test_a_real_parameter_of_a_holomorphic_function():
    with pytest.raises(errors.DtypeError, match="complex"):
        ff.grad(lambda z: z, holomorphic=True)(1.0)


@pytest.mark.parametrize(
    ("ct", "match"),
    [
        (np.ones(2), r"shape.*\(3,\).*\(2,\)"),
        (1.0, r"shape.*\(3,\).*\(\)"),
        (np.ones(3, np.float32), r"dtype.*float64.*float32.*astype"),
        ({"y": np.ones(3)}, "structure"),
        (None, "structure"),
    ],
)
def test_a_wrong_cotangent_or_tangent(ct, match):
    with pytest.raises(errors.CotangentError, match=match):
        ff.vjp(np.sin, X)[1](ct)
    with pytest.raises(errors.CotangentError, match=match):
        ff.jvp(np.sin, (X,), (ct,))
    with pytest.raises(errors.CotangentError, match=match):
        ff.linearize(np.sin, X)[1](ct)


def test_jvp_of_arguments_that_are_not_tuples():
    with pytest.raises(errors.ArgumentError, match="tuples"):
        ff.jvp(np.sin, X, X)


# -- values that must not leave the trace -------------------------------------------------------

TRANSFORMS = {
    "grad": lambda f: ff.grad(lambda x: (f(x), np.sum(x))[1])(X),
    "jvp": lambda f: ff.jvp(f, (X,), (X,)),
    "linearize": lambda f: ff.linearize(f, X),
    "nested": lambda f: ff.grad(lambda x: np.sum(ff.grad(lambda y: (f(y), np.sum(x * y))[1])(x)))(X),
    "checkpoint": lambda f: ff.grad(lambda x: (f(x), np.sum(ff.checkpoint(np.sin)(x)))[1])(X),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS.keys())
@pytest.mark.parametrize(
    ("f", "match"),
    [
        (lambda x: np.array([x, x]), r"np\.stack"),
        (lambda x: np.array([x[0], 1.0]), r"np\.stack"),
        (lambda x: np.array(x), "use t as it is"),
        (lambda x: np.asarray(x, np.float32), "use t as it is"),
        (lambda x: np.zeros(3).__setitem__(slice(None), x), r"ff\.at\(buffer\)\[i\]\.set"),
        (lambda x: float(x[0]), r"float\(ff\.stop_gradient\(t\)\)"),
        (lambda x: int(x[0]), r"int\(ff\.stop_gradient"),
        (lambda x: complex(x[0]), "complex"),
        (lambda x: math.sin(x[0]), "stop_gradient"),
        (lambda x: range(3)[x[0]], "stop_gradient"),
        (lambda x: x[0].item(), r"item\(ff\.stop_gradient"),
        (lambda x: x.tolist(), "tolist"),
        (lambda x: np.float32(x[0]), "derivative would be lost"),
        (lambda x: x.__setitem__(0, 1.0), r"x = ff\.at\(x\)\[i\]\.set\(v\)"),
        (lambda x: np.ones(3).__iadd__(x), r"x = x \+ t instead of x \+= t"),
        (lambda x: np.add(x, x, out=np.zeros(3)), "out="),
        (lambda x: np.multiply(np.ones(3), x, np.zeros(3)), "out="),
    ],
)
def test_a_tracer_cannot_become_an_array_or_a_number(transform, f, match):
    with pytest.raises(errors.TracerArrayError, match=match):
        transform(f)


@pytest.mark.parametrize(
    "transform", [ff.grad, lambda f: lambda x: ff.jvp(f, (x,), (x,)), lambda f: partial(ff.vjp, f)]
)
def test_a_tracer_written_into_one_element(transform):
    # NumPy hides any error of float() behind a ValueError here; the transforms raise ours in its place.
    buffer = np.zeros(3)
    with pytest.raises(errors.TracerArrayError, match=r"ff\.at\(buffer\)"):
        transform(lambda x: buffer.__setitem__(0, x[0]))(X)
    np.testing.assert_array_equal(buffer, np.zeros(3))


def test_the_message_says_where_the_tracer_was_made():
    def loss(x):
        hidden = x * 2  # this line
        return float(hidden[0])

    line = loss.__code__.co_firstlineno + 2  # hidden[0], made by indexing
    with pytest.raises(errors.TracerArrayError, match=rf"in loss \({re.escape(__file__)}:{line}\)"):
        ff.grad(loss)(X)


def test_a_tracer_prints_its_value_and_formats():
    text = []
    ff.grad(lambda x: (text.extend([repr(x), f"{x[0]:.3f}"]), np.sum(x))[1])(X)
    assert "0.5" in text[0]
    assert "0.5" in text[1]


def test_a_float_written_into_an_integer_array():
    with pytest.raises(errors.DtypeError, match=r"int64.*astype\(np\.float64\)"):
        ff.grad(lambda x: np.sum(ff.at(np.zeros(3, int))[0].set(x[0])) * 1.0)(X)


# -- leaks --------------------------------------------------------------------------------------

LEAKING = {
    "grad": lambda f: ff.grad(f)(X),
    "jvp": lambda f: ff.jvp(f, (X,), (X,)),
    "vjp": lambda f: ff.vjp(f, X),
    "linearize": lambda f: ff.linearize(f, X),
    "eval_shape": lambda f: ff.eval_shape(f, X),
}


@pytest.mark.parametrize("transform", LEAKING.values(), ids=LEAKING.keys())
@pytest.mark.parametrize(
    "use",
    [
        lambda t: t + 1,
        lambda t: np.sin(t),
        lambda t: 2.0 * t,
        lambda t: t[0],
        lambda t: t @ t,
        lambda t: np.concatenate([t, t]),
        lambda t: t > 0,
        lambda t: ff.grad(lambda x: np.sum(x * t))(X),
        lambda t: ff.jvp(lambda x: x * t, (X,), (X,)),
        lambda t: ff.eval_shape(lambda x: x * t, X),
        lambda t: ff.grad(lambda x: np.sum(ff.checkpoint(lambda y: y * t)(x)))(X),
    ],
)
def test_a_leaked_tracer_is_refused_and_named(transform, use):
    kept = []

    def model(x):
        hidden = x * 2.0
        kept.append(hidden)
        return np.sum(hidden)

    transform(model)
    line = model.__code__.co_firstlineno + 1
    with pytest.raises(errors.LeakedTracerError) as caught:
        use(kept[0])
    message = str(caught.value)
    assert f"in model ({__file__}:{line})" in message
    assert "model" in message
    assert "has_aux=True" in message
    assert "stop_gradient" in message


def test_a_leaked_argument_and_a_leak_out_of_an_inner_transform():
    kept = []
    ff.grad(lambda x: (kept.append(x), np.sum(x))[1])(X)
    with pytest.raises(errors.LeakedTracerError, match="as an argument of the function"):
        kept[0] * 2

    def outer(x):
        inner = []
        ff.grad(lambda y: (inner.append(y * x), np.sum(y))[1])(x)
        return np.sum(inner[0])

    with pytest.raises(errors.LeakedTracerError, match="outer"):
        ff.grad(outer)(X)


def test_what_leaves_by_aux_or_stop_gradient_is_plain():
    kept = []

    def loss(x):
        kept.append(ff.stop_gradient(x * 2))
        return np.sum(x), x * 3

    _, aux = ff.grad(loss, has_aux=True)(X)
    np.testing.assert_array_equal(kept[0] + aux, 5 * X)


# -- what has no rule ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "match"),
    [
        (lambda x: np.packbits(x), r"numpy\.packbits.*stop_gradient"),
        (lambda x: np.save(io.BytesIO(), x), r"numpy\.save"),
        (lambda x: np.frompyfunc(len, 1, 1)(x), r"len.*custom_jvp"),
        (lambda x: np.sin(x, where=x > 0), r"np\.sin.*where=.*np\.where"),
        (lambda x: np.std(x, out=np.zeros(())), r"np\.std: out=.*out = np\.std"),
        (lambda x: np.median(x, out=np.zeros(())), r"np\.median: out="),
        (lambda x: np.maximum.reduce(x, out=np.zeros(())), r"np\.maximum\.reduce: out="),
        (lambda x: x.sort(), r"x = np\.sort\(x\)"),
        (lambda x: x.partition(1), r"x = np\.partition\(x, kth\)"),
        (lambda x: np.sum(x, out=np.zeros(())), r"np\.sum: out="),
        (lambda x: np.concatenate([x, x], out=np.zeros(6)), r"np\.concatenate: out="),
        (lambda x: np.stack([x, x], out=np.zeros((2, 3))), r"np\.stack: out="),
        (lambda x: np.dot(x, x, out=np.zeros(())), r"np\.dot: out="),
        (lambda x: np.einsum("i,i", x, x, out=np.zeros(())), r"np\.einsum: out="),
        (lambda x: np.clip(x, 0, 1, out=np.zeros(3)), r"np\.clip: out="),
        (lambda x: np.take(x, [0], out=np.zeros(1)), r"np\.take: out="),
        (lambda x: np.pad(x, 1, mode=lambda *_: None), r"np\.concatenate"),
        (lambda x: np.ravel(x[None] * np.ones((2, 1)), order="K"), "order='K'"),
        *([] if OLDEST else [(lambda x: np.reshape(x, (3, 1), copy=False), "copy=False")]),
        (lambda x: np.linalg.qr(x[None], "raw"), "mode='raw'.*mode='reduced'"),
        (lambda x: np.fft.fft(x, out=np.zeros(3, complex)), "out="),
        (lambda x: np.add.at(np.zeros(3), [0], x[0]), r"ff\.at\(x\)\[i\]\.add"),
        (lambda x: np.multiply.outer(x, x, where=X > 0), r"np\.multiply.*where=.*np\.where"),
        (lambda x: np.maximum.at(np.zeros(3), [0], x[0]), r"ff\.at\(x\)\[i\]\.max"),
        (lambda x: np.add.reduceat(x, [0, 1]), r"np\.add\.reduceat.*np\.cumsum"),
        (lambda x: np.round(x, out=np.zeros(3)), r"np\.round: out="),
        (lambda x: np.fix(x, np.zeros(3)), r"np\.fix: out="),
        (lambda x: np.outer(x, x, out=np.zeros((3, 3))), r"np\.outer: out="),
        (lambda x: np.linalg.multi_dot([x[None], x[:, None]], out=np.zeros((1, 1))), r"np\.linalg\.multi_dot: out="),
        (lambda x: np.poly(x * 1j), r"np\.poly .*real roots"),
        (lambda x: np.polyfit(x, x, 1, full=True), r"np\.polyfit: full=True.*np\.linalg\.lstsq\(np\.vander"),
        (lambda x: np.polyfit(x, x, [0, 1]), r"np\.polyfit: a list of degrees.*np\.linalg\.lstsq"),
        (lambda x: np.polyval(np.poly1d([1.0, 2.0]), x), r"np\.polyval: np\.poly1d.*p\.coeffs"),
        (lambda x: np.geomspace(x[0] * 1j, 2.0, 4), r"np\.geomspace: complex.*np\.exp\(np\.linspace"),
        (lambda x: np.lib.stride_tricks.sliding_window_view(x, 2, writeable=True), "writeable=True"),
        (lambda x: np.vecdot(x, x, axes=[(0,), (0,)], keepdims=True), r"np\.vecdot: keepdims=.*np\.expand_dims"),
    ],
)
@pytest.mark.parametrize("transform", ["grad", "eval_shape"])
def test_what_has_no_rule_says_what_to_write(transform, f, match):
    run = {"grad": ff.grad(f), "eval_shape": partial(ff.eval_shape, f)}[transform]
    with pytest.raises(errors.UnsupportedError, match=match):
        run(X)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x @ np.ones(4),
        lambda x: x + np.ones(4),
        lambda x: np.concatenate([x, np.ones((1, 3))]),
        lambda x: np.stack([x, np.ones(4)]),
        lambda x: np.reshape(x, 4),
        lambda x: np.einsum("ij->i", x),
        lambda x: np.einsum("i,i", x),
        lambda x: np.tensordot(x, np.ones(4), 1),
        lambda x: np.broadcast_to(x, (2, 4)),
        lambda x: np.split(x, 2),
        lambda x: np.squeeze(x, 0),
        lambda x: np.transpose(x, (0, 1)),
        lambda x: np.take_along_axis(x, np.zeros((1, 1), int), 0),
        lambda x: np.sum(x, axis=1),
        lambda x: x[3],
        lambda x: x[0, 0],
        lambda x: ff.at(x)[0].set(np.ones(2)),
        lambda x: np.max(x[:0]),
    ],
)
def test_shapes_that_do_not_fit_raise_what_numpy_raises(f):
    try:
        f(X)
    except Exception as error:  # whatever NumPy says
        expected = type(error)
    with pytest.raises(expected):
        ff.grad(lambda x: np.sum(f(x)))(X)


# -- errors of the user's own -------------------------------------------------------------------


@pytest.mark.parametrize("transform", [*LEAKING.values(), *TRANSFORMS.values()])
def test_an_error_of_the_function_comes_out_as_it_is(transform):
    class OwnError(Exception):
        pass

    def fails(x):
        x = np.sin(x) * 2
        raise OwnError("own")

    with pytest.raises(OwnError, match="own"):
        transform(fails)


def test_an_error_in_an_inner_transform_that_is_caught_leaves_the_outer_one_whole():
    def loss(x):
        try:
            ff.grad(lambda y: y * x)(x)  # not a scalar
        except errors.NonScalarLossError:
            assert trace_depth() == 1
        return np.sum(x**3)

    np.testing.assert_allclose(ff.grad(loss)(X), 3 * X**2)


def test_an_error_in_a_pullback_leaves_it_usable():
    _, pullback = ff.vjp(np.sin, X)
    with pytest.raises(errors.CotangentError):
        pullback(np.ones(2))
    np.testing.assert_allclose(pullback(np.ones(3))[0], np.cos(X))


def test_an_interrupt_closes_the_trace():
    def interrupted(x):
        raise KeyboardInterrupt

    for transform in TRANSFORMS.values():
        with pytest.raises(KeyboardInterrupt):
            transform(interrupted)
        assert trace_depth() == 0


def _holding(x):
    """An array of objects, of which some are tracers."""
    out = np.empty(2, object)
    out[0], out[1] = x[0], 1.0
    return out


@pytest.mark.parametrize(
    "f",
    [
        lambda x: _holding(x) * x,
        lambda x: x / _holding(x),
        lambda x: np.where(x > 0, _holding(x), x),
        lambda x: np.concatenate([x, _holding(x)]),
        lambda x: x @ np.array([1.0, 2.0], object),
        lambda x: x * np.array([1.0, 2.0], object),
    ],
)
def test_arrays_of_objects_beside_tracers(f):
    x = np.array([1.0, 2.0])
    for run in (
        lambda: ff.grad(lambda x: np.sum(f(x)))(x),
        lambda: ff.jvp(f, (x,), (x,)),
        lambda: ff.linearize(f, x),
        lambda: ff.jit(f)(x),
        lambda: ff.eval_shape(f, x),
        lambda: ff.grad(lambda x: np.sum(ff.jvp(f, (x,), (x,))[1]))(x),
    ):
        with pytest.raises(errors.DtypeError, match=r"dtype object .*write np\.stack\(list\(array\)\)"):
            run()
    with pytest.raises(errors.DtypeError, match=r"dtype object"):
        ff.vmap(lambda y: y * np.array([1.0, 2.0], object))(x[None])
    with pytest.raises(errors.UnsupportedError, match=r"no method exp.*np\.stack\(list\(array\)\)"):
        ff.grad(lambda x: np.sum(np.exp(_holding(x))))(x)
