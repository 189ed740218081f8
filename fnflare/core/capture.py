"""Closure conversion: running a function whose closure may hold tracers, and finding which.

A function and its arguments go in; it runs on what the arguments are below the differentiating
traces, while every tracer that it touches from its closure is collected instead of being recorded.
`checkpoint` and the custom rules then bind one primitive on the arguments and those tracers
together, and `substitute` lets a later run of the function see other values in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fnflare.core.dual import DualTracer
from fnflare.core.primitive import Primitive
from fnflare.core.tape import TapeTracer
from fnflare.core.trace import Redirect, Trace, bind, open_traces, redirecting
from fnflare.core.tracer import Tracer

__all__ = ["Capture", "alias", "capture", "substitute"]


def _bottom(x: Any) -> Any:
    """What `x` is below all suspended traces."""
    while _is_suspended(x):
        x = x.value
    return x


def _is_suspended(x: Any) -> bool:
    return (type(x) is TapeTracer or type(x) is DualTracer) and x._trace.closed


def _suspend() -> list[Trace]:
    """Close the open differentiating traces; returns them for `_resume`."""
    traces = [t for t in open_traces() if not t.closed and hasattr(t, "lower")]
    for t in traces:
        t.closed = True
    return traces


def _resume(traces: list[Trace]) -> None:
    for t in traces:
        t.closed = False


class Capture(Redirect):
    """Runs primitives below the suspended traces and remembers the tracers of the closure."""

    def __init__(self, suspended: Sequence[Trace]) -> None:
        self.found: list[Any] = []
        self._seen: set[int] = set()
        self._suspended = {id(t) for t in suspended}

    def redirect(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> tuple[bool, Any]:
        mine = [isinstance(a, Tracer) and id(a._trace) in self._suspended for a in args]
        if not any(mine):
            return False, None
        for a, is_mine in zip(args, mine, strict=True):
            if is_mine and id(a) not in self._seen:
                self._seen.add(id(a))
                self.found.append(a)
        return True, bind(prim, [_bottom(a) if is_mine else a for a, is_mine in zip(args, mine, strict=True)], params)


def capture(fun: Callable[..., Any], args: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Run `fun(*args)` below all differentiating traces.

    Args:
        fun: a function of arrays; its closure may hold tracers of open traces.
        args: arrays and tracers.

    Returns:
        What it returns, free of those traces, and the tracers that its closure brought in.
        An `alias` of each is what goes on as an argument.
    """
    traces = _suspend()
    redirect = Capture(traces)
    stack = redirecting()
    stack.append(redirect)
    try:
        out = fun(*[_bottom(a) for a in args])
    finally:
        stack.remove(redirect)
        _resume(traces)
    return out, redirect.found


class _Substitute(Redirect):
    """Puts given values in the place of captured tracers; anything else passes as if it were not there."""

    def __init__(self, tracers: Sequence[Any], values: Sequence[Any], suspended: Sequence[Trace]) -> None:
        self._values = {id(t): v for t, v in zip(tracers, values, strict=True)}
        self._suspended = suspended

    def redirect(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> tuple[bool, Any]:
        values = self._values
        if any(id(a) in values for a in args):
            return True, bind(prim, [values.get(id(a), a) for a in args], params)
        traces = {id(a._trace): a._trace for a in args if isinstance(a, Tracer)}
        mine = [t for t in self._suspended if id(t) in traces and t.closed]
        if not mine:
            return False, None
        _resume(mine)
        try:
            return True, bind(prim, args, params)
        finally:
            for t in mine:
                t.closed = True


def alias(x: Any) -> Any:
    """Another tracer of the same value, so that a substitute for `x` can itself be built on `x`."""
    if type(x) is TapeTracer:
        return TapeTracer(x._trace, x.value, x.slot)
    return DualTracer(x._trace, x.value, x.tangent)


def substitute(fun: Callable[..., Any], tracers: Sequence[Any]) -> Callable[..., Any]:
    """A function like `fun` that takes, after its own arguments, values for tracers of its closure.

    Args:
        fun: the function.
        tracers: the tracers that `capture` found.

    Returns:
        ``g(values, *args)``, which runs ``fun(*args)`` with the tracers' places taken by `values`.
    """
    if not tracers:
        return lambda values, *args: fun(*args)

    def run(values: Sequence[Any], *args: Any) -> Any:
        home = {id(t._trace): t._trace for t in tracers}
        suspended = [t for t in home.values() if not t.closed]
        redirect = _Substitute(tracers, values, suspended)
        stack = redirecting()
        for t in suspended:
            t.closed = True
        stack.append(redirect)
        try:
            return fun(*args)
        finally:
            stack.remove(redirect)
            _resume(suspended)

    return run
