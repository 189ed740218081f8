"""The words that a model knows, and their numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fnflare.errors import ArgumentError, ShapeError

__all__ = ["Vocabulary"]


class Vocabulary:
    """A list of distinct words; the number of a word is its place in the list. Immutable.

    A vocabulary is saved as the plain list of its words (``list(vocabulary)`` to JSON, ``np.array(list(vocabulary))``
    in a tree for `fnflare.io.save`) and made again from that list.

    >>> vocabulary = ff.data.Vocabulary.build("the cat and the dog".split())
    >>> list(vocabulary)
    ['<pad>', '<unk>', 'the', 'and', 'cat', 'dog']
    >>> vocabulary.encode(["the", "bird"])
    array([2, 1])
    >>> vocabulary.decode([5, 4])
    ['dog', 'cat']
    >>> ff.data.Vocabulary(list(vocabulary)) == vocabulary
    True
    """

    __slots__ = ("_ids", "_words", "padding", "unknown")

    padding: str | None
    unknown: str | None

    def __init__(self, words: Iterable[str], *, padding: str | None = "<pad>", unknown: str | None = "<unk>") -> None:
        """A vocabulary of the given words.

        Args:
            words: distinct words, in the order of their numbers.
            padding: the word that fills up batches, or None to do without; where it is not among the words it is put
                in front of them and so has number 0.
            unknown: the word that stands for all others, or None to do without: then such a word is an error. Where
                it is not among the words it is put in front of them, after the padding.

        Raises:
            ArgumentError: a word occurs twice, or is no string.
        """
        listed: list[Any] = list(words)
        if not all(isinstance(word, str) for word in listed):
            odd = next(word for word in listed if not isinstance(word, str))
            raise ArgumentError(f"Vocabulary: expected strings, got a {type(odd).__name__} among the words")
        present = set(listed)
        specials = dict.fromkeys(w for w in (padding, unknown) if w is not None and w not in present)
        self._words = (*specials, *listed)
        self._ids = {word: i for i, word in enumerate(self._words)}
        self.padding, self.unknown = padding, unknown
        if len(self._ids) != len(self._words):
            twice = next(w for w, n in Counter(self._words).items() if n > 1)
            raise ArgumentError(f"Vocabulary: the word {twice!r} occurs more than once; Vocabulary.build takes counts")

    @classmethod
    def build(
        cls,
        tokens: Iterable[str] | Mapping[str, int],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        padding: str | None = "<pad>",
        unknown: str | None = "<unk>",
    ) -> Vocabulary:
        """The vocabulary of a text, the most frequent word first.

        Args:
            tokens: all tokens of the text, one after the other (the characters of a string, for a vocabulary of
                characters), or the count of each.
            min_count: words that occur less often are left out.
            max_size: of the vocabulary, special words included; the rarest words are left out.
            padding: as in the constructor.
            unknown: as in the constructor.

        Returns:
            The vocabulary: the special words, then the others by falling count, equal counts in alphabetical order,
            so that it does not depend on the order of the tokens.

        Raises:
            ArgumentError: `min_count` is less than 1, `max_size` leaves no room for a word, or a token is no string.

        >>> list(ff.data.Vocabulary.build({"a": 3, "b": 1, "c": 2}, max_size=3, padding=None))
        ['<unk>', 'a', 'c']
        """
        specials = {w for w in (padding, unknown) if w is not None}
        if min_count < 1:
            raise ArgumentError(f"Vocabulary.build: min_count must be at least 1, got {min_count}")
        if max_size is not None and max_size <= len(specials):
            raise ArgumentError(
                f"Vocabulary.build: max_size {max_size} leaves no room beside the {len(specials)} special words"
            )
        counts = _count(tokens)
        kept = sorted(w for w, n in counts.items() if n >= min_count and w not in specials)
        kept.sort(key=lambda word: -counts[word])
        room = None if max_size is None else max_size - len(specials)
        return cls(kept[:room], padding=padding, unknown=unknown)

    @property
    def padding_id(self) -> int | None:
        """The number of the padding word, None where there is none."""
        return None if self.padding is None else self._ids[self.padding]

    @property
    def unknown_id(self) -> int | None:
        """The number of the unknown word, None where there is none."""
        return None if self.unknown is None else self._ids[self.unknown]

    def __len__(self) -> int:
        return len(self._words)

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        return (self._words, self.padding, self.unknown) == (other._words, other.padding, other.unknown)

    def __hash__(self) -> int:
        return hash((self._words, self.padding, self.unknown))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self._words[:5]))
        return f"Vocabulary({len(self)} words: {shown}{', ...' if len(self) > 5 else ''})"

    def encode(self, tokens: Iterable[str]) -> np.ndarray:
        """The numbers of tokens.

        Args:
            tokens: T words, or a string for its characters.

        Returns:
            int64 array of shape (T,); words that are not in the vocabulary have the number of the unknown word.

        Raises:
            ArgumentError: a word is not in the vocabulary and there is no unknown word.
        """
        tokens = tokens if isinstance(tokens, str) else list(tokens)
        ids = [self._ids.get(token) for token in tokens]
        unknown = self.unknown_id
        if unknown is None and None in ids:
            place = ids.index(None)
            raise ArgumentError(
                f"Vocabulary.encode: token {place}, {tokens[place]!r}, is not in the vocabulary of {len(self)} words, "
                "which has no unknown word; build it with unknown='<unk>'"
            )
        return np.array([unknown if i is None else i for i in ids], np.int64)

    def decode(self, ids: ArrayLike) -> list[str]:
        """The words of numbers; ``"".join(...)`` makes a text of characters.

        Args:
            ids: integers of shape (T,).

        Raises:
            ArgumentError: a number is negative or too great.
            ShapeError: `ids` has another number of axes.
        """
        array = np.asarray(ids, dtype=np.int64) if np.size(ids) == 0 else np.asarray(ids)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ShapeError(
                f"Vocabulary.decode: expected integers of shape (T,), got {array.dtype} of shape {array.shape}"
            )
        wrong = (array < 0) | (array >= len(self))
        if np.any(wrong):
            raise ArgumentError(
                f"Vocabulary.decode: {array[wrong][0]} is not the number of a word; there are {len(self)}, from 0"
            )
        return [self._words[i] for i in array.tolist()]

    def embedding_matrix(
        self, words: Sequence[str], vectors: ArrayLike, missing: Literal["zeros", "mean"] = "zeros"
    ) -> tuple[np.ndarray, np.ndarray]:
        """The vector of each word of the vocabulary, to start or fix an embedding with.

        Args:
            words: M distinct words, such as ``read_vectors(path, vocabulary).words``.
            vectors: their vectors, of shape (M, D).
            missing: what a word without a vector gets: zeros, or the mean of all `vectors`. The padding word has
                zeros in either case.

        Returns:
            Matrix of shape (len(self), D) and the dtype of `vectors` (float32 where that is no float); bool array
            of shape (len(self),), true where there was a vector.

        Raises:
            ShapeError: there are not as many vectors as words.
            ArgumentError: `missing` is something else.

        >>> matrix, found = ff.data.Vocabulary(["cat", "dog"]).embedding_matrix(["dog"], [[1.0, 2.0]])
        >>> matrix[3], found
        (array([1., 2.]), array([False, False, False,  True]))
        """
        table = np.asarray(vectors)
        if table.dtype.kind != "f":
            table = table.astype(np.float32)
        if table.ndim != 2 or len(table) != len(words):
            raise ShapeError(
                f"embedding_matrix: expected vectors of shape ({len(words)}, D), one for each word, got {table.shape}"
            )
        if missing not in ("zeros", "mean"):
            raise ArgumentError(f"embedding_matrix: missing must be 'zeros' or 'mean', got {missing!r}")
        matrix = np.zeros((len(self), table.shape[1]), table.dtype)
        if missing == "mean" and len(table):
            matrix[:] = table.mean(axis=0)
        found = np.zeros(len(self), bool)
        pairs = [(self._ids[w], i) for i, w in enumerate(words) if w in self._ids and w != self.padding]
        ours, theirs = [p[0] for p in pairs], [p[1] for p in pairs]
        matrix[ours] = table[theirs]
        found[ours] = True
        if self.padding_id is not None:
            matrix[self.padding_id] = 0
        return matrix, found


def _count(tokens: Iterable[str] | Mapping[str, int]) -> Mapping[str, int]:
    try:
        counts = tokens if isinstance(tokens, Mapping) else Counter(tokens)
    except TypeError:  # a list cannot be counted
        counts = None
    if counts is None or not all(isinstance(word, str) for word in counts):
        raise ArgumentError(
            "Vocabulary.build: tokens must be strings, or counts of strings; join the sentences into one sequence "
            "first, with itertools.chain.from_iterable(sentences)"
        )
    return counts
