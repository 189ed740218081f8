"""Kernels: loop nests over buffers become functions, vector loops in them code for many lanes.

A vector loop is written up to three times: for several registers at a time where additions would otherwise wait for
each other, for one register, and for the lanes that are left, with a mask. Accumulators that such a loop updates are
vectors in it, and are combined in a fixed order after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fnflare.compiler.llvm.expressions import Expressions, Lanes
from fnflare.compiler.llvm.machine_types import BITS, KINDS, MEMORY, REGISTER, Value, neutral, splat_literal
from fnflare.compiler.llvm.target import Target
from fnflare.compiler.llvm.writer import Library
from fnflare.nest import (
    FUNCTIONS,
    Accumulator,
    Apply,
    Atom,
    Buffer,
    Element,
    Index,
    Integer,
    Kernel,
    Let,
    Local,
    Loop,
    Position,
    Scalar,
    Statement,
    Store,
    Update,
    nonnegative,
    operands,
    walk,
)

__all__ = ["render_kernel"]

#: How many registers a light loop works on at a time, so that as many chains of additions are under way.
_CHAINS = 4
#: A loop with at most so many operations is light.
_LIGHT = 24


def render_kernel(kernel: Kernel, name: str, library: Library, target: Target, shared: bool = False) -> str:
    """The function of a kernel, which is given pointers to its parameters and its sizes.

    Args:
        kernel: the kernel.
        name: of the function.
        library: where what it needs beside itself goes.
        target: the processor.
        shared: whether it is given the first turn of its outermost loop that it is to do, too, and the one after the
            last; otherwise it does all.
    """
    writer = _Kernel(kernel, library, target)
    writer.write(shared)
    written = {s.buffer for s in _statements(kernel.body) if isinstance(s, Store)}
    given = [f"ptr noalias{'' if b in written else ' readonly'} %p{i}" for i, b in enumerate(kernel.parameters)]
    given += [f"i64 %s{i}" for i in range(len(kernel.sizes))]
    given += ["i64 %begin", "i64 %end"] if shared else []
    width = f'"prefer-vector-width"="{target.bits}" "min-legal-vector-width"="{target.bits}"'
    return writer.text(f"define internal void @{name}({', '.join(given)}) nounwind noinline {width}")


class _Kernel(Expressions):
    def __init__(self, kernel: Kernel, library: Library, target: Target) -> None:
        super().__init__(library, target)
        self.kernel = kernel
        self.pointers = {b: f"%p{i}" for i, b in enumerate(kernel.parameters)}
        self.sizes = {s: f"%s{i}" for i, s in enumerate(kernel.sizes)}
        self.accumulators: dict[str, Accumulator] = {}
        #: Accumulators of the loops around the vector loop that is being written.
        self.shared: frozenset[str] = frozenset()
        read = {s.buffer for s in _expressions(kernel.body) if isinstance(s, Element)}
        #: Buffers that are read and written: what was read from them is not remembered beyond a write.
        self.changing = read & {s.buffer for s in _statements(kernel.body) if isinstance(s, Store)}
        self._readers = _readers(kernel.body, self.changing) if self.changing else {}
        for i, b in enumerate(kernel.locals):
            self.pointers[b] = f"%l{i}"
            self.entry.append(f"  %l{i} = alloca [{b.size.constant} x {MEMORY[b.dtype]}], align 64")

    def write(self, shared: bool) -> None:
        """Write all of it."""
        axis, body = self.kernel.axis, self.kernel.body
        if axis is None:
            self._body(body)
        elif shared:
            self._loop(Loop(axis, body, vector=self.kernel.vector), ("%begin", "%end"))
        else:
            self._loop(Loop(axis, body, vector=self.kernel.vector))

    def _body(self, body: tuple[Statement, ...]) -> None:
        for s in body:
            if isinstance(s, Let):
                self.names[s.name] = self.value(s.value)
            elif isinstance(s, Store):
                self.store(s.buffer, s.index, self.value(s.value))
                if s.buffer in self.changing:
                    self.forget(self._readers[s.buffer])
            elif isinstance(s, Accumulator):
                self._declare(s)
            elif isinstance(s, Update):
                self._update(s)
            elif isinstance(s, Loop):
                self._loop(s)
            else:
                raise TypeError(f"{type(s).__name__} stands in kernel {self.kernel.name}, not in a module's body")

    # -- accumulators -----------------------------------------------------------------------------------

    def _declare(self, a: Accumulator) -> None:
        self.accumulators[a.name] = a
        self.names[a.name] = self._neutral(a, varying=self.group is not None)

    def _neutral(self, a: Accumulator, varying: bool) -> Value:
        text = neutral(a.op, a.dtype)
        if varying:
            text = splat_literal(text, REGISTER[a.dtype])
        return Value(text, self.type_of(a.dtype, varying), varying)

    def _update(self, s: Update) -> None:
        a = self.accumulators[s.name]
        value, held = self.value(s.value), self.names[s.name]
        if held.varying:
            value = self.spread(value)
        if self.group is not None and self.group.mask is not None and s.name in self.shared:
            rest = self._neutral(a, varying=True).text
            value = value._replace(text=self.choose(self.group.mask, value.type, value.text, rest))
        # The new number comes first: a maximum looks at its first argument for NaN, which then need not wait.
        combined = self.operate(a.op, a.dtype, held.varying, [value.text, held.text])
        self.names[s.name] = held._replace(text=combined)

    def _combined(self, a: Accumulator, value: Value, lanes: int) -> Value:
        """A vector accumulator with only so many lanes left: the upper half is added to the lower one, and so on."""
        element, op, count = REGISTER[a.dtype], a.op, self.lanes
        while count > lanes:
            T, half = f"<{count} x {element}>", count // 2
            parts = []
            for start in (0, half):
                picked = ", ".join([f"i32 {start + k}" for k in range(half)])
                parts.append(self.emit(f"shufflevector {T} {value.text}, {T} poison, <{half} x i32> <{picked}>"))
            self.lanes = count = half
            value = Value(self.operate(op, a.dtype, True, parts), f"<{half} x {element}>", varying=True)
        return value

    # -- loops ------------------------------------------------------------------------------------------

    def _loop(self, s: Loop, part: tuple[str, str] | None = None) -> None:
        """A loop, or only some of its turns."""
        self._refresh(s.body)
        self.depths.setdefault(s.axis, len(self.depths) + 1)
        self._hoist(s)
        if s.unroll:
            self._unrolled(s)
        elif s.vector and (width := self._width(s)) > 1:
            _VectorLoop(self, s, width).write(part)
        else:
            self._plain(s, part)

    def _refresh(self, body: tuple[Statement, ...]) -> None:
        """Forget what a loop's turns may have changed when they come round."""
        if self.changing:
            for buffer in {s.buffer for s in _statements(body) if isinstance(s, Store)} & self.changing:
                self.forget(self._readers[buffer])

    def _hoist(self, s: Loop) -> None:
        """Compute before a loop what is the same in all its turns; LLVM itself would not move what it loads."""
        if not nonnegative(s.axis.extent - 1):
            return
        inside = list(_statements((s,)))
        axes = {t.axis for t in inside if isinstance(t, Loop)}
        names = {t.name for t in inside if isinstance(t, (Let, Accumulator, Update))}
        moving: set[int] = set()
        fixed: dict[int, Scalar] = {}
        for x in _expressions((s,)):
            if isinstance(x, Local):
                moves = x.name in names
            elif isinstance(x, (Element, Position)):
                moves = bool(axes & _atoms(x.index)) or (isinstance(x, Element) and x.buffer in self.changing)
            else:
                moves = False
            below = operands(x)
            if moves or any(id(a) in moving for a in below):
                moving.add(id(x))
                for a in below:
                    if id(a) in fixed:
                        self.value(a)
            elif isinstance(x, (Element, Apply)):
                fixed[id(x)] = x
        for t in inside:
            if isinstance(t, (Let, Update, Store)) and id(t.value) in fixed:
                self.value(t.value)

    def _plain(self, s: Loop, part: tuple[str, str] | None) -> None:
        extent = s.axis.extent

        def turn(i: str) -> None:
            self.sizes[s.axis] = i
            self._body(s.body)

        certain = part is None and nonnegative(extent - 1)
        if extent.constant != 0:
            begin, end = part or ("0", self.index(extent))
            self.repeat(begin, end, 1, self.carried(s.body), turn, certain)

    def _unrolled(self, s: Loop) -> None:
        extent = s.axis.extent.constant
        if extent is None:
            raise ValueError(f"loop {s.axis.name} of kernel {self.kernel.name}: an unrolled loop has a known extent")
        for k in range(extent):
            with self.scope(self.carried(s.body)):
                self.sizes[s.axis] = str(k)
                self._body(s.body)

    @contextmanager
    def scope(self, carried: list[str]) -> Iterator[None]:
        """What is computed and named in here is forgotten after it, but for these accumulators."""
        outer = dict(self.names)
        self.enter()
        yield
        self.leave()
        self.names = outer | {n: self.names[n] for n in carried}

    def carried(self, body: tuple[Statement, ...]) -> list[str]:
        """The accumulators from outside that a loop's body updates."""
        inner = {s.name for s in _statements(body) if isinstance(s, Accumulator)}
        return list(dict.fromkeys(s.name for s in _statements(body) if isinstance(s, Update) and s.name not in inner))

    def _width(self, s: Loop) -> int:
        """How many lanes a register has for the numbers of a loop."""
        types = {x.dtype for x in _expressions(s.body)}
        types |= {t.buffer.dtype for t in _statements(s.body) if isinstance(t, Store)}
        types |= {t.dtype for t in _statements(s.body) if isinstance(t, Accumulator)}
        floats = [BITS[t] for t in types if KINDS[t] == "f"]
        return self.target.bits // max(floats or [BITS[t] for t in types], default=64)


