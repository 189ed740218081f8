"""Abstract evaluation: shapes and dtypes without values.

A primitive on `AbstractTracer`s goes in; its shape rule alone runs, and tracers of the answer's
shape and dtype come out. This is how `eval_shape` and the sizes of layers are found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare.core.aval import ShapeDtypeStruct, aval_of
from fnflare.core.numbers import number_operators
from fnflare.core.primitive import Primitive
from fnflare.core.trace import OBJECT, Trace, closed_call, refuse_objects
from fnflare.core.tracer import Tracer
from fnflare.errors import ConcretizationError

__all__ = ["AbstractTrace", "AbstractTracer"]


@number_operators
class AbstractTracer(Tracer):
    """An array of which only the shape and the dtype are known."""

    __slots__ = ("aval",)

    def __init__(self, trace: AbstractTrace, aval: ShapeDtypeStruct) -> None:
        self._trace = trace
        self.aval = aval
        self.code = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.aval.dtype

    @property
    def weak(self) -> bool:
        """Whether it stands for a Python number, whose dtype gives way to that of arrays."""
        return self.aval.weak

    def become_number(self) -> None:
        self.aval = ShapeDtypeStruct(self.aval.shape, self.aval.dtype, weak=True)

    def __bool__(self) -> bool:
        raise ConcretizationError(
            f"the truth of {self!r}, made {self.origin()}, is not known: only its shape is. Instead of a Python if or "
            "while on a traced value write np.where or ff.cond, or let the argument be static (static_argnums)"
        )

    def _no_number(self, function: str) -> ConcretizationError:
        return ConcretizationError(
            f"{function}() of {self!r}, made {self.origin()}: its value is not known, only its shape is. "
            "Let the argument be static (static_argnums), or keep to array operations; "
            "instead of buffer[i] = t write buffer = ff.at(buffer)[i].set(t)"
        )


class AbstractTrace(Trace):
    """A trace that works out shapes and dtypes.

    Args:
        fun: the user's function.
        observe: called with each primitive, the abstract values of its arguments, its parameters and
            the abstract value of its answer; `fnflare.nn.summary` counts operations with it.
    """

    __slots__ = ("observe",)

    def __init__(self, fun: Any = None, observe: Callable[..., None] | None = None) -> None:
        super().__init__(fun)
        self.observe = observe

    def process(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> Any:
        for a in args:
            if isinstance(a, Tracer) and a._trace.closed:
                return closed_call(a._trace, prim, args, params)
        avals = [aval_of(a) for a in args]
        ans = prim.shape(*avals, **(params or {}))
        if not prim.many and ans.dtype is OBJECT:
            refuse_objects(prim)
        if self.observe is not None:
            self.observe(prim, avals, params or {}, ans)
        if prim.many:
            return tuple([self.tracer(a) for a in ans])
        return self.tracer(ans)

    def tracer(self, aval: ShapeDtypeStruct) -> AbstractTracer:
        """A tracer of the given shape and dtype."""
        tracer = AbstractTracer(self, aval)
        tracer.mark()
        return tracer
