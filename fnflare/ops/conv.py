"""Convolution, and the windows that pooling reduces, for any number of spatial axes, channels last.

A convolution is linear in its input and in its filters, and so are its two adjoints; each of the
three has the other two as derivatives, which closes the family under differentiation to any order.
Their operands may have one axis more in front, both: groups with examples and filters of their own, which is
what examples with filters of their own are batched to, and what channels in groups are.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import Primitive, ShapeDtypeStruct, bind, move_axis, primitive
from fnflare.kernels import conv as kernel

__all__ = ["conv", "conv_transpose", "fold", "windows"]

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def _conv_shape(
    x: ShapeDtypeStruct, w: ShapeDtypeStruct, *, strides: Ints, padding: Padding, dilation: Ints
) -> ShapeDtypeStruct:
    first = x.ndim - len(strides) - 1
    out = kernel.output_size(x.shape[first:-1], w.shape[first - 1 : -2], strides, padding, dilation)
    return ShapeDtypeStruct((*x.shape[:first], *out, w.shape[-1]), np.result_type(x.dtype, w.dtype))


def _taps(filter_shape: Ints, strides: Ints) -> int:
    """The number of elements of a filter."""
    return math.prod(filter_shape[-len(strides) - 2 : -1])


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
_conv.cost(lambda ans, x, w, *, strides, **_: 2 * ans.size * _taps(w.shape, strides))

# <conv_input_grad(y, w), u> = <y, conv(u, w)>, whence its derivatives; likewise for the filters.
_input_grad.vjp(
    lambda ct, _ans, _y, w, *, input_shape, **geometry: bind(_conv, (ct, w), geometry),
    lambda ct, _ans, y, w_like, *, input_shape, **geometry: _to_filter(ct, y, w_like.shape, geometry),
)
_input_grad.cost(lambda ans, y, w, *, strides, **_: 2 * y.size * _taps(w.shape, strides))

_filter_grad.vjp(
    lambda ct, _ans, x_like, y, *, filter_shape, **geometry: _to_input(y, ct, x_like.shape, geometry),
    lambda ct, _ans, x, _y, *, filter_shape, **geometry: bind(_conv, (x, ct), geometry),
)
_filter_grad.cost(lambda ans, x, y, *, filter_shape, strides, **_: 2 * y.size * _taps(filter_shape, strides))


# -- batching -----------------------------------------------------------------------------------
#
# Each of the three is a product over two of the axes N, C and F, summed over the third. Examples that share one
# operand are more of the axis that only the other has: N, C or F. Otherwise they are groups.


def _merged(x: Any, axis: int, into: int) -> Any:
    """`x` with its axis of examples merged into axis `into` of an example, outermost."""
    x = move_axis(x, axis, into)
    return np.reshape(x, (*x.shape[:into], x.shape[into] * x.shape[into + 1], *x.shape[into + 2 :]))


def _parted(x: Any, at: int, size: int, length: int) -> Any:
    """`x` with axis `at` parted into one of the examples and one of the given length."""
    return np.reshape(x, (*x.shape[:at], size, length, *x.shape[at + 1 :]))


def _stretched(shape: Ints, at: int, size: int) -> Ints:
    """A shape with axis `at` that many times as long."""
    return (*shape[:at], shape[at] * size, *shape[at + 1 :])


def _batches(prim: Primitive, own_axes: Any, wanted: str | None) -> None:
    """Give the batching rule of one of the three.

    Args:
        prim: the primitive.
        own_axes: for each argument, the axis that only it has and the place of that in the answer, of ``rank`` spatial
            axes: ``own_axes(rank)``.
        wanted: the parameter that holds the shape of the answer, if there is one.
    """

    def rule(size: int, args: Any, axes: Any, **params: Any) -> tuple[Any, int]:
        def sized(change: Any) -> dict[str, Any]:
            return params if wanted is None else {**params, wanted: change(params[wanted])}

        rank = len(params["strides"])
        grouped = args[0].ndim - (axes[0] is not None) - rank - 2
        if None not in axes:
            xs = [move_axis(x, axis, 0) for x, axis in zip(args, axes, strict=True)]
            if not grouped:
                return bind(prim, xs, sized(lambda shape: (size, *shape))), 0
            groups = xs[0].shape[1]
            ans = bind(prim, [_merged(x, 0, 0) for x in xs], sized(lambda shape: _stretched(shape, 0, size)))
            return _parted(ans, 0, size, groups), 0
        k = 0 if axes[1] is None else 1
        own, place = [axis + grouped for axis in own_axes(rank)[k]]
        length = args[k].shape[own + (axes[k] <= own)]
        xs = list(args)
        xs[k] = _merged(args[k], axes[k], own)
        return _parted(bind(prim, xs, sized(lambda shape: _stretched(shape, place, size))), place, size, length), place

    prim.vmap(rule)


# Axes of x and y: N, *spatial, C or F; of filters: *window, C, F.
_batches(_conv, lambda rank: ((0, 0), (rank + 1, rank + 1)), None)
_batches(_input_grad, lambda rank: ((0, 0), (rank, rank + 1)), "input_shape")
_batches(_filter_grad, lambda rank: ((rank + 1, rank), (rank + 1, rank + 1)), "filter_shape")


def _grouped(x: Any, groups: int) -> Any:
    """`x` with its last axis parted into groups, which come in front."""
    return np.moveaxis(np.reshape(x, (*x.shape[:-1], groups, x.shape[-1] // groups)), -2, 0)


def _ungrouped(y: Any) -> Any:
    y = np.moveaxis(y, 0, -2)
    return np.reshape(y, (*y.shape[:-2], y.shape[-2] * y.shape[-1]))


def conv(x: Any, w: Any, strides: Ints, padding: Padding, dilation: Ints, groups: int = 1) -> Any:
    """Convolve every example with every filter (the cross-correlation that neural nets call so).

    Args:
        x: (N, *spatial, C).
        w: (*window, C / groups, F).
        strides: the distance between windows along each spatial axis.
        padding: the zeros before and after each spatial axis, ``((low, high), ...)``.
        dilation: the distance between the elements of a window along each spatial axis.
        groups: into how many groups channels and filters are parted, in order; filters see the channels of
            their own group alone.

    Returns:
        (N, *out, F).

    >>> ff.ops.conv(np.ones((1, 4, 1)), np.ones((3, 1, 1)), (1,), ((1, 1),), (1,))[0, :, 0]
    array([2., 3., 3., 2.])
    """
    geometry = {"strides": strides, "padding": padding, "dilation": dilation}
    if groups == 1:
        return bind(_conv, (x, w), geometry)
    return _ungrouped(bind(_conv, (_grouped(x, groups), _grouped(w, groups)), geometry))


def conv_transpose(
    y: Any, w: Any, spatial: Ints, strides: Ints, padding: Padding, dilation: Ints, groups: int = 1
) -> Any:
    """The transposed convolution: each element of the input adds its multiple of every filter to the output.

    It is the adjoint of the `conv` that makes of an array of the given size one of the size of `y`.

    Args:
        y: (N, *in, C).
        w: (*window, C / groups, F).
        spatial: the size of the output along each axis.
        strides: the distance between the places of the filters in the output, along each axis.
        padding: what is cut off before and after each axis of the output, ``((low, high), ...)``.
        dilation: the distance between the elements of a filter along each axis.
        groups: as in `conv`.

    Returns:
        (N, *spatial, F).

    >>> ff.ops.conv_transpose(np.ones((1, 2, 1)), np.ones((3, 1, 1)), (5,), (2,), ((0, 0),), (1,))[0, :, 0]
    array([1., 1., 2., 1., 1.])
    """
    geometry = {"strides": strides, "padding": padding, "dilation": dilation}
    shape = (y.shape[0], *spatial, w.shape[-1] // groups)
    if groups == 1:
        return _to_input(y, np.swapaxes(w, -1, -2), shape, geometry)
    filters = np.swapaxes(_grouped(w, groups), -1, -2)
    return _ungrouped(_to_input(_grouped(y, groups), filters, (groups, *shape), geometry))


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


@_windows.vmap
def _(size: int, args: Any, axes: Any, **params: Any) -> tuple[Any, int]:
    (x,), (axis,) = args, axes
    return _parted(bind(_windows, (_merged(x, axis, 0),), params), 0, size, x.shape[axis == 0]), 0


@_fold.vmap
def _(size: int, args: Any, axes: Any, *, input_shape: Ints, **params: Any) -> tuple[Any, int]:
    (y,), (axis,) = args, axes
    params["input_shape"] = _stretched(input_shape, 0, size)
    return _parted(bind(_fold, (_merged(y, axis, 0),), params), 0, size, input_shape[0]), 0


def windows(x: Any, window: Ints, strides: Ints, dilation: Ints) -> Any:
    """Every window of an array: (N, *spatial, C) becomes (N, *out, C, *window), without a copy.

    >>> ff.ops.windows(np.arange(4.0).reshape(1, 4, 1), (2,), (2,), (1,))[0, :, 0]
    array([[0., 1.],
           [2., 3.]])
    """
    return bind(_windows, (x,), {"window": window, "strides": strides, "dilation": dilation})


def fold(y: Any, input_shape: Ints, strides: Ints, dilation: Ints) -> Any:
    """The adjoint of `windows`: add every element of every window to the place it was taken from."""
    return bind(_fold, (y,), {"input_shape": input_shape, "strides": strides, "dilation": dilation})
