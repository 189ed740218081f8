"""Calls of compiled programs without Python in between: about a microsecond for a few small arrays.

What a call has to do is written down as a table of numbers, and one function, compiled once and for all programs, does
it: a built-in function of CPython that reads the addresses of its arguments out of the array objects, makes the
answers through NumPy's C interface, and runs the code. An argument that is not as it expects it sends the whole call
to the `fallback`, which can do everything. It may look at the shapes of its arguments too, and is then a test of
whether they have a certain signature that costs next to nothing.

It relies on how objects lie in memory, as the stable binary interfaces of CPython's and NumPy's extension modules have
it, and so is left out where there is another one (`available`). All it does besides running the code it does under the
GIL, which is also the lock of the pool of scratch memory.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import struct
import sys
import sysconfig
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from fnflare.compiler.arena import Pool
from fnflare.compiler.fastcall_text import HEADER, PYTHON, TEXT
from fnflare.compiler.layout import Layout
from fnflare.compiler.llvm import engine
from fnflare.compiler.object_code import code_of

__all__ = ["Answer", "Argument", "available", "function", "is_ready"]

#: The addresses of a call's buffers lie on the stack.
_MOST_BUFFERS = 4096
#: Python's own numbers that an argument of one element may be, and how each is read: as it lies in the object, as an
#: integer of any length, as a truth value.
_NUMBERS: dict[Any, tuple[type, int]] = {np.float64: (float, 0), np.int64: (int, 1), np.bool_: (bool, 2)}
#: Answers that are not made are numbered like this; one without axes that is made is 1.
_KINDS = {"make": 0, "pass": 2, "object": 3, "copy": 4, "again": 5}
#: The places of functions and types in NumPy's table, which never change.
_ARRAY_TYPE, _SCALAR, _COPY, _NEW = 2, 60, 85, 93
#: Flags of arrays as NumPy numbers them.
_CONTIGUOUS, _OWN, _ALIGNED, _WRITEABLE = 0x1, 0x4, 0x100, 0x400
_PLAIN = _CONTIGUOUS | _ALIGNED


class Argument(NamedTuple):
    """An argument.

    Attributes:
        buffer: the number of its buffer; None where the code does not read it.
        dtype: its dtype.
        shape: what its shape has to be; None where that is not looked at.
        weak: where its shape is looked at, whether it has to be a Python number.
        donated: whether the code writes into its memory, which then has to be its own and apart from that of all other
            arguments; a shape is given, then, for all arguments.
    """

    buffer: int | None
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None = None
    weak: bool = False
    donated: bool = False


class Answer(NamedTuple):
    """An answer.

    Attributes:
        kind: "make" an array, or a NumPy scalar, for the code to fill; "pass" an argument on; the same "object" in
            each call; a "copy" of that; "again" what an earlier answer is, as an array of its own.
        which: the number of the buffer, of the argument or of the earlier answer; the object.
        dtype, shape: of the answer.
    """

    kind: Literal["make", "pass", "object", "copy", "again"]
    which: Any
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class _Table(np.ndarray):
    """The numbers of a program, with what they point to."""

    kept: Any


@functools.cache
def available() -> bool:
    """Whether objects lie in memory as this file takes it: CPython with a GIL, on a 64-bit machine, no debug build."""
    return (
        sys.implementation.name == "cpython"
        and struct.calcsize("P") == 8
        and sys.byteorder == "little"
        and not sysconfig.get_config_var("Py_GIL_DISABLED")
        and not sysconfig.get_config_var("Py_TRACE_REFS")
        and not hasattr(sys, "gettotalrefcount")
        and engine.available()
        and _as_expected()
    )


def _as_expected() -> bool:
    """Whether a few objects are found to lie in memory so."""
    array = np.arange(6.0).reshape(2, 3)
    number = ctypes.c_double.from_address
    word = ctypes.c_uint64.from_address
    return (
        object.__basicsize__ == 16
        and float.__basicsize__ == np.float64.__basicsize__ == np.float32.__basicsize__ == 24
        and number(id(value := 1.25) + 16).value == value
        and number(id(scalar := np.float64(2.5)) + 16).value == scalar
        and word(id(array) + 8).value == id(np.ndarray)
        and word(id(array) + 16).value == _address(array)
        and ctypes.c_int64.from_address(word(id(array) + 32).value + 8).value == array.shape[1]
        and word(id(array) + 56).value == id(array.dtype)
        and ctypes.c_int.from_address(id(array) + 64).value == array.flags.num
    )


def function(
    entry: int,
    arguments: Sequence[Argument],
    answers: Sequence[Answer],
    layout: Layout,
    pool: Pool,
    fallback: Callable[..., Any],
    release: bool,
) -> Callable[..., Any]:
    """A program as a built-in function of its flat arguments.

    Args:
        entry: where its code begins.
        arguments, answers: what goes in and comes out.
        layout: where its other buffers lie.
        pool: where it takes its scratch memory from.
        fallback: is called in its place where this function cannot do it; it keeps the code and its constants alive.
        release: whether other Python threads may run meanwhile.

    Returns:
        The function; the fallback where there are more buffers than it can take.
    """
    if len(layout.addresses) > _MOST_BUFFERS:
        return fallback
    given = {a.buffer for a in arguments} | {a.which for a in answers if a.kind == "make"}
    scratch = set(layout.scratch.tolist())
    shapes = [np.array(a.shape, np.intp) for a in answers]
    wanted = [None if a.shape is None else np.array(a.shape, np.intp) for a in arguments]
    nowhere = len(layout.addresses)  # for the address of what is looked at though the code does not read it
    copied = {answers[a.which].which for a in answers if a.kind == "again" and answers[a.which].kind == "pass"}
    arguments = [a._replace(buffer=nowhere) if i in copied and a.buffer is None else a for i, a in enumerate(arguments)]
    rows = [number for a, shape in zip(arguments, wanted, strict=True) for number in _argument(a, shape, nowhere)]
    fixed_from = HEADER + len(rows)
    fixed = [i for i in range(len(layout.addresses)) if i not in given]
    rows += [number for i in fixed for number in (i, int(layout.addresses[i]), -1 if i in scratch else 0)]
    answers_from = HEADER + len(rows)
    rows += [number for a, shape in zip(answers, shapes, strict=True) for number in _answer(a, shape)]
    header = [
        *(entry, id(fallback), id(np.ndarray), len(arguments), len(answers), nowhere + 1, len(fixed)),
        *(id(pool.free), layout.total, int(release), _address(layout.sizes), id(None), id(True)),
        *(fixed_from, answers_from, int(any(a.donated for a in arguments))),
    ]
    table = np.array([*header, *rows], np.int64).view(_Table)
    table.kept = (fallback, arguments, answers, shapes, wanted, layout, pool)
    return _runtime().make(table)


def _argument(a: Argument, shape: np.ndarray[Any, Any] | None, nowhere: int) -> list[int]:
    number, how = _NUMBERS.get(a.dtype.type, (None, 0))
    descriptor, scalar, python = id(a.dtype), id(a.dtype.type), id(number)
    if shape is None:
        return [-1 if a.buffer is None else a.buffer, descriptor, scalar, python, how, _PLAIN, -1, 0, 0]
    if a.weak:
        descriptor = scalar = 0
    elif a.shape:
        scalar = python = 0
    elif a.dtype != np.bool_:  # Python's truth values are not weak
        python = 0
    flags = _PLAIN | (_OWN | _WRITEABLE if a.donated else 0)
    size = math.prod(a.shape or ()) * a.dtype.itemsize
    place = nowhere if a.buffer is None else a.buffer
    return [place, descriptor, scalar, python, how, flags, len(shape), _address(shape), size]


def _answer(a: Answer, shape: np.ndarray[Any, Any]) -> list[int]:
    if a.kind in ("object", "copy"):
        return [_KINDS[a.kind], 0, 0, 0, 0, id(a.which)]
    kind = 1 if a.kind == "make" and not a.shape else _KINDS[a.kind]
    return [kind, a.which, a.dtype.num, len(a.shape), _address(shape), id(a.dtype)]


def _address(x: np.ndarray[Any, Any]) -> int:
    return x.__array_interface__["data"][0]


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("ml_name", ctypes.c_char_p),
        ("ml_meth", ctypes.c_void_p),
        ("ml_flags", ctypes.c_int),
        ("ml_doc", ctypes.c_char_p),
    )


class _Runtime:
    """The function that all programs share, which stays as long as the process."""

    def __init__(self) -> None:
        capsule = ctypes.pythonapi.PyCapsule_GetPointer
        capsule.restype, capsule.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
        from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

        api = ctypes.cast(capsule(_multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
        if api[_ARRAY_TYPE] != id(np.ndarray):
            raise RuntimeError("this is not NumPy's table of functions")
        for name in PYTHON:
            address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
            assert address is not None
            engine.add_symbol(f"fnflare_{name}", address)
        for name, place in (("PyArray_New", _NEW), ("PyArray_Scalar", _SCALAR), ("PyArray_NewCopy", _COPY)):
            engine.add_symbol(f"fnflare_{name}", int(api[place] or 0))
        self._code = code_of(TEXT, counted=False)
        fastcall = 0x0080
        self._method = _MethodDef(b"program", self._code.address("fnflare_call"), fastcall, None)
        self._new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)(
            ("PyCFunction_NewEx", ctypes.pythonapi)
        )

    def make(self, table: _Table) -> Callable[..., list[Any]]:
        """The built-in function of a table."""
        return self._new(ctypes.addressof(self._method), table, None)


@functools.cache
def _only_runtime() -> _Runtime:
    return _Runtime()


_making = threading.RLock()
if hasattr(os, "register_at_fork"):
    # A child must not be born while another thread of its parent holds the lock.
    os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


def _runtime() -> _Runtime:
    # Two threads that come here first must not make two: the code of the one that is not kept would go away.
    with _making:
        return _only_runtime()


def is_ready() -> bool:
    """Whether a function takes no compiler any more."""
    return _only_runtime.cache_info().currsize > 0
