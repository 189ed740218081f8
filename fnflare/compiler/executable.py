"""Compiled programs that can be called.

A lowered program and its code in memory go in; a function of flat plain arguments comes out, which lays out scratch
memory, makes the arrays of the answers, and hands all their addresses to the code. What it returns is what the
interpreter returns: arrays of the caller's own, NumPy scalars where there are no axes, arguments as they are.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, NamedTuple

import numpy as np

from fnflare.compiler import fastcall
from fnflare.compiler.arena import pool
from fnflare.compiler.layout import Layouts, is_tiny, keep_newest
from fnflare.compiler.llvm.engine import Code
from fnflare.compiler.lowered import Lowered
from fnflare.core import ShapeDtypeStruct
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
        kind: "make" an array that the code fills; "pass" an argument on; the same "object" in each call; a "copy" of a
            constant; "again" what an earlier answer is, as an array of its own.
        which: the number of the buffer, the argument or the earlier answer; the object or the constant itself.
        dtype: of the answer.
    """

    kind: Literal["make", "pass", "object", "copy", "again"]
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
        self.call: Callable[..., list[Any]] = _shorter(self._plain) if fastcall.available() else self._plain

    def __call__(self, *args: Any) -> list[Any]:
        """The answers, in a list.

        Raises:
            TypeError: there are more or fewer arguments than the program has inputs.
        """
        return self.call(*args)

    def checked(
        self, avals: Sequence[ShapeDtypeStruct], overwritten: AbstractSet[int] = frozenset()
    ) -> Callable[..., list[Any] | None] | None:
        """The same function for arguments of which it is not known what they are.

        Args:
            avals: what they should be.
            overwritten: the numbers of those whose memory the code writes into, which may then be that of no other.

        Returns:
            A function that returns None, and has done nothing, where the arguments are not as `avals` say, lie in
            memory in an unusual way, or are otherwise not to its liking. None in place of it with another Python.
        """
        if not fastcall.available():
            return None
        sizes = tuple([avals[i].shape[axis] for _, i, axis in self.lowered.sizes])
        return _fast(self._plain, sizes, avals, overwritten)

    def peak_bytes(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """The memory that a call needs beside its arguments and constants: scratch memory and the answers.

        Args:
            shapes: of the arguments.
        """
        found = self._plain.layouts.find(tuple([shapes[i][axis] for _, i, axis in self.lowered.sizes]))
        made = zip(self._plain.actions, found.shapes, strict=True)
        return found.total + sum(
            [int(np.prod(s)) * a.dtype.itemsize for a, s in made if a.kind not in ("pass", "object")]
        )


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
            out[n] = _answer(action, out, args, out[n])
        return out


def _fast(
    plain: _Plain,
    sizes: tuple[int, ...],
    avals: Sequence[ShapeDtypeStruct] | None = None,
    overwritten: AbstractSet[int] = frozenset(),
) -> Callable[..., list[Any]]:
    """A program for certain sizes by the shortest way that there is; with avals one that checks its arguments."""
    lowered, found = plain.lowered, plain.layouts.find(sizes)
    arguments = [fastcall.Argument(plain.places.get(b), DTYPES[b.dtype]) for b in lowered.inputs]
    if avals is not None:
        arguments = [
            a._replace(shape=aval.shape, weak=aval.weak, dtype=aval.dtype, donated=i in overwritten)
            for i, (a, aval) in enumerate(zip(arguments, avals, strict=True))
        ]
    return fastcall.function(
        plain.entry,
        arguments,
        [fastcall.Answer(*action, shape) for action, shape in zip(plain.actions, found.shapes, strict=True)],
        found,
        pool,
        plain if avals is None else functools.partial(_no_answer, plain),
        release=not is_tiny(lowered, sizes),
    )


def _no_answer(_kept: _Plain, *_args: Any) -> None:
    """What a function that checks its arguments does where they are not as they should be."""


def _shorter(plain: _Plain) -> Callable[..., list[Any]]:
    """A program for any sizes, which goes by the arguments' shapes to a function for theirs.

    The first such function of a process takes a compiler, for a twentieth of a second unless its code is found on disk.
    Until there is one, that is left to the second call with the same sizes: many programs are called once.
    """
    functions: dict[tuple[int, ...], Callable[..., list[Any]]] = {}
    where = [(i, axis) for _, i, axis in plain.lowered.sizes]

    def call(*args: Any) -> list[Any]:
        if len(args) != len(plain.lowered.inputs):
            return plain(*args)
        sizes = tuple([args[i].shape[axis] for i, axis in where])
        function = functions.get(sizes)
        if function is None or function is plain:
            later = function is None and not fastcall.is_ready()
            functions[sizes] = function = plain if later else _fast(plain, sizes)
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
        if isinstance(source, (Buffer, int)):
            first = seen.setdefault(source, n)
            if first != n and (o.shape or isinstance(source, Buffer)):
                out.append(Action("again", first, o.dtype))
            elif isinstance(source, Buffer):
                out.append(Action("make", places[source], o.dtype))
            else:
                out.append(Action("pass", source, o.dtype))
        elif o.weak:
            out.append(Action("object", source.item(), o.dtype))
        else:
            out.append(Action("copy" if isinstance(source, np.ndarray) else "object", source, o.dtype))
    return out


def _answer(action: Action, out: list[Any], args: tuple[Any, ...], made: Any) -> Any:
    """An answer, when the code has run."""
    kind, which, _ = action
    if kind == "make":
        return made if made.ndim else made[()]
    if kind == "pass":
        return args[which]
    if kind == "again":
        return np.array(out[which]) if np.ndim(out[which]) else out[which]
    return which if kind == "object" else np.array(which)


def _plain(x: Any, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """An argument as an array whose elements lie one after the other, itself where it is one."""
    if type(x) is np.ndarray and x.flags.num & _PLAIN == _PLAIN and x.dtype == dtype:
        return x
    return np.require(x, dtype, ("C_CONTIGUOUS", "ALIGNED"))


def _address(x: np.ndarray[Any, Any]) -> int:
    return x.__array_interface__["data"][0]
