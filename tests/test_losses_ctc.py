"""The CTC loss beside PyTorch's and beside a sum over all alignments; lengths that are traced; what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from drawing import Draws
from hypothesis import given
from hypothesis import strategies as st
from laws import agree, in_dtype

import fnflare as ff
from fnflare import config, nn
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn.losses import ctc_loss
from fnflare.testing import check_grads, check_vmap

RNG = Draws(0)
LOGITS = 2 * RNG.normal(size=(5, 9, 4))
# Labels that differ, that repeat, that are few or none, and that need every step there is.
LABELS = np.array([[1, 2, 3], [1, 1, 1], [2, 2, -7], [-7, -7, 99], [1, 2, 1]])
STEPS, COUNTS = np.array([9, 9, 7, 4, 3]), np.array([3, 3, 2, 0, 3])


def total(logits: Any, labels: Any = LABELS, steps: Any = STEPS, counts: Any = COUNTS) -> Any:
    return np.sum(ctc_loss(logits, labels, steps, counts))


def torchs(logits: np.ndarray, labels: Any, steps: Any, counts: Any, **settings: Any) -> tuple[np.ndarray, np.ndarray]:
    """PyTorch's losses, and the gradient of their sum in the logits."""
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle")
    x = torch.tensor(logits, requires_grad=True)
    used = np.clip(labels, 0, logits.shape[2] - 1)
    values = torch.nn.functional.ctc_loss(
        x.log_softmax(-1).transpose(0, 1),
        torch.tensor(used),
        torch.tensor(steps),
        torch.tensor(counts),
        reduction="none",
        **settings,
    )
    values.sum().backward()
    return values.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_and_gradients_are_pytorchs(dtype: Any) -> None:
    logits = LOGITS.astype(dtype)
    values, grads = torchs(logits, LABELS, STEPS, COUNTS)
    rtol, atol = (1e-5, 1e-5) if dtype == np.float32 else (1e-12, 1e-13)
    got = ctc_loss(logits, LABELS, STEPS, COUNTS)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, values, rtol=rtol)
    np.testing.assert_allclose(ff.grad(total)(logits), grads, rtol=rtol, atol=atol)


@pytest.mark.parametrize("zero_infinity", [False, True])
def test_sequences_that_are_too_short_for_their_labels(zero_infinity: bool) -> None:
    labels, steps, counts = np.array([[1, 1, 1], [1, 2, 3], [1, 2, 3]]), np.array([4, 2, 0]), np.array([3, 3, 3])
    logits = LOGITS[:3]
    values = ctc_loss(logits, labels, steps, counts, zero_infinity=zero_infinity)
    np.testing.assert_array_equal(values, 0.0 if zero_infinity else np.inf)
    grads = ff.grad(lambda x: np.sum(ctc_loss(x, labels, steps, counts, zero_infinity=zero_infinity)))(logits)
    np.testing.assert_array_equal(grads, 0.0)
    if zero_infinity:  # PyTorch's gradient of an infinite loss is nan
        theirs = torchs(logits[:2], labels[:2], steps[:2], counts[:2], zero_infinity=True)
        np.testing.assert_array_equal(theirs[0], values[:2])
        np.testing.assert_array_equal(theirs[1], grads[:2])


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    """What a row of classes says: equal neighbours count once, and blanks not at all."""
    return tuple(c for c, _ in itertools.groupby(path) if c != 0)


@given(st.lists(st.integers(1, 2), max_size=3), st.integers(0, 5), st.integers(0, 10))
def test_it_is_the_sum_over_all_alignments(labels: list[int], steps: int, seed: int) -> None:
    p = np.random.default_rng(seed).dirichlet(np.ones(3), 5)
    paths = itertools.product(range(3), repeat=steps)
    wanted = sum(np.prod([p[t, c] for t, c in enumerate(path)]) for path in paths if collapsed(path) == tuple(labels))
    padded = np.array([labels + [9] * (3 - len(labels))])
    loss = ctc_loss(np.log(p)[None], padded, np.array([steps]), np.array([len(labels)]))
    np.testing.assert_allclose(np.exp(-loss), [wanted], rtol=1e-12)


