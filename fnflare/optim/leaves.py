"""How an update rule runs over the leaves of pytrees.

A rule is written once, as plain arithmetic on one leaf: ``kernel(g, mu, nu, b1, b2) -> (update, mu, nu)``.
`map_leaves` carries it over whole trees and checks that they fit together. `tiled` runs it over a large array
piece by piece: every temporary of the expression then stays in the cache and is handed from one operation to
the next, which is what writing into preallocated buffers would buy, without a second description of the maths
and without touching anybody's array. Tracers, scalars and small arrays take the expression as it is.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import is_tracer
from fnflare.errors import ArgumentError, DtypeError, ShapeError, TreeError

__all__ = [
    "abs_sq",
    "check_decay",
    "copied",
    "dtype_of",
    "filled",
    "float_dtype",
    "is_nonzero",
    "leaves_like",
    "map_leaves",
    "reject_complex",
    "tiled",
    "weak",
    "weak_at",
]

Kernel = Callable[..., tuple[Any, ...]]

# Elements of one piece: 128 KiB of float32. The handful of temporaries of a rule fit in a core's second-level
# cache, and a call's overhead (about half a microsecond) is small beside the work on a piece.
TILE = 2**15
# Elements up to which temporaries are cheap, and results need no memory laid out for them.
SMALL = 2**12


def weak(value: Any, dtype: Any = None) -> Any:
    """A number that does not widen the arrays it meets.

    NumPy's own scalars are strong: a float64 step size would turn float32 parameters into float64. Python's
    floats are not. A tracer cannot become a float, so it takes on `dtype` instead.
    """
    if isinstance(value, (float, int, np.generic, np.ndarray)):
        return float(value)
    return value if dtype is None else value.astype(dtype)


def weak_at(value: Any, count: Any) -> Any:
    """A number, or what a schedule is at a step, as `weak` has it."""
    return weak(value(count) if callable(value) else value)


def dtype_of(leaf: Any) -> np.dtype:
    """The dtype of an array, a tracer or a number."""
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def reject_complex(who: str, updates: Any) -> None:
    """Raises DtypeError where there is a complex array, for rules that ask which of two elements is greater."""
    for path, leaf in tree.leaves_with_path(updates):
        if dtype_of(leaf).kind == "c":
            raise DtypeError(
                f"{who}: the array at {tree.path_str(path)!r} is complex, of which no element is greater than another; "
                "write split_real_and_imaginary(...) around the rule"
            )


def abs_sq(x: Any) -> Any:
    """The squared sizes of the elements, real numbers also where these are complex."""
    if getattr(x, "dtype", None) is None or x.dtype.kind != "c":
        return x * x
    return x.real * x.real + x.imag * x.imag


def filled(params: Any, value: float, dtype: Any = None) -> Any:
    """Arrays of the shapes of the parameters that hold one value, in a given dtype or the parameters'."""
    return tree.map(lambda p: np.full_like(p, value, dtype=dtype), params)


def copied(params: Any) -> Any:
    """The parameters in memory of their own, which a step that may overwrite the parameters leaves alone."""
    return tree.map(lambda p: p if is_tracer(p) else np.array(p), params)


def float_dtype(params: Any) -> np.dtype:
    """The dtype to which the parameters' floats promote, or the parts of complex ones; float32 where there are none."""
    dtypes = [dtype_of(leaf) for leaf in tree.leaves(params)]
    floats = [np.zeros(0, dtype).real.dtype for dtype in dtypes if dtype.kind in "fc"]
    return np.result_type(*floats) if floats else np.dtype(np.float32)


def is_nonzero(value: Any) -> bool:
    """Whether a hyperparameter may differ from zero; one that is traced may."""
    return is_tracer(value) or bool(value != 0)


def check_decay(who: str, **rates: Any) -> None:
    """Raises ArgumentError unless each rate is in [0, 1)."""
    for name, rate in rates.items():
        if isinstance(rate, (float, int, np.generic)) and not 0 <= float(rate) < 1:
            raise ArgumentError(f"{who}: {name} must be at least 0 and less than 1, got {rate!r}")


