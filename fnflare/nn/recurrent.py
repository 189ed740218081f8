"""Recurrent layers: a cell run over a batch of sequences, forwards, backwards or both.

Sequences of unequal length come as a `Padded` batch and give, each of them, what they give alone: past its
end a sequence's carry stands still, so that a pass forwards ends with its last word and a pass backwards
begins there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fnflare import random, tree
from fnflare.core import is_tracer
from fnflare.errors import ArgumentError, ShapeError, TreeError
from fnflare.nn import scoping
from fnflare.nn.cells import GLOROT, ORTHOGONAL, Cell, GRUCell, LSTMCell, RNNCell
from fnflare.nn.initializers import Initializer, zeros
from fnflare.nn.layer import Flops, Layer, Shape, known_features, layer, mismatch, units_of
from fnflare.padded import Padded

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]


def Recurrent(cell: Cell, *, bidirectional: bool = False, last: bool = False, reverse: bool = False) -> Layer:
    """A layer that runs a cell over time.

    Inputs (N, T, features), or a `Padded` batch of such values, whose lengths are honoured: every sequence
    gives what it gives alone, and outputs past its end are zero. The outputs are the cell's at all steps,
    (N, T, units), as `Padded` as the inputs; or with `last` those after the last word that was read,
    (N, units). The parameters are the cell's; of a bidirectional layer ``{"forward": ..., "backward": ...}``,
    two passes with parameters of their own, whose outputs are concatenated to (..., 2 units).

    ``apply`` takes two more keywords: ``initial_state=``, the carry to begin with, and ``return_state=True``, to
    get ``(outputs, carry)`` with the carry after the last word that was read; of a bidirectional layer both
    are ``{"forward": carry, "backward": carry}``.

    Args:
        cell: the cell; see `Cell` to write one.
        bidirectional: whether a pass from the end to the start runs as well (Schuster & Paliwal 1997).
        last: whether only the outputs after the last word that is read are wanted.
        reverse: whether the pass runs from the end to the start; outputs still stand at their own steps.

    Raises:
        ArgumentError: the cell is not a `Cell`, or both `bidirectional` and `reverse` are given.

    >>> from fnflare import nn
    >>> tagger = nn.Recurrent(nn.LSTMCell(5), bidirectional=True)
    >>> tagger.init(random.key(0), (-1, -1, 3))[0]
    (-1, -1, 10)
    """
    return _recurrent("Recurrent", cell, None, bidirectional=bidirectional, last=last, reverse=reverse)


def RNN(
    units: int,
    *,
    bidirectional: bool = False,
    last: bool = False,
    reverse: bool = False,
    activation: Callable[[Any], Any] = np.tanh,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
) -> Layer:
    """The simple recurrent layer: `Recurrent` over an `RNNCell`, whose settings and parameters it has.

    >>> RNN(5, last=True).init(random.key(0), (-1, -1, 3))[0]
    (-1, 5)
    """
    cell = RNNCell(units, activation=activation, W_init=W_init, U_init=U_init, b_init=b_init)
    return _recurrent("RNN", cell, _gated_flops(1, 3), bidirectional=bidirectional, last=last, reverse=reverse)


def LSTM(
    units: int,
    *,
    bidirectional: bool = False,
    last: bool = False,
    reverse: bool = False,
    forget_bias: float = 1.0,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
) -> Layer:
    """The LSTM layer: `Recurrent` over an `LSTMCell`, whose settings and parameters it has.

    >>> shape, params = LSTM(5, bidirectional=True, last=True).init(random.key(0), (-1, -1, 3))
    >>> shape, sorted(params), params["forward"]["W"].shape
    ((-1, 10), ['backward', 'forward'], (3, 20))
    """
    cell = LSTMCell(units, forget_bias=forget_bias, W_init=W_init, U_init=U_init, b_init=b_init)
    return _recurrent("LSTM", cell, _gated_flops(4, 17), bidirectional=bidirectional, last=last, reverse=reverse)


def GRU(
    units: int,
    *,
    bidirectional: bool = False,
    last: bool = False,
    reverse: bool = False,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
) -> Layer:
    """The GRU layer: `Recurrent` over a `GRUCell`, whose settings and parameters it has.

    >>> GRU(5).init(random.key(0), (-1, -1, 3))[0]
    (-1, -1, 5)
    """
    cell = GRUCell(units, W_init=W_init, U_init=U_init, b_init=b_init)
    return _recurrent("GRU", cell, _gated_flops(3, 14), bidirectional=bidirectional, last=last, reverse=reverse)


def _gated_flops(gates: int, others: int) -> Flops:
    """The operations of a step: two products for the gates, and `others` elementwise ones a unit."""

    def flops(shape: Shape, out: Shape, params: Any) -> int:
        passes = [params] if "U" in params else list(params.values())
        units = passes[0]["U"].shape[0]
        step = 2 * (shape[-1] + units) * gates * units + others * units
        return len(passes) * step * units_of((*shape[:2], 1))

    return flops


def _recurrent(kind: str, cell: Any, flops: Flops | None, *, bidirectional: bool, last: bool, reverse: bool) -> Layer:
    if not isinstance(cell, Cell) or not all(map(callable, cell)):
        raise ArgumentError(f"{kind}: expected a cell, nn.Cell(init, apply, initial, project), got {cell!r}")
    if bidirectional and reverse:
        raise ArgumentError(f"{kind}: bidirectional=True runs a pass backwards already; leave out reverse=True")

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        features = known_features(kind, input_shape, 3, "(N, T, features)")
        if not bidirectional:
            units, params = cell.init(key, features)
        else:
            keys = random.split(key) if key is not None else (None, None)
            (units, forward), (_, backward) = cell.init(keys[0], features), cell.init(keys[1], features)
            units, params = 2 * units, {"forward": forward, "backward": backward}
        return ((input_shape[0], units) if last else (*input_shape[:2], units)), params

    def apply(
        params: Any,
        inputs: Any,
        *,
        key: Any = None,
        train: bool = False,
        initial_state: Any = None,
        return_state: bool = False,
    ) -> Any:
        batch = _Batch(kind, inputs)
        if not bidirectional:
            outputs, state = _sweep(cell, params, batch, initial_state, reverse, last)
        else:
            starts = _both(kind, initial_state)
            ahead, state_ahead = _sweep(cell, params["forward"], batch, starts["forward"], False, last)
            back, state_back = _sweep(cell, params["backward"], batch, starts["backward"], True, last)
            outputs = np.concatenate([ahead, back], axis=-1)
            state = {"forward": state_ahead, "backward": state_back}
        if not last:
            outputs = batch.padded(outputs)
        return (outputs, state) if return_state else outputs

    return layer(kind, init, apply, flops)


def _both(kind: str, initial_state: Any) -> Any:
    if initial_state is None:
        return {"forward": None, "backward": None}
    if isinstance(initial_state, dict) and sorted(initial_state) == ["backward", "forward"]:
        return initial_state
    raise TreeError(
        f"{scoping.where()}{kind}: the initial_state of a bidirectional layer is a dict with keys 'forward' and "
        f"'backward', got {type(initial_state).__name__}"
    )


class _Batch:
    """Sequences as the loop over time wants them: time first, and for each step who is still running."""

    def __init__(self, kind: str, inputs: Any) -> None:
        values = inputs.values if type(inputs) is Padded else inputs
        shape: Any = getattr(values, "shape", ())
        if len(shape) != 3 or shape[1] == 0:
            raise mismatch(kind, "(N, T, features) with T of at least 1", values)
        self.kind = kind
        self.size, self.steps = shape[:2]
        # The inputs of one step lie side by side, and so does what is projected from them.
        self.values = np.swapaxes(values, 0, 1)
        self.inputs = inputs
        self.mask: Any = None
        self.shortest = self.steps
        if type(inputs) is Padded:
            # Lengths that have no value yet, under a transform that knows shapes alone, may be anything.
            lengths = inputs.lengths
            self.shortest = 0 if is_tracer(lengths) else int(np.min(lengths, initial=self.steps))
            if self.shortest < self.steps:
                self.mask = inputs.mask()
                self.running = np.swapaxes(self.mask, 0, 1)[:, :, None]

    def padded(self, outputs: Any) -> Any:
        """Outputs at all steps, with zeros past the end of each sequence."""
        if type(self.inputs) is not Padded:
            return outputs
        if self.mask is not None:
            outputs = np.where(self.mask[:, :, None], outputs, np.zeros((), outputs.dtype))
        return Padded(outputs, self.inputs.lengths)


def _sweep(cell: Cell, params: Any, batch: _Batch, carry: Any, reverse: bool, last: bool) -> tuple[Any, Any]:
    """One pass over time: the outputs, (N, T, units) or the last ones, (N, units), and the final carry."""
    projected = cell.project(params, batch.values)
    first = cell.initial(params, batch.size)
    carry = first if carry is None else _checked_carry(batch.kind, carry, first)
    outputs: list[Any] = []
    y: Any = None
    for t in range(batch.steps - 1, -1, -1) if reverse else range(batch.steps):
        new, out = cell.apply(params, carry, projected[t])
        if t >= batch.shortest:
            new, out = _hold(batch.running[t], new, out, carry, y)
        carry, y = new, out
        outputs.append(y)
    if last:
        return y, carry
    if reverse:
        outputs.reverse()
    return np.stack(outputs, axis=1), carry


def _checked_carry(kind: str, given: Any, wanted: Any) -> Any:
    """An initial carry as it was given, if it has the structure and shapes of the cell's own."""
    shapes, wanted_shapes = tree.map(np.shape, given), tree.map(np.shape, wanted)
    if shapes != wanted_shapes:
        raise ShapeError(f"{scoping.where()}{kind} expected an initial_state of shapes {wanted_shapes}, got {shapes}")
    return given


def _hold(running: Any, new: Any, out: Any, old: Any, before: Any) -> tuple[Any, Any]:
    """The new carry and outputs of the sequences that are running, the old ones of those that are not.

    What a cell both hands on and gives out, as most do with their state, is chosen once.
    """
    chosen: dict[tuple[int, int], Any] = {}

    def choose(n: Any, o: Any) -> Any:
        pair = id(n), id(o)
        if pair not in chosen:
            where = np.reshape(running, (-1, *(1,) * (n.ndim - 1)))
            chosen[pair] = np.where(where, n, o)
        return chosen[pair]

    carry = tree.map(choose, new, old)
    return carry, choose(out, np.zeros(out.shape, out.dtype) if before is None else before)
