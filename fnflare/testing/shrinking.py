"""Shrinking: from arguments that break a law to small and plain ones that break the same law.

A law, its arguments and its failure go in; the smallest arguments found come out, with the failure that they give. A
candidate counts only if the same law fails on it: one on which the function raises an error, or which breaks another
law, is passed over. Shapes shrink first, all axes of one size together, so that what has to fit together still does;
then values become short numbers.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.testing.failures import LawError

__all__ = ["shrink"]

#: Axes, each by the place of its leaf and its own.
_Places = Sequence[tuple[int, int]]

#: How often a law is tried. Nearly all failures are as small as they get within some dozens.
_TRIES = 150
#: Elements are made plain one by one where there are no more than this.
_FEW = 12


def shrink(
    law: Callable[[Any], None], args: Any, failure: LawError, *, generic: bool = False, tries: int | None = None
) -> tuple[Any, LawError]:
    """The smallest arguments found on which a law fails as it does on `args`.

    Args:
        law: raises `LawError` where it does not hold.
        args: a pytree on which it does not hold.
        failure: what it raised.
        generic: whether values stay in general position, neither zero nor equal to each other, as laws that compare
            with finite differences want it: at a kink they are broken by functions that keep them elsewhere.
        tries: how often `law` may be run; some hundred times where None.

    Returns:
        Arguments, and the failure that they give.

    >>> from fnflare.testing.shrinking import shrink
    >>> def law(x):
    ...     if np.sum(x) > 5:
    ...         raise ff.testing.LawError("small", f"the sum is {np.sum(x):g}")
    >>> x, failure = shrink(law, np.array([[3.7, 9.12], [2.3, 4.1]]), ff.testing.LawError("small", "the sum is 19.22"))
    >>> x, str(failure)
    (array([[9.]]), 'the sum is 9')
    """
    search = _Search(law, args, failure, _TRIES if tries is None else tries)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of candidates, which nobody asked for
        search.shapes()
        search.integers()
        search.values(generic)
    return search.args, search.failure


class _Search:
    """The smallest arguments so far."""

    def __init__(self, law: Callable[[Any], None], args: Any, failure: LawError, tries: int) -> None:
        self.law, self.failure, self.tries = law, failure, tries
        self.leaves, self.structure = tree.flatten(args)

    @property
    def args(self) -> Any:
        return tree.unflatten(self.structure, self.leaves)

    def smaller(self, leaves: list[Any]) -> bool:
        """Try other leaves; keep them if the same law fails."""
        if self.tries <= 0:
            return False
        self.tries -= 1
        try:
            self.law(tree.unflatten(self.structure, leaves))
        except LawError as failure:
            if failure.law == self.failure.law:
                self.leaves, self.failure = leaves, failure
                return True
        except Exception:  # arguments that the function cannot take
            pass
        return False

    # -- shapes -------------------------------------------------------------------------------------

    def shapes(self) -> None:
        shrunk = True
        while shrunk and self.tries > 0:
            sizes = {n for x in self.leaves if isinstance(x, np.ndarray) for n in x.shape if n > 1}
            cut = [self._cut(n, None) for n in sorted(sizes, reverse=True)]  # all of them
            shrunk = any(cut)
        # What is left are axes that have to stay longer, and others that happen to be as long: two alike, then each.
        places = [(p, k) for p, x in enumerate(self.leaves) if isinstance(x, np.ndarray) for k in range(x.ndim)]
        for pair in [*itertools.combinations(places, 2), *[(place,) for place in places]]:
            sizes = {self.leaves[p].shape[k] for p, k in pair}
            if len(sizes) == 1:
                self._cut(sizes.pop(), pair)

    def integers(self) -> None:
        """Make Python integers, such as those of a shape, small."""
        for place, n in enumerate(self.leaves):
            if type(n) is int and n > 1:
                any(self._replace(place, least) for least in sorted({1, 2, n // 2}) if least < n)

    def _cut(self, size: int, where: _Places | None) -> bool:
        """Make some axes, or all axes of a size, as short as they can be."""
        for least in sorted({1, 2, size // 2, size - 1}):
            parts = [slice(least)] if where is None else [slice(least), slice(-least, None)]
            if 0 < least < size and any(self.smaller(_cut(self.leaves, size, part, where)) for part in parts):
                return True
        return False

    # -- values -------------------------------------------------------------------------------------

    def values(self, generic: bool) -> None:
        for place, x in enumerate(self.leaves):
            if not _is_number(x):
                continue
            self._plain(place, x, _plainer(x, generic), lambda y: y)
            self._elements(place, generic)

    def _elements(self, place: int, generic: bool) -> None:
        x = self.leaves[place]
        if not isinstance(x, np.ndarray) or not 1 < x.size <= _FEW:
            return
        for index in np.ndindex(x.shape):

            def changed(y: Any, index: Any = index) -> Any:
                whole = self.leaves[place].copy()
                whole[index] = y
                return whole

            element = np.asarray(self.leaves[place][index])
            self._plain(place, element, _plainer(element, generic), changed)

    def _plain(self, place: int, x: Any, candidates: Iterator[Any], made: Callable[[Any], Any]) -> None:
        """Take the first of some candidates, the plainest first, that is plainer than `x` and breaks the law."""
        for y in candidates:
            if np.array_equal(x, y) or self._replace(place, made(y)):
                return

    def _replace(self, place: int, x: Any) -> bool:
        return self.smaller([x if i == place else y for i, y in enumerate(self.leaves)])


def _cut(leaves: list[Any], size: int, part: slice, where: _Places | None) -> list[Any]:
    def cut(place: int, x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        wanted = [n == size and (where is None or (place, axis) in where) for axis, n in enumerate(x.shape)]
        return x[tuple([part if w else slice(None) for w in wanted])].copy() if any(wanted) else x

    return [cut(place, x) for place, x in enumerate(leaves)]


def _is_number(x: Any) -> bool:
    return type(x) is float or (hasattr(x, "dtype") and x.dtype.kind in "fiu")


def _plainer(x: Any, generic: bool) -> Iterator[Any]:
    """Values of the shape, dtype and type of `x` that are easier to read, the plainest first."""
    array = np.asarray(x)
    if not generic or array.dtype.kind in "iu":
        yield _like(x, np.zeros_like(array))
        yield _like(x, np.ones_like(array))
    if array.dtype.kind != "f" or not np.all(np.isfinite(array)):
        return
    for digits in range(4):
        y = np.round(array, digits)
        plain = np.count_nonzero(y) < np.count_nonzero(array) or len(np.unique(y)) < len(np.unique(array))
        if not (generic and plain):
            yield _like(x, y)


def _like(x: Any, y: Any) -> Any:
    return y if isinstance(x, np.ndarray) else type(x)(y)
