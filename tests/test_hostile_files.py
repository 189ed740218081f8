"""Whatever a file holds, a reader gives data or a typed error that names the file: no crash, no code that runs, no
memory out of proportion to the file."""

import gzip
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile_files import READERS, damaged, npz_of, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fnflare as ff
from fnflare import data
from fnflare.errors import CheckpointError, DataFileError

fuzz = settings(
    max_examples={"ci": 100, "thorough": 20_000}.get(os.environ.get("HYPOTHESIS_PROFILE", "dev"), 60),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def refusal(read, *args, **keywords):
    """What a reader says of a file that it refuses; None where it reads it. Any other error fails."""
    try:
        read(*args, **keywords)
    except (CheckpointError, DataFileError) as error:
        return str(error)
    return None


def reads_or_refuses(readable, folder):
    """Read; what is wrong with the file has to be said in a typed error that names it."""
    message = refusal(readable, folder)
    assert message is None or (str(folder) in message and len(message) < 1000)


@pytest.mark.parametrize("name", READERS)
def test_whole_files_are_read(tmp_path, name):
    for content in (READERS[name].content, gzip.compress(READERS[name].content)):
        write(tmp_path, READERS[name], content)
        if not name.startswith("load") or content is READERS[name].content:
            READERS[name](tmp_path)


@pytest.mark.parametrize("name", READERS)
@given(content=st.data())
@fuzz
def test_damaged_files_are_read_or_refused(tmp_path, name, content):
    write(tmp_path, READERS[name], content.draw(damaged(READERS[name].content)))
    reads_or_refuses(READERS[name], tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_files_cut_at_every_byte_are_read_or_refused(tmp_path, name):
    for packed in (READERS[name].content, gzip.compress(READERS[name].content)):
        for end in range(0, len(packed), 1 + len(packed) // 300):
            write(tmp_path, READERS[name], packed[:end])
            reads_or_refuses(READERS[name], tmp_path)


@pytest.mark.parametrize("name", [n for n in READERS if n not in ("imdb", "sst", "mnist")])
def test_folders_devices_and_pipes_are_refused(tmp_path, name):
    path = tmp_path / READERS[name].name
    path.mkdir()
    with pytest.raises((CheckpointError, DataFileError), match="a folder"):
        READERS[name](tmp_path)
    path.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)
        with pytest.raises((CheckpointError, DataFileError), match="no regular file"):
            READERS[name](tmp_path)
        path.unlink()
        path.symlink_to("/dev/zero")
        with pytest.raises((CheckpointError, DataFileError), match="no regular file"):
            READERS[name](tmp_path)


# -- files made to do harm ----------------------------------------------------------------------------------------


class _Evil:
    def __reduce__(self):
        return os.system, ("echo pwned > pwned",)


def npy(header, body=b"", version=(1, 0)):
    """An array in NumPy's format with a header of one's own."""
    text = header if isinstance(header, bytes) else repr(header).encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes(version) + length + text + b"\n" + body


def head(shape, descr="<f8", order=False):
    return {"descr": descr, "fortran_order": order, "shape": shape}


OBJECTS = io.BytesIO()
np.save(OBJECTS, np.array([_Evil()]), allow_pickle=True)

HEADERS = {
    "more than there is": npy(head((2**40,)), b"\0" * 16),
    "2**63 and more": npy(head((2**63, 2**63))),
    "empty and endless": npy(head((0, 2**63))),
    "wraps around to nothing": npy(head((2**32, 2**32)), b""),
    "wraps around to sixteen": npy(head((2**61 + 2,)), b"\0" * 16),
    "negative": npy(head((-1,)), b"\0" * 8),
    "two negative": npy(head((-1, -2)), b"\0" * 16),
    "too many axes": npy(head((1,) * 70), b"\0" * 8),
    "empty elements": npy(head((2**40,), "|S0")),
    "empty unicode": npy(head((2**40,), "<U0")),
    "void": npy(head((2**40,), "|V0")),
    "a huge element": npy(head((0,), "<U400000000")),
    "objects": npy(head((1,), "|O"), b"\0" * 8),
    "records": npy(head((1,), [("x", "<f8")]), b"\0" * 8),
    "no dict": npy(b"[]"),
    "code": npy(b"__import__('os').system('echo pwned > pwned')"),
    "deep": npy(b"(" * 9000),
    "deep lists": npy(b"[" * 90 + b"]" * 90),
    "a long header": npy(b" " * 60000),
    "a header past the end": b"\x93NUMPY\x02\0\xff\xff\xff\xff",
    "another version": npy(head((1,)), b"\0" * 8, version=(9, 9)),
    "utf-8 that is none": npy(b"\xff\xfe", version=(3, 0)),
    "strings past unicode": npy(head((1,), "<U1"), b"\xff\xff\xff\xff"),
    "a bool that is none": npy(head((1,), "|b1"), b"\x07"),
    "pickled": OBJECTS.getvalue(),
    "a pickle": pickle.dumps(_Evil()),
}


#: What is odd, but an array as good as any.
READ = ("strings past unicode", "a bool that is none", "a huge element")


@pytest.mark.parametrize("name", HEADERS)
def test_hostile_arrays_in_archives(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.npz"
    path.write_bytes(npz_of([("a.npy", HEADERS[name])], "a"))
    message = refusal(ff.load, path)
    assert (message is None) == (name in READ)
    assert message is None or str(path) in message
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "name", ["../../evil", "/etc/evil", "C:\\evil", "..\\evil", "a/../../evil", "", "fnflare.json"]
)
def test_names_that_lead_out_of_a_folder_lead_nowhere(tmp_path, name):
    folder = tmp_path / "deep" / "down"
    folder.mkdir(parents=True)
    content = io.BytesIO()
    np.save(content, np.ones(2))
    (folder / "x.npz").write_bytes(npz_of([(f"{name}.npy", content.getvalue())], name))
    before = sorted(tmp_path.rglob("*"))
    message = refusal(ff.load, folder / "x.npz")
    assert message is None or "x.npz" in message
    assert sorted(tmp_path.rglob("*")) == before


def test_pickles_are_refused_whatever_their_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x.npz", "x.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(_Evil()))
        if name.endswith("npz") or "load safetensors" in READERS:
            with pytest.raises(CheckpointError, match=name):
                ff.load(tmp_path / name)
    for read in (data.read_idx, data.read_table, data.read_trees, data.read_vectors, data.read_text):
        with pytest.raises(DataFileError, match=r"x\.npz"):
            read(tmp_path / "x.npz")
    assert not (tmp_path / "pwned").exists()


STRUCTURES = [
    None,
    3,
    True,
    {"tuple": 3},
    {"dict": ["a"], "values": []},
    {"dict": [["a"]], "values": ["a"]},
    {"dict": [None], "values": ["a"]},
    {"dict": ["a", "a"], "values": ["a", "a"]},
    {"dict": [float("nan")], "values": ["a"]},
    {"class": 3},
    ["a", "a"],
    ["b"],
    [[["a"], []], 1.5],
    {"tuple": ["a"], "more": 1},
    {"class": "os.system", "keys": ["x"], "values": ["a"]},
    "\ud800",
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=repr)
@pytest.mark.parametrize("like", [None, {"a": np.ones(2)}, ...])
def test_hostile_structures(tmp_path, structure, like):
    content = io.BytesIO()
    np.save(content, np.ones(2))
    (tmp_path / "x.npz").write_bytes(npz_of([("a.npy", content.getvalue())], structure))
    message = refusal(ff.load, tmp_path / "x.npz", like=like)
    assert message is None or "x.npz" in message


DOCUMENTS = {
    "another format": ('{"format": "other"}', "is not a file that fnflare.save wrote"),
    "no document": ("[]", "is not a file that fnflare.save wrote"),
    "no version": ('{"format": "fnflare", "version": "1", "structure": "a"}', "is not a file that fnflare.save wrote"),
    "a later version": ('{"format": "fnflare", "version": 2, "structure": "a"}', "is of version 2 .* update it"),
    "too deep": (f"{'[' * 100_000}{']' * 100_000}", "structure is not JSON; the file is damaged"),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_of_something_else(tmp_path, name):
    document, message = DOCUMENTS[name]
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("fnflare.json", document)
    assert re.search(message, refusal(ff.load, tmp_path / "x.npz") or "")


def test_members_are_not_compressed(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fnflare.json", '{"format": "fnflare", "version": 1, "structure": "a"}')
    assert "'fnflare.json' is compressed" in (refusal(ff.load, tmp_path / "x.npz") or "")


IDX_HEADERS = {
    "more than there is": bytes([0, 0, 8, 3]) + b"\xff" * 12,
    "two hundred axes": bytes([0, 0, 8, 200]) + struct.pack(">200I", *[1] * 200) + b"\1",
    "empty and endless": bytes([0, 0, 14, 4]) + struct.pack(">4I", 0, 2**32 - 1, 2**32 - 1, 2**32 - 1),
    "all axes, no bytes": bytes([0, 0, 13, 255]),
    "another type": bytes([0, 0, 10, 1, 0, 0, 0, 1, 0]),
}


@pytest.mark.parametrize("name", IDX_HEADERS)
def test_hostile_idx_headers(tmp_path, name):
    (tmp_path / "x").write_bytes(IDX_HEADERS[name])
    with pytest.raises(DataFileError, match="x: "):
        data.read_idx(tmp_path / "x")


LINES = {
    "a count of five thousand digits": (data.read_vectors, b"9" * 5000 + b" 2\nthe x\n"),
    "a dimension past all": (data.read_vectors, b"1 99999999999999999999\nthe 1\nof\n"),
    "a label of many digits": (data.imdb, b"1" * 500 + b"\t9\t0\tfilm\n"),
    "no dimensions": (data.read_vectors, b"1 0\nthe\n"),
    "numbers past float32": (data.read_vectors, b"the 1e300 1\n"),
    "a label of five thousand digits": (data.read_trees, b"(" + b"9" * 5000 + b" a)\n"),
    "a number past int8": (lambda path: data.read_table(path, dtype=np.int8), b"1,nan\n"),
    "a number past float32": (lambda path: data.read_table(path, dtype=np.float32), b"1,1e300\n"),
    "a long word": (data.read_table, b"1,2\n" + b"x" * 100_000 + b",3\n"),
}


@pytest.mark.parametrize("name", LINES)
def test_hostile_lines(tmp_path, name):
    read, content = LINES[name]
    path = tmp_path / ("train.tsv" if read is data.imdb else "x")
    path.write_bytes(content)
    with pytest.raises(DataFileError) as caught:
        read(tmp_path if read is data.imdb else path)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


def test_words_of_a_vocabulary_are_strings():
    for words in ([["a"]], [1, 2], [None]):
        with pytest.raises(ff.errors.ArgumentError, match="expected strings"):
            data.Vocabulary(words)


# -- memory -------------------------------------------------------------------------------------------------------

#: Runs in a process of its own, with little more memory than it has when it begins, and says what each file gave.
LIMITED = """
import json, resource, sys
from pathlib import Path
import numpy as np
import fnflare as ff
from fnflare import data
try:
    import safetensors.numpy
except ImportError:
    pass
folder, allowed = Path(sys.argv[1]), int(sys.argv[2])
pages = int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + allowed,) * 2)
said = {}
for path in sorted(folder.iterdir()):
    reader = path.name.partition(".")[0]
    read = ff.load if reader == "load" else getattr(data, reader)
    try:
        read(path)
    except ff.errors.FnflareError as error:
        said[path.name] = f"{type(error).__name__}: {error}"
    except BaseException as error:
        said[path.name] = f"! {type(error).__name__}: {error}"
    else:
        said[path.name] = "read"
print(json.dumps(said))
"""


def bomb(line, megabytes):
    """A gzip file of a line repeated, a thousandth of what it unpacks to."""
    piece = (line * (2**22 // len(line) + 1))[: 2**22]  # files one after another are a file
    return gzip.compress(piece, mtime=0) * (megabytes // 4)


def overlapping():
    """An archive whose members are all the same bytes: a thousand times a megabyte in one."""
    body = npy(head((2**17,)), b"\0" * 2**20)
    whole = npz_of([("a.npy", body)], {"tuple": [f"m{i}" for i in range(1000)]})
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        info = archive.getinfo("a.npy")
    end = whole.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", whole[end + 16 : end + 20])[0]
    entries, position = [], start
    while position < end:
        lengths = struct.unpack("<3H", whole[position + 28 : position + 34])
        entries.append(whole[position : position + 46 + sum(lengths)])
        position += len(entries[-1])
    document, member = entries
    directory = document
    for i in range(1000):
        name = f"m{i}.npy".encode()
        directory += member[:28] + struct.pack("<H", len(name)) + member[30:46] + name
    assert info.file_size == len(body)
    return whole[:start] + directory + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 1001, 1001, len(directory), start, 0)


def deflated():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("fnflare.json", json.dumps({"format": "fnflare", "version": 1, "structure": "a"}))
        with archive.open("a.npy", "w") as member:
            for _ in range(20):
                member.write(b"\0" * 2**20)
    return file.getvalue()


def bombs():
    yield "read_text.gz", bomb(b"\0", 1000)
    yield "read_idx.gz", bomb(b"\0", 1000)
    yield "read_idx.claims", bytes([0, 0, 8, 3]) + b"\xff" * 12
    yield "read_table.gz", bomb(b"1," * 255 + b"1\n", 8)
    yield "read_table.line.gz", bomb(b"1,", 1000)
    yield "read_trees.gz", bomb(b"(1 ", 1000)
    yield "read_vectors.gz", bomb(b"1 ", 1000)
    yield "read_vectors.lines.gz", bomb(b"th" + b" 1" * 254 + b"1\n", 40)
    yield "read_vectors.line", b"w" + b" 1" * (3 << 20)
    yield "read_trees.deep", b"(1 " * (1 << 17)
    yield "read_trees.flat", b"(1" + b" (1 a)" * (1 << 17) + b"x"
    yield "load.deflated.npz", deflated()
    yield "load.overlapping.npz", overlapping()
    yield "load.deep.npz", npz_of([], "DEEP").replace(b'"DEEP"', b"[" * 6)
    for name in ("more than there is", "empty elements", "empty unicode", "void", "wraps around to nothing", "deep"):
        yield f"load.{name}.npz", npz_of([("a.npy", HEADERS[name])], "a")
    header = json.dumps({"a": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 2**43]}}).encode()
    yield "load.claims.safetensors", struct.pack("<Q", len(header)) + header
    yield "load.header.safetensors", struct.pack("<Q", 2**62) + b"{}"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits of memory are set as Linux has them")
def test_memory_stays_in_proportion_to_the_file(tmp_path):
    for name, content in bombs():
        if "safetensors" not in name or "load safetensors" in READERS:
            (tmp_path / name).write_bytes(content)
            assert len(content) < 10 * 2**20
    command = [sys.executable, "-c", LIMITED, str(tmp_path), str(500 * 2**20)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said) == {path.name for path in tmp_path.iterdir()}
    wrong = {
        name: text[:200] for name, text in said.items() if not text.startswith(("DataFileError", "CheckpointError"))
    }
    assert not wrong
