"""Forward mode: dual numbers.

A primitive on `DualTracer`s goes in, each a primal and its tangent; its answer is computed one level
below, and its jvp rules give the tangent of the answer, both in traced operations.
"""

from __future__ import annotations

from typing import Any

from fnflare.core.aval import aval_of
from fnflare.core.numbers import as_number, is_number, number_operators
from fnflare.core.primitive import Primitive
from fnflare.core.tape import expand
from fnflare.core.trace import OBJECT, Trace, bind, closed_call, refuse_objects
from fnflare.core.tracer import Tracer, ValueTracer

__all__ = ["DualTrace", "DualTracer"]


class DualTracer(ValueTracer):
    """A value and its tangent."""

    __slots__ = ("tangent",)

    def __init__(self, trace: DualTrace, value: Any, tangent: Any) -> None:
        self._trace = trace
        self.value = value
        self.tangent = tangent
        self.code = None

    def become_number(self) -> None:
        self.value = as_number(self.value)
        self.__class__ = NumberDualTracer

    def __repr__(self) -> str:
        return f"DualTracer({self.value!r}, tangent={self.tangent!r})"


@number_operators
class NumberDualTracer(DualTracer):
    """A Python number and its tangent."""

    __slots__ = ()

    number = True


class DualTrace(Trace):
    """A trace that carries tangents along."""

    __slots__ = ()

    def lower(self, x: Any) -> Any:
        """What `x` is below this trace."""
        return x.value if isinstance(x, DualTracer) and x._trace is self else x

    def tangent_of(self, x: Any) -> Any:
        """The tangent of a tracer of this trace; None for anything else, which is a constant to it."""
        return x.tangent if isinstance(x, DualTracer) and x._trace is self else None

    def lift(self, x: Any, tangent: Any) -> DualTracer:
        """A value and its tangent, as an argument of the function."""
        return (NumberDualTracer if is_number(x) else DualTracer)(self, x, tangent)

    def process(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> Any:
        for a in args:
            if isinstance(a, Tracer) and a._trace.closed:
                return closed_call(a._trace, prim, args, params)
        values = [self.lower(a) for a in args]
        if prim.dual_rule is not None:
            ans, t = prim.dual_rule([self.tangent_of(a) for a in args], *values, **(params or {}))
            return self._answers(ans, t) if prim.many else self._tracer(ans, t)
        ans = bind(prim, values, params)
        if not prim.differentiable:
            return ans
        if not prim.many and getattr(ans, "dtype", OBJECT) is OBJECT:
            refuse_objects(prim)
        tangents = [self.tangent_of(a) for a in args]
        kwargs = params or {}
        if prim.jvps_joint is not None:
            t = prim.jvps_joint(tangents, ans, *values, **kwargs)
        else:
            t = None
            for i, tangent in enumerate(tangents):
                if tangent is not None:
                    part = prim.rule("jvp", i)(tangent, ans, *values, **kwargs)
                    t = part if t is None else t + part
        if prim.many:
            return self._answers(ans, t)
        return self._tracer(ans, t)

    def _answers(self, ans: Any, t: Any) -> tuple[Any, ...]:
        out = tuple([a if dt is None else self._tracer(a, dt) for a, dt in zip(ans, t, strict=True)])
        for x in out:
            if type(x) is DualTracer and type(x.value) in (float, complex):
                x.become_number()
        return out

    def _tracer(self, ans: Any, t: Any) -> DualTracer:
        tracer = DualTracer(self, ans, expand(t, aval_of(ans)))
        tracer.mark()
        return tracer
