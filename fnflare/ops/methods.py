"""The operators and methods of arrays, given to tracers.

An operator goes straight to its primitive, without NumPy's dispatch, since that is where the time of
small operations goes; a method calls the function of the same name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core import AbstractTracer, BatchTracer, Primitive, Tape, Tracer, bind
from fnflare.core.tape import NumberTapeTracer
from fnflare.core.tracer import ValueTracer
from fnflare.errors import UnsupportedError
from fnflare.ops import (
    arrange,
    choose,
    cumulative,
    diagonals,
    elementwise,
    gather,
    in_place,
    index,
    likes,
    linalg,
    moments,
    order,
    reduce,
    shape,
    some_elements,
)
from fnflare.ops import complex as complex_

__all__: list[str] = []

_plain = (np.ndarray, float, int, np.generic, complex)


def _operator(prim: Primitive) -> Callable[[Any, Any], Any]:
    def method(self: Tracer, other: Any) -> Any:
        if isinstance(other, _plain):
            return self._trace.binary(prim, self, other)
        if isinstance(other, Tracer):
            top = self._trace if self._trace.level >= other._trace.level else other._trace
            return top.binary(prim, self, other)
        return _other_operand(prim, self, other, False)

    return method


def _reflected(prim: Primitive) -> Callable[[Any, Any], Any]:
    def method(self: Tracer, other: Any) -> Any:
        if isinstance(other, _plain):
            return self._trace.binary(prim, other, self)
        return _other_operand(prim, self, other, True)

    return method


def _other_operand(prim: Primitive, x: Tracer, other: Any, reflected: bool) -> Any:
    """Lists and tuples of numbers take part as arrays, as they do with arrays; the rest is not ours."""
    if isinstance(other, (list, tuple, range)):
        other = np.asarray(other)
        return bind(prim, (other, x) if reflected else (x, other))
    return NotImplemented


def _unary(prim: Primitive) -> Callable[[Any], Any]:
    def method(self: Tracer) -> Any:
        return self._trace.unary(prim, self)

    return method


_BINARY = {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "mod": elementwise.remainder,
    "floordiv": elementwise.primitive_of(np.floor_divide),
    "matmul": linalg.matmul,
    "and": elementwise.primitive_of(np.bitwise_and),
    "or": elementwise.primitive_of(np.bitwise_or),
    "xor": elementwise.primitive_of(np.bitwise_xor),
    "lshift": elementwise.primitive_of(np.left_shift),
    "rshift": elementwise.primitive_of(np.right_shift),
}
_COMPARE = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


def _of_numbers(prim: Primitive, general: Callable[[Any, Any], Any], reflected: bool) -> Callable[[Any, Any], Any]:
    """An operator of a number on a tape: the short way with another number, the general way with anything else."""

    def method(self: NumberTapeTracer, other: Any) -> Any:
        trace = self._trace
        if type(trace) is Tape:
            ans = trace.of_numbers(prim, other, self) if reflected else trace.of_numbers(prim, self, other)
            if ans is not None:
                return ans
        return general(self, other)

    return method


def _pow(self: Tracer, other: Any) -> Any:
    # As arrays do: the exponents that have an operation of their own use it.
    if type(other) is int or type(other) is float:
        if other == 2:
            return self._trace.unary(elementwise.square, self)
        if other == 0.5:
            return self._trace.unary(elementwise.sqrt, self)
        if other == 1:
            return self
    return _power(self, other)


_power = _operator(elementwise.power)


def _divmod(self: Tracer, other: Any) -> tuple[Any, Any]:
    return self // other, self % other


def _rdivmod(self: Tracer, other: Any) -> tuple[Any, Any]:
    return other // self, other % self


def _reshape(self: Tracer, *new: Any, order: Any = "C") -> Any:
    """NumPy's ``reshape``, as a method: ``x.reshape(2, 3)`` or ``x.reshape((2, 3))``."""
    return shape.reshape(self, new[0] if len(new) == 1 else new, order)


def _transpose(self: Tracer, *axes: Any) -> Any:
    """NumPy's ``transpose``, as a method."""
    if not axes or axes == (None,):
        return shape.transpose(self)
    return shape.transpose(self, axes[0] if isinstance(axes[0], (tuple, list)) else axes)


def _astype(
    self: Tracer, dtype: Any, order: Any = "K", casting: Any = "unsafe", subok: Any = True, copy: Any = True
) -> Any:
    """NumPy's ``astype``, as a method."""
    return (
        self if np.dtype(dtype) == self.dtype and not getattr(self, "weak", False) else elementwise.convert(self, dtype)
    )


def _flatten(self: Tracer, order: Any = "C") -> Any:
    """NumPy's ``flatten``, as a method."""
    return shape.ravel(self, order)


def _compress(self: Tracer, condition: Any, axis: Any = None, out: Any = None) -> Any:
    """NumPy's ``compress``, as a method."""
    return some_elements.compress(condition, self, axis, out)


