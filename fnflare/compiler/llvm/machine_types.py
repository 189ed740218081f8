"""How the machine types of loop nests are written in LLVM's language: their names, widths and constants.

A truth value is an ``i1`` in a register and a byte in memory; LLVM's integers have no sign, which is why every
operation asks for the kind of its type.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["BITS", "KINDS", "MEMORY", "REGISTER", "Value", "literal", "neutral", "splat_literal"]

REGISTER = {
    "b1": "i1",
    "i8": "i8",
    "i16": "i16",
    "i32": "i32",
    "i64": "i64",
    "u8": "i8",
    "u16": "i16",
    "u32": "i32",
    "u64": "i64",
    "f32": "float",
    "f64": "double",
}
MEMORY = REGISTER | {"b1": "i8"}
#: Widths in memory.
BITS = {"b1": 8} | {t: int(t[1:]) for t in REGISTER if t != "b1"}
#: "b" for truth values, "i" for signed and "u" for unsigned integers, "f" for floating-point numbers.
KINDS = {t: t[0] for t in REGISTER}


class Value(NamedTuple):
    """A value in LLVM's language.

    Attributes:
        text: its name or the constant that it is.
        type: its LLVM type.
        varying: whether it is a vector, a number for each lane, rather than one number for all.
    """

    text: str
    type: str
    varying: bool


def literal(value: float, dtype: str) -> str:
    """A number as a constant of a type."""
    kind = KINDS[dtype]
    if kind == "f":
        # LLVM writes both types as the bits of a double, which must be one that a float can hold.
        if dtype == "f32":
            value = _as_float(float(value))
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
    if kind == "b":
        return "true" if value else "false"
    bits = BITS[dtype]
    number = int(value) & ((1 << bits) - 1)
    return str(number - (1 << bits) if number >> (bits - 1) else number)


def _as_float(value: float) -> float:
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def splat_literal(text: str, element: str) -> str:
    """A vector with the same constant in every lane."""
    return f"splat ({element} {text})"


def neutral(op: str, dtype: str) -> str:
    """What leaves every number as it is when an accumulator's operation combines it with that."""
    kind, bits = KINDS[dtype], BITS[dtype]
    if op in ("maximum", "minimum"):
        sign = -1 if op == "maximum" else 1
        if kind == "f":
            return literal(sign * float("inf"), dtype)
        lowest = -(1 << (bits - 1)) if kind == "i" else 0
        highest = 1 if kind == "b" else (1 << (bits - 1 if kind == "i" else bits)) - 1
        return literal(lowest if op == "maximum" else highest, dtype)
    if op == "and":
        return literal(-1, dtype)
    if op == "add" and kind == "f":
        return literal(-0.0, dtype)
    return literal(1 if op == "multiply" else 0, dtype)
