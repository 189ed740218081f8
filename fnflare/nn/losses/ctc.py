"""Connectionist temporal classification: the loss of a sequence of labels whose places in time are not known.

Logits of all steps and the labels go in; the logarithms of the probabilities of all beginnings of the labels go from
step to step in one scan, in whose reverse pass the gradient arises; one number for each sequence comes out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import ops
from fnflare.core import is_tracer
from fnflare.errors import ArgumentError, DtypeError, ShapeError
from fnflare.nn.losses.checks import check_float
from fnflare.padded import Padded
from fnflare.transforms.loops import scan

__all__ = ["ctc_loss"]


def ctc_loss(
    logits: Any,
    labels: Any,
    logit_lengths: Any = None,
    label_lengths: Any = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
) -> Any:
    """The negative log-likelihood of labels under all ways to align them with the steps of longer sequences (Graves et
    al., 2006, "Connectionist temporal classification").

    Each step emits a class or the blank; a row of equal ones counts once, and blanks count nothing, so that equal
    labels in succession need a blank between. All is computed with logarithms, at the cost of one step of a loop for
    each step of the sequences.

    Args:
        logits: floats (N, T, classes), not normalised (logarithms of probabilities will do), or a `Padded` batch.
        labels: integers (N, S), or a `Padded` batch; what stands past a sequence's length is not looked at.
        logit_lengths: (N,), how many steps each sequence has, where the logits are no `Padded` batch; None for T.
        label_lengths: (N,), how many labels each sequence has, where they are no `Padded` batch; None for S.
        blank: the class of the blank.
        zero_infinity: whether sequences with fewer steps than their labels need have loss 0 in place of infinity.

    Returns:
        The losses (N,) in nats, in the dtype of the logits. The gradient of an infinite one is 0.

    Raises:
        ShapeError: the shapes do not fit.
        DtypeError: the logits are not floats, or the labels are not integers.
        ArgumentError: a label is the blank or out of range, a length is out of range, or lengths come twice.

    >>> steps = np.log([[[0.1, 0.9, 0.0 + 1e-9], [0.4, 0.5, 0.1]]])
    >>> np.exp(-ff.nn.ctc_loss(steps, np.array([[1]]))).round(3)  # 1 1, 1 blank or blank 1: 0.45 + 0.36 + 0.05
    array([0.86])
    """
    logits, logit_lengths = _with_lengths("logits", logits, logit_lengths, 3)
    labels, label_lengths = _with_lengths("labels", labels, label_lengths, 2)
    check_float("ctc_loss", "logits", logits)
    size, count = _check_labels(logits, labels, label_lengths, blank)
    if label_lengths is None:
        label_lengths = np.full(size, count)
    states = 2 * count + 1
    targets = _between_blanks(labels, label_lengths, blank)
    # Two labels may follow each other without a blank if they differ.
    two_before = np.concatenate([np.full((size, 2), blank), targets], axis=1)[:, :states]
    skips = np.logical_and(targets != two_before, targets != blank)
    log_p = np.take_along_axis(ops.log_softmax(logits, axis=-1), targets[:, None, :], axis=2)
    # Of what cannot be there is a large number and no infinity, whose differences would not be numbers.
    never = -0.1 * float(np.finfo(logits.dtype).max)
    nothing = np.full((size, 2), never, logits.dtype)

    def step(before: Any, inputs: Any) -> Any:
        emitted, running = inputs
        shifted = np.concatenate([nothing, before], axis=1)
        moved = np.where(skips, shifted[:, :states], never)
        after = emitted + np.logaddexp(np.logaddexp(before, shifted[:, 1 : states + 1]), moved)
        return (after if running is None else np.where(running[:, None], after, before)), None

    start = np.where(np.arange(states) == 0, np.zeros((size, 1), logits.dtype), never).astype(logits.dtype)
    running = None
    if logit_lengths is not None:
        running = np.arange(logits.shape[1])[:, None] < np.reshape(logit_lengths, (1, -1))
    last, _ = scan(step, start, (np.swapaxes(log_p, 0, 1), running))
    # A sequence ends with its last label or the blank behind it.
    ends = 2 * np.reshape(label_lengths, (-1, 1)) - np.arange(states)
    log_likelihood = ops.logsumexp(np.where(np.logical_or(ends == 0, ends == 1), last, never), axis=-1)
    return np.where(log_likelihood < 0.5 * never, 0.0 if zero_infinity else np.inf, -log_likelihood)


def _with_lengths(name: str, x: Any, lengths: Any, ndim: int) -> tuple[Any, Any]:
    """The array of an argument, and its lengths, None where all are whole."""
    if type(x) is Padded:
        if lengths is not None:
            raise ArgumentError(
                f"ctc_loss: {name} are a Padded batch, which has lengths; leave out {name[:-1]}_lengths"
            )
        x, lengths = x
    x = x if hasattr(x, "dtype") else np.asarray(x)
    wanted = "(N, T, classes)" if ndim == 3 else "(N, S)"
    if x.ndim != ndim:
        raise ShapeError(f"ctc_loss: {name} must have the shape {wanted}, got {x.shape}")
    if lengths is None:
        return x, None
    lengths = lengths if hasattr(lengths, "dtype") else np.asarray(lengths)
    if lengths.shape != x.shape[:1] or lengths.dtype.kind not in "iu":
        raise ShapeError(
            f"ctc_loss: lengths of {name} must be {x.shape[0]} integers, got {lengths.dtype} of shape {lengths.shape}"
        )
    if not is_tracer(lengths) and lengths.size and not 0 <= lengths.min() <= lengths.max() <= x.shape[1]:
        raise ArgumentError(
            f"ctc_loss: lengths of {name} must be from 0 to {x.shape[1]}, got {lengths.min()} to {lengths.max()}"
        )
    return x, lengths


def _check_labels(logits: Any, labels: Any, lengths: Any, blank: int) -> tuple[int, int]:
    """The number of sequences, and of labels of the longest."""
    size, count = labels.shape
    classes = logits.shape[2]
    if logits.shape[0] != size:
        raise ShapeError(f"ctc_loss: there are {logits.shape[0]} sequences of logits and {size} of labels")
    if labels.dtype.kind not in "iu":
        raise DtypeError(f"ctc_loss: labels must be integers, got {labels.dtype}")
    if not 0 <= blank < classes:
        raise ArgumentError(f"ctc_loss: blank must be from 0 to {classes - 1}, got {blank!r}")
    if is_tracer(labels) or is_tracer(lengths):
        return size, count
    used = labels if lengths is None else labels[np.arange(count) < np.reshape(lengths, (-1, 1))]
    if used.size and not (used.min() >= 0 and used.max() < classes and np.all(used != blank)):
        raise ArgumentError(
            f"ctc_loss: labels must be from 0 to {classes - 1} and not the blank, {blank}, "
            f"got {[int(n) for n in np.unique(used)]}"
        )
    return size, count


def _between_blanks(labels: Any, lengths: Any, blank: int) -> Any:
    """Labels with a blank before, between and behind them, (N, 2 S + 1)."""
    size, count = labels.shape
    real = np.arange(count) < np.reshape(lengths, (-1, 1))
    pairs = np.stack([np.full((size, count), blank), np.where(real, labels, blank)], axis=2)
    return np.concatenate([np.reshape(pairs, (size, 2 * count)), np.full((size, 1), blank)], axis=1)
