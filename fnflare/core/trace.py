"""The trace stack of each thread, and `bind`, the only door to a primitive.

Arguments and static parameters of a primitive go in; if one of them is a tracer, the innermost of
their traces processes the primitive, otherwise its kernel runs at once. Transforms run the user's
function ``with`` a trace, which is on the stack for so long and off it whatever happens.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np

from fnflare.core.source import cell_name
from fnflare.core.tracer import Tracer
from fnflare.errors import DtypeError, FnflareError, LeakedTracerError

if TYPE_CHECKING:
    from fnflare.core.primitive import Primitive

__all__ = [
    "OBJECT",
    "Redirect",
    "Trace",
    "bind",
    "closed_call",
    "open_traces",
    "redirecting",
    "refuse_objects",
    "trace_depth",
]

#: The dtype of arrays that hold anything: no tracer computes with them.
OBJECT = np.dtype(object)


class Trace:
    """What happens to primitives while a transform runs a function.

    ``level`` is the depth of nesting; of several traces among the arguments of a primitive the one
    with the highest level takes it. ``closed`` is true before and after the transform's run, and
    while another trace has taken this one's place (see `fnflare.core.capture`).
    """

    __slots__ = ("closed", "fun", "level")

    level: int
    closed: bool
    fun: Any  # the user's function, for messages

    def __init__(self, fun: Any = None) -> None:
        self.level = -1
        self.closed = True
        self.fun = fun

    def __enter__(self) -> Self:
        """Put this trace on top of the thread's stack."""
        stack = _state.stack
        self.level = len(stack)
        self.closed = False
        stack.append(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Take it, and whatever an error left above it, off the stack."""
        del _state.stack[self.level :]
        self.closed = True
        if error is not None and type(error) in (ValueError, TypeError) and isinstance(error.__cause__, FnflareError):
            # NumPy says of a tracer that is written into one element of a buffer that it is a sequence, and of one
            # in an array of objects that it lacks a method, and hides our own error, which says what to write instead.
            raise error.__cause__ from None

    def process(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> Any:
        """Do with a primitive what this trace does; at least one of `args` is a tracer of this trace."""
        raise TypeError(f"{type(self).__name__} must define process")  # a base class that nobody opens

    def unary(self, prim: Primitive, x: Any, params: dict[str, Any] | None = None) -> Any:
        """`process` for one argument, a tracer of this trace."""
        return self.process(prim, (x,), params)

    def binary(self, prim: Primitive, x: Any, y: Any) -> Any:
        """`process` for two arguments and no parameters."""
        return self.process(prim, (x, y), None)


class Redirect:
    """Where primitives go that touch a tracer of a closed trace, while a function is being captured."""

    def redirect(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> tuple[bool, Any]:
        """Returns whether the call was taken over, and its answer."""
        raise TypeError(f"{type(self).__name__} must define redirect")


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.stack: list[Trace] = []
        self.redirects: list[Redirect] = []


_state = _ThreadState()


def trace_depth() -> int:
    """How many traces are open in this thread: 0 outside of every transform."""
    return len(_state.stack)


def open_traces() -> list[Trace]:
    """The traces open in this thread, outermost first."""
    return list(_state.stack)


def redirecting() -> list[Redirect]:
    """The active redirects of this thread, innermost last."""
    return _state.redirects


def bind(prim: Primitive, args: Any, params: dict[str, Any] | None = None) -> Any:
    """Apply a primitive to arrays, numbers and tracers.

    Args:
        prim: the primitive.
        args: its arguments, a list or tuple.
        params: its static parameters; None where it has none.

    Returns:
        The answer: a tracer of the innermost trace among the arguments, or a plain value.
    """
    if len(args) == 1:
        x = args[0]
        if isinstance(x, Tracer):
            return x._trace.unary(prim, x, params)
        return prim.kernel(x) if params is None else prim.kernel(x, **params)
    top = None
    for a in args:
        if isinstance(a, Tracer):
            trace = a._trace
            if top is None or trace.level > top.level:
                top = trace
    if top is not None:
        if params is None and len(args) == 2:
            return top.binary(prim, *args)
        return top.process(prim, args, params)
    return prim.kernel(*args) if params is None else prim.kernel(*args, **params)


def refuse_objects(prim: Primitive) -> NoReturn:
    """Raise for an array of objects among the arguments of a primitive: what they are nobody knows."""
    raise DtypeError(
        f"{prim.name}: an array of dtype object stands beside a tracer, and has no derivative. If it holds tracers, "
        "write np.stack(list(array)) in its place, if it holds numbers, array.astype(float)"
    )


def closed_call(trace: Trace, prim: Primitive, args: Any, params: dict[str, Any] | None) -> Any:
    """What becomes of a primitive whose innermost trace is closed: a redirect takes it, or it is a leak."""
    for redirect in reversed(_state.redirects):
        taken, answer = redirect.redirect(prim, args, params)
        if taken:
            return answer
    leaked = next(a for a in args if isinstance(a, Tracer) and a._trace is trace)
    raise LeakedTracerError(
        f"{prim.name}: an argument is a tracer that outlived its transform. It was made {leaked.origin()}, while "
        f"{_name(trace.fun)} was being transformed, and that has returned. "
        "Return the value from the function (with has_aux=True where it is not the loss) "
        "or pass it through ff.stop_gradient before you store it outside."
    )


def _name(fun: Any) -> str:
    code = getattr(fun, "__code__", None)
    name = getattr(fun, "__qualname__", None) or repr(fun)
    if code is None:
        return name
    return f"{name} ({cell_name(code.co_filename) or code.co_filename}:{code.co_firstlineno})"
