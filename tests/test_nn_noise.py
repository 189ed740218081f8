"""Dropout in all its kinds: what is drawn, what stays, and what it is in the mean."""

import numpy as np
import pytest
from nn_laws import check_jit, normal, ragged

import fnflare as ff
from fnflare import nn, random
from fnflare.errors import ArgumentError, DtypeError, MissingKeyError, ShapeError

KINDS = {
    "Dropout": nn.Dropout,
    "SpatialDropout": nn.SpatialDropout,
    "VariationalDropout": nn.VariationalDropout,
    "GaussianDropout": nn.GaussianDropout,
    "AlphaDropout": nn.AlphaDropout,
}


@pytest.mark.parametrize("name", KINDS)
def test_inputs_pass_when_not_training_or_at_rate_zero(name):
    x = normal(2, 3, 4)
    assert KINDS[name](0.5).apply((), x) is x
    assert KINDS[name](0.0).apply((), x, train=True) is x
    assert KINDS[name](0.5).init(None, (-1, -1, 4)) == ((-1, -1, 4), ())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("rate", [0.2, 0.6])
def test_noise_depends_on_the_key_alone_and_keeps_the_dtype_and_the_mean(name, rate):
    layer = KINDS[name](rate)
    x = normal(300, 10, 20).astype(np.float32)
    y = layer.apply((), x, key=random.key(1), train=True)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, layer.apply((), x, key=random.key(1), train=True))
    assert not np.array_equal(y, layer.apply((), x, key=random.key(2), train=True))
    ones = layer.apply((), np.ones((400, 1, 500)), key=random.key(3), train=True)
    # Alpha dropout keeps the mean of what has mean 0, here that of x.
    assert abs(np.mean(y) - np.mean(x)) < 0.02 if name == "AlphaDropout" else abs(np.mean(ones) - 1) < 0.02


@pytest.mark.parametrize("name", KINDS)
def test_derivatives_and_programs(name):
    layer, x, key = KINDS[name](0.4), normal(3, 4, 5), random.key(3)

    def apply(x):
        return layer.apply((), x, key=key, train=True)

    check_jit(apply, x)
    y, tangent = ff.jvp(apply, (x,), (np.ones_like(x),))
    grad = ff.grad(lambda x: np.sum(apply(x)))(x)
    np.testing.assert_allclose(grad, tangent, rtol=1e-12)
    # Affine in the inputs, whatever is drawn.
    np.testing.assert_allclose(apply(x + 1.0), y + tangent, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_examples_with_keys_of_their_own(name):
    layer, x, keys = KINDS[name](0.4), normal(3, 2, 4, 5), random.split(random.key(0), 3)

    def apply(key, x):
        return layer.apply((), x, key=key, train=True)

    together = ff.vmap(apply)(keys, x)
    for i in range(3):
        np.testing.assert_allclose(together[i], apply(keys[i], x[i]), rtol=1e-12)


def test_spatial_dropout_drops_whole_channels():
    y = nn.SpatialDropout(0.3).apply((), np.ones((50, 4, 5, 20)), key=random.key(0), train=True)
    assert set(np.unique(y)) == {0.0, 1 / 0.7}
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    assert abs(np.mean(y == 0) - 0.3) < 0.05
    assert not np.array_equal(y[0], y[1])


def test_variational_dropout_has_one_mask_for_all_steps():
    y = nn.VariationalDropout(0.3).apply((), np.ones((50, 6, 2, 20)), key=random.key(0), train=True)
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1], y.shape))
    assert not np.array_equal(y[:, :, 0], y[:, :, 1])
    batch = ragged(2, 6, 3, [6, 2])
    out = nn.VariationalDropout(0.5).apply((), batch, key=random.key(0), train=True)
    assert out.lengths is batch.lengths
    kept = out.values / batch.values
    np.testing.assert_allclose(kept, np.broadcast_to(kept[:, :1], kept.shape), rtol=1e-12)


def test_gaussian_dropout_has_the_variance_of_dropout():
    y = nn.GaussianDropout(0.2).apply((), np.ones((400, 500)), key=random.key(0), train=True)
    assert abs(np.var(y) - 0.25) < 0.005
    assert abs(np.mean(y) - 1) < 0.005


