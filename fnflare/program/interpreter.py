"""The interpreter: runs programs on plain arrays, one kernel after another.

A program goes in as Python code of NumPy calls (`fnflare.program.python_code`), made once and kept with it. It is
the reference that any other executor must agree with. While somebody observes, programs run through `evaluate`
instead, so that every operation is seen with its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare.core import observed
from fnflare.program.ir import Program
from fnflare.program.python_code import function_code, loop_code
from fnflare.program.tracing import evaluate

__all__ = ["compiled", "execute", "prepare", "run", "run_loop", "use_executor"]

#: Makes a function of a program and the numbers of the arguments whose memory it may use for its answers.
Executor = Callable[[Program, tuple[int, ...]], Callable[..., list[Any]]]


def compiled(program: Program) -> Callable[..., list[Any]]:
    """A program as a function of plain arrays, which returns a list of its outputs."""
    return program.derived("function", lambda: function_code(program).compile("run"))


def run(program: Program, args: Sequence[Any]) -> list[Any]:
    """Run a program on plain arrays; its outputs are the caller's own, but for what is an argument."""
    return evaluate(program, args) if observed() else compiled(program)(*args)


_executor: Executor


def use_executor(executor: Executor) -> None:
    """Say what makes functions of the programs of jitted functions: `compiled`, unless there is native code."""
    global _executor  # noqa: PLW0603
    _executor = executor


use_executor(lambda program, donated: compiled(program))


def execute(program: Program, args: Sequence[Any], donated: tuple[int, ...] = ()) -> list[Any]:
    """Run the program of a jitted function on plain arrays, as `run` does, by the executor that is in use.

    Args:
        program, args: what to run.
        donated: the numbers of the arguments whose memory may be used for the answers.
    """
    return evaluate(program, args) if observed() else _executor(program, donated)(*args)


def prepare(program: Program, donated: tuple[int, ...] = ()) -> None:
    """Do now what `execute` does when a program is run for the first time."""
    _executor(program, donated)


def run_loop(program: Program, consts: int, carry: int, args: Sequence[Any], length: int, reverse: bool) -> list[Any]:
    """Run a scan's body over time.

    Args:
        program: the body, from constants, carries and a step's inputs to carries and a step's outputs.
        consts, carry: how many of each there are.
        args: constants, first carries, and inputs stacked along axis 0.
        length: the number of steps.
        reverse: whether to go from the last to the first.

    Returns:
        The last carries, and the outputs stacked along axis 0.
    """
    stacks = [np.empty((length, *a.shape), a.dtype) for a in program.out_avals[carry:]]
    steps = range(length - 1, -1, -1) if reverse else range(length)
    if observed():
        return [*_observed_loop(program, consts, carry, args, steps, stacks), *stacks]
    function = program.derived(("loop", consts, carry), lambda: loop_code(program, consts, carry).compile("loop"))
    state = function(steps, *args, *stacks)
    # A carry may lie in a stack, where it was written as an output.
    return [*[np.array(c) if type(c) is np.ndarray and c.base is not None else c for c in state], *stacks]


def _observed_loop(
    program: Program, consts: int, carry: int, args: Sequence[Any], steps: range, stacks: Sequence[Any]
) -> list[Any]:
    fixed, state, xs = args[:consts], list(args[consts : consts + carry]), args[consts + carry :]
    for t in steps:
        out = evaluate(program, [*fixed, *state, *[x[t] for x in xs]])
        state = out[:carry]
        for stack, y in zip(stacks, out[carry:], strict=True):
            stack[t] = y
    return state
