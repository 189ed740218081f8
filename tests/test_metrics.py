"""Metrics against counts made by a plain loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn import metrics

SCORES = {"precision": metrics.precision, "recall": metrics.recall, "f1": metrics.f1}


def counted(name: str, predicted: list[int], labels: list[int], c: int, zero: float) -> float:
    """The score of class c, by its definition."""
    right = sum(p == y == c for p, y in zip(predicted, labels, strict=True))
    precision = right / predicted.count(c) if predicted.count(c) else zero
    recall = right / labels.count(c) if labels.count(c) else zero
    if name != "f1":
        return precision if name == "precision" else recall
    either = predicted.count(c) + labels.count(c)
    return 2 * right / either if either else zero


examples = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30)


@pytest.mark.parametrize("name", SCORES)
@given(pairs=examples, zero=st.sampled_from([0.0, 1.0]))
def test_scores_are_what_their_definitions_count(name: str, pairs: list[tuple[int, int]], zero: float) -> None:
    predicted, labels = [p for p, _ in pairs], [y for _, y in pairs]
    by_class = [counted(name, predicted, labels, c, zero) for c in range(4)]
    seen = sorted({*predicted, *labels})
    macro = sum(by_class[c] for c in seen) / len(seen)
    weighted = sum(by_class[c] * labels.count(c) for c in range(4)) / len(labels)
    micro = sum(p == y for p, y in pairs) / len(pairs)

    def score(average: Any) -> Any:
        return SCORES[name](predicted, labels, average=average, num_classes=4, zero_division=zero)

    assert np.allclose(score(None), by_class, rtol=1e-12)
    assert score("macro") == pytest.approx(macro, rel=1e-12)
    assert score("weighted") == pytest.approx(weighted, rel=1e-12)
    assert score("micro") == pytest.approx(micro, rel=1e-12) == metrics.accuracy(predicted, labels)


@pytest.mark.parametrize("name", SCORES)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_binary_is_the_score_of_class_one(name: str, pairs: list[tuple[bool, bool]]) -> None:
    predicted, labels = [int(p) for p, _ in pairs], [int(y) for _, y in pairs]
    score = SCORES[name](np.array(predicted), np.array(labels, bool))
    assert score == pytest.approx(counted(name, predicted, labels, 1, 0.0))
    assert type(score) is float


@given(pairs=examples)
def test_confusion_matrix_counts_labels_by_row_and_predictions_by_column(pairs: list[tuple[int, int]]) -> None:
    matrix = metrics.confusion_matrix([p for p, _ in pairs], [y for _, y in pairs], num_classes=4)
    assert [[pairs.count((p, y)) for p in range(4)] for y in range(4)] == matrix.tolist()


def test_what_is_predicted_may_come_in_three_forms() -> None:
    labels = np.array([[0, 1], [1, 1]])
    scores = np.array([[[2.0, 1.0], [0.0, 3.0]], [[5.0, 4.0], [0.0, 0.1]]])
    classes = np.argmax(scores, -1)
    one_logit = scores[..., 1] - scores[..., 0]
    matrices = [metrics.confusion_matrix(given, labels) for given in (scores, classes, one_logit)]
    assert [m.tolist() for m in matrices] == [[[1, 0], [1, 2]]] * 3
    assert metrics.accuracy(scores, labels) == metrics.accuracy(one_logit, labels) == 0.75


def test_the_number_of_classes_is_that_of_the_scores() -> None:
    assert metrics.confusion_matrix(np.eye(5)[[0, 1]], [0, 1]).shape == (5, 5)
    assert metrics.confusion_matrix([0, 0], [0, 0]).shape == (2, 2)
    assert metrics.confusion_matrix([0, 6], [0, 3]).shape == (7, 7)


def test_ignored_examples_do_not_count() -> None:
    predicted, labels = np.array([[0, 1, 1], [0, 0, 0]]), np.array([[0, 1, -1], [1, -1, -1]])
    assert metrics.accuracy(predicted, labels, ignore_index=-1) == 2 / 3
    assert metrics.confusion_matrix(predicted, labels, ignore_index=-1).tolist() == [[1, 0], [1, 1]]
    assert metrics.recall(predicted, labels, ignore_index=-1) == 0.5
    assert metrics.top_k_accuracy(np.eye(2)[predicted], labels, k=1, ignore_index=-1) == 2 / 3


small_scores = st.lists(
    st.lists(st.sampled_from([0.0, 1.0, 2.0, float("nan")]), min_size=4, max_size=4), min_size=1, max_size=6
)


@given(scores=small_scores, data=st.data())
def test_top_k(scores: list[list[float]], data: st.DataObject) -> None:
    logits = np.array(scores)
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores))))
    assert metrics.top_k_accuracy(logits, labels, k=4) == 1.0
    values = [metrics.top_k_accuracy(logits, labels, k=k) for k in range(1, 5)]
    assert values == sorted(values)
    if np.all(np.isfinite(logits)):
        assert values[0] == metrics.accuracy(logits, labels)
        order = np.argsort(-logits, axis=1, kind="stable")
        expected = [np.mean([y in row[:k] for row, y in zip(order, labels, strict=True)]) for k in range(1, 5)]
        assert np.allclose(values, expected, rtol=1e-15)


def test_equal_scores_do_not_make_every_answer_right() -> None:
    assert metrics.top_k_accuracy(np.zeros((4, 4)), [0, 1, 2, 3], k=1) == 0.25
    assert metrics.top_k_accuracy(np.zeros((4, 4)), [0, 1, 2, 3], k=2) == 0.5
    assert metrics.top_k_accuracy(np.full((1, 4), np.nan), [3], k=2) == 0.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.accuracy([1, 2], [1, 2, 3]), ShapeError, r"labels of shape \(3,\); got int64 of shape \(2,\)"),
        (lambda: metrics.accuracy(np.zeros((2, 3)), np.zeros((2, 3, 1), int)), ShapeError, "classes"),
        (lambda: metrics.accuracy([0.0], [1.0]), DtypeError, "labels must be integers or booleans, got float64"),
        (lambda: metrics.accuracy([], np.zeros(0, int)), ArgumentError, "there are no examples"),
        (lambda: metrics.recall([1], [-1], ignore_index=-1), ArgumentError, "there are no examples"),
        (lambda: metrics.confusion_matrix([0, 5], [0, 1], num_classes=3), ArgumentError, "predictions must be from 0"),
        (lambda: metrics.confusion_matrix([0, 1], [0, -1]), ArgumentError, "labels must be from 0 to 1 .* got -1"),
        (lambda: metrics.precision([0, 2], [0, 1]), ArgumentError, "average='binary' is for 2 classes, got 3"),
        (lambda: metrics.f1([0], [0], average="mean"), ArgumentError, "must be 'binary', 'macro'"),
        (lambda: metrics.top_k_accuracy(np.zeros((1, 3)), [0], k=4), ArgumentError, "k must be from 1 to 3"),
        (lambda: metrics.top_k_accuracy(np.zeros((1, 3)), [3], k=1), ArgumentError, "labels must be from 0 to 2"),
        (lambda: metrics.top_k_accuracy([0.5], [1], k=1), ShapeError, r"scores of shape \(..., classes\)"),
    ],
)
def test_what_does_not_fit_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# --- area under the curve -------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 1)), min_size=2, max_size=20))
def test_the_area_counts_the_pairs_that_are_put_right(examples: list[tuple[int, int]]) -> None:
    scores, labels = np.array([s for s, _ in examples], float), np.array([y for _, y in examples])
    pairs = [(a, b) for a, x in examples for b, y in examples if x == 1 and y == 0]
    if not pairs:
        with pytest.raises(ArgumentError, match="one class"):
            metrics.roc_auc(scores, labels)
        return
    wanted = np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])
    assert metrics.roc_auc(scores, labels) == pytest.approx(wanted)
    assert metrics.roc_auc(np.exp(scores), labels.astype(bool)) == pytest.approx(wanted)
    assert metrics.roc_auc(-scores, 1 - labels) == pytest.approx(wanted)


def test_the_area_of_several_classes_is_the_mean_of_each_against_the_rest() -> None:
    scores, labels = np.random.default_rng(3).normal(size=(20, 4)), np.arange(20) % 3
    each = [metrics.roc_auc(scores[:, k], (labels == k).astype(int)) for k in range(3)]
    assert metrics.roc_auc(scores, labels) == pytest.approx(np.mean(each))
    ignored = np.where(labels == 2, -1, labels)
    assert metrics.roc_auc(scores[:, 1], ignored, ignore_index=-1) == metrics.roc_auc(
        scores[labels < 2, 1], labels[labels < 2]
    )


def test_the_area_needs_scores_and_labels_in_range() -> None:
    with pytest.raises(DtypeError, match="not predicted classes"):
        metrics.roc_auc([0, 1], [0, 1])
    with pytest.raises(ArgumentError, match="from 0 to 1 for 2 classes, got 2"):
        metrics.roc_auc([0.1, 0.2, 0.3], [0, 1, 2])
