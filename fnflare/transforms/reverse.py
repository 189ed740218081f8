"""Reverse mode: `grad`, `value_and_grad` and `vjp`.

A function and its arguments go in; the chosen arguments are laid on a tape leaf by leaf, the
function runs once, and the tape is swept backward once for each cotangent. What comes out has the
structure, the shapes and the dtypes of the arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import Tape, aval_of, dtype_of, new_tape, observed, run_on_bottom, trace_depth, zeros
from fnflare.core.aval import in_native_order
from fnflare.errors import CotangentError, NonScalarLossError
from fnflare.program import run_ahead
from fnflare.program.staging import as_dtype
from fnflare.transforms._call import (
    Argnames,
    Argnums,
    check_argnums,
    check_differentiable,
    check_output,
    concrete,
    copy_name,
    name_of,
    normalise_argnums,
    path_name,
    shape_result,
)
from fnflare.transforms._record import record

__all__ = ["grad", "value_and_grad", "vjp"]

#: The dtype of the cotangent of an integer: no bytes, since there is nothing to say.
float0 = np.dtype([("float0", np.void, 0)])


def _lift(tape: Tape, argument: Any, name: str | int, holomorphic: bool) -> tuple[Any, Any, list[Any]]:
    """Lay an argument on the tape: the tree of its tracers, its structure (None for an array), its leaves."""
    if type(argument) is np.ndarray and argument.dtype.kind == "f" and not holomorphic:
        return tape.leaf(argument), None, [argument]
    leaves, structure = tree.flatten(argument)
    tracers = []
    for i, leaf in enumerate(leaves):
        if type(leaf) is not np.ndarray or leaf.dtype.kind != "f" or holomorphic:
            leaf = check_differentiable(leaf, partial(_leaf_name, name, argument, i), holomorphic)
        tracers.append(tape.leaf(leaf))
    return tree.unflatten(structure, tracers), structure, leaves


def _leaf_name(name: str | int, argument: Any, i: int) -> str:
    """How a message names leaf `i` of an argument."""
    return f"grad: {path_name(name, tree.leaves_with_path(argument)[i][0])}"


def _unlift(lifted: list[Any], cotangents: list[Any]) -> list[Any]:
    """The cotangents as trees like the arguments, zeros where there is none, no two in the same memory."""
    if len(cotangents) > 1:
        cotangents = _apart(cotangents)
    out: list[Any] = []
    i = 0
    for _, structure, leaves in lifted:
        if structure is None:
            out.append(_or_zeros(cotangents[i], leaves[0]))
            i += 1
            continue
        cts = [_or_zeros(ct, x) for ct, x in zip(cotangents[i : i + len(leaves)], leaves, strict=True)]
        out.append(tree.unflatten(structure, cts))
        i += len(leaves)
    return out


def _apart(cotangents: list[Any]) -> list[Any]:
    """Copies of the arrays that occur more than once, as those of ``a + b`` do."""
    seen: set[int] = set()
    out = []
    for ct in cotangents:
        if type(ct) is np.ndarray:
            if id(ct) in seen:
                ct = ct.copy()
            seen.add(id(ct))
        out.append(ct)
    return out


def _or_zeros(ct: Any, x: Any) -> Any:
    """A cotangent in memory of its own: a view (a broadcast one is even read-only) is copied."""
    if type(ct) is np.ndarray:
        return ct if ct.base is None else ct.copy()
    return zeros(x) if ct is None else ct


def _checked_loss(value: Any, fun: Any, holomorphic: bool) -> Any:
    """A loss below the tape, checked to be one number of floating dtype."""
    leaves, structure = tree.flatten(value)
    if len(leaves) != 1 or leaves[0] is not value:
        raise NonScalarLossError(
            f"grad: {name_of(fun)} must return one number, got {structure}; to return more beside the loss, "
            "return (loss, aux) and pass has_aux=True"
        )
    value = concrete(value)
    if not hasattr(value, "shape") and type(value) is not float:
        raise NonScalarLossError(f"grad: {name_of(fun)} must return one number, got a {type(value).__name__}")
    aval = aval_of(value)
    if aval.shape != ():
        raise NonScalarLossError(
            f"grad: {name_of(fun)} must return a scalar, got shape {aval.shape}; write loss.mean() or loss.sum(), "
            "or use ff.jacrev for all derivatives and ff.vjp for a product with them"
        )
    check_output(aval.dtype, holomorphic, f"grad: {name_of(fun)}")
    return value


def _differentiated(
    fun: Callable[..., Any],
    argnums: Argnums | None,
    has_aux: bool,
    holomorphic: bool,
    argnames: Argnames,
    finish: Callable[[Any, Any, Any], Any],
) -> Callable[..., Any]:
    """What `value_and_grad` and `grad` share; `finish` lays out the value, the aux and the gradient."""
    nums, names = normalise_argnums(argnums, argnames)
    first_only = nums == (0,) and not names
    one_array = first_only and not isinstance(argnums, (tuple, list))

    def run(*args: Any, **kwargs: Any) -> Any:
        if observed() and not trace_depth():
            return run_on_bottom(run, *args, **kwargs)
        if not (first_only and args):
            check_argnums(nums, names, args, kwargs, fun)
        values = list(args)
        lifted = []
        tape = new_tape(fun)
        with tape:
            for n in nums:
                lifted.append(_lift(tape, values[n], n, holomorphic))
                values[n] = lifted[-1][0]
            for name in names:
                lifted.append(_lift(tape, kwargs[name], name, holomorphic))
                kwargs[name] = lifted[-1][0]
            if tape.level == 0:
                out = fun(*values, **kwargs)
            else:
                out = run_ahead(fun, values, kwargs, [x for _, _, leaves in lifted for x in leaves])
        aux = None
        if has_aux:
            if not isinstance(out, (tuple, list)) or len(out) != 2:
                raise NonScalarLossError(f"grad: with has_aux=True {name_of(fun)} must return a pair (loss, aux)")
            out, aux = out
            aux = tree.map(tape.lower, aux)
        value = tape.lower(out)
        if isinstance(value, np.floating) and not holomorphic:
            one = type(value)(1)  # the usual case, which needs no more checks
        else:
            value = _checked_loss(value, fun, holomorphic)
            one = dtype_of(value).type(1)
        slot = tape.slot_of(out)
        cotangents = tape.backward({slot: one} if slot >= 0 else {}, free=True)
        if one_array and lifted[0][1] is None:
            return finish(value, aux, _or_zeros(cotangents[0], lifted[0][2][0]))
        return finish(value, aux, shape_result(_unlift(lifted, cotangents), argnums, argnames))

    return run


def value_and_grad(
    fun: Callable[..., Any],
    argnums: Argnums | None = None,
    has_aux: bool = False,
    holomorphic: bool = False,
    *,
    argnames: Argnames = None,
) -> Callable[..., Any]:
    """A function that computes both `fun` and its gradient, in one pass.

    Args:
        fun: a function that returns a scalar of floating dtype, or ``(scalar, aux)`` with `has_aux`.
        argnums: which positional arguments to differentiate with respect to, the first by default;
            a sequence gives a tuple of gradients. Each argument is a pytree of floating or complex arrays.
        has_aux: whether `fun` returns a pair of the loss and anything else.
        holomorphic: whether `fun` is a holomorphic function of complex arguments, with a complex value, whose
            derivative is a complex number. The gradient of a real `fun` by a complex ``x = a + ib``, without
            `holomorphic`, is ``df/da - i df/db`` as in JAX; gradient descent steps along its conjugate.
        argnames: keyword arguments to differentiate with respect to: a name gives one gradient, a
            sequence of names a dict. Given together with `argnums`, a pair of both results.

    Returns:
        A function with the arguments of `fun` that returns ``(value, gradient)``, or
        ``((value, aux), gradient)``. A gradient has the structure, shapes and dtypes of its argument.

    Raises:
        NonScalarLossError: `fun` does not return a scalar of floating dtype, or of complex dtype if `holomorphic`.
        DtypeError: a leaf of a chosen argument is not of floating or complex dtype.

    >>> loss = lambda w, x: np.sum(np.square(x @ w))
    >>> ff.value_and_grad(loss)(np.array([1.0, 2.0]), np.eye(2))
    (np.float64(5.0), array([2., 4.]))
    """

    def finish(value: Any, aux: Any, gradient: Any) -> Any:
        return ((value, aux), gradient) if has_aux else (value, gradient)

    run = _differentiated(fun, argnums, has_aux, holomorphic, argnames, finish)
    return copy_name(fun, run, "value_and_grad")


def grad(
    fun: Callable[..., Any],
    argnums: Argnums | None = None,
    has_aux: bool = False,
    holomorphic: bool = False,
    *,
    argnames: Argnames = None,
) -> Callable[..., Any]:
    """A function that computes the gradient of `fun`.

    Args:
        fun: a function that returns a scalar of floating dtype, or ``(scalar, aux)`` with `has_aux`.
        argnums: as in `value_and_grad`.
        has_aux: as in `value_and_grad`.
        holomorphic: as in `value_and_grad`.
        argnames: as in `value_and_grad`.

    Returns:
        A function with the arguments of `fun` that returns the gradient, or ``(gradient, aux)``.

    Raises:
        NonScalarLossError: `fun` does not return a scalar of floating dtype, or of complex dtype if `holomorphic`.
        DtypeError: a leaf of a chosen argument is not of floating or complex dtype.

    >>> float(ff.grad(np.tanh)(0.0))
    1.0
    >>> float(ff.grad(ff.grad(lambda x: x**3))(2.0))
    12.0
    >>> print(ff.grad(lambda z: np.abs(z) ** 2)(1 + 2j), ff.grad(lambda z: z * z, holomorphic=True)(1 + 2j))
    (2-4j) (2+4j)
    """

    def finish(value: Any, aux: Any, gradient: Any) -> Any:
        return (gradient, aux) if has_aux else gradient

    run = _differentiated(fun, argnums, has_aux, holomorphic, argnames, finish)
    return copy_name(fun, run, "grad")


def vjp(fun: Callable[..., Any], *primals: Any, has_aux: bool = False) -> Any:
    """The value of `fun`, and the function that multiplies a cotangent with its Jacobian.

    Args:
        fun: a function of pytrees of arrays.
        *primals: its arguments. Integer leaves pass through; their cotangents have dtype float0.
        has_aux: whether `fun` returns ``(out, aux)``.

    Returns:
        ``(out, pullback)`` or ``(out, pullback, aux)``. ``pullback(ct)`` takes a cotangent with the
        structure, shapes and dtypes of `out` and returns a tuple with one cotangent for each primal; it
        may be called more than once.

    Raises:
        CotangentError: the cotangent does not fit the output.

    >>> out, pullback = ff.vjp(np.multiply, 2.0, 3.0)
    >>> [float(g) for g in pullback(np.float64(1.0))]
    [3.0, 2.0]
    """
    tape = new_tape(fun)
    run = record(tape, fun, primals, has_aux)
    avals = [aval_of(v) for v in run.values]

    def pullback(ct: Any) -> tuple[Any, ...]:
        cts = check_cotangent(ct, run.out_structure, avals, "vjp", "the output")
        seeds: dict[int, Any] = {}
        for slot, c in zip(run.out_slots, cts, strict=True):
            if slot >= 0:
                seeds[slot] = c if slot not in seeds else seeds[slot] + c
        # What the caller gets is its own: neither the cotangent that it gave, nor one array twice.
        swept = iter(_apart([*cts, *tape.backward(seeds, free=False)])[len(cts) :])
        pairs = zip(run.slots, run.leaves, strict=True)
        back = [_or_zeros(next(swept), x) if slot >= 0 else np.zeros(np.shape(x), float0) for slot, x in pairs]
        return tree.unflatten(run.structure, back)

    return (run.out(), pullback, run.aux) if has_aux else (run.out(), pullback)


def check_cotangent(ct: Any, structure: tree.TreeDef, avals: Sequence[Any], what: str, of: str) -> list[Any]:
    """The leaves of a cotangent or tangent, checked against the structure, shapes and dtypes it must have."""
    leaves, got = tree.flatten(ct)
    if got != structure:
        raise CotangentError(f"{what}: must have the structure of {of}, {structure}, got {got}")
    out = []
    for i, (leaf, aval) in enumerate(zip(leaves, avals, strict=True)):
        leaf = concrete(leaf)
        have = aval_of(leaf)
        if have.shape != aval.shape:
            raise CotangentError(f"{what}: leaf {i} must have the shape of {of}, {aval.shape}, got {have.shape}")
        if aval.dtype.kind not in "fc":
            out.append(leaf)  # an integer has no derivative; whatever was given is not read
            continue
        weak = have.weak or aval.weak
        if have.dtype != aval.dtype and not weak and have.dtype.newbyteorder("=") != aval.dtype.newbyteorder("="):
            name = aval.dtype.name
            raise CotangentError(
                f"{what}: leaf {i} must have the dtype of {of}, {name}, got {have.dtype.name}; "
                f"write ct.astype(np.{name})"
            )
        out.append(as_dtype(leaf, aval.dtype) if have.weak else in_native_order(leaf))
    return out
