"""Elementwise primitives: one scalar operation, on operands in the dtypes that NumPy computes in."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.compiler.block import Block, NotLowered, lowering, machine_type
from fnflare.compiler.graph import Value
from fnflare.core.aval import resolvable
from fnflare.nest import ARITHMETIC, COMPARISONS, FUNCTIONS, Scalar, apply, cast, constant, select
from fnflare.program.ir import Equation

__all__ = ["elementwise", "has_rule"]

_EXPENSIVE = frozenset({"divide", "sqrt", "floor_divide", "remainder", "fmod"})


def _relu(x: Scalar) -> Scalar:
    return apply("maximum", x, constant(0, x.dtype))


def _sign_bit(x: Scalar) -> Scalar:
    integer = {"f32": "i32", "f64": "i64"}[x.dtype]
    return _bits(x, integer) < 0


def _bits(x: Scalar, dtype: str) -> Scalar:
    from fnflare.nest import Apply

    return Apply(dtype, "bits", (x,))


def _absolute(x: Scalar) -> Scalar:
    return x if x.dtype[0] in "bu" else apply("absolute", x)


def _is_infinite(x: Scalar) -> Scalar:
    return apply("equal", apply("absolute", x), constant(float("inf"), x.dtype))


def _is_finite(x: Scalar) -> Scalar:
    return apply("less", apply("absolute", x), constant(float("inf"), x.dtype))


def _heaviside(x: Scalar, y: Scalar) -> Scalar:
    one, zero = constant(1, x.dtype), constant(0, x.dtype)
    return select(apply("not_equal", x, x), x, select(x > zero, one, select(x < zero, zero, y)))


def _sinc(x: Scalar) -> Scalar:
    y = x * constant(math.pi, x.dtype)
    none = apply("equal", y, constant(0, x.dtype))
    return select(none, constant(1, x.dtype), apply("sin", y) / select(none, constant(1, x.dtype), y))


def _logaddexp2(x: Scalar, y: Scalar) -> Scalar:
    apart = select(apply("equal", x, y), constant(0, x.dtype), apply("negative", apply("absolute", x - y)))
    beyond = apply("log1p", apply("exp2", apart)) * constant(1 / math.log(2), x.dtype)
    return apply("maximum", x, y) + beyond


#: Primitives whose scalar operation does not have their name.
_RULES: dict[str, Callable[..., Scalar]] = {
    "relu": _relu,
    "positive": lambda x: x,
    "square": lambda x: x * x,
    "reciprocal": lambda x: constant(1, x.dtype) / x,
    "absolute": _absolute,
    "logical_and": lambda x, y: x & y,
    "logical_or": lambda x, y: x | y,
    "logical_xor": lambda x, y: x ^ y,
    "logical_not": lambda x: apply("not", x),
    "bitwise_and": lambda x, y: x & y,
    "bitwise_or": lambda x, y: x | y,
    "bitwise_xor": lambda x, y: x ^ y,
    "invert": lambda x: apply("not", x),
    "left_shift": lambda x, y: x << y,
    "right_shift": lambda x, y: x >> y,
    "isnan": lambda x: apply("not_equal", x, x),
    "isinf": _is_infinite,
    "isfinite": _is_finite,
    "signbit": _sign_bit,
    "heaviside": _heaviside,
    "sinc": _sinc,
    "logaddexp2": _logaddexp2,
}
#: The same on truth values, which NumPy adds and multiplies as a matter of logic.
_ON_TRUTH: dict[str, Callable[..., Scalar]] = {
    "add": lambda x, y: x | y,
    "multiply": lambda x, y: x & y,
    "maximum": lambda x, y: x | y,
    "minimum": lambda x, y: x & y,
    "equal": lambda x, y: apply("not", x ^ y),
    "not_equal": lambda x, y: x ^ y,
    "less": lambda x, y: apply("not", x) & y,
    "less_equal": lambda x, y: apply("not", x) | y,
    "greater": lambda x, y: x & apply("not", y),
    "greater_equal": lambda x, y: x | apply("not", y),
}
_ON_FLOATS_ONLY = frozenset({"isnan", "isinf", "isfinite", "signbit"})
_ALWAYS_TRUE = {"isfinite": True, "isnan": False, "isinf": False}
_LOGICAL = frozenset({"logical_and", "logical_or", "logical_xor", "logical_not"})


@functools.lru_cache(maxsize=4096)
def _types(name: str, operands: tuple[Any, ...]) -> tuple[np.dtype[Any], ...] | None:
    """The dtypes in which NumPy computes a ufunc on operands of some dtypes, the answer's last."""
    ufunc = getattr(np, name, None)
    if not isinstance(ufunc, np.ufunc):
        return None
    return tuple(ufunc.resolve_dtypes((*operands, None)))


