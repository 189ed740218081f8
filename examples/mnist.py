"""Reads handwritten digits: a perceptron with one hidden layer, or LeNet.

    python examples/mnist.py --data DIR                          # the perceptron, 784-128-10 with dropout
    python examples/mnist.py --data DIR --model lenet --epochs 3

DIR is a folder with the four files of MNIST or Fashion-MNIST (train-images-idx3-ubyte.gz and so on), or one that has
them anywhere below it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fnflare as ff
from fnflare import data, nn, optim, train

MODELS = {
    "mlp": nn.serial(
        flatten=nn.Flatten,
        hidden=nn.Dense(128),
        act=nn.Relu,
        drop=nn.Dropout(0.2),
        out=nn.Dense(10),
    ),
    # After LeCun et al., Gradient-based learning applied to document recognition, 1998, in the sizes of Caffe's.
    "lenet": nn.serial(
        conv1=nn.Conv(20, (5, 5), padding="VALID"),
        pool1=nn.MaxPool((2, 2)),
        act1=nn.Relu,
        conv2=nn.Conv(50, (5, 5), padding="VALID"),
        pool2=nn.MaxPool((2, 2)),
        act2=nn.Relu,
        flatten=nn.Flatten,
        hidden=nn.Dense(500),
        act3=nn.Relu,
        out=nn.Dense(10),
    ),
}


def show(image: np.ndarray) -> str:
    """An image of 28 x 28 bytes as 14 lines of text."""
    shades = np.array(list(" .:*#"))
    return "\n".join("".join(row) for row in shades[image[::2].astype(int) * len(shades) // 256])


def main() -> None:
    parser = argparse.ArgumentParser(description="Read handwritten digits.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the files, or above it")
    parser.add_argument("--model", choices=list(MODELS), default="mlp")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--limit", type=int, help="use so many images alone, to try things out")
    parser.add_argument(
        "--checkpoint", type=Path, help="file (.npz) to save to, and to go on from after an interruption"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture of the learning curve")
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="train as one program")
    args = parser.parse_args()

    folder = next((path.parent for path in args.data.rglob("train-images*")), args.data / "mnist")
    (images, labels), (test_images, test_labels) = data.mnist(folder, "train"), data.mnist(folder, "test")
    loader = data.DataLoader((images[: args.limit], labels[: args.limit]), args.batch_size, key=ff.random.key(0))
    test_loader = data.DataLoader((test_images[: args.limit], test_labels[: args.limit]), 500)

    model = MODELS[args.model]
    _, params = model.init(ff.random.key(1), (-1, 28, 28, 1))
    print(nn.summary(model, (-1, 28, 28, 1)))

    def logits(params: Any, images: np.ndarray, **options: Any) -> Any:
        pixels = images[..., None].astype(np.float32) / 255  # bytes until here: they take a quarter of the memory
        return model.apply(params, pixels, **options)

    def loss(params: Any, batch: Any, key: Any) -> Any:
        images, labels = batch
        return np.mean(
            nn.softmax_cross_entropy_with_integer_labels(logits(params, images, key=key, train=True), labels)
        )

    def measures(params: Any, batch: Any) -> dict[str, Any]:
        images, labels = batch
        scores = logits(params, images)
        losses = nn.softmax_cross_entropy_with_integer_labels(scores, labels)
        return {"loss": losses, "accuracy": np.argmax(scores, axis=-1) == labels}

    steps = args.epochs * len(loader)
    optimizer = optim.adam(optim.cosine_decay_schedule(3e-3, steps))
    result = train.fit(
        train.make_step(loss, optimizer, jit=args.jit),
        params,
        optimizer.init(params),
        loader,
        epochs=args.epochs,
        key=ff.random.key(2),
        reporters=[train.Evaluate(ff.jit(measures) if args.jit else measures, test_loader, prefix="test ")],
        checkpoint=args.checkpoint,
    )
    print(result.history.table())
    train.plot_history(result.history, args.out / f"mnist-{args.model}.png")
    print(f"saved the learning curve to {args.out / f'mnist-{args.model}.png'}")

    scores = np.concatenate([logits(result.params, images) for images, _ in test_loader])
    labels = test_labels[: args.limit]
    print("rows: the digit; columns: what it was taken for")
    print(nn.confusion_matrix(scores, labels))
    worst = np.argmax(nn.softmax_cross_entropy_with_integer_labels(scores, labels))
    print(f"the one that was missed most, a {labels[worst]} taken for a {np.argmax(scores[worst])}:")
    print(show(test_images[worst]))


if __name__ == "__main__":
    try:
        main()
    except ff.errors.MissingFileError as error:
        sys.exit(str(error))
