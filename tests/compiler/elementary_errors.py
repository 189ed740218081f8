"""How far the functions made of arithmetic are from the functions themselves, in units in the last place.

A function's name and type go in, the largest error over many samples comes out. The unit is the distance between the
numbers of the type where the true value lies, for logaddexp where the larger of that and of the larger argument lies.
float32 is compared with float64, float64 with 40 digits. What prints the
table of ``docs/elementary.md``: ``PYTHONPATH=. python tests/compiler/elementary_errors.py``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from evaluator import Environment, evaluate_scalar

from fnflare.compiler.elementary import EXPANDED, expand
from fnflare.nest import DTYPES, FUNCTIONS, Apply, Local, Scalar, walk

Array = np.ndarray[Any, Any]
_alone = threading.Lock()  # mpmath's precision is that of the process


def _stable_logistic(x: Array) -> Array:
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1 + np.exp(-np.abs(x)))


#: The functions as NumPy has them.
NUMPY: dict[str, Callable[..., Array]] = {
    op: getattr(np, op) for op in EXPANDED if op not in ("erf", "logistic", "rsqrt", "softplus")
} | {
    "erf": np.vectorize(math.erf, otypes=[float]),
    "logistic": _stable_logistic,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "softplus": lambda x: np.logaddexp(x, x.dtype.type(0)),
}
#: The functions as mpmath has them, of numbers for which they are finite.
MPMATH: dict[str, Callable[..., Any]] = {
    "cosh": mpmath.cosh,
    "erf": mpmath.erf,
    "exp": mpmath.exp,
    "exp2": lambda x: mpmath.power(2, x),
    "expm1": mpmath.expm1,
    "hypot": mpmath.hypot,
    "log": mpmath.log,
    "log2": lambda x: mpmath.log(x) / mpmath.log(2),
    "log10": mpmath.log10,
    "log1p": mpmath.log1p,
    "logaddexp": lambda x, y: max(x, y) + mpmath.log1p(mpmath.exp(-abs(x - y))),
    "logistic": lambda x: 1 / (1 + mpmath.exp(-x)),
    "power": lambda x, y: mpmath.power(abs(x), y) * (-1 if x < 0 and y % 2 == 1 else 1),
    "rsqrt": lambda x: 1 / mpmath.sqrt(x),
    "sinh": mpmath.sinh,
    "softplus": lambda x: max(x, 0) + mpmath.log1p(mpmath.exp(-abs(x))),
    "tanh": mpmath.tanh,
}


def expression(op: str, dtype: str) -> Scalar | None:
    """A function of the names "0" and "1" as arithmetic."""
    return expand(op, tuple([Local(dtype, str(i)) for i in range(FUNCTIONS[op])]))


def computed(op: str, args: list[Array]) -> Array:
    """The values of that expression."""
    names = {str(i): a for i, a in enumerate(args)}
    scalar = expression(op, "f32" if args[0].dtype == np.float32 else "f64")
    assert scalar is not None
    return np.asarray(evaluate_scalar(scalar, Environment(locals=names)))


def samples(op: str, dtype: str, count: int) -> list[Array]:
    """Arguments: a third over all bit patterns, and so all exponents, the others uniform on the interesting ranges."""
    return [_numbers(DTYPES[dtype], count, seed) for seed in range(FUNCTIONS[op])]


def _numbers(dtype: np.dtype[Any], count: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 256, (count // 3, dtype.itemsize), np.uint8).view(dtype).ravel()
    edge = 110 if dtype == np.float32 else 760
    ranges = [(-1, 1), (-4, 4), (-20, 20), (-edge, edge), (0, 4), (0.9, 1.1), (-8, -4)]
    parts = [rng.uniform(low, high, count * 2 // 3 // len(ranges)).astype(dtype) for low, high in ranges]
    bits[~np.isfinite(bits)] = 1
    return rng.permutation(np.concatenate([bits, *parts]))


def errors(op: str, args: list[Array], found: Array) -> Array:
    """The error of each value in units in the last place; infinity where only one of both is a finite number."""
    with np.errstate(all="ignore"):
        high = np.asarray(NUMPY[op](*[a.astype(np.float64) for a in args]), np.float64)
        low = np.zeros_like(high)
        if found.dtype == np.float64:
            high, low = _refined(op, args, high)
        digits, least = (24, -149) if found.dtype == np.float32 else (53, -1074)
        size = np.abs(high)
        if op == "logaddexp":  # where its two terms cancel their rounding stays, here as in NumPy
            size = np.maximum(size, np.abs(np.maximum(*args)))
        exponent = np.maximum(np.frexp(size)[1] - digits, least)
        off = np.abs(np.ldexp(found.astype(np.float64) - high, -exponent) - np.ldexp(low, -exponent))
        rounded = high.astype(found.dtype)
        same = (found == rounded) | (np.isnan(found) & np.isnan(rounded))
        off = np.where(same & ~np.isfinite(off), 0, off)
    return np.where(np.isnan(off), np.inf, off)


def _refined(op: str, args: list[Array], near: Array) -> tuple[Array, Array]:
    """Values to about 100 bits, as sums of two numbers, where they are neither 0 nor infinite."""
    high, low = near.copy(), np.zeros_like(near)
    with _alone, mpmath.workdps(40):
        for i in np.flatnonzero(np.all(np.isfinite([near, *args]), axis=0) & (near != 0)):
            value = MPMATH[op](*[mpmath.mpf(float(a[i])) for a in args])
            high[i] = float(value)
            low[i] = float(value - high[i]) if math.isfinite(high[i]) else 0
    return high, low


def largest_error(op: str, dtype: str, count: int) -> float:
    """The largest error over about so many samples."""
    args = samples(op, dtype, count)
    return float(errors(op, args, computed(op, args)).max())


def operations(op: str, dtype: str) -> int:
    """How many operations a function is made of."""
    scalar = expression(op, dtype)
    assert scalar is not None
    return sum(isinstance(x, Apply) for x in walk([scalar]))


def table(singles: int = 2_000_000, doubles: int = 60_000) -> str:
    """The errors and the numbers of operations of all functions, in Markdown."""
    rows = ["| function | f32: ULP | operations | f64: ULP | operations |", "|---|---|---|---|---|"]
    for op in sorted(EXPANDED):
        cells = []
        for dtype, count in (("f32", singles), ("f64", doubles)):
            if expression(op, dtype) is None:
                cells += ["library", ""]
            else:
                cells += [f"{largest_error(op, dtype, count):.2f}", str(operations(op, dtype))]
        rows.append(f"| {op} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
