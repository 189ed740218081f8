"""What lowering makes of a program: a module of loop nests, and where its buffers come from.

The module's body refers to buffers alone. This says which of them are arguments, constants, answers and scratch memory,
how large each is, and when scratch memory is in use: all that is needed to plan the memory of a call and to make it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fnflare.nest import Buffer, Index, Module, Size
from fnflare.program.ir import Literal

__all__ = ["Lowered", "Output", "constant_output"]


@dataclass(frozen=True, slots=True)
class Output:
    """Where an answer of a program is found.

    Attributes:
        source: a buffer of role "output"; or the number of the program's input that it is; or a constant: an
            array, of which each answer is a copy, or a NumPy scalar.
        shape: its shape.
        dtype: its NumPy dtype.
        weak: whether the constant is a Python number, given as an array.
    """

    source: Buffer | int | np.ndarray[Any, Any] | np.generic
    shape: tuple[Index, ...]
    dtype: np.dtype[Any]
    weak: bool = False


@dataclass(frozen=True, slots=True)
class Lowered:
    """A lowered program.

    Attributes:
        module: its loop nests.
        inputs: the buffer of each input of the program, of role "input", or "output" where it is overwritten; an input
            that nothing reads has one too, which is not among the buffers of the module.
        constants: buffers of role "constant", each with the array that it holds, which is contiguous.
        outputs: where each answer is found.
        lifetimes: for each buffer of role "scratch", the numbers of the first and the last statement of the module's
            body in which it is in use; two that are never in use in one statement may share memory.
        sizes: for each size of the module, the input and the axis of it where it is found.
        work: about how many scalar operations it takes, where the module has no body that says so.
    """

    module: Module
    inputs: tuple[Buffer, ...]
    constants: tuple[tuple[Buffer, np.ndarray[Any, Any]], ...]
    outputs: tuple[Output, ...]
    lifetimes: dict[Buffer, tuple[int, int]]
    sizes: tuple[tuple[Size, int, int], ...]
    work: Index | None = None


def constant_output(atom: Literal, shape: tuple[Index, ...]) -> Output:
    """An answer that is a constant."""
    value = atom.value
    weak = not isinstance(value, (np.ndarray, np.generic))
    return Output(np.asarray(value) if weak else value, shape, atom.aval.dtype, weak)
