"""Programs: typed SSA over the primitives.

A program is a list of equations, each one primitive applied to variables and constants; every variable is
given a value once. Programs are values: nothing changes one, every pass makes another. They come from
`fnflare.program.tracing`, go through the passes beside this file, and are run by the interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np

from fnflare.core import Primitive, ShapeDtypeStruct, Source, aval_of

__all__ = ["Atom", "Equation", "Literal", "Program", "Var"]


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

    Attributes:
        inputs: a variable for each argument.
        equations: in an order in which they can be run.
        outputs: what it returns.
        name: of the function it was made from, for printing.
    """

    __slots__ = ("_memo", "equations", "inputs", "name", "outputs")

    def __init__(
        self, inputs: Iterable[Var], equations: Iterable[Equation], outputs: Iterable[Atom], name: str = ""
    ) -> None:
        self.inputs = tuple(inputs)
        self.equations = tuple(equations)
        self.outputs = tuple(outputs)
        self.name = name
        self._memo: dict[Hashable, Any] = {}

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
    ) -> Program:
        """A program like this one but for the parts that are given."""
        return Program(
            self.inputs if inputs is None else inputs,
            self.equations if equations is None else equations,
            self.outputs if outputs is None else outputs,
            self.name,
        )
