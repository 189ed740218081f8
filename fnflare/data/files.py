"""Opening data files: found by name, gzipped or not, with errors that say what was expected and where it can be had."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from fnflare.errors import ArgumentError, DataFileError, MissingFileError

__all__ = ["StrPath", "check_split", "find", "read_bytes", "read_lines", "read_utf8"]

StrPath = str | os.PathLike[str]

_GZIP_MAGIC = b"\x1f\x8b"


def find(folder: StrPath, names: Sequence[str], what: str, source: str) -> Path:
    """The first file (or folder) of several possible names that is there.

    Args:
        folder: where to look.
        names: relative paths, the likeliest first.
        what: what the file is, for the error.
        source: where it can be had, for the error.

    Raises:
        MissingFileError: none is there.
    """
    for name in names:
        path = Path(folder) / name
        if path.exists():
            return path
    others = f" (or {', '.join(names[1:])})" if len(names) > 1 else ""
    raise MissingFileError(f"{Path(folder) / names[0]}{others}: no such file; expected {what}, to be had from {source}")


def check_split(split: str, splits: Sequence[str]) -> None:
    """Raises ArgumentError unless `split` is one of `splits`."""
    if split not in splits:
        raise ArgumentError(f"split must be {' or '.join(map(repr, splits))}, got {split!r}")


def read_bytes(path: StrPath, what: str, source: str) -> bytes:
    """The content of a file, unpacked if it is gzipped, whatever its name says.

    Raises:
        MissingFileError: there is no such file.
        DataFileError: it is a gzip file that is truncated or damaged.
    """
    with _open(path, what, source) as file:
        try:
            return file.read()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataFileError(f"{path}: expected {what}; the gzip file is truncated or damaged ({error})") from error


def read_utf8(path: StrPath, what: str, source: str) -> str:
    """The text of a UTF-8 file, gzipped or not; see `read_bytes`."""
    content = read_bytes(path, what, source)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        found = content[error.start : error.start + 1].hex()
        raise DataFileError(
            f"{path}: expected {what} in UTF-8; byte {error.start} is 0x{found}, which is not"
        ) from error


def read_lines(path: StrPath, what: str, source: str) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file, gzipped or not, with their numbers from 1 and without their ends.

    A line ends at a line feed alone: texts hold characters that `str.splitlines` would split at.

    Raises:
        MissingFileError: there is no such file.
        DataFileError: a line is not UTF-8, or the gzip file is truncated or damaged.
    """
    number = 0
    with _open(path, what, source) as file:
        try:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataFileError(f"{path}, line {number}: expected {what} in UTF-8 ({error})") from error
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            where = f"after line {number}"
            raise DataFileError(f"{path}, {where}: the gzip file is truncated or damaged ({error})") from error


def _open(path: StrPath, what: str, source: str) -> IO[bytes]:
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; expected {what}, to be had from {source}")
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")
