"""Saving and loading: what goes in comes back, and what is not whole is refused by name."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import stat
import sys
import zipfile
import zlib
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fnflare import tree
from fnflare.errors import ArgumentError, CheckpointError, DtypeError, MissingFileError
from fnflare.io import load, save
from fnflare.padded import Padded, pad

# Threads would share the file that the fixture names; the last test has some of its own.
pytestmark = pytest.mark.thread_unsafe(reason="threads would share the file")

SUFFIXES = ["npz", "safetensors"]
PARAMS = {
    "lstm": {"W": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.zeros(3, np.float32)},
    "head": (1, None),
}


@pytest.fixture(params=SUFFIXES)
def file(request, tmp_path):
    if request.param == "safetensors":
        pytest.importorskip("safetensors", reason="the extra fnflare[io] is not installed")
    return tmp_path / f"model.{request.param}"


class Moments(NamedTuple):
    mean: Any
    square: Any


@tree.register_dataclass
@dataclasses.dataclass
class Affine:
    W: Any
    b: Any


DTYPES = ["?", "i1", "u1", "<i2", "<u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16", ">f4", ">i2", "U3", "S2", "M8[s]"]
LEAVES = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
TEXTS = st.sampled_from(["", "a", "..", "/", "../x", "a/b", "\\", "__metadata__", "%", "#1", "é", "\ud800", "x" * 300])
KEYS = st.one_of(st.lists(TEXTS, unique=True, max_size=3), st.lists(st.integers(-3, 99), unique=True, max_size=3))
TREES = st.recursive(
    st.one_of(LEAVES, st.none()),
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        KEYS.flatmap(lambda keys: st.fixed_dictionaries(dict.fromkeys(keys, children))),
    ),
    max_leaves=6,
)
SHARED_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_same(a, b):
    assert tree.structure(a) == tree.structure(b)
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        assert x.tobytes() == y.tobytes()


# ---------------------------------------------------------------- round trips


@SHARED_FOLDER
@given(TREES)
def test_any_tree_comes_back(file, value):
    save(file, value)
    assert_same(load(file), value)
    assert_same(load(file, like=value), value)


@SHARED_FOLDER
@given(TREES)
def test_registered_classes_come_back_in_the_structure_of_like(file, value):
    value = Moments(Affine(value, [value]), OrderedDict(z=value, a=(value,)))
    save(file, value)
    assert_same(load(file, like=value), value)


def test_registered_class_without_like_asks_for_it(file):
    save(file, {"batch": [pad([[1], [2, 3]])]})
    with pytest.raises(CheckpointError, match=r"model.*Padded at 'batch/0'; pass like="):
        load(file)
    assert isinstance(load(file, like={"batch": [Padded(np.zeros((2, 2), int), np.zeros(2, int))]})["batch"][0], Padded)


def test_dict_whose_keys_json_lacks_comes_back_with_like(file):
    value = {(0, 1): np.ones(2), (0, 2): np.zeros(1)}
    save(file, value)
    assert_same(load(file, like=value), value)
    with pytest.raises(CheckpointError, match="pass like="):
        load(file)


def test_python_scalars_are_arrays_alone_and_scalars_in_like(file):
    value = {"flag": True, "step": 3, "rate": 0.1, "z": 1 + 2j}
    save(file, value)
    alone = load(file)
    assert {k: (v.shape, v.dtype) for k, v in alone.items()} == {k: ((), np.asarray(v).dtype) for k, v in value.items()}
    back = load(file, like=value)
    assert back == value
    assert [type(back[k]) for k in value] == [bool, int, float, complex]


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3).T, np.arange(10)[::2], np.broadcast_to(1.5, (2, 2))])
def test_views_are_saved_by_their_values(file, array):
    save(file, array)
    np.testing.assert_array_equal(load(file), array)


def test_loaded_arrays_may_be_written_to(file):
    save(file, PARAMS)
    back = load(file)
    back["lstm"]["W"] += 1
    np.testing.assert_array_equal(back["lstm"]["W"], PARAMS["lstm"]["W"] + 1)


def test_an_ellipsis_in_like_takes_what_the_file_has(file):
    notes = {"losses": [np.arange(3.0), np.arange(2)], "tag": ("a", None)}
    save(file, {"params": Affine(1.5, np.ones(2)), "notes": notes, "steps": 7, "nothing": None})
    back = load(file, like={"params": Affine(0.0, np.zeros(2)), "notes": ..., "steps": ..., "nothing": ...})
    assert back["params"].W == 1.5
    assert_same(back["notes"], tree.map(np.asarray, notes))
    assert_same(back["steps"], np.asarray(7))
    assert back["nothing"] is None
    with pytest.raises(CheckpointError, match="at 'params/b' like= has shape"):
        load(file, like={"params": Affine(0.0, np.zeros(3)), "notes": ..., "steps": ..., "nothing": ...})
    with pytest.raises(CheckpointError, match="Affine at 'params'; pass like="):
        load(file, like={"params": ..., "notes": ..., "steps": ..., "nothing": ...})


def test_like_may_be_shapes_alone(file):
    class Spec:
        shape, dtype = (2, 3), np.dtype(np.float32)

    save(file, {"W": PARAMS["lstm"]["W"]})
    np.testing.assert_array_equal(load(file, like={"W": Spec()})["W"], PARAMS["lstm"]["W"])


def test_equal_trees_make_equal_files(file):
    save(file, PARAMS)
    first = file.read_bytes()
    save(file, PARAMS)
    assert file.read_bytes() == first


def test_arrays_are_found_under_their_paths_by_other_readers(file):
    save(file, PARAMS)
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            found = archive["lstm/W"]
    else:
        found = pytest.importorskip("safetensors.numpy").load_file(file)["lstm/W"]
    np.testing.assert_array_equal(found, PARAMS["lstm"]["W"])


# ---------------------------------------------------------------- what does not match


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": np.ones((2, 4), np.float32), "b": [1, 2.0]}, r"at 'a' like= has shape \(2, 4\), the file has \(2, 3\)"),
        ({"a": np.ones((2, 3)), "b": [1, 2.0]}, "at 'a' like= has dtype float64, the file has float32"),
        ({"a": np.ones((2, 3), np.float32), "b": (1, 2.0)}, "at 'b' like= has a tuple, the file has a list"),
        ({"a": np.ones((2, 3), np.float32), "b": [1]}, r"at 'b' the file has \[1\] besides"),
        ({"a": np.ones((2, 3), np.float32), "b": [1, {}]}, "at 'b/1' like= has a dict, the file has an array"),
        ({"a": None, "b": [1, 2.0]}, "at 'a' like= has None, the file has an array"),
        ({"a": np.ones((2, 3), np.float32), "c": [1, 2.0]}, r"at the root of the tree the file lacks \['c'\]"),
        (
            {"a": np.ones((2, 3), np.float32), "b": [1, 2]},
            "at 'b/1' like= has a Python int, the file has dtype float64",
        ),
        ({"a": 0.5, "b": [1, 2.0]}, r"at 'a' like= has a Python float, .* shape \(2, 3\)"),
    ],
)
def test_mismatch_names_the_file_and_the_first_path(file, like, message):
    save(file, {"a": np.ones((2, 3), np.float32), "b": [1, 2.0]})
    with pytest.raises(CheckpointError, match=rf"model\..*: {message}"):
        load(file, like=like)


def test_other_class_of_the_same_fields_is_a_mismatch(file):
    save(file, Moments(np.ones(1), np.ones(1)))
    with pytest.raises(CheckpointError, match="like= has a Padded, the file has a Moments"):
        load(file, like=Padded(np.ones(1), np.ones(1)))


# ---------------------------------------------------------------- what is not whole


def test_file_cut_anywhere_is_refused(file):
    save(file, PARAMS)
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\."):
            load(file)


@SHARED_FOLDER
@given(st.data())
def test_flipped_byte_is_refused_or_harmless(file, data):
    save(file, PARAMS)
    broken = bytearray(file.read_bytes())
    broken[data.draw(st.integers(0, len(broken) - 1))] ^= data.draw(st.integers(1, 255))
    file.write_bytes(broken)
    try:
        back = load(file)
    except CheckpointError:
        return
    assert_same(back, tree.map(np.asarray, PARAMS))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", bytes(range(256)) * 9])
def test_foreign_file_is_refused(file, content):
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\..*(no \.npz|no \.safetensors)"):
        load(file)


def test_archives_of_others_are_refused(file):
    if file.suffix == ".npz":
        np.savez(file, W=np.ones(2), objects=np.array([{}], dtype=object))
    else:
        pytest.importorskip("safetensors.numpy").save_file({"W": np.ones(2)}, file)
    with pytest.raises(CheckpointError, match=r"is not a file that fnflare\.save wrote"):
        load(file)


def test_missing_file_is_named(file):
    with pytest.raises(MissingFileError, match=file.name):
        load(file)


def header_of(shape, dtype):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"shape": shape, "fortran_order": False, "descr": dtype})
    return buffer.getvalue()


def write_archive(file, members, structure="x", compression=zipfile.ZIP_STORED):
    document = {"format": "fnflare", "version": 1, "structure": structure}
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("fnflare.json", json.dumps(document))
        for name, content in members:
            archive.writestr(name, content)


GOOD = header_of((2,), "<f8") + bytes(16)


@pytest.mark.parametrize(
    ("members", "structure", "message"),
    [
        ([("x.npy", header_of((10**15,), "<f8") + bytes(16))], "x", r"claims shape \(1000000000000000,\)"),
        ([("x.npy", header_of((-2,), "<f8") + bytes(16))], "x", "claims shape"),
        ([("x.npy", header_of((0, 10**30), "<f8"))], "x", "impossible"),
        ([("x.npy", header_of((1,) * 99, "<f8") + bytes(8))], "x", "impossible"),
        ([("x.npy", header_of((2,), "|O") + bytes(16))], "x", "pickle"),
        ([("x.npy", b"\x80\x04K\x01.")], "x", "no array in NumPy's format"),
        ([("x.npy", b"\x93NUMPY\x01\x00\x10\x27" + b"(" * 10000)], "x", "no array in NumPy's format"),
        ([], "x", "array at the root of the tree, called 'x' in the file, is missing"),
        ([("x.npy", GOOD), ("../../evil.npy", GOOD)], "x", r"'\.\./\.\./evil' that is no part"),
        ([("x.npy", GOOD), ("/etc/evil", b"")], "x", "'/etc/evil' that is no part"),
        ([("x.npy", GOOD)], ["x", "x"], "array at '1'"),
        ([("x.npy", GOOD)], {"a": {"tuple": ["x"]}}, "damaged at the root"),
        ([("x.npy", GOOD)], {"tuple": [{"dict": ["a", "a"], "values": ["x", None]}]}, "damaged at '0'"),
        ([("x.npy", GOOD)], {"class": "C", "keys": ["a"], "values": []}, "damaged at the root"),
        ([("x.npy", GOOD)], [3, "x"], "damaged at '0'"),
    ],
)
def test_archives_made_to_trick_are_refused(tmp_path, members, structure, message):
    file = tmp_path / "model.npz"
    write_archive(file, members, structure)
    with pytest.raises(CheckpointError, match=rf"model\.npz: .*{message}"):
        load(file)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["model.npz"]


def test_two_members_of_one_name_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_archive(tmp_path / "model.npz", [("x.npy", GOOD), ("x.npy", GOOD)])
    with pytest.raises(CheckpointError, match=r"'x\.npy'"):
        load(tmp_path / "model.npz")


def test_compressed_bomb_is_refused(tmp_path):
    bomb = header_of((10**7,), "|u1") + bytes(10**7)
    write_archive(tmp_path / "model.npz", [("x.npy", bomb)], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        load(tmp_path / "model.npz")


def test_absurdly_deep_structure_is_refused(tmp_path):
    deep = "[" * 5000 + "]" * 5000
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as archive:
        archive.writestr("fnflare.json", f'{{"format": "fnflare", "version": 1, "structure": {deep}}}')
    with pytest.raises(CheckpointError, match=r"model\.npz"):
        load(tmp_path / "model.npz")


@pytest.mark.parametrize("raw", [None, [], {"x": 3}, {"x": ["<f8", [99]]}, {"x": ["O", [2]]}, {"x": ["spam", [2]]}])
def test_safetensors_made_to_trick_are_refused(tmp_path, raw):
    safetensors = pytest.importorskip("safetensors.numpy", reason="the extra fnflare[io] is not installed")
    document = {"format": "fnflare", "version": 1, "structure": "x", "raw": raw}
    crc = zlib.crc32(bytes(16), zlib.crc32(b"x", zlib.crc32(json.dumps(document).encode())))
    text = json.dumps({**document, "crc32": crc})
    safetensors.save_file({"x": np.zeros(16, np.uint8)}, tmp_path / "model.safetensors", {"fnflare": text})
    with pytest.raises(CheckpointError, match=r"description of its array|claims shape|pickle"):
        load(tmp_path / "model.safetensors")


def test_later_version_of_the_format_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as archive:
        archive.writestr("fnflare.json", '{"format": "fnflare", "version": 2, "structure": null}')
    with pytest.raises(CheckpointError, match="version 2 of the format, this fnflare reads version 1"):
        load(tmp_path / "model.npz")


# ---------------------------------------------------------------- saving


def test_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match=r"'\.pkl'; expected \.npz or \.safetensors"):
        save(tmp_path / "model.pkl", PARAMS)
    with pytest.raises(ArgumentError, match="load"):
        load(tmp_path / "model")


@pytest.mark.parametrize("leaf", [object(), np.array([None]), np.zeros(2, "i4,f4"), len, {1, 2}])
def test_leaf_that_is_no_array_is_named_and_the_earlier_file_stays(file, leaf):
    save(file, PARAMS)
    before = file.read_bytes()
    with pytest.raises(DtypeError, match="leaf at 'head/1'"):
        save(file, {"head": [1, leaf]})
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("broken", ["fsync", "write"])
def test_failed_save_leaves_the_earlier_file_whole_and_nothing_else(tmp_path, monkeypatch, broken):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "no space left")

    file = tmp_path / "model.npz"
    save(file, PARAMS)
    before = file.read_bytes()
    if broken == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="no space left"):
        save(file, tree.map(lambda x: x + 1, PARAMS))
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
    assert_same(load(file), tree.map(np.asarray, PARAMS))


@pytest.mark.skipif(os.name == "nt", reason="files that somebody writes are told by the locks of POSIX")
def test_saving_removes_what_killed_processes_left_and_nothing_else(file):
    left = file.with_name(f".{file.name}.0123456789abcdef.tmp")
    others = [".model.other.0123456789abcdef.tmp", f".{file.name}.mine.tmp", f"{file.name}.0123456789abcdef.tmp"]
    for path in (left, *map(file.with_name, others)):
        path.write_bytes(b"half")
    written = file.with_name(f".{file.name}.fedcba9876543210.tmp")
    with written.open("xb") as another:
        fcntl = pytest.importorskip("fcntl")
        fcntl.flock(another, fcntl.LOCK_EX)  # as a process has that is saving to the same file now
        save(file, PARAMS)
        assert {path.name for path in file.parent.iterdir()} == {file.name, written.name, *others}
    save(file, PARAMS)
    assert {path.name for path in file.parent.iterdir()} == {file.name, *others}


def test_file_and_folder_are_synced_before_and_after_the_rename(tmp_path, monkeypatch):
    calls = []
    real = os.fsync

    def fsync(handle):
        kind = "folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file"
        calls.append((kind, (tmp_path / "model.npz").exists()))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    save(tmp_path / "model.npz", PARAMS)
    assert calls[0] == ("file", False)
    assert calls[1:] == ([] if os.name == "nt" else [("folder", True)])


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(MissingFileError, match="no folder"):
        save(tmp_path / "nowhere" / "model.npz", PARAMS)


@pytest.mark.skipif(os.name == "nt", reason="symbolic links and modes are POSIX's")
def test_link_stays_and_mode_is_that_of_any_new_file(tmp_path):
    (tmp_path / "latest.npz").symlink_to(tmp_path / "step-1.npz")
    save(tmp_path / "latest.npz", PARAMS)
    (tmp_path / "plain").touch()
    assert (tmp_path / "latest.npz").is_symlink()
    assert (tmp_path / "step-1.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r"pip install 'fnflare\[io\]'"):
        save(tmp_path / "model.safetensors", PARAMS)
    assert list(tmp_path.iterdir()) == []


def test_threads_save_and_load_at_once(file):
    """Some a file of their own, all of them one that they share: what is read is always one tree, and whole."""
    trees = [{"W": np.full((50, 40), float(i)), "b": [np.full(7, i)]} for i in range(4)]
    save(file, trees[0])
    wrong = []

    def work(i):
        own = file.with_name(f"{i}{file.suffix}")
        for _ in range(10):
            save(own, trees[i])
            save(file, trees[i])
            mine, shared = load(own), load(file)
            if not tree.equal(mine, trees[i]) or not any(tree.equal(shared, t) for t in trees):
                wrong.append(i)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert wrong == []
    assert len(list(file.parent.iterdir())) == 5
