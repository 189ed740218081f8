"""Checkpoints: gradients of the plain function, whatever the policy, and no more stored than it allows."""

import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import checkpoint_policies as policies
from fnflare.core import aval_of
from fnflare.errors import ConcretizationError
from fnflare.program import trace_program
from fnflare.program.partition import partition

RNG = Draws(0)
PARAMS = {"a": RNG.standard_normal((3, 3)), "b": RNG.standard_normal((3, 3))}
X = RNG.standard_normal((2, 3))

POLICIES = [
    None,
    policies.everything_saveable,
    policies.nothing_saveable,
    policies.dots_saveable,
    policies.dots_with_no_batch_dims_saveable,
    policies.save_only_these_names("hidden"),
    policies.save_anything_except_these_names("hidden"),
]


def block(params, x):
    hidden = policies.checkpoint_name(np.sin(x @ params["a"]), "hidden")
    return np.tanh(hidden @ params["b"])


def loss_of(f):
    return lambda params: np.sum(f(params, f(params, X)) ** 2)


def close(a, b):
    for u, v in zip(ff.tree.leaves(a), ff.tree.leaves(b), strict=True):
        np.testing.assert_allclose(u, v, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("policy", POLICIES)
def test_gradients_are_those_of_the_function(policy):
    loss, plain = loss_of(ff.checkpoint(block, policy=policy)), loss_of(block)
    close(loss(PARAMS), plain(PARAMS))
    close(ff.grad(loss)(PARAMS), ff.grad(plain)(PARAMS))
    close(ff.jit(ff.grad(loss))(PARAMS), ff.grad(plain)(PARAMS))
    close(ff.grad(ff.jit(loss))(PARAMS), ff.grad(plain)(PARAMS))
    close(ff.jvp(loss, (PARAMS,), (PARAMS,)), ff.jvp(plain, (PARAMS,), (PARAMS,)))


@pytest.mark.parametrize("policy", POLICIES)
def test_second_derivatives(policy):
    def second(f):
        return ff.grad(lambda p: sum(np.sum(np.sin(g)) for g in ff.tree.leaves(ff.grad(loss_of(f))(p))))(PARAMS)

    close(second(ff.checkpoint(block, policy=policy)), second(block))


@pytest.mark.parametrize("policy", POLICIES)
def test_mapped_and_closed_over(policy):
    def loss(wrap):
        def inner(w, x):
            return np.sum(wrap(lambda y: np.tanh(y @ w))(x))

        return ff.vmap(ff.grad(inner), (None, 0))(PARAMS["a"], X)

    close(loss(ff.checkpoint(policy=policy)), loss(lambda f: f))


def stored(policy):
    """The shapes of what is stored between the passes, beside the arguments."""
    avals = [aval_of(x) for x in (PARAMS["a"], PARAMS["b"], X)]
    program = trace_program(lambda a, b, x: [block({"a": a, "b": b}, x)], avals).program
    part = partition(program, (0, 1), policy)
    return [a.shape for a in part.forward.out_avals[1:]]


def test_a_policy_decides_what_is_stored():
    assert stored(policies.nothing_saveable) == []
    assert stored(policies.dots_saveable) == [(2, 3), (2, 3)]  # both products; the sine and tanh are made again
    assert stored(policies.save_only_these_names("hidden")) == [(2, 3)]
    assert len(stored(policies.everything_saveable)) >= 3


def sines(program):
    """How often a program computes a sine, in its parts too."""
    total = 0
    for e in program.equations:
        inner = (e.params or {}).get("program")
        total += (e.prim.name == "sin") + (0 if inner is None else sines(inner))
    return total


def test_the_work_is_done_again_and_not_shared():
    def program(wrap):
        loss = lambda x: np.sum(wrap(lambda y: np.cos(np.sin(np.sin(y))))(x))  # noqa: E731
        return ff.make_program(ff.value_and_grad(loss), simplify=True)(X)

    assert sines(program(lambda f: f)) == 3  # two forward, and that of cos' derivative
    assert sines(program(ff.checkpoint)) == 5  # the two forward ones run again


def test_a_policy_needs_a_function_that_can_be_traced():
    def branching(x):
        return x if np.sum(x) > 0 else -x

    close(ff.grad(lambda x: np.sum(ff.checkpoint(branching)(x)))(X), np.sign(np.sum(X)) * np.ones_like(X))
    with pytest.raises(ConcretizationError):
        ff.grad(lambda x: np.sum(ff.checkpoint(branching, policy=policies.nothing_saveable)(x)))(X)


def test_scans_of_checkpointed_scans():
    xs = RNG.standard_normal((4, 5, 2, 3))

    def segment(w, h, part):
        return ff.scan(lambda h, x: (np.tanh(h @ w + x), None), h, part)[0]

    def plain(w):
        return np.sum(segment(w, np.zeros((2, 3)), xs.reshape(20, 2, 3)))

    def segmented(w):
        return np.sum(ff.scan(lambda h, part: (ff.checkpoint(segment)(w, h, part), None), np.zeros((2, 3)), xs)[0])

    close(ff.grad(segmented)(PARAMS["a"]), ff.grad(plain)(PARAMS["a"]))
    close(ff.jit(ff.grad(segmented))(PARAMS["a"]), ff.grad(plain)(PARAMS["a"]))


def test_only_the_borders_of_segments_are_kept():
    segments, steps, batch, features, units = 6, 4, 2, 5, 3
    xs = RNG.standard_normal((segments, steps, batch, features))
    params = {"w": RNG.standard_normal((features, units)), "u": PARAMS["a"]}

    def segment(params, carry, part):
        def step(carry, x):
            h = np.tanh(x @ params["w"] + carry[0] @ params["u"])
            return (h, carry[1] + np.sum(h * h)), None

        return ff.scan(step, carry, part)[0]

    def loss(params):
        start = (np.zeros((batch, units)), 0.0)
        return ff.scan(lambda c, part: (ff.checkpoint(segment)(params, c, part), None), start, xs)[0][1]

    def sizes(program):
        for e in program.equations:
            yield from [v.aval.size for v in e.outputs if e.prim.name not in ("reshape", "transpose")]
            if e.prim.carries == "program":
                yield from sizes(e.params["program"])

    # Neither the states of all steps, nor a gradient of the weights for each segment.
    program = ff.make_program(ff.grad(loss), simplify=True)(params)
    assert max(sizes(program)) == segments * batch * units