class _VectorLoop:
    """A vector loop while it is written."""

    def __init__(self, writer: _Kernel, loop: Loop, width: int) -> None:
        self.w, self.loop, self.width = writer, loop, width
        self.carried = writer.carried(loop.body)

    def write(self, part: tuple[str, str] | None) -> None:
        """Write all of it, or only some of its turns."""
        w, extent = self.w, self.loop.axis.extent
        before = {n: w.names[n] for n in self.carried}
        shared, w.shared = w.shared, frozenset(self.carried)
        known = extent.constant if part is None else None
        begin, end = part or ("0", w.index(extent))
        chains = _CHAINS if self._light() else 1
        if known is not None:
            chains = min(chains, 1 << max(0, (known // self.width).bit_length() - 1))
        w.lanes = self.width * chains
        for n in self.carried:
            w.names[n] = w._neutral(w.accumulators[n], varying=True)
        if known is not None:
            self._known(known)
        else:
            self._unknown(begin, end)
        for n in self.carried:
            self._close(n, before[n])
        w.lanes, w.group, w.shared = 1, None, shared

    def _known(self, extent: int) -> None:
        done = 0
        while self.w.lanes >= self.width:
            done += self._turns(done, (extent - done) // self.w.lanes)
            if self.w.lanes == self.width:
                break
            self._narrow(self.w.lanes // 2)
        left = extent - done
        if left:
            mask = f"<{', '.join([f'i1 {str(k < left).lower()}' for k in range(self.width)])}>"
            self._straight(str(done), Lanes(self.loop.axis, mask, str(left)))

    def _turns(self, done: int, count: int) -> int:
        w, step = self.w, self.w.lanes
        if count == 1:
            self._straight(str(done), Lanes(self.loop.axis))
        elif count:
            w.repeat(str(done), str(done + count * step), step, self.carried, self._turn, certain=True)
        return count * step

    def _unknown(self, begin: str, end: str) -> None:
        w, first = self.w, begin
        count = end if first == "0" else w.emit(f"sub nsw i64 {end}, {first}")
        for lanes in dict.fromkeys((w.lanes, self.width)):
            self._narrow(lanes)
            limit = w.plus(first, w.emit(f"and i64 {count}, {-lanes}"))
            w.repeat(begin, limit, lanes, self.carried, self._turn, certain=False)
            begin = limit
        w.when(w.emit(f"icmp slt i64 {begin}, {end}"), self.carried, lambda: self._rest(begin, end))

    def _rest(self, begin: str, end: str) -> None:
        """The lanes that are left, between one and all but one."""
        w = self.w
        left = w.emit(f"sub nsw i64 {end}, {begin}")
        # Numbers as wide as those that are masked make the cheapest comparison.
        element = f"i{max(8, min(64, w.target.bits // w.lanes))}"
        T = f"<{w.lanes} x {element}>"
        count = left if element == "i64" else w.emit(f"trunc i64 {left} to {element}")
        numbers = f"<{', '.join([f'{element} {k}' for k in range(w.lanes)])}>"
        mask = w.emit(f"icmp slt {T} {numbers}, {w.spread(Value(count, element, varying=False)).text}")
        w.group = Lanes(self.loop.axis, mask, left)
        w.sizes[self.loop.axis] = begin
        w._body(self.loop.body)

    def _turn(self, i: str) -> None:
        self.w.group = Lanes(self.loop.axis)
        self.w.sizes[self.loop.axis] = i
        self.w._body(self.loop.body)

    def _straight(self, i: str, group: Lanes) -> None:
        with self.w.scope(self.carried):
            self.w.group = group
            self.w.sizes[self.loop.axis] = i
            self.w._body(self.loop.body)

    def _narrow(self, lanes: int) -> None:
        """Go on with fewer lanes."""
        w, before = self.w, self.w.lanes
        for n in self.carried:
            w.lanes = before
            w.names[n] = w._combined(w.accumulators[n], w.names[n], lanes)
        w.lanes = lanes

    def _close(self, name: str, before: Value) -> None:
        """Combine the lanes of an accumulator with what it held before the loop."""
        w, a = self.w, self.w.accumulators[name]
        w.lanes = self.width
        value = w._combined(a, w.names[name], 1)
        number = w.emit(f"extractelement {value.type} {value.text}, i64 0")
        w.names[name] = before._replace(text=w.operate(a.op, a.dtype, False, [number, before.text]))

    def _light(self) -> bool:
        """Whether additions that wait for each other would be most of its time."""
        body = self.loop.body
        nodes = list(_expressions(body))
        if not any(isinstance(s, Update) for s in _statements(body)) or len(nodes) > _LIGHT:
            return False
        if any(isinstance(x, Apply) and x.op in FUNCTIONS for x in nodes):
            return False
        places = [x.index for x in nodes if isinstance(x, Element)]
        places += [s.index for s in _statements(body) if isinstance(s, Store)]
        return all(self._even(x) for x in places)

    def _even(self, x: Index) -> bool:
        stride = x.coefficient(self.loop.axis)
        return stride is not None and stride.constant in (0, 1)


def _statements(body: tuple[Statement, ...]) -> Iterator[Statement]:
    """All statements, those in loops too."""
    for s in body:
        yield s
        if isinstance(s, Loop):
            yield from _statements(s.body)


def _readers(body: tuple[Statement, ...], changing: set[Buffer]) -> dict[Buffer, set[int] | None]:
    """By buffer, the ids of the expressions that read it; None where a place in memory depends on what is in it."""
    expressions = list(_expressions(body))
    places = [x.index for x in expressions if isinstance(x, (Element, Position))]
    places += [s.index for s in _statements(body) if isinstance(s, Store)]
    whole = [a.value for x in places for a in _atoms(x) if isinstance(a, Integer)]
    out: dict[Buffer, set[int] | None] = {}
    for buffer in changing:
        found: set[int] = set()
        for x in expressions:
            if (isinstance(x, Element) and x.buffer is buffer) or any(id(a) in found for a in operands(x)):
                found.add(id(x))
        out[buffer] = None if any(id(y) in found for y in whole) else found
    return out


def _atoms(x: Index) -> set[Atom]:
    """The factors of an index, those of the indices in it too."""
    out = x.atoms()
    for a in list(out):
        if isinstance(a, Integer):
            for y in walk([a.value]):
                if isinstance(y, (Element, Position)):
                    out |= y.index.atoms()
    return out


def _expressions(body: tuple[Statement, ...]) -> Iterator[Scalar]:
    """All expressions that a body computes, each once."""
    found = list(_statements(body))
    roots = [s.value for s in found if isinstance(s, (Let, Update, Store))]
    roots += [a.value for s in found if isinstance(s, Store) for a in s.index.atoms() if isinstance(a, Integer)]
    return walk(roots)
