"""The examples of failing laws of functions: small, made of literals, and failing in the same way when they are run."""

import functools
from functools import partial

import numpy as np
import pytest
from drawing import Draws

import fnflare as ff
from fnflare import nn, testing, tree
from fnflare.errors import ArgumentError, UnsupportedError
from fnflare.testing import LawError
from fnflare.testing.shrinking import shrink
from fnflare.testing.writing import Writer

RNG = Draws(0)


def normal(*shape):
    return RNG.standard_normal(shape)


@ff.custom_jvp
def crooked(x):
    return np.sin(x)


crooked.defjvps(lambda t, out, x: 1.5 * np.cos(x) * t)


def half_traced(x):
    """Gives something else to a transform."""
    return x * 2 if isinstance(x, (np.ndarray, np.generic, float)) else x * 3


def fails(check, *args, match, small, alike=True, **keywords):
    """The failure of a check, whose example is small and fails alike."""
    with pytest.raises(AssertionError, match=match) as caught:
        check(*args, **keywords)
    failure = caught.value
    assert isinstance(failure, LawError)
    assert small in failure.example
    with pytest.raises(LawError) as again:
        exec(compile(failure.example, "<pasted>", "exec"), {"__name__": "pasted"})
    assert again.value.law == failure.law
    assert not alike or again.value.message == failure.message
    return failure.example


def model(params, x):
    return {"y": crooked(x @ params["W"] + params["b"]), "n": 3}


PARAMS = {"W": normal(3, 4), "b": normal(4)}


def test_check_grads():
    args = (PARAMS, normal(5, 3))
    example = fails(testing.check_grads, model, args, order=1, match="jvp: the tangent, leaf 'y'", small="np.array([[")
    assert "from test_testing_examples import model" in example
    assert "order=1,\n)" in example
    fails(testing.check_grads, model, args, order=1, modes=("rev",), match="vjp: the cot", small="modes=('rev',)")
    fails(testing.check_grads, model, args, order=2, seed=3, match="seed=3", small="seed=3,")


def test_check_jvp_and_check_vjp():
    def f(x):
        return np.sin(x)

    def f_jvp(primals, tangents):
        return f(*primals), tangents[0]

    def f_vjp(x):
        return f(x), lambda ct: (ct,)

    x = normal(4, 3).astype(np.float32)
    fails(testing.check_jvp, f, f_jvp, (x,), match="finite differences give", small="np.float32),)")
    fails(testing.check_vjp, f, f_vjp, (x,), match="finite differences give", small="def f_vjp(x):")
    example = fails(testing.check_vjp, f, f_vjp, (x,), match="finite differences", small="(np.array([[")
    assert example.count("def f(x)") == 1


def test_check_jvp_vjp():
    backward = ff.custom_vjp(np.sin)
    backward.defvjp(lambda x: (np.sin(x), x), lambda x, ct: (ct * np.cos(x) * 2,))

    def parting(x):
        return backward(x) if type(x).__name__ == "TapeTracer" else np.sin(x)

    with pytest.raises(LawError, match="<vjp") as caught:
        testing.check_jvp_vjp(parting, (normal(4, 3),))
    assert "# f: that of" in caught.value.example or "# parting: that of" in caught.value.example
    with pytest.raises(LawError):
        exec(caught.value.example, {"parting": parting})


def test_check_vmap():
    args = (normal(3, 4), normal(4))
    example = fails(testing.check_vmap, half_traced, args[:1], match="vmap, example 0", small="(np.array([[1.0]]),)")
    assert "in_axes" not in example
    fails(
        testing.check_vmap,
        lambda x, w: {"z": half_traced(x) + w},
        args,
        in_axes=(0, None),
        match="leaf 'z'",
        small="in_axes=(0, None)",
    )
    fails(
        testing.check_vmap,
        lambda x: x if x[0] > 0 else -x,
        args[:1],
        match="raises Conc",
        small="lambda x: x if",
        alike=False,
    )


def test_check_jit():
    testing.check_jit(lambda x: {"y": np.cumsum(x), "n": x > 0}, (normal(3, 4),))
    fails(testing.check_jit, half_traced, (normal(3, 4),), match="jit, the interpreter", small="(np.array([[1.0]]),)")
    fails(
        testing.check_jit,
        lambda x: x + float(x[0]),
        (normal(3),),
        match="raises Conc",
        small="float(x[0])",
        alike=False,
    )


def test_check_jit_of_numbers_that_are_not():
    with np.errstate(all="ignore"):
        testing.check_jit(lambda x: np.log(x), (np.array([-1.0, 0.0, 1.0]),))


@ff.custom_vjp
def doubled(x):
    return x * 2


