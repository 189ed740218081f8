"""Random programs for Hypothesis: source text of smooth functions of a few arrays, with transforms nested in them.

A strategy goes out, `programs`, whose examples are `RandomProgram`s: text that can be pasted and run, and that is
what is run. Programs are well conditioned, so that finite differences make sense: all values stay of order one, and
what has kinks (comparisons, branches) is smooth but for a set of arguments that random ones miss.

The text is written statement by statement. Each statement takes some of the variables that are in scope, its own
function's or those of the functions around it, and gives a new one; of each variable the writer knows the shape and
a bound.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from hypothesis import strategies as st

__all__ = ["RandomProgram", "programs"]

Shape = tuple[int, ...]

#: Where a bound grows past this, the value goes through a tanh.
_LARGEST = 4.0
#: The sizes of axes. Integers are 0 or 1, and so are indices of any axis.
_SIZES = (2, 3)


@dataclass(frozen=True)
class RandomProgram:
    """A program: the text of a function `f`, and of its arguments.

    Attributes:
        source: the definition of `f`.
        shapes: of its floating arguments, which come first.
        integers: the number of integer arguments of shape (), which come after them.
        seed: of the arguments' values.
    """

    source: str
    shapes: tuple[Shape, ...]
    integers: int
    seed: int

    @cached_property
    def f(self) -> Callable[..., Any]:
        """The function, of `args`."""
        space: dict[str, Any] = {"np": np, "ff": sys.modules["fnflare"]}
        exec(self.source, space)  # noqa: S102 (text that was written here)
        return space["f"]

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments."""
        return self.draw(self.seed)

    def draw(self, seed: int) -> tuple[Any, ...]:
        """Other arguments, by another seed."""
        rng = np.random.default_rng(seed)
        return (
            *[np.asarray(rng.uniform(-1.5, 1.5, s))[()] for s in self.shapes],
            *[rng.integers(0, 2) for _ in range(self.integers)],
        )

    def __repr__(self) -> str:
        values = [f"np.asarray(rng.uniform(-1.5, 1.5, {s}))[()]" for s in self.shapes]
        values += ["rng.integers(0, 2)"] * self.integers
        lines = ["import numpy as np", "import fnflare as ff", "", self.source]
        lines += [f"rng = np.random.default_rng({self.seed})", f"args = ({', '.join(values)},)", "f(*args)"]
        return "\n" + "\n".join(lines) + "\n"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis would print the fields


@dataclass(frozen=True)
class _Value:
    """A variable: its name, shape, the largest magnitude it may have, and whether it is an integer."""

    name: str
    shape: Shape
    bound: float = 1.5
    is_integer: bool = False


