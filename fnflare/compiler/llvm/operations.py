"""The operations of scalar expressions as LLVM instructions, on single numbers and on vectors alike.

Each function here is given the type of its arguments, as LLVM writes it and as loop nests name it, and their names; it
writes instructions and answers the name of the last one's value. What LLVM leaves undefined, shifts beyond the width,
division by zero, numbers out of range, is defined here as NumPy has it on x86-64.
"""

from __future__ import annotations

from collections.abc import Callable

from fnflare.compiler.llvm.machine_types import BITS, KINDS, REGISTER, literal, splat_literal
from fnflare.compiler.llvm.writer import Writer

__all__ = ["Operations"]

_FLOAT = {"add": "fadd", "subtract": "fsub", "multiply": "fmul", "divide": "fdiv"}
_INTEGER = {"add": "add", "subtract": "sub", "multiply": "mul", "and": "and", "or": "or", "xor": "xor"}
_TRUTH = {
    "add": "or",
    "subtract": "xor",
    "multiply": "and",
    "maximum": "or",
    "minimum": "and",
    "fmax": "or",
    "fmin": "and",
    "and": "and",
    "or": "or",
    "xor": "xor",
}
_INTRINSICS = {
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "rint": "rint",
    "sqrt": "sqrt",
    "absolute": "fabs",
    "copysign": "copysign",
}
_COMPARE = {
    "less": ("olt", "lt"),
    "less_equal": ("ole", "le"),
    "greater": ("ogt", "gt"),
    "greater_equal": ("oge", "ge"),
    "equal": ("oeq", "eq"),
    "not_equal": ("une", "ne"),
}