doubled.defvjp(lambda x: (x * 2, None), lambda _, ct: (3 * ct,))


@ff.custom_jvp
def exponential(x):
    return np.exp(x)


@exponential.defjvp
def exponential_jvp(primals, tangents):
    return np.exp(primals[0]), tangents[0]


def halved(x):
    return x / 2


half = ff.custom_vjp(halved)
half.defvjp(lambda x: (x / 2, None), lambda _, ct: (ct,))


def test_rules_of_ones_own_are_in_the_example():
    for f, small in ((doubled, "doubled.defvjp("), (half, "halved_with_rules = ff.custom_vjp(halved)")):
        fails(testing.check_grads, f, (normal(3),), order=1, modes=("rev",), match="vjp: the cotangent", small=small)
        fails(testing.check_model, lambda x, f=f: np.sum(f(x)), normal(3), match="check_model", small=small)
    for f, small in ((exponential, "exponential.defjvp(exponential_jvp)"), (crooked, "crooked.defjvp(rule)")):
        fails(testing.check_grads, f, (normal(3),), order=1, match="jvp: the tangent", small=small)


def test_where_there_is_no_forward_mode_reverse_mode_can_be_checked_alone():
    with pytest.raises(UnsupportedError) as caught:
        testing.check_grads(half, (normal(3),), order=1)
    assert caught.value.__notes__ == ['check_grads: modes=("rev",) checks reverse mode alone']


def writes(x):
    if isinstance(x, np.ndarray):
        x[0] = 1.0
    return x * 2


@pytest.mark.parametrize("check", [testing.check_jit, testing.check_vmap, partial(testing.check_grads, order=1)])
def test_writing_into_an_argument_is_found_and_undone(check):
    x = normal(2, 3)
    before = x.copy()
    with pytest.raises(LawError, match="arguments: the function writes into its arguments, leaf '0'") as caught:
        check(writes, (x,))
    np.testing.assert_array_equal(x, before)
    with pytest.raises(LawError, match="the function writes into its arguments"):
        exec(compile(caught.value.example, "<pasted>", "exec"), {"__name__": "pasted"})


def test_check_model():
    def loss(params, x, *, scale=1.0):
        return np.mean(model(params, x)["y"]) * scale

    example = fails(
        testing.check_model,
        loss,
        PARAMS,
        normal(5, 3),
        scale=2.0,
        directions=2,
        match="<cotangent, v>",
        small="directions=2",
    )
    assert "def loss(params, x, *, scale=1.0):" in example
    assert "scale=2.0" in example
    fails(testing.check_model, loss, PARAMS, normal(5, 3), promote=False, match="<cotangent, v>", small="promote=False")


@pytest.mark.parametrize(
    "check", [testing.check_jit, testing.check_vmap, testing.check_jvp_vjp, partial(testing.check_grads, order=1)]
)
def test_arguments_come_as_a_tuple(check):
    for args in (np.ones(3), 1.0, {"x": np.ones(3)}, nn.Padded(np.ones((1, 2)), np.ones(1, int))):
        with pytest.raises(ArgumentError, match=r"args is a tuple of the function's arguments, got .*; write \(x,\)"):
            check(np.sin, args)


def test_other_errors_pass_through():
    with pytest.raises(ValueError, match="matmul"):
        testing.check_grads(lambda x: x @ x, (normal(2, 3),), order=1)
    with pytest.raises(AssertionError, match=r"^mine") as caught:
        testing.check_grads(lambda x: wrong(x), (normal(2),), order=1)
    assert not isinstance(caught.value, LawError)


def wrong(x):
    raise AssertionError("mine")


# -- shrinking ----------------------------------------------------------------------------------------------------


def test_what_breaks_another_law_is_no_smaller_example():
    def law(x):
        if np.shape(x)[0] < 3:
            raise LawError("short", "too short")
        if np.max(x) > 1:
            raise LawError("large", f"{np.max(x):g} is large")

    x, failure = shrink(law, np.array([0.1, 7.77, 3.3, 0.2]), LawError("large", "7.77 is large"))
    assert (x.tolist(), str(failure)) == ([0.0, 0.0, 3.0], "3 is large")


def test_generic_values_keep_apart_from_zero_and_each_other():
    def law(x):
        if np.sum(np.abs(x)) > 0.01:
            raise LawError("large", "large")

    x, _ = shrink(law, np.array([[0.123, 0.456], [-0.789, 0.0004]]), LawError("large", ""), generic=True)
    assert np.all(x) and len(np.unique(x)) == x.size


