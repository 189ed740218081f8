"""Which arguments of a function are static, which it gets as they are, not as tracers, and which are donated.

What a user writes as `static_argnums` and `static_argnames` goes in, with the function; positions and names come
out, each argument under both where the function's signature tells them, since a caller may use either.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from fnflare.errors import ArgumentError
from fnflare.transforms._call import Argnames, Argnums, name_of, normalise_argnums

_Parameter = inspect.Parameter
_POSITIONAL = (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD)


def static_arguments(
    what: str, fun: Callable[..., Any], static_argnums: Argnums | None, static_argnames: Argnames, kind: str = "static"
) -> tuple[frozenset[int], frozenset[str]]:
    """The positions, counted from 0, and the names of the static arguments.

    Args:
        what: the transform, for messages.
        fun: the function.
        static_argnums: as the user wrote them; negative ones count from the last positional argument.
        static_argnames: as the user wrote them.
        kind: what such arguments are called, for messages: "static" or "donate".

    Raises:
        ArgumentError: the function has no such argument.
    """
    numbers, names = normalise_argnums(() if static_argnums is None else static_argnums, static_argnames)
    if not numbers and not names:
        return frozenset(), frozenset()
    parameters = parameters_of(fun)
    kinds = {p.kind for p in parameters or ()}
    if parameters is None or _Parameter.VAR_POSITIONAL in kinds:
        if min(numbers, default=0) < 0:
            raise ArgumentError(
                f"{what}: the number of arguments of {name_of(fun)} is open; count {kind}_argnums from 0, "
                f"got {static_argnums}"
            )
        if parameters is None:
            return frozenset(numbers), frozenset(names)
    positional = [p.name for p in parameters if p.kind in _POSITIONAL]
    count = len(positional)
    has = f"{name_of(fun)} has {', '.join([p.name for p in parameters]) or 'none'}"
    for n in numbers:
        if not -count <= n < count and _Parameter.VAR_POSITIONAL not in kinds:
            raise ArgumentError(f"{what}: there is no argument {kind}_argnums={n}; {has}")
    by_keyword = {p.name for p in parameters if p.kind in (_Parameter.POSITIONAL_OR_KEYWORD, _Parameter.KEYWORD_ONLY)}
    for name in names:
        if name not in by_keyword and _Parameter.VAR_KEYWORD not in kinds:
            raise ArgumentError(f"{what}: there is no argument {kind}_argnames={name!r}; {has}")
    places = {n + count if n < 0 else n for n in numbers} | {i for i, name in enumerate(positional) if name in names}
    return frozenset(places), frozenset(names) | ({positional[n] for n in places if n < count} & by_keyword)


def parameters_of(fun: Callable[..., Any]) -> Sequence[inspect.Parameter] | None:
    """The parameters of a function; None where it does not tell them, as builtins may not."""
    try:
        return list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):
        return None


def argument_names(fun: Callable[..., Any], count: int) -> list[str]:
    """What the first `count` positional arguments of a call are called: ``x``, ``xs/0``, or ``arg0``."""
    names: list[str] = []
    for p in parameters_of(fun) or ():
        if p.kind is _Parameter.VAR_POSITIONAL:
            names += [f"{p.name}/{i}" for i in range(count - len(names))]
        elif p.kind in _POSITIONAL:
            names.append(p.name)
    return [*names[:count], *[f"arg{i}" for i in range(len(names), count)]]
