"""Layers made of layers: one after another, side by side, around.

A combinator of positional layers has a tuple of parameters and calls its children "0", "1", ...; one of
keyword layers has a dict, so that every parameter has a readable path such as ``lstm/forward/W``. A key
given to it is split among its children; an error that leaves a child says in which one it arose.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import random, tree
from fnflare.core import ShapeDtypeStruct
from fnflare.errors import ArgumentError, ShapeError, TreeError
from fnflare.nn import scoping
from fnflare.nn.layer import Layer, Shape, checked_shape, layer, named, positive_int, units_of
from fnflare.padded import Padded
from fnflare.transforms import eval_shape

__all__ = ["FanInConcat", "FanInSum", "FanOut", "parallel", "residual", "serial", "shape_dependent", "skip"]


class _Children:
    """The children of a combinator, in order, and the way between them and its parameters."""

    def __init__(self, kind: str, positional: Sequence[Layer], keywords: dict[str, Layer]) -> None:
        if positional and keywords:
            raise ArgumentError(
                f"{kind}: give all layers by position or all by keyword, not both; the parameters "
                "are a tuple or a dict accordingly"
            )
        self.kind = kind
        self.by_name = bool(keywords)
        self.labels = tuple(keywords) if keywords else tuple(str(i) for i in range(len(positional)))
        given = list(keywords.values()) or positional
        pairs = [check_layer(c, f"{kind}, layer {name!r}") for name, c in zip(self.labels, given, strict=True)]
        self.inits = tuple(p.init for p in pairs)
        self.applies = tuple(p.apply for p in pairs)
        self.no_keys = (None,) * len(pairs)

    def keys(self, key: Any) -> Any:
        """One key for each child; None for all where there is none."""
        return self.no_keys if key is None or not self.labels else random.split(key, len(self.labels))

    def parts(self, params: Any) -> Any:
        """The parameters of each child, in order."""
        try:
            if self.by_name:
                return [params[name] for name in self.labels]
            if len(params) == len(self.labels) and type(params) is not dict:
                return params
        except (TypeError, KeyError):
            pass
        wanted = f"a dict with keys {list(self.labels)}" if self.by_name else f"a tuple of {len(self.labels)}"
        got = f"a dict with keys {list(params)}" if isinstance(params, dict) else f"{type(params).__name__}"
        got += f" of {len(params)}" if isinstance(params, (tuple, list)) else ""
        raise TreeError(
            f"{scoping.where()}{self.kind} expected its parameters as {wanted}, got {got}; "
            "pass what init returned for this very model"
        )

    def join(self, parts: list[Any]) -> Any:
        """The parameters of the combinator, from those of its children."""
        return dict(zip(self.labels, parts, strict=True)) if self.by_name else tuple(parts)


def check_layer(given: Any, what: str) -> Layer:
    """A layer as it was given to a combinator: a pair of functions that take what they will be called with."""
    if not (isinstance(given, tuple) and len(given) == 2 and callable(given[0]) and callable(given[1])):
        hint = ""
        if callable(given):
            name = getattr(given, "__name__", "f")
            hint = f"; a constructor has to be called, as in {name}(...), and a function made a layer by nn.elementwise"
        raise ArgumentError(f"{what}: expected a layer, a pair (init, apply), got {given!r}{hint}")
    try:
        inspect.signature(given[1]).bind((), (), key=None, train=False)
    except ValueError:  # a builtin has no signature to look at
        pass
    except TypeError as error:
        raise ArgumentError(
            f"{what}: its apply cannot be called as apply(params, inputs, key=key, train=train) ({error}); "
            "write it as def apply(params, inputs, *, key=None, train=False)"
        ) from None
    return Layer(*given)


def init_child(name: str, init: Callable[..., Any], key: Any, input_shape: Any) -> tuple[Any, Any]:
    """Call the init of a child under its name."""
    with scoping.scope(name):
        recorder = scoping.local.recorder
        rows = 0 if recorder is None else len(recorder.rows)
        output_shape, params = init(key, input_shape)
        if recorder is not None and len(recorder.rows) == rows:
            # A pair written by the user does not report itself.
            recorder.add("Layer", output_shape, params, None)
        return output_shape, params


def serial(*layers: Layer, **named_layers: Layer) -> Layer:
    """Layers one after another, each on the outputs of the one before.

    Args:
        *layers: the layers; the parameters are then a tuple.
        **named_layers: the layers by name, in order; the parameters are then a dict.

    Returns:
        A layer. Its apply splits `key` among the layers.

    Raises:
        ArgumentError: something is not a layer, or some are given by position and some by name.

    >>> from fnflare import nn, random
    >>> model = nn.serial(hidden=nn.Dense(3), act=nn.Tanh, out=nn.Dense(1))
    >>> shape, params = model.init(random.key(0), (-1, 2))
    >>> shape, params["hidden"]["W"].shape, model.apply(params, np.ones((5, 2), np.float32)).shape
    ((-1, 1), (2, 3), (5, 1))
    """
    children = _Children("serial", layers, named_layers)
    labels, applies = children.labels, children.applies

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        parts = []
        for name, child, k in zip(labels, children.inits, children.keys(key), strict=True):
            input_shape, params = init_child(name, child, k, input_shape)
            parts.append(params)
        return input_shape, children.join(parts)

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        parts = children.parts(params)
        keys = children.keys(key)
        names = scoping.names()
        depth = len(names)
        names.append("")
        try:
            for name, child, p, k in zip(labels, applies, parts, keys, strict=True):
                names[depth] = name
                inputs = child(p, inputs, key=k, train=train)
        except Exception as error:
            scoping.annotate(error)
            raise
        finally:
            del names[depth:]
        return inputs

    return named("serial", Layer(init, apply))


def parallel(*layers: Layer, **named_layers: Layer) -> Layer:
    """Layers side by side, each on an input of its own.

    Inputs, outputs and their shapes are tuples with one entry for each layer, in the order of the
    layers, however these are given. `FanOut` makes such inputs, `FanInSum` and `FanInConcat` take
    such outputs.

    Args:
        *layers: the layers; the parameters are then a tuple.
        **named_layers: the layers by name; the parameters are then a dict.

    Returns:
        A layer. Its apply splits `key` among the layers.

    Raises:
        ArgumentError: something is not a layer, or some are given by position and some by name.

    >>> from fnflare import nn, random
    >>> model = nn.serial(nn.FanOut(2), nn.parallel(nn.Dense(3), nn.Identity), nn.FanInConcat())
    >>> model.init(random.key(0), (-1, 2))[0]
    (-1, 5)
    """
    children = _Children("parallel", layers, named_layers)
    labels, applies, count = children.labels, children.applies, len(children.labels)

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        _check_branches("parallel", "one input for each layer", input_shape, count)
        keys = children.keys(key)
        pairs = [init_child(*args) for args in zip(labels, children.inits, keys, input_shape, strict=True)]
        return tuple([shape for shape, _ in pairs]), children.join([params for _, params in pairs])

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        parts = children.parts(params)
        keys = children.keys(key)
        _check_branches("parallel", "one input for each layer", inputs, count)
        names = scoping.names()
        depth = len(names)
        names.append("")
        outputs = []
        try:
            for name, child, p, x, k in zip(labels, applies, parts, inputs, keys, strict=True):
                names[depth] = name
                outputs.append(child(p, x, key=k, train=train))
        except Exception as error:
            scoping.annotate(error)
            raise
        finally:
            del names[depth:]
        return tuple(outputs)

    return named("parallel", Layer(init, apply))


def _check_branches(kind: str, what: str, branches: Any, count: int | None) -> None:
    """Several inputs, or their shapes, come as a tuple; a single array or `Padded` batch is one input."""
    several = isinstance(branches, (tuple, list)) and type(branches) is not Padded
    if several and (count is None or len(branches) == count) and not any(type(b) is int for b in branches):
        return
    number = "" if count is None else f" of {count}"
    got = f"a tuple of {len(branches)}" if several else type(branches).__name__
    if several and any(type(b) is int for b in branches):
        got = f"the shape {branches!r} of one"
    raise ShapeError(f"{scoping.where()}{kind} expected a tuple{number}, {what}, got {got}; nn.FanOut(n) makes one")


def FanOut(count: int) -> Layer:
    """The layer that gives its input `count` times, as a tuple.

    Args:
        count: how many branches follow.

    >>> ff.nn.FanOut(2).apply((), 1.5)
    (1.5, 1.5)
    """
    count = positive_int("FanOut", "count", count)

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        return (input_shape,) * count, ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        return (inputs,) * count

    return layer("FanOut", init, apply, lambda shape, out, params: 0, several=True)


def _fan_in_sum() -> Layer:
    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        _check_branches("FanInSum", "one input for each branch", input_shape, None)
        return _merged("FanInSum", [checked_shape("FanInSum", s) for s in input_shape], None), ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        _check_branches("FanInSum", "one input for each branch", inputs, None)
        total = inputs[0]
        for x in inputs[1:]:
            total = add(total, x)
        return total

    def flops(shape: Any, out: Shape, params: Any) -> int:
        return (len(shape) - 1) * units_of(out)

    return layer("FanInSum", init, apply, flops, several=True)


#: The layer that adds up a tuple of inputs.
FanInSum = _fan_in_sum()


def FanInConcat(axis: int = -1) -> Layer:
    """The layer that concatenates a tuple of inputs.

    Args:
        axis: along which axis; of `Padded` batches neither that of the batch nor that of time.

    >>> ff.nn.FanInConcat().apply((), (np.zeros((2, 3)), np.ones((2, 1)))).shape
    (2, 4)
    """
    axis = positive_int("FanInConcat", "axis", axis, least=-64)

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        _check_branches("FanInConcat", "one input for each branch", input_shape, None)
        shapes = [checked_shape("FanInConcat", s) for s in input_shape]
        return _merged("FanInConcat", shapes, axis), ()

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        _check_branches("FanInConcat", "one input for each branch", inputs, None)
        first = inputs[0]
        if type(first) is not Padded:
            try:
                return np.concatenate(inputs, axis=axis)
            except ValueError:
                shapes = [np.shape(x) for x in inputs]
                message = f"{scoping.where()}FanInConcat: inputs of shapes {shapes} do not fit together"
                raise ShapeError(message) from None
        if axis % first.values.ndim < 2:
            raise ArgumentError(
                f"{scoping.where()}FanInConcat: axis={axis} is that of the batch or of time, "
                "along which Padded batches do not concatenate"
            )
        return Padded(np.concatenate([x.values for x in inputs], axis=axis), first.lengths)

    return layer("FanInConcat", init, apply, lambda shape, out, params: 0, several=True)


def _merged(kind: str, shapes: list[Shape], axis: int | None) -> Shape:
    """The shape that inputs of these shapes have together: added, or joined along an axis."""
    first = shapes[0]
    if any(len(s) != len(first) for s in shapes) or (axis is not None and not -len(first) <= axis < len(first)):
        raise ShapeError(f"{scoping.where()}{kind}: inputs of shapes {shapes} do not fit together")
    merged = []
    for i, sizes in enumerate(zip(*shapes, strict=True)):
        known = {n for n in sizes if n >= 0}
        if axis is not None and i == axis % len(first):
            merged.append(-1 if -1 in sizes else sum(sizes))
        elif len(known) > 1:
            raise ShapeError(f"{scoping.where()}{kind}: inputs of shapes {shapes} do not fit together in axis {i}")
        else:
            merged.append(known.pop() if known else -1)
    return tuple(merged)


def residual(inner: Layer) -> Layer:
    """A layer around which its input flows as well: ``x + inner(x)`` (He et al. 2015).

    The parameters, and the paths within, are those of `inner`. For a shortcut with parameters write
    ``serial(FanOut(2), parallel(main=..., shortcut=...), FanInSum)``.

    Args:
        inner: a layer that keeps the shape.

    >>> from fnflare import nn
    >>> double = nn.Layer(lambda key, shape: (shape, ()), lambda p, x, *, key=None, train=False: 2 * x)
    >>> nn.residual(double).apply((), np.ones(2))
    array([3., 3.])
    """
    inner_init, inner_apply = check_layer(inner, "residual")

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        output_shape, params = inner_init(key, input_shape)
        if tuple(output_shape) != tuple(input_shape):
            raise ShapeError(
                f"{scoping.where()}residual: the layer within maps {tuple(input_shape)} to {tuple(output_shape)}; it "
                "has to keep the shape. For a shortcut that maps it too write "
                "serial(FanOut(2), parallel(layer, shortcut), FanInSum)"
            )
        return output_shape, params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        return add(inputs, inner_apply(params, inputs, key=key, train=train))

    return named("residual", Layer(init, apply))


def skip(inner: Layer, combine: Callable[[Any, Any], Any] = np.add) -> Layer:
    """A layer beside which its input flows as well: ``combine(inner(x), x)``.

    The parameters, and the paths within, are those of `inner`. With the default it is `residual`.

    Args:
        inner: a layer.
        combine: makes one of what `inner` gives and of its input. Of `Padded` batches it gets the values; the lengths
            are those that `inner` gives.

    Raises:
        ArgumentError: `inner` is not a layer, or `combine` not a function.

    >>> from fnflare import nn, random
    >>> dense_block = nn.skip(nn.Dense(3), lambda y, x: np.concatenate([x, y], axis=-1))
    >>> dense_block.init(random.key(0), (-1, 5))[0]
    (-1, 8)
    """
    inner_init, inner_apply = check_layer(inner, "skip")
    if not callable(combine):
        raise ArgumentError(f"skip: combine must be a function of the layer's output and its input, got {combine!r}")

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        output_shape, params = inner_init(key, input_shape)
        try:
            # What differs between two sizes of the free dimensions is free.
            few, many = [eval_shape(combine, *_stand_ins((output_shape, input_shape), n)) for n in (2, 3)]
        except (ValueError, TypeError) as error:
            raise ShapeError(
                f"{scoping.where()}skip: combine does not take the layer's output, {output_shape}, with its input, "
                f"{input_shape}: {error}"
            ) from None
        sizes = [[n if n == m else -1 for n, m in zip(a.shape, b.shape, strict=True)] for a, b in _pairs(few, many)]
        shapes = [tuple(s) for s in sizes]
        return shapes[0] if hasattr(few, "shape") else tuple(shapes), params

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        outputs = inner_apply(params, inputs, key=key, train=train)
        if type(outputs) is Padded and type(inputs) is Padded:
            return Padded(combine(outputs.values, inputs.values), outputs.lengths)
        if type(outputs) is Padded or type(inputs) is Padded:
            raise ShapeError(
                f"{scoping.where()}skip: a Padded batch and an array do not combine; the layer within lost the lengths"
            )
        return combine(outputs, inputs)

    return named("skip", Layer(init, apply))


def _stand_ins(shape: Any, free: int) -> Any:
    """Arrays that have a shape and nothing else, with so many elements along free dimensions."""
    if any(not isinstance(n, (int, np.integer)) for n in shape):
        return tuple([_stand_ins(s, free) for s in shape])
    return ShapeDtypeStruct(tuple([free if n < 0 else int(n) for n in shape]), np.float32)


def _pairs(few: Any, many: Any) -> list[tuple[Any, Any]]:
    return list(zip(tree.leaves(few), tree.leaves(many), strict=True))


def shape_dependent(make_layer: Callable[[Any], Layer]) -> Layer:
    """A layer that is made when the shape of its input is known.

    Args:
        make_layer: gets the input shape (a tuple of shapes for several inputs; in `init` with -1 for
            the free dimensions) and returns the layer. It is called at every use, and has to return
            layers with the same parameters for all shapes that occur.

    Returns:
        A layer with the parameters and paths of the one that is made.

    >>> from fnflare import nn, random
    >>> bottleneck = nn.shape_dependent(lambda shape: nn.serial(nn.Dense(2), nn.Dense(shape[-1])))
    >>> bottleneck.init(random.key(0), (-1, 7))[0]
    (-1, 7)
    """
    if not callable(make_layer):
        raise ArgumentError(f"shape_dependent: expected a function from an input shape to a layer, got {make_layer!r}")

    def init(key: Any, input_shape: Any) -> tuple[Any, Any]:
        made = check_layer(make_layer(input_shape), "shape_dependent, what the function returned")
        return made.init(key, input_shape)

    def apply(params: Any, inputs: Any, *, key: Any = None, train: bool = False) -> Any:
        return make_layer(shape_of(inputs))[1](params, inputs, key=key, train=train)

    return named("shape_dependent", Layer(init, apply))


def add(x: Any, y: Any) -> Any:
    """The sum of two arrays or of two `Padded` batches of equal lengths."""
    if type(x) is Padded and type(y) is Padded:
        return Padded(x.values + y.values, x.lengths)
    if type(x) is Padded or type(y) is Padded:
        raise ShapeError(f"{scoping.where()}a Padded batch and an array do not add; one branch has lost the lengths")
    try:
        return x + y
    except ValueError:
        shapes = f"{np.shape(x)} and {np.shape(y)}"
        raise ShapeError(f"{scoping.where()}arrays of shapes {shapes} do not add; branches keep one shape") from None


def shape_of(inputs: Any) -> Any:
    """The shape of an input, as `init` would get it; a tuple of shapes for several inputs."""
    if type(inputs) is Padded:
        return inputs.values.shape
    if isinstance(inputs, (tuple, list)):
        return tuple([shape_of(x) for x in inputs])
    return np.shape(inputs)
