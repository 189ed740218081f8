"""Save and load pytrees of arrays, as ``.npz`` or ``.safetensors``.

A file holds the arrays, each under its path in the tree (``lstm/forward/W``), and one JSON document that says how
they nest. An ``.npz`` is NumPy's own format: a zip archive, not compressed, whose members ``np.load`` can read one by
one. Nothing is ever pickled, so loading a file from a stranger runs no code, and every size that a file claims is held
against the bytes that are there before memory is taken.

A file is written under another name in the same folder, synced to disk and then renamed over the old one, so that
whatever happens in between, power cuts included, there is a whole file of that name: the old one or the new one.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy

from fnflare.errors import ArgumentError, CheckpointError, DtypeError, MissingFileError
from fnflare.tree import TreeDef, _keys_of, flatten_with_path, path_str, unflatten

__all__ = ["load", "save"]

_VERSION = 1
_DOCUMENT = "fnflare.json"  # no leaf's member is called so: theirs end in .npy
_KINDS = "biufcmMUS"  # every kind of dtype that needs no pickle but records
_PLAIN_KEYS = (str, int, bool, float)
_LONGEST_NAME = 200
_ANYTHING = "..."  # in the structure of `like`, in the place of an Ellipsis

_TreePath = tuple[Any, ...]
_Arrays = dict[str, Any]


def save(path: str | os.PathLike[str], tree: Any) -> None:
    """Write a pytree of arrays to a file.

    Args:
        path: the file, ending in ``.npz``, or in ``.safetensors`` where the extra ``fnflare[io]`` is installed. An
            earlier file of that name is replaced in one step once the new one is safely on disk; when saving
            fails it stays as it was.
        tree: any pytree whose leaves are arrays of numbers, booleans, strings or dates, or Python scalars.

    Raises:
        ArgumentError: the path has another suffix.
        DtypeError: a leaf is not such an array; names its path.
        MissingFileError: the folder does not exist.
        ImportError: ``.safetensors`` without the extra.

    >>> import tempfile
    >>> params = {"dense": {"W": np.ones((2, 3), np.float32), "b": np.zeros(3, np.float32)}, "steps": 7}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ff.save(folder + "/model.npz", params)
    ...     ff.load(folder + "/model.npz", like=params)["steps"]
    7
    """
    path = Path(path)
    form = _form_of(path, "save")
    pairs, treedef = flatten_with_path(tree)
    names = _names([p for p, _ in pairs])
    arrays = {name: _to_array(p, leaf) for name, (p, leaf) in zip(names, pairs, strict=True)}
    structure = _encode(treedef, iter(names))
    with _replacing(path) as file:
        form.write(file, {"format": "fnflare", "version": _VERSION, "structure": structure}, arrays)


def load(path: str | os.PathLike[str], like: Any = None) -> Any:
    """Read a pytree that `save` wrote.

    Args:
        path: the file, ending in ``.npz`` or ``.safetensors``.
        like: a tree of the structure, shapes and dtypes that the file must have, such as freshly initialised
            parameters (or what `eval_shape` says of them). Named tuples, dataclasses and other registered classes
            come back as `like` has them, and what is a Python scalar in it comes back as a Python scalar. Where it
            has an Ellipsis, ``{"params": params, "notes": ...}``, the file may have anything.

    Returns:
        The tree, with arrays of their own that may be written to. Without `like`, and in the place of an Ellipsis, it
        is made of dicts, lists, tuples and None, and Python scalars come back as arrays of shape ().

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: the file is truncated, was not written by `save`, or differs from `like`; the message names
            the first path that differs. Also where it holds a registered class and `like` is not given.
        ImportError: ``.safetensors`` without the extra.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ff.save(folder + "/pair.npz", (np.arange(3), None))
    ...     ff.load(folder + "/pair.npz")
    (array([0, 1, 2]), None)
    """
    path = Path(path)
    form = _form_of(path, "load")
    if not path.exists():
        raise MissingFileError(f"{path}: there is no such file; it would be one that fnflare.save wrote")
    if not path.is_file():  # a folder; or a device or pipe, which may have no end
        raise CheckpointError(f"{path}: is {'a folder' if path.is_dir() else 'no regular file'}")
    try:
        document, arrays = form.read(path)
        structure = _structure_of(document)
        _check_members(structure, arrays)
        return _rebuild(structure, arrays, ()) if like is None else _fill(like, structure, arrays)
    except _DamageError as damage:
        raise CheckpointError(f"{path}: {damage}") from damage.__cause__
    except RecursionError as error:
        raise CheckpointError(f"{path}: the tree in it nests too deep for Python; the file is damaged") from error


class _DamageError(Exception):
    """What is wrong with a file; `load` puts the file's name in front."""


