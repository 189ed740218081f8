"""Convolution on plain NumPy arrays, as matrix products; windows of an array, and their adjoint.

Arrays are channels last: inputs ``(N, *spatial, C)``, filters ``(*window, C, F)``, outputs
``(N, *out, F)``, with one, two, three or more spatial axes. All functions take `strides` and
`dilation` as one integer per spatial axis and `padding` as one pair ``(low, high)`` of numbers of
zeros per spatial axis. What deep learning calls convolution is a cross-correlation: the filter is
not flipped.

A convolution lays the window under every output position out as one row of a matrix (im2col;
Chellapilla, Puri, Simard 2006, "High performance convolutional neural networks for document
processing") and multiplies it with the filters. The matrix is made for a block of examples at a
time, so that it stays small however large the batch is.

`conv` and its two adjoints also take arrays with one axis more in front of both: groups, each of
examples and filters of its own. One product of a stack of matrices then serves many groups; where a group
has next to no channels, as in a depthwise convolution, each element of the window is one multiplication
of all groups at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fnflare.kernels import matmul, matmul_add

__all__ = ["conv", "conv_filter_grad", "conv_input_grad", "fold", "output_size", "windows"]

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]

# The bytes that the matrix of windows may take: large enough for full speed of a matrix product,
# small enough to stay near the last cache level instead of growing with the batch.
_BLOCK_BYTES = 1 << 23
# The bytes of the sums that one element of the window after another is added to: they stay in the cache.
_SUM_BYTES = 1 << 18
# The products of a channel with a filter in a group up to which an element of the window is a multiplication.
_FEW_PRODUCTS = 4
# Along fewer numbers than these NumPy's loops do not get going.
_SHORT = 64


def output_size(spatial: Ints, window: Ints, strides: Ints, padding: Padding, dilation: Ints) -> Ints:
    """The number of positions of a window along each spatial axis; zero or less where it does not fit.

    >>> from fnflare.kernels.conv import output_size
    >>> output_size((28, 28), (5, 5), (2, 1), ((0, 0), (2, 2)), (1, 1))
    (12, 28)
    """
    return tuple(
        (size + low + high - (k - 1) * d - 1) // s + 1
        for size, k, s, (low, high), d in zip(spatial, window, strides, padding, dilation, strict=True)
    )


def windows(x: np.ndarray, window: Ints, strides: Ints, dilation: Ints) -> np.ndarray:
    """Every window of an array, as a read-only view that copies nothing.

    Args:
        x: (N, *spatial, C).
        window: the window's size along each spatial axis.
        strides: the distance between windows along each spatial axis.
        dilation: the distance between the elements of a window along each spatial axis.

    Returns:
        (N, *out, C, *window): the windows that lie within `x`.

    >>> from fnflare.kernels.conv import windows
    >>> windows(np.arange(4.0).reshape(1, 4, 1), (2,), (1,), (1,))[0, :, 0]
    array([[0., 1.],
           [1., 2.],
           [2., 3.]])
    """
    out = output_size(x.shape[1:-1], window, strides, ((0, 0),) * len(window), dilation)
    batch, *spatial, channel = x.strides
    return as_strided(
        x,
        (x.shape[0], *out, x.shape[-1], *window),
        (batch, *_times(spatial, strides), channel, *_times(spatial, dilation)),
        writeable=False,
    )


def fold(ct: np.ndarray, input_shape: Ints, strides: Ints, dilation: Ints) -> np.ndarray:
    """The adjoint of `windows`: add every element of every window to the place it was taken from.

    Args:
        ct: (N, *out, C, *window), as `windows` returns it.
        input_shape: (N, *spatial, C), the shape of the array the windows are of.
        strides: as in `windows`.
        dilation: as in `windows`.

    Returns:
        (N, *spatial, C), in the dtype of `ct`.

    >>> from fnflare.kernels.conv import fold
    >>> fold(np.ones((1, 3, 1, 2)), (1, 4, 1), (1,), (1,))[0, :, 0]
    array([1., 2., 2., 1.])
    """
    rank = len(input_shape) - 2
    out, window = ct.shape[1 : rank + 1], ct.shape[rank + 2 :]
    x = np.zeros(input_shape, ct.dtype)
    for position in np.ndindex(*window):
        x[(slice(None), *_places(position, out, strides, dilation))] += ct[(..., *position)]
    return x


def conv(x: np.ndarray, w: np.ndarray, strides: Ints, padding: Padding, dilation: Ints) -> np.ndarray:
    """Convolve every example with every filter.

    Args:
        x: (N, *spatial, C).
        w: (*window, C, F).
        strides: the distance between windows along each spatial axis.
        padding: the zeros before and after each spatial axis, as ``((low, high), ...)``.
        dilation: the distance between the elements of a window along each spatial axis.

    Returns:
        (N, *out, F) in the dtype to which `x` and `w` promote; `output_size` gives ``out``.

    >>> from fnflare.kernels.conv import conv
    >>> x, w = np.arange(4.0).reshape(1, 4, 1), np.array([1.0, 10.0]).reshape(2, 1, 1)
    >>> conv(x, w, (1,), ((1, 0),), (1,))[0, :, 0]
    array([ 0., 10., 21., 32.])
    """
    if w.ndim == len(strides) + 3:
        return _conv_groups(x, w, strides, padding, dilation)
    window, filters = w.shape[:-2], w.shape[-1]
    dtype = np.result_type(x, w)
    out = output_size(x.shape[1:-1], window, strides, padding, dilation)
    y = np.empty((x.shape[0], *out, filters), dtype)
    matrix = w.reshape(-1, filters)
    for block, rows in _window_rows(_pad(x, padding), window, out, strides, dilation, dtype):
        product = matmul(rows, matrix).reshape(-1, *out, filters)
        if len(product) == len(y):  # the whole batch in one block: nothing to copy
            return product
        y[block] = product
    return y


def conv_filter_grad(
    x: np.ndarray, ct: np.ndarray, filter_shape: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> np.ndarray:
    """The adjoint of `conv` in its filters.

    Args:
        x: (N, *spatial, C), the inputs of the convolution.
        ct: (N, *out, F), the cotangent of its outputs.
        filter_shape: (*window, C, F).
        strides: as in `conv`.
        padding: as in `conv`.
        dilation: as in `conv`.

    Returns:
        The cotangent of the filters, (*window, C, F).
    """
    if len(filter_shape) == len(strides) + 3:
        return _filter_grad_groups(x, ct, filter_shape, strides, padding, dilation)
    window, filters = filter_shape[:-2], filter_shape[-1]
    dtype = np.result_type(x, ct)
    w = np.zeros((math.prod(filter_shape[:-1]), filters), dtype)
    for block, rows in _window_rows(_pad(x, padding), window, ct.shape[1:-1], strides, dilation, dtype):
        matmul_add(rows.T, ct[block].reshape(-1, filters), w)
    return w.reshape(filter_shape)


def conv_input_grad(
    ct: np.ndarray, w: np.ndarray, input_shape: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> np.ndarray:
    """The adjoint of `conv` in its inputs (what is also called a transposed convolution).

    Args:
        ct: (N, *out, F), the cotangent of the outputs of the convolution.
        w: (*window, C, F), its filters.
        input_shape: (N, *spatial, C), the shape of its inputs.
        strides: as in `conv`.
        padding: as in `conv`.
        dilation: as in `conv`.

    Returns:
        The cotangent of the inputs, (N, *spatial, C).
    """
    if w.ndim == len(strides) + 3:
        return _input_grad_groups(ct, w, input_shape, strides, padding, dilation)
    batch, *spatial, channels = input_shape
    *window, _, filters = w.shape
    dtype = np.result_type(ct, w)
    matrix = w.reshape(-1, filters)
    if _is_pointwise(window, strides, padding):
        return matmul(ct.reshape(-1, filters), matrix.T).reshape(input_shape)
    out = ct.shape[1:-1]
    padded = tuple(size + low + high for size, (low, high) in zip(spatial, padding, strict=True))
    x = np.empty((batch, *spatial, channels), dtype)
    interior = tuple(slice(low, low + size) for size, (low, _) in zip(spatial, padding, strict=True))
    # The sums below run over short stretches of memory: along the channels, or, where there are
    # fewer channels than output columns, along those, in a channels-first buffer.
    channels_first = channels < out[-1]
    for block in _blocks(batch, matrix.shape[0] * math.prod(out) * dtype.itemsize):
        rows = ct[block].reshape(-1, filters)
        count = block.stop - block.start
        if channels_first:
            parts = matmul(matrix, rows.T).reshape(*window, channels, count, *out)
            total = np.zeros((channels, count, *padded), dtype)
            for position in np.ndindex(*window):
                total[(slice(None), slice(None), *_places(position, out, strides, dilation))] += parts[position]
            x[block] = np.moveaxis(total[(slice(None), slice(None), *interior)], 0, -1)
        else:
            parts = matmul(rows, matrix.T).reshape(count, *out, *window, channels)
            x[block] = _summed(parts, padded, strides, dilation)[(slice(None), *interior)]
    return x


def _summed(parts: np.ndarray, padded: Ints, strides: Ints, dilation: Ints) -> np.ndarray:
    """Every element of every window, (N, *out, *window, C), added to the place it was taken from."""
    rank = len(padded)
    out, window = parts.shape[1 : rank + 1], parts.shape[rank + 1 : -1]
    total = np.zeros((parts.shape[0], *padded, parts.shape[-1]), parts.dtype)
    for position in np.ndindex(*window):
        taken = (..., *position, slice(None))
        total[(slice(None), *_places(position, out, strides, dilation))] += parts[taken]
    return total


# -- groups: arrays with one axis more in front, (G, N, *spatial, C) and (G, *window, C, F) -----------


def _conv_groups(x: np.ndarray, w: np.ndarray, strides: Ints, padding: Padding, dilation: Ints) -> np.ndarray:
    groups, count = x.shape[:2]
    window, filters = w.shape[1:-2], w.shape[-1]
    out = output_size(x.shape[2:-1], window, strides, padding, dilation)
    dtype = np.result_type(x, w)
    if w.shape[-2] * filters <= _FEW_PRODUCTS:
        return _conv_few(x, w, out, strides, padding, dilation)
    y = np.empty((groups, count, *out, filters), dtype)
    if not count:  # of no examples there is no matrix to take blocks of
        return y
    matrix = w.reshape(groups, -1, filters)
    if _is_large(count, matrix.shape[1], out, dtype):
        for group in range(groups):
            y[group] = conv(x[group], w[group], strides, padding, dilation)
        return y
    for block, rows in _group_rows(x, window, out, strides, padding, dilation, dtype):
        y[block] = matmul(rows, matrix[block]).reshape(-1, count, *out, filters)
    return y


def _filter_grad_groups(
    x: np.ndarray, ct: np.ndarray, filter_shape: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> np.ndarray:
    groups, *window, channels, filters = filter_shape
    count, out = ct.shape[1], ct.shape[2:-1]
    width = math.prod(window) * channels
    dtype = np.result_type(x, ct)
    if channels * filters <= _FEW_PRODUCTS:
        return _filter_grad_few(x, ct, filter_shape, strides, padding, dilation)
    if not count:
        return np.zeros(filter_shape, dtype)
    w = np.empty((groups, width, filters), dtype)
    if _is_large(count, width, out, dtype):
        for group in range(groups):
            part = conv_filter_grad(x[group], ct[group], filter_shape[1:], strides, padding, dilation)
            w[group] = part.reshape(width, filters)
        return w.reshape(filter_shape)
    columns = ct.reshape(groups, count * math.prod(out), filters)
    for block, rows in _group_rows(x, tuple(window), out, strides, padding, dilation, dtype):
        w[block] = matmul(rows.swapaxes(1, 2), columns[block])
    return w.reshape(filter_shape)


def _input_grad_groups(
    ct: np.ndarray, w: np.ndarray, input_shape: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> np.ndarray:
    groups, count, *spatial, channels = input_shape
    *window, _, filters = w.shape[1:]
    out = ct.shape[2:-1]
    dtype = np.result_type(ct, w)
    if channels * filters <= _FEW_PRODUCTS:
        return _input_grad_few(ct, w, input_shape, strides, padding, dilation)
    if not count:
        return np.zeros(input_shape, dtype)
    matrix = w.reshape(groups, -1, filters).swapaxes(1, 2)
    rows = ct.reshape(groups, count * math.prod(out), filters)
    if _is_pointwise(window, strides, padding):
        return matmul(rows, matrix).reshape(input_shape)
    x = np.empty(input_shape, dtype)
    width = matrix.shape[2]
    if _is_large(count, width, out, dtype):
        for group in range(groups):
            x[group] = conv_input_grad(ct[group], w[group], input_shape[1:], strides, padding, dilation)
        return x
    padded = tuple(size + low + high for size, (low, high) in zip(spatial, padding, strict=True))
    interior = tuple(slice(low, low + size) for size, (low, _) in zip(spatial, padding, strict=True))
    for block in _blocks(groups, count * width * math.prod(out) * dtype.itemsize):
        parts = matmul(rows[block], matrix[block]).reshape(-1, *out, *window, channels)
        total = _summed(parts, padded, strides, dilation)[(slice(None), *interior)]
        x[block] = total.reshape(-1, count, *spatial, channels)
    return x


def _is_large(count: int, width: int, out: Ints, dtype: np.dtype) -> bool:
    """Whether one group alone fills a block: groups are then best taken one by one."""
    return count * width * math.prod(out) * dtype.itemsize > _BLOCK_BYTES


def _group_rows(
    x: np.ndarray, window: Ints, out: Ints, strides: Ints, padding: Padding, dilation: Ints, dtype: np.dtype
) -> Iterator[tuple[slice, np.ndarray]]:
    """The windows of a block of groups at a time, as a stack of matrices (groups, positions, window * C)."""
    groups, count, *_, channels = x.shape
    if _is_pointwise(window, strides, padding):
        yield slice(0, groups), x.reshape(groups, -1, channels)
        return
    rank, width, positions = len(window), math.prod(window) * channels, count * math.prod(out)
    view = windows(_pad(x.reshape(-1, *x.shape[2:]), padding), window, strides, dilation)
    view = view.reshape(groups, count, *view.shape[1:])  # an axis is parted: still a view
    spatial, inner = range(2, rank + 2), range(rank + 3, 2 * rank + 3)
    by_position = _is_by_position(channels, window, out, dilation)
    axes = (0, 1, *spatial, *inner, rank + 2) if by_position else (0, *inner, rank + 2, 1, *spatial)
    for block in _blocks(groups, width * positions * dtype.itemsize):
        filled = view[block].transpose(axes).astype(dtype, order="C")
        rows = filled.reshape(-1, positions, width) if by_position else filled.reshape(-1, width, positions)
        yield block, rows if by_position else rows.swapaxes(1, 2)


# -- groups with next to no channels: their axis is brought next to the last, (N, *spatial, G, C) ------


def _conv_few(x: np.ndarray, w: np.ndarray, out: Ints, strides: Ints, padding: Padding, dilation: Ints) -> np.ndarray:
    rank, channels = len(strides), w.shape[-2]
    x = _pad(np.moveaxis(x, 0, -2), padding)
    y = np.empty((x.shape[0], *out, w.shape[0], w.shape[-1]), np.result_type(x, w))
    taps = _taps(np.moveaxis(w, 0, -3), rank, out[-1])
    for block in _blocks(y.shape[0], y[:1].nbytes, _SUM_BYTES):
        total, product = y[block], np.empty_like(y[block])
        into = total  # the first product is the sum so far
        for position in np.ndindex(*w.shape[1 : rank + 1]):
            seen = x[(block, *_places(position, out, strides, dilation))]
            for c in range(channels):
                np.multiply(seen[..., c : c + 1], taps[position][..., c, :], out=into)
                if into is product:
                    total += product
                into = product
    return np.moveaxis(y, -2, 0)


def _input_grad_few(
    ct: np.ndarray, w: np.ndarray, input_shape: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> np.ndarray:
    rank, filters = len(strides), w.shape[-1]
    ct = np.moveaxis(ct, 0, -2)
    groups, batch, *spatial, channels = input_shape
    out = ct.shape[1 : rank + 1]
    padded = tuple(size + low + high for size, (low, high) in zip(spatial, padding, strict=True))
    x = np.zeros((batch, *padded, groups, channels), np.result_type(ct, w))
    taps = _taps(np.moveaxis(w, 0, -3), rank, out[-1])
    for block in _blocks(batch, x[:1].nbytes, _SUM_BYTES):
        product = np.empty((block.stop - block.start, *out, groups, channels), x.dtype)
        for position in np.ndindex(*w.shape[1 : rank + 1]):
            total = x[(block, *_places(position, out, strides, dilation))]
            for f in range(filters):
                np.multiply(ct[block][..., f : f + 1], taps[position][..., f], out=product)
                total += product
    interior = tuple(slice(low, low + size) for size, (low, _) in zip(spatial, padding, strict=True))
    return np.moveaxis(x[(slice(None), *interior)], -2, 0)


def _filter_grad_few(
    x: np.ndarray, ct: np.ndarray, filter_shape: Ints, strides: Ints, padding: Padding, dilation: Ints
) -> np.ndarray:
    rank, window = len(strides), filter_shape[1:-2]
    x, ct = _pad(np.moveaxis(x, 0, -2), padding), np.moveaxis(ct, 0, -2)
    out = ct.shape[1 : rank + 1]
    w = np.zeros(filter_shape, np.result_type(x, ct))
    positions = list(range(rank + 1))
    group, channel, filter_ = rank + 1, rank + 2, rank + 3
    for block in _blocks(ct.shape[0], ct[:1].nbytes, _SUM_BYTES):
        for position in np.ndindex(*window):
            seen = x[(block, *_places(position, out, strides, dilation))]
            w[(slice(None), *position)] += np.einsum(
                seen,
                [*positions, group, channel],
                ct[block],
                [*positions, group, filter_],
                [group, channel, filter_],
            )
    return w


def _taps(w: np.ndarray, rank: int, length: int) -> np.ndarray:
    """Filters (*window, G, C, F), each repeated along the last spatial axis of the outputs, of this length, where the
    groups alone would make short loops: (*window, 1 or length, G, C, F)."""
    spread = w[(*[slice(None)] * rank, None)]
    if math.prod(w.shape[rank:]) >= _SHORT:
        return spread
    return np.ascontiguousarray(np.broadcast_to(spread, (*w.shape[:rank], length, *w.shape[rank:])))


# -- the matrix of windows ----------------------------------------------------------------------------


def _is_by_position(channels: int, window: Ints, out: Ints, dilation: Ints) -> bool:
    """Whether to lay windows out position by position, or element by element. Both layouts give the same
    matrix product; the better one copies longer stretches of memory."""
    return channels * (window[-1] if dilation[-1] == 1 else 1) >= out[-1]


def _window_rows(
    x: np.ndarray, window: Ints, out: Ints, strides: Ints, dilation: Ints, dtype: np.dtype
) -> Iterator[tuple[slice, np.ndarray]]:
    """The windows of a block of examples at a time, as a matrix (positions, window * C).

    The matrix of the last block is overwritten by the next one.
    """
    batch, channels = x.shape[0], x.shape[-1]
    if _is_pointwise(window, strides):
        yield slice(0, batch), x.reshape(-1, channels)
        return
    rank, width, positions = len(window), math.prod(window) * channels, math.prod(out)
    view = windows(x, window, strides, dilation)
    spatial, inner = range(1, rank + 1), range(rank + 2, 2 * rank + 2)
    by_position = _is_by_position(channels, window, out, dilation)
    axes = (0, *spatial, *inner, rank + 1) if by_position else (*inner, rank + 1, 0, *spatial)
    buffer = np.empty(0, dtype)
    for block in _blocks(batch, width * positions * dtype.itemsize):
        part = view[block].transpose(axes)
        if buffer.size < part.size:
            buffer = np.empty(part.size, dtype)
        filled = buffer[: part.size].reshape(part.shape)
        filled[...] = part
        yield block, filled.reshape(-1, width) if by_position else filled.reshape(width, -1).T


def _blocks(batch: int, bytes_each: int, at_once: int | None = None) -> Iterator[slice]:
    """Slices of the batch, each of as many examples as the matrix of windows, or as so many bytes, may hold."""
    count = max(1, (at_once or _BLOCK_BYTES) // max(1, bytes_each))
    for start in range(0, batch, count):
        yield slice(start, min(start + count, batch))


def _is_pointwise(window: Ints | list[int], strides: Ints, padding: Padding = ()) -> bool:
    """Whether each output position sees exactly the input at its own place."""
    return all(k == 1 for k in window) and all(s == 1 for s in strides) and not any(map(any, padding))


def _pad(x: np.ndarray, padding: Padding) -> np.ndarray:
    if not any(map(any, padding)):
        return x
    spatial, rest = x.shape[1 : len(padding) + 1], x.shape[len(padding) + 1 :]
    sizes = [size + low + high for size, (low, high) in zip(spatial, padding, strict=True)]
    padded = np.zeros((x.shape[0], *sizes, *rest), x.dtype)
    interior = [slice(low, low + size) for size, (low, _) in zip(spatial, padding, strict=True)]
    padded[(slice(None), *interior)] = x
    return padded


def _places(position: Ints, out: Ints, strides: Ints, dilation: Ints) -> tuple[slice, ...]:
    """Where the element at `position` of each window lies in the array."""
    return tuple(
        slice(p * d, p * d + (o - 1) * s + 1, s) for p, o, s, d in zip(position, out, strides, dilation, strict=True)
    )


def _times(a: list[int], b: Ints) -> list[int]:
    return [i * j for i, j in zip(a, b, strict=True)]
