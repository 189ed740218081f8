"""Tapes that remember where each of their records was written, for programs in the making and for observers.

They record what the plain tapes do, and a `Source` beside each record. Their sweeps are slower and simpler than the
plain ones: each record's rule runs under the place of the operation whose derivative it is and, where somebody
observes, on eager tracers, so that every operation of the rule comes by. Transforms ask `new_tape` for a tape and
get a plain one wherever none of that is wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fnflare.core.eager import EagerTrace, EagerTracer, bottom_trace
from fnflare.core.observe import observed, run_kernel
from fnflare.core.primitive import Primitive
from fnflare.core.scatter import Pending, Scatter
from fnflare.core.source import Source, current_source, sourced, sources_wanted
from fnflare.core.tape import HAND_ON, LinearTape, Tape, TapeTracer, add_to, expand, hand_on, joint_cotangents, match
from fnflare.core.trace import Trace, trace_depth

__all__ = ["SourcedLinearTape", "SourcedTape", "new_linear_tape", "new_tape"]


def new_tape(fun: Any) -> Tape:
    """A tape for the backward sweeps of `fun`."""
    return SourcedTape(fun) if sources_wanted() else Tape(fun)


def new_linear_tape(fun: Any) -> LinearTape:
    """A tape for the forward sweeps of `fun`."""
    return SourcedLinearTape(fun) if sources_wanted() else LinearTape(fun)


class _Stamped(Tape):
    """A tape that notes the place of each record."""

    __slots__ = ("sources",)

    unary = Trace.unary
    binary = Trace.binary

    def __init__(self, fun: Any = None) -> None:
        super().__init__(fun)
        self.sources: list[Source | None] = []

    def leaf(self, value: Any) -> TapeTracer:
        eager = bottom_trace() if observed() else None
        return super().leaf(value if eager is None else eager.lift(value))

    def process(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> Any:
        ans = super().process(prim, args, params)
        missing = len(self.records) - len(self.sources)
        if missing:
            source = current_source()
            self.sources += [None if source is None else source._replace(derivative_of=prim.name)] * missing
        return ans


class SourcedTape(_Stamped):
    """A tape for backward sweeps that remembers places."""

    __slots__ = ()

    def backward(self, cotangents: dict[int, Any], free: bool) -> list[Any]:
        with _sweeping() as eager:
            cts: list[Any] = [None] * len(self.records)
            for slot, ct in cotangents.items():
                cts[slot] = _lifted(ct, eager)
            owned: set[int] = set()
            reads: dict[int, Source | None] = {}  # where the arrays were read whose cotangents are scattered
            for i in reversed(range(self.leaves, len(self.records))):
                record, ct = self.records[i], cts[i]
                cts[i] = None
                if free:
                    self.records[i] = None
                if ct is None:
                    continue
                with sourced(_backward(reads.get(i))):
                    ct = _dense(ct, eager)
                source = _backward(self.sources[i])
                with sourced(source):
                    for slot, g in _pulled(record, ct, cts, eager):
                        if type(g) is Scatter:
                            reads[slot] = source
                        add_to(cts, owned, slot, g)
            for i, ct in enumerate(cts):
                with sourced(reads.get(i)):
                    cts[i] = _dense(ct, eager)
        return _results(cts[: self.leaves], cotangents.values(), eager)


class SourcedLinearTape(_Stamped, LinearTape):
    """A tape for forward sweeps that remembers places."""

    __slots__ = ()

    def push(self, tangents: dict[int, Any], outputs: Sequence[int]) -> list[Any]:
        with _sweeping() as eager:
            ts = {slot: _lifted(t, eager) for slot, t in tangents.items()}
            for i, record in enumerate(self.records):
                if record is None:
                    continue
                with sourced(self.sources[i]):
                    t = _pushed(record, ts, eager)
                if t is not None:
                    ts[i] = t
        return _results([ts.get(s) for s in outputs], tangents.values(), eager)


@contextmanager
def _sweeping() -> Iterator[EagerTrace | None]:
    """The eager trace that a sweep runs its rules on: that which is open, or one of its own. None where nobody
    observes, and where other traces are at the bottom: there rules come by as far as they bind."""
    eager = bottom_trace() if observed() else None
    if eager is None and observed() and not trace_depth():
        with EagerTrace() as eager:
            yield eager
    else:
        yield eager


def _lifted(x: Any, eager: EagerTrace | None) -> Any:
    """An array, or a list or tuple of such, on the eager trace where there is one."""
    if eager is None:
        return x
    return type(x)([_lifted(a, eager) for a in x]) if type(x) in (list, tuple) else eager.lift(x)


def _results(swept: list[Any], given: Any, eager: EagerTrace | None) -> list[Any]:
    """What a sweep returns: plain after an eager trace of its own, and otherwise on that which is open still, but in
    memory that belongs to no other array."""
    if eager is None:
        return swept
    if eager.closed:
        return [eager.plain(x) for x in swept]
    taken = {id(eager.plain(x)) for x in given}
    out = []
    for x in swept:
        value = eager.plain(x)
        if type(value) is np.ndarray and (value.base is not None or id(value) in taken):
            x = eager.lift(value.copy())
        taken.add(id(value))
        out.append(x)
    return out


def _backward(source: Source | None) -> Source | None:
    return None if source is None else source._replace(phase="backward")


def _pulled(record: Any, ct: Any, cts: list[Any], eager: EagerTrace | None) -> Iterator[tuple[int, Any]]:
    """The slots of a record's arguments and what its cotangent gives to each."""
    plan, slots, inputs, ans, params, fix = record
    if plan is HAND_ON:
        hand_on(cts, record, ct)
        return
    inputs, ans = _lifted(inputs, eager), _lifted(ans, eager)
    if plan.joint is not None:
        gs = joint_cotangents((plan, slots, inputs, ans, params, fix), ct)
        pairs = [(n, gs[n]) for n in plan.argnums]
    else:
        pairs = [(n, rule(ct, ans, *inputs, **(params or {}))) for n, rule in plan.rules]
    for n, g in pairs:
        if g is not None:
            yield slots if plan.single is not None else slots[n], g if fix is None else match(g, fix[n])


