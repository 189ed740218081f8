"""The Large Movie Review Dataset: film reviews from IMDB, labelled as negative or positive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fnflare.data.files import StrPath, check_split, find, read_lines, read_utf8, shown
from fnflare.errors import DataFileError, MissingFileError

__all__ = ["Reviews", "imdb"]

_SOURCE = "https://ai.stanford.edu/~amaas/data/sentiment"
_BREAKS = re.compile(r"(?:\s*<br\s*/?>)+\s*", re.IGNORECASE)
_FILE_NAME = re.compile(r"(\d+)_(\d+)\.txt")
_DIGITS = 9  # of a label or a rating, no more than this
_COLUMNS = "four columns (label, rating, id, text), divided by tabs"


class Reviews(NamedTuple):
    """Reviews with their labels.

    Attributes:
        texts: N strings, without markup.
        labels: int64 array of shape (N,), 0 for a negative review and 1 for a positive one.
        ratings: int64 array of shape (N,), in stars: 1 to 4 for negative reviews, 7 to 10 for positive ones.
    """

    texts: list[str]
    labels: np.ndarray
    ratings: np.ndarray


def imdb(folder: StrPath, split: str = "train") -> Reviews:
    """Read the labelled reviews of one split.

    Args:
        folder: the unpacked ``aclImdb`` folder, or the one that it is in (``train/neg/0_3.txt``: one review a file,
            named by its number and rating); or a folder with ``train.tsv`` and ``test.tsv``, gzipped (``.gz``) or
            not, with a line ``label TAB rating TAB id TAB text`` for each review.
        split: ``"train"`` or ``"test"``.

    Returns:
        `Reviews`. Both forms give the negative reviews first and keep to the order of the numbers: shuffle them.
        Line breaks (``<br />``) have become spaces.

    Raises:
        ArgumentError: there is no such split.
        MissingFileError: neither form is in the folder.
        DataFileError: a line or a file's name is not as above, or there is no review.

    Source: Maas et al., Learning word vectors for sentiment analysis, 2011.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     text = "1\\t9\\t0\\tGood.<br /><br />See it!\\n"
    ...     _ = pathlib.Path(folder, "train.tsv").write_text(text, encoding="utf-8")
    ...     ff.data.imdb(folder)
    Reviews(texts=['Good. See it!'], labels=array([1]), ratings=array([9]))
    """
    check_split(split, ("train", "test"))
    names = [f"{split}.tsv.gz", f"{split}.tsv", f"{split}/neg", f"aclImdb/{split}/neg"]
    path = find(folder, names, f"the {split} reviews of IMDB", _SOURCE)
    rows = _from_folder(path.parent) if path.name == "neg" else _from_table(path)
    texts, labels, ratings = [], [], []
    for where, label, rating, text in rows:
        if (label, rating > 5) not in ((0, False), (1, True)) or not 1 <= rating <= 10:
            raise DataFileError(
                f"{where}: expected label 0 with a rating of 1 to 5 or label 1 with one of 6 to 10, "
                f"found label {label} with rating {rating}"
            )
        texts.append(_BREAKS.sub(" ", text))
        labels.append(label)
        ratings.append(rating)
    if not texts:
        raise DataFileError(f"{path}: expected reviews, found none")
    return Reviews(texts, np.array(labels, np.int64), np.array(ratings, np.int64))


_Row = tuple[str, int, int, str]  # where it stands, label, rating, text


def _from_table(path: Path) -> Iterator[_Row]:
    for number, line in read_lines(path, "reviews", _SOURCE):
        where, fields = f"{path}, line {number}", line.split("\t")
        if len(fields) != 4:
            raise DataFileError(f"{where}: expected {_COLUMNS}; found {len(fields)}")
        try:
            if max(map(len, fields[:2])) > _DIGITS:
                raise ValueError
            yield where, int(fields[0]), int(fields[1]), fields[3]
        except ValueError:
            raise DataFileError(
                f"{where}: expected {_COLUMNS}; found {shown(fields[0])} and {shown(fields[1])}"
            ) from None


def _from_folder(folder: Path) -> Iterator[_Row]:
    for label, name in enumerate(("neg", "pos")):
        place = folder / name
        if not place.is_dir():
            raise MissingFileError(f"{place}: no such folder; expected reviews of IMDB, to be had from {_SOURCE}")
        numbered = []
        for path in place.glob("*.txt"):
            match = _FILE_NAME.fullmatch(path.name)
            if match is None:
                raise DataFileError(f"{path}: expected a name made of number and rating such as 0_3.txt")
            numbered.append((int(match[1]), int(match[2]), path))
        for _, rating, path in sorted(numbered):
            yield str(path), label, rating, read_utf8(path, "a review", _SOURCE)
