"""Derivatives against finite differences, and the two modes against each other.

A function and its arguments go in; nothing comes out, or an `AssertionError` that names the leaf, both numbers and
the seed with which to see them again. Arguments and answers are pytrees; leaves that are not of floating dtype pass
through. All directions are random and fixed by a seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError, UnsupportedError
from fnflare.testing.directions import (
    DIFFERENCE_TOLERANCES,
    MODE_TOLERANCES,
    STEPS,
    coarsest,
    inner,
    numerical_jvp,
    random_like,
    tolerances,
)
from fnflare.testing.failures import LawError, assert_close, assert_structure, at, is_floating
from fnflare.testing.holding import arguments, hold
from fnflare.testing.writing import Writer, limits_of
from fnflare.transforms import jvp, vjp

__all__ = ["assert_directions", "check_grads", "check_jvp", "check_jvp_vjp", "check_vjp", "grads_law"]

#: atol, rtol and eps, each None where it follows from the dtype.
Limits = tuple[float | None, float | None, float | None]


def _hint(seed: int, eps: float | None = None) -> str:
    step = "" if eps is None else f" and eps={eps:g}"
    return f"To see it again: seed={seed}{step}; fnflare.testing.random_like(args, seed) is the direction"


def check_jvp(
    f: Callable[..., Any],
    f_jvp: Callable[..., Any],
    args: Sequence[Any],
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
    *,
    seed: int = 0,
    name: str = "jvp",
) -> None:
    """Check a forward derivative against finite differences in a random direction.

    Args:
        f: a function of pytrees.
        f_jvp: ``f_jvp(primals, tangents)`` returns ``(out, tangent)``, as ``functools.partial(ff.jvp, f)`` does.
        args: the point, a tuple or list of arguments.
        atol, rtol, eps: the tolerances and the step; by dtype where None, see the module.
        seed: of the direction.
        name: what the message calls the derivative.

    Raises:
        AssertionError: value, structure, dtype or derivative differ; names the leaf.

    >>> ff.testing.check_jvp(np.sin, lambda p, t: (np.sin(p[0]), np.cos(p[0]) * t[0]), (1.0,))
    """
    limits = (atol, rtol, eps)

    def write(writer: Writer, args: Any) -> str:
        functions = [writer.subject(f, "f", 0), writer.subject(f_jvp, "f_jvp", 1)]
        return writer.call("check_jvp", *functions, writer.expression(args), **limits_of(*limits, seed=seed, name=name))

    hold(
        lambda args: _jvp_law(f, f_jvp, args, limits, seed, name),
        arguments("check_jvp", args),
        write,
        generic=True,
    )


def _jvp_law(f: Any, f_jvp: Any, args: Any, limits: Limits, seed: int, name: str) -> None:
    atol, rtol, eps = limits
    tangents = random_like(args, seed)
    value = f(*args)
    out, tangent = f_jvp(args, tangents)
    bytes_ = coarsest(args, value)
    eps = STEPS[bytes_] if eps is None else eps
    allowed = tolerances(DIFFERENCE_TOLERANCES[bytes_], atol, rtol)
    assert_structure(out, value, f"{name}: the value")
    assert_structure(tangent, value, f"{name}: the tangent")
    assert_close(out, value, allowed, f"{name}: the value", "the function returns", _hint(seed))
    measured = numerical_jvp(f, args, tangents, eps)
    assert_close(tangent, measured, allowed, f"{name}: the tangent", "finite differences give", _hint(seed, eps))


def check_vjp(
    f: Callable[..., Any],
    f_vjp: Callable[..., Any],
    args: Sequence[Any],
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
    *,
    seed: int = 0,
    name: str = "vjp",
) -> None:
    """Check a backward derivative against finite differences: ``<vjp(u), v> = <u, (f(x + v) - f(x - v)) / 2>``
    for a random cotangent u and a random direction v, small.

    Args:
        f: a function of pytrees.
        f_vjp: ``f_vjp(*args)`` returns ``(out, pullback)``, as ``functools.partial(ff.vjp, f)`` does.
        args: the point, a tuple or list of arguments.
        atol, rtol, eps: the tolerances and the step; by dtype where None, see the module.
        seed: of the direction; the cotangent is drawn with the seed that follows.
        name: what the message calls the derivative.

    Raises:
        AssertionError: value, structure, dtype or derivative differ; names the leaf.

    >>> ff.testing.check_vjp(np.sin, lambda x: (np.sin(x), lambda ct: (ct * np.cos(x),)), (1.0,))
    """
    limits = (atol, rtol, eps)

    def write(writer: Writer, args: Any) -> str:
        functions = [writer.subject(f, "f", 0), writer.subject(f_vjp, "f_vjp", 1)]
        return writer.call("check_vjp", *functions, writer.expression(args), **limits_of(*limits, seed=seed, name=name))

    hold(
        lambda args: _vjp_law(f, f_vjp, args, limits, seed, name),
        arguments("check_vjp", args),
        write,
        generic=True,
    )


def _vjp_law(f: Any, f_vjp: Any, args: Any, limits: Limits, seed: int, name: str) -> None:
    value = f(*args)
    out, pullback = f_vjp(*args)
    bytes_ = coarsest(args, value)
    eps = STEPS[bytes_] if limits[2] is None else limits[2]
    atol, rtol = tolerances(DIFFERENCE_TOLERANCES[bytes_], *limits[:2])
    assert_structure(out, value, f"{name}: the value")
    assert_close(out, value, (atol, rtol), f"{name}: the value", "the function returns", _hint(seed))
    ct = random_like(value, seed + 1)
    cotangents = pullback(ct)
    assert_structure(cotangents, args, f"{name}: the cotangent")
    assert_directions(f, args, cotangents, ct, random_like(args, seed), (atol, rtol, eps), name, seed)


def assert_directions(
    f: Any, args: Any, cotangents: Any, ct: Any, v: Any, limits: tuple[float, float, float], name: str, seed: int
) -> None:
    """The law that ``<cotangents, v>`` is ``<ct, difference of f along v>``; where they differ, find the leaf."""
    atol, rtol, eps = limits

    def differ(direction: Any) -> tuple[bool, float, float]:
        got, size = inner(cotangents, direction)
        measured, _ = inner(ct, numerical_jvp(f, args, direction, eps))
        return not abs(got - measured) <= atol + rtol * max(size, abs(measured)), got, measured

    wrong, got, measured = differ(v)
    if not wrong:
        return
    law = where = f"{name}: the cotangents"
    leaves, structure = tree.flatten(v)
    for k, (path, x) in enumerate(tree.leaves_with_path(args)):
        if is_floating(x):
            alone = [t if i == k or not is_floating(t) else np.zeros_like(t) for i, t in enumerate(leaves)]
            wrong, got_alone, measured_alone = differ(tree.unflatten(structure, alone))
            if wrong:
                where, got, measured = at(f"{name}: the cotangent", path), got_alone, measured_alone
                break
    raise LawError(
        law,
        f"{where}: in the random direction v, <cotangent, v> = {got:.10g}, but finite differences give "
        f"{measured:.10g} (difference {abs(got - measured):.2g}). {_hint(seed, eps)}",
    )


def check_jvp_vjp(
    f: Callable[..., Any],
    args: Sequence[Any],
    atol: float | None = None,
    rtol: float | None = None,
    *,
    seed: int = 0,
    name: str = "vjp",
) -> None:
    """Check the two modes against each other: ``<vjp(u), v> = <u, jvp(v)>`` for random u and v.

    Nothing is approximated, so the tolerance is that of rounding; it scales with the sum of the terms' sizes.

    Args:
        f: a function of pytrees.
        args: the point, a tuple or list of arguments.
        atol, rtol: the tolerances; by dtype where None, see the module.
        seed: of the direction; the cotangent is drawn with the seed that follows.
        name: what the message calls the derivative.

    Raises:
        AssertionError: the two numbers differ.

    >>> ff.testing.check_jvp_vjp(lambda x, y: np.tanh(x @ y), (np.ones((2, 3)), np.ones(3)))
    """

    def write(writer: Writer, args: Any) -> str:
        keywords = limits_of(atol, rtol, None, seed=seed, name=name)
        return writer.call("check_jvp_vjp", writer.subject(f, "f", 0), writer.expression(args), **keywords)

    hold(
        lambda args: _modes_law(f, args, (atol, rtol, None), seed, name),
        arguments("check_jvp_vjp", args),
        write,
        generic=True,
    )


def _modes_law(f: Any, args: Any, limits: Limits, seed: int, name: str) -> None:
    v = random_like(args, seed)
    out, pullback = vjp(f, *args)
    u = random_like(out, seed + 1)
    backward, size_back = inner(pullback(u), v)
    forward, size_forward = inner(u, jvp(f, args, v)[1])
    atol, rtol = tolerances(MODE_TOLERANCES[coarsest(args, out)], *limits[:2])
    if not abs(backward - forward) <= atol + rtol * max(size_back, size_forward):
        raise LawError(
            f"{name}: the modes",
            f"{name}: <vjp(u), v> = {backward:.12g}, but <u, jvp(v)> = {forward:.12g} "
            f"(difference {abs(backward - forward):.2g}). {_hint(seed)}, and random_like(out, seed + 1) the cotangent",
        )


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int,
    modes: Sequence[str] = ("fwd", "rev"),
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
    *,
    seed: int = 0,
) -> None:
    """Check all derivatives of a function up to an order.

    At each order the forward derivative (``"fwd"``) and the backward one (``"rev"``) are checked against
    finite differences in a random direction, and against each other; the next order takes both as its
    functions, so that order 2 covers forward over reverse, reverse over forward, and each over itself.

    Args:
        f: a function of pytrees. It must be smooth around the point.
        args: the point, a tuple or list of arguments.
        order: the highest order, from 1.
        modes: which of ``"fwd"`` and ``"rev"``.
        atol, rtol, eps: the tolerances and the step; by dtype where None, see the module.
        seed: of the directions.

    Raises:
        AssertionError: a derivative is wrong; names the modes that led to it, such as ``jvp of vjp``, and the leaf.

    >>> ff.testing.check_grads(lambda w, x: np.sum(np.tanh(x @ w)), (np.ones(3), np.eye(3)), order=2)
    """
    if order < 1 or not modes or set(modes) - {"fwd", "rev"}:
        raise ArgumentError(f"check_grads: needs order >= 1 and modes of 'fwd' and 'rev', got {order=} and {modes=}")
    limits = (atol, rtol, eps)

    def write(writer: Writer, args: Any) -> str:
        keywords = limits_of(*limits, seed=seed)
        if tuple(modes) != ("fwd", "rev"):
            keywords["modes"] = repr(tuple(modes))
        return writer.call(
            "check_grads", writer.subject(f, "f", 0), writer.expression(args), order=str(order), **keywords
        )

    try:
        hold(
            lambda args: grads_law(f, args, order, modes, limits, seed),
            arguments("check_grads", args),
            write,
            generic=True,
        )
    except UnsupportedError as error:
        if "fwd" in modes and "rev" in modes:
            error.add_note('check_grads: modes=("rev",) checks reverse mode alone')
        raise


def grads_law(f: Any, args: Any, order: int, modes: Any, limits: Limits, seed: int, of: str = "") -> None:
    """The law of `check_grads`."""
    if "fwd" in modes:
        _jvp_law(f, partial(jvp, f), args, limits, seed, f"jvp{of}")
    if "rev" in modes:
        _vjp_law(f, partial(vjp, f), args, limits, seed, f"vjp{of}")
    if "fwd" in modes and "rev" in modes:
        _modes_law(f, args, (None, None, None), seed, f"vjp{of}")
    if order == 1:
        return
    if "fwd" in modes:
        v = random_like(args, seed + 2)
        grads_law(lambda *xs: jvp(f, xs, v)[1], args, order - 1, modes, limits, seed + 4, f" of jvp{of}")
    if "rev" in modes:
        u = random_like(f(*args), seed + 3)
        grads_law(lambda *xs: vjp(f, *xs)[1](u), args, order - 1, modes, limits, seed + 4, f" of vjp{of}")