@dataclass
class _Writer:
    """Writes a program.

    Attributes:
        draw: Hypothesis' draw.
        reverse: whether all of it must have a reverse mode, also where the values are not known.
        lines: what is written.
        scope: the variables that can be read, the newest last.
        depth: of nested functions.
        count: of names.
    """

    draw: Callable[[st.SearchStrategy[Any]], Any]
    reverse: bool
    lines: list[str] = field(default_factory=list)
    scope: list[_Value] = field(default_factory=list)
    depth: int = 0
    count: int = 0

    # -- drawing --------------------------------------------------------------------------------

    def of(self, options: Sequence[Any]) -> Any:
        """One of some options; the first is the simplest."""
        return self.draw(st.sampled_from(options)) if len(options) > 1 else options[0]

    def flag(self) -> bool:
        return self.draw(st.booleans())

    def array(self, fits: Callable[[_Value], bool] = lambda _: True) -> _Value | None:
        """A floating variable that fits, more often than not one of the two newest; None if there is none."""
        found = [v for v in reversed(self.scope) if not v.is_integer and fits(v)]
        if len(found) > 2 and self.flag():
            found = found[:2]
        return self.of(found) if found else None

    def some(self) -> _Value:
        """Any floating variable."""
        found = self.array()
        assert found is not None  # every function has a floating argument
        return found

    def ranked(self, rank: int) -> _Value | None:
        """A floating variable with at least so many axes."""
        return self.array(lambda v: len(v.shape) >= rank)

    def integer(self) -> str:
        """The text of an integer 0 or 1 of shape (), traced if there is a traced one."""
        found = [v.name for v in reversed(self.scope) if v.is_integer]
        return self.of([*found, f"np.argmax({self.some().name}) % 2"])

    def axis(self, v: _Value) -> int:
        return self.of([-1, *range(len(v.shape))])

    # -- writing --------------------------------------------------------------------------------

    def name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def write(self, text: str) -> None:
        self.lines.append("    " * (self.depth + 1) + text)

    def let(self, text: str, shape: Shape, bound: float, is_integer: bool = False) -> _Value:
        """Write an assignment; the new variable, which is of order one."""
        if bound > _LARGEST and not is_integer:
            text, bound = f"np.tanh({text})", 1.0
        v = _Value(self.name("v"), shape, bound, is_integer)
        self.write(f"{v.name} = {text}")
        self.scope.append(v)
        return v

    @contextmanager
    def function(self, arguments: Sequence[_Value], parameters: str | None = None) -> Iterator[str]:
        """Write a nested function; inside, its arguments and all variables around it are in scope."""
        name = self.name("f")
        self.write(f"def {name}({parameters or ', '.join(a.name for a in arguments)}):")
        outer = self.scope
        self.scope = [*outer, *arguments]
        self.depth += 1
        yield name
        self.depth -= 1
        self.scope = outer

    def argument(self, shape: Shape, bound: float, is_integer: bool = False) -> _Value:
        return _Value(self.name("a"), shape, bound, is_integer)

    def body(self, most: int = 2) -> _Value:
        """Write the statements of a function; the last value."""
        for _ in range(self.draw(st.integers(1, most))):
            self.statement()
        return self.newest()

    def newest(self) -> _Value:
        return next(v for v in reversed(self.scope) if not v.is_integer)

    def statement(self) -> None:
        """Write one statement, with the functions that it needs before it."""
        kinds = [*_SIMPLE]
        if self.depth < 2:
            kinds += [*_NESTED, *_NESTED, *([] if self.reverse else [*_FORWARD_ONLY, *_FORWARD_ONLY])]
        if not self.of(kinds)(self):
            _elementwise(self)


def _scaled(n: float) -> str:
    return "" if n == 1 else f" / {n:g}"


# -- simple statements: each returns whether it found what it needs -----------------------------


def _elementwise(w: _Writer) -> bool:
    x = w.some()
    text, bound = w.of(
        [
            (f"np.sin({x.name})", 1.0),
            (f"np.cos({x.name})", 1.0),
            (f"np.tanh({x.name})", 1.0),
            (f"-{x.name}", x.bound),
            (f"{x.name} * 0.5 + 0.25", x.bound / 2 + 0.25),
            (f"np.exp(-np.square({x.name}))", 1.0),
            (f"np.sqrt(1 + {x.name} ** 2)", 1 + x.bound),
            (f"ff.ops.logistic({x.name})", 1.0),
        ]
    )
    w.let(text, x.shape, bound)
    return True


def _binary(w: _Writer) -> bool:
    x = w.some()

    def fits(v: _Value) -> bool:
        return v.shape == () or v.shape == x.shape[len(x.shape) - len(v.shape) :]

    y = w.array(fits)
    assert y is not None  # x itself fits
    if w.flag():
        x, y = y, x
    text, bound = w.of(
        [
            (f"{x.name} + {y.name}", x.bound + y.bound),
            (f"{x.name} - {y.name}", x.bound + y.bound),
            (f"{x.name} * {y.name}", x.bound * y.bound),
            (f"{x.name} / (2 + np.sin({y.name}))", x.bound),
            (f"np.where({x.name} > 0.1234, {x.name}, {y.name})", max(x.bound, y.bound)),
            (f"np.where({x.name} < {y.name} + 0.4321, np.sin({x.name}), 0.5)", 1.0),
        ]
    )
    w.let(text, np.broadcast_shapes(x.shape, y.shape), bound)
    return True


def _matmul(w: _Writer) -> bool:
    x = w.ranked(1)
    if x is None:
        return False
    n = x.shape[-1]
    y = w.array(lambda v: 1 <= len(v.shape) <= 2 and v.shape[-2:][0] == n)
    if y is None:
        return False
    w.let(f"{x.name} @ {y.name}{_scaled(n)}", (*x.shape[:-1], *y.shape[1:]), x.bound * y.bound)
    return True


