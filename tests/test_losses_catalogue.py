"""The losses that PyTorch, optax and Flux have: PyTorch beside each, every transform, their limits and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from drawing import Draws
from hypothesis import given
from hypothesis import strategies as st
from laws import agree, in_dtype

import fnflare as ff
from fnflare import config, nn
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn import losses
from fnflare.testing import check_grads, check_vmap

RNG = Draws(0)
X, Y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 3))
Z = RNG.normal(size=(6, 3))
POSITIVE, COUNTS = RNG.uniform(0.2, 4, (6, 3)), RNG.poisson(2.0, (6, 3))
P, BITS = RNG.uniform(0.05, 0.95, (6, 3)), RNG.integers(0, 2, (6, 3))
LABELS, SOFT = RNG.integers(0, 3, 6), RNG.dirichlet(np.ones(3), 6)
WEIGHTS, SIGNS = np.array([0.5, 2.0, 1.5]), np.array([1, -1, -1, 1, -1, 1])


class Loss(NamedTuple):
    """A loss, what it takes (arrays of float64 are differentiated), and PyTorch's, if it has it."""

    f: Callable[..., Any]
    args: tuple[np.ndarray, ...]
    torch: Callable[..., Any] | None = None


def focal_by_hand(t: Any, x: Any, y: Any, weights: Any = None) -> Any:
    log_p = x.log_softmax(-1)
    terms = -((1 - log_p.exp()) ** 1.5) * log_p * (1.0 if weights is None else t.tensor(weights, dtype=x.dtype))
    return terms.gather(-1, y[:, None])[:, 0] if y.ndim == 1 else (terms * y).sum(-1)


def sigmoid_focal_by_hand(x: Any, y: Any) -> Any:
    p = x.sigmoid()
    right = p * y + (1 - p) * (1 - y)
    return -(0.25 * y + 0.75 * (1 - y)) * (1 - right) ** 2 * right.log()


