"""Staging: the program of a function for arguments of given shapes and dtypes, made once.

A function and the abstract values of its arguments go in; a program comes out whose first inputs are the
arrays of the function's closure, and those arrays. Control flow and `checkpoint` stage their bodies here.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.core import ShapeDtypeStruct, Tracer, aval_of
from fnflare.ops import convert
from fnflare.program.closures import Closure
from fnflare.program.ir import Program, Var
from fnflare.program.simplify import simplify
from fnflare.program.tracing import evaluate, trace_program

__all__ = ["Staged", "as_dtype", "converted", "stage"]

#: How many programs are kept; the ones unused for longest go first.
_MOST_PROGRAMS = 512


class Staged(NamedTuple):
    """The program of a function.

    Attributes:
        program: its inputs are those of `consts`, then the arguments.
        consts: arrays and tracers that the function closes over, and reads.
        structure: of what the function returns.
    """

    program: Program
    consts: list[Any]
    structure: tree.TreeDef


class _Key:
    """A key that works out its hash once."""

    __slots__ = ("_hash", "_parts")

    def __init__(self, parts: Hashable) -> None:
        self._parts = parts
        self._hash = hash(parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._parts == other._parts

    def __hash__(self) -> int:
        return self._hash


class _Cache:
    """Programs by key, least recently used first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[_Key, tuple[_Key, Any]] = OrderedDict()

    def get(self, key: _Key) -> Any:
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                return None
            # By the very key that is there: to compare long keys takes a while, and this is done in every call.
            self._entries.move_to_end(found[0])
            return found[1]

    def put(self, key: _Key, entry: Any) -> None:
        with self._lock:
            self._entries[key] = key, entry
            while len(self._entries) > _MOST_PROGRAMS:
                self._entries.popitem(last=False)


_cache = _Cache()

#: Stands for a function that cannot be traced with its closure's arrays as arguments.
_CONSTANT_CLOSURE = "constant closure"


def stage(
    fun: Callable[..., Any], structure: tree.TreeDef, avals: Sequence[ShapeDtypeStruct], name: str = ""
) -> Staged:
    """The program of ``fun(*args)``.

    Args:
        fun: a function of pytrees of arrays; its closure may hold arrays, and tracers of open traces.
        structure: the structure of the tuple of its arguments.
        avals: the abstract values of their leaves.
        name: for printing.

    Returns:
        The program. It is the same object for another function with the same code, with equal constants in its
        closure, and with arrays of the same shapes and dtypes there.
    """
    closure = Closure(fun)
    key = _Key((closure.key, structure, tuple(avals)))
    entry = _cache.get(key) if closure.key is not None else _CONSTANT_CLOSURE
    if isinstance(entry, tuple):
        program, out_structure, read = entry
        return Staged(program, [closure.values[i] for i in read], out_structure)
    if entry is None:
        try:
            staged, read = _trace(fun, closure, structure, avals, name)
        except Exception:
            # The function may look at the values of its closure's arrays, which it may: tried again with them as
            # constants. If the cause is another one, that run says so.
            _cache.put(key, _CONSTANT_CLOSURE)
        else:
            if read is not None:
                _cache.put(key, (staged.program, staged.structure, read))
            return staged
    return _trace(fun, None, structure, avals, name)[0]


def _trace(
    fun: Any, closure: Closure | None, structure: Any, avals: Sequence[Any], name: str
) -> tuple[Staged, tuple[int, ...] | None]:
    """The program, with those of its constants that it reads: their numbers among the closure's values, or None
    where there are others."""
    values = closure.values if closure is not None else []
    out_structure: Any = None

    def flat(*xs: Any) -> list[Any]:
        nonlocal out_structure
        called = closure.filled(xs[: len(values)]) if closure is not None else fun
        out, out_structure = tree.flatten(called(*tree.unflatten(structure, list(xs[len(values) :]))))
        return [_leaf(x) for x in out]

    traced = trace_program(flat, [*map(aval_of, values), *avals], name, fun)
    program = simplify(traced.program)
    consts = [*traced.captured, *values]
    used = {a for e in program.equations for a in e.inputs if type(a) is Var} | set(program.outputs)
    read = tuple([i for i in range(len(consts)) if program.inputs[i] in used])
    program = program.replace(inputs=[*[program.inputs[i] for i in read], *program.inputs[len(consts) :]])
    return Staged(program, [consts[i] for i in read], out_structure), None if traced.captured else read


def _leaf(x: Any) -> Any:
    """An output as an array; Python numbers stay weak."""
    return x if isinstance(x, (np.ndarray, Tracer, np.generic, float, int, complex)) else np.asarray(x)


def converted(program: Program, dtypes: Sequence[Any]) -> Program:
    """A program whose first outputs have the given dtypes, and whose outputs are no weak numbers."""
    avals = program.out_avals
    wanted = (*dtypes, *[a.dtype for a in avals[len(dtypes) :]])
    if all(a.dtype == d and not a.weak for a, d in zip(avals, wanted, strict=True)):
        return program

    def make() -> Program:
        def run(*xs: Any) -> list[Any]:
            return [as_dtype(x, d) for x, d in zip(evaluate(program, xs), wanted, strict=True)]

        return trace_program(run, program.in_avals, program.name).program

    return program.derived(("converted", wanted), make)


def as_dtype(x: Any, dtype: Any) -> Any:
    """A number, array or tracer as an array of a dtype, weak no more."""
    return convert(x, dtype) if isinstance(x, Tracer) else np.asarray(x, dtype)[()]