def _reduce(w: _Writer) -> bool:
    x = w.ranked(1)
    if x is None:
        return False
    axis, keep = w.axis(x), w.flag()
    n = x.shape[axis]
    shape = np.sum(np.zeros(x.shape), axis=axis, keepdims=keep).shape
    rest = f"axis={axis}, keepdims=True" if keep else f"axis={axis}"
    text, bound = w.of(
        [
            (f"np.sum({x.name}, {rest}){_scaled(n)}", x.bound),
            (f"ff.ops.logsumexp({x.name}, {rest})", x.bound + math.log(n)),
            (f"np.mean({x.name}, {rest})", x.bound),
            (f"np.max({x.name}, {rest})", x.bound),
        ]
    )
    w.let(text, shape, bound)
    return True


def _softmax(w: _Writer) -> bool:
    x = w.ranked(1)
    if x is None:
        return False
    axis = w.axis(x)
    text, bound = w.of(
        [
            (f"ff.ops.softmax({x.name}, axis={axis})", 1.0),
            (f"ff.ops.log_softmax({x.name}, axis={axis}) / 2", x.bound + 1.0),
            (f"np.cumsum({x.name}, axis={axis}) / {x.shape[axis]}", x.bound),
        ]
    )
    w.let(text, x.shape, bound)
    return True


def _rearrange(w: _Writer) -> bool:
    x = w.ranked(1)
    if x is None:
        return False
    size = math.prod(x.shape)
    turned = (*x.shape[1:], x.shape[0])
    order = (*range(1, len(x.shape)), 0)
    options = [
        (f"{x.name}.T", x.shape[::-1]),
        (f"{x.name}.reshape({turned})", turned),
        (f"np.transpose({x.name}, {order})", turned),
        (f"{x.name}[::-1]", x.shape),
        (f"{x.name}.reshape(-1)", (size,)),
    ]
    if len(x.shape) < 3:
        options += [
            (f"{x.name}[..., None]", (*x.shape, 1)),
            (f"np.broadcast_to({x.name}, {(2, *x.shape)})", (2, *x.shape)),
        ]
    text, turned = w.of(options)
    w.let(text, turned, x.bound)
    return True


def _index(w: _Writer) -> bool:
    x = w.array(lambda v: len(v.shape) >= 1 and min(v.shape) >= 2)
    if x is None:
        return False
    i, rest = w.integer(), x.shape[1:]
    text, shape = w.of(
        [
            (f"{x.name}[0]", rest),
            (f"{x.name}[..., -1]", x.shape[:-1]),
            (f"{x.name}[np.array([1, 0, 1])]", (3, *rest)),
            (f"ff.at({x.name})[{i}].get()", rest),
            (f"ff.at({x.name})[..., {i}].get()", x.shape[:-1]),
            (f"ff.at({x.name})[np.stack([{i}, 0, 1])].get()", (3, *rest)),
            (f"{x.name}[1:]", (x.shape[0] - 1, *rest)),
            (f"ff.at({x.name})[np.array([0, 0])].add(0.5)", x.shape),
            (f"ff.at({x.name})[{i}].set(0.75)", x.shape),
            (f"ff.at({x.name})[{i}].add({x.name}[0] / 2)", x.shape),
        ]
    )
    w.let(text, shape, x.bound + 1)
    return True


def _join(w: _Writer) -> bool:
    x = w.array(lambda v: len(v.shape) <= 2)
    if x is None:
        return False
    y = w.array(lambda v: v.shape == x.shape)
    assert y is not None  # x itself
    bound = max(x.bound, y.bound)
    if x.shape and x.shape[0] <= 3 and w.flag():
        w.let(f"np.concatenate([{x.name}, {y.name}])", (2 * x.shape[0], *x.shape[1:]), bound)
    else:
        w.let(f"np.stack([{x.name}, {y.name}])", (2, *x.shape), bound)
    return True


def _constant(w: _Writer) -> bool:
    shape = w.of([(3,), (2, 3), (3, 3)])
    w.let(f"np.linspace(-1.0, 1.0, {math.prod(shape)}).reshape({shape})", shape, 1.0)
    return True


def _integer(w: _Writer) -> bool:
    x = w.some()
    w.let(w.of([f"np.argmax({x.name}) % 2", f"(np.sum({x.name}) > 0.2345).astype(int)"]), (), 1.0, is_integer=True)
    return True