CASES: dict[str, Loss] = {
    "softmax weighted": Loss(
        lambda x, y: losses.softmax_cross_entropy(x, y, label_smoothing=0.1, class_weights=WEIGHTS),
        (X, SOFT),
        lambda t, f, x, y: f.cross_entropy(
            x, y, t.tensor(WEIGHTS, dtype=x.dtype), reduction="none", label_smoothing=0.1
        ),
    ),
    "integer weighted": Loss(
        lambda x, y: losses.softmax_cross_entropy_with_integer_labels(x, y, class_weights=WEIGHTS, ignore_index=2),
        (X, LABELS),
        lambda t, f, x, y: f.cross_entropy(x, y, t.tensor(WEIGHTS, dtype=x.dtype), reduction="none", ignore_index=2),
    ),
    "integer weighted and smoothed": Loss(
        lambda x, y: losses.softmax_cross_entropy_with_integer_labels(x, y, class_weights=WEIGHTS, label_smoothing=0.1),
        (X, LABELS),
        lambda t, f, x, y: f.cross_entropy(
            x, y, t.tensor(WEIGHTS, dtype=x.dtype), reduction="none", label_smoothing=0.1
        ),
    ),
    "sigmoid weighted": Loss(
        lambda x, y: losses.sigmoid_binary_cross_entropy(x, y, pos_weight=WEIGHTS),
        (X, BITS),
        lambda t, f, x, y: f.binary_cross_entropy_with_logits(
            x, y.to(x.dtype), reduction="none", pos_weight=t.tensor(WEIGHTS, dtype=x.dtype)
        ),
    ),
    "sigmoid of weights": Loss(
        lambda x, w: losses.sigmoid_binary_cross_entropy(x, BITS, pos_weight=w),
        (X, POSITIVE[0]),
        # PyTorch's own is not differentiable in the weights.
        lambda t, f, x, w: w * t.tensor(BITS) * f.softplus(-x) + (1 - t.tensor(BITS)) * f.softplus(x),
    ),
    "sigmoid focal": Loss(
        lambda x, y: losses.sigmoid_focal_loss(x, y, alpha=0.25),
        (X, BITS),
        lambda t, f, x, y: sigmoid_focal_by_hand(x, y),
    ),
    "sigmoid focal soft": Loss(
        lambda x, y: losses.sigmoid_focal_loss(x, y, gamma=0.5),
        (X, P),
        # With labels between, what is taken for the probability of the right answer is their mean.
        lambda t, f, x, y: (
            f.binary_cross_entropy_with_logits(x, y, reduction="none")
            * (x.sigmoid() * (1 - y) + (1 - x.sigmoid()) * y) ** 0.5
        ),
    ),
    "softmax focal": Loss(
        lambda x, y: losses.softmax_focal_loss(x, y, gamma=1.5),
        (X, SOFT),
        lambda t, f, x, y: focal_by_hand(t, x, y),
    ),
    "softmax focal weighted": Loss(
        lambda x, y: losses.softmax_focal_loss(x, y, gamma=1.5, class_weights=WEIGHTS),
        (X, SOFT),
        lambda t, f, x, y: focal_by_hand(t, x, y, WEIGHTS),
    ),
    "softmax focal integer": Loss(
        lambda x, y: losses.softmax_focal_loss_with_integer_labels(x, y, gamma=1.5, class_weights=WEIGHTS),
        (X, LABELS),
        lambda t, f, x, y: focal_by_hand(t, x, y, WEIGHTS),
    ),
    "squared hinge": Loss(
        lambda x, y: losses.squared_hinge_loss(x, 2 * y - 1),
        (X, BITS),
        lambda t, f, x, y: (1 - (2 * y - 1) * x).clamp(min=0) ** 2,
    ),
    "soft margin": Loss(
        lambda x, y: losses.soft_margin_loss(x, 2 * y - 1),
        (X, BITS),
        lambda t, f, x, y: f.soft_margin_loss(x, (2 * y - 1).to(x.dtype), reduction="none"),
    ),
    "multi margin": Loss(
        losses.multi_margin_loss, (X, LABELS), lambda t, f, x, y: f.multi_margin_loss(x, y, reduction="none")
    ),
    "multi margin squared": Loss(
        lambda x, y: losses.multi_margin_loss(x, y, margin=0.7, p=2),
        (X, LABELS),
        lambda t, f, x, y: f.multi_margin_loss(x, y, margin=0.7, p=2, reduction="none"),
    ),
    "margin ranking": Loss(
        lambda x, y, s: losses.margin_ranking_loss(x, y, s[:, None] * np.ones((1, 3)), margin=0.4),
        (X, Y, SIGNS),
        lambda t, f, x, y, s: f.margin_ranking_loss(x, y, s[:, None].to(x.dtype), margin=0.4, reduction="none"),
    ),
    "hinge embedding": Loss(
        lambda x, s: losses.hinge_embedding_loss(x, s[:, None] * np.ones((1, 3)), margin=1.3),
        (X, SIGNS),
        lambda t, f, x, s: f.hinge_embedding_loss(
            x, s[:, None].expand(-1, 3).to(x.dtype), margin=1.3, reduction="none"
        ),
    ),
    "kl of logarithms": Loss(
        lambda x, y: losses.kl_divergence_with_log_targets(nn.log_softmax(x), nn.log_softmax(y)),
        (X, Y),
        lambda t, f, x, y: f.kl_div(x.log_softmax(-1), y.log_softmax(-1), reduction="none", log_target=True).sum(-1),
    ),
    "smooth l1": Loss(losses.smooth_l1_loss, (2 * X, Y), lambda t, f, x, y: f.smooth_l1_loss(x, y, reduction="none")),
    "smooth l1 beta": Loss(
        lambda x, y: losses.smooth_l1_loss(x, y, beta=0.3),
        (X, Y),
        lambda t, f, x, y: f.smooth_l1_loss(x, y, reduction="none", beta=0.3),
    ),
    "log cosh": Loss(losses.log_cosh_loss, (X, Y), lambda t, f, x, y: (x - y).cosh().log()),
    "squared log": Loss(losses.squared_log_error, (POSITIVE, P), lambda t, f, x, y: (x.log1p() - y.log1p()) ** 2),
    "poisson": Loss(
        losses.poisson_nll_loss,
        (X, COUNTS),
        lambda t, f, x, y: f.poisson_nll_loss(x, y.to(x.dtype), log_input=True, reduction="none"),
    ),
    "poisson full": Loss(
        lambda x, y: losses.poisson_nll_loss(x, y, full=True),
        (X, COUNTS),
        lambda t, f, x, y: f.poisson_nll_loss(x, y.to(x.dtype), log_input=True, full=True, reduction="none"),
    ),
    "poisson of rates": Loss(
        lambda x, y: losses.poisson_nll_loss(x, y, log_input=False, full=True, eps=1e-3),
        (POSITIVE, COUNTS),
        lambda t, f, x, y: f.poisson_nll_loss(x, y.to(x.dtype), log_input=False, full=True, eps=1e-3, reduction="none"),
    ),
    "gaussian": Loss(
        losses.gaussian_nll_loss, (X, Y, POSITIVE), lambda t, f, x, y, v: f.gaussian_nll_loss(x, y, v, reduction="none")
    ),
    "gaussian full": Loss(
        lambda x, y, v: losses.gaussian_nll_loss(x, y, v, full=True),
        (X, Y, POSITIVE[:, :1]),
        lambda t, f, x, y, v: f.gaussian_nll_loss(x, y, v, full=True, reduction="none"),
    ),
    "cosine similarity": Loss(losses.cosine_similarity, (X, Y), lambda t, f, x, y: f.cosine_similarity(x, y)),
    "cosine distance": Loss(
        lambda x, y: losses.cosine_distance(x, y, axis=0), (X, Y), lambda t, f, x, y: 1 - f.cosine_similarity(x, y, 0)
    ),
    "cosine embedding": Loss(
        lambda x, y, s: losses.cosine_embedding_loss(x, y, s, margin=-0.3),
        (X, Y, SIGNS),
        # PyTorch's own adds 1e-12 to the squares of the norms, and differs in as many digits.
        lambda t, f, x, y, s: t.where(
            s > 0, 1 - f.cosine_similarity(x, y), (f.cosine_similarity(x, y) + 0.3).clamp(min=0)
        ),
    ),
    "triplet": Loss(
        losses.triplet_margin_loss, (X, Y, Z), lambda t, f, a, p, n: f.triplet_margin_loss(a, p, n, reduction="none")
    ),
    "triplet swapped 3": Loss(
        lambda a, p, n: losses.triplet_margin_loss(a, p, n, margin=0.7, norm_degree=3, swap=True),
        (X, Y, Z),
        lambda t, f, a, p, n: f.triplet_margin_loss(a, p, n, margin=0.7, p=3, swap=True, reduction="none"),
    ),
    "contrastive": Loss(
        lambda x, y, s: losses.contrastive_loss(x, y, s > 0, margin=2.5),
        (X, Y, SIGNS),
        lambda t, f, x, y, s: t.where(
            s > 0, ((x - y) ** 2).sum(-1), (2.5 - ((x - y) ** 2).sum(-1).sqrt()).clamp(min=0) ** 2
        ),
    ),
    "info nce": Loss(
        lambda x, y: losses.info_nce_loss(x, y, temperature=0.5),
        (X, Y),
        lambda t, f, x, y: f.cross_entropy(f.normalize(x) @ f.normalize(y).T / 0.5, t.arange(len(x)), reduction="none"),
    ),
    "dice": Loss(
        losses.dice_loss,
        (P, BITS),
        lambda t, f, x, y: 1 - (2 * (x * y).sum(-1) + 1) / (x.sum(-1) + y.sum(-1) + 1),
    ),
    "dice of squares": Loss(
        lambda x, y: losses.dice_loss(x, y, squared=True, smooth=0.5, axis=(0, 1)),
        (P, BITS),
        lambda t, f, x, y: 1 - (2 * (x * y).sum() + 0.5) / ((x**2).sum() + (y**2).sum() + 0.5),
    ),
    "tversky": Loss(
        lambda x, y: losses.tversky_loss(x, y, axis=0),
        (P, BITS),
        lambda t, f, x, y: (
            1 - ((x * y).sum(0) + 1) / ((x * y).sum(0) + 0.3 * (x * (1 - y)).sum(0) + 0.7 * ((1 - x) * y).sum(0) + 1)
        ),
    ),
}
every = pytest.mark.parametrize("name", CASES)


