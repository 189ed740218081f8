"""Programs as Python code: what the interpreter runs.

A program goes in, the text of a Python function comes out and what its names stand for: one line an equation, each
a call of a NumPy function or method on local variables. Python reads such a function once, and then spends a
tenth of a microsecond on a line. A loop's body becomes a function with the loop inside.

Two things are worked out on the way: after which line an array is needed no more, where the line lets go of it; and
whether an answer can be written into an argument that is needed no more, or into its place in a stack.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fnflare.core import plain_kernel
from fnflare.program.ir import Atom, Equation, Literal, Program, Var

__all__ = ["Code", "function_code", "loop_code"]

#: Primitives whose answer may share memory with their argument.
_VIEWS = frozenset(
    {
        "reshape",
        "transpose",
        "broadcast_to",
        "getitem",
        "convert",
        "convert_discrete",
        "stop_gradient",
        "windows",
        "name",
    }
)
#: Primitives, beside the elementwise ones, whose answer is one array that shares memory with nothing.
_FRESH = frozenset(
    {
        "matmul",
        "sum",
        "prod",
        "max",
        "min",
        "softmax",
        "log_softmax",
        "logsumexp",
        "cumsum",
        "cumprod",
        "recurrence",
        "concatenate",
    }
)
#: Arrays with fewer bytes are left to the end of the function: letting go of one costs as much as it gains.
_WORTH_FREEING = 4096


class Code:
    """The text of a function, and the values of the names in it.

    Attributes:
        text: the source of one function.
        names: its globals.
    """

    def __init__(self, text: str, names: dict[str, Any]) -> None:
        self.text = text
        self.names = names

    def compile(self, name: str) -> Callable[..., Any]:
        """The function called `name`."""
        scope = dict(self.names)
        # The text is made here, of names and brackets alone: nothing of it comes from outside.
        exec(compile(self.text, "<program>", "exec"), scope)  # noqa: S102
        return scope[name]


class _Writer:
    """Writes the lines of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.names: dict[str, Any] = {}
        self.local: dict[Var, str] = {v: f"a{i}" for i, v in enumerate(program.inputs)}
        self._shared: dict[int, str] = {}
        self._kept: list[Any] = []  # whose identity is a key above
        self.placed: set[Var] = set()  # answers that were written into the place that was ready for them
        self.aliases = _Aliases(program)

    def constant(self, value: Any, prefix: str = "c") -> str:
        """A name for a value that stays."""
        if id(value) not in self._shared:
            self._shared[id(value)] = name = f"{prefix}{len(self._shared)}"
            self._kept.append(value)
            self.names[name] = value
        return self._shared[id(value)]

    def atom(self, a: Atom) -> str:
        """How an atom is written."""
        if type(a) is not Literal:
            return self.local[a]  # type: ignore[index]
        if type(a.value) is int or (type(a.value) is float and math.isfinite(a.value)):
            return repr(a.value) if a.value >= 0 else f"({a.value!r})"
        return self.constant(a.value)

    def lines(self, targets: dict[Var, str]) -> list[str]:
        """A line for each equation.

        Args:
            targets: where an answer has a place that is ready for it: the expression of that place.
        """
        out = []
        for place, e in enumerate(self.program.equations):
            for v in e.outputs:
                self.local[v] = f"r{len(self.local)}"
            out.append(self._line(place, e, targets))
            dead = [self.local[v] for v in self.aliases.dead_after(place) if v.aval.nbytes >= _WORTH_FREEING]
            if dead:
                out.append(f"del {', '.join(dead)}")
        return out

    def _line(self, place: int, e: Equation, targets: dict[Var, str]) -> str:
        inputs = [self.atom(a) for a in e.inputs]
        left = ", ".join(self.local[v] for v in e.outputs) + ("," if e.prim.many and len(e.outputs) == 1 else "")
        if e.prim.many and not e.outputs:
            left = "_"
        return f"{left} = {self._right(place, e, inputs, targets)}"

    def _right(self, place: int, e: Equation, inputs: list[str], targets: dict[Var, str]) -> str:
        if e.prim.name == "concatenate":
            return self._concatenate(e, inputs, targets)
        write = _EXPRESSIONS.get(e.prim.name)
        text = None if write is None else write(self, e, inputs)
        if text is not None:
            return text
        kernel = _kernel(e)
        arguments = ", ".join(inputs)
        if _takes_out(kernel) and e.outputs[0].aval.shape:
            target = self._target(e, targets)
            if target is None:
                reusable = self.aliases.reusable(place, e)
                target = None if reusable is None else self.local[reusable]
            if target is not None:
                by_position = isinstance(kernel, np.ufunc) and kernel not in (np.maximum, np.minimum)
                arguments += f", {target}" if by_position else f", out={target}"
        if e.params:
            kernel = partial(kernel, **e.params)
        return f"{self.constant(kernel, 'f')}({arguments})"

    def _target(self, e: Equation, targets: dict[Var, str]) -> str | None:
        """The place that is ready for an answer, if there is one."""
        target = targets.get(e.outputs[0])
        if target is not None:
            self.placed.add(e.outputs[0])
        return target

    def _concatenate(self, e: Equation, inputs: list[str], targets: dict[Var, str]) -> str:
        assert e.params is not None
        target = self._target(e, targets)
        out = "" if target is None else f", {target}"
        return f"{self.constant(np.concatenate, 'f')}(({', '.join(inputs)},), {e.params['axis']}{out})"


