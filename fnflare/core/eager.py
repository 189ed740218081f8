"""The trace at the bottom: it computes at once and changes nothing, but every operation comes by.

Plain NumPy calls on plain arrays are nobody's to see. Where somebody observes, the floating arrays go in as
`EagerTracer`s, which have their values and do what arrays do; each operation on them runs its kernel, and what
comes out is lifted again. Operations that no primitive serves are NumPy's as before, and are not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fnflare import tree
from fnflare.core.numbers import as_number
from fnflare.core.observe import observed
from fnflare.core.primitive import Primitive
from fnflare.core.trace import Trace, closed_call, open_traces, trace_depth
from fnflare.core.tracer import Tracer, ValueTracer
from fnflare.errors import ConcretizationError, TracerArrayError, UnsupportedError

__all__ = ["EagerTrace", "EagerTracer", "bottom_trace", "run_observed", "run_on_bottom"]

#: What a tracer says of a call that it cannot serve, where plain arrays may be able to.
_REFUSALS = (ConcretizationError, TracerArrayError, UnsupportedError)


class EagerTracer(ValueTracer):
    """An array that shows its operations: no derivative can be lost, so it becomes a plain one whenever it is asked."""

    __slots__ = ()

    def __init__(self, trace: EagerTrace, value: Any) -> None:
        self._trace = trace
        self.value = value
        self.code = None

    def become_number(self) -> None:
        self.value = as_number(self.value)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        try:
            return super().__array_ufunc__(ufunc, method, *inputs, **kwargs)
        except _REFUSALS as refusal:
            return self._as_numpy(getattr(ufunc, method), inputs, kwargs, refusal)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        try:
            ans = super().__array_function__(function, types, args, kwargs)
            return _apart(ans, args) if function in _COPYING else ans
        except _REFUSALS as refusal:
            return self._as_numpy(function, args, kwargs, refusal)

    def _as_numpy(self, function: Callable[..., Any], args: Any, kwargs: Any, refusal: Exception) -> Any:
        """Call a function of NumPy's on plain arrays; where tracers of other traces are among its arguments the
        refusal was right."""
        trace = self._trace
        args, kwargs = tree.map(trace.plain, (args, kwargs))
        if any(isinstance(x, Tracer) for x in tree.leaves((args, kwargs))):
            raise refusal
        return tree.map(trace.lift, function(*args, **kwargs))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.value, dtype, copy=copy)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.value, name)

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __complex__(self) -> complex:
        return complex(self.value)

    def __trunc__(self) -> int:
        return int(self.value)

    def __reduce__(self) -> Any:
        return self.value.__reduce__()

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.value, digits)

    def __hash__(self) -> int:
        return hash(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __repr__(self) -> str:
        return repr(self.value)

    def __str__(self) -> str:
        return str(self.value)

    def item(self, *args: Any) -> Any:
        """An element as a Python number."""
        return self.value.item(*args)

    def tolist(self) -> Any:
        """The elements as Python numbers in lists."""
        return self.value.tolist()

    def __setitem__(self, index: Any, value: Any) -> None:
        plain = self._trace.plain
        self.value[tree.map(plain, index)] = plain(value)


#: What gives an array of its own in NumPy, where tracers, which nobody writes into as a rule, may give themselves.
_COPYING = frozenset({np.copy, np.clip, np.nan_to_num, np.pad, np.repeat, np.resize, np.roll, np.tile})
_COPYING_METHODS = ("__copy__", "__deepcopy__", "__pow__", "astype", "clip", "copy", "flatten")


def _apart(ans: Any, args: Sequence[Any]) -> Any:
    """An answer in memory that is not that of an argument."""
    shared = type(ans) is EagerTracer and any(
        type(a) is EagerTracer and np.may_share_memory(ans.value, a.value) for a in args
    )
    return EagerTracer(ans._trace, ans.value.copy()) if shared else ans


def _copying(name: str) -> Callable[..., Any]:
    def method(self: EagerTracer, *args: Any, **kwargs: Any) -> Any:
        return _apart(getattr(Tracer, name)(self, *args, **kwargs), [self])

    return method


for _name in _COPYING_METHODS:
    setattr(EagerTracer, _name, _copying(_name))


def _in_place(name: str) -> Callable[[EagerTracer, Any], EagerTracer]:
    """``x += y`` writes into the array, as it does on plain arrays; numbers have no memory to write into."""

    def method(self: EagerTracer, other: Any) -> Any:
        ans = getattr(self, f"__{name}__")(other)
        if not isinstance(self.value, np.ndarray):
            return ans
        np.copyto(self.value, self._trace.plain(ans), casting="same_kind")
        return self

    return method


def _on_the_array(name: str) -> Callable[..., Any]:
    """A method that works in place, which tracers refuse and arrays do."""

    def method(self: EagerTracer, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.value, name)(*args, **kwargs)

    return method


for _name in ("sort", "partition", "fill", "put", "resize"):
    setattr(EagerTracer, _name, _on_the_array(_name))

for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(EagerTracer, f"__i{_name}__", _in_place(_name))


class EagerTrace(Trace):
    """A trace that runs kernels; only ever the outermost of a thread."""

    __slots__ = ()

    def lift(self, x: Any) -> Any:
        """A floating or complex array as a tracer; anything else, masks and indices say, as it is."""
        is_array = type(x) is np.ndarray or isinstance(x, np.generic)
        return EagerTracer(self, x) if is_array and x.dtype.kind in "fc" else x

    def plain(self, x: Any) -> Any:
        """What `x` is below this trace."""
        return x.value if type(x) is EagerTracer and x._trace is self else x

    def process(self, prim: Primitive, args: Any, params: dict[str, Any] | None) -> Any:
        for a in args:
            if isinstance(a, Tracer) and a._trace.closed:
                return closed_call(a._trace, prim, args, params)
        if prim.carries != "function":  # a function runs on the tracers, so that its operations come by
            args = [self.plain(a) for a in args]
        ans = prim.kernel(*args) if params is None else prim.kernel(*args, **params)
        if prim.many:
            return tuple([self._answer(a) for a in ans])
        return self._answer(ans)

    def _answer(self, ans: Any) -> Any:
        tracer = self.lift(ans)
        if type(tracer) is EagerTracer:
            tracer.mark()
        return tracer


def bottom_trace() -> EagerTrace | None:
    """The eager trace that is open in this thread."""
    traces = open_traces()
    return traces[0] if traces and type(traces[0]) is EagerTrace else None


def run_on_bottom(fun: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call `fun` with an eager trace open, so that tapes lay their leaves on it, where somebody observes and no
    transform has been entered yet; what it returns is plain. Otherwise this is a plain call."""
    if not observed() or trace_depth():
        return fun(*args, **kwargs)
    with EagerTrace(fun) as trace:
        out = fun(*args, **kwargs)
    return tree.map(trace.plain, out)


def run_observed(fun: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """`run_on_bottom`, with the floating arrays among the arguments on the eager trace that is open then.

    Args:
        fun: a function of pytrees.
        *args, **kwargs: its arguments.
    """
    return run_on_bottom(_lifted_call, fun, args, kwargs)


def _lifted_call(fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    trace = bottom_trace()
    if trace is not None and observed():
        args, kwargs = tree.map(trace.lift, (args, kwargs))
    return fun(*args, **kwargs)
