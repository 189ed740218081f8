"""Reads the sentiment of sentences with a bidirectional LSTM.

    python examples/sentiment.py                 # on sentences that a small grammar makes, in less than a minute
    python examples/sentiment.py --data DIR      # on IMDB's reviews and GloVe's vectors, anywhere below DIR

Change SENTENCES below, or pass --sentence "..." once or more, to see what it makes of yours.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fnflare as ff
from fnflare import data, nn, optim, train

SENTENCES = [
    "i do not think that the plot was bad",
    "the music was awful but the story was truly wonderful",
    "although the film was not boring the acting was weak",
]

UNITS = 25  # in each direction
LABELS = ("negative", "positive")


class Corpus(NamedTuple):
    """Sentences as numbers of words, with labels; and a vector for each word, if such are known."""

    train: tuple[list[np.ndarray], np.ndarray]
    test: tuple[list[np.ndarray], np.ndarray]
    vocabulary: data.Vocabulary
    vectors: np.ndarray | None


# A sentence is one clause or two. What a clause says is the value of its adjective, changed by what stands before it:
# "very" doubles it, "slightly" halves it, "not" turns it round, and so does "i do not think that". Of two clauses the
# one after "but", or before "although", counts more. So the same words in another order may say the opposite.

ADJECTIVES = {"good": 1, "funny": 1, "clever": 1, "charming": 1, "brilliant": 2, "wonderful": 2, "superb": 2}
ADJECTIVES |= {"bad": -1, "boring": -1, "silly": -1, "weak": -1, "awful": -2, "terrible": -2, "dreadful": -2}
INTENSIFIERS = {"": 1.0, "rather": 1.0, "slightly": 0.5, "a bit": 0.5, "very": 2.0, "truly": 2.0}
VERBS = {"was": 1.0, "seemed": 1.0, "felt": 1.0, "was not": -0.5, "was hardly": -0.5}
OPENINGS = {"": 1.0, "i think that": 1.0, "we all know that": 1.0, "i do not think that": -0.5}
SUBJECTS = ("film", "plot", "story", "acting", "music", "ending", "hero", "camera")
JOINTS = {"{} and {}": (1, 1), "{} but {}": (1, 4), "although {} {}": (1, 4), "{} although {}": (4, 1)}


def pick(rng: random.Random, table: dict[str, float]) -> tuple[str, float]:
    """An entry of a table; every second time the first one, which is the plain one."""
    entries = list(table.items())
    return rng.choice([entries[0], rng.choice(entries)])


def clause(rng: random.Random) -> tuple[str, float]:
    """A clause such as "the plot was not very good", and what it says: above 0 for good."""
    opening, a = pick(rng, OPENINGS)
    verb, b = pick(rng, VERBS)
    intensifier, c = pick(rng, INTENSIFIERS)
    adjective, d = rng.choice(list(ADJECTIVES.items()))
    words = f"{opening} the {rng.choice(SUBJECTS)} {verb} {intensifier} {adjective}"
    return " ".join(words.split()), a * b * c * d


def sentence(rng: random.Random) -> tuple[str, float]:
    """One clause, or two that are joined."""
    (first, a), (second, b) = clause(rng), clause(rng)
    if rng.random() < 0.3:
        return first, a
    joint, (x, y) = rng.choice(list(JOINTS.items()))
    return joint.format(first, second), x * a + y * b


def grammar_corpus(count: int) -> Corpus:
    """Distinct sentences, half of them negative: `count` to train on, a fifth as many others to test on."""
    rng, half, made = random.Random(0), 3 * count // 5, {0: set[str](), 1: set[str]()}
    while min(map(len, made.values())) < half:
        text, value = sentence(rng)
        if abs(value) > 0.2 and len(made[int(value > 0)]) < half:  # what says next to nothing has no label
            made[int(value > 0)].add(text)
    pairs = [(text, label) for label, texts in made.items() for text in sorted(texts)]
    rng.shuffle(pairs)
    vocabulary = data.Vocabulary.build(word for text, _ in pairs for word in text.split())
    texts, labels = [vocabulary.encode(text.split()) for text, _ in pairs], np.array([label for _, label in pairs])
    return Corpus((texts[:count], labels[:count]), (texts[count:], labels[count:]), vocabulary, None)


def imdb_corpus(folder: Path, count: int) -> Corpus:
    """Reviews of IMDB, cut at 400 words, `count` to train on; and GloVe's vectors. Both lie anywhere below `folder`."""
    names = {"train", "train.tsv", "train.tsv.gz"}
    reviews = next((path.parent for path in folder.rglob("train*") if path.name in names), folder / "imdb")
    words, vectors = data.read_vectors(next(folder.rglob("glove*.txt*"), folder / "glove" / "glove.6B.100d.txt"))
    vocabulary = data.Vocabulary(words)

    def split(name: str, count: int) -> tuple[list[np.ndarray], np.ndarray]:
        texts, labels, _ = data.imdb(reviews, name)
        chosen = ff.random.permutation(ff.random.key(0), len(texts))[:count]
        return [vocabulary.encode(data.tokenize(texts[i])[:400]) for i in chosen], labels[chosen]

    test = split("test", 5 * count // 2)
    return Corpus(split("train", count), test, vocabulary, vocabulary.embedding_matrix(words, vectors)[0])


def classifier(corpus: Corpus) -> nn.Layer:
    """Words become vectors, an LSTM reads them in both directions, the greatest of its outputs over time decide."""
    trained = nn.Embedding(len(corpus.vocabulary), UNITS)
    return nn.serial(
        words=trained if corpus.vectors is None else nn.FixedEmbedding(corpus.vectors),
        lstm=nn.LSTM(UNITS, bidirectional=True),
        pool=nn.GlobalMaxPool,
        drop=nn.Dropout(0.2),
        head=nn.Dense(2),
    )


def bag_of_words(corpus: Corpus) -> nn.Layer:
    """A logistic regression: each word has a weight for each label, the mean decides. It knows no order."""
    return nn.serial(words=nn.Embedding(len(corpus.vocabulary), 2, W_init=nn.zeros), pool=nn.GlobalAvgPool)


def fit(model: nn.Layer, params: Any, corpus: Corpus, epochs: int, rate: float, jit: bool, **options: Any) -> Any:
    """Train a model, and test it after each epoch."""

    def measures(params: Any, batch: Any, **mode: Any) -> dict[str, Any]:
        sentences, labels = batch
        logits = model.apply(params, sentences, **mode)
        losses = nn.softmax_cross_entropy_with_integer_labels(logits, labels)
        return {"loss": losses, "accuracy": np.argmax(logits, axis=-1) == labels}

    def loss(params: Any, batch: Any, key: Any) -> Any:
        measured = measures(params, batch, key=key, train=True)
        return np.mean(measured["loss"]), {"accuracy": np.mean(measured["accuracy"])}

    # Sentences of like length go together, so that little is padded; of at most ten lengths, each a program of its own.
    unit = max(map(len, corpus.train[0])) // 10 + 1
    loader = data.DataLoader(corpus.train, 32, key=ff.random.key(1), bucket=50, multiple_of=unit)
    test_loader = data.DataLoader(corpus.test, 250, bucket=1000, multiple_of=unit)
    test = train.Evaluate(ff.jit(measures) if jit else measures, test_loader, prefix="test ")
    optimizer = optim.adam(optim.cosine_decay_schedule(rate, epochs * len(loader)))
    step, state, key = train.make_step(loss, optimizer, jit=jit), optimizer.init(params), ff.random.key(2)
    return train.fit(step, params, state, loader, epochs=epochs, key=key, reporters=[test], **options)


def classify(model: nn.Layer, params: Any, vocabulary: data.Vocabulary, sentences: Sequence[str]) -> None:
    """Print what the model thinks of sentences."""
    for text in sentences:
        tokens = data.tokenize(text)
        logits = model.apply(params, nn.pad([vocabulary.encode(tokens)]))
        probabilities = nn.softmax(logits)[0]
        label = int(np.argmax(probabilities))
        unknown = [word for word in tokens if word not in vocabulary]
        note = f"   (does not know: {', '.join(unknown)})" if unknown else ""
        print(f"{LABELS[label]} {probabilities[label]:7.2%}   {text}{note}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Read the sentiment of sentences with a bidirectional LSTM.")
    parser.add_argument("--data", type=Path, help="folder with IMDB and GloVe; without it a grammar makes sentences")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--limit", type=int, help="examples to train on (default 10000 reviews or 5000 sentences)")
    parser.add_argument("--sentence", action="append", help="a sentence to classify; may be given several times")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the model and the picture")
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="train as one program")
    args = parser.parse_args()

    corpus = imdb_corpus(args.data, args.limit or 10_000) if args.data else grammar_corpus(args.limit or 5000)
    print(f"{len(corpus.train[0])} sentences to train on, {len(corpus.test[0])} others to test on")
    model = classifier(corpus)
    _, params = model.init(ff.random.key(0), (-1, -1))
    print(nn.summary(model, (-1, -1)))

    result = fit(model, params, corpus, args.epochs, 5e-3, args.jit)
    print(result.history.table())
    bag = bag_of_words(corpus)
    counted = fit(bag, bag.init(ff.random.key(0), (-1, -1))[1], corpus, args.epochs, 5e-2, args.jit, progress=False)
    print(f"counting words alone reaches a test accuracy of {counted.history['test accuracy'][-1]:.1%}")

    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "sentiment.npz"
    ff.save(path, {"params": result.params, "words": np.array(list(corpus.vocabulary))})
    saved = ff.load(path, like={"params": params, "words": ...})
    batch = nn.pad(corpus.test[0][:100])
    assert np.array_equal(model.apply(saved["params"], batch), model.apply(result.params, batch))
    train.plot_history(result.history, args.out / "sentiment.png")
    print(f"saved the model to {path} and its learning curve to {args.out / 'sentiment.png'}")

    classify(model, saved["params"], data.Vocabulary(saved["words"].tolist()), args.sentence or SENTENCES)


if __name__ == "__main__":
    try:
        main()
    except ff.errors.MissingFileError as error:
        sys.exit(str(error))
