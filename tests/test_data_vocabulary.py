"""Vocabularies: numbers and words are each other's inverse, and the order depends on counts alone."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnflare.data import Vocabulary
from fnflare.errors import ArgumentError, ShapeError
from fnflare.io import load, save

TOKENS = st.lists(st.sampled_from(["a", "b", "c", "dog", "<pad>", "<unk>", "ä", "\u2028"]))


@given(TOKENS)
def test_known_words_come_back(tokens):
    vocabulary = Vocabulary.build(tokens)
    ids = vocabulary.encode(tokens)
    assert ids.dtype == np.int64
    assert vocabulary.decode(ids) == tokens
    assert list(vocabulary) == vocabulary.decode(range(len(vocabulary)))


@given(TOKENS, st.randoms())
def test_order_depends_on_counts_alone(tokens, rng):
    shuffled = tokens.copy()
    rng.shuffle(shuffled)
    vocabulary = Vocabulary.build(tokens)
    assert vocabulary == Vocabulary.build(shuffled) == Vocabulary.build(Counter(tokens))
    words = list(vocabulary)[2:]
    assert words == sorted(words, key=lambda w: (-tokens.count(w), w))


@given(TOKENS, st.integers(1, 4), st.none() | st.integers(3, 6))
def test_rare_words_are_left_out(tokens, min_count, max_size):
    counts = Counter(tokens)
    vocabulary = Vocabulary.build(tokens, min_count=min_count, max_size=max_size)
    words = list(vocabulary)[2:]
    assert len(vocabulary) <= (max_size or 99)
    assert all(counts[w] >= min_count for w in words)
    left = [w for w in counts if w not in vocabulary and counts[w] >= min_count]
    assert not left or len(vocabulary) == max_size
    assert all(counts[w] <= min((counts[x] for x in words), default=0) for w in left)


@given(TOKENS)
def test_vocabulary_is_made_again_from_its_plain_list(tokens):
    vocabulary = Vocabulary.build(tokens)
    assert Vocabulary(json.loads(json.dumps(list(vocabulary)))) == vocabulary


def test_equal_vocabularies_are_one_key_and_print_their_first_words():
    one, same = Vocabulary(list("abcdefg")), Vocabulary(list("abcdefg"))
    assert {one: 1}[same] == 1
    assert one != Vocabulary(list("abcdefg"), unknown=None)
    assert one != list(one)
    assert repr(one) == "Vocabulary(9 words: '<pad>', '<unk>', 'a', 'b', 'c', ...)"
    assert repr(Vocabulary(["x"], padding=None, unknown=None)) == "Vocabulary(1 words: 'x')"


def test_vocabulary_is_saved_beside_parameters(tmp_path):
    vocabulary = Vocabulary.build(["to", "be", "or", "not", "to", "be"])
    save(tmp_path / "model.npz", {"W": np.ones(2), "words": np.array(list(vocabulary))})
    assert Vocabulary(load(tmp_path / "model.npz")["words"].tolist()) == vocabulary


def test_special_words_come_first_and_unknown_ones_have_a_number():
    vocabulary = Vocabulary(["x", "y"])
    assert list(vocabulary) == ["<pad>", "<unk>", "x", "y"]
    assert (vocabulary.padding_id, vocabulary.unknown_id) == (0, 1)
    assert vocabulary.encode(["y", "z", "<pad>"]).tolist() == [3, 1, 0]
    assert "x" in vocabulary
    assert "z" not in vocabulary
    own = Vocabulary(["x", "?", "."], padding=".", unknown="?")
    assert (list(own), own.padding_id, own.unknown_id) == (["x", "?", "."], 2, 1)


def test_characters_are_tokens():
    text = "hello"
    vocabulary = Vocabulary.build(text, padding=None, unknown=None)
    assert list(vocabulary) == ["l", "e", "h", "o"]
    assert "".join(vocabulary.decode(vocabulary.encode(text))) == text
    assert (vocabulary.padding_id, vocabulary.unknown_id) == (None, None)
    with pytest.raises(ArgumentError, match=r"token 1, 'x', is not .* unknown='<unk>'"):
        vocabulary.encode("ex")


def test_no_token_encodes_and_decodes_to_nothing():
    vocabulary = Vocabulary(["a"])
    assert vocabulary.encode([]).shape == (0,)
    assert vocabulary.decode([]) == []


def test_vocabulary_refuses_what_is_no_list_of_words():
    with pytest.raises(ArgumentError, match="'a' occurs more than once"):
        Vocabulary(["a", "b", "a"])
    with pytest.raises(ArgumentError, match=r"chain\.from_iterable"):
        Vocabulary.build([["a"], ["b"]])
    with pytest.raises(ArgumentError, match="must be strings"):
        Vocabulary.build([1, 2])
    with pytest.raises(ArgumentError, match="min_count"):
        Vocabulary.build(["a"], min_count=0)
    with pytest.raises(ArgumentError, match="no room beside the 2"):
        Vocabulary.build(["a"], max_size=2)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([0, 4], ArgumentError, "4 is not the number of a word; there are 4"),
        ([-1], ArgumentError, "-1 is not"),
        ([[0]], ShapeError, r"shape \(1, 1\)"),
        ([0.0], ShapeError, "float64"),
    ],
)
def test_decode_refuses_what_is_no_number_of_a_word(ids, error, message):
    with pytest.raises(error, match=message):
        Vocabulary(["x", "y"]).decode(ids)


@pytest.mark.parametrize("missing", ["zeros", "mean"])
def test_embedding_matrix_has_each_word_its_vector(missing):
    vocabulary = Vocabulary(["cat", "dog", "eel"])
    vectors = np.array([[1, 2], [3, 4], [5, 9]], np.float32)
    matrix, found = vocabulary.embedding_matrix(["eel", "the", "cat"], vectors, missing=missing)
    other = [3, 5] if missing == "mean" else [0, 0]
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [[0, 0], other, [5, 9], other, [1, 2]]
    assert found.tolist() == [False, False, True, False, True]


def test_embedding_matrix_of_whole_numbers_and_without_padding():
    matrix, found = Vocabulary(["cat", "dog"], padding=None).embedding_matrix(["dog"], [[1, 2]])
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [[0, 0], [0, 0], [1, 2]]
    assert found.tolist() == [False, False, True]


def test_embedding_matrix_of_no_vectors_and_of_wrong_ones():
    vocabulary = Vocabulary(["cat"])
    matrix, found = vocabulary.embedding_matrix([], np.zeros((0, 7), np.float32), missing="mean")
    assert (matrix.shape, found.any()) == ((3, 7), False)
    with pytest.raises(ShapeError, match=r"\(2, D\), one for each word, got \(3, 2\)"):
        vocabulary.embedding_matrix(["a", "b"], np.zeros((3, 2)))
    with pytest.raises(ArgumentError, match="'zeros' or 'mean'"):
        vocabulary.embedding_matrix(["a"], np.zeros((1, 2)), missing="random")
