"""Types and constants of C.

The machine types of loop nests go in, and numbers of them; their names in C come out, and texts that read back exactly.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

__all__ = ["C_TYPES", "FLOATS", "Level", "Text", "is_signed", "literal", "width"]

#: The types of C, by those of loop nests; a truth value is a byte that is 0 or 1.
C_TYPES = {
    "b1": "uint8_t",
    "i8": "int8_t",
    "i16": "int16_t",
    "i32": "int32_t",
    "i64": "int64_t",
    "u8": "uint8_t",
    "u16": "uint16_t",
    "u32": "uint32_t",
    "u64": "uint64_t",
    "f32": "float",
    "f64": "double",
}
FLOATS = ("f32", "f64")
#: Numbers that <stdint.h> has names for; the least cannot be written otherwise.
_EXTREMES = {
    "i32": (-(2**31), 2**31 - 1),
    "i64": (-(2**63), 2**63 - 1),
    "u32": (2**32 - 1,),
    "u64": (2**64 - 1,),
}


class Level:
    """How tightly operators bind: an operand that binds less than its operator is bracketed."""

    TERNARY = 2
    OR = 5
    XOR = 6
    AND = 7
    EQUALITY = 8
    RELATION = 9
    SHIFT = 10
    SUM = 11
    PRODUCT = 12
    UNARY = 14
    PRIMARY = 16


class Text(NamedTuple):
    """An expression of C, and how tightly its outermost operator binds."""

    text: str
    level: int

    def at(self, level: int) -> str:
        """As an operand of something that binds as tightly as `level`."""
        return self.text if self.level >= level else f"({self.text})"


def is_signed(dtype: str) -> bool:
    """Whether a type is one of integers with a sign."""
    return dtype[0] == "i"


def width(dtype: str) -> int:
    """The number of bits of a type; a truth value counts as a byte."""
    return max(int(dtype[1:]), 8)


def literal(value: bool | float, dtype: str) -> Text:
    """A number of a type such that a compiler reads that number back.

    >>> from fnflare.compiler.c99.literals import literal
    >>> literal(0.1, "f32").text, literal(0.1, "f64").text, literal(-(2**63), "i64").text
    ('0.1f', '0.1', 'INT64_MIN')
    """
    text = _float(float(value), dtype) if dtype in FLOATS else _integer(int(value), dtype)
    return Text(text, Level.UNARY if text[0] == "-" else Level.PRIMARY)


def _float(value: float, dtype: str) -> str:
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return f"{np.float32(value)!s}f" if dtype == "f32" else repr(value)


def _integer(value: int, dtype: str) -> str:
    if value in _EXTREMES.get(dtype, ()):
        return f"{'U' * (dtype[0] == 'u')}INT{width(dtype)}_{'MIN' if value < 0 else 'MAX'}"
    if dtype in ("u32", "u64"):
        return f"{value}u" if dtype == "u32" else f"{value}ull"
    return str(value) if abs(value) < 2**31 else f"{value}ll"
