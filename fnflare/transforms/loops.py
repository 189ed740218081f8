"""Loops as operations: `scan`, `map`, `fori_loop` and `while_loop`.

The user's body is staged, once for each code, shapes and dtypes, and one primitive that carries its program is
bound: every transform sees one operation, however long the loop.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import ShapeDtypeStruct, Tracer, aval_of
from fnflare.errors import ArgumentError, ConcretizationError, ShapeError, TreeError
from fnflare.ops import convert
from fnflare.program.last import loop_to_last
from fnflare.program.scan import loop
from fnflare.program.staging import Staged, as_dtype, converted, stage
from fnflare.program.while_loop import repeat
from fnflare.transforms._call import name_of, tuple_of
from fnflare.transforms._mode import is_disabled
from fnflare.transforms.vmap import vmap

__all__ = ["fori_loop", "map", "scan", "while_loop"]


def array_leaf(x: Any, what: Callable[[], str]) -> Any:
    """A leaf that a program can take: an array, a tracer, or a Python number, which stays weak."""
    if isinstance(x, (np.ndarray, np.generic, Tracer)) or type(x) in (int, float, complex):
        return x
    if isinstance(x, (bool, list)):
        return np.asarray(x)[()]
    raise ArgumentError(f"{what()} is a {type(x).__name__}, which is no array; let the function close over it instead")


def array_leaves(value: Any, where: str) -> tuple[list[Any], tree.TreeDef]:
    """The leaves and the structure of a pytree of arrays; a typed error, with its name, for a leaf that is none."""
    leaves, structure = tree.flatten(value)

    def name(i: int) -> str:
        path = tree.path_str(tree.leaves_with_path(value)[i][0])
        return f"{where}, leaf {path!r}" if path else where

    return [array_leaf(x, lambda i=i: name(i)) for i, x in enumerate(leaves)], structure  # type: ignore[misc]


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Run a function along the first axis of arrays, with a carry from step to step.

    Like ``for x in xs: carry, y = f(carry, x)``, but traced once, differentiated as a loop, and with what does
    not depend on the carry computed for all steps at once, before the loop or after it.

    Args:
        f: ``f(carry, x) -> (carry, y)``, a pure function of pytrees of arrays; it may close over arrays, also
            ones that are being differentiated with respect to.
        init: the first carry. What `f` returns must have its structure, shapes and dtypes.
        xs: a pytree of arrays of shape (T, ...), or None.
        length: the number of steps; needed where `xs` is None.
        reverse: whether to go from the last step to the first; ``ys`` still stand at their own steps.

    Returns:
        The last carry, and the ``y`` of all steps stacked along a new first axis.

    Raises:
        TreeError, ShapeError: the carry changes its structure, a shape or a dtype, or the lengths differ.

    >>> carry, ys = ff.scan(lambda total, x: (total + x, total + x), 0.0, np.array([1.0, 2.0, 3.0]))
    >>> float(carry), ys
    (6.0, array([1., 3., 6.]))
    """
    return _scan(f, init, xs, length, reverse, ("scan", name_of(f)))


def _scan(
    f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any, length: Any, reverse: bool, names: tuple[str, str]
) -> tuple[Any, Any]:
    """`scan`; `names` are what messages call the loop and the function."""
    carry, carry_structure = array_leaves(init, f"{names[0]}: init")
    inputs, xs_structure = array_leaves(xs, f"{names[0]}: xs")
    steps = _length(names[0], inputs, xs, length)
    inputs = [x if hasattr(x, "shape") else np.asarray(x) for x in inputs]
    if is_disabled() and steps:
        final, ys = _as_written(f, init, inputs, xs_structure, steps, reverse)
        return final, _stacked(ys)
    slices = [ShapeDtypeStruct(aval_of(x).shape[1:], aval_of(x).dtype) for x in inputs]
    staged, carry = _staged_body(f, carry, carry_structure, xs_structure, slices, names)
    out = loop(staged.program, staged.consts, carry, inputs, steps, bool(reverse))
    ys = _apart(out[len(carry) :], [*inputs, *staged.consts])
    return tree.unflatten(staged.structure, [*out[: len(carry)], *ys])


