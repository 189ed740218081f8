"""What the tests of programs share: making one of a function, and reading what is in it."""

import numpy as np

import fnflare as ff
from fnflare.core import aval_of
from fnflare.program import evaluate, run, simplify, trace_program


def program_of(f, *args):
    """The program of a function of arrays with one answer."""
    return trace_program(lambda *xs: [f(*xs)], [aval_of(a) for a in args]).program


def names(program):
    """The primitives of a program, in order."""
    return [e.prim.name for e in program.equations]


def simplified(f, *args):
    """The primitives that are left of a function, after a check that the program still computes the same."""
    program = program_of(f, *args)
    simple = simplify(program)
    same_answers(program, simple, args)
    return names(simple)


def same_answers(program, simple, args, rtol=1e-12):
    """Two programs have the same interface and, on these arguments, the same answers."""
    assert simple.inputs == program.inputs
    assert simple.out_avals == program.out_avals
    with np.errstate(all="ignore"):
        expected, got = run(program, args), run(simple, args)
    # An answer is no more precise than the narrowest number that it was made of.
    dtypes = [v.aval.dtype for e in program.equations for v in e.outputs] + [aval_of(a).dtype for a in args]
    tolerance = max([rtol, *[8 * float(np.finfo(d).eps) for d in dtypes if d.kind in "fc"]])
    for a, b in zip(got, expected, strict=True):
        assert np.shape(a) == np.shape(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)


def same_gradients(program, simple, args, rtol=1e-10):
    """Derivatives of two programs agree, to first order in reverse mode and to second, forward over reverse."""

    def loss(p):
        return lambda *xs: np.sum(np.sin(evaluate(p, xs)[0]))

    everything = tuple(range(len(args)))
    tangents = tuple([np.ones_like(a) for a in args])
    expected, got = [
        ff.jvp(lambda *xs, p=p: ff.grad(loss(p), argnums=everything)(*xs), args, tangents) for p in (program, simple)
    ]
    for a, b in zip(ff.tree.leaves(got), ff.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
