"""Images read at any places: what lies between their elements is interpolated, and derivatives go to images and places.

Arrays of images and of places go in, the elements at the places come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from fnflare import ops
from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn.functions import hardtanh
from fnflare.nn.layer import positive_int
from fnflare.ops.at import at

__all__ = ["affine_grid", "grid_sample"]


def affine_grid(theta: Any, size: Sequence[int], *, align_corners: bool = False) -> Any:
    """The places that `grid_sample` reads for an affine map of an image (Jaderberg et al. 2015, spatial transformers).

    Args:
        theta: (N, k, k + 1), for each image of k spatial axes the matrix that maps a place (x, y, ..., 1) of the output
            to one of the input; x is the last spatial axis, as in PyTorch.
        size: of the output along each spatial axis.
        align_corners: as in `grid_sample`.

    Returns:
        (N, *size, k), the places in the order of x, y, ...

    Raises:
        ShapeError: `theta` does not have such a shape.

    >>> flip = np.array([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> ff.nn.affine_grid(flip, (1, 2)).ravel()
    array([ 0.5,  0. , -0.5,  0. ])
    """
    sizes = [positive_int("affine_grid", "size", n) for n in size]
    shape = np.shape(theta)
    if len(shape) != 3 or shape[1:] != (len(sizes), len(sizes) + 1):
        raise ShapeError(
            f"affine_grid: for a size of {len(sizes)} axes theta has the shape (N, {len(sizes)}, {len(sizes) + 1}), "
            f"got {shape}"
        )
    steps = [_normalised(np.arange(n), n, align_corners) for n in sizes]
    places = np.stack([*np.meshgrid(*steps, indexing="ij")[::-1], np.ones(sizes)], axis=-1)
    flat = np.reshape(places, (-1, len(sizes) + 1)).astype(theta.dtype)
    return np.reshape(flat @ np.swapaxes(theta, 1, 2), (shape[0], *sizes, len(sizes)))


def grid_sample(
    x: Any, grid: Any, *, mode: str = "linear", padding_mode: str = "zeros", align_corners: bool = False
) -> Any:
    """The elements of images at given places (Jaderberg et al. 2015).

    Args:
        x: (N, *spatial, C), of k spatial axes.
        grid: (N, *out, k), places from -1 to 1 along each axis, the last spatial axis first, as in PyTorch.
        mode: ``"linear"``, between the elements around (bilinear along two axes), or ``"nearest"``, whose derivative in
            the grid is zero.
        padding_mode: what lies outside, ``"zeros"`` or ``"border"``, the nearest element of the image.
        align_corners: whether -1 and 1 are the middles of the first and the last element, and not the borders of the
            image.

    Returns:
        (N, *out, C).

    Raises:
        ArgumentError: a setting is none of these.
        ShapeError: the shapes do not fit.

    >>> image = np.array([[[1.0], [2.0], [5.0]]])
    >>> ff.nn.grid_sample(image, np.array([[[-1.0], [0.5], [1.0]]]), align_corners=True).ravel()
    array([1. , 3.5, 5. ])
    """
    for name, given, known in (
        ("mode", mode, ("linear", "nearest")),
        ("padding_mode", padding_mode, ("zeros", "border")),
    ):
        if given not in known:
            raise ArgumentError(f"grid_sample: {name} must be one of {', '.join(map(repr, known))}, got {given!r}")
    shape, rank = np.shape(x), np.ndim(x) - 2
    if rank < 1 or np.ndim(grid) < 2 or (np.shape(grid)[0], np.shape(grid)[-1]) != (shape[0], rank) or 0 in shape[1:-1]:
        raise ShapeError(
            f"grid_sample expected images (N, ..., C) and a grid (N, ..., k) with a place along each of their k axes, "
            f"got shapes {shape} and {np.shape(grid)}"
        )
    sizes = shape[1:-1]
    places = [_place(grid[..., rank - 1 - k], n, align_corners) for k, n in enumerate(sizes)]
    if padding_mode == "border":
        places = [hardtanh(place, 0.0, n - 1.0) for place, n in zip(places, sizes, strict=True)]
    rows = np.reshape(np.arange(shape[0]), (-1, *[1] * (np.ndim(grid) - 2)))
    if mode == "nearest":
        return _read(x, rows, [ops.stop_gradient(np.rint(place)) for place in places])
    low = [ops.stop_gradient(np.floor(place)) for place in places]
    part = [place - start for place, start in zip(places, low, strict=True)]
    total: Any = None
    for corner in product((0, 1), repeat=rank):
        weight: Any = 1.0
        for side, p in zip(corner, part, strict=True):
            weight = weight * (p if side else 1 - p)
        term = _read(x, rows, [start + side for side, start in zip(corner, low, strict=True)]) * weight[..., None]
        total = term if total is None else total + term
    return total


def _normalised(i: np.ndarray, n: int, align_corners: bool) -> np.ndarray:
    """Where the elements i of n along an axis lie between -1 and 1."""
    if align_corners:
        return 2.0 * i / (n - 1) - 1 if n > 1 else np.zeros(1)
    return (2.0 * i + 1) / n - 1


def _place(where: Any, n: int, align_corners: bool) -> Any:
    """The way back, to a number of elements."""
    return (where + 1) * ((n - 1) / 2) if align_corners else ((where + 1) * n - 1) / 2


def _read(x: Any, rows: Any, numbers: list[Any]) -> Any:
    """The elements of images at whole numbers, zeros outside."""
    sizes = np.shape(x)[1:-1]
    along = [np.logical_and(number >= 0, number < n) for number, n in zip(numbers, sizes, strict=True)]
    index = [np.where(within, number, 0.0).astype(np.intp) for within, number in zip(along, numbers, strict=True)]
    inside = along[0]
    for within in along[1:]:
        inside = np.logical_and(inside, within)
    return np.where(inside[..., None], at(x)[(rows, *index)].get(), np.zeros((), x.dtype))
