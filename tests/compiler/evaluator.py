"""A slow reference interpreter of the nest language: the oracle of everything that renders it.

A module or an expression goes in together with the numbers that it works on; each operation is done by NumPy alone, in
its own type, in the order in which it is written. ``fma`` is rounded once in both types: for float32 the exact product
and the sum are taken in float64 and rounded to odd, so that rounding to float32 afterwards is right; for float64 the
product and the sum are split exactly (Dekker, 1971; Boldo and Melquiond, 2008) and the lanes whose exponents are too
extreme for that are done with fractions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from fnflare import kernels
from fnflare.nest import (
    COMPARISONS,
    DTYPES,
    Accumulator,
    Apply,
    Axis,
    Branch,
    Buffer,
    Constant,
    Contract,
    Element,
    Index,
    Kernel,
    Let,
    Local,
    Loop,
    Module,
    Part,
    Position,
    Quotient,
    Remainder,
    Repeat,
    Run,
    Scalar,
    Sections,
    Size,
    Statement,
    Store,
    Update,
    walk,
)

__all__ = ["Environment", "evaluate", "evaluate_index", "evaluate_scalar"]

Array = np.ndarray[Any, Any]


@dataclass
class Environment:
    """What names stand for while something is evaluated.

    Attributes:
        buffers: the memory of each buffer, one-dimensional and of its type.
        numbers: the values of sizes and of loops' variables.
        locals: the values of `Let` and of `Accumulator`, or arrays of them, for which an expression is then
            evaluated all at once.
    """

    buffers: dict[Buffer, Array] = field(default_factory=dict)
    numbers: dict[Axis | Size, Any] = field(default_factory=dict)
    locals: dict[str, Any] = field(default_factory=dict)


# -- expressions --------------------------------------------------------------------------------------


def evaluate_scalar(scalar: Scalar, environment: Environment) -> Any:
    """The value of an expression, or the array of its values where names stand for arrays."""
    values: dict[int, Any] = {}
    with np.errstate(all="ignore"):
        for x in walk([scalar]):
            values[id(x)] = _value(x, values, environment)
    return values[id(scalar)]


def evaluate_index(value: Index, environment: Environment) -> Any:
    """The value of an index."""
    total: Any = 0
    for monomial, factor in value.terms.items():
        term: Any = factor
        for atom in monomial:
            if isinstance(atom, (Axis, Size)):
                term = term * environment.numbers[atom]
            elif isinstance(atom, Quotient):
                term = term * (evaluate_index(atom.value, environment) // evaluate_index(atom.divisor, environment))
            elif isinstance(atom, Remainder):
                term = term * (evaluate_index(atom.value, environment) % evaluate_index(atom.divisor, environment))
            else:
                number = evaluate_scalar(atom.value, environment)
                term = term * (int(number) if np.ndim(number) == 0 else number.astype(np.int64))
        total = total + term
    return total


def _value(x: Scalar, values: dict[int, Any], environment: Environment) -> Any:
    dtype = DTYPES[x.dtype]
    if isinstance(x, Constant):
        return dtype.type(x.value)
    if isinstance(x, Local):
        return environment.locals[x.name]
    if isinstance(x, Position):
        return np.asarray(evaluate_index(x.index, environment)).astype(dtype)[()]
    if isinstance(x, Element):
        place = evaluate_index(x.index, environment)
        memory = environment.buffers[x.buffer]
        if np.any(np.less(place, 0)) or np.any(np.greater_equal(place, memory.size)):
            raise IndexError(f"{x.buffer.name}[{place}]: it has {memory.size} elements")
        return memory[place]
    assert isinstance(x, Apply)
    args = [values[id(a)] for a in x.args]
    answer = _apply(x.op, args, dtype)
    if answer.dtype != dtype:
        raise TypeError(f"{x.op} gave {answer.dtype}, {dtype} was expected")
    return answer


def _apply(op: str, args: list[Any], dtype: np.dtype[Any]) -> Any:
    if op == "select":
        return np.where(*args)[()]
    if op == "cast":
        return np.asarray(args[0]).astype(dtype)[()]
    if op == "bits":
        return np.asarray(args[0]).view(dtype)[()]
    if op in COMPARISONS:
        return getattr(np, op)(*args)
    kind = dtype.kind
    if op == "fma":
        return _fma(*args)
    if kind in "iu" and op in ("floor_divide", "remainder"):
        safe = np.where(args[1] == 0, dtype.type(1), args[1])
        return np.where(args[1] == 0, dtype.type(0), getattr(np, op)(args[0], safe))[()]
    if op == "multiply_high":
        return _multiply_high(args[0], args[1], dtype)
    if dtype == np.bool_ and op in _TRUTH:
        return _TRUTH[op](*args)
    function = _SPECIAL.get(op) or _NUMPY.get(op) or getattr(np, op)
    return np.asarray(function(*args)).astype(dtype, copy=False)[()]


def _multiply_high(a: Any, b: Any, dtype: np.dtype[Any]) -> Any:
    width = dtype.itemsize * 8
    # Python's own integers, which do not wrap around
    return np.asarray((np.asarray(a).astype(object) * np.asarray(b).astype(object)) >> width).astype(dtype)[()]


_TRUTH = {
    "and": np.logical_and,
    "or": np.logical_or,
    "xor": np.logical_xor,
    "not": np.logical_not,
    "add": np.logical_or,
    "multiply": np.logical_and,
    "maximum": np.logical_or,
    "minimum": np.logical_and,
}
_NUMPY: dict[str, Any] = {
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shift_left": np.left_shift,
    "shift_right": np.right_shift,
}
_SPECIAL: dict[str, Any] = {
    "erf": kernels.erf,
    "logistic": lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), x.dtype.type(1)) / (1 + np.exp(-np.abs(x))),
    "softplus": lambda x: np.logaddexp(x, x.dtype.type(0)),
    "rsqrt": lambda x: 1 / np.sqrt(x),
}


# -- fma ------------------------------------------------------------------------------------------------


def _fma(a: Any, b: Any, c: Any) -> Any:
    a, b, c = np.broadcast_arrays(a, b, c)
    if a.dtype == np.float32:
        high, low = _two_sum(a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64))
        return _to_odd(high, low).astype(np.float32)[()]
    if a.dtype != np.float64:
        return a * b + c
    answer = _fma_split(a, b, c)
    easy = np.ones(a.shape, bool)
    for x, limit in ((a, 400), (b, 400), (c, 800)):
        exponent = np.frexp(x)[1]
        easy &= (x == 0) | ((exponent > -limit) & (exponent < limit)) | ~np.isfinite(x)
    special = ~(np.isfinite(a) & np.isfinite(b) & np.isfinite(c)) | (a == 0) | (b == 0) | (c == 0) & easy
    answer = np.where(special, a * b + c, answer)
    hard = np.asarray(~easy & ~special)
    if hard.any():
        answer[hard] = [_fma_exact(*t) for t in zip(a[hard].tolist(), b[hard].tolist(), c[hard].tolist(), strict=True)]
    return answer[()]


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """A sum and what rounding took from it."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _to_odd(total: Array, rest: Array) -> Array:
    """An unevaluated sum rounded to odd: whatever is rounded to fewer bits later is then right."""
    even = (np.asarray(total).view(np.int64) & 1) == 0
    towards = np.nextafter(total, np.where(rest > 0, np.inf, -np.inf))
    return np.where(even & (rest != 0) & np.isfinite(total), towards, total)


