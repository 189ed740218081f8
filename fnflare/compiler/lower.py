"""Lowering: a program becomes loop nests over typed buffers.

A program goes in, and the shapes of its variables where they depend on sizes that are given at run time; a `Lowered`
comes out, or the reason why there is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import fnflare.compiler.rules  # noqa: F401 -- registers the rules
from fnflare.compiler.block import Block, Module, NotLowered, machine_type
from fnflare.compiler.graph import Place, Stored, Value, strides_of
from fnflare.compiler.in_place import kernels_of
from fnflare.compiler.independence import buffers_of, side_by_side, touched
from fnflare.compiler.lowered import Lowered, Output, constant_output
from fnflare.compiler.naming import of_input
from fnflare.compiler.recycling import recycled
from fnflare.compiler.sizes import Sizes, sizes_of
from fnflare.nest import Buffer, Statement, index, product
from fnflare.nest import Module as Nests
from fnflare.program.ir import Atom, Literal, Program, Var

__all__ = ["NotLowered", "lower"]


def lower(program: Program, sizes: Sizes | None = None, names: Mapping[int, str] | None = None) -> Lowered:
    """Lower a program.

    Args:
        program: the program.
        sizes: its sizes, by default what `fnflare.compiler.sizes.symbolic_shapes` finds.
        names: what constant arrays are called in print, by their ``id``.

    Raises:
        NotLowered: an equation of it has no lowering.
    """
    sizes = sizes_of(program) if sizes is None else sizes
    module = Module(sizes, names)
    block = Block(module)
    inputs = []
    for v, name in zip(program.inputs, program.input_names, strict=True):
        shape, dtype = module.shape_of(v), machine_type(v.aval.dtype)
        buffer = module.buffer(dtype, product(shape), "input", of_input(name))
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
    body = recycled(side_by_side(block.statements()), module.scratch)
    used = buffers_of(body)
    lifetimes = _lifetimes(body, module.scratch)
    nests = Nests(
        program.name or "program",
        tuple([b for b in module.buffers if b in used]),
        tuple([s for s, _, _ in sizes.sizes]),
        tuple(kernels_of(body)),
        body,
    )
    constants = tuple([(b, a) for b, a in module.constants.values() if b in used])
    return Lowered(nests, tuple(inputs), constants, tuple([a.output for a in outputs]), lifetimes, sizes.sizes)


class _Answer:
    """Where an output of the program goes."""

    def __init__(self, module: Module, program: Program, atom: Atom, before: Iterable[Atom]) -> None:
        self.atom = atom
        self.place: Place | None = None
        shape = module.shape_of(atom)
        aval = atom.aval
        source: Buffer | int
        if type(atom) is Literal:
            self.output = constant_output(atom, shape)
            return
        if atom in program.inputs:
            source = program.inputs.index(atom)
        else:
            dtype = machine_type(aval.dtype)
            source = module.buffer(dtype, product(shape), "output", "out")
            self.place = Place(source, index(0), strides_of(shape))
        self.output = Output(source, shape, aval.dtype)


def _lifetimes(body: Iterable[Statement], scratch: set[Buffer]) -> dict[Buffer, tuple[int, int]]:
    out: dict[Buffer, tuple[int, int]] = {}
    for k, s in enumerate(body):
        for b in touched(s)[0]:
            if b in scratch:
                out[b] = (out[b][0] if b in out else k, k)
    return out
