"""Files that are damaged or made to do harm, for the tests of everything that reads files.

Each reader comes with a whole file of its format. `damaged` is a strategy of what may become of such a file: cut,
bits flipped, pieces repeated, left out or replaced by what parsers stumble over.
"""

import contextlib
import gzip
import io
import json
import struct
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

import fnflare as ff
from fnflare import data

__all__ = ["READERS", "Readable", "damaged", "npz_of", "write"]


class Readable:
    """A reader, the name of its file, and a whole one."""

    def __init__(self, read, name, content):
        self.read, self.name, self.content = read, name, content

    def __call__(self, folder):
        return self.read(Path(folder))


def saved(tree, suffix):
    """The bytes of a file that `save` wrote."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"tree{suffix}"
        ff.save(path, tree)
        return path.read_bytes()


TREE = {"W": np.arange(6.0, dtype=np.float32).reshape(2, 3), "steps": (np.array(7), None, [np.array(["a", "bc"])])}
IDX = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 2, 3) + bytes(range(12))
LABELS = bytes([0, 0, 8, 1]) + struct.pack(">I", 2) + bytes([3, 4])
TABLE = b"age;price\n65.2;24\n-78.9;2.16e1\n"
REVIEWS = "1\t9\t0\tGood.<br />See it \u00fc!\n0\t2\t1\tBad.\n".encode()
TREES = b"(4 (2 a) (3 (3 fine) (2 film)))\n(1 (0 no) (2 -LRB-))\n"
VECTORS = b"3 2\nthe 0.5 1\nof -1 2e-1\ncat 0 0\n"
TEXT = "A text, with its ends\r\nand \u00fcmlauts.\n".encode()


def mnist(folder):
    (folder / "train-labels-idx1-ubyte").write_bytes(LABELS)
    return data.mnist(folder)


READERS = {
    "load npz": Readable(lambda f: ff.load(f / "tree.npz"), "tree.npz", saved(TREE, ".npz")),
    "load npz like": Readable(lambda f: ff.load(f / "tree.npz", like=TREE), "tree.npz", saved(TREE, ".npz")),
    "read_idx": Readable(lambda f: data.read_idx(f / "x"), "x", IDX),
    "mnist": Readable(mnist, "train-images-idx3-ubyte", IDX),
    "read_table": Readable(lambda f: data.read_table(f / "x.csv", header=True), "x.csv", TABLE),
    "read_table int8": Readable(
        lambda f: data.read_table(f / "x.csv", columns=[-1], dtype=np.int8), "x.csv", TABLE.partition(b"\n")[2]
    ),
    "imdb": Readable(data.imdb, "train.tsv", REVIEWS),
    "read_trees": Readable(lambda f: data.read_trees(f / "x"), "x", TREES),
    "sst": Readable(partial(data.sst, split="dev"), "dev.txt", TREES),
    "read_vectors": Readable(lambda f: data.read_vectors(f / "x"), "x", VECTORS),
    "read_vectors of words": Readable(lambda f: data.read_vectors(f / "x", {"of", "cat"}), "x", VECTORS[4:]),
    "read_text": Readable(lambda f: data.read_text(f / "x"), "x", TEXT),
}
with contextlib.suppress(ImportError):  # the extra may not be installed
    READERS["load safetensors"] = Readable(
        lambda f: ff.load(f / "t.safetensors"), "t.safetensors", saved(TREE, ".safetensors")
    )

#: What parsers stumble over.
STUMBLES = [
    b"",
    b"\0",
    b"\xff",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\n",
    b"\r",
    b"\t",
    b" ",
    b"(",
    b")",
    b'"',
    b"nan",
    b"inf",
    b"-",
    b"1e999",
    b"9" * 400,
    b"9" * 5000,
    b"-1",
    b"_",
    b"\xc2\xa0",
    b"\xe2\x80\xa8",
    b"\x1f\x8b",
    b"\x1f\x8b\x08",
    b"PK\x05\x06",
    b"PK\x01\x02",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\0\0\0\0",
    b"{",
    b"[" * 50,
    b"'descr'",
    b"O",
    b"1 1 1 ",
    b";;;",
    b"../../x",
]


@st.composite
def damaged(draw, content):
    """What may become of a file."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        end = min(len(content), place + draw(st.integers(0, 12)))
        kind = draw(st.sampled_from(["cut", "flip", "replace", "insert", "drop", "repeat", "end"]))
        piece = draw(st.sampled_from(STUMBLES) | st.binary(max_size=4))
        if kind == "cut":
            content = content[:place]
        elif kind == "flip" and content:
            at = place % len(content)
            content = content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :]
        elif kind == "drop":
            content = content[:place] + content[end:]
        elif kind == "repeat":
            content = content[:end] + content[place:end] * draw(st.integers(1, 300)) + content[end:]
        elif kind == "end":
            content += piece
        else:
            content = content[:place] + piece + content[place if kind == "insert" else end :]
    packing = draw(st.sampled_from(["plain", "plain", "gzip", "gzip and flip"]))
    if packing == "plain":
        return content
    packed = bytearray(gzip.compress(content, mtime=0))
    if packing != "gzip":
        packed[draw(st.integers(0, len(packed) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(packed)


def write(folder, readable, content):
    """Put a file where its reader looks."""
    (Path(folder) / readable.name).write_bytes(content)


def npz_of(members, structure):
    """An archive with a document of this structure, and members of these bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("fnflare.json", json.dumps({"format": "fnflare", "version": 1, "structure": structure}))
        for name, body in members:
            archive.writestr(name, body)
    return file.getvalue()
