"""Larger images: by repeating or interpolating elements, and by laying channels out in space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.layer import Layer, Shape, layer, mismatch, positive_int, units_of
from fnflare.padded import Padded

__all__ = ["PixelShuffle", "PixelUnshuffle", "Upsample", "pixel_shuffle", "pixel_unshuffle", "upsample"]

_MODES = ("nearest", "linear")


def upsample(
    x: Any,
    scale: float | tuple[float, ...] | None = None,
    *,
    size: int | tuple[int, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Any:
    """Make an image larger (or smaller) along its spatial axes.

    An element of the output at place i lies in the input, of n elements along the axis, at

    - ``floor(i / scale)`` with "nearest";
    - ``(i + 0.5) / scale - 0.5``, and not before the first element, with "linear": elements are areas, and the
      borders of the images meet. Between two elements it is interpolated, after the last one that is taken;
    - ``i * (n - 1) / (m - 1)`` of m with "linear" and ``align_corners=True``: elements are points, and the first
      and last of both images meet.

    Args:
        x: (N, *spatial, C).
        scale: how many times as large, for each axis, or one number for all; the size is rounded down.
        size: of the output along each axis instead, or one integer for all; the scale is then their ratio.
        mode: ``"nearest"`` or ``"linear"``, which along two axes is bilinear and along three trilinear.
        align_corners: see above.

    Returns:
        (N, *size, C).

    Raises:
        ArgumentError: a setting is out of range, or both or none of `scale` and `size` are given.
        ShapeError: `x` has no spatial axis, or not as many as `scale` or `size`.

    >>> from fnflare import nn
    >>> nn.upsample(np.array([[[1.0], [3.0]]]), 2).ravel()
    array([1., 1., 3., 3.])
    >>> nn.upsample(np.array([[[1.0], [3.0]]]), 2, mode="linear").ravel()
    array([1. , 1.5, 2.5, 3. ])
    >>> nn.upsample(np.array([[[1.0], [3.0]]]), size=3, mode="linear", align_corners=True).ravel()
    array([1., 2., 3.])
    """
    return _Sizes("upsample", scale, size, mode, align_corners).resized(x)


def Upsample(
    scale: float | tuple[float, ...] | None = None,
    *,
    size: int | tuple[int, ...] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Layer:
    """The layer that makes an image larger; see `upsample`.

    Inputs (N, *spatial, C), outputs (N, *size, C). No parameters.

    Args:
        scale: how many times as large, for each axis, or one number for all; the size is rounded down.
        size: of the output along each axis instead, or one integer for all.
        mode: ``"nearest"`` or ``"linear"``.
        align_corners: whether the first and last elements of both images meet, and not their borders.

    Raises:
        ArgumentError: a setting is out of range, or both or none of `scale` and `size` are given.

    >>> ff.nn.Upsample(2, mode="linear").init(None, (-1, 7, 7, 16))[0]
    (-1, 14, 14, 16)
    """
    sizes = _Sizes("Upsample", scale, size, mode, align_corners)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        out = [-1 if n is None else n for n in sizes.of(input_shape)]
        return (input_shape[0], *out, input_shape[-1]), ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        return sizes.resized(inputs)

    return layer("Upsample", init, apply, lambda shape, out, params: 3 * units_of(out) if mode == "linear" else 0)


class _Sizes:
    """The settings of `upsample`, checked."""

    def __init__(self, kind: str, scale: Any, size: Any, mode: str, align_corners: bool) -> None:
        self.kind, self.mode, self.align_corners = kind, mode, align_corners
        if mode not in _MODES:
            raise ArgumentError(f"{kind}: mode must be one of {', '.join(map(repr, _MODES))}, got {mode!r}")
        if align_corners and mode == "nearest":
            raise ArgumentError(f"{kind}: align_corners=True is for mode='linear'")
        if (scale is None) == (size is None):
            raise ArgumentError(f"{kind}: give either scale, how many times as large, or size=")
        self.by_scale = size is None
        given = scale if self.by_scale else size
        numbers = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        if self.by_scale and not all(_is_positive(n) for n in numbers):
            raise ArgumentError(f"{kind}: scale must be a positive number, or one for each axis, got {given!r}")
        if not self.by_scale:
            numbers = tuple([positive_int(kind, "size", n) for n in numbers])
        self.numbers = numbers
        self.rank = len(numbers) if isinstance(given, (tuple, list)) else None

    def of(self, shape: Shape) -> list[int | None]:
        """The size of the output along each spatial axis of an input of this shape, None where that is free."""
        rank = len(shape) - 2
        if rank < 1 or (self.rank is not None and rank != self.rank):
            axes = "N, ..., C" if self.rank is None else f"N, {', '.join(['n'] * self.rank)}, C"
            raise ShapeError(f"{scoping.where()}{self.kind} expected inputs ({axes}), got shape {shape}")
        numbers = self.numbers if self.rank else self.numbers * rank
        if not self.by_scale:
            return list(numbers)
        out = [None if n < 0 else math.floor(n * s) for n, s in zip(shape[1:-1], numbers, strict=True)]
        if 0 in out or 0 in shape[1:-1]:
            raise ShapeError(f"{scoping.where()}{self.kind}: of inputs of shape {shape} there is nothing left")
        return out

    def resized(self, x: Any) -> Any:
        """An array at the size that the settings ask for."""
        if type(x) is Padded:
            raise ArgumentError(
                f"{scoping.where()}{self.kind}: sequences of a Padded batch end at different places, at which "
                "interpolation would see the padding; resize them one by one, before nn.pad"
            )
        if not hasattr(x, "shape"):
            raise mismatch(self.kind, "(N, ..., C)", x)
        numbers = self.numbers if self.rank else self.numbers * (len(x.shape) - 2)
        for axis, (m, scale) in enumerate(zip(self.of(x.shape), numbers, strict=True), 1):
            assert m is not None
            step = 1 / scale if self.by_scale else x.shape[axis] / m
            x = self.along(x, axis, m, step)
        return x

    def along(self, x: Any, axis: int, m: int, step: float) -> Any:
        """An array with m elements along an axis, `step` apart in it."""
        n = x.shape[axis]
        if self.mode == "nearest":
            index = np.minimum(np.floor(np.arange(m) * step).astype(np.intp), n - 1)
            if m % n == 0 and np.array_equal(index, np.arange(m) // (m // n)):
                wide = np.broadcast_to(
                    np.expand_dims(x, axis + 1), (*x.shape[: axis + 1], m // n, *x.shape[axis + 1 :])
                )
                return np.reshape(wide, (*x.shape[:axis], m, *x.shape[axis + 1 :]))
            return _taken(x, index, axis)
        if self.align_corners:
            place = np.arange(m) * ((n - 1) / (m - 1) if m > 1 else 0.0)
        else:
            place = np.maximum((np.arange(m) + 0.5) * step - 0.5, 0.0)
        low = np.minimum(np.floor(place).astype(np.intp), n - 1)
        dtype = x.dtype if x.dtype.kind == "f" else np.float64
        part = (place - low).astype(dtype).reshape((-1, *[1] * (x.ndim - axis - 1)))
        first, second = _taken(x, low, axis), _taken(x, np.minimum(low + 1, n - 1), axis)
        return first * (1 - part) + second * part


def _taken(x: Any, index: np.ndarray, axis: int) -> Any:
    """``np.take``, by whole rows, whose cotangents are sorted and added up at once."""
    return np.moveaxis(np.moveaxis(x, axis, 0)[index], 0, axis)


def _is_positive(n: Any) -> bool:
    return isinstance(n, (int, float, np.number)) and not isinstance(n, bool) and bool(0 < n < math.inf)


# -- channels in space ------------------------------------------------------------------------------


def pixel_shuffle(x: Any, factor: int) -> Any:
    """Lay channels out in space: each position becomes a square (a cube, ...) of `factor` along each axis
    (Shi et al. 2016).

    Channel ``(c * factor + i) * factor + j`` of the input is channel c at row i and column j of the squares,
    which is PyTorch's order.

    Args:
        x: (N, *spatial, C * factor ** k), of k spatial axes.
        factor: how many times as large each spatial axis becomes.

    Returns:
        (N, *(spatial * factor), C).

    Raises:
        ShapeError: there is no spatial axis, or the number of channels is no multiple.

    >>> ff.nn.pixel_shuffle(np.arange(4.0).reshape(1, 1, 1, 4), 2)[0, :, :, 0]
    array([[0., 1.],
           [2., 3.]])
    """
    shape = _shuffled("pixel_shuffle", np.shape(x), factor)
    rank = len(shape) - 2
    parted = np.reshape(x, (*x.shape[:-1], shape[-1], *[factor] * rank))
    axes = [axis for k in range(rank) for axis in (1 + k, rank + 2 + k)]
    return np.reshape(np.transpose(parted, (0, *axes, rank + 1)), shape)


def pixel_unshuffle(x: Any, factor: int) -> Any:
    """Lay squares out as channels: the way back from `pixel_shuffle`.

    Args:
        x: (N, *spatial, C), the sizes of the spatial axes multiples of `factor`.
        factor: how many times as small each spatial axis becomes.

    Returns:
        (N, *(spatial / factor), C * factor ** k), of k spatial axes.

    Raises:
        ShapeError: there is no spatial axis, or the size of one is no multiple.

    >>> ff.nn.pixel_unshuffle(np.arange(4.0).reshape(1, 2, 2, 1), 2).ravel()
    array([0., 1., 2., 3.])
    """
    shape = _unshuffled("pixel_unshuffle", np.shape(x), factor)
    rank = len(shape) - 2
    tiles = [n for size in shape[1:-1] for n in (size, factor)]
    parted = np.reshape(x, (x.shape[0], *tiles, x.shape[-1]))
    axes = (0, *range(1, 2 * rank, 2), 2 * rank + 1, *range(2, 2 * rank + 1, 2))
    return np.reshape(np.transpose(parted, axes), shape)


def PixelShuffle(factor: int) -> Layer:
    """The layer that lays channels out in space; see `pixel_shuffle`.

    Inputs (N, *spatial, C * factor ** k) of k spatial axes, outputs (N, *(spatial * factor), C). No parameters.

    Args:
        factor: how many times as large each spatial axis becomes.

    >>> ff.nn.PixelShuffle(2).init(None, (-1, 7, 7, 16))[0]
    (-1, 14, 14, 4)
    """
    return _rearranging("PixelShuffle", factor, _shuffled, pixel_shuffle)


def PixelUnshuffle(factor: int) -> Layer:
    """The layer that lays squares out as channels; see `pixel_unshuffle`.

    Inputs (N, *spatial, C) of k spatial axes, outputs (N, *(spatial / factor), C * factor ** k). No parameters.

    Args:
        factor: how many times as small each spatial axis becomes.

    >>> ff.nn.PixelUnshuffle(2).init(None, (-1, 14, 14, 4))[0]
    (-1, 7, 7, 16)
    """
    return _rearranging("PixelUnshuffle", factor, _unshuffled, pixel_unshuffle)


def _rearranging(kind: str, factor: Any, shape_of: Any, f: Any) -> Layer:
    factor = positive_int(kind, "factor", factor)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        return shape_of(kind, input_shape, factor), ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded or not hasattr(inputs, "shape"):
            raise mismatch(kind, "(N, ..., C), an array", inputs)
        shape_of(kind, inputs.shape, factor)
        return f(inputs, factor)

    return layer(kind, init, apply, lambda shape, out, params: 0)


def _shuffled(kind: str, shape: Shape, factor: int) -> Shape:
    rank = len(shape) - 2
    if rank < 1 or shape[-1] < 0 or shape[-1] % factor**rank:
        raise ShapeError(
            f"{scoping.where()}{kind} expected inputs (N, ..., C) with a multiple of "
            f"{factor}**{max(rank, 1)} channels, got shape {tuple(shape)}"
        )
    return (shape[0], *[-1 if n < 0 else n * factor for n in shape[1:-1]], shape[-1] // factor**rank)


def _unshuffled(kind: str, shape: Shape, factor: int) -> Shape:
    rank = len(shape) - 2
    if rank < 1 or shape[-1] < 0 or any(n > 0 and n % factor for n in shape[1:-1]):
        raise ShapeError(
            f"{scoping.where()}{kind} expected inputs (N, ..., C) with multiples of {factor} "
            f"positions along each axis, got shape {tuple(shape)}"
        )
    return (shape[0], *[-1 if n < 0 else n // factor for n in shape[1:-1]], shape[-1] * factor**rank)
