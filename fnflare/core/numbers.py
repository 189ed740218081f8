"""Python numbers under a transform, which stay numbers: their dtype gives way to that of arrays (NEP 50).

A tracer that stands for a Python number goes into Python's own operators together with other numbers; what comes out
stands for a number too, as in the function run as it is written. NumPy's functions make arrays of numbers, so they
make ordinary tracers here. Tracers of numbers have classes of their own, so that arrays pay nothing for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core.tracer import Tracer

__all__ = ["as_number", "is_number", "number", "number_operators"]


def is_number(x: Any) -> bool:
    """Whether `x` is a Python number or stands for one."""
    kind = type(x)
    if kind is float or kind is int or kind is complex:
        return True
    return isinstance(x, Tracer) and (x.number or getattr(x, "weak", False))


def as_number(x: Any) -> Any:
    """What was computed of numbers alone, as a number."""
    if isinstance(x, Tracer):
        x.become_number()
        return x
    return x.item() if isinstance(x, np.number) else x


_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
_OPERATORS = (*_BINARY, *[f"r{name}" for name in _BINARY], "neg", "pos", "abs")


def _operator(name: str) -> Callable[..., Any]:
    def method(self: Tracer, *others: Any) -> Any:
        ans = getattr(Tracer, name)(self, *others)
        if ans is NotImplemented or not is_number(self):
            return ans
        return as_number(ans) if all(is_number(x) or type(x) is bool for x in others) else ans

    return method


def _part(name: str) -> property:
    def read(self: Tracer) -> Any:
        part = getattr(Tracer, name).fget(self)
        return as_number(part) if is_number(self) else part

    return property(read, lambda self, value: getattr(Tracer, name).fset(self, value))


def number(value: Any) -> Any:
    """A setting as Python's own number where it comes as NumPy's, which would widen arrays of float32."""
    return value.item() if isinstance(value, np.generic) else value


def number_operators(cls: type[Tracer]) -> type[Tracer]:
    """Decorator: give a class of tracers the operators and attributes of numbers, which of numbers make numbers."""
    for name in _OPERATORS:
        setattr(cls, f"__{name}__", _operator(f"__{name}__"))
    for name in ("conj", "conjugate"):
        setattr(cls, name, _operator(name))
    for name in ("real", "imag"):
        setattr(cls, name, _part(name))
    return cls
