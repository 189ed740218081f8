"""The operations that C has no operator and libm no function for, as small functions of C.

An operation and a type go in, the definition of a function comes out; a translation unit defines those that it uses,
each once.
"""

from __future__ import annotations

from fnflare.compiler.c99.literals import C_TYPES, FLOATS, is_signed, width

__all__ = ["Helpers"]

_FLOAT = {
    "sign": "return x > 0 ? 1 : x < 0 ? -1 : x == 0 ? 0 : x;",
    "maximum": "return (a > b) | (a != a) ? a : b;",
    "minimum": "return (a < b) | (a != a) ? a : b;",
    "fmax": "return (a > b) | (b != b) ? a : b;",
    "fmin": "return (a < b) | (b != b) ? a : b;",
    "remainder": """
        const T rest = fmodF(a, b);
        if (rest == 0) return copysignF(rest, b);
        return (rest < 0) != (b < 0) ? rest + b : rest;""",
    "floor_divide": """
        if (b == 0) return a / b;
        T rest = fmodF(a, b);
        T quotient = (a - rest) / b;
        if (rest != 0 && (rest < 0) != (b < 0)) quotient -= 1;
        if (quotient == 0) return copysignF(0, a / b);
        const T whole = floorF(quotient);
        return quotient - whole > (T)0.5 ? whole + 1 : whole;""",
    "logistic": "return 1 / (1 + expF(-x));",
    "softplus": "return (x > 0 ? x : x != x ? x : 0) + log1pF(expF(-fabsF(x)));",
    "rsqrt": "return 1 / sqrtF(x);",
    "logaddexp": """
        if (a == b) return a + (T)0.693147180559945309417232;
        return a > b ? a + log1pF(expF(b - a)) : b + log1pF(expF(a - b));""",
}
#: Integers are computed as unsigned ones of type W, at least 32 bits wide, which wrap around; converted back they are
#: taken modulo their width by every compiler in use.
_INTEGER = {
    "add": "return (T)((W)a + (W)b);",
    "subtract": "return (T)((W)a - (W)b);",
    "multiply": "return (T)((W)a * (W)b);",
    "fma": "return (T)((W)a * (W)b + (W)c);",
    "negative": "return (T)(0 - (W)x);",
    "maximum": "return a > b ? a : b;",
    "minimum": "return a < b ? a : b;",
    "fmax": "return a > b ? a : b;",
    "fmin": "return a < b ? a : b;",
    "shift_left": "return WITHIN ? (T)((W)a << b) : 0;",
    "less": "return a < b;",
    "less_equal": "return a <= b;",
    "greater": "return a > b;",
    "greater_equal": "return a >= b;",
    "equal": "return a == b;",
    "not_equal": "return a != b;",
}
_SIGNED = {
    "absolute": "return x < 0 ? (T)(0 - (W)x) : x;",
    "sign": "return (T)((x > 0) - (x < 0));",
    "divide": "return b == 0 ? 0 : b == -1 ? (T)(0 - (W)a) : (T)(a / b);",
    "floor_divide": """
        if (b == 0) return 0;
        if (b == -1) return (T)(0 - (W)a);
        return (T)(a / b - ((a % b != 0) & ((a % b < 0) != (b < 0))));""",
    "remainder": """
        if (b == 0 || b == -1) return 0;
        const T rest = (T)(a % b);
        return rest != 0 && (rest < 0) != (b < 0) ? (T)(rest + b) : rest;""",
    "fmod": "return b == 0 || b == -1 ? 0 : (T)(a % b);",
    "shift_right": "return WITHIN ? (T)(a >> b) : a < 0 ? -1 : 0;",
}
_UNSIGNED = {
    "sign": "return x > 0;",
    "divide": "return b == 0 ? 0 : (T)(a / b);",
    "floor_divide": "return b == 0 ? 0 : (T)(a / b);",
    "remainder": "return b == 0 ? 0 : (T)(a % b);",
    "fmod": "return b == 0 ? 0 : (T)(a % b);",
    "shift_right": "return WITHIN ? (T)(a >> b) : 0;",
    "multiply_high": "return (T)((D)((D)a * b) >> BITS);",
}
_MULTIPLY_HIGH_U64 = """
        const uint64_t low_a = a & 0xffffffffu, high_a = a >> 32;
        const uint64_t low_b = b & 0xffffffffu, high_b = b >> 32;
        const uint64_t middle = high_a * low_b + (low_a * low_b >> 32);
        const uint64_t other = low_a * high_b + (middle & 0xffffffffu);
        return high_a * high_b + (middle >> 32) + (other >> 32);"""
