"""Simplifying ahead of differentiation, where a program is being made.

A call inside a differentiating transform goes in. If a program is being made underneath (``jit(grad(f))``), the
function is traced to a program of its own first, which is simplified and run through the transform's trace, so that
derivatives are taken of ``log_softmax`` and not of the ``log`` of a ``softmax`` that has underflowed. Anywhere else
the function simply runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fnflare import tree
from fnflare.core import Tracer
from fnflare.program.simplify import simplify
from fnflare.program.tracing import ProgramTracer, evaluate, trace_program

__all__ = ["run_ahead"]


def run_ahead(fun: Callable[..., Any], args: Any, kwargs: dict[str, Any], primals: Sequence[Any]) -> Any:
    """``fun(*args, **kwargs)``, simplified before it is differentiated if a program is being made of it.

    Args:
        fun: the user's function. Where it calls functions with derivative rules of their own, which may read what it
            computes around them, it is called again and simply runs.
        args, kwargs: its arguments: anything, with tracers of the transform among them.
        primals: what the transform differentiates with respect to, below its trace. Where one of them has a value,
            the function may branch on it, and simply runs.

    Returns:
        What the function returns, with tracers of the transform in the place of those that it made.
    """
    if not primals or not all(_is_abstract(x) for x in primals):
        return fun(*args, **kwargs)
    out: list[Any] = []
    structure: Any = None

    def flat() -> list[Any]:
        nonlocal out, structure
        out, structure = tree.flatten(fun(*args, **kwargs))
        return [x for x in out if isinstance(x, Tracer)]

    # The arguments come in like whatever else the function reads from around it: when it first touches them.
    traced = trace_program(flat, (), of=fun)
    if any(e.prim.carries == "function" for e in traced.program.equations):
        return fun(*args, **kwargs)
    answers = iter(evaluate(simplify(traced.program), traced.captured))
    return tree.unflatten(structure, [next(answers) if isinstance(x, Tracer) else x for x in out])


def _is_abstract(x: Any) -> bool:
    """Whether a value is, below all other transforms, a variable of a program that is being made."""
    while hasattr(x, "value"):
        x = x.value
    return isinstance(x, ProgramTracer)
