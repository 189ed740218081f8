"""Tracers: the values that stand for arrays while a transform runs the user's function.

NumPy hands every ufunc and every function of its namespace that meets a tracer to the two protocol
methods here; they look the operation up in the tables that `fnflare.ops` fills, and call it.
Operators and array methods are attached by `fnflare.ops.methods` for the same reason: this file
knows no operation.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from fnflare.core.aval import aval_of, dtype_of, resolvable
from fnflare.core.source import Source
from fnflare.errors import ConcretizationError, TracerArrayError, TracerAttributeError, UnsupportedError

__all__ = [
    "ADVICE",
    "BESIDE",
    "FUNCTIONS",
    "LATE",
    "UFUNCS",
    "UFUNC_FUNCTIONS",
    "UFUNC_METHODS",
    "Tracer",
    "ValueTracer",
    "advice_of",
    "calling_function",
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
#: What to write instead of functions that have no rule, by their public names, "numpy.unique".
ADVICE: dict[str, str] = {}
#: What to write instead of calls of functions that have a rule, where NumPy does not look for tracers: in a list, or
#: beside a plain array.
BESIDE: dict[str, str] = {}
#: Modules of ours that serve the ufuncs of another library, by that library's module: they are imported when a tracer
#: meets a ufunc that nobody serves, and whoever called it has imported the library.
LATE: dict[str, str] = {}


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

    #: Whether it stands for a Python number that Python's own operators made; see `fnflare.core.numbers`.
    number = False

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
                if len(inputs) == 2:
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
            name = _public_name(getattr(function, "__module__", "numpy"), function.__name__)
            raise UnsupportedError(f"{name} has no rule for tracers; {ADVICE.get(name, _GENERAL_ADVICE)}")
        return serve(*args, **kwargs)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        caller = calling_function()
        if caller is not None:
            raise TracerArrayError(
                f"{caller} makes a NumPy array of its argument, which a tracer cannot become, since its derivative "
                f"would be lost: {self!r}, made {self.origin()}; {advice_of(caller) or _ARRAY_ADVICE}"
            )
        raise TracerArrayError(
            f"a tracer cannot become a NumPy array, since its derivative would be lost: {self!r}, made "
            f"{self.origin()}. Instead of np.array([t, u]) write np.stack([t, u]); instead of np.asarray(t) use t as "
            "it is; instead of buffer[i] = t write buffer = ff.at(buffer)[i].set(t); instead of array[t] write "
            "ff.at(array)[t].get(); instead of array.dot(t) write np.dot(array, t); for the value alone, "
            "ff.stop_gradient(t)"
        )

    def __float__(self) -> float:
        raise self._number_error("float")

    def __int__(self) -> int:
        raise self._number_error("int")

    def __complex__(self) -> complex:
        raise self._number_error("complex")

    def __index__(self) -> int:
        raise self._number_error("operator.index")

    def __trunc__(self) -> int:
        raise self._number_error("math.trunc")

    def __round__(self, digits: int | None = None) -> Any:
        raise TracerArrayError(
            f"round() of a tracer would lose its derivative: {self!r}, made {self.origin()}. Write "
            "np.round(t, digits), whose derivative is zero"
        )

    def item(self, *args: Any) -> Any:
        """Not for tracers: raises `TracerArrayError`."""
        raise self._number_error("item")

    def tolist(self) -> Any:
        """Not for tracers: raises `TracerArrayError`."""
        raise self._number_error("tolist")

    def _number_error(self, function: str) -> TracerArrayError | ConcretizationError:
        caller = calling_function()
        advice = advice_of(caller)
        if advice:
            return TracerArrayError(
                f"{caller} makes a number of its argument, which would lose its derivative: {self!r}, made "
                f"{self.origin()}; {advice}"
            )
        return self._no_number(function)

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

    def __delitem__(self, index: Any) -> None:
        raise TracerArrayError(f"no element can be deleted of a tracer: {self!r}. Write x = np.delete(x, i)")

    def __reduce__(self) -> Any:
        raise TracerArrayError(
            f"a tracer cannot be pickled, nor sent to another process, since its derivative would be lost: {self!r}, "
            f"made {self.origin()}; for the value alone, ff.stop_gradient(t)"
        )

    if not TYPE_CHECKING:  # a checker is to find names that are not there

        def __getattr__(self, name: str) -> Any:
            if name in _OF_MEMORY:
                raise TracerAttributeError(
                    f"a tracer has no {name}, since it has no memory of its own: {self!r}. "
                    f"{_OF_MEMORY[name] or 'For that of the value alone, write ff.stop_gradient(x)'}"
                )
            if isinstance(getattr(np, name, None), np.ufunc):
                raise TracerAttributeError(
                    f"a tracer has no method {name}: {self!r}. Write np.{name}(x); of an array of objects that holds "
                    "tracers, np.stack(list(array)) first"
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def become_number(self) -> None:
        """Stand for a Python number from now on, where a tracer of this class can."""

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


#: Attributes of arrays that say how they lie in memory, and what to write where it is not the value that is wanted.
_OF_MEMORY: dict[str, str] = dict.fromkeys(
    ["base", "byteswap", "ctypes", "data", "dump", "dumps", "flags", "getfield", "setfield", "strides", "tobytes"], ""
) | {
    "setflags": "Nothing can be written into it",
    "tofile": "Write ff.stop_gradient(x).tofile(...), which is the value alone",
    "view": "Write x.astype(dtype) to convert the elements, x.real and x.imag for the parts of complex ones",
}


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
    function = _server(ufunc)
    if function is None:
        name = _ufunc_name(ufunc)
        advice = ADVICE.get(name.replace("np.", "numpy."), _GENERAL_ADVICE)
        raise UnsupportedError(f"{name} has no rule for tracers; {advice}")
    inputs = tuple([_as_operand(x) for x in inputs])
    if method == "outer":
        x, y = [a if hasattr(a, "dtype") else np.asarray(a) for a in inputs]  # a Python number is an array there
        inputs = (np.reshape(x, (*np.shape(x), *[1] * np.ndim(y))), y)
    if not kwargs:
        return function(*inputs)
    axes = {k: kwargs.pop(k) for k in ("axes", "axis", "keepdims") if k in kwargs}
    inputs = _with_keywords(ufunc, inputs, **kwargs)
    return _along_axes(ufunc, function, inputs, **axes) if axes else function(*inputs)


def _server(ufunc: Any) -> Any:
    """What serves a ufunc, None where nothing does."""
    function = UFUNCS.get(ufunc) or UFUNC_FUNCTIONS.get(ufunc)
    if function is None:
        for theirs, ours in LATE.items():
            if theirs in sys.modules:
                importlib.import_module(ours)
        function = UFUNCS.get(ufunc) or UFUNC_FUNCTIONS.get(ufunc)
    return function


def _with_keywords(
    ufunc: Any,
    inputs: tuple[Any, ...],
    *,
    out: Any = None,
    where: Any = True,
    dtype: Any = None,
    signature: Any = None,
    sig: Any = None,
    casting: str = "same_kind",
    order: str = "K",  # how an answer lies in memory: a tracer says nothing of that
    subok: bool = True,  # there are no subclasses of tracers to keep
) -> tuple[Any, ...]:
    """The arguments of a ufunc as its keywords want them; those that cannot be meant for tracers raise."""
    name = _ufunc_name(ufunc)
    if out is not None and any(o is not None for o in out):
        raise TracerArrayError(
            f"{name} cannot write a tracer into out=, since its derivative would be lost; this is also what "
            "array += tracer does. Write x = x + t instead of x += t, and drop out="
        )
    if where is not True:
        raise UnsupportedError(
            f"{name} has no rule for where= with tracers, which without out= leaves elements undefined; "
            f"write np.where(mask, {name}(...), otherwise)"
        )
    signature = sig if signature is None else signature
    if dtype is None and signature is None and casting == "same_kind":
        return inputs
    if isinstance(signature, str):
        signature = tuple(signature.replace("->", ""))
    elif signature is None:
        signature = (*[None] * ufunc.nin, *[dtype] * ufunc.nout)
    wanted = tuple([None if d is None else np.dtype(d) for d in signature])
    operands = tuple([resolvable(aval_of(x)) for x in inputs])
    types = ufunc.resolve_dtypes((*operands, *[None] * ufunc.nout), signature=wanted, casting=casting)
    if any(t.kind not in "biufc" for t in types):
        raise UnsupportedError(f"{name}: dtype={types[-1]} has no rule for tracers, which hold numbers")
    return tuple(
        [x.astype(t) if hasattr(x, "dtype") else t.type(x) for x, t in zip(inputs, types[: ufunc.nin], strict=True)]
    )


def _along_axes(
    ufunc: Any, function: Any, inputs: tuple[Any, ...], axes: Any = None, axis: Any = None, keepdims: bool = False
) -> Any:
    """A generalised ufunc, such as np.vecdot, along axes that are not the last ones."""
    if ufunc.signature is None:
        raise TypeError(f"{_ufunc_name(ufunc)} works on elements: it takes no {'axes=' if axes else 'axis='}")
    core = ufunc.signature.split("->")[1].strip("()")
    if keepdims and (core or axes is not None):
        raise UnsupportedError(f"{_ufunc_name(ufunc)}: keepdims= has a rule with axis= alone; write np.expand_dims")
    if axes is None:
        axes = [(-1 if axis is None else axis,)] * len(inputs)
    axes = [a if isinstance(a, tuple) else (a,) for a in axes]
    ends = [tuple(range(-len(a), 0)) for a in axes]
    moved = [np.moveaxis(x, a, e) for x, a, e in zip(inputs, axes, ends, strict=False)]
    ans = function(*moved)
    if keepdims:
        return np.expand_dims(ans, axes[0])
    return np.moveaxis(ans, ends[-1], axes[-1]) if len(axes) > len(inputs) else ans


def _ufunc_name(ufunc: Any) -> str:
    """A ufunc under the name of the module that has it."""
    name = ufunc.__name__
    for module, short in (("numpy", "np"), ("scipy.special", "scipy.special")):
        if getattr(sys.modules.get(module), name, None) is ufunc:
            return f"{short}.{name}"
        if hasattr(sys.modules.get(module), name.lstrip("_")):  # what a function of that name calls
            return f"{short}.{name.lstrip('_')}"
    return name


_GENERAL_ADVICE = (
    "write it with operations that have one, give it a rule with ff.custom_jvp or ff.custom_vjp, or pass it "
    "ff.stop_gradient(x) if it need not be differentiated"
)


_ARRAY_ADVICE = (
    "write np.stack of a list that holds tracers; an argument beside a plain array, in which NumPy does not look for "
    "them, write with other operations, or pass ff.stop_gradient(x) if it need not be differentiated"
)


def _public_name(module: str, name: str) -> str:
    """A function of NumPy or SciPy under the name that its users write, without the files that hold it."""
    parts = module.split(".")
    public = [p for p in parts if not p.startswith("_")]
    if parts[-1].strip("_").startswith("scimath"):
        return f"numpy.emath.{name}"
    if parts[0] == "numpy":
        public = public[: 2 if public[1:2] in (["linalg"], ["fft"], ["random"]) else 1]
    return ".".join([*public, name])


def calling_function() -> str | None:
    """The function of NumPy or SciPy that wants an array, where one written in Python does; for messages."""
    name = None
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_own_file(frame.f_code.co_filename):
        frame = frame.f_back
    while frame is not None and (module := frame.f_globals.get("__name__", "")).partition(".")[0] in _LIBRARIES:
        function = frame.f_code.co_qualname
        if "<locals>" not in function:
            name = _public_name(module, function.removeprefix("_"))  # p.sum() is a call of _sum
        elif name is None:
            name = _public_name(module, "a function")
        frame = frame.f_back
    return name


def advice_of(caller: str | None) -> str:
    """What to write instead of a call of a function of NumPy or SciPy, to which a tracer has come as if it were an
    array or a number; "" where nothing is said of it."""
    return "" if caller is None else BESIDE.get(caller) or ADVICE.get(caller, "")


_LIBRARIES = ("numpy", "scipy")
