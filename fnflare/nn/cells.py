"""Recurrent cells: what happens at one time step.

A cell is three pure functions, written for one step; `fnflare.nn.Recurrent` runs any cell over a batch of
sequences under `fnflare.scan`, which computes what does not depend on the state for all steps at once, before the
first. Parameters of all gates lie side by side, so that what remains of a step is one product with the state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare import ops, random
from fnflare.nn.functions import linear
from fnflare.nn.initializers import Initializer, glorot_uniform, orthogonal, zeros
from fnflare.nn.layer import function, mismatch, positive_int, require_key

__all__ = ["Cell", "GRUCell", "LSTMCell", "RNNCell"]

#: How the matrices of cells begin: those of the inputs, and those of the state, which then neither grows nor fades.
GLOROT, ORTHOGONAL = glorot_uniform(), orthogonal()


class Cell(NamedTuple):
    """One step of a recurrent layer. The carry, the state that goes from step to step, is any pytree of
    arrays whose first axis is the batch.

    Attributes:
        init: ``init(key, features) -> (units, params)``: draws the parameters for inputs of so many
            features, and says how many the outputs have.
        apply: ``apply(params, carry, inputs) -> (carry, outputs)``: one step, on its inputs (N, features), with
            outputs (N, units). It is the body of a `fnflare.scan`: traced once, so that values in it have
            no truth, and the carry has one structure and shape. What it computes of the inputs and the parameters
            alone is computed for all steps at once.
        initial: ``initial(params, batch) -> carry``: the carry before the first step.

    >>> mean_so_far = Cell(
    ...     init=lambda key, features: (features, ()),
    ...     apply=lambda params, carry, x: (((carry[0] + x), carry[1] + 1), (carry[0] + x) / (carry[1] + 1)),
    ...     initial=lambda params, batch: (np.zeros((batch, 1), np.float32), np.zeros((batch, 1), np.float32)),
    ... )
    >>> from fnflare import nn
    >>> nn.Recurrent(mean_so_far).apply((), np.array([[[2.0], [4.0], [9.0]]], np.float32)).ravel()
    array([2., 3., 5.], dtype=float32)
    """

    init: Callable[[Any, int], tuple[int, Any]]
    apply: Callable[[Any, Any, Any], tuple[Any, Any]]
    initial: Callable[[Any, int], Any]


def _check_initialisers(kind: str, **initialisers: Any) -> None:
    for name, value in initialisers.items():
        function(kind, name, value)


def _draw(
    kind: str, key: Any, features: int, units: int, gates: int, inits: tuple[Initializer, Initializer, Initializer]
) -> dict[str, Any]:
    """The parameters of cells whose gates lie side by side: each gate's matrices drawn by themselves, so
    that what an initialiser knows of fans or orthogonality holds for each."""
    require_key(kind, key)
    keys = random.split(key, 3 * gates)
    w, u, b = inits

    def beside(draw: Initializer, ks: Any, rows: tuple[int, ...]) -> Any:
        return np.concatenate([draw(k, (*rows, units)) for k in ks], axis=-1)

    return {
        "W": beside(w, keys[:gates], (features,)),
        "U": beside(u, keys[gates : 2 * gates], (units,)),
        "b": beside(b, keys[2 * gates :], ()),
    }


def _zero_state(params: Any, batch: int) -> Any:
    u = params["U"]
    return np.zeros((batch, u.shape[0]), u.dtype)


def _from_inputs(kind: str, params: Any, inputs: Any) -> Any:
    """What a step takes of its inputs: ``x W + b``."""
    w = params["W"]
    if inputs.shape[-1] != w.shape[0]:
        raise mismatch(kind, f"(N, {w.shape[0]})", inputs)
    return linear(inputs, w, params["b"])


def RNNCell(
    units: int,
    *,
    activation: Callable[[Any], Any] = np.tanh,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
) -> Cell:
    """The simple recurrent cell (Elman 1990): ``h' = activation(x W + h U + b)``; outputs ``h'``.

    Parameters ``{"W": (in, units), "U": (units, units), "b": (units,)}``; carry ``h``, (N, units).

    Args:
        units: the size of the state.
        activation: an elementwise function.
        W_init: draws W, ``init(key, shape)``.
        U_init: draws U.
        b_init: draws b.

    >>> RNNCell(25).init(random.key(0), 100)[1]["U"].shape
    (25, 25)
    """
    units = positive_int("RNNCell", "units", units)
    _check_initialisers("RNNCell", W_init=W_init, U_init=U_init, b_init=b_init, activation=activation)

    def init(key: Any, features: int) -> tuple[int, Any]:
        return units, _draw("RNNCell", key, features, units, 1, (W_init, U_init, b_init))

    def apply(params: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        h = activation(_from_inputs("RNNCell", params, inputs) + carry @ params["U"])
        return h, h

    return Cell(init, apply, _zero_state)


def LSTMCell(
    units: int,
    *,
    forget_bias: float = 1.0,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
) -> Cell:
    """The long short-term memory cell (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000)::

        i, f, g, o = split(x W + h U + b, 4)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    Outputs ``h'``. Parameters ``{"W": (in, 4 units), "U": (units, 4 units), "b": (4 units,)}``, the gates
    in the order input, forget, cell, output along the last axis, as PyTorch and cuDNN have them; carry
    ``(h, c)``, each (N, units).

    Args:
        units: the size of the state.
        forget_bias: added to the forget gate's part of b when it is drawn, so that the cell remembers
            at first (Jozefowicz et al. 2015).
        W_init: draws each gate's part of W, ``init(key, shape)``.
        U_init: draws each gate's part of U.
        b_init: draws each gate's part of b.

    >>> units, params = LSTMCell(2).init(random.key(0), 3)
    >>> params["W"].shape, params["U"].shape, params["b"]
    ((3, 8), (2, 8), array([0., 0., 1., 1., 0., 0., 0., 0.], dtype=float32))
    """
    units = positive_int("LSTMCell", "units", units)
    _check_initialisers("LSTMCell", W_init=W_init, U_init=U_init, b_init=b_init)

    def init(key: Any, features: int) -> tuple[int, Any]:
        params = _draw("LSTMCell", key, features, units, 4, (W_init, U_init, b_init))
        params["b"] = ops.at(params["b"])[units : 2 * units].add(forget_bias)
        return units, params

    def initial(params: Any, batch: int) -> Any:
        return _zero_state(params, batch), _zero_state(params, batch)

    def apply(params: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        h, c = carry
        gates = _from_inputs("LSTMCell", params, inputs) + h @ params["U"]
        # One sigmoid over all gates, though one of them does not need it: a call costs more than that.
        s = ops.logistic(gates)
        c = s[:, units : 2 * units] * c + s[:, :units] * np.tanh(gates[:, 2 * units : 3 * units])
        h = s[:, 3 * units :] * np.tanh(c)
        return (h, c), h

    return Cell(init, apply, initial)


def GRUCell(
    units: int,
    *,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
) -> Cell:
    """The gated recurrent unit (Cho et al. 2014), its reset gate after the product with the state::

        r, z = sigmoid(split(x W_rz + h U_rz + b_rz, 2))
        n = tanh(x W_n + b_n + r * (h U_n + c))
        h' = (1 - z) * n + z * h

    Outputs ``h'``. Parameters ``{"W": (in, 3 units), "U": (units, 3 units), "b": (3 units,), "c": (units,)}``,
    the gates in the order reset, update, new along the last axis, as PyTorch and cuDNN have them; carry
    ``h``, (N, units).

    Args:
        units: the size of the state.
        W_init: draws each gate's part of W, ``init(key, shape)``.
        U_init: draws each gate's part of U.
        b_init: draws c and each gate's part of b.

    >>> GRUCell(2).init(random.key(0), 3)[1]["W"].shape
    (3, 6)
    """
    units = positive_int("GRUCell", "units", units)
    _check_initialisers("GRUCell", W_init=W_init, U_init=U_init, b_init=b_init)

    def init(key: Any, features: int) -> tuple[int, Any]:
        params = _draw("GRUCell", key, features, units, 3, (W_init, U_init, b_init))
        params["c"] = b_init(random.fold_in(key, 0), (units,))
        return units, params

    def apply(params: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        h, from_inputs = carry, _from_inputs("GRUCell", params, inputs)
        from_state = h @ params["U"]
        s = ops.logistic(from_inputs[:, : 2 * units] + from_state[:, : 2 * units])
        n = np.tanh(from_inputs[:, 2 * units :] + s[:, :units] * (from_state[:, 2 * units :] + params["c"]))
        h = n + s[:, units:] * (h - n)
        return h, h

    return Cell(init, apply, _zero_state)
