"""Where in a sequence a vector stands, told to layers that do not see it by themselves: waves and turns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from fnflare.errors import ArgumentError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.layer import Layer, Shape, known_features, layer, mismatch, positive_int, units_of
from fnflare.padded import Padded

__all__ = ["SinusoidalPositions", "rotary", "sinusoidal_positions"]


def sinusoidal_positions(steps: int, features: int, base: float = 10000.0, dtype: DTypeLike = np.float32) -> np.ndarray:
    """A vector of sines and cosines for each position (Vaswani et al. 2017).

    Args:
        steps: how many positions, from 0.
        features: the size of the vectors: feature 2i of position p is ``sin(p / base ** (2i / features))``, the one
            after it the cosine of the same.
        base: what the longest wavelength is nearly 2 pi times of.
        dtype: of the answer.

    Returns:
        (steps, features).

    >>> ff.nn.sinusoidal_positions(2, 4).round(3)
    array([[0.   , 1.   , 0.   , 1.   ],
           [0.841, 0.54 , 0.01 , 1.   ]], dtype=float32)
    """
    features = positive_int("sinusoidal_positions", "features", features)
    angles = np.arange(steps)[:, None] * _base("sinusoidal_positions", base) ** (-np.arange(0, features, 2) / features)
    waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(steps, 2 * angles.shape[1])
    return waves[:, :features].astype(dtype)


def SinusoidalPositions(base: float = 10000.0) -> Layer:
    """The layer that adds a vector of sines and cosines to each position; see `sinusoidal_positions`.

    Inputs and outputs (N, T, features); a `Padded` batch passes with its lengths. No parameters.

    Args:
        base: what the longest wavelength is nearly 2 pi times of.

    Raises:
        ArgumentError: `base` is not a positive number.

    >>> ff.nn.SinusoidalPositions().apply((), np.zeros((1, 1, 4)))
    array([[[0., 1., 0., 1.]]])
    """
    kind = "SinusoidalPositions"
    base = _base(kind, base)

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        known_features(kind, input_shape, 3, "(N, T, features)")
        return input_shape, ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values), inputs.lengths)
        shape: Shape = getattr(inputs, "shape", ())
        if len(shape) != 3:
            raise mismatch(kind, "(N, T, features)", inputs)
        dtype = inputs.dtype if inputs.dtype.kind == "f" else np.float64
        return inputs + sinusoidal_positions(shape[1], shape[2], base, dtype)

    return layer(kind, init, apply, lambda shape, out, params: units_of(out))


def rotary(x: Any, positions: Any = None, *, base: float = 10000.0) -> Any:
    """Turn pairs of features by angles that grow with the position, so that the product of two vectors depends on how
    far apart they stand (Su et al. 2021, "RoFormer").

    Feature i and feature ``i + size / 2`` are a pair; at position p it is turned by ``p / base ** (2i / size)``. (The
    paper pairs neighbours; which features are pairs is a matter of their order.)

    Args:
        x: (..., T, size), queries or keys; an even size.
        positions: where they stand, integers or numbers that broadcast against (..., T); by default 0 to T - 1.
        base: what the longest wavelength is nearly 2 pi times of.

    Returns:
        As `x`.

    Raises:
        ShapeError: `x` has fewer than two axes or an odd size.

    >>> ff.nn.rotary(np.array([[1.0, 0.0], [1.0, 0.0]])).round(3)
    array([[1.   , 0.   ],
           [0.54 , 0.841]])
    """
    shape = np.shape(x)
    if len(shape) < 2 or shape[-1] % 2:
        raise ShapeError(f"{scoping.where()}rotary expected vectors (..., T, size) of an even size, got shape {shape}")
    half = shape[-1] // 2
    slowness = _base("rotary", base) ** (-np.arange(half) / half)
    angles = (np.arange(shape[-2]) if positions is None else positions)[..., None] * slowness
    sine, cosine = np.sin(angles).astype(x.dtype), np.cos(angles).astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def _base(kind: str, base: Any) -> float:
    if isinstance(base, bool) or not isinstance(base, (int, float)) or not base > 0:
        raise ArgumentError(f"{kind}: base must be a positive number, got {base!r}")
    return float(base)
