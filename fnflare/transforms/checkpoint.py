"""`checkpoint`: keep the inputs of a function instead of its insides, and run it again backward.

A function and its arguments go in; it runs once without a tape, below all differentiating traces,
and one primitive stands for it whose rule runs it again. Tracers of the function's closure become
arguments of that primitive, so their gradients are complete.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import Primitive, Tracer, alias, bind, capture, primitive, substitute, trace_depth
from fnflare.transforms._call import concrete, copy_name, zeros
from fnflare.transforms.abstract import eval_shape
from fnflare.transforms.forward import jvp
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


_checkpoint: Primitive = primitive("checkpoint", lambda *args, segment: segment(*args), _segment_shape, many=True)
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


def checkpoint(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function like `fun` whose derivative costs less memory and more time: only its inputs are
    kept, and it runs again in the backward pass (Chen et al. 2016, "Training deep nets with
    sublinear memory cost").

    Args:
        fun: a pure function of pytrees of arrays. It may close over values that are being
            differentiated with respect to.

    Returns:
        A function with the same arguments and the same answer. Derivatives of any order and in either
        mode are those of `fun`.

    >>> from fnflare import grad
    >>> float(grad(checkpoint(lambda x: np.sin(np.sin(x))))(0.0))
    1.0
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        if trace_depth() == 0:
            return fun(*args, **kwargs)
        leaves, structure = tree.flatten((args, kwargs))
        leaves = [concrete(x) for x in leaves]
        arrays = [i for i, x in enumerate(leaves) if isinstance(x, (np.ndarray, np.generic, float, Tracer))]
        out_structure: Any = None

        def flat(*values: Any) -> tuple[Any, ...]:
            nonlocal out_structure
            filled = list(leaves)
            for i, value in zip(arrays, values, strict=True):
                filled[i] = value
            a, k = tree.unflatten(structure, filled)
            out, out_structure = tree.flatten(fun(*a, **k))
            return tuple([concrete(x) for x in out])

        inputs = [leaves[i] for i in arrays]
        first, found = capture(flat, inputs)
        again = substitute(flat, found)
        count = len(inputs)
        segment = _Segment(lambda *xs: again(xs[count:], *xs[:count]), first)
        out = bind(_checkpoint, [*inputs, *[alias(t) for t in found]], {"segment": segment})
        return tree.unflatten(out_structure, out)

    return copy_name(fun, run, "checkpoint")