def test_alpha_dropout_keeps_mean_and_variance():
    x = np.random.default_rng(0).standard_normal((400, 500))
    for rate in (0.1, 0.5):
        y = nn.AlphaDropout(rate).apply((), x, key=random.key(0), train=True)
        assert abs(np.mean(y)) < 0.01
        assert abs(np.var(y) - 1) < 0.02
        # All that are dropped have one value.
        assert abs(np.unique(y, return_counts=True)[1].max() / y.size - rate) < 0.01


def test_alpha_dropout_has_the_two_values_of_torchs():
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    ours = nn.AlphaDropout(0.3).apply((), np.full(1000, 0.7), key=random.key(0), train=True)
    torchs = torch.nn.functional.alpha_dropout(torch.full((1000,), 0.7, dtype=torch.float64), 0.3, training=True)
    np.testing.assert_allclose(np.unique(ours), np.unique(torchs.numpy()), rtol=1e-12)


@pytest.mark.parametrize("name", KINDS)
def test_noise_without_a_key_says_where(name):
    model = nn.serial(hidden=nn.serial(nn.Identity, KINDS[name](0.5)))
    with pytest.raises(MissingKeyError, match=rf"^in layer 'hidden/1': {name} draws .*key=fnflare.random.key\(seed\)"):
        model.apply({"hidden": ((), ())}, normal(2, 3, 4), train=True)
    with pytest.raises(ArgumentError, match=f"{name}: rate must be a number, at least 0 and below 1"):
        KINDS[name](1.0)


def test_masks_that_are_shared_need_axes_to_be_shared_along():
    with pytest.raises(
        ShapeError, match=r"^in layer 'drop': SpatialDropout expected inputs \(N, ..., C\), got input s"
    ):
        nn.serial(drop=nn.SpatialDropout(0.5)).init(None, (-1, 4))
    with pytest.raises(
        ShapeError, match=r"^in layer 'drop': VariationalDropout expected inputs \(N, T, ...\), got \(2"
    ):
        nn.serial(drop=nn.VariationalDropout(0.5)).apply({"drop": ()}, normal(2, 4), key=random.key(0), train=True)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("layer", [nn.Dropout(0.3), nn.AlphaDropout(0.3), nn.GaussianDropout(0.3), nn.RRelu()])
def test_noise_keeps_every_floating_dtype(layer, dtype):
    y = layer.apply((), np.ones((4, 5), dtype), key=random.key(0), train=True)
    assert y.dtype == dtype
    assert np.all(np.isfinite(y))


def test_gaussian_noise_of_integers_is_not_cut_off():
    y = nn.GaussianDropout(0.3).apply((), np.ones((4, 5), int), key=random.key(0), train=True)
    assert y.dtype == np.float64
    assert np.any(y != np.round(y))


# -- Gumbel softmax -------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [-1, 0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gumbel_softmax_is_the_softmax_of_noisy_logits(dtype, axis):
    logits, key = np.random.default_rng(0).standard_normal((4, 3)).astype(dtype), random.key(5)
    y = nn.gumbel_softmax(key, logits, 0.7, axis=axis)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, nn.softmax((logits + random.gumbel(key, (4, 3), dtype)) / 0.7, axis))
    hard = nn.gumbel_softmax(key, logits, 0.7, hard=True, axis=axis)
    assert np.array_equal(hard.round(5), y == np.max(y, axis=axis, keepdims=True))
    # The derivative is that of the soft draw.
    ct = np.arange(12, dtype=dtype).reshape(4, 3)
    soft_grad, hard_grad = [
        ff.grad(lambda x, hard=hard: np.sum(ct * nn.gumbel_softmax(key, x, 0.7, hard=hard, axis=axis)))(logits)
        for hard in (False, True)
    ]
    np.testing.assert_allclose(hard_grad, soft_grad, rtol=1e-5)
    np.testing.assert_allclose(ff.jit(lambda x: nn.gumbel_softmax(key, x, 0.7, axis=axis))(logits), y, rtol=1e-5)


def test_hard_draws_are_as_frequent_as_their_probabilities():
    p = np.array([0.1, 0.2, 0.7])
    draws = nn.gumbel_softmax(random.key(1), np.broadcast_to(np.log(p), (20000, 3)), hard=True)
    np.testing.assert_allclose(np.mean(draws, axis=0), p, atol=0.01)
    with pytest.raises(ArgumentError, match="gumbel_softmax: temperature must be positive, got 0"):
        nn.gumbel_softmax(random.key(1), p, 0)
    with pytest.raises(DtypeError, match="gumbel_softmax: logits must be floats, got int64"):
        nn.gumbel_softmax(random.key(1), [1, 2])
