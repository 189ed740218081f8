"""Programs: typed SSA over the primitives.

A program is a list of equations, each one primitive applied to variables and constants; every variable is
given a value once. Programs are values: nothing changes one, every pass makes another. They come from
`fnflare.program.tracing`, go through the passes beside this file, and are run by the interpreter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np

from fnflare.core import Primitive, ShapeDtypeStruct, Source, aval_of
from fnflare.errors import ArgumentError, ImmutableError

__all__ = ["Atom", "Equation", "Literal", "Program", "Var", "uses_of", "variables"]


class Var:
    """A variable: it has an abstract value, and an identity but no name."""

    __slots__ = ("aval",)

    def __init__(self, aval: ShapeDtypeStruct) -> None:
        self.aval = aval

    def __repr__(self) -> str:
        return f"Var({self.aval.dtype}{list(self.aval.shape)})"


#: Stands for what has not been worked out yet.
_UNKNOWN: Any = object()


class Literal:
    """A constant: an array, or a Python number, which stays weak."""

    __slots__ = ("_repeated", "aval", "value")

    def __init__(self, value: Any) -> None:
        if type(value) is int and abs(value) >= 2**64:  # no integer of any array has it: it is beside floats
            value = float(value)
        self.value = value
        self.aval = aval_of(value)
        self._repeated = _UNKNOWN

    @property
    def repeated(self) -> Any:
        """The number that every element is, a Python number or a NumPy scalar; None where there is no such number.

        An array is looked through once, and no further than to the first element that differs from the others.
        """
        if self._repeated is _UNKNOWN:
            self._repeated = _repeated(self.value)
        return self._repeated

    def __repr__(self) -> str:
        return f"Literal({self.value!r})"


def _repeated(value: Any) -> Any:
    if type(value) is not np.ndarray:
        return value if isinstance(value, (bool, int, float, complex, np.generic)) else None
    if value.size == 0 or value.dtype.kind not in "biufc":
        return None
    first = value[(0,) * value.ndim]
    if all(n == 1 or step == 0 for n, step in zip(value.shape, value.strides, strict=True)):
        return first
    if value[(-1,) * value.ndim] != first or np.any(value.flat[:64] != first) or np.any(value != first):
        return None
    if first == 0 and value.dtype.kind in "fc":  # 0.0 == -0.0
        for part in (value.real, value.imag):
            signs = np.signbit(part)
            if signs.any() and not signs.all():
                return None
    return first


Atom = Var | Literal


class Equation(NamedTuple):
    """``outputs = prim(*inputs, **params)``, and where the user wrote it."""

    prim: Primitive
    inputs: tuple[Atom, ...]
    params: dict[str, Any] | None
    outputs: tuple[Var, ...]
    source: Source | None


class Program:
    """A function of arrays as equations.

    A value: it is equal to itself alone, can be a key of a dict, and nothing of it can be assigned to.
    ``str(program)`` is its text, and a notebook shows its picture.

    Attributes:
        inputs: a variable for each argument.
        equations: in an order in which they can be run.
        outputs: what it returns.
        name: of the function it was made from, for printing.
        input_names: what each input is called in print, such as ``"params/w"``; empty for one without a name.

    Raises:
        ImmutableError: an attribute was assigned to.
    """

    __slots__ = ("_memo", "equations", "input_names", "inputs", "name", "outputs")

    inputs: tuple[Var, ...]
    equations: tuple[Equation, ...]
    outputs: tuple[Atom, ...]
    name: str
    input_names: tuple[str, ...]
    _memo: dict[Hashable, Any]

    def __init__(
        self,
        inputs: Iterable[Var],
        equations: Iterable[Equation],
        outputs: Iterable[Atom],
        name: str = "",
        input_names: Iterable[str] | None = None,
    ) -> None:
        put = object.__setattr__  # the only way past `__setattr__`
        put(self, "inputs", tuple(inputs))
        put(self, "equations", tuple(equations))
        put(self, "outputs", tuple(outputs))
        put(self, "name", name)
        put(self, "input_names", ("",) * len(self.inputs) if input_names is None else tuple(input_names))
        put(self, "_memo", {})
        if len(self.input_names) != len(self.inputs):
            raise ArgumentError(
                f"input_names must have a name for each of the {len(self.inputs)} inputs, "
                f"the empty one where there is none; got {self.input_names}"
            )

    def __setattr__(self, attribute: str, value: Any) -> None:
        raise ImmutableError(
            f"a program cannot be changed, so {attribute!r} cannot be assigned to; "
            "program.replace(equations=...) makes another one"
        )

    def __delattr__(self, attribute: str) -> None:
        raise ImmutableError(f"a program cannot be changed, so {attribute!r} cannot be deleted")

    def derived(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` makes of this program, made once: its derivatives, its batched form, its runner."""
        try:
            return self._memo[key]
        except KeyError:
            return self._memo.setdefault(key, make())

    @property
    def in_avals(self) -> list[ShapeDtypeStruct]:
        """The abstract values of the inputs."""
        return [v.aval for v in self.inputs]

    @property
    def out_avals(self) -> list[ShapeDtypeStruct]:
        """The abstract values of the outputs."""
        return [v.aval for v in self.outputs]

    def replace(
        self,
        inputs: Iterable[Var] | None = None,
        equations: Iterable[Equation] | None = None,
        outputs: Iterable[Atom] | None = None,
        input_names: Iterable[str] | None = None,
    ) -> Program:
        """A program like this one but for the parts that are given; an input that stays keeps its name."""
        inputs = self.inputs if inputs is None else tuple(inputs)
        if input_names is None:
            known = dict(zip(self.inputs, self.input_names, strict=True))
            input_names = [known.get(v, "") for v in inputs]
        return Program(
            inputs,
            self.equations if equations is None else equations,
            self.outputs if outputs is None else outputs,
            self.name,
            input_names,
        )

    def text(self, lines: bool = False, nested: bool = True) -> str:
        """The program as text: a header with the inputs, one equation a line, and what is returned.

        An input has its own name, any other variable a letter. Shapes stand in brackets behind the dtype; a
        Python number, whose dtype gives way to that of arrays, is a plain ``float`` or ``int``. What is in
        brackets behind an operation are its static parameters. An array that is constant is shown by its shape,
        and by its value where that is the same everywhere; a scalar is written out.

        Args:
            lines: whether to write beside each equation where it comes from: the user's file and line, the path
                of the layer, and "backward" where it is part of a derivative.
            nested: whether to write the programs of control flow and the like below their equations.

        >>> program = ff.make_program(lambda w, x: np.sum(np.tanh(x @ w) * 0.5))(np.ones(3), np.ones((2, 3)))
        >>> print(program.text())
        program <lambda>(w: float64[3], x: float64[2,3]):
            a: float64[2] = matmul x w
            b: float64[2] = tanh a
            c: float64[2] = multiply b 0.5
            d: float64[] = sum[axes=(0,) keepdims=False] c
            return d
        """
        from fnflare.program import printing

        return printing.text(self, lines, nested)

    def dot(self) -> str:
        """The program as a picture, in the language of graphviz.

        Write it to a file and let ``dot -Tsvg`` draw it; a notebook does so by itself where graphviz is
        installed. Operations that are part of a derivative are tinted, programs of control flow and the like
        stand in a frame of their own, and pointing at an operation shows its equation and its line.
        """
        from fnflare.program import drawing

        return drawing.dot(self)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from fnflare.program import drawing

        return drawing.html(self)


def variables(atoms: Iterable[Atom]) -> list[Var]:
    """Those atoms that are no constants, in order."""
    return [a for a in atoms if type(a) is Var]


def uses_of(program: Program) -> dict[Var, int]:
    """How often each variable is read by an equation or returned."""
    return Counter(variables([*[a for e in program.equations for a in e.inputs], *program.outputs]))
