"""What is needed of a lowered program to call its code, as text: the program without its loop nests.

A `Lowered` goes in, JSON comes out, and of that and an equal program (`fnflare.compiler.generic_key`) a `Lowered`
again, whose module has buffers and sizes and an empty body. Constants and what becomes of answers are those of the
program at hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from fnflare.compiler.layout import work_of
from fnflare.compiler.lowered import Lowered, Output, constant_output
from fnflare.nest import Atom, Buffer, Index, Module, Quotient, Remainder, Size
from fnflare.program.ir import Literal, Program

__all__ = ["described", "restored"]


def described(lowered: Lowered, program: Program) -> str | None:
    """A lowered program as text; None where it has a constant that is not the program's.

    Args:
        lowered: what was made of `program`.
        program: the program, of which constants are told by their numbers.
    """
    buffers = lowered.module.buffers
    numbers = {b: k for k, b in enumerate(buffers)}
    known: dict[Any, int] = {}
    arrays = list(_constants(program))
    for k, array in enumerate(arrays):
        known.setdefault(_identity(array), k)
    constants = []
    for b, array in lowered.constants:
        number = known.get(_identity(array))
        if number is None:
            number = _twin(array, arrays)
        if number is None:
            return None
        constants.append([numbers[b], number])
    outputs: list[list[Any]] = []
    for o in lowered.outputs:
        source = numbers[o.source] if isinstance(o.source, Buffer) else None
        outputs.append([source, o.source if isinstance(o.source, int) else None, *map(_terms, o.shape)])
    text = {
        "buffers": [[b.dtype, b.role, lowered.lifetimes.get(b), _terms(b.size)] for b in buffers],
        "inputs": [numbers.get(b, [b.dtype, _terms(b.size)]) for b in lowered.inputs],
        "constants": constants,
        "outputs": outputs,
        "sizes": [[s.name, number, axis] for s, number, axis in lowered.sizes],
        "work": _terms(work_of(lowered)),
    }
    return json.dumps(text, separators=(",", ":"))


def restored(text: str, program: Program) -> Lowered:
    """What a text says, for a program that is equal to the one it was made for.

    Raises:
        ValueError, TypeError, KeyError, IndexError: it is not such a text.
    """
    found = json.loads(text)
    buffers = [Buffer(f"b{k}", dtype, _index(n), role) for k, (dtype, role, _, n) in enumerate(found["buffers"])]
    lifetimes = {b: (life[0], life[1]) for b, (_, _, life, _) in zip(buffers, found["buffers"], strict=True) if life}
    inputs = [buffers[x] if isinstance(x, int) else Buffer("in", x[0], _index(x[1]), "input") for x in found["inputs"]]
    arrays = list(_constants(program)) if found["constants"] else []
    # What is overwritten, where arguments are, may be an array that the function closes over.
    copies = any(b.role == "output" for b in inputs)
    constants = []
    for number, which in found["constants"]:
        array = arrays[which]
        made = np.array(array, order="C") if copies else np.ascontiguousarray(array).reshape(array.shape)
        constants.append((buffers[number], made))
    outputs = []
    for (made, given, *shape), atom in zip(found["outputs"], program.outputs, strict=True):
        whole = tuple([_index(n) for n in shape])
        if type(atom) is Literal:
            outputs.append(constant_output(atom, whole))
        else:
            outputs.append(Output(buffers[made] if given is None else given, whole, atom.aval.dtype))
    sizes = tuple([(Size(name), number, axis) for name, number, axis in found["sizes"]])
    module = Module(program.name or "program", tuple(buffers), tuple([s for s, _, _ in sizes]), (), ())
    work = _index(found["work"])
    return Lowered(module, tuple(inputs), tuple(constants), tuple(outputs), lifetimes, sizes, work)


# -- constants ---------------------------------------------------------------------------------------


def _constants(program: Program) -> Iterator[np.ndarray[Any, Any]]:
    """The arrays that a program holds, in the order of its equations: those of equal programs are equal in turn."""
    for e in program.equations:
        for a in e.inputs:
            if type(a) is Literal and a.aval.shape:
                yield np.asarray(a.value)
        for name in sorted(e.params or ()):
            yield from _held((e.params or {})[name])


def _held(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """The arrays in a parameter of an equation."""
    if isinstance(value, Program):
        yield from _constants(value)
    elif isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, (tuple, list)):
        for x in value:
            yield from _held(x)


def _identity(array: np.ndarray[Any, Any]) -> Any:
    """What two arrays share that hold the same elements because they are the same memory, or are few and equal."""
    if array.nbytes <= 4096:
        return array.dtype.str, array.shape, array.tobytes()
    return array.dtype.str, array.shape, array.strides, array.__array_interface__["data"][0]


def _twin(array: np.ndarray[Any, Any], arrays: list[np.ndarray[Any, Any]]) -> int | None:
    """The number of an array with the same elements in memory of its own: lowering copies what has gaps."""
    for k, a in enumerate(arrays):
        if a.shape == array.shape and a.dtype == array.dtype and a.tobytes() == array.tobytes():
            return k
    return None


# -- sizes -------------------------------------------------------------------------------------------


def _terms(value: Index) -> Any:
    """An index of sizes: its number, or its terms, each with the factors."""
    known = value.constant
    return known if known is not None else [[c, *map(_factor, m)] for m, c in value.terms.items()]


def _factor(a: Atom) -> Any:
    if isinstance(a, Size):
        return a.name
    assert isinstance(a, (Quotient, Remainder))
    return ["/" if isinstance(a, Quotient) else "%", _terms(a.value), _terms(a.divisor)]


def _index(terms: Any) -> Index:
    if isinstance(terms, int):
        return Index({(): terms} if terms else {})
    return Index({tuple([_atom(a) for a in factors]): c for c, *factors in terms})


def _atom(factor: Any) -> Atom:
    if isinstance(factor, str):
        return Size(factor)
    sign, value, divisor = factor
    return (Quotient if sign == "/" else Remainder)(_index(value), _index(divisor))
