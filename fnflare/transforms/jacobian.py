"""Whole Jacobians and Hessians: one sweep for each element of the input or of the output.

A function and its arguments go in; it runs once, and its linear map is applied to each vector of the
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
from fnflare.core import ShapeDtypeStruct, aval_of
from fnflare.transforms._call import (
    Argnames,
    Argnums,
    check_argnums,
    check_differentiable,
    copy_name,
    normalise_argnums,
    path_name,
    shape_result,
)
from fnflare.transforms.forward import linearize
from fnflare.transforms.reverse import vjp

__all__ = ["hessian", "jacfwd", "jacrev"]


def _basis(avals: list[Any]) -> list[list[Any]]:
    """All one-hot lists of arrays of the given shapes and dtypes, in order."""
    vectors = []
    for i, aval in enumerate(avals):
        for position in np.ndindex(*aval.shape):
            vector = [np.zeros(a.shape, a.dtype) for a in avals]
            vector[i][position] = 1
            vectors.append([v[()] for v in vector])
    return vectors


def _blocks(columns: list[Any], avals: list[Any]) -> list[list[Any]]:
    """Cut a list of results, one for each basis vector, by the arrays that the vectors belong to."""
    borders = np.cumsum([0, *[a.size for a in avals]]).tolist()
    return [columns[a:b] for a, b in pairwise(borders)]


def _setup(
    fun: Any, argnums: Any, argnames: Any, holomorphic: bool, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], Callable[..., Any]]:
    """The chosen arguments, checked, and `fun` as a function of them alone."""
    nums, names = normalise_argnums(argnums, argnames)
    check_argnums(nums, names, args, kwargs, fun)
    chosen = []
    picked: list[tuple[str | int, Any]] = [*[(n, args[n]) for n in nums], *[(name, kwargs[name]) for name in names]]
    for name, argument in picked:
        leaves, structure = tree.flatten_with_path(argument)
        checked = [check_differentiable(x, partial(path_name, name, path), holomorphic) for path, x in leaves]
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
        argnums, has_aux, holomorphic, argnames: as in `fnflare.value_and_grad`.

    Returns:
        A function with the arguments of `fun` that returns, for each leaf of its output, a tree like
        the argument whose leaves have shape ``output leaf.shape + argument leaf.shape``; with `has_aux`
        a pair of that and aux.

    >>> jacrev(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        chosen, call = _setup(fun, argnums, argnames, holomorphic, args, kwargs)
        out, pullback, *aux = vjp(call, *chosen, has_aux=has_aux)
        out_leaves, out_structure = tree.flatten(out)
        avals = [aval_of(x) for x in out_leaves]
        rows = [tree.leaves(pullback(tree.unflatten(out_structure, ct))) for ct in _basis(avals)]
        leaves, structure = tree.flatten(tuple(chosen))
        jacobians = []
        for block, aval in zip(_blocks(rows, avals), avals, strict=True):
            parts = [_stacked([row[i] for row in block], aval.shape, aval_of(x)) for i, x in enumerate(leaves)]
            jacobians.append(shape_result(tree.unflatten(structure, parts), argnums, argnames))
        jacobian = tree.unflatten(out_structure, jacobians)
        return (jacobian, *aux) if has_aux else jacobian

    return copy_name(fun, run, "jacrev")


def _stacked(rows: list[Any], lead: tuple[int, ...], aval: ShapeDtypeStruct) -> Any:
    shape = (*lead, *aval.shape)
    return np.reshape(np.stack(rows), shape) if rows else np.zeros(shape, aval.dtype)


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
        argnums, has_aux, holomorphic, argnames: as in `fnflare.value_and_grad`.

    Returns:
        What `jacrev` returns.

    >>> jacfwd(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """

    def run(*args: Any, **kwargs: Any) -> Any:
        chosen, call = _setup(fun, argnums, argnames, holomorphic, args, kwargs)
        out, pushforward, *aux = linearize(call, *chosen, has_aux=has_aux)
        leaves, structure = tree.flatten(tuple(chosen))
        avals = [aval_of(x) for x in leaves]
        columns = [tree.leaves(pushforward(*tree.unflatten(structure, t))) for t in _basis(avals)]
        out_leaves, out_structure = tree.flatten(out)
        jacobians = []
        for i, y in enumerate(out_leaves):
            blocks = zip(_blocks(columns, avals), avals, strict=True)
            parts = [_columns([column[i] for column in block], aval_of(y), aval.shape) for block, aval in blocks]
            jacobians.append(shape_result(tree.unflatten(structure, parts), argnums, argnames))
        jacobian = tree.unflatten(out_structure, jacobians)
        return (jacobian, *aux) if has_aux else jacobian

    return copy_name(fun, run, "jacfwd")


def _columns(columns: list[Any], aval: ShapeDtypeStruct, trail: tuple[int, ...]) -> Any:
    shape = (*aval.shape, *trail)
    return np.reshape(np.stack(columns, axis=-1), shape) if columns else np.zeros(shape, aval.dtype)


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

    >>> hessian(lambda x: np.sum(x**3))(np.array([1.0, 2.0]))
    array([[ 6.,  0.],
           [ 0., 12.]])
    """
    inner = jacrev(fun, argnums, has_aux, holomorphic, argnames=argnames)
    return copy_name(fun, jacfwd(inner, argnums, has_aux, holomorphic, argnames=argnames), "hessian")
