"""Tracers: the values that stand for arrays while a transform runs the user's function.

NumPy hands every ufunc and every function of its namespace that meets a tracer to the two protocol
methods here; they look the operation up in the tables that `fnflare.ops` fills, and call it.
Operators and array methods are attached by `fnflare.ops.methods` for the same reason: this file
knows no operation.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import numpy as np

from fnflare.core.aval import aval_of, dtype_of
from fnflare.core.source import Source
from fnflare.errors import ConcretizationError, TracerArrayError, UnsupportedError

__all__ = [
    "FUNCTIONS",
    "UFUNCS",
    "UFUNC_FUNCTIONS",
    "UFUNC_METHODS",
    "Tracer",
    "ValueTracer",
    "implements",
    "is_tracer",
]

#: NumPy ufuncs and the primitive that serves each.
UFUNCS: dict[Any, Any] = {}
#: NumPy ufuncs that a function of traced operations serves.
UFUNC_FUNCTIONS: dict[Any, Callable[..., Any]] = {}
#: The methods of ufuncs, ``reduce`` and its kin, and what serves each: called with the ufunc before its arguments.
UFUNC_METHODS: dict[str, Callable[..., Any]] = {}
#: Functions of NumPy's namespace and what serves each: called with the same arguments.
FUNCTIONS: dict[Any, Callable[..., Any]] = {}


def implements(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: serve functions of NumPy's namespace on tracers by the decorated one."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for f in functions:
            FUNCTIONS[f] = function
        return function

    return register


_ROOM = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OWN_ROOMS = tuple([os.path.join(_ROOM, room) for room in ("core", "ops", "program", "transforms")])


class _OwnFiles(dict[str, bool]):
    """Whether a source file belongs to the operations and transforms themselves; worked out once a file."""

    def __missing__(self, filename: str) -> bool:
        own = self[filename] = filename.startswith(_OWN_ROOMS)
        return own


is_own_file = _OwnFiles().__getitem__


class Tracer:
    """An array under a transform. It has a shape and a dtype and takes part in NumPy calls like an
    array; `_trace` is the transform's trace, `code` and `lasti` the place in the source that made it."""

    __slots__ = ("_trace", "code", "lasti")

    _trace: Any
    code: CodeType | None
    lasti: int

    # Serve mixed operators: ``array * tracer`` comes to `__array_ufunc__`.
    __array_priority__ = 1000.0

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        raise TypeError("a tracer class defines its shape")

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype."""
        raise TypeError("a tracer class defines its dtype")

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take."""
        return self.size * self.dtype.itemsize

    @property
    def itemsize(self) -> int:
        """The bytes that one element takes."""
        return self.dtype.itemsize

    def __len__(self) -> int:
        shape = self.shape
        if not shape:
            raise TypeError("len() of an unsized object: the tracer has shape ()")
        return shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self))])  # type: ignore[index]

    def __hash__(self) -> int:
        raise TypeError("a tracer is not hashable, as an array is not; use id(tracer) for its identity")

    # -- NumPy's protocols ----------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method == "__call__" and not kwargs:
            prim = UFUNCS.get(ufunc)
            if prim is not None:
                # What `bind` does, without its call: this is the hottest path of all.
                top = self._trace
                if len(inputs) == 1:
                    return top.unary(prim, self)
                x, y = inputs
                other = y if x is self else x
                if isinstance(other, Tracer):
                    if other._trace.level > top.level:
                        top = other._trace
                elif isinstance(other, (list, tuple)):
                    return self.__array_ufunc__(ufunc, method, *map(_as_operand, inputs))
                return top.binary(prim, x, y)
        return _ufunc_call(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        serve = FUNCTIONS.get(function)
        if serve is None:
            name = f"{getattr(function, '__module__', 'numpy')}.{function.__name__}"
            raise UnsupportedError(
                f"{name} has no rule for tracers; write it with operations that have one, give it a rule with "
                "ff.custom_jvp or ff.custom_vjp, or pass it ff.stop_gradient(x) if it need not be differentiated"
            )
        return serve(*args, **kwargs)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise TracerArrayError(
            f"a tracer cannot become a NumPy array, since its derivative would be lost: {self!r}, made "
            f"{self.origin()}. Instead of np.array([t, u]) write np.stack([t, u]); instead of np.asarray(t) use t as "
            "it is; instead of buffer[i] = t write buffer = ff.at(buffer)[i].set(t); instead of array[t] write "
            "ff.at(array)[t].get(); for the value alone, ff.stop_gradient(t)"
        )

    def __float__(self) -> float:
        raise self._no_number("float")

    def __int__(self) -> int:
        raise self._no_number("int")

    def __complex__(self) -> complex:
        raise self._no_number("complex")

    def __index__(self) -> int:
        raise self._no_number("operator.index")

    def item(self, *args: Any) -> Any:
        """Not for tracers: raises `TracerArrayError`."""
        raise self._no_number("item")

    def tolist(self) -> Any:
        """Not for tracers: raises `TracerArrayError`."""
        raise self._no_number("tolist")

    def _no_number(self, function: str) -> TracerArrayError | ConcretizationError:
        return TracerArrayError(
            f"{function}() of a tracer would lose its derivative: {self!r}, made {self.origin()}. Use it as it is; "
            "instead of buffer[i] = t write buffer = ff.at(buffer)[i].set(t); "
            f"for the value alone, in a report say, write {function}(ff.stop_gradient(t))"
        )

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TracerArrayError(
            f"a tracer cannot be written into: {self!r}. Instead of x[i] = v write x = ff.at(x)[i].set(v), "
            "and instead of x[i] += v write x = ff.at(x)[i].add(v)"
        )

    # -- where it came from ---------------------------------------------------------------------

    def mark(self) -> None:
        """Remember the place in the source that is running, outside of the operations' own."""
        frame = sys._getframe(3)
        code = frame.f_code
        while is_own_file(code.co_filename) and frame.f_back is not None:
            frame = frame.f_back
            code = frame.f_code
        self.code = code
        self.lasti = frame.f_lasti

    def origin(self) -> str:
        """Where it was made, for messages: the function, the file and the line."""
        if self.code is None:
            return "as an argument of the function"
        return f"in {self.code.co_name} ({Source(self.code, self.lasti)})"

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape}, dtype={self.dtype})"

    def __format__(self, spec: str) -> str:
        return repr(self)


