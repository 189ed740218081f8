"""`custom_vjp` and `custom_jvp`: derivative rules of the user's own.

A function and its rules go in; a function comes out that computes the same and is one primitive to
every trace. Arguments and answers are pytrees; the primitive sees their leaves. In a program it carries the
function as a program too, with what that closes over as its first arguments; the rules are still the user's.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import Primitive, Tracer, aval_of, bind, capture, dtype_of, primitive, trace_depth
from fnflare.errors import ArgumentError, CotangentError, UnsupportedError
from fnflare.program import Program, run, trace_program
from fnflare.transforms._call import concrete, name_of, zeros
from fnflare.transforms.abstract import eval_shape
from fnflare.transforms.reverse import check_cotangent, float0, vjp

__all__ = ["custom_jvp", "custom_vjp"]


class _Call:
    """One call of a custom function: how its flat arguments become the user's, and what it returned."""

    __slots__ = ("arrays", "fixed", "fun", "leaves", "out_structure", "owner", "structure")

    def __init__(self, owner: Any, fun: Callable[..., Any], args: Any, fixed: tuple[Any, ...]) -> None:
        self.owner = owner
        self.fun = fun
        self.fixed = fixed  # the arguments at nondiff_argnums
        leaves, self.structure = tree.flatten(args)
        self.leaves = [concrete(x) for x in leaves]
        self.arrays = [i for i, x in enumerate(self.leaves) if isinstance(x, (np.ndarray, np.generic, float, Tracer))]
        self.out_structure: Any = None

    def inputs(self) -> list[Any]:
        return [self.leaves[i] for i in self.arrays]

    def args(self, values: Sequence[Any]) -> Any:
        filled = list(self.leaves)
        for i, value in zip(self.arrays, values, strict=True):
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
        given = [bound.signature.parameters[name].kind for name in bound.arguments]
        if inspect.Parameter.KEYWORD_ONLY in given or inspect.Parameter.VAR_KEYWORD in given:
            raise ArgumentError(f"{name_of(fun)} has custom rules: keyword-only arguments cannot be passed to it")
        bound.apply_defaults()
        args = bound.args
    fixed = {i % len(args): args[i] for i in nondiff}
    rest = tuple([a for i, a in enumerate(args) if i not in fixed])

    def filled(*values: Any) -> Any:
        it = iter(values)
        return fun(*[fixed[i] if i in fixed else next(it) for i in range(len(args))])

    return rest, tuple([fixed[i] for i in sorted(fixed)]), functools.wraps(fun)(filled) if fixed else fun


# -- in programs --------------------------------------------------------------------------------


def _kernel(*values: Any, call: _Call, program: Program | None = None, consts: int = 0) -> tuple[Any, ...]:
    return call.run(*values) if program is None else tuple(run(program, values))


def _shape(*avals: Any, call: _Call, program: Program | None = None, consts: int = 0) -> Any:
    return eval_shape(call.run, *avals) if program is None else program.out_avals


def _entering(prim: Primitive) -> None:
    """Let the primitive carry a program of the function where a program is made."""

    @prim.entering
    def _(trace: Any, args: Any, *, call: _Call, program: Program | None = None, consts: int = 0) -> Any:
        if program is None:
            traced = trace_program(call.run, [aval_of(x) for x in args], name_of(call.fun), call.fun)
            args = [*traced.captured, *args]
            program, consts = traced.program, len(traced.captured)
        return trace.emit(prim, args, {"call": call, "program": program, "consts": consts})


def _refuse_consts(traced: Sequence[int], consts: int, call: _Call, what: str) -> None:
    if any(i < consts for i in traced):
        raise UnsupportedError(
            f"{what}: {name_of(call.owner.fun)} reads from its closure an array that is differentiated, for which its "
            "rule has no derivative; pass it as another argument"
        )


# -- custom_vjp ---------------------------------------------------------------------------------


