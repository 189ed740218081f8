"""Outputs that nobody uses are not made: in loops, branches and calls, and in what those carry."""

import numpy as np
import pytest
from laws import close

import fnflare as ff

XS = np.arange(6.0).reshape(3, 2)


def simplified(fun, *args):
    return ff.make_program(fun, simplify=True)(*args)


def only(program, name):
    (equation,) = [e for e in program.equations if e.prim.name == name]
    return equation


def names(program):
    return [e.prim.name for e in program.equations]


def same(fun, *args):
    expected = fun(*args)
    with ff.config.override(use_native=False):
        close(ff.jit(fun)(*args), expected, rtol=1e-14, atol=0)
    # A last bit of a tanh near 1 counts for much more in its derivative, 1 - h * h.
    close(ff.jit(fun)(*args), expected, rtol=1e-11, atol=0)


def test_stacks_of_a_scan():
    def fun(c):
        _, (_, doubled) = ff.scan(lambda c, x: (np.tanh(c + x), (np.sin(c), c * c)), c, XS)
        return doubled

    scan = only(simplified(fun, XS[0]), "scan")
    assert len(scan.outputs) == 2  # the carry, which the stack needs, and the stack
    assert "sin" not in names(scan.params["program"])
    same(fun, XS[0])


def test_carries_of_a_scan_and_what_they_read():
    def fun(c, table):
        def step(carry, x):
            a, b = carry
            return (np.tanh(a + x), np.cos(b * a + table[0])), None

        return ff.scan(step, (c, c), XS)[0][0]

    scan = only(simplified(fun, XS[0], XS), "scan")
    assert (len(scan.outputs), scan.params["carry"]) == (1, 1)
    assert names(scan.params["program"]) == ["add", "tanh"]
    same(fun, XS[0], XS)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_carry_that_is_handed_through(reverse):
    def fun(c):
        return ff.scan(lambda carry, x: ((carry[1], carry[0]), carry[0] + x), (c, c * 2), XS, reverse=reverse)[1]

    same(fun, XS[0])


def test_outputs_of_branches():
    def fun(p, x, y):
        return ff.cond(p, lambda x, y: (x + 1, np.sin(y)), lambda x, y: (x * 2, np.cos(y)), x, y)[0]

    cond = only(simplified(fun, True, XS, XS), "cond")
    assert len(cond.outputs) == 1
    assert len(cond.inputs) == 2  # the index and x
    assert not {n for b in cond.params["branches"] for n in names(b)} & {"sin", "cos"}
    for p in (True, False):
        same(lambda x, y, p=p: fun(np.bool_(p), x, y), XS, XS)


def test_outputs_of_checkpoints():
    def fun(x):
        return ff.checkpoint(lambda x: (np.sin(x), np.cos(x)))(x)[0]

    assert names(only(simplified(fun, XS), "call").params["program"]) == ["sin"]
    same(fun, XS)


def test_a_loop_in_a_checkpoint_stacks_nothing_the_first_time():
    def segment(w, h, xs):
        return ff.scan(lambda h, x: (np.tanh(h * w + x), None), h, xs)[0]

    def loss(w):
        return np.sum(ff.scan(lambda h, xs: (ff.checkpoint(segment)(w, h, xs), None), XS[0], np.stack([XS, XS]))[0])

    program = simplified(ff.grad(loss), np.ones(2))
    forward = next(e for e in program.equations if e.prim.name == "scan")
    inner = only(only(forward.params["program"], "call").params["program"], "scan")
    assert len(inner.outputs) == 1
    same(ff.grad(loss), np.ones(2))