class ValueTracer(Tracer):
    """A tracer that has a value, so that Python control flow on it works."""

    __slots__ = ("value",)

    value: Any  # an array, a Python number, or a tracer of a lower level

    @property
    def shape(self) -> tuple[int, ...]:
        try:
            return self.value.shape
        except AttributeError:  # a Python number
            return ()

    @property
    def dtype(self) -> np.dtype[Any]:
        return dtype_of(self.value)

    @property
    def weak(self) -> bool:
        """Whether it stands for a Python number, whose dtype gives way to that of arrays."""
        return aval_of(self.value).weak

    def __bool__(self) -> bool:
        return bool(self.value)


def _as_operand(x: Any) -> Any:
    return np.asarray(x) if isinstance(x, (list, tuple)) else x


def is_tracer(x: Any) -> bool:
    """Whether `x` stands for an array under a transform."""
    return isinstance(x, Tracer)


def _ufunc_call(ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A ufunc with keywords, or one of its methods."""
    if method in UFUNC_METHODS:
        return UFUNC_METHODS[method](ufunc, *inputs, **kwargs)
    if method != "__call__":
        raise UnsupportedError(f"np.{ufunc.__name__}.{method} has no rule for tracers; {_method_advice(ufunc, method)}")
    out = kwargs.pop("out", None)
    if out is not None and any(o is not None for o in out):
        raise TracerArrayError(
            f"np.{ufunc.__name__} cannot write a tracer into out=, since its derivative would be lost; this is also "
            "what array += tracer does. Write x = x + t instead of x += t, and drop out="
        )
    where = kwargs.pop("where", True)
    dtype = kwargs.pop("dtype", None)
    if kwargs or where is not True:
        names = [*kwargs, *(["where"] if where is not True else [])]
        raise UnsupportedError(
            f"np.{ufunc.__name__} has no rule for {', '.join(names)}= with tracers; for where= write np.where"
        )
    if dtype is not None:
        inputs = tuple([x.astype(dtype) if hasattr(x, "dtype") else np.dtype(dtype).type(x) for x in inputs])
    function = UFUNCS.get(ufunc) or UFUNC_FUNCTIONS.get(ufunc)
    if function is None:
        raise UnsupportedError(
            f"np.{ufunc.__name__} has no rule for tracers; write it with operations that have one, or give it a rule "
            "with ff.custom_jvp or ff.custom_vjp"
        )
    return function(*inputs)


def _method_advice(ufunc: Any, method: str) -> str:
    if method == "outer":
        return f"write np.{ufunc.__name__}(x[:, None], y[None, :])"
    if method == "at":
        return "write ff.at(x)[i].add(v) and its like"
    return "write it with np.sum, np.cumsum and their like"