def _vjp_forward(
    traced: Any, *args: Any, call: Any, program: Program | None = None, consts: int = 0
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Run the user's forward rule: the answers, and the residuals as the tape keeps them."""
    _refuse_consts(traced, consts, call, "custom_vjp")
    values = args[consts:]
    pair = call.owner._fwd(*call.forward_args(call.args(values)))
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ArgumentError(f"custom_vjp: the forward rule of {name_of(call.fun)} must return a pair (out, residuals)")
    out, residuals = pair
    return call.flat_out(out), (residuals, [aval_of(v) for v in values])


_custom_vjp = primitive("custom_vjp", _kernel, _shape, many=True)
_custom_vjp.residuals(_vjp_forward)
_entering(_custom_vjp)


@_custom_vjp.vjp_joint
def _(cts: Any, _ans: Any, residuals: Any, avals: Any, *, call: Any, program: Any = None, consts: int = 0) -> list[Any]:
    ct = tree.unflatten(call.out_structure, cts)
    back = call.owner._bwd(*call.fixed, residuals, ct)
    if not isinstance(back, tuple) or len(back) != len(call.structure.children):
        raise CotangentError(
            f"custom_vjp: the backward rule of {name_of(call.fun)} must return a tuple of "
            f"{len(call.structure.children)} cotangents, one for each argument, got {type(back).__name__}"
            + (f" of {len(back)}" if isinstance(back, tuple) else "")
        )
    flat = call.flat_like_inputs(back)
    for i, (g, aval) in enumerate(zip(flat, avals, strict=True)):
        if g is not None and np.shape(g) != aval.shape:
            raise CotangentError(
                f"custom_vjp: the backward rule of {name_of(call.fun)} returned a cotangent of shape {np.shape(g)} "
                f"for leaf {i}, which has shape {aval.shape}"
            )
    return [*[None] * consts, *[None if g is None or dtype_of(g) == float0 else concrete(g) for g in flat]]


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

    >>> from fnflare import grad
    >>> @custom_vjp
    ... def clip_gradient(x):
    ...     return x
    >>> clip_gradient.defvjp(lambda x: (x, None), lambda _, ct: (np.clip(ct, -1, 1),))
    >>> float(grad(lambda x: clip_gradient(x) * 10)(1.0))
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
        call = _Call(self, filled, rest, fixed)
        inputs = call.inputs()
        _refuse_closure(call, inputs, "custom_vjp")
        out = bind(_custom_vjp, inputs, {"call": call})
        return tree.unflatten(call.out_structure, out)


def _refuse_closure(call: _Call, inputs: list[Any], what: str) -> None:
    """A rule says nothing of what the function closes over, nor of the arguments at nondiff_argnums: their
    gradient would be lost without a word."""
    cells = getattr(call.owner.fun, "__closure__", None) or ()
    beside = [*tree.leaves(call.fixed), *[c.cell_contents for c in cells if _filled(c)]]
    if any(isinstance(x, Tracer) for x in beside):
        _, found = capture(call.run, inputs)
        if found:
            raise UnsupportedError(
                f"{what}: {name_of(call.owner.fun)} reads a tracer, made {found[0].origin()}, from its closure or from "
                "an argument of nondiff_argnums, for which its rule has no derivative; pass it as another argument"
            )


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018  (an empty cell raises)
    except ValueError:
        return False
    return True


# -- custom_jvp ---------------------------------------------------------------------------------

_custom_jvp = primitive("custom_jvp", _kernel, _shape, many=True)
_entering(_custom_jvp)


def _push(call: Any, values: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """The tangents of the answers, by the user's rule; None for answers that have none, such as integers."""
    primals = call.args(values)
    flat = [np.zeros(np.shape(x), float0) for x in call.leaves]
    for i, x, t in zip(call.arrays, values, tangents, strict=True):
        if dtype_of(x).kind in "fc":
            flat[i] = t
    pair = call.owner._jvp(*call.fixed, primals, tree.unflatten(call.structure, flat))
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ArgumentError(f"custom_jvp: the rule of {name_of(call.fun)} must return a pair (out, tangent)")
    out, tangent = pair
    avals = [aval_of(x) for x in tree.leaves(out)]
    ts = check_cotangent(tangent, tree.structure(out), avals, f"custom_jvp of {name_of(call.fun)}", "the output")
    return [t if aval.dtype.kind in "fc" else None for t, aval in zip(ts, avals, strict=True)]


@_custom_jvp.jvp_joint
def _(ts: Any, _ans: Any, *args: Any, call: Any, program: Any = None, consts: int = 0) -> list[Any]:
    _refuse_consts([i for i, t in enumerate(ts) if t is not None], consts, call, "custom_jvp")
    values = args[consts:]
    return _push(call, values, [zeros(x) if t is None else t for t, x in zip(ts[consts:], values, strict=True)])


@_custom_jvp.vjp_joint
def _(cts: Any, _ans: Any, *args: Any, call: Any, program: Any = None, consts: int = 0) -> list[Any]:
    values = args[consts:]
    # The rule is linear in the tangents: its transpose is its vjp at any tangent, zero say.
    real = [i for i, x in enumerate(values) if dtype_of(x).kind in "fc"]

    def linear(*tangents: Any) -> tuple[Any, ...]:
        full = [zeros(x) for x in values]
        for i, t in zip(real, tangents, strict=True):
            full[i] = t
        return tuple(_push(call, values, full))

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

    >>> from fnflare import grad
    >>> @custom_jvp
    ... def f(x):
    ...     return np.abs(x)
    >>> f.defjvps(lambda t, out, x: t * np.where(x >= 0, 1.0, -1.0))
    >>> float(grad(f)(0.0))
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
        call = _Call(self, filled, rest, fixed)
        inputs = call.inputs()
        _refuse_closure(call, inputs, "custom_jvp")
        out = bind(_custom_jvp, inputs, {"call": call})
        return tree.unflatten(call.out_structure, out)