_SIMPLE: list[Callable[[_Writer], bool]] = [
    _elementwise, _binary, _matmul, _reduce, _rearrange, _index, _join, _softmax, _constant, _integer,
]  # fmt: skip


# -- statements with functions in them ----------------------------------------------------------


def _in_function(w: _Writer, header: str, count: int = 1) -> bool:
    """A call of a function of some variables, under a transform that leaves its value as it is."""
    operands = [w.some() for _ in range(count)]
    arguments = [w.argument(v.shape, v.bound) for v in operands]
    with w.function(arguments) as f:
        out = w.body()
        w.write(f"return {out.name}")
    w.let(header.format(f=f, xs=", ".join(v.name for v in operands)), out.shape, out.bound)
    return True


def _jit(w: _Writer) -> bool:
    return _in_function(w, "ff.jit({f})({xs})", w.of([1, 2]))


def _checkpoint(w: _Writer) -> bool:
    return _in_function(w, "ff.checkpoint({f})({xs})", w.of([1, 2]))


def _grad(w: _Writer) -> bool:
    x = w.some()
    a = w.argument(x.shape, x.bound)
    outside, w.reverse = w.reverse, True
    with w.function([a]) as f:
        out = w.body()
        w.write(f"return np.mean(np.sin({out.name}) * {out.name})" if out.shape else f"return np.sin({out.name})")
    w.reverse = outside
    w.let(f"np.tanh(ff.grad({f})({x.name}))", x.shape, 1.0)
    return True


def _jvp(w: _Writer) -> bool:
    x = w.some()
    t = w.array(lambda v: v.shape == x.shape)
    assert t is not None
    a = w.argument(x.shape, x.bound)
    with w.function([a]) as f:
        out = w.body()
        w.write(f"return np.sin({out.name})")
    w.let(f"np.tanh(ff.jvp({f}, ({x.name},), ({t.name},))[1])", out.shape, 1.0)
    return True


def _vmap(w: _Writer) -> bool:
    x = w.ranked(1)
    if x is None:
        return False
    axis = w.of([0, -1])
    rest = x.shape[1:] if axis == 0 else x.shape[:-1]
    a, y = w.argument(rest, x.bound), w.some()
    b = w.argument(y.shape, y.bound)
    with w.function([a, b]) as f:
        out = w.body()
        w.write(f"return {out.name} + np.mean({a.name})")
    w.let(f"ff.vmap({f}, in_axes=({axis}, None))({x.name}, {y.name})", (x.shape[axis], *out.shape), out.bound + a.bound)
    return True


def _scan(w: _Writer) -> bool:
    xs = w.ranked(1)
    init = w.array(lambda v: len(v.shape) <= 2)
    if xs is None or init is None:
        return False
    c, x = w.argument(init.shape, max(1.0, init.bound)), w.argument(xs.shape[1:], xs.bound)
    counts = w.flag()
    i = w.argument((), 1.0, is_integer=True)
    with w.function([x, c, *([i] if counts else [])], f"carry, {x.name}" if counts else f"{c.name}, {x.name}") as f:
        if counts:  # 0, 1, 0, 1, ...: an index
            w.write(f"{c.name}, {i.name} = carry")
        out = w.body()
        text = f"np.tanh({c.name} + {_to_shape(out, init.shape)})"
        w.write(f"return {f'({text}, ({i.name} + 1) % 2)' if counts else text}, {out.name}")
    start = f"({init.name}, 0)" if counts else init.name
    ending = w.of(["", ", reverse=True"])
    last, ys = w.name("v"), w.name("v")
    w.write(f"{f'({last}, _)' if counts else last}, {ys} = ff.scan({f}, {start}, {xs.name}{ending})")
    w.scope += [_Value(ys, (xs.shape[0], *out.shape), out.bound), _Value(last, init.shape, 1.0)]
    return True


def _to_shape(v: _Value, shape: Shape) -> str:
    """The text of something of `shape`, or that broadcasts to it, made of `v`."""
    return v.name if v.shape == shape else f"np.mean({v.name})"


def _choice(w: _Writer, count: int, call: str) -> bool:
    """A choice among functions of one variable."""
    x, y = w.some(), w.some()
    names = []
    for _ in range(count):
        a = w.argument(x.shape, x.bound)
        with w.function([a]) as f:
            out = w.body(most=1)
            w.write(f"return np.tanh({a.name} + {_to_shape(out, x.shape)})")
        names.append(f)
    number = w.integer()
    w.let(call.format(fs=", ".join(names), i=number, x=x.name, y=y.name), x.shape, 1.0)
    return True