# ---------------------------------------------------------------- the structure, as JSON


def _encode(treedef: TreeDef, names: Iterator[str]) -> Any:
    """The structure of a tree as JSON: a leaf is the name of its array, None is null, a list is a list."""
    kind = treedef.kind
    if kind is None:
        return next(names)
    if kind is type(None):
        return None
    values = [_encode(child, names) for child in treedef.children]
    if kind is list:
        return values
    if kind is tuple:
        return {"tuple": values}
    keys = _keys_of(treedef)
    if kind is dict and all(type(k) in _PLAIN_KEYS for k in keys):
        return {"dict": list(keys), "values": values}
    return {"class": kind.__name__, "keys": [str(k) for k in keys], "values": values}


class _Node(NamedTuple):
    """One node of an encoded structure, checked."""

    kind: str  # "tuple", "list", "dict" or the name of a class
    plain: bool  # whether it can be rebuilt without `like`
    keys: list[Any]
    values: list[Any]


def _node(code: Any, path: _TreePath) -> _Node:
    match code:
        case list():
            return _Node("list", True, list(range(len(code))), code)
        case {"tuple": list(values), **rest} if not rest:
            return _Node("tuple", True, list(range(len(values))), values)
        case {"dict": list(keys), "values": list(values), **rest} if not rest:
            if len(keys) == len(values) and all(type(k) in _PLAIN_KEYS for k in keys) and len(set(keys)) == len(keys):
                return _Node("dict", True, keys, values)
        case {"class": str(kind), "keys": list(keys), "values": list(values), **rest} if not rest:
            if len(keys) == len(values) and all(type(k) is str for k in keys):
                return _Node(kind, False, keys, values)
    raise _DamageError(f"the description of the tree's structure is damaged {_at(path)}")


def _leaf_names(code: Any, path: _TreePath = ()) -> Iterator[tuple[_TreePath, str]]:
    if code is None:
        return
    if isinstance(code, str):
        yield path, code
        return
    node = _node(code, path)
    for key, value in zip(node.keys, node.values, strict=True):
        yield from _leaf_names(value, (*path, key))


def _check_members(structure: Any, arrays: _Arrays) -> None:
    """Holds the arrays of a file against its structure."""
    seen: set[str] = set()
    for path, name in _leaf_names(structure):
        if name not in arrays or name in seen:
            raise _DamageError(f"the array {_at(path)}, called {name!r} in the file, is missing; the file is damaged")
        seen.add(name)
    extra = sorted(set(arrays) - seen)
    if extra:
        raise _DamageError(f"holds an array {extra[0]!r} that is no part of its tree; the file is foreign or damaged")


def _rebuild(code: Any, arrays: _Arrays, path: _TreePath) -> Any:
    """The tree in plain containers."""
    if code is None:
        return None
    if isinstance(code, str):
        return arrays[code]
    node = _node(code, path)
    if not node.plain:
        raise _DamageError(f"holds a {node.kind} {_at(path)}; pass like=, a tree with the same structure, to load it")
    values = [_rebuild(value, arrays, (*path, key)) for key, value in zip(node.keys, node.values, strict=True)]
    if node.kind == "dict":
        return dict(zip(node.keys, values, strict=True))
    return values if node.kind == "list" else tuple(values)


def _fill(like: Any, structure: Any, arrays: _Arrays) -> Any:
    """The tree in the containers of `like`, whose structure, shapes and dtypes the file must have."""
    pairs, treedef = flatten_with_path(like)
    expected = _encode(treedef, iter([_ANYTHING if leaf is ... else "" for _, leaf in pairs]))
    difference = _difference(expected, structure, ())
    if difference:
        raise _DamageError(difference)
    codes = _counterparts(expected, structure)
    return unflatten(treedef, [_fill_leaf(p, leaf, code, arrays) for code, (p, leaf) in zip(codes, pairs, strict=True)])


