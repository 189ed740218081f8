"""Object code on disk, so that a program that was compiled once is not compiled again by the next process.

A key, which stands for all that the code depends on, and bytes go in; the bytes come out again, here or in another
process. Every failure is a miss: a folder that cannot be written or read, a damaged file, a full disk. What is loaded
is run, so the folder and each file must belong to this user and be writable by nobody else, and that is looked at on
the open file itself; what a file holds is checked against a digest, in which its key takes part.

The folder is ``$FNFLARE_CACHE_DIR``; by default ``fnflare`` in ``$XDG_CACHE_HOME`` or ``~/.cache``, in
``%LOCALAPPDATA%`` on Windows.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
import stat
import struct
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["CacheWarning", "enabled", "fingerprint", "folder", "limit", "lookup", "store"]

_MAGIC = b"fnflare\0"
_VERSION = 1
#: Magic, version, length of the payload, digest of key and payload.
_HEADER = struct.Struct("<8sIQ32s")
_SUFFIX = ".code"
_TEMPORARY = ".part"
#: What a file takes on disk is a multiple of this.
_BLOCK = 4096
_DEFAULT_LIMIT = 256 << 20
#: A temporary file of this age, in seconds, was left by a process that ended early.
_STALE = 3600.0
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_READ = (
    os.O_RDONLY | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class CacheWarning(UserWarning):
    """The folder of compiled code, or a file in it, is not used because others could have written it."""


def fingerprint(*parts: str | bytes) -> str:
    """A key for what depends on these parts alone, in this order."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def enabled() -> bool:
    """Whether compiled code is kept on disk: always, but for ``FNFLARE_CACHE=0`` in the environment."""
    return os.environ.get("FNFLARE_CACHE", "") != "0"


