"""What the tests of symbolic sizes share: the law that programs with one key have each other's shapes."""

from itertools import pairwise

import numpy as np

from fnflare.compiler.dims import evaluate
from fnflare.compiler.generic_key import generic_key
from fnflare.compiler.index_parts import Cut, Picked, Place
from fnflare.compiler.sizes import _Walk, symbolic_shapes
from fnflare.program.ir import Literal, Program


def everything(program):
    """The variables, the constants and the equations of a program and of those in it, each once, in order."""
    found, seen = [], set()

    def add(x, key):
        if key not in seen:
            seen.add(key)
            found.append(x)

    def walk(p):
        if id(p) in seen:
            return
        seen.add(id(p))
        for v in p.inputs:
            add(v, v)
        for e in p.equations:
            for a in e.inputs:
                add(a, id(a) if isinstance(a, Literal) else a)
            for v in e.outputs:
                add(v, v)
            found.append(e)
            for value in (e.params or {}).values():
                for inner in value if isinstance(value, tuple) else (value,):
                    if isinstance(inner, Program):
                        walk(inner)

    walk(program)
    return found


def at(shape, values):
    return tuple([evaluate(d, values) for d in shape])


def same_sizes(program, sizes, other):
    """The symbolic sizes of a program, at the lengths of another one with the same key, are the other's own."""
    values = sizes.values([v.aval.shape for v in other.inputs])
    assert all(n >= 2 for n in values.values())
    right(program, sizes, other, values)


def right_with_all_free(program):
    """What the rules say of a program is right while every size is a symbol, as it is before any is made a number."""
    walk = _Walk(program, symbolic=True)
    walk.run()
    right(program, walk.answer({}), program, {s: walk.dims.witness[s] for s in walk.dims.witness})


def right(program, sizes, other, values):
    """The sizes of a program, with these values of the symbols, are those of the other."""
    for a, b in zip(everything(program), everything(other), strict=True):
        if not isinstance(a, tuple):
            assert at(sizes.shape(a), values) == b.aval.shape
            if isinstance(a, Literal) and id(a) in sizes.iotas:
                same_iota(sizes.iotas[id(a)], at(sizes.shape(a), values), values, b.value)
        elif a.prim.name == "scan":
            assert evaluate(sizes.length(a), values) == b.params["length"]
        elif a.prim.name in ("getitem", "index_add", "index_set"):
            same_index(sizes, sizes.index(a), values, b)


def same_iota(iota, shape, values, array):
    counted = evaluate(iota.start, values) + iota.step * np.arange(shape[iota.axis])
    wanted = np.broadcast_to(np.expand_dims(counted, [i for i in range(len(shape)) if i != iota.axis]), shape)
    np.testing.assert_array_equal(wanted, array)


def same_index(sizes, parts, values, equation):
    """The parts of an index read what the index of the other program reads."""
    static = equation.params["index"]
    given = list(static) if isinstance(static, tuple) else [static]
    shape, axis = equation.inputs[0].aval.shape, 0
    where = [i for i, g in enumerate(given) if g is Ellipsis]
    rest = len(shape) - sum(isinstance(p, Place) or (isinstance(p, Picked) and p.axes) or 0 for p in parts)
    rest -= sum(isinstance(g, slice) for g in given)
    full = [slice(None)] * rest
    given = [*given[: where[0]], *full, *given[where[0] + 1 :]] if where else [*given, *full]
    for k, p in enumerate(parts):
        if isinstance(p, Cut):
            wanted = range(shape[axis])[given[k]]
            start, size = evaluate(p.start, values), evaluate(p.size, values)
            assert list(wanted) == [start + p.step * i for i in range(size)]
        elif isinstance(p, Place):
            assert evaluate(p.at, values) == range(shape[axis])[given[k]]
        elif isinstance(p, Picked) and not isinstance(p.array, int) and id(p.array) in sizes.iotas:
            same_iota(sizes.iotas[id(p.array)], at(sizes.literals[id(p.array)], values), values, given[k])
        axis += p.axes if isinstance(p, Picked) else isinstance(p, (Cut, Place))
    assert axis == len(shape)


def generalises(make, lengths):
    """Assert that the programs of several lengths have one key, and each other's shapes; returns the first's sizes."""
    programs = [make(n) for n in lengths]
    sizes = [symbolic_shapes(p) for p in programs]
    keys = [generic_key(p, s) for p, s in zip(programs, sizes, strict=True)]
    assert keys[0] is not None
    assert len(set(keys)) == 1
    obeys(list(zip(programs, sizes, keys, strict=True)))
    return sizes[0]


def obeys(known):
    """The law itself, for programs with their sizes and keys: those with one key have each other's shapes."""
    for p, s, _ in known:
        same_sizes(p, s, p)
    for (p, s, key), (q, t, other) in pairwise(sorted(known, key=lambda k: k[2] or "")):
        if key == other and key is not None:
            same_sizes(p, s, q)
            same_sizes(q, t, p)


def symbols_of(sizes):
    """The sizes that are no numbers, as text."""
    return {str(d) for shape in sizes.shapes.values() for d in shape if d.constant is None}
