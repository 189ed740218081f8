"""What leaves a loop: products of the inputs before it, gradients of weights and projections of outputs after it; and
what does not. Values and gradients stay those of the loop in Python."""

import math

import numpy as np
import pytest
from drawing import Draws
from programs import names

import fnflare as ff
from fnflare import tree
from fnflare.core import aval_of
from fnflare.program import Program, trace_program
from fnflare.testing import check_grads, check_vmap

RNG = Draws(21)
#: Steps, batch, features, units: no two alike, so that a shape says what an array is.
T, N, F, H = 7, 2, 5, 3


def normal(*shape):
    return RNG.standard_normal(shape) / 2


def program_of(f, *args):
    """The program of a function of trees of arrays."""
    leaves, structure = tree.flatten(args)
    return trace_program(
        lambda *xs: tree.leaves(f(*tree.unflatten(structure, xs))), [aval_of(x) for x in leaves]
    ).program


def loops(program):
    """The equations that are scans, also those in the programs of others."""
    found = []
    for e in program.equations:
        if e.prim.name == "scan":
            found.append(e)
        for value in (e.params or {}).values():
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, Program):
                    found += loops(inner)
    return found


def bodies(f, *args):
    """The programs that loop when `f` runs."""
    return [e.params["program"] for e in loops(program_of(f, *args))]


def shapes(program):
    """The shapes that the equations of a program read and write."""
    return {a.aval.shape for e in program.equations for a in (*e.inputs, *e.outputs)}


