"""Dropout: noise in training, of elements, channels or whole sequences at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import random
from fnflare.errors import MissingKeyError, ShapeError
from fnflare.nn import scoping
from fnflare.nn.layer import Layer, Shape, fraction, layer, mismatch, units_of
from fnflare.padded import Padded

__all__ = ["AlphaDropout", "Dropout", "GaussianDropout", "SpatialDropout", "VariationalDropout"]

# What scaled elu goes to at minus infinity, -scale * alpha; Klambauer et al. 2017, equation 14.
_SELU_FLOOR = -1.7580993408473766


def Dropout(rate: float) -> Layer:
    """Set elements to zero at random in training (Srivastava et al. 2014).

    Those that stay are multiplied by ``1 / (1 - rate)``, so that the expected value is that of the
    inputs, and nothing has to be done when the model is used. With ``train=False`` the inputs pass.

    Args:
        rate: the fraction that is dropped, at least 0 and below 1.

    Raises:
        ArgumentError: the rate is out of range.
        MissingKeyError: when applied with ``train=True`` and no key.

    >>> apply = ff.nn.Dropout(0.5).apply
    >>> apply((), np.ones(3))
    array([1., 1., 1.])
    >>> set(apply((), np.ones(100), key=ff.random.key(0), train=True).tolist()) == {0.0, 2.0}
    True
    """
    rate = fraction("Dropout", "rate", rate)
    return _noise("Dropout", rate, _scaled(rate, lambda shape: shape))


def SpatialDropout(rate: float) -> Layer:
    """Set whole channels of an example to zero at random in training (Tompson et al. 2015).

    Neighbouring positions say nearly the same, so that `Dropout` of single elements hides little from a convolution.
    Inputs (N, *spatial, C); a `Padded` batch passes with its lengths.

    Args:
        rate: the fraction of channels that is dropped, at least 0 and below 1.

    Raises:
        ArgumentError: the rate is out of range.
        MissingKeyError: when applied with ``train=True`` and no key.

    >>> ff.nn.SpatialDropout(0.5).apply((), np.ones((1, 2, 4)), key=ff.random.key(1), train=True)[0]
    array([[2., 0., 0., 2.],
           [2., 0., 0., 2.]])
    """
    rate = fraction("SpatialDropout", "rate", rate)
    mask = _scaled(rate, lambda shape: (shape[0], *[1] * (len(shape) - 2), shape[-1]))
    return _noise("SpatialDropout", rate, mask, 3, "(N, ..., C)")


def VariationalDropout(rate: float) -> Layer:
    """Dropout with one mask for all time steps of a sequence, also called locked dropout (Gal & Ghahramani 2016).

    Inputs (N, T, ...); a `Padded` batch passes with its lengths.

    Args:
        rate: the fraction that is dropped, at least 0 and below 1.

    Raises:
        ArgumentError: the rate is out of range.
        MissingKeyError: when applied with ``train=True`` and no key.

    >>> ff.nn.VariationalDropout(0.5).apply((), np.ones((1, 2, 4)), key=ff.random.key(1), train=True)[0]
    array([[2., 0., 0., 2.],
           [2., 0., 0., 2.]])
    """
    rate = fraction("VariationalDropout", "rate", rate)
    mask = _scaled(rate, lambda shape: (shape[0], 1, *shape[2:]))
    return _noise("VariationalDropout", rate, mask, 3, "(N, T, ...)")


def GaussianDropout(rate: float) -> Layer:
    """Multiply elements by normal noise of mean 1 and the variance of `Dropout`'s, ``rate / (1 - rate)``, in training
    (Srivastava et al. 2014, section 10).

    Args:
        rate: the fraction that `Dropout` would drop, at least 0 and below 1.

    Raises:
        ArgumentError: the rate is out of range.
        MissingKeyError: when applied with ``train=True`` and no key.

    >>> ff.nn.GaussianDropout(0.5).apply((), np.ones(3))
    array([1., 1., 1.])
    """
    rate = fraction("GaussianDropout", "rate", rate)
    deviation = (rate / (1.0 - rate)) ** 0.5

    def noisy(key: Any, x: Any) -> Any:
        dtype = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
        drawn = random.normal(key, x.shape, dtype if dtype.itemsize > 2 else np.float32)
        return x * (1.0 + deviation * drawn).astype(dtype)

    return _noise("GaussianDropout", rate, noisy)


def AlphaDropout(rate: float) -> Layer:
    """Set elements to the least value of `selu` at random in training, and keep mean 0 and variance 1 (Klambauer et
    al. 2017, section "New Dropout Technique").

    Args:
        rate: the fraction that is dropped, at least 0 and below 1.

    Raises:
        ArgumentError: the rate is out of range.
        MissingKeyError: when applied with ``train=True`` and no key.

    >>> ff.nn.AlphaDropout(0.5).apply((), np.ones(3))
    array([1., 1., 1.])
    """
    rate = fraction("AlphaDropout", "rate", rate)
    keep = 1.0 - rate
    factor = (keep + _SELU_FLOOR**2 * keep * rate) ** -0.5
    shift = -factor * _SELU_FLOOR * rate

    def noisy(key: Any, x: Any) -> Any:
        kept = random.bernoulli(key, keep, x.shape)
        return np.where(kept, factor * x + shift, np.asarray(factor * _SELU_FLOOR + shift, x.dtype))

    return _noise("AlphaDropout", rate, noisy)


def _scaled(rate: float, mask_shape: Callable[[Shape], Shape]) -> Callable[[Any, Any], Any]:
    """Multiplication by a mask of the shape that that of the inputs asks for."""
    keep, scale = 1.0 - rate, 1.0 / (1.0 - rate)

    def noisy(key: Any, x: Any) -> Any:
        kept = random.bernoulli(key, keep, mask_shape(x.shape))
        # The mask is a constant to every derivative, so the scale goes into it and not into the inputs.
        return x * (kept.astype(x.dtype) * scale)

    return noisy


def _noise(kind: str, rate: float, noisy: Callable[[Any, Any], Any], least: int = 0, wanted: str = "") -> Layer:
    """A layer that makes its inputs ``noisy(key, inputs)`` in training; they need `least` axes."""

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        if len(input_shape) < least:
            raise ShapeError(f"{scoping.where()}{kind} expected inputs {wanted}, got input shape {input_shape}")
        return input_shape, ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if not train or rate == 0.0:
            return inputs
        if key is None:
            raise MissingKeyError(
                f"{scoping.where()}{kind} draws random numbers in training: pass apply a key, "
                "as in model.apply(params, inputs, key=fnflare.random.key(seed), train=True)"
            )
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values, key=key, train=train), inputs.lengths)
        if len(getattr(inputs, "shape", ())) < least:
            raise mismatch(kind, wanted, inputs)
        return noisy(key, inputs)

    return layer(kind, init, apply, lambda shape, out, params: 2 * units_of(out))
