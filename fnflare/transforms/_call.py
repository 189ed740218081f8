"""What all transforms share: picking arguments, lifting leaves, running a function under a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import Tracer, dtype_of
from fnflare.errors import ArgumentError, DtypeError, NonScalarLossError

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


def given(x: Any) -> Any:
    """A leaf of an argument that may be differentiated: like `concrete`, but every Python number stays one, whose dtype
    gives way to that of arrays."""
    return x if type(x) in (int, complex) else concrete(x)


def answer(x: Any) -> Any:
    """A leaf of what a function returned: like `concrete`, but a Python float is NumPy's."""
    return np.float64(x) if type(x) is float else concrete(x)


def is_given_array(x: Any) -> bool:
    """Whether what `given` made of a leaf takes part as an array; anything else is handed on as it is."""
    return isinstance(x, (np.ndarray, np.generic, float, complex, Tracer)) or type(x) is int


def check_differentiable(x: Any, name: Callable[[], str], holomorphic: bool = False, real: bool = False) -> Any:
    """A leaf ready to be differentiated with respect to; a typed error, with its name, where it cannot be.

    A complex leaf has a gradient, that of a real loss, but no column of a Jacobian, since two directions lead away
    from each element; where the function is not holomorphic, `real` refuses it.
    """
    x = given(x)
    if isinstance(x, (np.floating, float)) and not holomorphic:
        return x
    if type(x) is complex and not real:
        return x
    x = concrete(x)
    if hasattr(x, "dtype") and x.dtype.kind in ("c" if holomorphic else "f" if real else "fc"):
        return x
    what = name()
    if not isinstance(x, (np.ndarray, Tracer, np.generic, float)):
        raise DtypeError(
            f"{what} is a {type(x).__name__}, which has no derivative; keep it out of the differentiated arguments "
            "(argnums=, argnames=, or tree.partition)"
        )
    if dtype_of(x).kind == "c":
        raise DtypeError(
            f"{what} has dtype {dtype_of(x)}; forward mode gives one derivative with respect to a complex number only "
            "for a holomorphic function: pass holomorphic=True if it is one; otherwise use ff.jvp in a direction, or "
            "differentiate with respect to real and imaginary parts"
        )
    if holomorphic:
        raise DtypeError(f"{what} has dtype {dtype_of(x)}; with holomorphic=True it must be complex")
    raise DtypeError(
        f"{what} has dtype {dtype_of(x)} and cannot be differentiated with respect to; convert it, "
        "x.astype(np.float32), or leave it out (argnums=, argnames=, or tree.partition)"
    )


def check_output(dtype: Any, holomorphic: bool, what: str, real: bool = True) -> None:
    """Raise `NonScalarLossError` where an output's dtype has no gradient of the kind that was asked for.

    Args:
        dtype: of the output.
        holomorphic: whether it has to be complex.
        what: the transform and the function, for the message.
        real: whether it has to be real otherwise.
    """
    if dtype.kind == "c" and not holomorphic and real:
        raise NonScalarLossError(
            f"{what} must return real numbers, got dtype {dtype}: a complex output has a gradient only if the function "
            "is holomorphic: pass holomorphic=True if it is; otherwise return a real number made of it, such as "
            "np.abs(out) or out.real, or use ff.vjp"
        )
    if holomorphic and dtype.kind != "c":
        raise NonScalarLossError(f"{what} must return complex numbers with holomorphic=True, got dtype {dtype}")
    if real and dtype.kind not in "fc":
        raise NonScalarLossError(f"{what} must return numbers of real floating dtype, got dtype {dtype}")


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