def close(got, expected):
    for a, b in zip(tree.leaves(got), tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


# -- recurrent cells ----------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn(p, h, x):
    h = np.tanh(x @ p["W"] + h @ p["U"] + p["b"])
    return h, h


def gru(p, h, x):
    gates = sigmoid(x @ p["W"][:, : 2 * H] + h @ p["U"][:, : 2 * H] + p["b"][: 2 * H])
    r, z = gates[..., :H], gates[..., H:]
    n = np.tanh(x @ p["W"][:, 2 * H :] + (r * h) @ p["U"][:, 2 * H :] + p["b"][2 * H :])
    h = (1 - z) * n + z * h
    return h, h


def lstm(p, carry, x):
    h, c = carry
    i, f, g, o = np.split(x @ p["W"] + h @ p["U"] + p["b"], 4, axis=-1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    return (h, c), h


def normalised(x, scale):
    x = x - np.mean(x, axis=-1, keepdims=True)
    return scale * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5)


def peephole(p, carry, x):
    """A cell that the library does not have: layer norm on every gate's input, and gates that look at the cell."""
    h, c = carry["h"], carry["c"]
    gates = normalised(x @ p["W"], p["scale"][0]) + normalised(h @ p["U"], p["scale"][1]) + p["b"]
    i, f, g, o = [gates[..., k * H : (k + 1) * H] for k in range(4)]
    c = sigmoid(f + p["peep"][0] * c) * c + sigmoid(i + p["peep"][1] * c) * np.tanh(g)
    h = sigmoid(o + p["peep"][2] * c) * np.tanh(normalised(c, p["scale"][2, :H]))
    return {"h": h, "c": c}, h


def weights(gates, **more):
    return {"W": normal(F, gates * H), "U": normal(H, gates * H), "b": normal(gates * H), **more}


CELLS = {
    "rnn": (rnn, weights(1), lambda h: h),
    "gru": (gru, weights(3), lambda h: h),
    "lstm": (lstm, weights(4), lambda h: (h, h / 2)),
    "peephole": (peephole, weights(4, scale=1 + normal(3, 4 * H), peep=normal(3, H)), lambda h: {"h": h, "c": h / 2}),
}


def loss_of(cell, carry, reverse):
    def loss(params, h, xs):
        last, ys = ff.scan(lambda c, x: cell(params, c, x), carry(h), xs, reverse=reverse)
        return np.mean(np.sin(ys)) + sum(np.mean(x * x) for x in tree.leaves(last))

    return loss


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("batch", [(), (N,)])
@pytest.mark.parametrize("name", list(CELLS))
class TestCells:
    def made(self, name, batch, reverse):
        cell, params, carry = CELLS[name]
        return loss_of(cell, carry, reverse), (params, normal(*batch, H), normal(T, *batch, F))

    def test_no_product_of_inputs_or_for_a_weight_is_in_a_loop(self, name, batch, reverse):
        loss, args = self.made(name, batch, reverse)
        weight = args[0]["U"].size
        for f, count in ((loss, 1), (ff.grad(loss, argnums=(0, 1, 2)), 2), (ff.jit(ff.value_and_grad(loss)), 2)):
            found = bodies(f, *args)
            assert len(found) == count
            for body in found:
                assert not any(F in shape for shape in shapes(body)), "the inputs are in the loop"
                made = [math.prod(v.aval.shape) for e in body.equations for v in e.outputs]
                assert max(made) < weight, "something as large as a weight is made in the loop"
                products = [e for e in body.equations if e.prim.name in ("matmul", "einsum")]
                assert len(products) <= (2 if name == "gru" else 1)

    def test_derivatives_do_not_bring_them_back(self, name, batch, reverse):
        loss, args = self.made(name, batch, reverse)
        for f in (lambda p, h, xs: ff.jvp(loss, (p, h, xs), (p, h, xs)), ff.grad(ff.checkpoint(loss))):
            for body in bodies(f, *args):
                assert not any(F in shape for shape in shapes(body))

    def test_values_and_gradients_are_those_of_the_loop(self, name, batch, reverse):
        loss, args = self.made(name, batch, reverse)
        everything = (0, 1, 2)
        with ff.disable_jit():
            value, gradients = ff.value_and_grad(loss, argnums=everything)(*args)
            second = ff.jvp(ff.grad(loss), args, args)[1]
        for run in (loss, ff.jit(loss)):
            got = ff.value_and_grad(run, argnums=everything)(*args)
            close(got, (value, gradients))
            close(ff.jvp(ff.grad(run), args, args)[1], second)
        close(ff.jit(ff.grad(loss, argnums=everything))(*args), gradients)
        close(ff.jit(lambda *a: ff.jvp(ff.grad(loss), a, a)[1])(*args), second)

    def test_batches_of_gradients(self, name, batch, reverse):
        loss, (params, h, xs) = self.made(name, batch, reverse)
        check_vmap(ff.grad(loss), (params, np.stack([h, -h]), np.stack([xs, 2 * xs])), (None, 0, 0))
        f = ff.vmap(ff.grad(loss), (None, 0, 0))
        for body in bodies(f, params, np.stack([h, -h]), np.stack([xs, 2 * xs])):
            assert not any(F in shape for shape in shapes(body))


def test_few_steps():
    for steps in (0, 1):
        for cell, params, carry in CELLS.values():
            loss = lambda p, h, xs, cell=cell, carry=carry: sum(  # noqa: E731
                np.sum(np.sin(x)) for x in tree.leaves(ff.scan(lambda c, x: cell(p, c, x), carry(h), xs))
            )
            args = params, normal(N, H), normal(steps, N, F)
            gradients = ff.grad(loss, argnums=(0, 1, 2))(*args)
            close(ff.jit(ff.grad(loss, argnums=(0, 1, 2)))(*args), gradients)
            with ff.disable_jit():
                close(ff.grad(loss, argnums=(0, 1, 2))(*args), gradients)


# -- what leaves before the loop ----------------------------------------------------------------


def test_what_depends_on_constants_alone_runs_once():
    def f(w, h, xs):
        return ff.scan(lambda c, x: (np.tanh(c @ (w @ w.T) + x), np.sum(np.exp(w))), h, xs)

    args = normal(H, H), normal(H), normal(T, H)
    (body,) = bodies(f, *args)
    assert sorted(set(names(body))) == ["add", "matmul", "tanh"]
    check_grads(f, args, order=2)


def test_functions_of_the_inputs_run_for_all_steps_at_once():
    def f(w, h, xs):
        def step(c, x):
            y = np.tanh(np.sin(x["a"]) @ w) * x["b"]
            return c * y, (y, x["a"])

        return ff.scan(step, h, xs)

    args = normal(F, H), normal(H), {"a": normal(T, F), "b": normal(T)}
    (body,) = bodies(f, *args)
    assert names(body) == ["multiply"]
    check_grads(f, args, order=2)
    check_vmap(f, (args[0], normal(4, H), args[2]), (None, 0, None))


@pytest.mark.parametrize(
    "lookup", [lambda e, i: np.take(e, i, axis=0), lambda e, i: e[i], lambda e, i: ff.at(e)[i].get()]
)
def test_embeddings(lookup):
    """Rows of a table, and their products, are read before the loop; their gradients are added up after it."""
    words, features = 11, 40

    def loss(table, w, h, ids):
        def step(c, i):
            c = np.tanh(c + (lookup(table, i) * np.cos(lookup(table, (i + 1) % words))) @ w)
            return c, c

        return np.sum(np.sin(ff.scan(step, h, ids)[1]))

    for ids, h in ((np.array([3, 0, 3, 10, -1]), normal(H)), (RNG.integers(0, words, (T, N)), normal(N, H))):
        args = normal(words, features), normal(features, H), h, ids
        wanted = (0, 1, 2)
        for body in bodies(ff.value_and_grad(loss, argnums=wanted), *args):
            assert not any({words, features} & set(shape) for shape in shapes(body))
        with ff.disable_jit():
            expected = ff.grad(loss, argnums=wanted)(*args)
        close(ff.grad(loss, argnums=wanted)(*args), expected)
        close(ff.jit(ff.grad(loss, argnums=wanted))(*args), expected)


GATHERS = {
    "a row": lambda e, k: e[k],
    "a row of all columns": lambda e, k: e[k, ...],
    "rows": lambda e, k: np.sum(e[np.stack([k, (k + 1) % 11]), :], axis=0),
    "from the end": lambda e, k: np.take(e, k - 11, axis=0),
}


@pytest.mark.parametrize("name", list(GATHERS))
def test_gradients_of_rows_at_places_that_the_loop_finds(name):
    """The rows are read in the loop; their gradients are added up after it."""
    words = 11

    def loss(table, h, loop):
        def step(c, _):
            k, h = c
            return ((k * 3 + 1) % words, np.tanh(GATHERS[name](table, k) + h)), None

        return np.sum(np.square(loop(step, (np.array(2), h), None, length=6)[0][1]))

    def in_python(step, c, _, length):
        for _ in range(length):
            c = step(c, None)[0]
        return c, None

    args = normal(words, H), normal(H)
    forward, backward = bodies(ff.grad(lambda *a: loss(*a, ff.scan)), *args)
    assert (words, H) in shapes(forward)
    assert (words, H) not in shapes(backward)
    expected = ff.grad(lambda *a: loss(*a, in_python))(*args)
    close(ff.grad(lambda *a: loss(*a, ff.scan))(*args), expected)
    close(ff.jit(ff.grad(lambda *a: loss(*a, ff.scan)))(*args), expected)
    check_grads(lambda *a: loss(*a, ff.scan), args, order=2)


def test_what_would_grow_too_much_stays():
    """A one-hot code is as long as the vocabulary; those of all steps are not stored, but a product of them is made
    in its step."""
    words = 1000

    def f(table, h, ids):
        def step(c, i):
            code = np.where(np.arange(words) == i, 1.0, 0.0)
            return np.tanh(c + code @ table), None

        return ff.scan(step, h, ids)[0]

    args = normal(words, H), normal(H), np.array([3, 999, 0])
    program = program_of(f, *args)
    assert max(v.aval.size for e in program.equations for v in e.outputs) < 3 * words
    (body,) = bodies(f, *args)
    assert (words,) in shapes(body)
    expected = args[1]
    for i in args[2]:
        expected = np.tanh(expected + args[0][i])
    close(f(*args), expected)
    check_grads(lambda t, h: f(t, h, args[2]), args[:2], order=1)


# -- what leaves after the loop -----------------------------------------------------------------


def test_projections_of_outputs():
    def f(w, v, h, xs):
        def step(c, x):
            c = np.tanh(c + x @ w)
            return c, {"p": ff.ops.softmax(c @ v), "r": np.sum(np.exp(c) * x[0])}

        return ff.scan(step, h, xs)

    args = normal(F, H), normal(H, 11), normal(H), normal(T, F)
    (body,) = bodies(f, *args)
    assert sorted(names(body)) == ["add", "tanh"]
    check_grads(f, args, order=2)
    for body in bodies(ff.grad(lambda *a: np.sum(np.sin(f(*a)[1]["p"])), argnums=(0, 1, 2, 3)), *args):
        assert not any({F, 11} & set(shape) for shape in shapes(body))
    with ff.disable_jit():
        expected = f(*args)
    close(f(*args), expected)
    close(f(*args[:3], args[3][:0])[0], args[2])


SUMS = {
    "inputs": (lambda c, x: c + x, (H,), (T, H)),
    "inputs first": (lambda c, x: x + c, (H,), (T, H)),
    "subtracted": (lambda c, x: c - np.sin(x), (H,), (T, H)),
    "two terms": (lambda c, x: c + x - np.cos(x), (H,), (T, H)),
    "two terms in brackets": (lambda c, x: (np.sin(x) + c) + (x * 2 + np.cos(x)), (H,), (T, H)),
    "outer products": (lambda c, x: c + np.outer(x, x * 2), (F, F), (T, F)),
    "outer products by broadcasting": (lambda c, x: c + x[:, None] * np.sin(x)[None, :], (F, F), (T, F)),
    "outer products the other way round": (lambda c, x: c + np.sin(x)[None, :] * x[:, None], (F, F), (T, F)),
    "products of matrices": (lambda c, x: c + x.T @ np.sin(x), (F, F), (T, N, F)),
    "transposed": (lambda c, x: c - (x.T @ np.sin(x)).T, (F, F), (T, N, F)),
    "reshaped": (lambda c, x: c + (x.T @ x).reshape(-1), (F * F,), (T, N, F)),
    "sums over rows": (lambda c, x: c + np.sum(np.sin(x), axis=0), (F,), (T, N, F)),
    "sums over everything": (lambda c, x: c + np.sum(x * x), (), (T, N, F)),
    "means": (lambda c, x: c + np.mean(x, axis=-1, keepdims=True), (N, 1), (T, N, F)),
    "into the first row": (lambda c, x: c + ff.at(np.zeros((F, N)))[0].add(x[:, 0]), (F, N), (T, N, F)),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", list(SUMS))
def test_carries_that_add_up_leave(name, reverse):
    f, shape, inputs = SUMS[name]

    def run(init, xs):
        return ff.scan(lambda c, x: (f(c, x), None), init, xs, reverse=reverse)[0]

    init, xs = np.asarray(normal(*shape)), normal(*inputs)
    if name != "into the first row":
        assert loops(program_of(run, init, xs)) == []
    with ff.disable_jit():
        expected = run(init, xs)
    close(run(init, xs), expected)
    close(ff.jit(run)(init, xs), expected)
    close(run(init, xs[:0]), init)
    check_grads(run, (init, xs), order=2)
    check_vmap(run, (np.stack([init, -init]), np.stack([xs, xs * 2])))
    single = ff.scan(lambda c, x: (f(c, x).astype(np.float32), None), init.astype(np.float32), xs.astype(np.float32))[0]
    assert single.dtype == np.float32


STAY = {
    "read by another carry": lambda c, x: ((c[0] + x, c[1] * c[0]), None),
    "read by an output": lambda c, x: ((c[0] + x, c[1] * 0.5), c[0]),
    "scaled": lambda c, x: ((c[0] * 0.9 + x, c[1]), None),
    "added twice": lambda c, x: ((c[0] + c[0] + x, c[1]), None),
    "subtracted from": lambda c, x: ((x - c[0], c[1]), None),
    "swapped": lambda c, x: ((c[1] + x, c[0] + x), None),
    "a term with the carry in it": lambda c, x: ((c[0] + np.sin(c[0]) * x, c[1]), None),
    "returned as well": lambda c, x: ((c[0] + x, c[1]), c[0] + x),
    "replaced": lambda c, x: ((x, c[0]), None),
}


@pytest.mark.parametrize("name", list(STAY))
def test_other_carries_stay(name):
    f = STAY[name]

    def run(init, xs):
        return ff.scan(f, init, xs)

    args = (normal(H), normal(H)), normal(T, H)
    with ff.disable_jit():
        expected = run(*args)
    close(run(*args), expected)
    close(ff.jit(run)(*args), expected)
    assert len(loops(program_of(run, *args))) == 1
    check_grads(run, args, order=2)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.int64, np.uint64, bool, np.float16, np.complex64])
