"""Operations on scalars as expressions of C: operators, functions of libm, and helpers.

An operation and the texts of its arguments go in, a text comes out; helpers it needs are noted.
"""

from __future__ import annotations

from collections.abc import Sequence

from fnflare.compiler.c99.helpers import Helpers
from fnflare.compiler.c99.literals import C_TYPES, FLOATS, Level, Text, is_signed, width
from fnflare.errors import UnsupportedError
from fnflare.nest import COMPARISONS, Apply, Constant, Scalar

__all__ = ["assignment", "bits", "operation"]

#: The functions of libm for doubles; those for floats end in f.
_LIBM = {
    "exp": "exp",
    "exp2": "exp2",
    "expm1": "expm1",
    "log": "log",
    "log2": "log2",
    "log10": "log10",
    "log1p": "log1p",
    "sin": "sin",
    "cos": "cos",
    "tan": "tan",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "sinh": "sinh",
    "cosh": "cosh",
    "tanh": "tanh",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "power": "pow",
    "arctan2": "atan2",
    "hypot": "hypot",
    "cbrt": "cbrt",
    "erf": "erf",
    "absolute": "fabs",
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "rint": "rint",
    "sqrt": "sqrt",
    "copysign": "copysign",
    "fmod": "fmod",
}
_FLOAT_OPERATORS = {
    "add": ("+", Level.SUM),
    "subtract": ("-", Level.SUM),
    "multiply": ("*", Level.PRODUCT),
    "divide": ("/", Level.PRODUCT),
}
_BIT_OPERATORS = {"and": ("&", Level.AND), "or": ("|", Level.OR), "xor": ("^", Level.XOR)}
#: On truth values: sums are "or" and products "and", as in NumPy.
_TRUTH = {
    "add": "or",
    "maximum": "or",
    "fmax": "or",
    "multiply": "and",
    "minimum": "and",
    "fmin": "and",
    "and": "and",
    "or": "or",
    "xor": "xor",
}
_COMPARISONS = {
    "less": ("<", Level.RELATION),
    "less_equal": ("<=", Level.RELATION),
    "greater": (">", Level.RELATION),
    "greater_equal": (">=", Level.RELATION),
    "equal": ("==", Level.EQUALITY),
    "not_equal": ("!=", Level.EQUALITY),
}
_WHOLE = ("floor", "ceil", "trunc", "rint")


def operation(x: Apply, args: Sequence[Text], helpers: Helpers) -> Text:
    """An operation whose arguments have been written.

    Raises:
        UnsupportedError: if there is no such operation on that type.
    """
    dtype = x.args[0].dtype
    if x.op == "select":
        condition, yes, no = (a.at(Level.TERNARY + 1) for a in args)
        return Text(f"{condition} ? {yes} : {no}", Level.TERNARY)
    if x.op == "cast":
        return _cast(x, args[0])
    if x.op == "bits":
        return bits(x.args[0].dtype, x.dtype, args[0], helpers)
    if x.op in COMPARISONS:
        return _comparison(x, args, helpers)
    if dtype == "b1":
        text = _truth(x.op, args)
    elif dtype in FLOATS:
        text = _float(x, dtype, args, helpers)
    else:
        text = _integer(x, dtype, args, helpers)
    if text is None and helpers.has(x.op, dtype) and dtype != "b1":
        text = _call(helpers.call(x.op, dtype, [a.text for a in args]))
    if text is None:
        raise UnsupportedError(f"the operation {x.op} on {dtype} cannot be written in C; cast its arguments to a float")
    return text


def assignment(op: str, dtype: str) -> str | None:
    """The operator of C that combines a variable with a value in place, None where there is none."""
    if dtype == "b1":
        op = _TRUTH.get(op, op)
    if dtype in ("f32", "f64", "u32", "u64") and op in ("add", "subtract", "multiply"):
        return f"{_FLOAT_OPERATORS[op][0]}="
    return f"{_BIT_OPERATORS[op][0]}=" if op in _BIT_OPERATORS and dtype not in FLOATS else None


def _float(x: Apply, dtype: str, args: Sequence[Text], helpers: Helpers) -> Text | None:
    if x.op in _FLOAT_OPERATORS:
        return _arithmetic(x, args)
    if x.op == "negative":
        return Text(f"-{args[0].at(Level.PRIMARY)}", Level.UNARY)
    if x.op in _LIBM:
        helpers.mathematics = True
        return _call(f"{_LIBM[x.op]}{'f' if dtype == 'f32' else ''}({', '.join(a.text for a in args)})")
    return None


