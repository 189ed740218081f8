"""Compiled programs that can be called.

A lowered program and its code in memory go in; a function of flat plain arguments comes out, which lays out scratch
memory, makes the arrays of the answers, and hands all their addresses to the code. What it returns is what the
interpreter returns: arrays of the caller's own, NumPy scalars where there are no axes, arguments as they are.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fnflare.compiler import fastcall
from fnflare.compiler.arena import pool
from fnflare.compiler.layout import Layouts, is_tiny, keep_newest
from fnflare.compiler.llvm.engine import Code
from fnflare.compiler.lowered import Lowered
from fnflare.nest import DTYPES, Buffer

__all__ = ["ENTRY", "Action", "Executable", "actions"]

#: The function of a compiled module that runs its body.
ENTRY = "main"
#: C-contiguous and aligned, as NumPy numbers its flags.
_PLAIN = 0x0001 | 0x0100

_Entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)  # the GIL is released while one runs


class Action(NamedTuple):
    """What is to be done for an answer.

    Attributes:
        kind: "make" an array that the code fills; "pass" an argument on; "copy" an argument, as `again` an answer that
            was made already, or a constant; a Python "number".
        which: the number of the buffer, the argument or the earlier answer; the constant itself.
        dtype: of the answer.
    """

    kind: Literal["make", "pass", "copy", "again", "constant", "number"]
    which: Any
    dtype: np.dtype[Any]


class Executable:
    """A compiled program, a function of its flat arguments.

    Arguments are arrays, NumPy scalars and Python numbers of the shapes and dtypes that the program was made for, which
    is not looked at again. Any number of threads may call at once.

    Args:
        lowered: the program.
        code: its code, with a function `ENTRY`.

    Attributes:
        lowered: the program.
        call: the same function of the arguments, by a shorter way.
    """

    def __init__(self, lowered: Lowered, code: Code) -> None:
        self.lowered = lowered
        self._plain = _Plain(lowered, code)
        self.call: Callable[..., list[Any]] = self._plain
        if fastcall.available() and all(a.kind in ("make", "pass") for a in self._plain.actions):
            self.call = _by_sizes(self._plain) if lowered.sizes else _fast(self._plain, ())

    def __call__(self, *args: Any) -> list[Any]:
        """The answers, in a list.

        Raises:
            TypeError: there are more or fewer arguments than the program has inputs.
        """
        return self.call(*args)

    def peak_bytes(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """The memory that a call needs beside its arguments and constants: scratch memory and the answers.

        Args:
            shapes: of the arguments.
        """
        found = self._plain.layouts.find(tuple([shapes[i][axis] for _, i, axis in self.lowered.sizes]))
        made = zip(self._plain.actions, found.shapes, strict=True)
        return found.total + sum([int(np.prod(s)) * a.dtype.itemsize for a, s in made if a.kind != "pass"])


class _Plain:
    """A compiled program as a function in Python, which takes whatever NumPy can make an array of."""

    def __init__(self, lowered: Lowered, code: Code) -> None:
        self.lowered = lowered
        self.code = code  # stays in memory as long as it may run
        self.entry = code.address(ENTRY)
        self._run = _Entry(self.entry)
        self.places = {b: i for i, b in enumerate(lowered.module.buffers)}
        self._inputs = [(i, self.places[b], DTYPES[b.dtype]) for i, b in enumerate(lowered.inputs) if b in self.places]
        self.actions = actions(lowered, self.places)
        self.layouts = Layouts(lowered)

    def __call__(self, *args: Any) -> list[Any]:
        lowered = self.lowered
        if len(args) != len(lowered.inputs):
            raise TypeError(f"{lowered.module.name}: {len(lowered.inputs)} arguments are needed, got {len(args)}")
        found = self.layouts.find(tuple([args[i].shape[axis] for _, i, axis in lowered.sizes]))
        addresses = found.addresses.copy()
        kept = []
        for i, place, dtype in self._inputs:
            x = _plain(args[i], dtype)
            kept.append(x)  # a copy has to live until the code has run
            addresses[place] = _address(x)
        out: list[Any] = []
        for (kind, which, dtype), shape in zip(self.actions, found.shapes, strict=True):
            out.append(np.empty(shape, dtype) if kind == "make" else None)
            if kind == "make":
                addresses[which] = _address(out[-1])
        block = pool.take(found.total) if found.total else None
        if block is not None:
            addresses[found.scratch] += np.uintp(_address(block))
        self._run(_address(addresses), _address(found.sizes))
        if block is not None:
            pool.give(block)
        for n, action in enumerate(self.actions):
            out[n] = _answer(action, out, n, args)
        return out


def _fast(plain: _Plain, sizes: tuple[int, ...]) -> Callable[..., list[Any]]:
    """A program for certain sizes by the shortest way that there is."""
    lowered, found = plain.lowered, plain.layouts.find(sizes)
    return fastcall.function(
        plain.entry,
        [fastcall.Argument(plain.places.get(b), DTYPES[b.dtype]) for b in lowered.inputs],
        [
            fastcall.Answer("make" if a.kind == "make" else "pass", a.which, a.dtype, shape)
            for a, shape in zip(plain.actions, found.shapes, strict=True)
        ],
        found,
        pool,
        plain,
        release=not is_tiny(lowered, sizes),
    )


def _by_sizes(plain: _Plain) -> Callable[..., list[Any]]:
    """A program for any sizes, which goes by the arguments' shapes to a function for theirs."""
    functions: dict[tuple[int, ...], Callable[..., list[Any]]] = {}
    where = [(i, axis) for _, i, axis in plain.lowered.sizes]

    def call(*args: Any) -> list[Any]:
        if len(args) != len(plain.lowered.inputs):
            return plain(*args)
        sizes = tuple([args[i].shape[axis] for i, axis in where])
        function = functions.get(sizes)
        if function is None:
            function = functions[sizes] = _fast(plain, sizes)
            keep_newest(functions)
        return function(*args)

    return call


def actions(lowered: Lowered, places: dict[Buffer, int]) -> list[Action]:
    """What is to be done for each answer.

    An answer that would be memory of the program's own, or another answer as well, is copied.
    """
    out: list[Action] = []
    seen: dict[Any, int] = {}
    for n, o in enumerate(lowered.outputs):
        source = o.source
        if isinstance(source, Buffer):
            first = seen.setdefault(source, n)
            out.append(Action("make", places[source], o.dtype) if first == n else Action("again", first, o.dtype))
        elif isinstance(source, int):
            again = seen.setdefault(source, n) != n
            out.append(Action("copy" if again and o.shape else "pass", source, o.dtype))
        else:
            out.append(Action("number" if o.weak else "constant", source.item() if o.weak else source, o.dtype))
    return out


def _answer(action: Action, out: list[Any], number: int, args: tuple[Any, ...]) -> Any:
    """An answer, when the code has run."""
    kind, which, _ = action
    if kind == "make":
        return out[number][()] if not out[number].ndim else out[number]
    if kind == "pass":
        return args[which]
    if kind == "number":
        return which
    if kind == "again":
        return np.array(out[which]) if np.ndim(out[which]) else out[which]
    x = args[which] if kind == "copy" else which
    return np.array(x) if np.ndim(x) else x[()]


def _plain(x: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An argument as an array whose elements lie one after the other, itself where it is one."""
    if type(x) is np.ndarray and x.flags.num & _PLAIN == _PLAIN and x.dtype == dtype:
        return x
    return np.require(x, dtype, ("C_CONTIGUOUS", "ALIGNED"))


def _address(x: np.ndarray[Any, Any]) -> int:
    return x.__array_interface__["data"][0]
