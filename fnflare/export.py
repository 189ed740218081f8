"""Programs for elsewhere: a function as a library in C that needs nothing but a compiler.

A function and example arguments go in, its program is lowered as for native code, and files come out that can be
compiled and linked without Python: for inference on devices, in servers, in other languages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from fnflare import tree
from fnflare.compiler.c99.standalone import standalone
from fnflare.compiler.lower import lower
from fnflare.compiler.segments import segments
from fnflare.errors import UnsupportedError
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
    from a file: the caller gives it the memory that it computes in. Lengths of sequences that are scanned over are
    arguments, so that one library serves all of them.

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
    >>> import numpy as np
    >>> w = np.ones((3, 2), np.float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = c99(lambda x: np.tanh(x @ w), (np.zeros((5, 3), np.float32),), folder + "/dense.c")
    ...     [f.name for f in files]
    ['dense.c', 'dense.h']
    """
    source = Path(path)
    name = source.stem
    program = make_program(fun, simplify=True)(*args)
    parts = segments(program)
    reasons = [r for p in parts for r in p.reasons]
    if reasons:
        raise UnsupportedError(f"export.c99: {name} cannot be written in C: {'; '.join(reasons)}")
    lowered = parts[0].lowered if len(parts) == 1 else lower(program)
    assert lowered is not None
    outputs = [tree.path_str(p) or "out" for p, _ in tree.leaves_with_path(eval_shape(fun, *args))]
    files = standalone(
        lowered,
        name,
        [n or f"in{k}" for k, n in enumerate(program.input_names)],
        outputs,
        weights,
        [v.aval.shape for v in program.inputs],
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