def folder() -> Path | None:
    """Where compiled code is kept; None where the environment does not even name a home."""
    chosen = os.environ.get("FNFLARE_CACHE_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():
        return Path(base) / "fnflare"
    try:
        return Path.home() / ".cache" / "fnflare"
    except RuntimeError:
        return None


def limit() -> int:
    """How many bytes are kept at most: ``FNFLARE_CACHE_BYTES``, by default 256 MiB."""
    text = os.environ.get("FNFLARE_CACHE_BYTES", "")
    return int(text) if text.isdecimal() else _DEFAULT_LIMIT


def lookup(key: str) -> bytes | None:
    """What was stored under a key.

    Args:
        key: as `fingerprint` makes them.

    Returns:
        The payload; None where there is none, or none that can be trusted.
    """
    if not enabled():
        return None
    try:
        with _opened(make=False) as place:
            return None if place is None else place.read(key)
    except OSError:
        return None


def store(key: str, payload: bytes) -> None:
    """Keep something under a key, for as long as there is room; what was not used for longest goes first.

    Args:
        key: as `fingerprint` makes them.
        payload: any bytes.
    """
    size = _HEADER.size + len(payload)
    if not enabled() or _on_disk(size) > _goal(limit()):
        return
    with contextlib.suppress(OSError), _opened(make=True) as place:
        if place is not None:
            place.write(key, payload)
            _room.keep(place, _on_disk(size))


# -- the folder ------------------------------------------------------------------------------------


class _Folder(NamedTuple):
    """An open folder that is ours. Files are named in it, not by their path, where the system can do so."""

    path: Path
    descriptor: int | None

    def at(self, name: str) -> str:
        """How a file is named to the system."""
        return name if self.descriptor is not None else str(self.path / name)

    def read(self, key: str) -> bytes | None:
        """The payload of a file that is whole and ours; one that is damaged is removed."""
        name = key + _SUFFIX
        try:
            descriptor = os.open(self.at(name), _READ, dir_fd=self.descriptor)
        except OSError as e:
            if e.errno == errno.ELOOP:
                _warn(self.path / name, "is a symbolic link")
            return None
        with io.FileIO(descriptor) as file:
            found = os.fstat(descriptor)
            fault = "is no plain file" if not stat.S_ISREG(found.st_mode) else _fault(found)
            if fault:
                _warn(self.path / name, fault)
                return None
            payload = _payload(key, file.readall())
            if payload is not None:
                with contextlib.suppress(OSError):
                    os.utime(descriptor if os.utime in os.supports_fd else self.path / name)
                return payload
        self.remove(name)
        return None

    def write(self, key: str, payload: bytes) -> None:
        """Write a file under another name and then put it in its place, so that nobody reads half of it."""
        name = f"{key}.{os.getpid()}.{secrets.token_hex(8)}{_TEMPORARY}"
        descriptor = os.open(self.at(name), _WRITE, 0o600, dir_fd=self.descriptor)
        try:
            with io.FileIO(descriptor, "w") as file:
                data = _HEADER.pack(_MAGIC, _VERSION, len(payload), _digest(key, payload)) + payload
                if file.write(data) != len(data):
                    raise OSError(errno.ENOSPC, "not all of it could be written")
            final = self.at(key + _SUFFIX)
            os.replace(self.at(name), final, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except BaseException:
            self.remove(name)
            raise

    def remove(self, name: str) -> None:
        """Remove a file, unless another process was quicker."""
        with contextlib.suppress(OSError):
            os.unlink(self.at(name), dir_fd=self.descriptor)

    def files(self) -> list[tuple[float, int, str]]:
        """When each file was used last, how many bytes it takes, and its name."""
        out = []
        with os.scandir(self.path if self.descriptor is None else self.descriptor) as entries:
            for entry in entries:
                if entry.name.endswith((_SUFFIX, _TEMPORARY)):
                    with contextlib.suppress(OSError):
                        found = entry.stat(follow_symlinks=False)
                        out.append((found.st_mtime, _on_disk(found.st_size), entry.name))
        return out


@contextlib.contextmanager
def _opened(make: bool) -> Iterator[_Folder | None]:
    """The folder, open; None where it is not there or is not ours.

    Raises:
        OSError: it cannot be made or opened.
    """
    path = folder()
    if path is None:
        yield None
        return
    if make:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    if os.open not in os.supports_dir_fd:
        yield _Folder(path, None)
        return
    try:
        descriptor = os.open(path, _READ | os.O_DIRECTORY)
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENOTDIR) and path.is_symlink():
            _warn(path, "is a symbolic link")
        raise
    try:
        fault = _fault(os.fstat(descriptor))
        if fault:
            _warn(path, fault)
        yield None if fault else _Folder(path, descriptor)
    finally:
        os.close(descriptor)


def _fault(found: os.stat_result) -> str:
    """Why a file or folder could hold what others wrote; empty where it could not."""
    if not hasattr(os, "geteuid"):
        return ""  # the folders of a user are his own there
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by other users"
    return ""


_warned = False


def _warn(path: Path, fault: str) -> None:
    global _warned  # noqa: PLW0603
    if not _warned:
        _warned = True
        warnings.warn(
            f"{path} {fault}, so compiled code is not taken from it. Make it yours alone (chmod go-w), name another "
            "folder in FNFLARE_CACHE_DIR, or set FNFLARE_CACHE=0 to keep none",
            CacheWarning,
            stacklevel=2,
        )


# -- files -----------------------------------------------------------------------------------------


def _digest(key: str, payload: bytes) -> bytes:
    return bytes.fromhex(fingerprint(key, payload))


def _payload(key: str, data: bytes) -> bytes | None:
    """What a file holds, None where it is not what was written."""
    if len(data) < _HEADER.size:
        return None
    magic, version, length, digest = _HEADER.unpack_from(data)
    payload = data[_HEADER.size :]
    if (magic, version, length) != (_MAGIC, _VERSION, len(payload)) or digest != _digest(key, payload):
        return None
    return payload


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _goal(most: int) -> int:
    """How much is left of a folder that was full."""
    return most - most // 10


class _Room:
    """Keeps the folder within its limit.

    The folder is looked through when a process first writes to it, and again when what the process has written since
    may have filled it; a full one is emptied by a tenth. So storing takes a bounded time on average, however many
    files there are, and what other processes write meanwhile can only pass the limit until the next look.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._left = 0

    def keep(self, place: _Folder, written: int) -> None:
        """Take note of a file that was written, and remove others if need be."""
        with self._lock:
            if self._path != place.path:
                self._path, self._left = place.path, 0
            self._left -= written
            if self._left < 0:
                self._left = self._prune(place, limit())

    @staticmethod
    def _prune(place: _Folder, most: int) -> int:
        """Remove what was not used for longest; returns how much may be written before the next time."""
        files = sorted(place.files())
        total = sum([size for _, size, _ in files])
        goal = most if total <= most else _goal(most)
        now = time.time()
        for used, size, name in files:
            stale = name.endswith(_TEMPORARY) and now - used > _STALE
            if stale or (total > goal and name.endswith(_SUFFIX)):
                place.remove(name)
                total -= size
        return most - total


_room = _Room()
if hasattr(os, "register_at_fork"):
    # A thread that holds the lock does not live on in the child.
    os.register_at_fork(after_in_child=lambda: _room.__init__())  # type: ignore[misc]
