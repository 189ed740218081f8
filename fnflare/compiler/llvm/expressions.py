"""Index arithmetic and scalar expressions as LLVM instructions: what is the same in all lanes, and what varies.

Inside a vector loop an expression that does not depend on the loop's variable is computed once, as a single number;
the others are vectors. What an index is for the first lane is a number too, and the distance from lane to lane tells
how an element is read: one load for neighbours, a load for each lane otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from fnflare.compiler.llvm.functions import libm, template
from fnflare.compiler.llvm.machine_types import BITS, KINDS, MEMORY, REGISTER, Value, literal, splat_literal
from fnflare.compiler.llvm.operations import Operations
from fnflare.compiler.llvm.target import Target
from fnflare.compiler.llvm.writer import Library
from fnflare.nest import (
    ARITHMETIC,
    COMPARISONS,
    Apply,
    Atom,
    Axis,
    Buffer,
    Constant,
    Element,
    Index,
    Integer,
    Local,
    Position,
    Quotient,
    Remainder,
    Scalar,
    Size,
    operands,
)

__all__ = ["Expressions", "Lanes"]


@dataclass(frozen=True, slots=True)
class Lanes:
    """The turns of a vector loop that are done together.

    Attributes:
        axis: the loop's variable.
        mask: which lanes have work to do, as a vector of truth values; None where all of them have.
        left: how many lanes have work to do, an i64; None where all of them have.
    """

    axis: Axis
    mask: str | None = None
    left: str | None = None


class Expressions(Operations):
    """A writer that knows index arithmetic and scalar expressions.

    Attributes:
        pointers: where the buffers begin.
        sizes: what sizes and loop variables are; the variable of a vector loop is that of its first lane.
        depths: how deep in the loops each loop variable is.
        group: the lanes of the vector loop that is being written, if any.
    """

    def __init__(self, library: Library, target: Target) -> None:
        super().__init__(library)
        self.target = target
        self.fma = target.fma
        self.pointers: dict[Buffer, str] = {}
        self.sizes: dict[Size | Axis, str] = {}
        self.depths: dict[Axis, int] = {}
        self.group: Lanes | None = None

    # -- indices ------------------------------------------------------------------------------------

    def index(self, x: Index) -> str:
        """An index as an i64: inside a vector loop, that of the first lane."""
        known = x.constant
        if known is not None:
            return str(known)
        found = self.memo.get(x)
        if found is None:
            # What changes in the innermost loop comes last, so that the sum of the rest can be taken out of it.
            terms = sorted(x.terms.items(), key=lambda t: (not t[0], max(map(self._depth, t[0]), default=0)))
            found = self._sum([(self._product(m), c) for m, c in terms])
            self.memo[x] = found
        return str(found)

    def _product(self, monomial: tuple[Atom, ...]) -> str:
        if not monomial:
            return "1"
        found = self.memo.get(monomial)
        if found is None:
            factors = sorted(monomial, key=self._depth) if len(monomial) > 1 else monomial
            found = self._atom(factors[0])
            for a in factors[1:]:
                found = self._times(found, self._atom(a))
            self.memo[monomial] = found
        return str(found)

    def _atom(self, a: Atom) -> str:
        if isinstance(a, (Size, Axis)):
            return self.sizes[a]
        if isinstance(a, Integer):
            return self._whole(self.value(a.value), a.value.dtype)
        value, divisor = self.index(a.value), self.index(a.divisor)
        return self._divided(a, value, divisor)

    def _divided(self, a: Quotient | Remainder, value: str, divisor: str) -> str:
        if _known(value, divisor):
            whole, rest = divmod(int(value), int(divisor))
            return str(whole if isinstance(a, Quotient) else rest)
        return self.emit(f"{'udiv' if isinstance(a, Quotient) else 'urem'} i64 {value}, {divisor}")

    def _whole(self, value: Value, dtype: str) -> str:
        return self.convert(value.text, dtype, "i64" if KINDS[dtype] == "i" else "u64", varying=False)

    def _depth(self, a: Atom) -> int:
        if isinstance(a, Axis):
            return self.depths.get(a, 0)
        if isinstance(a, Size):
            return 0
        if isinstance(a, Integer):
            return len(self.depths) + 1
        return max(map(self._depth, a.value.atoms() | a.divisor.atoms()), default=0)

    def _sum(self, terms: list[tuple[str, int]]) -> str:
        total = "0"
        for product, factor in terms:
            if factor == -1 and total != "0":
                total = self.emit(f"sub nsw i64 {total}, {product}")
            else:
                total = self.plus(total, self._times(product, str(factor)))
        return total

    def plus(self, a: str, b: str) -> str:
        """The sum of two indices."""
        if _known(a, b):
            return str(int(a) + int(b))
        return b if a == "0" else a if b == "0" else self.emit(f"add nsw i64 {a}, {b}")

    def _times(self, a: str, b: str) -> str:
        if _known(a, b):
            return str(int(a) * int(b))
        if "0" in (a, b):
            return "0"
        return b if a == "1" else a if b == "1" else self.emit(f"mul nsw i64 {a}, {b}")

    # -- indices in vector loops ----------------------------------------------------------------------

    def _varies(self, a: Atom) -> bool:
        """Whether a factor differs from lane to lane."""
        if isinstance(a, Size):
            return False
        if isinstance(a, Integer):
            return self.value(a.value).varying
        assert self.group is not None
        if isinstance(a, Axis):
            return a is self.group.axis
        return any(self._varies(b) for b in a.value.atoms() | a.divisor.atoms())

    def varies(self, x: Index) -> bool:
        """Whether an index differs from lane to lane."""
        if self.group is None:
            return False
        key = ("varies", x)
        found = self.memo.get(key)
        if found is None:
            found = self.memo[key] = any(self._varies(a) for m in x.terms for a in m)
        return bool(found)

    def stride(self, x: Index) -> Index | None:
        """By how much an index grows from lane to lane, None where that is no fixed number."""
        assert self.group is not None
        if any(isinstance(a, Integer) and self._varies(a) for a in x.atoms()):
            return None
        return x.coefficient(self.group.axis)

    def lane_indices(self, x: Index) -> list[str]:
        """What an index is in each lane; lanes without work have what one with work has."""
        assert self.group is not None
        key = ("lanes", x)
        found = self.memo.get(key)
        if found is None:
            stride = self.stride(x)
            if stride is not None:
                first, by = self.index(x), self.index(stride)
                found = [self.plus(first, self._times(by, self._offset(k))) for k in range(self.lanes)]
            else:
                found = [self._in_lane(x, k) for k in range(self.lanes)]
            self.memo[key] = found
        return list(found)

    def _valid(self, lane: int) -> bool | str:
        """Whether a lane has work to do, known or as a truth value; the first one always has."""
        assert self.group is not None
        left = self.group.left
        if left is None or lane == 0:
            return True
        if left[0] != "%":
            return lane < int(left)
        key = ("valid", lane)
        found = self.memo.get(key)
        if found is None:
            found = self.memo[key] = self.emit(f"icmp sgt i64 {left}, {lane}")
        return str(found)

    def _offset(self, lane: int) -> str:
        """The number of a lane, or that of the first one, which has work to do, where it has none."""
        valid = self._valid(lane)
        if isinstance(valid, bool):
            return str(lane) if valid else "0"
        key = ("offset", lane)
        found = self.memo.get(key)
        if found is None:
            found = self.memo[key] = self.emit(f"select i1 {valid}, i64 {lane}, i64 0")
        return str(found)

    def _in_lane(self, x: Index, lane: int) -> str:
        key = ("lane", lane, x)
        found = self.memo.get(key)
        if found is None:
            if self.varies(x):
                terms = sorted(x.terms.items(), key=lambda t: (not t[0], max(map(self._depth, t[0]), default=0)))
                found = self._sum([(self._product_in_lane(m, lane), c) for m, c in terms])
            else:
                found = self.index(x)
            self.memo[key] = found
        return str(found)

    def _product_in_lane(self, monomial: tuple[Atom, ...], lane: int) -> str:
        if not any(self._varies(a) for a in monomial):
            return self._product(monomial)
        out = "1"
        for a in sorted(monomial, key=self._depth):
            out = self._times(out, self._atom_in_lane(a, lane) if self._varies(a) else self._atom(a))
        return out

    def _atom_in_lane(self, a: Atom, lane: int) -> str:
        assert self.group is not None and not isinstance(a, Size)
        key = ("lane", lane, a)
        found = self.memo.get(key)
        if found is not None:
            return str(found)
        if isinstance(a, Axis):
            found = self.plus(self.sizes[a], self._offset(lane))
        elif isinstance(a, Integer):
            found = self._integer_in_lane(a, lane)
        else:
            found = self._divided(a, self._in_lane(a.value, lane), self._in_lane(a.divisor, lane))
        self.memo[key] = found
        return str(found)

    def _integer_in_lane(self, a: Integer, lane: int) -> str:
        assert self.group is not None
        value, dtype, valid = self.value(a.value), a.value.dtype, self._valid(lane)
        number = self.emit(f"extractelement {value.type} {value.text}, i64 {0 if valid is False else lane}")
        if isinstance(valid, str):
            first = self.emit(f"extractelement {value.type} {value.text}, i64 0")
            number = self.choose(valid, REGISTER[dtype], number, first)
        return self._whole(Value(number, REGISTER[dtype], varying=False), dtype)

    # -- expressions ----------------------------------------------------------------------------------

    def value(self, x: Scalar) -> Value:
        """What an expression is; expressions that have been computed here are not computed again."""
        memo = self.memo
        if isinstance(x, Local):
            return self.names[x.name]
        found = memo.get(id(x))
        if found is not None:
            return found
        stack = [x]
        while stack:
            y = stack[-1]
            missing = [a for a in operands(y) if id(a) not in memo and not isinstance(a, Local)]
            if missing:
                stack += reversed(missing)
                continue
            stack.pop()
            if id(y) not in memo:
                memo[id(y)] = self._computed(y)
        return memo[id(x)]

    def _computed(self, x: Scalar) -> Value:
        if isinstance(x, Constant):
            return Value(literal(x.value, x.dtype), REGISTER[x.dtype], varying=False)
        if isinstance(x, Element):
            return self._load(x)
        if isinstance(x, Position):
            return self._position(x)
        assert isinstance(x, Apply)
        args = [self.value(a) for a in x.args]
        return self._applied(x.op, x.dtype, x.args[0].dtype, args)

    def _applied(self, op: str, dtype: str, source: str, args: list[Value]) -> Value:
        if op in ARITHMETIC or op in COMPARISONS:
            varying = any(a.varying for a in args)
            texts = [self.spread(a).text for a in args] if varying else [a.text for a in args]
            if op in ARITHMETIC:
                text = self.operate(op, dtype, varying, texts)
            else:
                text = self.compare(op, source, varying, *texts)
        elif op == "cast":
            varying = args[0].varying
            text = self.convert(args[0].text, source, dtype, varying)
        elif op == "bits":
            varying = args[0].varying
            T = self.type_of(dtype, varying)
            text = args[0].text if args[0].type == T else self.emit(f"bitcast {args[0].type} {args[0].text} to {T}")
        elif op == "select":
            return self._selected(dtype, *args)
        else:
            return self._function(op, dtype, args)
        return Value(text, self.type_of(dtype, varying), varying)

    def _selected(self, dtype: str, condition: Value, yes: Value, no: Value) -> Value:
        varying = condition.varying or yes.varying or no.varying
        T = self.type_of(dtype, varying)
        if varying:
            yes, no = self.spread(yes), self.spread(no)
        text = self.emit(f"select {condition.type} {condition.text}, {T} {yes.text}, {T} {no.text}")
        return Value(text, T, varying)

    def _function(self, op: str, dtype: str, args: list[Value]) -> Value:
        expression = template(op, dtype)
        if expression is not None:
            names, memo = self.names, self.memo
            self.names, self.memo = {str(i): a for i, a in enumerate(args)}, {}
            out = self.value(expression)
            self.names, self.memo = names, memo
            return out
        T, name = REGISTER[dtype], libm(op, dtype)
        self.library.declare(f"{T} @{name}({', '.join([T] * len(args))}) nounwind willreturn memory(none)")
        if not any(a.varying for a in args):
            return Value(self.emit(f"call {T} @{name}({', '.join([f'{T} {a.text}' for a in args])})"), T, varying=False)
        lanes = [self.lanes_of(a) for a in args]
        calls = [
            self.emit(f"call {T} @{name}({', '.join([f'{T} {x}' for x in row])})") for row in zip(*lanes, strict=True)
        ]
        return self.gathered(calls, T)

    # -- lanes ------------------------------------------------------------------------------------------

    def spread(self, x: Value) -> Value:
        """A value as a vector: a single number stands in every lane."""
        if x.varying:
            return x
        T = f"<{self.lanes} x {x.type}>"
        if x.text[0] != "%":
            return Value(splat_literal(x.text, x.type), T, varying=True)
        key = ("spread", x.text)
        found = self.memo.get(key)
        if found is None:
            one = self.emit(f"insertelement {T} poison, {x.type} {x.text}, i64 0")
            found = self.emit(f"shufflevector {T} {one}, {T} poison, <{self.lanes} x i32> zeroinitializer")
            self.memo[key] = found
        return Value(str(found), T, varying=True)

    def lanes_of(self, x: Value) -> list[str]:
        """The numbers in the lanes, one by one."""
        if not x.varying:
            return [x.text] * self.lanes
        return [self.emit(f"extractelement {x.type} {x.text}, i64 {k}") for k in range(self.lanes)]

    def gathered(self, numbers: list[str], element: str) -> Value:
        """Numbers as the lanes of a vector."""
        T = f"<{self.lanes} x {element}>"
        out = "poison"
        for k, number in enumerate(numbers):
            out = self.emit(f"insertelement {T} {out}, {element} {number}, i64 {k}")
        return Value(out, T, varying=True)

    def _position(self, x: Position) -> Value:
        whole = x.dtype if KINDS[x.dtype] in "iu" else "i64"
        if not self.varies(x.index):
            text = self.convert(self.convert(self.index(x.index), "i64", whole, False), whole, x.dtype, False)
            return Value(text, REGISTER[x.dtype], varying=False)
        stride = self.stride(x.index)
        if stride is None:
            numbers = [self.convert(k, "i64", whole, False) for k in self.lane_indices(x.index)]
            out = self.gathered(numbers, REGISTER[whole]).text
        else:
            T = self.type_of(whole, varying=True)
            first, by = (self.convert(self.index(i), "i64", whole, False) for i in (x.index, stride))
            base, step = (self.spread(Value(v, REGISTER[whole], varying=False)).text for v in (first, by))
            steps = f"<{', '.join([f'{REGISTER[whole]} {k}' for k in range(self.lanes)])}>"
            if stride != 1:
                steps = self.emit(f"mul {T} {step}, {steps}")
            out = self.emit(f"add {T} {base}, {steps}")
        return Value(self.convert(out, whole, x.dtype, True), self.type_of(x.dtype, True), varying=True)

    # -- memory -----------------------------------------------------------------------------------------

    def address(self, buffer: Buffer, index: str) -> str:
        """Where an element of a buffer lies."""
        return self.place(self.pointers[buffer], buffer.dtype, index)

    def place(self, pointer: str, dtype: str, index: str) -> str:
        """Where an element of a type lies, counted from a pointer."""
        if index == "0":
            return pointer
        return self.emit(f"getelementptr inbounds {MEMORY[dtype]}, ptr {pointer}, i64 {index}")

    def _load(self, x: Element) -> Value:
        M, dtype = MEMORY[x.dtype], x.dtype
        if not self.varies(x.index):
            text = self.emit(f"load {M}, ptr {self.address(x.buffer, self.index(x.index))}")
            return self._loaded(text, dtype, varying=False)
        assert self.group is not None
        mask = self.group.mask
        if self.stride(x.index) == 1 and (mask is None or BITS[dtype] in self.target.masked):
            place, T = self.address(x.buffer, self.index(x.index)), f"<{self.lanes} x {M}>"
            align = BITS[dtype] // 8
            if mask is None:
                return self._loaded(self.emit(f"load {T}, ptr {place}, align {align}"), dtype, varying=True)
            B = f"<{self.lanes} x i1>"
            name = f"@llvm.masked.load.v{self.lanes}{_letter(dtype)}.p0"
            self.library.declare(f"{T} {name}(ptr, i32, {B}, {T})")
            arguments = f"ptr {place}, i32 {align}, {B} {mask}, {T} zeroinitializer"
            return self._loaded(self.emit(f"call {T} {name}({arguments})"), dtype, varying=True)
        places = [self.address(x.buffer, k) for k in self.lane_indices(x.index)]
        return self._loaded(self.gathered([self.emit(f"load {M}, ptr {p}") for p in places], M).text, dtype, True)

    def _loaded(self, text: str, dtype: str, varying: bool) -> Value:
        T = self.type_of(dtype, varying)
        if dtype == "b1":
            text = self.emit(f"icmp ne {f'<{self.lanes} x i8>' if varying else 'i8'} {text}, {self._zero(varying)}")
        return Value(text, T, varying)

    def _zero(self, varying: bool) -> str:
        return "zeroinitializer" if varying else "0"

    def store(self, buffer: Buffer, index: Index, value: Value) -> None:
        """Write an element of a buffer, in a vector loop one for each lane that has work to do."""
        M, dtype = MEMORY[buffer.dtype], buffer.dtype
        if dtype == "b1":
            T = f"<{self.lanes} x i8>" if value.varying else "i8"
            value = Value(self.emit(f"zext {value.type} {value.text} to {T}"), T, value.varying)
        varies = self.varies(index)
        if not varies and not value.varying:
            self.lines.append(f"  store {M} {value.text}, ptr {self.address(buffer, self.index(index))}")
            return
        assert self.group is not None
        align, mask = BITS[dtype] // 8, self.group.mask
        T, B = f"<{self.lanes} x {M}>", f"<{self.lanes} x i1>"
        dynamic = self.group.left is not None and self.group.left[0] == "%"
        contiguous = varies and self.stride(index) == 1
        if contiguous and (mask is None or dynamic or BITS[dtype] in self.target.masked):
            place, text = self.address(buffer, self.index(index)), self.spread(value).text
            if mask is None:
                self.lines.append(f"  store {T} {text}, ptr {place}, align {align}")
                return
            name = f"@llvm.masked.store.v{self.lanes}{_letter(dtype)}.p0"
            self.library.declare(f"void {name}({T}, ptr, i32, {B})")
            self.lines.append(f"  call void {name}({T} {text}, ptr {place}, i32 {align}, {B} {mask})")
            return
        places = [self.address(buffer, k) for k in self.lane_indices(index)]
        if dynamic:
            pointers = self.gathered(places, "ptr")
            name = f"@llvm.masked.scatter.v{self.lanes}{_letter(dtype)}.v{self.lanes}p0"
            self.library.declare(f"void {name}({T}, {pointers.type}, i32, {B})")
            arguments = f"{T} {self.spread(value).text}, {pointers.type} {pointers.text}, i32 {align}, {B} {mask}"
            self.lines.append(f"  call void {name}({arguments})")
            return
        for lane, (place, number) in enumerate(zip(places, self.lanes_of(value), strict=True)):
            if self._valid(lane):
                self.lines.append(f"  store {M} {number}, ptr {place}")


def _known(a: str, b: str) -> bool:
    return a[0] != "%" and b[0] != "%"


def _letter(dtype: str) -> str:
    return f"{'f' if KINDS[dtype] == 'f' else 'i'}{BITS[dtype]}"
