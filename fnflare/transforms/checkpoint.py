"""`checkpoint`: keep the inputs of a function instead of its insides, and run it again backward.

A function and its arguments go in. In a program, or with a policy, the function is staged, and its derivative is
the partition of its joint program under that policy. Where all values are known, under tapes and dual numbers
alone, it runs as it is, once without a tape, below all differentiating traces, and one primitive stands for it
whose rule runs it again: Python control flow on values works as it does without. Tracers of the function's closure
become arguments either way, so their gradients are complete.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from fnflare import tree
from fnflare.core import Primitive, alias, aval_of, bind, capture, primitive, substitute, trace_depth, zeros
from fnflare.core.trace import open_traces
from fnflare.program.call import call_program
from fnflare.program.partition import Policy
from fnflare.program.staging import stage
from fnflare.transforms._call import concrete, copy_name, given, is_given_array, name_of
from fnflare.transforms.abstract import eval_shape
from fnflare.transforms.forward import jvp
from fnflare.transforms.policies import nothing_saveable
from fnflare.transforms.reverse import vjp

__all__ = ["checkpoint"]


class _Segment:
    """A function of flat arguments, with the answer of its first run at hand until it is asked for."""

    __slots__ = ("first", "run")

    def __init__(self, run: Callable[..., tuple[Any, ...]], first: Any) -> None:
        self.run = run
        self.first = first

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        if self.first is not None:
            first, self.first = self.first, None
            return first
        return self.run(*args)


def _segment_shape(*avals: Any, segment: _Segment) -> tuple[Any, ...]:
    return eval_shape(segment.run, *avals)


_checkpoint: Primitive = primitive(
    "checkpoint", lambda *args, segment: segment(*args), _segment_shape, many=True, carries="function"
)
_checkpoint.mergeable = False  # what is to be done again must not be kept instead


@_checkpoint.vjp_joint
def _(cts: Any, _ans: Any, *args: Any, segment: _Segment) -> list[Any]:
    _, pullback = vjp(segment.run, *map(alias, args))
    return [g if g.dtype.kind in "fc" else None for g in pullback(tuple(cts))]


@_checkpoint.jvp_joint
def _(ts: Any, _ans: Any, *args: Any, segment: _Segment) -> Any:
    tangents = [zeros(x) if t is None else alias(t) for t, x in zip(ts, args, strict=True)]
    out = jvp(segment.run, [alias(x) for x in args], tangents)[1]
    return [t if t.dtype.kind in "fc" else None for t in out]


def checkpoint(fun: Callable[..., Any] | None = None, *, policy: Policy | None = None) -> Any:
    """A function like `fun` whose derivative costs less memory and more time: only its inputs are
    kept, and it runs again in the backward pass (Chen et al. 2016, "Training deep nets with
    sublinear memory cost").

    Args:
        fun: a pure function of pytrees of arrays. It may close over values that are being
            differentiated with respect to. Left out, a decorator comes back.
        policy: which answers within the function may be stored beside its inputs, by default none:
            ``policy(prim, *avals, **params) -> bool``; see `fnflare.checkpoint_policies`. A function with a policy is
            traced without values, as under `jit`.

    Returns:
        A function with the same arguments and the same answer. Derivatives of any order and in either
        mode are those of `fun`.

    >>> float(ff.grad(ff.checkpoint(lambda x: np.sin(np.sin(x))))(0.0))
    1.0
    """
    if fun is None:
        return functools.partial(checkpoint, policy=policy)
    function = fun

    def run(*args: Any, **kwargs: Any) -> Any:
        if trace_depth() == 0:
            return function(*args, **kwargs)
        leaves, structure = tree.flatten((args, kwargs))
        leaves = [given(x) for x in leaves]
        if policy is None and all(hasattr(t, "lower") for t in open_traces()):
            return _as_written(function, leaves, structure)
        return _staged(function, leaves, structure, policy or nothing_saveable)

    return copy_name(function, run, "checkpoint")


def _as_written(fun: Callable[..., Any], leaves: list[Any], structure: tree.TreeDef) -> Any:
    """Call the function below all tapes, as one operation that remembers how to call it again."""
    arrays = [i for i, x in enumerate(leaves) if is_given_array(x)]
    out_structure: Any = None

    def flat(*values: Any) -> tuple[Any, ...]:
        nonlocal out_structure
        a, k = tree.unflatten(structure, _filled(leaves, arrays, values))
        out, out_structure = tree.flatten(fun(*a, **k))
        return tuple([concrete(x) for x in out])

    inputs = [leaves[i] for i in arrays]
    first, found = capture(flat, inputs)
    again = substitute(flat, found)
    count = len(inputs)
    segment = _Segment(lambda *xs: again(xs[count:], *xs[:count]), first)
    out = bind(_checkpoint, [*inputs, *[alias(t) for t in found]], {"segment": segment})
    return tree.unflatten(out_structure, out)


def _filled(leaves: Sequence[Any], places: Sequence[int], values: Sequence[Any]) -> list[Any]:
    """Leaves with other values at some places."""
    filled = list(leaves)
    for i, value in zip(places, values, strict=True):
        filled[i] = value
    return filled


def _staged(fun: Callable[..., Any], leaves: list[Any], structure: tree.TreeDef, policy: Policy) -> Any:
    """Call the function's program, as one operation whose derivative stores what the policy lets it."""
    arrays = [i for i, x in enumerate(leaves) if is_given_array(x)]
    inputs = [leaves[i] for i in arrays]
    others = _filled(leaves, arrays, [None] * len(arrays))

    def flat(*values: Any) -> Any:
        a, k = tree.unflatten(structure, _filled(others, arrays, values))
        return fun(*a, **k)

    arguments = tree.structure((0,) * len(inputs))
    staged = stage(flat, arguments, [aval_of(x) for x in inputs], name_of(fun))
    out = call_program(staged.program, [*staged.consts, *inputs], whole=True, policy=policy)
    return tree.unflatten(staged.structure, out)
