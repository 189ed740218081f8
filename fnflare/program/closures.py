"""What a function closes over: arrays apart from the rest, so that a program of it can be used again.

A function goes in; out come a key, equal for functions that do the same with arrays of the same shapes and
dtypes in their closures and among the globals that they read, and those arrays. A function made anew in every call, as
the step of a loop usually is, is thus traced once, and its arrays become arguments of its program.

The attributes of an object whose method it is are part of the key too. Their arrays cannot be replaced without writing
into them: another array there is another key.
"""

from __future__ import annotations

import collections
import dis
import functools
import random
from collections.abc import Hashable, Sequence
from contextlib import suppress
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import Primitive, Tracer, aval_of
from fnflare.errors import TreeError
from fnflare.program.ir import Program

__all__ = ["Closure", "cell_content"]

_BY_VALUE = (int, bool, str, bytes, type(None), type, np.dtype, range, type(Ellipsis), BuiltinFunctionType, np.ufunc)

#: Objects that are there to be changed.
_CHANGING = (
    *(set, dict, list, bytearray, collections.deque),
    *(np.random.Generator, np.random.RandomState, random.Random),
)

#: Objects of which nothing changes.
_STAYING = (Program, Primitive)

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
        values: the arrays and tracers that it closes over, each once.
    """

    __slots__ = ("_fun", "_in_object", "_places", "_seen", "key", "values")

    def __init__(self, fun: Any) -> None:
        self._fun = fun
        self.values: list[Any] = []
        self._places: dict[int, int] = {}
        self._seen: dict[tuple[int, bool], int] = {}
        self._in_object = False
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
            return self._held_value(x) if self._in_object else self._value(x)
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
        if isinstance(x, ModuleType):
            return _Same(x)
        return self._tree(x)

    def _value(self, x: Any) -> Hashable:
        place = self._places.get(id(x))
        if place is None:
            place = self._places[id(x)] = len(self.values)
            self.values.append(x)
        return "value", place, aval_of(x)

    def _held_value(self, x: Any) -> Hashable:
        """A number that an object holds. An array may be written into unseen, and cannot become an argument without a
        copy of the object."""
        if isinstance(x, np.generic):
            return "scalar", x.dtype, x.tobytes()
        raise _UnknownError

    def _function(self, fun: Any) -> Hashable:
        part = (id(fun), self._in_object)  # what an object holds is not copied; the same function may be elsewhere
        number = self._seen.get(part)
        if number is not None:
            return "seen", number
        if len(self._seen) > _MOST_PARTS:
            raise _UnknownError
        self._seen[part] = len(self._seen)
        parts = [self._describe(part) for part in _parts(fun)]
        read = [self._describe(x) for x in _globals_of(fun).values()]
        return "function", fun.__code__, _Same(fun.__globals__), *parts, *read

    def _object(self, x: Any) -> Hashable:
        """An object by its identity and its attributes, but not theirs; one that wraps a function by that."""
        if isinstance(x, _STAYING):
            return _Same(x)
        if isinstance(x, _CHANGING) or hasattr(x, "__next__") or _has_memory(x):
            raise _UnknownError  # what is in it may be another thing in the next call
        if _has_own_hash(x):
            return type(x), x
        held = _attributes(x)
        if held is None:
            return _Same(x)
        if self._in_object:
            raise _UnknownError
        self._in_object = True
        try:
            parts = [held["__wrapped__"]] if "__wrapped__" in held else list(held.values())
            return _Same(x), tuple(held), *[self._describe(part) for part in parts]
        finally:
            self._in_object = False

    def _tree(self, x: Any) -> Hashable:
        try:
            leaves, structure = tree.flatten(x)
        except TreeError:  # keys that cannot be sorted, so that its parts have no order
            raise _UnknownError from None
        if len(leaves) == 1 and leaves[0] is x:
            return self._object(x)
        if len(leaves) > _MOST_PARTS:
            raise _UnknownError
        return structure, *[self._describe(leaf) for leaf in leaves]


def _has_own_hash(x: Any) -> bool:
    """Whether an object can be told from others by its value, and so says that this stays."""
    own: Any = type(x).__hash__
    if own is None or own is object.__hash__:
        return False
    try:
        hash(x)
    except Exception:
        return False
    return True


def _has_memory(x: Any) -> bool:
    """Whether an object is memory that may be written into unseen, such as an array of another kind."""
    try:
        memoryview(x)
    except TypeError:
        return False
    return True


def _attributes(x: Any) -> dict[str, Any] | None:
    """The attributes of an object, by name, those in slots too; None for one that has no place for any, or for a class,
    which is taken to stay."""
    held = getattr(x, "__dict__", None)
    kind: Any = type(x)
    slots = _slots(kind)
    if not slots:
        return held if type(held) is dict else None
    held = dict(held or {})
    for slot in slots:
        with suppress(AttributeError):  # nothing is in it yet
            held[slot.__name__] = slot.__get__(x)
    return held


@functools.lru_cache(maxsize=4096)
def _slots(kind: type) -> tuple[MemberDescriptorType, ...]:
    """The slots of a class that is written in Python."""
    classes = [c for c in kind.__mro__ if "__slots__" in vars(c)]
    return tuple([d for c in classes for d in vars(c).values() if type(d) is MemberDescriptorType])


_BY_VALUE_SET = frozenset(_BY_VALUE)


#: Where functions lie whose globals stay as they are: this library, Python's own, and what is installed.
_INSTALLED = (
    str(Path(__file__).resolve().parents[1]),
    str(Path(functools.__file__).parent),
    str(Path(np.__file__).parents[1]),
)


def _globals_of(fun: Any) -> dict[str, Any]:
    """The globals that a function reads, with the functions inside it."""
    code = fun.__code__
    names = _names_read(code, code.co_filename, code.co_freevars)
    if names is None:
        raise _UnknownError
    space = fun.__globals__
    return {name: space[name] for name in names if name in space}


@functools.lru_cache(maxsize=4096)
def _names_read(code: CodeType, filename: str, free: tuple[str, ...]) -> tuple[str, ...] | None:
    """The names that some code looks up among its globals; None where it assigns to one, or to one of the variables
    `free` around the function, which a copy of the function would do in vain."""
    if filename.startswith(_INSTALLED):
        return ()
    names: dict[str, None] = {}
    around = set(free).intersection(code.co_freevars)
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            return None
        if instruction.opname in ("STORE_DEREF", "DELETE_DEREF") and instruction.argval in around:
            return None
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names[instruction.argval] = None
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            more = _names_read(inner, filename, free)
            if more is None:
                return None
            names.update(dict.fromkeys(more))
    return tuple(names)


def _parts(fun: Any) -> list[Any]:
    """What a function holds beside its code: its cells, None for an empty one, and its defaults."""
    cells = [cell_content(c) for c in fun.__closure__ or ()]
    return [*cells, fun.__defaults__, fun.__kwdefaults__] if fun.__defaults__ or fun.__kwdefaults__ else cells


def cell_content(cell: CellType) -> Any:
    """What a function's cell holds; None for one that is not filled yet."""
    try:
        return cell.cell_contents
    except ValueError:
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
        if kind in _BY_VALUE_SET or kind is float or kind is complex or isinstance(x, ModuleType):
            return x
        return self._tree(x)

    def _together(self, x: Any, parts: Any, make: Any) -> Any:
        new = [self.fill(p) for p in parts]
        return x if all(n is p for n, p in zip(new, parts, strict=True)) else make(*new)

    def _tree(self, x: Any) -> Any:
        leaves, structure = tree.flatten(x)
        if len(leaves) == 1 and leaves[0] is x:
            return x
        new = [self.fill(leaf) for leaf in leaves]
        return x if all(n is o for n, o in zip(new, leaves, strict=True)) else tree.unflatten(structure, new)

    def _function(self, fun: Any) -> Any:
        if id(fun) in self.functions:
            return self.functions[id(fun)]
        read = _globals_of(fun)
        if not (fun.__closure__ or fun.__defaults__ or fun.__kwdefaults__ or read):
            return fun
        cells = tuple([CellType() for _ in fun.__closure__ or ()])
        space = dict(fun.__globals__) if read else fun.__globals__
        new = FunctionType(fun.__code__, space, fun.__name__, None, cells or None)
        # Known before its cells are filled: a function may close over itself.
        self.functions[id(fun)] = new
        space.update({name: self.fill(x) for name, x in read.items()})
        new.__defaults__ = self.fill(fun.__defaults__)
        new.__kwdefaults__ = self.fill(fun.__kwdefaults__)
        for cell, old in zip(cells, fun.__closure__ or (), strict=True):
            content = cell_content(old)
            if content is not None or _is_filled(old):
                cell.cell_contents = self.fill(content)
        new.__qualname__ = fun.__qualname__
        new.__dict__.update(fun.__dict__)
        return new


def _is_filled(cell: CellType) -> bool:
    """Whether a function's cell holds something yet."""
    try:
        cell.cell_contents  # noqa: B018  (an empty cell raises)
    except ValueError:
        return False
    return True
