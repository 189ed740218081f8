"""The error function in NumPy, for where MKL is not.

W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23 (1969): erf as
x R(x**2) up to 0.46875, and as 1 - exp(-x**2) R(x) beyond, up to where the complement no longer counts.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["erf"]

_BORDER = 0.46875
_ONE = 6.0  # from here on 1 - erf is below half the last place of 1

# Numerators and denominators, highest power first.
_SMALL = (
    (
        1.85777706184603153e-1,
        3.16112374387056560e00,
        1.13864154151050156e02,
        3.77485237685302021e02,
        3.20937758913846947e03,
    ),
    (
        1.0,
        2.36012909523441209e01,
        2.44024637934444173e02,
        1.28261652607737228e03,
        2.84423683343917062e03,
    ),
)
_COMPLEMENT = (
    (
        2.15311535474403846e-8,
        5.64188496988670089e-1,
        8.88314979438837594e00,
        6.61191906371416295e01,
        2.98635138197400131e02,
        8.81952221241769090e02,
        1.71204761263407058e03,
        2.05107837782607147e03,
        1.23033935479799725e03,
    ),
    (
        1.0,
        1.57449261107098347e01,
        1.17693950891312499e02,
        5.37181101862009858e02,
        1.62138957456669019e03,
        3.29079923573345963e03,
        4.36261909014324716e03,
        3.43936767414372164e03,
        1.23033935480374942e03,
    ),
)

_BLOCK = 1 << 13  # elements: the temporaries of a block stay in the cache


def erf(x: np.ndarray) -> np.ndarray:
    """The error function of every element.

    Args:
        x: float32 or float64, any shape.

    Returns:
        An array of x's shape and dtype, within 5 units in the last place (worst just past the border).

    >>> from fnflare.kernels.erf import erf
    >>> erf(np.array([-np.inf, 0.0, 0.5, np.inf]))
    array([-1.        ,  0.        ,  0.52049988,  1.        ])
    """
    if x.size == 1:
        return np.full(x.shape, math.erf(x.item()), x.dtype)
    flat = x.reshape(-1)
    out = np.empty_like(flat)
    for start in range(0, flat.size, _BLOCK):
        out[start : start + _BLOCK] = _erf(flat[start : start + _BLOCK])
    return out.reshape(x.shape)


def _erf(x: np.ndarray) -> np.ndarray:
    size = np.minimum(np.abs(x), _ONE)
    square = size * size
    small = x * _ratio(square, _SMALL)
    large = _ratio(size, _COMPLEMENT)
    large *= np.exp(np.negative(square, out=square))
    np.subtract(1.0, large, out=large)
    # At a size this small the first form is x times a constant, also where it is not a number.
    return np.where(size > _BORDER, np.copysign(large, x), small)


def _ratio(x: np.ndarray, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> np.ndarray:
    top, bottom = (_horner(x, part) for part in coefficients)
    top /= bottom
    return top


def _horner(x: np.ndarray, coefficients: tuple[float, ...]) -> np.ndarray:
    total: np.ndarray = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        total += coefficient
        total *= x
    total += coefficients[-1]
    return total
