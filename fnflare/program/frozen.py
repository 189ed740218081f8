"""Constants and static parameters as keys: what two equations that compute the same have in common.

A value goes in, something hashable comes out. Two keys are equal only where nothing that a kernel or a rule
might look at differs: 1, 1.0 and True are three, and so are 0.0 and -0.0.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from fnflare.program.ir import Literal

__all__ = ["frozen", "frozen_literal", "is_plain"]

#: Arrays up to this size are compared by their bytes, larger ones by their identity.
_SMALL = 256

_PLAIN = (int, str, bool, bytes, type(None), type(Ellipsis), np.dtype, type)


def frozen(value: Any, lasting: bool = False) -> Hashable:
    """A static parameter as a key.

    Args:
        value: the parameter.
        lasting: whether the key may outlive the parameter, so that the identity of an array says nothing.

    Raises:
        TypeError: it holds something that is not hashable, or a large array and the key shall last.
    """
    kind = type(value)
    if kind is tuple or kind is list:
        return (kind, *[frozen(v, lasting) for v in value])
    if kind is int or kind is str or kind is bool:
        return (kind, value)
    if kind is dict:
        return (kind, *[(k, frozen(v, lasting)) for k, v in value.items()])
    if kind is slice:
        return (kind, *[frozen(v, lasting) for v in (value.start, value.stop, value.step)])
    if kind is float or kind is complex:
        return (kind, repr(value))
    if kind is np.ndarray or isinstance(value, np.generic):
        return _frozen_array(value, lasting)
    hash(value)
    return (kind, value)


def _frozen_array(value: Any, lasting: bool) -> Hashable:
    if value.nbytes <= _SMALL and not value.dtype.hasobject:
        return (type(value), value.dtype, value.shape, value.tobytes())
    if lasting:
        raise TypeError("the identity of an array holds only for as long as the array is there")
    return (type(value), id(value))


def frozen_literal(literal: Literal) -> Hashable:
    """A constant as a key: a small one by its elements, one number repeated by that number, others by identity."""
    value = literal.value
    if type(value) is np.ndarray and value.nbytes > _SMALL:
        number = literal.repeated
        if number is not None:
            return ("repeated", value.dtype, value.shape, number.tobytes())
    return frozen(value)


def is_plain(value: Any) -> bool:
    """Whether a static parameter is data alone: nothing that may hold a function or a program."""
    if isinstance(value, (tuple, list)):
        return all(is_plain(v) for v in value)
    if isinstance(value, dict):
        return all(is_plain(v) for v in value.values())
    return isinstance(value, (*_PLAIN, float, complex, slice, np.ndarray, np.generic))
