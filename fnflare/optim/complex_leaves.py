"""Complex parameters as pairs of real ones, for rules that go element by element.

A transformation goes in, one comes out that hands it the real and the imaginary part of each complex array as two
arrays, and puts the updates together again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from fnflare import tree
from fnflare.optim.base import (
    GradientTransformation,
    GradientTransformationExtraArgs,
    state_of,
    with_extra_args_support,
)
from fnflare.optim.leaves import dtype_of

__all__ = ["SplitRealAndImaginaryArrays", "SplitRealAndImaginaryState", "split_real_and_imaginary"]


class SplitRealAndImaginaryArrays(NamedTuple):
    """``real``, ``imaginary``: the parts of a complex array."""

    real: Any
    imaginary: Any


class SplitRealAndImaginaryState(NamedTuple):
    """``inner_state``: the inner state."""

    inner_state: Any


def _split(values: Any) -> Any:
    def parts(x: Any) -> Any:
        return SplitRealAndImaginaryArrays(x.real, x.imag) if dtype_of(x).kind == "c" else x

    return tree.map(parts, values)


def _joined(values: Any) -> Any:
    def is_pair(node: Any) -> bool:
        return type(node) is SplitRealAndImaginaryArrays

    return tree.map(lambda x: x.real + 1j * x.imaginary if is_pair(x) else x, values, is_leaf=is_pair)


def split_real_and_imaginary(inner: GradientTransformation) -> GradientTransformationExtraArgs:
    """Gives a transformation the real and the imaginary parts of complex arrays as arrays of their own.

    Without it Adam, for example, divides both parts by the root of the mean squared size of the number.

    Args:
        inner: the transformation.

    >>> opt = ff.optim.split_real_and_imaginary(ff.optim.sign_sgd(0.5))
    >>> params = np.array([1.0 + 2.0j])
    >>> opt.update(np.array([3.0 - 4.0j]), opt.init(params), params)[0]
    array([-0.5+0.5j])
    """
    rule = with_extra_args_support(inner)

    def init(params: Any) -> SplitRealAndImaginaryState:
        return SplitRealAndImaginaryState(rule.init(_split(params)))

    def update(
        updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, SplitRealAndImaginaryState]:
        (inner_state,) = state_of(SplitRealAndImaginaryState, state, "split_real_and_imaginary")
        updates, inner_state = rule.update(_split(updates), inner_state, _split(params), **extra_args)
        return _joined(updates), SplitRealAndImaginaryState(inner_state)

    return GradientTransformationExtraArgs(init, update)