def _counterparts(expected: Any, got: Any) -> Iterator[Any]:
    """What an encoded structure has at the leaves of another, from which it does not differ."""
    if isinstance(expected, str):
        yield got
    elif expected is not None:
        for a, b in zip(_node(expected, ()).values, _node(got, ()).values, strict=True):
            yield from _counterparts(a, b)


def _fill_leaf(path: _TreePath, like: Any, code: Any, arrays: _Arrays) -> Any:
    return _rebuild(code, arrays, path) if like is ... else _fit(path, like, arrays[code])


def _difference(expected: Any, got: Any, path: _TreePath) -> str | None:
    """Says how two encoded structures differ at the first path where they do; None where they do not."""
    if expected == _ANYTHING:
        return None
    if isinstance(expected, str) or expected is None or isinstance(got, str) or got is None:
        same = type(expected) is type(got)
        return None if same else f"{_at(path)} like= has {_kind(expected, path)}, the file has {_kind(got, path)}"
    a, b = _node(expected, path), _node(got, path)
    if (a.kind, a.plain) != (b.kind, b.plain):
        return f"{_at(path)} like= has {_kind(expected, path)}, the file has {_kind(got, path)}"
    if a.keys != b.keys:
        missing, extra = [k for k in a.keys if k not in b.keys], [k for k in b.keys if k not in a.keys]
        parts = [f"the file lacks {missing}"] * bool(missing) + [f"the file has {extra} besides"] * bool(extra)
        return f"{_at(path)} {' and '.join(parts) or f'like= has the keys {a.keys}, the file has {b.keys}'}"
    differences = (_difference(x, y, (*path, k)) for k, x, y in zip(a.keys, a.values, b.values, strict=True))
    return next((d for d in differences if d), None)


def _kind(code: Any, path: _TreePath) -> str:
    if code is None or isinstance(code, str):
        return "None" if code is None else "an array"
    return f"a {_node(code, path).kind}"


def _at(path: _TreePath) -> str:
    return f"at {path_str(path)!r}" if path else "at the root of the tree"


# ---------------------------------------------------------------- leaves


def _to_array(path: _TreePath, leaf: Any) -> np.ndarray[Any, Any]:
    array = np.asarray(leaf)
    if array.dtype.kind not in _KINDS or array.dtype.itemsize == 0:
        raise DtypeError(
            f"save: the leaf {_at(path)} is a {type(leaf).__name__} of dtype {array.dtype}; expected an array of "
            "numbers, booleans, strings or dates: convert it, or leave it out (tree.partition, or None in its place)"
        )
    return array


def _fit(path: _TreePath, like: Any, array: Any) -> Any:
    """Checks an array of the file against the leaf of `like` in whose place it goes."""
    if type(like) in (bool, int, float, complex):
        # A Python scalar is weak in NumPy's promotion and an array is not: float32 would not stay float32.
        if array.shape != () or array.dtype.kind not in np.asarray(like).dtype.kind + "u" * (type(like) is int):
            what = f"the file has dtype {array.dtype} and shape {array.shape}"
            raise _DamageError(f"{_at(path)} like= has a Python {type(like).__name__}, {what}")
        return array.item()
    shape, dtype = (like.shape, like.dtype) if hasattr(like, "dtype") else (np.shape(like), np.asarray(like).dtype)
    if tuple(shape) != array.shape:
        raise _DamageError(f"{_at(path)} like= has shape {tuple(shape)}, the file has {array.shape}")
    if dtype != array.dtype:
        raise _DamageError(f"{_at(path)} like= has dtype {dtype}, the file has {array.dtype}")
    return array


def _names(paths: Sequence[_TreePath]) -> list[str]:
    """A name for the array at each path: readable, unique, and harmless where a tool unpacks the archive."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for path in paths:
        name = "/".join(_escape(str(key)) for key in path)[:_LONGEST_NAME] or "value"
        count = seen[name] = seen.get(name, -1) + 1
        names.append(f"{name}#{count}" if count else name)
    return names


def _escape(key: str) -> str:
    # A leading dot or slash would lead out of a folder, safetensors reserves __metadata__, # numbers equal names.
    code = re.sub(r"[^\w.+=, ()\[\]-]|^\.|^_(?=_)", lambda m: "".join(f"%{ord(c):02X}" for c in m[0]), key)
    return code or "%"


# ---------------------------------------------------------------- files


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of `path` once it is whole and on disk, or else vanishes."""
    target = path.resolve()  # through a link to the file that it names, so that the link stays
    folder = target.parent
    if not folder.is_dir():
        raise MissingFileError(f"{path}: there is no folder {str(folder)!r}; make it before saving into it")
    begin = f".{target.name[:100]}."
    _sweep(folder, begin)
    temporary, file = _temporary(folder, begin)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name == "nt":  # there a file that is open cannot be moved, and has no lock to keep until it is
                file.close()
            temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(folder)


