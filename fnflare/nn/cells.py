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

    >>> from fnflare import nn
    >>> mean_so_far = nn.Cell(
    ...     init=lambda key, features: (features, ()),
    ...     apply=lambda params, carry, x: (((carry[0] + x), carry[1] + 1), (carry[0] + x) / (carry[1] + 1)),
    ...     initial=lambda params, batch: (np.zeros((batch, 1), np.float32), np.zeros((batch, 1), np.float32)),
    ... )
    >>> nn.Recurrent(mean_so_far).apply((), np.array([[[2.0], [4.0], [9.0]]], np.float32)).ravel()
    array([2., 3., 5.], dtype=float32)
    """

    init: Callable[[Any, int], tuple[int, Any]]
    apply: Callable[[Any, Any, Any], tuple[Any, Any]]
    initial: Callable[[Any, int], Any]


def check_initialisers(kind: str, **initialisers: Any) -> None:
    for name, value in initialisers.items():
        function(kind, name, value)


def draw(
    kind: str,
    key: Any,
    features: int,
    units: int,
    gates: int,
    inits: tuple[Initializer, Initializer, Initializer],
    state: int | None = None,
) -> dict[str, Any]:
    """The parameters of cells whose gates lie side by side: each gate's matrices drawn by themselves, so
    that what an initialiser knows of fans or orthogonality holds for each. The `state` that comes back has as many
    elements as the gates, or another number of them."""
    require_key(kind, key)
    keys = random.split(key, 3 * gates)
    w, u, b = inits

    def beside(init: Initializer, ks: Any, rows: tuple[int, ...]) -> Any:
        return np.concatenate([init(k, (*rows, units)) for k in ks], axis=-1)

    return {
        "W": beside(w, keys[:gates], (features,)),
        "U": beside(u, keys[gates : 2 * gates], (state or units,)),
        "b": beside(b, keys[2 * gates :], ()),
    }


def zero_state(params: Any, batch: int, units: int | None = None) -> Any:
    """A state of zeros, of as many elements as U takes, or another number of them."""
    u = params["U"]
    return np.zeros((batch, units or u.shape[0]), u.dtype)


def from_x(kind: str, params: Any, inputs: Any, bias: bool = True) -> Any:
    """What a step takes of its inputs: ``x W + b``, or without a bias ``x W``."""
    w = params["W"]
    if inputs.shape[-1] != w.shape[0]:
        raise mismatch(kind, f"(N, {w.shape[0]})", inputs)
    return linear(inputs, w, params["b"] if bias else None)


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

    >>> ff.nn.RNNCell(25).init(ff.random.key(0), 100)[1]["U"].shape
    (25, 25)
    """
    units = positive_int("RNNCell", "units", units)
    check_initialisers("RNNCell", W_init=W_init, U_init=U_init, b_init=b_init, activation=activation)

    def init(key: Any, features: int) -> tuple[int, Any]:
        return units, draw("RNNCell", key, features, units, 1, (W_init, U_init, b_init))

    def apply(params: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        h = activation(from_x("RNNCell", params, inputs) + carry @ params["U"])
        return h, h

    return Cell(init, apply, zero_state)


def LSTMCell(
    units: int,
    *,
    forget_bias: float = 1.0,
    proj_size: int | None = None,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
    P_init: Initializer = GLOROT,
) -> Cell:
    """The long short-term memory cell (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000)::

        i, f, g, o = split(x W + h U + b, 4)
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(c')

    Outputs ``h'``. Parameters ``{"W": (in, 4 units), "U": (units, 4 units), "b": (4 units,)}``, the gates
    in the order input, forget, cell, output along the last axis, as PyTorch and cuDNN have them; carry
    ``(h, c)``, each (N, units). With `proj_size` ``h'`` is multiplied by one more matrix, ``"P": (units, proj_size)``,
    and what comes out, outputs and h, has that many elements (Sak et al. 2014).

    Args:
        units: the size of the state.
        forget_bias: added to the forget gate's part of b when it is drawn, so that the cell remembers
            at first (Jozefowicz et al. 2015).
        proj_size: the size of the outputs, where it is not that of the state.
        W_init: draws each gate's part of W, ``init(key, shape)``.
        U_init: draws each gate's part of U.
        b_init: draws each gate's part of b.
        P_init: draws P.

    >>> units, params = ff.nn.LSTMCell(2).init(ff.random.key(0), 3)
    >>> params["W"].shape, params["U"].shape, params["b"]
    ((3, 8), (2, 8), array([0., 0., 1., 1., 0., 0., 0., 0.], dtype=float32))
    """
    units = positive_int("LSTMCell", "units", units)
    check_initialisers("LSTMCell", W_init=W_init, U_init=U_init, b_init=b_init, P_init=P_init)
    outputs = units if proj_size is None else positive_int("LSTMCell", "proj_size", proj_size)

    def init(key: Any, features: int) -> tuple[int, Any]:
        params = draw("LSTMCell", key, features, units, 4, (W_init, U_init, b_init), outputs)
        params["b"] = ops.at(params["b"])[units : 2 * units].add(forget_bias)
        if proj_size is not None:
            params["P"] = P_init(random.fold_in(key, 0), (units, outputs))
        return outputs, params

    def initial(params: Any, batch: int) -> Any:
        return zero_state(params, batch), zero_state(params, batch, units)

    def apply(params: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        h, c = carry
        gates = from_x("LSTMCell", params, inputs) + h @ params["U"]
        # One sigmoid over all gates, though one of them does not need it: a call costs more than that.
        s = ops.logistic(gates)
        c = s[:, units : 2 * units] * c + s[:, :units] * np.tanh(gates[:, 2 * units : 3 * units])
        h = s[:, 3 * units :] * np.tanh(c)
        if proj_size is not None:
            h = h @ params["P"]
        return (h, c), h

    return Cell(init, apply, initial)


def GRUCell(
    units: int,
    *,
    reset_after: bool = True,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
) -> Cell:
    """The gated recurrent unit (Cho et al. 2014), its reset gate after the product with the state::

        r, z = sigmoid(split(x W_rz + h U_rz + b_rz, 2))
        n = tanh(x W_n + b_n + r * (h U_n + c))
        h' = (1 - z) * n + z * h

    or, with ``reset_after=False``, before it, as in the paper: ``n = tanh(x W_n + b_n + (r * h) U_n)``, without c.

    Outputs ``h'``. Parameters ``{"W": (in, 3 units), "U": (units, 3 units), "b": (3 units,), "c": (units,)}``,
    the gates in the order reset, update, new along the last axis, as PyTorch and cuDNN have them; carry
    ``h``, (N, units).

    Args:
        units: the size of the state.
        reset_after: whether the reset gate comes after the product with the state. All gates then take one product,
            and only so does PyTorch have it.
        W_init: draws each gate's part of W, ``init(key, shape)``.
        U_init: draws each gate's part of U.
        b_init: draws c and each gate's part of b.

    >>> ff.nn.GRUCell(2).init(ff.random.key(0), 3)[1]["W"].shape
    (3, 6)
    """
    units = positive_int("GRUCell", "units", units)
    check_initialisers("GRUCell", W_init=W_init, U_init=U_init, b_init=b_init)

    def init(key: Any, features: int) -> tuple[int, Any]:
        params = draw("GRUCell", key, features, units, 3, (W_init, U_init, b_init))
        if reset_after:
            params["c"] = b_init(random.fold_in(key, 0), (units,))
        return units, params

    def apply(params: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        h, from_inputs = carry, from_x("GRUCell", params, inputs)
        from_state = h @ params["U"]
        s = ops.logistic(from_inputs[:, : 2 * units] + from_state[:, : 2 * units])
        n = np.tanh(from_inputs[:, 2 * units :] + s[:, :units] * (from_state[:, 2 * units :] + params["c"]))
        h = n + s[:, units:] * (h - n)
        return h, h

    def apply_reset_before(params: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        h, from_inputs, u = carry, from_x("GRUCell", params, inputs), params["U"]
        s = ops.logistic(from_inputs[:, : 2 * units] + h @ u[:, : 2 * units])
        n = np.tanh(from_inputs[:, 2 * units :] + (s[:, :units] * h) @ u[:, 2 * units :])
        h = n + s[:, units:] * (h - n)
        return h, h

    return Cell(init, apply if reset_after else apply_reset_before, zero_state)
