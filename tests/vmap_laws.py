"""What the tests of batching rules share: where the axis of the examples goes, and what ran."""

import numpy as np
from drawing import Draws

from fnflare import tree
from fnflare.core import AbstractTrace, aval_of

RNG = Draws(5)


def normal(*shape):
    return RNG.standard_normal(shape)


def with_axis(shape, axis, size=3):
    """A shape with an axis of examples, which may be counted from the end; None for none."""
    if axis is None:
        return tuple(shape)
    axis %= len(shape) + 1
    return (*shape[:axis], size, *shape[axis:])


def close(ours, theirs, tolerance=1e-10):
    assert tree.structure(ours) == tree.structure(theirs)
    for a, b in zip(tree.leaves(ours), tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def operations(f, *args):
    """Each primitive that `f` runs on arrays such as these, with the shapes of its arguments, in order."""
    seen = []

    def observe(prim, avals, params, ans):
        seen.append((prim.name, *[a.shape for a in avals]))

    trace = AbstractTrace(f, observe)
    with trace:
        f(*[trace.tracer(aval_of(a)) for a in args])
    return seen


def products(f, *args):
    """The shapes of the arguments of each matrix product that `f` runs."""
    return [shapes for name, *shapes in operations(f, *args) if name == "matmul"]
