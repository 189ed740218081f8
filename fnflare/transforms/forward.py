"""Forward mode: `jvp` and `linearize`.

`jvp` runs a function once on dual numbers. `linearize` runs it once on a tape that keeps what the
jvp rules read, and gives the linear map that pushes any number of tangents through that tape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import DualTrace, DualTracer, aval_of, new_linear_tape, run_observed
from fnflare.core.aval import in_native_order
from fnflare.errors import ArgumentError
from fnflare.program import run_ahead
from fnflare.transforms._call import concrete, given, name_of
from fnflare.transforms._record import is_real, record
from fnflare.transforms.reverse import check_cotangent, float0

__all__ = ["jvp", "linearize"]


def jvp(fun: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], has_aux: bool = False) -> Any:
    """The value of `fun` and its directional derivative.

    Args:
        fun: a function of pytrees of arrays.
        primals: the point: a tuple or list with one pytree for each argument.
        tangents: the direction: the same structure, shapes and dtypes. What is given for an integer
            leaf is not read.
        has_aux: whether `fun` returns ``(out, aux)``.

    Returns:
        ``(out, tangent)`` or ``(out, tangent, aux)``; the tangent has the structure, shapes and dtypes
        of `out`, with float0 for integers.

    Raises:
        CotangentError: a tangent does not fit its primal.

    >>> out, tangent = ff.jvp(np.sin, (0.0,), (1.0,))
    >>> float(out), float(tangent)
    (0.0, 1.0)
    """
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise ArgumentError(f"jvp: primals and tangents must be tuples, one entry for each argument of {name_of(fun)}")
    return run_observed(_jvp, fun, tuple(primals), tuple(tangents), has_aux)


def _jvp(fun: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...], has_aux: bool) -> Any:
    leaves, structure = tree.flatten(primals)
    leaves = [given(x) for x in leaves]
    ts = check_cotangent(tangents, structure, [aval_of(x) for x in leaves], "jvp: a tangent", "its primal")
    trace = DualTrace(fun)
    with trace:
        pairs = zip(map(in_native_order, leaves), map(in_native_order, ts), strict=True)
        lifted = [DualTracer(trace, x, t) if is_real(x) else x for x, t in pairs]
        out = run_ahead(fun, tree.unflatten(structure, lifted), {}, [x for x in leaves if is_real(x)])
    aux = None
    if has_aux:
        out, aux = out
        aux = tree.map(trace.lower, aux)
    value = tree.map(lambda x: concrete(trace.lower(x)), out)
    tangent = tree.map(lambda x: _tangent(trace.tangent_of(x), trace.lower(x)), out)
    return (value, tangent, aux) if has_aux else (value, tangent)


def _tangent(t: Any, value: Any) -> Any:
    if t is not None:
        return t
    aval = aval_of(value)
    return np.zeros(aval.shape, aval.dtype if aval.dtype.kind in "fc" else float0)[()]


def linearize(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of `fun` and its derivative at a point as a linear function of tangents.

    Args:
        fun: a function of pytrees of arrays.
        *primals: the point.
        has_aux: whether `fun` returns ``(out, aux)``.

    Returns:
        ``(out, pushforward)`` or ``(out, pushforward, aux)``. ``pushforward(*tangents)`` is the tangent
        that `jvp` would give, without running `fun` again; it may be called any number of times.

    >>> out, pushforward = ff.linearize(np.sin, 0.0)
    >>> float(pushforward(2.0))
    2.0
    """
    tape = new_linear_tape(fun)
    run = record(tape, fun, primals, has_aux)
    avals = [aval_of(x) for x in run.leaves]

    def pushforward(*tangents: Any) -> Any:
        ts = check_cotangent(tangents, run.structure, avals, "linearize: a tangent", "its primal")
        pushed = tape.push({s: t for s, t in zip(run.slots, ts, strict=True) if s >= 0}, run.out_slots)
        return tree.unflatten(run.out_structure, [_tangent(t, v) for t, v in zip(pushed, run.values, strict=True)])

    return (run.out(), pushforward, run.aux) if has_aux else (run.out(), pushforward)
