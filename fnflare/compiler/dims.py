"""Sizes that may change from call to call, each with the number that it is in the program at hand.

A size goes in as a symbol with a witness, the number that the program was traced with; rules that demand two sizes to
be equal unify them, and what cannot be expressed is pinned to its number. Since the witnesses always agree, no
formula that comes out is wrong of the program at hand, whatever is unified.
"""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Iterable, Sequence

from fnflare.nest import Atom, Index, Quotient, Remainder, Size, index

__all__ = ["Dim", "Dims", "Shape", "evaluate", "number_of"]

#: A size: a number, or a polynomial that holds a symbol.
Dim = int | Index
Shape = tuple[Dim, ...]


class _Symbol(Size):
    """A size of one `Dims`, equal to itself alone, which is quicker to look up than by its name."""

    __slots__ = ()
    __eq__ = object.__eq__
    __hash__ = object.__hash__


def evaluate(dim: Index, values: dict[Size, int]) -> int:
    """The number that a polynomial in sizes is, where each size has a value.

    >>> from fnflare.compiler.dims import evaluate
    >>> from fnflare.nest import Size, index
    >>> n = Size("n")
    >>> evaluate(2 * index(n) - 1, {n: 5})
    9
    """
    return sum(factor * math.prod([_atom(a, values) for a in monomial]) for monomial, factor in dim.terms.items())


def _atom(a: Atom, values: dict[Size, int]) -> int:
    if isinstance(a, Size):
        return values[a]
    assert isinstance(a, (Quotient, Remainder)), f"{a} is no size"
    value, divisor = evaluate(a.value, values), evaluate(a.divisor, values)
    return value // divisor if isinstance(a, Quotient) else value % divisor


def number_of(dim: Dim) -> Dim:
    """A size as a number where it is one."""
    if type(dim) is int:
        return dim
    constant = dim.constant  # type: ignore[union-attr]
    return dim if constant is None else constant


