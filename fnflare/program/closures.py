"""What a function reads from around it: arrays apart from the rest, so that a program of it can be used again.

A function goes in; out come a key, equal for functions that do the same with arrays of the same shapes and
dtypes in their closures and among the globals that they read, and those arrays. A function made anew in every call, as
the step of a loop usually is, is thus traced once, and its arrays become arguments of its program. What a module or a
class holds is taken to stay as it is.
"""

from __future__ import annotations

import dis
import functools
import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import Tracer, aval_of, is_library
from fnflare.errors import TreeError

__all__ = ["Closure"]

_BY_VALUE = (int, bool, str, bytes, type(None), type, np.dtype, range, type(Ellipsis), BuiltinFunctionType, np.ufunc)

#: A closure with more parts than this is not searched to its end; its function is traced in every call.
_MOST_PARTS = 4000


class _UnknownError(Exception):
    """What a function does cannot be told from what it holds, or that would take too long."""


class _Same:
    """Equal to another one of the very same object, which it keeps alive."""

    __slots__ = ("what",)

    def __init__(self, what: Any) -> None:
        self.what = what

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.what is self.what

    def __hash__(self) -> int:
        return id(self.what)


class Closure:
    """A function with what it closes over.

    Attributes:
        key: what the function does, but for its arrays; None where that cannot be told.
        values: the arrays and tracers that it reads, each once.
    """

    __slots__ = ("_fun", "_places", "_seen", "key", "values")

    def __init__(self, fun: Any) -> None:
        self._fun = fun
        self.values: list[Any] = []
        self._places: dict[int, int] = {}
        self._seen: dict[int, int] = {}
        try:
            self.key: Hashable = self._describe(fun)
        except _UnknownError:
            self.key = None

    def filled(self, values: Sequence[Any]) -> Any:
        """The function, with other arrays in the places of `values`."""
        if not values:
            return self._fun
        return _Filling({id(old): new for old, new in zip(self.values, values, strict=True)}).fill(self._fun)

    # -- describing -----------------------------------------------------------------------------

    def _describe(self, x: Any) -> Hashable:
        kind = type(x)
        if kind is np.ndarray or isinstance(x, (Tracer, np.generic)):
            return self._value(x)
        if kind in _BY_VALUE_SET:
            return kind, x
        if kind is float or kind is complex:
            return kind, repr(x)  # tells -0.0 from 0.0, and nan is itself
        if kind is FunctionType:
            return self._function(x)
        if kind is MethodType:
            return "method", self._describe(x.__func__), self._describe(x.__self__)
        if kind is functools.partial:
            return "partial", self._describe(x.func), self._describe(x.args), self._describe(x.keywords)
        if isinstance(x, (ModuleType, type)):
            return _Same(x)
        return self._tree(x)

    def _value(self, x: Any) -> Hashable:
        place = self._places.get(id(x))
        if place is None:
            place = self._places[id(x)] = len(self.values)
            self.values.append(x)
        return "value", place, aval_of(x)

    def _function(self, fun: Any) -> Hashable:
        number = self._seen.get(id(fun))
        if number is not None:
            return "seen", number
        if len(self._seen) > _MOST_PARTS:
            raise _UnknownError
        self._seen[id(fun)] = len(self._seen)
        parts = [self._describe(part) for part in _parts(fun)]
        parts += [(name, self._describe(x)) for name, x in _globals_of(fun).items()]
        return "function", fun.__code__, id(fun.__globals__), *parts

    def _tree(self, x: Any) -> Hashable:
        try:
            leaves, structure = tree.flatten(x)
        except TreeError:  # keys that cannot be sorted
            raise _UnknownError from None
        if len(leaves) == 1 and leaves[0] is x:
            return _object(x)
        if len(leaves) > _MOST_PARTS:
            raise _UnknownError
        return structure, *[self._describe(leaf) for leaf in leaves]


def _object(x: Any) -> Hashable:
    """An object that is none of the above. What it holds may change from call to call, unless it is the library's, or
    has a hash of its own and so says that it does not."""
    kind = type(x)
    own: Any = kind.__hash__
    if own is object.__hash__:
        if kind.__module__.partition(".")[0] == "fnflare":
            return _Same(x)
        raise _UnknownError
    try:
        hash(x)
    except TypeError:
        raise _UnknownError from None
    return kind, x