def _itself(self: Tracer, _memo: Any = None) -> Any:
    """A copy of a tracer, which is immutable, for ``copy.copy`` and ``copy.deepcopy``."""
    return self


def _in_place(name: str, arguments: str) -> Callable[..., Any]:
    def method(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        raise UnsupportedError(
            f"x.{name}({arguments}) works in place, and a tracer cannot be written into: {self!r}. "
            f"Write x = np.{name}(x{', ' if arguments else ''}{arguments})"
        )

    return method


#: What to write instead of assigning to an attribute.
_ASSIGNED = {
    "shape": "x = x.reshape(shape)",
    "dtype": "x = x.astype(dtype)",
    "flat": "x = np.full_like(x, value), or ff.at(x.reshape(-1))[i].set(value).reshape(x.shape)",
    "T": "x = np.transpose(value)",
    "mT": "x = np.matrix_transpose(value)",
    "real": "x = value + 1j * x.imag",
    "imag": "x = x.real + 1j * value",
}


def _refuse_assigning(name: str) -> Callable[..., Any]:
    return in_place.refused(f"x.{name} = ...", _ASSIGNED[name])


def _attribute(name: str, read: Callable[[Any], Any]) -> property:
    return property(read, _refuse_assigning(name))


def _array_namespace(self: Tracer, api_version: Any = None) -> Any:
    """NumPy, which serves tracers, for code that is written for any array library."""
    return np


_METHODS = {
    "sort": _in_place("sort", ""),
    "partition": _in_place("partition", "kth"),
    "sum": reduce.sum,
    "mean": moments.mean,
    "var": moments.var,
    "std": moments.std,
    "max": reduce.max,
    "min": reduce.min,
    "prod": reduce.prod,
    "cumsum": cumulative.cumsum,
    "cumprod": cumulative.cumprod,
    "round": elementwise.round,
    "any": reduce.any,
    "all": reduce.all,
    "argmax": reduce.argmax,
    "argmin": reduce.argmin,
    "argsort": order.argsort,
    "argpartition": order.argpartition,
    "searchsorted": order.searchsorted,
    "take": gather.take,
    "diagonal": diagonals.diagonal,
    "trace": diagonals.trace,
    "choose": choose.choose,
    "compress": _compress,
    "fill": in_place.refused("ndarray.fill", "x = np.full_like(x, value)"),
    "put": in_place.refused("ndarray.put", "x = ff.at(x.reshape(-1))[indices].set(values).reshape(x.shape)"),
    "resize": in_place.refused("ndarray.resize", "x = np.resize(x, new_shape)"),
    "clip": gather.clip,
    "nonzero": order.nonzero,
    "dot": linalg.dot,
    "conj": complex_.conjugate,
    "conjugate": complex_.conjugate,
    "ravel": shape.ravel,
    "squeeze": shape.squeeze,
    "swapaxes": shape.swapaxes,
    "repeat": arrange.repeat,
    "copy": likes.copy,
}


def _attach() -> None:
    for name, prim in _BINARY.items():
        setattr(Tracer, f"__{name}__", _operator(prim))
        setattr(Tracer, f"__r{name}__", _reflected(prim))
    for name in ("add", "sub", "mul", "truediv"):
        for reflected, operator in enumerate((f"__{name}__", f"__r{name}__")):
            general = getattr(NumberTapeTracer, operator)
            setattr(NumberTapeTracer, operator, _of_numbers(_BINARY[name], general, bool(reflected)))
    for name, ufunc in _COMPARE.items():
        setattr(Tracer, f"__{name}__", _operator(elementwise.primitive_of(ufunc)))
    unary: dict[str, Any] = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}
    for name, ufunc in unary.items():
        setattr(Tracer, f"__{name}__", _unary(elementwise.primitive_of(ufunc)))
    special_methods = {
        "__pow__": _pow,
        "__rpow__": _reflected(elementwise.power),
        "__divmod__": _divmod,
        "__rdivmod__": _rdivmod,
        "__getitem__": index.getitem,
        "reshape": _reshape,
        "transpose": _transpose,
        "astype": _astype,
        "flatten": _flatten,
        "flat": _attribute("flat", lambda self: shape.ravel(self)),
        "__copy__": _itself,
        "__deepcopy__": _itself,
        "T": _attribute("T", lambda self: shape.transpose(self)),
        "mT": _attribute("mT", lambda self: shape.matrix_transpose(self)),
        "real": _attribute("real", lambda self: complex_.real(self)),
        "imag": _attribute("imag", lambda self: complex_.imag(self)),
        "device": property(lambda self: "cpu"),
        "__array_namespace__": _array_namespace,
    }
    for name, method in special_methods.items():
        setattr(Tracer, name, method)
    for name, function in _METHODS.items():
        setattr(Tracer, name, function)
    for tracer in (Tracer, ValueTracer, AbstractTracer, BatchTracer):
        for name in ("shape", "dtype"):
            read = vars(tracer).get(name)
            if read is not None:
                setattr(tracer, name, read.setter(_refuse_assigning(name)))


_attach()
