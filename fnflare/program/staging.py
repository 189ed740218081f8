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
from fnflare.program.ir import Program
from fnflare.program.simplify import simplify
from fnflare.program.tracing import evaluate, trace_program

__all__ = ["Staged", "as_dtype", "converted", "stage"]

#: How many programs are kept; the ones unused for longest go first.
_MOST_PROGRAMS = 512


class Staged(NamedTuple):
    """The program of a function.

    Attributes:
        program: its inputs are those of `consts`, then the arguments.
        consts: arrays and tracers that the function closes over.
        structure: of what the function returns.
    """

    program: Program
    consts: list[Any]
    structure: tree.TreeDef


class _Cache:
    """Programs by key, least recently used first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable) -> Any:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: Hashable, entry: Any) -> None:
        with self._lock:
            self._entries[key] = entry
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
        fun: a function of pytrees of arrays; its closure and the globals that it reads may hold arrays, and tracers of
            open traces.
        structure: the structure of the tuple of its arguments.
        avals: the abstract values of their leaves.
        name: for printing.

    Returns:
        The program. It is the same object for another function with the same code, with equal constants in its
        closure and its globals, and with arrays of the same shapes and dtypes there. A function that holds an object
        which may change unseen, as any `self` may, is traced in every call.
    """
    closure = Closure(fun)
    key = (closure.key, structure, tuple(avals))
    entry = _cache.get(key) if closure.key is not None else _CONSTANT_CLOSURE
    if isinstance(entry, tuple):
        return Staged(entry[0], closure.values, entry[1])
    if entry is None:
        try:
            staged = _trace(fun, closure, structure, avals, name)
        except Exception:
            # The function may look at the values of its closure's arrays, which it may: tried again with them as
            # constants. If the cause is another one, that run says so.
            _cache.put(key, _CONSTANT_CLOSURE)
        else:
            if len(staged.consts) == len(closure.values):
                _cache.put(key, (staged.program, staged.structure))
            return staged
    return _trace(fun, None, structure, avals, name)


def _trace(fun: Any, closure: Closure | None, structure: Any, avals: Sequence[Any], name: str) -> Staged:
    values = closure.values if closure is not None else []
    out_structure: Any = None

    def flat(*xs: Any) -> list[Any]:
        nonlocal out_structure
        called = closure.filled(xs[: len(values)]) if closure is not None else fun
        out, out_structure = tree.flatten(called(*tree.unflatten(structure, list(xs[len(values) :]))))
        return [_leaf(x) for x in out]

    traced = trace_program(flat, [*map(aval_of, values), *avals], name, fun)
    return Staged(simplify(traced.program), [*traced.captured, *values], out_structure)


def _leaf(x: Any) -> Any:
    """An output as an array; Python numbers stay weak."""
    return x if isinstance(x, (np.ndarray, Tracer, np.generic, float, int, complex)) else np.asarray(x)


def converted(program: Program, dtypes: Sequence[Any]) -> Program:
    """A program whose first outputs have the given dtypes, and whose outputs are no weak numbers."""
    wanted = (*dtypes, *[a.dtype for a in program.out_avals[len(dtypes) :]])
    if all(a.dtype == d and not a.weak for a, d in zip(program.out_avals, wanted, strict=True)):
        return program

    def make() -> Program:
        def run(*xs: Any) -> list[Any]:
            return [as_dtype(x, d) for x, d in zip(evaluate(program, xs), wanted, strict=True)]

        return trace_program(run, program.in_avals, program.name).program

    return program.derived(("converted", wanted), make)


def as_dtype(x: Any, dtype: Any) -> Any:
    """A number, array or tracer as an array of a dtype, weak no more."""
    return convert(x, dtype) if isinstance(x, Tracer) else np.asarray(x, dtype)[()]
