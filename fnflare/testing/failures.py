"""What a law says when it does not hold: which law, where, and both numbers.

Two trees go in, and nothing comes out or a `LawError`. All laws of this package compare with the functions here, so
that all of them name the leaf, the worst element and what was allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import tree

__all__ = ["LawError", "assert_close", "assert_equal", "assert_structure", "at", "is_floating", "transformed"]


class LawError(AssertionError):
    """A law does not hold.

    Attributes:
        law: which one, in words that do not depend on the numbers, such as ``"jvp of vjp: the tangent"``.
        example: code that fails so when it is run; empty while there is none.
    """

    def __init__(self, law: str, message: str, example: str = "") -> None:
        super().__init__(law, message, example)
        self.law, self.message, self.example = law, message, example

    def __str__(self) -> str:
        return f"{self.message}\n\nAn example to paste:\n\n{self.example}\n" if self.example else self.message


def is_floating(x: Any) -> bool:
    """Whether a leaf is a Python float, or an array or number of floating dtype."""
    return isinstance(x, float) or (hasattr(x, "dtype") and x.dtype.kind == "f")


def at(what: str, path: tree.Path) -> str:
    """What is wrong, and at which leaf."""
    return f"{what}, leaf {tree.path_str(path)!r}" if path else what


def assert_structure(got: Any, like: Any, what: str, law: str | None = None) -> None:
    """Fail unless the floating leaves of two trees have the same paths, shapes and dtypes.

    Args:
        got, like: the trees.
        what: what the message calls `got`.
        law: the law of the failure; `what` where None.
    """
    law = f"{what if law is None else law}, its structure"
    if tree.structure(got) != tree.structure(like):
        raise LawError(law, f"{what}: has structure {tree.structure(got)}, not {tree.structure(like)}")
    for (path, x), y in zip(tree.leaves_with_path(got), tree.leaves(like), strict=True):
        if is_floating(y):
            x, y = np.asarray(x), np.asarray(y)
            if (x.shape, x.dtype) != (y.shape, y.dtype):
                raise LawError(
                    law, f"{at(what, path)}: has shape {x.shape} and dtype {x.dtype}, not {y.shape} and {y.dtype}"
                )


def assert_equal(got: Any, expected: Any, what: str, against: str, law: str | None = None) -> None:
    """Fail unless the leaves of two trees of one structure that are not of floating dtype are equal."""
    for (path, x), y in zip(tree.leaves_with_path(got), tree.leaves(expected), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        if x.dtype.kind != "f" and not (x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == "c")):
            raise LawError(what if law is None else law, f"{at(what, path)}: {x!r}, but {against} {y!r}")


def assert_close(
    got: Any,
    expected: Any,
    limits: tuple[float, float],
    what: str,
    against: str,
    hint: str = "",
    *,
    law: str | None = None,
    nan: bool = False,
) -> None:
    """Fail at the worst element of the first floating leaf that differs by more than ``atol + rtol * |expected|``.

    Args:
        got, expected: trees of one structure.
        limits: atol and rtol.
        what: what the message calls `got`.
        against: says what gave `expected`, with a verb.
        hint: closes the message.
        law: the law of the failure; `what` where None.
        nan: whether two elements that are not a number are equal; otherwise nothing is close to them.
    """
    atol, rtol = limits
    for (path, x), y in zip(tree.leaves_with_path(got), tree.leaves(expected), strict=True):
        if not (is_floating(x) and is_floating(y)):
            continue
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        allowed = atol + rtol * np.abs(y)
        with np.errstate(invalid="ignore"):  # inf - inf is nan, which is not close
            excess = np.where((x == y) | (nan & np.isnan(x) & np.isnan(y)), -1.0, np.abs(x - y) - allowed)
        wrong = ~(excess <= 0)
        if np.any(wrong):
            worst = np.unravel_index(np.argmax(np.where(np.isnan(excess), np.inf, excess)), x.shape)
            element = f"[{', '.join(str(int(i)) for i in worst)}]" if worst else ""
            raise LawError(
                what if law is None else law,
                f"{at(what, path)}{element}: {x[worst]:.10g}, but {against} {y[worst]:.10g} (allowed difference "
                f"{allowed[worst]:.2g}; {np.count_nonzero(wrong)} of {x.size} elements differ). {hint}".rstrip(),
            )


def transformed(law: str, f: Callable[..., Any], *args: Any) -> Any:
    """The answer of a transformed function; an error of it, where the function itself raised none, breaks the law."""
    try:
        return f(*args)
    except Exception as error:
        name = type(error).__name__
        raise LawError(f"{law}: {name}", f"{law}: raises {name} where the function itself does not: {error}") from error
