"""Lowering: a program becomes loop nests over typed buffers.

A program goes in, and the shapes of its variables where they depend on sizes that are given at run time; a `Lowered`
comes out, or the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

import fnflare.compiler.rules  # noqa: F401 -- registers the rules
from fnflare.compiler.block import Block, Module, NotLowered, machine_type
from fnflare.compiler.graph import Place, Stored, Value, strides_of
from fnflare.compiler.lowered import Lowered, Output
from fnflare.nest import Branch, Buffer, Contract, Repeat, Run, Sections, Statement, index, product
from fnflare.nest import Module as Nests
from fnflare.program.ir import Atom, Literal, Program, Var

__all__ = ["NotLowered", "lower"]


def lower(program: Program) -> Lowered:
    """Lower a program.

    Raises:
        NotLowered: an equation of it has no lowering.
    """
    module = Module()
    block = Block(module)
    inputs = []
    for v in program.inputs:
        shape, dtype = module.shape_of(v), machine_type(v.aval.dtype)
        buffer = module.buffer(dtype, product(shape), "input")
        inputs.append(buffer)
        block.env[v] = Value(Stored(shape, dtype, Place(buffer, index(0), strides_of(shape))))
    outputs = [_Answer(module, program, a, program.outputs[:k]) for k, a in enumerate(program.outputs)]
    for answer in outputs:
        if answer.place is not None and type(answer.atom) is Var and answer.atom not in program.inputs:
            block.targets.setdefault(answer.atom, answer.place)
    block.run(program.equations)
    for answer in outputs:
        if answer.place is not None:
            block.store(block.value(answer.atom), answer.place)
    body = tuple(block.statements())
    used = _buffers_of(body)
    lifetimes = _lifetimes(body, module.scratch)
    nests = Nests(
        program.name or "program",
        tuple([b for b in module.buffers if b in used]),
        (),
        tuple(module.kernels.all),
        body,
    )
    constants = tuple([(b, a) for b, a in module.constants.values() if b in used])
    return Lowered(nests, tuple(inputs), constants, tuple([a.output for a in outputs]), lifetimes, ())


class _Answer:
    """Where an output of the program goes."""

    def __init__(self, module: Module, program: Program, atom: Atom, before: Iterable[Atom]) -> None:
        self.atom = atom
        self.place: Place | None = None
        shape = module.shape_of(atom)
        aval = atom.aval
        source: Buffer | int | np.ndarray[Any, Any]
        if type(atom) is Literal:
            source = np.asarray(atom.value)
        elif atom in program.inputs:
            source = program.inputs.index(atom)
        else:
            dtype = machine_type(aval.dtype)
            source = module.buffer(dtype, product(shape), "output")
            self.place = Place(source, index(0), strides_of(shape))
        self.output = Output(source, shape, aval.dtype)


def _parts_of(s: Statement) -> list[Buffer]:
    if isinstance(s, Run):
        return [p.buffer for p in s.parts]
    if isinstance(s, Contract):
        return [s.out.buffer, s.a.buffer, s.b.buffer]
    if isinstance(s, Repeat):
        own = [] if s.condition is None else [s.condition.buffer]
        return own + [b for inner in s.body for b in _parts_of(inner)]
    if isinstance(s, Branch):
        return [s.which.buffer, *[b for body in s.bodies for inner in body for b in _parts_of(inner)]]
    if isinstance(s, Sections):
        return [b for body in s.bodies for inner in body for b in _parts_of(inner)]
    return []


def _buffers_of(body: Iterable[Statement]) -> set[Buffer]:
    return {b for s in body for b in _parts_of(s)}


def _lifetimes(body: Iterable[Statement], scratch: set[Buffer]) -> dict[Buffer, tuple[int, int]]:
    out: dict[Buffer, tuple[int, int]] = {}
    for k, s in enumerate(body):
        for b in _parts_of(s):
            if b in scratch:
                out[b] = (out[b][0] if b in out else k, k)
    return out