def _apart(ys: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    """Stacked outputs in memory of their own: where a step only hands something on, they are what was given."""
    arrays = [x for x in given if type(x) is np.ndarray]
    out = []
    for y in ys:
        if type(y) is np.ndarray:
            if not y.flags.writeable or any(np.may_share_memory(y, x) for x in arrays):
                y = y.copy()
            arrays.append(y)
        out.append(y)
    return out


def recurrence(
    f: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any, *, reverse: bool, last: bool, what: str
) -> tuple[Any, Any]:
    """`scan` as recurrent layers want it: the first carry takes the dtypes that the function returns, as it would in
    a loop in Python, and the outputs of the last step may be had alone.

    Args:
        f: as in `scan`: a step of a cell.
        init: the first carry.
        xs: a pytree of arrays of shape (T, ...), T at least 1.
        reverse: whether to go from the last step to the first.
        last: whether only the ``y`` of the step that runs last is wanted.
        what: whose loop it is, for messages.

    Returns:
        The last carry, and the ``y`` of all steps stacked along a new first axis, or the last one.
    """
    carry, carry_structure = array_leaves(init, f"{what}: the first carry")
    inputs, xs_structure = tree.flatten(xs)
    steps = inputs[0].shape[0]
    if is_disabled():
        final, ys = _as_written(f, init, inputs, xs_structure, steps, reverse)
        return final, ys[0 if reverse else -1] if last else _stacked(ys)
    slices = [ShapeDtypeStruct(x.shape[1:], x.dtype) for x in inputs]
    names = what, "the cell's apply"
    staged, carry = _staged_body(f, carry, carry_structure, xs_structure, slices, names, adopts=True)
    out = (loop_to_last if last else loop)(staged.program, staged.consts, carry, inputs, steps, reverse)
    ys = _apart(out[len(carry) :], [*inputs, *staged.consts])
    return tree.unflatten(staged.structure, [*out[: len(carry)], *ys])


def _as_written(f: Any, carry: Any, inputs: Any, structure: Any, steps: int, reverse: bool) -> tuple[Any, list[Any]]:
    """The loop in Python: the last carry, and what each step gave."""
    ys: list[Any] = [None] * steps
    for t in range(steps - 1, -1, -1) if reverse else range(steps):
        carry, ys[t] = f(carry, tree.unflatten(structure, [x[t] for x in inputs]))
    return carry, ys


def _stacked(ys: list[Any]) -> Any:
    return tree.map(lambda *each: np.stack(each), *ys)


def _length(what: str, inputs: Sequence[Any], xs: Any, length: int | None) -> int:
    """The number of steps, on which all inputs have to agree."""
    lengths = {}
    for (path, _), x in zip(tree.leaves_with_path(xs), inputs, strict=True):
        if not np.shape(x):
            raise ShapeError(f"{what}: {_leaf_name('xs', path)} is a number and has no first axis to run along")
        lengths[_leaf_name("xs", path)] = np.shape(x)[0]
    if length is not None:
        lengths["length"] = operator.index(length)
    if not lengths:
        raise ArgumentError(f"{what}: without xs the number of steps is unknown; pass length=")
    if len(set(lengths.values())) > 1:
        each = ", ".join(f"{name} has {n}" for name, n in lengths.items())
        raise ShapeError(f"{what}: the numbers of steps differ: {each}")
    steps = next(iter(lengths.values()))
    if steps < 0:
        raise ArgumentError(f"{what}: length={steps} is negative")
    return steps


def _leaf_name(argument: str, path: tree.Path) -> str:
    return f"{argument}, leaf {tree.path_str(path)!r}" if path else argument


def _staged_body(
    f: Any,
    carry: list[Any],
    carry_structure: Any,
    xs_structure: Any,
    slices: Any,
    names: tuple[str, str],
    adopts: bool = False,
) -> tuple[Staged, Any]:
    """The program of a scan's body, and the carry with every Python number in the dtype that it comes to have.

    `names` are what messages call the loop and the function; `adopts` says whether the arrays of the first carry take
    the dtypes of what comes out.
    """
    structure = tuple_of(carry_structure, xs_structure)
    changes = _MOST_CHANGES if adopts else 0
    while True:
        avals = [aval_of(c) for c in carry]
        staged = stage(f, structure, [*avals, *slices], name_of(f))
        out = staged.structure
        if out.kind is not tuple or len(out.children) != 2:
            raise TreeError(f"{names[0]}: {names[1]} must return a pair (carry, y), got {out}")
        out_avals = staged.program.out_avals[: len(carry)]
        if changes and out.children[0] == carry_structure and _could_adopt(avals, out_avals):
            changes -= 1
            carry = [
                c if a.weak or o.weak else as_dtype(c, o.dtype) for c, a, o in zip(carry, avals, out_avals, strict=True)
            ]
            continue
        check_carry(*names, carry_structure, avals, out.children[0], out_avals)
        settled = settle(carry, out_avals)
        if settled is None:
            return staged._replace(program=converted(staged.program, [a.dtype for a in avals])), carry
        carry = settled


#: How often a carry may change its dtypes before they stay.
_MOST_CHANGES = 3


def _could_adopt(avals: Sequence[ShapeDtypeStruct], out: Sequence[ShapeDtypeStruct]) -> bool:
    """Whether a carry has other dtypes than it comes out with, and nothing but precision is lost by taking them."""
    pairs = [(a, b) for a, b in zip(avals, out, strict=True) if a.dtype != b.dtype and not a.weak and not b.weak]
    return bool(pairs) and all(a.shape == b.shape and np.can_cast(a.dtype, b.dtype, "same_kind") for a, b in pairs)


def settle(carry: Sequence[Any], out: Sequence[ShapeDtypeStruct]) -> list[Any] | None:
    """The carry with its Python numbers as arrays of the dtypes with which they come out; None if that is done."""
    if not any(aval_of(c).weak for c in carry):
        return None
    return [as_dtype(c, aval.dtype) if aval_of(c).weak else c for c, aval in zip(carry, out, strict=False)]


def check_carry(
    what: str,
    fun: str,
    structure: tree.TreeDef,
    avals: Sequence[ShapeDtypeStruct],
    out_structure: tree.TreeDef,
    out: Sequence[ShapeDtypeStruct],
) -> None:
    """Raise a typed error, which shows both, where a carry goes out other than it came in."""
    if structure != out_structure:
        raise TreeError(
            f"{what}: {fun} must return a carry of the structure that it takes: it takes {structure}, it returns "
            f"{out_structure}"
        )
    pairs = enumerate(zip(avals, out, strict=True))
    changed = [i for i, (a, b) in pairs if a.shape != b.shape or not _same_dtype(a, b)]
    if changed:
        paths = [path for path, _ in tree.leaves_with_path(tree.unflatten(structure, [0] * structure.num_leaves))]
        each = [
            f"{_leaf_name('the carry', paths[i])}: {_shown(avals[i])} comes in, {_shown(out[i])} goes out"
            for i in changed
        ]
        raise ShapeError(
            f"{what}: {fun} must return a carry of the shapes and dtypes that it takes; {'; '.join(each)}. "
            "Give the first carry the shape and dtype that the function returns, or convert what it returns with astype"
        )


def _same_dtype(a: ShapeDtypeStruct, b: ShapeDtypeStruct) -> bool:
    return a.dtype == b.dtype or gives_way(a, b) or gives_way(b, a)


def gives_way(a: ShapeDtypeStruct, b: ShapeDtypeStruct) -> bool:
    """Whether `a` is a Python number that can be an array of `b`'s dtype."""
    order = "bifc"
    kinds = [{"u": "i"}.get(x.dtype.kind, x.dtype.kind) for x in (a, b)]
    return a.weak and all(k in order for k in kinds) and order.index(kinds[0]) <= order.index(kinds[1])


def _shown(aval: ShapeDtypeStruct) -> str:
    return f"{aval.dtype}{list(aval.shape)}"


def map(f: Callable[[Any], Any], xs: Any, *, batch_size: int | None = None) -> Any:
    """Apply a function to each element along the first axis, one after another: `scan` without a carry.

    Args:
        f: a pure function of a pytree of arrays.
        xs: a pytree of arrays of shape (T, ...).
        batch_size: how many elements `vmap` takes at once, which needs more memory and less time.

    Returns:
        What `f` returns for each, stacked along a new first axis.

    >>> ff.map(lambda x: x * x, np.array([1.0, 2.0, 3.0]))
    array([1., 4., 9.])
    """
    if batch_size is not None:
        return _in_batches(f, xs, operator.index(batch_size))
    return _scan(lambda _, x: ((), f(x)), (), xs, None, False, ("map", name_of(f)))[1]


def _in_batches(f: Callable[[Any], Any], xs: Any, size: int) -> Any:
    """`map` with so many elements at once, and then the rest."""
    if size < 1:
        raise ArgumentError(f"map: batch_size must be at least 1, got {size}")
    leaves, structure = array_leaves(xs, "map: xs")
    leaves = [x if hasattr(x, "shape") else np.asarray(x) for x in leaves]
    whole, rest = divmod(_length("map", leaves, xs, None), size)
    cut = whole * size
    parts = []
    if whole or not rest:
        batches = [x[:cut].reshape((whole, size, *x.shape[1:])) for x in leaves]
        ys = map(vmap(f), tree.unflatten(structure, batches))
        parts.append(tree.map(lambda y: y.reshape((cut, *y.shape[2:])), ys))
    if rest:
        parts.append(vmap(f)(tree.unflatten(structure, [x[cut:] for x in leaves])))
    return parts[0] if len(parts) == 1 else tree.map(lambda a, b: np.concatenate([a, b]), *parts)


def fori_loop(lower: Any, upper: Any, body_fun: Callable[[Any, Any], Any], init_val: Any) -> Any:
    """``for i in range(lower, upper): val = body_fun(i, val)`` as one operation.

    Args:
        lower, upper: integers. Where both are known it is a `scan` and has a reverse mode; where one is traced it
            is a `while_loop`.
        body_fun: ``body_fun(i, val) -> val``, with `i` an int64.
        init_val: the first value, a pytree of arrays whose structure, shapes and dtypes stay.

    Returns:
        The last value.

    >>> float(ff.fori_loop(0, 3, lambda i, x: x * 2, 1.0))
    8.0
    """
    if isinstance(lower, Tracer) or isinstance(upper, Tracer):
        carry = (_as_index(lower), init_val)
        names = "fori_loop", name_of(body_fun)
        return _while(lambda c: c[0] < upper, lambda c: (c[0] + 1, body_fun(c[0], c[1])), carry, names)[1]
    numbers = np.arange(operator.index(lower), operator.index(upper), dtype=np.int64)
    if not len(numbers):
        return init_val
    names = "fori_loop", name_of(body_fun)
    return _scan(lambda val, i: (body_fun(i, val), None), init_val, numbers, None, False, names)[0]


def _as_index(x: Any) -> Any:
    return convert(x, np.int64) if isinstance(x, Tracer) else np.int64(operator.index(x))


def while_loop(cond_fun: Callable[[Any], Any], body_fun: Callable[[Any], Any], init_val: Any) -> Any:
    """``while cond_fun(val): val = body_fun(val)`` as one operation.

    Args:
        cond_fun: from the value to a boolean of shape ().
        body_fun: from the value to the next one, a pytree of the same structure, shapes and dtypes.
        init_val: the first value.

    Returns:
        The first value for which the condition is false.

    Raises:
        TreeError, ShapeError: the value changes its structure, a shape or a dtype.
        UnsupportedError: reverse mode where the number of turns is not known, that is under `jit` or `vmap`; use
            `scan`, or `fori_loop` with known bounds.

    >>> float(ff.while_loop(lambda x: x < 100, lambda x: x * x, 3.0))
    6561.0
    """
    return _while(cond_fun, body_fun, init_val, ("while_loop", name_of(body_fun)))


def _while(cond_fun: Any, body_fun: Any, init_val: Any, names: tuple[str, str]) -> Any:
    """`while_loop`; `names` are what messages call the loop and its body."""
    carry, structure = array_leaves(init_val, f"{names[0]}: init_val")
    if is_disabled():
        try:
            return _while_as_written(cond_fun, body_fun, init_val)
        except ConcretizationError:  # the examples of a batch stop at different turns: there is no such loop in Python
            pass
    while True:
        avals = [aval_of(c) for c in carry]
        arguments = tuple_of(structure)
        body = stage(body_fun, arguments, avals, name_of(body_fun))
        check_carry(*names, structure, avals, body.structure, body.program.out_avals)
        settled = settle(carry, body.program.out_avals)
        if settled is None:
            body = body._replace(program=converted(body.program, [a.dtype for a in avals]))
            break
        carry = settled
    condition = stage(cond_fun, arguments, avals, name_of(cond_fun))
    (aval, *more) = condition.program.out_avals or [ShapeDtypeStruct((0,), bool)]
    if more or aval.shape != () or aval.dtype.kind != "b":
        raise ShapeError(
            f"while_loop: {name_of(cond_fun)} must return one boolean of shape (), got {condition.structure} with "
            f"{', '.join(_shown(a) for a in condition.program.out_avals) or 'nothing'}"
        )
    return tree.unflatten(structure, repeat(condition, body, carry))


def _while_as_written(cond_fun: Any, body_fun: Any, value: Any) -> Any:
    while cond_fun(value):
        value = body_fun(value)
    return value