class Dims:
    """The sizes of one program, while they are being found out.

    Args:
        symbolic: whether any of them may be a symbol.

    Attributes:
        witness: the number that each symbol stands for in the program.
        changed: whether anything was unified, pinned or made since `start`.
    """

    def __init__(self, symbolic: bool = True) -> None:
        self._symbolic = symbolic
        self.witness: dict[Size, int] = {}
        self.changed = False
        self._origins: dict[Hashable, Dim] = {}
        self._inputs: set[Size] = set()
        self._order: dict[Size, int] = {}
        self._known: dict[Size, Dim] = {}  # what symbols have turned out to be
        self._values: dict[Index, int] = {}
        self._factors: dict[Index, list[list[Dim]]] = {}
        self._is_stale = False  # whether more is known than when these were found
        self._borders: dict[Index, list[tuple[int, Dim]]] = {}

    def start(self) -> None:
        """Begin another walk over the program, with what is known of its sizes by now."""
        self._origins = {origin: self.resolved(d) for origin, d in self._origins.items()}
        self.changed = False
        self._factors.clear()
        self._borders.clear()

    # -- symbols --------------------------------------------------------------------------------

    def size(self, origin: Hashable, n: int, is_input: bool = False) -> Dim:
        """The size that has its origin in one place of the program, a symbol at first.

        One of 0 or 1 is a number: an axis of length one might be there for broadcasting.

        Args:
            origin: the place; the same in another walk.
            n: the number that it is.
            is_input: whether it is that of an axis of an input.
        """
        if n <= 1 or not self._symbolic:
            return n
        known = self._origins.get(origin)
        if known is None:
            symbol = _Symbol(f"v{len(self._order)}")
            self._order[symbol] = len(self._order)
            self.witness[symbol] = n
            if is_input:
                self._inputs.add(symbol)
            self.changed = True
            known = self._origins[origin] = index(symbol)
        return self.resolved(known)

    def resolved(self, dim: Dim) -> Dim:
        """A size with all that is known of its symbols by now."""
        known = self._known
        while type(dim) is not int and known:
            assert isinstance(dim, Index)
            symbol = _lone_symbol(dim)
            if symbol is not None:
                if symbol not in known:
                    break
                dim = known[symbol]
                continue
            values: dict[Atom, Index] = {a: index(known[a]) for a in symbols(dim) if a in known}
            if not values:
                break
            dim = number_of(dim.replace(values))
        return dim

    def value(self, dim: Dim) -> int:
        """The number that a size is in the program."""
        if type(dim) is int:
            return dim
        assert isinstance(dim, Index)
        value = self._values.get(dim)
        if value is None:
            value = self._values[dim] = evaluate(dim, self.witness)
        return value

    def values(self, dims: Iterable[Dim]) -> tuple[int, ...]:
        """The numbers that sizes are in the program."""
        return tuple([self.value(d) for d in dims])

    # -- what is demanded of them ---------------------------------------------------------------

    def pin(self, dim: Dim) -> int:
        """Make a size the number that it is in the program, for good."""
        dim = self.resolved(dim)
        value = self.value(dim)
        for a in symbols(dim):
            self._know(a, self.witness[a])
        return value

    def pin_all(self, dims: Iterable[Dim]) -> tuple[int, ...]:
        """Make sizes the numbers that they are in the program, for good."""
        return tuple([self.pin(d) for d in dims])

    def pin_others(self, kept: Container[Size]) -> None:
        """Make all symbols numbers but for some, and those that are written by these."""
        for symbol, n in self.witness.items():
            if symbol not in kept and symbol not in self._known:
                self._know(symbol, n)

    def unify(self, a: Dim, b: Dim) -> Dim:
        """Two sizes that are one; both are numbers afterwards where neither can be written by the other."""
        if a is b or (type(a) is int and type(b) is int):
            return a
        a, b = self.resolved(a), self.resolved(b)
        if a == b:
            return a
        difference = index(a) - b
        lone = [(s in self._inputs, -self._order[s], s) for s in _lone(difference)]
        if not lone:
            self.pin(difference)
            return self.pin(a)
        # What is not the size of an axis of an input is written by what is, and what came later by what came first.
        symbol = min(lone, key=lambda t: t[:2])[2]
        rest = difference - index(symbol) * difference.terms[symbol,]
        self._know(symbol, number_of(rest * -difference.terms[symbol,]))
        return self.resolved(a)

    def unify_shapes(self, a: Shape, b: Shape) -> Shape:
        """Two shapes that are one."""
        return a if a is b else tuple([self.unify(x, y) for x, y in zip(a, b, strict=True)])

    def broadcast(self, shapes: Sequence[Shape]) -> Shape:
        """What shapes broadcast to."""
        first = max(shapes, key=len)
        out: list[Dim] | None = None
        for shape in shapes:
            if shape is first:
                continue
            for i, d in enumerate(shape, len(first) - len(shape)):
                old = first[i] if out is None else out[i]
                if d is old or (type(d) is int and (d == 1 or (type(old) is int and old != 1))):
                    continue
                out = list(first) if out is None else out
                out[i] = d if old == 1 else self.unify(old, d)
        return first if out is None else tuple(out)

    def _know(self, symbol: Size, dim: Dim) -> None:
        self._known[symbol] = dim
        self.changed = self._is_stale = True

    # -- products and sums ------------------------------------------------------------------------

    def merged(self, dims: Sequence[Dim]) -> Dim:
        """The size of axes that are merged into one."""
        total: Dim = 1
        for d in map(self.resolved, dims):
            total = total * d
        total = number_of(total)
        if type(total) is not int and len(dims) > 1:
            assert isinstance(total, Index)
            factors = [f for d in dims for f in self._factors_of(self.resolved(d))[0]]
            known = self._factors.setdefault(total, [])
            if factors in known:
                known.remove(factors)
            known.insert(0, factors)
        return total

    def joined(self, dims: Sequence[Dim]) -> Dim:
        """The size of an axis along which arrays are put together."""
        borders: list[tuple[int, Dim]] = []
        total: Dim = 0
        for d in dims:
            total = number_of(total + self.resolved(d))
            borders.append((self.value(total), total))
        if type(total) is not int:
            assert isinstance(total, Index)
            self._borders.setdefault(total, []).extend(borders[:-1])
        return total

    def border(self, dim: Dim, n: int) -> Dim:
        """The place `n` along an axis, by the sizes of what was put together along axes of this size."""
        if type(dim) is int:
            return n
        assert isinstance(dim, Index)
        return next((self.resolved(d) for place, d in self._borders.get(dim, ()) if place == n), n)

    def _factors_of(self, dim: Dim) -> list[list[Dim]]:
        """What axes a size may have been merged of, outermost first; what was merged last comes first."""
        if type(dim) is int:
            return [[dim]]
        assert isinstance(dim, Index)
        known = self._up_to_date(dim)
        if known:
            return known
        number = math.gcd(*dim.terms.values())
        rest = Index({m: c // number for m, c in dim.terms.items()})
        single = next(iter(rest.terms)) if len(rest.terms) == 1 else ()
        symbolic: list[Dim] = [index(a) for a in single] if single else [rest]
        if number == 1:
            return [symbolic]
        return [[*symbolic, number], [number, *symbolic]]

    def _up_to_date(self, dim: Index) -> list[list[Dim]]:
        """The axes that were merged to one of this size, where this was done."""
        if self._is_stale:
            old, self._factors, self._is_stale = self._factors, {}, False
            for key, ways in old.items():
                total = self.resolved(key)
                if isinstance(total, Index):
                    found = self._factors.setdefault(total, [])
                    new = [list(map(self.resolved, way)) for way in ways]
                    found += [way for way in new if way not in found]
        return self._factors.get(dim, [])

    def split(self, origin: Hashable, dims: Sequence[Dim], sizes: Sequence[int]) -> Shape:
        """The sizes of axes that others are merged and split into, their elements in the same order.

        Args:
            origin: the place in the program.
            dims: the sizes of the axes, none of them 1.
            sizes: those of the new axes, none of them 1, with the same product.
        """
        dims = [self.resolved(d) for d in dims]
        if all(type(d) is int for d in dims):
            return tuple(sizes)
        if len(dims) == 1 and self._is_free(dims[0]):
            out = tuple([self.size((origin, i), n) for i, n in enumerate(sizes)])
            self.unify(dims[0], self.merged(out))
            return tuple(map(self.resolved, out))
        before = [self._origins.get((origin, i)) for i in range(len(sizes))]
        if None not in before:  # what another walk made of them
            out = tuple([self.resolved(d) for d in before if d is not None])
            if self.merged(out) == self.merged(dims):
                return out
        choices: list[list[Dim]] = [[]]
        for d in dims:
            choices = [[*c, *more] for c in choices for more in self._factors_of(d)][:8]
        for parts in choices:
            found = self._grouped(parts, sizes)
            if found is not None:
                return found
        self.pin_all(dims)
        return tuple(sizes)

    def _is_free(self, dim: Dim) -> bool:
        """Whether a size is a symbol that is not the size of an axis of an input."""
        symbol = _lone_symbol(index(dim))
        return symbol is not None and symbol not in self._inputs

    def _grouped(self, parts: Sequence[Dim], sizes: Sequence[int]) -> Shape | None:
        """The sizes of new axes, each made of the next of some factors; a number among these may be split."""
        rest = list(reversed(parts))
        out: list[Dim] = []
        for n in sizes:
            taken: list[Dim] = []
            while n > 1:
                if not rest:
                    return None
                part = rest.pop()
                value = self.value(part)
                if n % value == 0:
                    taken.append(part)
                    n //= value
                elif type(part) is int and part % n == 0:
                    taken.append(n)
                    rest.append(part // n)
                    n = 1
                else:
                    return None
            out.append(self.merged(taken))
        return tuple(out)


def _lone_symbol(dim: Index) -> Size | None:
    """The symbol that a size is; None where it is anything else."""
    if len(dim.terms) != 1:
        return None
    ((monomial, factor),) = dim.terms.items()
    return monomial[0] if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], Size) else None


def symbols(dim: Dim) -> set[Size]:
    """The symbols that a size is made of."""
    if type(dim) is int:
        return set()
    assert isinstance(dim, Index)
    return {a for a in dim.atoms() if isinstance(a, Size)}


def _lone(dim: Index) -> Iterable[Size]:
    """The symbols that a polynomial holds once, as a term that is the symbol or its negative: those it can be solved
    for."""
    counts: dict[Atom, int] = {}
    for monomial in dim.terms:
        for a in set(monomial):
            for s in symbols(index(a)) if not isinstance(a, Size) else (a,):
                counts[s] = counts.get(s, 0) + 1
    for monomial, factor in dim.terms.items():
        if len(monomial) == 1 and factor in (1, -1):
            (a,) = monomial
            if isinstance(a, Size) and counts[a] == 1:
                yield a