def gradients(loss: Loss, args: Any) -> Any:
    """Of the sum of the losses, in all arguments of floats."""
    which = tuple(i for i, a in enumerate(args) if a.dtype.kind == "f")
    return ff.grad(lambda *args: np.sum(loss.f(*args)), argnums=which)(*args)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every
def test_values_and_gradients_are_pytorchs(name: str, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    loss = CASES[name]
    args = in_dtype(loss.args, dtype)
    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in args]
    assert loss.torch is not None
    theirs = loss.torch(torch, torch.nn.functional, *tensors)
    theirs.sum().backward()
    rtol, atol = (2e-5, 2e-6) if dtype == np.float32 else (1e-11, 1e-13)
    values = loss.f(*args)
    assert values.dtype == dtype
    np.testing.assert_allclose(values, theirs.detach().numpy(), rtol=rtol, atol=atol)
    for got, t in zip(gradients(loss, args), [t for t in tensors if t.requires_grad], strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, t.grad.numpy(), rtol=rtol, atol=atol)


@every
def test_derivatives_shapes_and_batches(name: str) -> None:
    loss = CASES[name]
    floats = [a for a in loss.args if a.dtype.kind == "f"]

    def f(*xs: Any) -> Any:
        rest = list(xs)
        return loss.f(*[rest.pop(0) if a.dtype.kind == "f" else a for a in loss.args])

    check_grads(f, tuple(floats), order=2)
    check_vmap(f, tuple(np.stack([a, 0.9 * a, a[::-1]]) for a in floats))
    shape, value = ff.eval_shape(loss.f, *loss.args), loss.f(*loss.args)
    assert (tuple(shape.shape), shape.dtype) == (value.shape, value.dtype)


