"""`jit` against the function as it is written: eager, interpreted and native answers are the same.

A function and its arguments go in; nothing comes out, or an `AssertionError` that names the executor, the leaf and both
numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fnflare import config
from fnflare.testing.directions import MODE_TOLERANCES, coarsest, tolerances
from fnflare.testing.failures import assert_close, assert_equal, assert_structure, transformed
from fnflare.testing.holding import arguments, hold
from fnflare.testing.writing import Writer, limits_of
from fnflare.transforms import disable_jit, jit

__all__ = ["check_jit", "jit_law"]


def check_jit(f: Callable[..., Any], args: Sequence[Any], atol: float | None = None, rtol: float | None = None) -> None:
    """Check that ``jit(f)`` gives what `f` gives, on the interpreter and, where llvmlite is installed, as native code.

    Each is called twice, since the second call takes the program that the first has kept.

    Args:
        f: a function of pytrees whose answer is a pytree of arrays.
        args: the arguments, a tuple or list.
        atol, rtol: the tolerances; by dtype where None, those of one mode against the other: sums are taken in
            another order, and the functions of native code may be a unit in the last place away from NumPy's. Leaves
            that are not of floating dtype must be equal.

    Raises:
        AssertionError: the function cannot be traced, or structure, shapes, dtypes or values differ; names the
            executor and the leaf.

    >>> ff.testing.check_jit(lambda x, w: {"y": np.tanh(x @ w)}, (np.ones((4, 3)), np.eye(3)))
    """

    def write(writer: Writer, args: Any) -> str:
        f_text = writer.subject(f, "f", 0)
        return writer.call("check_jit", f_text, writer.expression(args), **limits_of(atol, rtol))

    hold(lambda args: jit_law(f, args, atol, rtol), arguments("check_jit", args), write)


def jit_law(f: Any, args: Any, atol: float | None = None, rtol: float | None = None) -> None:
    """The law of `check_jit`."""
    with disable_jit():
        expected = f(*args)
    limits = tolerances(MODE_TOLERANCES[coarsest(args, expected)], atol, rtol)
    for native in (False, True) if config.use_native() else (False,):
        executor = f"jit, {'native code' if native else 'the interpreter'}"
        with config.override(use_native=native):
            jitted = jit(f)
            for _ in range(2):
                got = transformed(executor, jitted, *args)
                assert_structure(got, expected, executor)
                assert_equal(got, expected, executor, "as it is written it gives")
                assert_close(got, expected, limits, executor, "as it is written it gives", nan=True)
