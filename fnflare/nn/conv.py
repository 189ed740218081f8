"""Convolution, of all channels or in groups."""

from __future__ import annotations

import math
from typing import Any

from fnflare import ops, random
from fnflare.errors import ArgumentError
from fnflare.nn.initializers import Initializer, glorot_uniform, zeros
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
from fnflare.nn.windows import Padding, Window, bordered, pad_mode, rewrap

__all__ = ["Conv", "DepthwiseConv"]

GLOROT = glorot_uniform()


def Conv(
    filters: int,
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    bias: bool = True,
    W_init: Initializer = GLOROT,
    b_init: Initializer = zeros,
) -> Layer:
    """A convolution over time, or over space, of as many axes as the window has.

    Inputs (N, *spatial, C), outputs (N, *out, filters). Parameters ``{"W": (*window, C / groups, filters),
    "b": (filters,)}``; as everywhere in deep learning W is not flipped. Of a `Padded` batch each sequence gives
    what it gives alone: what stands past its end counts as zero, and the lengths become those of the outputs.

    Args:
        filters: the number of output channels.
        window: the size of the filters along each spatial axis; an integer means one axis, time.
        strides: the distance between windows along each axis, or one for all.
        padding: ``"SAME"``: zeros around, so that there are ``ceil(size / stride)`` windows; ``"VALID"``: only
            whole windows; ``"CAUSAL"``: zeros before, so that no output sees what comes after it (one axis);
            or a pair (low, high) of numbers of zeros for each axis.
        dilation: the distance between the elements of a window along each axis, or one for all.
        groups: into how many groups the channels, and the filters, are parted, in order; filters see the
            channels of their own group alone. `DepthwiseConv` has one for each channel.
        padding_mode: what stands around instead of the zeros of `padding`: ``"reflect"`` (the input mirrored at
            its border, which is not repeated), ``"replicate"`` (its border) or ``"circular"`` (its other end).
        bias: whether there is a ``b``.
        W_init: draws W, ``init(key, shape)``.
        b_init: draws b.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> from fnflare import nn
    >>> shape, params = nn.Conv(6, (5, 5)).init(ff.random.key(0), (-1, 28, 28, 1))
    >>> shape, params["W"].shape
    ((-1, 28, 28, 6), (5, 5, 1, 6))
    >>> nn.Conv(8, 3, padding="VALID").init(ff.random.key(0), (-1, 100, 25))[0]
    (-1, 98, 8)
    >>> nn.Conv(8, (3, 3), groups=4).init(ff.random.key(0), (-1, 9, 9, 12))[1]["W"].shape
    (3, 3, 3, 8)
    """
    filters, groups = positive_int("Conv", "filters", filters), positive_int("Conv", "groups", groups)
    win = Window("Conv", window, strides, padding, dilation)
    check_divides("Conv", "filters", filters, groups)
    return _conv(win, filters, groups, padding_mode, bias, W_init, b_init)


def DepthwiseConv(
    window: int | tuple[int, ...],
    multiplier: int = 1,
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, ...] = 1,
    padding_mode: str = "zeros",
    bias: bool = True,
    W_init: Initializer = GLOROT,
    b_init: Initializer = zeros,
) -> Layer:
    """A convolution of each channel by itself: a `Conv` with as many groups as there are channels.

    Inputs (N, *spatial, C), outputs (N, *out, C * multiplier), those of the first channel first. Parameters
    ``{"W": (*window, 1, C * multiplier), "b": (C * multiplier,)}``. With a `Conv` of window 1 after it, it is what
    is called a separable convolution (Chollet 2017).

    Args:
        window: the size of the filters along each spatial axis; an integer means one axis, time.
        multiplier: how many filters each channel has.
        strides: as in `Conv`.
        padding: as in `Conv`.
        dilation: as in `Conv`.
        padding_mode: as in `Conv`.
        bias: whether there is a ``b``.
        W_init: draws W, ``init(key, shape)``.
        b_init: draws b.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> shape, params = ff.nn.DepthwiseConv((3, 3), 2).init(ff.random.key(0), (-1, 28, 28, 16))
    >>> shape, params["W"].shape
    ((-1, 28, 28, 32), (3, 3, 1, 32))
    """
    kind = "DepthwiseConv"
    multiplier = positive_int(kind, "multiplier", multiplier)
    win = Window(kind, window, strides, padding, dilation)
    return _conv(win, multiplier, None, padding_mode, bias, W_init, b_init)


def _conv(
    win: Window,
    filters: int,
    groups: int | None,
    padding_mode: str,
    bias: bool,
    W_init: Initializer,
    b_init: Initializer,
) -> Layer:
    """A convolution in groups; None for one for each channel, each of as many filters then."""
    kind = win.kind
    mode = pad_mode(kind, padding_mode)
    function(kind, "W_init", W_init)
    function(kind, "b_init", b_init)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        win.output_shape(input_shape, 0)  # the number of axes is the first thing to be wrong
        channels = known_features(kind, input_shape)
        count, outputs = (channels, channels * filters) if groups is None else (groups, filters)
        check_channels(kind, channels, count)
        require_key(kind, key)
        params = drawn(key, (*win.size, channels // count, outputs), bias, W_init, b_init)
        return win.output_shape(input_shape, outputs), params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x, lengths, pads = win.prepare(inputs, 0)
        w = params["W"]
        channels = w.shape[-1] // filters if groups is None else w.shape[-2] * groups
        if x.shape[-1] != channels:
            raise mismatch(kind, f"{win.wanted} with C = {channels}", x)
        if mode != "constant" and any(map(any, pads)):
            x = bordered(kind, inputs, x, pads, mode)
            pads = ((0, 0),) * win.rank
        y = ops.conv(x, w, win.strides, pads, win.dilation, groups or channels)
        return rewrap(y + params["b"] if bias else y, lengths)

    def flops(shape: Shape, out: Shape, params: Any) -> int:
        return units_of(out) * (2 * math.prod(win.size) * params["W"].shape[-2] + bias)

    return layer(kind, init, apply, flops)


def drawn(key: Any, shape: Shape, bias: bool, W_init: Initializer, b_init: Initializer) -> dict[str, Any]:
    """Filters of a shape, and what is added to the output of each."""
    key_w, key_b = random.split(key)
    params = {"W": W_init(key_w, shape)}
    if bias:
        params["b"] = b_init(key_b, shape[-1:])
    return params


def check_divides(kind: str, name: str, count: int, groups: int) -> None:
    """Groups are of equal sizes."""
    if count % groups:
        raise ArgumentError(f"{kind}: {name}={count} do not divide among groups={groups}")