def test_shrinking_ends():
    count = []

    def law(x):
        count.append(1)
        raise LawError("always", "")

    shrink(law, [normal(7, 6, 5), {"n": 9, "x": 3.7}], LawError("always", ""), tries=20)
    assert len(count) <= 20


# -- writing ------------------------------------------------------------------------------------------------------


VALUES = [
    np.float32(0.1), np.float64(1e-17), np.array([0.1, np.nan, np.inf, -np.inf], np.float32), np.array([1 + 2j]),
    np.zeros((2, 0), np.float16), np.array(3), np.array([[True, False]]), np.array([1, 2], ">i4"),
    np.array(["a", "b"]), np.uint64(2**63), ff.random.key(3), (1,), [None, ..., slice(1, None, 2)], "it's", 2.5, True,
    float("inf"), 1j, b"x", {"a": {"b": (1.5, [])}, "c": ()}, nn.Padded(np.ones((2, 3)), np.array([3, 1])),
    np.full((2, 3), 0.25, np.float32), np.ones(5), np.zeros((2, 2)), -np.zeros((2, 2)), np.array([], np.int64),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_from_their_text(value):
    writer = Writer()
    text = writer.expression(value)
    space = {}
    exec(writer.code(f"value = {text}"), space)
    back = space["value"]
    assert tree.structure(back) == tree.structure(value)
    for x, y in zip(tree.leaves(back), tree.leaves(value), strict=True):
        assert type(x) is type(y)
        if isinstance(y, (np.ndarray, np.generic)):
            assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
        else:
            assert x == y


def test_functions_come_back_from_their_text():
    factor = np.array([2.0, 3.0])

    def inner(x):
        return x * factor

    def outer(x, n):
        return inner(x) + n if n else np.sin(x) + normal(2) * 0

    functions = [
        outer,
        lambda x, n: outer(x, n + 1),
        functools.partial(outer, n=2),
        (lambda x, n: x + n, lambda x, n: x - n)[1],
    ]
    for f in functions:
        writer = Writer()
        text = writer.expression(f)
        space = {"__name__": "pasted"}
        exec(writer.code(f"f = {text}"), space)
        args = (factor,) if isinstance(f, functools.partial) else (factor, 1)
        np.testing.assert_array_equal(space["f"](*args), f(*args))


def crooked_too(f):
    g = ff.custom_jvp(f)
    g.defjvps(lambda t, out, x: t * 7)
    return g


class Crooked:
    scale = 2.0

    def __init__(self, factor):
        self.factor = factor

    def method(self, x):
        return crooked_too(np.sin)(x) * self.factor

    @staticmethod
    def alone(x):
        return crooked_too(np.sin)(x)

    @classmethod
    def of_class(cls, x):
        return crooked_too(np.sin)(x) * cls.scale


def multiplied(factor, x):
    return crooked_too(np.sin)(x) * factor


def ready_or_not():
    def f(x):
        return crooked_too(np.sin)(x) * 2 if x is not None else later

    if not callable(f):
        later = 1
    return f


def around(t):
    return lambda x: crooked_too(np.sin)(x) * t


def around_many(t):
    return lambda x: crooked_too(np.sin)(x) * len(t)


def named_as_another(x):
    return crooked_too(np.sin)(x)


named_as_another.__name__ = named_as_another.__qualname__ = "sine"

WRITTEN = {
    "static method": Crooked.alone,
    "class method": Crooked.of_class,
    "partial": functools.partial(multiplied, 2.0),
    "lambda": lambda x: crooked_too(np.sin)(x) * abs(-3),
    "one of two lambdas": [lambda x: np.sin(x), lambda x: crooked_too(np.sin)(x) * 2][1],
    "a variable without a value": ready_or_not(),
    "an array around": around(np.array([0.5, 2.0])),
}
#: What has no text, or not in itself alone.
NOT_WRITTEN = {
    "method of an object": Crooked(2.0).method,
    "decorated by an object": crooked_too(np.sin),
    "under the name of another": named_as_another,
    "objects around": around_many(np.array([object()])),
    "much around": around_many([normal(1) for _ in range(300)]),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_functions_of_every_kind_are_written(name):
    fails(testing.check_grads, WRITTEN[name], (normal(2),), order=1, match="the tangent", small="testing.check_grads(")


@pytest.mark.parametrize("name", NOT_WRITTEN)
def test_functions_without_a_text_are_named(name):
    f = NOT_WRITTEN[name]
    with pytest.raises(LawError, match="# f: that of your call, which could not be written here") as caught:
        testing.check_grads(f, (normal(2),), order=1)
    with pytest.raises(LawError) as again:
        exec(compile(caught.value.example, "<pasted>", "exec"), {"__name__": "pasted", "f": f})
    assert again.value.message == caught.value.message