def test_sums_keep_their_dtype(dtype):
    xs = np.array([[1, 0], [0, 1], [1, 1]]).astype(dtype)
    init = np.array([1, 0]).astype(dtype)
    expected = init
    for x in xs:
        expected = expected + x
    for run in (ff.scan, ff.jit(ff.scan, static_argnums=0)):
        got = run(lambda c, x: (c + x, None), init, xs)[0]
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, expected)


def test_sums_keep_their_precision():
    """Adding up in single precision what is made in half does not overflow, nor do integers of one byte."""
    half = np.full(100, 6e4, np.float16)
    assert ff.scan(lambda c, x: (c + x.astype(np.float32), None), np.float32(0), half)[0] == np.float32(half[0]) * 100
    small = np.full(1000, 3, np.uint8)
    assert ff.scan(lambda c, x: (c + x.astype(np.int64), None), np.int64(0), small)[0] == 3000
    assert ff.scan(lambda c, x: (c + (-x).astype(np.float64), None), 0.0, small)[0] == 253000
    assert ff.scan(lambda c, x: (c + (x > 2), None), np.int64(0), small)[0] == 1000

    def loss(w, xs):  # parameters in double, computation in single precision
        return np.sum(ff.scan(lambda c, x: (np.tanh(c + x @ w.astype(np.float32)), None), xs[0, :, :H], xs)[0])

    w, xs = normal(F, H), normal(T, N, F).astype(np.float32)
    gradient = ff.jit(ff.grad(loss))(w, xs)
    assert gradient.dtype == np.float64
    with ff.disable_jit():
        np.testing.assert_allclose(gradient, ff.grad(loss)(w, xs), rtol=1e-5)
    for body in bodies(ff.grad(loss), w, xs):
        assert not any(F in shape for shape in shapes(body))


