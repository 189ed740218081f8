"""Checks of derivatives, against finite differences and of the two modes against each other, and of `vmap`.

A function and its arguments go in; nothing comes out, or an `AssertionError` that names the leaf, both
numbers and the seed with which to see them again. Arguments and answers are pytrees; leaves that are
not of floating dtype pass through. Complex leaves are moved and compared as the pairs of real numbers that they are; a
cotangent is matched with a tangent as `fnflare.ops.complex` says.

All directions are random and fixed by a seed. The step and the tolerances follow from the coarsest
floating dtype among the arguments and answers, where they are not given:

========  =======  ======================  ================================
dtype     ``eps``  ``atol`` and ``rtol``,  ``atol`` and ``rtol``, one mode
                   finite differences      against the other
========  =======  ======================  ================================
float16   1e-1     1e-1                    1e-2
float32   5e-3     2e-3                    1e-4
float64   6e-6     1e-6                    1e-10
========  =======  ======================  ================================

The steps are the cube roots of the dtypes' precisions, at which the two errors of a central difference,
of cutting off the series and of rounding, are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError
from fnflare.transforms import float0, jvp, value_and_grad, vjp, vmap
from fnflare.transforms.vmap import examples, mapped_axes

__all__ = [
    "check_grads",
    "check_jvp",
    "check_model",
    "check_transpose",
    "check_vjp",
    "check_vmap",
    "numerical_jvp",
    "random_like",
]

#: By the bytes of a floating dtype: the step, and the tolerances against differences and between modes.
_STEPS = {2: 1e-1, 4: 5e-3, 8: 6e-6}
_DIFFERENCE_TOLERANCES = {2: 1e-1, 4: 2e-3, 8: 1e-6}
_MODE_TOLERANCES = {2: 1e-2, 4: 1e-4, 8: 1e-10}


def _is_floating(x: Any) -> bool:
    return isinstance(x, (float, complex)) or (hasattr(x, "dtype") and x.dtype.kind in "fc")


def _wide(x: Any) -> Any:
    """An array in the widest dtype of its kind, real or complex."""
    x = np.asarray(x)
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _coarsest(*trees: Any) -> int:
    """The bytes of the coarsest floating dtype among the leaves, 8 where there is none; of a complex number those of
    each part."""
    sizes = [np.asarray(x).real.itemsize for t in trees for x in tree.leaves(t) if _is_floating(x)]
    return min(8, *sizes) if sizes else 8


def random_like(like: Any, seed: int = 0) -> Any:
    """A random direction: a tangent or cotangent of a tree.

    Args:
        like: a pytree.
        seed: of the random numbers.

    Returns:
        A tree like `like` of standard normal numbers in the shapes and dtypes of its leaves, with
        float0 where a leaf is not of floating dtype.

    >>> random_like({"w": np.zeros((2, 3), np.float32)})["w"].dtype
    dtype('float32')
    """
    rng = np.random.default_rng(seed)

    def draw(x: Any) -> Any:
        if not _is_floating(x):
            return np.zeros(np.shape(x), float0)
        dtype, numbers = np.asarray(x).dtype, rng.standard_normal(np.shape(x))
        if dtype.kind == "c":
            numbers = numbers + 1j * rng.standard_normal(np.shape(x))
        return np.asarray(numbers, dtype)[()]

    return tree.map(draw, like)


def _inner(a: Any, b: Any) -> tuple[float, float]:
    """The inner product of two trees of one structure, and the sum of its terms' sizes. That of complex numbers is
    the one by which cotangents are matched with tangents, the real part of the product without a conjugate."""
    total, size = 0.0, 0.0
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        if _is_floating(x) and _is_floating(y):
            product = _wide(x) * _wide(y)
            total += float(np.sum(product.real))
            size += float(np.sum(np.abs(product)))
    return total, size


def _moved(primals: Any, tangents: Any, step: float) -> Any:
    def move(x: Any, t: Any) -> Any:
        if not _is_floating(x):
            return x
        there = _wide(x) + step * _wide(t)
        return there.item() if type(x) in (float, complex) else there.astype(np.asarray(x).dtype)[()]

    return tree.map(move, primals, tangents)


def numerical_jvp(f: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any], eps: float) -> Any:
    """The directional derivative by a central difference, ``(f(x + eps t) - f(x - eps t)) / (2 eps)``.

    Args:
        f: a function of pytrees.
        primals: its arguments, a tuple or list.
        tangents: the direction, of the same structure; what stands for a leaf of another dtype is not read.
        eps: the step.

    Returns:
        A tree like the answer of `f`: float64 or complex128 arrays, float0 for leaves that are not of floating dtype.

    >>> round(float(numerical_jvp(np.sin, (0.0,), (2.0,), 1e-5)), 8)
    2.0
    """
    ahead = f(*_moved(tuple(primals), tuple(tangents), eps))
    behind = f(*_moved(tuple(primals), tuple(tangents), -eps))

    def slope(a: Any, b: Any) -> Any:
        if not _is_floating(a):
            return np.zeros(np.shape(a), float0)
        return (_wide(a) - _wide(b)) / (2 * eps)

    return tree.map(slope, ahead, behind)


def _at(what: str, path: tree.Path) -> str:
    return f"{what}, leaf {tree.path_str(path)!r}" if path else what


def _assert_structure(got: Any, like: Any, what: str) -> None:
    """Fail unless the floating leaves of two trees have the same paths, shapes and dtypes."""
    if tree.structure(got) != tree.structure(like):
        raise AssertionError(f"{what}: has structure {tree.structure(got)}, not {tree.structure(like)}")
    for (path, x), y in zip(tree.leaves_with_path(got), tree.leaves(like), strict=True):
        if _is_floating(y):
            x, y = np.asarray(x), np.asarray(y)
            if (x.shape, x.dtype) != (y.shape, y.dtype):
                raise AssertionError(
                    f"{_at(what, path)}: has shape {x.shape} and dtype {x.dtype}, not {y.shape} and {y.dtype}"
                )


def _assert_close(got: Any, expected: Any, atol: float, rtol: float, what: str, against: str, hint: str) -> None:
    """Fail at the worst element of the first leaf that differs by more than ``atol + rtol * |expected|``."""
    for (path, x), y in zip(tree.leaves_with_path(got), tree.leaves(expected), strict=True):
        if not (_is_floating(x) and _is_floating(y)):
            continue
        x, y = _wide(x), _wide(y)
        allowed = atol + rtol * np.abs(y)
        with np.errstate(invalid="ignore"):  # inf - inf is nan, which is not close
            excess = np.where(x == y, -1.0, np.abs(x - y) - allowed)
        wrong = ~(excess <= 0)
        if np.any(wrong):
            worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), x.shape)
            element = f"[{', '.join(str(int(i)) for i in worst)}]" if worst else ""
            raise AssertionError(
                f"{_at(what, path)}{element}: {x[worst]:.10g}, but {against} {y[worst]:.10g} "
                f"(allowed difference {allowed[worst]:.2g}; {np.count_nonzero(wrong)} of {x.size} elements differ). "
                f"{hint}"
            )


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

    >>> check_jvp(np.sin, lambda p, t: (np.sin(p[0]), np.cos(p[0]) * t[0]), (1.0,))
    """
    args = tuple(args)
    tangents = random_like(args, seed)
    value = f(*args)
    out, tangent = f_jvp(args, tangents)
    bytes_ = _coarsest(args, value)
    eps = _STEPS[bytes_] if eps is None else eps
    tolerances = _tolerances(_DIFFERENCE_TOLERANCES[bytes_], atol, rtol)
    _assert_structure(out, value, f"{name}: the value")
    _assert_structure(tangent, value, f"{name}: the tangent")
    _assert_close(out, value, *tolerances, f"{name}: the value", "the function returns", _hint(seed))
    measured = numerical_jvp(f, args, tangents, eps)
    _assert_close(tangent, measured, *tolerances, f"{name}: the tangent", "finite differences give", _hint(seed, eps))


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

    >>> check_vjp(np.sin, lambda x: (np.sin(x), lambda ct: (ct * np.cos(x),)), (1.0,))
    """
    args = tuple(args)
    value = f(*args)
    out, pullback = f_vjp(*args)
    bytes_ = _coarsest(args, value)
    eps = _STEPS[bytes_] if eps is None else eps
    atol, rtol = _tolerances(_DIFFERENCE_TOLERANCES[bytes_], atol, rtol)
    _assert_structure(out, value, f"{name}: the value")
    _assert_close(out, value, atol, rtol, f"{name}: the value", "the function returns", _hint(seed))
    ct = random_like(value, seed + 1)
    cotangents = pullback(ct)
    _assert_structure(cotangents, args, f"{name}: the cotangent")
    _assert_directions(f, args, cotangents, ct, random_like(args, seed), (atol, rtol, eps), name, seed)


def _assert_directions(
    f: Any, args: Any, cotangents: Any, ct: Any, v: Any, limits: tuple[float, float, float], name: str, seed: int
) -> None:
    """Compare ``<cotangents, v>`` with ``<ct, difference of f along v>``; where they differ, find the leaf."""
    atol, rtol, eps = limits

    def differ(direction: Any) -> tuple[bool, float, float]:
        got, size = _inner(cotangents, direction)
        measured, _ = _inner(ct, numerical_jvp(f, args, direction, eps))
        return not abs(got - measured) <= atol + rtol * max(size, abs(measured)), got, measured

    wrong, got, measured = differ(v)
    if not wrong:
        return
    where = f"{name}: the cotangents"
    leaves, structure = tree.flatten(v)
    for k, (path, x) in enumerate(tree.leaves_with_path(args)):
        if _is_floating(x):
            alone = [t if i == k or not _is_floating(t) else np.zeros_like(t) for i, t in enumerate(leaves)]
            wrong, got_alone, measured_alone = differ(tree.unflatten(structure, alone))
            if wrong:
                where, got, measured = _at(f"{name}: the cotangent", path), got_alone, measured_alone
                break
    raise AssertionError(
        f"{where}: in the random direction v, <cotangent, v> = {got:.10g}, but finite differences give "
        f"{measured:.10g} (difference {abs(got - measured):.2g}). {_hint(seed, eps)}"
    )


def _tolerances(default: float, atol: float | None, rtol: float | None) -> tuple[float, float]:
    return default if atol is None else atol, default if rtol is None else rtol


def check_transpose(
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

    >>> check_transpose(lambda x, y: np.tanh(x @ y), (np.ones((2, 3)), np.ones(3)))
    """
    args = tuple(args)
    v = random_like(args, seed)
    out, pullback = vjp(f, *args)
    u = random_like(out, seed + 1)
    backward, size_back = _inner(pullback(u), v)
    forward, size_forward = _inner(u, jvp(f, args, v)[1])
    atol, rtol = _tolerances(_MODE_TOLERANCES[_coarsest(args, out)], atol, rtol)
    if not abs(backward - forward) <= atol + rtol * max(size_back, size_forward):
        raise AssertionError(
            f"{name}: <vjp(u), v> = {backward:.12g}, but <u, jvp(v)> = {forward:.12g} "
            f"(difference {abs(backward - forward):.2g}). {_hint(seed)}, and random_like(out, seed + 1) the cotangent"
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

    >>> check_grads(lambda w, x: np.sum(np.tanh(x @ w)), (np.ones(3), np.eye(3)), order=2)
    """
    args = tuple(args)
    if order < 1 or not modes or set(modes) - {"fwd", "rev"}:
        raise ArgumentError(f"check_grads: needs order >= 1 and modes of 'fwd' and 'rev', got {order=} and {modes=}")
    _check_order(f, args, order, modes, (atol, rtol, eps), seed, "")


def _check_order(f: Any, args: Any, order: int, modes: Any, limits: Any, seed: int, of: str) -> None:
    if "fwd" in modes:
        check_jvp(f, partial(jvp, f), args, *limits, seed=seed, name=f"jvp{of}")
    if "rev" in modes:
        check_vjp(f, partial(vjp, f), args, *limits, seed=seed, name=f"vjp{of}")
    if "fwd" in modes and "rev" in modes:
        check_transpose(f, args, seed=seed, name=f"vjp{of}")
    if order == 1:
        return
    if "fwd" in modes:
        v = random_like(args, seed + 2)
        _check_order(lambda *xs: jvp(f, xs, v)[1], args, order - 1, modes, limits, seed + 4, f" of jvp{of}")
    if "rev" in modes:
        u = random_like(f(*args), seed + 3)
        _check_order(lambda *xs: vjp(f, *xs)[1](u), args, order - 1, modes, limits, seed + 4, f" of vjp{of}")


def check_model(
    loss: Callable[..., Any],
    params: Any,
    *args: Any,
    has_aux: bool = False,
    promote: bool = True,
    directions: int = 1,
    seed: int = 0,
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
    **kwargs: Any,
) -> None:
    """The bump test of a whole model: its gradient against finite differences of the loss in random directions.

    Args:
        loss: ``loss(params, *args, **kwargs)`` returns a scalar, or ``(scalar, aux)`` with `has_aux`.
        params: a pytree of floating arrays.
        *args, **kwargs: the rest of the arguments: a batch, ``key=``, ``train=``.
        promote: whether the differences are taken in float64: `params` and the floating leaves of `args` are
            converted for them. The gradient itself is computed in the dtypes that are given, and the tolerance is
            theirs. With False the differences too are taken in the given dtypes, for a loss that cannot
            compute in another.
        directions: how many directions to try.
        seed: of the first direction; each further one takes the seed that follows.
        atol, rtol, eps: the tolerances and the step; by dtype where None, see the module.

    Raises:
        AssertionError: the gradient's structure, shapes or dtypes are not those of `params`, or it is wrong; names
            the first leaf that is.

    >>> def loss(params, x, y):
    ...     return np.mean(np.square(np.tanh(x @ params["w"]) + params["b"] - y))
    >>> params = {"w": np.ones((3, 2), np.float32), "b": np.zeros(2, np.float32)}
    >>> check_model(loss, params, np.ones((4, 3), np.float32), np.zeros((4, 2), np.float32))
    """
    _, gradient = value_and_grad(loss, has_aux=has_aux)(params, *args, **kwargs)
    _assert_structure(gradient, params, "check_model: the gradient")
    default = _DIFFERENCE_TOLERANCES[_coarsest(params)]
    if promote:
        params, args = tree.map(_doubled, (params, args))
    step = _STEPS[_coarsest(params)] if eps is None else eps

    def value(point: Any) -> Any:
        out = loss(point, *args, **kwargs)
        return out[0] if has_aux else out

    limits = (*_tolerances(default, atol, rtol), step)
    for s in range(seed, seed + directions):
        direction = (random_like(params, s),)
        _assert_directions(value, (params,), (gradient,), 1.0, direction, limits, "check_model", s)


def _doubled(x: Any) -> Any:
    return x.astype(np.float64) if hasattr(x, "dtype") and x.dtype.kind == "f" else x


def check_vmap(
    f: Callable[..., Any],
    args: Sequence[Any],
    in_axes: Any = 0,
    atol: float | None = None,
    rtol: float | None = None,
) -> None:
    """Check that ``vmap(f, in_axes)`` gives what `f` gives for each example alone, one after another.

    Args:
        f: a function of pytrees whose answer is a pytree of arrays.
        args: the arguments for all examples, a tuple or list; at least one example.
        in_axes: along which axes of the arguments the examples lie, as `fnflare.vmap` takes it.
        atol, rtol: the tolerances; by dtype where None, those of one mode against the other: a product of all
            examples rounds otherwise than that of each. Leaves that are not of floating dtype must be equal.

    Raises:
        AssertionError: structure, shapes, dtypes or values differ; names the leaf and the example.

    >>> check_vmap(lambda x, w: np.tanh(x @ w), (np.ones((4, 3)), np.eye(3)), in_axes=(0, None))
    """
    args = tuple(args)
    leaves, structure = tree.flatten(args)
    axes, size = mapped_axes(in_axes, args, {}, None, f)
    got = vmap(f, in_axes)(*args)
    for k in range(size):
        one = [examples(x, axis, k) for x, axis in zip(leaves, axes, strict=True)]
        expected = f(*tree.unflatten(structure, one))
        ours = tree.map(lambda x, k=k: x[k], got)
        what = f"vmap, example {k}"
        _assert_structure(ours, expected, what)
        for (path, x), y in zip(tree.leaves_with_path(ours), tree.leaves(expected), strict=True):
            x, y = np.asarray(x), np.asarray(y)
            if x.dtype.kind not in "fc" and not (x.dtype == y.dtype and np.array_equal(x, y)):
                raise AssertionError(f"{_at(what, path)}: {x!r}, but alone it gives {y!r}")
        limits = _tolerances(_MODE_TOLERANCES[_coarsest(args, expected)], atol, rtol)
        _assert_close(ours, expected, *limits, what, "alone it gives", f"To see it again: f on example {k} of {size}")
