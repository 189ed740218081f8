"""Holding a law: it is tried, and where it fails its arguments are shrunk and written down.

A law and its arguments go in; nothing comes out, or a `LawError` whose message ends in code that fails in the same way
when it is pasted. Every ``check_...`` of this package ends here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.errors import ArgumentError
from fnflare.testing.failures import LawError, at
from fnflare.testing.shrinking import shrink
from fnflare.testing.sources import NoSourceError
from fnflare.testing.writing import Writer

__all__ = ["arguments", "hold"]


def arguments(who: str, args: Any) -> tuple[Any, ...]:
    """The arguments of a function under test, which come as a tuple or a list."""
    if not isinstance(args, (tuple, list)) or hasattr(args, "_fields"):
        got = type(args).__name__
        raise ArgumentError(f"{who}: args is a tuple of the function's arguments, got {got}; write (x,)")
    return tuple(args)


def hold(
    law: Callable[[Any], None],
    args: Any,
    write: Callable[[Writer, Any], str],
    *,
    generic: bool = False,
    tries: int | None = None,
) -> None:
    """Try a law; where it fails, raise with the smallest example that was found.

    Under Hypothesis, which shrinks what it has drawn, nothing is shrunk here.

    Args:
        law: raises `LawError` where it does not hold.
        args: what it is tried on, a pytree.
        write: writes the call of a check that fails on such arguments.
        generic, tries: see `fnflare.testing.shrinking.shrink`.
    """
    __tracebackhide__ = True
    watched = partial(_watched, law)
    try:
        watched(args)
        return
    except LawError as error:
        failure, cause = error, error.__cause__
    if not _under_hypothesis():
        args, failure = shrink(watched, args, failure, generic=generic, tries=tries)
        cause = failure.__cause__
    writer = Writer(sys._getframe(2))  # who called the check
    try:
        example = writer.code(write(writer, args))
    except NoSourceError as error:
        example = f"# it cannot be written: {error}"
    raise LawError(failure.law, failure.message, example) from cause


def _watched(law: Callable[[Any], None], args: Any) -> None:
    """A law, and the one that all functions keep: they leave their arguments as they are. What they have written into
    these is undone."""
    before = [x.copy() if isinstance(x, np.ndarray) else None for x in tree.leaves(args)]
    failure = None
    try:
        law(args)
    except LawError as error:
        failure = error
    changed = None
    for (path, x), y in zip(tree.leaves_with_path(args), before, strict=True):
        if y is not None and x.tobytes() != y.tobytes():
            np.copyto(x, y)
            changed = path if changed is None else changed
    if changed is not None and (failure is None or not failure.law.startswith("pure")):
        what = at("arguments: the function writes into its arguments", changed)
        raise LawError("arguments", f"{what}; make new arrays, as fnflare.at(x)[i].set(v) does") from failure
    if failure is not None:
        raise failure


def _under_hypothesis() -> bool:
    hypothesis = sys.modules.get("hypothesis")
    return hypothesis is not None and hypothesis.currently_in_test_context()