def _cond(w: _Writer) -> bool:
    return _choice(w, 2, "ff.cond(" + w.of(["np.mean({y}) > 0.1357", "{i} == 0"]) + ", {fs}, {x})")


def _switch(w: _Writer) -> bool:
    return _choice(w, w.of([3, 1]), "ff.switch({i} + 1, [{fs}], {x})")


def _fori_loop(w: _Writer, bound: str = "2") -> bool:
    x = w.array(lambda v: len(v.shape) <= 2)
    if x is None:
        return False
    i, a = w.argument((), 1.0, is_integer=True), w.argument(x.shape, max(1.0, x.bound))
    with w.function([i, a]) as f:
        out = w.body(most=1)
        w.write(f"return np.tanh({a.name} + {_to_shape(out, x.shape)})")
    w.let(f"ff.fori_loop(0, {bound}, {f}, {x.name})", x.shape, max(1.0, x.bound))
    return True


def _map(w: _Writer) -> bool:
    x = w.ranked(1)
    if x is None:
        return False
    a = w.argument(x.shape[1:], x.bound)
    with w.function([a]) as f:
        out = w.body()
        w.write(f"return {out.name}")
    w.let(f"ff.map({f}, {x.name})", (x.shape[0], *out.shape), out.bound)
    return True


def _dynamic_fori_loop(w: _Writer) -> bool:
    return _fori_loop(w, f"1 + {w.integer()}")


def _while_loop(w: _Writer) -> bool:
    x = w.array(lambda v: len(v.shape) <= 2)
    if x is None:
        return False
    bound = w.integer()
    a = w.argument(x.shape, max(1.0, x.bound))
    i = w.argument((), 1.0, is_integer=True)
    with w.function([a, i], "carry") as f:
        w.write(f"{i.name}, {a.name} = carry")
        out = w.body(most=1)
        w.write(f"return {i.name} + 1, np.tanh({a.name} + {_to_shape(out, x.shape)})")
    w.let(f"ff.while_loop(lambda c: c[0] <= {bound}, {f}, (0, {x.name}))[1]", x.shape, max(1.0, x.bound))
    return True


_NESTED: list[Callable[[_Writer], bool]] = [
    _jit, _grad, _jvp, _vmap, _scan, _cond, _switch, _checkpoint, _fori_loop, _map,
]  # fmt: skip
_FORWARD_ONLY: list[Callable[[_Writer], bool]] = [_while_loop, _dynamic_fori_loop]


@st.composite
def programs(draw: Any, reverse: bool = True, most: int = 5) -> RandomProgram:
    """Programs of one to three floating arrays and an integer or two, each with up to `most` statements.

    Args:
        draw: Hypothesis' draw.
        reverse: whether all of them have a reverse mode under `jit` and `vmap`. With False there are loops with
            a number of turns that is not known in advance, which have it only where values are known.
        most: the most statements.

    Returns:
        A strategy of `RandomProgram`, which shrinks to fewer and simpler statements, fewer arguments and fewer axes.

    >>> from hypothesis import find
    >>> program = find(ff.testing.programs(), lambda program: True)
    >>> program.source.splitlines()[0][:4], len(ff.tree.leaves(program.f(*program.args))) > 0
    ('def ', True)
    """
    w = _Writer(draw, reverse)
    ranks = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
    shapes = tuple([tuple([w.of(_SIZES) for _ in range(rank)]) for rank in ranks])
    integers = draw(st.integers(0, 1))
    arguments = [_Value("xyz"[i], s) for i, s in enumerate(shapes)]
    numbers = [_Value("ij"[k], (), 1.0, is_integer=True) for k in range(integers)]
    w.scope = [*numbers, *arguments]
    w.lines = [f"def f({', '.join(v.name for v in [*arguments, *numbers])}):"]
    for _ in range(draw(st.integers(1, most))):
        w.statement()
    out = w.newest()
    other = w.some()
    w.write(w.of([f"return {out.name}", f"return {{'a': {out.name}, 'b': {other.name}}}"]))
    return RandomProgram("\n".join(w.lines) + "\n", shapes, integers, draw(st.integers(0, 100)))