def _temporary(folder: Path, begin: str) -> tuple[Path, IO[bytes]]:
    """A new file, locked for as long as it is open, which tells others that somebody writes it."""
    while True:
        path = folder / f"{begin}{os.urandom(8).hex()}.tmp"
        file = path.open("xb")
        if not _lock(file, wait=True) or os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # somebody else's sweep was quicker than the lock


def _sweep(folder: Path, begin: str) -> None:
    """Remove what processes have left that were killed while they saved: files that nobody holds any more."""
    for path in folder.iterdir():
        if path.name.startswith(begin) and re.fullmatch(r"[0-9a-f]{16}\.tmp", path.name[len(begin) :]):
            with contextlib.suppress(OSError), path.open("rb") as file:
                if _lock(file, wait=False):
                    path.unlink()


def _lock(file: IO[bytes], wait: bool) -> bool:
    """Whether a file that is open is now this one's alone; False also where the system has no such locks."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Put a rename on disk; Windows offers no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _structure_of(document: Any) -> Any:
    match document:
        case {"format": "fnflare", "version": int(version), "structure": structure}:
            if version == _VERSION:
                return structure
            raise _DamageError(
                f"is of version {version} of the format, this fnflare reads version {_VERSION}; update it"
            )
    raise _DamageError("is not a file that fnflare.save wrote")


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _DamageError("the description of the tree's structure is not JSON; the file is damaged") from error


class _Form(NamedTuple):
    """A file format."""

    write: Callable[[IO[bytes], Any, _Arrays], None]
    read: Callable[[Path], tuple[Any, _Arrays]]


def _form_of(path: Path, caller: str) -> _Form:
    if path.suffix not in _FORMS:
        raise ArgumentError(f"{caller}: {str(path)!r} ends in {path.suffix!r}; expected {' or '.join(_FORMS)}")
    return _FORMS[path.suffix]


# ---------------------------------------------------------------- .npz


#: What zipfile lets through of what it does not expect in a damaged directory.
_UNCAUGHT = (ValueError, LookupError, OverflowError, struct.error, zlib.error)


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # no clock: equal trees make equal files


def _write_npz(file: IO[bytes], document: Any, arrays: _Arrays) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_entry(_DOCUMENT), json.dumps(document))
        for name, array in arrays.items():
            with archive.open(_entry(name + ".npy"), "w", force_zip64=True) as member:
                npy.write_array(member, array, allow_pickle=False)


def _read_npz(path: Path) -> tuple[Any, _Arrays]:
    with path.open("rb") as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read_archive(archive, path.stat().st_size)
        except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, *_UNCAUGHT) as error:
            raise _DamageError(f"is truncated, damaged or no .npz archive ({error})") from error


def _read_archive(archive: zipfile.ZipFile, size: int) -> tuple[Any, _Arrays]:
    names = archive.namelist()
    if _DOCUMENT not in names:
        raise _DamageError("is not a file that fnflare.save wrote; np.load reads plain .npz archives")
    if sum(info.file_size for info in archive.infolist()) > size:  # members that share their bytes
        raise _DamageError("its members claim more bytes than the file has")
    document = _parse(_read_member(archive, archive.getinfo(_DOCUMENT), size))
    arrays: _Arrays = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in arrays or (name == info.filename != _DOCUMENT):
            raise _DamageError(
                f"holds a member {info.filename!r} that is no part of its tree; it is foreign or damaged"
            )
        if name != info.filename:
            arrays[name] = _parse_npy(name, _read_member(archive, info, size))
    return document, arrays


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> bytes:
    # Members are stored as they are, so one that claims more bytes than the file has is a trick or damage.
    if info.compress_type != zipfile.ZIP_STORED or info.file_size > size:
        raise _DamageError(f"its member {info.filename!r} is compressed or claims more bytes than the file has")
    body = archive.read(info)
    if len(body) != info.file_size:
        raise _DamageError(f"its member {info.filename!r} ends after {len(body)} of {info.file_size} bytes")
    return body


def _parse_npy(name: str, body: bytes) -> np.ndarray[Any, Any]:
    member = io.BytesIO(body)
    try:
        version = npy.read_magic(member)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, fortran, dtype = read_header(member)
    except Exception as error:  # a foreign header fails in NumPy's parsers in their own ways, TokenError among them
        raise _DamageError(f"its member {name!r} is no array in NumPy's format ({error})") from error
    return _from_bytes(name, memoryview(body)[member.tell() :], shape, dtype, "F" if fortran else "C")


def _from_bytes(
    name: str, body: memoryview, shape: tuple[int, ...], dtype: np.dtype[Any], order: Literal["C", "F"] = "C"
) -> np.ndarray[Any, Any]:
    if dtype.kind not in _KINDS or dtype.itemsize == 0:
        raise _DamageError(f"its array {name!r} has dtype {dtype}, which needs pickle or records; it is refused")
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(body):
        raise _DamageError(f"its array {name!r} claims shape {shape} of {dtype} and has {len(body)} bytes")
    try:
        return np.ndarray(shape, dtype, buffer=body, order=order).copy(order="K")
    except (ValueError, OverflowError) as error:  # more than 64 axes, or (0, 10**30)
        raise _DamageError(f"its array {name!r} claims shape {shape}, which is impossible ({error})") from error


# ---------------------------------------------------------------- .safetensors

_NATIVE = {"|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"}


def _import_safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(".safetensors files need the extra: pip install 'fnflare[io]'; .npz needs none") from None
    return safetensors


def _write_safetensors(file: IO[bytes], document: Any, arrays: _Arrays) -> None:
    safetensors = _import_safetensors()
    # Dtypes that the format lacks (complex, strings, big-endian ...) go in as bytes; the document says what they are.
    raw = {name: [a.dtype.str, list(a.shape)] for name, a in arrays.items() if a.dtype.str not in _NATIVE}
    stored = {
        name: np.frombuffer(a.tobytes(), np.uint8) if name in raw else np.asarray(a, order="C")
        for name, a in arrays.items()
    }
    document = {**document, "raw": raw}
    document["crc32"] = _checksum(document, stored)
    file.write(safetensors.numpy.save(stored, {"fnflare": json.dumps(document)}))


def _read_safetensors(path: Path) -> tuple[Any, _Arrays]:
    safetensors = _import_safetensors()
    try:
        with safetensors.safe_open(os.fspath(path), framework="np") as file:
            metadata = file.metadata() or {}
            if "fnflare" not in metadata:
                raise _DamageError("is not a file that fnflare.save wrote; safetensors.numpy.load_file reads others")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        raise _DamageError(f"is truncated, damaged or no .safetensors file ({error})") from error
    document = _parse(metadata["fnflare"])
    if not isinstance(document, dict) or document.pop("crc32", None) != _checksum(document, arrays):
        raise _DamageError("does not have the checksum that it was saved with; it was damaged or changed since")
    raw = document.pop("raw", None)
    if not isinstance(raw, dict):
        raise _DamageError("the description of its arrays is damaged")
    return document, {name: _cooked(name, array, raw.get(name)) for name, array in arrays.items()}


def _checksum(document: Any, arrays: _Arrays) -> int:
    """What tells a flipped bit, since the format itself has no checksums (an ``.npz`` has)."""
    total = zlib.crc32(json.dumps(document).encode())
    for name in sorted(arrays):
        total = zlib.crc32(np.reshape(arrays[name], -1).view(np.uint8).data, zlib.crc32(name.encode(), total))
    return total


def _cooked(name: str, array: np.ndarray[Any, Any], raw: Any) -> np.ndarray[Any, Any]:
    """The array whose bytes a file holds in place of a dtype that the format lacks."""
    if raw is None:
        return array
    match raw:
        case [str(code), list(shape)] if all(type(n) is int for n in shape):
            with contextlib.suppress(TypeError):
                return _from_bytes(name, memoryview(array.tobytes()), tuple(shape), np.dtype(code))
    raise _DamageError(f"the description of its array {name!r} is damaged")


_FORMS = {".npz": _Form(_write_npz, _read_npz), ".safetensors": _Form(_write_safetensors, _read_safetensors)}
