"""Choices as operations: `cond` and `switch`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import ShapeDtypeStruct, Tracer, aval_of
from fnflare.errors import ArgumentError, ShapeError, TreeError
from fnflare.ops import convert
from fnflare.program.cond import choose, taking_all, within
from fnflare.program.ir import Program
from fnflare.program.staging import Staged, converted, stage
from fnflare.program.while_loop import is_known
from fnflare.transforms._call import name_of
from fnflare.transforms._mode import is_disabled
from fnflare.transforms.loops import array_leaves, gives_way

__all__ = ["cond", "switch"]


def cond(pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any) -> Any:
    """``true_fun(*operands) if pred else false_fun(*operands)`` as one operation.

    Both functions are traced; one runs. Under `vmap` with a predicate that differs among the examples both run
    for all of them, and the answers are chosen by ``np.where``.

    Args:
        pred: a boolean (or a number, true unless zero) of shape ().
        true_fun, false_fun: pure functions that return pytrees of the same structure, shapes and dtypes. They
            may close over arrays.
        *operands: pytrees of arrays.

    Raises:
        TreeError, ShapeError: the two return different structures, shapes or dtypes.

    >>> float(ff.cond(True, lambda x: x + 1, lambda x: x * 10, 2.0))
    3.0
    """
    _check_functions("cond", (true_fun, false_fun))
    aval = aval_of(pred)
    if aval.shape != () or aval.dtype.kind not in "biuf":
        raise ShapeError(
            f"cond: pred must be one boolean of shape (), got {aval.dtype}{list(aval.shape)}; for a choice by "
            "element write np.where"
        )
    index = convert(np.not_equal(pred, 0), np.int64) if isinstance(pred, Tracer) else int(bool(pred))
    return _chosen("cond", index, (false_fun, true_fun), operands)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any) -> Any:
    """``branches[index](*operands)`` as one operation.

    Args:
        index: an integer of shape (); one out of range is brought to the nearest branch.
        branches: pure functions that return pytrees of the same structure, shapes and dtypes.
        *operands: pytrees of arrays.

    Raises:
        TreeError, ShapeError: the branches return different structures, shapes or dtypes.

    >>> float(ff.switch(2, [lambda x: x, lambda x: x * 2, lambda x: x * 3], 5.0))
    15.0
    """
    branches = tuple(branches)
    _check_functions("switch", branches)
    if not branches:
        raise ArgumentError("switch: at least one branch is needed")
    aval = aval_of(index)
    if aval.shape != () or aval.dtype.kind not in "iu":
        raise ShapeError(f"switch: index must be one integer of shape (), got {aval.dtype}{list(aval.shape)}")
    return _chosen("switch", index, branches, operands)


def _check_functions(what: str, functions: Sequence[Any]) -> None:
    for f in functions:
        if not callable(f):
            raise ArgumentError(f"{what}: the branches must be functions, got a {type(f).__name__}")


def _chosen(what: str, index: Any, functions: Sequence[Callable[..., Any]], operands: tuple[Any, ...]) -> Any:
    args, structure = array_leaves(operands, f"{what}: operands")
    if is_disabled() and is_known(index):
        return functions[within(index, functions)](*operands)
    avals = [aval_of(x) for x in args]
    staged = [stage(f, structure, avals, name_of(f)) for f in functions]
    _check_structures(what, functions, staged)
    programs = _agreeing(what, functions, staged)
    branches = taking_all(programs, [len(s.consts) for s in staged])
    out = choose(index, branches, [*[c for s in staged for c in s.consts], *args])
    return tree.unflatten(staged[0].structure, out)


def _check_structures(what: str, functions: Sequence[Any], staged: Sequence[Staged]) -> None:
    for f, s in zip(functions, staged, strict=True):
        if s.structure != staged[0].structure:
            raise TreeError(
                f"{what}: all branches must return the same structure: {name_of(functions[0])} returns "
                f"{staged[0].structure}, {name_of(f)} returns {s.structure}"
            )


def _common(column: Sequence[ShapeDtypeStruct]) -> ShapeDtypeStruct:
    """What a leaf of all branches has to be: an array that one of them returns, or the widest of Python numbers."""
    arrays = [a for a in column if not a.weak]
    return arrays[0] if arrays else next(a for a in column if all(gives_way(b, a) for b in column))


def _agreeing(what: str, functions: Sequence[Any], staged: Sequence[Staged]) -> list[Program]:
    """The branches' programs, with Python numbers among their outputs in the dtype that another branch returns."""
    columns = list(zip(*[s.program.out_avals for s in staged], strict=True))
    wanted = [_common(column) for column in columns]
    for i, (column, want) in enumerate(zip(columns, wanted, strict=True)):
        for f, aval in zip(functions, column, strict=True):
            if aval.shape != want.shape or (aval.dtype != want.dtype and not gives_way(aval, want)):
                each = "; ".join(
                    f"{name_of(g)} returns {a.dtype}{list(a.shape)}" for g, a in zip(functions, column, strict=True)
                )
                raise ShapeError(
                    f"{what}: all branches must return the same shapes and dtypes; leaf {i} differs, in {name_of(f)} "
                    f"among others: {each}"
                )
    return [converted(s.program, tuple(a.dtype for a in wanted)) for s in staged]
