"""Which sizes of a program are the number of steps of a loop, so that one compilation serves every length.

A program with concrete shapes goes in; the same shapes come out as polynomials in symbols, one for each number of
steps that can be read off an input, with all other sizes numbers. Sizes are propagated from the inputs through the
equations, unified where a primitive demands it, and in the end only those symbols stay that reach a scan's length.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fnflare.compiler.dim_rules import RULES
from fnflare.compiler.dims import Dim, Dims, Shape, symbols
from fnflare.compiler.index_parts import Part, Picked, as_indices, index_parts, read_shape
from fnflare.nest import Atom, Index, Size, index
from fnflare.program.ir import Atom as ProgramAtom
from fnflare.program.ir import Equation, Literal, Program, Var

__all__ = ["Iota", "Sizes", "sizes_of", "symbolic_shapes"]


@dataclass(frozen=True, slots=True)
class Iota:
    """A constant array of integers whose elements are ``start + step * i``, `i` the place along an axis."""

    axis: int
    start: Index
    step: int


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """The sizes of a program. Equations are asked for by the first of their outputs.

    Attributes:
        sizes: each symbol, and the input and the axis of it where its value is found.
        shapes: of every variable, those of the programs in equations among them.
        literals: the shapes of constants that are not scalars, by the ``id`` of the `Literal`, or of the array where it
            stands in an index.
        iotas: what those constants are that count, by the same ``id``.
        lengths: the number of steps of every scan.
        indices: what every read and write at an index reads or writes, axis by axis.
    """

    sizes: tuple[tuple[Size, int, int], ...]
    shapes: dict[Var, tuple[Index, ...]]
    literals: dict[int, tuple[Index, ...]]
    iotas: dict[int, Iota]
    lengths: dict[Var, Index]
    indices: dict[Var, tuple[Part, ...]]

    def shape(self, atom: ProgramAtom) -> tuple[Index, ...]:
        """The shape of a variable or a constant."""
        if type(atom) is Var:
            return self.shapes[atom]
        return self.literals[id(atom)] if atom.aval.shape else ()

    def length(self, equation: Equation) -> Index:
        """The number of steps of a scan."""
        return self.lengths[equation.outputs[0]]

    def index(self, equation: Equation) -> tuple[Part, ...]:
        """What a ``getitem``, ``index_add`` or ``index_set`` reads or writes."""
        return self.indices[equation.outputs[0]]

    def values(self, shapes: Sequence[Sequence[int]]) -> dict[Size, int]:
        """The value of each symbol, for inputs of these shapes."""
        return {size: shapes[number][axis] for size, number, axis in self.sizes}


def symbolic_shapes(program: Program, numbers: bool = False) -> Sizes:
    """Find out which sizes of a program are the number of steps of a loop.

    A size is a symbol where it is tied to a scan's length by what the equations demand, alone or in a sum or product,
    and where the symbol is the size of an axis of an input. A size of 0 or 1 is always a number, since it might be
    there for broadcasting. A wrong guess is impossible for the program itself: all symbolic sizes are its own at its
    own lengths. It serves another program where the two have the same `fnflare.compiler.generic_key.generic_key`.

    Args:
        program: the program.
        numbers: whether all sizes are to be numbers.

    >>> from fnflare.compiler.sizes import symbolic_shapes
    >>> program = ff.make_program(lambda xs: ff.scan(lambda c, x: (c + x, 2 * c), np.zeros(3), xs))(np.ones((7, 3)))
    >>> sizes = symbolic_shapes(program)
    >>> [sizes.shape(v) for v in program.outputs], sizes.sizes
    ([(3,), (T0, 3)], ((Size(name='T0'), 0, 0),))
    """
    walk = _Walk(program, not numbers and _has_loops(program))
    while True:
        walk.run()
        kept = walk.kept()
        walk.dims.pin_others(kept)
        if not walk.dims.changed:
            return walk.answer(kept)


def sizes_of(program: Program) -> Sizes:
    """What `symbolic_shapes` finds, looked for once."""
    found: Sizes = program.derived("sizes", lambda: symbolic_shapes(program))
    return found


class _Walk:
    """Walks over a program until nothing more is found out about its sizes."""

    def __init__(self, program: Program, symbolic: bool) -> None:
        self.program = program
        self.dims = Dims(symbolic)
        self.iotas: dict[int, _Counting | None] = {}
        self._begin()

    def _begin(self) -> None:
        self.shapes: dict[Var, Shape] = {}
        self.literals: dict[int, Shape] = {}
        self.lengths: dict[Var, Dim] = {}
        self.indices: dict[Var, list[Any]] = {}
        self.read: dict[Hashable, Shape] = {}  # what was read at index arrays, by these
        self.done: set[int] = set()  # the nested programs that were walked over

    def run(self) -> None:
        """One walk, with what was found out in those before."""
        self._begin()
        self.dims.start()
        for k, v in enumerate(self.program.inputs):
            sizes = [self.dims.size(("input", k, i), n, is_input=True) for i, n in enumerate(v.aval.shape)]
            self.shapes[v] = tuple(sizes)
        self._equations(self.program)

    def _equations(self, program: Program) -> None:
        for equation in program.equations:
            shapes = [self.shape(a) for a in equation.inputs]
            for v, shape in zip(equation.outputs, self._out(equation, shapes), strict=True):
                self.shapes[v] = self._checked(v, shape)
        for a in program.outputs:
            self.shape(a)

    def _checked(self, v: Var, shape: Shape) -> Shape:
        """A shape that is the one of a variable, with sizes of 0 and 1 as numbers."""
        dims, wanted = self.dims, v.aval.shape
        for d, n in zip(shape, wanted, strict=True):
            if d is not n and (type(d) is int or n <= 1 or dims.value(d) != n):
                break
        else:
            return shape
        if dims.values(shape) != wanted:
            dims.pin_all(shape)
            return wanted
        return tuple([d if n > 1 else dims.pin(d) for d, n in zip(shape, wanted, strict=True)])

    # -- constants ------------------------------------------------------------------------------

    def shape(self, atom: ProgramAtom) -> Shape:
        """The shape of a variable or a constant."""
        if type(atom) is Var:
            return self.shapes[atom]
        assert isinstance(atom, Literal)
        return self._constant(atom, atom.value, atom.repeated) if atom.aval.shape else ()

    def _constant(self, owner: object, value: Any, repeated: Any) -> Shape:
        """The shape of a constant array: free where all elements are the same, or count."""
        key = id(owner)
        shape = self.literals.get(key)
        if shape is None:
            if repeated is None and key not in self.iotas:
                self.iotas[key] = _counting(value)
            free = repeated is not None or self.iotas[key] is not None
            sizes = [self.dims.size((key, i), n) for i, n in enumerate(value.shape)] if free else value.shape
            shape = self.literals[key] = tuple(sizes)
        return shape

    # -- equations ------------------------------------------------------------------------------

    def _out(self, equation: Equation, shapes: list[Shape]) -> Sequence[Shape]:
        name, prim = equation.prim.name, equation.prim
        rule = RULES.get(name)
        if rule is not None:
            return [rule(self.dims, equation, shapes)]
        if prim.elementwise:
            return [self.dims.broadcast(shapes)]
        special = _SPECIAL.get(name)
        if special is not None:
            return special(self, equation, shapes)
        for shape in shapes:
            self.dims.pin_all(shape)
        for program in _programs(equation):
            self._inside(program, [v.aval.shape for v in program.inputs])
        return [v.aval.shape for v in equation.outputs]

    def _inside(self, program: Program, shapes: Sequence[Shape]) -> list[Shape]:
        """The outputs of a nested program, whose variables have one shape wherever it is used."""
        if id(program) in self.done:
            for v, shape in zip(program.inputs, shapes, strict=True):
                self.dims.unify_shapes(self.shapes[v], shape)
        else:
            self.done.add(id(program))
            self.shapes.update(zip(program.inputs, shapes, strict=True))
            self._equations(program)
        return [self.shape(a) for a in program.outputs]

    def _scan(self, equation: Equation, shapes: list[Shape]) -> Sequence[Shape]:
        params = equation.params or {}
        dims, program, border = self.dims, params["program"], params["consts"] + params["carry"]
        xs = shapes[border:]
        length: Dim = xs[0][0] if xs else dims.size((equation.outputs[0], "length"), params["length"])
        for shape in xs[1:]:
            dims.unify(length, shape[0])
        carries = shapes[params["consts"] : border]
        out = self._inside(program, [*shapes[:border], *[s[1:] for s in xs]])
        for before, after in zip(carries, out[: len(carries)], strict=True):
            dims.unify_shapes(before, after)
        self.lengths[equation.outputs[0]] = length
        return [*carries, *[(length, *s) for s in out[len(carries) :]]]

    def _while(self, equation: Equation, shapes: list[Shape]) -> Sequence[Shape]:
        params = equation.params or {}
        tests, consts = params["tests"], params["consts"]
        carries = shapes[tests + consts :]
        self._inside(params["condition"], [*shapes[:tests], *carries])
        out = self._inside(params["body"], shapes[tests:])
        for before, after in zip(carries, out, strict=True):
            self.dims.unify_shapes(before, after)
        return carries

    def _cond(self, equation: Equation, shapes: list[Shape]) -> Sequence[Shape]:
        branches = (equation.params or {})["branches"]
        answers = [self._inside(b, shapes[1:]) for b in branches]
        for answer in answers[1:]:
            for a, b in zip(answers[0], answer, strict=True):
                self.dims.unify_shapes(a, b)
        return answers[0]

    def _call(self, equation: Equation, shapes: list[Shape]) -> Sequence[Shape]:
        return self._inside((equation.params or {})["program"], shapes)

    def _parts(self, equation: Equation, shape: Shape, arrays: list[Shape]) -> Shape:
        """The shape of what an index reads; remembers its parts."""
        first = len(equation.inputs) - len(arrays)
        parts = index_parts(self.dims, shape, (equation.params or {})["index"], first)
        self.indices[equation.outputs[0]] = parts

        def shape_of(picked: Picked) -> Shape:
            if isinstance(picked.array, int):
                return arrays[picked.array - first]
            if picked.array.dtype.kind == "b":
                return (int(np.count_nonzero(picked.array)),)
            return self._constant(picked.array, picked.array, None)

        return read_shape(self.dims, parts, shape_of)

    def _getitem(self, equation: Equation, shapes: list[Shape]) -> Sequence[Shape]:
        if len(shapes) > 1:
            self.read[_places(equation, 1)] = shapes[0]
        return [self._parts(equation, shapes[0], shapes[1:])]

    def _write(self, equation: Equation, shapes: list[Shape]) -> Sequence[Shape]:
        """Zeros that are written into where something was read, as the derivative of a read does, have its shape."""
        if type(equation.inputs[0]) is Literal and len(shapes) > 2:
            self.dims.unify_shapes(self.read.get(_places(equation, 2), shapes[0]), shapes[0])
        self.dims.broadcast([self._parts(equation, shapes[0], shapes[2:]), shapes[1]])
        return shapes[:1]

    # -- the answer -----------------------------------------------------------------------------

    def kept(self) -> dict[Size, tuple[int, int]]:
        """The symbols that reach a scan's length and are the size of an axis of an input, with the first such axis."""
        wanted = {s for length in self.lengths.values() for s in symbols(self.dims.resolved(length))}
        found: dict[Size, tuple[int, int]] = {}
        for k, v in enumerate(self.program.inputs) if wanted else ():
            for axis, d in enumerate(self.shapes[v]):
                lone = self.dims.resolved(d)
                for s in symbols(lone):
                    if s in wanted and lone == index(s):
                        found.setdefault(s, (k, axis))
        return found

    def answer(self, kept: dict[Size, tuple[int, int]]) -> Sizes:
        """What was found out, with symbols that have names of their own."""
        order = sorted(kept, key=lambda s: kept[s])
        names: dict[Atom, Index] = {s: index(Size(f"T{k}")) for k, s in enumerate(order)}
        memo: dict[Dim, Index] = {}

        def final(d: Dim) -> Index:
            found = memo.get(d)
            if found is None:
                found = memo[d] = index(d).replace(names)
            return found

        def finals(shape: Shape) -> tuple[Index, ...]:
            return tuple([final(d) for d in shape])

        sizes = {key: finals(shape) for key, shape in self.literals.items()}
        return Sizes(
            tuple([(Size(f"T{k}"), *kept[s]) for k, s in enumerate(order)]),
            {v: finals(shape) for v, shape in self.shapes.items()},
            sizes,
            {key: _iota(found, sizes[key]) for key, found in self.iotas.items() if found is not None},
            {v: final(d) for v, d in self.lengths.items()},
            {v: as_indices(parts, final) for v, parts in self.indices.items()},
        )


