"""The key of a program with symbolic sizes: programs with one key are served by the same compiled code.

A program and its sizes go in, a digest comes out. It says all that lowering may look at, in the order of the equations:
primitives, parameters, dtypes, constants and shapes, with symbols where a size is one; nothing of where the program was
written, of names, or of this process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from types import EllipsisType
from typing import Any

import numpy as np

from fnflare.compiler.index_parts import Cut, NewAxis, Part, Place
from fnflare.compiler.sizes import Sizes
from fnflare.core import ShapeDtypeStruct
from fnflare.nest import Atom, Index, Quotient, Remainder
from fnflare.program.ir import Equation, Literal, Program, Var

__all__ = ["generic_key"]

#: Parameters that say nothing that the shape of the answer, or what is written in its place, does not say; and what
#: matters to derivatives alone.
_LEFT_OUT: dict[str, frozenset[str]] = {
    "reshape": frozenset({"shape"}),
    "broadcast_to": frozenset({"shape"}),
    "scan": frozenset({"length"}),
    "getitem": frozenset({"index"}),
    "index_add": frozenset({"index"}),
    "index_set": frozenset({"index"}),
    "conv_input_grad": frozenset({"input_shape"}),
    "conv_filter_grad": frozenset({"filter_shape"}),
    "fold": frozenset({"input_shape"}),
    "random_words": frozenset({"count"}),
    "random_pieces": frozenset({"count"}),
    "call": frozenset({"policy"}),
    "custom_vjp": frozenset({"call"}),
    "custom_jvp": frozenset({"call"}),
}
_NOTHING: frozenset[str] = frozenset()


class _NotStableError(Exception):
    """Something has no text that is the same in another process."""


def generic_key(program: Program, sizes: Sizes, contents: bool = True) -> str | None:
    """The key under which compiled code of a program serves others, of other lengths and in other processes.

    Args:
        program: the program.
        sizes: its `fnflare.compiler.sizes.symbolic_shapes`.
        contents: whether the elements of constant arrays are part of the key; without them the code must be handed
            such arrays, like arguments. Scalars, and what repeated numbers and counting arrays are made of, always are.

    Returns:
        A digest; None where a parameter, such as a function of the user's, cannot be told from others in another
        process.

    >>> from fnflare.compiler.generic_key import generic_key
    >>> from fnflare.compiler.sizes import symbolic_shapes
    >>> def key(steps):
    ...     program = ff.make_program(lambda xs: ff.scan(lambda c, x: (c + x, c), 0.0, xs))(np.ones(steps))
    ...     return generic_key(program, symbolic_shapes(program))
    >>> key(7) == key(9), key(7) == key(1)
    (True, False)
    """
    writer = _Writer(sizes, contents)
    try:
        writer.program(program)
    except _NotStableError:
        return None
    return hashlib.sha256("\n".join(writer.lines).encode()).hexdigest()


class _Writer:
    """Writes a program as text: each nested program once, where it is first met."""

    def __init__(self, sizes: Sizes, contents: bool) -> None:
        self.sizes = sizes
        self.contents = contents
        self.lines: list[str] = []
        self.numbers: dict[Var, int] = {}
        self.programs: dict[int, int] = {}
        self.dims: dict[int, str] = {}
        self.literals: dict[int, str] = {}
        self.dtypes: dict[np.dtype[Any], str] = {}

    def program(self, program: Program) -> int:
        """The number of a program; writes it unless it is written."""
        known = self.programs.get(id(program))
        if known is not None:
            return known
        lines = ["program", *[self.defined(v) for v in program.inputs]]
        for e in program.equations:
            inputs = " ".join([self.atom(a) for a in e.inputs])
            params = self.params(e) if e.params else ""
            lines.append(f"{' '.join([self.defined(v) for v in e.outputs])}={e.prim.name}[{params}] {inputs}")
        lines.append(f"return {' '.join([self.atom(a) for a in program.outputs])}")
        self.lines += lines
        return self.programs.setdefault(id(program), len(self.programs))

    # -- variables and constants ----------------------------------------------------------------

    def defined(self, v: Var) -> str:
        """A variable where it is given a value, with its type."""
        number = self.numbers.setdefault(v, len(self.numbers))
        weak = "~" if v.aval.weak else ""
        return f"v{number}:{weak}{self.dtype(v.aval.dtype)}{self.shape(self.sizes.shapes[v])}"

    def atom(self, a: Var | Literal) -> str:
        """A variable or a constant where it is read."""
        if type(a) is Var:
            return f"v{self.numbers[a]}"
        assert isinstance(a, Literal)
        text = self.literals.get(id(a))
        if text is None:
            text = self.literals[id(a)] = self.literal(a)
        return text

    def literal(self, a: Literal) -> str:
        """A constant."""
        value = a.value
        if isinstance(value, (bool, int, float, complex)) and not isinstance(value, np.generic):
            return f"{type(value).__name__}({value!r})"
        if not a.aval.shape:
            return self.elements(np.asarray(value))
        if a.repeated is not None:
            number = self.elements(np.asarray(a.repeated, a.aval.dtype))
            return f"all({number}){self.shape(self.sizes.literals[id(a)])}"
        return self.array(a, value)

    def array(self, owner: object, value: Any) -> str:
        """A constant array, by what it counts or by its elements."""
        iota = self.sizes.iotas.get(id(owner))
        shape = self.shape(self.sizes.literals[id(owner)]) if id(owner) in self.sizes.literals else str(value.shape)
        if iota is not None:
            return f"iota({self.dtype(value.dtype)} {iota.axis} {self.dim(iota.start)} {iota.step}){shape}"
        return f"array{shape}{self.elements(value)}"

    def elements(self, value: Any) -> str:
        """The elements of an array: a few as they are, many as a digest."""
        if value.dtype.hasobject:
            raise _NotStableError
        if value.ndim and not self.contents:
            return self.dtype(value.dtype)
        data = value.tobytes()
        return f"{self.dtype(value.dtype)}:{data.hex() if len(data) <= 16 else hashlib.sha256(data).hexdigest()}"

    def dtype(self, dtype: np.dtype[Any]) -> str:
        """A dtype, with the order of its bytes."""
        text = self.dtypes.get(dtype)
        if text is None:
            text = self.dtypes[dtype] = dtype.str
        return text

    # -- sizes ----------------------------------------------------------------------------------

    def shape(self, shape: tuple[Index, ...]) -> str:
        """A shape."""
        return f"({','.join([self.dim(d) for d in shape])})"

    def dim(self, d: Index) -> str:
        """A size, its terms in an order of their own."""
        text = self.dims.get(id(d))
        if text is None:
            text = self.dims[id(d)] = _polynomial(d)
        return text

    def part(self, p: Part) -> str:
        """A part of an index."""
        if isinstance(p, Cut):
            return f"{self.dim(p.start)}:{p.step}:{self.dim(p.size)}"
        if isinstance(p, Place):
            return self.dim(p.at)
        if isinstance(p, NewAxis):
            return "new"
        return f"arg{p.array}" if isinstance(p.array, int) else self.array(p.array, p.array)

    # -- parameters -----------------------------------------------------------------------------

    def params(self, equation: Equation) -> str:
        """The parameters of an equation, with symbolic sizes in place of numbers."""
        left_out = _LEFT_OUT.get(equation.prim.name, _NOTHING)
        own = (equation.params or {}).items()
        parts = [f"{name}={self.value(x)}" for name, x in sorted(own) if name not in left_out]
        key = equation.outputs[0]
        if key in self.sizes.indices:
            parts.append(f"index={';'.join([self.part(p) for p in self.sizes.indices[key]])}")
        if key in self.sizes.lengths:
            parts.append(f"length={self.dim(self.sizes.lengths[key])}")
        return " ".join(parts)

    def value(self, x: Any) -> str:
        """A static parameter."""
        kind = type(x)
        if kind in _REPR:
            return repr(x)
        writer = _BY_TYPE.get(kind)
        if writer is not None:
            return writer(self, x)
        if isinstance(x, np.dtype):
            return self.dtype(x)
        if isinstance(x, (np.ndarray, np.generic)):
            return f"{np.shape(x)}{self.elements(np.asarray(x))}"
        if isinstance(x, np.ufunc):
            return f"ufunc {x.__name__}"
        if isinstance(x, type) and issubclass(x, np.generic):
            return self.dtype(np.dtype(x))
        raise _NotStableError

    def _sequence(self, x: Any) -> str:
        return f"({','.join([self.value(i) for i in x])})"

    def _dict(self, x: dict[Any, Any]) -> str:
        return f"{{{','.join(sorted([f'{self.value(k)}:{self.value(v)}' for k, v in x.items()]))}}}"

    def _set(self, x: Any) -> str:
        return f"{{{','.join(sorted(map(self.value, x)))}}}"

    def _slice(self, x: slice) -> str:
        return f"slice{self._sequence((x.start, x.stop, x.step))}"

    def _program(self, x: Program) -> str:
        return f"program{self.program(x)}"

    def _aval(self, x: ShapeDtypeStruct) -> str:
        return f"{'~' if x.weak else ''}{self.dtype(x.dtype)}{x.shape}"


#: Types whose values are written alike in every process, and no two of them alike.
_REPR = (int, bool, float, complex, str, bytes, type(None), EllipsisType)
_BY_TYPE: dict[type, Callable[[_Writer, Any], str]] = {
    tuple: _Writer._sequence,
    list: _Writer._sequence,
    dict: _Writer._dict,
    set: _Writer._set,
    frozenset: _Writer._set,
    slice: _Writer._slice,
    Program: _Writer._program,
    ShapeDtypeStruct: _Writer._aval,
}


def _polynomial(d: Index) -> str:
    if d.constant is not None:
        return str(d.constant)
    return "+".join(sorted([f"{c}{''.join(['*' + _atom(a) for a in m])}" for m, c in d.terms.items()]))


def _atom(a: Atom) -> str:
    if isinstance(a, (Quotient, Remainder)):
        sign = "/" if isinstance(a, Quotient) else "%"
        return f"({_polynomial(a.value)}){sign}({_polynomial(a.divisor)})"
    return str(a)
