"""Word vectors in the text format of GloVe and word2vec: a word and its numbers on each line."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import numpy as np

from fnflare.data.files import StrPath, read_lines, shown
from fnflare.errors import DataFileError

__all__ = ["WordVectors", "read_vectors"]

_SOURCE = "https://nlp.stanford.edu/projects/glove"
_WHAT = "a word and its vector on each line"
_DIGITS = 10  # of the numbers in word2vec's first line, fewer than this


class WordVectors(NamedTuple):
    """Words and their vectors.

    Attributes:
        words: V distinct words, in the order of the file (GloVe's: the most frequent first).
        vectors: float32 array of shape (V, D).
    """

    words: list[str]
    vectors: np.ndarray


def read_vectors(path: StrPath, vocabulary: Container[str] | None = None) -> WordVectors:
    """Read word vectors.

    Args:
        path: the file, gzipped or not, with a line ``word x_1 ... x_D`` for each word; word2vec's first line, the
            number of words and D, may be there or not.
        vocabulary: when given, words outside it are passed over unread, which saves memory and time.

    Returns:
        `WordVectors`. Of a word that occurs twice the first vector counts.

    Raises:
        MissingFileError: there is no such file.
        DataFileError: a line has not D numbers, or there are fewer lines than word2vec's first line says.

    Sources: Pennington, Socher and Manning, GloVe, 2014; Mikolov et al., word2vec, 2013.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     _ = file.write(b"the 0.5 1\\nof -1 2e-1\\n")
    ...     file.flush()
    ...     ff.data.read_vectors(file.name, {"of"})
    WordVectors(words=['of'], vectors=array([[-1. ,  0.2]], dtype=float32))
    """
    dim: int | None = None
    promised: int | None = None
    number, words = 0, dict[str, None]()
    values = bytearray()  # vector after vector: many small arrays would take ten times the memory
    for number, line in read_lines(path, _WHAT, _SOURCE):
        line = line.rstrip(" ")  # word2vec ends each line with a space
        if dim is None:
            header = _header(line) if number == 1 else None
            if header is not None:
                promised, dim = header
                continue
            dim = line.count(" ")
        word, *numbers = line.rsplit(" ", dim)  # from the right: a few words of GloVe hold spaces
        if len(numbers) != dim or dim == 0:
            raise DataFileError(f"{path}, line {number}: expected {dim or 'some'} numbers, found {len(numbers)}")
        if word in words or not (vocabulary is None or word in vocabulary):
            continue
        try:
            with np.errstate(over="raise"):
                values += np.array([float(x) for x in numbers]).astype(np.float32).tobytes()
        except (ValueError, FloatingPointError) as error:
            said = shown(str(error))[1:-1]
            raise DataFileError(f"{path}, line {number}: expected {dim} numbers after {shown(word)}; {said}") from None
        words[word] = None
    if dim is None:
        raise DataFileError(f"{path}: expected {_WHAT}, found an empty file")
    if promised is not None and number - 1 != promised:
        raise DataFileError(f"{path}: its first line says {promised} words, found {number - 1}; it is truncated")
    return WordVectors(list(words), np.frombuffer(values, np.float32).reshape(len(words), dim))


def _header(line: str) -> tuple[int, int] | None:
    """The number of words and of dimensions, where the line is word2vec's first one."""
    fields = line.split(" ")
    if len(fields) != 2 or not all(field.isdecimal() and len(field) < _DIGITS for field in fields):
        return None
    return int(fields[0]), int(fields[1])
