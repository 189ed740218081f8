"""Estimates the price of houses from thirteen numbers about them, beside a linear least-squares fit.

    python examples/regression.py --data DIR     # DIR has housing.csv of UCI in it, or anywhere below it

The table is that of Harrison and Rubinfeld, Hedonic housing prices and the demand for clean air, 1978: 506 districts of
Boston, with the median value of homes in thousands of dollars in the last column.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

import fnflare as ff
from fnflare import data, nn, optim, train


def rmse(estimates: np.ndarray, prices: np.ndarray) -> float:
    """The root of the mean squared error."""
    return float(np.sqrt(np.mean((estimates - prices) ** 2)))


def least_squares(x: np.ndarray, y: np.ndarray, test_x: np.ndarray) -> np.ndarray:
    """The estimates of the best linear function."""
    coefficients, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)
    return np.column_stack([test_x, np.ones(len(test_x))]) @ coefficients


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimate house prices.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with housing.csv, or above it")
    parser.add_argument("--epochs", type=int, default=400, help="at most; it stops when it no longer gets better")
    parser.add_argument("--seed", type=int, default=0, help="divides the houses and draws the parameters")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder for the picture of the learning curve")
    parser.add_argument("--jit", action=argparse.BooleanOptionalAction, default=True, help="train as one program")
    args = parser.parse_args()

    path = next(args.data.rglob("housing.csv"), args.data / "housing.csv")
    table, _ = data.read_table(path, dtype=np.float32)
    split_key, init_key, loader_key, step_key = ff.random.split(ff.random.key(args.seed), 4)
    # A fifth to test on; of the rest a fifth to know when to stop.
    table = table[ff.random.permutation(split_key, len(table))]
    test, validation, training = np.split(table, [len(table) // 5, 9 * len(table) // 25])

    # Everything is measured in standard deviations of the training data, prices too.
    mean, deviation = training.mean(axis=0), training.std(axis=0)
    deviation[deviation == 0] = 1
    (x, y), (val_x, val_y), (test_x, _) = (
        (part[:, :-1], part[:, -1:]) for part in ((p - mean) / deviation for p in (training, validation, test))
    )

    model = nn.serial(hidden=nn.Dense(64), act=nn.Relu, hidden2=nn.Dense(64), act2=nn.Relu, out=nn.Dense(1))
    _, params = model.init(init_key, (-1, x.shape[1]))
    print(nn.summary(model, (-1, x.shape[1])))

    def loss(params: Any, batch: Any, key: Any) -> Any:
        x, y = batch
        return np.mean(nn.squared_error(model.apply(params, x), y))

    def measures(params: Any, batch: Any) -> dict[str, Any]:
        x, y = batch
        return {"loss": nn.squared_error(model.apply(params, x), y)}

    optimizer = optim.adamw(2e-3, weight_decay=1e-2)
    result = train.fit(
        train.make_step(loss, optimizer, jit=args.jit),
        params,
        optimizer.init(params),
        data.DataLoader((x, y), 32, key=loader_key),
        epochs=args.epochs,
        key=step_key,
        reporters=[train.Evaluate(ff.jit(measures) if args.jit else measures, [(val_x, val_y)])],
        early_stopping=train.EarlyStopping("validation loss", patience=40, keep_best=True),
        progress=False,
    )
    best = min(result.history["validation loss"])
    print(f"stopped after {result.epoch} epochs ({result.stopped}); best validation loss {best:.3f}")
    train.plot_history(result.history, args.out / "regression.png")
    print(f"saved the learning curve to {args.out / 'regression.png'}")

    prices = test[:, -1]
    estimates = model.apply(result.params, test_x)[:, 0] * deviation[-1] + mean[-1]
    seen = np.concatenate([training, validation])  # least squares need nobody to tell them when to stop
    linear = least_squares(seen[:, :-1], seen[:, -1], test[:, :-1])
    print(f"root mean squared error on {len(test)} houses, in thousands of dollars:")
    print(f"  always the mean price  {rmse(np.full_like(prices, mean[-1]), prices):6.2f}")
    print(f"  linear least squares   {rmse(linear, prices):6.2f}")
    print(f"  the net                {rmse(estimates, prices):6.2f}")


if __name__ == "__main__":
    try:
        main()
    except ff.errors.MissingFileError as error:
        sys.exit(str(error))
