"""Index arithmetic as C: sums of products of ``int64_t``.

Indices of loop nests go in, expressions come out; what their factors are called is told by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fnflare.compiler.c99.literals import Level, Text
from fnflare.nest import Atom, Index, Integer, Quotient, Remainder

__all__ = ["atoms", "index_text", "integers"]


def atoms(index: Index) -> Iterator[Atom]:
    """The factors of an index and of its quotients and remainders, in the order in which they are written."""
    for monomial in index.terms:
        for a in monomial:
            if isinstance(a, (Quotient, Remainder)):
                yield from atoms(a.value)
                yield from atoms(a.divisor)
            else:
                yield a


def integers(index: Index) -> list[Integer]:
    """The computed integers in an index."""
    return [a for a in atoms(index) if isinstance(a, Integer)]


def index_text(index: Index, name: Callable[[Atom], Text]) -> Text:
    """An index as an expression, loop variables, sizes and integers written by `name`."""
    # What is added comes before what is subtracted, what moves far before what moves near, the constant last.
    terms = sorted(index.terms.items(), key=lambda t: (t[1] < 0, not t[0], -len(t[0]), -abs(t[1])))
    if not terms:
        return Text("0", Level.PRIMARY)
    texts = [_product(monomial, abs(factor), name) for monomial, factor in terms]
    first = f"-{texts[0].at(Level.UNARY)}" if terms[0][1] < 0 else texts[0].text
    if len(terms) == 1:
        return Text(first, Level.UNARY) if terms[0][1] < 0 else texts[0]
    rest = [f" {'-' if c < 0 else '+'} {t.at(Level.PRODUCT)}" for (_, c), t in zip(terms[1:], texts[1:], strict=True)]
    return Text(first + "".join(rest), Level.SUM)


def _product(monomial: tuple[Atom, ...], factor: int, name: Callable[[Atom], Text]) -> Text:
    texts = [_atom(a, name) for a in monomial]
    if factor != 1 or not texts:
        texts.append(Text(str(factor) if factor < 2**31 else f"{factor}ll", Level.PRIMARY))
    # Quotients are bracketed in products: `(i / 3) * 5` would be another number as `i * 5 / 3`.
    return texts[0] if len(texts) == 1 else Text(" * ".join(t.at(Level.UNARY) for t in texts), Level.PRODUCT)


def _atom(a: Atom, name: Callable[[Atom], Text]) -> Text:
    if isinstance(a, (Quotient, Remainder)):
        sign = "/" if isinstance(a, Quotient) else "%"
        value, divisor = index_text(a.value, name), index_text(a.divisor, name)
        return Text(f"{value.at(Level.UNARY)} {sign} {divisor.at(Level.UNARY)}", Level.PRODUCT)
    return name(a)
