"""`vmap` against one example after another.

A function and the arguments of many examples go in; nothing comes out, or an `AssertionError` that names the leaf and
the example.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fnflare import tree
from fnflare.testing.directions import MODE_TOLERANCES, coarsest, tolerances
from fnflare.testing.failures import assert_close, assert_equal, assert_structure, transformed
from fnflare.testing.holding import arguments, hold
from fnflare.testing.writing import Writer, limits_of
from fnflare.transforms import vmap
from fnflare.transforms.vmap import examples, mapped_axes

__all__ = ["check_vmap", "vmap_law"]


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

    >>> ff.testing.check_vmap(lambda x, w: np.tanh(x @ w), (np.ones((4, 3)), np.eye(3)), in_axes=(0, None))
    """

    def write(writer: Writer, args: Any) -> str:
        keywords = {"in_axes": None if in_axes == 0 else writer.expression(in_axes)} | limits_of(atol, rtol)
        return writer.call("check_vmap", writer.subject(f, "f", 0), writer.expression(args), **keywords)

    hold(lambda args: vmap_law(f, args, in_axes, atol, rtol), arguments("check_vmap", args), write)


def vmap_law(f: Any, args: Any, in_axes: Any, atol: float | None = None, rtol: float | None = None) -> None:
    """The law of `check_vmap`."""
    leaves, structure = tree.flatten(args)
    axes, size = mapped_axes(in_axes, args, {}, None, f)
    expected = []
    for k in range(size):
        one = [examples(x, axis, k) for x, axis in zip(leaves, axes, strict=True)]
        expected.append(f(*tree.unflatten(structure, one)))
    got = transformed("vmap", vmap(f, in_axes), *args)
    for k, alone in enumerate(expected):
        ours = tree.map(lambda x, k=k: x[k], got)
        what = f"vmap, example {k}"
        assert_structure(ours, alone, what, "vmap")
        assert_equal(ours, alone, what, "alone it gives", "vmap")
        limits = tolerances(MODE_TOLERANCES[coarsest(args, alone)], atol, rtol)
        hint = f"To see it again: f on example {k} of {size}"
        assert_close(ours, alone, limits, what, "alone it gives", hint, law="vmap", nan=True)
