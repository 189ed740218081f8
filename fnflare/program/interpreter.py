"""The interpreter: runs programs on plain arrays, one kernel after another.

A program goes in, a `Runner` comes out that holds it as a list of instructions over numbered registers. It
is the reference that any other executor must agree with. What it does beyond calling kernels is to let go of
arrays after their last use, and to write the answer of a ufunc into an argument that nobody needs any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fnflare.core import observed, plain_kernel
from fnflare.program.ir import Equation, Literal, Program, Var
from fnflare.program.tracing import evaluate

__all__ = ["Runner", "run"]

#: Primitives whose answer may share memory with an argument.
_VIEWS = frozenset(
    {"reshape", "transpose", "broadcast_to", "getitem", "convert", "convert_discrete", "stop_gradient", "windows"}
)
#: Primitives, beside the elementwise ones, whose answer is one array that shares memory with nothing.
_FRESH = frozenset({"matmul", "sum", "max", "min", "softmax", "log_softmax", "logsumexp", "cumsum", "concatenate"})


class Runner:
    """A program as instructions.

    An instruction is ``(kernel, inputs, output, frees)``: the registers that the kernel takes, the register (or
    the tuple of them) that it fills, and those that are empty afterwards.
    """

    __slots__ = ("_copies", "_count", "_instructions", "_outputs", "_program", "_registers")

    def __init__(self, program: Program) -> None:
        self._program = program
        number: dict[Var, int] = {v: i for i, v in enumerate(program.inputs)}
        self._count = len(program.inputs)
        registers: list[Any] = [None] * self._count
        literals: dict[int, int] = {}

        def register(atom: Any) -> int:
            if type(atom) is Literal:
                if id(atom) not in literals:
                    literals[id(atom)] = len(registers)
                    registers.append(atom.value)
                return literals[id(atom)]
            return number[atom]

        rows = []
        for equation in program.equations:
            inputs = tuple([register(a) for a in equation.inputs])
            for v in equation.outputs:
                number[v] = len(registers)
                registers.append(None)
            rows.append((equation, inputs, tuple([number[v] for v in equation.outputs])))
        self._outputs = tuple([register(a) for a in program.outputs])
        self._copies = tuple([_must_copy(program, i) for i in range(len(self._outputs))])
        self._registers = registers
        self._instructions = _instructions(rows, self._outputs)

    def __call__(self, args: Sequence[Any]) -> list[Any]:
        """Run on plain arrays; returns the outputs, each the caller's own unless it is an argument."""
        if observed():  # then every operation is to be seen, with its place
            outputs = evaluate(self._program, args)
            return [np.array(x) if copy else x for x, copy in zip(outputs, self._copies, strict=True)]
        registers = self._registers.copy()
        registers[: self._count] = args
        for kernel, inputs, output, frees in self._instructions:
            n = len(inputs)
            if n == 2:
                ans = kernel(registers[inputs[0]], registers[inputs[1]])
            elif n == 1:
                ans = kernel(registers[inputs[0]])
            else:
                ans = kernel(*[registers[i] for i in inputs])
            if type(output) is int:
                registers[output] = ans
            else:
                for i, a in zip(output, ans, strict=True):
                    registers[i] = a
            for i in frees:
                registers[i] = None
        return [
            np.array(registers[i]) if copy else registers[i]
            for i, copy in zip(self._outputs, self._copies, strict=True)
        ]


def run(program: Program, args: Sequence[Any]) -> list[Any]:
    """Run a program on plain arrays."""
    return program.derived("runner", lambda: Runner(program))(args)


def _must_copy(program: Program, i: int) -> bool:
    """Whether output `i` would otherwise be an array of the program's own, or another output as well."""
    output = program.outputs[i]
    if type(output) is Literal:
        return type(output.value) is np.ndarray
    return bool(output.aval.shape) and output in program.outputs[:i]


class _Aliases:
    """Which registers may share memory: each belongs to the group of the register that owns it."""

    def __init__(self) -> None:
        self.owner: dict[int, int] = {}
        self.shared: set[int] = set()  # owners whose memory is not a single fresh array

    def find(self, i: int) -> int:
        while i in self.owner:
            i = self.owner[i]
        return i

    def join(self, i: int, j: int) -> None:
        i, j = self.find(i), self.find(j)
        if i != j:
            self.owner[i] = j
            self.shared.add(j)


def _instructions(rows: Sequence[Any], outputs: Sequence[int]) -> list[Any]:
    aliases = _Aliases()
    for equation, ins, outs in rows:
        if equation.prim.name in _VIEWS:
            aliases.owner[outs[0]] = aliases.find(ins[0])
        elif not _is_fresh(equation):
            for i in (*ins, *outs):
                aliases.join(i, outs[0])
    last: dict[int, int] = {}
    last_of_group: dict[int, int] = {}
    for place, (_, ins, outs) in enumerate(rows):
        for i in (*ins, *outs):
            last[i] = place
            last_of_group[aliases.find(i)] = place
    for i in outputs:
        last[i] = last_of_group[aliases.find(i)] = len(rows)
    fresh = {outs[0] for equation, _, outs in rows if _is_fresh(equation)}
    variables = {i for _, _, outs in rows for i in outs}
    instructions = []
    for place, (equation, ins, outs) in enumerate(rows):
        dying = [i for i in ins if i in fresh and i not in aliases.shared and last_of_group[aliases.find(i)] == place]
        kernel, extra = _kernel(equation, ins, dying)
        frees = tuple([i for i in dict.fromkeys((*ins, *outs)) if i in variables and last[i] == place])
        instructions.append((kernel, (*ins, *extra), outs if equation.prim.many else outs[0], frees))
    return instructions


def _is_fresh(equation: Equation) -> bool:
    """Whether the answer is one array that shares memory with nothing."""
    prim = equation.prim
    return prim.elementwise or prim.name in _FRESH


def _kernel(equation: Equation, ins: tuple[int, ...], dying: Sequence[int]) -> tuple[Callable[..., Any], Any]:
    """The function that an instruction calls, and the registers that it takes beside its inputs."""
    kernel = plain_kernel(equation.prim)  # what is kept here must not be an observer's
    if equation.params:
        kernel = partial(kernel, **equation.params)
    if isinstance(kernel, np.ufunc):
        (out,) = equation.outputs
        for i in dying:
            atom = equation.inputs[ins.index(i)]
            if out.aval.shape and atom.aval.shape == out.aval.shape and atom.aval.dtype == out.aval.dtype:
                return kernel, (i,)
    return kernel, ()