# -- what has to stay ---------------------------------------------------------------------------


@ff.custom_vjp
def clipped(x):
    return np.minimum(x, 0.5)


clipped.defvjp(lambda x: (clipped(x), x), lambda x, ct: (ct * (x < 0.5) * 2.0,))


def test_custom_rules_in_bodies_keep_their_rules():
    def loss(w, xs):
        return np.sum(ff.scan(lambda c, x: (np.tanh(c + clipped(x @ w)), c), np.zeros(H), xs)[0])

    args = normal(F, H), normal(T, F)
    with ff.disable_jit():
        expected = loss(*args), ff.grad(loss, argnums=(0, 1))(*args)
    for f in (loss, ff.jit(loss)):
        close((f(*args), ff.grad(f, argnums=(0, 1))(*args)), expected)
    close(ff.jit(ff.grad(loss, argnums=(0, 1)))(*args), expected[1])


def test_loops_and_choices_in_bodies_stay():
    def f(h, xs):
        def step(c, x):
            a = ff.while_loop(lambda u: np.sum(np.abs(u)) < 2, lambda u: u * 1.5 + 0.1, x)
            b = ff.cond(x[0] > 0, np.sin, np.cos, x)
            d = ff.scan(lambda s, y: (s * y, s), x[0], x)[1]
            return np.tanh(c + a * b), a + d

        return ff.scan(step, h, xs)

    args = normal(H), normal(T, H)
    found = [
        e
        for e in loops(program_of(f, *args))
        if any(i.prim.name == "while_loop" for i in e.params["program"].equations)
    ]
    assert len(found) == 1
    assert {"cond", "scan", "while_loop"} <= set(names(found[0].params["program"]))
    with ff.disable_jit():
        expected = f(*args)
    close(f(*args), expected)
    close(ff.jit(f)(*args), expected)
    check_vmap(f, (np.stack([args[0], -args[0]]), np.stack([args[1], -args[1]])))


