"""The typed errors of fnflare.

Every error is a `FnflareError` and also the builtin that a caller would guess
(`TypeError` for a wrong type, `ValueError` for a wrong value, ...), so that both
``except fnflare.errors.FnflareError`` and ``except ValueError`` do what they say.
A message names the argument and what was wrong with it, then says what to write instead.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ArgumentError",
    "CheckpointError",
    "ConcretizationError",
    "CotangentError",
    "DataFileError",
    "DtypeError",
    "FnflareError",
    "ImmutableError",
    "LeakedTracerError",
    "MissingFileError",
    "MissingKeyError",
    "NonFiniteError",
    "NonScalarLossError",
    "ShapeError",
    "TracerArrayError",
    "TracerAttributeError",
    "TreeError",
    "UnsupportedError",
]


class FnflareError(Exception):
    """The base of every error that fnflare raises on purpose."""


class ArgumentError(FnflareError, ValueError):
    """An argument has a value that the function cannot take."""


class TreeError(FnflareError, ValueError):
    """Two pytrees that had to have the same structure do not."""


class ShapeError(FnflareError, ValueError):
    """Shapes do not fit together; inside a layer the message starts with the layer's path."""


class DtypeError(FnflareError, TypeError):
    """An array has a dtype that the operation cannot take, such as an integer parameter in `grad`."""


class NonScalarLossError(FnflareError, TypeError):
    """`grad` was given a function that does not return a scalar."""


class CotangentError(FnflareError, ValueError):
    """A cotangent or tangent does not have the structure, shape or dtype of its primal."""


class TracerArrayError(FnflareError, TypeError):
    """A tracer was asked to become a plain NumPy array or Python number, which would lose its derivative."""


class ConcretizationError(FnflareError, TypeError):
    """The value of an abstract tracer was needed, which has a shape and a dtype but no value."""


class LeakedTracerError(FnflareError, RuntimeError):
    """A tracer was used after the transform that made it had returned."""


class ImmutableError(FnflareError, AttributeError):
    """An attribute of a value was assigned to, of a program say, of which nothing changes once it is made."""


class UnsupportedError(FnflareError, TypeError):
    """A NumPy function, or one of its arguments, has no rule for tracers."""


class TracerAttributeError(UnsupportedError, AttributeError):
    """An attribute of arrays that tracers do not have, since they have no memory of their own."""


class MissingKeyError(FnflareError, TypeError):
    """A layer that draws random numbers in training was called without `key=`."""


class CheckpointError(FnflareError, ValueError):
    """A saved file is truncated, foreign, or does not match the tree that it is loaded into."""


class DataFileError(FnflareError, ValueError):
    """A data file is truncated or is not of the format that was expected."""


class MissingFileError(DataFileError, FileNotFoundError):
    """A data file is not there; the message says what was expected and where it can be had."""


class NonFiniteError(FnflareError, FloatingPointError):
    """A loss, gradient, parameter or, under `debug_nans`, the answer of an operation is infinite or not a number.

    Attributes:
        state: in training a `fnflare.train.TrainState`, what the run had before the step that failed.
        op: under `debug_nans` the name of the operation.
        derivative_of: the operation whose derivative rule it belongs to, if it does to any.
        file, line: where the user wrote it, or wrote the operation whose derivative it belongs to.
        layer: the path of the layer, such as ``"encoder/lstm"``; empty outside of all layers.
        phase: "forward" or "backward".
        from_inputs: whether an argument of the operation was not finite already.
    """

    state: Any = None
    op: str | None = None
    derivative_of: str | None = None
    file: str | None = None
    line: int | None = None
    layer: str = ""
    phase: str | None = None
    from_inputs: bool | None = None