def _kernel(e: Equation) -> Callable[..., Any]:
    """The function that computes an equation: for products of matrices, NumPy's own."""
    if e.prim.name == "matmul":
        x, y = (a.aval for a in e.inputs)
        return np.dot if max(x.ndim, y.ndim) <= 2 else np.matmul if y.ndim > 2 else plain_kernel(e.prim)
    return plain_kernel(e.prim)


def _takes_out(kernel: Any) -> bool:
    """Whether a kernel can write its answer into an array that it is given."""
    if isinstance(kernel, np.ufunc):
        return kernel.nin <= 2 and kernel.signature is None
    return getattr(kernel, "takes_out", False)


# -- what is written as a method ----------------------------------------------------------------


def _is_array(a: Atom) -> bool:
    """Whether an atom is an array, or a NumPy scalar, and no Python number."""
    return not a.aval.weak and (type(a) is Var or isinstance(a.value, (np.ndarray, np.generic)))  # type: ignore[union-attr]


def _reshape(_: _Writer, e: Equation, inputs: list[str]) -> str | None:
    return f"{inputs[0]}.reshape({_numbers(e.params['shape'])})" if _is_array(e.inputs[0]) else None  # type: ignore[index]


def _transpose(_: _Writer, e: Equation, inputs: list[str]) -> str | None:
    return f"{inputs[0]}.transpose({_numbers(e.params['axes'])})" if _is_array(e.inputs[0]) else None  # type: ignore[index]


def _getitem(writer: _Writer, e: Equation, inputs: list[str]) -> str | None:
    assert e.params is not None
    return f"{inputs[0]}[{writer.constant(e.params['index'])}]" if len(inputs) == 1 and _is_array(e.inputs[0]) else None


def _sum(writer: _Writer, e: Equation, inputs: list[str]) -> str | None:
    x = e.inputs[0].aval
    assert e.params is not None
    if not x.ndim:
        return None
    axes = "None" if len(e.params["axes"]) == x.ndim else _numbers(e.params["axes"])
    return f"{writer.constant(_add_reduce, 'f')}({inputs[0]}, {axes}, None, None, {e.params['keepdims']})"


def _convert(writer: _Writer, e: Equation, inputs: list[str]) -> str | None:
    assert e.params is not None
    dtype = writer.constant(e.params["dtype"])
    return f"{inputs[0]}.astype({dtype}, copy=False)" if _is_array(e.inputs[0]) and e.inputs[0].aval.shape else None


def _identity(_: _Writer, __: Equation, inputs: list[str]) -> str | None:
    return inputs[0]


def _numbers(values: Sequence[int]) -> str:
    return f"({', '.join(map(str, values))}{',' if len(values) == 1 else ''})"


_add_reduce = np.add.reduce

_EXPRESSIONS: dict[str, Callable[[_Writer, Equation, list[str]], str | None]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "getitem": _getitem,
    "sum": _sum,
    "convert": _convert,
    "convert_discrete": _convert,
    "stop_gradient": _identity,
    "name": _identity,
}


# -- who shares memory with whom ----------------------------------------------------------------


