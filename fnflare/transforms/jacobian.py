"""Whole Jacobians and Hessians: one sweep with all elements of the input or of the output at once.

A function and its arguments go in; it runs once, and its linear map is mapped over the vectors of the
standard basis. What comes out is, for each leaf of the output, a tree like the argument whose leaves
have the axes of the output leaf followed by those of the argument leaf.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import aval_of
from fnflare.transforms._call import (
    Argnames,
    Argnums,
    check_argnums,
    check_differentiable,
    check_output,
    copy_name,
    name_of,
    normalise_argnums,
    path_name,
    shape_result,
)
from fnflare.transforms.forward import linearize
from fnflare.transforms.reverse import vjp
from fnflare.transforms.vmap import vmap

__all__ = ["hessian", "jacfwd", "jacrev"]


def _basis(avals: list[Any]) -> tuple[list[Any], list[int]]:
    """All one-hot lists of arrays of the given shapes and dtypes: one array for each, with an axis in front that
    counts them, and the borders between those that are hot in one array and in the next."""
    borders = np.cumsum([0, *[a.size for a in avals]]).tolist()
    count = borders[-1]
    arrays = []
    for start, aval in zip(borders, avals, strict=False):
        arrays.append(np.eye(count, aval.size, -start, aval.dtype).reshape(count, *aval.shape))
    return arrays, borders


def _setup(
    fun: Any,
    argnums: Any,
    argnames: Any,
    holomorphic: bool,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    forward: bool,
) -> tuple[list[Any], Callable[..., Any]]:
    """The chosen arguments, checked, and `fun` as a function of them alone."""
    nums, names = normalise_argnums(argnums, argnames)
    check_argnums(nums, names, args, kwargs, fun)
    chosen = []
    picked: list[tuple[str | int, Any]] = [*[(n, args[n]) for n in nums], *[(name, kwargs[name]) for name in names]]
    for name, argument in picked:
        leaves, structure = tree.flatten_with_path(argument)
        checked = [check_differentiable(x, partial(path_name, name, path), holomorphic, forward) for path, x in leaves]
        chosen.append(tree.unflatten(structure, checked))

    def call(*values: Any) -> Any:
        positional = list(args)
        for n, value in zip(nums, values, strict=False):
            positional[n] = value
        return fun(*positional, **kwargs | dict(zip(names, values[len(nums) :], strict=True)))

    return chosen, call


def jacrev(
    fun: Callable[..., Any],
    argnums: Argnums | None = None,
    has_aux: bool = False,
    holomorphic: bool = False,
    *,
    argnames: Argnames = None,
) -> Callable[..., Any]:
    """The Jacobian of `fun`, row by row in reverse mode: for few outputs and many inputs.

    Args:
        fun: a function whose output is a pytree of arrays.
        argnums, has_aux, holomorphic, argnames: as in `fnflare.value_and_grad`. Complex outputs need `holomorphic`.

    Returns:
        A function with the arguments of `fun` that returns, for each leaf of its output, a tree like
        the argument whose leaves have shape ``output leaf.shape + argument leaf.shape``; with `has_aux`
        a pair of that and aux.

    >>> ff.jacrev(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        chosen, call = _setup(fun, argnums, argnames, holomorphic, args, kwargs, forward=False)
        out, pullback, *aux = vjp(call, *chosen, has_aux=has_aux)
        out_leaves, out_structure = tree.flatten(out)
        avals = [aval_of(x) for x in out_leaves]
        for aval in avals:
            check_output(aval.dtype, holomorphic, f"jacrev: {name_of(fun)}")
        basis, borders = _basis(avals)
        leaves, structure = tree.flatten(tuple(chosen))
        rows = _mapped(lambda *ct: pullback(tree.unflatten(out_structure, ct)), basis, borders[-1], leaves)
        jacobians = []
        for (a, b), aval in zip(pairwise(borders), avals, strict=True):
            parts = [np.reshape(r[a:b], (*aval.shape, *np.shape(x))) for r, x in zip(rows, leaves, strict=True)]
            jacobians.append(shape_result(tree.unflatten(structure, parts), argnums, argnames))
        jacobian = tree.unflatten(out_structure, jacobians)
        return (jacobian, *aux) if has_aux else jacobian

    return copy_name(fun, run, "jacrev")


def _mapped(linear: Callable[..., Any], basis: list[Any], count: int, like: list[Any]) -> list[Any]:
    """The leaves of what a linear map gives for each vector of the basis, along a first axis."""
    if count == 0:
        return [np.zeros((0, *aval.shape), aval.dtype) for aval in map(aval_of, like)]
    out: list[Any] = tree.leaves(vmap(linear)(*basis))
    return out


def jacfwd(
    fun: Callable[..., Any],
    argnums: Argnums | None = None,
    has_aux: bool = False,
    holomorphic: bool = False,
    *,
    argnames: Argnames = None,
) -> Callable[..., Any]:
    """The Jacobian of `fun`, column by column in forward mode: for few inputs and many outputs.

    Args:
        fun: a function whose output is a pytree of arrays.
        argnums, has_aux, holomorphic, argnames: as in `fnflare.value_and_grad`. Complex arguments need `holomorphic`,
            complex outputs of real ones do not.

    Returns:
        What `jacrev` returns.

    >>> ff.jacfwd(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        chosen, call = _setup(fun, argnums, argnames, holomorphic, args, kwargs, forward=True)
        out, pushforward, *aux = linearize(call, *chosen, has_aux=has_aux)
        leaves, structure = tree.flatten(tuple(chosen))
        avals = [aval_of(x) for x in leaves]
        basis, borders = _basis(avals)
        out_leaves, out_structure = tree.flatten(out)
        for y in out_leaves:
            check_output(aval_of(y).dtype, holomorphic, f"jacfwd: {name_of(fun)}", real=False)
        columns = _mapped(lambda *t: pushforward(*tree.unflatten(structure, t)), basis, borders[-1], out_leaves)
        jacobians = []
        for y, column in zip(out_leaves, columns, strict=True):
            last = np.moveaxis(column, 0, -1)
            blocks = zip(pairwise(borders), avals, strict=True)
            parts = [np.reshape(last[..., a:b], (*np.shape(y), *aval.shape)) for (a, b), aval in blocks]
            jacobians.append(shape_result(tree.unflatten(structure, parts), argnums, argnames))
        jacobian = tree.unflatten(out_structure, jacobians)
        return (jacobian, *aux) if has_aux else jacobian

    return copy_name(fun, run, "jacfwd")


def hessian(
    fun: Callable[..., Any],
    argnums: Argnums | None = None,
    has_aux: bool = False,
    holomorphic: bool = False,
    *,
    argnames: Argnames = None,
) -> Callable[..., Any]:
    """The matrix of second derivatives of `fun`: ``jacfwd(jacrev(fun))``.

    Args:
        fun: a function, usually to a scalar.
        argnums, has_aux, holomorphic, argnames: as in `fnflare.value_and_grad`.

    >>> ff.hessian(lambda x: np.sum(x**3))(np.array([1.0, 2.0]))
    array([[ 6.,  0.],
           [ 0., 12.]])
    """
    inner = jacrev(fun, argnums, has_aux, holomorphic, argnames=argnames)
    return copy_name(fun, jacfwd(inner, argnums, has_aux, holomorphic, argnames=argnames), "hessian")
