"""`debug_nans`: which operation was the first to give NaN, and where it was written.

Every operation of the thread comes to an observer that looks at its answer; the first that holds NaN raises a
`NonFiniteError` which says all that is known of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core import Source, aval_of, observing
from fnflare.core.observe import Call
from fnflare.errors import NonFiniteError

__all__ = ["debug_nans"]


class _Settings(threading.local):
    """What the blocks of a thread look for, innermost last: nothing, "nan", or "inf" for both."""

    def __init__(self) -> None:
        self.looking_for: list[str] = []


_settings = _Settings()


@contextmanager
def debug_nans(enabled: bool = True, *, inf: bool = False) -> Iterator[None]:
    """Raise an error at the first operation that gives NaN, for the time of a ``with`` block.

    The error names the operation, the shapes of its arguments and which of them were not finite already, the line
    and the layer that it was written in and, in a backward pass, those of the operation whose derivative it belongs
    to. Operations inside of transforms (`grad`, `jvp`, `vmap`, ...) are looked at; plain NumPy calls on plain arrays
    are NumPy's own business. Only the thread that enters the block is looked at, and it is slow: take it out again
    when the bug is found. NaN that is made on purpose and discarded, as in ``np.where(x > 0, np.log(x), 0)``, raises
    too; its gradient is NaN anyway.

    Args:
        enabled: False leaves a part of a block out.
        inf: whether an infinite answer raises too. It does not by default, since masks are often infinite.

    Raises:
        NonFiniteError: an operation within gave NaN; see there for what the error tells a program.

    >>> try:
    ...     with ff.debug_nans(), np.errstate(invalid="ignore"):
    ...         ff.grad(lambda x: np.log(x) * 2)(-1.0)
    ... except ff.errors.NonFiniteError as error:
    ...     error.op, error.phase, error.from_inputs
    ('log', 'forward', False)
    """
    stack = _settings.looking_for
    depth = len(stack)
    with ExitStack() as block:
        if enabled and not any(stack):
            block.enter_context(observing(_check))
        stack.append(("inf" if inf else "nan") if enabled else "")
        try:
            yield
        finally:
            del stack[depth:]


def _check(call: Call) -> None:
    looking_for = _settings.looking_for[-1]
    if not looking_for:
        return
    for ans in call.ans if call.prim.many else (call.ans,):
        kind = _found(ans, looking_for)
        if kind:
            raise _error(call, ans, kind)


def _found(x: Any, looking_for: str) -> str:
    """What an array holds of that which is looked for: "NaN", "infinity" or nothing."""
    if not isinstance(x, (np.ndarray, np.generic, float)) or aval_of(x).dtype.kind not in "fc":
        return ""
    if np.isnan(x).any():
        return "NaN"
    return "infinity" if looking_for == "inf" and np.isinf(x).any() else ""


def _error(call: Call, ans: Any, kind: str) -> NonFiniteError:
    source = call.source
    inputs = [_found(a, "inf") for a in call.args]
    lines = [f"{_where(call, kind, source)}", f"  answer: {_described(ans)}"]
    lines += [f"  argument {i}: {_described(a)}" for i, a in enumerate(call.args)]
    error = NonFiniteError("\n".join([*lines, f"  {_blame(inputs)}"]))
    error.op = call.prim.name
    error.from_inputs = any(inputs)
    if source is not None:
        error.file, error.line, error.layer = source.file, source.line, tree.path_str(source.path)
        error.phase, error.derivative_of = source.phase, source.derivative_of or None
    return error


def _where(call: Call, kind: str, source: Source | None) -> str:
    """The first line of the message, and the user's line."""
    if source is None:
        return f"{call.prim.name} gave {kind}"
    layer = f"in layer {tree.path_str(source.path)!r}: " if source.path else ""
    rule = f", in the derivative of {source.derivative_of}" if source.derivative_of else ""
    text = f"\n    {source.text}" if source.text else ""
    place = f"{source}, in {source.code.co_name}{text}"
    return f"{layer}{call.prim.name} gave {kind} in the {source.phase} pass{rule}, at {place}"


def _blame(inputs: list[str]) -> str:
    """Whether the operation is at fault, or which of its arguments."""
    if not any(inputs):
        return "All arguments were finite: it arose here."
    if "NaN" in inputs:
        return (
            f"Argument {inputs.index('NaN')} held NaN before: it came in with the data or the parameters, or from "
            "plain NumPy calls."
        )
    return (
        f"Argument {inputs.index('infinity')} was infinite before: debug_nans(inf=True) stops where an infinity arises."
    )


def _described(x: Any) -> str:
    """Dtype, shape and range of an array, and where it is not finite."""
    aval = aval_of(x)
    values = np.asarray(x)
    head = f"{aval.dtype} {aval.shape}" if aval.shape else f"{aval.dtype} {x}"
    if aval.dtype.kind not in "fc" or not values.size:
        return head
    bad = ~np.isfinite(values)
    if bad.any():
        if not aval.shape:
            return head
        first = tuple(np.argwhere(bad)[0].tolist())
        count = f"{bad.sum():,} of {values.size:,} elements not finite"
        return f"{head}, {count}, the first at {list(first)}: {values[first]}"
    if not aval.shape or aval.dtype.kind == "c":
        return f"{head}, finite"
    return f"{head}, finite, from {values.min():.6g} to {values.max():.6g}"
