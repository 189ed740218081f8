"""The readers of data sets, over small files made here; see test_data_real.py for the sets themselves."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnflare import tree
from fnflare.data import (
    Tree,
    imdb,
    mnist,
    one_hot,
    parse_tree,
    read_idx,
    read_table,
    read_text,
    read_trees,
    read_vectors,
    sst,
    streams,
    tokenize,
    windows,
)
from fnflare.errors import ArgumentError, DataFileError, DtypeError, MissingFileError, ShapeError

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array):
    head = bytes([0, 0, CODES[array.dtype.str[1:]], array.ndim])
    big = array.astype(array.dtype.newbyteorder(">"))
    return head + struct.pack(f">{array.ndim}I", *array.shape) + big.tobytes()


# ---------------------------------------------------------------- IDX


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_idx_keeps_shape_values_and_dtype(tmp_path, code, pack):
    array = np.arange(24).reshape(2, 3, 4).astype(code)
    (tmp_path / "a").write_bytes(pack(idx_bytes(array)))
    back = read_idx(tmp_path / "a")
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\0\0", "found 00 00"),
        (b"\x89PNG\r\n", "found 89 50 4e 47"),
        (b"\0\0\x07\x01" + bytes(8), "found 00 00 07 01"),
        (b"\0\0\x08\x03\0\0\0\x02", "its 3 dimensions end at byte 16; the file has 8 bytes"),
        (idx_bytes(np.ones((5, 4), np.int16))[:-3], r"truncated: .* \(5, 4\) of int16, .* 52 bytes, found 49"),
        (idx_bytes(np.ones(3, np.uint8)) + b"x", "too long: .* 11 bytes, found 12"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "truncated: .*4294967295"),
        (gzip.compress(idx_bytes(np.ones(999, np.uint8)), mtime=0)[:-9], "gzip file is truncated"),
        (gzip.compress(b"abc", mtime=0)[:10] + b"\xff\xff\xff", "gzip file is truncated or damaged"),
    ],
)
def test_idx_that_is_not_whole_is_refused(tmp_path, content, message):
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(DataFileError, match=f"labels: .*{message}"):
        read_idx(tmp_path / "labels")


def make_mnist(folder, images, labels, prefix="train", suffix=""):
    pack = gzip.compress if suffix else bytes
    (folder / f"{prefix}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(images)))
    (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_reads_its_split(tmp_path, suffix):
    images = np.arange(2 * 28 * 28, dtype=np.uint32).reshape(2, 28, 28).astype(np.uint8)
    make_mnist(tmp_path, images, np.array([7, 2], np.uint8), suffix=suffix)
    make_mnist(tmp_path, images[:1], np.array([5], np.uint8), "t10k", suffix)
    got, labels = mnist(tmp_path)
    np.testing.assert_array_equal(got, images)
    assert (got.dtype, labels.dtype, labels.tolist()) == (np.uint8, np.int64, [7, 2])
    assert mnist(tmp_path, "test")[1].tolist() == [5]


def test_mnist_says_what_is_wrong(tmp_path):
    with pytest.raises(MissingFileError, match=r"train-images-idx3-ubyte.*the train images of MNIST.*yann\.lecun"):
        mnist(tmp_path)
    with pytest.raises(ArgumentError, match="'train' or 'test', got 'dev'"):
        mnist(tmp_path, "dev")
    images = np.zeros((3, 28, 28), np.uint8)
    make_mnist(tmp_path, images, np.zeros(2, np.uint8))
    with pytest.raises(DataFileError, match=r"labels.*a label for each of 3 images, found 2"):
        mnist(tmp_path)
    make_mnist(tmp_path, images[0], np.zeros(2, np.uint8))
    with pytest.raises(DataFileError, match=r"images.*expected 3 dimensions of uint8, found \(28, 28\)"):
        mnist(tmp_path)


# ---------------------------------------------------------------- IMDB

ROWS = [(0, 1, 3, "Bad.<br /><br />Très\u2028bad"), (0, 4, 20, "No"), (1, 10, 1, "Good<BR/>film")]
TEXTS = ["Bad. Très\u2028bad", "No", "Good film"]


def write_folder(folder):
    for label, rating, number, text in ROWS:
        place = folder / "train" / ("pos" if label else "neg")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}_{rating}.txt").write_text(text, encoding="utf-8", newline="")


def write_table(folder, rows=ROWS, suffix=""):
    content = "".join("\t".join(map(str, row)) + "\n" for row in rows).encode()
    (folder / f"train.tsv{suffix}").write_bytes(gzip.compress(content) if suffix else content)


@pytest.mark.parametrize("form", ["folder", "parent", "tsv", "tsv.gz"])
def test_imdb_reads_folder_and_table_alike(tmp_path, form):
    if form.startswith("tsv"):
        write_table(tmp_path, suffix=form[3:])
    else:
        write_folder(tmp_path / "aclImdb" if form == "parent" else tmp_path)
    reviews = imdb(tmp_path, "train")
    assert reviews.texts == TEXTS
    assert (reviews.labels.dtype, reviews.labels.tolist()) == (np.int64, [0, 0, 1])
    assert (reviews.ratings.dtype, reviews.ratings.tolist()) == (np.int64, [1, 4, 10])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0\t1\t0\tfine\n1\t9\tno text\n", r"line 2: expected four columns .*; found 3"),
        (b"label\trating\tid\ttext\n", "line 1: expected four columns .*; found 'label' and 'rating'"),
        (b"1\t2\t0\ttext\n", "line 1: expected label 0 .* found label 1 with rating 2"),
        (b"1\t11\t0\ttext\n", "line 1: .*rating 11"),
        (b"", "expected reviews, found none"),
        (b"0\t1\t0\tfine\n0\t1\t1\t\xff\xfe\n", "line 2: .*UTF-8"),
    ],
)
def test_imdb_table_that_is_not_so_is_refused(tmp_path, content, message):
    (tmp_path / "train.tsv").write_bytes(content)
    with pytest.raises(DataFileError, match=rf"train\.tsv(: |, ){message}"):
        imdb(tmp_path)


def test_imdb_truncated_gzip_is_refused_with_its_line(tmp_path):
    write_table(tmp_path, ROWS * 1000, ".gz")
    path = tmp_path / "train.tsv.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataFileError, match=r"train\.tsv\.gz, after line \d+: the gzip file is truncated"):
        imdb(tmp_path)


def test_imdb_folder_that_is_not_so_is_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"the test reviews of IMDB, to be had from https://ai\.stanford\.edu"):
        imdb(tmp_path, "test")
    (tmp_path / "train" / "neg").mkdir(parents=True)
    with pytest.raises(MissingFileError, match=r"pos: no such folder"):
        imdb(tmp_path)
    (tmp_path / "train" / "pos").mkdir()
    with pytest.raises(DataFileError, match="found none"):
        imdb(tmp_path)
    (tmp_path / "train" / "pos" / "spam.txt").touch()
    with pytest.raises(DataFileError, match=r"spam\.txt: expected a name"):
        imdb(tmp_path)
    (tmp_path / "train" / "pos" / "spam.txt").rename(tmp_path / "train" / "pos" / "0_9.txt")
    (tmp_path / "train" / "pos" / "0_9.txt").write_bytes(b"abc\xff")
    with pytest.raises(DataFileError, match=r"0_9\.txt: .*byte 3 is 0xff"):
        imdb(tmp_path)


# ---------------------------------------------------------------- trees

WORDS = st.text(st.characters(codec="utf-8", exclude_characters=" \t\r\n\\-"), min_size=1, max_size=5)
TREES = st.recursive(
    st.builds(Tree, st.integers(0, 4), WORDS),
    lambda t: st.builds(
        lambda label, children: Tree(label, None, tuple(children)),
        st.integers(0, 4),
        st.lists(t, min_size=1, max_size=3),
    ),
    max_leaves=8,
)


@given(TREES)
def test_tree_comes_back_from_its_text(value):
    back = parse_tree(str(value))
    assert back == value
    assert hash(back) == hash(value)
    assert back.words() == [leaf.word for leaf in value.leaves()]
    assert back.size == len(list(value.nodes()))
    assert back.size == 1 + sum(child.size for child in value.children)


def test_tree_of_the_treebank_is_read():
    value = parse_tree(
        r"(3 (2 -LRB-) (4 (2 co-writer\/director) (3 8\u00a01\/2)) (1 -RRB-))".replace(r"\u00a0", "\u00a0")
    )
    assert value.words() == ["(", "co-writer/director", "8\u00a01/2", ")"]
    assert [node.label for node in value.nodes()] == [3, 2, 4, 2, 3, 1]
    assert repr(parse_tree("(3 ok)")) == "Tree('(3 ok)')"


def test_trees_differ_where_shape_label_or_word_does():
    texts = ["(1 (1 a) (1 b))", "(1 (1 (1 a) (1 b)))", "(1 (1 a) (2 b))", "(1 (1 a) (1 c))", "(1 a)"]
    assert len({parse_tree(text) for text in texts}) == len(texts)
    assert parse_tree("(1 a)") != "(1 a)"


def test_tree_is_immutable_and_a_leaf_of_pytrees():
    value = parse_tree("(1 a)")
    with pytest.raises(AttributeError):
        value.label = 2
    assert tree.leaves({"a": [value]}) == [value]


def test_tree_of_any_depth_needs_no_recursion():
    depth = 50_000
    value = parse_tree("(1 " * depth + "(2 x)" + ")" * depth)
    assert value.size == depth + 1
    assert value.words() == ["x"]
    assert parse_tree(str(value)) == value


def test_tree_has_a_word_or_children():
    with pytest.raises(ArgumentError, match="either"):
        Tree(1)
    with pytest.raises(ArgumentError, match="either"):
        Tree(1, "a", (Tree(1, "b"),))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("(3 (2 a) (2 b)", r"column 15: the line ends with 1 brackets open"),
        ("(3 (2 a) (2 b)) (1 c)", r"column 17: expected the end .*found '\('"),
        ("(x (2 a))", "column 2: expected an integer label, found 'x'"),
        ("((2 a))", "column 2: expected an integer label"),
        ("(3", "column 3: expected|column 3: the line ends"),
        ("(", "column 2: expected a label, found the end"),
        ("(3)", r"column 3: expected one word or some trees before it, found '\)'"),
        ("(3 a b)", "column 7: expected one word"),
        ("(3 a (2 b))", "column 11: expected one word"),
        ("word", r"column 1: expected '\(', found 'word'"),
    ],
)
def test_line_that_is_no_tree_is_refused_by_its_place(tmp_path, line, message):
    (tmp_path / "train.txt").write_text(f"(1 a)\n\n{line}\n", encoding="utf-8")
    with pytest.raises(DataFileError, match=rf"train\.txt, line 3, ({message})"):
        read_trees(tmp_path / "train.txt")


@pytest.mark.parametrize("place", [".", "trees"])
def test_sst_reads_its_split(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    (tmp_path / place / "dev.txt").write_text("(3 (2 a) (4 b))\r\n(0 c)\r\n", encoding="utf-8", newline="")
    assert [str(t) for t in sst(tmp_path, "dev")] == ["(3 (2 a) (4 b))", "(0 c)"]
    with pytest.raises(MissingFileError, match=r"test\.txt.*nlp\.stanford\.edu/sentiment"):
        sst(tmp_path, "test")
    with pytest.raises(ArgumentError, match="'train' or 'dev' or 'test'"):
        sst(tmp_path, "valid")


def test_empty_file_of_trees_is_refused(tmp_path):
    (tmp_path / "train.txt").touch()
    with pytest.raises(DataFileError, match="found an empty file"):
        sst(tmp_path)


# ---------------------------------------------------------------- word vectors


@pytest.mark.parametrize(
    "content",
    [
        "the 1 2 3\nof -0.5 1e-2 0\n. . . 4 5 6\n",
        "3 3\nthe 1 2 3 \nof -0.5 1e-2 0 \n. . . 4 5 6 \n",
        "the 1 2 3\nthe 9 9 9\nof -0.5 1e-2 0\n. . . 4 5 6",
    ],
    ids=["glove", "word2vec", "twice"],
)
def test_vectors_are_read_with_and_without_a_header(tmp_path, content):
    (tmp_path / "v.txt").write_text(content, encoding="utf-8", newline="")
    words, vectors = read_vectors(tmp_path / "v.txt")
    assert words == ["the", "of", ". . ."]
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.array([[1, 2, 3], [-0.5, 0.01, 0], [4, 5, 6]], np.float32))


def test_vectors_may_be_restricted_to_a_vocabulary(tmp_path):
    (tmp_path / "v.txt").write_text("the 1 2\nof x y\nto 3 4\n", encoding="utf-8")
    words, vectors = read_vectors(tmp_path / "v.txt", {"to", "the", "cat"})
    assert words == ["the", "to"]
    assert vectors.tolist() == [[1, 2], [3, 4]]
    assert read_vectors(tmp_path / "v.txt", {"cat"}).vectors.shape == (0, 2)


def test_a_word_that_is_a_number_is_no_header(tmp_path):
    (tmp_path / "v.txt").write_text("2000 1 2\nthe 3 4\n", encoding="utf-8")
    assert read_vectors(tmp_path / "v.txt").words == ["2000", "the"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the 1 2 3\nof 1 2\n", r", line 2: expected 3 numbers, found 2"),
        ("the 1 2 3\nof 1 2 x\n", r", line 2: expected 3 numbers after 'of'; .*'x'"),
        ("3 2\nthe 1 2\nof 1 2\n", ": its first line says 3 words, found 2; it is truncated"),
        ("the\n", ", line 1: expected some numbers, found 0"),
        ("the 1 2\n\n", ", line 2: expected 2 numbers, found 0"),
        ("", ": expected a word and its vector on each line, found an empty file"),
    ],
)
def test_vectors_that_are_not_whole_are_refused(tmp_path, content, message):
    (tmp_path / "v.txt").write_text(content, encoding="utf-8")
    with pytest.raises(DataFileError, match=rf"v\.txt{message}"):
        read_vectors(tmp_path / "v.txt")


def test_missing_vectors_are_named_with_their_source(tmp_path):
    with pytest.raises(
        MissingFileError, match=r"glove\.txt: no such file; .*https://nlp\.stanford\.edu/projects/glove"
    ):
        read_vectors(tmp_path / "glove.txt")


# ---------------------------------------------------------------- text


@given(st.text())
def test_tokens_hold_every_sign_in_order(text):
    joined = "".join(tokenize(text))
    assert joined == "".join(text.lower().replace("’", "'").split())


def test_clitics_are_cut_as_in_glove():
    assert tokenize("They’re \"can't-miss\" (80's)!") == [
        "they", "'re", '"', "ca", "n't", "-", "miss", '"', "(", "80", "'s", ")", "!",
    ]  # fmt: skip


def test_text_keeps_its_line_ends(tmp_path):
    (tmp_path / "t.txt").write_bytes("a\r\nb\u2028c\n".encode())
    assert read_text(tmp_path / "t.txt") == "a\r\nb\u2028c\n"
    (tmp_path / "t.txt").write_bytes(b"ab\xc3")
    with pytest.raises(DataFileError, match="byte 2 is 0xc3"):
        read_text(tmp_path / "t.txt")


@given(st.integers(2, 60), st.integers(1, 9), st.none() | st.integers(1, 9))
def test_targets_of_windows_follow_their_inputs(total, length, stride):
    ids = np.arange(total, dtype=np.int32)
    if total <= length:
        with pytest.raises(ArgumentError, match=f"at least {length + 1} are needed"):
            windows(ids, length, stride)
        return
    inputs, targets = windows(ids, length, stride)
    assert inputs.dtype == np.int32
    np.testing.assert_array_equal(targets, inputs + 1)
    np.testing.assert_array_equal(inputs[:, 0], (stride or length) * np.arange(len(inputs)))
    assert inputs.shape[1] == length
    assert total - targets[-1, -1] <= (stride or length)


@given(st.integers(2, 99), st.integers(1, 5), st.integers(1, 5))
def test_streams_continue_from_batch_to_batch(total, batch_size, length):
    ids = np.arange(total)
    if total <= batch_size * length:
        with pytest.raises(ArgumentError, match="are needed"):
            streams(ids, batch_size, length)
        return
    inputs, targets = streams(ids, batch_size, length)
    steps = len(inputs)
    assert inputs.shape == (steps, batch_size, length)
    np.testing.assert_array_equal(targets, inputs + 1)
    np.testing.assert_array_equal(inputs[1:, :, 0], targets[:-1, :, -1])
    assert inputs.size > total - 1 - batch_size * length
    assert len(np.unique(inputs)) == inputs.size


def test_windows_and_streams_refuse_what_cannot_be_cut():
    with pytest.raises(ShapeError, match="one vector"):
        windows(np.zeros((2, 3)), 1)
    with pytest.raises(ArgumentError, match="stride"):
        windows([1, 2, 3], 1, 0)
    with pytest.raises(ArgumentError, match="length"):
        windows([1, 2, 3], 0)
    with pytest.raises(ArgumentError, match="batch_size"):
        streams([1, 2, 3], 0, 1)


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(
    "text", ["1,2.5,-3\n4,5e1,.6\n", "1;2.5;-3\n4;5e1;.6", " 1  2.5 -3\n\n 4\t5e1 .6 \n", "1\t2.5\t-3\n4\t5e1\t.6\n"]
)
def test_table_finds_its_delimiter(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    values, names = read_table(tmp_path / "t.csv")
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [[1, 2.5, -3], [4, 50, 0.6]])
    assert names == ()


def test_table_with_header_and_chosen_columns(tmp_path):
    (tmp_path / "t.csv").write_text('"a b",kind,c\n1,x,2\n3,y,4\n', encoding="utf-8")
    values, names = read_table(tmp_path / "t.csv", header=True, columns=[-1, 0], dtype=np.float32)
    assert (values.dtype, values.tolist(), names) == (np.float32, [[2, 1], [4, 3]], ("c", "a b"))


@pytest.mark.parametrize(
    ("text", "arguments", "error", "message"),
    [
        ("1,2\n3\n", {}, DataFileError, r"line 2: expected 2 columns as in the first row, found 1"),
        ("1,2\n3,4,5\n", {}, DataFileError, "line 2: expected 2 columns .* found 3"),
        ("1,2\n3,?\n", {}, DataFileError, r"line 2, column 2: expected a number, found '\?'$"),
        ("1,2\n3,\n", {}, DataFileError, "line 2, column 2: expected a number, found ''"),
        ("a,b\n1,2\n", {}, DataFileError, "line 1, column 1: .* header=True"),
        ("a,b\n", {"header": True}, DataFileError, "found no row"),
        ("", {}, DataFileError, "found no row"),
        ("1,2\n", {"columns": [2]}, ArgumentError, "column 2; the table has 2"),
    ],
)
def test_table_that_is_not_so_is_refused(tmp_path, text, arguments, error, message):
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        read_table(tmp_path / "t.csv", **arguments)
    with pytest.raises(MissingFileError, match=r"none\.csv"):
        read_table(tmp_path / "none.csv")


# ---------------------------------------------------------------- one-hot


@given(st.lists(st.integers(0, 4)), st.sampled_from([np.float32, np.float64, bool, np.int8]))
def test_one_hot_is_rows_of_the_identity(labels, dtype):
    np.testing.assert_array_equal(one_hot(labels, 5, dtype), np.eye(5, dtype=dtype)[np.array(labels, int)], strict=True)


def test_one_hot_of_any_shape_and_of_small_integers():
    assert one_hot(np.zeros((2, 3), np.uint8), 300).shape == (2, 3, 300)
    assert one_hot(np.uint8(2), 3).tolist() == [0, 0, 1]


def test_one_hot_refuses_labels_out_of_range():
    with pytest.raises(ArgumentError, match="the label 3; with num_classes=3 labels go from 0 to 2"):
        one_hot([0, 3], 3)
    with pytest.raises(ArgumentError, match="the label -1"):
        one_hot([0, -1], 3)
    with pytest.raises(DtypeError, match="float64"):
        one_hot([0.0], 3)