_COMPARED = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")
_UNARY = ("sign", "negative", "absolute", "logistic", "softplus", "rsqrt")


class Helpers:
    """The functions that a translation unit needs beside C's own.

    Attributes:
        used: their definitions, by name, in the order in which they were first needed.
        mathematics: whether something of <math.h> is used.
    """

    def __init__(self) -> None:
        self.used: dict[str, str] = {}
        self.mathematics = False

    def call(self, op: str, dtype: str, args: list[str]) -> str:
        """A call of the function for an operation on a type."""
        name = f"{op}_{dtype}"
        if name not in self.used:
            self.used[name] = self._definition(name, op, dtype)
        return f"{name}({', '.join(args)})"

    def bits(self, source: str, target: str, arg: str) -> str:
        """A call of the function that reads the bits of one type as another."""
        name = f"bits_{source}_{target}"
        self.used[name] = (
            f"/* The bits of a {C_TYPES[source]} as a {C_TYPES[target]}. */\n"
            f"static inline {C_TYPES[target]} {name}({C_TYPES[source]} x) {{\n"
            f"    {C_TYPES[target]} y;\n    memcpy(&y, &x, sizeof y);\n    return y;\n}}"
        )
        return f"{name}({arg})"

    def clamp(self, value: str, bodies: int) -> str:
        """A call of the function that moves the number of a branch to the nearest there is."""
        self.used["clamp_index"] = (
            "/* The nearest of the numbers from 0 to last. */\n"
            "static inline int64_t clamp_index(int64_t x, int64_t last) {\n"
            "    return x < 0 ? 0 : x > last ? last : x;\n}"
        )
        return f"clamp_index({value}, {bodies - 1})"

    def has(self, op: str, dtype: str) -> bool:
        """Whether there is a function for an operation on a type."""
        return _body(op, dtype) is not None

    def _definition(self, name: str, op: str, dtype: str) -> str:
        body = _body(op, dtype)
        assert body is not None
        self.mathematics |= dtype in FLOATS
        parameters = "x" if op in _UNARY else "abc" if op == "fma" else "ab"
        listed = ", ".join(f"{C_TYPES[dtype]} {p}" for p in parameters)
        result = "uint8_t" if op in _COMPARED else C_TYPES[dtype]
        lines = "\n".join("    " + line.strip() for line in body.strip().splitlines())
        note = f"{_NOTES[op]}\n" if op in _NOTES else ""
        return f"{note}static inline {result} {name}({listed}) {{\n{lines}\n}}"


_NOTES = {
    "maximum": "/* NaN where either is. */",
    "minimum": "/* NaN where either is. */",
    "fmax": "/* The other where one is NaN. */",
    "fmin": "/* The other where one is NaN. */",
    "floor_divide": "/* Rounded down, as Python's //. */",
    "remainder": "/* Of the sign of b, as Python's %. */",
    "logistic": "/* 1 / (1 + exp(-x)). */",
    "softplus": "/* log(1 + exp(x)) without overflow. */",
    "logaddexp": "/* log(exp(a) + exp(b)) without overflow. */",
    "rsqrt": "/* 1 / sqrt(x). */",
    "fma": "/* a * b + c, rounded once where that is fast. */",
    "multiply_high": "/* The upper half of the product. */",
}


def _body(op: str, dtype: str) -> str | None:
    """The statements of a helper, None where there is none."""
    if dtype in FLOATS:
        if op == "fma":
            return _fused(dtype)
        body = _FLOAT.get(op)
        return body and body.replace("F(", "f(" if dtype == "f32" else "(").replace("T", C_TYPES[dtype])
    body = _INTEGER.get(op) or (_SIGNED if is_signed(dtype) else _UNSIGNED).get(op)
    if op == "multiply_high" and dtype == "u64":
        return _MULTIPLY_HIGH_U64
    if body is None:
        return None
    bits = width(dtype)
    within = f"b >= 0 && b < {bits}" if is_signed(dtype) else f"b < {bits}"
    body = body.replace("WITHIN", within).replace("BITS", str(bits)).replace("(D)", f"(uint{bits * 2}_t)")
    return (
        body.replace("W)", "uint64_t)" if bits == 64 else "uint32_t)")
        .replace("T)", f"{C_TYPES[dtype]})")
        .replace("const T ", f"const {C_TYPES[dtype]} ")
    )


def _fused(dtype: str) -> str:
    suffix, macro = ("f", "FP_FAST_FMAF") if dtype == "f32" else ("", "FP_FAST_FMA")
    return f"#ifdef {macro}\nreturn fma{suffix}(a, b, c);\n#else\nreturn a * b + c;\n#endif"
