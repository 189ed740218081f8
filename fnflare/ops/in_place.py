"""NumPy's functions that write into an array: refused on tracers, with what to write instead.

A tracer is not written into, and an array would lose the derivative of a tracer that is written into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from fnflare.core.tracer import advice_of, calling_function, implements
from fnflare.errors import TracerArrayError

__all__ = ["refused"]

#: The functions, and what gives the array that they leave behind.
_INSTEAD = {
    np.copyto: "dst = np.where(where, src, dst)",
    np.fill_diagonal: "i = np.arange(n) and a = ff.at(a)[i, i].set(val)",
    np.place: "arr = np.where(mask, x, arr), or arr = ff.at(arr)[mask].set(v) with a value for each True of the mask",
    np.put: "a = ff.at(a.reshape(-1))[ind].set(v).reshape(a.shape)",
    np.put_along_axis: (
        "arr = ff.at(arr)[i, indices].set(values), with an index array for each axis: here axis=1 of two, and "
        "i = np.arange(len(arr))[:, None]"
    ),
    np.putmask: "a = np.where(mask, values, a)",
}


def refused(name: str, instead: str) -> Callable[..., NoReturn]:
    """A function that refuses to write in place.

    Args:
        name: of the function, as users write it.
        instead: what to write instead of it.
    """

    def refuse(*_args: Any, **_kwargs: Any) -> NoReturn:
        caller = calling_function()
        advice = advice_of(caller)
        if advice:  # a function of NumPy's is written with this one
            raise TracerArrayError(f"{caller} writes a tracer into an array, where it loses its derivative; {advice}")
        raise TracerArrayError(
            f"{name} writes into an array, which a tracer cannot be and which would lose its derivative; "
            f"write {instead}"
        )

    refuse.__name__ = name.rpartition(".")[2]
    refuse.__doc__ = "Not for tracers: raises `TracerArrayError`."
    refuse.instead = instead  # type: ignore[attr-defined]  # for the page of docs
    return refuse


for _function, _instead in _INSTEAD.items():
    implements(_function)(refused(f"np.{_function.__name__}", _instead))
