"""Index arithmetic: where in a buffer an element lies, as an exact expression.

Loop variables and sizes that are known only when the code runs go in; sums of products of them come out, in a normal
form, so that two ways to the same place are equal, strides can be read off, and a reshape's quotients and remainders
vanish where they are known. Layout operations of arrays are nothing but this arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fnflare.nest.scalars import Scalar

__all__ = ["Axis", "Index", "Integer", "Quotient", "Remainder", "Size", "index", "nonnegative", "product"]


@dataclass(frozen=True, slots=True)
class Size:
    """A size that is known when the code runs, such as the number of steps of a loop; it is at least 1."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """A loop's variable, which runs from 0 to below `extent`."""

    name: str
    extent: Index

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Quotient:
    """``value // divisor``, rounded down; neither is negative."""

    value: Index
    divisor: Index

    def __str__(self) -> str:
        return f"({self.value}) / ({self.divisor})"


@dataclass(frozen=True, slots=True)
class Remainder:
    """``value % divisor``; neither is negative."""

    value: Index
    divisor: Index

    def __str__(self) -> str:
        return f"({self.value}) % ({self.divisor})"


@dataclass(frozen=True, slots=True, eq=False)
class Integer:
    """An integer that is computed, such as one read from an array of indices."""

    value: Scalar

    def __str__(self) -> str:
        return f"[{self.value}]"


Atom = Size | Axis | Quotient | Remainder | Integer
_Monomial = tuple[Atom, ...]


class Index:
    """A polynomial with integer coefficients over loop variables, sizes, quotients and remainders.

    Immutable and hashable; two that are equal as polynomials are equal. Python's integers mix with it.

    Attributes:
        terms: monomials, each a tuple of its factors, with their coefficients, none of them 0; the monomial () is
            the constant.
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: dict[_Monomial, int]) -> None:
        self.terms = terms
        self._hash: int | None = None

    # -- what it is ---------------------------------------------------------------------------------

    @property
    def constant(self) -> int | None:
        """Its value where that is known, else None."""
        terms = self.terms
        if not terms:
            return 0
        return terms.get(()) if len(terms) == 1 else None

    def coefficient(self, axis: Axis) -> Index | None:
        """The stride along a loop's variable, which is what the index grows by with each step of it.

        None where there is no such number: the variable stands in a square, a quotient or a remainder, or in the
        number of an element that is read.
        """
        out: dict[_Monomial, int] = {}
        for monomial, factor in self.terms.items():
            rest = tuple([a for a in monomial if a is not axis])
            if len(monomial) - len(rest) > 1 or any(_depends(a, axis) for a in rest):
                return None
            if len(rest) < len(monomial):
                out[rest] = out.get(rest, 0) + factor
        return Index({m: c for m, c in out.items() if c})

    def depends_on(self, axis: Axis) -> bool:
        """Whether it changes with a loop's variable."""
        return any(a is axis or _depends(a, axis) for m in self.terms for a in m)

    def atoms(self) -> set[Atom]:
        """The factors of all terms, and theirs."""
        out: set[Atom] = set()
        for monomial in self.terms:
            for a in monomial:
                out.add(a)
                if isinstance(a, (Quotient, Remainder)):
                    out |= a.value.atoms() | a.divisor.atoms()
        return out

    def replace(self, values: dict[Atom, Index]) -> Index:
        """With factors replaced by what `values` says, in quotients and remainders too."""
        if not values:
            return self
        total = _ZERO
        for monomial, factor in self.terms.items():
            term = Index({(): factor})
            for a in monomial:
                term = term * _replaced(a, values)
            total = total + term
        return total

    # -- arithmetic -----------------------------------------------------------------------------------

    def __add__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            if not other:
                return self
            other = Index({(): other})
        out = dict(self.terms)
        for monomial, factor in other.terms.items():
            new = out.get(monomial, 0) + factor
            if new:
                out[monomial] = new
            else:
                del out[monomial]
        return Index(out)

    __radd__ = __add__

    def __neg__(self) -> Index:
        return Index({m: -c for m, c in self.terms.items()})

    def __sub__(self, other: Index | int) -> Index:
        return self + (-other)

    def __rsub__(self, other: int) -> Index:
        return -self + other

    def __mul__(self, other: Index | int) -> Index:
        if isinstance(other, int):
            if other == 1:
                return self
            return Index({m: c * other for m, c in self.terms.items()}) if other else _ZERO
        out: dict[_Monomial, int] = {}
        for m, c in self.terms.items():
            for n, d in other.terms.items():
                key = n if not m else m if not n else tuple(sorted((*m, *n), key=_order))
                new = out.get(key, 0) + c * d
                if new:
                    out[key] = new
                else:
                    del out[key]
        return Index(out)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: Index | int) -> Index:
        divisor = index(divisor)
        whole, rest = self._divided(divisor)
        if not rest.terms or _below(rest, divisor):
            return whole
        return whole + Index({(Quotient(rest, divisor),): 1})

    def __mod__(self, divisor: Index | int) -> Index:
        divisor = index(divisor)
        _, rest = self._divided(divisor)
        if not rest.terms or _below(rest, divisor):
            return rest
        return Index({(Remainder(rest, divisor),): 1})

    def _divided(self, divisor: Index) -> tuple[Index, Index]:
        """The terms that a divisor divides, each divided by it, and those that it does not divide."""
        if len(divisor.terms) != 1:
            return (Index({(): 1}), _ZERO) if divisor == self else (_ZERO, self)
        ((factors, number),) = divisor.terms.items()
        whole: dict[_Monomial, int] = {}
        rest: dict[_Monomial, int] = {}
        for monomial, c in self.terms.items():
            left = _without(monomial, factors)
            if left is None:
                rest[monomial] = c
                continue
            quotient, remainder = divmod(c, number)
            if quotient:
                whole[left] = quotient
            if remainder:
                rest[monomial] = remainder
        return Index(whole), Index(rest)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Index):
            return self.terms == other.terms
        return isinstance(other, int) and self.constant == other

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self.terms.items())) if self.constant is None else hash(self.constant)
        return self._hash

    def __str__(self) -> str:
        return self.text(str)

    def text(self, atom: Callable[[Atom], str]) -> str:
        """As a sum of products in the notation of C, each factor written by `atom`."""
        parts: list[str] = []
        for monomial, c in sorted(self.terms.items(), key=lambda t: (not t[0], -len(t[0]))):
            names = [atom(a) for a in monomial]
            size = abs(c)
            body = " * ".join(names if size == 1 and names else [*names, str(size)])
            sign = "-" if c < 0 else "+"
            parts.append(body if not parts and c > 0 else f"-{body}" if not parts else f"{sign} {body}")
        return " ".join(parts) or "0"

    __repr__ = __str__