_BY_VALUE_SET = frozenset(_BY_VALUE)


def _parts(fun: Any) -> list[Any]:
    """What a function holds beside its code: its cells, None for an empty one, and its defaults."""
    cells = [_content(c) for c in fun.__closure__ or ()]
    return [*cells, fun.__defaults__, fun.__kwdefaults__] if fun.__defaults__ or fun.__kwdefaults__ else cells


def _globals_of(fun: Any) -> dict[str, Any]:
    """The globals that a function of the user's reads; those of libraries stay as they are."""
    if _is_fixed(fun.__code__.co_filename):
        return {}
    names = _globals_read(fun.__code__)
    if names is None:
        raise _UnknownError
    scope = fun.__globals__
    return {name: scope[name] for name in names if name in scope}


@functools.lru_cache(maxsize=4096)
def _globals_read(code: CodeType) -> tuple[str, ...] | None:
    """The names that some code and the functions within it look up among their globals; None where one assigns to
    them, which a copy of the function would do in vain."""
    names: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            return None
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            names[instruction.argval] = None
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            more = _globals_read(inner)
            if more is None:
                return None
            names.update(dict.fromkeys(more))
    return tuple(names)


_STANDARD = str(Path(os.__file__).parent) + os.sep


@functools.lru_cache(maxsize=4096)
def _is_fixed(filename: str) -> bool:
    """Whether a source file is fnflare's, NumPy's or Python's own, whose globals nobody assigns to."""
    return is_library(filename) or (filename.startswith(_STANDARD) and "-packages" not in filename[len(_STANDARD) :])


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


class _Filling:
    """Copies functions and containers as far as they hold an array that is to be replaced."""

    def __init__(self, replacements: dict[int, Any]) -> None:
        self.replacements = replacements
        self.functions: dict[int, Any] = {}

    def fill(self, x: Any) -> Any:
        if id(x) in self.replacements:
            return self.replacements[id(x)]
        kind = type(x)
        if kind is FunctionType:
            return self._function(x)
        if kind is MethodType:
            return self._together(x, (x.__func__, x.__self__), lambda f, s: MethodType(f, s))
        if kind is functools.partial:
            parts = (x.func, x.args, x.keywords)
            return self._together(x, parts, lambda f, a, k: functools.partial(f, *a, **k))
        if kind in _BY_VALUE_SET or kind is float or kind is complex or isinstance(x, (ModuleType, type)):
            return x
        return self._tree(x)

    def _together(self, x: Any, parts: Any, make: Any) -> Any:
        new = [self.fill(p) for p in parts]
        return x if all(n is p for n, p in zip(new, parts, strict=True)) else make(*new)

    def _tree(self, x: Any) -> Any:
        try:
            leaves, structure = tree.flatten(x)
        except TreeError:
            return x
        if len(leaves) == 1 and leaves[0] is x:
            return x
        new = [self.fill(leaf) for leaf in leaves]
        return x if all(n is o for n, o in zip(new, leaves, strict=True)) else tree.unflatten(structure, new)

    def _function(self, fun: Any) -> Any:
        if id(fun) in self.functions:
            return self.functions[id(fun)]
        names = _globals_of(fun)
        if not (fun.__closure__ or fun.__defaults__ or fun.__kwdefaults__ or names):
            return fun
        cells = tuple([CellType() for _ in fun.__closure__ or ()])
        scope = dict(fun.__globals__) if names else fun.__globals__
        new = FunctionType(fun.__code__, scope, fun.__name__, None, cells or None)
        # Known before its cells are filled: a function may close over itself.
        self.functions[id(fun)] = new
        scope.update({name: self.fill(x) for name, x in names.items()})
        new.__defaults__ = self.fill(fun.__defaults__)
        new.__kwdefaults__ = self.fill(fun.__kwdefaults__)
        for cell, old in zip(cells, fun.__closure__ or (), strict=True):
            content = _content(old)
            if content is not None or _is_filled(old):
                cell.cell_contents = self.fill(content)
        new.__qualname__ = fun.__qualname__
        new.__dict__.update(fun.__dict__)
        return new


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (an empty cell raises)
    except ValueError:
        return False
    return True
