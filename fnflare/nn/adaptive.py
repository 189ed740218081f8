"""Pooling to a size that is given, whatever the size of the input: each output sees its share of the positions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.layer import Layer, Shape, layer, mismatch, positive_int, units_of
from fnflare.nn.windows import least
from fnflare.padded import Padded

__all__ = ["AdaptiveAvgPool", "AdaptiveMaxPool"]

Size = int | tuple[int | None, ...]


def AdaptiveAvgPool(size: Size) -> Layer:
    """The mean of each of `size` parts of the positions, channel by channel.

    Inputs (N, *spatial, C), outputs (N, *size, C). Along an axis with n positions part i of m is from
    ``floor(i * n / m)`` up to ``ceil((i + 1) * n / m)``; parts overlap where m does not divide n. No parameters.

    Args:
        size: how many parts each spatial axis has, None for as many as it has positions; an integer means one
            axis, time.

    Raises:
        ArgumentError: the size is out of range, or when applied, the inputs are a `Padded` batch.

    >>> ff.nn.AdaptiveAvgPool(2).apply((), np.array([[[1.0], [2.0], [3.0]]])).ravel()
    array([1.5, 2.5])
    """
    return _adaptive("AdaptiveAvgPool", size, False)


def AdaptiveMaxPool(size: Size) -> Layer:
    """The maximum of each of `size` parts of the positions, channel by channel.

    Inputs (N, *spatial, C), outputs (N, *size, C). The parts are those of `AdaptiveAvgPool`. No parameters.

    Args:
        size: how many parts each spatial axis has, None for as many as it has positions; an integer means one
            axis, time.

    Raises:
        ArgumentError: the size is out of range, or when applied, the inputs are a `Padded` batch.

    >>> ff.nn.AdaptiveMaxPool(2).apply((), np.array([[[1.0], [2.0], [3.0]]])).ravel()
    array([2., 3.])
    """
    return _adaptive("AdaptiveMaxPool", size, True)


def _adaptive(kind: str, size: Any, largest: bool) -> Layer:
    given = size if isinstance(size, (tuple, list)) else (size,)
    sizes = tuple([None if m is None else positive_int(kind, "size", m) for m in given])
    if not sizes:
        raise ArgumentError(f"{kind}: size needs an integer for at least one axis, got {size!r}")
    wanted = f"(N, {', '.join('T' if len(sizes) == 1 else 'HWD'[: len(sizes)])}, C)"

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        if len(input_shape) != len(sizes) + 2 or 0 in input_shape[1:-1]:
            raise ShapeError(f"{scoping.where()}{kind} expected inputs {wanted}, got input shape {input_shape}")
        out = [n if m is None else m for n, m in zip(input_shape[1:-1], sizes, strict=True)]
        return (input_shape[0], *out, input_shape[-1]), ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            raise ArgumentError(
                f"{scoping.where()}{kind} cuts all sequences at the same places, so those of a Padded batch would not "
                "give what they give alone; use GlobalMaxPool or GlobalAvgPool, which honour the lengths"
            )
        shape = getattr(inputs, "shape", ())
        if len(shape) != len(sizes) + 2 or 0 in shape[1:-1]:
            raise mismatch(kind, f"{wanted} with at least one position", inputs)
        return _reduced(inputs, [n if m is None else m for n, m in zip(shape[1:-1], sizes, strict=True)], largest)

    return layer(kind, init, apply, lambda shape, out, params: max(units_of(shape), units_of(out)))


def _reduced(x: Any, sizes: list[int], largest: bool) -> Any:
    """The maximum or the mean of the parts of an array (N, *spatial, C), `sizes` of them along each axis."""
    # From the last axis on, so that the numbers of those before stay. Each becomes two: the parts, and what is in one.
    reals = []
    for axis, m in reversed(list(enumerate(sizes, 1))):
        n = x.shape[axis]
        if n % m == 0:
            x = np.reshape(x, (*x.shape[:axis], m, n // m, *x.shape[axis + 1 :]))
            continue
        index, real = _parts(n, m)
        x = np.moveaxis(np.moveaxis(x, axis, 0)[index], (0, 1), (axis, axis + 1))
        reals.append((2 * axis - 1, real))
    inner = tuple(range(2, 2 * len(sizes) + 1, 2))
    mask, count = np.ones((), bool), np.asarray(math.prod([x.shape[k] for k in inner]), np.float64)
    for axis, real in reals:
        shape = (*[1] * axis, *real.shape, *[1] * (x.ndim - axis - 2))
        mask = mask & real.reshape(shape)
        shape = (*[1] * (axis // 2 + 1), len(real), *[1] * (len(sizes) - axis // 2))
        count = count * (np.sum(real, 1) / real.shape[1]).reshape(shape)
    if largest:
        return np.max(np.where(mask, x, np.asarray(least(x.dtype), x.dtype)) if reals else x, axis=inner)
    total = np.sum(np.where(mask, x, np.zeros((), x.dtype)) if reals else x, axis=inner)
    return total / count.astype(x.dtype if x.dtype.kind == "f" else np.float64)


def _parts(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of n positions are in each of m parts, (m, length), and which of these are real and not filled up."""
    i = np.arange(m)
    start, stop = i * n // m, -(-(i + 1) * n // m)
    index = start[:, None] + np.arange(np.max(stop - start))
    return np.minimum(index, n - 1), index < stop[:, None]
