"""`vmap`: a function of one example as a function of many.

A function and axes go in. The mapped arguments are laid on a batching trace, along whose axes the
examples lie, the function runs once, and every primitive does the work of all examples in one call.
What comes out has the axis of the examples where `out_axes` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import BatchTrace, Tracer, move_axis, run_observed
from fnflare.errors import ArgumentError, DtypeError, ShapeError, TreeError
from fnflare.transforms._call import copy_name, name_of, path_name

__all__ = ["vmap"]


def vmap(
    fun: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """A function that does for many examples at once what `fun` does for one.

    Args:
        fun: a function of pytrees of arrays.
        in_axes: along which axis of the arguments the examples lie: an int for all of them, None where every
            example shares the argument, or a tuple with one entry for each positional argument, an int,
            None or a tree of them that is a prefix of the argument. Negative axes count from the end.
            Keyword arguments are always mapped along axis 0.
        out_axes: where the axis of the examples goes in what is returned: an int, None for what is the same
            for every example, or a tree of them that is a prefix of the output.
        axis_size: the number of examples; needed only where no argument is mapped.
        chunk_size: the largest number of examples to do at once. Where there are more, they are done one chunk
            after another, and the answers are concatenated: the same, in less memory.

    Returns:
        A function with the arguments of `fun`, each mapped array with one axis more.

    Raises:
        ShapeError: the mapped arguments do not have one number of examples, or an array lacks the axis.
        ArgumentError: `in_axes` or `out_axes` does not fit, or nothing is mapped and `axis_size` is not given.

    >>> dot = lambda x, y: np.sum(x * y)
    >>> ff.vmap(dot, in_axes=(0, None))(np.eye(2), np.array([3.0, 4.0]))
    array([3., 4.])
    """
    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    _check_axes(in_axes, "in_axes")
    _check_axes(out_axes, "out_axes")
    if chunk_size is not None and chunk_size < 1:
        raise ArgumentError(f"vmap: chunk_size must be at least 1, got {chunk_size}")

    def run(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = tree.flatten((args, kwargs))
        axes, size = mapped_axes(in_axes, args, kwargs, axis_size, fun)
        step = size if chunk_size is None else chunk_size
        parts = []
        for start in range(0, size, step) if size else (0,):
            count = min(step, size - start)
            part = leaves
            if count < size:
                part = [examples(x, a, slice(start, start + count)) for x, a in zip(leaves, axes, strict=True)]
            values, out_structure, places = run_observed(_run, fun, structure, part, axes, count, out_axes)
            parts.append(values)
        out = [_whole([p[i] for p in parts], place) for i, place in enumerate(places)]
        return tree.unflatten(out_structure, out)

    return copy_name(fun, run, "vmap")


#: Stands for None among axes, where None would be an empty node.
_SHARED = object()


def _is_none(x: Any) -> bool:
    return x is None


def _is_axis(x: Any) -> bool:
    return x is None or (isinstance(x, (int, np.integer)) and not isinstance(x, bool))


def _check_axes(axes: Any, what: str) -> None:
    wrong = [x for x in tree.leaves(axes, is_leaf=_is_none) if not _is_axis(x)]
    if wrong:
        raise ArgumentError(f"vmap: {what} must be an int, None, or a tree of them, got {wrong[0]!r} in {axes!r}")


def _spread(axes: Any, of: Any, what: str) -> list[Any]:
    """An axis for each leaf of a tree."""
    if _is_axis(axes):
        return [axes] * len(tree.leaves(of))
    axes = tree.map(lambda a: _SHARED if a is None else a, axes, is_leaf=_is_none)
    try:
        spread = tree.leaves(tree.broadcast(axes, of))
    except TreeError as error:
        raise ArgumentError(f"vmap: {what}: {error}") from None
    return [None if a is _SHARED else a for a in spread]


def _axes_of_arguments(in_axes: Any, args: tuple[Any, ...], fun: Any) -> list[Any]:
    """An axis for each leaf of the positional arguments."""
    if not isinstance(in_axes, tuple):
        if not _is_axis(in_axes):
            raise ArgumentError(
                f"vmap: in_axes must be an int, None, or a tuple with one entry an argument: {in_axes!r}"
            )
        return [in_axes] * len(tree.leaves(args))
    if len(in_axes) != len(args):
        raise ArgumentError(
            f"vmap: in_axes has {len(in_axes)} entries, but {name_of(fun)} was called with {len(args)} positional "
            "arguments; give one entry for each, and none for keyword arguments"
        )
    out = []
    for i, (axes, arg) in enumerate(zip(in_axes, args, strict=True)):
        out += _spread(axes, arg, f"in_axes of argument {i} must be a prefix of it")
    return out


def _names(given: tuple[tuple[Any, ...], dict[str, Any]]) -> list[str]:
    """How a message names each leaf of the arguments."""
    args, kwargs = given
    pairs: list[tuple[int | str, Any]] = [*enumerate(args), *[(k, kwargs[k]) for k in sorted(kwargs)]]
    return [path_name(name, path) for name, arg in pairs for path, _ in tree.leaves_with_path(arg)]


def mapped_axes(
    in_axes: Any, args: tuple[Any, ...], kwargs: dict[str, Any], axis_size: int | None, fun: Any
) -> tuple[list[Any], int]:
    """The axis of the examples in each leaf of ``(args, kwargs)``, counted from 0, and the number of examples."""
    given = args, kwargs
    leaves = tree.leaves(given)
    axes = [*_axes_of_arguments(in_axes, args, fun), *[0] * len(tree.leaves(kwargs))]
    out: list[Any] = []
    sizes: dict[int, int] = {}
    for i, (x, axis) in enumerate(zip(leaves, axes, strict=True)):
        if axis is None:
            out.append(None)
            continue
        if not isinstance(x, (np.ndarray, Tracer, np.generic, int, float, complex)):
            raise DtypeError(
                f"vmap: {_names(given)[i]} is a {type(x).__name__}, which cannot be mapped along axis {axis}; "
                "give it None in in_axes"
            )
        shape = np.shape(x)
        if not -len(shape) <= axis < len(shape):
            raise ShapeError(
                f"vmap: {_names(given)[i]} cannot be mapped along axis {axis}: its shape is {shape}; "
                "give it None in in_axes if every example shares it"
            )
        out.append(int(axis) % len(shape))
        sizes[i] = shape[axis]
    found = {*sizes.values(), *([] if axis_size is None else [axis_size])}
    if len(found) == 1:
        return out, found.pop()
    if not found:
        raise ArgumentError(
            f"vmap: no argument of {name_of(fun)} is mapped; give one of them an axis in in_axes, or give axis_size"
        )
    names = _names(given)
    lines = [f"{names[i]}: axis {out[i]} has {n}" for i, n in sizes.items()]
    if axis_size is not None:
        lines.append(f"axis_size is {axis_size}")
    raise ShapeError(f"vmap: all mapped axes of {name_of(fun)} must have one size, got\n  " + "\n  ".join(lines))


def examples(x: Any, axis: int | None, which: Any) -> Any:
    """An example, or a slice of them, of an argument."""
    return x if axis is None else x[(*[slice(None)] * axis, which)]


def _run(
    fun: Any, structure: tree.TreeDef, leaves: Sequence[Any], axes: Sequence[Any], size: int, out_axes: Any
) -> tuple[list[Any], tree.TreeDef, list[Any]]:
    """All examples at once: the leaves of the output, its structure, and the axis of the examples in each."""
    trace = BatchTrace(fun, size)
    with trace:
        lifted = [x if axis is None else trace.tracer(x, axis) for x, axis in zip(leaves, axes, strict=True)]
        args, kwargs = tree.unflatten(structure, lifted)
        out = fun(*args, **kwargs)
    out_leaves, out_structure = tree.flatten(out)
    wanted = _spread(out_axes, out, "out_axes must be a prefix of the output")
    values, places = [], []
    for i, (x, axis) in enumerate(zip(out_leaves, wanted, strict=True)):
        value, place = _placed(*trace.below(x), axis, size, out, i)
        values.append(value)
        places.append(place)
    return values, out_structure, places


def _placed(x: Any, have: int | None, want: int | None, size: int, out: Any, i: int) -> tuple[Any, int | None]:
    """A leaf of the output with the examples along the axis that is wanted, and that axis counted from 0."""
    if want is None:
        if have is not None:
            raise ArgumentError(
                f"vmap: {_out_name(out, i)} differs from example to example, but its out_axes is None; give it an axis"
            )
        return x, None
    if have is None and not isinstance(x, (np.ndarray, Tracer, np.generic, int, float, complex)):
        raise DtypeError(
            f"vmap: {_out_name(out, i)} is a {type(x).__name__}, which has no axes; give it None in out_axes"
        )
    shape = np.shape(x)
    ndim = len(shape) + (have is None)
    if not -ndim <= want < ndim:
        raise ShapeError(
            f"vmap: {_out_name(out, i)} has {ndim} axes with that of the examples, so out_axes cannot be {want}"
        )
    want = int(want) % ndim
    if have is not None:
        return move_axis(x, have, want), want
    return np.broadcast_to(np.expand_dims(x, want), (*shape[:want], size, *shape[want:])), want


def _out_name(out: Any, i: int) -> str:
    path = tree.leaves_with_path(out)[i][0]
    return f"the output, leaf {tree.path_str(path)!r}," if path else "the output"


def _whole(parts: list[Any], axis: int | None) -> Any:
    """The answer of all chunks, in memory of its own where it was broadcast, which is read-only."""
    x = parts[0]
    if axis is None or len(parts) == 1:
        return x.copy() if type(x) is np.ndarray and not x.flags.writeable else x
    return np.concatenate(parts, axis)
