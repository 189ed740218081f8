"""Plain text: reading it, cutting it into tokens, and cutting a long stream of ids into training examples."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike

from fnflare.data.files import StrPath, read_utf8
from fnflare.errors import ArgumentError, ShapeError

__all__ = ["read_text", "streams", "tokenize", "windows"]

_TOKENS = re.compile(
    r"""
    \w+?(?=n't\b)          # do|n't
    | n't\b
    | '(?:s|re|ve|ll|d|m)\b # it|'s
    | \w+
    | \.\.\.
    | [^\w\s]                  # any other sign stands alone
    """,
    re.VERBOSE,
)


def read_text(path: StrPath) -> str:
    """The whole text of a UTF-8 file, gzipped or not, with line ends as they are.

    Raises:
        MissingFileError: there is no such file.
        DataFileError: it is not UTF-8, or a truncated gzip file.
    """
    return read_utf8(
        path, "a text", "wherever the text is from (tinyshakespeare: https://github.com/karpathy/char-rnn)"
    )


def tokenize(text: str) -> list[str]:
    """Cut a text into lower-case words and signs.

    Clitics are cut off as in the Penn Treebank and so in GloVe (``don't`` is ``do`` and ``n't``), hyphens divide.

    >>> ff.data.tokenize("It's a well-made film... I didn't sleep!")
    ['it', "'s", 'a', 'well', '-', 'made', 'film', '...', 'i', 'did', "n't", 'sleep', '!']
    """
    return _TOKENS.findall(text.lower().replace("’", "'"))


def windows(ids: ArrayLike, length: int, stride: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Cut a long sequence into examples for a language model: a window, and the same window one step later.

    Args:
        ids: array of shape (M,), such as the characters of a text encoded by a `Vocabulary`.
        length: T, of a window.
        stride: from the start of a window to that of the next; `length` by default, so that none overlap.

    Returns:
        Inputs and targets, arrays of shape (N, T) and the dtype of `ids`: ``targets[n, t]`` follows ``inputs[n, t]``.
        What remains at the end and fills no window is left out. Give them to a `DataLoader` as they are.

    Raises:
        ArgumentError: `length` or `stride` is not positive, or there are not `length` + 1 ids.
        ShapeError: `ids` is not one long vector.

    >>> ff.data.windows([1, 2, 3, 4, 5, 6], 2)
    (array([[1, 2],
           [3, 4]]), array([[2, 3],
           [4, 5]]))
    """
    ids = _long_vector(ids, "windows", length, length + 1)
    stride = length if stride is None else stride
    if stride < 1:
        raise ArgumentError(f"windows: stride must be at least 1, got {stride}")
    cut = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::stride]
    return cut[:, :-1].copy(), cut[:, 1:].copy()


def streams(ids: ArrayLike, batch_size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut a long sequence into batches that continue one another, for a recurrent net that keeps its state.

    The sequence is cut into `batch_size` equal streams; row n of each batch goes on where row n of the last one
    stopped, so that the carry of one step starts the next.

    Args:
        ids: array of shape (M,).
        batch_size: N, the number of streams.
        length: T, how much of each stream a batch has.

    Returns:
        Inputs and targets, arrays of shape (steps, N, T) and the dtype of `ids`; targets are one step later.
        What remains at the end and fills no step is left out.

    Raises:
        ArgumentError: `batch_size` or `length` is not positive, or there are not `batch_size` * `length` + 1 ids.
        ShapeError: `ids` is not one long vector.

    >>> inputs, targets = ff.data.streams(range(9), batch_size=2, length=2)
    >>> inputs[0].tolist(), inputs[1].tolist(), targets[0].tolist()
    ([[0, 1], [4, 5]], [[2, 3], [6, 7]], [[1, 2], [5, 6]])
    """
    if batch_size < 1:
        raise ArgumentError(f"streams: batch_size must be at least 1, got {batch_size}")
    ids = _long_vector(ids, "streams", length, batch_size * length + 1)
    steps = (len(ids) - 1) // (batch_size * length)
    total = steps * batch_size * length

    def cut(part: np.ndarray) -> np.ndarray:
        return part.reshape(batch_size, steps, length).swapaxes(0, 1).copy()

    return cut(ids[:total]), cut(ids[1 : total + 1])


def _long_vector(ids: ArrayLike, caller: str, length: int, least: int) -> np.ndarray:
    array = np.asarray(ids)
    if array.ndim != 1:
        raise ShapeError(f"{caller}: ids must be one vector, got shape {array.shape}; join the texts first")
    if length < 1:
        raise ArgumentError(f"{caller}: length must be at least 1, got {length}")
    if len(array) < least:
        raise ArgumentError(f"{caller}: ids has {len(array)} elements, at least {least} are needed for one example")
    return array