_SPECIAL: dict[str, Callable[[_Walk, Equation, list[Shape]], Sequence[Shape]]] = {
    "scan": _Walk._scan,
    "while_loop": _Walk._while,
    "cond": _Walk._cond,
    "call": _Walk._call,
    "custom_vjp": _Walk._call,
    "custom_jvp": _Walk._call,
    "getitem": _Walk._getitem,
    "index_add": _Walk._write,
    "index_set": _Walk._write,
}


def _has_loops(program: Program) -> bool:
    """Whether there is a scan in a program or in those in it."""
    return any(e.prim.name == "scan" or any(map(_has_loops, _programs(e))) for e in program.equations)


def _places(equation: Equation, first: int) -> Hashable:
    """The index arrays of a read or a write, which begin at an argument, and the shape of what is read or written."""
    return (*equation.inputs[first:], equation.inputs[0].aval.shape)


def _programs(equation: Equation) -> list[Program]:
    """The programs among the parameters of an equation."""
    found: list[Program] = []
    for value in (equation.params or {}).values() if equation.prim.carries else ():
        found += [p for p in (value if isinstance(value, (tuple, list)) else (value,)) if isinstance(p, Program)]
    return found


class _Counting(NamedTuple):
    """How an array of integers counts along one of its axes."""

    axis: int
    size: int
    first: int
    step: int


