"""Activations beside PyTorch's, at kinks, in the tails, under every transform; and the layers made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from laws import agree, in_dtype
from nn_laws import check_layer, normal, ragged

import fnflare as ff
from fnflare import config, nn, random
from fnflare.errors import ArgumentError, MissingKeyError, ShapeError
from fnflare.testing import check_grads, check_vmap

# Each activation, PyTorch's, and where it has kinks.
F: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], Any], tuple[float, ...]]] = {
    "celu": (nn.celu, lambda f, x: f.celu(x), ()),
    "celu 0.5": (lambda x: nn.celu(x, 0.5), lambda f, x: f.celu(x, 0.5), ()),
    "elu": (nn.elu, lambda f, x: f.elu(x), ()),
    "elu 0.5": (lambda x: nn.elu(x, 0.5), lambda f, x: f.elu(x, 0.5), (0.0,)),
    "gelu": (nn.gelu, lambda f, x: f.gelu(x), ()),
    "gelu tanh": (lambda x: nn.gelu(x, approximate=True), lambda f, x: f.gelu(x, approximate="tanh"), ()),
    "glu": (nn.glu, lambda f, x: f.glu(x), ()),
    "glu 0": (lambda x: nn.glu(x, axis=0), lambda f, x: f.glu(x, 0), ()),
    "hardshrink": (nn.hardshrink, lambda f, x: f.hardshrink(x), (-0.5, 0.5)),
    # PyTorch 2's own hardsigmoid has a gradient of one sixth in float32 for float64 too.
    "hardsigmoid": (nn.hardsigmoid, lambda f, x: f.relu6(x + 3) / 6, (-3.0, 3.0)),
    "hardswish": (nn.hardswish, lambda f, x: f.hardswish(x), (-3.0, 3.0)),
    "hardtanh": (nn.hardtanh, lambda f, x: f.hardtanh(x), (-1.0, 1.0)),
    "hardtanh 0.2 2": (lambda x: nn.hardtanh(x, 0.25, 2.0), lambda f, x: f.hardtanh(x, 0.25, 2.0), (0.25, 2.0)),
    "leaky_relu": (nn.leaky_relu, lambda f, x: f.leaky_relu(x), (0.0,)),
    "lisht": (nn.lisht, lambda f, x: x * x.tanh(), ()),
    "log_sigmoid": (nn.log_sigmoid, lambda f, x: f.logsigmoid(x), ()),
    "log_softmax": (nn.log_softmax, lambda f, x: f.log_softmax(x, -1), ()),
    "mish": (nn.mish, lambda f, x: f.mish(x), ()),
    "relu": (nn.relu, lambda f, x: f.relu(x), (0.0,)),
    "relu6": (nn.relu6, lambda f, x: f.relu6(x), (0.0, 6.0)),
    "selu": (nn.selu, lambda f, x: f.selu(x), (0.0,)),
    "sigmoid": (nn.sigmoid, lambda f, x: x.sigmoid(), ()),
    "silu": (nn.silu, lambda f, x: f.silu(x), ()),
    "softmax": (nn.softmax, lambda f, x: f.softmax(x, -1), ()),
    "softmin": (nn.softmin, lambda f, x: f.softmin(x, -1), ()),
    "softplus": (nn.softplus, lambda f, x: f.softplus(x, threshold=40), ()),
    "softshrink": (nn.softshrink, lambda f, x: f.softshrink(x), (-0.5, 0.5)),
    "softsign": (nn.softsign, lambda f, x: f.softsign(x), ()),
    "swish": (nn.swish, lambda f, x: f.silu(x), ()),
    "tanh": (nn.tanh, lambda f, x: x.tanh(), ()),
    "tanhshrink": (nn.tanhshrink, lambda f, x: f.tanhshrink(x), ()),
    "threshold": (lambda x: nn.threshold(x, 0.5, -2.0), lambda f, x: f.threshold(x, 0.5, -2.0), (0.5,)),
}
ALL = {**{name: f for name, (f, _, _) in F.items()}, "logcosh": nn.logcosh, "sparsemax": nn.sparsemax}
HUGE = np.array([[-1e4, 1e4, -300.0, 90.0], [1e4, -1e4, 1e4, -90.0]])
every = pytest.mark.parametrize("name", ALL)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", F)
def test_values_and_gradients_are_pytorchs_at_kinks_and_in_the_tails_too(name: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    f, theirs, kinks = F[name]
    x = np.concatenate([np.linspace(-7, 7, 29), kinks, [-0.0, 1e-3], HUGE.ravel()])
    x = (x if len(x) % 2 == 0 else np.append(x, 2.5)).reshape(-1, 2).astype(dtype)
    x = x[: len(x) // 2 * 2]
    ct = normal(*np.shape(f(x)), seed=3).astype(dtype)
    y, pull = ff.vjp(f, x)
    t = torch.tensor(x, requires_grad=True)
    t_y = theirs(torch.nn.functional, t)
    t_y.backward(torch.tensor(ct))
    rtol, atol = (2e-5, 2e-6) if dtype == np.float32 else (1e-11, 1e-13)
    np.testing.assert_allclose(f(x), t_y.detach().numpy(), rtol=rtol, atol=atol)
    np.testing.assert_allclose(y, f(x), rtol=rtol, atol=atol)
    np.testing.assert_allclose(pull(ct)[0], t.grad.numpy(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every
def test_values_and_derivatives_of_huge_inputs_are_finite(name: str, dtype: Any) -> None:
    x = HUGE.astype(dtype)

    def total(x: Any) -> Any:
        return np.sum(np.sin(ALL[name](x)))

    for f in (ALL[name], ff.grad(total), ff.grad(lambda x: np.sum(ff.grad(total)(x)))):
        out = f(x)
        assert out.dtype == dtype
        assert np.all(np.isfinite(out))
    assert np.all(np.isfinite(ff.jvp(ALL[name], (x,), (np.ones_like(x),))[1]))


@every
def test_derivatives_batches_and_nans(name: str) -> None:
    f, x = ALL[name], 2.1 * normal(4, 6, seed=5)
    check_grads(f, (x,), order=2)
    check_vmap(f, (np.stack([x, x[::-1], -x]),))
    check_vmap(ff.grad(lambda x: np.sum(np.square(f(x)))), (np.stack([x, x[::-1], -x]),))
    with np.errstate(invalid="ignore"):  # np.logaddexp warns of what is not a number
        assert np.all(np.isnan(f(np.full((2, 2), np.nan))))


@pytest.mark.parametrize("native", [False, True])
@every
def test_programs_give_the_same_on_both_executors(name: str, native: bool) -> None:
    f, x = ALL[name], np.concatenate([2.1 * normal(4, 4, seed=5), HUGE])

    def both(x: Any) -> Any:
        return f(x), ff.grad(lambda x: np.sum(np.sin(f(x))))(x)

    with config.override(use_native=native):
        for dtype in (np.float64, np.float32):
            agree(ff.jit(both)(in_dtype(x, dtype)), both(in_dtype(x, dtype)))


@pytest.mark.parametrize("native", [False, True])
@every
def test_whole_numbers_have_the_values_of_floats(name: str, native: bool) -> None:
    x = np.array([[-2, 0, 1, 5], [3, 1, -4, 0]])
    expected = ALL[name](x.astype(np.float64))
    with config.override(use_native=native):
        for whole in (x, x.astype(np.int32)):
            for f in (ALL[name], ff.jit(ALL[name]), ff.jit(lambda x: ALL[name](x) * 1.0)):
                np.testing.assert_allclose(f(whole), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("f", [nn.softmax, nn.log_softmax, nn.logsumexp])
@pytest.mark.parametrize("dtype", [np.int64, np.uint64, np.uint8, bool])
def test_exponentials_of_whole_numbers(f: Any, dtype: Any) -> None:
    x = np.array([[0, 1, 3, 2], [2, 0, 1, 1]]).astype(dtype)
    expected = f(x.astype(np.float64))
    for run in (f, ff.jit(f), ff.jit(lambda x: f(x) * 1)):
        np.testing.assert_allclose(run(x), expected, rtol=1e-12)
        assert run(x).dtype == np.float64
    assert ff.eval_shape(f, x).dtype == np.float64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logcosh_keeps_its_precision_everywhere(dtype: Any) -> None:
    mpmath = pytest.importorskip("mpmath")
    x = np.array([1e-12, -1e-5, 0.03, -0.999, 1.0, 1.001, 5.0, -80.0, 1e4], dtype)
    with mpmath.workdps(60):
        wanted = [float(mpmath.log(mpmath.cosh(mpmath.mpf(float(v))))) for v in x]
        slopes = [float(mpmath.tanh(mpmath.mpf(float(v)))) for v in x]
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(nn.logcosh(x), wanted, rtol=8 * eps)
    np.testing.assert_allclose(ff.grad(lambda x: np.sum(nn.logcosh(x)))(x), slopes, rtol=8 * eps)


def test_prelu_is_pytorchs_in_both_gradients() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x, slope = np.append(normal(5, 3), [[0.0, -1e4, 1e4]], axis=0), np.array([0.25, -0.5, 1.5])
    y, pull = ff.vjp(nn.prelu, x, slope)
    t_x, t_slope = torch.tensor(x, requires_grad=True), torch.tensor(slope, requires_grad=True)
    t_y = torch.nn.functional.prelu(t_x, t_slope)
    t_y.sum().backward()
    np.testing.assert_allclose(y, t_y.detach().numpy())
    for got, t in zip(pull(np.ones_like(y)), (t_x, t_slope), strict=True):
        np.testing.assert_allclose(got, t.grad.numpy())


def test_sparsemax_is_the_nearest_distribution() -> None:
    x = np.concatenate([3 * normal(20, 5), [[0.0] * 5, [1e4, 0, 0, 0, 1e4], [2.0, 1.0, 0.0, -1.0, 0.5]]])
    p = nn.sparsemax(x)
    np.testing.assert_allclose(p.sum(-1), 1.0)
    assert np.all(p >= 0)
    # What is subtracted is the same for all that have a share, and the others are not above it (Euclidean optimality).
    tau = np.max(x - p, axis=-1, keepdims=True)
    np.testing.assert_allclose(np.where(p > 0, x - p, tau), np.broadcast_to(tau, x.shape))
    np.testing.assert_allclose(nn.sparsemax(x.T, axis=0), p.T)
    # The Jacobian of the paper: the identity on the support, less the mean over it.
    np.testing.assert_allclose(nn.sparsemax(np.array([1.0, -np.inf, 0.5])), [0.75, 0.0, 0.25])
    row = x[-1]
    s = (nn.sparsemax(row) > 0).astype(float)
    np.testing.assert_allclose(ff.jacrev(nn.sparsemax)(row), np.diag(s) - np.outer(s, s) / s.sum(), atol=1e-15)


def test_glu_refuses_what_it_cannot_halve() -> None:
    with pytest.raises(ShapeError, match="glu: axis -1 has an odd size, 3"):
        nn.glu(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match="in layer 'gate': Glu halves the features"):
        nn.serial(gate=nn.Glu).init(None, (-1, 3))


# -- layers ----------------------------------------------------------------------------------------------------------

LAYERS = {
    "Celu": nn.celu,
    "Elu": nn.elu,
    "Gelu": nn.gelu,
    "GeluTanh": lambda x: nn.gelu(x, True),
    "Glu": nn.glu,
    "HardShrink": nn.hardshrink,
    "HardSigmoid": nn.hardsigmoid,
    "HardSwish": nn.hardswish,
    "HardTanh": nn.hardtanh,
    "Identity": lambda x: x,
    "LeakyRelu": nn.leaky_relu,
    "Lisht": nn.lisht,
    "LogCosh": nn.logcosh,
    "LogSigmoid": nn.log_sigmoid,
    "LogSoftmax": nn.log_softmax,
    "Mish": nn.mish,
    "Relu": nn.relu,
    "Relu6": nn.relu6,
    "Selu": nn.selu,
    "Sigmoid": nn.sigmoid,
    "Silu": nn.silu,
    "SoftShrink": nn.softshrink,
    "SoftSign": nn.softsign,
    "Softmax": nn.softmax,
    "Softmin": nn.softmin,
    "Softplus": nn.softplus,
    "Sparsemax": nn.sparsemax,
    "Swish": nn.silu,
    "Tanh": nn.tanh,
    "TanhShrink": nn.tanhshrink,
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_its_function_also_on_padded_batches(name: str) -> None:
    layer, x = getattr(nn, name), normal(3, 5, 4)
    shape, params = layer.init(None, (-1, -1, 4))
    assert params == ()
    np.testing.assert_array_equal(layer.apply((), x), LAYERS[name](x))
    assert layer.apply((), x).shape[2:] == shape[2:]
    batch = ragged(3, 5, 4, [2, 5, 1])
    out = layer.apply((), batch, key=None, train=True)
    np.testing.assert_array_equal(out.values, LAYERS[name](batch.values))
    assert out.lengths is batch.lengths


def test_the_layers_with_settings() -> None:
    x = normal(3, 4)
    np.testing.assert_array_equal(nn.Threshold(0.5, 9.0).apply((), x), np.where(x > 0.5, x, 9.0))
    check_layer(nn.PRelu(), x)
    check_layer(nn.PRelu(shared=True), x)
    assert nn.PRelu(shared=True).init(None, (-1, -1))[1]["slope"].shape == ()
    batch = ragged(3, 5, 4, [2, 5, 1])
    params = {"slope": np.array([0.1, 0.2, 0.3, 0.4])}
    np.testing.assert_array_equal(nn.PRelu().apply(params, batch).values, nn.prelu(batch.values, params["slope"]))
    with pytest.raises(ShapeError, match=r"PRelu expected inputs \(..., 4\), got \(3, 5\)"):
        nn.PRelu().apply(params, normal(3, 5))
    with pytest.raises(ArgumentError, match="slope_init must be a function"):
        nn.PRelu(slope_init=0.25)  # type: ignore[arg-type]


def test_the_randomised_leaky_rectifier() -> None:
    layer, x = nn.RRelu(0.1, 0.3), -np.ones((100, 10), np.float32)
    drawn = layer.apply((), x, key=random.key(0), train=True)
    assert drawn.dtype == np.float32
    assert np.all((drawn <= -0.1) & (drawn >= -0.3))
    assert abs(np.mean(drawn) + 0.2) < 0.01 and np.std(drawn) > 0.05
    np.testing.assert_array_equal(layer.apply((), -x, key=random.key(0), train=True), -x)
    np.testing.assert_allclose(layer.apply((), x), 0.2 * x)
    grads = ff.grad(lambda x: np.sum(layer.apply((), x, key=random.key(0), train=True)))(x)
    np.testing.assert_array_equal(grads, -drawn)
    padded = nn.Padded(x.reshape(10, 10, 10), np.full(10, 3))
    np.testing.assert_array_equal(
        layer.apply((), padded, key=random.key(0), train=True).values.ravel(), drawn.reshape(10, 10, 10).ravel()
    )
    with pytest.raises(MissingKeyError, match="RRelu draws its slopes"):
        layer.apply((), x, train=True)
    with pytest.raises(ArgumentError, match="lower must not be greater"):
        nn.RRelu(0.5, 0.1)
