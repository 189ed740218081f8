"""Every example runs as a user types it, the demonstration whole, the others on a little made-up data; and learns the
same jitted and not."""

from __future__ import annotations

import gzip
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(name: str, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run an example in an empty folder, since it writes what it saves below the one that it is called in."""
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]
    work = folder / "work"
    work.mkdir()
    return subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=240, check=False
    )


def output(name: str, folder: Path, *arguments: object) -> str:
    """What an example prints, if it comes to its end and draws its learning curve."""
    pytest.importorskip("matplotlib", reason="the examples draw with the extra fnflare[notebooks]")
    done = run(name, folder, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "epoch" in done.stdout
    assert [path for path in (folder / "work" / "out").iterdir() if path.suffix == ".png"]
    return done.stdout


def output_both_ways(name: str, folder: Path, *arguments: object) -> str:
    """What an example prints when it is jitted, if all that it has measured is the same when it is not."""
    (folder / "unjitted").mkdir()
    plain = output(name, folder / "unjitted", *arguments, "--no-jit")
    jitted = output(name, folder, *arguments, "--jit")
    measured, wanted = figures(jitted), figures(plain)
    assert measured.keys() == wanted.keys() and any("loss" in what for what in wanted)
    for what, numbers in wanted.items():
        np.testing.assert_allclose(measured[what], numbers, rtol=2e-3, err_msg=what)
    return jitted


def figures(printed: str) -> dict[str, list[float]]:
    """The columns of the history's table, and the losses and errors that the text tells."""
    found = {what: [float(x)] for what, x in re.findall(r"(loss|the net|needs) +(\d+\.\d+)", printed)}
    for table in re.findall(r"^ *epoch  step  .*\n(?: +\d+ .*\n)+", printed, re.MULTILINE):
        columns = zip(*[re.split(r" {2,}", row.strip()) for row in table.splitlines()], strict=True)
        found |= {name: [float(x) for x in numbers] for name, *numbers in columns}
    return found


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a little of everything, laid out as the real sets are."""
    rng, numbers = random.Random(0), np.random.default_rng(0)
    folder = tmp_path / "data"
    for name in ("mnist", "imdb", "glove", "tinyshakespeare", "uci"):
        (folder / name).mkdir(parents=True)
    for split in ("train", "t10k"):
        write_idx(folder / "mnist" / f"{split}-images-idx3-ubyte.gz", numbers.integers(0, 256, (80, 28, 28)))
        write_idx(folder / "mnist" / f"{split}-labels-idx1-ubyte.gz", np.arange(80) % 10)
    words = ["the", "film", "was", "not", "good", "bad"]
    for split in ("train", "test"):
        rows = [f"{i % 2}\t{1 + 8 * (i % 2)}\t{i}\t{' '.join(rng.choices(words, k=9))}.\n" for i in range(60)]
        (folder / "imdb" / f"{split}.tsv.gz").write_bytes(gzip.compress("".join(rows).encode()))
    vectors = [f"{word} {' '.join(f'{x:.3f}' for x in numbers.normal(size=5))}\n" for word in words]
    (folder / "glove" / "glove.5d.txt").write_text("".join(vectors), encoding="utf-8")
    speech = " ".join(rng.choices(["to", "be", "or", "not", "Romeo:\n"], k=800))
    (folder / "tinyshakespeare" / "input.txt").write_text(speech, encoding="utf-8")
    houses = numbers.normal(size=(60, 14))
    np.savetxt(folder / "uci" / "housing.csv", houses, delimiter=",", fmt="%.3f")
    return folder


def test_the_demonstration_learns_more_than_words_tell(tmp_path: Path) -> None:
    printed = output("sentiment", tmp_path)
    accuracy = figures(printed)["test accuracy"][9]
    counted = float(re.findall(r"counting words alone .* ([0-9.]+)%", printed)[0]) / 100
    assert accuracy > 0.95 > 0.8 > counted
    assert re.findall(r"^(positive|negative) ", printed, re.MULTILINE) == ["positive", "positive", "negative"]
    assert "LSTM" in printed and "total" in printed
    assert (tmp_path / "work" / "out" / "sentiment.npz").exists()


def test_sentences_of_ones_own(tmp_path: Path) -> None:
    printed = output(
        "sentiment", tmp_path, "--limit", 50, "--epochs", 1, "--sentence", "The zebra was good", "--out", "out"
    )
    assert re.search(r"(positive|negative) +[0-9.]+%   The zebra was good   \(does not know: zebra\)\n$", printed)


def test_sentiment_of_reviews(tmp_path: Path, data: Path) -> None:
    printed = output_both_ways("sentiment", tmp_path, "--data", data, "--limit", 40, "--epochs", 2)
    assert "40 sentences to train on, 60 others to test on" in printed and "FixedEmbedding" in printed


@pytest.mark.parametrize("model", ["mlp", "lenet"])
def test_digits(tmp_path: Path, data: Path, model: str) -> None:
    arguments = ["--data", data, "--model", model, "--limit", 70, "--epochs", 2, "--checkpoint", "run.npz"]
    printed = output_both_ways("mnist", tmp_path, *arguments)
    assert re.search(r"a \d taken for a \d:\n(.{28}\n){14}$", printed)
    assert (tmp_path / "work" / "run.npz").exists()


def test_a_language_model(tmp_path: Path, data: Path) -> None:
    arguments = ["--limit", 3000, "--units", 8, "--length", 16, "--epochs", 2, "--prompt", "to be"]
    printed = output_both_ways("char_lm", tmp_path, "--data", data, *arguments)
    assert printed.count("\nto be") == 3 and re.search(r"it needs \d\.\d\d bits", printed)


def test_prices(tmp_path: Path, data: Path) -> None:
    printed = output_both_ways("regression", tmp_path, "--data", data, "--epochs", 3)
    assert re.search(r"stopped after 3 epochs \(epochs\)", printed) and re.search(r"the net +\d+\.\d\d\n$", printed)


@pytest.mark.parametrize(
    ("name", "missing", "source"),
    [
        ("mnist", "train-images-idx3-ubyte.gz", "http"),
        ("char_lm", "input.txt", "https://github.com/karpathy/char-rnn"),
        ("regression", "housing.csv", "https://archive.ics.uci.edu"),
        ("sentiment", "glove.6B.100d.txt", "https://nlp.stanford.edu/projects/glove"),
    ],
)
def test_data_that_are_not_there(tmp_path: Path, name: str, missing: str, source: str) -> None:
    done = run(name, tmp_path, "--data", tmp_path)
    assert done.returncode == 1
    assert missing in done.stderr and source in done.stderr
    assert "Traceback" not in done.stderr


def test_the_examples_of_the_readme_exist() -> None:
    assert {"sentiment", "mnist", "char_lm", "regression"} <= {path.stem for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_it_is_run(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    assert f"python examples/{path.name}" in text


def test_the_grammar_divides_its_sentences() -> None:
    from examples import sentiment

    corpus = sentiment.grammar_corpus(500)
    texts = [tuple(text.tolist()) for part in (corpus.train, corpus.test) for text in part[0]]
    assert len(set(texts)) == len(texts) == 600
    assert sum(corpus.train[1]) + sum(corpus.test[1]) == 300
    assert len(corpus.train[0]) == len(corpus.train[1]) == 500


def test_the_grammar_means_what_it_says() -> None:
    from examples import sentiment

    rng, meant = random.Random(1), {}
    for _ in range(20_000):
        text, value = sentiment.sentence(rng)
        assert meant.setdefault(text, value) == value
    good = {"good": 1, "brilliant": 1, "bad": -1, "awful": -1}
    for text, value in meant.items():
        words = text.split()
        adjective = good.get(words[-1])
        if adjective and not {"and", "but", "although"} & set(words):
            turned = words.count("not") + words.count("hardly")
            assert np.sign(value) == adjective * (-1) ** turned
    assert meant["the film was good"] > 0 > meant["the film was not good"]