class Operations(Writer):
    """A writer that knows the operations.

    Attributes:
        lanes: how many lanes a vector has.
        fma: whether the machine multiplies and adds in one instruction.
    """

    lanes = 1
    fma = True

    def type_of(self, dtype: str, varying: bool) -> str:
        """The LLVM type of a number, or of a vector of them."""
        return f"<{self.lanes} x {REGISTER[dtype]}>" if varying else REGISTER[dtype]

    def number(self, value: float, dtype: str, varying: bool) -> str:
        """A constant, in every lane."""
        text = literal(value, dtype)
        return splat_literal(text, REGISTER[dtype]) if varying else text

    def intrinsic(self, name: str, T: str, *args: str, extra: str = "") -> str:
        """Call one of LLVM's own functions, whose arguments and answer have one type."""
        full = f"@llvm.{name}.{_mangled(T)}"
        more = f", {extra.split(maxsplit=1)[0]}" if extra else ""
        self.library.declare(f"{T} {full}({', '.join([T] * len(args))}{more})")
        given = ", ".join([f"{T} {a}" for a in args]) + (f", {extra}" if extra else "")
        return self.emit(f"call {T} {full}({given})")

    def choose(self, condition: str, T: str, yes: str, no: str) -> str:
        """`yes` in the lanes where the condition holds, `no` elsewhere."""
        return self.emit(f"select {_truths(T)} {condition}, {T} {yes}, {T} {no}")

    def operate(self, op: str, dtype: str, varying: bool, args: list[str]) -> str:
        """An operation of `ARITHMETIC` on arguments of one type."""
        T, kind = self.type_of(dtype, varying), KINDS[dtype]
        if kind == "f" and op in _FLOAT:
            return self.emit(f"{_FLOAT[op]} contract {T} {args[0]}, {args[1]}")
        if kind == "b" and op in _TRUTH:
            return self.emit(f"{_TRUTH[op]} {T} {args[0]}, {args[1]}")
        if kind in "iu" and op in _INTEGER:
            return self.emit(f"{_INTEGER[op]} {T} {args[0]}, {args[1]}")
        if kind == "f" and op in _INTRINSICS:
            return self.intrinsic(_INTRINSICS[op], T, *args)
        if kind != "f" and op in ("floor", "ceil", "trunc", "rint"):
            return args[0]
        special = _SPECIAL.get(op)
        if special is None:
            raise TypeError(f"{op}: not defined for {dtype}; cast its arguments to a floating-point type")
        return special(self, dtype, varying, args)

    def compare(self, op: str, dtype: str, varying: bool, a: str, b: str) -> str:
        """A truth value for two arguments of one type."""
        T, kind = self.type_of(dtype, varying), KINDS[dtype]
        of_floats, of_integers = _COMPARE[op]
        if kind == "f":
            return self.emit(f"fcmp {of_floats} {T} {a}, {b}")
        sign = "" if of_integers in ("eq", "ne") else "s" if kind == "i" else "u"
        return self.emit(f"icmp {sign}{of_integers} {T} {a}, {b}")

    def convert(self, x: str, source: str, dtype: str, varying: bool) -> str:
        """A number as one of another type."""
        if source == dtype:
            return x
        S, T = self.type_of(source, varying), self.type_of(dtype, varying)
        a, b = KINDS[source], KINDS[dtype]
        if b == "b":
            return self.compare("not_equal", source, varying, x, self.number(0, source, varying))
        if a == "f":
            return self._from_float(x, source, dtype, varying)
        if b == "f":
            return self.emit(f"{'si' if a == 'i' else 'ui'}tofp {S} {x} to {T}")
        if S == T:
            return x
        if a != "b" and BITS[source] > BITS[dtype]:
            return self.emit(f"trunc {S} {x} to {T}")
        return self.emit(f"{'sext' if a == 'i' else 'zext'} {S} {x} to {T}")

    def _from_float(self, x: str, source: str, dtype: str, varying: bool) -> str:
        S, T = self.type_of(source, varying), self.type_of(dtype, varying)
        if KINDS[dtype] == "f":
            return self.emit(f"{'fpext' if dtype == 'f64' else 'fptrunc'} {S} {x} to {T}")
        # As C compilers do it, and so NumPy: by way of the integers that the machine converts to. A number out of
        # range is then what the machine makes of it; freezing keeps LLVM from taking it for impossible.
        if dtype == "u64":
            return self.emit(f"freeze {T} {self.emit(f'fptoui {S} {x} to {T}')}")
        way = "i64" if dtype in ("u32", "i64") else "i32"
        W = self.type_of(way, varying)
        whole = self.emit(f"freeze {W} {self.emit(f'fptosi {S} {x} to {W}')}")
        return whole if W == T else self.emit(f"trunc {W} {whole} to {T}")

    # -- those that take more than one instruction ------------------------------------------------

    def _fma(self, dtype: str, varying: bool, args: list[str]) -> str:
        T = self.type_of(dtype, varying)
        if KINDS[dtype] == "f":
            return self.intrinsic("fma" if self.fma else "fmuladd", T, *args)
        return self.operate("add", dtype, varying, [self.operate("multiply", dtype, varying, args[:2]), args[2]])

    def _negative(self, dtype: str, varying: bool, args: list[str]) -> str:
        T = self.type_of(dtype, varying)
        if KINDS[dtype] == "f":
            return self.emit(f"fneg {T} {args[0]}")
        return self.emit(f"sub {T} {self.number(0, dtype, varying)}, {args[0]}")

    def _absolute(self, dtype: str, varying: bool, args: list[str]) -> str:
        if KINDS[dtype] != "i":
            return args[0]
        return self.intrinsic("abs", self.type_of(dtype, varying), args[0], extra="i1 false")

    def _sign(self, dtype: str, varying: bool, args: list[str]) -> str:
        T, x = self.type_of(dtype, varying), args[0]
        zero, one = self.number(0, dtype, varying), self.number(1, dtype, varying)
        if KINDS[dtype] == "b":
            return x
        out = x if KINDS[dtype] == "f" else zero  # NaN is neither above nor below 0, nor 0
        if KINDS[dtype] == "f":
            out = self.choose(self.compare("equal", dtype, varying, x, zero), T, zero, out)
        if KINDS[dtype] != "u":
            minus = self.number(-1, dtype, varying)
            out = self.choose(self.compare("less", dtype, varying, x, zero), T, minus, out)
        return self.choose(self.compare("greater", dtype, varying, x, zero), T, one, out)

    def _extreme(self, op: str, dtype: str, varying: bool, args: list[str]) -> str:
        T, (a, b) = self.type_of(dtype, varying), args
        if KINDS[dtype] != "f":
            return self.intrinsic(("s" if KINDS[dtype] == "i" else "u") + ("max" if "max" in op else "min"), T, a, b)
        if _number(a if op.startswith("f") else b):  # a constant goes where no NaN has to be looked for
            a, b = b, a
        # The first two are one instruction of x86, which answers b where either is NaN.
        order = "ogt" if "max" in op else "olt"
        best = self.choose(self.emit(f"fcmp {order} {T} {a}, {b}"), T, a, b)
        doubtful = b if op.startswith("f") else a
        if _number(doubtful):
            return best
        return self.choose(self.emit(f"fcmp uno {T} {doubtful}, {doubtful}"), T, a, best)

    def _not(self, dtype: str, varying: bool, args: list[str]) -> str:
        return self.emit(f"xor {self.type_of(dtype, varying)} {args[0]}, {self.number(-1, dtype, varying)}")

    def _shift_left(self, dtype: str, varying: bool, args: list[str]) -> str:
        return self._shift("shl", dtype, varying, args)

    def _shift_right(self, dtype: str, varying: bool, args: list[str]) -> str:
        if KINDS[dtype] != "i":
            return self._shift("lshr", dtype, varying, args)
        T, (x, by) = self.type_of(dtype, varying), args
        most = self.number(BITS[dtype] - 1, dtype, varying)
        fits = self.emit(f"icmp ult {T} {by}, {most}")
        return self.emit(f"ashr {T} {x}, {self.choose(fits, T, by, most)}")

    def _shift(self, instruction: str, dtype: str, varying: bool, args: list[str]) -> str:
        T, (x, by) = self.type_of(dtype, varying), args
        fits = self.emit(f"icmp ult {T} {by}, {self.number(BITS[dtype], dtype, varying)}")
        return self.choose(fits, T, self.emit(f"{instruction} {T} {x}, {by}"), self.number(0, dtype, varying))

    def _multiply_high(self, dtype: str, varying: bool, args: list[str]) -> str:
        T, bits = self.type_of(dtype, varying), BITS[dtype]
        wide = f"i{2 * bits}"
        W = f"<{self.lanes} x {wide}>" if varying else wide
        a, b = (self.emit(f"zext {T} {x} to {W}") for x in args)
        by = splat_literal(str(bits), wide) if varying else str(bits)
        upper = self.emit(f"lshr {W} {self.emit(f'mul nuw {W} {a}, {b}')}, {by}")
        return self.emit(f"trunc {W} {upper} to {T}")

    # -- division -----------------------------------------------------------------------------------

    def _division(self, op: str, dtype: str, varying: bool, args: list[str]) -> str:
        if KINDS[dtype] == "f":
            return self._division_of_floats(op, dtype, varying, args)
        T, (a, b) = self.type_of(dtype, varying), args
        zero, one = self.number(0, dtype, varying), self.number(1, dtype, varying)
        signed = KINDS[dtype] == "i"
        if KINDS[dtype] == "b":
            raise TypeError(f"{op}: not defined for truth values; cast them to integers")
        nothing = self.emit(f"icmp eq {T} {b}, {zero}")
        bad = nothing
        if signed:  # the lowest number divided by -1 is too large
            lowest = self.number(-(1 << (BITS[dtype] - 1)), dtype, varying)
            low = self.emit(f"icmp eq {T} {a}, {lowest}")
            minus = self.emit(f"icmp eq {T} {b}, {self.number(-1, dtype, varying)}")
            B = _truths(T)
            bad = self.emit(f"or {B} {nothing}, {self.emit(f'and {B} {low}, {minus}')}")
        safe = self.choose(bad, T, one, b)
        letter = "s" if signed else "u"
        if op == "fmod":
            out = self.emit(f"{letter}rem {T} {a}, {safe}")
            return self.choose(nothing, T, zero, out)
        quotient = self.emit(f"{letter}div {T} {a}, {safe}")
        if not signed:
            out = quotient if op == "floor_divide" else self.emit(f"urem {T} {a}, {safe}")
            return self.choose(nothing, T, zero, out)
        rest = self.emit(f"sub {T} {a}, {self.emit(f'mul {T} {quotient}, {safe}')}")
        off = self._sign_differs(T, rest, safe, zero)
        if op == "floor_divide":
            out = self.choose(off, T, self.emit(f"sub {T} {quotient}, {one}"), quotient)
        else:
            out = self.choose(off, T, self.emit(f"add {T} {rest}, {safe}"), rest)
        return self.choose(nothing, T, zero, out)

    def _sign_differs(self, T: str, rest: str, divisor: str, zero: str) -> str:
        some = self.emit(f"icmp ne {T} {rest}, {zero}")
        differs = self.emit(f"icmp slt {T} {self.emit(f'xor {T} {rest}, {divisor}')}, {zero}")
        return self.emit(f"and {_truths(T)} {some}, {differs}")

    def _division_of_floats(self, op: str, dtype: str, varying: bool, args: list[str]) -> str:
        T, (a, b) = self.type_of(dtype, varying), args
        B = _truths(T)
        zero, one, half = (self.number(x, dtype, varying) for x in (0.0, 1.0, 0.5))
        rest = self.emit(f"frem {T} {a}, {b}")
        if op == "fmod":
            return rest
        # As CPython and NumPy do it: the remainder is exact, and the quotient is rounded from what it leaves.
        below = [self.emit(f"fcmp olt {T} {x}, {zero}") for x in (b, rest)]
        some = self.emit(f"fcmp une {T} {rest}, {zero}")
        off = self.emit(f"and {B} {some}, {self.emit(f'xor {B} {below[0]}, {below[1]}')}")
        if op == "remainder":
            moved = self.choose(off, T, self.emit(f"fadd {T} {rest}, {b}"), rest)
            out = self.choose(some, T, moved, self.intrinsic("copysign", T, zero, b))
            return self.choose(self.emit(f"fcmp oeq {T} {b}, {zero}"), T, rest, out)
        ratio = self.emit(f"fdiv {T} {a}, {b}")
        quotient = self.emit(f"fdiv {T} {self.emit(f'fsub {T} {a}, {rest}')}, {b}")
        quotient = self.choose(off, T, self.emit(f"fsub {T} {quotient}, {one}"), quotient)
        whole = self.intrinsic("floor", T, quotient)
        above = self.emit(f"fcmp ogt {T} {self.emit(f'fsub {T} {quotient}, {whole}')}, {half}")
        whole = self.choose(above, T, self.emit(f"fadd {T} {whole}, {one}"), whole)
        nothing = self.emit(f"fcmp oeq {T} {quotient}, {zero}")
        out = self.choose(nothing, T, self.intrinsic("copysign", T, zero, ratio), whole)
        return self.choose(self.emit(f"fcmp oeq {T} {b}, {zero}"), T, ratio, out)


