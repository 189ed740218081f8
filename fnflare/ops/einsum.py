"""Contractions: einsum, with its subscripts in every form that NumPy takes.

Subscripts reach the primitive in one canonical form: every operand's axes as letters, explicit output, no ellipsis, so
that the rules need not parse. What is a product of matrices goes to `matmul`.
"""

from __future__ import annotations

import math
import operator
import string
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, bind, primitive
from fnflare.core.tracer import implements
from fnflare.ops.index import index_set
from fnflare.ops.linalg import matmul
from fnflare.ops.shape import as_arrays, no_out

__all__ = ["einsum"]


def _free_letters(text: str) -> list[str]:
    return [c for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in text]


def _canonical(subscripts: str, ndims: list[int]) -> tuple[tuple[str, ...], str]:
    """``"...ij,jk"`` and the numbers of axes as letters of each operand and of the output."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(ndims):
        raise ValueError(f"einsum: {subscripts!r} names {len(terms)} operands, got {len(ndims)}")
    for term in (*terms, right):
        letters = term.replace("...", "", 1)
        if letters and not (letters.isascii() and letters.isalpha()):
            raise ValueError(f"einsum: {term!r} in {subscripts!r} is not of letters and one ellipsis")
    free = _free_letters(text)
    widths = [n - len(t.replace("...", "")) for t, n in zip(terms, ndims, strict=True) if "..." in t]
    dots = "".join(free[: max(widths, default=0)])
    full = []
    for term, n in zip(terms, ndims, strict=True):
        width = n - len(term.replace("...", ""))
        if width < 0 or (width and "..." not in term):
            raise ValueError(f"einsum: {term!r} in {subscripts!r} does not fit an operand with {n} axes")
        full.append(term.replace("...", dots[len(dots) - width :]))
    letters = "".join(terms).replace(".", "")
    if not arrow:
        return tuple(full), dots + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    named = right.replace("...", "")
    if len(set(named)) != len(named) or not set(named) <= set(letters) or (dots and "..." not in right):
        raise ValueError(f"einsum: the output of {subscripts!r} must name axes of the operands, each once, and '...'")
    return tuple(full), right.replace("...", dots)


def _einsum_kernel(*xs: Any, terms: tuple[str, ...], out: str) -> Any:
    return np.einsum(",".join(terms) + "->" + out, *xs, optimize=len(xs) > 1)


def _sizes(terms: tuple[str, ...], xs: Any) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for term, x in zip(terms, xs, strict=True):
        for c, n in zip(term, x.shape, strict=True):
            if sizes.get(c, 1) != n and n != 1 and sizes.get(c, 1) != 1:
                raise ValueError(f"einsum: axis {c!r} has length {sizes[c]} and {n} in {','.join(terms)}")
            sizes[c] = max(n, sizes.get(c, 1)) if n else 0
    return sizes


def _einsum_shape(*xs: ShapeDtypeStruct, terms: tuple[str, ...], out: str) -> ShapeDtypeStruct:
    sizes = _sizes(terms, xs)
    return ShapeDtypeStruct(tuple([sizes[c] for c in out]), np.result_type(*[x.dtype for x in xs]))


_einsum = primitive("einsum", _einsum_kernel, _einsum_shape)


@_einsum.cost
def _(ans: Any, *xs: ShapeDtypeStruct, terms: tuple[str, ...], out: str) -> int:
    return len(xs) * math.prod(_sizes(terms, xs).values())


@_einsum.vjp_joint
def _(ct: Any, _ans: Any, *xs: Any, terms: tuple[str, ...], out: str) -> list[Any]:
    return [_einsum_operand(ct, k, xs, terms, out) for k in range(len(xs))]


def _einsum_operand(ct: Any, k: int, xs: Any, terms: tuple[str, ...], out: str) -> Any:
    """The cotangent of operand k: contract the cotangent with the other operands.

    Letters that only operand k has were summed away; they come back by broadcasting. A letter that
    occurs twice in it read a diagonal; the cotangent is written onto the diagonal of zeros.
    """
    term = terms[k]
    others = [t for i, t in enumerate(terms) if i != k]
    unique = "".join(dict.fromkeys(term))
    reachable = set("".join(others) + out)
    target = "".join([c for c in unique if c in reachable])
    operands = (ct, *[x for i, x in enumerate(xs) if i != k])
    g = np.einsum(",".join((out, *others)) + "->" + target, *operands)
    lengths = dict(zip(target, g.shape, strict=True))  # 1 where only operand k is longer than that
    shape = [lengths.get(c, 1) for c in unique]
    full = [xs[k].shape[term.index(c)] for c in unique]
    g = np.reshape(g, shape)
    stretched = tuple([i for i, (n, m) in enumerate(zip(shape, full, strict=True)) if m == 1 and n != 1])
    g = np.sum(g, axis=stretched, keepdims=True) if stretched else g
    g = np.broadcast_to(g, full)
    return g if unique == term else _onto_diagonal(g, term, unique, xs[k].shape)


def _onto_diagonal(g: Any, term: str, unique: str, shape: tuple[int, ...]) -> Any:
    grids = np.ogrid[tuple([slice(n) for n in g.shape])] if g.ndim > 1 else [np.arange(g.shape[0])]
    return index_set(np.zeros(shape, g.dtype), g, index=tuple([grids[unique.index(c)] for c in term]))


@_einsum.jvp_joint
def _(ts: Any, _ans: Any, *xs: Any, terms: tuple[str, ...], out: str) -> Any:
    total = None
    for k, t in enumerate(ts):
        if t is not None:
            part = bind(_einsum, (*xs[:k], t, *xs[k + 1 :]), {"terms": terms, "out": out})
            total = part if total is None else total + part
    return total


@implements(np.einsum)
def einsum(
    *operands: Any, out: Any = None, optimize: Any = False, dtype: Any = None, order: Any = "K", casting: Any = "safe"
) -> Any:
    """NumPy's ``einsum``, with subscripts as text or as lists of numbers."""
    no_out("np.einsum", out)
    subscripts, given = _as_text(operands)
    xs = as_arrays(given, dtype, casting)
    if dtype is None and len({x.dtype for x in xs}) > 1:
        # What is contracted first is added up in a dtype of its own: truth values would come to True, integers round.
        exact = np.result_type(*[x.dtype for x in xs])
        xs = [x.astype(exact) if x.dtype.kind in "biu" else x for x in xs]
    return _contract(xs, *_canonical(subscripts, [x.ndim for x in xs]))


