"""Convolution, and the windows that pooling reduces, for any number of spatial axes, channels last.

A convolution is linear in its input and in its filters, and so are its two adjoints; each of the
three has the other two as derivatives, which closes the family under differentiation to any order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, primitive
from fnflare.kernels import conv as kernel

__all__ = ["conv", "fold", "windows"]

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def _conv_shape(
    x: ShapeDtypeStruct, w: ShapeDtypeStruct, *, strides: Ints, padding: Padding, dilation: Ints
) -> ShapeDtypeStruct:
    out = kernel.output_size(x.shape[1:-1], w.shape[:-2], strides, padding, dilation)
    return ShapeDtypeStruct((x.shape[0], *out, w.shape[-1]), np.result_type(x.dtype, w.dtype))


_conv = primitive("conv", kernel.conv, _conv_shape, multilinear=True)
_input_grad = primitive(
    "conv_input_grad",
    kernel.conv_input_grad,
    lambda ct, w, *, input_shape, **_: ShapeDtypeStruct(input_shape, np.result_type(ct.dtype, w.dtype)),
    multilinear=True,
)
_filter_grad = primitive(
    "conv_filter_grad",
    kernel.conv_filter_grad,
    lambda x, ct, *, filter_shape, **_: ShapeDtypeStruct(filter_shape, np.result_type(ct.dtype, x.dtype)),
    multilinear=True,
)


def _to_input(ct: Any, w: Any, shape: Ints, geometry: dict[str, Any]) -> Any:
    return bind(_input_grad, (ct, w), {"input_shape": shape, **geometry})


def _to_filter(x: Any, ct: Any, shape: Ints, geometry: dict[str, Any]) -> Any:
    return bind(_filter_grad, (x, ct), {"filter_shape": shape, **geometry})


_conv.vjp(
    lambda ct, _ans, x_like, w, **geometry: _to_input(ct, w, x_like.shape, geometry),
    lambda ct, _ans, x, w_like, **geometry: _to_filter(x, ct, w_like.shape, geometry),
)
_conv.cost(lambda ans, x, w, **_: 2 * ans.size * math.prod(w.shape[:-1]))

# <conv_input_grad(y, w), u> = <y, conv(u, w)>, whence its derivatives; likewise for the filters.
_input_grad.vjp(
    lambda ct, _ans, _y, w, *, input_shape, **geometry: bind(_conv, (ct, w), geometry),
    lambda ct, _ans, y, w_like, *, input_shape, **geometry: _to_filter(ct, y, w_like.shape, geometry),
)
_input_grad.cost(lambda ans, y, w, **_: 2 * y.size * math.prod(w.shape[:-1]))

_filter_grad.vjp(
    lambda ct, _ans, x_like, y, *, filter_shape, **geometry: _to_input(y, ct, x_like.shape, geometry),
    lambda ct, _ans, x, _y, *, filter_shape, **geometry: bind(_conv, (x, ct), geometry),
)
_filter_grad.cost(lambda ans, x, y, *, filter_shape, **_: 2 * y.size * math.prod(filter_shape[:-1]))


def conv(x: Any, w: Any, strides: Ints, padding: Padding, dilation: Ints) -> Any:
    """Convolve every example with every filter (the cross-correlation that neural nets call so).

    Args:
        x: (N, *spatial, C).
        w: (*window, C, F).
        strides: the distance between windows along each spatial axis.
        padding: the zeros before and after each spatial axis, ``((low, high), ...)``.
        dilation: the distance between the elements of a window along each spatial axis.

    Returns:
        (N, *out, F).

    >>> conv(np.ones((1, 4, 1)), np.ones((3, 1, 1)), (1,), ((1, 1),), (1,))[0, :, 0]
    array([2., 3., 3., 2.])
    """
    return bind(_conv, (x, w), {"strides": strides, "padding": padding, "dilation": dilation})


def _windows_shape(x: ShapeDtypeStruct, *, window: Ints, strides: Ints, dilation: Ints) -> ShapeDtypeStruct:
    none = ((0, 0),) * len(window)
    out = kernel.output_size(x.shape[1:-1], window, strides, none, dilation)
    return ShapeDtypeStruct((x.shape[0], *out, x.shape[-1], *window), x.dtype)


_windows = primitive("windows", kernel.windows, _windows_shape, multilinear=True)
_fold = primitive(
    "fold", kernel.fold, lambda ct, *, input_shape, **_: ShapeDtypeStruct(input_shape, ct.dtype), multilinear=True
)
_windows.vjp(lambda ct, _ans, x_like, *, window, strides, dilation: fold(ct, x_like.shape, strides, dilation))
_fold.vjp(
    lambda ct, _ans, y_like, *, input_shape, strides, dilation: windows(
        ct, y_like.shape[len(input_shape) :], strides, dilation
    )
)
_fold.cost(lambda ans, y, **_: y.size)


def windows(x: Any, window: Ints, strides: Ints, dilation: Ints) -> Any:
    """Every window of an array: (N, *spatial, C) becomes (N, *out, C, *window), without a copy.

    >>> windows(np.arange(4.0).reshape(1, 4, 1), (2,), (2,), (1,))[0, :, 0]
    array([[0., 1.],
           [2., 3.]])
    """
    return bind(_windows, (x,), {"window": window, "strides": strides, "dilation": dilation})


def fold(y: Any, input_shape: Ints, strides: Ints, dilation: Ints) -> Any:
    """The adjoint of `windows`: add every element of every window to the place it was taken from."""
    return bind(_fold, (y,), {"input_shape": input_shape, "strides": strides, "dilation": dilation})