def test_random_numbers_are_those_of_the_loop():
    def f(h, keys):
        return ff.scan(lambda c, k: (np.tanh(c + ff.random.normal(k, (H,), np.float64)), ff.random.uniform(k)), h, keys)

    keys = ff.random.split(ff.random.key(5), T)
    with ff.disable_jit():
        expected = f(np.ones(H), keys)
    close(f(np.ones(H), keys), expected)
    close(ff.jit(f)(np.ones(H), keys), expected)


def put_together(*parts):
    return np.concatenate(parts, axis=1)


Z = np.zeros
#: What a step gives, of a carry (3, 2) and an input (3, 4), with products and sums of arrays put together from parts.
PARTS = {
    "product": lambda c, x: put_together(c, Z((3, 2))) * x,
    "product with a part of the input's": lambda c, x: put_together(c, np.sin(x[:, :2])) * x,
    "product that repeats the parts": lambda c, x: put_together(c[:1], Z((1, 2))) * x,
    "product that repeats one part": lambda c, x: np.concatenate([c[0, :1]]) * x,
    "product of parts of two dtypes": lambda c, x: put_together(c.astype(np.float32), np.sin(c)) * x,
    "sum": lambda c, x: put_together(c, Z((3, 2))) + put_together(Z((3, 2)), x[:, :2]),
    "sum with zeros in both": lambda c, x: put_together(Z((3, 2)), c) + put_together(Z((3, 1)), x[:, :1], Z((3, 2))),
    "sum with zeros last": lambda c, x: put_together(c, Z((3, 2))) + put_together(Z((3, 2)), x[:, :1], Z((3, 1))),
    "sum of parts in one place": lambda c, x: put_together(c, x[:, :2]) + put_together(x[:, 2:], c),
    "sum of parts that overlap": lambda c, x: put_together(c, Z((3, 2))) + put_together(Z((3, 1)), x[:, :3]),
    "sum that repeats one": lambda c, x: put_together(Z((3, 2)), c) + put_together(c[:1], Z((1, 2))),
}


