"""`make_program`: the program of a function, to look at.

A function and arguments go in, arrays or their shapes; the program that the function is for them comes out,
with inputs that are called after the arguments. Nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import ShapeDtypeStruct, Tracer, aval_of
from fnflare.program import Program, trace_program
from fnflare.program import simplify as simplified
from fnflare.transforms._call import Argnames, Argnums, copy_name
from fnflare.transforms._static import argument_names, static_arguments

__all__ = ["make_program"]

#: What a program has as inputs and outputs; Python numbers are among them.
_ARRAYS = (np.ndarray, np.generic, Tracer, ShapeDtypeStruct, bool, int, float, complex)


def make_program(
    fun: Callable[..., Any],
    static_argnums: Argnums | None = (),
    static_argnames: Argnames = (),
    *,
    simplify: bool = False,
) -> Callable[..., Program]:
    """A function that returns the program that `fun` is for its arguments.

    Args:
        fun: a function of pytrees of arrays; it may have come from another transform.
        static_argnums: positional arguments that `fun` gets as they are, since it needs their values.
        static_argnames: the same by name.
        simplify: whether the program is simplified (see `fnflare.program.simplify`), as it is before it is run. By
            default it is what `fun` does, step by step.

    Returns:
        A function with the arguments of `fun` that returns a `Program`: print it, or let a notebook draw it.
        The arguments are arrays, Python numbers, whose dtype gives way to that of arrays, or
        `ShapeDtypeStruct`s, which stand for arrays; leaves that are none of these, such as strings, reach `fun` as
        they are. The inputs of the program are the arrays among the arguments, its outputs those of the answer.
        Where it is called inside of another transform, of which `fun` uses values, these are the first inputs, with
        the names ``captured/0`` and so on.

    Raises:
        ConcretizationError: `fun` needs the value of an array, in a Python ``if`` say.
        ArgumentError: `fun` has no such argument as is to be static.

    >>> def loss(params, x):
    ...     return np.mean(np.tanh(x @ params["w"] + params["b"]) ** 2)
    >>> ff.make_program(loss)({"w": np.ones(3, np.float32), "b": 0.0}, ff.ShapeDtypeStruct((8, 3), np.float32))
    program loss(params/b: float, params/w: float32[3], x: float32[8,3]):
        a: float32[8] = matmul x params/w
        b: float32[8] = add a params/b
        c: float32[8] = tanh b
        d: float32[8] = square c
        e: float32[] = sum[axes=(0,) keepdims=False] d
        f: float32[] = divide e 8
        return f
    """
    numbers, names = static_arguments("make_program", fun, static_argnums, static_argnames)

    def make(*args: Any, **kwargs: Any) -> Program:
        traced_args = {i: x for i, x in enumerate(args) if i not in numbers}
        traced_kwargs = {name: x for name, x in kwargs.items() if name not in names}
        pairs, structure = tree.flatten_with_path((traced_args, traced_kwargs))
        arrays = [i for i, (_, x) in enumerate(pairs) if isinstance(x, _ARRAYS)]

        def flat(*tracers: Any) -> list[Any]:
            leaves = [x for _, x in pairs]
            for i, tracer in zip(arrays, tracers, strict=True):
                leaves[i] = tracer
            a, k = tree.unflatten(structure, leaves)
            out = fun(*[a.get(i, x) for i, x in enumerate(args)], **{**kwargs, **k})
            return [x for x in tree.leaves(out) if isinstance(x, _ARRAYS)]

        avals = [aval_of(pairs[i][1]) for i in arrays]
        traced = trace_program(flat, avals, getattr(fun, "__name__", ""), fun)
        called = argument_names(fun, len(args))
        own = [_input_name(pairs[i][0], called) for i in arrays]
        captured = [f"captured/{i}" for i in range(len(traced.captured))]
        program = traced.program.replace(input_names=[*captured, *own])
        return simplified(program) if simplify else program

    return copy_name(fun, make, "make_program")


def _input_name(path: tree.Path, called: list[str]) -> str:
    """What an input is called whose path starts with 0 and a position, or with 1 and a keyword."""
    kind, argument, *rest = path
    return tree.path_str((called[argument] if kind == 0 else argument, *rest))
