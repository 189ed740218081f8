"""Closure conversion: running a function whose closure may hold tracers, and finding which.

A function and its arguments go in; it runs on what the arguments are below the differentiating
traces, while every tracer that it touches from its closure is collected instead of being recorded.
`checkpoint` and the custom rules then bind one primitive on the arguments and those tracers
together, and `substitute` lets a later run of the function see other values in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from fnflare.core.batch import BatchTracer
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
    return _inside(x, _bottom)


def _inside(x: Any, change: Callable[[Any], Any]) -> Any:
    """A batch with its array changed; anything else as it is. What is batched can be traced below."""
    if type(x) is not BatchTracer:
        return x
    value = change(x.value)
    return x if value is x.value else BatchTracer(x._trace, value, x.axis)


def _is_suspended(x: Any) -> bool:
    return isinstance(x, (TapeTracer, DualTracer)) and x._trace.closed


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
        if not any(self._is_mine(a) for a in args):
            return False, None
        return True, bind(prim, [self.take(a) for a in args], params)

    def take(self, x: Any) -> Any:
        """What `x` is below the suspended traces; a tracer of theirs is remembered."""
        if not self._is_mine(x):
            return _inside(x, self.take)
        if id(x) not in self._seen:
            self._seen.add(id(x))
            self.found.append(x)
        return _bottom(x)

    def _is_mine(self, x: Any) -> bool:
        return isinstance(x, Tracer) and id(x._trace) in self._suspended


def capture(fun: Callable[..., tuple[Any, ...]], args: Sequence[Any]) -> tuple[tuple[Any, ...], list[Any]]:
    """Run `fun(*args)` below all differentiating traces.

    Args:
        fun: a function from arrays to a tuple of them; its closure may hold tracers of open traces.
        args: arrays and tracers.

    Returns:
        What it returns, free of those traces, and the tracers that its closure brought in.
        An `alias` of each is what goes on as an argument.
    """
    traces = _suspend()
    redirect = Capture(traces)
    stack = redirecting()
    around = _substitutes()
    stack.append(redirect)
    try:
        out = fun(*[_bottom(a) for a in args])
        return tuple([redirect.take(_looked_up(x, around)) for x in out]), redirect.found
    finally:
        stack.remove(redirect)
        _resume(traces)


class _Substitute(Redirect):
    """Puts given values in the place of captured tracers; anything else passes as if it were not there."""

    def __init__(self, tracers: Sequence[Any], values: Sequence[Any], suspended: Sequence[Trace]) -> None:
        self.tracers = tracers
        self.values = {id(t): v for t, v in zip(tracers, values, strict=True)}
        self._suspended = suspended

    def redirect(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> tuple[bool, Any]:
        values = self.values
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


def _substitutes() -> list[_Substitute]:
    """The substitutions that hold in this thread now, outermost first."""
    return [r for r in redirecting() if isinstance(r, _Substitute)]


def _looked_up(x: Any, substitutes: Sequence[_Substitute]) -> Any:
    """`x`, or what stands in its place."""
    for s in substitutes:
        x = s.values.get(id(x), x)
    return _inside(x, lambda value: _looked_up(value, substitutes))


def alias(x: Any) -> Any:
    """Another tracer of the same value, so that a substitute for `x` can itself be built on `x`."""
    if isinstance(x, TapeTracer):
        other: Tracer = type(x)(x._trace, alias(x.value), x.slot)
    elif isinstance(x, DualTracer):
        other = type(x)(x._trace, alias(x.value), alias(x.tangent))
    elif type(x) is BatchTracer:
        other = BatchTracer(x._trace, alias(x.value), x.axis)
    else:
        return x
    other.code = x.code
    if x.code is not None:
        other.lasti = x.lasti
    return other


def substitute(fun: Callable[..., tuple[Any, ...]], tracers: Sequence[Any]) -> Callable[..., tuple[Any, ...]]:
    """A function like `fun` that takes, before its own arguments, values for tracers of its closure.

    Substitutions that hold now hold again in its runs, inside of which a substituted function may
    have been made and left on a tape for later.

    Args:
        fun: the function.
        tracers: the tracers that `capture` found.

    Returns:
        ``g(values, *args)``, which runs ``fun(*args)`` with the tracers' places taken by `values`. No
        tracer among the values and the arguments, nor what it is built on, may be one of `tracers`
        itself: give an `alias`.
    """
    around = [(s.tracers, list(s.values.values())) for s in _substitutes()]
    if not tracers and not around:
        return lambda values, *args: fun(*args)

    def run(values: Sequence[Any], *args: Any) -> tuple[Any, ...]:
        with ExitStack() as layers:
            entered = [layers.enter_context(_substituted(*layer)) for layer in (*around, (tracers, values))]
            return tuple([_looked_up(x, entered) for x in fun(*args)])

    return run


@contextmanager
def _substituted(tracers: Sequence[Any], values: Sequence[Any]) -> Iterator[_Substitute]:
    """Let values stand in the place of tracers."""
    home = {id(t._trace): t._trace for t in tracers}
    suspended = [t for t in home.values() if not t.closed]
    redirect = _Substitute(tracers, values, suspended)
    stack = redirecting()
    for t in suspended:
        t.closed = True
    stack.append(redirect)
    try:
        yield redirect
    finally:
        stack.remove(redirect)
        _resume(suspended)
