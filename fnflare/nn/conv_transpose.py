"""The transposed convolution: from few positions to many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fnflare import ops
from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.conv import GLOROT, check_divides, drawn
from fnflare.nn.initializers import Initializer, zeros
from fnflare.nn.layer import (
    Layer,
    Shape,
    check_channels,
    function,
    known_features,
    layer,
    mismatch,
    positive_int,
    require_key,
    units_of,
)
from fnflare.nn.windows import Padding, Window, clear, per_axis, rewrap
from fnflare.padded import Padded

__all__ = ["ConvTranspose"]

_KIND = "ConvTranspose"


def ConvTranspose(
    filters: int,
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    output_padding: int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    bias: bool = True,
    W_init: Initializer = GLOROT,
    b_init: Initializer = zeros,
) -> Layer:
    """A transposed convolution: every element of the input adds its multiple of the filters to the output, those of
    neighbours a stride apart. It is the derivative of a `Conv` in its inputs, and makes of their size that of its
    inputs (Zeiler et al. 2010; Dumoulin & Visin 2016).

    Inputs (N, *spatial, C), outputs (N, *out, filters). Parameters ``{"W": (*window, C / groups, filters),
    "b": (filters,)}``; W is not flipped: the output at ``i * stride + k * dilation - low`` gets
    ``inputs[i] @ W[k]``. Of a `Padded` batch each sequence gives what it gives alone, and the lengths become
    those of the outputs.

    Args:
        filters: the number of output channels.
        window: the size of the filters along each spatial axis; an integer means one axis, time.
        strides: the distance of neighbours in the output along each axis, or one for all.
        padding: what is cut off the full output, ``(size - 1) * stride + (window - 1) * dilation + 1`` along
            each axis: ``"VALID"``: nothing; ``"SAME"``: as much on both sides as leaves ``size * stride``;
            ``"CAUSAL"``: the same, at the end alone, so that no output sees inputs after it (one axis); or a
            pair (low, high) for each axis.
        output_padding: how many elements longer the output is at the end of each axis, since a `Conv` with
            strides makes the same size of several; below the stride or the dilation.
        dilation: the distance between the elements of a filter along each axis, or one for all.
        groups: as in `Conv`.
        bias: whether there is a ``b``.
        W_init: draws W, ``init(key, shape)``.
        b_init: draws b.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> shape, params = ff.nn.ConvTranspose(6, (4, 4), strides=2).init(ff.random.key(0), (-1, 7, 7, 16))
    >>> shape, params["W"].shape
    ((-1, 14, 14, 6), (4, 4, 16, 6))
    """
    filters, groups = positive_int(_KIND, "filters", filters), positive_int(_KIND, "groups", groups)
    check_divides(_KIND, "filters", filters, groups)
    win = Window(_KIND, window, strides, padding, dilation)
    added = per_axis(_KIND, "output_padding", output_padding, win.rank, least=0)
    if any(n >= max(s, d) for n, s, d in zip(added, win.strides, win.dilation, strict=True)):
        raise ArgumentError(
            f"{_KIND}: output_padding has to be below the stride or the dilation of its axis, got {output_padding!r} "
            f"with strides {win.strides} and dilation {win.dilation}"
        )
    function(_KIND, "W_init", W_init)
    function(_KIND, "b_init", b_init)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        if len(input_shape) != win.rank + 2:
            raise ShapeError(f"{scoping.where()}{_KIND} expected inputs {win.wanted}, got input shape {input_shape}")
        sizes = _sizes(win, added, [max(n, 1) for n in input_shape[1:-1]])
        out = [-1 if n < 0 else _positive(win, m, input_shape) for n, m in zip(input_shape[1:-1], sizes, strict=True)]
        channels = known_features(_KIND, input_shape)
        check_channels(_KIND, channels, groups)
        require_key(_KIND, key)
        params = drawn(key, (*win.size, channels // groups, filters), bias, W_init, b_init)
        return (input_shape[0], *out, filters), params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x = inputs.values if type(inputs) is Padded else inputs
        w = params["W"]
        shape: Shape = getattr(x, "shape", ())
        if len(shape) != win.rank + 2 or shape[-1] != w.shape[-2] * groups:
            raise mismatch(_KIND, f"{win.wanted} with C = {w.shape[-2] * groups}", x)
        sizes = [_positive(win, n, shape) for n in _sizes(win, added, shape[1:-1])]
        lengths = None
        if type(inputs) is Padded:
            x = clear(x, inputs.mask(), 0)
            lengths = np.where(inputs.lengths > 0, np.maximum(_sizes(win, added, (inputs.lengths,))[0], 0), 0)
        cuts, spare = _cuts(win, added)
        inner = tuple([n - m for n, m in zip(sizes, spare, strict=True)])
        y = ops.conv_transpose(x, w, inner, win.strides, cuts, win.dilation, groups)
        if any(spare):
            y = np.pad(y, ((0, 0), *[(0, n) for n in spare], (0, 0)))
        return rewrap(y + params["b"] if bias else y, lengths)

    def flops(shape: Shape, out: Shape, params: Any) -> int:
        products = units_of(shape) * math.prod(win.size) * (filters // groups)
        return 2 * products + bias * units_of(out)

    return layer(_KIND, init, apply, flops)


def _reach(win: Window) -> list[int]:
    """The size of the window along each axis, with what the dilation leaves out."""
    return [(k - 1) * d + 1 for k, d in zip(win.size, win.dilation, strict=True)]


def _pads(win: Window) -> list[tuple[int, int]]:
    """What is cut off before and after each axis of the full output; below zero where that falls short."""
    if win.padding == "VALID":
        return [(0, 0)] * win.rank
    over = [r - s for r, s in zip(_reach(win), win.strides, strict=True)]
    if win.padding == "CAUSAL":
        return [(0, n) for n in over]
    if win.padding == "SAME":
        return [(max(n, 0) // 2, n - max(n, 0) // 2) for n in over]
    return list(win.padding)


def _sizes(win: Window, added: Sequence[int], sizes: Sequence[Any]) -> list[Any]:
    """The size of the output along each axis."""
    axes = zip(sizes, win.strides, _reach(win), _pads(win), added, strict=False)
    return [(n - 1) * s + r - low - high + more for n, s, r, (low, high), more in axes]


def _cuts(win: Window, added: Sequence[int]) -> tuple[tuple[tuple[int, int], ...], list[int]]:
    """The padding of the convolution that this one is the adjoint of, and how many zeros follow along each axis."""
    # What is added at the end is first of all not cut off; then there are elements that no window of the
    # convolution reaches, fewer than a stride, and only then more than it can have.
    left = [high - more for (_, high), more in zip(_pads(win), added, strict=True)]
    cuts = tuple([(low, max(n, 0)) for (low, _), n in zip(_pads(win), left, strict=True)])
    return cuts, [max(-n - (s - 1), 0) for n, s in zip(left, win.strides, strict=True)]


def _positive(win: Window, size: int, shape: Shape) -> int:
    if size < 1:
        raise ShapeError(
            f"{scoping.where()}{_KIND}: the padding {win.padding} cuts everything off the outputs for inputs of shape "
            f"{shape}; use less padding"
        )
    return size
