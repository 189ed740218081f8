"""Scalar expressions: what one element of an array is made of.

Constants, elements of buffers and loop variables go in, one number of a machine type comes out; the operators of
Python and the functions of this file write them. An expression is a value that stands for itself: the same object used
twice is computed once, and renderers find such sharing by identity.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fnflare.nest.index import Atom, Axis, Index, Integer

if TYPE_CHECKING:
    from fnflare.nest.statements import Buffer

__all__ = [
    "ARITHMETIC",
    "COMPARISONS",
    "DTYPES",
    "FUNCTIONS",
    "Apply",
    "Constant",
    "Element",
    "Local",
    "Position",
    "Scalar",
    "apply",
    "cast",
    "constant",
    "dtype_of",
    "operands",
    "select",
    "walk",
]

#: The machine types, by the names that NumPy's dtypes have here: b1 is a truth value, a byte in memory.
DTYPES = {
    "b1": np.dtype(np.bool_),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}

#: Operations whose arguments and answer have one type, each with the number of its arguments. Integers wrap around;
#: ``shift_right`` fills with the sign where there is one; ``floor_divide`` and ``remainder`` are Python's, and 0 where
#: an integer is divided by 0; ``multiply_high`` is the upper half of the product of unsigned integers. ``maximum``
#: and ``minimum`` give NaN where either argument is, ``fmax`` and ``fmin`` the other argument.
ARITHMETIC = {
    "add": 2,
    "subtract": 2,
    "multiply": 2,
    "divide": 2,
    "fma": 3,  # a * b + c, rounded once where the machine can
    "negative": 1,
    "absolute": 1,
    "sign": 1,
    "maximum": 2,
    "minimum": 2,
    "fmax": 2,
    "fmin": 2,
    "floor_divide": 2,
    "remainder": 2,
    "fmod": 2,
    "and": 2,
    "or": 2,
    "xor": 2,
    "not": 1,
    "shift_left": 2,
    "shift_right": 2,
    "multiply_high": 2,
    "floor": 1,
    "ceil": 1,
    "trunc": 1,
    "rint": 1,
    "sqrt": 1,
    "copysign": 2,
}
#: Functions of floating-point numbers, each with the number of its arguments.
FUNCTIONS = {
    "exp": 1,
    "exp2": 1,
    "expm1": 1,
    "log": 1,
    "log2": 1,
    "log10": 1,
    "log1p": 1,
    "sin": 1,
    "cos": 1,
    "tan": 1,
    "arcsin": 1,
    "arccos": 1,
    "arctan": 1,
    "sinh": 1,
    "cosh": 1,
    "tanh": 1,
    "arcsinh": 1,
    "arccosh": 1,
    "arctanh": 1,
    "power": 2,
    "arctan2": 2,
    "hypot": 2,
    "logaddexp": 2,
    "cbrt": 1,
    "erf": 1,
    "logistic": 1,
    "softplus": 1,
    "rsqrt": 1,
}
#: Operations on two arguments of one type whose answer is a truth value; with NaN only ``not_equal`` is true.
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """An expression of the type `dtype`, one of `DTYPES`."""

    dtype: str

    def __add__(self, other: Any) -> Scalar:
        return apply("add", self, other)

    def __radd__(self, other: Any) -> Scalar:
        return apply("add", other, self)

    def __sub__(self, other: Any) -> Scalar:
        return apply("subtract", self, other)

    def __rsub__(self, other: Any) -> Scalar:
        return apply("subtract", other, self)

    def __mul__(self, other: Any) -> Scalar:
        return apply("multiply", self, other)

    def __rmul__(self, other: Any) -> Scalar:
        return apply("multiply", other, self)

    def __truediv__(self, other: Any) -> Scalar:
        return apply("divide", self, other)

    def __rtruediv__(self, other: Any) -> Scalar:
        return apply("divide", other, self)

    def __neg__(self) -> Scalar:
        return apply("negative", self)

    def __and__(self, other: Any) -> Scalar:
        return apply("and", self, other)

    def __or__(self, other: Any) -> Scalar:
        return apply("or", self, other)

    def __xor__(self, other: Any) -> Scalar:
        return apply("xor", self, other)

    def __lshift__(self, other: Any) -> Scalar:
        return apply("shift_left", self, other)

    def __rshift__(self, other: Any) -> Scalar:
        return apply("shift_right", self, other)

    def __lt__(self, other: Any) -> Scalar:
        return apply("less", self, other)

    def __le__(self, other: Any) -> Scalar:
        return apply("less_equal", self, other)

    def __gt__(self, other: Any) -> Scalar:
        return apply("greater", self, other)

    def __ge__(self, other: Any) -> Scalar:
        return apply("greater_equal", self, other)

    def depends_on(self, axis: Axis) -> bool:
        """Whether it changes with a loop's variable; a `Local` is taken not to."""
        return any(_index_of(s).depends_on(axis) for s in walk([self]) if isinstance(s, (Element, Position)))

    def replace(self, values: dict[Atom, Index]) -> Scalar:
        """With loop variables and sizes replaced in every index."""
        if isinstance(self, Element):
            return Element(self.dtype, self.buffer, self.index.replace(values))
        if isinstance(self, Position):
            return Position(self.dtype, self.index.replace(values))
        if isinstance(self, Apply):
            return Apply(self.dtype, self.op, tuple([a.replace(values) for a in self.args]))
        return self


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Scalar):
    """A number that is known: a Python bool, int or float."""

    value: bool | int | float

    def __str__(self) -> str:
        return repr(self.value)


