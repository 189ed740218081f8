"""Recurrent layers: a cell run over a batch of sequences, forwards, backwards or both.

A batch goes in, time is laid out first, the cell is the body of a scan, and outputs at all steps or the last ones
come out. Sequences of unequal length come as a `Padded` batch and give, each of them, what they give alone: the loop
does of that only what has to happen in it, the rest is done on its outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fnflare import random, tree
from fnflare.core import is_tracer
from fnflare.errors import ArgumentError, ShapeError, TreeError
from fnflare.nn import scoping
from fnflare.nn.cells import GLOROT, ORTHOGONAL, Cell, GRUCell, LSTMCell, RNNCell
from fnflare.nn.initializers import Initializer, zeros
from fnflare.nn.layer import Layer, Shape, fraction, known_features, layer, mismatch, positive_int, units_of
from fnflare.nn.stack import stack
from fnflare.padded import Padded
from fnflare.transforms.loops import recurrence

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]


def Recurrent(
    cell: Cell,
    *,
    bidirectional: bool = False,
    last: bool = False,
    reverse: bool = False,
    num_layers: int = 1,
    dropout: float = 0.0,
    residual: bool = False,
) -> Layer:
    """A layer that runs a cell over time, or a stack of such layers.

    Inputs (N, T, features), or a `Padded` batch of such values, whose lengths are honoured: every sequence
    gives what it gives alone, and outputs past its end are zero. The outputs are the cell's at all steps,
    (N, T, units), as `Padded` as the inputs; or with `last` those after the last word that was read,
    (N, units). The parameters are the cell's; of a bidirectional layer ``{"forward": ..., "backward": ...}``,
    two passes with parameters of their own, whose outputs are concatenated to (..., 2 units).

    ``apply`` takes two more keywords: ``initial_state=``, the carry to begin with, and ``return_state=True``, to
    get ``(outputs, carry)`` with the carry after the last word that was read; of a bidirectional layer both
    are ``{"forward": carry, "backward": carry}``, and of a stack a tuple of each layer's.

    With ``num_layers`` of more than 1 each layer reads the outputs of the one before, all have the same settings,
    and the parameters are a tuple of each layer's.

    Args:
        cell: the cell; see `Cell` to write one.
        bidirectional: whether a pass from the end to the start runs as well (Schuster & Paliwal 1997).
        last: whether only the outputs after the last word that is read are wanted.
        reverse: whether the pass runs from the end to the start; outputs still stand at their own steps.
        num_layers: how many layers are stacked.
        dropout: the fraction of the outputs of all layers but the last that is dropped in training, drawn anew at
            each step; ``apply`` wants a key then (Zaremba et al. 2014).
        residual: whether each layer adds its inputs to its outputs; they must be as many (Wu et al. 2016). To get as
            many put ``nn.Dense(units)`` before, or a layer without.

    Raises:
        ArgumentError: the cell is not a `Cell`, both `bidirectional` and `reverse` are given, or a setting is out of
            range.

    >>> from fnflare import nn
    >>> tagger = nn.Recurrent(nn.LSTMCell(5), bidirectional=True)
    >>> tagger.init(ff.random.key(0), (-1, -1, 3))[0]
    (-1, -1, 10)
    """
    run = _Run(bidirectional, last, reverse, num_layers, dropout, residual)
    return _recurrent("Recurrent", cell, None, run)


def RNN(
    units: int,
    *,
    bidirectional: bool = False,
    last: bool = False,
    reverse: bool = False,
    num_layers: int = 1,
    dropout: float = 0.0,
    residual: bool = False,
    activation: Callable[[Any], Any] = np.tanh,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
) -> Layer:
    """The simple recurrent layer: `Recurrent` over an `RNNCell`, whose settings and parameters it has.

    >>> ff.nn.RNN(5, last=True).init(ff.random.key(0), (-1, -1, 3))[0]
    (-1, 5)
    """
    cell = RNNCell(units, activation=activation, W_init=W_init, U_init=U_init, b_init=b_init)
    run = _Run(bidirectional, last, reverse, num_layers, dropout, residual)
    return _recurrent("RNN", cell, _Gated(1, 3, bounded=activation is np.tanh), run)


def LSTM(
    units: int,
    *,
    bidirectional: bool = False,
    last: bool = False,
    reverse: bool = False,
    num_layers: int = 1,
    dropout: float = 0.0,
    residual: bool = False,
    forget_bias: float = 1.0,
    proj_size: int | None = None,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
    P_init: Initializer = GLOROT,
) -> Layer:
    """The LSTM layer: `Recurrent` over an `LSTMCell`, whose settings and parameters it has.

    >>> shape, params = ff.nn.LSTM(5, bidirectional=True, last=True).init(ff.random.key(0), (-1, -1, 3))
    >>> shape, sorted(params), params["forward"]["W"].shape
    ((-1, 10), ['backward', 'forward'], (3, 20))
    """
    cell = LSTMCell(
        units,
        forget_bias=forget_bias,
        proj_size=proj_size,
        W_init=W_init,
        U_init=U_init,
        b_init=b_init,
        P_init=P_init,
    )
    run = _Run(bidirectional, last, reverse, num_layers, dropout, residual)
    return _recurrent("LSTM", cell, _Gated(4, 17, bounded=True), run)


def GRU(
    units: int,
    *,
    bidirectional: bool = False,
    last: bool = False,
    reverse: bool = False,
    num_layers: int = 1,
    dropout: float = 0.0,
    residual: bool = False,
    reset_after: bool = True,
    W_init: Initializer = GLOROT,
    U_init: Initializer = ORTHOGONAL,
    b_init: Initializer = zeros,
) -> Layer:
    """The GRU layer: `Recurrent` over a `GRUCell`, whose settings and parameters it has.

    >>> ff.nn.GRU(5).init(ff.random.key(0), (-1, -1, 3))[0]
    (-1, -1, 5)
    """
    cell = GRUCell(units, reset_after=reset_after, W_init=W_init, U_init=U_init, b_init=b_init)
    run = _Run(bidirectional, last, reverse, num_layers, dropout, residual)
    return _recurrent("GRU", cell, _Gated(3, 14, bounded=True), run)


class _Run(NamedTuple):
    """How a layer runs its cell: the settings that all recurrent layers have."""

    bidirectional: bool
    last: bool
    reverse: bool
    num_layers: int
    dropout: float
    residual: bool

    def check(self, kind: str) -> None:
        """Raise an error for settings that do not go together."""
        if self.bidirectional and self.reverse:
            raise ArgumentError(f"{kind}: bidirectional=True runs a pass backwards already; leave out reverse=True")
        positive_int(kind, "num_layers", self.num_layers)
        if fraction(kind, "dropout", self.dropout) and self.num_layers == 1:
            raise ArgumentError(f"{kind}: dropout is between layers, of which there is one; put nn.Dropout after it")


class _Gated(NamedTuple):
    """What the layers of this package know of their cells: the gates whose products lie side by side, how many
    elementwise operations a unit takes in a step besides, and whether the carry stays small whatever the inputs."""

    gates: int
    others: int
    bounded: bool

    def flops(self, shape: Shape, out: Shape, params: Any) -> int:
        """The operations of all steps: two products for the gates, and the elementwise ones."""
        passes = _passes(params)
        state, columns = passes[0]["U"].shape
        units = columns // self.gates
        step = 2 * (shape[-1] + state) * columns + self.others * units
        if "P" in passes[0]:
            step += 2 * units * state
        return len(passes) * step * units_of((*shape[:2], 1))


def _passes(params: Any) -> list[Any]:
    return [params] if "U" in params else list(params.values())


def _recurrent(kind: str, cell: Any, gated: _Gated | None, run: _Run) -> Layer:
    if not isinstance(cell, Cell) or not all(map(callable, cell)):
        raise ArgumentError(f"{kind}: expected a cell, nn.Cell(init, apply, initial), got {cell!r}")
    run.check(kind)
    if run.num_layers == 1:
        return _single(kind, cell, gated, run)
    inner, top = _single(kind, cell, gated, run._replace(last=False)), _single(kind, cell, gated, run)
    return stack(kind, [inner] * (run.num_layers - 1) + [top], run.dropout)


def _single(kind: str, cell: Cell, gated: _Gated | None, settings: _Run) -> Layer:
    """One layer, whose passes are those of the cell forwards, backwards or both."""
    bidirectional, last, reverse, *_, residual = settings
    steps = {True: cell.apply, False: cell.apply}
    if residual:
        # What a pass backwards gives stands behind what that forwards gives, and gets the inputs behind.
        steps = {False: _adding(cell.apply, False), True: _adding(cell.apply, bidirectional)}
    bounded = gated is not None and gated.bounded

    def init(key: Any, input_shape: Shape) -> tuple[Shape, Any]:
        features = known_features(kind, input_shape, 3, "(N, T, features)")
        if not bidirectional:
            units, params = cell.init(key, features)
        else:
            keys = random.split(key) if key is not None else (None, None)
            (units, forward), (_, backward) = cell.init(keys[0], features), cell.init(keys[1], features)
            units, params = 2 * units, {"forward": forward, "backward": backward}
        if residual and units != features:
            raise ShapeError(
                f"{scoping.where()}{kind}: with residual=True the outputs, {units} features, have to be as many as the "
                f"inputs, {features}; put nn.Dense({units}) before it"
            )
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
        if gated is not None:
            features = _passes(params)[0]["W"].shape[0]
            if features != batch.values.shape[2]:
                raise mismatch(kind, f"(N, T, {features})", batch.given)

        def run(params: Any, start: Any, reverse: bool) -> tuple[Any, Any]:
            first = cell.initial(params, batch.size)
            start = first if start is None else _checked_carry(kind, start, first)
            # A pass forwards may run on over the padding, if nobody wants its carry at a sequence's own end.
            runs_on = batch.running is None or (bounded and not reverse and not return_state)
            holds = return_state and not reverse
            apply = steps[reverse]
            step = _step(apply, params) if runs_on else _pausing_step(apply, params, start, holds)
            return _pass(kind, batch, step, start, runs_on, reverse, last)

        if not bidirectional:
            outputs, state = run(params, initial_state, reverse)
        else:
            starts = _both(kind, initial_state)
            ahead, state_ahead = run(params["forward"], starts["forward"], False)
            back, state_back = run(params["backward"], starts["backward"], True)
            outputs = np.concatenate([ahead, back], axis=-1)
            state = {"forward": state_ahead, "backward": state_back}
        outputs = batch.last(outputs) if last else batch.all(outputs)
        return (outputs, state) if return_state else outputs

    return layer(kind, init, apply, None if gated is None else gated.flops)


def _adding(apply: Any, behind: bool) -> Any:
    """The step of a cell that adds its inputs to its outputs: the first of them, or the last."""

    def step(params: Any, carry: Any, inputs: Any) -> tuple[Any, Any]:
        carry, outputs = apply(params, carry, inputs)
        units = outputs.shape[-1]
        return carry, outputs + (inputs[:, -units:] if behind else inputs[:, :units])

    return step


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
    """Sequences as the loop over time wants them.

    Attributes:
        given: the values as they came, (N, T, features).
        values: time first, (steps, N, features), up to the end of the longest sequence.
        size: the number of sequences.
        running: (steps, N), which sequences have not ended; None where none ends before the others.
        ends: (N,), the step of each sequence's last word; None where that is the last step of all.
    """

    def __init__(self, kind: str, inputs: Any) -> None:
        padded = type(inputs) is Padded
        self.given = inputs.values if padded else inputs
        shape: Any = getattr(self.given, "shape", ())
        if len(shape) != 3 or shape[1] == 0:
            raise mismatch(kind, "(N, T, features) with T of at least 1", self.given)
        self.size, self.steps = shape[:2]
        lengths: Any = inputs.lengths if padded else None
        self.lengths = lengths
        self.running: Any = None
        self.ends: Any = None
        self.shortest = longest = self.steps
        if padded and is_tracer(lengths):
            self.shortest = 0  # lengths that have no value yet may be anything
        elif padded:
            self.shortest = int(np.min(lengths, initial=longest))
            longest = min(max(int(np.max(lengths, initial=0)), 1), longest)
        # The inputs of one step lie side by side, and so does what is computed of them.
        self.values = np.swapaxes(self.given if longest == self.steps else self.given[:, :longest], 0, 1)
        if self.shortest < longest:
            self.running = np.arange(longest)[:, None] < np.reshape(lengths, (1, -1))
            self.ends = np.subtract(lengths, 1)  # of a sequence without words some other step, which `last` clears

    def all(self, outputs: Any) -> Any:
        """Outputs of a loop, (steps, N, units), as those of a layer, with zeros past the end of each sequence."""
        if self.running is not None:
            outputs = np.where(self.running[:, :, None], outputs, np.zeros((), outputs.dtype))
        missing = self.steps - outputs.shape[0]
        if missing:
            outputs = np.concatenate([outputs, np.zeros((missing, *outputs.shape[1:]), outputs.dtype)])
        outputs = np.swapaxes(outputs, 0, 1)
        return outputs if self.lengths is None else Padded(outputs, self.lengths)

    def last(self, outputs: Any) -> Any:
        """Outputs after the last word that was read, (N, units), with zeros for a sequence without words."""
        if self.lengths is None or self.shortest > 0:
            return outputs
        return np.where(np.reshape(self.lengths, (-1, 1)) > 0, outputs, np.zeros((), outputs.dtype))


def _pass(kind: str, batch: _Batch, step: Any, start: Any, runs_on: bool, reverse: bool, last: bool) -> tuple[Any, Any]:
    """One pass over time: the outputs, (steps, N, units) or the last ones, (N, units), and the final carry."""
    inputs = batch.values if runs_on else (batch.values, batch.running)
    at_own_end = last and not reverse and batch.running is not None
    state, outputs = recurrence(step, start, inputs, reverse=reverse, last=last and not at_own_end, what=kind)
    return outputs[batch.ends, np.arange(batch.size)] if at_own_end else outputs, state


def _step(apply: Any, params: Any) -> Any:
    """A step of all sequences."""

    def step(carry: Any, x: Any) -> Any:
        return apply(params, carry, x)

    return step


def _pausing_step(apply: Any, params: Any, start: Any, holds: bool) -> Any:
    """A step of the sequences that are running. One that is not holds its carry, or begins again at `start`: so does a
    pass backwards, which comes to the padding first, and a pass forwards whose carry nobody wants, since the gradient
    has less work with it."""

    def held(carry: Any, inputs: Any) -> Any:
        x, running = inputs
        new, outputs = apply(params, carry, x)
        return _chosen(running, new, outputs, carry)

    def begun(carry: Any, inputs: Any) -> Any:
        x, running = inputs
        new, outputs = apply(params, carry, x)
        return _chosen(running, new, outputs, start)

    return held if holds else begun


def _chosen(running: Any, new: Any, outputs: Any, old: Any) -> tuple[Any, Any]:
    """The new carry of the sequences that are running, the old one of those that are not; and the outputs, which nobody
    looks at where a sequence is not running, so that those that are part of the carry may stay part of it."""

    def choose(n: Any, o: Any) -> Any:
        if np.shape(n)[:1] != running.shape:
            raise ShapeError(
                f"{scoping.where()}the carry of a cell that runs over a Padded batch has the sequences along its first "
                f"axis; got {np.shape(n)} for {running.shape[0]} of them"
            )
        return np.where(np.reshape(running, (-1, *(1,) * (n.ndim - 1))), n, o)

    carry = tree.map(choose, new, old)
    same = [c for n, c in zip(tree.leaves(new), tree.leaves(carry), strict=True) if n is outputs]
    return carry, same[0] if same else outputs


def _checked_carry(kind: str, given: Any, wanted: Any) -> Any:
    """An initial carry as it was given, if it has the structure and shapes of the cell's own."""
    shapes, wanted_shapes = tree.map(np.shape, given), tree.map(np.shape, wanted)
    if shapes != wanted_shapes:
        raise ShapeError(f"{scoping.where()}{kind} expected an initial_state of shapes {wanted_shapes}, got {shapes}")
    return given
