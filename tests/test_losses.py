"""Losses against their definitions, PyTorch and finite differences; stability in the tails; what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drawing import Draws
from hypothesis import given
from hypothesis import strategies as st

import fnflare as ff
from fnflare import nn, ops
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn import losses
from fnflare.padded import Padded

RNG = Draws(0)
LOGITS = RNG.normal(size=(4, 3, 5)) * 3
LABELS = RNG.integers(0, 5, (4, 3))
SOFT = RNG.dirichlet(np.ones(5), (4, 3))
SCORES, TARGETS = RNG.normal(size=(6, 2)) * 3, RNG.normal(size=(6, 2))
BITS = RNG.integers(0, 2, (6, 2))

# Each loss with what it predicts from and what it is compared with.
CASES: dict[str, tuple[Callable[..., Any], np.ndarray, np.ndarray]] = {
    "softmax": (losses.softmax_cross_entropy, LOGITS, SOFT),
    "softmax smoothed": (lambda x, y: losses.softmax_cross_entropy(x, y, label_smoothing=0.2), LOGITS, SOFT),
    "integer": (losses.softmax_cross_entropy_with_integer_labels, LOGITS, LABELS),
    "integer smoothed and ignored": (
        lambda x, y: losses.softmax_cross_entropy_with_integer_labels(x, y, label_smoothing=0.2, ignore_index=2),
        LOGITS,
        LABELS,
    ),
    "sigmoid": (losses.sigmoid_binary_cross_entropy, SCORES, BITS),
    "sigmoid soft": (losses.sigmoid_binary_cross_entropy, SCORES, np.abs(np.tanh(TARGETS))),
    "squared": (losses.squared_error, SCORES, TARGETS),
    "absolute": (losses.absolute_error, SCORES, TARGETS),
    "huber": (losses.huber_loss, SCORES, TARGETS),
    "huber delta": (lambda x, y: losses.huber_loss(x, y, delta=0.3), SCORES, TARGETS),
    "hinge": (losses.hinge_loss, SCORES, 2 * BITS - 1),
    "kl": (lambda x, y: losses.kl_divergence(ops.log_softmax(x, axis=-1), y), LOGITS, SOFT),
}
every_case = pytest.mark.parametrize("name", CASES)


def numerical(f: Callable[[np.ndarray], Any], x: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    bumps = (eps * np.eye(x.size)).reshape(x.size, *x.shape)
    return np.reshape([(f(x + e) - f(x - e)) / (2 * eps) for e in bumps], x.shape)


@every_case
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    loss, predicted, wanted = CASES[name]

    def total(x: Any) -> Any:
        return np.sum(loss(x, wanted))

    assert np.allclose(ff.grad(total)(predicted), numerical(total, predicted), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["softmax", "softmax smoothed", "sigmoid soft", "squared", "huber", "kl"])
def test_soft_labels_have_gradients_too(name: str) -> None:
    loss, predicted, wanted = CASES[name]

    def total(y: Any) -> Any:
        return np.sum(loss(predicted, y))

    assert np.allclose(ff.grad(total)(wanted), numerical(total, wanted), rtol=1e-6, atol=1e-8)


@every_case
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_is_reduced_over_the_batch_and_the_dtype_is_kept(name: str, dtype: Any) -> None:
    loss, predicted, wanted = CASES[name]
    values = loss(predicted.astype(dtype), wanted)
    assert values.shape == (predicted.shape[:-1] if predicted is LOGITS else predicted.shape)
    assert values.dtype == dtype
    assert np.all(values >= 0)
    grads = ff.grad(lambda x: np.sum(loss(x, wanted)))(predicted.astype(dtype))
    assert grads.dtype == dtype
    assert np.allclose(values, loss(predicted, wanted), rtol=2e-5, atol=2e-6)


@every_case
def test_abstract_evaluation_tells_the_shape(name: str) -> None:
    loss, predicted, wanted = CASES[name]
    shape = ff.eval_shape(loss, predicted, wanted)
    value = loss(predicted, wanted)
    assert (tuple(shape.shape), shape.dtype) == (value.shape, value.dtype)


TORCH: dict[str, Callable[[Any, Any, Any], Any]] = {
    "softmax": lambda f, x, y: f.cross_entropy(x.movedim(-1, 1), y.movedim(-1, 1), reduction="none"),
    "softmax smoothed": lambda f, x, y: f.cross_entropy(
        x.movedim(-1, 1), y.movedim(-1, 1), reduction="none", label_smoothing=0.2
    ),
    "integer": lambda f, x, y: f.cross_entropy(x.movedim(-1, 1), y, reduction="none"),
    "integer smoothed and ignored": lambda f, x, y: f.cross_entropy(
        x.movedim(-1, 1), y, reduction="none", label_smoothing=0.2, ignore_index=2
    ),
    "sigmoid": lambda f, x, y: f.binary_cross_entropy_with_logits(x, y.double(), reduction="none"),
    "sigmoid soft": lambda f, x, y: f.binary_cross_entropy_with_logits(x, y, reduction="none"),
    "squared": lambda f, x, y: f.mse_loss(x, y, reduction="none"),
    "absolute": lambda f, x, y: f.l1_loss(x, y, reduction="none"),
    "huber": lambda f, x, y: f.huber_loss(x, y, reduction="none"),
    "huber delta": lambda f, x, y: f.huber_loss(x, y, delta=0.3, reduction="none"),
    "kl": lambda f, x, y: f.kl_div(x.log_softmax(-1), y, reduction="none").sum(-1),
}


@pytest.mark.parametrize("name", TORCH)
def test_agrees_with_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch", reason="the oracle is PyTorch")
    loss, predicted, wanted = CASES[name]
    x = torch.tensor(predicted, requires_grad=True)
    theirs = TORCH[name](torch.nn.functional, x, torch.tensor(wanted))
    theirs.sum().backward()
    value, grads = ff.value_and_grad(lambda x: np.sum(loss(x, wanted)))(predicted)
    assert np.allclose(loss(predicted, wanted), theirs.detach().numpy(), rtol=1e-12, atol=1e-14)
    assert value == pytest.approx(theirs.sum().item(), rel=1e-12)
    assert np.allclose(grads, x.grad.numpy(), rtol=1e-12, atol=1e-14)


# --- definitions and tails ------------------------------------------------------------------------------------------


def test_integer_labels_are_one_hot_labels() -> None:
    dense = losses.softmax_cross_entropy(LOGITS, np.eye(5)[LABELS], label_smoothing=0.1)
    assert np.allclose(
        losses.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS, label_smoothing=0.1), dense, rtol=1e-13
    )


@given(st.floats(-1e4, 1e4), st.integers(0, 4))
def test_cross_entropy_does_not_see_a_shift_of_the_logits(shift: float, label: int) -> None:
    row = np.array([0.0, 1.0, -2.0, 0.5, 3.0])
    value = losses.softmax_cross_entropy_with_integer_labels(row + shift, np.int64(label))
    assert value == pytest.approx(losses.softmax_cross_entropy_with_integer_labels(row, label), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_stay_finite(dtype: Any) -> None:
    logits = np.array([[1e4, -1e4, 0.0], [-1e30, 1e30, 0.0]], dtype)
    assert np.allclose(losses.softmax_cross_entropy_with_integer_labels(logits, np.array([0, 1])), 0)
    assert np.allclose(losses.softmax_cross_entropy(logits[:1], np.array([[0, 1, 0]])), 2e4)
    assert np.array_equal(losses.sigmoid_binary_cross_entropy(logits[0], np.array([1, 0, 1]))[:2], [0, 0])
    assert np.allclose(losses.sigmoid_binary_cross_entropy(logits[0, :2], np.array([0, 1])), 1e4)


def test_the_small_loss_of_a_right_answer_is_exact() -> None:
    x = np.float32([20, -20, 50])
    expected = np.log1p(np.exp([-20.0, -20.0, -50.0]))
    assert np.allclose(losses.sigmoid_binary_cross_entropy(x, np.array([1, 0, 1])), expected, rtol=1e-6, atol=0)


def test_a_class_ruled_out_by_minus_infinity() -> None:
    logits, labels = np.array([[-np.inf, 0.0, 0.0]]), np.array([1])
    value, grads = ff.value_and_grad(lambda x: np.sum(losses.softmax_cross_entropy_with_integer_labels(x, labels)))(
        logits
    )
    assert value == pytest.approx(np.log(2))
    assert np.allclose(grads, [[0, -0.5, 0.5]])


def test_ignored_examples_have_no_loss_and_no_gradient() -> None:
    labels = np.array([0, -100, 2])
    logits = RNG.normal(size=(3, 3))

    def total(x: Any) -> Any:
        return np.sum(
            losses.softmax_cross_entropy_with_integer_labels(x, labels, ignore_index=-100, label_smoothing=0.1)
        )

    grads = ff.grad(total)(logits)
    assert np.array_equal(grads[1], np.zeros(3))
    assert np.all(grads[[0, 2]] != 0)
    kept = losses.softmax_cross_entropy_with_integer_labels(logits[[0, 2]], labels[[0, 2]], label_smoothing=0.1)
    assert total(logits) == pytest.approx(kept.sum())


def test_kl_of_a_distribution_from_itself_is_zero() -> None:
    assert np.allclose(losses.kl_divergence(np.log(SOFT), SOFT), 0, atol=1e-15)
    certain = np.array([0.0, 1.0])
    value, grads = ff.value_and_grad(losses.kl_divergence)(np.array([-np.inf, 0.0]), certain)
    assert value == 0
    assert np.array_equal(grads, [0.0, -1.0])
    assert losses.kl_divergence(np.log([0.25, 0.75]), certain) == pytest.approx(-np.log(0.75))


def test_lists_and_numbers_are_taken() -> None:
    assert losses.squared_error(2.0, 5) == 9.0
    assert np.allclose(losses.softmax_cross_entropy_with_integer_labels([[0.0, 0.0]], [1]), np.log(2))


# --- what they refuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: losses.softmax_cross_entropy(LOGITS, LABELS), ShapeError, "softmax_cross_entropy_with_integer_labels"),
        (lambda: losses.softmax_cross_entropy_with_integer_labels(LOGITS, SOFT), DtypeError, "labels must be integers"),
        (
            lambda: losses.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS[:2]),
            ShapeError,
            r"got logits \(4, 3, 5\) and labels \(2, 3\)",
        ),
        (
            lambda: losses.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS + 1),
            ArgumentError,
            "labels must be from 0 to 4 for logits of 5 classes, got 5",
        ),
        (
            lambda: losses.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS - 1),
            ArgumentError,
            "got -1; pass ignore_index=",
        ),
        (lambda: losses.softmax_cross_entropy_with_integer_labels(LOGITS[0, 0], np.int64(5)), ArgumentError, "got 5"),
        (
            lambda: losses.softmax_cross_entropy_with_integer_labels(LOGITS, LABELS - 1, ignore_index=-2),
            ArgumentError,
            "or ignore_index=-2, got -1",
        ),
        (lambda: losses.softmax_cross_entropy(LOGITS, SOFT, label_smoothing=1.0), ArgumentError, "label_smoothing"),
        (lambda: losses.softmax_cross_entropy(LABELS, LABELS), DtypeError, r"logits\.astype\(np\.float32\)"),
        (lambda: losses.sigmoid_binary_cross_entropy(SCORES, BITS[:, :1]), ShapeError, r"\(6, 2\) and \(6, 1\)"),
        (lambda: losses.squared_error(SCORES, TARGETS[:, 0]), ShapeError, "nothing is broadcast"),
        (lambda: losses.absolute_error(SCORES, 1.0), ShapeError, "predictions and targets"),
        (lambda: losses.huber_loss(BITS, TARGETS), DtypeError, "predictions must be floats, got int64"),
        (lambda: losses.huber_loss(SCORES, TARGETS, delta=0.0), ArgumentError, "delta must be positive"),
        (lambda: losses.hinge_loss(SCORES, BITS), ArgumentError, r"2 \* labels - 1"),
        (lambda: losses.kl_divergence(LOGITS, LABELS), ShapeError, "log_predictions and targets"),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_labels_are_checked_under_a_transform_too() -> None:
    with pytest.raises(ArgumentError, match="got 7"):
        ff.grad(lambda x: np.sum(losses.softmax_cross_entropy_with_integer_labels(x, LABELS * 0 + 7)))(LOGITS)


def test_a_padded_batch_is_refused_with_advice() -> None:
    logits = Padded(np.zeros((2, 3, 4), np.float32), np.array([3, 1]))
    labels = Padded(np.zeros((2, 3), np.int64), np.array([3, 1]))
    with pytest.raises(ArgumentError, match=r"\.values"):
        nn.softmax_cross_entropy_with_integer_labels(logits, labels)
