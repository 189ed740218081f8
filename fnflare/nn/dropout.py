"""Dropout."""

from __future__ import annotations

from typing import Any

from fnflare import random
from fnflare.errors import MissingKeyError
from fnflare.nn import scoping
from fnflare.nn.layer import Layer, fraction, layer, units_of
from fnflare.padded import Padded

__all__ = ["Dropout"]


def Dropout(rate: float) -> Layer:
    """Set elements to zero at random in training (Srivastava et al. 2014).

    Those that stay are multiplied by ``1 / (1 - rate)``, so that the expected value is that of the
    inputs, and nothing has to be done when the model is used. With ``train=False`` the inputs pass.

    Args:
        rate: the fraction that is dropped, at least 0 and below 1.

    Raises:
        ArgumentError: the rate is out of range.
        MissingKeyError: when applied with ``train=True`` and no key.

    >>> import numpy as np
    >>> apply = Dropout(0.5).apply
    >>> apply((), np.ones(3))
    array([1., 1., 1.])
    >>> set(apply((), np.ones(100), key=random.key(0), train=True).tolist()) == {0.0, 2.0}
    True
    """
    rate = fraction("Dropout", "rate", rate)
    keep, scale = 1.0 - rate, 1.0 / (1.0 - rate)

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        return input_shape, ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        if not train or rate == 0.0:
            return inputs
        if key is None:
            raise MissingKeyError(
                f"{scoping.where()}Dropout draws random numbers in training: pass apply a key, "
                "as in model.apply(params, inputs, key=fnflare.random.key(seed), train=True)"
            )
        if type(inputs) is Padded:
            return Padded(apply(params, inputs.values, key=key, train=train), inputs.lengths)
        kept = random.bernoulli(key, keep, inputs.shape)
        # The mask is a constant to every derivative, so the scale goes into it and not into the inputs.
        return inputs * (kept.astype(inputs.dtype) * scale)

    return layer("Dropout", init, apply, lambda shape, out, params: 2 * units_of(out))