def elementwise(block: Block, e: Equation, *args: Value, **params: Any) -> Value:
    """The rule of every primitive that is elementwise."""
    name = e.prim.name
    out = machine_type(e.outputs[0].aval.dtype)
    rule, types = _scalar_rule(name, e)
    cost = 1 if rule is not None else 15 if name in FUNCTIONS else 4 if name in _EXPENSIVE else 1
    if rule is None:
        if not has_rule(name):
            raise NotLowered(f"{name} has no lowering")
        if name in FUNCTIONS and types[0][0] != "f":
            raise NotLowered(f"{name} of {types[0]}")
        if len(set(types)) > 1:
            raise NotLowered(f"{name} of {', '.join(types)}")
        rule = functools.partial(apply, name)
    final = rule

    def computed(*xs: Scalar) -> Scalar:
        return cast(final(*[cast(x, t) for x, t in zip(xs, types, strict=True)]), out)

    return block.elementwise(out, args, computed, cost, e.source)


def has_rule(name: str) -> bool:
    """Whether there is a scalar operation for an elementwise primitive."""
    return name in _RULES or name in ARITHMETIC or name in COMPARISONS or name in FUNCTIONS


def _scalar_rule(name: str, e: Equation) -> tuple[Callable[..., Scalar] | None, tuple[str, ...]]:
    """The scalar operation of a primitive, None for that of its own name, and the types of its operands."""
    found = _types(name, tuple([resolvable(a.aval) for a in e.inputs]))
    if found is None:
        types = (machine_type(e.outputs[0].aval.dtype),) * len(e.inputs)
    else:
        types = tuple([machine_type(t) for t in found[:-1]])
    if name in _LOGICAL:
        return _RULES[name], ("b1",) * len(types)
    if types[0] == "b1" and name in _ON_TRUTH:
        return _ON_TRUTH[name], types
    if name in _ON_FLOATS_ONLY and types[0][0] != "f":
        if name == "signbit":
            raise NotLowered(f"signbit of {types[0]}")
        answer = _ALWAYS_TRUE[name]
        return lambda _: constant(answer, "b1"), types
    if name in ("sinc", "logaddexp2") and types[0][0] != "f":
        raise NotLowered(f"{name} of {types[0]}")
    if name == "reciprocal" and types[0][0] != "f":
        raise NotLowered("reciprocal of integers")
    if name == "power" and (types[0][0] != "f" or types[0] != types[1]):
        raise NotLowered(f"power of {types[0]} and {types[1]}")
    if name in ("floor", "ceil", "trunc", "rint") and types[0][0] != "f":
        return lambda x: x, types
    return _RULES.get(name), types


@lowering("select")
def _(block: Block, e: Equation, condition: Value, x: Value, y: Value) -> Value:
    dtype = machine_type(e.outputs[0].aval.dtype)
    return block.elementwise(
        dtype,
        (condition, x, y),
        lambda c, a, b: select(cast(c, "b1"), cast(a, dtype), cast(b, dtype)),
        1,
        e.source,
    )


@lowering("convert", "convert_discrete")
def _(block: Block, e: Equation, x: Value, *, dtype: np.dtype[Any]) -> Value:
    return block.cast(x, machine_type(np.dtype(dtype)), e.source)


@lowering("round")
def _(block: Block, e: Equation, x: Value, *, decimals: int) -> Value:
    if decimals or x.dtype[0] != "f":
        raise NotLowered("round to decimals")
    return block.elementwise(x.dtype, (x,), lambda a: apply("rint", a), 1, e.source)


@lowering("stop_gradient", "name")
def _(block: Block, e: Equation, x: Value, **_: Any) -> Value:
    return x
