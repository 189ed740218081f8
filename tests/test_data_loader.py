"""The laws of the DataLoader: each example once, the key decides, resuming changes nothing, padding is right."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnflare import random, tree
from fnflare.data import DataLoader, parse_tree
from fnflare.data.prefetch import prefetch
from fnflare.errors import ArgumentError, ShapeError
from fnflare.io import load, save
from fnflare.padded import Padded


def make_data(lengths):
    """One example for each length: its number, and a sequence that tells the number."""
    return {"id": np.arange(len(lengths)), "seq": [np.full(n, i, np.int32) for i, n in enumerate(lengths)]}


LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=40)
ORDERS = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 9),
        "key": st.none() | st.integers(0, 9).map(random.key),
        "prefetch": st.sampled_from([0, 0, 1, 3]),
    },
).flatmap(
    lambda common: st.one_of(
        st.just({}),
        st.fixed_dictionaries({"bucket": st.integers(1, 4)}),
        st.fixed_dictionaries({"borders": st.lists(st.integers(0, 12), unique=True).map(sorted)}),
    ).map(lambda extra: common | extra)
)


def ids_of(batches):
    return [batch["id"].tolist() for batch in batches]


@given(LENGTHS, ORDERS)
def test_each_example_comes_once_an_epoch_with_its_own_sequence(lengths, order):
    loader = DataLoader(make_data(lengths), **order)
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader)
        assert sorted(i for ids in ids_of(batches) for i in ids) == list(range(len(lengths)))
        for batch in batches:
            assert len(batch["id"]) <= order["batch_size"]
            assert isinstance(batch["seq"], Padded)
            assert batch["seq"].values.dtype == np.int32
            assert batch["seq"].lengths.tolist() == [lengths[i] for i in batch["id"]]
            assert batch["seq"].values.shape[1] == batch["seq"].lengths.max()
            expected = np.where(batch["seq"].mask(), batch["id"][:, None], 0)
            np.testing.assert_array_equal(batch["seq"].values, expected)


@given(LENGTHS, ORDERS)
def test_drop_last_keeps_whole_batches_alone(lengths, order):
    try:
        loader = DataLoader(make_data(lengths), drop_last=True, **order)
    except ArgumentError:
        whole = DataLoader(make_data(lengths), **order)
        assert all(len(ids) < order["batch_size"] for ids in ids_of(whole))
        return
    batches = ids_of(loader)
    assert len(batches) == len(loader)
    assert all(len(ids) == order["batch_size"] for ids in batches)
    assert len({i for ids in batches for i in ids}) == order["batch_size"] * len(loader)


@given(LENGTHS, ORDERS)
def test_same_key_same_order_prefetched_or_not(lengths, order):
    first = DataLoader(make_data(lengths), **order)
    second = DataLoader(make_data(lengths), **(order | {"prefetch": 2}))
    for _ in range(2):
        assert ids_of(first) == ids_of(second)


def test_epochs_and_keys_differ_and_no_key_keeps_the_order():
    data = make_data([3] * 40)
    loader = DataLoader(data, 7, key=random.key(0))
    first, second = ids_of(loader), ids_of(loader)
    assert first != second
    assert first != ids_of(DataLoader(data, 7, key=random.key(1)))
    assert ids_of(DataLoader(data, 40)) == [list(range(40))]
    assert ids_of(DataLoader(data, 40, key=random.key(0))) == [
        random.permutation(random.fold_in(random.key(0), 0), 40).tolist()
    ]


# ---------------------------------------------------------------- resuming


@given(LENGTHS, ORDERS, st.integers(0, 30))
def test_resumed_run_is_the_uninterrupted_run(lengths, order, stop):
    whole = [batch for loader in [DataLoader(make_data(lengths), **order)] for _ in range(3) for batch in loader]
    loader = DataLoader(make_data(lengths), **order)
    stop = min(stop, 2 * len(loader))
    state, seen = loader.state(), []
    while len(seen) < stop:
        for batch in loader:
            seen.append(batch)
            state = loader.state()
            if len(seen) == stop:
                break
    resumed = DataLoader(make_data(lengths), **order)
    resumed.restore(state)
    while len(seen) < len(whole):
        seen.extend(resumed)
    assert tree.equal(seen, whole)


def test_state_counts_what_was_handed_out_not_what_was_prefetched():
    loader = DataLoader(make_data([1] * 10), 2, prefetch=4)
    for number, _ in enumerate(loader, 1):
        assert loader.state() == {"epoch": 0, "batch": number, "examples": 10, "batch_size": 2}
    assert loader.state()["epoch"] == loader.epoch == 1
    assert loader.state()["batch"] == 0


def test_state_after_the_last_batch_leaves_the_rest_of_the_epoch_to_do():
    loader = DataLoader(make_data([1] * 4), 2)
    states = [loader.state() for _ in loader]
    loader.restore(states[-1])
    assert (loader.epoch, list(loader), loader.epoch) == (0, [], 1)
    assert len(list(loader)) == 2


def test_epoch_left_early_starts_over_unless_restored():
    data = make_data([1] * 20)
    loader = DataLoader(data, 4, key=random.key(3))
    whole = ids_of(DataLoader(data, 4, key=random.key(3)))
    next(iter(loader))
    state = loader.state()
    assert ids_of(loader) == whole
    loader.restore(state)
    assert ids_of(loader) == whole[1:]


def test_state_goes_through_a_file(tmp_path):
    loader = DataLoader(make_data([1] * 9), 2, key=random.key(3))
    batches = iter(loader)
    next(batches)
    save(tmp_path / "state.npz", loader.state())
    rest = ids_of(batches)
    other = DataLoader(make_data([1] * 9), 2, key=random.key(3))
    other.restore(load(tmp_path / "state.npz"))
    assert ids_of(other) == rest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples": 8}, "examples 8, this one has 9"),
        ({"batch_size": 3}, "batch_size 3, this one has 2"),
        ({"epoch": -1}, "out of range"),
        ({"batch": 6}, "an epoch has 5 batches"),
        ({"spam": 1}, "expected a dict of epoch, batch"),
    ],
)
def test_state_of_another_loader_is_refused(change, message):
    loader = DataLoader(make_data([1] * 9), 2)
    with pytest.raises(ArgumentError, match=message):
        loader.restore(loader.state() | change)
    assert loader.state() == {"epoch": 0, "batch": 0, "examples": 9, "batch_size": 2}


# ---------------------------------------------------------------- buckets


def padding_of(loader):
    return sum(int((~batch["seq"].mask()).sum()) for batch in loader)


@pytest.mark.parametrize("extra", [{"bucket": 8}, {"borders": [5, 10, 20, 40]}])
def test_bucketing_reduces_padding(extra):
    lengths = np.random.default_rng(0).geometric(0.07, size=400)
    plain = padding_of(DataLoader(make_data(lengths), 10, key=random.key(1)))
    assert padding_of(DataLoader(make_data(lengths), 10, key=random.key(1), **extra)) < plain / 3


def test_bucketed_batches_are_mixed_by_the_key_and_sorted_without():
    lengths = np.random.default_rng(0).permutation(64)
    longest = [b["seq"].lengths.max() for b in DataLoader(make_data(lengths), 4, bucket=99, key=random.key(0))]
    assert longest != sorted(longest)
    assert sorted(longest) == list(range(3, 64, 4))
    longest = [b["seq"].lengths.max() for b in DataLoader(make_data(lengths), 4, bucket=99)]
    assert longest == sorted(longest)


def test_no_batch_mixes_lengths_over_a_border():
    lengths = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    batches = [set(b["seq"].lengths.tolist()) for b in DataLoader(make_data(lengths), 3, borders=[3, 8])]
    assert batches == [{1, 2}, {3, 4, 5}, {6, 7}, {8, 9}]


def test_trees_are_bucketed_by_lengths_that_are_given():
    trees = [parse_tree(t) for t in ("(1 (1 a) (1 b))", "(2 c)", "(3 (3 d) (3 e))", "(4 f)")]
    loader = DataLoader(trees, 2, bucket=2, lengths=[t.size for t in trees])
    assert [[t.label for t in batch] for batch in loader] == [[2, 4], [1, 3]]


# ---------------------------------------------------------------- columns and batches


class Pair(NamedTuple):
    left: Any
    right: Any


def test_each_kind_of_column_has_its_kind_of_batch():
    trees = [parse_tree("(1 a)"), parse_tree("(2 b)"), parse_tree("(3 c)")]
    data = Pair(
        {"image": np.zeros((3, 2, 2), np.float32), "none": None, "label": [5, 6, 7], "flag": [True, False, True]},
        (["x", "yy", "z"], trees, [[1, 2], [], [3]], [np.ones((1, 4), np.float32)] * 3, [("a", 1), ("b", 2), ("c", 3)]),
    )
    batch = next(iter(DataLoader(data, 2)))
    left, (texts, parsed, words, vectors, pairs) = batch
    assert isinstance(batch, Pair)
    assert (left["image"].shape, left["image"].dtype) == ((2, 2, 2), np.float32)
    assert left["none"] is None
    assert (left["label"].tolist(), left["flag"].dtype) == ([5, 6], np.dtype(bool))
    assert (texts, parsed, pairs) == (["x", "yy"], trees[:2], [("a", 1), ("b", 2)])
    assert (words.values.tolist(), words.lengths.tolist()) == ([[1, 2], [0, 0]], [2, 0])
    assert (vectors.values.shape, vectors.values.dtype) == ((2, 1, 4), np.float32)


def test_every_batch_has_one_dtype_whichever_sequences_meet():
    batches = list(DataLoader([[], [1, 2], [0.5], []], 1))
    assert {batch.values.dtype for batch in batches} == {np.dtype(np.float64)}


def test_padding_value_and_multiple():
    batch = next(iter(DataLoader([[1, 2, 3], [4]], 2, pad_value=-1, multiple_of=4)))
    assert batch.values.tolist() == [[1, 2, 3, -1], [4, -1, -1, -1]]


def test_batches_are_copies():
    data = np.arange(4)
    next(iter(DataLoader(data, 2)))[:] = 9
    assert data.tolist() == [0, 1, 2, 3]


def test_collate_gets_the_examples():
    data = ("ab", np.arange(3))
    with pytest.raises(ArgumentError, match="at '0' is a str"):
        DataLoader(data, 2)
    loader = DataLoader((list("abc"), np.arange(3)), 2, collate=lambda examples: dict(examples))
    assert list(loader) == [{"a": 0, "b": 1}, {"c": 2}]


@pytest.mark.parametrize(
    ("data", "arguments", "error", "message"),
    [
        ({"x": np.ones(3), "y": {"z": [1, 2]}}, {}, ArgumentError, "3 examples at 'x' and 2 at 'y/z'"),
        ((np.ones(3), 5), {}, ArgumentError, "at '1' is a int; expected an array"),
        (np.ones((0, 3)), {}, ArgumentError, "no examples"),
        ([], {}, ArgumentError, "no examples"),
        ({}, {}, ArgumentError, "no examples"),
        (np.ones(3), {"batch_size": 0}, ArgumentError, "batch_size must be at least 1, got 0"),
        (np.ones(3), {"prefetch": -1}, ArgumentError, "prefetch must be at least 0"),
        (np.ones(3), {"multiple_of": 0}, ArgumentError, "multiple_of must be at least 1"),
        (np.ones(3), {"drop_last": True, "batch_size": 4}, ArgumentError, "no batch of 4 from 3 examples"),
        (np.ones(3), {"bucket": 2}, ArgumentError, "pass lengths="),
        (np.ones(3), {"bucket": 2, "lengths": [1, 2]}, ShapeError, r"shape \(3,\), got \(2,\)"),
        ([[1], [2]], {"bucket": 0}, ArgumentError, "bucket must be at least 1"),
        ([[1], [2]], {"bucket": 1, "borders": [1]}, ArgumentError, "not both"),
        ([[1], [2]], {"borders": [2, 2]}, ArgumentError, "rising"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(data, arguments, error, message):
    with pytest.raises(error, match=message):
        DataLoader(data, **({"batch_size": 2} | arguments))


# ---------------------------------------------------------------- prefetching


def threads():
    return [t for t in threading.enumerate() if t.name == "fnflare-prefetch"]


@pytest.mark.thread_unsafe(reason="it counts the threads of the process")
@given(st.lists(st.integers()), st.integers(1, 4), st.integers(0, 9))
def test_prefetch_keeps_items_and_ends_its_thread(items, size, taken):
    ahead = prefetch(iter(items), size)
    got = [x for x, _ in zip(ahead, range(taken), strict=False)]
    ahead.close()
    assert got == items[:taken]
    assert threads() == []


@pytest.mark.thread_unsafe(reason="it counts the threads of the process")
@pytest.mark.parametrize("size", [1, 3])
def test_error_in_the_thread_comes_out_after_the_batches_before_it(size):
    def collate(examples):
        if 4 in examples:
            raise ZeroDivisionError("bad example")
        return examples

    loader = DataLoader(np.arange(8), 2, collate=collate, prefetch=size)
    batches = iter(loader)
    assert [next(batches), next(batches)] == [[0, 1], [2, 3]]
    with pytest.raises(ZeroDivisionError, match="bad example"):
        next(batches)
    assert threads() == []


@pytest.mark.thread_unsafe(reason="it counts the threads of the process")
def test_thread_ends_when_the_loop_is_left():
    loader = DataLoader(np.arange(1000), 2, prefetch=2)
    for _ in loader:
        assert len(threads()) == 1
        break
    assert threads() == []
    batches = iter(loader)
    next(batches)
    with pytest.raises(ZeroDivisionError):
        batches.throw(ZeroDivisionError)
    assert threads() == []


def test_no_more_is_made_ahead_than_was_asked_for():
    made = []
    went = threading.Event()

    def source():
        for i in range(100):
            made.append(i)
            if i == 4:
                went.set()
            yield i

    ahead = prefetch(source(), 3)
    assert next(ahead) == 0
    assert went.wait(10)  # one was taken, three wait in the queue, the fifth waits to get in
    ahead.close()
    assert made == [0, 1, 2, 3, 4]
