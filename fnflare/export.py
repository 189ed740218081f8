"""Programs for elsewhere: a function as a library in C that needs nothing but a compiler.

A function and example arguments go in, its program is lowered as for native code, and files come out that can be
compiled and linked without Python: for inference on devices, in servers, in other languages.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

import numpy as np

from fnflare import tree
from fnflare.compiler.block import NotLowered
from fnflare.compiler.c99.standalone import standalone
from fnflare.compiler.generic_key import generic_key
from fnflare.compiler.layout import evaluate
from fnflare.compiler.lower import lower
from fnflare.compiler.naming import of_input
from fnflare.compiler.segments import segments
from fnflare.compiler.sizes import Sizes, symbolic_shapes
from fnflare.core import ShapeDtypeStruct, aval_of
from fnflare.errors import FnflareError, UnsupportedError
from fnflare.nest import Size
from fnflare.program import Program
from fnflare.transforms import eval_shape, make_program

__all__ = ["c99"]


def c99(
    fun: Callable[..., Any],
    args: Sequence[Any],
    path: str | Path,
    *,
    weights: Literal["inside", "file"] = "inside",
) -> list[Path]:
    """Write a function as a library in C99: a header, a source, and its weights.

    What `fun` closes over, such as the parameters of a model, are the weights; its arguments are the arguments of
    the function in C. The library needs no other than libm, allocates nothing and keeps no state beside weights read
    from a file: the caller gives it the memory that it computes in.

    All sizes are those of the example arguments, but for the lengths of sequences that are scanned over: these are
    arguments, so that one library serves all of them, if the function does the same at other lengths. One that
    divides by the length, say, is written for the length of the example alone, and so is one for a single step.

    Args:
        fun: a pure function of pytrees of arrays.
        args: arguments for it, or `ShapeDtypeStruct`s in place of their arrays.
        path: where to write the source, such as ``"net.c"``; the header ``net.h`` is written beside it. The name of
            the function is that of the file.
        weights: whether they stand in the source ("inside"), or in ``net.weights`` beside it, which ``net_load`` reads
            ("file").

    Returns:
        The files that were written, the source first.

    Raises:
        UnsupportedError: something that the function does has no lowering to C; it is named.
        ArgumentError: the name of the file is no identifier of C.

    >>> import tempfile
    >>> w = np.ones((3, 2), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = ff.export.c99(lambda x: np.tanh(x @ w), (np.zeros((5, 3), np.float32),), folder + "/dense.c")
    ...     [f.name for f in files]
    ['dense.c', 'dense.h']
    """
    source = Path(path)
    name = source.stem
    program = make_program(fun, simplify=True)(*args)
    sizes = _sizes(fun, args, program)
    try:
        lowered = lower(program, sizes, {id(a): of_input(n) for n, a in _arrays(fun)})
    except NotLowered as error:
        reasons = list(dict.fromkeys([r for s in segments(program) for r in s.reasons])) or [str(error)]
        raise UnsupportedError(f"export.c99: {name} cannot be written in C: {'; '.join(reasons)}") from None
    outputs = [tree.path_str(p) or "out" for p, _ in tree.leaves_with_path(eval_shape(fun, *args))]
    files = standalone(
        lowered,
        name,
        [n or f"in{k}" for k, n in enumerate(program.input_names)],
        outputs,
        weights,
        [sizes.shape(v) for v in program.inputs],
    )
    written = []
    for file, content in files.items():
        target = source.parent / (source.name if file == f"{name}.c" else file)
        if isinstance(content, bytes):
            target.write_bytes(content)
        else:
            target.write_text(content)
        written.append(target)
    return sorted(written, key=lambda p: p != source)


# -- lengths -----------------------------------------------------------------------------------------


def _sizes(fun: Callable[..., Any], args: Sequence[Any], program: Program) -> Sizes:
    """The sizes of a program: symbols where other lengths give the same program, numbers where they do not."""
    sizes = symbolic_shapes(program)
    known = {size: program.inputs[number].aval.shape[axis] for size, number, axis in sizes.sizes}
    key = generic_key(program, sizes)
    for longer in (1, 2) if known else ():
        values = {s: longer * n + 1 + k for k, (s, n) in enumerate(known.items())}
        if key is None or _key_at(fun, args, program, sizes, values) != key:
            return symbolic_shapes(program, numbers=True)
    return sizes


def _key_at(
    fun: Callable[..., Any], args: Sequence[Any], program: Program, sizes: Sizes, values: dict[Size, int]
) -> str | None:
    """The key of the program at other lengths; None where the function does not take them."""
    shapes = iter([tuple([evaluate(n, values) for n in sizes.shape(v)]) for v in program.inputs])

    def longer(x: Any) -> Any:
        if not isinstance(x, (np.ndarray, np.generic, ShapeDtypeStruct, bool, int, float, complex)):
            return x
        shape = next(shapes)
        return ShapeDtypeStruct(shape, aval_of(x).dtype) if shape else x

    try:
        other = make_program(fun, simplify=True)(*tree.map(longer, tuple(args)))
    except (FnflareError, ValueError):
        return None
    return generic_key(other, symbolic_shapes(other))


# -- names -------------------------------------------------------------------------------------------


def _arrays(fun: Any) -> Iterator[tuple[str, Any]]:
    """The arrays that a function closes over, with paths that begin with the names of its variables."""
    if isinstance(fun, functools.partial):
        yield from _arrays(fun.func)
        found: dict[str, Any] = {**{str(k): v for k, v in enumerate(fun.args)}, **fun.keywords}
    elif isinstance(fun, FunctionType):
        variables = inspect.getclosurevars(fun)
        found = {**variables.globals, **variables.nonlocals}
    else:
        return
    for variable, value in found.items():
        for path, leaf in tree.leaves_with_path(value):
            if isinstance(leaf, np.ndarray):
                yield tree.path_str((variable, *path)), leaf