@pytest.mark.parametrize("native", [False, True])
@every
def test_programs_give_the_same_on_both_executors(name: str, native: bool) -> None:
    loss = CASES[name]

    def both(*args: Any) -> Any:
        return loss.f(*args), gradients(loss, args)

    with config.override(use_native=native):
        for dtype in (np.float64, np.float32):
            args = in_dtype(loss.args, dtype)
            agree(ff.jit(both)(*args), both(*args))


# -- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e4, 1e-30, 0.0])
@pytest.mark.parametrize("name", [n for n, loss in CASES.items() if loss.args[0] is X and "poisson" not in n])
def test_huge_tiny_and_zero_predictions_have_finite_gradients(name: str, scale: float) -> None:
    loss = CASES[name]
    args = in_dtype((X * scale, *[a * scale if a is Y or a is Z else a for a in loss.args[1:]]), np.float32)
    assert np.all(np.isfinite(loss.f(*args)))
    assert all(np.all(np.isfinite(g)) for g in gradients(loss, args))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_focal_losses_of_certain_answers_are_finite(gamma: float, dtype: Any) -> None:
    logits = np.array([[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]], dtype)
    right = np.array([0, 0, 1])
    bits = np.array([[1, 0], [1, 0], [0, 1]])
    for loss in (
        lambda x: losses.sigmoid_focal_loss(x, bits, gamma=gamma),
        lambda x: losses.softmax_focal_loss(x, bits, gamma=gamma),
        lambda x: losses.softmax_focal_loss_with_integer_labels(x, right, gamma=gamma),
    ):
        values, grads = loss(logits), ff.grad(lambda x: np.sum(loss(x)))(logits)  # noqa: B023
        assert np.all(np.isfinite(values)) and np.all(np.isfinite(grads))
        np.testing.assert_allclose(np.sum(values[:2]), 2e4)