@pytest.mark.parametrize("name", list(PARTS))
def test_arrays_put_together_from_parts(name):
    def step(c, x):
        return np.tanh(c) / 2, PARTS[name](c, x)

    def looped(c, xs):
        out = []
        for i in range(len(xs)):
            c, y = step(c, xs[i])
            out.append(y)
        return c, np.stack(out)

    def scanned(c, xs):
        return ff.scan(step, c, xs)

    def loss(run):
        return lambda c, xs: sum(np.sum(a**2) for a in run(c, xs))

    c, xs = normal(3, 2), normal(4, 3, 4)
    expected = looped(c, xs)
    close(scanned(c, xs), expected)
    close(ff.jit(scanned)(c, xs), expected)
    close(ff.jit(ff.grad(loss(scanned), (0, 1)))(c, xs), ff.grad(loss(looped), (0, 1))(c, xs))


def test_parts_of_two_dtypes_keep_their_precision():
    c = np.float32(1) / np.float32(3) * np.ones((3, 2))
    x = np.full((1, 3, 4), 1 / 7)
    y = ff.scan(lambda c, x: (c, PARTS["product of parts of two dtypes"](c + 0, x)), c, x)[1]
    np.testing.assert_array_equal(y[0, :, :2], c.astype(np.float32) * x[0, :, :2])


def test_few_zeros_are_left_of_sums_of_arrays_put_together():
    body = bodies(
        lambda c, xs: ff.scan(lambda c, x: (PARTS["sum"](c[:, :2], x), None), c, xs)[0], normal(3, 4), normal(4, 3, 4)
    )[0]
    assert "add" not in names(body)