def test_derivatives_of_both_modes_and_orders() -> None:
    check_grads(lambda x: ctc_loss(x, LABELS[:3, :2], None, np.array([2, 2, 1])), (LOGITS[:3, :5],), order=2)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_programs_in_which_labels_and_lengths_are_traced(native: bool, dtype: Any) -> None:
    def f(logits: Any, labels: Any, steps: Any, counts: Any) -> Any:
        return ctc_loss(logits, labels, steps, counts), ff.grad(total)(logits, labels, steps, counts)

    args = in_dtype((LOGITS, LABELS, STEPS, COUNTS), dtype)
    with config.override(use_native=native):
        agree(ff.jit(f)(*args), f(*args))


def test_batches_of_batches_also_of_lengths() -> None:
    check_vmap(lambda x: ctc_loss(x, LABELS, STEPS, COUNTS), (np.stack([LOGITS, LOGITS[::-1]]),))

    def one(x: Any, labels: Any, steps: Any, counts: Any) -> Any:
        return ctc_loss(x[None], labels[None], steps[None], counts[None])[0]

    got = ff.vmap(ff.value_and_grad(one))(LOGITS, LABELS, STEPS, COUNTS)
    agree(got, (ctc_loss(LOGITS, LABELS, STEPS, COUNTS), ff.grad(total)(LOGITS)))


def test_padded_batches_have_the_lengths() -> None:
    wanted = ctc_loss(LOGITS, LABELS, STEPS, COUNTS)
    np.testing.assert_array_equal(ctc_loss(nn.Padded(LOGITS, STEPS), nn.Padded(LABELS, COUNTS)), wanted)
    np.testing.assert_array_equal(ctc_loss(nn.Padded(LOGITS, STEPS), LABELS, label_lengths=COUNTS), wanted)
    whole = ctc_loss(LOGITS, np.array([[1, 2]] * 5))
    np.testing.assert_array_equal(ctc_loss(LOGITS, [[1, 2]] * 5, [9] * 5, [2] * 5), whole)


def test_another_blank_is_another_order_of_the_classes() -> None:
    moved = np.concatenate([LOGITS[..., 1:], LOGITS[..., :1]], axis=-1)
    np.testing.assert_allclose(
        ctc_loss(moved, LABELS - 1, STEPS, COUNTS, blank=3), ctc_loss(LOGITS, LABELS, STEPS, COUNTS), rtol=1e-12
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_long_sequences_and_huge_logits_stay_finite(dtype: Any) -> None:
    logits = np.concatenate([RNG.normal(size=(2, 500, 4)) * 5, np.full((2, 10, 4), -1e4)], axis=1).astype(dtype)
    logits[:, ::7, 2] = 1e4
    loss, grads = ff.value_and_grad(lambda x: np.sum(ctc_loss(x, LABELS[:2])))(logits)
    assert np.isfinite(loss) and np.all(np.isfinite(grads))
    ruled_out = np.where(np.arange(4) == 3, -np.inf, LOGITS[1:2])
    value, grads = ff.value_and_grad(lambda x: np.sum(ctc_loss(x, LABELS[1:2])))(ruled_out)
    np.testing.assert_allclose(value, ctc_loss(LOGITS[1:2, :, :3], LABELS[1:2]).sum())
    assert np.all(np.isfinite(grads))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ctc_loss(LOGITS[0], LABELS), ShapeError, r"logits must have the shape \(N, T, classes\)"),
        (lambda: ctc_loss(LOGITS, LABELS[0]), ShapeError, r"labels must have the shape \(N, S\), got \(3,\)"),
        (lambda: ctc_loss(LOGITS[:2], LABELS[:3], None, COUNTS[:3]), ShapeError, "2 sequences of logits and 3"),
        (lambda: ctc_loss(LOGITS, LABELS, STEPS[:2]), ShapeError, "lengths of logits must be 5 integers"),
        (lambda: ctc_loss(LOGITS, LABELS, STEPS + 1), ArgumentError, "from 0 to 9, got 4 to 10"),
        (lambda: ctc_loss(LOGITS, LABELS), ArgumentError, "not the blank, 0, got"),
        (lambda: ctc_loss(LOGITS, LABELS * 0), ArgumentError, "not the blank"),
        (lambda: ctc_loss(LOGITS, LABELS + 0.5), DtypeError, "labels must be integers, got float64"),
        (lambda: ctc_loss(LABELS[:, :, None], LABELS), DtypeError, "logits must be floats"),
        (lambda: ctc_loss(LOGITS, LABELS, STEPS, COUNTS, blank=4), ArgumentError, "blank must be from 0 to 3"),
        (lambda: ctc_loss(nn.Padded(LOGITS, STEPS), LABELS, STEPS), ArgumentError, "leave out logit_lengths"),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
