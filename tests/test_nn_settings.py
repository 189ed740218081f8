"""Settings that come as NumPy's numbers, out of a sweep say, do what Python's own do: float32 stays float32."""

import numpy as np
import pytest

from fnflare import nn, random

X, Y = [np.random.default_rng(seed).uniform(0.1, 0.9, (4, 4)).astype(np.float32) for seed in (0, 1)]
IMAGES = np.random.default_rng(2).uniform(0.1, 0.9, (2, 4, 4, 3)).astype(np.float32)
LABELS, SIGNS, KEY = np.arange(4), np.array([1, -1, 1, -1]), random.key(0)

#: What takes settings, and these.
CALLS = {
    "leaky_relu": (lambda a: nn.leaky_relu(-X, a), 0.1),
    "elu": (lambda a: nn.elu(-X, a), 0.3),
    "celu": (lambda a: nn.celu(-X, a), 0.3),
    "hardtanh": (lambda a, b: nn.hardtanh(X, a, b), 0.2, 0.5),
    "softshrink": (lambda a: nn.softshrink(X, a), 0.3),
    "hardshrink": (lambda a: nn.hardshrink(X, a), 0.3),
    "threshold": (lambda a, b: nn.threshold(X, a, b), 0.5, 0.1),
    "Threshold": (lambda a, b: nn.Threshold(a, b).apply((), X), 0.5, 0.1),
    "RRelu": (lambda a, b: nn.RRelu(a, b).apply((), -X), 0.1, 0.2),
    "RRelu in training": (lambda a, b: nn.RRelu(a, b).apply((), -X, key=KEY, train=True), 0.1, 0.2),
    "gumbel_softmax": (lambda a: nn.gumbel_softmax(KEY, X, a), 0.5),
    "dot_product_attention": (lambda a: nn.dot_product_attention(IMAGES, IMAGES, IMAGES, scale=a), 0.1),
    "rotary": (lambda a: nn.rotary(X, base=a), 100.0),
    "SinusoidalPositions": (lambda a: nn.SinusoidalPositions(a).apply((), IMAGES[..., :2, 0]), 100.0),
    "LayerNorm": (lambda a: nn.LayerNorm(a, affine=False).apply((), X), 0.1),
    "LocalResponseNorm": (lambda a, b, c: nn.LocalResponseNorm(2, a, b, c).apply((), X), 0.1, 0.7, 1.5),
    "LpPool": (lambda a: nn.LpPool(a, 2).apply((), IMAGES[..., 0]), 3.0),
    "Upsample": (lambda a: nn.Upsample(a, mode="cubic").apply((), IMAGES), 1.5),
    "Dropout": (lambda a: nn.Dropout(a).apply((), X, key=KEY, train=True), 0.4),
    "AlphaDropout": (lambda a: nn.AlphaDropout(a).apply((), X, key=KEY, train=True), 0.4),
    "GaussianDropout": (lambda a: nn.GaussianDropout(a).apply((), X, key=KEY, train=True), 0.4),
    "softmax": (lambda a: nn.softmax_cross_entropy(X, Y, label_smoothing=a), 0.1),
    "integers": (lambda a: nn.softmax_cross_entropy_with_integer_labels(X, LABELS, label_smoothing=a), 0.1),
    "sigmoid": (lambda a: nn.sigmoid_binary_cross_entropy(X, Y, pos_weight=a), 2.0),
    "sigmoid_focal_loss": (lambda a, b: nn.sigmoid_focal_loss(X, Y, alpha=a, gamma=b), 0.25, 1.5),
    "softmax_focal_loss": (lambda a: nn.softmax_focal_loss(X, Y, gamma=a), 1.5),
    "multi_margin_loss": (lambda a: nn.multi_margin_loss(X, LABELS, margin=a), 0.5),
    "huber_loss": (lambda a: nn.huber_loss(X, Y, delta=a), 0.2),
    "smooth_l1_loss": (lambda a: nn.smooth_l1_loss(X, Y, beta=a), 0.2),
    "poisson_nll_loss": (lambda a: nn.poisson_nll_loss(X, Y, log_input=False, eps=a), 1e-3),
    "gaussian_nll_loss": (lambda a: nn.gaussian_nll_loss(X, Y, Y, eps=a), 0.3),
    "cosine_embedding_loss": (lambda a, b: nn.cosine_embedding_loss(X, Y, SIGNS, margin=a, eps=b), 0.1, 1e-6),
    "triplet": (lambda a, b: nn.triplet_margin_loss(X, Y, X[::-1], margin=a, eps=b, norm_degree=3), 0.5, 1e-4),
    "contrastive_loss": (lambda a: nn.contrastive_loss(X, Y, SIGNS > 0, margin=a), 0.9),
    "info_nce_loss": (lambda a: nn.info_nce_loss(X, Y, temperature=a), 0.5),
    "margin_ranking_loss": (lambda a: nn.margin_ranking_loss(X, Y, np.ones((4, 4)), margin=a), 0.5),
    "hinge_embedding_loss": (lambda a: nn.hinge_embedding_loss(X, -np.ones((4, 4)), margin=a), 0.5),
    "dice_loss": (lambda a: nn.dice_loss(X, Y, smooth=a), 0.5),
    "tversky_loss": (lambda a, b, c: nn.tversky_loss(X, Y, alpha=a, beta=b, smooth=c), 0.4, 0.6, 0.5),
}


@pytest.mark.parametrize("name", CALLS)
def test_numpys_numbers_do_not_widen_what_they_meet(name):
    f, *settings = CALLS[name]
    got, expected = f(*map(np.float64, settings)), f(*settings)
    assert got.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(got, expected)
