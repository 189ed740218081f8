"""Padded batches: what `pad` lays out and what `Padded.mask` says of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fnflare as ff
from fnflare import tree
from fnflare.errors import ArgumentError, ConcretizationError, ShapeError
from fnflare.padded import Padded, pad, unpad

SEQUENCES = st.lists(hnp.arrays(np.int32, st.tuples(st.integers(0, 9)), elements=st.integers(-5, 5)), min_size=1)


@given(SEQUENCES, st.integers(1, 5))
def test_pad_keeps_every_sequence_and_fills_the_rest(sequences, multiple):
    values, lengths = pad(sequences, value=77, multiple_of=multiple)
    assert values.dtype == np.int32 or not any(map(len, sequences))
    assert values.shape[1] % multiple == 0
    assert values.shape[1] - max(map(len, sequences)) < multiple
    for row, n, sequence in zip(values, lengths, sequences, strict=True):
        np.testing.assert_array_equal(row[:n], sequence)
        assert np.all(row[n:] == 77)


@given(SEQUENCES)
def test_unpad_gives_back_every_sequence(sequences):
    for got, sequence in zip(unpad(pad(sequences, value=77)), sequences, strict=True):
        np.testing.assert_array_equal(got, sequence)


def test_unpadded_sequences_are_differentiated_and_need_lengths_with_values():
    batch = pad([[1.0, 2.0], [3.0]])
    grads = ff.grad(lambda values: sum(np.sum(x * x) for x in unpad(Padded(values, batch.lengths))))(batch.values)
    np.testing.assert_array_equal(grads, [[2.0, 4.0], [6.0, 0.0]])
    with pytest.raises(ConcretizationError, match=r"unpad: .* call it outside, or work on the whole batch"):
        ff.jit(unpad)(batch)


@given(SEQUENCES)
def test_mask_counts_the_lengths(sequences):
    batch = pad(sequences)
    mask = batch.mask()
    assert mask.dtype == bool
    assert mask.shape == batch.values.shape[:2]
    np.testing.assert_array_equal(mask.sum(axis=1), batch.lengths)
    assert np.all(np.diff(mask.astype(int), axis=1) <= 0)


def test_pad_keeps_features_and_dtype():
    batch = pad([np.ones((2, 3), np.float32), np.ones((4, 3), np.float32), np.ones((0, 3), np.float32)])
    assert batch.values.shape == (3, 4, 3)
    assert batch.values.dtype == np.float32
    assert batch.lengths.dtype == np.int64
    assert batch.lengths.tolist() == [2, 4, 0]


def test_empty_list_takes_the_dtype_and_features_of_its_neighbours():
    assert pad([[], [1, 2]]).values.dtype == np.dtype(int)
    assert pad([[], np.ones((2, 3), np.float16)]).values.shape == (2, 2, 3)


def test_dtype_may_be_given():
    assert pad([[1], [2, 3]], dtype=np.float32).values.dtype == np.float32


def test_padded_is_a_pytree():
    batch = tree.map(lambda x: x + 1, pad([[1, 2], [3]]))
    assert isinstance(batch, Padded)
    assert batch.lengths.tolist() == [3, 2]


def test_pad_refuses_what_cannot_be_stacked():
    with pytest.raises(ArgumentError, match="at least one"):
        pad([])
    with pytest.raises(ArgumentError, match="multiple_of"):
        pad([[1]], multiple_of=0)
    with pytest.raises(ShapeError, match=r"sequence 1 has shape \(2, 4\)"):
        pad([np.ones((2, 3)), np.ones((2, 4))])
    with pytest.raises(ShapeError, match="sequence 0"):
        pad([3, [1]])