def _as_text(operands: tuple[Any, ...]) -> tuple[str, list[Any]]:
    """Subscripts as text, and the arrays, of either way of calling."""
    if isinstance(operands[0], str):
        return operands[0], list(operands[1:])
    arrow = "->" + _letters_of(operands[-1]) if len(operands) % 2 else ""
    count = len(operands) // 2
    return ",".join([_letters_of(operands[2 * i + 1]) for i in range(count)]) + arrow, list(operands[: 2 * count : 2])


def _letters_of(numbers: Any) -> str:
    """Numbers of axes as letters, in whose order NumPy puts those of an output that is not given."""
    letters = string.ascii_uppercase + string.ascii_lowercase
    return "".join(["..." if i is Ellipsis else letters[operator.index(i)] for i in numbers])


def _contract(xs: Any, terms: tuple[str, ...], out: str) -> Any:
    # An axis of length one stands for as many as the other operand has, which it does not in matmul.
    if _is_matrix_product(terms, out) and xs[0].shape[-1] == xs[1].shape[-2]:
        return bind(matmul, xs)
    return bind(_einsum, xs, {"terms": terms, "out": out})


@_einsum.vmap
def _(_size: int, xs: Any, axes: Any, *, terms: tuple[str, ...], out: str) -> tuple[Any, int]:
    letter = _free_letters("".join(terms) + out)[0]
    terms = tuple([t if a is None else t[:a] + letter + t[a:] for t, a in zip(terms, axes, strict=True)])
    return _contract(xs, terms, letter + out), 0


def _is_matrix_product(terms: tuple[str, ...], out: str) -> bool:
    """Whether it is ``...ij,...jk->...ik``, which matmul serves faster."""
    if len(terms) != 2 or len(terms[0]) != len(terms[1]) or len(terms[0]) < 2:
        return False
    batch, i, j = terms[0][:-2], terms[0][-2], terms[0][-1]
    k = terms[1][-1]
    return terms[1][:-1] == batch + j and out == batch + i + k and len({*batch, i, j, k}) == len(batch) + 3
