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
    fixed_from = _HEADER + len(rows)
    fixed = [i for i in range(len(layout.addresses)) if i not in given]
    rows += [number for i in fixed for number in (i, int(layout.addresses[i]), -1 if i in scratch else 0)]
    answers_from = _HEADER + len(rows)
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
        for name in _PYTHON:
            address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
            assert address is not None
            engine.add_symbol(f"fnflare_{name}", address)
        for name, place in (("PyArray_New", _NEW), ("PyArray_Scalar", _SCALAR), ("PyArray_NewCopy", _COPY)):
            engine.add_symbol(f"fnflare_{name}", int(api[place] or 0))
        self._code = code_of(_TEXT, counted=False)
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


# -- the function ----------------------------------------------------------------------------------

#: Functions of Python's C interface.
_PYTHON = (
    "PyObject_Vectorcall",
    "PyList_New",
    "PyList_SetItem",
    "PyList_Size",
    "PyList_GetItem",
    "PyList_SetSlice",
    "PyList_Append",
    "PyLong_AsLongLong",
    "PyErr_Occurred",
    "PyErr_Clear",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "Py_IncRef",
    "Py_DecRef",
)
#: How many numbers a table begins with.
_HEADER = 16

#: In an object its type is found 8 bytes from its beginning, the value of a number at 16; in an array the address of
#: its data at 16, the number of its axes at 24, the address of its shape at 32, its descriptor at 56, its flags at 64.
_TEXT = """
declare ptr @fnflare_PyObject_Vectorcall(ptr, ptr, i64, ptr)
declare ptr @fnflare_PyList_New(i64)
declare i32 @fnflare_PyList_SetItem(ptr, i64, ptr)
declare i64 @fnflare_PyList_Size(ptr)
declare ptr @fnflare_PyList_GetItem(ptr, i64)
declare i32 @fnflare_PyList_SetSlice(ptr, i64, i64, ptr)
declare i32 @fnflare_PyList_Append(ptr, ptr)
declare i64 @fnflare_PyLong_AsLongLong(ptr)
declare ptr @fnflare_PyErr_Occurred()
declare void @fnflare_PyErr_Clear()
declare ptr @fnflare_PyEval_SaveThread()
declare void @fnflare_PyEval_RestoreThread(ptr)
declare void @fnflare_Py_IncRef(ptr)
declare void @fnflare_Py_DecRef(ptr)
declare ptr @fnflare_PyArray_New(ptr, i32, ptr, i32, ptr, ptr, i32, i32, ptr)
declare ptr @fnflare_PyArray_Scalar(ptr, ptr, ptr)
declare ptr @fnflare_PyArray_NewCopy(ptr, i32)

define private i64 @word(ptr %table, i64 %n) alwaysinline {
  %at = getelementptr i64, ptr %table, i64 %n
  %value = load i64, ptr %at
  ret i64 %value
}

define private ptr @pointer(ptr %table, i64 %n) alwaysinline {
  %at = getelementptr ptr, ptr %table, i64 %n
  %value = load ptr, ptr %at
  ret ptr %value
}

define private i32 @give(ptr %pool, ptr %block) {
  %any = icmp ne ptr %block, null
  br i1 %any, label %append, label %end
append:
  %error = call i32 @fnflare_PyList_Append(ptr %pool, ptr %block)
  call void @fnflare_Py_DecRef(ptr %block)
  ret i32 %error
end:
  ret i32 0
}

; whether an array has a shape
define private i1 @shaped(ptr %x, i64 %axes, ptr %shape) {
  %axes.at = getelementptr i8, ptr %x, i64 24
  %axes.there = load i32, ptr %axes.at
  %axes.wide = sext i32 %axes.there to i64
  %as.many = icmp eq i64 %axes.wide, %axes
  br i1 %as.many, label %lengths, label %no
lengths:
  %there = call ptr @pointer(ptr %x, i64 4)
  br label %head
head:
  %i = phi i64 [0, %lengths], [%next, %tail]
  %more = icmp slt i64 %i, %axes
  br i1 %more, label %body, label %yes
body:
  %a = call i64 @word(ptr %there, i64 %i)
  %b = call i64 @word(ptr %shape, i64 %i)
  %same = icmp eq i64 %a, %b
  br i1 %same, label %tail, label %no
tail:
  %next = add i64 %i, 1
  br label %head
yes:
  ret i1 true
no:
  ret i1 false
}

; whether each donated argument lies apart from all others
define private i1 @apart(ptr %table, ptr %buffers, i64 %inputs) {
entry:
  br label %head
head:
  %i = phi i64 [0, %entry], [%i.next, %tail]
  %more = icmp slt i64 %i, %inputs
  br i1 %more, label %body, label %yes
body:
  %i9 = mul i64 %i, 9
  %i.number = add i64 %i9, 16
  %i.row = getelementptr i64, ptr %table, i64 %i.number
  %flags = call i64 @word(ptr %i.row, i64 5)
  %own = and i64 %flags, 4
  %donated = icmp ne i64 %own, 0
  br i1 %donated, label %others, label %tail
others:
  %i.place = call i64 @word(ptr %i.row, i64 0)
  %i.size = call i64 @word(ptr %i.row, i64 8)
  %i.begin = call i64 @word(ptr %buffers, i64 %i.place)
  %i.end = add i64 %i.begin, %i.size
  br label %other.head
other.head:
  %j = phi i64 [0, %others], [%j.next, %other.tail]
  %j.more = icmp slt i64 %j, %inputs
  br i1 %j.more, label %other, label %tail
other:
  %itself = icmp eq i64 %i, %j
  br i1 %itself, label %other.tail, label %compare
compare:
  %j9 = mul i64 %j, 9
  %j.number = add i64 %j9, 16
  %j.row = getelementptr i64, ptr %table, i64 %j.number
  %j.place = call i64 @word(ptr %j.row, i64 0)
  %j.size = call i64 @word(ptr %j.row, i64 8)
  %j.begin = call i64 @word(ptr %buffers, i64 %j.place)
  %j.end = add i64 %j.begin, %j.size
  %before = icmp ule i64 %i.end, %j.begin
  %behind = icmp ule i64 %j.end, %i.begin
  %apart = or i1 %before, %behind
  br i1 %apart, label %other.tail, label %no
other.tail:
  %j.next = add i64 %j, 1
  br label %other.head
tail:
  %i.next = add i64 %i, 1
  br label %head
yes:
  ret i1 true
no:
  ret i1 false
}

define ptr @fnflare_call(ptr %self, ptr %args, i64 %nargs) {
entry:
  %table = call ptr @pointer(ptr %self, i64 2)
  %main = call ptr @pointer(ptr %table, i64 0)
  %fallback = call ptr @pointer(ptr %table, i64 1)
  %array.type = call ptr @pointer(ptr %table, i64 2)
  %inputs = call i64 @word(ptr %table, i64 3)
  %outputs = call i64 @word(ptr %table, i64 4)
  %count = call i64 @word(ptr %table, i64 5)
  %fixed = call i64 @word(ptr %table, i64 6)
  %pool = call ptr @pointer(ptr %table, i64 7)
  %need = call i64 @word(ptr %table, i64 8)
  %release = call i64 @word(ptr %table, i64 9)
  %sizes = call ptr @pointer(ptr %table, i64 10)
  %none = call ptr @pointer(ptr %table, i64 11)
  %true = call ptr @pointer(ptr %table, i64 12)
  %fixed.from = call i64 @word(ptr %table, i64 13)
  %outputs.from = call i64 @word(ptr %table, i64 14)
  %donates = call i64 @word(ptr %table, i64 15)
  %right = icmp eq i64 %nargs, %inputs
  br i1 %right, label %room, label %else

room:
  %buffers = alloca ptr, i64 %count, align 16
  %numbers = alloca i64, i64 %inputs, align 16
  %scalars = alloca i64, i64 %outputs, align 16
  br label %inputs.head

; -- where the arguments lie
inputs.head:
  %i = phi i64 [0, %room], [%i.next, %inputs.tail]
  %more = icmp slt i64 %i, %inputs
  br i1 %more, label %input, label %inputs.end
input:
  %i9 = mul i64 %i, 9
  %row.number = add i64 %i9, 16
  %row = getelementptr i64, ptr %table, i64 %row.number
  %place = call i64 @word(ptr %row, i64 0)
  %unread = icmp slt i64 %place, 0
  br i1 %unread, label %inputs.tail, label %read
read:
  %x = call ptr @pointer(ptr %args, i64 %i)
  %type = call ptr @pointer(ptr %x, i64 1)
  %x.value = getelementptr i8, ptr %x, i64 16
  %is.array = icmp eq ptr %type, %array.type
  br i1 %is.array, label %array, label %scalar
array:
  %descriptor = call ptr @pointer(ptr %x, i64 7)
  %expected = call ptr @pointer(ptr %row, i64 1)
  %same.dtype = icmp eq ptr %descriptor, %expected
  %flags.at = getelementptr i8, ptr %x, i64 64
  %flags = load i32, ptr %flags.at
  %flags.wide = zext i32 %flags to i64
  %needed = call i64 @word(ptr %row, i64 5)
  %found.flags = and i64 %flags.wide, %needed
  %plain = icmp eq i64 %found.flags, %needed
  %fits = and i1 %same.dtype, %plain
  br i1 %fits, label %array.shape, label %else
array.shape:
  %axes.wanted = call i64 @word(ptr %row, i64 6)
  %any.shape = icmp slt i64 %axes.wanted, 0
  br i1 %any.shape, label %array.data, label %array.lengths
array.lengths:
  %shape.wanted = call ptr @pointer(ptr %row, i64 7)
  %is.shaped = call i1 @shaped(ptr %x, i64 %axes.wanted, ptr %shape.wanted)
  br i1 %is.shaped, label %array.data, label %else
array.data:
  %data = load ptr, ptr %x.value
  br label %input.done
scalar:
  %scalar.type = call ptr @pointer(ptr %row, i64 2)
  %is.scalar = icmp eq ptr %type, %scalar.type
  br i1 %is.scalar, label %input.done, label %number
number:
  %number.type = call ptr @pointer(ptr %row, i64 3)
  %is.number = icmp eq ptr %type, %number.type
  br i1 %is.number, label %convert, label %else
convert:
  %how = call i64 @word(ptr %row, i64 4)
  %here = getelementptr i64, ptr %numbers, i64 %i
  switch i64 %how, label %input.done [i64 1, label %integer i64 2, label %truth]
integer:
  %long = call i64 @fnflare_PyLong_AsLongLong(ptr %x)
  store i64 %long, ptr %here
  %odd = icmp eq i64 %long, -1
  br i1 %odd, label %integer.check, label %input.done
integer.check:
  %error = call ptr @fnflare_PyErr_Occurred()
  %fine = icmp eq ptr %error, null
  br i1 %fine, label %input.done, label %too.large
too.large:
  call void @fnflare_PyErr_Clear()
  br label %else
truth:
  %is.true = icmp eq ptr %x, %true
  %byte = zext i1 %is.true to i8
  store i8 %byte, ptr %here
  br label %input.done
input.done:
  %from = phi ptr [%data, %array.data], [%x.value, %scalar], [%x.value, %convert], [%here, %integer],
    [%here, %integer.check], [%here, %truth]
  %to = getelementptr ptr, ptr %buffers, i64 %place
  store ptr %from, ptr %to
  br label %inputs.tail
inputs.tail:
  %i.next = add i64 %i, 1
  br label %inputs.head

inputs.end:
  %any.donated = icmp ne i64 %donates, 0
  br i1 %any.donated, label %donated, label %scratch
donated:
  %are.apart = call i1 @apart(ptr %table, ptr %buffers, i64 %inputs)
  br i1 %are.apart, label %scratch, label %else

; -- scratch memory: the block that was given back last, if it is large enough
scratch:
  %any.scratch = icmp ne i64 %need, 0
  br i1 %any.scratch, label %look, label %fix
look:
  %free = call i64 @fnflare_PyList_Size(ptr %pool)
  %some = icmp sgt i64 %free, 0
  br i1 %some, label %measure, label %else
measure:
  %last = sub i64 %free, 1
  %last.block = call ptr @fnflare_PyList_GetItem(ptr %pool, i64 %last)
  %lengths = call ptr @pointer(ptr %last.block, i64 4)
  %length = load i64, ptr %lengths
  %enough = icmp uge i64 %length, %need
  br i1 %enough, label %take, label %else
take:
  call void @fnflare_Py_IncRef(ptr %last.block)
  %last.base = call ptr @pointer(ptr %last.block, i64 2)
  %not.taken = call i32 @fnflare_PyList_SetSlice(ptr %pool, i64 %last, i64 %free, ptr null)
  %taken = icmp eq i32 %not.taken, 0
  br i1 %taken, label %fix, label %failed.first
failed.first:
  call void @fnflare_Py_DecRef(ptr %last.block)
  ret ptr null
fix:
  %block = phi ptr [null, %scratch], [%last.block, %take]
  %base = phi ptr [null, %scratch], [%last.base, %take]
  %base.number = ptrtoint ptr %base to i64
  br label %fixed.head
fixed.head:
  %j = phi i64 [0, %fix], [%j.next, %fixed.body]
  %j.more = icmp slt i64 %j, %fixed
  br i1 %j.more, label %fixed.body, label %list.new
fixed.body:
  %j3 = mul i64 %j, 3
  %j.number = add i64 %j3, %fixed.from
  %j.row = getelementptr i64, ptr %table, i64 %j.number
  %j.place = call i64 @word(ptr %j.row, i64 0)
  %j.value = call i64 @word(ptr %j.row, i64 1)
  %j.mask = call i64 @word(ptr %j.row, i64 2)
  %j.base = and i64 %base.number, %j.mask
  %j.address = add i64 %j.value, %j.base
  %j.to = getelementptr i64, ptr %buffers, i64 %j.place
  store i64 %j.address, ptr %j.to
  %j.next = add i64 %j, 1
  br label %fixed.head

; -- the answers; each is in the list before any other thread can see it
list.new:
  %list = call ptr @fnflare_PyList_New(i64 %outputs)
  %list.there = icmp ne ptr %list, null
  br i1 %list.there, label %outputs.head, label %failed.early
failed.early:
  %early = call i32 @give(ptr %pool, ptr %block)
  ret ptr null
outputs.head:
  %k = phi i64 [0, %list.new], [%k.next, %keep]
  %k.more = icmp slt i64 %k, %outputs
  br i1 %k.more, label %output, label %run
output:
  %k6 = mul i64 %k, 6
  %k.number = add i64 %k6, %outputs.from
  %k.row = getelementptr i64, ptr %table, i64 %k.number
  %kind = call i64 @word(ptr %k.row, i64 0)
  %which = call i64 @word(ptr %k.row, i64 1)
  switch i64 %kind, label %make [i64 1, label %later i64 2, label %pass i64 3, label %object i64 4, label %copy
    i64 5, label %repeat]
make:
  %number64 = call i64 @word(ptr %k.row, i64 2)
  %type.number = trunc i64 %number64 to i32
  %axes64 = call i64 @word(ptr %k.row, i64 3)
  %axes = trunc i64 %axes64 to i32
  %shape = call ptr @pointer(ptr %k.row, i64 4)
  %new = call ptr @fnflare_PyArray_New(ptr %array.type, i32 %axes, ptr %shape, i32 %type.number, ptr null, ptr null,
    i32 0, i32 0, ptr null)
  %new.there = icmp ne ptr %new, null
  br i1 %new.there, label %made, label %failed
made:
  %new.data = call ptr @pointer(ptr %new, i64 2)
  %new.to = getelementptr ptr, ptr %buffers, i64 %which
  store ptr %new.data, ptr %new.to
  br label %keep
later:
  %later.at = getelementptr i64, ptr %scalars, i64 %k
  %later.to = getelementptr ptr, ptr %buffers, i64 %which
  store ptr %later.at, ptr %later.to
  call void @fnflare_Py_IncRef(ptr %none)
  br label %keep
pass:
  %passed = call ptr @pointer(ptr %args, i64 %which)
  call void @fnflare_Py_IncRef(ptr %passed)
  br label %keep
object:
  %same.object = call ptr @pointer(ptr %k.row, i64 5)
  call void @fnflare_Py_IncRef(ptr %same.object)
  br label %keep
copy:
  %original = call ptr @pointer(ptr %k.row, i64 5)
  %copied = call ptr @fnflare_PyArray_NewCopy(ptr %original, i32 0)
  %copied.there = icmp ne ptr %copied, null
  br i1 %copied.there, label %keep, label %failed
repeat:  ; when the first one is there
  call void @fnflare_Py_IncRef(ptr %none)
  br label %keep
keep:
  %item = phi ptr [%new, %made], [%none, %later], [%passed, %pass], [%same.object, %object], [%copied, %copy],
    [%none, %repeat]
  %ok = call i32 @fnflare_PyList_SetItem(ptr %list, i64 %k, ptr %item)
  %k.next = add i64 %k, 1
  br label %outputs.head

run:
  %let.go = icmp ne i64 %release, 0
  br i1 %let.go, label %run.free, label %run.held
run.free:
  %thread = call ptr @fnflare_PyEval_SaveThread()
  call void %main(ptr %buffers, ptr %sizes)
  call void @fnflare_PyEval_RestoreThread(ptr %thread)
  br label %ran
run.held:
  call void %main(ptr %buffers, ptr %sizes)
  br label %ran
ran:
  %given = call i32 @give(ptr %pool, ptr %block)
  %lost = icmp ne i32 %given, 0
  br i1 %lost, label %forget, label %scalars.head
forget:  ; the next call makes another one
  call void @fnflare_PyErr_Clear()
  br label %scalars.head

; -- answers without axes, and those that are there already
scalars.head:
  %n = phi i64 [0, %ran], [0, %forget], [%n.next, %scalars.tail]
  %n.more = icmp slt i64 %n, %outputs
  br i1 %n.more, label %scalars.body, label %end
scalars.body:
  %n6 = mul i64 %n, 6
  %n.number = add i64 %n6, %outputs.from
  %n.row = getelementptr i64, ptr %table, i64 %n.number
  %n.kind = call i64 @word(ptr %n.row, i64 0)
  switch i64 %n.kind, label %scalars.tail [i64 1, label %wrap i64 5, label %again]
again:
  %n.first = call i64 @word(ptr %n.row, i64 1)
  %first = call ptr @fnflare_PyList_GetItem(ptr %list, i64 %n.first)
  %first.type = call ptr @pointer(ptr %first, i64 1)
  %first.is.array = icmp eq ptr %first.type, %array.type
  br i1 %first.is.array, label %again.array, label %again.number
again.array:
  %another = call ptr @fnflare_PyArray_NewCopy(ptr %first, i32 0)
  %another.there = icmp ne ptr %another, null
  br i1 %another.there, label %again.keep, label %failed.late
again.number:
  call void @fnflare_Py_IncRef(ptr %first)
  br label %again.keep
again.keep:
  %repeated = phi ptr [%another, %again.array], [%first, %again.number]
  %again.ok = call i32 @fnflare_PyList_SetItem(ptr %list, i64 %n, ptr %repeated)
  br label %scalars.tail
wrap:
  %n.descriptor = call ptr @pointer(ptr %n.row, i64 5)
  %n.at = getelementptr i64, ptr %scalars, i64 %n
  %wrapped = call ptr @fnflare_PyArray_Scalar(ptr %n.at, ptr %n.descriptor, ptr null)
  %wrapped.there = icmp ne ptr %wrapped, null
  br i1 %wrapped.there, label %replace, label %failed.late
replace:
  %n.ok = call i32 @fnflare_PyList_SetItem(ptr %list, i64 %n, ptr %wrapped)
  br label %scalars.tail
scalars.tail:
  %n.next = add i64 %n, 1
  br label %scalars.head
end:
  ret ptr %list

failed:
  %late = call i32 @give(ptr %pool, ptr %block)
  br label %failed.late
failed.late:
  call void @fnflare_Py_DecRef(ptr %list)
  ret ptr null

else:
  %answer = call ptr @fnflare_PyObject_Vectorcall(ptr %fallback, ptr %args, i64 %nargs, ptr null)
  ret ptr %answer
}
"""