def test_without_focus_a_focal_loss_is_the_cross_entropy() -> None:
    one_hot = np.eye(3)[LABELS]
    plain = losses.softmax_cross_entropy_with_integer_labels(X, LABELS)
    np.testing.assert_allclose(losses.softmax_focal_loss(X, one_hot, gamma=0.0), plain)
    focal = losses.softmax_focal_loss_with_integer_labels(X, LABELS, ignore_index=1)
    np.testing.assert_allclose(losses.softmax_focal_loss(X, one_hot)[LABELS != 1], focal[LABELS != 1])
    np.testing.assert_array_equal(focal[LABELS == 1], 0.0)
    np.testing.assert_allclose(
        losses.sigmoid_focal_loss(X, BITS, gamma=0.0), losses.sigmoid_binary_cross_entropy(X, BITS)
    )


def test_vectors_without_direction_or_distance_have_gradient_zero() -> None:
    x, y = np.zeros((2, 3)), np.ones((2, 3))
    assert np.array_equal(losses.cosine_similarity(x, y), [0.0, 0.0])
    signs = np.array([1, -1])
    for f in (
        lambda x: losses.cosine_similarity(x, y),
        lambda x: losses.cosine_embedding_loss(x, y, signs, margin=-1.0),
        lambda x: losses.contrastive_loss(x, 0 * y, signs > 0),
        lambda x: losses.triplet_margin_loss(x, 0 * y, 0 * y, eps=0.0),
    ):
        np.testing.assert_array_equal(ff.grad(lambda x: np.sum(f(x)))(x), 0.0)  # noqa: B023
    with np.errstate(all="raise"):
        np.testing.assert_allclose(losses.cosine_similarity(np.float32(1e30) * y.astype(np.float32), y), 1.0, 1e-6)


@given(st.floats(-1, 3), st.floats(0.01, 4))
def test_contrastive_pairs_want_their_margin(margin: float, distance: float) -> None:
    x, y = np.zeros((2, 2)), np.array([[0.0, distance]] * 2)
    near, far = losses.contrastive_loss(x, y, np.array([1, 0]), margin=margin)
    np.testing.assert_allclose([near, far], [distance**2, max(0.0, margin - distance) ** 2], atol=1e-15)


def test_labels_may_be_traced_where_logits_are_not() -> None:
    f = ff.jit(lambda labels: losses.softmax_cross_entropy_with_integer_labels(X, labels, class_weights=WEIGHTS))
    np.testing.assert_allclose(
        f(LABELS), losses.softmax_cross_entropy_with_integer_labels(X, LABELS, class_weights=WEIGHTS), rtol=1e-12
    )


def test_regions() -> None:
    full, empty = np.ones((1, 4, 4)), np.zeros((1, 4, 4))
    for loss in (losses.dice_loss, losses.tversky_loss):
        assert loss(full, full, smooth=0.0) == loss(empty, empty, smooth=0.0) == loss(empty, empty) == 0.0
        assert loss(full, empty, smooth=0.0) == 1.0
        assert np.all(np.isfinite(ff.grad(lambda p: np.sum(loss(p, empty, smooth=0.0)))(empty)))  # noqa: B023
    images, masks = RNG.uniform(size=(2, 4, 4, 3)), RNG.integers(0, 2, (2, 4, 4, 3))
    by_class = losses.dice_loss(images, masks, axis=(1, 2))
    assert by_class.shape == (2, 3)
    np.testing.assert_allclose(by_class[1, 2], losses.dice_loss(images[1:, ..., 2], masks[1:, ..., 2])[0])
    np.testing.assert_allclose(
        losses.tversky_loss(images, masks, alpha=0.5, beta=0.5, smooth=0.5), losses.dice_loss(images, masks)
    )


def test_a_variance_of_zero_is_lifted_and_keeps_its_gradient() -> None:
    x, y, v = np.array([1.0, 1.0]), np.array([1.0, 2.0]), np.array([0.0, 1e-9])
    np.testing.assert_allclose(
        losses.gaussian_nll_loss(x, y, v, eps=1e-3), losses.gaussian_nll_loss(x, y, np.full(2, 1e-3))
    )
    grads = ff.grad(lambda v: np.sum(losses.gaussian_nll_loss(x, y, v, eps=1e-3)))(v)
    np.testing.assert_allclose(
        grads, ff.grad(lambda v: np.sum(losses.gaussian_nll_loss(x, y, v)))(np.full(2, 1e-3)), rtol=1e-12
    )