def tiled(kernel: Kernel) -> Kernel:
    """Let an elementwise kernel take large arrays piece by piece.

    Args:
        kernel: takes arrays of one shape, then Python floats; returns a tuple of arrays of that shape and of the
            first one's dtype. One with a keyword ``out`` gets there the pieces of its results to write them into,
            or Nones.
    """
    outputs = _outputs(kernel)

    @functools.wraps(kernel)
    def run(first: Any, *rest: Any) -> tuple[Any, ...]:
        args = (first, *rest)
        if type(first) is not np.ndarray or first.size <= SMALL or not _is_plain(rest):
            return kernel(*args)
        if first.size <= TILE:
            if not outputs:
                return kernel(*args)
            return kernel(*args, out=[np.empty(first.shape, first.dtype) for _ in range(outputs)])
        flat = [a.reshape(-1) if type(a) is np.ndarray else a for a in args]
        outs = [np.empty(first.size, first.dtype) for _ in range(outputs)]
        for start in range(0, first.size, TILE):
            piece = slice(start, start + TILE)
            pieces = [a[piece] if type(a) is np.ndarray else a for a in flat]
            if outputs:
                kernel(*pieces, out=[out[piece] for out in outs])
                continue
            results = kernel(*pieces)
            if not outs:
                outs = [np.empty(first.size, r.dtype) for r in results]
            for out, result in zip(outs, results, strict=True):
                out[piece] = result
        return tuple([out.reshape(first.shape) for out in outs])

    return run


def _outputs(kernel: Kernel) -> int:
    """How many results a kernel writes into what it is given; 0 where it returns them."""
    out = inspect.signature(kernel).parameters.get("out")
    return 0 if out is None else len(out.default)


def _is_plain(args: Sequence[Any]) -> bool:
    return all(type(a) is np.ndarray or type(a) is float for a in args)


def map_leaves(who: str, kernel: Kernel, trees: dict[str, Any], *hyper: Any, outputs: int) -> tuple[Any, ...]:
    """Run a kernel on the corresponding leaves of trees of one structure.

    Args:
        who: the caller, for messages.
        kernel: takes one leaf of each tree, then the hyperparameters; returns a tuple of new leaves.
        trees: the trees by name; all must have the structure and the shapes of the first.
        *hyper: numbers, or scalar tracers; the kernel gets them in a form that keeps the leaf's dtype.
        outputs: how many leaves the kernel returns.

    Returns:
        As many trees of the same structure.

    Raises:
        TreeError: structures differ; names the trees and the first path at which they do.
        ShapeError: shapes differ; names the trees and the path.
    """
    (name, first), *others = trees.items()
    flat, treedef = tree.flatten(first)
    columns = [flat, *[leaves_like(treedef, other, who, name, label) for label, other in others]]
    numbers = None if any(is_tracer(h) for h in hyper) else [weak(h) for h in hyper]
    rows = []
    for i, leaves in enumerate(zip(*columns, strict=True)):
        shape = _shape(leaves[0])
        for leaf in leaves[1:]:
            if _shape(leaf) != shape:
                raise ShapeError(_shape_message(who, list(trees), leaves, first, i))
        dtype = getattr(leaves[0], "dtype", None)
        rows.append(kernel(*leaves, *(numbers or [weak(h, dtype) for h in hyper])))
    return tuple([tree.unflatten(treedef, [row[k] for row in rows]) for k in range(outputs)])


def _shape(leaf: Any) -> tuple[int, ...]:
    return getattr(leaf, "shape", ())


def leaves_like(treedef: tree.TreeDef, other: Any, who: str, name: str, label: str) -> list[Any]:
    """The leaves of the tree `label`, which must have the structure that the tree `name` has."""
    flat, structure = tree.flatten(other)
    if structure != treedef:
        raise TreeError(
            f"{who}: {label} and {name} must have the same structure, but {_difference(treedef, structure, label)}; "
            "gradients, state and parameters must all come from the same parameter tree"
        )
    return flat


def _difference(expected: tree.TreeDef, got: tree.TreeDef, label: str) -> str:
    wanted, there = _paths(expected), _paths(got)
    for path in wanted:
        if path not in there:
            return f"{label} has no leaf at {path!r}"
    for path in there:
        if path not in wanted:
            return f"{label} has an unexpected leaf at {path!r}"
    return f"{label} has other containers: expected {expected}, got {got}"


def _paths(treedef: tree.TreeDef) -> list[str]:
    numbered = tree.unflatten(treedef, range(treedef.num_leaves))
    return [tree.path_str(path) for path, _ in tree.leaves_with_path(numbered)]


def _shape_message(who: str, names: list[str], leaves: Sequence[Any], first: Any, index: int) -> str:
    path = tree.path_str(tree.leaves_with_path(first)[index][0])
    shapes = ", ".join(f"{name} {_shape(leaf)}" for name, leaf in zip(names, leaves, strict=True))
    return f"{who}: the shapes at {path!r} differ: {shapes}; an update has the shape of its parameter"
