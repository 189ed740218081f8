"""A layer under test: what `check_layer` knows of it, and how it is called.

A layer, a shape and a way to draw inputs go in. Concrete sizes stand in for free ones, stateful models look like
layers whose parameters hold the state too, and inputs are drawn by seed, so that every law is a function of trees.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fnflare import random, tree
from fnflare.errors import ArgumentError
from fnflare.nn.combinators import check_layer as checked_pair
from fnflare.nn.state import StatefulLayer

__all__ = ["Mode", "Subject", "floating_in", "is_shape", "with_sizes"]

#: What stands in for a free dimension, by its axis: different sizes tell axes apart that a layer mixes up.
_SIZES = (3, 4, 2, 5, 2, 3)
_OTHER_SIZES = (1, 2, 3, 2, 4, 2)

Inputs = Callable[[np.random.Generator, Any], Any]


@dataclasses.dataclass(frozen=True)
class Mode:
    """How a layer is applied: in training with a key, or not."""

    train: bool

    def __str__(self) -> str:
        return "train=True" if self.train else "train=False"

    def keywords(self, seed: int) -> dict[str, Any]:
        """What apply gets."""
        return {"key": random.key(seed + 1), "train": True} if self.train else {"key": None, "train": False}


@dataclasses.dataclass(frozen=True)
class Subject:
    """A layer as the laws take it.

    Attributes:
        layer: the pair, or the model with state.
        draw: makes inputs of a shape.
        seed: of the parameters, inputs and keys.
        order: to which derivatives are checked.
        limits: atol, rtol and eps of derivatives.
    """

    layer: Any
    draw: Inputs
    seed: int
    order: int
    limits: tuple[float | None, float | None, float | None]

    def init(self, input_shape: Any, seed: int | None = None) -> tuple[Any, Any]:
        """The output shape and the parameters, of a stateful model together with the state."""
        made = self.layer.init(random.key(self.seed if seed is None else seed), input_shape)
        if not isinstance(made, tuple) or len(made) != (3 if self.stateful else 2):
            raise ArgumentError(f"check_layer: init has to return (output_shape, params), it returned {made!r}")
        return (made[0], (made[1], made[2])) if self.stateful else made

    @property
    def stateful(self) -> bool:
        """Whether it is a model with state."""
        return isinstance(self.layer, StatefulLayer)

    def apply(self, params: Any, inputs: Any, mode: Mode) -> Any:
        """The outputs, of a stateful model together with the new state."""
        return self.apply_with(params, inputs, **mode.keywords(self.seed))

    def apply_with(self, params: Any, inputs: Any, **keywords: Any) -> Any:
        """`apply` with keywords of one's own."""
        if self.stateful:
            return self.layer.apply(params[0], params[1], inputs, **keywords)
        return self.layer.apply(params, inputs, **keywords)

    def outputs(self, params: Any, inputs: Any, mode: Mode) -> Any:
        """The outputs alone."""
        out = self.apply(params, inputs, mode)
        return out[0] if self.stateful else out

    def inputs(self, shape: Any) -> Any:
        """Inputs of a shape without free dimensions."""
        return self.draw(np.random.default_rng(self.seed), shape)


def subject_of(layer: Any, draw: Inputs | None, seed: int, order: int, limits: Any) -> Subject:
    """A layer as the laws take it; inputs are standard normal float32 numbers where `draw` is None."""
    if not isinstance(layer, StatefulLayer):
        layer = checked_pair(layer, "check_layer")
    return Subject(layer, draw or _normal, seed, order, limits)


def _normal(rng: np.random.Generator, shape: Any) -> Any:
    if is_shape(shape):
        return rng.standard_normal(shape).astype(np.float32)
    return tuple([_normal(rng, s) for s in shape])


def is_shape(shape: Any) -> bool:
    """Whether this is the shape of one array, and no tuple of shapes."""
    return isinstance(shape, (tuple, list)) and all(isinstance(n, (int, np.integer)) for n in shape)


def with_sizes(shape: Any, other: bool = False) -> Any:
    """A shape, or a tuple of shapes, with numbers for its free dimensions."""
    if not is_shape(shape):
        return tuple([with_sizes(s, other) for s in shape])
    sizes = _OTHER_SIZES if other else _SIZES
    return tuple([sizes[axis % len(sizes)] if n == -1 else int(n) for axis, n in enumerate(shape)])


def floating_in(params: Any, dtype: Any) -> Any:
    """A tree with its floating arrays in another dtype."""
    return tree.map(lambda x: x.astype(dtype) if hasattr(x, "dtype") and x.dtype.kind == "f" else x, params)


def arrays_of(out: Any, shape: Any) -> Iterator[tuple[Any, Any]]:
    """Outputs beside the shapes that were foretold of them.

    Raises:
        TypeError, ValueError: they are other trees than the shapes.
    """
    if is_shape(shape):
        values = out.values if hasattr(out, "lengths") else out
        if not hasattr(values, "shape"):
            raise TypeError(f"expected an array, got a {type(out).__name__}")
        yield values, tuple(shape)
    else:
        for part, s in zip(out, shape, strict=True):
            yield from arrays_of(part, s)
