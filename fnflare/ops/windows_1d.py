"""Convolution and correlation of two vectors, by the primitive of layers: `fnflare.ops.conv`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare.core.tracer import implements
from fnflare.ops.conv import conv
from fnflare.ops.shape import as_arrays

__all__ = ["correlate"]

_MODES = ("valid", "same", "full")


def _correlated(x: Any, w: Any, mode: Any) -> Any:
    """``sum(x[n + k] * w[n])`` for shifts k, where `w` is not the longer one."""
    if isinstance(mode, (int, np.integer)) and 0 <= mode < len(_MODES):
        mode = _MODES[mode]
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {', '.join(map(repr, _MODES))}, got {mode!r}")
    taps = w.shape[0]
    before = {"valid": 0, "same": taps // 2, "full": taps - 1}[mode]
    after = {"valid": 0, "same": taps - 1 - taps // 2, "full": taps - 1}[mode]
    if x.dtype.kind in "fc":
        out = conv(np.reshape(x, (1, -1, 1)), np.reshape(w, (-1, 1, 1)), (1,), ((before, after),), (1,))
        return np.reshape(out, -1)
    x = np.pad(x, (before, after))
    return np.matmul(x[np.arange(x.shape[0] - taps + 1)[:, None] + np.arange(taps)], w)


def _vectors(name: str, a: Any, v: Any) -> list[Any]:
    xs = [np.atleast_1d(x) for x in as_arrays([a, v])]
    for x in xs:
        if x.ndim != 1 or x.shape[0] == 0:
            raise ValueError(f"{name} needs vectors that are not empty, got shapes {xs[0].shape} and {xs[1].shape}")
    dtype = np.result_type(*xs)
    return [x.astype(dtype) for x in xs]


@implements(np.convolve)
def convolve(a: Any, v: Any, mode: Any = "full") -> Any:
    """NumPy's ``convolve``."""
    a, v = _vectors("np.convolve", a, v)
    if v.shape[0] > a.shape[0]:
        a, v = v, a
    return _correlated(a, v[::-1], mode)


@implements(np.correlate)
def correlate(a: Any, v: Any, mode: Any = "valid") -> Any:
    """NumPy's ``correlate``."""
    a, v = _vectors("np.correlate", a, v)
    v = np.conj(v) if v.dtype.kind == "c" else v
    return _correlated(v, a, mode)[::-1] if v.shape[0] > a.shape[0] else _correlated(a, v, mode)