def _number(text: str) -> bool:
    """Whether a floating-point value is a constant other than NaN."""
    return text[0] != "%" and "0x7FF8" not in text and "0xFFF8" not in text


def _truths(T: str) -> str:
    return f"{T[: T.index('x')]}x i1>" if T[0] == "<" else "i1"


def _mangled(T: str) -> str:
    if T[0] == "<":
        lanes, _, element = T[1:-1].split(" ")
        return f"v{lanes}{_mangled(element)}"
    return {"float": "f32", "double": "f64"}.get(T, T)


def _of(method: Callable[[Operations, str, str, bool, list[str]], str], op: str) -> _Operation:
    return lambda self, dtype, varying, args: method(self, op, dtype, varying, args)


_Operation = Callable[[Operations, str, bool, list[str]], str]
_SPECIAL: dict[str, _Operation] = {
    "fma": Operations._fma,
    "negative": Operations._negative,
    "absolute": Operations._absolute,
    "sign": Operations._sign,
    "not": Operations._not,
    "shift_left": Operations._shift_left,
    "shift_right": Operations._shift_right,
    "multiply_high": Operations._multiply_high,
    **{op: _of(Operations._extreme, op) for op in ("maximum", "minimum", "fmax", "fmin")},
    **{op: _of(Operations._division, op) for op in ("floor_divide", "remainder", "fmod")},
}
