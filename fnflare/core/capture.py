"""Closure conversion: running a function whose closure may hold tracers, and finding which.

A function and its arguments go in; it runs on what the arguments are below the differentiating
traces, while every tracer that it touches from its closure is collected instead of being recorded.
`checkpoint` and the custom rules then bind one primitive on the arguments and those tracers
together, and `substitute` lets a later run of the function see other values in their place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

from fnflare.core.batch import BatchTrace, BatchTracer
from fnflare.core.dual import DualTrace, DualTracer
from fnflare.core.primitive import Primitive
from fnflare.core.tape import Tape, TapeTracer
from fnflare.core.trace import Redirect, Trace, bind, open_traces, redirecting, take_place
from fnflare.core.tracer import Tracer, ValueTracer

__all__ = ["Capture", "alias", "capture", "substitute"]


def _suspend() -> list[Trace]:
    """Close the open traces that differentiate or batch; returns them for `_resume`."""
    traces: list[Trace] = [t for t in open_traces() if not t.closed and isinstance(t, (Tape, DualTrace, BatchTrace))]
    for t in traces:
        t.closed = True
    return traces


def _resume(traces: Sequence[Trace]) -> None:
    for t in traces:
        t.closed = False


class Capture(Redirect):
    """Runs primitives below the suspended traces and remembers the tracers of the closure.

    There is no going below a batching trace: what is below has another shape. Another one stands in its place, so
    that a tracer of the closure can be told from what the function makes of its arguments.
    """

    def __init__(self, suspended: Sequence[Trace]) -> None:
        self.found: list[Any] = []
        self._seen: set[int] = set()
        self._below: dict[int, tuple[Any, Any]] = {}  # one tracer for one, since a substitute goes by identity
        self._suspended = suspended
        self._ids = {id(t) for t in suspended}
        pairs = [(t, BatchTrace(t.fun, t.size)) for t in suspended if isinstance(t, BatchTrace)]
        self._stand_ins = {id(t): stand_in for t, stand_in in pairs}
        self._originals = {id(stand_in): t for t, stand_in in pairs}
        self._pairs = pairs

    def __enter__(self) -> Self:
        for t, stand_in in self._pairs:
            take_place(t, stand_in)
        redirecting().append(self)
        return self

    def __exit__(self, *error: object) -> None:
        redirecting().remove(self)
        for t, stand_in in self._pairs:
            take_place(stand_in, t)
        _resume(self._suspended)

    def redirect(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> tuple[bool, Any]:
        if not any(self._is_mine(a) for a in args):
            return False, None
        return True, bind(prim, [self.take(a) for a in args], params)

    def take(self, x: Any) -> Any:
        """What `x` is below the suspended traces; a tracer of theirs is remembered."""
        if not self._is_mine(x):
            return x
        if id(x) not in self._seen:
            self._seen.add(id(x))
            self.found.append(x)
        return self.below(x)

    def below(self, x: Any) -> Any:
        """What `x` is below the suspended traces."""
        if type(x) is BatchTracer and id(x._trace) in self._stand_ins:
            known = self._below.get(id(x))
            if known is None:
                known = x, BatchTracer(self._stand_ins[id(x._trace)], self.below(x.value), x.axis)
                self._below[id(x)] = known
            return known[1]
        return self.below(x.value) if isinstance(x, ValueTracer) and id(x._trace) in self._ids else x

    def above(self, x: Any) -> Any:
        """A tracer of a stand-in as one of the trace whose place that takes."""
        if type(x) is BatchTracer and id(x._trace) in self._originals:
            return BatchTracer(self._originals[id(x._trace)], self.above(x.value), x.axis)
        return x

    def _is_mine(self, x: Any) -> bool:
        return isinstance(x, Tracer) and id(x._trace) in self._ids


def capture(fun: Callable[..., tuple[Any, ...]], args: Sequence[Any]) -> tuple[tuple[Any, ...], list[Any]]:
    """Run `fun(*args)` below all differentiating traces.

    Args:
        fun: a function from arrays to a tuple of them; its closure may hold tracers of open traces.
        args: arrays and tracers.

    Returns:
        What it returns, free of those traces, and the tracers that its closure brought in.
        An `alias` of each is what goes on as an argument.
    """
    around = _substitutes()
    with Capture(_suspend()) as redirect:
        out = fun(*[redirect.below(_looked_up(a, around)) for a in args])
        out = tuple([redirect.take(_looked_up(x, around)) for x in out])
    return tuple([redirect.above(x) for x in out]), redirect.found


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
    return x


def alias(x: Any) -> Any:
    """Another tracer of the same value, so that a substitute for `x` can itself be built on `x`."""
    if type(x) is TapeTracer:
        other: Tracer = TapeTracer(x._trace, alias(x.value), x.slot)
    elif type(x) is DualTracer:
        other = DualTracer(x._trace, alias(x.value), alias(x.tangent))
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
