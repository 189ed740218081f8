"""Learns to write like a text, character by character, with an LSTM.

    python examples/char_lm.py --data FILE                      # any text in UTF-8
    python examples/char_lm.py --data FILE --prompt "KING " --temperature 0.7

FILE may be a folder, too, that has tinyshakespeare/input.txt in it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fnflare as ff
from fnflare import data, nn, optim, train


class LanguageModel:
    """Characters become vectors, an LSTM reads them, and at each place its output tells what comes next.

    Layers are pairs of functions and their parameters plain dicts, so a model that `nn.serial` cannot describe is a few
    lines of Python. This one hands the LSTM's state out, for `sample` to go on from it.
    """

    def __init__(self, characters: int, units: int, jit: bool) -> None:
        self.embed, self.lstm, self.head = nn.Embedding(characters, 64), nn.LSTM(units), nn.Dense(characters)
        self.read = ff.jit(self.apply) if jit else self.apply  # one program for the prompt, one for a character

    def init(self, key: Any) -> Any:
        """Fresh parameters."""
        params, shape = {}, (-1, -1)
        layers = {"embed": self.embed, "lstm": self.lstm, "head": self.head}
        for (name, layer), layer_key in zip(layers.items(), ff.random.split(key, 3), strict=True):
            shape, params[name] = layer.init(layer_key, shape)
        return params

    def apply(self, params: Any, ids: Any, state: Any = None) -> tuple[Any, Any]:
        """Logits of the next character at each place, (N, T, characters), and the state after the last one."""
        vectors = self.embed.apply(params["embed"], ids)
        outputs, state = self.lstm.apply(params["lstm"], vectors, initial_state=state, return_state=True)
        return self.head.apply(params["head"], outputs), state

    def sample(self, params: Any, key: Any, prompt: np.ndarray, length: int, temperature: float) -> list[int]:
        """Go on from a prompt: each character is drawn, then read to draw the next."""
        logits, state = self.read(params, prompt[None])
        drawn = []
        for number in range(length):
            step_key = ff.random.fold_in(key, number)
            drawn.append(int(ff.random.categorical(step_key, logits[0, -1] / temperature)))
            logits, state = self.read(params, np.array([[drawn[-1]]]), state)
        return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn to write like a text.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="a text, or a folder above tinyshakespeare")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--units", type=int, default=128, help="of the LSTM")
    parser.add_argument("--length", type=int, default=64, help="of the pieces that it learns from")
    parser.add_argument("--limit", type=int, help="learn from so many characters alone, to try things out")
    parser.add_argument("--prompt", default="ROMEO:\n", help="what the samples begin with")
    parser.add_argument("--temperature", type=float, default=0.8, help="below 1 it keeps to what is likely")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture of the learning curve")
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="train as one program")
    args = parser.parse_args()

    path = args.data
    if not path.is_file():
        path = next(path.rglob("tinyshakespeare/*.txt"), path / "tinyshakespeare" / "input.txt")
    text = data.read_text(path)[: args.limit]
    vocabulary = data.Vocabulary.build(text, padding=None)
    ids = vocabulary.encode(text)
    border = 9 * len(ids) // 10  # the last tenth of the text is for validation
    loader = data.DataLoader(data.windows(ids[:border], args.length), 32, key=ff.random.key(0))
    validation = data.DataLoader(data.windows(ids[border:], args.length), 128)
    print(f"{len(ids):,} characters, {len(vocabulary)} of them different")

    model = LanguageModel(len(vocabulary), args.units, args.jit)
    params = model.init(ff.random.key(1))
    prompt = vocabulary.encode(args.prompt)

    def measures(params: Any, batch: Any) -> dict[str, Any]:
        inputs, targets = batch
        logits, _ = model.apply(params, inputs)
        return {"loss": nn.softmax_cross_entropy_with_integer_labels(logits, targets)}

    def loss(params: Any, batch: Any, key: Any) -> Any:
        return np.mean(measures(params, batch)["loss"])

    def sample(params: Any, length: int) -> str:
        drawn = model.sample(params, ff.random.key(2), prompt, length, args.temperature)
        return args.prompt + "".join(vocabulary.decode(drawn))

    def show(moment: train.Moment) -> None:
        print(f"\n--- after {moment.epoch + 1} epochs:\n{sample(moment.params, 200)}\n", flush=True)

    optimizer = optim.chain(optim.clip_by_global_norm(1.0), optim.adam(3e-3))
    result = train.fit(
        train.make_step(loss, optimizer, jit=args.jit),
        params,
        optimizer.init(params),
        loader,
        epochs=args.epochs,
        reporters=[
            train.Evaluate(ff.jit(measures) if args.jit else measures, validation),
            train.Callback(show, on="epoch"),
        ],
    )
    print(result.history.table())
    bits = result.history["validation loss"][-1] / np.log(2)
    print(f"it needs {bits:.2f} bits for a character of text that it has not seen")
    train.plot_history(result.history, args.out / "char_lm.png")
    print(f"saved the learning curve to {args.out / 'char_lm.png'}")
    print(f"\n{sample(result.params, 500)}")


if __name__ == "__main__":
    try:
        main()
    except ff.errors.MissingFileError as error:
        sys.exit(str(error))
