"""What all transforms share: picking arguments, lifting leaves, running a function under a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import Tracer, dtype_of
from fnflare.errors import ArgumentError, DtypeError

Argnums = int | Sequence[int]
Argnames = str | Sequence[str] | None


def name_of(fun: Any) -> str:
    """The name of a function, for messages."""
    return getattr(fun, "__qualname__", None) or getattr(fun, "__name__", None) or repr(fun)


def copy_name(fun: Any, new: Callable[..., Any], transform: str) -> Callable[..., Any]:
    """Give a transformed function a name and a docstring."""
    new.__name__ = f"{transform}({getattr(fun, '__name__', 'function')})"
    new.__qualname__ = f"{transform}({name_of(fun)})"
    new.__doc__ = f"``{transform}`` of ``{name_of(fun)}``.\n\n{getattr(fun, '__doc__', None) or ''}"
    new.__wrapped__ = fun  # type: ignore[attr-defined]
    return new


def concrete(x: Any) -> Any:
    """A leaf as something with a shape and a dtype; a Python float stays weak."""
    if isinstance(x, (np.ndarray, Tracer, np.generic)) or type(x) is float:
        return x
    if isinstance(x, (bool, int, complex, list)):
        return np.asarray(x)[()]
    return x


def check_differentiable(x: Any, name: Callable[[], str], holomorphic: bool = False) -> Any:
    """A leaf ready to be differentiated with respect to; a typed error, with its name, where it cannot be."""
    x = concrete(x)
    if isinstance(x, (np.floating, float)) and not holomorphic:
        return x
    if hasattr(x, "dtype") and x.dtype.kind == ("c" if holomorphic else "f"):
        return x
    what = name()
    if not isinstance(x, (np.ndarray, Tracer, np.generic, float)):
        raise DtypeError(
            f"{what} is a {type(x).__name__}, which has no derivative; keep it out of the differentiated arguments "
            "(argnums=, argnames=, or tree.partition)"
        )
    kind = dtype_of(x).kind
    if kind == "c":
        raise DtypeError(
            f"{what} has dtype {dtype_of(x)}; a gradient with respect to a complex number exists only for a "
            "holomorphic function: pass holomorphic=True if it is one, or differentiate real and imaginary parts"
        )
    if holomorphic:
        raise DtypeError(f"{what} has dtype {dtype_of(x)}; with holomorphic=True it must be complex")
    raise DtypeError(
        f"{what} has dtype {dtype_of(x)} and cannot be differentiated with respect to; convert it, "
        "x.astype(np.float32), or leave it out (argnums=, argnames=, or tree.partition)"
    )


def check_argnums(nums: tuple[int, ...], names: tuple[str, ...], args: Any, kwargs: Any, fun: Any) -> None:
    """Raise `ArgumentError` where a call lacks an argument that was to be differentiated."""
    count = len(args)
    for n in nums:
        if not -count <= n < count:
            raise ArgumentError(
                f"argnums={n} but {name_of(fun)} was called with {count} positional arguments; "
                "name keyword arguments with argnames="
            )
    for name in names:
        if name not in kwargs:
            raise ArgumentError(
                f"argnames={name!r} but {name_of(fun)} was called without that keyword "
                f"(keywords: {', '.join(kwargs) or 'none'})"
            )


def normalise_argnums(argnums: Argnums | None, argnames: Argnames) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The numbers and the names as tuples; where only names are given there are no numbers."""
    names = () if argnames is None else (argnames,) if isinstance(argnames, str) else tuple(argnames)
    if argnums is None:
        argnums = () if names else 0
    try:
        nums = (int(argnums),) if isinstance(argnums, (int, np.integer)) else tuple([int(n) for n in argnums])
    except (TypeError, ValueError):
        raise ArgumentError(f"argnums must be an int or a sequence of ints, got {argnums!r}") from None
    return nums, names


def shape_result(values: Sequence[Any], argnums: Argnums | None, argnames: Argnames) -> Any:
    """The results for the chosen arguments, laid out as `argnums` and `argnames` were written."""
    if argnames is None and (argnums is None or type(argnums) is int):
        return values[0]
    nums, names = normalise_argnums(argnums, argnames)
    by_number: Any = tuple(values[: len(nums)])
    if argnums is None or isinstance(argnums, (int, np.integer)):
        by_number = by_number[0] if by_number else None
    if not names:
        return by_number
    by_name: Any = (
        values[len(nums)] if isinstance(argnames, str) else dict(zip(names, values[len(nums) :], strict=True))
    )
    return by_name if not nums else (by_number, by_name)


def tuple_of(*structures: tree.TreeDef) -> tree.TreeDef:
    """The structure of a tuple of trees of the given structures."""
    return tree.TreeDef(tuple, None, structures, sum(s.num_leaves for s in structures))


def path_name(argument: str | int, path: tree.Path) -> str:
    """How a message names a leaf of an argument, given by position or by keyword."""
    base = f"argument {argument!r}"
    return f"{base}, leaf {tree.path_str(path)!r}" if path else base