def _integer(x: Apply, dtype: str, args: Sequence[Text], helpers: Helpers) -> Text | None:
    op = x.op
    if op in _BIT_OPERATORS:
        return _bitwise(op, args)
    if op == "not":
        return Text(f"({C_TYPES[dtype]})~{args[0].at(Level.UNARY)}", Level.UNARY)
    if op in _WHOLE or (op == "absolute" and not is_signed(dtype)):
        return args[0]
    if dtype in ("u32", "u64"):
        if op in ("add", "subtract", "multiply"):
            return _arithmetic(x, args)
        amount = x.args[-1]
        if op in ("shift_left", "shift_right") and isinstance(amount, Constant) and 0 <= amount.value < width(dtype):
            sign = "<<" if op == "shift_left" else ">>"
            return Text(f"{args[0].at(Level.UNARY)} {sign} {int(amount.value)}", Level.SHIFT)
    return None


def _arithmetic(x: Apply, args: Sequence[Text]) -> Text:
    """A sum, difference, product or quotient, rounded in the order in which it was written."""
    sign, level = _FLOAT_OPERATORS[x.op]
    left, right = args[0].at(level), args[1]
    if sign == "+" and isinstance(x.args[1], Constant) and right.text.startswith("-"):
        return Text(f"{left} - {right.text[1:]}", level)
    return Text(f"{left} {sign} {right.at(level + 1)}", level)


def _bitwise(op: str, args: Sequence[Text]) -> Text:
    """Bits combined; compilers want all but chains of the same operator bracketed."""
    sign, level = _BIT_OPERATORS[op]
    left = args[0].text if args[0].level == level else args[0].at(Level.UNARY)
    return Text(f"{left} {sign} {args[1].at(Level.UNARY)}", level)


def _truth(op: str, args: Sequence[Text]) -> Text | None:
    if op == "not":
        return Text(f"!{args[0].at(Level.PRIMARY)}", Level.UNARY)
    return _bitwise(_TRUTH[op], args) if op in _TRUTH else None


def _comparison(x: Apply, args: Sequence[Text], helpers: Helpers) -> Text:
    dtype = x.args[0].dtype
    if dtype not in FLOATS and (args[0].text == args[1].text or any(_is_extreme(a) for a in x.args)):
        # Compilers warn of what is always true; whether it is was not for this text to decide.
        return _call(helpers.call(x.op, dtype, [a.text for a in args]))
    sign, level = _COMPARISONS[x.op]
    operand = Level.PRIMARY if dtype == "b1" else Level.SUM
    return Text(f"{args[0].at(operand)} {sign} {args[1].at(operand)}", level)


def _is_extreme(x: Scalar) -> bool:
    """Whether it is the least or the largest number of its type of integers."""
    if not isinstance(x, Constant):
        return False
    bits = 1 if x.dtype == "b1" else width(x.dtype)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed(x.dtype) else (0, 2**bits - 1)
    return x.value in (low, high)


def _cast(x: Apply, arg: Text) -> Text:
    source = x.args[0].dtype
    if x.dtype == "b1":
        zero = {"f32": "0.0f", "f64": "0.0"}.get(source, "0")
        return Text(f"{arg.at(Level.SUM)} != {zero}", Level.EQUALITY)
    return Text(f"({C_TYPES[x.dtype]}){arg.at(Level.UNARY)}", Level.UNARY)


def bits(source: str, target: str, arg: Text, helpers: Helpers) -> Text:
    """The bits of a number as another type of that width."""
    if source == target:
        return arg
    if width(source) != width(target):
        raise UnsupportedError(f"the bits of {source} cannot be read as {target} in C: write a cast instead")
    if source in FLOATS or target in FLOATS:
        return _call(helpers.bits(source, target, arg.text))
    if target == "b1":
        return Text(f"{arg.at(Level.SUM)} != 0", Level.EQUALITY)
    return Text(f"({C_TYPES[target]}){arg.at(Level.UNARY)}", Level.UNARY)


def _call(text: str) -> Text:
    return Text(text, Level.PRIMARY)
