"""The loop that runs until a condition fails, as a primitive that carries condition and body as programs.

Constants of both and carries go in, the last carries come out. Forward mode carries tangents along. Reverse mode
needs the number of turns: where the values are known, under a tape alone, the body is run turn by turn, each
with its residuals kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fnflare.core import ShapeDtypeStruct, Tracer, aval_of, bind, move_axis, primitive, zeros
from fnflare.core.tracer import ValueTracer
from fnflare.errors import UnsupportedError
from fnflare.program.call import call_program, real_among
from fnflare.program.derivatives import batched, pushforward
from fnflare.program.interpreter import run
from fnflare.program.ir import Program
from fnflare.program.partition import partition
from fnflare.program.staging import Staged
from fnflare.program.tracing import evaluate, trace_program

__all__ = ["is_known", "repeat", "while_loop"]


def _apart(args: Sequence[Any], tests: int, consts: int) -> tuple[list[Any], list[Any], list[Any]]:
    """The arguments by what they are: constants of the condition, constants of the body, carries."""
    return list(args[:tests]), list(args[tests : tests + consts]), list(args[tests + consts :])


def _kernel(*args: Any, condition: Program, body: Program, tests: int, consts: int) -> tuple[Any, ...]:
    of_test, of_body, state = _apart(args, tests, consts)
    while run(condition, [*of_test, *state])[0]:
        state = run(body, [*of_body, *state])
    return tuple(state)


def _shape(*avals: Any, condition: Program, body: Program, tests: int, consts: int) -> list[ShapeDtypeStruct]:
    return [ShapeDtypeStruct(a.shape, a.dtype) for a in avals[tests + consts :]]


while_loop = primitive("while_loop", _kernel, _shape, many=True, carries="program")


def repeat(condition: Staged, body: Staged, carry: Sequence[Any]) -> tuple[Any, ...]:
    """Run a staged body while a staged condition holds; returns the leaves of the last value."""
    return _bind(condition.program, body.program, condition.consts, body.consts, carry)


def _bind(condition: Program, body: Program, of_test: Any, of_body: Any, carry: Any) -> tuple[Any, ...]:
    params = {"condition": condition, "body": body, "tests": len(of_test), "consts": len(of_body)}
    return bind(while_loop, [*of_test, *of_body, *carry], params)


def is_known(x: Any) -> bool:
    """Whether a value can be looked at: it is no tracer, or one that has a value."""
    while isinstance(x, ValueTracer):
        x = x.value
    return not isinstance(x, Tracer)


# -- forward mode -------------------------------------------------------------------------------


@while_loop.dual
def _(ts: Any, *args: Any, condition: Program, body: Program, tests: int, consts: int) -> Any:
    of_test, of_body, state = _apart(args, tests, consts)
    _, body_ts, state_ts = _apart(ts, tests, consts)
    moving = tuple([i for i, t in enumerate([*body_ts, *state_ts]) if t is not None])
    pushed, moves = _moving_body(body, moving, consts)
    tangents = dict(enumerate([*body_ts, *state_ts]))
    const_moves = [i for i in moves if i < consts]
    state_moves = [i - consts for i in moves if i >= consts]
    first = [state_ts[k] if state_ts[k] is not None else zeros(state[k]) for k in state_moves]
    out = _bind(
        _ignoring(condition, len(of_test), len(state), [aval_of(t) for t in first]),
        pushed,
        of_test,
        [*of_body, *[tangents[i] for i in const_moves]],
        [*state, *first],
    )
    answer: list[Any] = [None] * len(state)
    for k, t in zip(state_moves, out[len(state) :], strict=True):
        answer[k] = t
    return out[: len(state)], answer


def _moving_body(body: Program, moving: tuple[int, ...], consts: int) -> tuple[Program, tuple[int, ...]]:
    """The body that carries tangents along, its inputs constants, their tangents, carries, their tangents."""

    def make() -> tuple[Program, tuple[int, ...]]:
        moves = moving
        while True:
            pushed = pushforward(body, moves, tuple([i - consts for i in moves if i >= consts]))
            more = {consts + k for k in pushed.moved} - set(moves)
            if not more:
                break
            moves = tuple(sorted({*moves, *more}))
        p, count = pushed.program, len(body.inputs)
        tangents = p.inputs[count:]
        split = len([i for i in moves if i < consts])
        inputs = [*p.inputs[:consts], *tangents[:split], *p.inputs[consts:count], *tangents[split:]]
        return p.replace(inputs=inputs), moves

    return body.derived(("while push", moving, consts), make)


def _ignoring(condition: Program, tests: int, carry: int, more: Sequence[ShapeDtypeStruct]) -> Program:
    """A condition that takes more carries and looks at none of them."""

    def make() -> Program:
        return trace_program(lambda *xs: evaluate(condition, xs[: tests + carry]), [*condition.in_avals, *more]).program

    return condition.derived(("ignoring", tuple(more)), make)


# -- reverse mode -------------------------------------------------------------------------------


@while_loop.residuals
def _(traced: Any, *args: Any, condition: Program, body: Program, tests: int, consts: int) -> Any:
    if not all(map(is_known, args)):
        raise UnsupportedError(
            "while_loop: reverse mode needs the number of turns, which is not known under jit, vmap or another loop; "
            "write ff.scan, ff.fori_loop with known bounds, or use forward mode (ff.jvp, ff.jacfwd)"
        )
    of_test, of_body, state = _apart(args, tests, consts)
    wanted = tuple([i - tests for i in real_among(traced, args) if i >= tests])
    while True:
        part = partition(body, wanted)
        more = {consts + k for k in part.active} - set(wanted)
        if not more:
            break
        wanted = tuple(sorted({*wanted, *more}))
    turns = []
    while evaluate(condition, [*of_test, *state])[0]:
        inputs = [*of_body, *state]
        out = call_program(part.forward, inputs)
        residuals = out[len(state) :]
        turns.append([inputs[i] if kind == "input" else residuals[i] for kind, i in part.reads])
        state = list(out[: len(state)])
    return tuple(state), (part, turns, len(args))


@while_loop.vjp_joint
def _(
    cts: Any, _ans: Any, part: Any, turns: Any, count: int, *, condition: Any, body: Program, tests: int, consts: int
) -> list[Any]:
    gradients: list[Any] = [None] * count
    state = list(cts)
    for read in reversed(turns):
        back = dict(
            zip(part.reached, call_program(part.backward, [*read, *[state[k] for k in part.active]]), strict=True)
        )
        for i, g in back.items():
            if i < consts:
                before = gradients[tests + i]
                gradients[tests + i] = g if before is None else before + g
        state = [back.get(consts + k, np.zeros(a.shape, a.dtype)) for k, a in enumerate(body.out_avals)]
    gradients[tests + consts :] = state
    return gradients


# -- batching -----------------------------------------------------------------------------------


@while_loop.vmap
def _(size: int, args: Any, axes: Any, *, condition: Program, body: Program, tests: int, consts: int) -> Any:
    values = [x if axis is None else move_axis(x, axis, 0) for x, axis in zip(args, axes, strict=True)]
    which = [axis is not None for axis in axes]
    of_test, of_body, state = _apart(values, tests, consts)
    test_which, body_which, state_which = _apart(which, tests, consts)
    while True:
        at_least = tuple([k for k, b in enumerate(state_which) if b])
        stepped = batched(body, size, (*body_which, *state_which), at_least)
        tested = batched(condition, size, (*test_which, *state_which))
        # Where the examples stop at different turns, every carry differs among them.
        wanted = [True] * len(state) if tested.axes[0] == 0 else [axis == 0 for axis in stepped.axes]
        if wanted == state_which:
            break
        state_which = wanted
    state = [
        x if was or not now else np.broadcast_to(x, (size, *np.shape(x)))
        for x, was, now in zip(state, which[tests + consts :], state_which, strict=True)
    ]
    if tested.axes[0] is None:
        out = _bind(tested.program, stepped.program, of_test, of_body, state)
    else:
        programs = _masked(tested.program, stepped.program, len(of_test), len(of_body))
        out = _bind(*programs, of_test, [*of_test, *of_body], state)
    return out, tuple([0 if b else None for b in state_which])


def _masked(condition: Program, body: Program, tests: int, consts: int) -> tuple[Program, Program]:
    """Condition and body of examples that stop at different turns: it runs while one runs, and moves those."""

    def make() -> tuple[Program, Program]:
        state_avals = condition.in_avals[tests:]
        test = trace_program(lambda *xs: [np.any(evaluate(condition, xs)[0])], condition.in_avals).program

        def step(*xs: Any) -> list[Any]:
            of_test, of_body, state = _apart(xs, tests, consts)
            running = evaluate(condition, [*of_test, *state])[0]
            new = evaluate(body, [*of_body, *state])
            return [
                np.where(running.reshape(running.shape + (1,) * (len(n.shape) - 1)), n, o)
                for n, o in zip(new, state, strict=True)
            ]

        avals = [*condition.in_avals[:tests], *body.in_avals[:consts], *state_avals]
        return test, trace_program(step, avals).program

    return condition.derived(("masked", body), make)