@dataclass(frozen=True, slots=True, eq=False)
class Element(Scalar):
    """An element of a buffer."""

    buffer: Buffer
    index: Index

    def __str__(self) -> str:
        return f"{self.buffer.name}[{self.index}]"


@dataclass(frozen=True, slots=True, eq=False)
class Position(Scalar):
    """An index as a number."""

    index: Index

    def __str__(self) -> str:
        return f"({self.index})"


@dataclass(frozen=True, slots=True, eq=False)
class Local(Scalar):
    """What a `Let` or an `Accumulator` of this name holds."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, eq=False)
class Apply(Scalar):
    """An operation on expressions.

    Attributes:
        op: a name in `ARITHMETIC`, `FUNCTIONS` or `COMPARISONS`; ``"select"`` of a truth value and two of one type;
            ``"cast"``, which converts as NumPy does; ``"bits"``, which reads the bits as another type of that width.
        args: its arguments.
    """

    op: str
    args: tuple[Scalar, ...]

    def __str__(self) -> str:
        return f"{self.op}({', '.join(map(str, self.args))})"


def constant(value: Any, dtype: str) -> Constant:
    """A number of a type."""
    number = np.asarray(value).astype(DTYPES[dtype]).item()
    return Constant(dtype, number)


def dtype_of(dtype: np.dtype[Any]) -> str | None:
    """The name of a NumPy dtype, None for one that has no machine type here (complex, float16, strings, ...)."""
    return _NAMES.get(dtype)


def apply(op: str, *args: Any) -> Scalar:
    """An operation on expressions; Python numbers among them take the type of the others."""
    types = [a.dtype for a in args if isinstance(a, Scalar)]
    scalars = tuple([a if isinstance(a, Scalar) else constant(a, types[0]) for a in args])
    if len(set(types)) > 1:
        raise TypeError(f"{op}: arguments of one type expected, got {', '.join(types)}")
    return Apply("b1" if op in COMPARISONS else types[0], op, scalars)


def select(condition: Scalar, yes: Any, no: Any) -> Scalar:
    """`yes` where the condition holds, `no` elsewhere; both are computed."""
    dtype = yes.dtype if isinstance(yes, Scalar) else no.dtype
    branches = [x if isinstance(x, Scalar) else constant(x, dtype) for x in (yes, no)]
    if branches[0].dtype != branches[1].dtype or condition.dtype != "b1":
        raise TypeError(f"select: got {condition.dtype}, {branches[0].dtype}, {branches[1].dtype}")
    return Apply(dtype, "select", (condition, *branches))


def cast(x: Scalar, dtype: str) -> Scalar:
    """A number as one of another type, converted as NumPy does."""
    if x.dtype == dtype:
        return x
    if isinstance(x, Constant) and not (isinstance(x.value, float) and not math.isfinite(x.value)):
        return constant(x.value, dtype)
    return Apply(dtype, "cast", (x,))


def operands(x: Scalar) -> tuple[Scalar, ...]:
    """The expressions that one is made of directly, those in the indices it reads at too."""
    if isinstance(x, Apply):
        return x.args
    if isinstance(x, (Element, Position)):
        return tuple([a.value for a in _index_of(x).atoms() if isinstance(a, Integer)])
    return ()


def walk(roots: list[Scalar]) -> Iterator[Scalar]:
    """Every expression below some, each once, arguments before what is made of them."""
    seen: set[int] = set()
    stack: list[tuple[Scalar, bool]] = [(x, False) for x in reversed(roots)]
    while stack:
        x, ready = stack.pop()
        if ready:
            yield x
        elif id(x) not in seen:
            seen.add(id(x))
            stack.append((x, True))
            stack += [(a, False) for a in reversed(operands(x))]


def _index_of(x: Scalar) -> Index:
    assert isinstance(x, (Element, Position))
    return x.index
