"""`custom_vjp` and `custom_jvp`: derivative rules of the user's own.

A function and its rules go in; a function comes out that computes the same and is one primitive to
every trace. Arguments and answers are pytrees; the primitive sees their leaves. In a program it carries the
function as a program too, with what that closes over as its first arguments; the rules are still the user's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import (
    BatchTrace,
    Primitive,
    ShapeDtypeStruct,
    Tracer,
    aval_of,
    bind,
    capture,
    dtype_of,
    move_axis,
    primitive,
    trace_depth,
    zeros,
)
from fnflare.errors import ArgumentError, CotangentError, LeakedTracerError, UnsupportedError
from fnflare.program import Program, evaluate, run, trace_program
from fnflare.program.closures import cell_content
from fnflare.program.derivatives import batched
from fnflare.transforms._batched import batch_traces, lifted, lowered, reopened, unread
from fnflare.transforms._call import concrete, given, is_given_array, name_of
from fnflare.transforms.abstract import eval_shape
from fnflare.transforms.reverse import check_cotangent, float0, vjp

__all__ = ["custom_jvp", "custom_vjp"]


class _Call:
    """One call of a custom function: how its flat arguments become the user's, and what it returned."""

    __slots__ = ("arrays", "fixed", "fun", "leaves", "out_structure", "owner", "structure", "traces")

    def __init__(self, owner: Any, fun: Callable[..., Any], args: Any, fixed: tuple[Any, ...]) -> None:
        self.owner = owner
        self.fun = fun
        self.fixed = fixed  # the arguments at nondiff_argnums
        leaves, self.structure = tree.flatten(args)
        self.leaves = [given(x) for x in leaves]
        self.arrays = [i for i, x in enumerate(self.leaves) if is_given_array(x)]
        self.out_structure: Any = None
        self.traces: list[BatchTrace] = []  # the batching traces that it has still to come through

    def inputs(self) -> list[Any]:
        return [self.leaves[i] for i in self.arrays]

    def bind(self, prim: Primitive) -> Any:
        """The answer, by the primitive, as the user's function returns it."""
        inputs = self.inputs()
        beside = self._beside()
        if beside:
            self._refuse_gradients(prim, inputs, beside)
            inputs += unread(inputs, beside)
        self.traces = batch_traces(inputs)
        out = bind(prim, inputs, {"call": self})
        return tree.unflatten(self.out_structure, out)

    def _beside(self) -> list[Tracer]:
        """The tracers that the function reads beside its arguments: from its closure and at nondiff_argnums."""
        cells = getattr(self.owner.fun, "__closure__", None) or ()
        beside = [*tree.leaves(self.fixed), *map(cell_content, cells)]
        return [x for x in beside if isinstance(x, Tracer)]

    def _refuse_gradients(self, prim: Primitive, inputs: list[Any], beside: list[Tracer]) -> None:
        """A rule says nothing of what the function closes over, nor of the arguments at nondiff_argnums: their
        gradient would be lost without a word."""
        _, found = capture(self.run, inputs)
        if found:
            raise UnsupportedError(
                f"{prim.name}: {name_of(self.owner.fun)} reads a tracer, made {found[0].origin()}, from its closure or "
                "from an argument of nondiff_argnums, for which its rule has no derivative; pass it as another argument"
            )

    def below(self, size: int, axes: Sequence[int | None]) -> _CallOfAll:
        """The same for all examples, below the first of its batching traces."""
        return _CallOfAll(self, self.traces or [BatchTrace(self.fun, size)], axes)

    def args(self, values: Sequence[Any]) -> Any:
        filled = list(self.leaves)
        for i, value in zip(self.arrays, values, strict=False):  # after the arguments may come some that nothing reads
            filled[i] = value
        return tree.unflatten(self.structure, filled)

    def flat_out(self, out: Any) -> tuple[Any, ...]:
        leaves, self.out_structure = tree.flatten(out)
        return tuple([concrete(x) for x in leaves])

    def run(self, *values: Any) -> tuple[Any, ...]:
        return self.flat_out(self.fun(*self.args(values)))

    def forward_args(self, args: tuple[Any, ...]) -> list[Any]:
        """The arguments of the forward rule: the fixed ones back in their places."""
        total = len(args) + len(self.fixed)
        places = sorted(i % total for i in self.owner.nondiff_argnums)
        out = list(args)
        for place, value in zip(places, self.fixed, strict=True):
            out.insert(place, value)
        return out

    def forward(self, *values: Any) -> tuple[tuple[Any, ...], Any]:
        """Run the forward rule of a custom_vjp: the answers, and what `backward` needs."""
        pair = self.owner._fwd(*self.forward_args(self.args(values)))
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise ArgumentError(
                f"custom_vjp: the forward rule of {name_of(self.fun)} must return a pair (out, residuals)"
            )
        out, residuals = pair
        return self.flat_out(out), (residuals, [aval_of(v) for v in values])

    def backward(self, kept: Any, cts: Sequence[Any]) -> list[Any]:
        """Run the backward rule of a custom_vjp: the cotangents of the flat arguments, None for zero."""
        residuals, avals = kept
        back = self.owner._bwd(*self.fixed, residuals, tree.unflatten(self.out_structure, cts))
        if not isinstance(back, tuple) or len(back) != len(self.structure.children):
            raise CotangentError(
                f"custom_vjp: the backward rule of {name_of(self.fun)} must return a tuple of "
                f"{len(self.structure.children)} cotangents, one for each argument, got {type(back).__name__}"
                + (f" of {len(back)}" if isinstance(back, tuple) else "")
            )
        flat = self.flat_like_inputs(back)
        for i, (g, aval) in enumerate(zip(flat, avals, strict=False)):
            if g is not None and np.shape(g) != aval.shape:
                raise CotangentError(
                    f"custom_vjp: the backward rule of {name_of(self.fun)} returned a cotangent of shape {np.shape(g)} "
                    f"for leaf {i}, which has shape {aval.shape}"
                )
        return [None if g is None or dtype_of(g) == float0 else concrete(g) for g in flat]

    def push(self, values: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
        """Run the rule of a custom_jvp: the tangents of the answers; None for answers that have none, such as
        integers."""
        primals = self.args(values)
        flat = [np.zeros(np.shape(x), float0) for x in self.leaves]
        for i, x, t in zip(self.arrays, values, tangents, strict=False):
            if dtype_of(x).kind in "fc":
                flat[i] = t
        pair = self.owner._jvp(*self.fixed, primals, tree.unflatten(self.structure, flat))
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise ArgumentError(f"custom_jvp: the rule of {name_of(self.fun)} must return a pair (out, tangent)")
        out, tangent = pair
        avals = [aval_of(x) for x in tree.leaves(out)]
        ts = check_cotangent(tangent, tree.structure(out), avals, f"custom_jvp of {name_of(self.fun)}", "the output")
        return [t if aval.dtype.kind in "fc" else None for t, aval in zip(ts, avals, strict=True)]

    def flat_like_inputs(self, cts: Any) -> list[Any]:
        """The user's cotangents for the arguments, flat; None where an argument has None."""
        out: list[Any] = [None] * len(self.leaves)
        borders = 0
        arguments = self.structure.children
        for argument, ct in zip(arguments, cts, strict=True):
            if ct is not None:
                leaves, got = tree.flatten(ct)
                if got != argument:
                    raise CotangentError(
                        f"custom_vjp: the backward rule of {name_of(self.fun)} must return a cotangent of structure "
                        f"{argument} or None for an argument, got {got}"
                    )
                out[borders : borders + argument.num_leaves] = leaves
            borders += argument.num_leaves
        return [out[i] for i in self.arrays]


def _bind_arguments(fun: Any, nondiff: tuple[int, ...], args: Any, kwargs: Any) -> tuple[tuple[Any, ...], Any, Any]:
    """The differentiable arguments, the others, and `fun` with the others filled in."""
    if kwargs:
        bound = inspect.signature(fun).bind(*args, **kwargs)
        kinds = [bound.signature.parameters[name].kind for name in bound.arguments]
        if inspect.Parameter.KEYWORD_ONLY in kinds or inspect.Parameter.VAR_KEYWORD in kinds:
            raise ArgumentError(f"{name_of(fun)} has custom rules: keyword-only arguments cannot be passed to it")
        bound.apply_defaults()
        args = bound.args
    fixed = {i % len(args): args[i] for i in nondiff}
    rest = tuple([a for i, a in enumerate(args) if i not in fixed])

    def filled(*values: Any) -> Any:
        it = iter(values)
        return fun(*[fixed[i] if i in fixed else next(it) for i in range(len(args))])

    return rest, tuple([fixed[i] for i in sorted(fixed)]), functools.wraps(fun)(filled) if fixed else fun


class _CallOfAll:
    """A call below the batching trace that it came through: the function and its rules run for all examples."""

    __slots__ = ("axes", "call", "trace", "traces")

    def __init__(self, call: _Call | _CallOfAll, traces: list[BatchTrace], axes: Sequence[int | None]) -> None:
        self.call = call
        self.trace, *self.traces = traces
        self.axes = axes

    @property
    def fun(self) -> Any:
        return self.call.fun

    def below(self, size: int, axes: Sequence[int | None]) -> _CallOfAll:
        return _CallOfAll(self, self.traces or [BatchTrace(self.fun, size)], axes)

    def run(self, *values: Any) -> tuple[Any, ...]:
        with reopened(self.trace):
            return lowered(self.trace, self.call.run(*lifted(self.trace, values, self.axes)))

    def forward(self, *values: Any) -> tuple[tuple[Any, ...], Any]:
        with reopened(self.trace):
            out, kept = self.call.forward(*lifted(self.trace, values, self.axes))
            return lowered(self.trace, out), kept

    def backward(self, kept: Any, cts: Sequence[Any]) -> list[Any]:
        trace = self.trace
        with reopened(trace):
            gs = self.call.backward(kept, lifted(trace, cts, [0] * len(cts)))
            whole = lowered(trace, gs)
        # What all examples share has the sum of their cotangents.
        return [
            None if g is None else np.sum(g, axis=0) if axis is None else move_axis(g, 0, axis)
            for g, axis in zip(whole, self.axes, strict=False)
        ]

    def push(self, values: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
        trace = self.trace
        with reopened(trace):
            ts = self.call.push(lifted(trace, values, self.axes), lifted(trace, tangents, self.axes))
            return list(lowered(trace, ts))


# -- what both kinds share ----------------------------------------------------------------------


def _kernel(*values: Any, call: Any, program: Program | None = None, consts: int = 0) -> tuple[Any, ...]:
    return call.run(*values) if program is None else tuple(run(program, values))


def _shape(*avals: Any, call: Any, program: Program | None = None, consts: int = 0) -> Any:
    return eval_shape(call.run, *avals) if program is None else program.out_avals


def _custom(name: str) -> Primitive:
    """The primitive of functions with rules of one kind, with its ways into programs and through vmap."""
    prim = primitive(name, _kernel, _shape, many=True, carries="function")

    @prim.entering
    def _(trace: Any, args: Any, *, call: Any, program: Program | None = None, consts: int = 0) -> Any:
        if program is None:
            traced = trace_program(call.run, [aval_of(x) for x in args], name_of(call.fun), call.fun)
            args = [*traced.captured, *args]
            program, consts = traced.program, len(traced.captured)
        return trace.emit(prim, args, {"call": call, "program": program, "consts": consts})

    @prim.vmap
    def _(size: int, args: Any, axes: Any, *, call: Any, program: Program | None = None, consts: int = 0) -> Any:
        params = {"call": call.below(size, axes[consts:])}
        if program is not None:
            params |= {"program": _batched_program(program, size, axes), "consts": consts}
        ans = bind(prim, args, params)
        return ans, [0] * len(ans)

    return prim


def _batched_program(program: Program, size: int, axes: Sequence[int | None]) -> Program:
    """The program for all examples, whose arguments have them along the given axes."""
    which = tuple([axis is not None for axis in axes])
    many = batched(program, size, which, tuple(range(len(program.outputs)))).program

    def front(*xs: Any) -> list[Any]:
        return evaluate(many, [x if axis is None else move_axis(x, axis, 0) for x, axis in zip(xs, axes, strict=True)])

    avals = [
        aval if axis is None else ShapeDtypeStruct((*aval.shape[:axis], size, *aval.shape[axis:]), aval.dtype)
        for aval, axis in zip(program.in_avals, axes, strict=True)
    ]
    return trace_program(front, avals, many.name).program


@contextmanager
def _rule_of(call: Any, traced: Iterable[int], consts: int, what: str) -> Iterator[None]:
    """Run the rule of a function for the arguments `traced`, the first `consts` of which it reads from its closure: for
    those it has no derivative, and a rule that reads them too finds the tracers of when the program was made."""
    if any(i < consts for i in traced):
        raise UnsupportedError(
            f"{what}: {name_of(call.fun)} reads from its closure an array that is differentiated, for which its rule "
            "has no derivative; pass it as another argument"
        )
    try:
        yield
    except LeakedTracerError as error:
        if not consts:
            raise
        raise UnsupportedError(
            f"{what}: the rule of {name_of(call.fun)} reads from its closure an array of the function that was traced "
            "around it, which is no more when the rule runs; pass it as another argument"
        ) from error


# -- custom_vjp ---------------------------------------------------------------------------------


_custom_vjp = _custom("custom_vjp")


@_custom_vjp.residuals
def _(traced: Any, *args: Any, call: Any, program: Any = None, consts: int = 0) -> tuple[Any, tuple[Any, ...]]:
    """Run the user's forward rule: the answers, and the residuals as the tape keeps them."""
    with _rule_of(call, traced, consts, "custom_vjp"):
        out, kept = call.forward(*args[consts:])
    return out, (kept,)


@_custom_vjp.vjp_joint
def _(cts: Any, _ans: Any, kept: Any, *, call: Any, program: Any = None, consts: int = 0) -> list[Any]:
    with _rule_of(call, (), consts, "custom_vjp"):
        return [*[None] * consts, *call.backward(kept, cts)]


@_custom_vjp.jvp_joint
def _(ts: Any, _ans: Any, *values: Any, call: Any, **_: Any) -> Any:
    raise UnsupportedError(
        f"{name_of(call.fun)} has a rule for reverse mode only (custom_vjp) and cannot be differentiated in forward "
        "mode; give it a forward rule with ff.custom_jvp, which serves both modes"
    )


class custom_vjp:
    """A function with a reverse-mode rule of the user's own.

    Args:
        fun: the function.
        nondiff_argnums: positions of arguments that have no derivative, such as functions or settings;
            the forward rule gets them in place, the backward rule before its other arguments.

    ``defvjp(fwd, bwd)`` gives the rule: ``fwd`` takes the arguments of `fun` and returns
    ``(out, residuals)``; ``bwd(residuals, ct)`` returns a tuple with one cotangent for each
    differentiable argument, or None for zero.

    >>> @ff.custom_vjp
    ... def clip_gradient(x):
    ...     return x
    >>> clip_gradient.defvjp(lambda x: (x, None), lambda _, ct: (np.clip(ct, -1, 1),))
    >>> float(ff.grad(lambda x: clip_gradient(x) * 10)(1.0))
    1.0
    """

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: Sequence[int] = ()) -> None:
        self.fun = fun
        self.nondiff_argnums = tuple(nondiff_argnums)
        self._fwd: Any = None
        self._bwd: Any = None
        functools.update_wrapper(self, fun)

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Give the forward and the backward rule."""
        self._fwd = fwd
        self._bwd = bwd

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if trace_depth() == 0:
            return self.fun(*args, **kwargs)
        if self._fwd is None:
            raise ArgumentError(f"custom_vjp: {name_of(self.fun)} has no rule yet; call its defvjp(fwd, bwd)")
        rest, fixed, filled = _bind_arguments(self.fun, self.nondiff_argnums, args, kwargs)
        return _Call(self, filled, rest, fixed).bind(_custom_vjp)


# -- custom_jvp ---------------------------------------------------------------------------------

_custom_jvp = _custom("custom_jvp")


@_custom_jvp.jvp_joint
def _(ts: Any, _ans: Any, *args: Any, call: Any, program: Any = None, consts: int = 0) -> list[Any]:
    values = args[consts:]
    with _rule_of(call, [i for i, t in enumerate(ts) if t is not None], consts, "custom_jvp"):
        return call.push(values, [zeros(x) if t is None else t for t, x in zip(ts[consts:], values, strict=True)])


@_custom_jvp.vjp_joint
def _(cts: Any, _ans: Any, *args: Any, call: Any, program: Any = None, consts: int = 0) -> list[Any]:
    values = args[consts:]
    # The rule is linear in the tangents: its transpose is its vjp at any tangent, zero say.
    real = [i for i, x in enumerate(values) if dtype_of(x).kind in "fc"]

    def linear(*tangents: Any) -> tuple[Any, ...]:
        full = [zeros(x) for x in values]
        for i, t in zip(real, tangents, strict=True):
            full[i] = t
        return tuple(call.push(values, full))

    with _rule_of(call, (), consts, "custom_jvp"):
        out, pullback = vjp(linear, *[zeros(values[i]) for i in real])
    back: list[Any] = [None] * len(values)
    ct = tuple([None if t is None else c for c, t in zip(cts, out, strict=True)])
    for i, g in zip(real, pullback(ct), strict=True):
        back[i] = g
    return [*[None] * consts, *back]


class custom_jvp:
    """A function with a derivative rule of the user's own, for both modes.

    Args:
        fun: the function.
        nondiff_argnums: positions of arguments that have no derivative; the rule gets them first.

    ``defjvp(rule)`` gives the rule: ``rule(primals, tangents)`` takes two tuples, one entry for each
    differentiable argument, and returns ``(out, tangent)``, the tangent linear in the tangents.
    Reverse mode transposes it. ``defjvps(*rules)`` gives one rule for each argument instead,
    ``rule(t, out, *primals)``, whose results are summed; None stands for zero.

    >>> @ff.custom_jvp
    ... def f(x):
    ...     return np.abs(x)
    >>> f.defjvps(lambda t, out, x: t * np.where(x >= 0, 1.0, -1.0))
    >>> float(ff.grad(f)(0.0))
    1.0
    """

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: Sequence[int] = ()) -> None:
        self.fun = fun
        self.nondiff_argnums = tuple(nondiff_argnums)
        self._jvp: Any = None
        functools.update_wrapper(self, fun)

    def defjvp(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Give the rule; usable as a decorator."""
        self._jvp = rule
        return rule

    def defjvps(self, *rules: Callable[..., Any] | None) -> None:
        """Give one rule for each argument."""

        if self.nondiff_argnums:
            raise ArgumentError(
                f"custom_jvp: {name_of(self.fun)} has nondiff_argnums, which rules by argument do not get; "
                "give one rule with defjvp"
            )

        def rule(primals: Any, tangents: Any) -> tuple[Any, Any]:
            out = self(*primals)
            parts = [r(t, out, *primals) for r, t in zip(rules, tangents, strict=True) if r is not None]
            total = parts[0] if parts else tree.map(zeros, out)
            for part in parts[1:]:
                total = tree.map(np.add, total, part)
            return out, total

        self._jvp = rule

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if trace_depth() == 0:
            return self.fun(*args, **kwargs)
        if self._jvp is None:
            raise ArgumentError(f"custom_jvp: {name_of(self.fun)} has no rule yet; call its defjvp(rule)")
        rest, fixed, filled = _bind_arguments(self.fun, self.nondiff_argnums, args, kwargs)
        return _Call(self, filled, rest, fixed).bind(_custom_jvp)
