"""`profile`: where the time of a function goes, by operation, by line and by layer.

A function runs once in the sight of an observer, which adds up the calls, times, operations and bytes of each
primitive at each place; a `Profile` of these sums comes out, with the function's answer. It prints as tables and
shows itself in a notebook as a bar chart.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from fnflare import tree
from fnflare.core import Source, aval_of, cell_name, observing, overhead, run_observed
from fnflare.core.observe import Call
from fnflare.errors import ArgumentError
from fnflare.transforms._call import copy_name, name_of
from fnflare.transforms._mode import is_disabled
from fnflare.transforms._report import Bar, bar_chart, html_table, show_bytes, show_count, show_seconds, text_table
from fnflare.transforms.jit import Jitted

__all__ = ["LayerCost", "LineCost", "OpCost", "Profile", "profile"]


class OpCost(NamedTuple):
    """What an operation cost in one phase.

    Attributes:
        op: the name of the primitive.
        phase: "forward" or "backward".
        calls: how often its kernel ran.
        seconds: in its kernel.
        flops: floating-point operations; None where the primitive does not tell.
        nbytes: bytes read and written.
    """

    op: str
    phase: str
    calls: int
    seconds: float
    flops: int | None
    nbytes: int


class LineCost(NamedTuple):
    """What the operations of a line of the user's cost in one phase; backward are those of their derivatives.

    Attributes:
        file: the name of the file; empty for operations that no line of the user's stands behind.
        line: its number.
        text: its text, where the source is at hand.
        phase: "forward" or "backward".
        calls, seconds, flops, nbytes: as in `OpCost`, of all operations together.
    """

    file: str
    line: int
    text: str
    phase: str
    calls: int
    seconds: float
    flops: int | None
    nbytes: int


class LayerCost(NamedTuple):
    """What the operations of a layer, apart from those of layers within it, cost in one phase.

    Attributes:
        layer: its path, such as ``"encoder/lstm"``; empty outside of all named layers.
        phase: "forward" or "backward".
        calls, seconds, flops, nbytes: as in `OpCost`, of all operations together.
    """

    layer: str
    phase: str
    calls: int
    seconds: float
    flops: int | None
    nbytes: int


class _Sum(NamedTuple):
    calls: int = 0
    seconds: float = 0.0
    flops: int | None = None
    nbytes: int = 0

    def plus(self, other: _Sum) -> _Sum:
        known = [f for f in (self.flops, other.flops) if f is not None]
        return _Sum(
            self.calls + other.calls,
            self.seconds + other.seconds,
            sum(known) if known else None,
            self.nbytes + other.nbytes,
        )


#: The primitive and the place of a sum.
_Key = tuple[str, Source | None]


class _Ledger:
    """Adds up the calls that it is shown."""

    def __init__(self) -> None:
        self.sums: dict[_Key, _Sum] = {}

    def see(self, call: Call) -> None:
        key = (call.prim.name, call.source)
        entry = _Sum(1, call.seconds, _flops(call), _traffic(call))
        self.sums[key] = self.sums[key].plus(entry) if key in self.sums else entry


def _flops(call: Call) -> int | None:
    rule = call.prim.flops
    if rule is None:
        return None
    ans = tuple(map(aval_of, call.ans)) if call.prim.many else aval_of(call.ans)
    return int(rule(ans, *map(aval_of, call.args), **call.params))


def _traffic(call: Call) -> int:
    """The bytes that a call reads and writes: all of its arguments and its answer; none where the answer is a view,
    and of an array that is read in part, that part."""
    arrays = [a for a in call.args if isinstance(a, (np.ndarray, np.generic))]
    answers = [a for a in (call.ans if call.prim.many else (call.ans,)) if isinstance(a, (np.ndarray, np.generic))]
    if any(np.may_share_memory(a, x) for a in answers for x in arrays):
        return 0
    written = sum(a.nbytes for a in answers)
    return 2 * written if call.prim.name == "getitem" else written + sum(x.nbytes for x in arrays)


class Profile:
    """What a run of a function cost; prints as tables.

    Attributes:
        name: of the function.
        out: what it returned.
        seconds: of the whole run, without the time that observing it took.
        outside: of these, the seconds outside of all operations: Python's own, tracing, and plain NumPy on
            arrays that were not arguments.
        calls, flops, nbytes: the sums over all operations; `flops` over those that tell.
        peak_bytes: of a jitted function the memory that a call of it as native code needs beside its arguments, for
            its answer and all that it stores on the way; None of other functions, and where it is not native.
    """

    def __init__(
        self, name: str, out: Any, seconds: float, sums: dict[_Key, _Sum], peak_bytes: int | None = None
    ) -> None:
        self.name = name
        self.out = out
        self.peak_bytes = peak_bytes
        self._sums = sums
        total = _Sum()
        for entry in sums.values():
            total = total.plus(entry)
        self.calls, in_ops, flops, self.nbytes = total
        self.flops = flops or 0
        self.seconds = max(seconds, in_ops)  # two clocks may differ in the last digit
        self.outside = self.seconds - in_ops

    def by_op(self) -> list[OpCost]:
        """The cost of each operation, forward and backward apart, the longest first."""
        return [OpCost(*row) for row in self._grouped(lambda op, source: (op, _phase(source)))]

    def by_line(self) -> list[LineCost]:
        """The cost of each line of the user's, forward and backward apart, the longest first."""

        def place(_op: str, source: Source | None) -> tuple[str, int, str, str]:
            return ("", 0, "", "forward") if source is None else (source.file, source.line, source.text, source.phase)

        return [LineCost(*row) for row in self._grouped(place)]

    def by_layer(self) -> list[LayerCost]:
        """The cost of each layer, forward and backward apart, the longest first."""

        def layer(_op: str, source: Source | None) -> tuple[str, str]:
            return ("" if source is None else tree.path_str(source.path), _phase(source))

        return [LayerCost(*row) for row in self._grouped(layer)]

    def _grouped(self, group: Callable[[str, Source | None], tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        groups: dict[tuple[Any, ...], _Sum] = {}
        for (op, source), entry in self._sums.items():
            key = group(op, source)
            groups[key] = groups[key].plus(entry) if key in groups else entry
        longest = sorted(groups.items(), key=lambda item: -item[1].seconds)
        return [(*key, *entry) for key, entry in longest]

    # -- how it is shown --------------------------------------------------------------------------

    def _headline(self) -> str:
        peak = "" if self.peak_bytes is None else f", peak memory {show_bytes(self.peak_bytes)} as native code"
        return (
            f"profile of {self.name}: {show_seconds(self.seconds)}, {self.calls:,} operations, "
            f"{show_count(self.flops)} FLOP, {show_bytes(self.nbytes)} read and written{peak}"
        )

    def _tables(self, limit: int) -> list[tuple[list[str], list[list[str]], int]]:
        """The header, the rows and the number of columns of text of each table."""
        ops = [([c.op, c.phase], _Sum(*c[2:])) for c in self.by_op()]
        lines = [([_place(c), c.text[:60], c.phase], _Sum(*c[4:])) for c in self.by_line()]
        layers = [([c.layer or "(no layer)", c.phase], _Sum(*c[2:])) for c in self.by_layer()]
        tables = [(["operation", "phase"], ops), (["line", "source", "phase"], lines)]
        if any(name[0] != "(no layer)" for name, _ in layers):
            tables.append((["layer", "phase"], layers))
        return [([*names, *_NUMBERS], self._cells(rows, len(names), limit), len(names)) for names, rows in tables]

    def _cells(self, rows: list[tuple[list[str], _Sum]], names: int, limit: int) -> list[list[str]]:
        blank = [""] * (names - 1)
        cells = [[*name, *self._numbers(entry)] for name, entry in rows[:limit]]
        if len(rows) > limit:
            rest = _Sum()
            for _, entry in rows[limit:]:
                rest = rest.plus(entry)
            cells.append([f"({len(rows) - limit} more)", *blank, *self._numbers(rest)])
        cells.append(["(outside of operations)", *blank, *self._numbers(_Sum(0, self.outside))])
        total = _Sum(self.calls, self.seconds, self.flops, self.nbytes)
        return [*cells, ["total", *blank, *self._numbers(total)]]

    def _numbers(self, entry: _Sum) -> list[str]:
        calls, seconds, flops, nbytes = entry
        return [
            f"{calls:,}" if calls else "",
            show_seconds(seconds),
            f"{100 * seconds / self.seconds:.1f} %" if self.seconds else "",
            "" if flops is None else show_count(flops),
            show_bytes(nbytes) if nbytes else "",
            f"{flops / seconds / 1e9:.3g}" if flops and seconds else "",
            f"{nbytes / seconds / 1e9:.3g}" if nbytes and seconds else "",
        ]

    def _hint(self) -> str:
        return "" if self.calls else "No operation was seen: pass the arrays as arguments of the function.\n"

    def __str__(self) -> str:
        tables = ["\n".join(text_table(*table)) for table in self._tables(limit=20)]
        return f"{self._headline()}\n{self._hint()}\n" + "\n\n".join(tables)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        tables = "".join(html_table(*table) for table in self._tables(limit=20))
        return f"<p>{html.escape(self._headline())}</p><p>{self._hint()}</p>{bar_chart(self._bars())}{tables}"

    def _bars(self, limit: int = 12) -> list[Bar]:
        """The longest operations, forward and backward parts one after another, and the time outside."""
        parts: dict[str, dict[str, float]] = {}
        for cost in self.by_op():
            parts.setdefault(cost.op, {})[cost.phase] = cost.seconds
        ops = sorted(parts.items(), key=lambda item: -sum(item[1].values()))
        phases = ["forward", "backward"]
        bars = [(op, {p: times[p] for p in phases if p in times}) for op, times in ops[:limit]]
        if len(ops) > limit:
            rest = {p: sum([times.get(p, 0.0) for _, times in ops[limit:]]) for p in phases}
            bars.append((f"({len(ops) - limit} more)", rest))
        bars.append(("(outside of operations)", {"outside": self.outside}))
        return [Bar(name, show_seconds(sum(times.values())), times) for name, times in bars]


_NUMBERS = ["calls", "time", "share", "FLOP", "bytes", "GFLOP/s", "GB/s"]


def _phase(source: Source | None) -> str:
    return "forward" if source is None else source.phase


def _place(cost: LineCost) -> str:
    """The line as a table names it: its file as seen from the working directory, or the cell of a notebook."""
    if not cost.file:
        return "(no line)"
    path = Path(cost.file)
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name
    return f"{cell_name(cost.file) or shown}:{cost.line}"


def profile(fun: Callable[..., Any], *, repeat: int = 1) -> Callable[..., Profile]:
    """A function that runs `fun` and says where its time went.

    Time, calls, floating-point operations and bytes are told by operation, by line and by layer, forward and
    backward apart; what runs backward belongs to the line and the layer whose derivative it is. The floating
    arrays among the arguments show their operations wherever they go, through any transform; an operation on plain
    arrays alone, which `fun` takes from elsewhere, is NumPy's own business and counts as time outside of
    operations. Only the thread that calls is looked at.

    The operations of a jitted function are shown one by one, as the interpreter runs them. Where it runs as native
    code otherwise, the peak memory of that is told beside.

    Showing an operation costs some microseconds in Python, which are left out of the times as far as they can be
    told apart: the share outside of operations is an upper bound.

    Args:
        fun: a function of pytrees, such as ``value_and_grad(loss)`` or a whole step of training.
        repeat: how many times to run it; the fastest run is told of.

    Returns:
        A function with the arguments of `fun` that returns a `Profile`: print it, look at it in a notebook, or read
        its ``by_op()``, ``by_line()``, ``by_layer()`` and ``out``, the answer of `fun`.

    Raises:
        ArgumentError: `repeat` is less than 1.

    >>> report = ff.profile(ff.grad(lambda w, x: np.sum(np.tanh(x @ w))))(np.zeros((3, 2)), np.ones((4, 3)))
    >>> report.out.shape
    (3, 2)
    >>> sorted((c.op, c.phase, c.calls, c.flops) for c in report.by_op() if c.op == "matmul")
    [('matmul', 'backward', 1, 48), ('matmul', 'forward', 1, 48)]

    The memory that a jitted function needs, for its answer alone if it stores nothing on the way:

    >>> report = ff.profile(ff.jit(lambda x: np.tanh(x) * 2))(np.ones(1000))
    >>> report.peak_bytes in (8000, None)  # None without native code
    True
    """
    if repeat < 1:
        raise ArgumentError(f"profile: repeat must be at least 1, got {repeat}")

    def run(*args: Any, **kwargs: Any) -> Profile:
        best = _once(fun, args, kwargs)
        for _ in range(repeat - 1):
            best = min(best, _once(fun, args, kwargs), key=lambda p: p.seconds)
        return best

    return copy_name(fun, run, "profile")


def _once(fun: Callable[..., Any], args: Any, kwargs: Any) -> Profile:
    ledger = _Ledger()
    with observing(ledger.see):
        spent = overhead()
        start = perf_counter()
        out = run_observed(fun, *args, **kwargs)
        seconds = perf_counter() - start - (overhead() - spent)
    peak = fun.peak_bytes(*args, **kwargs) if isinstance(fun, Jitted) and not is_disabled() else None
    return Profile(name_of(fun), out, seconds, ledger.sums, peak)