def _counting(value: Any) -> _Counting | None:
    """How an array of integers counts along one axis, the same along all others; None where it does not."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu" or not value.size:
        return None
    corner = [0] * value.ndim
    first = int(value[tuple(corner)])
    steps: list[tuple[int, int]] = []
    for axis, n in enumerate(value.shape):
        if n > 1:
            step = int(value[(*corner[:axis], 1, *corner[axis + 1 :])]) - first
            if step:
                steps.append((axis, step))
    if len(steps) != 1:
        return None
    ((axis, step),) = steps
    n = value.shape[axis]
    # Two numbers always count; only neighbours are taken to do so on purpose.
    if (n == 2 and step not in (1, -1)) or max(abs(first), abs(first + step * (n - 1))) >= 2**62:
        return None
    counted = (np.arange(n) * step + first).reshape([n if k == axis else 1 for k in range(value.ndim)])
    return _Counting(axis, n, first, step) if bool(np.all(value == counted)) else None


def _iota(found: _Counting, shape: tuple[Index, ...]) -> Iota:
    """What a constant that counts is; one whose last element is 0 begins that far from the end, whatever its size."""
    size = shape[found.axis]
    ends_at_0 = size.constant is None and found.first + found.step * (found.size - 1) == 0
    return Iota(found.axis, (size - 1) * -found.step if ends_at_0 else index(found.first), found.step)