def test_a_log_target_of_minus_infinity_contributes_nothing() -> None:
    log_p = np.array([-np.inf, 0.0])
    value, grads = ff.value_and_grad(losses.kl_divergence_with_log_targets)(np.log([0.25, 0.75]), log_p)
    assert value == pytest.approx(-np.log(0.75))
    np.testing.assert_array_equal(grads, [0.0, -1.0])
    assert losses.kl_divergence_with_log_targets(np.array([-np.inf, 0.0]), log_p) == 0.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: losses.softmax_cross_entropy(X, SOFT, class_weights=[1.0]), ShapeError, "each of the 3 classes"),
        (lambda: losses.softmax_focal_loss(X, LABELS), ShapeError, "softmax_focal_loss_with_integer_labels"),
        (lambda: losses.softmax_focal_loss_with_integer_labels(X, LABELS + 2), ArgumentError, "from 0 to 2"),
        (lambda: losses.sigmoid_focal_loss(X, BITS, gamma=-1.0), ArgumentError, "gamma must be at least 0"),
        (lambda: losses.squared_hinge_loss(X, BITS), ArgumentError, r"squared_hinge_loss: .* 2 \* labels - 1"),
        (lambda: losses.smooth_l1_loss(X, Y, beta=0.0), ArgumentError, "for 0 write absolute_error"),
        (lambda: losses.gaussian_nll_loss(X, Y, POSITIVE[:, :2]), ShapeError, "variances must broadcast"),
        (lambda: losses.gaussian_nll_loss(X[:, 0], Y[:, 0], POSITIVE), ShapeError, "variances must broadcast"),
        (lambda: losses.gaussian_nll_loss(X, Y, -POSITIVE), ArgumentError, "must not be negative"),
        (lambda: losses.gaussian_nll_loss(X, Y, COUNTS), DtypeError, "variances must be floats"),
        (lambda: losses.cosine_embedding_loss(X, Y, BITS), ShapeError, r"one for each pair, \(6,\)"),
        (lambda: losses.cosine_embedding_loss(X, Y, LABELS), ArgumentError, "targets must be -1 or 1"),
        (lambda: losses.soft_margin_loss(X, BITS), ArgumentError, "soft_margin_loss: targets must be -1 or 1"),
        (lambda: losses.multi_margin_loss(X, LABELS, p=3), ArgumentError, "p must be 1 or 2, got 3"),
        (lambda: losses.multi_margin_loss(X, LABELS + 2), ArgumentError, "from 0 to 2"),
        (lambda: losses.margin_ranking_loss(X, Y, BITS), ArgumentError, "margin_ranking_loss: targets must be -1 or"),
        (lambda: losses.margin_ranking_loss(X, Y, SIGNS), ShapeError, r"targets must be one for each .*\(6, 3\)"),
        (lambda: losses.hinge_embedding_loss(X, BITS), ArgumentError, "hinge_embedding_loss: targets must be -1 or 1"),
        (lambda: losses.contrastive_loss(X, Y[:2], SIGNS), ShapeError, "embeddings and others"),
        (lambda: losses.contrastive_loss(X, Y, BITS), ShapeError, "similar must be one for each pair"),
        (lambda: losses.info_nce_loss(X[0], Y[0]), ShapeError, r"shape \(N, features\), got \(3,\)"),
        (lambda: losses.info_nce_loss(X, Y, temperature=0.0), ArgumentError, "temperature must be positive"),
        (lambda: losses.triplet_margin_loss(X, Y, Z[:2]), ShapeError, "anchors and negatives"),
        (lambda: losses.poisson_nll_loss(COUNTS, COUNTS), DtypeError, "predictions must be floats"),
        (lambda: losses.dice_loss(P, BITS[0]), ShapeError, "predictions and targets"),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