def _pushed(record: Any, ts: dict[int, Any], eager: EagerTrace | None) -> Any:
    """The tangent of a record's answer; None where none of its arguments has one."""
    plan, slots, inputs, ans, params, fix = record
    if plan is HAND_ON:
        whole = ts.get(slots[0])
        return None if whole is None else whole[inputs]
    inputs, ans = _lifted(inputs, eager), _lifted(ans, eager)
    kwargs = params or {}
    if plan.joint is not None:
        given = [ts.get(s) for s in slots]
        return None if all(t is None for t in given) else plan.joint(given, ans, *inputs, **kwargs)
    total = None
    for n, rule in plan.rules:
        t = ts.get(slots if plan.single is not None else slots[n])
        if t is not None:
            part = rule(t, ans, *inputs, **kwargs)
            total = part if total is None else total + part
    return total if total is None or fix is None else expand(total, fix[-1])


# -- scattered cotangents -------------------------------------------------------------------------


def _add_up(*arrays: Any, parts: list[Scatter]) -> Any:
    """The dense total of scattered rows, the first arrays, and of a dense cotangent where one more is given."""
    plain = [Scatter(p.aval, p.index, rows, p.add) for p, rows in zip(parts, arrays, strict=False)]
    pending = Pending(arrays[len(parts)] if len(arrays) > len(parts) else None, plain[0])
    pending.parts = plain
    return pending.total()


#: Not of the registry, since only sweeps run it: eager rows are added up all at once, as plain ones are.
_scatter_add = Primitive("scatter_add", _add_up, lambda *avals, parts: parts[0].aval)
_scatter_add.cost(lambda ans, *avals, **_: sum(a.size for a in avals))


def _dense(ct: Any, eager: EagerTrace | None) -> Any:
    """The total of a cotangent that is waiting to be added up; any other as it is."""
    if type(ct) is not Pending:
        return ct
    arrays = [*[p.rows for p in ct.parts], *([] if ct.dense is None else [ct.dense])]
    if eager is None or not all(type(a) is EagerTracer for a in arrays):
        return ct.total()
    return eager.lift(run_kernel(_scatter_add, tuple([eager.plain(a) for a in arrays]), {"parts": ct.parts}))