_ZERO = Index({})


def index(value: Index | Atom | int) -> Index:
    """A number, a loop's variable or a size as an index."""
    if isinstance(value, Index):
        return value
    if isinstance(value, int):
        return Index({(): value}) if value else _ZERO
    return Index({(value,): 1})


def product(values: Iterable[Index | int]) -> Index:
    """The product of sizes; 1 where there are none."""
    out = Index({(): 1})
    for v in values:
        out = out * v
    return out


def nonnegative(value: Index) -> bool:
    """Whether it is known to be 0 or more whatever the loops' variables and the sizes are."""
    lowest = value
    for a in value.atoms():
        if isinstance(a, Axis) and (stride := lowest.coefficient(a)) is not None and _known(stride):
            lowest = lowest.replace({a: _ZERO if all(c >= 0 for c in stride.terms.values()) else a.extent - 1})
    sizes = {a: index(a) + 1 for a in lowest.atoms() if isinstance(a, Size)}
    lowest = lowest.replace(sizes)  # type: ignore[arg-type]
    return all(c >= 0 for c in lowest.terms.values()) and all(
        not isinstance(a, Integer) for m in lowest.terms for a in m
    )


def _known(stride: Index) -> bool:
    """Whether the sign of a stride can be told: all its terms have the same."""
    signs = {c > 0 for c in stride.terms.values()}
    return len(signs) <= 1


def _below(value: Index, divisor: Index) -> bool:
    """Whether ``0 <= value < divisor`` for sure."""
    return nonnegative(value) and nonnegative(divisor - value - 1)


def _order(a: Atom) -> tuple[str, str]:
    return type(a).__name__, str(a)


def _depends(a: Atom, axis: Axis) -> bool:
    if isinstance(a, (Quotient, Remainder)):
        return a.value.depends_on(axis) or a.divisor.depends_on(axis)
    return isinstance(a, Integer) and a.value.depends_on(axis)


def _replaced(a: Atom, values: dict[Atom, Index]) -> Index:
    if a in values:
        return values[a]
    if isinstance(a, Quotient):
        return a.value.replace(values) // a.divisor.replace(values)
    if isinstance(a, Remainder):
        return a.value.replace(values) % a.divisor.replace(values)
    if isinstance(a, Integer):
        return Index({(Integer(a.value.replace(values)),): 1})
    return Index({(a,): 1})


def _without(monomial: _Monomial, factors: _Monomial) -> _Monomial | None:
    """A monomial with factors taken out, None where it lacks one."""
    left = list(monomial)
    for a in factors:
        if a not in left:
            return None
        left.remove(a)
    return tuple(left)