class _Aliases:
    """Which variables may share memory, and how long each is needed."""

    def __init__(self, program: Program) -> None:
        self._parent: dict[Var, Var] = {}
        self._mixed: set[Var] = set()  # groups that are more than one fresh array and its views
        self._fresh: set[Var] = set()
        for e in program.equations:
            self._join(e)
        end = len(program.equations)
        self._last: dict[Var, int] = {}
        self._last_of_group: dict[Var, int] = {}
        for place, e in enumerate(program.equations):
            for a in (*e.inputs, *e.outputs):
                if type(a) is Var:
                    self._last[a] = self._last_of_group[self._find(a)] = place
        for a in program.outputs:
            if type(a) is Var:
                self._last[a] = self._last_of_group[self._find(a)] = end
        given = set(program.inputs)
        self._dead: dict[int, list[Var]] = {}
        for v, place in self._last.items():
            if place < end and v not in given:
                self._dead.setdefault(place, []).append(v)

    def _join(self, e: Equation) -> None:
        inputs = [a for a in e.inputs if type(a) is Var]
        if e.prim.name in _VIEWS:
            if inputs:
                self._parent[e.outputs[0]] = self._find(inputs[0])
        elif not e.prim.many and (e.prim.elementwise or e.prim.name in _FRESH):
            self._fresh.add(e.outputs[0])
        else:
            everything = [*inputs, *e.outputs]
            for v in everything[1:]:
                a, b = self._find(v), self._find(everything[0])
                if a is not b:
                    self._parent[a] = b
            if everything:
                self._mixed.add(self._find(everything[0]))

    def _find(self, v: Var) -> Var:
        while v in self._parent:
            v = self._parent[v]
        return v

    def dead_after(self, place: int) -> list[Var]:
        """What nothing reads after an equation."""
        return self._dead.get(place, [])

    def reusable(self, place: int, e: Equation) -> Var | None:
        """An argument of an equation that nobody needs afterwards, and whose memory has room for the answer."""
        for a in e.inputs:
            if type(a) is Var and self._has_room(a, e.outputs[0]) and self._last_of_group[self._find(a)] == place:
                return a
        return None

    def _has_room(self, a: Var, out: Var) -> bool:
        """Whether a variable is an array of its own of the shape and dtype of another."""
        alike = (a.aval.shape, a.aval.dtype) == (out.aval.shape, out.aval.dtype)
        return a in self._fresh and alike and self._find(a) not in self._mixed

    def is_own(self, v: Var) -> bool:
        """Whether a variable is an array of its own, made by one equation."""
        return v in self._fresh


# -- functions ----------------------------------------------------------------------------------


def _function(name: str, parameters: Sequence[str], lines: Sequence[str]) -> str:
    body = "\n".join(f"    {line}" for line in lines) or "    pass"
    return f"def {name}({', '.join(parameters)}):\n{body}\n"


def function_code(program: Program) -> Code:
    """The function ``run(*inputs)``, which returns a list of the outputs.

    An output that would be an array of the program's own, read-only, or another output as well, is copied.
    """
    writer = _Writer(program)
    lines = writer.lines({})
    maker = {v: e for e in program.equations for v in e.outputs}
    outputs = []
    for i, a in enumerate(program.outputs):
        text = writer.atom(a)
        outputs.append(f"array({text})" if _must_copy(a, program.outputs[:i], maker) else text)
    lines.append(f"return [{', '.join(outputs)}]")
    parameters = [writer.local[v] for v in program.inputs]
    return Code(_function("run", parameters, lines), {**writer.names, "array": np.array})


def _must_copy(output: Atom, before: Sequence[Atom], maker: dict[Var, Equation]) -> bool:
    """Whether an output would otherwise be memory of the program's own, read-only, or another output as well."""
    if type(output) is Var and output.aval.shape and output in before:
        return True
    source = output
    while type(source) is Var:
        e = maker.get(source)
        if e is None or e.prim.name not in _VIEWS:
            return False
        if e.prim.name == "broadcast_to":
            return True
        source = e.inputs[0]
    return type(source.value) is np.ndarray  # type: ignore[union-attr]


def loop_code(program: Program, consts: int, carry: int) -> Code:
    """The function ``loop(steps, *inputs, *stacks)`` of a scan's body, which returns a list of the last carries.

    ``steps`` are the numbers of the steps, in order; the inputs are constants, first carries and stacked inputs;
    the stacks are where outputs go.
    """
    writer = _Writer(program)
    ys = program.outputs[carry:]
    stacks = [f"s{i}" for i in range(len(ys))]
    targets: dict[Var, str] = {}
    for stack, y in zip(stacks, ys, strict=True):
        if type(y) is Var and writer.aliases.is_own(y) and y not in targets:
            targets[y] = f"{stack}[t]"
    stacked = program.inputs[consts + carry :]
    fixed = [writer.local[v] for v in program.inputs[: consts + carry]]
    whole = [f"x{i}" for i in range(len(stacked))]
    lines = [f"{writer.local[v]} = {x}[t]" for v, x in zip(stacked, whole, strict=True)]
    lines += writer.lines(targets)
    for stack, y in zip(stacks, ys, strict=True):
        if not (type(y) is Var and targets.get(y) == f"{stack}[t]" and y in writer.placed):
            lines.append(f"{stack}[t] = {writer.atom(y)}")
    states = [writer.local[v] for v in program.inputs[consts : consts + carry]]
    if states:
        lines.append(f"{', '.join(states)}, = {', '.join(writer.atom(a) for a in program.outputs[:carry])},")
    text = ["for t in steps:", *[f"    {line}" for line in lines or ["pass"]], f"return [{', '.join(states)}]"]
    return Code(_function("loop", ["steps", *fixed, *whole, *stacks], text), writer.names)
