"""The tape: a flat list of records in order of execution, and the sweeps over it.

Primitives go in while the user's function runs on `TapeTracer`s; each leaves one record of what its
derivative rule will read, and nothing else is kept. The backward sweep walks the list once from its
end and turns the cotangents of the answers into those of the leaves; the forward sweep walks it from
its start and does the same with tangents. Neither searches a graph nor recurses.

A record's place in the list is the number of its answer, which the tracer holds as ``slot``:

    (plan, slots, inputs, ans, params, fix)

``slots`` are the slots of the arguments (-1 for a constant), ``inputs`` and ``ans`` what the rules
asked to have kept, and ``fix`` the shape and dtype of each argument, and of the answer last, where a
cotangent has to be brought to them because the operation broadcast or promoted. Where only one
argument is traced and has a rule of its own (``plan.single``), ``slots`` is its slot alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from fnflare.core.aval import ShapeDtypeStruct, aval_of, dtype_of, in_native_order
from fnflare.core.numbers import as_number, is_number, number_operators
from fnflare.core.primitive import SHAPE, VALUE, Plan, Primitive
from fnflare.core.scatter import Pending, Scatter
from fnflare.core.trace import OBJECT, Trace, bind, closed_call, refuse_objects
from fnflare.core.tracer import Tracer, ValueTracer

__all__ = ["LinearTape", "Tape", "TapeTracer"]

_ndarray = np.ndarray
_getframe = sys._getframe
_new = object.__new__
_REAL = (float, int)


class TapeTracer(ValueTracer):
    """A value on a tape."""

    __slots__ = ("slot",)

    def __init__(self, trace: Tape, value: Any, slot: int) -> None:
        self._trace = trace
        self.value = value
        self.slot = slot

    def become_number(self) -> None:
        self.value = as_number(self.value)
        self.__class__ = NumberTapeTracer

    def __repr__(self) -> str:
        return f"TapeTracer({self.value!r})"


@number_operators
class NumberTapeTracer(TapeTracer):
    """A Python number on a tape. The short ways for arrays do not know it and leave it to `Tape.process`."""

    __slots__ = ()

    number = True


class Tape(Trace):
    """A trace that records what the vjp rules read, for backward sweeps."""

    __slots__ = ("leaves", "records")

    mode = "vjp"  # for which rules inputs and answers are kept

    records: list[Any]
    leaves: int  # the first records of a tape are its leaves

    def __init__(self, fun: Any = None) -> None:
        self.fun = fun
        self.level = -1
        self.closed = True
        self.records = []
        self.leaves = 0

    def leaf(self, value: Any) -> TapeTracer:
        """Put a value on the tape that the sweeps differentiate with respect to, before anything else."""
        kind = NumberTapeTracer if is_number(value) else TapeTracer
        tracer = kind(self, in_native_order(value), self.leaves)
        tracer.code = None
        self.records.append(None)
        self.leaves += 1
        return tracer

    def slot_of(self, x: Any) -> int:
        """The slot of a tracer of this tape; -1 for anything else, which is a constant to it."""
        return x.slot if isinstance(x, TapeTracer) and x._trace is self else -1

    def lower(self, x: Any) -> Any:
        """What `x` is below this tape: the value of its own tracers, anything else as it is."""
        return x.value if isinstance(x, TapeTracer) and x._trace is self else x

    # -- recording ------------------------------------------------------------------------------
    #
    # `unary` and `binary` are `process` for the calls that make up nearly all of a tape: they cost
    # about a microsecond less, and record the same.

    def unary(self, prim: Primitive, x: Any, params: dict[str, Any] | None = None) -> Any:
        plan = prim.unary_plan
        if plan is None or self.closed:
            return self.process(prim, (x,), params)
        value = x.value
        if self.level:
            ans = bind(prim, (value,), params)
        elif params is None:
            ans = prim.kernel(value)
        else:
            ans = prim.kernel(value, **params)
        want = plan.inputs[0]
        inputs = plan.keeps_none or ((value,) if want == VALUE else (aval_of(value),))
        fix = None
        if not prim.elementwise:
            try:
                promoted = value.dtype is not ans.dtype
            except AttributeError:  # a Python number
                promoted = True
            if promoted:
                fix = [aval_of(value), aval_of(ans)]
        records = self.records
        tracer = _new(TapeTracer)  # a call of the class would cost as much again
        tracer._trace = self
        tracer.value = ans
        tracer.slot = len(records)
        records.append((plan, x.slot, inputs, ans if plan.answer else None, params, fix))
        if params is not None:
            tracer.mark()
            return tracer
        frame = _getframe(2)
        tracer.code = frame.f_code
        tracer.lasti = frame.f_lasti
        return tracer

    def binary(self, prim: Primitive, x: Any, y: Any) -> Any:
        plans = prim.binary_plans
        if plans is None or self.closed:
            return self.process(prim, (x, y), None)
        if type(x) is TapeTracer and x._trace is self:
            vx = x.value
            sx = x.slot
            if type(y) is TapeTracer and y._trace is self:
                vy = y.value
                sy = y.slot
                slots: Any = (sx, sy)
                plan = plans[2]
            elif isinstance(y, Tracer):
                return self._with_number(prim, x, y)
            else:
                vy = y
                sy = -1
                slots = sx
                plan = plans[0]
        elif isinstance(x, Tracer):
            return self._with_number(prim, x, y)
        else:
            vx = x
            sx = -1
            vy = y.value
            slots = sy = y.slot
            plan = plans[1]
        if plan is None:
            return self.process(prim, (x, y), None)
        ans = bind(prim, (vx, vy)) if self.level else prim.kernel(vx, vy)
        fix: Any = None
        if not prim.elementwise:
            if vx.dtype is not vy.dtype:
                if vx.dtype is OBJECT or vy.dtype is OBJECT:
                    refuse_objects(prim)
                fix = (aval_of(vx), aval_of(vy))
        elif not (
            (sy < 0 and (type(vy) is float or type(vy) is int)) or (sx < 0 and (type(vx) is float or type(vx) is int))
        ):
            # A Python number neither broadcasts an array nor promotes it; anything else may.
            shape = ans.shape
            dtype = ans.dtype
            try:
                fix_x = sx >= 0 and (vx.shape != shape or vx.dtype is not dtype)
                fix_y = sy >= 0 and (vy.shape != shape or vy.dtype is not dtype)
            except AttributeError:  # a Python number on the tape
                fix_x, fix_y = sx >= 0, sy >= 0
            if fix_x or fix_y:
                if dtype is OBJECT:
                    refuse_objects(prim)
                fix = (aval_of(vx) if fix_x else None, aval_of(vy) if fix_y else None)
        records = self.records
        tracer = _new(TapeTracer)  # a call of the class would cost as much again
        tracer._trace = self
        tracer.value = ans
        tracer.slot = len(records)
        inputs: Any = plan.keeps_none
        if inputs is None:
            wx, wy = plan.inputs
            leaves = self.leaves  # a leaf lives as long as the caller's argument: kept for its shape, it costs nothing
            inputs = (
                (vx if wx == VALUE or 0 <= sx < leaves else aval_of(vx)) if wx else None,
                (vy if wy == VALUE or 0 <= sy < leaves else aval_of(vy)) if wy else None,
            )
        records.append((plan, slots, inputs, ans if plan.answer else None, None, fix))
        frame = _getframe(2)
        tracer.code = frame.f_code
        tracer.lasti = frame.f_lasti
        return tracer

    def _with_number(self, prim: Primitive, x: Any, y: Any) -> Any:
        """`binary` where an argument is a tracer, and none for arrays on this tape: if it stands for a number."""
        vx, sx = (x.value, x.slot) if isinstance(x, TapeTracer) and x._trace is self else (x, -1)
        vy, sy = (y.value, y.slot) if isinstance(y, TapeTracer) and y._trace is self else (y, -1)
        plan = prim.binary_plans[2 if sx >= 0 and sy >= 0 else 0 if sx >= 0 else 1]  # type: ignore[index]
        if self.level or plan is None or (sx < 0 and isinstance(x, Tracer)) or (sy < 0 and isinstance(y, Tracer)):
            return self.process(prim, (x, y), None)
        ans = prim.kernel(vx, vy)
        if getattr(ans, "dtype", OBJECT) is OBJECT:
            refuse_objects(prim)
        fix = (aval_of(vx) if sx >= 0 else None, aval_of(vy) if sy >= 0 else None)
        return self._append(plan, vx, vy, sx, sy, ans, fix, TapeTracer)

    def of_numbers(self, prim: Primitive, x: Any, y: Any) -> Any:
        """`binary` of Python floats and integers, one of them on this tape: a number again.

        None where it is not so, or where that may not be known: then the general way has to be gone.
        """
        plans = prim.binary_plans
        if plans is None or self.level or self.closed:
            return None
        vx, sx = (x.value, x.slot) if type(x) is NumberTapeTracer and x._trace is self else (x, -1)
        vy, sy = (y.value, y.slot) if type(y) is NumberTapeTracer and y._trace is self else (y, -1)
        plan = plans[2 if sx >= 0 and sy >= 0 else 0 if sx >= 0 else 1]
        if plan is None or type(vx) not in _REAL or type(vy) not in _REAL:
            return None
        # Cotangents of real numbers are in double precision, and need not be brought to it.
        return self._append(plan, vx, vy, sx, sy, prim.kernel(vx, vy).item(), None, NumberTapeTracer)

    def _append(
        self, plan: Plan, vx: Any, vy: Any, sx: int, sy: int, ans: Any, fix: Any, kind: type[TapeTracer]
    ) -> TapeTracer:
        """Record an operation with two arguments."""
        inputs = plan.keeps_none
        if inputs is None:
            wx, wy = plan.inputs
            inputs = (_keep(vx, wx), _keep(vy, wy))
        slots = (sx, sy) if sx >= 0 and sy >= 0 else sx if sx >= 0 else sy
        tracer = kind(self, ans, len(self.records))
        self.records.append((plan, slots, inputs, ans if plan.answer else None, None, fix))
        tracer.mark()
        return tracer

    def process(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> Any:
        if self.closed:
            return closed_call(self, prim, args, params)
        values = []
        slots: Any = []
        traced: Any = ()
        nested = self.level > 0
        for i, a in enumerate(args):
            if not isinstance(a, Tracer):
                values.append(a)
                slots.append(-1)
            elif a._trace is self:
                values.append(a.value)  # type: ignore[attr-defined]
                slots.append(a.slot)  # type: ignore[attr-defined]
                traced += (i,)
            else:
                if a._trace.closed:
                    return closed_call(a._trace, prim, args, params)
                values.append(a)
                slots.append(-1)
                nested = True
        if not prim.differentiable:
            return bind(prim, values, params)
        if prim.forward is not None and self.mode == "vjp":
            return self._process_forward(prim, values, slots, traced, params)
        if nested:
            ans = bind(prim, values, params)
        else:
            ans = prim.kernel(*values) if params is None else prim.kernel(*values, **params)
        plan = prim.plans.get((self.mode, traced, len(values)))
        if plan is None:
            plan = prim.plan(self.mode, traced, len(values))
        if plan.keeps_none is not None:
            kept: Any = plan.keeps_none
        elif plan.keeps_all:
            kept = values
        else:
            kept = [v if want == VALUE else _keep(v, want) for v, want in zip(values, plan.inputs, strict=True)]
        if prim.many:
            kept_answers = list(ans) if plan.answer == VALUE else [aval_of(a) for a in ans]
            record = (plan, slots, kept, kept_answers, params, _fix_many(values, traced))
            return self._record_many(record, ans)
        if plan.single is not None:
            slots = slots[plan.argnum]
        want = plan.answer
        kept_ans = ans if want == VALUE else None if not want else _keep(ans, want)
        return self._record((plan, slots, kept, kept_ans, params, _fix(prim, values, traced, ans)), ans)

    def _process_forward(self, prim: Primitive, values: Any, slots: Any, traced: Any, params: Any) -> Any:
        """Record a primitive whose forward pass hands residuals to its joint vjp rule."""
        assert prim.forward is not None
        ans, residuals = prim.forward(traced, *values, **(params or {}))
        plan = prim.plan("residuals", traced, len(values))
        fix = _fix_many(values, traced)
        if prim.many:
            return self._record_many((plan, slots, residuals, [aval_of(a) for a in ans], params, fix), ans)
        return self._record((plan, slots, residuals, ans, params, fix), ans)

    def _record(self, record: Any, ans: Any) -> TapeTracer:
        tracer = TapeTracer(self, ans, len(self.records))
        self.records.append(record)
        tracer.mark()
        return tracer

    def _record_many(self, record: Any, answers: Sequence[Any]) -> tuple[Any, ...]:
        """Record an operation with several answers: one record for it and one for each answer, which
        does nothing but hand its cotangent on. Answers without a derivative are constants."""
        base = len(self.records)
        self.records.append(record)
        out = []
        for k, a in enumerate(answers):
            if dtype_of(a).kind in "fc":
                a = self._record((HAND_ON, (base,), k, len(answers), None, None), a)
                if type(a.value) in (float, complex):
                    a.become_number()
            out.append(a)
        return tuple(out)

    # -- the backward sweep ---------------------------------------------------------------------

    def backward(self, cotangents: dict[int, Any], free: bool) -> list[Any]:
        """Walk from the end to the start.

        Args:
            cotangents: the cotangent of each output, by slot.
            free: whether to drop each record as it is passed. The tape can then not be walked again.

        Returns:
            The cotangent of each leaf; None where the outputs do not depend on it.
        """
        records = self.records if free else self.records.copy()
        cts: list[Any] = [None] * len(records)
        owned: set[int] = set()
        for slot, ct in cotangents.items():
            cts[slot] = ct
        next_record = records.pop
        next_ct = cts.pop
        for _ in range(len(records) - self.leaves):
            record = next_record()
            ct = next_ct()
            if ct is None:
                continue
            if type(ct) is Pending:
                ct = ct.total()
            plan, slots, inputs, ans, params, fix = record
            rule = plan.single
            if rule is not None:
                if params is not None:
                    g = rule(ct, ans, *inputs, **params)
                elif len(inputs) == 1:  # a call without a star costs half as much
                    g = rule(ct, ans, inputs[0])
                else:
                    g = rule(ct, ans, *inputs)
                if cts[slots] is None and fix is None and type(g) is not Scatter:
                    cts[slots] = g
                else:
                    add_to(cts, owned, slots, g if fix is None else match(g, fix[plan.argnum]))
            elif plan is HAND_ON:
                hand_on(cts, record, ct)
            elif plan.joint is not None:
                gs = joint_cotangents(record, ct)
                for argnum in plan.argnums:
                    g = gs[argnum]
                    if g is not None:
                        add_to(cts, owned, slots[argnum], g if fix is None else match(g, fix[argnum]))
            else:
                for argnum, rule in plan.rules:
                    g = rule(ct, ans, *inputs) if params is None else rule(ct, ans, *inputs, **params)
                    slot = slots[argnum]
                    if cts[slot] is None and fix is None and type(g) is not Scatter:
                        cts[slot] = g
                    else:
                        add_to(cts, owned, slot, g if fix is None else match(g, fix[argnum]))
        return [ct.total() if type(ct) is Pending else ct for ct in cts]


class LinearTape(Tape):
    """A tape that records what the jvp rules read, for forward sweeps."""

    __slots__ = ()

    mode = "jvp"
    unary = Trace.unary
    binary = Trace.binary

    def push(self, tangents: dict[int, Any], outputs: Sequence[int]) -> list[Any]:
        """Walk from the start to the end.

        Args:
            tangents: the tangent of each leaf that has one, by slot.
            outputs: the slots whose tangents are wanted; -1 for a constant.

        Returns:
            The tangent of each output; None where it does not depend on the leaves.
        """
        ts: dict[int, Any] = dict(tangents)
        for i, record in enumerate(self.records):
            if record is None:
                continue
            plan, slots, inputs, ans, params, fix = record[:6]
            if plan is HAND_ON:
                whole = ts.get(slots[0])
                if whole is not None and whole[inputs] is not None:
                    ts[i] = whole[inputs]
                continue
            kwargs = params or {}
            if plan.single is not None:
                if slots in ts:
                    t = plan.single(ts[slots], ans, *inputs, **kwargs)
                    ts[i] = t if fix is None else expand(t, fix[-1])
                continue
            if not any(s in ts for s in slots):
                continue
            if plan.joint is not None:
                ts[i] = plan.joint([ts.get(s) for s in slots], ans, *inputs, **kwargs)
                continue
            parts = [rule(ts[slots[k]], ans, *inputs, **kwargs) for k, rule in plan.rules if slots[k] in ts]
            total = parts[0]
            for part in parts[1:]:
                total = total + part
            ts[i] = total if fix is None else expand(total, fix[-1])
        return [ts.get(s) for s in outputs]


#: The plan of a record that stands for one of several answers of the record before it.
HAND_ON = Plan((), None, (), 0, False)


def add_to(cts: list[Any], owned: set[int], slot: int, g: Any) -> None:
    """Add a contribution to the cotangent of a slot; in place only into arrays that were made here."""
    previous = cts[slot]
    if previous is None:
        cts[slot] = Pending(None, g) if type(g) is Scatter else g
    elif type(previous) is _ndarray and type(g) is _ndarray:
        if slot in owned:
            previous += g
        else:
            cts[slot] = previous + g
            owned.add(slot)
    elif type(previous) is Pending:
        previous.add(g)
    elif type(g) is Scatter:
        cts[slot] = Pending(previous, g)
    else:
        cts[slot] = previous + g


def joint_cotangents(record: Any, ct: Any) -> Any:
    """The cotangents of all arguments of an operation that has one rule for them."""
    plan, _, inputs, ans, params, _ = record
    if plan.many:
        ct = [np.zeros(a.shape, a.dtype)[()] if c is None else c for c, a in zip(ct, ans, strict=True)]
    return plan.joint(ct, ans, *inputs) if params is None else plan.joint(ct, ans, *inputs, **params)


def _keep(value: Any, want: int) -> Any:
    return value if want == VALUE else aval_of(value) if want == SHAPE else None


def hand_on(cts: list[Any], record: Any, ct: Any) -> None:
    """Give the cotangent of one of several answers to the record of their operation."""
    _, (base,), k, count, _, _ = record
    if cts[base] is None:
        cts[base] = [None] * count
    cts[base][k] = ct


def _fix(prim: Primitive, values: Any, traced: Any, ans: Any) -> Any:
    """The shape and dtype of each traced argument, and of the answer last, or None where every
    cotangent has them by itself: none was promoted and, of an elementwise operation, none broadcast."""
    try:
        dtype = ans.dtype
        if prim.elementwise:
            shape = ans.shape
            for i in traced:
                v = values[i]
                if v.shape != shape or v.dtype is not dtype:
                    break
            else:
                return None
        else:
            for i in traced:
                if values[i].dtype is not dtype:
                    break
            else:
                return None
    except AttributeError:  # a Python number
        pass
    if getattr(ans, "dtype", OBJECT) is OBJECT:  # an answer without one was an object of such an array
        refuse_objects(prim)
    fix = _fix_many(values, traced)
    fix.append(aval_of(ans))
    return fix


def _fix_many(values: Any, traced: Any) -> list[Any]:
    return [aval_of(v) if i in traced else None for i, v in enumerate(values)]


def match(g: Any, aval: ShapeDtypeStruct | None) -> Any:
    """Bring a cotangent to the shape and dtype of its primal, where they are given: sum over what was broadcast."""
    if aval is None or type(g) is Scatter:
        return g
    shape = g.shape
    if shape != aval.shape:
        lead = len(shape) - len(aval.shape)
        axes = (*range(lead), *[lead + i for i, n in enumerate(aval.shape) if n == 1 and shape[lead + i] != 1])
        g = g.sum(axes).reshape(aval.shape)
    return g if g.dtype == aval.dtype else _in_dtype(g, aval.dtype)


def expand(t: Any, aval: ShapeDtypeStruct) -> Any:
    """Bring a tangent to the shape and dtype of the answer: broadcast and promote."""
    if t.shape != aval.shape:
        t = np.broadcast_to(t, aval.shape)
    return t if t.dtype == aval.dtype else _in_dtype(t, aval.dtype)


def _in_dtype(x: Any, dtype: Any) -> Any:
    """A cotangent or tangent in another dtype: of a complex one what is real of it, where its primal is real."""
    return (x.real if x.dtype.kind == "c" and dtype.kind == "f" else x).astype(dtype)
