"""Opening data files: found by name, gzipped or not, with errors that say what was expected and where it can be had."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from fnflare.errors import ArgumentError, DataFileError, MissingFileError

__all__ = ["StrPath", "check_split", "find", "read_bytes", "read_lines", "read_utf8", "shown"]

StrPath = str | os.PathLike[str]

_GZIP_MAGIC = b"\x1f\x8b"
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)
#: A gzip file may unpack to so much, or to so many times its own size; text does to some ten times, and what does to
#: a thousand is made to fill the memory.
_UNPACKED_BYTES, _UNPACKED_TIMES = 1 << 22, 100
#: The longest line of a file of lines. A file without line ends is none, and would be read as one.
_LONGEST_LINE = 1 << 22
_CHUNK = 1 << 20


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


def shown(text: str) -> str:
    """A piece of a file as a message shows it: as a literal, and not at any length."""
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}... ({len(text)} characters)"


def read_bytes(path: StrPath, what: str, source: str) -> bytes:
    """The content of a file, unpacked if it is gzipped, whatever its name says.

    Raises:
        MissingFileError: there is no such file.
        DataFileError: it is no file, or a gzip file that is truncated, damaged or unpacks to absurdly much.
    """
    file, limit = _open(path, what, source)
    content = bytearray()
    with file:
        try:
            while chunk := file.read(_CHUNK):
                content += chunk
                _check_unpacked(path, len(content), limit)
        except _DAMAGED as error:
            raise DataFileError(f"{path}: expected {what}; the gzip file is truncated or damaged ({error})") from error
    return bytes(content)


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
        DataFileError: a line is not UTF-8 or absurdly long, or it is no file, or a gzip file that is truncated, damaged
            or unpacks to absurdly much.
    """
    number = total = 0
    file, limit = _open(path, what, source)
    with file:
        try:
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), 1):
                total += len(line)
                _check_unpacked(path, total, limit)
                if len(line) > _LONGEST_LINE:
                    raise DataFileError(
                        f"{path}, line {number}: expected {what}; the line has more than {_LONGEST_LINE} bytes"
                    )
                yield number, line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataFileError(f"{path}, line {number}: expected {what} in UTF-8 ({error})") from error
        except _DAMAGED as error:
            where = f"after line {number}"
            raise DataFileError(f"{path}, {where}: the gzip file is truncated or damaged ({error})") from error


def _open(path: StrPath, what: str, source: str) -> tuple[IO[bytes], int | None]:
    """A file, and how many bytes may come out of it where it is packed."""
    path = Path(path)
    if not path.exists():
        raise MissingFileError(f"{path}: no such file; expected {what}, to be had from {source}")
    if not path.is_file():  # a folder; or a device or pipe, which may have no end
        raise DataFileError(f"{path}: expected {what}, found {'a folder' if path.is_dir() else 'no regular file'}")
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP_MAGIC
    if not packed:
        return path.open("rb"), None
    # A reader around it finds lines without Python's help.
    return cast(IO[bytes], io.BufferedReader(gzip.open(path), _CHUNK)), max(
        _UNPACKED_BYTES, _UNPACKED_TIMES * path.stat().st_size
    )


def _check_unpacked(path: StrPath, size: int, limit: int | None) -> None:
    if limit is not None and size > limit:
        raise DataFileError(
            f"{path}: unpacks to more than {limit} bytes, as files do that are made to fill the memory; "
            "if you trust it, unpack it with gzip -d and read what comes out"
        )
