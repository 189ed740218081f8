"""The summary of a model: a table of its layers with their shapes, parameters and costs."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

from fnflare import random, tree
from fnflare.errors import ArgumentError
from fnflare.nn import scoping
from fnflare.nn.combinators import check_layer
from fnflare.nn.layer import Layer
from fnflare.nn.state import StatefulLayer, with_state
from fnflare.tree import path_str

__all__ = ["Recorder", "Row", "Summary", "summary"]


class Row(NamedTuple):
    """One layer of a `Summary`.

    Attributes:
        path: where it is in the model, such as ``"encoder/lstm"``.
        kind: what it is, such as ``"LSTM"``.
        output_shape: of its outputs; -1 for a free dimension, a tuple of shapes for several outputs.
        params: how many numbers its parameters hold.
        nbytes: the bytes that they take.
        flops: floating-point operations; None where it does not tell.
    """

    path: str
    kind: str
    output_shape: Any
    params: int
    nbytes: int
    flops: int | None


class Recorder:
    """Takes note of the layers whose `init` runs, in order."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, kind: str, output_shape: Any, params: Any, flops: int | None) -> None:
        """Note that the layer that is running is of this kind and has these parameters."""
        self.rows.append(Row(scoping.path(), kind, output_shape, *_size(params), flops))

    def leave_out(self, first: int, path: tuple[str, ...], params: Any) -> None:
        """Take parameters at a path, which belong to another layer, off the layer that is there or around it.

        Args:
            first: the number of the row from which on to look.
            path: where the parameters are.
            params: the parameters.
        """
        for leaf_path, leaf in tree.leaves_with_path(params):
            where = path_str((*path, *leaf_path))
            owners = [i for i in range(first, len(self.rows)) if _is_below(where, self.rows[i].path)]
            if owners:
                i = max(owners, key=lambda i: len(self.rows[i].path))
                row = self.rows[i]
                self.rows[i] = row._replace(params=row.params - int(leaf.size), nbytes=row.nbytes - int(leaf.nbytes))


def _is_below(path: str, other: str) -> bool:
    return not other or path == other or path.startswith(other + "/")


def _size(params: Any) -> tuple[int, int]:
    leaves = tree.leaves(params)
    return sum(int(p.size) for p in leaves), sum(int(p.nbytes) for p in leaves)


class Summary:
    """The layers of a model; prints as a table.

    Attributes:
        rows: the layers, in the order in which they run.
        output_shape: of the model.
        params: how many numbers all parameters hold.
        nbytes: the bytes that they take.
        state: how many numbers the state of a stateful model holds.
        flops: the sum over all layers that tell.
    """

    def __init__(self, rows: Sequence[Row], output_shape: Any, params: Any, state: Any) -> None:
        self.rows = list(rows)
        self.output_shape = output_shape
        self.params, self.nbytes = _size(params)
        self.state = _size(state)[0]
        self.flops = sum(r.flops for r in self.rows if r.flops is not None)

    def cells(self) -> list[list[str]]:
        """The table as text: the header, a row for each layer, and the totals."""
        lines = [["path", "layer", "output shape", "params", "bytes", "FLOPs"]]
        for r in self.rows:
            flops = "?" if r.flops is None else f"{r.flops:,}"
            lines.append([r.path, r.kind, _show(r.output_shape), f"{r.params:,}", _bytes(r.nbytes), flops])
        unknown = " + ?" if any(r.flops is None for r in self.rows) else ""
        total = [f"{self.params:,}", _bytes(self.nbytes), f"{self.flops:,}{unknown}"]
        return [*lines, ["total", "", _show(self.output_shape), *total]]

    def __str__(self) -> str:
        lines = self.cells()
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        aligned = [
            "  ".join([c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))])
            for line in lines
        ]
        rule = "-" * len(aligned[0])
        table = [aligned[0], rule, *aligned[1:-1], rule, aligned[-1]]
        if self.state:
            table.append(f"state: {self.state:,} numbers beside the parameters")
        return "\n".join(line.rstrip() for line in table)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = [[html.escape(c) for c in line] for line in self.cells()]
        rows = "".join(f"<tr>{''.join(f'<td>{c}</td>' for c in line)}</tr>" for line in body)
        state = f"<p>state: {self.state:,} numbers beside the parameters</p>" if self.state else ""
        return f"<table><tr>{''.join(f'<th>{c}</th>' for c in head)}</tr>{rows}</table>{state}"


def _show(shape: Any) -> str:
    return str(tuple([tuple(s) if isinstance(s, (tuple, list)) else int(s) for s in shape]))


def _bytes(n: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:,.0f} {unit}" if unit == "B" else f"{n:,.1f} {unit}"
        n /= 1024
    return f"{n:,.1f} GiB"


def summary(model: Layer | StatefulLayer, input_shape: Any, *, key: Any = None) -> Summary:
    """List the layers of a model: paths, output shapes, parameters, bytes and floating-point operations.

    The operations are those of one forward pass for one example: the batch is left out, and any other free
    dimension counts as 1, so that with inputs (-1, -1, 300) they are operations a time step. A
    product of an (m, k) with a (k, n) matrix counts 2 m n k; an addition, a multiplication, a
    comparison and a transcendental function of one element count 1 each. A layer of your own tells no
    count, unless it is made of layers that do; it is "?" then.

    Args:
        model: a layer, or what `with_state` returns.
        input_shape: the shape of the inputs, the batch first; -1 for free dimensions.
        key: what the parameters are drawn with, to see their sizes; some key by default.

    Returns:
        A `Summary`: print it, or read its ``rows``, ``params``, ``nbytes`` and ``flops``.

    Raises:
        ArgumentError: `model` is not a layer.
        ShapeError: the model does not take inputs of this shape.

    >>> from fnflare import nn
    >>> print(nn.summary(nn.serial(hidden=nn.Dense(128), act=nn.Relu, out=nn.Dense(10)), (-1, 784)))
    path    layer  output shape   params      bytes    FLOPs
    --------------------------------------------------------
    hidden  Dense  (-1, 128)     100,480  392.5 KiB  200,832
    act     Relu   (-1, 128)           0        0 B      128
    out     Dense  (-1, 10)        1,290    5.0 KiB    2,570
    --------------------------------------------------------
    total          (-1, 10)      101,770  397.5 KiB  203,530
    """
    if not isinstance(model, StatefulLayer):
        model = with_state(check_layer(model, "summary"))
    if not isinstance(input_shape, (tuple, list)):
        raise ArgumentError(f"summary: expected the input shape as a tuple, such as (-1, 784), got {input_shape!r}")
    recorder = Recorder()
    with scoping.substituted(recorder=recorder):
        output_shape, params, state = model.init(random.key(0) if key is None else key, input_shape)
    if not recorder.rows:  # the model is a single pair of the user's own
        recorder.add("Layer", output_shape, params, None)
    return Summary(recorder.rows, output_shape, params, state)
