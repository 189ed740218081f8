"""What each primitive does to sizes: from those of its arguments to those of its answer.

An equation and the sizes of its arguments go in, those of its answers come out, and what the primitive demands of
them is unified. A primitive that has no rule here pins the sizes of its arguments to their numbers; those that carry
programs are the business of `fnflare.compiler.sizes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fnflare.compiler.dims import Dims, Shape
from fnflare.program.ir import Equation

__all__ = ["RULES", "Rule"]

#: ``rule(dims, equation, shapes of the arguments) -> shape of the answer``.
Rule = Callable[[Dims, Equation, Sequence[Shape]], Shape]


def _param(equation: Equation, name: str) -> Any:
    assert equation.params is not None
    return equation.params[name]


def _same(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    return shapes[0]


def _without(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    if keepdims:
        return tuple([1 if i in axes else d for i, d in enumerate(shape)])
    return tuple([d for i, d in enumerate(shape) if i not in axes])


def _reduce(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    return _without(shapes[0], _param(equation, "axes"), _param(equation, "keepdims"))


def _position(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    return _without(shapes[0], (_param(equation, "axis"),), _param(equation, "keepdims"))


def _logsumexp(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    return tuple([1 if n == 1 else d for d, n in zip(shapes[0], equation.outputs[0].aval.shape, strict=True)])


def _transpose(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    return tuple([shapes[0][a] for a in _param(equation, "axes")])


def _broadcast_to(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    (shape,) = shapes
    out = equation.outputs[0]
    new = len(out.aval.shape) - len(shape)
    return tuple(
        [
            shape[i - new] if i >= new and shape[i - new] != 1 else dims.size((out, i), n)
            for i, n in enumerate(out.aval.shape)
        ]
    )


def _reshape(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    """Axes are merged and split in the smallest groups with the same number of elements."""
    (shape,) = shapes
    out = equation.outputs[0]
    new = out.aval.shape
    if 0 in new:
        dims.pin_all(shape)
        return new
    old = [d for d in shape if d != 1]
    sizes = [(i, n) for i, n in enumerate(new) if n != 1]
    found: list[Any] = [1] * len(new)
    while old:
        merged, split = [old.pop(0)], [sizes.pop(0)]
        have, want = dims.value(merged[0]), split[0][1]
        while have != want:
            if have < want:
                merged.append(old.pop(0))
                have *= dims.value(merged[-1])
            else:
                split.append(sizes.pop(0))
                want *= split[-1][1]
        if len(split) == 1:
            group: Shape = (dims.merged(merged),)
        else:
            group = dims.split((out, split[0][0]), merged, [n for _, n in split])
        for (i, _), d in zip(split, group, strict=True):
            found[i] = d
    return tuple(found)


def _concatenate(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    axis = _param(equation, "axis")
    first = shapes[0]
    for shape in shapes[1:]:
        for i, (a, b) in enumerate(zip(first, shape, strict=True)):
            if i != axis:
                dims.unify(a, b)
    return (*first[:axis], dims.joined([s[axis] for s in shapes]), *first[axis + 1 :])


def _stack(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    axis = _param(equation, "axis")
    for shape in shapes[1:]:
        dims.unify_shapes(shapes[0], shape)
    return (*shapes[0][:axis], len(shapes), *shapes[0][axis:])


def _matmul(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    x, y = shapes
    dims.unify(x[-1], y[-2] if len(y) > 1 else y[0])
    return (*dims.broadcast([x[:-2], y[:-2]]), *x[-2:-1], *(y[-1:] if len(y) > 1 else ()))


def _einsum(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    sizes: dict[str, Any] = {}
    for term, shape in zip(_param(equation, "terms"), shapes, strict=True):
        for letter, d in zip(term, shape, strict=True):
            sizes[letter] = dims.broadcast([(sizes[letter],), (d,)])[0] if letter in sizes else d
    return tuple([sizes[c] for c in _param(equation, "out")])


def _searchsorted(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    sorted_, values = shapes
    for a, v in zip(sorted_[:-1], values, strict=False):
        dims.unify(a, v)
    return values


def _words(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    out = equation.outputs[0]
    return (*shapes[0][:-1], dims.size((out, "words"), out.aval.shape[-1]))


def _pieces(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    """Pieces of words, of which there are as many as hold them all."""
    out = equation.outputs[0]
    count = dims.size((out, "pieces"), out.aval.shape[-1])
    *lead, words = shapes[0]
    if type(count) is int:
        dims.pin(words)
        return (*lead, count)
    needed = (count * out.aval.dtype.itemsize + 7) // 8
    if dims.value(needed) == dims.value(words):
        dims.unify(words, needed)
    else:
        dims.pin_all([words, count])
    return (*lead, dims.resolved(count))


def _fold_key(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    key, data = shapes
    return (*dims.broadcast([key[:-1], data]), 2)


def _batch_alone(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    """The examples may be any number; the rest, and the filters, are numbers."""
    for shape in shapes[1:]:
        dims.pin_all(shape)
    out = equation.outputs[0].aval.shape
    grouped = equation.prim.name not in ("windows", "fold") and len(out) > len(_param(equation, "strides")) + 2
    batch = int(grouped)  # groups with filters of their own come in front
    dims.pin_all((*shapes[0][:batch], *shapes[0][batch + 1 :]))
    return (*out[:batch], shapes[0][batch], *out[batch + 1 :])


def _filter_gradient(dims: Dims, equation: Equation, shapes: Sequence[Shape]) -> Shape:
    x, y = shapes
    batch = len(x) - len(_param(equation, "strides")) - 2
    dims.unify(x[batch], y[batch])
    for shape in shapes:
        dims.pin_all((*shape[:batch], *shape[batch + 1 :]))
    return equation.outputs[0].aval.shape


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "convert", "convert_discrete", "round", "stop_gradient", "name", "random_variate", "normal_quantile",
            "cumsum", "cumprod", "sort", "argsort", "argpartition", "softmax", "log_softmax",
        ),
        _same,
    ),
    **dict.fromkeys(("sum", "prod", "max", "min", "any", "all"), _reduce),
    **dict.fromkeys(("argmax", "argmin"), _position),
    **dict.fromkeys(("conv", "conv_input_grad", "windows", "fold"), _batch_alone),
    "conv_filter_grad": _filter_gradient,
    "logsumexp": _logsumexp,
    "recurrence": lambda dims, _equation, shapes: dims.broadcast(shapes),
    "transpose": _transpose,
    "broadcast_to": _broadcast_to,
    "reshape": _reshape,
    "concatenate": _concatenate,
    "stack": _stack,
    "matmul": _matmul,
    "einsum": _einsum,
    "searchsorted": _searchsorted,
    "random_words": _words,
    "random_pieces": _pieces,
    "random_fold": _fold_key,
}  # fmt: skip
