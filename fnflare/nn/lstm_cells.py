"""Other cells of the LSTM family, for `fnflare.nn.Recurrent`: with peepholes, and with normalised layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fnflare import ops, random
from fnflare.nn.cells import GLOROT, ORTHOGONAL, Cell, check_initialisers, draw, from_x, zero_state
from fnflare.nn.initializers import Initializer, zeros
from fnflare.nn.layer import positive_int

__all__ = ["LayerNormLSTMCell", "PeepholeLSTMCell"]


def PeepholeLSTMCell(
    units: int,
    *,
    forget_bias: float = 1.0,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
    p_init: Initializer = zeros,
) -> Cell:
    """The LSTM cell whose gates see its memory (Gers & Schmidhuber 2000)::

        i, f, g, o = split(x W + h U + b, 4)
        c' = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * tanh(g)
        h' = sigmoid(o + p_o * c') * tanh(c')

    Outputs ``h'``. Parameters as those of `LSTMCell`, and ``"p": (3, units)``, the peepholes of the input, forget and
    output gates; carry ``(h, c)``, each (N, units).

    Args:
        units: the size of the state.
        forget_bias: added to the forget gate's part of b when it is drawn.
        W_init: draws each gate's part of W, ``init(key, shape)``.
        U_init: draws each gate's part of U.
        b_init: draws each gate's part of b.
        p_init: draws p.

    >>> from fnflare import nn
    >>> shape, params = nn.Recurrent(nn.PeepholeLSTMCell(2), last=True).init(ff.random.key(0), (-1, -1, 3))
    >>> shape, params["p"].shape
    ((-1, 2), (3, 2))
    """
    units = positive_int("PeepholeLSTMCell", "units", units)
    check_initialisers("PeepholeLSTMCell", W_init=W_init, U_init=U_init, b_init=b_init, p_init=p_init)

    def init(key: Any, features: int) -> tuple[int, Any]:
        params = draw("PeepholeLSTMCell", key, features, units, 4, (W_init, U_init, b_init))
        params["b"] = ops.at(params["b"])[units : 2 * units].add(forget_bias)
        params["p"] = p_init(random.fold_in(key, 0), (3, units))
        return units, params

    def apply(params: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        (h, c), p = carry, params["p"]
        gates = from_x("PeepholeLSTMCell", params, inputs) + h @ params["U"]
        i = ops.logistic(gates[:, :units] + p[0] * c)
        f = ops.logistic(gates[:, units : 2 * units] + p[1] * c)
        c = f * c + i * np.tanh(gates[:, 2 * units : 3 * units])
        h = ops.logistic(gates[:, 3 * units :] + p[2] * c) * np.tanh(c)
        return (h, c), h

    return Cell(init, apply, _zeros)


def LayerNormLSTMCell(
    units: int,
    *,
    forget_bias: float = 1.0,
    epsilon: float = 1e-5,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
) -> Cell:
    """The LSTM cell that normalises what its gates take of inputs and state, and its memory (Ba et al. 2016)::

        i, f, g, o = split(norm(x W) * s_x + norm(h U) * s_h + b, 4)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(norm(c') * s_c + b_c)

    where norm brings the elements of each example to mean 0 and variance 1. Outputs ``h'``. Parameters as those of
    `LSTMCell`, the scales ``"s_x": (4 units,)``, ``"s_h": (4 units,)`` and ``"s_c": (units,)``, ones at first, and
    ``"b_c": (units,)``, zeros at first; carry ``(h, c)``, each (N, units).

    Args:
        units: the size of the state.
        forget_bias: added to the forget gate's part of b when it is drawn.
        epsilon: added to the variances.
        W_init: draws each gate's part of W, ``init(key, shape)``.
        U_init: draws each gate's part of U.
        b_init: draws each gate's part of b.

    >>> from fnflare import nn
    >>> nn.Recurrent(nn.LayerNormLSTMCell(2)).init(ff.random.key(0), (-1, -1, 3))[0]
    (-1, -1, 2)
    """
    units = positive_int("LayerNormLSTMCell", "units", units)
    check_initialisers("LayerNormLSTMCell", W_init=W_init, U_init=U_init, b_init=b_init)

    def init(key: Any, features: int) -> tuple[int, Any]:
        params = draw("LayerNormLSTMCell", key, features, units, 4, (W_init, U_init, b_init))
        params["b"] = ops.at(params["b"])[units : 2 * units].add(forget_bias)
        params |= {name: np.ones(4 * units, np.float32) for name in ("s_x", "s_h")}
        return units, params | {"s_c": np.ones(units, np.float32), "b_c": np.zeros(units, np.float32)}

    def norm(x: Any) -> Any:
        centred = x - np.mean(x, axis=-1, keepdims=True)
        return centred / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + epsilon)

    def apply(params: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        h, c = carry
        from_inputs = norm(from_x("LayerNormLSTMCell", params, inputs, bias=False)) * params["s_x"] + params["b"]
        gates = from_inputs + norm(h @ params["U"]) * params["s_h"]
        s = ops.logistic(gates)
        c = s[:, units : 2 * units] * c + s[:, :units] * np.tanh(gates[:, 2 * units : 3 * units])
        h = s[:, 3 * units :] * np.tanh(norm(c) * params["s_c"] + params["b_c"])
        return (h, c), h

    return Cell(init, apply, _zeros)


def _zeros(params: Any, batch: int) -> Any:
    return zero_state(params, batch), zero_state(params, batch)
