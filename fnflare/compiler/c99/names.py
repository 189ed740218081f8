"""Identifiers of C: unique where they are seen, and none that the language or its library has taken.

Names of loops, buffers and values go in, valid identifiers as close to them as can be come out. Every part of the
renderer takes its names from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from fnflare.errors import ArgumentError
from fnflare.nest import ARITHMETIC, COMPARISONS, DTYPES, FUNCTIONS

__all__ = ["Names", "check_identifier"]

_KEYWORDS = """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while asm bool
    alignas alignof and bitand bitor catch class compl constexpr delete explicit export false friend main mutable
    namespace new noexcept not nullptr operator or private protected public template this throw true try typename
    typeof using virtual xor linux unix
"""
_MATHEMATICS = """
    acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp10 exp2 expm1 fabs fdim floor
    fma fmax fmin fmod frexp hypot ilogb ldexp lgamma llrint llround log log10 log1p log2 logb lrint
    lround modf nan nearbyint nextafter nexttoward pow remainder remquo rint round scalb scalbln scalbn sin sinh sqrt
    tan tanh tgamma trunc
"""
_LIBRARY = """
    abs calloc div exit fclose ferror fopen fread free fseek ftell fwrite index labs malloc memcmp memcpy memmove
    memset printf rand realloc signgam size_t ssize_t strlen time NULL FILE EOF NAN INFINITY HUGE_VAL fpclassify
    isfinite isinf isnan isnormal signbit INT8_MIN INT16_MIN INT32_MIN INT64_MIN INT8_MAX INT16_MAX INT32_MAX
    INT64_MAX UINT8_MAX UINT16_MAX UINT32_MAX UINT64_MAX FP_FAST_FMA FP_FAST_FMAF int8_t int16_t int32_t int64_t
    uint8_t uint16_t uint32_t uint64_t
"""
_RESERVED = frozenset(
    _KEYWORDS.split()
    + _LIBRARY.split()
    + [f + suffix for f in _MATHEMATICS.split() for suffix in ("", "f", "l")]
    # what helpers are called
    + [f"{op}_{t}" for op in [*ARITHMETIC, *FUNCTIONS, *COMPARISONS, "bits"] for t in DTYPES]
    + [f"bits_{t}_{u}" for t in DTYPES for u in DTYPES]
    + ["clamp_index"]
)
#: What <math.h> declares beside C99 with some compilers: parameters and variables may be called so, functions not.
_IN_FILES = frozenset(f + suffix for f in ("gamma", "j0", "j1", "jn", "y0", "y1", "yn") for suffix in ("", "f", "l"))


def check_identifier(name: str) -> None:
    """Checks what a function is to be called.

    Raises:
        ArgumentError: if it is no identifier of C, or one that is taken.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or name in _RESERVED | _IN_FILES:
        raise ArgumentError(f"name is {name!r}; write an identifier that C has not taken, such as 'model'")


class Names:
    """The identifiers of one scope of C, which sees those of the scopes around it.

    >>> from fnflare.compiler.c99.names import Names
    >>> names = Names()
    >>> names.fresh("x"), names.fresh("x"), names.fresh("float"), names.fresh("2 layers")
    ('x', 'x2', 'float2', 'v2_layers')
    """

    def __init__(self, outer: Names | None = None, taken: Iterable[str] = ()) -> None:
        self._outer = outer
        self._taken = set(taken)
        self._counts: dict[str, int] = {}

    def fresh(self, hint: str, first: int = 1) -> str:
        """An identifier that is new, made of what the thing is called; numbered from `first`, but a 1 is left out."""
        hint = re.sub(r"[^A-Za-z0-9_]", "_", hint).lstrip("_") or "v"
        if hint[0].isdigit():
            hint = f"v{hint}"
        count = self._count(hint, first)
        name = hint if count == first == 1 else _numbered(hint, count)
        while self.has(name):
            count += 1
            name = _numbered(hint, count)
        self._counts[hint] = count + 1
        self._taken.add(name)
        return name

    def _count(self, hint: str, first: int) -> int:
        scope: Names | None = self
        while scope is not None:
            if hint in scope._counts:
                return scope._counts[hint]
            scope = scope._outer
        return first

    def has(self, name: str) -> bool:
        """Whether a name is taken."""
        scope: Names | None = self
        while scope is not None:
            if name in scope._taken:
                return True
            scope = scope._outer
        return name in _RESERVED or (self._outer is None and name in _IN_FILES)


def _numbered(hint: str, count: int) -> str:
    return f"{hint}_{count}" if hint[-1].isdigit() else f"{hint}{count}"
