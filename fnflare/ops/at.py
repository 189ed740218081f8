"""Functional writes: ``at(x)[index].set(v)`` and its kin, where NumPy would write into an array.

An array and an index go in, a new array comes out, made by reads and writes of `fnflare.ops.index`. An
index may name an element more than once: every value that is meant for it takes part.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fnflare.core import Tracer, is_tracer
from fnflare.core.scatter import is_basic
from fnflare.ops.index import getitem, index_add, index_set, split_index

__all__ = ["At", "at"]


class At:
    """Functional writes to one part of an array; made by ``at(x)[index]``."""

    __slots__ = ("_index", "_x")

    def __init__(self, x: Any, index: Any) -> None:
        self._x = x
        self._index = index

    def get(self) -> Any:
        """The part itself."""
        return getitem(self._x, self._index)

    def set(self, value: Any) -> Any:
        """The array with the part replaced."""
        return index_set(self._x, value, index=self._index)

    def add(self, value: Any) -> Any:
        """The array with `value` added to the part; an index named twice is added to twice."""
        return index_add(self._x, value, index=self._index)

    def multiply(self, value: Any) -> Any:
        """The array with the part multiplied; an index named twice is multiplied twice."""
        return self._update(np.multiply, np.multiply, value)

    def divide(self, value: Any) -> Any:
        """The array with the part divided; an index named twice is divided twice."""
        return self._update(np.divide, np.multiply, value)

    def power(self, value: Any) -> Any:
        """The array with the part raised to a power; an index named twice is raised twice."""
        return self._update(np.power, np.multiply, value)

    def min(self, value: Any) -> Any:
        """The array with the part no larger than `value`, or than each of the values for one index."""
        return self._update(np.minimum, np.minimum, value)

    def max(self, value: Any) -> Any:
        """The array with the part no smaller than `value`, or than each of the values for one index:
        with an index of segment numbers, the maximum of each segment."""
        return self._update(np.maximum, np.maximum, value)

    def _update(self, operation: Any, combine: Any, value: Any) -> Any:
        x, index = self._x, self._index
        parts = index if type(index) is tuple else (index,)
        if not is_basic(tuple([0 if is_tracer(i) and i.ndim == 0 else i for i in parts])):
            static, arrays = split_index(index)
            if arrays:
                return _update_unknown(x, index, value, operation, combine)
            index, value = _one_each(x.shape, static, value, combine)
        return index_set(x, operation(getitem(x, index), value), index=index)

    def apply(self, function: Any) -> Any:
        """The array with an elementwise function applied to the part."""
        return self.set(function(self.get()))


def _one_each(shape: tuple[int, ...], index: Any, value: Any, combine: Any) -> tuple[Any, Any]:
    """An index that names no element twice, and its values: those for one element are combined, pair by pair."""
    part = np.arange(math.prod(shape)).reshape(shape)[index]
    if np.unique(part).size == part.size:
        return index, value
    places = part.reshape(-1)
    value = np.reshape(np.broadcast_to(value, part.shape), -1)
    while True:
        order = np.argsort(places, kind="stable")
        places, value = places[order], value[order]
        number = np.arange(places.size)
        begins = np.diff(places, prepend=-1) != 0
        even = (number - np.maximum.accumulate(np.where(begins, number, 0))) % 2 == 0
        paired = even & ~np.append(begins[1:], True)
        if not paired.any():
            return np.unravel_index(places, shape), value
        left, alone = np.flatnonzero(paired), np.flatnonzero(even & ~paired)
        value = np.concatenate([combine(value[left], value[left + 1]), value[alone]])
        places = np.concatenate([places[left], places[alone]])


def _update_unknown(x: Any, index: Any, value: Any, operation: Any, combine: Any) -> Any:
    """The array with a part updated at an index whose values are not known, nor then which elements it names twice.

    The same pairs are combined as by `_one_each`, in place of the first of each pair, so that every step has as many
    values as the one before. The first value for an element ends as the one of them all, and is written last.
    """
    part = getitem(np.arange(math.prod(x.shape)).reshape(x.shape), index)
    places = np.reshape(part, -1)
    value = np.reshape(np.broadcast_to(value, part.shape), -1)
    order = np.argsort(places, kind="stable")
    places, value = places[order], getitem(value, order)
    number = np.arange(places.size) - np.searchsorted(places, places)
    step = 1
    while step < places.size:
        paired = np.logical_and(places[:-step] == places[step:], number[:-step] % (2 * step) == 0)
        first = np.where(paired, combine(value[:-step], value[step:]), value[:-step])
        value = np.concatenate([first, value[-step:]])
        step *= 2
    flat = np.reshape(x, -1)
    places, value = places[::-1], value[::-1]
    return np.reshape(index_set(flat, operation(getitem(flat, places), value), index=places), x.shape)


class _Parts:
    __slots__ = ("_x",)

    def __init__(self, x: Any) -> None:
        self._x = x

    def __getitem__(self, index: Any) -> At:
        return At(self._x, index)


def at(x: Any) -> _Parts:
    """Functional writes: ``at(x)[index].set(v)`` is a copy of `x` in which the part has changed.

    Args:
        x: an array or a tracer.

    Returns:
        An object to index, with ``set``, ``add``, ``multiply``, ``divide``, ``power``, ``min``, ``max``,
        ``apply`` and ``get`` on the part.

    >>> ff.at(np.zeros(3))[1].set(5.0)
    array([0., 5., 0.])
    >>> ff.at(np.zeros(2))[[0, 0, 1]].add(1.0)
    array([2., 1.])
    """
    return _Parts(x if isinstance(x, (np.ndarray, Tracer)) else np.asarray(x))
