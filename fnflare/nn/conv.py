"""Convolution."""

from __future__ import annotations

import math
from typing import Any

from fnflare import ops, random
from fnflare.nn.initializers import Initializer, glorot_uniform, zeros
from fnflare.nn.layer import (
    Layer,
    Shape,
    function,
    known_features,
    layer,
    mismatch,
    positive_int,
    require_key,
    units_of,
)
from fnflare.nn.windows import Padding, Window, rewrap

__all__ = ["Conv"]

_GLOROT = glorot_uniform()


def Conv(
    filters: int,
    window: int | tuple[int, ...],
    *,
    strides: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    dilation: int | tuple[int, ...] = 1,
    bias: bool = True,
    W_init: Initializer = _GLOROT,
    b_init: Initializer = zeros,
) -> Layer:
    """A convolution over time, or over space, of as many axes as the window has.

    Inputs (N, *spatial, C), outputs (N, *out, filters). Parameters ``{"W": (*window, C, filters),
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
        bias: whether there is a ``b``.
        W_init: draws W, ``init(key, shape)``.
        b_init: draws b.

    Raises:
        ArgumentError: a setting is out of range, or they do not agree in the number of axes.

    >>> shape, params = Conv(6, (5, 5)).init(random.key(0), (-1, 28, 28, 1))
    >>> shape, params["W"].shape
    ((-1, 28, 28, 6), (5, 5, 1, 6))
    >>> Conv(8, 3, padding="VALID").init(random.key(0), (-1, 100, 25))[0]
    (-1, 98, 8)
    """
    filters = positive_int("Conv", "filters", filters)
    win = Window("Conv", window, strides, padding, dilation)
    function("Conv", "W_init", W_init)
    function("Conv", "b_init", b_init)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        output_shape = win.output_shape(input_shape, filters)
        channels = known_features("Conv", input_shape)
        require_key("Conv", key)
        key_w, key_b = random.split(key)
        params = {"W": W_init(key_w, (*win.size, channels, filters))}
        if bias:
            params["b"] = b_init(key_b, (filters,))
        return output_shape, params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        x, lengths, pads = win.prepare(inputs, 0)
        w = params["W"]
        if x.shape[-1] != w.shape[-2]:
            raise mismatch("Conv", f"{win.wanted} with C = {w.shape[-2]}", x)
        y = ops.conv(x, w, win.strides, pads, win.dilation)
        return rewrap(y + params["b"] if bias else y, lengths)

    def flops(shape: Shape, out: Shape, params: Any) -> int:
        return units_of(out) * (2 * math.prod(win.size) * shape[-1] + bias)

    return layer("Conv", init, apply, flops)
