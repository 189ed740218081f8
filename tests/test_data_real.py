"""The readers over the real data sets.

Run with FNFLARE_DATA set to a folder that holds some of mnist, imdb, glove, sst-trees, uci and tinyshakespeare.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fnflare import data, random


@pytest.fixture
def folder(data_dir):
    def part(name):
        if not (data_dir / name).is_dir():
            pytest.skip(f"FNFLARE_DATA names a folder without {name} in it")
        return data_dir / name

    return part


@pytest.mark.parametrize(("split", "size", "zeros"), [("train", 60_000, 5923), ("test", 10_000, 980)])
def test_mnist(folder, split, size, zeros):
    images, labels = data.mnist(folder("mnist"), split)
    assert (images.shape, images.dtype) == ((size, 28, 28), np.uint8)
    assert (labels.shape, np.bincount(labels)[0], len(np.bincount(labels))) == ((size,), zeros, 10)
    assert (images.min(), images.max()) == (0, 255)
    if split == "train":
        assert labels[:5].tolist() == [5, 0, 4, 1, 9]
        assert images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # the mean that everyone normalises by


@pytest.mark.parametrize("split", ["train", "test"])
def test_imdb(folder, split):
    reviews = data.imdb(folder("imdb"), split)
    assert len(reviews.texts) == 25_000
    assert np.bincount(reviews.labels).tolist() == [12_500, 12_500]
    assert sorted(set(reviews.ratings.tolist())) == [1, 2, 3, 4, 7, 8, 9, 10]
    assert not any("<br" in text for text in reviews.texts)


def test_imdb_is_loaded_in_buckets_with_little_padding(folder):
    texts, labels, _ = data.imdb(folder("imdb"))
    tokens = [data.tokenize(text)[:400] for text in texts[::25]]
    vocabulary = data.Vocabulary.build((word for review in tokens for word in review), max_size=5000)
    ids = [vocabulary.encode(review) for review in tokens]
    loader = data.DataLoader((ids, labels[::25]), 32, key=random.key(0), bucket=8, prefetch=2)
    masks = [batch.mask() for batch, _ in loader]
    assert sum(mask.shape[0] for mask in masks) == 1000
    assert sum(int(mask.sum()) for mask in masks) == sum(map(len, ids))
    assert np.mean(np.concatenate([mask.ravel() for mask in masks])) > 0.9


def test_glove(folder):
    path = folder("glove") / "glove.6B.50d.9163words.txt"
    words, vectors = data.read_vectors(path)
    assert (vectors.shape, vectors.dtype, len(set(words))) == ((9163, 50), np.float32, 9163)
    assert words[:3] == ["the", ",", "."]
    vocabulary = data.Vocabulary(["king", "queen", "carrot", "qwertyuiop"])
    matrix, found = vocabulary.embedding_matrix(*data.read_vectors(path, vocabulary))
    king, queen, carrot, nonsense = matrix[2:] / np.maximum(np.linalg.norm(matrix[2:], axis=1, keepdims=True), 1)
    assert king @ queen > 0.7 > king @ carrot
    assert not nonsense.any()
    assert found.tolist()[-1] is False


@pytest.mark.parametrize(("split", "size"), [("train", 8544), ("dev", 1101), ("test", 2210)])
def test_sst(folder, split, size):
    path = folder("sst-trees") / f"{split}.txt"
    trees = data.sst(path.parent, split)
    assert len(trees) == size
    assert set(Counter(node.label for tree in trees for node in tree.nodes())) == {0, 1, 2, 3, 4}
    assert all(tree.size == 2 * len(tree.leaves()) - 1 for tree in trees)  # the trees are binary
    assert "\n".join(map(str, trees)) + "\n" == data.read_text(path)


@pytest.mark.parametrize(
    ("name", "shape", "columns"),
    [
        ("housing.csv", (506, 14), None),
        ("wine.csv", (178, 14), None),
        ("winequality-red.csv", (1599, 12), None),
        ("iris.csv", (150, 4), range(4)),
    ],
)
def test_uci(folder, name, shape, columns):
    values, names = data.read_table(folder("uci") / name, columns=columns)
    assert (values.shape, names) == (shape, ())
    assert np.isfinite(values).all()


def test_tinyshakespeare(folder):
    text = data.read_text(folder("tinyshakespeare") / "input.txt")
    vocabulary = data.Vocabulary.build(text, padding=None, unknown=None)
    assert (len(text), len(vocabulary)) == (1_115_394, 65)
    ids = vocabulary.encode(text)
    assert "".join(vocabulary.decode(ids)) == text
    inputs, targets = data.streams(ids, batch_size=32, length=100)
    assert inputs.shape == targets.shape == (348, 32, 100)
    np.testing.assert_array_equal(inputs[1:, :, 0], targets[:-1, :, -1])