def _fma_split(a: Array, b: Array, c: Array) -> Array:
    def halves(x: Array) -> tuple[Array, Array]:
        scaled = x * 134217729.0
        high = scaled - (scaled - x)
        return high, x - high

    product = a * b
    (a1, a0), (b1, b0) = halves(a), halves(b)
    error = ((a1 * b1 - product) + a1 * b0 + a0 * b1) + a0 * b0
    high, low = _two_sum(c, error)
    top, middle = _two_sum(product, high)
    return top + _to_odd(*_two_sum(low, middle))


def _fma_exact(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")


# -- statements -----------------------------------------------------------------------------------------

#: What an accumulator begins with and how it goes on.
_BEGIN: dict[str, Any] = {
    "add": lambda d: d.type(0),
    "multiply": lambda d: d.type(1),
    "maximum": lambda d: d.type(-np.inf) if d.kind == "f" else d.type(False) if d.kind == "b" else np.iinfo(d).min,
    "minimum": lambda d: d.type(np.inf) if d.kind == "f" else d.type(True) if d.kind == "b" else np.iinfo(d).max,
    "and": lambda d: d.type(True) if d.kind == "b" else np.invert(d.type(0)),
    "or": lambda d: d.type(0),
}


def evaluate(module: Module, buffers: dict[Buffer, Array], sizes: dict[Size, int]) -> None:
    """Run a module.

    Args:
        module: what to run.
        buffers: an array for each of its buffers, one-dimensional, of its type and size; it is written in place.
            Scratch memory may be left out.
        sizes: the number for each of its sizes.
    """
    environment = Environment(dict(buffers), dict(sizes))
    for b in module.buffers:
        size = evaluate_index(b.size, environment)
        memory = environment.buffers.setdefault(b, _garbage(b, size))
        if memory.shape != (size,) or memory.dtype != DTYPES[b.dtype]:
            raise ValueError(f"{b.name}: got {memory.dtype}{memory.shape}, expected {b.dtype}({size},)")
    _run_all(module.body, environment)


def _garbage(buffer: Buffer, size: int) -> Array:
    """Memory that nobody has written: all bits are ones, which is NaN, so that what reads it shows."""
    return np.full(size * DTYPES[buffer.dtype].itemsize, 1 if buffer.dtype == "b1" else 255, np.uint8).view(
        DTYPES[buffer.dtype]
    )


def _run_all(body: tuple[Statement, ...], environment: Environment) -> None:
    for statement in body:
        _STATEMENTS[type(statement)](statement, environment)


def _let(s: Let, env: Environment) -> None:
    env.locals[s.name] = evaluate_scalar(s.value, env)


def _store(s: Store, env: Environment) -> None:
    memory, place = env.buffers[s.buffer], evaluate_index(s.index, env)
    if s.buffer.role in ("input", "constant"):
        raise ValueError(f"{s.buffer.name} is read only")
    if not 0 <= place < memory.size:
        raise IndexError(f"{s.buffer.name}[{place}] = ..: it has {memory.size} elements")
    value = evaluate_scalar(s.value, env)
    if s.value.dtype != s.buffer.dtype:
        raise TypeError(f"{s.buffer.name} holds {s.buffer.dtype}, not {s.value.dtype}")
    memory[place] = value


def _accumulator(s: Accumulator, env: Environment) -> None:
    dtype = DTYPES[s.dtype]
    env.locals[s.name] = dtype.type(_BEGIN[s.op](dtype))
    env.locals[s.name, "op"] = s.op  # type: ignore[index]


def _update(s: Update, env: Environment) -> None:
    held = env.locals[s.name]
    with np.errstate(all="ignore"):
        op = env.locals[s.name, "op"]  # type: ignore[index]
        env.locals[s.name] = _apply(op, [held, evaluate_scalar(s.value, env)], held.dtype)


def _loop(s: Loop, env: Environment) -> None:
    for i in range(evaluate_index(s.axis.extent, env)):
        env.numbers[s.axis] = i
        _run_all(s.body, env)


def _memory(part: Part, dtype: str, size: int, env: Environment) -> Array:
    """The memory of a part, as numbers of a type; all there is where the size is 0, which says that it is unknown."""
    start = evaluate_index(part.start, env)
    memory = env.buffers[part.buffer].view(DTYPES[dtype])[start:]
    if start < 0 or memory.size < size:
        raise IndexError(f"{part.buffer.name} from {start}: {size} elements wanted, {memory.size} are there")
    return memory[:size] if size else memory


def _run(s: Run, env: Environment) -> None:
    kernel = s.kernel
    numbers: dict[Axis | Size, Any] = {
        size: evaluate_index(value, env) for size, value in zip(kernel.sizes, s.sizes, strict=True)
    }
    inner = Environment(numbers=numbers)
    for parameter, part in zip(kernel.parameters, s.parts, strict=True):
        size = evaluate_index(parameter.size, inner)
        inner.buffers[parameter] = _memory(part, parameter.dtype, size, env)
    _kernel(kernel, inner)


def _kernel(kernel: Kernel, env: Environment) -> None:
    for i in range(1 if kernel.axis is None else evaluate_index(kernel.axis.extent, env)):
        for b in kernel.locals:
            env.buffers[b] = _garbage(b, evaluate_index(b.size, env))
        if kernel.axis is not None:
            env.numbers[kernel.axis] = i
        _run_all(kernel.body, env)


def _contract(s: Contract, env: Environment) -> None:
    extents = [evaluate_index(loop.extent, env) for loop in s.loops]
    places = np.indices(extents).reshape(len(extents), -1)

    def offsets(part: Part, strides: list[Index]) -> Array:
        numbers = np.array([evaluate_index(i, env) for i in strides], np.int64)
        return numbers @ places + evaluate_index(part.start, env)

    out = offsets(s.out, [loop.out for loop in s.loops])
    a = env.buffers[s.a.buffer][offsets(s.a, [loop.a for loop in s.loops])]
    b = env.buffers[s.b.buffer][offsets(s.b, [loop.b for loop in s.loops])]
    memory = env.buffers[s.out.buffer]
    if not s.accumulate:
        memory[out] = 0
    with np.errstate(all="ignore"):
        np.add.at(memory, out, a * b)


def _first(part: Part, env: Environment) -> Any:
    return _memory(part, part.buffer.dtype, 1, env)[0]


def _repeat(s: Repeat, env: Environment) -> None:
    turn = 0
    while _first(s.condition, env) if s.condition is not None else turn < evaluate_index(s.axis.extent, env):
        env.numbers[s.axis] = turn
        _run_all(s.body, env)
        turn += 1


def _branch(s: Branch, env: Environment) -> None:
    _run_all(s.bodies[min(max(int(_first(s.which, env)), 0), len(s.bodies) - 1)], env)


def _sections(s: Sections, env: Environment) -> None:
    for body in s.bodies:
        _run_all(body, env)


_STATEMENTS: dict[type, Any] = {
    Let: _let,
    Store: _store,
    Accumulator: _accumulator,
    Update: _update,
    Loop: _loop,
    Run: _run,
    Contract: _contract,
    Repeat: _repeat,
    Branch: _branch,
    Sections: _sections,
}
